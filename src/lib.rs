//! Fyrd: encrypted cluster membership, a drop-in for Serf.

pub mod agent;
pub mod cli;
pub mod driver;
pub mod events;
pub mod go;
#[cfg(test)]
mod logged;
pub mod rpc;
pub mod snapshot;
