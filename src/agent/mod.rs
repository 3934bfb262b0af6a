//! The daemon: configuration, start-up, ordered shutdown, logging, signals.
//!
//! [`config`] and [`files`] give settings, [`plan`] checks them, [`run`] starts what the plan says and
//! waits for its end. [`Agent`] is what RPC reaches of it.

pub mod address;
pub mod config;
mod event_loop;
pub mod files;
mod join;
mod json;
mod log_writer;
pub mod logging;
pub mod mdns;
pub mod plan;
mod shutdown;
mod signals;
mod startup;
mod stats;
mod syslog;
pub mod telemetry;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tracing::{error, info};

pub use startup::run;

use crate::driver::{Handle, Stopped};
use crate::events::hub::Hub;
use crate::rpc::server::Backend;
use crate::serf::{Answer, Command, Member, Tags};
use crate::swim::measures::Tally;
use crate::wire::serf::WireCoordinate;
use config::Secret;

/// A running agent, as RPC and signals reach it. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Agent(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    driver: Handle,
    /// Where events are listened to.
    hub: Rc<Hub>,
    telemetry: telemetry::Recorder,
    name: String,
    rpc_auth: Secret,
    tags_file: Option<String>,
    encrypted: bool,
    bind_port: u16,
    /// Whether the leave is over.
    left: Cell<bool>,
}

impl Agent {
    /// Leaves gracefully; comes back when that is over.
    pub async fn leave_cluster(&self) -> Result<(), String> {
        info!(target: "agent", "requesting graceful leave from Serf");
        let result = self.command(Command::Leave).await;
        match &result {
            Ok(()) => self.0.left.set(true),
            Err(reason) => error!(target: "agent", "failed to leave: {reason}"),
        }
        result
    }

    /// Whether this agent has left the cluster.
    pub fn has_left(&self) -> bool {
        self.0.left.get()
    }

    async fn command(&self, command: Command) -> Result<(), String> {
        match self.0.driver.command(command).await {
            Ok(Answer::Failed(reason)) => Err(reason),
            Ok(_) => Ok(()),
            Err(Stopped) => Err("Serf is shutting down".to_string()),
        }
    }

    /// The tags as they will be, first without `delete`, then with `set`.
    async fn changed_tags(&self, set: Tags, delete: Vec<String>) -> Result<(Tags, Tags), String> {
        let old = self
            .0
            .driver
            .read(|node| node.tags().clone())
            .await
            .map_err(|e| e.to_string())?;
        let mut new = old.clone();
        new.retain(|name, _| !delete.contains(name));
        new.extend(set);
        Ok((old, new))
    }
}

impl Backend for Agent {
    fn rpc_auth(&self) -> Option<&str> {
        Some(self.0.rpc_auth.expose()).filter(|token| !token.is_empty())
    }

    async fn members(&self) -> Vec<Arc<Member>> {
        self.0
            .driver
            .read(|node| node.members())
            .await
            .unwrap_or_default()
    }

    async fn join(&self, existing: Vec<String>, replay: bool) -> Result<usize, String> {
        self.join_all(&existing, replay).await
    }

    async fn leave(&self) -> Result<(), String> {
        self.leave_cluster().await
    }

    async fn force_leave(&self, name: String, prune: bool) -> Result<(), String> {
        let kind = if prune { "node (prune)" } else { "node" };
        info!(target: "agent", "Force leaving {kind}: {name}");
        self.command(Command::ForceLeave { name, prune }).await
    }

    /// The tags file is written first, so that a change that cannot be kept is not made.
    async fn set_tags(&self, set: Tags, delete: Vec<String>) -> Result<(), String> {
        let (old, new) = self.changed_tags(set, delete).await?;
        let Some(path) = &self.0.tags_file else {
            return self.command(Command::SetTags(new)).await;
        };
        files::write_tags(path, &new)?;
        let result = self.command(Command::SetTags(new)).await;
        if result.is_err()
            && let Err(reason) = files::write_tags(path, &old)
        {
            error!(target: "agent", "{reason}");
        }
        result
    }

    async fn stats(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.collect_stats().await
    }

    async fn coordinate(&self, name: String) -> Option<WireCoordinate> {
        self.0
            .driver
            .read(move |node| node.coordinate(&name))
            .await
            .ok()
            .flatten()
    }

    fn note_client(&self) {
        self.0.telemetry.count("agent.ipc.accept", &Tally::ones(1));
    }

    fn note_request(&self) {
        self.0.telemetry.count("agent.ipc.command", &Tally::ones(1));
    }
}
