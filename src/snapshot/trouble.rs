//! Why a store or an essence does not work, and how sled's panics become such a reason.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use super::error::{OpenError, os_text};

/// Why something of a snapshot does not work.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The operating system refuses.
    Io(io::Error),
    /// It does not hold what was written.
    Damaged(String),
    /// Nothing has been written into it yet.
    Empty,
    /// A later version wrote it, of this schema.
    Newer(u32),
    /// Somebody has removed, replaced or cut this.
    Gone(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Io(error) => f.write_str(&os_text(error)),
            Trouble::Damaged(what) => f.write_str(what),
            Trouble::Empty => f.write_str("it is empty"),
            Trouble::Newer(schema) => write!(f, "schema {schema} of a later version"),
            Trouble::Gone(what) => write!(f, "somebody has removed, replaced or cut {what}"),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Trouble::Io(error),
            sled::Error::Corruption { .. } => Trouble::Damaged("a checksum does not match".into()),
            other => Trouble::Damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { source, .. } => Trouble::Io(source),
            other => Trouble::Damaged(other.to_string()),
        }
    }
}

/// Runs what uses sled, and turns a panic in it into a trouble.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let line = text
            .and_then(|text| text.lines().next())
            .unwrap_or("sled gave up");
        Err(Trouble::Damaged(line.to_owned()))
    })
}
