//! Whose turn it is to probe whom.
//!
//! SWIM has each member go through the others in a random order of its own (section 4.3). Then the probes of one target
//! come as chance has it: with a mean pause of one interval, but one pause in twenty is longer than three. Here the members
//! agree: all lie on a ring ([`Members::ring_from`]), and in turn t each probes the one that lies so many places behind it as t
//! says. So each is probed once in each turn, always by another, and as all turns last an interval, no pause is longer than
//! two of them while all agree and all probe. Which turn it is spreads by acks, like a Lamport clock: who hears of a later turn goes on from there.

use std::sync::Arc;

use rand::seq::SliceRandom;

use super::Swim;
use super::members::{Members, NodeId};
use crate::hash::stable_hash;
use crate::time::Time;

/// How far this node is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the turn. It starts again at zero after the last.
    now: u32,
    /// How many probes have begun since members were last dropped, or shuffled.
    probed: usize,
}

impl Turns {
    pub fn next(&mut self) {
        self.now = self.now.wrapping_add(1);
    }

    /// Another node is in that turn. Numbers that start again are later than those before them.
    pub fn hear(&mut self, theirs: u32) {
        if theirs.wrapping_sub(self.now) as i32 > 0 {
            self.now = theirs;
        }
    }

    /// How many places are left out between the prober and its target.
    ///
    /// As many turns as there are others reach each of them once. The next ones start somewhere else: a node that
    /// is slow, or has another interval, may leave out every second turn, and would never probe half of the others.
    fn places(&self, others: usize) -> Option<usize> {
        let others = u32::try_from(others).ok().filter(|others| *others > 0)?;
        let lap = self.now / others;
        let start = stable_hash([&lap.to_be_bytes()[..]]) % u64::from(others);
        Some(((u64::from(self.now % others) + start) % u64::from(others)) as usize)
    }

    /// Whom `me` probes in this turn.
    fn target(&self, me: NodeId, members: &mut Members) -> Option<NodeId> {
        let [behind, before] = members.ring_from(me);
        let places = self.places(behind.len() + before.len())?;
        let found = behind.get(places).or_else(|| before.get(places - behind.len()));
        found.map(|&(_, id)| id)
    }
}

impl Swim {
    /// What an ack says of this node's turn; 0 where it has none.
    pub(super) fn turn(&self) -> u32 {
        if self.config.profile.probe_turns {
            self.turns.now
        } else {
            0
        }
    }

    /// Whom to probe next: nobody that is gone.
    pub(super) fn next_target(&mut self, now: Time) -> Option<NodeId> {
        if !self.config.profile.probe_turns {
            return self.next_of_own_order(now);
        }
        self.turns.probed += 1;
        if self.turns.probed > self.members.len() {
            self.drop_gone(now);
        }
        self.turns.target(self.me, &mut self.members)
    }

    /// The next one in an order that is shuffled at the end of each round, which bounds the time until a given
    /// node is probed (SWIM, section 4.3).
    fn next_of_own_order(&mut self, now: Time) -> Option<NodeId> {
        for _ in 0..=self.members.len() {
            let Some(id) = self.members.at(self.turns.probed) else {
                self.drop_gone(now);
                self.members.order_mut().shuffle(&mut self.rng);
                continue;
            };
            self.turns.probed += 1;
            if id != self.me && self.members.get(id).is_some_and(|record| !record.state.is_gone()) {
                return Some(id);
            }
        }
        None
    }

    /// Forgets those who have been gone for long.
    fn drop_gone(&mut self, now: Time) {
        let keep = self.config.profile.gossip_to_the_dead_time;
        let me = Arc::clone(&self.config.facts.name);
        self.members.retain(|record| {
            !record.state.is_gone() || now.since(record.changed) <= keep || record.facts.name == me
        });
        let members = &self.members;
        self.reached_by.retain(|target, _| members.get(*target).is_some());
        self.turns.probed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::members::{Facts, Record, State};

    fn ring(count: usize) -> (Members, Vec<NodeId>) {
        let mut members = Members::new(1);
        let ids = (0..count).map(|number| {
            let facts = Arc::new(Facts {
                name: format!("n{number}").into(),
                addr: crate::addr::RawAddr::V4([10, 0, 0, 1]),
                port: 7946,
                meta: Box::default(),
                vsn: [1, 5, 2, 2, 5, 4],
            });
            let record = Record {
                facts,
                incarnation: 1,
                state: State::Alive,
                changed: Time::ZERO,
            };
            members.insert(record, number)
        });
        let ids = ids.collect();
        (members, ids)
    }

    fn at(now: u32) -> Turns {
        Turns { now, probed: 0 }
    }

    #[test]
    fn in_each_turn_each_is_probed_once_and_each_probes_all_others_in_turn() {
        for count in [2, 3, 20] {
            let (mut members, ids) = ring(count);
            let others = count as u32 - 1;
            let mut pairs = std::collections::BTreeSet::new();
            for turn in 7 * others..8 * others {
                let mut targets = Vec::new();
                for &id in &ids {
                    let target = at(turn).target(id, &mut members).unwrap();
                    assert_ne!(target, id);
                    targets.push(target);
                    pairs.insert((id, target));
                }
                targets.sort();
                assert_eq!(targets, ids, "turn {turn} of {count}");
            }
            assert_eq!(pairs.len(), count * (count - 1));
        }
    }

    #[test]
    fn who_leaves_out_every_second_turn_still_probes_everybody() {
        let (mut members, ids) = ring(21);
        let probed = (0..200).map(|turn| at(2 * turn).target(ids[0], &mut members));
        let probed: std::collections::BTreeSet<_> = probed.collect();
        assert_eq!(probed.len(), 20);
    }

    #[test]
    fn nobody_is_probed_who_is_gone_and_nobody_else_is_left_alone() {
        let (mut members, ids) = ring(5);
        for gone in &ids[1..4] {
            members.get_mut(*gone).unwrap().state = State::Dead;
        }
        for turn in 0..9 {
            assert_eq!(at(turn).target(ids[0], &mut members), Some(ids[4]));
            assert_eq!(at(turn).target(ids[4], &mut members), Some(ids[0]));
        }
        members.get_mut(ids[4]).unwrap().state = State::Left;
        assert_eq!(at(1).target(ids[0], &mut members), None);
        // One that leaves still probes the others.
        assert_eq!(at(1).target(ids[4], &mut members), Some(ids[0]));
    }

    #[test]
    fn the_later_turn_counts_also_where_the_numbers_start_again() {
        for (own, theirs, then) in [
            (5, 9, 9),
            (9, 5, 9),
            (5, 0, 5),
            (u32::MAX, 3, 3),
            (3, u32::MAX, 3),
        ] {
            let mut turns = at(own);
            turns.hear(theirs);
            assert_eq!(turns.now, then, "{own} {theirs}");
        }
        let mut last = at(u32::MAX);
        last.next();
        assert_eq!(last.now, 0);
    }
}
