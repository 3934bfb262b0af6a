//! A node that was here before hears first what it has missed (design.md section 7).
//!
//! Peers that have not noticed its absence gossip to it from its first moment on, so the newest events would
//! come before those of the time when it was down. They wait until a join has brought a peer's ring of recent
//! events, or for [`CATCH_UP_MAX`](crate::bounds::CATCH_UP_MAX) if none does.

use std::collections::BTreeSet;

use tracing::info;

use super::members::Entry;
use super::{Serf, Timer, verbatim};
use crate::bounds::{CATCH_UP_EVENTS, CATCH_UP_MAX, MAX_MEMBERS};
use crate::serf::types::{MemberEventKind, MemberStatus};
use crate::time::Time;
use crate::wire::SerfMessage;

/// The messages that wait, by Lamport time, each once however often it is gossiped.
pub(super) type Waiting = BTreeSet<(u64, Box<[u8]>)>;

impl Serf {
    /// The whole state of a peer has come, whoever asked for it. The others have a while to be heard of.
    pub(super) fn note_merge(&mut self, now: Time) {
        if !std::mem::replace(&mut self.merged, true) && !self.unmet.is_empty() {
            let wait = self.config.profile.serf.reconnect_interval;
            self.timers.set(now + wait, Timer::Unmet);
        }
    }

    /// User events by gossip wait from now on.
    pub(super) fn begin_catching_up(&mut self, now: Time) {
        self.catching_up = Some(Waiting::new());
        self.timers.set(now + CATCH_UP_MAX, Timer::CatchUp);
    }

    /// Keeps a user event back, if it has to wait.
    pub(super) fn waits_for_older(&mut self, ltime: u64, message: &[u8]) -> bool {
        let Some(waiting) = &mut self.catching_up else {
            return false;
        };
        waiting.insert((ltime, message.into()));
        if waiting.len() > CATCH_UP_EVENTS {
            self.end_catching_up();
        }
        true
    }

    /// What was missed has come. Now the events that had to wait are handled, those that came with it
    /// excepted, as they are known by now.
    pub fn end_catching_up(&mut self) {
        for (_, message) in self.catching_up.take().unwrap_or_default() {
            if let Ok(SerfMessage::UserEvent(event)) = SerfMessage::decode(&message)
                && self.handle_user_event(&event)
            {
                self.queues.events.push(None, verbatim(&message), None);
            }
        }
    }

    /// Who was there in an earlier life, and is unknown to the peers that have been met, went meanwhile. Listeners
    /// are told, as if this node had not been away, and whoever failed is tried again like all others.
    pub(super) fn end_unmet(&mut self, now: Time) {
        for record in std::mem::take(&mut self.unmet) {
            let name = &record.facts.name;
            if self.members.find(name).is_some() || self.members.len() >= MAX_MEMBERS {
                continue;
            }
            let (mut left, mut status_ltime) = (record.status == MemberStatus::Leaving, record.status_ltime);
            if let Some(intent) = self
                .intents
                .get(&**name)
                .filter(|intent| intent.ltime > status_ltime)
            {
                (left, status_ltime) = (intent.leaves, intent.ltime);
            }
            let (status, kind) = if left {
                info!(target: "serf", "EventMemberLeave: {name} {} (while this node was away)", record.facts.addr);
                (MemberStatus::Left, MemberEventKind::Leave)
            } else {
                info!(target: "serf", "EventMemberFailed: {name} {} (while this node was away)", record.facts.addr);
                (MemberStatus::Failed, MemberEventKind::Failed)
            };
            let id = self.members.insert(Entry {
                facts: record.facts,
                status,
                status_ltime,
            });
            self.gone_since.insert(id, now);
            self.record_member(id);
            self.emit_member(kind, id);
        }
    }
}
