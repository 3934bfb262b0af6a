//! What attackers, broken programs and bad luck can send to an agent, which shall not mind.
#![cfg(target_os = "linux")]

mod http;
mod process;
mod rpc;
#[path = "../support/mod.rs"]
mod support;
mod trust;
