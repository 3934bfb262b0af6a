//! What RPC clients ask of the agent, passed on to whoever does it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tracing::{debug, error, info};

use super::logging::Level;
use super::{Agent, STOPPED, files};
use crate::driver::Stopped;
use crate::events::hub::Subscription;
use crate::go;
use crate::rpc::server::{Backend, Joined, Limits, LogTap, QueryAnswers, RespondError};
use fyrd_core::node::Node;
use fyrd_core::serf::keyring::{KeyBytes, KeyOp};
use fyrd_core::serf::{Answer, Command, KeyReport, Member, PAST_DEADLINE, QueryKey, QueryParams, Tags};
use fyrd_core::swim::measures::Tally;
use fyrd_core::wire::WireCoordinate;

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

    async fn members_since(&self, known: Option<u64>) -> Option<(u64, Vec<Arc<Member>>)> {
        let newer = move |node: &Node| {
            let version = node.members_version();
            (known != Some(version)).then(|| (version, node.members()))
        };
        let read = self.0.driver.read(newer).await;
        // Of a node that has ended nobody is left to tell.
        read.unwrap_or_else(|_| Some((0, Vec::new())))
    }

    async fn join(&self, existing: Vec<String>, replay: bool) -> Result<Joined, String> {
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
        let _alone = self.0.tags_change.lock().await;
        let (old, new) = self.changed_tags(set, delete).await?;
        let Some(path) = &self.0.tags_file else {
            return self.command(Command::SetTags(new)).await;
        };
        if let Err(reason) = write_tags(path, &new).await {
            error!(target: "agent", "{reason}");
            return Err(reason);
        }
        let result = self.command(Command::SetTags(new)).await;
        if result.is_err()
            && let Err(reason) = write_tags(path, &old).await
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

    async fn user_event(&self, name: String, payload: Vec<u8>, coalesce: bool) -> Result<(), String> {
        debug!(target: "agent", "Requesting user event send: {name}. Coalesced: {coalesce}. Payload: {}", Shown(&payload));
        let event = Command::UserEvent {
            name,
            payload,
            coalesce,
        };
        self.command(event).await
    }

    fn events(&self, capacity: usize) -> Subscription {
        self.0.hub.subscribe(capacity)
    }

    fn log(&self, level: &str, capacity: usize) -> Result<LogTap, String> {
        match Level::parse(level) {
            Ok(level) => Ok(self.0.console.tap(level, capacity)),
            Err(_) => Err(format!("Unknown log level: {}", level.to_uppercase())),
        }
    }

    async fn query(&self, params: QueryParams) -> Result<QueryAnswers, String> {
        debug!(target: "agent", "Requesting query send: {}. Payload: {}", params.name, Shown(&params.payload));
        self.0.queries.ask(&self.0.driver, params).await
    }

    async fn respond(&self, (ltime, id): QueryKey, payload: Vec<u8>) -> Result<(), RespondError> {
        let answer = Command::Respond { ltime, id, payload };
        self.command(answer).await.map_err(|reason| match reason {
            reason if reason == PAST_DEADLINE => RespondError::Over,
            reason => RespondError::Refused(reason),
        })
    }

    async fn keys(&self, op: KeyOp, key: KeyBytes) -> Result<KeyReport, String> {
        let what = match op {
            KeyOp::Install => "key installation",
            KeyOp::Use => "primary key change",
            KeyOp::Remove => "key removal",
            KeyOp::List => "key listing",
        };
        info!(target: "agent", "Initiating {what}");
        match self.0.driver.command(Command::Keys { op, key }).await {
            Ok(Answer::Keys(report)) => Ok(report),
            Ok(Answer::Failed(reason)) => Err(reason),
            Ok(_) | Err(Stopped) => Err(STOPPED.to_string()),
        }
    }

    fn limits(&self) -> Limits {
        self.0.rpc_limits
    }

    fn note_client(&self) {
        self.0.telemetry.count("agent.ipc.accept", &Tally::ones(1));
    }

    fn note_request(&self) {
        self.0.telemetry.count("agent.ipc.command", &Tally::ones(1));
    }
}

impl Agent {
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

/// A payload as Serf's log shows it.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("[]byte(nil)"),
            payload => f.write_str(&go::bytes("[]byte", payload)),
        }
    }
}

/// Writes the tags file on a thread of its own, for a sync to disk would hold up gossip.
async fn write_tags(path: &str, tags: &Tags) -> Result<(), String> {
    let (path, tags) = (path.to_owned(), tags.clone());
    let written = tokio::task::spawn_blocking(move || files::write_tags(&path, &tags)).await;
    written.unwrap_or_else(|error| Err(format!("Failed to write tags file: {error}")))
}
