//! Fyrd: encrypted cluster membership, a drop-in for Serf.

pub mod agent;
pub mod cli;
pub mod driver;
pub mod events;
pub mod go;
pub mod http;
#[cfg(test)]
mod logged;
mod nearest;
mod pace;
pub mod queue;
pub mod rpc;
mod seats;
pub mod snapshot;
#[cfg(feature = "templates")]
pub mod templates;
