//! What this node holds about the others: facts they announce, and the state they are in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::RawAddr;
use crate::hash::stable_hash;
use crate::names::{self, Id, NameTable, Named};
use crate::time::Time;
use crate::wire::message::Ping;

/// The oldest memberlist protocol that answers a ping over a stream.
const PMAX_STREAM_PING: u8 = 3;

/// What a node announces about itself. Shared, because every layer refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The node's name.
    pub name: Arc<str>,
    /// Its address, in the form it announces.
    pub addr: RawAddr,
    /// Its gossip port.
    pub port: u16,
    /// Opaque here: Serf's tags.
    pub meta: Box<[u8]>,
    /// Versions: pmin, pmax, pcur, dmin, dmax, dcur.
    pub vsn: [u8; 6],
}

impl Facts {
    /// The newest memberlist protocol the node understands.
    pub fn pmax(&self) -> u8 {
        self.vsn[1]
    }

    /// Whether the node answers a ping over a stream.
    pub fn takes_stream_pings(&self) -> bool {
        self.pmax() >= PMAX_STREAM_PING
    }

    /// This node's ping of a node of that name.
    pub fn ping<'a>(&'a self, node: &'a str, seq_no: u32) -> Ping<'a> {
        Ping {
            seq_no,
            node,
            source_addr: self.addr.as_bytes(),
            source_port: self.port,
            source_node: &self.name,
        }
    }

    /// Where to send to it.
    pub fn socket(&self) -> std::net::SocketAddr {
        self.addr.socket(self.port)
    }
}

/// The states of SWIM, and "left" for a death the node announced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Answers.
    Alive,
    /// Did not answer somebody; may still refute.
    Suspect,
    /// Declared failed.
    Dead,
    /// Left gracefully.
    Left,
}

impl State {
    /// The number used in a push/pull.
    pub fn code(self) -> u8 {
        match self {
            State::Alive => 0,
            State::Suspect => 1,
            State::Dead => 2,
            State::Left => 3,
        }
    }

    /// Dead or left.
    pub fn is_gone(self) -> bool {
        matches!(self, State::Dead | State::Left)
    }
}

/// One listed node.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it announces.
    pub facts: Arc<Facts>,
    /// The newest incarnation accepted; never runs back.
    pub incarnation: u32,
    /// Its state.
    pub state: State,
    /// When the state changed.
    pub changed: Time,
}

impl Named for Record {
    fn name(&self) -> &str {
        &self.facts.name
    }
}

/// Names a listed node.
pub type NodeId = Id<Record>;

/// The node list: a table by name, and the order in which nodes are probed.
#[derive(Debug)]
pub struct Members {
    table: NameTable<Record>,
    order: Vec<NodeId>,
    /// The digest of all but the changed.
    sum: u64,
    /// All that are not gone, with their places; of the changed, those that were there before.
    ring: Vec<(u64, NodeId)>,
    /// Those that may have changed since they were in the sum, and found their place on the ring. While a cluster of a
    /// thousand forms, to sum up and to sort all of them after each change takes a fifth and an eighth of its processor time.
    changed: BTreeSet<NodeId>,
}

/// If more than one in so many have changed, all are put on the ring anew.
const MANY: usize = 16;

/// A node's place on the ring: the same at all nodes, and random, so that hosts of one rack are not neighbours because
/// they are named alike.
fn place(name: &str) -> u64 {
    stable_hash([name.as_bytes()])
}

impl Members {
    /// An empty list.
    pub fn new(seed: u64) -> Self {
        Members {
            table: NameTable::new(seed),
            order: Vec::new(),
            sum: 0,
            ring: Vec::new(),
            changed: BTreeSet::new(),
        }
    }

    fn place(&self, id: NodeId) -> u64 {
        self.get(id).map_or(0, |record| place(&record.facts.name))
    }

    fn is_present(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|record| !record.state.is_gone())
    }

    /// All others that are not gone, in the order of their names' hashes, in which they lie on the ring behind this one:
    /// those up to the ring's end, and those from its beginning.
    pub fn ring_from(&mut self, id: NodeId) -> [&[(u64, NodeId)]; 2] {
        self.take_changes();
        let here = (self.place(id), id);
        let (before, behind) = self
            .ring
            .split_at(self.ring.partition_point(|other| *other < here));
        let itself = usize::from(behind.first() == Some(&here));
        [&behind[itself..], before]
    }

    /// Something about this node changes.
    fn touch(&mut self, id: NodeId) {
        if self.changed.insert(id) {
            self.sum = self.sum.wrapping_sub(self.summand(id));
        }
    }

    /// Brings digest and ring up to date.
    fn take_changes(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let many = changed.len() * MANY > self.order.len();
        for &id in &changed {
            self.sum = self.sum.wrapping_add(self.summand(id));
            if !many {
                self.put_on_ring(id, self.is_present(id));
            }
        }
        if many && !changed.is_empty() {
            let mut ring = std::mem::take(&mut self.ring);
            ring.clear();
            ring.reserve_exact(self.order.len());
            let present = self.order.iter().copied().filter(|&id| self.is_present(id));
            ring.extend(present.map(|id| (self.place(id), id)));
            ring.sort_unstable();
            self.ring = ring;
        }
    }

    fn put_on_ring(&mut self, id: NodeId, is_present: bool) {
        let here = (self.place(id), id);
        match (self.ring.binary_search(&here), is_present) {
            (Err(index), true) => {
                names::grow_slowly(&mut self.ring);
                self.ring.insert(index, here);
            }
            (Ok(index), false) => drop(self.ring.remove(index)),
            _ => {}
        }
    }

    /// A number that is the same, up to bad luck of one in 2^32, at nodes that hold the same members for living,
    /// at the same addresses and in the same incarnations. A suspect still counts as living.
    pub fn digest(&mut self) -> u32 {
        self.take_changes();
        self.sum as u32
    }

    /// What this member is in the digest's sum.
    fn summand(&self, id: NodeId) -> u64 {
        let living = self.table.get(id).filter(|record| !record.state.is_gone());
        let Some(Record {
            facts, incarnation, ..
        }) = living
        else {
            return 0;
        };
        // Both forms of an IPv4 address are the same place.
        let (v4, v6);
        let addr: &[u8] = match facts.socket().ip() {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        let (port, incarnation) = (facts.port.to_be_bytes(), incarnation.to_be_bytes());
        stable_hash([facts.name.as_bytes(), addr, &port, &incarnation])
    }

    /// How many nodes are listed, in any state.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody is listed, which is never so in a running node: it lists itself.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The id of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.table.find(name)
    }

    /// The record of this id.
    pub fn get(&self, id: NodeId) -> Option<&Record> {
        self.table.get(id)
    }

    /// The record of this id.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Record> {
        self.touch(id);
        self.table.get_mut(id)
    }

    /// The record of this name.
    pub fn by_name(&self, name: &str) -> Option<&Record> {
        self.table.by_name(name)
    }

    /// All records, in an order that depends on the seed alone.
    pub fn iter(&self) -> impl Iterator<Item = &Record> + Clone {
        self.order.iter().filter_map(|&id| self.table.get(id))
    }

    /// The node at this place of the probe order.
    pub fn at(&self, place: usize) -> Option<NodeId> {
        self.order.get(place).copied()
    }

    /// Makes room for this many more records, and no more than that.
    pub fn reserve(&mut self, more: usize) {
        self.table.reserve(more);
        self.order.reserve_exact(more);
    }

    /// Adds a record at a place of the probe order, so that nobody can predict who probes a new
    /// node next.
    pub fn insert(&mut self, record: Record, place: usize) -> NodeId {
        let id = self.table.insert(record);
        self.changed.insert(id);
        let last = self.order.len();
        names::grow_slowly(&mut self.order);
        self.order.push(id);
        self.order.swap(place.min(last), last);
        id
    }

    /// Drops the records for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&Record) -> bool) {
        let mut order = std::mem::take(&mut self.order);
        order.retain(|&id| {
            let kept = self.table.get(id).is_some_and(&mut keep);
            if !kept {
                self.touch(id);
                self.changed.remove(&id);
                self.put_on_ring(id, false);
                self.table.remove(id);
            }
            kept
        });
        self.order = order;
    }

    /// The probe order, to be shuffled.
    pub fn order_mut(&mut self) -> &mut [NodeId] {
        &mut self.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::record;

    #[test]
    fn the_ring_leads_from_each_to_all_others() {
        let mut members = Members::new(1);
        let ids: Vec<_> = (0..20)
            .map(|number| members.insert(record(number), number))
            .collect();
        let mut at = ids[0];
        let mut seen = vec![at];
        let next = |members: &mut Members, id| members.ring_from(id).concat()[0].1;
        for _ in 1..20 {
            at = next(&mut members, at);
            seen.push(at);
        }
        seen.sort();
        assert_eq!(seen, ids);
        assert_eq!(next(&mut members, at), ids[0]);
        assert_eq!(members.ring_from(at).concat().len(), 19);
    }

    /// As if nothing had been known before.
    fn digest_anew(members: &Members) -> u32 {
        let mut anew = Members::new(2);
        for (place, record) in members.iter().enumerate() {
            anew.insert(record.clone(), place);
        }
        anew.digest()
    }

    fn names_behind(members: &mut Members, me: NodeId) -> Vec<Arc<str>> {
        let [behind, before] = members.ring_from(me);
        let ids: Vec<_> = behind.iter().chain(before).map(|&(_, id)| id).collect();
        let name = |id: NodeId| Arc::clone(&members.get(id).unwrap().facts.name);
        ids.into_iter().map(name).collect()
    }

    fn names_anew(members: &Members, me: NodeId) -> Vec<Arc<str>> {
        let from = members.place(me);
        let living = members.iter().filter(|record| !record.state.is_gone());
        let mut names: Vec<_> = living.map(|record| Arc::clone(&record.facts.name)).collect();
        names.retain(|name| place(name) != from);
        names.sort_by_key(|name| place(name).wrapping_sub(from));
        names
    }

    #[test]
    fn ring_and_digest_follow_every_change() {
        let mut members = Members::new(1);
        let me = members.insert(record(0), 0);
        let mut changes = 0;
        for step in 1..400 {
            let before = members.ring_from(me).concat();
            match step % 4 {
                // Comes back, or falls, or goes for good.
                1 | 2 => {
                    members.insert(record(step), step / 3);
                }
                3 => {
                    let id = members.at(step * 7 % members.len()).unwrap();
                    let record = members.get_mut(id).unwrap();
                    record.state = if record.state.is_gone() {
                        State::Alive
                    } else {
                        State::Dead
                    };
                }
                _ if step % 8 == 0 => members.retain(|record| {
                    let number: usize = record.facts.name[1..].parse().unwrap();
                    number == 0 || number % 50 != step % 50 + 1
                }),
                _ => {}
            }
            if step % 3 > 0 {
                assert_eq!(members.digest(), digest_anew(&members), "step {step}");
            }
            let after = members.ring_from(me).concat();
            if step % 5 == 0 {
                assert_eq!(
                    names_behind(&mut members, me),
                    names_anew(&members, me),
                    "step {step}"
                );
            }
            assert!(after.iter().all(|&(_, id)| id != me));
            changes += usize::from(before != after);
        }
        assert!(changes > 10, "{changes}");
    }
}
