//! Fyrd.
pub mod cli;
pub mod rpc;
