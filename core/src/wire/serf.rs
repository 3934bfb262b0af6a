//! The Serf messages, carried as memberlist user messages or as the user state of a push/pull
//! (docs/protocol.md#b1-serf-messages).

use std::borrow::Cow;

/// `node` intends to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaveIntent<'a> {
    /// Lamport time of the member clock.
    pub ltime: u64,
    /// Who leaves.
    pub node: &'a str,
    /// Whether to erase the member altogether.
    pub prune: bool,
}

/// `node` intends to join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinIntent<'a> {
    /// Lamport time of the member clock.
    pub ltime: u64,
    /// Who joins.
    pub node: &'a str,
}

/// A user event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserEvent<'a> {
    /// Lamport time of the event clock.
    pub ltime: u64,
    /// The event's name.
    pub name: &'a str,
    /// Opaque; empty stands for nil as well.
    pub payload: &'a [u8],
    /// Whether receivers may coalesce it.
    pub coalesce: bool,
}

/// Bit of [`Query::flags`] and [`QueryResponse::flags`]: an ack is wanted, or this is one.
pub const FLAG_ACK: u32 = 1;
/// Bit of [`Query::flags`]: receivers do not pass the query on.
pub const FLAG_NO_BROADCAST: u32 = 2;
/// Bit of [`Query::flags`], ours alone: the asker takes answers that are too large for a datagram as a
/// user message over a stream. Serf ignores bits it does not know.
pub const FLAG_STREAM_ANSWERS: u32 = 1 << 16;

/// A question to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Lamport time of the query clock.
    pub ltime: u64,
    /// Random; unique only together with `ltime`.
    pub id: u32,
    /// Where answers go: 4 or 16 bytes.
    pub addr: &'a [u8],
    /// Port that belongs to `addr`.
    pub port: u16,
    /// The asker's name.
    pub source_node: &'a str,
    /// Encoded filters, each a type byte and a body; see [`Filter::decode`]. Never emit an empty one.
    pub filters: Vec<&'a [u8]>,
    /// [`FLAG_ACK`] and [`FLAG_NO_BROADCAST`].
    pub flags: u32,
    /// How many members an answer shall additionally be relayed through.
    pub relay_factor: u8,
    /// Relative deadline in nanoseconds.
    pub timeout_ns: i64,
    /// The query's name.
    pub name: &'a str,
    /// Opaque; empty stands for nil as well.
    pub payload: &'a [u8],
}

/// An ack of, or an answer to, a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryResponse<'a> {
    /// The query's Lamport time.
    pub ltime: u64,
    /// The query's ID.
    pub id: u32,
    /// Who answers.
    pub from: &'a str,
    /// [`FLAG_ACK`] marks an ack.
    pub flags: u32,
    /// The answer; nil or empty in an ack.
    pub payload: &'a [u8],
}

/// A member as told in a `_serf_conflict` answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireMember<'a> {
    /// The member's name.
    pub name: &'a str,
    /// 4 or 16 raw bytes.
    pub addr: &'a [u8],
    /// Gossip port.
    pub port: u16,
    /// Tags.
    pub tags: Vec<(&'a str, &'a str)>,
    /// 0 none, 1 alive, 2 leaving, 3 left, 4 failed.
    pub status: u8,
    /// memberlist protocol minimum, maximum, current.
    pub protocol: [u8; 3],
    /// Serf protocol minimum, maximum, current.
    pub delegate: [u8; 3],
}

/// A key operation's argument.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyRequest<'a> {
    /// Raw key bytes; empty for a listing. Not shown by Debug.
    pub key: &'a [u8],
}

impl std::fmt::Debug for KeyRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRequest { key: [hidden] }")
    }
}

/// A key operation's outcome at one node.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KeyResponse<'a> {
    /// Whether it succeeded.
    pub result: bool,
    /// What went wrong, or a remark.
    pub message: &'a str,
    /// The keys in ring order, base64 (listing only). Not shown by Debug.
    pub keys: Vec<&'a str>,
    /// The primary key, base64 (listing only). Not shown by Debug.
    pub primary_key: &'a str,
}

impl std::fmt::Debug for KeyResponse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyResponse")
            .field("result", &self.result)
            .field("message", &self.message)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// A wrapper: "pass `inner` on to that address as a user message".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay<'a> {
    /// 4 or 16 bytes.
    pub dest_addr: &'a [u8],
    /// Port that belongs to `dest_addr`.
    pub dest_port: u16,
    /// Name of the destination.
    pub dest_name: &'a str,
    /// The raw inner serf message, type byte included.
    pub inner: &'a [u8],
}

/// The user events of one Lamport time, as they stand in a push/pull's ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserEvents<'a> {
    /// Their common Lamport time.
    pub ltime: u64,
    /// (name, payload) pairs.
    pub events: Vec<(&'a str, &'a [u8])>,
}

/// Serf's part of a push/pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushPullState<'a> {
    /// Member clock.
    pub ltime: u64,
    /// Each member's last intent time.
    pub status_ltimes: Vec<(&'a str, u64)>,
    /// Names in status left.
    pub left_members: Vec<&'a str>,
    /// Event clock.
    pub event_ltime: u64,
    /// The sender's ring of recent events; nil slots are kept so that it re-encodes byte for byte.
    pub events: Vec<Option<UserEvents<'a>>>,
    /// Query clock.
    pub query_ltime: u64,
}

/// Any serf message; the type byte is its first.
#[derive(Clone, Debug, PartialEq)]
pub enum SerfMessage<'a> {
    /// Type 0.
    Leave(LeaveIntent<'a>),
    /// Type 1.
    Join(JoinIntent<'a>),
    /// Type 2.
    PushPull(PushPullState<'a>),
    /// Type 3.
    UserEvent(UserEvent<'a>),
    /// Type 4.
    Query(Query<'a>),
    /// Type 5.
    QueryResponse(QueryResponse<'a>),
    /// Type 6; `None` is "I know no such member".
    ConflictResponse(Option<WireMember<'a>>),
    /// Type 7.
    KeyRequest(KeyRequest<'a>),
    /// Type 8.
    KeyResponse(KeyResponse<'a>),
    /// Type 9.
    Relay(Relay<'a>),
}

/// Who shall answer a query. All filters of a query must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// Type 0: the answering node's name must be listed.
    Nodes(Vec<&'a str>),
    /// Type 1: an RE2 expression, unanchored, on the value of a tag; an absent tag counts as "".
    Tag {
        /// The tag's name.
        tag: &'a str,
        /// The expression.
        expr: &'a str,
    },
}

/// Serf's network coordinate (Vivaldi), in seconds; the payload of acks
/// (docs/protocol.md#b13-network-coordinates).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireCoordinate {
    /// Euclidean part.
    pub vec: [f64; 8],
    /// Estimated relative error.
    pub error: f64,
    /// Offset learnt over the last samples.
    pub adjustment: f64,
    /// Access-link delay.
    pub height: f64,
}

/// Tags as read from a member's metadata; invalid UTF-8 in values is replaced, never refused.
pub type WireTags<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;
