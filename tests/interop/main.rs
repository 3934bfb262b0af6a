//! Fyrd beside what others made: the real Serf above all, and clients, balancers, clocks and networks.
#![cfg(target_os = "linux")]

mod addresses;
mod agent_config_against_serf;
mod chacha;
mod cli_against_serf;
mod cluster;
mod driver;
mod events;
mod evidence;
mod faults;
mod islands;
mod key_rotation;
mod lifecycle;
mod manual;
mod mdns;
mod moves;
mod packages;
mod prometheus;
mod rpc;
mod scenario_examples;
mod scenario_handlers;
mod snapshot_cluster;
mod snapshot_serf;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod syslog;
mod templates;
