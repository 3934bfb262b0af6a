//! The nouns that the Serf layer and everything behind it share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::addr::RawAddr;
use crate::serf::keyring::{KeyBytes, KeyOp, KeyReport};

/// A query is named by its Lamport time and its ID together; either alone may repeat.
pub type QueryKey = (u64, u32);

/// A member's tags, in name order.
pub type Tags = BTreeMap<String, String>;

/// Where a member stands, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberStatus {
    /// Present.
    Alive,
    /// Announced that it leaves.
    Leaving,
    /// Gone, as announced.
    Left,
    /// Gone without a word.
    Failed,
}

impl MemberStatus {
    /// The word that command lines and RPC show.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberStatus::Alive => "alive",
            MemberStatus::Leaving => "leaving",
            MemberStatus::Left => "left",
            MemberStatus::Failed => "failed",
        }
    }

    /// The number used on the wire.
    pub fn code(self) -> u8 {
        match self {
            MemberStatus::Alive => 1,
            MemberStatus::Leaving => 2,
            MemberStatus::Left => 3,
            MemberStatus::Failed => 4,
        }
    }
}

/// A member as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's name.
    pub name: Arc<str>,
    /// Its address, in the form its owner announces.
    pub addr: RawAddr,
    /// Its gossip port.
    pub port: u16,
    /// Its tags.
    pub tags: Tags,
    /// Its status.
    pub status: MemberStatus,
    /// memberlist protocol minimum, maximum, current.
    pub protocol: [u8; 3],
    /// Serf protocol minimum, maximum, current.
    pub delegate: [u8; 3],
}

/// What happened to members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberEventKind {
    /// Came, or came back.
    Join,
    /// Left gracefully, or was forced to.
    Leave,
    /// Was declared failed.
    Failed,
    /// Changed its tags or address.
    Update,
    /// Was forgotten.
    Reap,
}

impl MemberEventKind {
    /// The event's name as handlers and streams know it.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberEventKind::Join => "member-join",
            MemberEventKind::Leave => "member-leave",
            MemberEventKind::Failed => "member-failed",
            MemberEventKind::Update => "member-update",
            MemberEventKind::Reap => "member-reap",
        }
    }
}

/// What the node tells whoever listens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One kind of change, of one member as the node emits it, of several after coalescing.
    Member {
        /// What happened.
        kind: MemberEventKind,
        /// To whom.
        members: Vec<Arc<Member>>,
    },
    /// A user event was handled for the first time.
    User {
        /// Its Lamport time.
        ltime: u64,
        /// Its name.
        name: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Whether it may be coalesced.
        coalesce: bool,
    },
    /// This node seems to be cut off, alone or with a few others, so that what it knows of the rest may be out of
    /// date; or that is over.
    Isolation {
        /// Which of the two.
        isolated: bool,
    },
    /// A query addressed to this node arrived; answer it with [`Command::Respond`].
    Query {
        /// Its Lamport time.
        ltime: u64,
        /// Its ID, unique together with `ltime`.
        id: u32,
        /// Its name.
        name: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Who asks.
        source: String,
    },
}

/// One address to contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTarget {
    /// The name the node there is expected to have, if the user gave one.
    pub name: Option<String>,
    /// Where to dial.
    pub addr: SocketAddr,
}

/// Whom the user has named to join through: they are looked after for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// Those that the user has joined already, as they were named.
    pub joined: Vec<String>,
    /// Those that are to be joined first.
    pub retry: Option<RetryJoin>,
}

/// A join that is tried until it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryJoin {
    /// Through whom, as they were named.
    pub names: Vec<String>,
    /// The pause between two tries.
    pub every: Duration,
    /// How many tries may follow the first one.
    pub max: Option<u64>,
}

/// A seed's name, and what it means at this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// As the user has named it.
    pub name: Arc<str>,
    /// All addresses behind it, or why there are none.
    pub found: Result<Vec<JoinTarget>, String>,
}

/// A question to send; see [`Command::Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryParams {
    /// The query's name.
    pub name: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Only these nodes answer; empty: all.
    pub filter_nodes: Vec<String>,
    /// Only nodes whose tags match these RE2 expressions (unanchored) answer.
    pub filter_tags: Tags,
    /// Whether every addressed node shall acknowledge it.
    pub request_ack: bool,
    /// Through how many members each answer is relayed in addition.
    pub relay_factor: u8,
    /// How long answers are collected; `None` is the default of the cluster's size.
    pub timeout: Option<Duration>,
}

/// What a user asks of the node. Each is answered once with an [`Answer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Contact these nodes; answered with [`Answer::Joined`] once all have answered or failed.
    Join {
        /// Whom to contact.
        targets: Vec<JoinTarget>,
        /// Whether events from before the join are of no interest.
        ignore_old: bool,
    },
    /// Leave gracefully; answered when the leave is over.
    Leave,
    /// Answered once all that the node knows now is stored, or it has waited for the store long enough.
    Settle,
    /// Turn a failed member into a left one; with `prune`, forget it altogether.
    ForceLeave {
        /// Whom.
        name: String,
        /// Whether to forget it.
        prune: bool,
    },
    /// Replace this node's tags; answered when they have been broadcast.
    SetTags(Tags),
    /// Send a user event.
    UserEvent {
        /// Its name.
        name: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Whether receivers may coalesce it.
        coalesce: bool,
    },
    /// Ask the cluster; answered with [`Answer::QueryStarted`], the rest comes as
    /// [`QueryUpdate`]s.
    Query(QueryParams),
    /// Install, use, remove or list a key on every member; answered with [`Answer::Keys`].
    Keys {
        /// What to do.
        op: KeyOp,
        /// With which key; empty for a listing.
        key: KeyBytes,
    },
    /// Answer a query that came as [`Event::Query`].
    Respond {
        /// The query's Lamport time.
        ltime: u64,
        /// The query's ID.
        id: u32,
        /// The answer.
        payload: Vec<u8>,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A join: how many nodes were contacted, and for the others what went wrong, as
    /// `(target's address, reason)`.
    Joined {
        /// Completed exchanges.
        contacted: usize,
        /// The failures.
        errors: Vec<(SocketAddr, String)>,
    },
    /// A key operation: what all members said.
    Keys(KeyReport),
    /// The query is under way under this key.
    QueryStarted {
        /// Its Lamport time.
        ltime: u64,
        /// Its ID.
        id: u32,
    },
    /// It failed, for this reason, in Serf's words where Serf has them.
    Failed(String),
}

/// What comes in for a query that this node asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryUpdate {
    /// The query's Lamport time.
    pub ltime: u64,
    /// The query's ID.
    pub id: u32,
    /// What came.
    pub kind: QueryUpdateKind,
}

/// The kinds of [`QueryUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryUpdateKind {
    /// A node acknowledged it.
    Ack {
        /// Which.
        from: String,
    },
    /// A node answered.
    Response {
        /// Which.
        from: String,
        /// What.
        payload: Vec<u8>,
    },
    /// The time is up; nothing follows.
    Done,
}

/// Figures of the Serf layer, as `stats` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// All known members.
    pub members: usize,
    /// Failed members.
    pub failed: usize,
    /// Left members.
    pub left: usize,
    /// Local health score (Lifeguard); 0 is healthy.
    pub health_score: u32,
    /// Whether this node seems to be cut off, alone or with a few others.
    pub isolated: bool,
    /// How often others have said in the last three minutes that this node does not answer, if often enough to
    /// count.
    pub accused: usize,
    /// Member clock.
    pub member_time: u64,
    /// Event clock.
    pub event_time: u64,
    /// Query clock.
    pub query_time: u64,
    /// Queued intents.
    pub intent_queue: usize,
    /// Queued user events.
    pub event_queue: usize,
    /// Queued queries.
    pub query_queue: usize,
    /// How often the own coordinate had to be reset.
    pub coordinate_resets: u64,
    /// Messages from peers that were refused.
    pub refused_messages: u64,
}
