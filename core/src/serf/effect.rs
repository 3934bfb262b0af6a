//! What a node wants done. Whoever drives it carries these out, in order, and decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::keyring::{KeyBytes, KeyOp};
use super::memory::{Commit, Record};
use super::types::{Answer, Event, QueryKey, QueryUpdate};
use crate::swim::delegate::{ExchangeId, StreamId};

/// Names a command until it is answered; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Names a change of the keyring until its result comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyringId(pub(super) QueryKey);

/// What a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a datagram. `plain` is a single message or a compound; the driver compresses it if
    /// that is on and makes it smaller, adds the CRC if asked, seals and labels it.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What.
        plain: Vec<u8>,
        /// Whether the receiver understands a CRC frame, and the path uses one (docs/protocol.md#a6-crc).
        crc: bool,
    },
    /// Dial a stream, send `plain` (compressed and sealed by the driver), read the reply if one is
    /// expected, and hand the result back as [`Input::Exchange`](crate::node::Input::Exchange).
    Exchange {
        /// Names the exchange in its result.
        id: ExchangeId,
        /// Whom to dial.
        to: SocketAddr,
        /// One encoded stream message.
        plain: Vec<u8>,
        /// Whether the peer answers.
        expect_reply: bool,
        /// Deadline of the whole exchange.
        timeout: Duration,
    },
    /// Send this on an inbound stream, then close it.
    Reply {
        /// Which stream.
        id: StreamId,
        /// One encoded stream message.
        plain: Vec<u8>,
    },
    /// Tell the listeners.
    Event(Arc<Event>),
    /// Something came in for a query of ours.
    QueryUpdate(QueryUpdate),
    /// A command is over.
    Answer {
        /// Which.
        id: CommandId,
        /// How it ended.
        answer: Answer,
    },
    /// Change or list the keyring; the result comes back as [`Input::Keyring`](crate::node::Input::Keyring).
    Keyring {
        /// Names the change in its result.
        id: KeyringId,
        /// What to do.
        op: KeyOp,
        /// With which key; empty for a listing.
        key: KeyBytes,
    },
    /// Look these seeds up now; what they mean comes back as
    /// [`Input::LookedUp`](crate::node::Input::LookedUp).
    LookUp(Vec<Arc<str>>),
    /// A try of the join that is to be tried until it works has failed.
    JoinFailed {
        /// Why, as a user should read it.
        reason: String,
        /// When it is tried again. `None` if it was tried as often as it may be: the node ends without leaving.
        again: Option<Duration>,
    },
    /// Remember this over a restart, with the next commit.
    Record(Record),
    /// Store what was recorded since the last commit.
    Commit(Commit),
    /// The node lost its name to another and must end without leaving.
    LostName,
}
