//! What is forgotten and trimmed as time passes (docs/protocol.md#b7-reaping-and-reconnecting).

use std::sync::Arc;

use tracing::{info, warn};

use super::types::{MemberEventKind, MemberStatus};
use super::{Serf, Timer, user_message};
use crate::bounds::MAX_MEMBERS;
use crate::serf::members::MemberId;
use crate::serf::memory::Record;
use crate::swim::queue::Subject;
use crate::time::Time;
use crate::wire::{LeaveIntent, SerfMessage};

impl Serf {
    pub(super) fn reap(&mut self, now: Time) {
        let serf = self.config.profile.serf.clone();
        self.timers.set(now + serf.reap_interval, Timer::Reap);
        let expired: Vec<MemberId> = self
            .gone_since
            .iter()
            .filter(|&(&id, &since)| {
                let keep = match self.members.get(id).map(|entry| entry.status) {
                    Some(MemberStatus::Failed) => serf.reconnect_timeout,
                    _ => serf.tombstone_timeout,
                };
                now.since(since) > keep
            })
            .map(|(&id, _)| id)
            .collect();
        for id in expired {
            self.erase(id, false);
        }
        self.remind_leaving();
        self.intents
            .retain(|_, intent| now.since(intent.heard) <= serf.recent_intent_timeout);
    }

    /// Says again that a member leaves while it is still there. A leave is over before this is called
    /// twice; a member that never heard of its leave, or joined at the same Lamport time, can only
    /// contradict it, and would otherwise be held as leaving for ever.
    fn remind_leaving(&mut self) {
        let me = &self.config.facts.name;
        let leaving = self
            .members
            .values()
            .filter(|entry| entry.status == MemberStatus::Leaving && entry.facts.name != *me);
        for entry in leaving {
            let intent = LeaveIntent {
                ltime: entry.status_ltime,
                node: &entry.facts.name,
                prune: false,
            };
            let message = user_message(&SerfMessage::Leave(intent));
            let subject = Subject::Node(Arc::clone(&entry.facts.name));
            self.queues.intents.push(Some(subject), message, None);
        }
    }

    /// Keeps the number of members within its bound. swim lists no more than that many, but forgets
    /// the dead after seconds, which this layer keeps for a day.
    pub(super) fn make_room_for_member(&mut self) {
        if self.members.len() < MAX_MEMBERS {
            return;
        }
        let mut gone: Vec<(Time, MemberId)> =
            self.gone_since.iter().map(|(&id, &since)| (since, id)).collect();
        gone.sort_unstable();
        // Several at once, so that a flood of names does not cost a look at all members for each.
        gone.truncate(MAX_MEMBERS / 8);
        warn!(target: "serf", "{} members are known; forgetting {} that are gone for longest", self.members.len(), gone.len());
        for (_, id) in gone {
            self.erase(id, false);
        }
    }

    /// Forgets a member and everything kept about it.
    pub(super) fn erase(&mut self, id: MemberId, forced: bool) {
        self.emit_member(MemberEventKind::Reap, id);
        let Some(entry) = self.members.remove(id) else {
            return;
        };
        self.gone_since.remove(&id);
        let (name, addr) = (&entry.facts.name, entry.facts.addr);
        if forced {
            info!(target: "serf", "EventMemberReap (forced): {name} {addr}");
        } else {
            info!(target: "serf", "EventMemberReap: {name}");
        }
        self.coordinates.forget(name);
        let name = Arc::clone(name);
        self.record(|| Record::ForgetMember(name));
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
