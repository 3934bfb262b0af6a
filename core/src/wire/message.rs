//! The memberlist messages: what one node says to another about who is alive.
//!
//! Decoded messages borrow from the datagram they came in, so the hot path copies nothing. The
//! field sets and their order are in docs/protocol.md#a4-structs.

use super::error::DecodeError;

/// "Are you there?", answered by [`Ack`] with the same sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ping<'a> {
    /// Matches the answer to the question; the only key an answer carries.
    pub seq_no: u32,
    /// The name the asker believes the target has; a target of another name stays silent. May be empty.
    pub node: &'a str,
    /// Where the answer shall go: 4 or 16 bytes, or empty for "to where this came from".
    pub source_addr: &'a [u8],
    /// The port that belongs to `source_addr`; 0 when absent.
    pub source_port: u16,
    /// The asker's name; may be empty.
    pub source_node: &'a str,
}

/// Asks a member to ping `target`, whose ack of a direct ping has not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndirectPing<'a> {
    /// The asker's sequence number, echoed in the ack or nack.
    pub seq_no: u32,
    /// Address of the node to ping: 4 or 16 bytes.
    pub target: &'a [u8],
    /// Port of the node to ping.
    pub port: u16,
    /// Name of the node to ping.
    pub node: &'a str,
    /// Whether the asker understands a [`Nack`].
    pub nack: bool,
    /// As in [`Ping`].
    pub source_addr: &'a [u8],
    /// As in [`Ping`].
    pub source_port: u16,
    /// As in [`Ping`].
    pub source_node: &'a str,
}

/// The answer to a [`Ping`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The sequence number of the ping.
    pub seq_no: u32,
    /// What the layer above adds: Serf's network coordinate. Empty stands for nil as well.
    pub payload: &'a [u8],
}

/// The answer to an indirect ping whose target sent no ack in time (Lifeguard).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// The sequence number of the indirect ping.
    pub seq_no: u32,
}

/// `from` suspects that `node` has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspect<'a> {
    /// The incarnation that is suspected.
    pub incarnation: u32,
    /// The suspected node.
    pub node: &'a str,
    /// Who suspects it.
    pub from: &'a str,
}

/// `node` is alive at this address with this metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alive<'a> {
    /// Grows with each statement the node makes about itself.
    pub incarnation: u32,
    /// The node's name.
    pub node: &'a str,
    /// 4 or 16 raw bytes, kept and passed on exactly as received (docs/protocol.md#a23-addresses).
    pub addr: &'a [u8],
    /// The gossip port; 0 means "the receiver's own port".
    pub port: u16,
    /// Opaque to this layer: Serf's tags.
    pub meta: &'a [u8],
    /// Protocol versions, 6 bytes or absent.
    pub vsn: &'a [u8],
}

/// `node` has failed, or, when `from` names the node itself, has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dead<'a> {
    /// The incarnation that is declared dead.
    pub incarnation: u32,
    /// The dead node.
    pub node: &'a str,
    /// Who says so; equal to `node` for a graceful leave.
    pub from: &'a str,
}

/// One leaf message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 0.
    Ping(Ping<'a>),
    /// Type 1.
    IndirectPing(IndirectPing<'a>),
    /// Type 2.
    Ack(Ack<'a>),
    /// Type 11.
    Nack(Nack),
    /// Type 3.
    Suspect(Suspect<'a>),
    /// Type 4.
    Alive(Alive<'a>),
    /// Type 5.
    Dead(Dead<'a>),
    /// Type 8: bytes for the layer above, without the type byte.
    User(&'a [u8]),
}

/// One node in a push/pull. `state`: 0 alive, 1 suspect, 2 dead, 3 left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushNodeState<'a> {
    /// The node's name (`Name` on the wire, `Node` elsewhere).
    pub name: &'a str,
    /// As in [`Alive`].
    pub addr: &'a [u8],
    /// As in [`Alive`].
    pub port: u16,
    /// As in [`Alive`].
    pub meta: &'a [u8],
    /// As in [`Alive`].
    pub incarnation: u32,
    /// 0 alive, 1 suspect, 2 dead, 3 left; any other value is refused while decoding.
    pub state: u8,
    /// As in [`Alive`].
    pub vsn: &'a [u8],
}

/// Full state exchanged over a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushPull<'a> {
    /// Whether the dialler is joining; echoed by the acceptor.
    pub join: bool,
    /// Every node the sender holds.
    pub nodes: Vec<PushNodeState<'a>>,
    /// The layer above's state, raw; empty means none.
    pub user_state: &'a [u8],
    /// Nodes that the sender holds and the receiver cannot; never sent.
    pub refused: RefusedNodes<'a>,
}

/// The nodes of a push/pull that break a bound of ours, and are left out: one odd member must not keep
/// all the others away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedNodes<'a> {
    /// How many there are.
    pub count: u64,
    /// The beginning of the first one's name, as far as it can be read, and what is wrong with the node.
    pub first: Option<(&'a str, DecodeError)>,
}

impl<'a> RefusedNodes<'a> {
    pub(super) fn add(&mut self, name: &'a str, error: DecodeError) {
        self.count += 1;
        self.first.get_or_insert((name, error));
    }
}

/// One complete message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage<'a> {
    /// Type 6.
    PushPull(PushPull<'a>),
    /// Type 8: bytes for the layer above.
    User(&'a [u8]),
    /// Type 0: the fallback probe.
    Ping(Ping<'a>),
    /// Type 2: the answer to the fallback probe.
    Ack(Ack<'a>),
    /// Type 13: the acceptor could not read what was sent.
    Err(&'a str),
}
