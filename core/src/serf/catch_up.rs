//! A node that was here before hears first what it has missed (docs/design.md#the-snapshot).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serf::memory::{Marks, Memory, Record};
    use crate::serf::remember::tests::{NOW, member, restarted};
    use crate::serf::types::Event;
    use crate::serf::{Ask, Effect};
    use crate::wire::{LeaveIntent, UserEvent};

    fn message(ltime: u64) -> Vec<u8> {
        let name = format!("event-{ltime}");
        let event = UserEvent {
            ltime,
            name: &name,
            payload: b"",
            coalesce: false,
        };
        let mut out = Vec::new();
        SerfMessage::UserEvent(event).encode(&mut out);
        out
    }

    /// A node that was here before, with members of that time.
    fn back(members: &[(&str, MemberStatus)]) -> Serf {
        let marks = Marks {
            event: 5,
            ..Marks::default()
        };
        let members = members.iter().map(|(name, status)| member(name, *status));
        restarted(&Memory {
            marks,
            members: members.collect(),
            ..Memory::default()
        })
    }

    /// The Lamport times of the events handled since the last call.
    fn handled(serf: &mut Serf) -> Vec<u64> {
        let outputs = std::iter::from_fn(|| serf.poll_effect());
        outputs
            .filter_map(|output| match output {
                Effect::Event(event) => match *event {
                    Event::User { ltime, .. } => Some(ltime),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_join_lets_go_in_order_what_has_waited_and_passes_it_on() {
        let mut serf = back(&[]);
        for ltime in [7, 6, 7] {
            assert!(serf.waits_for_older(ltime, &message(ltime)));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        serf.end_catching_up();
        assert_eq!(handled(&mut serf), [6, 7]);
        assert_eq!(serf.queues.events.len(), 2);
        assert!(!serf.waits_for_older(8, &message(8)));
    }

    #[test]
    fn no_more_waits_than_may() {
        let mut serf = back(&[]);
        let end = 5 + CATCH_UP_EVENTS as u64;
        for ltime in 5..end {
            assert!(serf.waits_for_older(ltime, &message(ltime)));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        assert!(serf.waits_for_older(end, &message(end)));
        assert_eq!(handled(&mut serf).len(), CATCH_UP_EVENTS + 1);
        assert!(!serf.waits_for_older(end + 1, &message(end + 1)));
    }

    /// Only the peers that are met first can tell who is still there, so nobody is missed at once.
    #[test]
    fn who_is_not_met_in_time_went_while_this_node_was_away() {
        let gone = [
            ("crashed", MemberStatus::Alive, MemberStatus::Failed),
            ("leaving", MemberStatus::Leaving, MemberStatus::Left),
            ("left", MemberStatus::Alive, MemberStatus::Left),
        ];
        let mut serf = back(&gone.map(|(name, before, _)| (name, before)));
        let wait = serf.config.profile.serf.reconnect_interval;
        serf.note_merge(NOW);
        let leave = LeaveIntent {
            ltime: 11,
            node: "left",
            prune: false,
        };
        assert!(serf.handle_leave_intent(NOW, &leave));
        let almost = NOW + wait - std::time::Duration::from_nanos(1);
        serf.handle_tick(almost);
        assert_eq!(serf.known(), 0);
        handled(&mut serf);
        let end = NOW + wait;
        serf.handle_tick(end);
        let mut recorded = Vec::new();
        while let Some(effect) = serf.poll_effect() {
            assert!(
                !matches!(effect, Effect::Record(Record::ForgetMember(_))),
                "{effect:?}"
            );
        }
        while let Some(ask) = serf.poll_ask() {
            if let Ask::Record(name) = ask {
                recorded.push(name.to_string());
            }
        }
        recorded.sort();
        assert_eq!(recorded, gone.map(|(name, ..)| name));
        for (name, _, after) in gone {
            let record = serf.member_record(end, name).unwrap();
            assert_eq!((record.status, record.since), (after, end), "{name}");
        }
    }
}
