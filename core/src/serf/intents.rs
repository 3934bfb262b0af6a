//! Who joins and leaves, in the order of Lamport time (docs/protocol.md#b6-intents).
//!
//! An intent tells a graceful leave from a failure. It may arrive before the alive or dead message about the same
//! node, or after it, so intents about unknown nodes are kept for a while.

use std::sync::Arc;

use tracing::{debug, info};

use super::types::{MemberEventKind, MemberStatus};
use super::{Phase, Serf, Timer, USER, user_message};
use crate::bounds::MAX_RECENT_INTENTS;
use crate::serf::members::MemberId;
use crate::swim::queue::{Subject, Token};
use crate::time::Time;
use crate::wire::{JoinIntent, LeaveIntent, SerfMessage};

/// The newest intent about a node that is not a member yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentIntent {
    pub ltime: u64,
    pub leaves: bool,
    pub heard: Time,
}

impl Serf {
    /// Broadcasts that this node has joined. Stamped after the merges, so that it is newer than intents from
    /// before a restart.
    pub fn announce_join(&mut self, now: Time) {
        let ltime = self.clock.time();
        let name = Arc::clone(&self.config.facts.name);
        let intent = JoinIntent { ltime, node: &name };
        self.clock.witness(ltime);
        self.announced.member = self.clock.time();
        self.take_join(now, &intent);
        self.queue_intent(&name, false, user_message(&SerfMessage::Join(intent)), None);
    }

    /// Begins to leave: from now on leave intents about us are not contradicted. Says whether the
    /// token was given to a broadcast that somebody can hear.
    pub fn begin_leave(&mut self, now: Time, token: Token) -> bool {
        self.phase = Phase::Leaving;
        let name = Arc::clone(&self.config.facts.name);
        self.send_leave(now, &name, false, token)
    }

    /// Declares another node's leave. Says whether the token was given to a broadcast.
    pub fn force_leave(&mut self, now: Time, name: &str, prune: bool, token: Token) -> bool {
        self.send_leave(now, name, prune, token)
    }

    fn send_leave(&mut self, now: Time, name: &str, prune: bool, token: Token) -> bool {
        let intent = LeaveIntent {
            ltime: self.clock.time(),
            node: name,
            prune,
        };
        self.clock.increment();
        self.announced.member = self.clock.time();
        self.handle_leave_intent(now, &intent);
        let heard = self.has_peers();
        if heard {
            self.queue_intent(
                name,
                prune,
                user_message(&SerfMessage::Leave(intent)),
                Some(token),
            );
        }
        heard
    }

    /// Queues an intent about `node` that was taken, or is ours. It replaces what waits about the same node,
    /// which is older: however many come, no more wait than there are nodes. A prune stands for itself, for a
    /// later leave does not say it again.
    pub(super) fn queue_intent(&mut self, node: &str, prune: bool, message: Vec<u8>, token: Option<Token>) {
        let subject = (!prune).then(|| self.subject(node));
        self.queues.intents.push(subject, message, token);
    }

    /// Somebody passes on an intent that is known here.
    pub(super) fn spare_intent(&mut self, node: &str, message: &[u8]) {
        if self.queues.intents.is_empty() {
            return;
        }
        let (subject, limit) = (self.subject(node), self.retransmit_limit());
        let least = self.config.profile.gossip_least;
        let is_same = |waits: &[u8]| waits.split_first() == Some((&USER, message));
        self.queues.intents.spare(&subject, limit, least, is_same);
    }

    fn subject(&self, node: &str) -> Subject {
        match self.members.by_name(node) {
            Some(entry) => Subject::Node(Arc::clone(&entry.facts.name)),
            None => Subject::Node(node.into()),
        }
    }

    /// Takes a leave intent; says whether to pass it on.
    pub(super) fn handle_leave_intent(&mut self, now: Time, intent: &LeaveIntent<'_>) -> bool {
        if !self.witness_intent(intent.ltime, intent.node) {
            return false;
        }
        let Some(id) = self.members.find(intent.node) else {
            return self.remember_intent(now, intent.node, intent.ltime, true);
        };
        let me = self.is_me(intent.node);
        let Some(entry) = self.members.get_mut(id) else {
            return false;
        };
        // A leave at the very time of our join has reached some before the join, and counts there.
        let tie = me && intent.ltime == entry.status_ltime && intent.ltime > 0;
        // Who learns of a leave by push/pull knows only a bound of its time, which may be that of a prune behind it.
        let erases = intent.prune && entry.is_gone() && intent.ltime == entry.status_ltime;
        if intent.ltime <= entry.status_ltime && !(tie && self.phase == Phase::Here) && !erases {
            return false;
        }
        if me && self.phase == Phase::Here {
            debug!(target: "serf", "Refuting an older leave intent");
            self.announce_join(now);
            return false;
        }
        entry.status_ltime = intent.ltime;
        match entry.status {
            MemberStatus::Alive => entry.status = MemberStatus::Leaving,
            MemberStatus::Failed => {
                entry.status = MemberStatus::Left;
                info!(target: "serf", "EventMemberLeave (forced): {} {}", entry.facts.name, entry.facts.addr);
                self.emit_member(MemberEventKind::Leave, id);
            }
            MemberStatus::Leaving | MemberStatus::Left => {}
        }
        self.record_member(id);
        if intent.prune {
            self.prune(now, id, intent.ltime);
        }
        true
    }

    /// Forgets a member by force. One that still seems to be there gets the time of a leave to refute that; a
    /// live node does, and stays.
    fn prune(&mut self, now: Time, id: MemberId, ltime: u64) {
        let there = self.members.get(id).is_some_and(|entry| !entry.is_gone());
        if there {
            let serf = &self.config.profile.serf;
            self.timers.set(
                now + serf.broadcast_timeout + serf.leave_propagate_delay,
                Timer::Prune(id, ltime),
            );
        } else {
            self.erase(id, true);
        }
    }

    /// Forgets a member whose prune has not been contradicted. One that swim still lists is waited
    /// for: forgotten here alone, it would stay unseen for as long as it lives.
    pub(super) fn end_prune(&mut self, now: Time, id: MemberId, ltime: u64) {
        let unopposed = self.members.get(id).filter(|entry| entry.status_ltime == ltime);
        if let Some(entry) = unopposed.filter(|entry| entry.status != MemberStatus::Alive) {
            debug!(target: "serf", "Pruning {} ({:?})", entry.facts.name, entry.status);
            self.prune(now, id, ltime);
        }
    }

    /// Takes a join intent; says whether to pass it on.
    pub(super) fn handle_join_intent(&mut self, now: Time, intent: &JoinIntent<'_>) -> bool {
        if !self.witness_intent(intent.ltime, intent.node) {
            return false;
        }
        // Nobody but us announces our joins. That somebody holds a later intent about us means that
        // there was a leave which we have not contradicted; push/pulls tell its time, but not its kind.
        let mine = self
            .members
            .by_name(intent.node)
            .filter(|entry| self.is_me(&entry.facts.name));
        if self.phase == Phase::Here && mine.is_some_and(|entry| intent.ltime > entry.status_ltime) {
            self.announce_join(now);
            return false;
        }
        self.take_join(now, intent)
    }

    fn take_join(&mut self, now: Time, intent: &JoinIntent<'_>) -> bool {
        let Some(id) = self.members.find(intent.node) else {
            return self.remember_intent(now, intent.node, intent.ltime, false);
        };
        let Some(entry) = self.members.get_mut(id) else {
            return false;
        };
        if intent.ltime <= entry.status_ltime {
            return false;
        }
        entry.status_ltime = intent.ltime;
        // A failed or left member is brought back by swim alone, which has to see it alive first.
        if entry.status == MemberStatus::Leaving {
            entry.status = MemberStatus::Alive;
        }
        self.record_member(id);
        true
    }

    fn witness_intent(&mut self, ltime: u64, node: &str) -> bool {
        let accepted = self.clock.accepts(ltime);
        if accepted {
            self.clock.witness(ltime);
        } else {
            self.refuse(format_args!(
                "an intent about {node} at Lamport time {ltime}: too far ahead"
            ));
        }
        accepted
    }

    pub(super) fn remember_intent(&mut self, now: Time, node: &str, ltime: u64, leaves: bool) -> bool {
        let full = self.intents.len() >= MAX_RECENT_INTENTS;
        match self.intents.get_mut(node) {
            Some(known) if ltime <= known.ltime => false,
            Some(known) => {
                *known = RecentIntent {
                    ltime,
                    leaves,
                    heard: now,
                };
                true
            }
            None if full => {
                self.refuse(format_args!(
                    "an intent about {node}: {MAX_RECENT_INTENTS} are remembered already"
                ));
                false
            }
            None => {
                self.intents.insert(
                    node.into(),
                    RecentIntent {
                        ltime,
                        leaves,
                        heard: now,
                    },
                );
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serf::memory::Memory;
    use crate::serf::restart::tests::{facts, restarted};
    use crate::swim::delegate::Delegate;
    use crate::swim::packet::PacketBuilder;
    use crate::swim::queue::Pace;

    #[test]
    fn copies_of_an_intent_spare_sends_in_large_clusters() {
        let sends = |members: usize, least, copied: u64| {
            let mut serf = restarted(&Memory::default());
            serf.config.profile.gossip_least = least;
            for number in 0..members {
                serf.member_joined(Time::ZERO, &Arc::new(facts(&format!("n{number}"))));
            }
            let mut hear = |ltime| {
                let intent = user_message(&SerfMessage::Join(JoinIntent { ltime, node: "n7" }));
                serf.user_message(Time::ZERO, &intent[1..]);
            };
            hear(5);
            (0..20).for_each(|_| hear(copied));
            let mut sends = 0;
            while !serf.queues.intents.is_empty() {
                serf.fill(&mut PacketBuilder::new(1400, 0), Pace::ALL);
                sends += 1;
            }
            sends
        };
        assert_eq!(sends(150, 8, 5), 8);
        assert_eq!(sends(150, 8, 4), 12, "an older one");
        assert_eq!(sends(150, 0, 5), 12, "as with Serf");
        assert_eq!(sends(50, 8, 5), 8);
    }
}
