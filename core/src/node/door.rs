//! What a node is told: its configuration, and then one [`Input`] after the other.

use std::net::SocketAddr;

use super::limits;
use crate::addr::RawAddr;
use crate::serf::keyring::KeyringResult;
use crate::serf::memory::Memory;
use crate::serf::{Command, CommandId, KeyringId, LookedUp, Seeds, Tags};
use crate::swim::delegate::{ExchangeId, StreamId};
use crate::swim::failure::Failure;
use crate::swim::profile::Profile;
use crate::wire::message::{Message, StreamMessage};

/// Everything a node has to be told before it can start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's name: neither empty nor longer than peers accept.
    pub name: String,
    /// The address it announces, in the form it is announced.
    pub addr: RawAddr,
    /// The port it announces.
    pub port: u16,
    /// The port the sockets are bound to: what a peer's port 0 means.
    pub bind_port: u16,
    /// Its tags at start.
    pub tags: Tags,
    /// The Serf protocol version it speaks.
    pub protocol: u8,
    /// Timing.
    pub profile: Profile,
    /// Bytes that encryption adds to a datagram; 0 without encryption.
    pub seal_overhead: usize,
    /// Bytes that the label adds to a datagram; 0 without label.
    pub label_overhead: usize,
    /// Whether datagrams are compressed. Whoever drives the node does the same with what is not compressed yet.
    pub compress: bool,
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
    /// What it knew when it ended last; the default for a node that has never been before.
    pub memory: Memory,
    /// Whether the last run ended with a leave.
    pub left: bool,
    /// Whether to look for the members of the last run even then.
    pub rejoin_after_leave: bool,
    /// Whether joins by the node itself bring the user events from before them.
    pub replay: bool,
    /// Whether there is a store, which is told by [`Effect::Record`](crate::serf::Effect::Record) and
    /// [`Effect::Commit`](crate::serf::Effect::Commit) what must be remembered. What shows more than is
    /// stored waits for it then.
    pub records: bool,
    /// The seed of all randomness.
    pub seed: u64,
}

impl NodeConfig {
    /// A node that has never been before and announces where it is bound: without tags and encryption,
    /// with the limits of an agent that is told nothing else.
    pub fn new(name: &str, bound: SocketAddr, profile: Profile, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            addr: RawAddr::from(bound.ip()),
            port: bound.port(),
            bind_port: bound.port(),
            tags: Tags::new(),
            protocol: *limits::SERF_PROTOCOLS.end(),
            profile,
            seal_overhead: 0,
            label_overhead: 0,
            compress: true,
            user_event_size_limit: limits::USER_EVENT_SIZE,
            query_size_limit: limits::QUERY_SIZE,
            query_response_size_limit: limits::QUERY_RESPONSE_SIZE,
            resolve_name_conflicts: true,
            disable_coordinates: false,
            memory: Memory::default(),
            left: false,
            rejoin_after_leave: false,
            replay: false,
            records: false,
            seed,
        }
    }
}

/// What can happen to a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// A deadline may have passed.
    Tick,
    /// A datagram came, opened and decoded.
    Datagram {
        /// The UDP source; never used to identify a peer.
        from: SocketAddr,
        /// How many bytes it had on the wire.
        len: usize,
        /// Its messages.
        messages: &'a [Message<'a>],
    },
    /// An inbound stream delivered its message. The node replies with
    /// [`Effect::Reply`](crate::serf::Effect::Reply) or never: when no reply stands among the effects, and none
    /// waits ([`holds_reply`](super::Node::holds_reply)), the driver closes the stream.
    Stream {
        /// Who dialled.
        from: SocketAddr,
        /// Names the stream in the reply.
        id: StreamId,
        /// What it said.
        message: &'a StreamMessage<'a>,
    },
    /// An exchange that the node asked for is over. `Ok(None)` when no reply was expected.
    Exchange {
        /// Which.
        id: ExchangeId,
        /// The reply, or why there is none.
        result: Result<Option<&'a StreamMessage<'a>>, Failure>,
    },
    /// The operating system refused to send a datagram to this address.
    SendFailed {
        /// Where it should have gone.
        to: SocketAddr,
        /// Why, as a user should read it (for example `network is unreachable`).
        reason: &'a str,
    },
    /// The keyring was changed or listed, as [`Effect::Keyring`](crate::serf::Effect::Keyring) asked, or refused.
    Keyring {
        /// Names the change.
        id: KeyringId,
        /// How it went.
        result: KeyringResult,
    },
    /// The start is over, and these are the seeds to be looked after from now on.
    Seeds(Seeds),
    /// Seeds were looked up, as [`Effect::LookUp`] asked.
    LookedUp(Vec<LookedUp>),
    /// Discovery on the local network has found agents of this cluster at these addresses.
    Discovered(Vec<SocketAddr>),
    /// The store has news.
    Store(StoreNews),
    /// A user asks for something.
    Command {
        /// Names the command in the answer.
        id: CommandId,
        /// What is asked.
        command: Command,
    },
}

/// What a store tells the node that it records for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// All commits up to this one are on the disk.
    Stored(u64),
    /// What was told and is not stored is lost, and nothing is recorded for now.
    Fails,
    /// It begins anew: everything must be told again. What was told before is not kept, where it is not
    /// stored already.
    WantsEverything,
}
