//! Bytes <-> messages: the wire format of memberlist and Serf.
//!
//! Pure, total and bounded: any input gives a message or a [`DecodeError`], and nothing is allocated on
//! the word of a header. Decoded messages borrow from their input. The layers, outermost first:
//!
//! ```text
//! datagram:  label -> (encryption) -> CRC -> compress -> compound -> Message   | decode_datagram
//! stream:    label -> (encryption) ->        compress -> StreamMessage         | StreamDecoder
//! ```
//!
//! Each layer occurs at most once and in this order; anything nested deeper is refused. What a
//! [`Message::User`] or the user state of a push/pull carries is a [`SerfMessage`].

mod coordinate;
mod datagram;
mod error;
mod filter;
mod label;
mod lzw;
mod lzw_encode;
pub mod message;
mod message_codec;
mod msgpack;
pub mod serf;
mod serf_codec;
mod serf_state;
mod stream;
mod stream_scan;
mod tags;

pub use datagram::{Datagram, decode_datagram, encode_compound, finish_datagram};
pub use error::{DecodeError, Fault};
pub use label::{StreamPrefix, put_label, split_label};
pub use message::{
    Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, PushNodeState, PushPull, StreamMessage, Suspect,
};
pub use serf::{
    FLAG_ACK, FLAG_NO_BROADCAST, FLAG_STREAM_ANSWERS, Filter, JoinIntent, KeyRequest, KeyResponse,
    LeaveIntent, PushPullState, Query, QueryResponse, Relay, SerfMessage, UserEvent, UserEvents,
    WireCoordinate, WireMember, WireTags,
};
pub use stream::{StreamDecoder, decode_stream, finish_stream};
pub use tags::{decode_tags, encode_tags};

/// First bytes that tell what follows (docs/protocol.md#a2-message-types).
mod kind {
    pub(super) const PING: u8 = 0;
    pub(super) const INDIRECT_PING: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const SUSPECT: u8 = 3;
    pub(super) const ALIVE: u8 = 4;
    pub(super) const DEAD: u8 = 5;
    pub(super) const PUSH_PULL: u8 = 6;
    pub(super) const COMPOUND: u8 = 7;
    pub(super) const USER: u8 = 8;
    pub(super) const COMPRESS: u8 = 9;
    pub(super) const ENCRYPT: u8 = 10;
    pub(super) const NACK: u8 = 11;
    pub(super) const CRC: u8 = 12;
    pub(super) const ERR: u8 = 13;
    pub(super) const LABEL: u8 = 244;
}
