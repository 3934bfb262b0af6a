//! Fyrd: encrypted cluster membership, a drop-in for Serf.

pub mod addr;
pub mod bounds;
pub mod deadline;
pub mod names;
pub mod node;
pub mod serf;
pub mod sim;
pub mod swim;
pub mod time;
pub mod wire;
