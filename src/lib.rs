//! Fyrd.

pub mod bounds;
pub mod wire;
