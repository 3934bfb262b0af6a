//! Moves a text snapshot of Serf in: the store is written beside it, then the two change places.
//!
//! First the text is renamed to `PATH.serf-imported`, then `PATH.importing`, which is complete by then, to
//! `PATH`. After a crash the next start either finds the text in its place and begins again, or finds it moved
//! and does the second rename.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::disk::build;
use super::error::OpenError;
use super::files;
use super::found::Owner;
use super::home::{self, Home};
use super::pending::Batch;
use super::serf_text::{self, Imported, Reading, Unreadable};
use super::trouble::Trouble;
use super::{SnapshotConfig, essence};
use fyrd_core::time::Time;

const KEPT: &str = "serf-imported";

/// Where the store is written meanwhile.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".importing");
    name.into()
}

/// Completes what a crash interrupted between the two renames.
pub(super) fn finish(path: &Path) -> io::Result<()> {
    let beside = beside(path);
    if !home::is_missing(path) || home::is_missing(&beside) {
        return Ok(());
    }
    match home::current(&beside) {
        Some(_) => files::rename(&beside, path),
        None => fs::remove_dir_all(&beside),
    }
}

/// Reads the text at the path. What is no such text, as far as can be seen, is `None`: it may be anybody's, and is
/// left alone.
pub(super) fn read(config: &SnapshotConfig, now: Time) -> Result<Option<Imported>, OpenError> {
    // Who has left is forgotten when the store is opened, or not, as everywhere.
    let reading = Reading {
        node: Some(&config.node),
        rejoin_after_leave: !config.forget_left_members,
        now,
    };
    match serf_text::read(&config.path, reading) {
        Ok(imported) => Ok(Some(imported)),
        Err(Unreadable::Foreign) => Ok(None),
        Err(Unreadable::Io { what, source }) => Err(OpenError::io(what, &config.path)(source)),
    }
}

/// Puts a store of what was read in the place of the text, and says where that is now.
pub(super) fn swap(config: &SnapshotConfig, imported: &Imported, now: Time) -> Result<PathBuf, Trouble> {
    let path = &config.path;
    let beside = beside(path);
    match files::make_directory(&beside) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let home = Home::lock(&beside, &config.node).map_err(Trouble::from)?;
    // What an earlier import left of itself.
    home.clear_except(None);
    essence::remove(&beside);
    let mut batch = Batch::of(&imported.memory);
    batch.left = imported.left;
    let owner = Owner {
        node: config.node.clone(),
        identity: 0,
    };
    let built = build(&home, &owner, |store| store.fill(&batch, 1, now));
    built?.1.close();
    // Windows renames no directory with an open file in it.
    drop(home);
    let kept = kept_name(path);
    files::rename(path, &kept)?;
    files::rename(&beside, path)?;
    Ok(kept)
}

/// What is imported is kept, and never replaces what was kept before.
fn kept_name(path: &Path) -> PathBuf {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{suffix}"));
        PathBuf::from(name)
    };
    let plain = named(KEPT);
    match home::is_missing(&plain) {
        true => plain,
        false => files::free_name(named(&format!("{KEPT}-{}", files::stamp()))),
    }
}
