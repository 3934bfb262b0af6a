//! Whose turn it is to probe whom.
//!
//! SWIM has each member go through the others in a random order of its own (section 4.3). Then the probes of one target
//! come as chance has it: with a mean pause of one interval, but one pause in twenty is longer than three. Here the members
//! agree: all lie on a ring ([`Members::ring_from`]), and in each turn each probes the one that lies so many places behind it
//! as the number of the turn says. So each is probed once in each turn, always by another, and as all turns last an interval,
//! no pause is longer than two of them while all agree and all probe. Which turn it is spreads by acks, like a Lamport clock:
//! who hears of a later turn goes on from there.

use std::sync::Arc;

use rand::seq::SliceRandom;

use super::Swim;
use super::members::{Members, NodeId};
use crate::time::Time;

/// The golden ratio's fraction, of 2^32. It is odd, so the places go on evenly where the numbers of turns start again.
const GOLDEN: u32 = 0x9e37_79b9;

/// How far this node is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the turn. It starts again at zero after the last.
    now: u32,
    /// How many probes have begun since members were last dropped, or shuffled.
    probed: usize,
}

impl Turns {
    #[cfg(test)]
    pub fn at(now: u32) -> Turns {
        Turns { now, probed: 0 }
    }

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
    /// Multiples of the golden ratio, of which only the fraction counts, lie evenly: any 2n turns one after the other reach
    /// each of n others (the gaps between n points are below 1.9 n-ths; three-distance theorem). That holds, with another
    /// factor, for every second or third turn as well, so a node that is slow and leaves some out still reaches everybody;
    /// and one member more or less moves each place by one at most, so that it disturbs nobody's course.
    fn places(&self, others: usize) -> Option<usize> {
        let others = u64::try_from(others).ok().filter(|others| *others > 0)?;
        Some(((u64::from(self.now.wrapping_mul(GOLDEN)) * others) >> 32) as usize)
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
        // With each probe, not with each interval: whom nobody answers, so that its probes take several, goes through
        // all others nevertheless. An ack takes it back to the turn of the others.
        self.turns.next();
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
    use crate::swim::members::State;
    use crate::swim::testing::record;

    fn ring(count: usize) -> (Members, Vec<NodeId>) {
        let mut members = Members::new(1);
        let ids = (0..count)
            .map(|number| members.insert(record(number), number))
            .collect();
        (members, ids)
    }

    #[test]
    fn in_each_turn_each_is_probed_once_and_in_twice_as_many_as_there_are_others_each_probes_all() {
        for count in [2, 3, 4, 20, 50] {
            let (mut members, ids) = ring(count);
            let others = count as u32 - 1;
            for first in [0, 1, 7, 1000, u32::MAX - others] {
                let mut pairs = std::collections::BTreeSet::new();
                for turn in (0..2 * others).map(|turn| first.wrapping_add(turn)) {
                    let mut targets = Vec::new();
                    for &id in &ids {
                        let target = Turns::at(turn).target(id, &mut members).unwrap();
                        assert_ne!(target, id);
                        targets.push(target);
                        pairs.insert((id, target));
                    }
                    targets.sort();
                    assert_eq!(targets, ids, "turn {turn} of {count}");
                }
                assert_eq!(pairs.len(), count * (count - 1), "from turn {first} of {count}");
            }
        }
    }

    #[test]
    fn who_leaves_turns_out_still_probes_everybody() {
        let (mut members, ids) = ring(21);
        for (step, turns) in [(2, 100), (3, 100), (4, 100), (8, 200)] {
            let probed = (0..turns).map(|turn| Turns::at(step * turn).target(ids[0], &mut members));
            let probed: std::collections::BTreeSet<_> = probed.collect();
            assert_eq!(probed.len(), 20, "each {step}th");
        }
    }

    #[test]
    fn one_member_more_moves_no_place_by_more_than_one() {
        for turn in 0..1000 {
            let places = |others| Turns::at(turn).places(others).unwrap();
            for others in 1..60 {
                assert!(
                    places(others + 1).abs_diff(places(others)) <= 1,
                    "{turn} {others}"
                );
            }
        }
    }

    #[test]
    fn nobody_is_probed_who_is_gone_and_nobody_else_is_left_alone() {
        let (mut members, ids) = ring(5);
        for gone in &ids[1..4] {
            members.get_mut(*gone).unwrap().state = State::Dead;
        }
        for turn in 0..9 {
            assert_eq!(Turns::at(turn).target(ids[0], &mut members), Some(ids[4]));
            assert_eq!(Turns::at(turn).target(ids[4], &mut members), Some(ids[0]));
        }
        members.get_mut(ids[4]).unwrap().state = State::Left;
        assert_eq!(Turns::at(1).target(ids[0], &mut members), None);
        // One that leaves still probes the others.
        assert_eq!(Turns::at(1).target(ids[4], &mut members), Some(ids[0]));
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
            let mut turns = Turns::at(own);
            turns.hear(theirs);
            assert_eq!(turns.now, then, "{own} {theirs}");
        }
        let mut last = Turns::at(u32::MAX);
        last.next();
        assert_eq!(last.now, 0);
    }
}
