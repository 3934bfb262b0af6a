//! Why a snapshot cannot be opened, in words for whoever starts the agent.

use std::io;
use std::path::PathBuf;

use crate::go;

/// Why a snapshot cannot be opened. Shown after Serf's prefix `Failed to setup snapshot: failed to open
/// snapshot: `, and in the words of Go's runtime where the operating system is the reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refuses.
    #[error("{what} {}: {}", path.display(), os_text(source))]
    Io {
        /// What was tried, as a verb: `open`, `mkdir`, `rename`.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("snapshot {} is in use by {}", path.display(), holder(*pid, node.as_deref()))]
    InUse {
        /// The snapshot.
        path: PathBuf,
        /// The process that has it, as far as it has said so.
        pid: Option<u32>,
        /// The node it runs.
        node: Option<String>,
    },
    /// The directory holds what no snapshot would.
    #[error(
        "open {}: this directory is no snapshot, for it holds '{found}'; name a file or directory of its own",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A later version wrote it.
    #[error(
        "open {}: the snapshot has schema {found}, and this program knows up to {known}; \
         start the newer program, or another snapshot",
        path.display()
    )]
    Newer {
        /// The snapshot.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema this program knows.
        known: u32,
    },
    /// It cannot be read, not even in part, or not be written.
    #[error("open {}: {reason}", path.display())]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What is there is no snapshot, or nothing is there and the caller only wanted to look.
    #[error("open {}: {reason}", path.display())]
    NoSnapshot {
        /// Where one was looked for.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| OpenError::Io { what, path, source }
    }
}

fn holder(pid: Option<u32>, node: Option<&str>) -> String {
    match (pid, node) {
        (Some(pid), Some(node)) => format!("process {pid} (node '{node}')"),
        (Some(pid), None) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

/// The operating system's words. sled copies errors, and of a copy only the kind can be relied on.
pub(super) fn os_text(error: &io::Error) -> String {
    go::os_error_kind(error.kind()).map_or_else(|| go::os_error(error), str::to_owned)
}
