//! Files and directories of a snapshot: private, copied, renamed, measured, looked after.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;

use fyrd_keys::replace::{parent, sync_directory};

/// Lets nobody but the owner into a directory and at all that is in it, as far as the system allows that: it is
/// the owner's to do.
#[cfg(unix)]
pub(super) fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    const EVERYBODY_ELSE: u32 = 0o077;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let (is_dir, mut rights) = (metadata.is_dir(), metadata.permissions());
    let mode = rights.mode();
    if mode & EVERYBODY_ELSE != 0 && (is_dir || metadata.is_file()) {
        rights.set_mode(mode & !EVERYBODY_ELSE);
        let _ = fs::set_permissions(path, rights);
    }
    if is_dir {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            make_private(&entry.path());
        }
    }
}

/// What Windows makes in a directory takes over the directory's access list.
#[cfg(not(unix))]
pub(super) fn make_private(_: &Path) {}

/// Makes a directory for the owner alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    let builder = fs::DirBuilder::new();
    #[cfg(unix)]
    let builder = {
        let mut builder = builder;
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
    };
    builder.create(path)
}

/// Makes or opens a file that only the owner may read and write.
pub(super) fn private_file() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The length of the file at a path, unless it is not this open one any more.
#[cfg(unix)]
pub(super) fn length_if_same(file: Option<&File>, path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;

    let there = fs::metadata(path).ok()?;
    let is_same = match file {
        None => true,
        Some(file) => {
            let held = file.metadata().ok()?;
            held.nlink() > 0 && (held.dev(), held.ino()) == (there.dev(), there.ino())
        }
    };
    is_same.then_some(there.len())
}

/// Windows lets nobody remove or replace a file that is open.
#[cfg(not(unix))]
pub(super) fn length_if_same(_: Option<&File>, path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|there| there.len())
}

/// A time for names of files, in UTC.
pub(super) fn stamp() -> String {
    Utc::now().format("%Y%m%dT%H%M%SZ").to_string()
}

/// A path that is not taken: this one, or this one and a number.
pub(super) fn free_name(path: PathBuf) -> PathBuf {
    let mut number = 1;
    let mut name = path.clone();
    while fs::symlink_metadata(&name).is_ok() {
        number += 1;
        let mut text = path.as_os_str().to_owned();
        text.push(format!("-{number}"));
        name = text.into();
    }
    name
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

const LINGER: Duration = Duration::from_secs(5);
const LINGER_STEP: Duration = Duration::from_millis(10);

/// Copies a directory and those in it, for the owner alone.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    make_directory(to)?;
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
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(bytes_of).sum()
}
