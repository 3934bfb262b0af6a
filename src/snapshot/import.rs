//! Moves a text snapshot of Serf in: the store is written beside it, then the two change places.
//!
//! First the text is renamed to `PATH.serf-imported`, then `PATH.importing`, which is complete by then, to
//! `PATH`. After a crash the next start either finds the text in its place and begins again, or finds it moved
//! and does the second rename.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::home::{self, Home};
use super::pending::Batch;
use super::serf_text::{self, Reading, Unreadable};
use super::store::Trouble;
use super::worker;
use super::{Loaded, SnapshotConfig};
use fyrd_core::time::Time;

const KEPT: &str = "serf-imported";

/// Where the store is written meanwhile.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".importing");
    name.into()
}

/// Completes what a crash interrupted between the two renames.
pub(super) fn finish(path: &Path) -> Result<(), OpenError> {
    let beside = beside(path);
    let is_gone =
        |path: &Path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if !is_gone(path) || is_gone(&beside) {
        return Ok(());
    }
    let home = Home::lock_to_look(&beside)?;
    let complete = home.current().is_some();
    drop(home);
    if complete {
        home::rename(&beside, path).map_err(OpenError::io("rename", &beside))
    } else {
        fs::remove_dir_all(&beside).map_err(OpenError::io("remove", &beside))
    }
}

/// Imports the text at the path.
pub(super) fn import(config: &SnapshotConfig, now: Time, loaded: &mut Loaded) -> Result<(), OpenError> {
    let path = &config.path;
    // Who has left is forgotten when the store is opened, or not, as everywhere.
    let reading = Reading {
        node: Some(&config.node),
        rejoin_after_leave: !config.forget_left_members,
        now,
    };
    let imported = serf_text::read(path, reading).map_err(|error| match error {
        Unreadable::Io { what, source } => OpenError::io(what, path)(source),
        refusal => OpenError::NoSnapshot {
            path: path.clone(),
            reason: format!("{refusal}; name another path, or move it away"),
        },
    })?;
    let beside = beside(path);
    match fs::create_dir(&beside) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => result.map_err(OpenError::io("mkdir", &beside))?,
    }
    let home = Home::lock(&beside, &config.node)?;
    home.clear_except(None);
    let mut batch = Batch::of(&imported.memory);
    batch.left = imported.left;
    let (_, store) = worker::build(&home, &config.node, |store| store.apply(&batch, worker::now())).map_err(
        |trouble| match trouble {
            Trouble::Io(error) => OpenError::io("write", &beside)(error),
            other => OpenError::Damaged {
                path: beside.clone(),
                reason: other.to_string(),
            },
        },
    )?;
    store.close();
    // Windows renames no directory with an open file in it.
    drop(home);
    let kept = kept_name(path);
    home::rename(path, &kept).map_err(OpenError::io("rename", path))?;
    home::rename(&beside, path).map_err(OpenError::io("rename", &beside))?;
    loaded.warnings.extend(imported.warnings.texts);
    if imported.warnings.more > 0 {
        loaded.warnings.push(format!(
            "{} more lines of the snapshot were left out",
            imported.warnings.more
        ));
    }
    loaded.imported = Some(kept);
    Ok(())
}

/// What is imported is kept, and never replaces what was kept before.
fn kept_name(path: &Path) -> PathBuf {
    let mut plain = path.as_os_str().to_owned();
    plain.push(format!(".{KEPT}"));
    let plain = PathBuf::from(plain);
    match fs::symlink_metadata(&plain) {
        Err(_) => plain,
        Ok(_) => home::free_name(path, &format!("{KEPT}-{}", home::stamp())),
    }
}
