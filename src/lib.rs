//! Fyrd: encrypted cluster membership, a drop-in for Serf.

pub mod agent;
pub mod cli;
pub mod events;
pub mod node;
pub mod serf;
pub mod swim;
pub mod time;
pub mod wire;
