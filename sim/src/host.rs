//! One simulated machine: a node, what it has told its listeners, and the packets that wait while it
//! is frozen.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::disk::Store;
use super::happening::{Arrival, Power};
use super::sockets::Sockets;
use fyrd_core::envelope::Envelope;
use fyrd_core::node::memory::Marks;
use fyrd_core::node::{CommandId, ExchangeId, Node, NodeConfig};
use fyrd_core::serf::{Answer, Event, MemberEventKind, MemberStatus, QueryUpdate, QueryUpdateKind};
use fyrd_core::time::Time;

/// What went in and out of one host, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of them, as sealed.
    pub bytes_sent: u64,
    /// The longest of them.
    pub datagram_max: usize,
    /// Datagrams received and readable.
    pub datagrams_received: u64,
    /// Streams dialled.
    pub streams_dialled: u64,
    /// Bytes of stream messages sent, requests and replies.
    pub stream_bytes_sent: u64,
    /// Packets that could not be opened or decoded.
    pub unreadable: u64,
}

/// A simulated machine. What it collects can be read by anybody; it only grows.
#[derive(Debug)]
pub struct Host {
    /// What its node is started with. The seed is replaced at each start.
    pub config: NodeConfig,
    /// All events, in order.
    pub events: Vec<(Time, Arc<Event>)>,
    /// The answers to commands.
    pub answers: BTreeMap<CommandId, (Time, Answer)>,
    /// What came in for queries of this node.
    pub updates: Vec<(Time, QueryUpdate)>,
    /// When the node lost its name, if it did.
    pub lost_name: Option<Time>,
    /// When a join failed that is tried until it works, and after what time it is tried again, if it is.
    pub failed_joins: Vec<(Time, Option<Duration>)>,
    /// When set, every query that comes is answered with these bytes at once.
    pub responder: Option<Vec<u8>>,
    /// What went in and out.
    pub counters: Counters,
    pub(super) node: Option<Node>,
    pub(super) envelope: Envelope,
    pub(super) power: Power,
    /// Whether its machine is gone with it, so that nothing refuses connections either.
    pub(super) is_silent: bool,
    /// Grows with each start, so that what was under way before a restart is told apart.
    pub(super) life: u32,
    pub(super) inbox: VecDeque<Arrival>,
    pub(super) sockets: Sockets,
    /// Those under way, each with whether its connection stands.
    pub(super) exchanges: BTreeMap<ExchangeId, bool>,
    /// Where its system has refused to send datagrams, which the node is still to hear.
    pub(super) refused_sends: Vec<SocketAddr>,
    pub(super) wake_at: Option<Time>,
    /// By how much its clock is ahead of the world's.
    pub(super) clock_ahead: Duration,
    /// What outlives the node, where its configuration asks for records.
    pub(super) store: Store,
    /// How many of the events were handled before the last flush.
    pub(super) stored_events: usize,
    /// Which of the events were told, and not stored when the node ended: they may come again.
    pub(super) forgotten: Vec<Range<usize>>,
    /// The clocks with which the node of this life began.
    pub(super) born: Marks,
    /// Whether all that the node of the life before had sent was stored when it ended.
    pub(super) vouched: bool,
}

impl Host {
    pub(super) fn new(config: NodeConfig, envelope: Envelope) -> Self {
        Host {
            config,
            events: Vec::new(),
            answers: BTreeMap::new(),
            updates: Vec::new(),
            lost_name: None,
            failed_joins: Vec::new(),
            responder: None,
            counters: Counters::default(),
            node: None,
            envelope,
            power: Power::Down,
            is_silent: false,
            life: 0,
            inbox: VecDeque::new(),
            sockets: Sockets::default(),
            exchanges: BTreeMap::new(),
            refused_sends: Vec::new(),
            wake_at: None,
            clock_ahead: Duration::ZERO,
            store: Store::default(),
            stored_events: 0,
            forgotten: Vec::new(),
            born: Marks::default(),
            vouched: true,
        }
    }

    /// Whether the event at this place was told, and not stored as handled when the node ended.
    pub fn has_forgotten(&self, place: usize) -> bool {
        self.forgotten.iter().any(|range| range.contains(&place))
    }

    /// Its node's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where its node can be reached.
    pub fn addr(&self) -> SocketAddr {
        self.config.addr.socket(self.config.port)
    }

    /// Whether it runs.
    pub fn power(&self) -> Power {
        self.power
    }

    /// Whether what it sends and receives is held up.
    pub fn is_blocked(&self) -> bool {
        self.sockets.is_blocked()
    }

    /// Its node; `None` while the host is down.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// How its node sees a member; `None` if it does not know it, or the host is down.
    pub fn status_of(&self, name: &str) -> Option<MemberStatus> {
        self.node.as_ref()?.status_of(name)
    }

    /// When events of this kind about this member came.
    pub fn member_events(&self, kind: MemberEventKind, name: &str) -> Vec<Time> {
        let about = |event: &Event| match event {
            Event::Member { kind: found, members } => {
                *found == kind && members.iter().any(|member| *member.name == *name)
            }
            _ => false,
        };
        let found = self.events.iter().filter(|(_, event)| about(event));
        found.map(|(at, _)| *at).collect()
    }

    /// The names and payloads of all user events, in the order in which they came.
    pub fn user_events(&self) -> Vec<(String, Vec<u8>)> {
        let events = self.events.iter().filter_map(|(_, event)| match &**event {
            Event::User { name, payload, .. } => Some((name.clone(), payload.clone())),
            _ => None,
        });
        events.collect()
    }

    /// The names of all queries that were delivered here.
    pub fn queries(&self) -> Vec<String> {
        let events = self.events.iter().filter_map(|(_, event)| match &**event {
            Event::Query { name, .. } => Some(name.clone()),
            _ => None,
        });
        events.collect()
    }

    /// Who acknowledged the query with this ID, in order, duplicates included.
    pub fn acks(&self, id: u32) -> Vec<String> {
        let updates = self.updates.iter().filter(|(_, update)| update.id == id);
        updates
            .filter_map(|(_, update)| match &update.kind {
                QueryUpdateKind::Ack { from } => Some(from.clone()),
                _ => None,
            })
            .collect()
    }

    /// Who answered the query with this ID, and what.
    pub fn responses(&self, id: u32) -> Vec<(String, Vec<u8>)> {
        let updates = self.updates.iter().filter(|(_, update)| update.id == id);
        updates
            .filter_map(|(_, update)| match &update.kind {
                QueryUpdateKind::Response { from, payload } => Some((from.clone(), payload.clone())),
                _ => None,
            })
            .collect()
    }
}
