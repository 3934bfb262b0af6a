//! The driver's end of the store: gathers records, and knows what is on the disk.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::node::memory::{Marks, Record};

/// Whether what the node tells is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Recording,
    /// It is not, and the disk is tried again from time to time.
    Degraded {
        /// Since when.
        since: SystemTime,
        /// Why.
        reason: String,
    },
}

/// What users may want to know about the snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it works.
    pub state: State,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Entries in the store: members, events and queries.
    pub records: u64,
    /// Flushes that have succeeded.
    pub flushes: u64,
    /// Times the recording has been interrupted.
    pub failures: u64,
    /// When the last flush succeeded.
    pub last_flush: Option<SystemTime>,
}

/// A view of the store's status for other tasks.
#[derive(Clone, Debug)]
pub struct Watch {}

impl Watch {
    /// How it is now.
    pub fn status(&self) -> Status {
        unimplemented!()
    }
}

/// Takes what the node tells, and has it written. No method blocks.
///
/// The order is: [`note`](Recorder::note) the records, [`mark`](Recorder::mark) the clocks, then
/// [`push`](Recorder::push). What one push hands over is written whole or not at all, with the marks of that
/// moment, so that no record is ever newer than the clocks beside it. When the channel has no room, records
/// gather on, coalesced; [`progress`](Recorder::progress) tells when to push again.
#[derive(Debug)]
pub struct Recorder {}

impl Recorder {
    /// Takes a record. A later one of the same name, or Lamport time and place, replaces it.
    pub fn note(&mut self, record: Record) {
        let _ = record;
    }

    /// Takes the node's marks as they are now. None of them runs backwards.
    pub fn mark(&mut self, marks: Marks) {
        let _ = marks;
    }

    /// Hands over what has gathered, if there is room.
    pub fn push(&mut self) {}

    /// Has all that was pushed, or will be with the next push, flushed at once, for somebody waits for it.
    /// Without it a flush may come as late as 100 ms after the one before.
    pub fn hurry(&mut self) {}

    /// What is certainly on the disk.
    pub fn durable(&self) -> Marks {
        Marks::default()
    }

    /// Waits until [`durable`](Recorder::durable) has grown, room for another push has come, or the state has
    /// changed. Can be dropped at any time without loss.
    pub async fn progress(&mut self) {
        std::future::pending().await
    }

    /// Whether records are kept. While they are not, nothing becomes durable, and nobody should wait for it.
    /// After an interruption this is true again once everything has been written anew.
    pub fn is_recording(&self) -> bool {
        false
    }

    /// Whether the store begins anew, so that all records must be noted again, the marks too, and pushed. True
    /// once for each such beginning.
    pub fn wants_everything(&mut self) -> bool {
        false
    }

    /// Remembers that the node has left gracefully. Later records of members are ignored, for they only tell
    /// how the others see it go. Flushed at once.
    pub fn leave(&mut self) {}

    /// A view of the status for other tasks.
    pub fn watch(&self) -> Watch {
        Watch {}
    }

    /// Writes and flushes what has gathered, ends the thread and releases the lock, or gives up waiting after
    /// this time.
    pub async fn finish(self, patience: Duration) {
        let _ = patience;
    }
}
