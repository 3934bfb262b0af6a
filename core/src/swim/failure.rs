//! Why a stream brought no answer: what the node decides by, and what a user reads.

use std::fmt;

/// What kept an exchange over a stream from succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The other host, or something in front of it, said at once that nobody listens there.
    Refused,
    /// No connection came about in time.
    Unanswered,
    /// The network says that there is no way to the host.
    Unreachable,
    /// There was a connection, and then nothing more in time.
    Stalled,
    /// The connection was reset while it stood.
    Reset,
    /// The peer closed without a complete answer.
    Closed,
    /// This host could not do its part: no descriptor or port is free, it is forbidden, the message is too long.
    Local,
    /// An answer came that is no answer to this: it cannot be read, or it is an error.
    Protocol,
}

/// A failed exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub cause: Cause,
    /// The same as a user should read it, for example `dial tcp 127.0.0.1:1: connect: connection refused`.
    pub text: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Failure {
            cause,
            text: text.into(),
        }
    }

    /// An answer that is none.
    pub fn protocol(text: impl Into<String>) -> Self {
        Failure::new(Cause::Protocol, text)
    }

    /// Whether nobody was reached at all, so that it says nothing about who is at the address.
    pub fn reached_nobody(&self) -> bool {
        match self.cause {
            Cause::Refused | Cause::Unanswered | Cause::Unreachable | Cause::Local => true,
            Cause::Stalled | Cause::Reset | Cause::Closed | Cause::Protocol => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
