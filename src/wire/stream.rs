//! Stream messages: push/pull, user message, the fallback probe, error texts (protocol.md A12).

use super::error::{DecodeError, Fault};
use super::kind;
use super::lzw;
use super::message::{PushPull, StreamMessage};
use super::message_codec::{ErrorText, PushPullHeader, UserHeader};
use super::msgpack::Reader;
use super::stream_scan::StreamScan;
use crate::bounds::{
    PUSH_PULL_NODES_MAX, STREAM_INFLATE_FLOOR, STREAM_INFLATE_RATIO_MAX, STREAM_MESSAGE_MAX,
};

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
                    Fault::TooMany { len, max },
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
                Fault::Truncated,
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
            lzw::inflate(body, max, scratch)?;
            scratch.as_slice()
        }
        _ => plain,
    };
    // The scan applies the bounds on nodes and structs, and makes sure that nothing is missing.
    if !StreamScan::new(limit, false).advance(plain)? {
        return Err(DecodeError::new("stream message", plain.len(), Fault::Truncated));
    }
    decode_plain(plain)
}

fn decode_plain(plain: &[u8]) -> Result<StreamMessage<'_>, DecodeError> {
    let (&kind, body) = plain
        .split_first()
        .ok_or_else(|| DecodeError::new("stream message", 0, Fault::Truncated))?;
    let mut reader = Reader::new(body);
    Ok(match kind {
        kind::PUSH_PULL => StreamMessage::PushPull(decode_push_pull(reader)?),
        kind::USER => {
            let header: UserHeader = reader.fields()?;
            StreamMessage::User(raw(&reader, "UserMsgLen", header.len)?)
        }
        kind::PING => StreamMessage::Ping(reader.fields()?),
        kind::ACK => StreamMessage::Ack(reader.fields()?),
        kind::ERR => StreamMessage::Err(reader.fields::<ErrorText<'_>>()?.text),
        other => return Err(DecodeError::new("stream message", 0, Fault::Type(other))),
    })
}

fn decode_push_pull(mut reader: Reader<'_>) -> Result<PushPull<'_>, DecodeError> {
    let header: PushPullHeader = reader.fields()?;
    if header.nodes > PUSH_PULL_NODES_MAX as u64 {
        let fault = Fault::TooMany {
            len: header.nodes,
            max: PUSH_PULL_NODES_MAX as u64,
        };
        return Err(DecodeError::new("push/pull header", 0, fault));
    }
    let mut nodes = Vec::new();
    for _ in 0..header.nodes {
        nodes.push(reader.fields()?);
    }
    let user_state = raw(&reader, "UserStateLen", header.user_state_len)?;
    Ok(PushPull {
        join: header.join,
        nodes,
        user_state,
    })
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
            fault: Fault::Truncated,
        })
}

/// Puts the compression around a stream message if asked for, also when that makes it longer, as
/// memberlist does. Encryption comes after this.
pub fn finish_stream(plain: Vec<u8>, compress: bool) -> Vec<u8> {
    if compress { lzw::deflate(&plain) } else { plain }
}
