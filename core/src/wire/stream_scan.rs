//! Finds the end of a stream message while its bytes are still arriving (docs/protocol.md#a12-streams).
//!
//! A plain stream message has no length in front. The scan remembers where it is, so each byte is
//! looked at once however finely the input is chopped, and it holds nothing but counters: what a
//! header announces is compared with the bounds at once, and believed only as the bytes arrive.

use super::error::{DecodeError, Fault};
use super::kind;
use super::message::{PushPullHeader, UserHeader};
use crate::bounds::{MSGPACK_DEPTH_MAX, PUSH_PULL_NODES_MAX, STREAM_STRUCT_MAX};
use crate::msgpack::{self, Reader, ValueScan};

/// Where in a message the scan is.
#[derive(Clone, Debug)]
enum Stage {
    /// Before the type byte.
    Kind,
    /// In the one struct that is the whole message.
    Single(ValueScan),
    /// In the header of a push/pull.
    PushPullHeader(ValueScan),
    /// In a node of a push/pull.
    Node {
        scan: ValueScan,
        nodes_left: u64,
        user_len: u64,
    },
    /// In the header of a user message.
    UserHeader(ValueScan),
    /// In the raw bytes at the end of the message.
    Raw { end: usize },
}

/// The resumable scan of one message.
#[derive(Clone, Debug)]
pub(super) struct StreamScan {
    stage: Stage,
    limit: usize,
    /// Whether a compress message may come: not within another one.
    outermost: bool,
}

impl StreamScan {
    /// A scan of a message of at most `limit` bytes.
    pub(super) fn new(limit: usize, outermost: bool) -> StreamScan {
        StreamScan {
            stage: Stage::Kind,
            limit,
            outermost,
        }
    }

    /// Goes on with all bytes there are by now, from the type byte on. `true`: the message is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<bool, DecodeError> {
        loop {
            let next = match &mut self.stage {
                Stage::Kind => match bytes.first() {
                    None => return Ok(false),
                    Some(&kind) => self.after_kind(kind)?,
                },
                Stage::Single(scan) => return Ok(step(scan, bytes, "stream message")?.is_some()),
                Stage::PushPullHeader(scan) => {
                    let Some(end) = step(scan, bytes, "push/pull header")? else {
                        return Ok(false);
                    };
                    let header: PushPullHeader =
                        Reader::new(bytes.get(1..end).unwrap_or_default()).table()?;
                    check("Nodes", header.nodes, PUSH_PULL_NODES_MAX)?;
                    check("UserStateLen", header.user_state_len, self.limit)?;
                    self.nodes_or_raw(end, header.nodes, header.user_state_len)?
                }
                Stage::Node {
                    scan,
                    nodes_left,
                    user_len,
                } => {
                    let Some(end) = step(scan, bytes, "push/pull node")? else {
                        return Ok(false);
                    };
                    let (nodes_left, user_len) = (*nodes_left, *user_len);
                    self.nodes_or_raw(end, nodes_left, user_len)?
                }
                Stage::UserHeader(scan) => {
                    let Some(end) = step(scan, bytes, "user message header")? else {
                        return Ok(false);
                    };
                    let header: UserHeader = Reader::new(bytes.get(1..end).unwrap_or_default()).table()?;
                    check("UserMsgLen", header.len, self.limit)?;
                    self.nodes_or_raw(end, 0, header.len)?
                }
                Stage::Raw { end } => return Ok(bytes.len() >= *end),
            };
            self.stage = next;
        }
    }

    fn after_kind(&self, kind: u8) -> Result<Stage, DecodeError> {
        let scan = |max_bytes| ValueScan::new(1, MSGPACK_DEPTH_MAX, max_bytes);
        Ok(match kind {
            kind::PUSH_PULL => Stage::PushPullHeader(scan(STREAM_STRUCT_MAX)),
            kind::USER => Stage::UserHeader(scan(STREAM_STRUCT_MAX)),
            kind::PING | kind::ACK | kind::ERR => Stage::Single(scan(STREAM_STRUCT_MAX)),
            kind::COMPRESS if self.outermost => Stage::Single(scan(self.limit)),
            other => return Err(DecodeError::new("stream message", 0, Fault::Type(other))),
        })
    }

    /// What follows a header or a node that ends at `start`.
    fn nodes_or_raw(&self, start: usize, nodes_left: u64, user_len: u64) -> Result<Stage, DecodeError> {
        match nodes_left.checked_sub(1) {
            Some(nodes_left) => {
                check("", start as u64, self.limit)?;
                let scan = ValueScan::new(start, MSGPACK_DEPTH_MAX, STREAM_STRUCT_MAX);
                Ok(Stage::Node {
                    scan,
                    nodes_left,
                    user_len,
                })
            }
            None => {
                let end = (start as u64).saturating_add(user_len);
                check("", end, self.limit)?;
                Ok(Stage::Raw { end: end as usize })
            }
        }
    }
}

fn step(scan: &mut ValueScan, bytes: &[u8], message: &'static str) -> Result<Option<usize>, DecodeError> {
    scan.advance(bytes)
        .map_err(|fault| DecodeError::new(message, scan.offset(), fault))
}

fn check(field: &'static str, len: u64, max: usize) -> Result<(), DecodeError> {
    let max = max as u64;
    if len <= max {
        return Ok(());
    }
    let fault = msgpack::Fault::TooMany { len, max };
    Err(DecodeError::in_field("stream message", field, 0, fault))
}
