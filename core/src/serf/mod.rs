//! What the cluster says: Lamport clocks, intents, events, queries, coordinates.
//!
//! [`Serf`] sits on top of swim: it learns from it who came and went ([`crate::swim::delegate::Delegate`]),
//! and uses its gossip to carry messages of its own. Its parts stand in files of their own: `intents`
//! settles who joins and leaves, `user_events` and `queries` carry events and queries, `conflict` settles who may
//! keep a name, `keys` how keys rotate, `state` what a push/pull carries, `catch_up` what a
//! restarted node hears first, `restart` what is kept over a restart, `dial` who is dialled when, `upkeep`
//! what is forgotten.

mod catch_up;
mod conflict;
pub mod coordinate;
mod delegate;
pub mod dial;
mod effect;
mod intents;
mod joins;
pub mod keyring;
mod keys;
pub mod lamport;
mod lengths;
pub mod measures;
mod members;
pub mod memory;
mod queries;
mod restart;
mod state;
pub mod tags;
mod targets;
mod types;
mod upkeep;
mod user_events;

pub use effect::{CommandId, Effect, KeyringId};
pub use keyring::KeyReport;
pub use queries::PAST_DEADLINE;
pub use types::*;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tracing::warn;

use crate::deadline::Deadlines;
use crate::outbox::Outbox;
use crate::re2::Filters;
use crate::serf::conflict::Vote;
use crate::serf::coordinate::Coordinates;
use crate::serf::dial::Dialer;
use crate::serf::intents::RecentIntent;
use crate::serf::joins::Purpose;
use crate::serf::keyring::KeyOp;
use crate::serf::lamport::LamportClock;
use crate::serf::measures::SerfMeasures;
use crate::serf::members::{Entry, MemberId, Members, count};
use crate::serf::memory::{Marks, MemberRecord, Memory};
use crate::serf::queries::{OpenQuery, OwnQuery};
use crate::serf::user_events::EventSlot;
use crate::swim::delegate::{Contact, JoinId};
use crate::swim::formulas::retransmit_limit;
use crate::swim::members::Facts;
use crate::swim::packet::PacketBuilder;
use crate::swim::profile::Profile;
use crate::swim::queue::{GossipQueue, Pace, Token};
use crate::time::Time;
use crate::wire::{SerfMessage, WireCoordinate};

/// The type byte of a user message, which carries every Serf message.
const USER: u8 = 8;

/// For how many packets the same broadcast queue comes first.
const TURN_PACKETS: u32 = 4;

/// How many intents and queries may wait before events get turns of their own. Fewer fit into two packets
/// and are through soon; waiting for the turn of a long queue of events would cost them more.
const CROWD: usize = 24;

/// How often each node sends what this layer says, at least. memberlist's own limit with the profile local is
/// two below ten members: then one query in nine does not reach all of a cluster of four, and nothing repairs
/// that. The other profiles begin at four.
const FEWEST_SENDS: u32 = 4;

/// What the Serf layer has to know about itself.
#[derive(Clone, Debug)]
pub struct SerfConfig {
    /// What this node announces.
    pub facts: Facts,
    /// Timing.
    pub profile: Profile,
    /// Limit of an encoded user event.
    pub user_event_size_limit: usize,
    /// Limit of an encoded query.
    pub query_size_limit: usize,
    /// Limit of an encoded query response.
    pub query_response_size_limit: usize,
    /// Whether to give way when another node holds our name by majority.
    pub resolve_name_conflicts: bool,
    /// Whether network coordinates are off.
    pub disable_coordinates: bool,
    /// Whether the last run ended with a leave.
    pub left: bool,
    /// Whether to look for the members of the last run even then.
    pub rejoin_after_leave: bool,
    /// Whether joins by the node itself bring the user events from before them.
    pub replay: bool,
    /// Whether to tell what must be remembered over a restart.
    pub records: bool,
    /// The seed of all randomness here.
    pub seed: u64,
}

/// What the Serf layer asks of swim, which only the node can pass on.
#[derive(Debug)]
pub enum Ask {
    /// Exchange states with all of these; ends with [`Delegate::join_ended`](crate::swim::delegate::Delegate).
    Join {
        /// Names the join in its result.
        id: JoinId,
        /// Whom to dial.
        targets: Vec<Contact>,
        /// Whether events from before the join are of no interest.
        ignore_old: bool,
    },
    /// Send a Serf message that is too large for a datagram.
    Stream {
        /// Where to.
        to: SocketAddr,
        /// The message.
        message: Vec<u8>,
    },
    /// Have it recorded how this member stands; swim knows its incarnation.
    Record(Arc<str>),
}

/// Whether this node is here, going, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Here,
    Leaving,
}

/// Everything the Serf layer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Forget members and intents that are too old.
    Reap,
    /// Give turns to failed members.
    Reconnect,
    /// Somebody is to be dialled.
    Dial,
    /// Look whether queues have grown too long.
    CheckQueues,
    /// What was missed over a restart has not come.
    CatchUp,
    /// Whoever was there in the last run, and has not been met since, is gone.
    Absent,
    /// No more answers to this query of ours.
    OwnQuery(QueryKey),
    /// No more answers of ours to this query of others.
    OpenQuery(QueryKey),
    /// A prune of a member that was still there falls due, unless it has objected meanwhile.
    Prune(MemberId, u64),
}

/// The three broadcast queues, in the order in which they fill a packet.
#[derive(Debug, Default)]
struct Queues {
    intents: GossipQueue,
    queries: GossipQueue,
    events: GossipQueue,
}

/// The Serf state machine.
#[derive(Debug)]
pub struct Serf {
    config: SerfConfig,
    phase: Phase,
    clock: LamportClock,
    event_clock: LamportClock,
    query_clock: LamportClock,
    members: Members,
    /// Since when members that left or failed are gone: apart from the others, of whom there are many more.
    gone_since: BTreeMap<MemberId, Time>,
    /// Members that were failed and are back by their word alone, of which listeners are not told yet.
    unannounced: BTreeSet<MemberId>,
    /// How many of them have answered so far.
    answered: u64,
    intents: BTreeMap<Box<str>, RecentIntent>,
    events: Vec<Option<EventSlot>>,
    event_bytes: usize,
    event_min_time: u64,
    query_min_time: u64,
    /// User events that wait for those of the time when this node was down.
    catching_up: Option<catch_up::Waiting>,
    /// Whether a peer's whole state has been merged.
    merged: bool,
    /// The members that were there in the last run, until it is clear who of them is there now.
    absent: Vec<MemberRecord>,
    /// Whether the next join brings the user events from before it in any case.
    wants_missed: bool,
    dialer: Dialer,
    /// The high-water marks of what this node itself has broadcast.
    announced: Marks,
    queries: Vec<(u64, Vec<u32>)>,
    own_queries: BTreeMap<QueryKey, OwnQuery>,
    open_queries: BTreeMap<QueryKey, OpenQuery>,
    /// Expressions of queries' filters.
    filters: Filters,
    key_queries: BTreeMap<QueryKey, (KeyOp, OpenQuery)>,
    /// What the joins under way are for.
    joins: BTreeMap<JoinId, Purpose>,
    last_join: u64,
    vote: Option<Vote>,
    queues: Queues,
    coordinates: Coordinates,
    timers: Deadlines<Timer>,
    rng: Xoshiro256PlusPlus,
    /// What is to be done, swim's wishes included.
    effects: Outbox<Effect>,
    asks: Outbox<Ask>,
    /// How many packets have been filled.
    packets: u32,
    refused: u64,
    measures: SerfMeasures,
}

impl Serf {
    /// A node that knows nobody but whom it remembers, not even itself: swim introduces it.
    pub fn new(config: SerfConfig, memory: &Memory, now: Time) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(config.seed);
        let coordinates = Coordinates::new(Xoshiro256PlusPlus::seed_from_u64(rng.random()));
        let serf = &config.profile.serf;
        let mut timers = Deadlines::default();
        timers.set(now + serf.reap_interval, Timer::Reap);
        timers.set(now + serf.reconnect_interval, Timer::Reconnect);
        timers.set(now + serf.queue_check_interval, Timer::CheckQueues);
        let mut serf = Serf {
            phase: Phase::Here,
            clock: LamportClock::default(),
            event_clock: LamportClock::default(),
            query_clock: LamportClock::default(),
            members: Members::new(rng.random()),
            gone_since: BTreeMap::new(),
            unannounced: BTreeSet::new(),
            answered: 0,
            intents: BTreeMap::new(),
            events: vec![None; serf.event_buffer.max(1)],
            event_bytes: 0,
            event_min_time: 0,
            query_min_time: 0,
            catching_up: None,
            absent: Vec::new(),
            wants_missed: false,
            dialer: Dialer::new(serf.reconnect_interval, rng.random()),
            merged: false,
            announced: Marks::default(),
            queries: vec![(0, Vec::new()); serf.query_buffer.max(1)],
            own_queries: BTreeMap::new(),
            open_queries: BTreeMap::new(),
            filters: Filters::default(),
            key_queries: BTreeMap::new(),
            joins: BTreeMap::new(),
            last_join: 0,
            vote: None,
            queues: Queues::default(),
            coordinates,
            timers,
            rng,
            effects: Outbox::default(),
            asks: Outbox::default(),
            packets: 0,
            refused: 0,
            measures: SerfMeasures::default(),
            config,
        };
        serf.restore(memory, now);
        serf.rejoin(now);
        serf
    }

    /// Does what has become due.
    pub fn handle_tick(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Reap => self.reap(now),
                Timer::Reconnect => self.reconnect(now),
                Timer::CheckQueues => self.check_queues(now),
                Timer::CatchUp => self.end_catching_up(),
                Timer::Dial => self.handle_dial_timer(now),
                Timer::Absent => self.list_absent(now),
                Timer::OwnQuery(key) => self.end_own_query(key),
                Timer::OpenQuery(key) => drop(self.open_queries.remove(&key)),
                Timer::Prune(id, ltime) => self.end_prune(now, id, ltime),
            }
        }
    }

    /// When [`Serf::handle_tick`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// What shall be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What swim shall do next.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Answers a command.
    pub fn answer(&mut self, id: CommandId, answer: Answer) {
        self.effects.push_back(Effect::Answer { id, answer });
    }

    /// Broadcasts of ours that have ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Token> {
        let queues = &mut self.queues;
        [&mut queues.intents, &mut queues.queries, &mut queues.events]
            .into_iter()
            .flat_map(GossipQueue::take_finished)
            .collect()
    }

    /// All members, by name, as listeners know them: who was failed and has not answered yet is listed as failed.
    pub fn members(&self) -> Vec<Arc<Member>> {
        let unannounced: BTreeSet<&str> = self.unannounced().map(|entry| &*entry.facts.name).collect();
        let shown = |entry: &Entry| {
            let member = entry.snapshot();
            match unannounced.contains(&*member.name) {
                true => Member {
                    status: MemberStatus::Failed,
                    ..member
                },
                false => member,
            }
        };
        let mut members: Vec<_> = self
            .members
            .values()
            .map(|entry| Arc::new(shown(entry)))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Grows with each change of [`Serf::members`], and with what might have been one.
    pub fn members_version(&self) -> u64 {
        self.members.changes() + self.answered
    }

    /// Members that are back by their word alone.
    fn unannounced(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.unannounced.iter().filter_map(|id| self.members.get(*id));
        entries.filter(|entry| entry.status == MemberStatus::Alive)
    }

    /// Makes room for this many more members, and no more than that.
    pub fn reserve_members(&mut self, more: usize) {
        self.members.reserve(more);
    }

    /// How many members are known, in any status.
    pub fn known(&self) -> usize {
        self.members.len()
    }

    /// How a member stands among the members, whether listeners know it already or not; `None` if it is not known.
    pub fn status_of(&self, name: &str) -> Option<MemberStatus> {
        self.members.by_name(name).map(|entry| entry.status)
    }

    /// The last known coordinate of a member, ourselves included.
    pub fn coordinate(&self, name: &str) -> Option<WireCoordinate> {
        if self.config.disable_coordinates {
            return None;
        }
        if *self.config.facts.name == *name {
            return Some(*self.coordinates.own());
        }
        self.coordinates.of(name).copied()
    }

    /// Figures for operators. The health score, isolation and accusations are swim's to fill in.
    pub fn stats(&self) -> Stats {
        Stats {
            members: self.members.len(),
            failed: count(&self.members, MemberStatus::Failed) + self.unannounced().count(),
            left: count(&self.members, MemberStatus::Left),
            health_score: 0,
            isolated: false,
            accused: 0,
            member_time: self.clock.time(),
            event_time: self.event_clock.time(),
            query_time: self.query_clock.time(),
            intent_queue: self.queues.intents.len(),
            event_queue: self.queues.events.len(),
            query_queue: self.queues.queries.len(),
            coordinate_resets: self.coordinates.resets(),
            refused_messages: self.refused,
        }
    }

    /// What was counted and measured since the last call.
    pub fn take_measures(&mut self) -> SerfMeasures {
        std::mem::take(&mut self.measures)
    }

    /// Whether this node has begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    fn is_me(&self, name: &str) -> bool {
        *self.config.facts.name == *name
    }

    /// Whether anybody else is there to hear a broadcast.
    fn has_peers(&self) -> bool {
        self.members
            .values()
            .any(|entry| entry.status == MemberStatus::Alive && !self.is_me(&entry.facts.name))
    }

    /// Fills a packet with what is queued here: intents, then queries, then events. When many of the
    /// first two wait, another queue comes first now and then, so that it is not kept waiting. Its turn
    /// lasts for several packets, because this layer comes first only in some of them. Says whether something
    /// did not fit.
    fn fill_packet(&mut self, packet: &mut PacketBuilder, pace: Pace) -> bool {
        let limit = self.retransmit_limit();
        let others = packet.lengths().len();
        self.packets = self.packets.wrapping_add(1);
        let crowded = self.queues.intents.len() + self.queues.queries.len() > CROWD;
        let first = match self.packets / TURN_PACKETS % 4 {
            _ if !crowded => 0,
            2 => 1,
            3 => 2,
            _ => 0,
        };
        let mut queues = [
            &mut self.queues.intents,
            &mut self.queues.queries,
            &mut self.queues.events,
        ];
        queues.rotate_left(first);
        let mut is_short = false;
        for queue in queues {
            is_short |= queue.fill(packet, limit, pace);
        }
        for length in packet.lengths().iter().skip(others) {
            // The type byte is not Serf's.
            self.measures.sent.add(f64::from(length.saturating_sub(1)));
        }
        is_short
    }

    fn retransmit_limit(&self) -> u32 {
        retransmit_limit(self.config.profile.retransmit_mult, self.members.len()).max(FEWEST_SENDS)
    }

    /// Tells the listeners.
    fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(Arc::new(event)));
    }

    fn refuse(&mut self, what: std::fmt::Arguments<'_>) {
        self.refused += 1;
        warn!(target: "serf", "Refused {what} ({} refused in all)", self.refused);
    }
}

/// A user message around a Serf message.
fn user_message(message: &SerfMessage<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.push(USER);
    message.encode(&mut out);
    out
}

/// A user message around Serf bytes passed on as they came.
fn verbatim(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 1);
    out.push(USER);
    out.extend_from_slice(message);
    out
}
