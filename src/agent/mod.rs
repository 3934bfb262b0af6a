//! The daemon: configuration, start-up, ordered shutdown, logging, signals.

pub mod address;
pub mod config;
pub mod files;
mod json;
