//! Fan-out behind the node: coalescing, filters, the hub from which listeners are served, and the
//! handlers, which are scripts.

pub mod coalesce;
pub mod environment;
pub mod filter;
pub mod handlers;
pub mod hub;
#[cfg(unix)]
pub(crate) mod orphans;
pub(crate) mod script;
pub mod shell;
pub mod user_coalesce;
mod window;
