//! The broadcast queue: encoded messages, each sent a limited number of times
//! (docs/protocol.md#a20-broadcast-queue).
//!
//! What was sent least often goes first; among equals the longest that still fits, then the newest.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::swim::packet::PacketBuilder;

/// Room for this many messages is kept while none waits.
const KEEP_SLOTS: usize = 64;

/// What a broadcast is about; a newer one about the same replaces the older.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A node's state, by its name.
    Node(Arc<str>),
    /// A refutation of ours. It has a key of its own, as with memberlist: otherwise a suspicion about us that
    /// is gossiped on would replace it.
    Refutation,
}

/// Names a broadcast to whoever waits until it has been sent as often as the limit says, or was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Which of the messages that wait may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Which of each message's sends.
    pub part: Part,
    /// To which target; `None`: whichever it is.
    pub lane: Option<Lane>,
}

/// A part of a message's sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All: in a gossip round, or with a packet that leaves anyway.
    All,
    /// The first ones, ahead of the rounds.
    Early(Share),
    /// What is left: in a gossip round while waves are under way.
    Rest(Share),
}

/// How many of a message's sends leave ahead of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of all of them, in percent.
    pub percent: u32,
    /// At most so many.
    pub most: u32,
}

/// One of the targets of a wave, or of a round.
///
/// A message is sent once to each of them in turn, also while more messages wait than their packets can hold. So each
/// message goes to all places that there are, among them those which are not left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// How many targets there are, at least 1.
    pub lanes: u32,
    /// Which of them this is, from 0.
    pub lane: u32,
    /// Where a lane has targets of its own in turn: which one this is, from 0, and of how many; `None`: it has one.
    pub turn: Option<(u32, u32)>,
}

impl Pace {
    /// Whatever waits.
    pub const ALL: Pace = Pace {
        part: Part::All,
        lane: None,
    };

    /// Whether anything can be sent at this pace.
    pub fn sends_any(self) -> bool {
        self.sends(u32::MAX) > 0
    }

    /// How many of a message's `limit` sends may leave at this pace, or before it.
    fn sends(self, limit: u32) -> u32 {
        match self.part {
            Part::All | Part::Rest(_) => u32::MAX,
            Part::Early(share) => share.of(limit),
        }
    }

    /// Whether a message that was sent so often, and less often than [`Pace::sends`], may be sent next.
    fn takes(self, transmits: u32, limit: u32) -> bool {
        let is_part = match self.part {
            Part::All | Part::Early(_) => true,
            Part::Rest(share) => transmits >= share.of(limit),
        };
        is_part && self.lane.is_none_or(|lane| lane.takes(transmits))
    }
}

impl Share {
    fn of(self, limit: u32) -> u32 {
        let share = (u64::from(limit) * u64::from(self.percent)).div_ceil(100);
        self.most.min(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl Lane {
    /// Whether the next send of a message that was sent so often goes there.
    fn takes(self, transmits: u32) -> bool {
        let (turn, lane) = (transmits / self.lanes, transmits % self.lanes);
        lane == self.lane && self.turn.is_none_or(|(which, of)| turn % of == which)
    }
}

/// A message's place in the order of sending; the smallest goes first.
///
/// From the highest bits down: how often it was sent, then the complements of its length and of its
/// number. One number is compared much faster than three fields, and comparing is most of the work here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

impl Place {
    fn new(transmits: u32, len: usize, number: u64) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Place(u128::from(transmits) << 96 | u128::from(!len) << 64 | u128::from(!number))
    }

    /// Before all messages sent this often that are at most `room` bytes long.
    fn fitting(transmits: u32, room: usize) -> Self {
        Place::new(transmits, room, u64::MAX)
    }

    fn transmits(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// The place of the same message once it has been sent again.
    fn after_sending(self) -> Self {
        Place(self.0 + (1 << 96))
    }
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    subject: Option<Subject>,
    token: Option<Token>,
    place: Place,
    /// How many sends others have spared it.
    spared: u32,
}

impl Item {
    /// How often it is sent.
    fn limit(&self, limit: u32) -> u32 {
        limit.saturating_sub(self.spared)
    }
}

/// Messages waiting to be gossiped.
///
/// A message stays in its slot while its place in the order changes, so that sending it moves neither its
/// bytes nor the entry of its subject in the index.
#[derive(Debug, Default)]
pub struct GossipQueue {
    slots: Vec<Option<Item>>,
    free: Vec<u32>,
    order: BTreeMap<Place, u32>,
    by_subject: HashTable<u32>,
    hasher: FixedState,
    pushed: u64,
    finished: Vec<Token>,
}

impl GossipQueue {
    /// An empty queue. The seed makes its hashes unguessable to peers who choose names.
    pub fn new(seed: u64) -> Self {
        GossipQueue {
            hasher: FixedState::with_seed(seed),
            ..GossipQueue::default()
        }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Queues an encoded message. One with a subject replaces the older one of that subject.
    pub fn push(&mut self, subject: Option<Subject>, bytes: Vec<u8>, token: Option<Token>) {
        self.pushed += 1;
        let known = subject.as_ref().and_then(|subject| self.find(subject));
        let slot = known.unwrap_or_else(|| self.free_slot());
        if let (None, Some(subject)) = (known, &subject) {
            self.index(subject, slot);
        }
        let place = Place::new(0, bytes.len(), self.pushed);
        self.order.insert(place, slot);
        let item = Item {
            bytes,
            subject,
            token,
            place,
            spared: 0,
        };
        if let Some(replaced) = self.slots[slot as usize].replace(item) {
            self.order.remove(&replaced.place);
            self.finished.extend(replaced.token);
        }
    }

    /// Whether a message waits that may be sent at this pace.
    pub fn has_due(&self, pace: Pace, limit: u32) -> bool {
        let first = self.order.first_key_value();
        first.is_some_and(|(place, _)| place.transmits() < pace.sends(limit))
    }

    /// Fills `packet` with what fits of the messages that may be sent now; one sent `limit` times is retired.
    /// Says whether something did not fit that fits the next packet.
    pub fn fill(&mut self, packet: &mut PacketBuilder, limit: u32, pace: Pace) -> bool {
        let (packed, is_short) = self.pack(packet, limit, pace);
        for (place, slot) in packed {
            self.order.remove(&place);
            let place = place.after_sending();
            let Some(item) = &mut self.slots[slot as usize] else {
                continue;
            };
            if place.transmits() >= item.limit(limit) {
                self.retire(slot);
            } else {
                item.place = place;
                self.order.insert(place, slot);
            }
        }
        self.release();
        is_short
    }

    /// If somebody else sends what waits about this subject as well, it needs one send less, of at least `least`; none less if
    /// that is 0. What a caller waits for is sent as often as the limit says.
    pub fn spare(&mut self, subject: &Subject, limit: u32, least: usize, is_same: impl Fn(&[u8]) -> bool) {
        let Some(slot) = self.find(subject).filter(|_| least > 0) else {
            return;
        };
        let Some(item) = &mut self.slots[slot as usize] else {
            return;
        };
        if item.token.is_some() || item.limit(limit) as usize <= least || !is_same(&item.bytes) {
            return;
        }
        item.spared += 1;
        if item.place.transmits() >= item.limit(limit) {
            self.order.remove(&item.place);
            self.retire(slot);
            self.release();
        }
    }

    /// Gives memory back once a long queue is empty.
    fn release(&mut self) {
        if self.order.is_empty() && self.slots.capacity() > KEEP_SLOTS {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.by_subject = HashTable::new();
        }
    }

    /// Drops what was sent most often until at most `keep` messages wait; says how many went.
    pub fn prune(&mut self, keep: usize) -> usize {
        let mut dropped = 0;
        while self.order.len() > keep {
            let Some((_, slot)) = self.order.pop_last() else {
                break;
            };
            self.retire(slot);
            dropped += 1;
        }
        self.release();
        dropped
    }

    /// Takes the tokens of broadcasts that have ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.finished)
    }

    /// Adds to `packet` what fits of the messages that may be sent now, in order. Returns the places and slots of what was
    /// added, and whether something did not fit.
    fn pack(&self, packet: &mut PacketBuilder, limit: u32, pace: Pace) -> (Vec<(Place, u32)>, bool) {
        let most = pace.sends(limit);
        let (mut packed, mut is_short) = (Vec::new(), false);
        let mut from = Place::fitting(0, packet.remaining());
        // Each new range begins after a message that was too long, or which goes elsewhere. There is at most one for
        // each message packed, and two for each number of transmissions, which the limit keeps small.
        'ranges: loop {
            for (&place, &slot) in self.order.range(from..) {
                let Some(item) = &self.slots[slot as usize] else {
                    continue;
                };
                if place.transmits() >= most {
                    break;
                }
                if !pace.takes(place.transmits(), limit) {
                    from = Place::fitting(place.transmits() + 1, packet.remaining());
                    continue 'ranges;
                }
                if !packet.push(&item.bytes) {
                    // What fits no packet waits for a push/pull, not for the next packet.
                    is_short |= item.bytes.len() <= packet.whole();
                    from = Place::fitting(place.transmits(), packet.remaining());
                    continue 'ranges;
                }
                packed.push((place, slot));
            }
            return (packed, is_short);
        }
    }

    fn find(&self, subject: &Subject) -> Option<u32> {
        let hash = self.hasher.hash_one(subject);
        self.by_subject
            .find(hash, |&slot| subject_in(&self.slots, slot) == Some(subject))
            .copied()
    }

    fn index(&mut self, subject: &Subject, slot: u32) {
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_subject
            .insert_unique(hasher.hash_one(subject), slot, |&slot| {
                subject_in(slots, slot).map_or(0, |subject| hasher.hash_one(subject))
            });
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        })
    }

    /// Ends a message that is no longer in the order.
    fn retire(&mut self, slot: u32) {
        let Some(item) = self.slots[slot as usize].take() else {
            return;
        };
        if let Some(subject) = &item.subject
            && let Ok(entry) = self
                .by_subject
                .find_entry(self.hasher.hash_one(subject), |&other| other == slot)
        {
            entry.remove();
        }
        self.free.push(slot);
        self.finished.extend(item.token);
    }
}

fn subject_in(slots: &[Option<Item>], slot: u32) -> Option<&Subject> {
    slots.get(slot as usize)?.as_ref()?.subject.as_ref()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> Option<Subject> {
        Some(Subject::Node(name.into()))
    }

    fn sent(queue: &mut GossipQueue, size: usize, limit: u32) -> Vec<u8> {
        let mut packet = PacketBuilder::new(size, 0);
        queue.fill(&mut packet, limit, Pace::ALL);
        packet.finish()
    }

    #[test]
    fn a_message_is_sent_as_often_as_the_limit_says_and_then_reported() {
        let mut queue = GossipQueue::default();
        queue.push(None, b"a".to_vec(), Some(Token(1)));
        for _ in 0..4 {
            assert!(queue.take_finished().is_empty());
            assert_eq!(sent(&mut queue, 100, 4), b"a");
        }
        assert_eq!(queue.take_finished(), [Token(1)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_message_is_sent_once_even_when_the_limit_is_zero() {
        let mut queue = GossipQueue::default();
        queue.push(None, b"a".to_vec(), None);
        assert_eq!(sent(&mut queue, 100, 0), b"a");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newer_message_about_a_node_replaces_the_older_also_after_it_was_sent() {
        let mut queue = GossipQueue::default();
        queue.push(node("x"), b"old".to_vec(), Some(Token(1)));
        sent(&mut queue, 100, 4);
        queue.push(node("x"), b"new".to_vec(), None);
        assert_eq!(queue.take_finished(), [Token(1)]);
        assert_eq!(queue.len(), 1);
        assert_eq!(sent(&mut queue, 100, 4), b"new");
        queue.push(Some(Subject::Refutation), b"no!".to_vec(), None);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn what_others_send_as_well_is_sent_less_often_but_not_less_than_wanted() {
        let x = Subject::Node("x".into());
        let sends = |copies_after: &[u32], least, token| {
            let mut queue = GossipQueue::default();
            queue.push(Some(x.clone()), b"a".to_vec(), token);
            queue.push(node("y"), vec![0; 200], None);
            for copies in copies_after {
                (0..*copies).for_each(|_| queue.spare(&x, 12, least, |_| true));
                assert_eq!(sent(&mut queue, 100, 12), b"a");
            }
            let before = copies_after.len();
            before + (0..12).filter(|_| !sent(&mut queue, 100, 12).is_empty()).count()
        };
        assert_eq!(sends(&[0], 8, None), 12);
        assert_eq!(sends(&[3], 8, None), 9);
        assert_eq!(sends(&[1, 0, 5, 20], 8, None), 8);
        assert_eq!(sends(&[20], 12, None), 12);
        assert_eq!(sends(&[20], 0, None), 12, "copies do not count");
        assert_eq!(sends(&[20], 8, Some(Token(1))), 12, "somebody waits for it");
        // The last copy comes when it has been sent often enough for that.
        let mut queue = GossipQueue::default();
        queue.push(Some(x.clone()), b"a".to_vec(), None);
        (0..9).for_each(|_| drop(sent(&mut queue, 100, 12)));
        (0..9).for_each(|_| queue.spare(&x, 12, 8, |bytes| bytes == b"b"));
        (0..2).for_each(|_| queue.spare(&x, 12, 8, |bytes| bytes == b"a"));
        assert!(!queue.is_empty());
        queue.spare(&x, 12, 8, |bytes| bytes == b"a");
        assert!(queue.is_empty() && queue.by_subject.is_empty());
    }

    #[test]
    fn least_sent_first_then_longest_that_fits_then_newest() {
        let mut queue = GossipQueue::default();
        queue.push(None, b"seen".to_vec(), None);
        sent(&mut queue, 100, 9);
        for text in ["aa", "bb", "cccc", "ddddddddd"] {
            queue.push(None, text.as_bytes().to_vec(), None);
        }
        // 25 bytes: 5 for a CRC, 2 + 2 each of compound: room for 18, less 2 a message.
        let packet = sent(&mut queue, 25, 9);
        assert_eq!(packet, [&[7, 2, 0, 9, 0, 4][..], b"ddddddddd", b"cccc"].concat());
        let packet = sent(&mut queue, 16, 9);
        assert_eq!(packet, [&[7, 2, 0, 2, 0, 2][..], b"bb", b"aa"].concat()[..]);
        // All have been sent once now.
        assert_eq!(sent(&mut queue, 13, 9), b"cccc".as_slice());
    }

    #[test]
    fn what_fits_no_packet_hurries_nobody() {
        let mut queue = GossipQueue::default();
        let is_short = |queue: &mut GossipQueue| {
            let mut packet = PacketBuilder::new(100, 0);
            queue.fill(&mut packet, 9, Pace::ALL)
        };
        queue.push(None, vec![0; 100], None);
        assert!(!is_short(&mut queue), "no next packet has room for it");
        for _ in 0..2 {
            queue.push(None, vec![1; 60], None);
        }
        assert!(is_short(&mut queue));
    }

    #[test]
    fn pruning_drops_what_was_sent_most() {
        let mut queue = GossipQueue::default();
        queue.push(node("x"), b"old".to_vec(), Some(Token(3)));
        sent(&mut queue, 100, 9);
        queue.push(None, b"new".to_vec(), None);
        assert_eq!(queue.prune(1), 1);
        assert_eq!(queue.take_finished(), [Token(3)]);
        assert_eq!(sent(&mut queue, 100, 9), b"new");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(Option<u8>, usize),
        Fill(usize, u32, Pace),
        Prune(usize),
    }

    fn pace() -> impl Strategy<Value = Pace> {
        let turn = prop::option::of((0..2u32).prop_map(|which| (which, 2)));
        let lane = (1..4u32, 0..3u32, turn).prop_map(|(lanes, lane, turn)| Lane {
            lanes,
            lane: lane % lanes,
            turn,
        });
        let share = Share { percent: 75, most: 2 };
        let part = prop::sample::select(vec![Part::All, Part::Early(share), Part::Rest(share)]);
        (part, prop::option::of(lane)).prop_map(|(part, lane)| Pace { part, lane })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (prop::option::of(0..6u8), 1..12usize).prop_map(|(subject, len)| Op::Push(subject, len)),
            3 => (10..60usize, 0..4u32, pace()).prop_map(|(size, limit, pace)| Op::Fill(size, limit, pace)),
            1 => (0..8usize).prop_map(Op::Prune),
        ]
    }

    /// What the queue promises, said as plainly as possible: number, length, transmissions, subject.
    #[derive(Default)]
    struct Model {
        items: Vec<(u64, usize, u32, Option<u8>)>,
        finished: Vec<Token>,
    }

    impl Model {
        fn end(&mut self, which: impl Fn(&(u64, usize, u32, Option<u8>)) -> bool) {
            let ended = self.items.extract_if(.., |item| which(item));
            self.finished.extend(ended.map(|(number, ..)| Token(number)));
        }

        fn push(&mut self, number: u64, subject: Option<u8>, len: usize) {
            self.end(|item| subject.is_some() && item.3 == subject);
            self.items.push((number, len, 0, subject));
        }

        fn fill(&mut self, packet: &mut PacketBuilder, limit: u32, pace: Pace) {
            self.items
                .sort_by_key(|&(number, len, transmits, _)| (transmits, Reverse(len), Reverse(number)));
            let mut retired = Vec::new();
            for item in &mut self.items {
                let is_early = item.2 < 2 && 100 * item.2 < 75 * limit;
                let is_part = match pace.part {
                    Part::All => true,
                    Part::Early(_) => is_early,
                    Part::Rest(_) => !is_early,
                };
                let is_lane = pace.lane.is_none_or(|lane| {
                    let turn = lane.turn.map_or(item.2 / lane.lanes, |(which, of)| {
                        which + item.2 / lane.lanes / of * of
                    });
                    item.2 == turn * lane.lanes + lane.lane
                });
                let may = is_part && is_lane;
                if may && packet.push(&vec![item.0 as u8; item.1]) {
                    item.2 += 1;
                    retired.extend((item.2 >= limit).then_some(item.0));
                }
            }
            self.end(|item| retired.contains(&item.0));
        }

        fn prune(&mut self, keep: usize) {
            self.items
                .sort_by_key(|&(number, len, transmits, _)| (transmits, Reverse(len), Reverse(number)));
            let ended = self.items.split_off(keep.min(self.items.len()));
            self.finished
                .extend(ended.iter().map(|(number, ..)| Token(*number)));
        }
    }

    proptest! {
        #[test]
        fn the_queue_does_what_a_plain_list_would(ops in prop::collection::vec(op(), 1..60)) {
            let (mut queue, mut model) = (GossipQueue::new(7), Model::default());
            for (number, op) in (0..).zip(ops) {
                match op {
                    Op::Push(subject, len) => {
                        let name = subject.and_then(|subject| node(&format!("n{subject}")));
                        queue.push(name, vec![number as u8; len], Some(Token(number)));
                        model.push(number, subject, len);
                    }
                    Op::Fill(size, limit, pace) => {
                        let mut packets = [PacketBuilder::new(size, 0), PacketBuilder::new(size, 0)];
                        queue.fill(&mut packets[0], limit, pace);
                        model.fill(&mut packets[1], limit, pace);
                        let [real, expected] = packets.map(|packet| packet.finish());
                        prop_assert_eq!(real, expected);
                    }
                    Op::Prune(keep) => {
                        queue.prune(keep);
                        model.prune(keep);
                    }
                }
                let mut finished = queue.take_finished();
                finished.sort();
                model.finished.sort();
                prop_assert_eq!(finished, std::mem::take(&mut model.finished));
                prop_assert_eq!(queue.len(), model.items.len());
                // Nothing is left behind in the tables.
                let subjects = model.items.iter().filter(|item| item.3.is_some()).count();
                prop_assert_eq!(queue.by_subject.len(), subjects);
                prop_assert_eq!(queue.slots.len() - queue.free.len(), queue.len());
            }
        }
    }
}
