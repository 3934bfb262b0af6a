//! The directory of a snapshot: which process has locked it, and which store in it is current.
//!
//! ```text
//! PATH/lock         locked while a process has the snapshot
//! PATH/owner        that process and its node
//! PATH/current      the name of the current store
//! PATH/gen-000001/  a store
//! ```
//!
//! A store is never replaced in place: the next generation is written beside it and synced, then `current` is
//! made to name it, in one rename. Other generations are removed, at once or at the next start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{process, thread};

use chrono::Utc;

use super::error::OpenError;
use fyrd_keys::replace::{Access, is_leftover, parent, replace, sync_directory};

const LOCK: &str = "lock";
const OWNER: &str = "owner";
const CURRENT: &str = "current";
const GENERATION: &str = "gen-";

/// A locked directory. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Locks the directory, which must exist, and says who has it.
    pub fn lock(path: &Path, node: &str) -> Result<Home, OpenError> {
        Home::lock_as(path, &format!("{}\n{node}\n", process::id()))
    }

    /// Locks it for a look, as no node.
    pub fn lock_to_look(path: &Path) -> Result<Home, OpenError> {
        Home::lock_as(path, &format!("{}\n", process::id()))
    }

    fn lock_as(path: &Path, owner: &str) -> Result<Home, OpenError> {
        refuse_foreign(path)?;
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&lock).or_else(|error| match error.kind() {
            // What is there can still be read.
            ErrorKind::ReadOnlyFilesystem => File::open(&lock),
            _ => Err(error),
        });
        let file = file.map_err(OpenError::io("open", &lock))?;
        let until = Instant::now() + ENDING;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LINGER_STEP),
                Err(TryLockError::WouldBlock) => return Err(in_use(path)),
                Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", lock)(source)),
            }
        }
        // Only a help for whoever finds it locked, so it may be missing where nothing can be written.
        let _ = fs::write(path.join(OWNER), owner);
        Ok(Home {
            path: path.to_owned(),
            _lock: file,
        })
    }

    /// The snapshot's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stores, the current one first, then the others from the newest on.
    pub fn generations(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(generation_of));
        }
        let current = self.current();
        found.sort_by_key(|generation| (Some(*generation) != current, u32::MAX - generation));
        Ok(found)
    }

    /// The current store, if its name can be read.
    pub fn current(&self) -> Option<u32> {
        let text = fs::read_to_string(self.path.join(CURRENT)).ok()?;
        generation_of(text.strip_suffix('\n')?)
    }

    /// Where a store is.
    pub fn directory(&self, generation: u32) -> PathBuf {
        self.path.join(format!("{GENERATION}{generation:06}"))
    }

    /// A number for the next store, above all there are.
    pub fn next(&self) -> io::Result<u32> {
        let highest = self.generations()?.into_iter().max().unwrap_or(0);
        Ok(highest.saturating_add(1))
    }

    /// Makes this store the current one. It must be on the disk.
    pub fn switch_to(&self, generation: u32) -> io::Result<()> {
        let current = self.path.join(CURRENT);
        replace(&current, Access::Usual, |file| {
            writeln!(file, "{GENERATION}{generation:06}")
        })
        .map_err(|error| error.source)
    }

    /// Removes all stores but this one, and what never came to name one, as far as that works; the next start
    /// tries again.
    pub fn clear_except(&self, generation: Option<u32>) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if is_leftover(&entry.file_name(), Path::new(CURRENT)) {
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

    /// Puts a store that cannot be read beside the snapshot, and says where.
    pub fn set_aside(&self, generation: u32) -> Result<PathBuf, OpenError> {
        let to = free_name(&self.path, &format!("unreadable-{}", stamp()));
        rename(&self.directory(generation), &to).map_err(OpenError::io("rename", &to))?;
        Ok(to)
    }
}

/// Looks for what does not belong to a snapshot, before anything is written into somebody's directory.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io("open", path))? {
        let entry = entry.map_err(OpenError::io("read", path))?;
        let file_name = entry.file_name();
        let name = file_name.to_string_lossy();
        let known = [LOCK, OWNER, CURRENT].contains(&&*name)
            || is_leftover(&file_name, Path::new(CURRENT))
            || generation_of(&name).is_some();
        // A file system's own, at the top of a disk made for the snapshot.
        if !known && name != "lost+found" {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

fn in_use(path: &Path) -> OpenError {
    let owner = fs::read_to_string(path.join(OWNER)).unwrap_or_default();
    let mut lines = owner.lines();
    OpenError::InUse {
        path: path.to_owned(),
        pid: lines.next().and_then(|pid| pid.parse().ok()),
        node: lines.next().map(str::to_owned),
    }
}

fn generation_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(GENERATION)?;
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// A time for names of files, in UTC.
pub(super) fn stamp() -> String {
    Utc::now().format("%Y%m%dT%H%M%SZ").to_string()
}

/// A path beside this one with this suffix, and a number where that is taken.
pub(super) fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{suffix}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let name = PathBuf::from(name);
        if fs::symlink_metadata(&name).is_err() {
            return name;
        }
        number += 1;
    }
}

/// Renames a directory or file whose last user may be about to close it, and has that on the disk.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let until = Instant::now() + LINGER;
    while let Err(error) = fs::rename(from, to) {
        // Windows renames nothing that is open.
        if !cfg!(windows) || Instant::now() >= until {
            return Err(error);
        }
        thread::sleep(LINGER_STEP);
    }
    for end in [from, to] {
        sync_directory(parent(end))?;
    }
    Ok(())
}

/// How long a lock is waited for. The agent that is started again may meet the one before while that one ends,
/// or a handler that was being started when it was killed: such a child has all that its parent held, until
/// it becomes the program that it is to run.
const ENDING: Duration = Duration::from_secs(2);

const LINGER: Duration = Duration::from_secs(5);
const LINGER_STEP: Duration = Duration::from_millis(10);

/// Copies a directory and those in it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.metadata()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Bytes of the files in a directory and in those in it, as far as they can be seen.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let bytes_of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(bytes_of).sum()
}

fn bytes_in(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok());
    files.map(|metadata| metadata.len()).sum()
}
