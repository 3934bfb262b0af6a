//! Who is alive: members, probes, suspicion, the gossip queue, push/pull.
//!
//! This is SWIM with Lifeguard's extensions, wire compatible with memberlist. [`Swim`] holds the
//! state; its transitions stand in files of their own: [`mod@self`] receives, `state` says what alive,
//! suspect and dead messages do, `probe` detects failures, `answers` helps others to do so, `gossip` disseminates, `eager`
//! what is new at once, `exchange` merges whole states, `repair` finds out when that is needed. Everything that swim wants
//! sent, and everything that it has to tell, goes through [`delegate::Delegate`].

mod answers;
pub mod delegate;
mod eager;
mod evidence;
pub mod exchange;
pub mod failure;
pub mod formulas;
mod gossip;
mod isolation;
mod lengths;
mod look;
pub mod measures;
pub mod members;
pub mod packet;
mod pauses;
pub mod pool;
mod probe;
pub mod profile;
mod profile_text;
pub mod queue;
pub mod repair;
mod returns;
mod round_trips;
mod silence;
mod state;
mod strangers;
mod stretch;
mod suspicion;
mod trouble;
mod turns;
pub mod version;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tracing::warn;

use crate::addr::RawAddr;
use crate::bounds::MAX_MEMBERS;
use crate::deadline::Deadlines;
use crate::repeats::Repeats;
use crate::swim::answers::Relay;
use crate::swim::delegate::{Delegate, ExchangeId, JoinId, StreamId};
use crate::swim::eager::Eager;
use crate::swim::exchange::{Exchange, Join};
use crate::swim::isolation::Isolation;
use crate::swim::look::Look;
use crate::swim::measures::SwimMeasures;
use crate::swim::members::NodeId;
use crate::swim::members::{Facts, Members, Record, State};
use crate::swim::packet::PacketBuilder;
use crate::swim::pauses::Pauses;
use crate::swim::pool::FactsPool;
use crate::swim::probe::Probe;
use crate::swim::profile::Profile;
use crate::swim::queue::{GossipQueue, Pace, Token};
use crate::swim::repair::Repair;
use crate::swim::returns::Return;
use crate::swim::round_trips::RoundTrips;
use crate::swim::state::encoded;
use crate::swim::strangers::Strangers;
use crate::swim::stretch::Stretch;
use crate::swim::suspicion::Suspicion;
use crate::swim::trouble::{Accusations, Reminder};
use crate::swim::turns::Turns;
use crate::time::Time;
use crate::wire::message::{Message, StreamMessage};

/// What swim has to know about itself.
#[derive(Clone, Debug)]
pub struct SwimConfig {
    /// What this node announces.
    pub facts: Facts,
    /// The port the sockets are bound to: what a peer's port 0 means.
    pub bind_port: u16,
    /// Timing.
    pub profile: Profile,
    /// Bytes that label and encryption add to each datagram.
    pub overhead: usize,
    /// Whether datagrams are compressed.
    pub compress: bool,
    /// The incarnation it starts with: 1 for a new node, more than it ever announced for one that was before.
    pub incarnation: u32,
    /// Who was gone already when it was here last.
    pub gone: Vec<Record>,
    /// Where facts are shared with other nodes of this process.
    pub pool: FactsPool,
    /// The seed of all randomness here.
    pub seed: u64,
}

/// Everything swim waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Probe the next node.
    Probe,
    /// The direct ping of this sequence number has had its time; ping indirectly.
    ProbeTimeout(u32),
    /// The whole probe of this sequence number has had its time.
    ProbeDeadline(u32),
    /// A ping relayed for a peer has had its time.
    Relay(u32),
    /// A suspicion of this node may have run out.
    Suspicion(NodeId),
    /// The ack of the ping of this sequence number is late.
    LateAck(u32),
    /// The next step of a look at this suspect.
    Evidence(NodeId),
    /// A look at the address of this node goes on.
    Look(NodeId),
    /// This member has returned, and shall answer.
    Return(NodeId),
    /// Gossip.
    Gossip,
    /// Send news ahead of the next round.
    Eager,
    /// Compare states with a random node.
    PushPull,
}

/// What a peer's state can make this node find again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A member announces an address that cannot be its own.
    Address,
    /// A member is there for streams and not for datagrams.
    Datagrams,
    /// A ping for that name comes here.
    Ping,
    /// A ping is wanted of a member that is not known at that address.
    Relay,
    /// The state of that member, or of whoever is at that address, cannot be had or merged.
    PushPull,
    /// Somebody else is where that member was.
    Stranger,
    /// A member is claimed to be at another address.
    Claim,
    /// Two nodes have that name.
    Conflict,
}

/// The membership state machine.
#[derive(Debug)]
pub struct Swim {
    config: SwimConfig,
    members: Members,
    me: NodeId,
    /// Set once leaving began; from then on nothing about ourselves is refuted.
    leaving: bool,
    rng: Xoshiro256PlusPlus,
    timers: Deadlines<Timer>,
    /// Loops that stand still because there is nobody, or nothing to say, and when they are due next.
    resting: Vec<(Timer, Time, Duration)>,
    queue: GossipQueue,
    stretch: Stretch,
    eager: Eager,
    repair: Repair,
    suspicions: BTreeMap<NodeId, Suspicion>,
    looks: BTreeMap<NodeId, Look>,
    /// Who has been let in at another address, when, and which one was left behind.
    moved: BTreeMap<NodeId, (Time, SocketAddr)>,
    returns: BTreeMap<NodeId, Return>,
    accusations: Accusations,
    /// When anything was heard from anybody.
    heard: Time,
    /// Who has sent the last datagram.
    heard_from: Option<SocketAddr>,
    isolation: Isolation,
    /// Local health score (Lifeguard): 0 is healthy; stretches the probe interval.
    awareness: u32,
    seq_no: u32,
    probe: Option<Probe>,
    turns: Turns,
    round_trips: RoundTrips,
    probe_pending: bool,
    pauses: Pauses,
    refused_sends: Reminder,
    relays: BTreeMap<u32, Relay>,
    /// Who has reached a member last that did not answer this node itself.
    reached_by: BTreeMap<NodeId, NodeId>,
    /// The newest of them.
    last_relay: Option<NodeId>,
    strangers: Strangers,
    exchanges: BTreeMap<ExchangeId, Exchange>,
    joins: BTreeMap<JoinId, Join>,
    last_exchange: u64,
    /// How many packets have been filled with gossip.
    packets: u32,
    refused: u64,
    /// Push/pulls with nodes that cannot be held here.
    unheld: u64,
    repeats: Repeats<Trouble>,
    measures: SwimMeasures,
}

impl Swim {
    /// A node that is alive and alone. Its own alive message stands in the queue already.
    pub fn new(mut config: SwimConfig, now: Time, delegate: &mut impl Delegate) -> Self {
        let mut members = Members::new(config.seed);
        let facts = config.pool.share(config.facts.clone());
        let record = Record {
            facts: Arc::clone(&facts),
            incarnation: config.incarnation,
            state: State::Alive,
            changed: now,
        };
        let me = members.insert(record, 0);
        let gone = std::mem::take(&mut config.gone);
        list_gone(&mut members, gone, config.profile.gossip_to_the_dead_time, now);
        let mut swim = Swim {
            members,
            me,
            leaving: false,
            rng: Xoshiro256PlusPlus::seed_from_u64(config.seed),
            timers: Deadlines::default(),
            resting: Vec::new(),
            queue: GossipQueue::new(config.seed),
            stretch: Stretch::new(config.compress),
            eager: Eager::default(),
            repair: Repair::new(now),
            suspicions: BTreeMap::new(),
            looks: BTreeMap::new(),
            moved: BTreeMap::new(),
            returns: BTreeMap::new(),
            accusations: Accusations::default(),
            heard: now,
            heard_from: None,
            isolation: Isolation::default(),
            awareness: 0,
            seq_no: 0,
            probe: None,
            turns: Turns::default(),
            round_trips: RoundTrips::default(),
            probe_pending: false,
            pauses: Pauses::default(),
            refused_sends: Reminder::default(),
            relays: BTreeMap::new(),
            reached_by: BTreeMap::new(),
            last_relay: None,
            strangers: Strangers::default(),
            exchanges: BTreeMap::new(),
            joins: BTreeMap::new(),
            last_exchange: 0,
            packets: 0,
            refused: 0,
            unheld: 0,
            repeats: Repeats::default(),
            measures: SwimMeasures::default(),
            config,
        };
        swim.announce_self(None);
        delegate.member_joined(now, &facts);
        swim.start_timers(now);
        swim
    }

    /// Takes a message of a datagram.
    pub fn handle_message(
        &mut self,
        now: Time,
        from: SocketAddr,
        message: &Message<'_>,
        delegate: &mut impl Delegate,
    ) {
        self.hear(now, Some(from), delegate);
        match message {
            Message::Ping(ping) => self.handle_ping(now, from, ping, delegate),
            Message::IndirectPing(ping) => self.handle_indirect_ping(now, from, ping, delegate),
            Message::Ack(ack) => self.handle_ack(now, from, ack, delegate),
            Message::Nack(nack) => self.handle_nack(nack.seq_no),
            Message::Suspect(suspect) => {
                self.correct(now, suspect.node, suspect.incarnation, suspect.from, delegate);
                self.hear_accusation(now, from, suspect, delegate);
            }
            Message::Alive(alive) => self.handle_alive(now, alive, delegate),
            Message::Dead(dead) => {
                self.correct(now, dead.node, dead.incarnation, dead.from, delegate);
                self.dead(now, dead.node, dead.incarnation, dead.from, delegate);
            }
            Message::User(bytes) => delegate.user_message(now, bytes),
        }
    }

    /// Takes the message of an inbound stream; a reply, if any, is sent before this returns.
    pub fn handle_stream(
        &mut self,
        now: Time,
        from: SocketAddr,
        stream: StreamId,
        message: &StreamMessage<'_>,
        delegate: &mut impl Delegate,
    ) {
        self.hear(now, None, delegate);
        match message {
            StreamMessage::PushPull(remote) => self.accept_push_pull(now, from, stream, remote, delegate),
            StreamMessage::Ping(ping) => self.accept_stream_ping(now, from, stream, ping, delegate),
            StreamMessage::User(bytes) => delegate.user_message(now, bytes),
            StreamMessage::Ack(_) | StreamMessage::Err(_) => {
                self.refuse(format_args!("an answer without a question from={from}"))
            }
        }
    }

    /// Does what has become due.
    pub fn handle_tick(&mut self, now: Time, delegate: &mut impl Delegate) {
        if let Some(due) = self.timers.next().filter(|due| *due <= now) {
            self.note_late_timer(now, now.since(due));
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Probe => self.tick_probe(now, delegate),
                Timer::ProbeTimeout(seq_no) => self.end_direct_ping(now, seq_no, delegate),
                Timer::ProbeDeadline(seq_no) => self.end_probe(now, seq_no, delegate),
                Timer::Relay(seq_no) => self.end_relay(seq_no, delegate),
                Timer::Suspicion(id) => self.end_suspicion(now, id, delegate),
                Timer::LateAck(seq_no) => self.end_usual_round_trip(now, seq_no, delegate),
                Timer::Evidence(id) => self.tick_evidence(now, id, delegate),
                Timer::Look(id) => self.tick_look(now, id, delegate),
                Timer::Return(id) => self.tick_return(now, id, delegate),
                Timer::Gossip => self.tick_gossip(now, delegate),
                Timer::Eager => self.tick_eager(now, delegate),
                Timer::PushPull => self.tick_push_pull(now, delegate),
            }
        }
    }

    /// When [`Swim::handle_tick`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Broadcasts of ours that have ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Token> {
        self.queue.take_finished()
    }

    /// Announces new metadata; `token` ends when it has been broadcast.
    pub fn set_meta(&mut self, now: Time, meta: Vec<u8>, token: Token, delegate: &mut impl Delegate) {
        let Some(record) = self.members.get_mut(self.me) else {
            return;
        };
        let facts = self.config.pool.share(Facts {
            meta: meta.into(),
            ..(*record.facts).clone()
        });
        record.facts = Arc::clone(&facts);
        record.incarnation = record.incarnation.saturating_add(1);
        self.announce_self(Some(token));
        delegate.member_updated(now, &facts);
    }

    /// Lists these nodes as alive, in incarnation 1 and without a word to anybody, as if they had been met
    /// long ago.
    pub fn acquaint(&mut self, now: Time, others: &[Arc<Facts>], delegate: &mut impl Delegate) {
        let room = MAX_MEMBERS.saturating_sub(self.members.len());
        self.members.reserve(others.len().min(room));
        for facts in others.iter().take(room) {
            if self.members.find(&facts.name).is_none() {
                self.list_alive(now, facts, 1);
                delegate.member_joined(now, facts);
            }
        }
    }

    /// This node's own facts, as the others share them.
    pub fn facts(&self) -> Option<&Arc<Facts>> {
        self.members.get(self.me).map(|me| &me.facts)
    }

    /// Announces that this node leaves; `token` ends when that has been broadcast. Probes are still
    /// answered afterwards, until the process ends.
    pub fn leave(&mut self, now: Time, token: Token, delegate: &mut impl Delegate) {
        self.leaving = true;
        self.declare_own_death(now, token, delegate);
    }

    /// Whether another node is believed to be there.
    pub fn has_peers(&self) -> bool {
        self.members
            .iter()
            .any(|member| !member.state.is_gone() && !self.is_me(&member.facts.name))
    }

    /// The local health score; 0 is healthy.
    pub fn health_score(&self) -> u32 {
        self.awareness
    }

    /// How many messages were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What was counted since the last call.
    pub fn take_measures(&mut self) -> SwimMeasures {
        std::mem::take(&mut self.measures)
    }

    /// The node list, for whoever wants to look.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// This node's own record's incarnation.
    pub fn incarnation(&self) -> u32 {
        self.members.get(self.me).map_or(0, |me| me.incarnation)
    }

    fn is_me(&self, name: &str) -> bool {
        *self.config.facts.name == *name
    }

    /// A number from 0 to 1.
    fn random(&mut self) -> f64 {
        self.rng.random()
    }

    fn next_seq_no(&mut self) -> u32 {
        self.seq_no = self.seq_no.wrapping_add(1);
        self.seq_no
    }

    /// Answers whoever says to be `name`, at an address that anybody may have invented. Only where that member is
    /// known to be the answer is whole, with gossip. Elsewhere it is `bare`, and no more than came from there.
    fn answer(
        &mut self,
        now: Time,
        name: &str,
        to: SocketAddr,
        delegate: &mut impl Delegate,
        whole: impl FnOnce(&mut Vec<u8>),
        bare: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.is_at(name, to) {
            return self.send_with_gossip(to, delegate, whole);
        }
        let plain = encoded(bare);
        if self.may_answer_stranger(now, to, plain.len()) {
            delegate.send(to, plain, false);
        }
    }

    /// Whether a member of this name is known at this address. Peers of old versions give no name.
    fn is_at(&self, name: &str, addr: SocketAddr) -> bool {
        let is_there = |record: &Record| record.facts.addr.ip() == addr.ip();
        if name.is_empty() {
            return self.members.iter().any(is_there);
        }
        self.members.by_name(name).is_some_and(is_there)
    }

    /// Whether a message may go to an address without a member. It is counted if so, and else refused.
    fn may_answer_stranger(&mut self, now: Time, to: SocketAddr, len: usize) -> bool {
        let may = self.strangers.may_send(now, to, len + self.config.overhead);
        if !may {
            self.refuse(format_args!(
                "to answer {to}, where no member is known, with more than came from there"
            ));
        }
        may
    }

    /// A datagram has come, of so many bytes as they were on the wire; its messages follow.
    pub fn note_arrival(&mut self, from: SocketAddr, len: usize) {
        self.strangers.note_arrival(from, len);
    }

    /// Sends one message, filled up with gossip. No CRC: that is what memberlist does on all paths
    /// but gossip (docs/protocol.md#a6-crc).
    fn send_with_gossip(
        &mut self,
        to: SocketAddr,
        delegate: &mut impl Delegate,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut packet = PacketBuilder::new(self.config.profile.udp_buffer_size, self.config.overhead);
        packet.push_base(write);
        let pace = Pace {
            part: self.part_beside_waves(),
            lane: None,
        };
        self.fill(&mut packet, pace, delegate);
        delegate.send(to, packet.finish(), false);
    }

    /// Whether this trouble with a name that a peer gives is worth a line once more. Names of no members count as one,
    /// for a peer can invent them.
    fn is_news(&mut self, trouble: Trouble, name: &str) -> bool {
        let known = self.members.find(name).is_some();
        self.repeats.again(trouble, if known { name } else { "" })
    }

    /// Counts a message that made no sense. The peer's mistake is ours to survive, not to answer.
    fn refuse(&mut self, what: std::fmt::Arguments<'_>) {
        self.refused += 1;
        warn!(target: "memberlist", "Refused {what} ({} refused in all)", self.refused);
    }
}

/// Lists those who went so short a time ago that they would be listed still, so that what was said of their
/// lives before does not bring them back.
fn list_gone(members: &mut Members, gone: Vec<Record>, keep: Duration, now: Time) {
    for record in gone {
        let recent = now.since(record.changed) <= keep;
        if recent && members.len() < MAX_MEMBERS && members.find(&record.facts.name).is_none() {
            let changed = record.changed.min(now);
            members.insert(Record { changed, ..record }, usize::MAX);
        }
    }
}

/// Reads an address and a port that may be absent as memberlist does: both or neither.
fn reply_address(addr: &[u8], port: u16, from: SocketAddr) -> SocketAddr {
    match RawAddr::from_bytes(addr) {
        Some(addr) if port != 0 => addr.socket(port),
        _ => from,
    }
}

/// A node to try things on.
#[cfg(test)]
pub(crate) mod testing {
    use super::delegate::Silent;
    use super::*;
    use crate::wire::message::Alive;

    /// A lone node named "me" at 10.0.0.1.
    pub fn start(seed: u64) -> (Swim, Silent) {
        let mut delegate = Silent::default();
        let config = SwimConfig {
            facts: Facts {
                name: "me".into(),
                addr: RawAddr::V4([10, 0, 0, 1]),
                port: 7946,
                meta: Box::default(),
                vsn: [1, 5, 2, 2, 5, 5],
            },
            bind_port: 7946,
            profile: Profile::builtin("lan").unwrap(),
            overhead: 0,
            compress: false,
            pool: FactsPool::default(),
            incarnation: 1,
            gone: Vec::new(),
            seed,
        };
        (Swim::new(config, Time::ZERO, &mut delegate), delegate)
    }

    /// A living member of the name "n`number`".
    pub fn record(number: usize) -> Record {
        Record {
            facts: Arc::new(Facts {
                name: format!("n{number}").into(),
                addr: RawAddr::V4([10, 0, 0, 1]),
                port: 7946,
                meta: Box::default(),
                vsn: [1, 5, 2, 2, 5, 4],
            }),
            incarnation: 1,
            state: State::Alive,
            changed: Time::ZERO,
        }
    }

    /// What a node at 10.0.0.`host` says of itself.
    pub fn alive(node: &str, host: u8, incarnation: u32) -> Alive<'_> {
        static ADDRS: [[u8; 4]; 256] = {
            let mut addrs = [[10, 0, 0, 0]; 256];
            let mut host = 0;
            while host < 256 {
                addrs[host][3] = host as u8;
                host += 1;
            }
            addrs
        };
        Alive {
            incarnation,
            node,
            addr: &ADDRS[usize::from(host)],
            port: 7946,
            meta: &[],
            vsn: &[1, 5, 2, 2, 5, 5],
        }
    }
}
