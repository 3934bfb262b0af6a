//! The memberlist messages to and from msgpack (docs/protocol.md#a4-structs).
//!
//! Every `encode` here appends the type byte and the struct, except [`PushNodeState::encode`], for
//! nodes stand in a push/pull without one. Empty metadata, payloads and version vectors are written as
//! nil, as a Go peer does that holds a nil slice; the two mean the same to every receiver.

use super::error::{DecodeError, Fault};
use super::kind;
use super::message::{
    Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, PushNodeState, PushPull, StreamMessage, Suspect,
};
use super::msgpack::{Fields, Reader, Writer};
use crate::bounds::{META_MAX, VSN_LEN};

impl<'a> Message<'a> {
    /// Decodes one leaf message, type byte first. Bytes after it are ignored.
    pub fn decode(body: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let (&kind, body) = body
            .split_first()
            .ok_or_else(|| DecodeError::new("message", 0, Fault::Truncated))?;
        let mut reader = Reader::new(body);
        Ok(match kind {
            kind::PING => Message::Ping(reader.fields()?),
            kind::INDIRECT_PING => Message::IndirectPing(reader.fields()?),
            kind::ACK => Message::Ack(reader.fields()?),
            kind::NACK => Message::Nack(reader.fields()?),
            kind::SUSPECT => Message::Suspect(reader.fields()?),
            kind::ALIVE => Message::Alive(reader.fields()?),
            kind::DEAD => Message::Dead(reader.fields()?),
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

impl StreamMessage<'_> {
    /// Appends the message in its plain form, type byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            StreamMessage::PushPull(push_pull) => push_pull.encode(out),
            StreamMessage::User(bytes) => {
                out.push(kind::USER);
                Writer::new(out).map(1).raw("UserMsgLen").uint(bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            StreamMessage::Ping(ping) => ping.encode(out),
            StreamMessage::Ack(ack) => ack.encode(out),
            StreamMessage::Err(text) => {
                out.push(kind::ERR);
                Writer::new(out).map(1).raw("Error").raw(text);
            }
        }
    }
}

/// The three fields of a ping that are left out when empty.
fn source_fields(addr: &[u8], node: &str, port: u16) -> usize {
    usize::from(!addr.is_empty()) + usize::from(!node.is_empty()) + usize::from(port != 0)
}

fn encode_source(writer: &mut Writer<'_>, addr: &[u8], node: &str, port: u16) {
    if !addr.is_empty() {
        writer.raw("SourceAddr").raw(addr);
    }
    if !node.is_empty() {
        writer.raw("SourceNode").raw(node);
    }
    if port != 0 {
        writer.raw("SourcePort").uint(port);
    }
}

impl Ping<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::PING);
        let mut writer = Writer::new(out);
        writer.map(2 + source_fields(self.source_addr, self.source_node, self.source_port));
        writer.raw("Node").raw(self.node).raw("SeqNo").uint(self.seq_no);
        encode_source(&mut writer, self.source_addr, self.source_node, self.source_port);
    }
}

impl<'a> Fields<'a> for Ping<'a> {
    const NAME: &'static str = "ping";
    const ORDER: &'static [&'static str] = &["SeqNo", "Node", "SourceAddr", "SourcePort", "SourceNode"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"SeqNo" => self.seq_no = reader.u32()?,
            b"Node" => self.node = reader.name()?,
            b"SourceAddr" => self.source_addr = reader.bytes()?,
            b"SourcePort" => self.source_port = reader.u16()?,
            b"SourceNode" => self.source_node = reader.speaker()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        optional_address("SourceAddr", self.source_addr)
    }
}

impl IndirectPing<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::INDIRECT_PING);
        let mut writer = Writer::new(out);
        writer.map(5 + source_fields(self.source_addr, self.source_node, self.source_port));
        writer
            .raw("Nack")
            .bool(self.nack)
            .raw("Node")
            .raw(self.node)
            .raw("Port")
            .uint(self.port);
        writer.raw("SeqNo").uint(self.seq_no);
        encode_source(&mut writer, self.source_addr, self.source_node, self.source_port);
        writer.raw("Target").raw(self.target);
    }
}

impl<'a> Fields<'a> for IndirectPing<'a> {
    const NAME: &'static str = "indirect ping";
    const ORDER: &'static [&'static str] = &[
        "SeqNo",
        "Target",
        "Port",
        "Node",
        "Nack",
        "SourceAddr",
        "SourcePort",
        "SourceNode",
    ];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"SeqNo" => self.seq_no = reader.u32()?,
            b"Target" => self.target = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            b"Node" => self.node = reader.name()?,
            b"Nack" => self.nack = reader.bool()?,
            b"SourceAddr" => self.source_addr = reader.bytes()?,
            b"SourcePort" => self.source_port = reader.u16()?,
            b"SourceNode" => self.source_node = reader.speaker()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        address("Target", self.target)?;
        optional_address("SourceAddr", self.source_addr)
    }
}

impl Ack<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::ACK);
        Writer::new(out)
            .map(2)
            .raw("Payload")
            .raw_or_nil(self.payload)
            .raw("SeqNo")
            .uint(self.seq_no);
    }
}

impl<'a> Fields<'a> for Ack<'a> {
    const NAME: &'static str = "ack";
    const ORDER: &'static [&'static str] = &["SeqNo", "Payload"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"SeqNo" => self.seq_no = reader.u32()?,
            b"Payload" => self.payload = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Nack {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::NACK);
        Writer::new(out).map(1).raw("SeqNo").uint(self.seq_no);
    }
}

impl<'a> Fields<'a> for Nack {
    const NAME: &'static str = "nack";
    const ORDER: &'static [&'static str] = &["SeqNo"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"SeqNo" => self.seq_no = reader.u32()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Suspect and dead have the same fields.
fn encode_accusation(kind: u8, incarnation: u32, node: &str, from: &str, out: &mut Vec<u8>) {
    out.push(kind);
    let mut writer = Writer::new(out);
    writer
        .map(3)
        .raw("From")
        .raw(from)
        .raw("Incarnation")
        .uint(incarnation)
        .raw("Node")
        .raw(node);
}

impl Suspect<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_accusation(kind::SUSPECT, self.incarnation, self.node, self.from, out);
    }
}

impl<'a> Fields<'a> for Suspect<'a> {
    const NAME: &'static str = "suspect";
    const ORDER: &'static [&'static str] = &["Incarnation", "Node", "From"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Incarnation" => self.incarnation = reader.u32()?,
            b"Node" => self.node = reader.name()?,
            b"From" => self.from = reader.speaker()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Node", self.node)
    }
}

impl Dead<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_accusation(kind::DEAD, self.incarnation, self.node, self.from, out);
    }
}

impl<'a> Fields<'a> for Dead<'a> {
    const NAME: &'static str = "dead";
    const ORDER: &'static [&'static str] = &["Incarnation", "Node", "From"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Incarnation" => self.incarnation = reader.u32()?,
            b"Node" => self.node = reader.name()?,
            b"From" => self.from = reader.speaker()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Node", self.node)
    }
}

impl Alive<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::ALIVE);
        let mut writer = Writer::new(out);
        writer
            .map(6)
            .raw("Addr")
            .raw(self.addr)
            .raw("Incarnation")
            .uint(self.incarnation);
        writer
            .raw("Meta")
            .raw_or_nil(self.meta)
            .raw("Node")
            .raw(self.node);
        writer.raw("Port").uint(self.port).raw("Vsn").raw_or_nil(self.vsn);
    }
}

impl<'a> Fields<'a> for Alive<'a> {
    const NAME: &'static str = "alive";
    const ORDER: &'static [&'static str] = &["Incarnation", "Node", "Addr", "Port", "Meta", "Vsn"];

    #[inline]
    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Incarnation" => self.incarnation = reader.u32()?,
            b"Node" => self.node = reader.name()?,
            b"Addr" => self.addr = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            b"Meta" => self.meta = meta(reader)?,
            b"Vsn" => self.vsn = vsn(reader)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Node", self.node)?;
        address("Addr", self.addr)
    }
}

impl PushNodeState<'_> {
    /// Appends the struct; there is no type byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer
            .map(7)
            .raw("Addr")
            .raw(self.addr)
            .raw("Incarnation")
            .uint(self.incarnation);
        writer
            .raw("Meta")
            .raw_or_nil(self.meta)
            .raw("Name")
            .raw(self.name);
        writer.raw("Port").uint(self.port).raw("State").uint(self.state);
        writer.raw("Vsn").raw_or_nil(self.vsn);
    }
}

impl<'a> Fields<'a> for PushNodeState<'a> {
    const NAME: &'static str = "push/pull node";
    const ORDER: &'static [&'static str] = &["Name", "Addr", "Port", "Meta", "Incarnation", "State", "Vsn"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Name" => self.name = reader.name()?,
            b"Addr" => self.addr = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            b"Meta" => self.meta = meta(reader)?,
            b"Incarnation" => self.incarnation = reader.u32()?,
            b"State" => self.state = reader.u8()?,
            // Of any length: the version check has a say about all of them.
            b"Vsn" => self.vsn = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Name", self.name)?;
        address("Addr", self.addr)?;
        if self.state > 3 {
            Err(("State", Fault::Range("0..=3")))
        } else {
            Ok(())
        }
    }
}

/// The name of a node that cannot be read otherwise.
#[derive(Default)]
pub(super) struct NameOnly<'a> {
    pub(super) name: &'a str,
}

impl<'a> Fields<'a> for NameOnly<'a> {
    const NAME: &'static str = PushNodeState::NAME;
    const ORDER: &'static [&'static str] = PushNodeState::ORDER;

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Name" => self.name = reader.speaker()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl PushPull<'_> {
    /// Appends type byte, header, nodes and user state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::PUSH_PULL);
        let mut writer = Writer::new(out);
        writer
            .map(3)
            .raw("Join")
            .bool(self.join)
            .raw("Nodes")
            .uint(self.nodes.len() as u64);
        writer.raw("UserStateLen").uint(self.user_state.len() as u64);
        for node in &self.nodes {
            node.encode(out);
        }
        out.extend_from_slice(self.user_state);
    }
}

/// What stands before the nodes of a push/pull.
#[derive(Default)]
pub(super) struct PushPullHeader {
    pub(super) join: bool,
    pub(super) nodes: u64,
    pub(super) user_state_len: u64,
}

impl<'a> Fields<'a> for PushPullHeader {
    const NAME: &'static str = "push/pull header";
    const ORDER: &'static [&'static str] = &["Nodes", "UserStateLen", "Join"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Nodes" => self.nodes = reader.u64()?,
            b"UserStateLen" => self.user_state_len = reader.u64()?,
            b"Join" => self.join = reader.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What stands before a user message on a stream.
#[derive(Default)]
pub(super) struct UserHeader {
    pub(super) len: u64,
}

impl<'a> Fields<'a> for UserHeader {
    const NAME: &'static str = "user message header";
    const ORDER: &'static [&'static str] = &["UserMsgLen"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"UserMsgLen" => self.len = reader.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The error text of a stream.
#[derive(Default)]
pub(super) struct ErrorText<'a> {
    pub(super) text: &'a str,
}

impl<'a> Fields<'a> for ErrorText<'a> {
    const NAME: &'static str = "error";
    const ORDER: &'static [&'static str] = &["Error"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Error" => self.text = reader.text()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Metadata: at most [`META_MAX`] bytes.
fn meta<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    let meta = reader.bytes()?;
    if meta.len() > META_MAX {
        return Err(Fault::TooMany {
            len: meta.len() as u64,
            max: META_MAX as u64,
        });
    }
    Ok(meta)
}

/// A version vector: six bytes, or absent. Another length would poison every later push/pull of
/// whoever stores it (docs/protocol.md#a13-merging-a-pushpull).
fn vsn<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    let vsn = reader.bytes()?;
    match vsn.len() {
        0 | VSN_LEN => Ok(vsn),
        found => Err(Fault::Length {
            found,
            expected: "0 or 6",
        }),
    }
}

/// An IP address that must be there.
pub(super) fn address(field: &'static str, addr: &[u8]) -> Result<(), (&'static str, Fault)> {
    match addr.len() {
        4 | 16 => Ok(()),
        found => Err((
            field,
            Fault::Length {
                found,
                expected: "4 or 16",
            },
        )),
    }
}

/// An IP address that may be absent.
fn optional_address(field: &'static str, addr: &[u8]) -> Result<(), (&'static str, Fault)> {
    if addr.is_empty() {
        Ok(())
    } else {
        address(field, addr)
    }
}

/// A name that must be there.
pub(super) fn nonempty(field: &'static str, name: &str) -> Result<(), (&'static str, Fault)> {
    if name.is_empty() {
        Err((field, Fault::Empty))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let length = Fault::Length {
                found: len,
                expected: "4 or 16",
            };
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
                    Fault::Length {
                        found,
                        expected: "0 or 6",
                    },
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
            let expected = (len > 512).then_some(("Meta", Fault::TooMany { len: 513, max: 512 }));
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
            assert_eq!(fault(&encoded(message)), Some(("Node", Fault::Empty)));
        }
        assert_eq!(fault(&encoded(Message::Ping(Ping::default()))), None);
    }
}
