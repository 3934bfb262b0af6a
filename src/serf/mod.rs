//! What the cluster says: Lamport clocks, intents, events, queries, coordinates.

mod types;

pub use types::*;
