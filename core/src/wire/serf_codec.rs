//! The Serf messages to and from msgpack, but for the large ones in `serf_state`
//! (docs/protocol.md#b1-serf-messages).
//!
//! Every `encode` appends the type byte and the body. Empty payloads, filters and key lists are written
//! as nil, as Serf does; an empty key and an empty text are written as empty raws, also as Serf does.

use super::error::{DecodeError, Fault};
use super::message_codec::{address, nonempty};
use super::msgpack::{Fields, Reader, Writer};
use super::serf::{
    JoinIntent, KeyRequest, KeyResponse, LeaveIntent, Query, QueryResponse, Relay, SerfMessage, UserEvent,
};
use crate::bounds::QUERY_FILTERS_MAX;

/// First bytes of Serf messages.
pub(super) mod kind {
    pub(in super::super) const LEAVE: u8 = 0;
    pub(in super::super) const JOIN: u8 = 1;
    pub(in super::super) const PUSH_PULL: u8 = 2;
    pub(in super::super) const USER_EVENT: u8 = 3;
    pub(in super::super) const QUERY: u8 = 4;
    pub(in super::super) const QUERY_RESPONSE: u8 = 5;
    pub(in super::super) const CONFLICT_RESPONSE: u8 = 6;
    pub(in super::super) const KEY_REQUEST: u8 = 7;
    pub(in super::super) const KEY_RESPONSE: u8 = 8;
    pub(in super::super) const RELAY: u8 = 9;
}

impl<'a> SerfMessage<'a> {
    /// Reads a Serf message, type byte first. Bytes after it are ignored, but for a relay, whose inner
    /// message they are.
    pub fn decode(message: &'a [u8]) -> Result<SerfMessage<'a>, DecodeError> {
        let fail = |fault| DecodeError::new("serf message", 0, fault);
        let (&kind, body) = message.split_first().ok_or_else(|| fail(Fault::Empty))?;
        let mut reader = Reader::new(body);
        Ok(match kind {
            kind::LEAVE => SerfMessage::Leave(reader.fields()?),
            kind::JOIN => SerfMessage::Join(reader.fields()?),
            kind::PUSH_PULL => SerfMessage::PushPull(reader.fields()?),
            kind::USER_EVENT => SerfMessage::UserEvent(reader.fields()?),
            kind::QUERY => SerfMessage::Query(reader.fields()?),
            kind::QUERY_RESPONSE => SerfMessage::QueryResponse(reader.fields()?),
            kind::CONFLICT_RESPONSE if reader.nil() => SerfMessage::ConflictResponse(None),
            kind::CONFLICT_RESPONSE => SerfMessage::ConflictResponse(Some(reader.fields()?)),
            kind::KEY_REQUEST => SerfMessage::KeyRequest(reader.fields()?),
            kind::KEY_RESPONSE => SerfMessage::KeyResponse(reader.fields()?),
            kind::RELAY => SerfMessage::Relay(decode_relay(reader)?),
            other => return Err(fail(Fault::Type(other))),
        })
    }

    /// Appends the message, type byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            SerfMessage::Leave(leave) => leave.encode(out),
            SerfMessage::Join(join) => join.encode(out),
            SerfMessage::PushPull(state) => state.encode(out),
            SerfMessage::UserEvent(event) => event.encode(out),
            SerfMessage::Query(query) => query.encode(out),
            SerfMessage::QueryResponse(response) => response.encode(out),
            SerfMessage::ConflictResponse(Some(member)) => member.encode(out),
            SerfMessage::ConflictResponse(None) => out.extend_from_slice(&[kind::CONFLICT_RESPONSE, 0xc0]),
            SerfMessage::KeyRequest(request) => request.encode(out),
            SerfMessage::KeyResponse(response) => response.encode(out),
            SerfMessage::Relay(relay) => relay.encode(out),
        }
    }
}

impl LeaveIntent<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::LEAVE);
        let mut writer = Writer::new(out);
        writer
            .map(3)
            .raw("LTime")
            .uint(self.ltime)
            .raw("Node")
            .raw(self.node);
        writer.raw("Prune").bool(self.prune);
    }
}

impl<'a> Fields<'a> for LeaveIntent<'a> {
    const NAME: &'static str = "leave intent";
    const ORDER: &'static [&'static str] = &["LTime", "Node", "Prune"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"Node" => self.node = reader.name()?,
            b"Prune" => self.prune = reader.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Node", self.node)
    }
}

impl JoinIntent<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::JOIN);
        Writer::new(out)
            .map(2)
            .raw("LTime")
            .uint(self.ltime)
            .raw("Node")
            .raw(self.node);
    }
}

impl<'a> Fields<'a> for JoinIntent<'a> {
    const NAME: &'static str = "join intent";
    const ORDER: &'static [&'static str] = &["LTime", "Node"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"Node" => self.node = reader.name()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Node", self.node)
    }
}

impl UserEvent<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::USER_EVENT);
        let mut writer = Writer::new(out);
        writer
            .map(4)
            .raw("CC")
            .bool(self.coalesce)
            .raw("LTime")
            .uint(self.ltime);
        writer
            .raw("Name")
            .raw(self.name)
            .raw("Payload")
            .raw_or_nil(self.payload);
    }
}

impl<'a> Fields<'a> for UserEvent<'a> {
    const NAME: &'static str = "user event";
    const ORDER: &'static [&'static str] = &["LTime", "Name", "Payload", "CC"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"Name" => self.name = reader.text()?,
            b"Payload" => self.payload = reader.bytes()?,
            b"CC" => self.coalesce = reader.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Query<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::QUERY);
        let mut writer = Writer::new(out);
        writer.map(11).raw("Addr").raw(self.addr).raw("Filters");
        if self.filters.is_empty() {
            writer.nil();
        } else {
            writer.array(self.filters.len());
            for filter in &self.filters {
                writer.raw(filter);
            }
        }
        writer
            .raw("Flags")
            .uint(self.flags)
            .raw("ID")
            .uint(self.id)
            .raw("LTime")
            .uint(self.ltime);
        writer
            .raw("Name")
            .raw(self.name)
            .raw("Payload")
            .raw_or_nil(self.payload);
        writer
            .raw("Port")
            .uint(self.port)
            .raw("RelayFactor")
            .uint(self.relay_factor);
        writer
            .raw("SourceNode")
            .raw(self.source_node)
            .raw("Timeout")
            .int(self.timeout_ns);
    }
}

impl<'a> Fields<'a> for Query<'a> {
    const NAME: &'static str = "query";
    const ORDER: &'static [&'static str] = &[
        "LTime",
        "ID",
        "Addr",
        "Port",
        "SourceNode",
        "Filters",
        "Flags",
        "RelayFactor",
        "Timeout",
        "Name",
        "Payload",
    ];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"ID" => self.id = reader.u32()?,
            b"Addr" => self.addr = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            b"SourceNode" => self.source_node = reader.speaker()?,
            b"Filters" => {
                self.filters.clear();
                reader.array(QUERY_FILTERS_MAX, |reader| {
                    self.filters.push(reader.bytes()?);
                    Ok(())
                })?;
            }
            b"Flags" => self.flags = reader.u32()?,
            b"RelayFactor" => self.relay_factor = reader.u8()?,
            b"Timeout" => self.timeout_ns = reader.i64()?,
            b"Name" => self.name = reader.text()?,
            b"Payload" => self.payload = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        address("Addr", self.addr)
    }
}

impl QueryResponse<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::QUERY_RESPONSE);
        let mut writer = Writer::new(out);
        writer
            .map(5)
            .raw("Flags")
            .uint(self.flags)
            .raw("From")
            .raw(self.from)
            .raw("ID")
            .uint(self.id);
        writer
            .raw("LTime")
            .uint(self.ltime)
            .raw("Payload")
            .raw_or_nil(self.payload);
    }
}

impl<'a> Fields<'a> for QueryResponse<'a> {
    const NAME: &'static str = "query response";
    const ORDER: &'static [&'static str] = &["LTime", "ID", "From", "Flags", "Payload"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"ID" => self.id = reader.u32()?,
            b"From" => self.from = reader.speaker()?,
            b"Flags" => self.flags = reader.u32()?,
            b"Payload" => self.payload = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("From", self.from)
    }
}

impl<'a> KeyRequest<'a> {
    /// Reads the payload of a key query. Its first byte is not looked at, as in Serf.
    pub fn decode_payload(payload: &'a [u8]) -> Result<KeyRequest<'a>, DecodeError> {
        let (_, body) = payload
            .split_first()
            .ok_or_else(|| DecodeError::new("key request", 0, Fault::Empty))?;
        Reader::new(body).fields()
    }

    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::KEY_REQUEST);
        Writer::new(out).map(1).raw("Key").raw(self.key);
    }
}

impl<'a> Fields<'a> for KeyRequest<'a> {
    const NAME: &'static str = "key request";
    const ORDER: &'static [&'static str] = &["Key"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Key" => self.key = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl KeyResponse<'_> {
    /// Appends type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::KEY_RESPONSE);
        let mut writer = Writer::new(out);
        writer.map(4).raw("Keys");
        if self.keys.is_empty() {
            writer.nil();
        } else {
            writer.array(self.keys.len());
            for key in &self.keys {
                writer.raw(key);
            }
        }
        writer
            .raw("Message")
            .raw(self.message)
            .raw("PrimaryKey")
            .raw(self.primary_key);
        writer.raw("Result").bool(self.result);
    }
}

impl<'a> Fields<'a> for KeyResponse<'a> {
    const NAME: &'static str = "key response";
    const ORDER: &'static [&'static str] = &["Result", "Message", "Keys", "PrimaryKey"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Result" => self.result = reader.bool()?,
            b"Message" => self.message = reader.text()?,
            b"Keys" => {
                self.keys.clear();
                reader.array(reader.rest().len(), |reader| {
                    self.keys.push(reader.text()?);
                    Ok(())
                })?;
            }
            b"PrimaryKey" => self.primary_key = reader.text()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn decode_relay(mut reader: Reader<'_>) -> Result<Relay<'_>, DecodeError> {
    let RelayHeader { dest, name } = reader.fields()?;
    let inner = reader.rest();
    if inner.is_empty() {
        return Err(DecodeError::new("relay", reader.offset(), Fault::Empty));
    }
    Ok(Relay {
        dest_addr: dest.ip,
        dest_port: dest.port,
        dest_name: name,
        inner,
    })
}

impl Relay<'_> {
    /// Appends type byte, header and the inner message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::RELAY);
        let mut writer = Writer::new(out);
        writer.map(2).raw("DestAddr").map(3).raw("IP").raw(self.dest_addr);
        writer.raw("Port").uint(self.dest_port).raw("Zone").raw("");
        writer.raw("DestName").raw(self.dest_name);
        out.extend_from_slice(self.inner);
    }
}

#[derive(Default)]
struct RelayHeader<'a> {
    dest: UdpAddr<'a>,
    name: &'a str,
}

impl<'a> Fields<'a> for RelayHeader<'a> {
    const NAME: &'static str = "relay";
    const ORDER: &'static [&'static str] = &["DestAddr", "DestName"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"DestAddr" => self.dest = reader.fields().map_err(|error: DecodeError| error.fault)?,
            b"DestName" => self.name = reader.name()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        address("DestAddr", self.dest.ip)
    }
}

/// Go's UDP address. Its zone is skipped: a scope of the sender means nothing here.
#[derive(Default)]
struct UdpAddr<'a> {
    ip: &'a [u8],
    port: u16,
}

impl<'a> Fields<'a> for UdpAddr<'a> {
    const NAME: &'static str = "relay address";
    const ORDER: &'static [&'static str] = &["IP", "Port", "Zone"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"IP" => self.ip = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> Option<Fault> {
        SerfMessage::decode(bytes).err().map(|error| error.fault)
    }

    fn encoded(message: SerfMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn nil_and_empty_are_written_as_serf_does() {
        assert_eq!(
            encoded(SerfMessage::KeyRequest(KeyRequest::default())),
            b"\x07\x81\xa3Key\xa0"
        );
        assert_eq!(encoded(SerfMessage::ConflictResponse(None)), b"\x06\xc0");
        let response = KeyResponse {
            result: true,
            ..KeyResponse::default()
        };
        assert_eq!(
            encoded(SerfMessage::KeyResponse(response)),
            b"\x08\x84\xa4Keys\xc0\xa7Message\xa0\xaaPrimaryKey\xa0\xa6Result\xc3"
        );
        let event = UserEvent {
            ltime: 2,
            name: "restart",
            payload: b"",
            coalesce: true,
        };
        assert_eq!(
            encoded(SerfMessage::UserEvent(event)),
            b"\x03\x84\xa2CC\xc3\xa5LTime\x02\xa4Name\xa7restart\xa7Payload\xc0"
        );
    }

    #[test]
    fn a_key_of_32_bytes_is_written_with_a_two_byte_length() {
        let bytes = encoded(SerfMessage::KeyRequest(KeyRequest { key: &[7; 32] }));
        assert!(bytes.starts_with(b"\x07\x81\xa3Key\xda\x00\x20\x07"));
    }

    #[test]
    fn a_key_query_is_read_whatever_its_first_byte() {
        let key = |payload| KeyRequest::decode_payload(payload).map(|request| request.key.to_vec());
        assert_eq!(key(b"\x07\x81\xa3Key\xa2ab"), Ok(b"ab".to_vec()));
        assert_eq!(key(b"\x63\x81\xa3Key\xa2ab"), Ok(b"ab".to_vec()));
        assert!(key(b"").is_err());
        assert!(key(b"\x07").is_err());
    }

    #[test]
    fn key_bytes_are_not_in_errors() {
        let error = SerfMessage::decode(b"\x07\x81\xa3Key\xa9secre").expect_err("cut off");
        assert!(!format!("{error} {error:?}").contains("secre"));
    }

    #[test]
    fn empty_unknown_and_broken_messages_are_errors() {
        assert_eq!(fault(b""), Some(Fault::Empty));
        assert_eq!(fault(b"\x0a\x80"), Some(Fault::Type(10)));
        assert_eq!(
            fault(b"\x01\x81\xa5LTime\x01"),
            Some(Fault::Empty),
            "a join of nobody"
        );
        assert_eq!(
            fault(b"\x09\x82\xa8DestAddr\x81\xa2IP\xa4abcd\xa8DestName\xa1a"),
            Some(Fault::Empty)
        );
        let query = Query {
            addr: &[1, 2, 3, 4],
            filters: vec![b"x"; 129],
            ..Query::default()
        };
        let bytes = encoded(SerfMessage::Query(query));
        assert_eq!(fault(&bytes), Some(Fault::TooMany { len: 129, max: 128 }));
    }

    #[test]
    fn signed_codes_of_the_newer_generation_are_read() {
        let bytes = b"\x04\x82\xa4Addr\xa4abcd\xa7Timeout\xd3\0\0\0\0\xbe\xbc\x20\0";
        match SerfMessage::decode(bytes) {
            Ok(SerfMessage::Query(query)) => assert_eq!(query.timeout_ns, 3_200_000_000),
            other => panic!("{other:?}"),
        }
    }
}
