//! The Serf and memberlist protocols without I/O: every decision that a Fyrd agent makes.
//!
//! From the bottom up: [`msgpack`] reads and writes values, [`wire`] turns bytes into messages and back, [`swim`] knows who is alive, [`serf`]
//! what the cluster says, and [`node`] puts both behind one door.

pub mod addr;
pub mod bounds;
pub mod deadline;
pub mod duration;
pub mod envelope;
mod hash;
pub mod msgpack;
pub mod names;
pub mod node;
pub mod outbox;
pub mod re2;
pub mod repeats;
pub mod serf;
pub mod swim;
pub mod time;
pub mod wire;
