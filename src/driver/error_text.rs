//! Network errors as Serf's users know them: in the words of the Go runtime.

use std::io;
use std::net::SocketAddr;

/// The operating system's reason alone: `connection refused`.
pub(super) fn os_text(error: &io::Error) -> String {
    use io::ErrorKind::*;
    // The same words on every system for what people look for in logs.
    let known = match error.kind() {
        ConnectionRefused => "connection refused",
        ConnectionReset => "connection reset by peer",
        ConnectionAborted => "software caused connection abort",
        BrokenPipe => "broken pipe",
        AddrInUse => "address already in use",
        AddrNotAvailable => "cannot assign requested address",
        NetworkUnreachable => "network is unreachable",
        HostUnreachable => "no route to host",
        PermissionDenied => "permission denied",
        TimedOut => "connection timed out",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    // Rust shows the system's text as "Invalid argument (os error 22)".
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A dial that failed.
pub(super) fn dial_text(to: SocketAddr, error: &io::Error) -> String {
    format!("dial tcp {to}: connect: {}", os_text(error))
}

/// A dial that took too long.
pub(super) fn dial_timeout_text(to: SocketAddr) -> String {
    format!("dial tcp {to}: i/o timeout")
}

/// A read or write (`what`) on a connection that failed.
pub(super) fn transfer_text(what: &str, ends: (SocketAddr, SocketAddr), error: &io::Error) -> String {
    format!("{what} tcp {}->{}: {what}: {}", ends.0, ends.1, os_text(error))
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

    #[test]
    #[cfg(target_os = "linux")]
    fn other_reasons_lose_rusts_decoration() {
        assert_eq!(os_text(&io::Error::from_raw_os_error(24)), "too many open files");
        assert_eq!(os_text(&io::Error::from_raw_os_error(22)), "invalid argument");
        assert_eq!(os_text(&io::Error::from_raw_os_error(111)), "connection refused");
    }
}
