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
//! [`Message::User`] or the user state of a push/pull carries is a [`SerfMessage`]. Structs are tables of the msgpack room.

mod coordinate;
mod datagram;
mod error;
mod filter;
mod forms;
mod kind;
mod label;
mod lzw;
mod lzw_codes;
mod lzw_decode;
mod lzw_encode;
pub mod message;
pub mod serf;
mod serf_state;
mod stream;
mod stream_scan;
mod tags;

pub use coordinate::WireCoordinate;
pub use datagram::{Datagram, Scratch, decode_datagram, encode_compound, finish_datagram};
pub use error::{DecodeError, Fault};
pub use filter::Filter;
pub use label::{StreamPrefix, put_label, split_label};
pub(crate) use lzw::deflate;
pub use message::{
    Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, PushNodeState, PushPull, StreamMessage, Suspect,
};
pub use serf::{
    FLAG_ACK, FLAG_NO_BROADCAST, FLAG_STREAM_ANSWERS, JoinIntent, KeyRequest, KeyResponse, LeaveIntent,
    Query, QueryResponse, Relay, SerfMessage, UserEvent,
};
pub use serf_state::{PushPullState, RingEvent, UserEvents, WireMember};
pub use stream::{StreamDecoder, decode_stream, finish_stream};
pub use tags::{WireTags, decode_tags, encode_tags};
