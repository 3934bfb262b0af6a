//! Stream messages: push/pull, user message, the fallback probe, error texts (docs/protocol.md#a12-streams).

use super::error::{DecodeError, Fault};
use super::kind;
use super::lzw;
use super::message::{
    ErrorText, NameOnly, PushPull, PushPullHeader, RefusedNodes, StreamMessage, UserHeader,
};
use super::stream_scan::StreamScan;
use crate::bounds::{STREAM_INFLATE_FLOOR, STREAM_INFLATE_RATIO_MAX, STREAM_MESSAGE_MAX};
use crate::msgpack::{self, Reader};

/// Collects a plain stream message from bytes as they arrive. For an encrypted stream, whose length is
/// known, open the frame and use [`decode_stream`].
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    received: Vec<u8>,
    inflated: Vec<u8>,
    scan: StreamScan,
    limit: usize,
    failed: Option<DecodeError>,
}

impl Default for StreamDecoder {
    fn default() -> StreamDecoder {
        StreamDecoder::new(STREAM_MESSAGE_MAX)
    }
}

impl StreamDecoder {
    /// A decoder of one message of at most `limit` bytes, as it arrives as well as decompressed.
    pub fn new(limit: usize) -> StreamDecoder {
        let scan = StreamScan::new(limit, true);
        StreamDecoder {
            received: Vec::new(),
            inflated: Vec::new(),
            scan,
            limit,
            failed: None,
        }
    }

    /// Adds bytes from the stream. What goes beyond the limit is not kept, and is an error at the next
    /// [`StreamDecoder::is_complete`] unless the message ends before it.
    pub fn push(&mut self, bytes: &[u8]) {
        // One byte beyond the limit tells a message that fits from one that does not.
        let room = self.limit.saturating_add(1).saturating_sub(self.received.len());
        self.received
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// How many bytes are held, for whoever counts them against a budget.
    pub fn received(&self) -> usize {
        self.received.len()
    }

    /// Whether the whole message has arrived. Once it has failed it fails for ever.
    pub fn is_complete(&mut self) -> Result<bool, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = match self.scan.advance(&self.received) {
            Ok(false) if self.received.len() > self.limit => {
                let (len, max) = (self.received.len() as u64, self.limit as u64);
                Err(DecodeError::new(
                    "stream message",
                    self.limit,
                    Fault::Value(msgpack::Fault::TooMany { len, max }),
                ))
            }
            result => result,
        };
        self.failed = result.err();
        result
    }

    /// The message, once it is complete. Bytes after it are ignored.
    pub fn message(&mut self) -> Result<StreamMessage<'_>, DecodeError> {
        if !self.is_complete()? {
            return Err(DecodeError::new(
                "stream message",
                self.received.len(),
                Fault::Value(msgpack::Fault::Truncated),
            ));
        }
        decode_stream(&self.received, &mut self.inflated, self.limit)
    }
}

/// Reads a whole stream message: type byte first, decrypted, at most one compression around it. Bytes
/// after it are ignored.
///
/// `limit` bounds the message, compressed and plain; [`STREAM_MESSAGE_MAX`] unless configured otherwise.
/// `scratch` receives the decompressed bytes, if the message was compressed.
pub fn decode_stream<'a>(
    plain: &'a [u8],
    scratch: &'a mut Vec<u8>,
    limit: usize,
) -> Result<StreamMessage<'a>, DecodeError> {
    let plain = match plain.split_first() {
        Some((&kind::COMPRESS, body)) => {
            let max = |compressed: usize| {
                let by_ratio = compressed.saturating_mul(STREAM_INFLATE_RATIO_MAX);
                by_ratio.max(STREAM_INFLATE_FLOOR).min(limit)
            };
            lzw::inflate(body, max, scratch, &mut Vec::new())?;
            scratch.as_slice()
        }
        _ => plain,
    };
    // The scan applies the bounds on nodes and structs, and makes sure that nothing is missing.
    if !StreamScan::new(limit, false).advance(plain)? {
        return Err(DecodeError::new(
            "stream message",
            plain.len(),
            Fault::Value(msgpack::Fault::Truncated),
        ));
    }
    decode_plain(plain)
}

fn decode_plain(plain: &[u8]) -> Result<StreamMessage<'_>, DecodeError> {
    let (&kind, body) = plain
        .split_first()
        .ok_or_else(|| DecodeError::new("stream message", 0, Fault::Value(msgpack::Fault::Truncated)))?;
    let mut reader = Reader::new(body);
    Ok(match kind {
        kind::PUSH_PULL => StreamMessage::PushPull(decode_push_pull(reader)?),
        kind::USER => {
            let header: UserHeader = reader.table()?;
            StreamMessage::User(raw(&reader, "UserMsgLen", header.len)?)
        }
        kind::PING => StreamMessage::Ping(reader.table()?),
        kind::ACK => StreamMessage::Ack(reader.table()?),
        kind::ERR => StreamMessage::Err(reader.table::<ErrorText<'_>>()?.text),
        other => return Err(DecodeError::new("stream message", 0, Fault::Type(other))),
    })
}

fn decode_push_pull(mut reader: Reader<'_>) -> Result<PushPull<'_>, DecodeError> {
    let header: PushPullHeader = reader.table()?;
    let mut nodes = Vec::new();
    let mut refused = RefusedNodes::default();
    for _ in 0..header.nodes {
        let start = reader.rest();
        match reader.table_or_skip()? {
            Ok(node) => nodes.push(node),
            Err(error) => refused.add(node_name(start), error.into()),
        }
    }
    let user_state = raw(&reader, "UserStateLen", header.user_state_len)?;
    Ok(PushPull {
        join: header.join,
        nodes,
        user_state,
        refused,
    })
}

/// How a refused node calls itself, if it can be read at all.
fn node_name(node: &[u8]) -> &str {
    Reader::new(node)
        .table::<NameOnly<'_>>()
        .map_or("", |found| found.name)
}

/// The raw bytes at the end of a message.
fn raw<'a>(reader: &Reader<'a>, field: &'static str, len: u64) -> Result<&'a [u8], DecodeError> {
    usize::try_from(len)
        .ok()
        .and_then(|len| reader.rest().get(..len))
        .ok_or(DecodeError {
            message: "stream message",
            field,
            offset: reader.offset(),
            fault: Fault::Value(msgpack::Fault::Truncated),
        })
}

/// Puts the compression around a stream message if asked for, also when that makes it longer, as
/// memberlist does. Encryption comes after this.
pub fn finish_stream(plain: Vec<u8>, compress: bool) -> Vec<u8> {
    if compress { lzw::deflate(&plain) } else { plain }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Ack, Ping, PushNodeState};
    use super::*;
    use crate::bounds::{PUSH_PULL_NODES_MAX, STREAM_STRUCT_MAX};
    use crate::msgpack::Fault::{Empty, Kind, Length, Range, TooMany, Truncated};

    fn node() -> PushNodeState<'static> {
        PushNodeState {
            name: "alpha",
            addr: &[127, 0, 0, 1],
            port: 7946,
            meta: b"\xff\x80",
            incarnation: 3,
            state: 2,
            vsn: &[1, 5, 2, 2, 5, 5],
        }
    }

    fn messages() -> Vec<StreamMessage<'static>> {
        vec![
            StreamMessage::PushPull(PushPull {
                join: true,
                nodes: vec![node(); 3],
                user_state: b"state",
                ..PushPull::default()
            }),
            StreamMessage::PushPull(PushPull::default()),
            StreamMessage::User(b"bytes"),
            StreamMessage::User(b""),
            StreamMessage::Ping(Ping {
                seq_no: 4,
                node: "alpha",
                ..Ping::default()
            }),
            StreamMessage::Ack(Ack {
                seq_no: 4,
                ..Ack::default()
            }),
            StreamMessage::Err("no"),
        ]
    }

    fn encoded(message: &StreamMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    fn fault(bytes: &[u8]) -> Fault {
        let mut decoder = StreamDecoder::default();
        decoder.push(bytes);
        match decoder.message() {
            Err(error) => error.fault,
            Ok(message) => panic!("{message:?}"),
        }
    }

    #[test]
    fn messages_are_complete_with_their_last_byte_and_not_before() {
        for message in messages() {
            for compress in [false, true] {
                let bytes = finish_stream(encoded(&message), compress);
                let mut decoder = StreamDecoder::default();
                for byte in &bytes {
                    assert_eq!(decoder.is_complete(), Ok(false));
                    assert!(decoder.message().is_err());
                    decoder.push(std::slice::from_ref(byte));
                }
                assert_eq!(decoder.is_complete(), Ok(true));
                decoder.push(b"what follows does not matter");
                assert_eq!(decoder.message(), Ok(message.clone()));
            }
        }
    }

    #[test]
    fn an_empty_push_pull_is_written_in_full() {
        let bytes = encoded(&StreamMessage::PushPull(PushPull::default()));
        assert_eq!(bytes, b"\x06\x83\xa4Join\xc2\xa5Nodes\x00\xacUserStateLen\x00");
        assert_eq!(
            encoded(&StreamMessage::User(b"x")),
            b"\x08\x81\xaaUserMsgLen\x01x"
        );
    }

    #[test]
    fn headers_are_not_believed() {
        let header = |nodes: &[u8], len: &[u8]| {
            [b"\x06\x83\xa4Join\xc3\xa5Nodes", nodes, b"\xacUserStateLen", len].concat()
        };
        let nodes_max = PUSH_PULL_NODES_MAX as u64;
        let bytes = header(b"\xce\x80\0\0\0", b"\0");
        assert_eq!(
            fault(&bytes),
            Fault::Value(TooMany {
                len: 1 << 31,
                max: nodes_max
            })
        );
        let bytes = header(b"\xd2\x00\x10\0\x01", b"\0");
        assert_eq!(
            fault(&bytes),
            Fault::Value(TooMany {
                len: nodes_max + 1,
                max: nodes_max
            })
        );
        assert_eq!(
            fault(&header(b"\x00", b"\xce\xff\xff\xff\xff")),
            Fault::Value(TooMany {
                len: u64::from(u32::MAX),
                max: STREAM_MESSAGE_MAX as u64
            })
        );
        assert!(
            matches!(fault(&header(b"\xff", b"\0")), Fault::Value(Range(_))),
            "a negative count"
        );
        assert!(matches!(
            fault(&header(b"\x00", b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff")),
            Fault::Value(Range(_))
        ));
        assert_eq!(
            fault(b"\x08\x81\xaaUserMsgLen\xce\xff\xff\xff\xff"),
            Fault::Value(TooMany {
                len: u64::from(u32::MAX),
                max: STREAM_MESSAGE_MAX as u64
            })
        );
        // As many nodes as allowed may be announced; nothing is set aside for them.
        let mut decoder = StreamDecoder::default();
        decoder.push(&header(b"\xce\x00\x10\0\0", b"\0"));
        assert_eq!(decoder.is_complete(), Ok(false));
        assert!(decoder.received.capacity() < 1024);
    }

    #[test]
    fn a_single_struct_is_bounded() {
        let max = STREAM_STRUCT_MAX as u64;
        assert!(
            matches!(fault(b"\x0d\x81\xa5Error\xdb\xff\xff\xff\xff"), Fault::Value(TooMany { max: m, .. }) if m == max)
        );
        assert!(
            matches!(fault(b"\x06\xdf\xff\xff\xff\xff"), Fault::Value(TooMany { max: m, .. }) if m == max)
        );
        let limit = STREAM_MESSAGE_MAX as u64;
        let promise = b"\x09\x82\xa4Algo\x00\xa3Buf\xdb\xff\xff\xff\xff";
        assert!(matches!(fault(promise), Fault::Value(TooMany { max, .. }) if max == limit));
    }

    #[test]
    fn the_limit_holds_for_the_whole_message() {
        let message = StreamMessage::User(&[1; 1000]);
        let plain = encoded(&message);
        let run = |limit: usize, bytes: &[u8]| {
            let mut decoder = StreamDecoder::new(limit);
            for chunk in bytes.chunks(100) {
                decoder.push(chunk);
            }
            assert!(decoder.received() <= limit + 1);
            decoder.message().map(|_| ()).map_err(|error| error.fault)
        };
        assert_eq!(run(plain.len(), &plain), Ok(()));
        assert!(matches!(
            run(plain.len() - 1, &plain),
            Err(Fault::Value(TooMany { .. }))
        ));
        let compressed = finish_stream(plain.clone(), true);
        assert_eq!(run(plain.len(), &compressed), Ok(()));
        assert_eq!(
            run(plain.len() - 1, &compressed),
            Err(Fault::Inflates(plain.len() - 1))
        );
    }

    #[test]
    fn an_endless_stream_is_refused() {
        let mut decoder = StreamDecoder::new(10_000);
        decoder.push(b"\x06\x83\xa4Join\xc3\xa5Nodes\xce\x00\x10\0\0\xacUserStateLen\0");
        let mut body = Vec::new();
        node().encode(&mut body);
        let failed_at = (0..1000).find(|_| {
            decoder.push(&body);
            decoder.is_complete().is_err()
        });
        assert!(failed_at.is_some_and(|nodes| nodes < 10_000 / body.len() + 1));
        assert!(decoder.is_complete().is_err(), "it stays failed");
    }

    #[test]
    fn compression_is_taken_off_once() {
        let twice = finish_stream(finish_stream(encoded(&StreamMessage::Err("no")), true), true);
        assert_eq!(fault(&twice), Fault::Type(kind::COMPRESS));
        let cut = finish_stream(b"\x06\x83\xa4Join".to_vec(), true);
        assert_eq!(fault(&cut), Fault::Value(Truncated));
    }

    #[test]
    fn datagram_types_have_no_place_on_a_stream() {
        for kind in [
            kind::SUSPECT,
            kind::ALIVE,
            kind::COMPOUND,
            kind::CRC,
            kind::ENCRYPT,
            kind::LABEL,
            99,
        ] {
            assert_eq!(fault(&[kind, 0x80]), Fault::Type(kind));
        }
    }

    #[test]
    fn a_node_that_cannot_be_held_is_left_out_and_named() {
        let long = "ä".repeat(750);
        let table: [(PushNodeState<'_>, &str, Fault); 6] = [
            (
                PushNodeState {
                    name: &long,
                    ..node()
                },
                &long[..1400],
                Fault::Value(TooMany { len: 1500, max: 1400 }),
            ),
            (PushNodeState { name: "", ..node() }, "", Fault::Value(Empty)),
            (
                PushNodeState {
                    meta: &[b'm'; 513],
                    ..node()
                },
                "alpha",
                Fault::Value(TooMany { len: 513, max: 512 }),
            ),
            (
                PushNodeState { addr: b"", ..node() },
                "alpha",
                Fault::Value(Length {
                    found: 0,
                    expected: "4 or 16",
                }),
            ),
            (
                PushNodeState {
                    addr: &[1; 5],
                    ..node()
                },
                "alpha",
                Fault::Value(Length {
                    found: 5,
                    expected: "4 or 16",
                }),
            ),
            (
                PushNodeState { state: 4, ..node() },
                "alpha",
                Fault::Value(Range("0..=3")),
            ),
        ];
        for (odd, name, fault) in table {
            let state = PushPull {
                join: true,
                nodes: vec![node(), odd, odd, node()],
                user_state: b"state",
                ..PushPull::default()
            };
            let bytes = encoded(&StreamMessage::PushPull(state));
            let mut decoder = StreamDecoder::default();
            decoder.push(&bytes);
            let Ok(StreamMessage::PushPull(read)) = decoder.message() else {
                panic!("{name} {fault}");
            };
            assert_eq!(read.nodes, [node(), node()], "{fault}");
            assert_eq!(read.user_state, b"state", "{fault}");
            assert_eq!(read.refused.count, 2, "{fault}");
            let first = read.refused.first.map(|(name, error)| (name, error.fault));
            assert_eq!(first, Some((name, fault)));
        }
    }

    #[test]
    fn versions_of_any_length_are_kept_for_the_check() {
        for vsn in [&b""[..], b"\x01\x05\x02", b"\x01\x05\x02\x02\x05\x05\x09"] {
            let nodes = vec![PushNodeState { vsn, ..node() }];
            let message = StreamMessage::PushPull(PushPull {
                nodes,
                ..PushPull::default()
            });
            let bytes = encoded(&message);
            let mut decoder = StreamDecoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.message(), Ok(message));
        }
    }

    #[test]
    fn a_node_whose_msgpack_is_broken_refuses_the_whole() {
        let mut bytes = b"\x06\x83\xa4Join\xc3\xa5Nodes\x01\xacUserStateLen\0".to_vec();
        bytes.extend_from_slice(b"\x81\xa4Name\xc1");
        assert!(matches!(fault(&bytes), Fault::Value(Kind { .. })));
    }

    #[test]
    fn a_stream_bomb_is_refused_by_its_ratio() {
        let plain = encoded(&StreamMessage::User(&vec![0; 8 << 20]));
        let bomb = finish_stream(plain, true);
        assert!(
            matches!(fault(&bomb), Fault::Inflates(max) if max < 4 << 20),
            "{}",
            bomb.len()
        );
    }
}
