//! The memberlist messages: what one node says to another about who is alive.
//!
//! Decoded messages borrow from the datagram they came in, so the hot path copies nothing. The
//! field sets and their order are in docs/protocol.md#a4-structs.

use super::error::{DecodeError, Fault};
use super::forms::{Address, Meta, Name, Speaker, Versions};
use super::kind;
use crate::msgpack::{self, Filled, Form, Omit, OrNil, Plain, Reader, Table, Writer, table};

table! {
    /// "Are you there?", answered by [`Ack`] with the same sequence number.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ping<'a>, "ping", kind::PING {
        /// The name the asker believes the target has; a target of another name stays silent. May be empty.
        1 Node: Name => pub node: &'a str,
        /// Matches the answer to the question; the only key an answer carries.
        0 SeqNo: Plain => pub seq_no: u32,
        /// Where the answer shall go: 4 or 16 bytes, or empty for "to where this came from".
        2 SourceAddr: Omit<Address> => pub source_addr: &'a [u8],
        /// The asker's name; may be empty.
        4 SourceNode: Omit<Speaker> => pub source_node: &'a str,
        /// The port that belongs to `source_addr`; 0 when absent.
        3 SourcePort: Omit<Plain> => pub source_port: u16,
    }
}

table! {
    /// Asks a member to ping `target`, whose ack of a direct ping has not come.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IndirectPing<'a>, "indirect ping", kind::INDIRECT_PING {
        /// Whether the asker understands a [`Nack`].
        4 Nack: Plain => pub nack: bool,
        /// Name of the node to ping.
        3 Node: Name => pub node: &'a str,
        /// Port of the node to ping.
        2 Port: Plain => pub port: u16,
        /// The asker's sequence number, echoed in the ack or nack.
        0 SeqNo: Plain => pub seq_no: u32,
        /// As in [`Ping`].
        5 SourceAddr: Omit<Address> => pub source_addr: &'a [u8],
        /// As in [`Ping`].
        7 SourceNode: Omit<Speaker> => pub source_node: &'a str,
        /// As in [`Ping`].
        6 SourcePort: Omit<Plain> => pub source_port: u16,
        /// Address of the node to ping: 4 or 16 bytes.
        1 Target: Address => pub target: &'a [u8],
    }
}

table! {
    /// The answer to a [`Ping`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ack<'a>, "ack", kind::ACK {
        /// What the sender knows, in short (docs/protocol.md#a15-probe-cycle); empty where it does not say. Serf
        /// skips the field.
        2 Digest: Omit<Plain> => pub digest: &'a [u8],
        /// What the layer above adds: Serf's network coordinate. Empty stands for nil as well.
        1 Payload: OrNil<Plain> => pub payload: &'a [u8],
        /// The sequence number of the ping.
        0 SeqNo: Plain => pub seq_no: u32,
        /// The turn of probes that the sender is in (docs/protocol.md#a15-probe-cycle); 0 says nothing. Serf skips the field.
        3 Turn: Omit<Plain> => pub turn: u32,
    }
}

table! {
    /// The answer to an indirect ping whose target sent no ack in time (Lifeguard).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Nack, "nack", kind::NACK {
        /// The sequence number of the indirect ping.
        0 SeqNo: Plain => pub seq_no: u32,
    }
}

table! {
    /// `from` suspects that `node` has failed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Suspect<'a>, "suspect", kind::SUSPECT {
        /// Who suspects it.
        2 From: Speaker => pub from: &'a str,
        /// The incarnation that is suspected.
        0 Incarnation: Plain => pub incarnation: u32,
        /// The suspected node.
        1 Node: Filled<Name> => pub node: &'a str,
        /// Whether the node's host has refused `from` a connection. Not in Serf, whose decoder skips it.
        3 Refused: Omit<Plain> => pub refused: bool,
    }
}

table! {
    /// `node` is alive at this address with this metadata.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Alive<'a>, "alive", kind::ALIVE {
        /// 4 or 16 raw bytes, kept and passed on exactly as received (docs/protocol.md#a23-addresses).
        2 Addr: Address => pub addr: &'a [u8],
        /// Grows with each statement the node makes about itself.
        0 Incarnation: Plain => pub incarnation: u32,
        /// Opaque to this layer: Serf's tags.
        4 Meta: OrNil<Meta> => pub meta: &'a [u8],
        /// The node's name.
        1 Node: Filled<Name> => pub node: &'a str,
        /// The gossip port; 0 means "the receiver's own port".
        3 Port: Plain => pub port: u16,
        /// Protocol versions, 6 bytes or absent.
        5 Vsn: OrNil<Versions> => pub vsn: &'a [u8],
    }
}

table! {
    /// `node` has failed, or, when `from` names the node itself, has left.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Dead<'a>, "dead", kind::DEAD {
        /// Who says so; equal to `node` for a graceful leave.
        2 From: Speaker => pub from: &'a str,
        /// The incarnation that is declared dead.
        0 Incarnation: Plain => pub incarnation: u32,
        /// The dead node.
        1 Node: Filled<Name> => pub node: &'a str,
    }
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

impl<'a> Message<'a> {
    /// Decodes one leaf message, type byte first. Bytes after it are ignored.
    pub fn decode(body: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let (&kind, body) = body
            .split_first()
            .ok_or_else(|| DecodeError::new("message", 0, msgpack::Fault::Truncated))?;
        let mut reader = Reader::new(body);
        Ok(match kind {
            kind::PING => Message::Ping(reader.table()?),
            kind::INDIRECT_PING => Message::IndirectPing(reader.table()?),
            kind::ACK => Message::Ack(reader.table()?),
            kind::NACK => Message::Nack(reader.table()?),
            kind::SUSPECT => Message::Suspect(reader.table()?),
            kind::ALIVE => Message::Alive(reader.table()?),
            kind::DEAD => Message::Dead(reader.table()?),
            kind::USER => Message::User(body),
            other => return Err(DecodeError::new("message", 0, Fault::Type(other))),
        })
    }

    /// Appends the message, type byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Ping(ping) => ping.encode(out),
            Message::IndirectPing(ping) => ping.encode(out),
            Message::Ack(ack) => ack.encode(out),
            Message::Nack(nack) => nack.encode(out),
            Message::Suspect(suspect) => suspect.encode(out),
            Message::Alive(alive) => alive.encode(out),
            Message::Dead(dead) => dead.encode(out),
            Message::User(bytes) => {
                out.push(kind::USER);
                out.extend_from_slice(bytes);
            }
        }
    }
}

table! {
    /// One node in a push/pull.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PushNodeState<'a>, "push/pull node" {
        /// As in [`Alive`].
        1 Addr: Address => pub addr: &'a [u8],
        /// As in [`Alive`].
        4 Incarnation: Plain => pub incarnation: u32,
        /// As in [`Alive`].
        3 Meta: OrNil<Meta> => pub meta: &'a [u8],
        /// The node's name (`Name` on the wire, `Node` elsewhere).
        0 Name: Filled<Name> => pub name: &'a str,
        /// As in [`Alive`].
        2 Port: Plain => pub port: u16,
        /// 0 alive, 1 suspect, 2 dead, 3 left; any other value is refused while decoding.
        5 State: State => pub state: u8,
        /// As in [`Alive`], but of any length: the version check has a say about all of them.
        6 Vsn: OrNil<Plain> => pub vsn: &'a [u8],
    }
}

impl PushNodeState<'_> {
    /// Appends the struct; there is no type byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(&mut Writer::new(out));
    }
}

/// What a node is said to be.
struct State;

impl<'a> Form<'a, u8> for State {
    fn read(reader: &mut Reader<'a>) -> Result<u8, msgpack::Fault> {
        reader.u8()
    }

    fn write(value: &u8, writer: &mut Writer<'_>) {
        writer.uint(*value);
    }

    fn check(value: &u8) -> Result<(), msgpack::Fault> {
        if *value > 3 {
            Err(msgpack::Fault::Range("0..=3"))
        } else {
            Ok(())
        }
    }
}

table! {
    /// The name of a node that cannot be read otherwise.
    pub(super) struct NameOnly<'a>, "push/pull node" {
        0 Name: Speaker => pub(super) name: &'a str,
    }
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

impl PushPull<'_> {
    /// Appends type byte, header, nodes and user state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        PushPullHeader {
            join: self.join,
            nodes: self.nodes.len() as u64,
            user_state_len: self.user_state.len() as u64,
        }
        .encode(out);
        for node in &self.nodes {
            node.encode(out);
        }
        out.extend_from_slice(self.user_state);
    }
}

table! {
    /// What stands before the nodes of a push/pull.
    pub(super) struct PushPullHeader, "push/pull header", kind::PUSH_PULL {
        2 Join: Plain => pub(super) join: bool,
        0 Nodes: Plain => pub(super) nodes: u64,
        1 UserStateLen: Plain => pub(super) user_state_len: u64,
    }
}

table! {
    /// What stands before a user message on a stream.
    pub(super) struct UserHeader, "user message header", kind::USER {
        0 UserMsgLen: Plain => pub(super) len: u64,
    }
}

table! {
    /// The error text of a stream.
    pub(super) struct ErrorText<'a>, "error", kind::ERR {
        0 Error: Plain => pub(super) text: &'a str,
    }
}

impl StreamMessage<'_> {
    /// Appends the message in its plain form, type byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            StreamMessage::PushPull(push_pull) => push_pull.encode(out),
            StreamMessage::User(bytes) => {
                UserHeader {
                    len: bytes.len() as u64,
                }
                .encode(out);
                out.extend_from_slice(bytes);
            }
            StreamMessage::Ping(ping) => ping.encode(out),
            StreamMessage::Ack(ack) => ack.encode(out),
            StreamMessage::Err(text) => ErrorText { text }.encode(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Fault::{Empty, Length, TooMany};

    fn encoded(message: Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    fn fault(bytes: &[u8]) -> Option<(&'static str, Fault)> {
        Message::decode(bytes)
            .err()
            .map(|error| (error.field, error.fault))
    }

    #[test]
    fn empty_source_fields_are_left_out() {
        let ping = Ping {
            seq_no: 7,
            node: "alpha",
            ..Ping::default()
        };
        assert_eq!(
            encoded(Message::Ping(ping)),
            b"\x00\x82\xa4Node\xa5alpha\xa5SeqNo\x07"
        );
        let ping = Ping {
            source_port: 1,
            ..ping
        };
        assert_eq!(
            encoded(Message::Ping(ping)),
            b"\x00\x83\xa4Node\xa5alpha\xa5SeqNo\x07\xaaSourcePort\x01"
        );
    }

    #[test]
    fn empty_bytes_are_written_as_nil() {
        assert_eq!(
            encoded(Message::Ack(Ack::default())),
            b"\x02\x82\xa7Payload\xc0\xa5SeqNo\x00"
        );
        let alive = Alive {
            node: "a",
            addr: &[1, 2, 3, 4],
            ..Alive::default()
        };
        let bytes = encoded(Message::Alive(alive));
        assert!(bytes.windows(6).any(|window| window == b"\xa4Meta\xc0"));
        assert!(bytes.ends_with(b"\xa3Vsn\xc0"));
        assert_eq!(Message::decode(&bytes), Ok(Message::Alive(alive)));
    }

    #[test]
    fn addresses_have_4_or_16_bytes() {
        for (len, ok) in [
            (0, false),
            (3, false),
            (4, true),
            (5, false),
            (16, true),
            (17, false),
        ] {
            let alive = Alive {
                node: "a",
                addr: &[9; 17][..len],
                ..Alive::default()
            };
            let length = Fault::Value(Length {
                found: len,
                expected: "4 or 16",
            });
            let expected = if ok { None } else { Some(("Addr", length)) };
            assert_eq!(fault(&encoded(Message::Alive(alive))), expected);
            let ping = Ping {
                source_addr: &[9; 17][..len],
                ..Ping::default()
            };
            let expected = if ok || len == 0 {
                None
            } else {
                Some(("SourceAddr", length))
            };
            assert_eq!(fault(&encoded(Message::Ping(ping))), expected);
            let ping = IndirectPing {
                target: &[9; 17][..len],
                ..IndirectPing::default()
            };
            let expected = if ok { None } else { Some(("Target", length)) };
            assert_eq!(fault(&encoded(Message::IndirectPing(ping))), expected);
        }
    }

    #[test]
    fn version_vectors_have_6_bytes_or_none() {
        for len in 0..8 {
            let alive = Alive {
                node: "a",
                addr: &[1, 2, 3, 4],
                vsn: &[1; 8][..len],
                ..Alive::default()
            };
            let expected = match len {
                0 | 6 => None,
                found => Some((
                    "Vsn",
                    Fault::Value(Length {
                        found,
                        expected: "0 or 6",
                    }),
                )),
            };
            assert_eq!(fault(&encoded(Message::Alive(alive))), expected);
        }
    }

    #[test]
    fn metadata_has_at_most_512_bytes() {
        for len in [512, 513] {
            let alive = Alive {
                node: "a",
                addr: &[1, 2, 3, 4],
                meta: &[1; 513][..len],
                ..Alive::default()
            };
            let expected = (len > 512).then_some(("Meta", Fault::Value(TooMany { len: 513, max: 512 })));
            assert_eq!(fault(&encoded(Message::Alive(alive))), expected);
        }
    }

    #[test]
    fn what_is_said_about_a_node_names_it() {
        for message in [
            Message::Alive(Alive {
                addr: &[1, 2, 3, 4],
                ..Alive::default()
            }),
            Message::Suspect(Suspect::default()),
            Message::Dead(Dead::default()),
        ] {
            assert_eq!(fault(&encoded(message)), Some(("Node", Fault::Value(Empty))));
        }
        assert_eq!(fault(&encoded(Message::Ping(Ping::default()))), None);
    }
}
