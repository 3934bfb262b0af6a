//! A connection, whatever socket it came in by.

use tokio::io::{AsyncRead, AsyncWrite};

/// A client that has just come.
pub(super) struct Connection {
    pub reader: Reader,
    pub writer: Writer,
    /// Who it is, for the log.
    pub peer: String,
    /// Where it comes from, the same for all clients of one address.
    pub source: String,
}

/// What a client sends.
pub(super) type Reader = Box<dyn AsyncRead + Unpin>;
/// Where a client reads.
pub(super) type Writer = Box<dyn AsyncWrite + Unpin>;
