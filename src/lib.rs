//! Fyrd: encrypted cluster membership, a drop-in for Serf.

pub mod addr;
pub mod agent;
pub mod bounds;
pub mod cli;
pub mod deadline;
pub mod driver;
pub mod duration;
pub mod events;
#[cfg(test)]
mod logged;
pub mod names;
pub mod node;
pub mod os_error;
pub mod outbox;
pub mod re2;
pub mod rpc;
pub mod serf;
pub mod sim;
pub mod snapshot;
pub mod swim;
pub mod time;
pub mod wire;
