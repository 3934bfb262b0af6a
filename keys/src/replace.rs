//! Replacing a file so that after a crash at any time it holds either what it held or what it shall hold.
//!
//! The new file is written beside the old one, synced, closed, and renamed over it; then the directory is synced.
//! A file that is a mount point of its own, as containers are given single files, cannot be renamed over: it is
//! written in place, once what it shall hold stands beside it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempPath;
use zeroize::Zeroizing;

/// How often to try again when another program holds a file open, as virus scanners and backups do for a
/// moment, and how long to wait between tries: 2 s in all.
const HELD_TRIES: u32 = 100;
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// Letters and digits at the end of a new file's name.
const RANDOM: usize = 6;

/// Who may read and write the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone, and not even he what the file before denied him. On Windows its access list names the
    /// user of this process and the system, and takes nothing over from the directory.
    Owner,
    /// Whoever might with the file before; a file that was not there is its owner's alone.
    Kept,
    /// As with any program's file: what the umask leaves.
    Usual,
}

/// Why a file was not replaced. It is as it was, unless only the last step failed: to sync its directory.
#[derive(Debug)]
pub struct ReplaceError {
    /// What was attempted.
    pub action: &'static str,
    /// The file or directory concerned.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces a file by what `write` writes. Where `path` is a symbolic link, the file that it leads to is
/// replaced. Blocks the thread.
pub fn replace(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), ReplaceError> {
    replace_or_keep(path, access, &mut None, write)
}

/// What is attempted when no new file can be made, or when it cannot take the old one's place.
const CREATE: &str = "create a file in";
const REPLACE: &str = "replace";

/// The same; a new file that could not take the old one's place is handed out.
fn replace_or_keep(
    path: &Path,
    access: Access,
    kept: &mut Option<TempPath>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), ReplaceError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| ReplaceError { action, path, source }
    };
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let dir = parent(&target);
    let old = fs::metadata(&target).ok().map(|old| old.permissions());
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix(&target))
        .rand_bytes(RANDOM)
        .make_in(dir, |new| create(new, access, old.as_ref()))
        .map_err(failed(CREATE, dir))?;
    if access == Access::Owner {
        restrict(temporary.path()).map_err(failed("restrict access to", temporary.path()))?;
    }
    write(temporary.as_file_mut())
        .and_then(|()| temporary.as_file().sync_all())
        .and_then(|()| match old.filter(|_| access == Access::Kept) {
            Some(old) => fs::set_permissions(temporary.path(), old),
            None => Ok(()),
        })
        .map_err(failed("write", &target))?;
    *kept = Some(temporary.into_temp_path());
    until_free(|| match kept.take().map(|file| file.persist(&target)) {
        Some(Err(error)) => {
            *kept = Some(error.path);
            Err(error.error)
        }
        Some(Ok(())) | None => Ok(()),
    })
    .map_err(failed(REPLACE, &target))?;
    sync_directory(dir).map_err(failed("sync", dir))
}

/// Replaces a file by these bytes. One that cannot be renamed over is written in place, and so is one in whose
/// directory no file can be made. Blocks the thread.
///
/// A crash while it is written in place leaves it as it was, or as it shall be, or, when the power fails in that
/// moment, neither; then [`leftovers`] has the new one, unless there was no room for it.
pub fn replace_bytes(path: &Path, access: Access, bytes: &[u8]) -> Result<(), ReplaceError> {
    let mut copy = None;
    let replaced = replace_or_keep(path, access, &mut copy, |file| file.write_all(bytes));
    let Err(error) = replaced else { return Ok(()) };
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_refused = match error.action {
        REPLACE => error.source.kind() == ErrorKind::ResourceBusy,
        CREATE => matches!(
            error.source.kind(),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
        ),
        _ => false,
    };
    if !is_refused || !target.is_file() {
        return Err(error);
    }
    let written = write_in_place(&target, access, bytes);
    // The copy goes only now.
    drop(copy);
    // What cannot be opened either is refused for the first reason.
    written.map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => error,
        _ => ReplaceError {
            action: "write",
            path: target,
            source,
        },
    })
}

/// Overwrites a file in one go, and puts back what it held if that fails.
fn write_in_place(target: &Path, access: Access, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(target)?;
    let mut old = Zeroizing::new(Vec::with_capacity(file.metadata()?.len() as usize + 1));
    file.read_to_end(&mut old)?;
    if access == Access::Owner {
        let _ = close_to_others(&file);
    }
    let written = overwrite(&mut file, bytes);
    if written.is_err() {
        let _ = overwrite(&mut file, &old);
    }
    written
}

fn overwrite(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

/// Takes everybody else's rights away, which works where the file is this user's.
#[cfg(unix)]
fn close_to_others(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mut rights = file.metadata()?.permissions();
    rights.set_mode(rights.mode() & 0o7700);
    file.set_permissions(rights)
}

/// Its access list was made by whoever mounted it.
#[cfg(not(unix))]
fn close_to_others(_: &File) -> io::Result<()> {
    Ok(())
}

/// Files beside `path` that were to become it when a crash came: half of what it should hold, or all of it.
pub fn leftovers(path: &Path) -> Vec<PathBuf> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let entries = fs::read_dir(parent(&target)).into_iter().flatten().flatten();
    let files = entries.filter(|entry| {
        let name = entry.file_name();
        let is_ours = is_leftover(&name, &target) && {
            let random = &name.as_encoded_bytes()[prefix(&target).len()..];
            random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
        };
        is_ours && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    files.map(|entry| entry.path()).collect()
}

/// Removes those files, as far as that works.
pub fn sweep(path: &Path) {
    for leftover in leftovers(path) {
        let _ = fs::remove_file(leftover);
    }
}

/// Whether this is the name of a file that was to become `path` when a crash came.
pub fn is_leftover(name: &OsStr, path: &Path) -> bool {
    name.as_encoded_bytes()
        .starts_with(prefix(path).as_encoded_bytes())
}

/// The directory that a path is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Has the names in a directory on the disk. Windows cannot open a directory as a file; its journal keeps
/// renames in order.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

fn prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}

/// Does something with a file, again and again for up to 2 s while another program has it open, which on
/// Windows keeps it from being replaced.
fn until_free(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..HELD_TRIES {
        match attempt() {
            Err(error) if is_held(&error) => std::thread::sleep(HELD_PAUSE),
            result => return result,
        }
    }
    attempt()
}

/// A file that is held is refused as one in use, or as one without permission.
fn is_held(error: &io::Error) -> bool {
    /// ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
    const HELD: [i32; 3] = [5, 32, 33];
    cfg!(windows) && error.raw_os_error().is_some_and(|code| HELD.contains(&code))
}

/// Makes the new file, with its mode from the beginning.
#[cfg(unix)]
fn create(new: &Path, access: Access, old: Option<&fs::Permissions>) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    const OWNER_ONLY: u32 = 0o600;
    let old = old.map_or(OWNER_ONLY, |old| old.mode() & 0o7777);
    let mode = match access {
        Access::Owner if old & !OWNER_ONLY == 0 => old,
        Access::Owner | Access::Kept => OWNER_ONLY,
        Access::Usual => 0o666,
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(new)
}

/// Windows has no modes; see [`restrict`].
#[cfg(not(unix))]
fn create(new: &Path, _: Access, _: Option<&fs::Permissions>) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(new)
}

/// The file has been its owner's alone since its creation.
#[cfg(not(windows))]
fn restrict(_new: &Path) -> io::Result<()> {
    Ok(())
}

/// Lets only the owner at the new file, while it is still empty.
#[cfg(windows)]
fn restrict(new: &Path) -> io::Result<()> {
    crate::access::owner_only(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_held_is_tried_again_for_a_while() {
        let held = || io::Error::from_raw_os_error(32);
        let mut tries = 0;
        let freed = until_free(|| {
            tries += 1;
            if tries < 3 { Err(held()) } else { Ok(()) }
        });
        if cfg!(windows) {
            assert_eq!((freed.is_ok(), tries), (true, 3));
        } else {
            // Here the number means something else, and nothing is worth a second try.
            assert_eq!((freed.is_ok(), tries), (false, 1));
        }
        let mut tries = 0;
        let never = until_free(|| {
            tries += 1;
            Err(if cfg!(windows) {
                held()
            } else {
                ErrorKind::NotFound.into()
            })
        });
        assert!(never.is_err());
        assert_eq!(tries, if cfg!(windows) { HELD_TRIES } else { 1 });
    }

    #[test]
    #[cfg(unix)]
    fn who_may_read_a_file_is_as_asked() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mode = |access| {
            replace(&path, access, |file| file.write_all(b"new")).unwrap();
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(mode(Access::Kept), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(mode(Access::Kept), 0o640);
        assert_eq!(mode(Access::Owner), 0o600);
        let usual = dir.path().join("usual");
        fs::write(&usual, "").unwrap();
        let usual = fs::metadata(&usual).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(Access::Usual), usual);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn only_what_a_crash_leaves_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let names = [
            "keyring",
            ".keyring-old",
            ".keyring-aB3dE",
            ".keyring-a.3dEf",
            ".keyring2-aB3dEf",
        ];
        for name in names.iter().chain(&[".keyring-aB3dEf"]) {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".keyring-folder")).unwrap();
        // Windows may write the way there in another form.
        let found: Vec<_> = leftovers(&path)
            .iter()
            .filter_map(|path| path.file_name().map(OsStr::to_owned))
            .collect();
        assert_eq!(found, [".keyring-aB3dEf"]);
        sweep(&path);
        assert!(leftovers(&path).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len() + 1);
        let mut new = None;
        let failed = replace_or_keep(&path, Access::Usual, &mut new, |_| {
            assert_eq!(leftovers(&path).len(), 1);
            Err(io::Error::other("x"))
        });
        assert!(failed.is_err() && leftovers(&path).is_empty());
    }

    #[test]
    fn what_a_crash_leaves_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, Access::Usual, |_| {
            let names = fs::read_dir(dir.path()).unwrap();
            let names: Vec<OsString> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert!(
                matches!(&names[..], [name] if is_leftover(name, &path)),
                "{names:?}"
            );
            Ok(())
        })
        .unwrap();
        assert!(!is_leftover("file".as_ref(), &path));
        assert!(!is_leftover(".file2-x".as_ref(), &path));
    }
}
