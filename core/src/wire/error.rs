//! Why something from a peer could not be read.

use crate::msgpack;

/// What of a message or layer could not be read, where, and why.
pub type DecodeError = msgpack::DecodeError<Fault>;

/// The kinds of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value, or a length that announces bytes, is not as it must be.
    #[error(transparent)]
    Value(#[from] msgpack::Fault),
    /// A type byte that is unknown, or has no place in this layer.
    #[error("type {0} is not allowed here")]
    Type(u8),
    /// The checksum does not match.
    #[error("the checksum is {found:08x}, it must be {computed:08x}")]
    Checksum {
        /// The checksum sent.
        found: u32,
        /// The checksum of what came.
        computed: u32,
    },
    /// A compression other than LZW.
    #[error("compression {0} is unknown, only 0 (LZW) is")]
    Algorithm(u8),
    /// Broken LZW data, or data without the end code.
    #[error("the compressed data is damaged or lacks its end code")]
    Lzw,
    /// The decompressed form exceeds its bound.
    #[error("the compressed data inflates to more than {0} bytes")]
    Inflates(usize),
}

impl From<msgpack::DecodeError<msgpack::Fault>> for DecodeError {
    fn from(error: msgpack::DecodeError<msgpack::Fault>) -> DecodeError {
        DecodeError::in_field(error.message, error.field, error.offset, error.fault)
    }
}
