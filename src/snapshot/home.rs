//! The directory of a snapshot: which process has locked it, and which store in it is current.
//!
//! ```text
//! PATH/lock                locked while a process has the snapshot
//! PATH/owner               that process and its node
//! PATH/current             the name of the current store
//! PATH/gen-000001/         a store
//! PATH/essence-1, -2       all of it once more
//! PATH/unreadable-TIME/    a store that could not be read
//! ```
//!
//! A store is never replaced in place: the next generation is written beside it and synced, then `current` is
//! made to name it, in one rename. Other generations are removed, at once or at the next start.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{process, thread};

use super::error::{OpenError, os_text};
use super::{essence, files};
use fyrd_core::bounds::{SNAPSHOT_ASIDE, SNAPSHOT_LOCK};
use fyrd_keys::replace::{Access, is_leftover, replace};

const LOCK: &str = "lock";
const OWNER: &str = "owner";
const CURRENT: &str = "current";
const GENERATION: &str = "gen-";
const ASIDE: &str = "unreadable-";

/// A locked directory. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    lock: Option<File>,
    /// Why it is not locked after all.
    unlocked: Option<String>,
}

impl Home {
    /// Locks the directory, which must exist, and says who has it.
    pub fn lock(path: &Path, node: &str) -> Result<Home, OpenError> {
        refuse_foreign(path)?;
        files::make_private(path);
        let lock = path.join(LOCK);
        let opened = files::private_file().create(true).truncate(false).open(&lock);
        // What is there can still be read, and nothing can be written that a lock would protect.
        let opened = opened.or_else(|error| File::open(&lock).map_err(|_| error));
        let mut home = Home {
            path: path.to_owned(),
            lock: None,
            unlocked: None,
        };
        match opened {
            Ok(file) => home.try_lock(file)?,
            Err(error) => home.unlocked = Some(os_text(&error)),
        }
        // Only a help for whoever finds it locked, so it may be missing where nothing can be written.
        let owner = path.join(OWNER);
        let opened = files::private_file().create(true).truncate(true).open(owner);
        let _ = opened.and_then(|mut owner| write!(owner, "{}\n{node}\n", process::id()));
        Ok(home)
    }

    fn try_lock(&mut self, file: File) -> Result<(), OpenError> {
        let until = Instant::now() + SNAPSHOT_LOCK;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_STEP),
                Err(TryLockError::WouldBlock) => return Err(in_use(&self.path)),
                // Some network file systems have none.
                Err(TryLockError::Error(error)) => {
                    self.unlocked = Some(os_text(&error));
                    break;
                }
            }
        }
        self.lock = Some(file);
        Ok(())
    }

    /// The snapshot's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why it could not be locked.
    pub fn unlocked(&self) -> Option<&str> {
        self.unlocked.as_deref()
    }

    /// Whether the directory is still the one that was locked.
    pub fn is_there(&self) -> bool {
        match &self.lock {
            Some(lock) => files::length_if_same(cfg!(unix).then_some(lock), &self.path.join(LOCK)).is_some(),
            None => self.path.is_dir(),
        }
    }

    /// The stores, the current one first, then the others from the newest on.
    pub fn generations(&self) -> io::Result<Vec<u32>> {
        generations(&self.path)
    }

    /// The current store, if its name can be read.
    pub fn current(&self) -> Option<u32> {
        current(&self.path)
    }

    /// Where a store is.
    pub fn directory(&self, generation: u32) -> PathBuf {
        directory(&self.path, generation)
    }

    /// A number for the next store, above all there are.
    pub fn next(&self) -> io::Result<u32> {
        let highest = self.generations()?.into_iter().max().unwrap_or(0);
        Ok(highest.saturating_add(1))
    }

    /// Makes this store the current one. It must be on the disk.
    pub fn switch_to(&self, generation: u32) -> io::Result<()> {
        let current = self.path.join(CURRENT);
        replace(&current, Access::Owner, |file| {
            writeln!(file, "{GENERATION}{generation:06}")
        })
        .map_err(|error| error.source)
    }

    /// Removes all stores but this one, and what never came to be one, as far as that works; the next start
    /// tries again.
    pub fn clear_except(&self, generation: Option<u32>) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if is_leftover(&name, Path::new(CURRENT)) || essence::is_unfinished(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let others = self.generations().unwrap_or_default();
        for other in others.into_iter().filter(|other| Some(*other) != generation) {
            self.remove(other);
        }
    }

    /// Removes one store, as far as that works.
    pub fn remove(&self, generation: u32) {
        let _ = fs::remove_dir_all(self.directory(generation));
    }

    /// Puts a store that cannot be read to where it is in nobody's way, and says where. Where it cannot be
    /// renamed, as what came with the image of a container, it is copied. Only the newest few are kept.
    pub fn set_aside(&self, generation: u32) -> io::Result<PathBuf> {
        let from = self.directory(generation);
        let to = files::free_name(self.path.join(format!("{ASIDE}{}", files::stamp())));
        if files::rename(&from, &to).is_err() {
            files::copy(&from, &to).inspect_err(|_| drop(fs::remove_dir_all(&to)))?;
            self.remove(generation);
        }
        let entries = fs::read_dir(&self.path)?.flatten();
        let names = entries.map(|entry| entry.file_name());
        let mut aside: Vec<_> = names.filter(|name| is_aside(&name.to_string_lossy())).collect();
        aside.sort();
        for old in aside.iter().rev().skip(SNAPSHOT_ASIDE) {
            let _ = fs::remove_dir_all(self.path.join(old));
        }
        Ok(to)
    }
}

/// A lock that keeps a process from beginning with a snapshot while somebody looks at it. Nothing is written for
/// it: where no process ever had the snapshot, or where it cannot be opened, there is none.
pub(super) fn lock_to_look(path: &Path) -> Result<Option<File>, OpenError> {
    refuse_foreign(path)?;
    let Ok(file) = File::open(path.join(LOCK)) else {
        return Ok(None);
    };
    let until = Instant::now() + SNAPSHOT_LOCK;
    loop {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_STEP),
            Err(TryLockError::WouldBlock) => return Err(in_use(path)),
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Some(file)),
        }
    }
}

/// The stores in a snapshot, the current one first, then the others from the newest on.
pub(super) fn generations(path: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(generation_of));
    }
    let current = current(path);
    found.sort_by_key(|generation| (Some(*generation) != current, u32::MAX - generation));
    Ok(found)
}

/// The current store of a snapshot, if its name can be read.
pub(super) fn current(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join(CURRENT)).ok()?;
    generation_of(text.strip_suffix('\n')?)
}

/// Where a store is in a snapshot.
pub(super) fn directory(path: &Path, generation: u32) -> PathBuf {
    path.join(format!("{GENERATION}{generation:06}"))
}

/// Looks for what does not belong to a snapshot, before anything is written into somebody's directory. In one
/// that has been a snapshot before, and of what is hidden, such things are left alone: they are a file system's
/// own, as `lost+found` and `.nfs...`, or somebody's who has looked around.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let mut foreign = None;
    for entry in fs::read_dir(path).map_err(OpenError::io("open", path))? {
        let entry = entry.map_err(OpenError::io("read", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name == CURRENT || essence::NAMES.contains(&&*name) || generation_of(&name).is_some();
        if is_ours {
            return Ok(());
        }
        let is_harmless = [LOCK, OWNER, "lost+found"].contains(&&*name) || is_aside(&name);
        if !is_harmless && !name.starts_with('.') {
            foreign = Some(name);
        }
    }
    match foreign {
        None => Ok(()),
        Some(found) => Err(OpenError::Foreign {
            path: path.to_owned(),
            found,
        }),
    }
}

fn is_aside(name: &str) -> bool {
    name.starts_with(ASIDE)
}

fn in_use(path: &Path) -> OpenError {
    let owner = fs::read_to_string(path.join(OWNER)).unwrap_or_default();
    let mut lines = owner.lines();
    let pid = lines.next().and_then(|pid| pid.parse().ok());
    // Who wrote this may have ended since, and the lock is somebody else's.
    let pid = pid.filter(|pid: &u32| !has_ended(*pid));
    OpenError::InUse {
        path: path.to_owned(),
        pid,
        node: lines.next().filter(|_| pid.is_some()).map(str::to_owned),
    }
}

/// Whether no process has this number, as far as the system shows processes.
fn has_ended(pid: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(pid.to_string()).exists()
}

fn generation_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(GENERATION)?;
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// How often a lock is tried.
const LOCK_STEP: std::time::Duration = std::time::Duration::from_millis(10);

/// Whether there is no such thing at a path.
pub(super) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
