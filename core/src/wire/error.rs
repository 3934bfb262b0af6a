//! Why something from a peer could not be read.

/// What could not be read, where, and why. Small and free of allocations, for hostile input makes many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{field} at byte {offset}: {fault}", if .field.is_empty() { "" } else { " " })]
pub struct DecodeError {
    /// The message or layer that was being read.
    pub message: &'static str,
    /// The field in question; empty when the fault is not in a known field.
    pub field: &'static str,
    /// Where reading stopped, counted from the start of the message's body (in a datagram: from the
    /// byte after the type byte).
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

impl DecodeError {
    pub(super) fn new(message: &'static str, offset: usize, fault: Fault) -> DecodeError {
        DecodeError {
            message,
            field: "",
            offset,
            fault,
        }
    }
}

/// The kinds of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The input is shorter than it says.
    #[error("the input ends early")]
    Truncated,
    /// Another kind of msgpack value was expected.
    #[error("expected {expected}, found msgpack code 0x{found:02x}")]
    Kind {
        /// What would have been right.
        expected: &'static str,
        /// The code found instead.
        found: u8,
    },
    /// A number does not fit its field.
    #[error("the number is out of range, it must be within {0}")]
    Range(&'static str),
    /// More bytes or entries than the bound allows.
    #[error("{len} are too many, at most {max} are allowed")]
    TooMany {
        /// How many were announced or found.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// Text that is not UTF-8.
    #[error("the text is not valid UTF-8")]
    Utf8,
    /// Something that must be there is missing or empty.
    #[error("must not be empty")]
    Empty,
    /// A length that must be one of a few.
    #[error("{found} bytes or entries, it must be {expected}")]
    Length {
        /// The length found.
        found: usize,
        /// The lengths allowed.
        expected: &'static str,
    },
    /// Msgpack values nested too deep.
    #[error("nested deeper than {} levels", crate::bounds::MSGPACK_DEPTH_MAX)]
    Depth,
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
    /// A float that is NaN or infinite.
    #[error("the number is not finite")]
    NotFinite,
}
