//! Who joins and leaves, in the order of Lamport time (protocol.md B6).
//!
//! An intent is what tells a graceful leave from a failure. It may arrive before or after swim's news
//! about the same node, so intents about unknown nodes are kept for a while.

use std::sync::Arc;

use tracing::{debug, info};

use super::types::{MemberEventKind, MemberStatus};
use super::{Phase, Serf, Timer, user_message};
use crate::bounds::MAX_RECENT_INTENTS;
use crate::names::Id;
use crate::swim::queue::Token;
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
    /// Announces that this node has joined. Stamped after the merges, so that it beats what was said
    /// about an earlier life of ours.
    pub fn announce_join(&mut self, now: Time) {
        let ltime = self.clock.time();
        self.broadcast_join(now, ltime);
    }

    fn broadcast_join(&mut self, now: Time, ltime: u64) {
        let name = Arc::clone(&self.config.facts.name);
        let intent = JoinIntent { ltime, node: &name };
        self.handle_join_intent(now, &intent);
        self.queues
            .intents
            .push(None, user_message(&SerfMessage::Join(intent)), None);
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
        self.handle_leave_intent(now, &intent);
        let heard = self.has_peers();
        if heard {
            self.queues
                .intents
                .push(None, user_message(&SerfMessage::Leave(intent)), Some(token));
        }
        heard
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
        if intent.ltime <= entry.status_ltime {
            return false;
        }
        if me && self.phase == Phase::Here {
            debug!(target: "serf", "Refuting an older leave intent");
            let ltime = self.clock.time();
            self.broadcast_join(now, ltime);
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
        if intent.prune {
            self.prune(now, id, intent.ltime);
        }
        true
    }

    /// Forgets a member by force. One that still seems to be there gets the time of a leave to
    /// object; a live node does, and stays.
    fn prune(&mut self, now: Time, id: Id, ltime: u64) {
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

    pub(super) fn end_prune(&mut self, id: Id, ltime: u64) {
        let unopposed = self
            .members
            .get(id)
            .is_some_and(|entry| entry.status_ltime == ltime && entry.status != MemberStatus::Alive);
        if unopposed {
            self.erase(id, true);
        }
    }

    /// Takes a join intent; says whether to pass it on.
    pub(super) fn handle_join_intent(&mut self, now: Time, intent: &JoinIntent<'_>) -> bool {
        if !self.witness_intent(intent.ltime, intent.node) {
            return false;
        }
        let Some(entry) = self.members.by_name_mut(intent.node) else {
            return self.remember_intent(now, intent.node, intent.ltime, false);
        };
        if intent.ltime <= entry.status_ltime {
            return false;
        }
        entry.status_ltime = intent.ltime;
        // A failed or left member is brought back by swim alone, which has to see it alive first.
        if entry.status == MemberStatus::Leaving {
            entry.status = MemberStatus::Alive;
        }
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

    fn remember_intent(&mut self, now: Time, node: &str, ltime: u64, leaves: bool) -> bool {
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
