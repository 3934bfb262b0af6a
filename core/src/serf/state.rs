//! Serf's share of a push/pull: clocks, the last intent about everybody, recent events
//! (docs/protocol.md#b4-state-in-a-pushpull).

use std::collections::{BTreeMap, BTreeSet};

use super::Serf;
use super::types::MemberStatus;
use crate::time::Time;
use crate::wire::{JoinIntent, LeaveIntent, PushPullState, RingEvent, SerfMessage, UserEvent, UserEvents};

impl Serf {
    pub(super) fn encode_state(&self) -> Vec<u8> {
        let state = PushPullState {
            ltime: self.clock.time(),
            status_ltimes: self
                .members
                .values()
                .map(|entry| (&*entry.facts.name, entry.status_ltime))
                .collect(),
            left_members: self
                .members
                .values()
                .filter(|entry| entry.status == MemberStatus::Left)
                .map(|entry| &*entry.facts.name)
                .collect(),
            event_ltime: self.event_clock.time(),
            events: self
                .events
                .iter()
                .map(|slot| {
                    let slot = slot.as_ref()?;
                    let events = slot
                        .events
                        .iter()
                        .map(|(name, payload)| RingEvent { name, payload })
                        .collect();
                    Some(UserEvents {
                        ltime: slot.ltime,
                        events,
                    })
                })
                .collect(),
            query_ltime: self.query_clock.time(),
        };
        let mut out = Vec::with_capacity(1024);
        SerfMessage::PushPull(state).encode(&mut out);
        out
    }

    pub(super) fn merge_remote_state(&mut self, now: Time, state: &[u8], ignore_old: bool) {
        let remote = match SerfMessage::decode(state) {
            Ok(SerfMessage::PushPull(remote)) => remote,
            Ok(_) => return self.refuse(format_args!("a push/pull whose user state is another message")),
            Err(error) => return self.refuse(format_args!("the user state of a push/pull: {error}")),
        };
        if !self.witness_clocks(&remote) {
            return;
        }
        self.note_merge(now);
        self.merge_intents(now, &remote);
        if ignore_old {
            self.event_min_time = self.event_min_time.max(remote.event_ltime);
        }
        // A ring has no beginning; whoever was away gets the events in the order of Lamport time.
        let mut slots: Vec<_> = remote.events.iter().flatten().collect();
        slots.sort_by_key(|slot| slot.ltime);
        for slot in slots {
            for &RingEvent { name, payload } in &slot.events {
                self.handle_ring_event(UserEvent {
                    ltime: slot.ltime,
                    name,
                    payload,
                    coalesce: false,
                });
            }
        }
    }

    /// A clock in a push/pull is the sender's next stamp, so what it has seen is one less.
    fn witness_clocks(&mut self, remote: &PushPullState<'_>) -> bool {
        let seen =
            [remote.ltime, remote.event_ltime, remote.query_ltime].map(|ltime| ltime.saturating_sub(1));
        let clocks = [&mut self.clock, &mut self.event_clock, &mut self.query_clock];
        if let Some((_, &ltime)) = clocks
            .iter()
            .zip(&seen)
            .find(|(clock, ltime)| !clock.accepts(**ltime))
        {
            self.refuse(format_args!("a push/pull with a clock at {ltime}: too far ahead"));
            return false;
        }
        for (clock, ltime) in clocks.into_iter().zip(seen) {
            clock.witness(ltime);
        }
        true
    }

    /// What the state says about members counts like intents. Nothing of it is passed on: whoever
    /// sent the state does that.
    fn merge_intents(&mut self, now: Time, remote: &PushPullState<'_>) {
        let left: BTreeSet<&str> = remote.left_members.iter().copied().collect();
        // Of a cluster at rest there is nothing to say that is not known, nor a time that was not seen.
        let is_old = |node: &str, ltime: u64| {
            let known = self.members.by_name(node);
            ltime < self.clock.time() && known.is_some_and(|entry| ltime <= entry.status_ltime)
        };
        let ltimes: BTreeMap<&str, u64> = remote
            .status_ltimes
            .iter()
            .copied()
            .filter(|&(node, ltime)| left.contains(node) || !is_old(node, ltime))
            .collect();
        for &node in &left {
            let ltime = ltimes.get(node).map_or(0, |ltime| *ltime).saturating_add(1);
            self.handle_leave_intent(
                now,
                &LeaveIntent {
                    ltime,
                    node,
                    prune: false,
                },
            );
        }
        for (node, ltime) in ltimes.into_iter().filter(|(node, _)| !left.contains(node)) {
            self.handle_join_intent(now, &JoinIntent { ltime, node });
        }
    }
}
