//! A connection, whatever socket it came in by.

use tokio::io::{AsyncRead, AsyncWrite};

/// A client that has just come.
pub struct Connection {
    /// What it sends.
    pub reader: Reader,
    /// Where it reads.
    pub writer: Writer,
    /// Who it is, for the log.
    pub peer: String,
    /// Where it comes from, the same for all clients of one address.
    pub source: String,
}

/// What a client sends.
pub type Reader = Box<dyn AsyncRead + Unpin>;
/// Where a client reads.
pub type Writer = Box<dyn AsyncWrite + Unpin>;
