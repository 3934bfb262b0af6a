//! The snapshot: what a node must know after a restart, in a sled store (docs/design.md#the-snapshot).
//!
//! [`open`] locks and reads the store before any socket opens, and gives the [`Memory`] to start from and
//! the [`Recorder`] that goes on writing. The recorder belongs to the driver and never blocks: it gathers
//! records, a later one in place of an earlier one about the same, and a thread writes them in batches, each
//! in one transaction. It reports what is on the disk ([`Recorder::news`]). Trouble with the disk interrupts
//! the recording, never the membership.

mod codec;
mod disk;
mod error;
mod essence;
mod files;
mod found;
mod frame;
mod home;
mod import;
mod pending;
mod place;
mod recorder;
mod recover;
pub mod serf_text;
mod start;
mod store;
mod trouble;
mod worker;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fyrd_core::node::memory::Memory;
use fyrd_core::time::Time;

pub use error::OpenError;
pub use recorder::{Recorder, State, Status, Watch};

/// The schema of the store that this program knows.
pub const SCHEMA: u32 = 1;

/// Which snapshot, and whose.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// Where it is: a directory, made if need be; its parent must exist. A text snapshot of Serf at this
    /// path is imported.
    pub path: PathBuf,
    /// The name of the node.
    pub node: String,
    /// Whether a graceful leave forgets the other members (unless `rejoin_after_leave`). As in Serf, that is
    /// decided at the start after the leave, so one with `-rejoin` still finds them.
    pub forget_left_members: bool,
}

/// What a start finds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What the node goes on from. Without this node itself; `since` is never in the future.
    pub memory: Memory,
    /// Whether the last run ended with a graceful leave.
    pub left: bool,
    /// Where Serf's text snapshot has been put that was imported just now.
    pub imported: Option<PathBuf>,
    /// Where a store has been put that could not be read.
    pub set_aside: Option<PathBuf>,
    /// What a user should know about the above, a line each, for the log.
    pub warnings: Vec<String>,
}

/// What a look at a snapshot shows.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// What a node would go on from, members that a leave would forget included.
    pub memory: Memory,
    /// Whether the last run ended with a graceful leave.
    pub left: bool,
    /// The node that wrote it.
    pub node: String,
    /// The identity made at that node's first start; 0 in a snapshot of before there were any.
    pub identity: u128,
    /// The schema of the store.
    pub schema: u32,
    /// When it was written last.
    pub written: Option<SystemTime>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Entries that could not be read and were left out.
    pub unreadable: usize,
    /// Whether this is what the last flush left. A start sets aside a store of which that is not true, and
    /// goes on from what could be read, which is shown here.
    pub intact: bool,
    /// What a user should know about how it was read, a line each.
    pub warnings: Vec<String>,
}

/// Opens the snapshot, or begins one, and locks it for this process. Blocks while it reads; to be called
/// before any socket opens. `now` counts from the Unix epoch.
///
/// What is damaged is no error: it is set aside, see [`Loaded::set_aside`], and what it held comes from the essence
/// beside it. Nor is a disk that is full or takes nothing: the node starts from what can be read, and the
/// recording begins once the disk works.
///
/// # Errors
/// When the path cannot work, another process has the snapshot open, or a later version wrote it.
pub fn open(config: SnapshotConfig, now: Time) -> Result<(Loaded, Recorder), OpenError> {
    start::open(config, now)
}

/// Looks at a snapshot, and writes nothing there. No process may have it meanwhile.
///
/// # Errors
/// As [`open`], and when there is no snapshot.
pub fn read(path: &Path) -> Result<Contents, OpenError> {
    start::read(path, worker::now())
}

/// What the bytes of the two copies of an essence say, if anything: how it is read, for those who put it to the
/// test. Times after `now` are taken for `now`.
pub fn read_essence(copies: &[Vec<u8>; 2], now: Time) -> Option<Contents> {
    let (found, _) = essence::recall(copies, now).ok()?;
    found.map(|found| start::contents(found, 0, Vec::new()))
}
