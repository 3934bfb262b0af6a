//! Why a value could not be read.

/// What could not be read, where, and why. Small and free of allocations, for hostile input makes many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{field} at byte {offset}: {fault}", if .field.is_empty() { "" } else { " " })]
pub struct DecodeError<F> {
    /// The message, struct or layer that was being read.
    pub message: &'static str,
    /// The field in question; empty when the fault is not in a known field.
    pub field: &'static str,
    /// Where reading stopped, counted from the start of the message's body (in a datagram: from the
    /// byte after the type byte).
    pub offset: usize,
    /// What is wrong there.
    pub fault: F,
}

impl<F> DecodeError<F> {
    pub(crate) fn new(message: &'static str, offset: usize, fault: impl Into<F>) -> DecodeError<F> {
        DecodeError::in_field(message, "", offset, fault)
    }

    pub(crate) fn in_field(
        message: &'static str,
        field: &'static str,
        offset: usize,
        fault: impl Into<F>,
    ) -> DecodeError<F> {
        DecodeError {
            message,
            field,
            offset,
            fault: fault.into(),
        }
    }
}

/// What can be wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The input is shorter than it says.
    #[error("the input ends early")]
    Truncated,
    /// Another kind of value was expected.
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
    /// Values nested too deep.
    #[error("nested deeper than {} levels", crate::bounds::MSGPACK_DEPTH_MAX)]
    Depth,
    /// A float that is NaN or infinite.
    #[error("the number is not finite")]
    NotFinite,
}

impl Fault {
    /// Refuses more than `max` bytes or entries.
    pub(crate) fn bound(len: usize, max: usize) -> Result<(), Fault> {
        if len <= max {
            return Ok(());
        }
        Err(Fault::TooMany {
            len: len as u64,
            max: max as u64,
        })
    }
}
