//! What this node holds about the others: facts they announce, and the state they are in.

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
    /// What [`Members::digest`] has found, until something changes.
    digest: Option<u64>,
}

impl Members {
    /// An empty list.
    pub fn new(seed: u64) -> Self {
        Members {
            table: NameTable::new(seed),
            order: Vec::new(),
            digest: None,
        }
    }

    /// A number that is the same, up to bad luck of one in 2^64, at nodes that hold the same members for living,
    /// at the same addresses and in the same incarnations. A suspect still counts as living.
    pub fn digest(&mut self) -> u64 {
        let living = self.iter().filter(|record| !record.state.is_gone());
        let sum = |sum: u64, record: &Record| {
            let (facts, incarnation) = (&record.facts, record.incarnation.to_be_bytes());
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
            let port = facts.port.to_be_bytes();
            sum.wrapping_add(stable_hash([facts.name.as_bytes(), addr, &port, &incarnation]))
        };
        let digest = self.digest.unwrap_or_else(|| living.fold(0, sum));
        self.digest = Some(digest);
        digest
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
        self.digest = None;
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
        self.digest = None;
        let id = self.table.insert(record);
        let last = self.order.len();
        names::grow_slowly(&mut self.order);
        self.order.push(id);
        self.order.swap(place.min(last), last);
        id
    }

    /// Drops the records for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&Record) -> bool) {
        let table = &mut self.table;
        self.order.retain(|&id| {
            let kept = table.get(id).is_some_and(&mut keep);
            if !kept {
                table.remove(id);
            }
            kept
        });
    }

    /// The probe order, to be shuffled.
    pub fn order_mut(&mut self) -> &mut [NodeId] {
        &mut self.order
    }
}
