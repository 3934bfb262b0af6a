//! Agents of our own, alone and in clusters, from start to end: needs nothing but Rust, except for the
//! tests that are marked with what else they need.
#![cfg(target_os = "linux")]

mod cli_bad_input;
mod cli_kindness;
mod crash;
mod environment;
mod first_hour;
mod handlers;
mod http;
mod isolation;
mod labels;
mod lifecycle;
mod links;
mod logs;
mod moves;
mod reload;
mod rpc_clients;
mod rpc_stream;
mod secrets;
mod service_manager;
mod simulate;
mod snapshot_campaign;
mod snapshot_cli;
mod snapshot_crash;
mod snapshot_disk;
mod snapshot_move;
mod snapshot_store;
mod snapshot_trouble;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod templates;
mod trouble;
mod validate;
