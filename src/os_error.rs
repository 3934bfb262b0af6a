//! Errors of the operating system as Serf's users know them: in the words of the Go runtime.

use std::io::{Error, ErrorKind};

/// Unix tells what nobody may do from what this user may not, and `ErrorKind` does not.
const EPERM: i32 = 1;

/// The reason alone, in lower case and without its number: `connection refused`.
pub fn text(error: &Error) -> String {
    let has_own_words = error.get_ref().is_some() || cfg!(unix) && error.raw_os_error() == Some(EPERM);
    if !has_own_words && let Some(known) = of_kind(error.kind()) {
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
pub fn of_kind(kind: ErrorKind) -> Option<&'static str> {
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
            assert_eq!(text(&Error::from(kind)), expected);
        }
        // Whoever words an error itself knows more than its kind.
        assert_eq!(
            text(&Error::new(ErrorKind::TimedOut, "I/o timeout")),
            "i/o timeout"
        );
        assert_eq!(text(&Error::other("")), "");
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
            assert_eq!(text(&Error::from_raw_os_error(code)), expected);
        }
    }
}
