//! What is forgotten, retried and trimmed as time passes (protocol.md B7, A20).

use std::net::SocketAddr;
use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use tracing::{info, warn};

use super::members::count;
use super::types::{MemberEventKind, MemberStatus};
use super::{Output, Serf, Timer};
use crate::names::Id;
use crate::time::Time;

impl Serf {
    pub(super) fn reap(&mut self, now: Time) {
        let serf = self.config.profile.serf.clone();
        self.timers.set(now + serf.reap_interval, Timer::Reap);
        let expired: Vec<Id> = self
            .members
            .iter()
            .filter(|(_, entry)| match entry.status {
                MemberStatus::Failed => now.since(entry.gone_since) > serf.reconnect_timeout,
                MemberStatus::Left => now.since(entry.gone_since) > serf.tombstone_timeout,
                MemberStatus::Alive | MemberStatus::Leaving => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in expired {
            self.erase(id, false);
        }
        self.intents
            .retain(|_, intent| now.since(intent.heard) <= serf.recent_intent_timeout);
    }

    /// Forgets a member and everything kept about it.
    pub(super) fn erase(&mut self, id: Id, forced: bool) {
        self.emit_member(MemberEventKind::Reap, id);
        let Some(entry) = self.members.remove(id) else {
            return;
        };
        let (name, addr) = (&entry.facts.name, entry.facts.addr);
        if forced {
            info!(target: "serf", "EventMemberReap (forced): {name} {addr}");
        } else {
            info!(target: "serf", "EventMemberReap: {name}");
        }
        self.coordinates.forget(name);
    }

    /// Tries one failed member again, the less often the more of the cluster has failed, so that the
    /// living are not kept busy with the dead.
    pub(super) fn reconnect(&mut self, now: Time) {
        self.timers.set(
            now + self.config.profile.serf.reconnect_interval,
            Timer::Reconnect,
        );
        let failed: Vec<(Arc<str>, SocketAddr)> = self
            .members
            .values()
            .filter(|entry| entry.status == MemberStatus::Failed)
            .map(|entry| (Arc::clone(&entry.facts.name), entry.facts.socket()))
            .collect();
        if failed.is_empty() {
            return;
        }
        let left = count(&self.members, MemberStatus::Left);
        let here = self.members.len().saturating_sub(failed.len() + left).max(1);
        let chance = failed.len() as f64 / here as f64;
        if self.rng.random::<f64>() > chance {
            return;
        }
        if let Some((name, to)) = failed.choose(&mut self.rng) {
            info!(target: "serf", "attempting reconnect to {name} {to}");
            self.out.push_back(Output::Reconnect { to: *to });
        }
    }

    pub(super) fn check_queues(&mut self, now: Time) {
        let serf = self.config.profile.serf.clone();
        self.timers
            .set(now + serf.queue_check_interval, Timer::CheckQueues);
        let max = if serf.min_queue_depth > 0 {
            serf.min_queue_depth.max(2 * self.members.len())
        } else {
            serf.max_queue_depth
        };
        let (queues, measures) = (&mut self.queues, &mut self.measures);
        for (name, queue, tally) in [
            ("Intent", &mut queues.intents, &mut measures.intent_queue),
            ("Query", &mut queues.queries, &mut measures.query_queue),
            ("Event", &mut queues.events, &mut measures.event_queue),
        ] {
            let depth = queue.len();
            tally.add(depth as f64);
            if depth >= serf.queue_depth_warning {
                warn!(target: "serf", "{name} queue depth: {depth}");
            }
            let dropped = queue.prune(max);
            if dropped > 0 {
                warn!(target: "serf", "{name} queue depth ({depth}) exceeds limit ({max}), dropping {dropped} messages!");
            }
        }
    }
}
