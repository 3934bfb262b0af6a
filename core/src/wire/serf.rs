//! The Serf messages, carried as memberlist user messages or as the user state of a push/pull
//! (docs/protocol.md#b1-serf-messages). The large ones are in `serf_state`.
//!
//! Empty payloads, filters and key lists are written as nil, as Serf does; an empty key and an empty text
//! are written as empty raws, also as Serf does.

use super::error::{DecodeError, Fault};
use super::forms::{Address, Name, Speaker};
use super::kind::serf as kind;
use super::serf_state::{PushPullState, WireMember};
use crate::bounds::QUERY_FILTERS_MAX;
use crate::msgpack::{self, Filled, Form, List, Nested, OrNil, Plain, Reader, Writer, table};

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

impl<'a> SerfMessage<'a> {
    /// Reads a Serf message, type byte first. Bytes after it are ignored, but for a relay, whose inner
    /// message they are.
    pub fn decode(message: &'a [u8]) -> Result<SerfMessage<'a>, DecodeError> {
        let fail = |fault: Fault| DecodeError::new("serf message", 0, fault);
        let (&kind, body) = message
            .split_first()
            .ok_or_else(|| fail(Fault::Value(msgpack::Fault::Empty)))?;
        let mut reader = Reader::new(body);
        Ok(match kind {
            kind::LEAVE => SerfMessage::Leave(reader.table()?),
            kind::JOIN => SerfMessage::Join(reader.table()?),
            kind::PUSH_PULL => SerfMessage::PushPull(reader.table()?),
            kind::USER_EVENT => SerfMessage::UserEvent(reader.table()?),
            kind::QUERY => SerfMessage::Query(reader.table()?),
            kind::QUERY_RESPONSE => SerfMessage::QueryResponse(reader.table()?),
            kind::CONFLICT_RESPONSE if reader.nil() => SerfMessage::ConflictResponse(None),
            kind::CONFLICT_RESPONSE => SerfMessage::ConflictResponse(Some(reader.table()?)),
            kind::KEY_REQUEST => SerfMessage::KeyRequest(reader.table()?),
            kind::KEY_RESPONSE => SerfMessage::KeyResponse(reader.table()?),
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

/// Bit of [`Query::flags`] and [`QueryResponse::flags`]: an ack is wanted, or this is one.
pub const FLAG_ACK: u32 = 1;
/// Bit of [`Query::flags`]: receivers do not pass the query on.
pub const FLAG_NO_BROADCAST: u32 = 2;
/// Bit of [`Query::flags`], ours alone: the asker takes answers that are too large for a datagram as a
/// user message over a stream. Serf ignores bits it does not know.
pub const FLAG_STREAM_ANSWERS: u32 = 1 << 16;

table! {
    /// `node` intends to leave.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LeaveIntent<'a>, "leave intent", kind::LEAVE {
        /// Lamport time of the member clock.
        0 LTime: Plain => pub ltime: u64,
        /// Who leaves.
        1 Node: Filled<Name> => pub node: &'a str,
        /// Whether to erase the member altogether.
        2 Prune: Plain => pub prune: bool,
    }
}

table! {
    /// `node` intends to join.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct JoinIntent<'a>, "join intent", kind::JOIN {
        /// Lamport time of the member clock.
        0 LTime: Plain => pub ltime: u64,
        /// Who joins.
        1 Node: Filled<Name> => pub node: &'a str,
    }
}

table! {
    /// A user event.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct UserEvent<'a>, "user event", kind::USER_EVENT {
        /// Whether receivers may coalesce it.
        3 CC: Plain => pub coalesce: bool,
        /// Lamport time of the event clock.
        0 LTime: Plain => pub ltime: u64,
        /// The event's name.
        1 Name: Plain => pub name: &'a str,
        /// Opaque; empty stands for nil as well.
        2 Payload: OrNil<Plain> => pub payload: &'a [u8],
    }
}

table! {
    /// A question to the cluster.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Query<'a>, "query", kind::QUERY {
        /// Where answers go: 4 or 16 bytes.
        2 Addr: Address => pub addr: &'a [u8],
        /// Encoded filters, each a type byte and a body; see [`Filter::decode`](super::Filter::decode). Never emit an empty one.
        5 Filters: OrNil<List<Plain, QUERY_FILTERS_MAX>> => pub filters: Vec<&'a [u8]>,
        /// [`FLAG_ACK`], [`FLAG_NO_BROADCAST`] and [`FLAG_STREAM_ANSWERS`].
        6 Flags: Plain => pub flags: u32,
        /// Random; unique only together with `ltime`.
        1 ID: Plain => pub id: u32,
        /// Lamport time of the query clock.
        0 LTime: Plain => pub ltime: u64,
        /// The query's name.
        9 Name: Plain => pub name: &'a str,
        /// Opaque; empty stands for nil as well.
        10 Payload: OrNil<Plain> => pub payload: &'a [u8],
        /// Port that belongs to `addr`.
        3 Port: Plain => pub port: u16,
        /// How many members an answer shall additionally be relayed through.
        7 RelayFactor: Plain => pub relay_factor: u8,
        /// The asker's name.
        4 SourceNode: Speaker => pub source_node: &'a str,
        /// Relative deadline in nanoseconds.
        8 Timeout: Plain => pub timeout_ns: i64,
    }
}

table! {
    /// An ack of, or an answer to, a query.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct QueryResponse<'a>, "query response", kind::QUERY_RESPONSE {
        /// [`FLAG_ACK`] marks an ack.
        3 Flags: Plain => pub flags: u32,
        /// Who answers.
        2 From: Filled<Speaker> => pub from: &'a str,
        /// The query's ID.
        1 ID: Plain => pub id: u32,
        /// The query's Lamport time.
        0 LTime: Plain => pub ltime: u64,
        /// The answer; nil or empty in an ack.
        4 Payload: OrNil<Plain> => pub payload: &'a [u8],
    }
}

table! {
    /// A key operation's argument.
    #[derive(Clone, Copy, PartialEq, Eq, Default)]
    pub struct KeyRequest<'a>, "key request", kind::KEY_REQUEST {
        /// Raw key bytes; empty for a listing. Not shown by Debug.
        0 Key: Plain => pub key: &'a [u8],
    }
}

impl<'a> KeyRequest<'a> {
    /// Reads the payload of a key query. Its first byte is not looked at, as in Serf.
    pub fn decode_payload(payload: &'a [u8]) -> Result<KeyRequest<'a>, DecodeError> {
        let (_, body) = payload
            .split_first()
            .ok_or_else(|| DecodeError::new("key request", 0, msgpack::Fault::Empty))?;
        Ok(Reader::new(body).table()?)
    }
}

impl std::fmt::Debug for KeyRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRequest { key: [hidden] }")
    }
}

table! {
    /// A key operation's outcome at one node.
    #[derive(Clone, PartialEq, Eq, Default)]
    pub struct KeyResponse<'a>, "key response", kind::KEY_RESPONSE {
        /// The keys in ring order, base64 (listing only). Not shown by Debug.
        2 Keys: OrNil<List<Plain, { usize::MAX }>> => pub keys: Vec<&'a str>,
        /// What went wrong, or a remark.
        1 Message: Plain => pub message: &'a str,
        /// The primary key, base64 (listing only). Not shown by Debug.
        3 PrimaryKey: Plain => pub primary_key: &'a str,
        /// Whether it succeeded.
        0 Result: Plain => pub result: bool,
    }
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

impl Relay<'_> {
    /// Appends type byte, header and the inner message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let dest = UdpAddr {
            ip: self.dest_addr,
            port: self.dest_port,
            zone: (),
        };
        let name = self.dest_name;
        RelayHeader { dest, name }.encode(out);
        out.extend_from_slice(self.inner);
    }
}

fn decode_relay(mut reader: Reader<'_>) -> Result<Relay<'_>, DecodeError> {
    let RelayHeader { dest, name } = reader.table()?;
    let inner = reader.rest();
    if inner.is_empty() {
        return Err(DecodeError::new("relay", reader.offset(), msgpack::Fault::Empty));
    }
    Ok(Relay {
        dest_addr: dest.ip,
        dest_port: dest.port,
        dest_name: name,
        inner,
    })
}

table! {
    struct RelayHeader<'a>, "relay", kind::RELAY {
        0 DestAddr: Nested => dest: UdpAddr<'a>,
        1 DestName: Name => name: &'a str,
    }
}

table! {
    /// Go's UDP address.
    #[derive(Default)]
    struct UdpAddr<'a>, "relay address" {
        0 IP: Address => ip: &'a [u8],
        1 Port: Plain => port: u16,
        2 Zone: NoZone => zone: (),
    }
}

/// A scope of the sender's system, which means nothing elsewhere: skipped, and written as empty.
struct NoZone;

impl<'a> Form<'a, ()> for NoZone {
    fn read(reader: &mut Reader<'a>) -> Result<(), msgpack::Fault> {
        reader.skip()
    }

    fn write(_: &(), writer: &mut Writer<'_>) {
        writer.raw("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Fault::{Empty, TooMany};

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
        assert_eq!(fault(b""), Some(Fault::Value(Empty)));
        assert_eq!(fault(b"\x0a\x80"), Some(Fault::Type(10)));
        assert_eq!(
            fault(b"\x01\x81\xa5LTime\x01"),
            Some(Fault::Value(Empty)),
            "a join of nobody"
        );
        assert_eq!(
            fault(b"\x09\x82\xa8DestAddr\x81\xa2IP\xa4abcd\xa8DestName\xa1a"),
            Some(Fault::Value(Empty))
        );
        let query = Query {
            addr: &[1, 2, 3, 4],
            filters: vec![b"x"; 129],
            ..Query::default()
        };
        let bytes = encoded(SerfMessage::Query(query));
        assert_eq!(fault(&bytes), Some(Fault::Value(TooMany { len: 129, max: 128 })));
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
