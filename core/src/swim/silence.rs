//! What it means to hear nothing: as long as it may be this node that is cut off, missing acks say nothing about the
//! others.
//!
//! Who has lost most of its cluster hears little from the rest, whose probes go to the dead. So that this is not taken
//! for silence, the member that was heard last is asked whether it is still there.

use std::net::SocketAddr;

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::delegate::Delegate;
use super::members::{Record, State};
use super::{Swim, Timer};
use crate::time::Time;

impl Swim {
    /// A message came in, by a datagram from that address. After a long silence each suspicion is extended by the
    /// time of the silence, in which no refutation could come through.
    pub(super) fn hear(&mut self, now: Time, from: Option<SocketAddr>, delegate: &mut impl Delegate) {
        let silence = now.since(self.heard);
        self.heard = now;
        if let Some(from) = from {
            self.heard_from = Some(from);
            self.note_heard(now, from, delegate);
        }
        if self.suspicions.is_empty() || !self.is_long(silence) {
            return;
        }
        warn!(target: "memberlist", "Heard nothing from anybody for {silence:?}; giving those under suspicion time");
        for (&id, suspicion) in &mut self.suspicions {
            suspicion.hold_up(now, silence);
            self.timers
                .set(suspicion.deadline().max(now), Timer::Suspicion(id));
        }
    }

    /// Whether nothing is heard although another member should be alive. Then it may be this node that is cut
    /// off.
    pub(super) fn is_deaf(&self, now: Time) -> bool {
        let me = &self.config.facts.name;
        let somebody = |record: &Record| record.state == State::Alive && record.facts.name != *me;
        self.is_long(now.since(self.heard)) && self.members.iter().any(somebody)
    }

    /// In each probe interval a node hears one ack of its own probe, and one ping of others on average.
    pub(super) fn is_long(&self, silence: Duration) -> bool {
        let profile = &self.config.profile;
        profile.refinements.minds_silence && silence > 2 * profile.probe_interval
    }

    /// Pings whoever was heard last, if it has been quiet for a while and somebody is under suspicion. Comes once a
    /// probe interval, so that two may be lost before a silence is long.
    pub(super) fn ask_last_heard(&mut self, now: Time, delegate: &mut impl Delegate) {
        let profile = &self.config.profile;
        let quiet = now.since(self.heard) > profile.probe_interval / 2;
        if !quiet || !profile.refinements.minds_silence || self.suspicions.is_empty() {
            return;
        }
        let last =
            |record: &&Record| !record.state.is_gone() && Some(record.facts.socket()) == self.heard_from;
        let Some(facts) = self
            .members
            .iter()
            .find(last)
            .map(|record| Arc::clone(&record.facts))
        else {
            return;
        };
        // That it is heard is all that counts, so nobody waits for this ack.
        let (seq_no, source) = (self.next_seq_no(), self.config.facts.clone());
        self.send_with_gossip(facts.socket(), delegate, |out| {
            source.ping(&facts.name, seq_no).encode(out)
        });
    }
}
