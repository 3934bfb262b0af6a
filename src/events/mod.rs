//! Fan-out behind the node: coalescing, filters, and the hub from which listeners are served.

pub mod coalesce;
pub mod filter;
pub mod hub;
