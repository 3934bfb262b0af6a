//! Errors of the operating system and of the network, in the words of the Go runtime.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

/// Unix tells what nobody may do from what this user may not, and `ErrorKind` does not.
const EPERM: i32 = 1;

/// The reason alone, in lower case and without its number: `connection refused`.
pub fn os_error(error: &io::Error) -> String {
    let has_own_words = error.get_ref().is_some() || cfg!(unix) && error.raw_os_error() == Some(EPERM);
    if !has_own_words && let Some(known) = os_error_kind(error.kind()) {
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

/// What goes wrong most, worded alike on every system: Windows speaks the user's language.
pub fn os_error_kind(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::AddrInUse => "address already in use",
        ErrorKind::AddrNotAvailable => "cannot assign requested address",
        ErrorKind::AlreadyExists => "file exists",
        ErrorKind::BrokenPipe => "broken pipe",
        ErrorKind::ConnectionAborted => "software caused connection abort",
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset by peer",
        ErrorKind::HostUnreachable => "no route to host",
        ErrorKind::NetworkUnreachable => "network is unreachable",
        ErrorKind::NotFound => "no such file or directory",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::QuotaExceeded => "disk quota exceeded",
        ErrorKind::ReadOnlyFilesystem => "read-only file system",
        ErrorKind::StorageFull => "no space left on device",
        ErrorKind::TimedOut => "connection timed out",
        _ => return None,
    })
}

/// A dial that failed.
pub fn dial_error(to: SocketAddr, error: &io::Error) -> String {
    format!("dial tcp {to}: connect: {}", os_error(error))
}

/// A dial that took too long.
pub fn dial_timeout(to: SocketAddr) -> String {
    format!("dial tcp {to}: i/o timeout")
}

/// A read or write (`what`) on a connection that failed.
pub fn transfer_error(what: &str, ends: (SocketAddr, SocketAddr), error: &io::Error) -> String {
    format!("{what} tcp {}->{}: {what}: {}", ends.0, ends.1, os_error(error))
}

/// A read or write (`what`) on a connection that took too long.
pub fn transfer_timeout(what: &str, ends: (SocketAddr, SocketAddr)) -> String {
    format!("{what} tcp {}->{}: i/o timeout", ends.0, ends.1)
}

/// Why a name could not be looked up, in Serf's words.
pub fn lookup_error(host: &str, error: &io::Error) -> String {
    let text = os_error(error);
    let reason = text
        .split_once("information: ")
        .map_or(text.as_str(), |(_, reason)| reason);
    match reason {
        // The resolver's words for a name that does not exist, or has no address.
        "Name or service not known"
        | "No address associated with hostname"
        | "nodename nor servname provided, or not known"
        | "no such host is known." => format!("lookup {host}: no such host"),
        other => format!("lookup {host}: {other}"),
    }
}

/// A file's error as Serf words it: `open PATH: no such file or directory`.
pub fn open_error(path: &str, error: &io::Error) -> String {
    // Windows has no error of its own for this.
    let is_directory =
        cfg!(windows) && error.kind() == io::ErrorKind::PermissionDenied && Path::new(path).is_dir();
    if is_directory || error.kind() == io::ErrorKind::IsADirectory {
        return format!("read {path}: is a directory");
    }
    format!("open {path}: {}", os_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_go_words_them() {
        let kinds = [
            (ErrorKind::ConnectionRefused, "connection refused"),
            (ErrorKind::TimedOut, "connection timed out"),
            (ErrorKind::NotFound, "no such file or directory"),
            (ErrorKind::UnexpectedEof, "unexpected end of file"),
        ];
        for (kind, expected) in kinds {
            assert_eq!(os_error(&io::Error::from(kind)), expected);
        }
        // Whoever words an error itself knows more than its kind.
        assert_eq!(
            os_error(&io::Error::new(ErrorKind::TimedOut, "I/o timeout")),
            "i/o timeout"
        );
        assert_eq!(os_error(&io::Error::other("")), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_reasons_read_as_go_words_them() {
        let codes = [
            (1, "operation not permitted"),
            (2, "no such file or directory"),
            (13, "permission denied"),
            (17, "file exists"),
            (22, "invalid argument"),
            (24, "too many open files"),
            (28, "no space left on device"),
            (30, "read-only file system"),
            (32, "broken pipe"),
            (95, "operation not supported"),
            (98, "address already in use"),
            (99, "cannot assign requested address"),
            (101, "network is unreachable"),
            (103, "software caused connection abort"),
            (104, "connection reset by peer"),
            (110, "connection timed out"),
            (111, "connection refused"),
            (113, "no route to host"),
            (122, "disk quota exceeded"),
        ];
        for (code, expected) in codes {
            assert_eq!(os_error(&io::Error::from_raw_os_error(code)), expected);
        }
    }

    #[test]
    fn connections_fail_in_the_words_of_go() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let to: SocketAddr = "[::1]:1".parse().unwrap();
        assert_eq!(
            dial_error(to, &refused),
            "dial tcp [::1]:1: connect: connection refused"
        );
        assert_eq!(dial_timeout(to), "dial tcp [::1]:1: i/o timeout");
        let ends = ("127.0.0.1:5".parse().unwrap(), "127.0.0.1:6".parse().unwrap());
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(
            transfer_error("read", ends, &reset),
            "read tcp 127.0.0.1:5->127.0.0.1:6: read: connection reset by peer"
        );
        assert_eq!(
            transfer_timeout("write", ends),
            "write tcp 127.0.0.1:5->127.0.0.1:6: i/o timeout"
        );
    }
}
