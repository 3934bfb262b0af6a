//! The gossip queue: encoded messages, each sent a limited number of times (protocol.md A20).
//!
//! What was sent least often goes first; among equals the longest that still fits, then the newest.
//! Messages are encoded once and stay bytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::swim::packet::PacketBuilder;

/// What a broadcast is about; a newer one about the same replaces the older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node's state, by its name.
    Node(Box<str>),
    /// A refutation of ours. It has a key of its own, as with memberlist, so that it is not replaced
    /// by what others say about us.
    Refutation,
}

/// Tells that a broadcast has been sent as often as it shall be, or was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

type Order = (u32, Reverse<usize>, Reverse<u64>);

#[derive(Debug)]
struct Item {
    bytes: Box<[u8]>,
    subject: Option<Subject>,
    token: Option<Token>,
}

/// Messages waiting to be gossiped.
#[derive(Debug, Default)]
pub struct GossipQueue {
    items: BTreeMap<Order, Item>,
    by_subject: BTreeMap<Subject, Order>,
    pushed: u64,
    finished: Vec<Token>,
}

impl GossipQueue {
    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Queues an encoded message. One with a subject replaces the older one of that subject.
    pub fn push(&mut self, subject: Option<Subject>, bytes: Vec<u8>, token: Option<Token>) {
        self.pushed += 1;
        let order = (0, Reverse(bytes.len()), Reverse(self.pushed));
        if let Some(subject) = &subject
            && let Some(old) = self.by_subject.insert(subject.clone(), order)
        {
            let replaced = self.items.remove(&old);
            self.finished.extend(replaced.and_then(|item| item.token));
        }
        self.items.insert(
            order,
            Item {
                bytes: bytes.into(),
                subject,
                token,
            },
        );
    }

    /// Fills `packet` with what fits; a message sent `limit` times is retired.
    pub fn fill(&mut self, packet: &mut PacketBuilder, limit: u32) {
        let mut sent = Vec::new();
        while let Some(order) = self.pick(packet.remaining()) {
            let Some(item) = self.items.remove(&order) else {
                break;
            };
            packet.push(&item.bytes);
            sent.push((order, item));
        }
        for ((transmits, length, age), item) in sent {
            let transmits = transmits + 1;
            if transmits >= limit {
                self.retire(item);
                continue;
            }
            let order = (transmits, length, age);
            if let Some(subject) = &item.subject {
                self.by_subject.insert(subject.clone(), order);
            }
            self.items.insert(order, item);
        }
    }

    /// Drops what was sent most often until at most `keep` messages wait; says how many went.
    pub fn prune(&mut self, keep: usize) -> usize {
        let mut dropped = 0;
        while self.items.len() > keep {
            let Some((_, item)) = self.items.pop_last() else {
                break;
            };
            self.retire(item);
            dropped += 1;
        }
        dropped
    }

    /// Takes the tokens of broadcasts that have ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.finished)
    }

    /// The next message to send that is at most `room` bytes long.
    fn pick(&self, room: usize) -> Option<Order> {
        let mut from = (0, Reverse(room), Reverse(u64::MAX));
        // Each step either finds a message or moves on to the next number of transmissions, of which
        // there are no more than the retransmit limit.
        loop {
            let (&order, _) = self.items.range(from..).next()?;
            if order.1.0 <= room {
                return Some(order);
            }
            from = (order.0, Reverse(room), Reverse(u64::MAX));
        }
    }

    fn retire(&mut self, item: Item) {
        if let Some(subject) = &item.subject {
            self.by_subject.remove(subject);
        }
        self.finished.extend(item.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Option<Subject> {
        Some(Subject::Node(name.into()))
    }

    fn sent(queue: &mut GossipQueue, size: usize, limit: u32) -> Vec<u8> {
        let mut packet = PacketBuilder::new(size, 0);
        queue.fill(&mut packet, limit);
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
    fn pruning_drops_what_was_sent_most() {
        let mut queue = GossipQueue::default();
        queue.push(node("x"), b"old".to_vec(), Some(Token(3)));
        sent(&mut queue, 100, 9);
        queue.push(None, b"new".to_vec(), None);
        assert_eq!(queue.prune(1), 1);
        assert_eq!(queue.take_finished(), [Token(3)]);
        assert_eq!(sent(&mut queue, 100, 9), b"new");
    }
}
