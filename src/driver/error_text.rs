//! Network errors as Serf's users know them: in the words of the Go runtime.

use std::io;
use std::net::SocketAddr;

use crate::os_error;

/// A dial that failed.
pub(super) fn dial_text(to: SocketAddr, error: &io::Error) -> String {
    format!("dial tcp {to}: connect: {}", os_error::text(error))
}

/// A dial that took too long.
pub(super) fn dial_timeout_text(to: SocketAddr) -> String {
    format!("dial tcp {to}: i/o timeout")
}

/// A read or write (`what`) on a connection that failed.
pub(super) fn transfer_text(what: &str, ends: (SocketAddr, SocketAddr), error: &io::Error) -> String {
    format!(
        "{what} tcp {}->{}: {what}: {}",
        ends.0,
        ends.1,
        os_error::text(error)
    )
}

/// A read or write (`what`) on a connection that took too long.
pub(super) fn transfer_timeout_text(what: &str, ends: (SocketAddr, SocketAddr)) -> String {
    format!("{what} tcp {}->{}: i/o timeout", ends.0, ends.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_go_words_them() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let to: SocketAddr = "[::1]:1".parse().unwrap();
        assert_eq!(
            dial_text(to, &refused),
            "dial tcp [::1]:1: connect: connection refused"
        );
        assert_eq!(dial_timeout_text(to), "dial tcp [::1]:1: i/o timeout");
        let ends = ("127.0.0.1:5".parse().unwrap(), "127.0.0.1:6".parse().unwrap());
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(
            transfer_text("read", ends, &reset),
            "read tcp 127.0.0.1:5->127.0.0.1:6: read: connection reset by peer"
        );
        assert_eq!(
            transfer_timeout_text("write", ends),
            "write tcp 127.0.0.1:5->127.0.0.1:6: i/o timeout"
        );
    }
}
