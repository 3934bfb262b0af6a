//! The file that is kept: the new one is written beside it, and takes its place in one step.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::go;

/// A file that waits to take the place of another.
#[derive(Debug)]
pub(super) struct Staged {
    path: TempPath,
    target: PathBuf,
}

/// Writes `text` beside `path`, unless that holds it already. The error is for the user.
pub(super) fn stage(path: &Path, text: &str, mode: Option<u32>) -> Result<Option<Staged>, String> {
    // Where it is a symbolic link, the file that it leads to is replaced.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed("open", path, &error)),
    };
    match fs::read(&target) {
        Ok(old) if old == text.as_bytes() => return Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("read", &target, &error)),
        _ => {}
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!(".{name}.fyrd-"))
        .tempfile_in(folder)
        .map_err(|error| failed("create a file in", folder, &error))?;
    file.write_all(text.as_bytes())
        .and_then(|()| permit(&file, &target, mode))
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| failed("write", file.path(), &error))?;
    Ok(Some(Staged {
        path: file.into_temp_path(),
        target,
    }))
}

impl Staged {
    /// Where it waits.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place.
    pub(super) fn commit(self) -> Result<(), String> {
        let Staged { path, target } = self;
        path.persist(&target)
            .map_err(|error| failed("replace", &target, &error.error))
    }
}

/// Gives the new file these permissions, or those of the old one, or those of a file that all may read.
#[cfg(unix)]
fn permit(file: &tempfile::NamedTempFile, target: &Path, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let old = fs::metadata(target).ok().map(|old| old.permissions());
    let permissions = match (mode, old) {
        (Some(mode), _) => fs::Permissions::from_mode(mode),
        (None, Some(old)) => old,
        (None, None) => fs::Permissions::from_mode(0o644),
    };
    file.as_file().set_permissions(permissions)
}

#[cfg(not(unix))]
fn permit(_: &tempfile::NamedTempFile, _: &Path, _: Option<u32>) -> io::Result<()> {
    Ok(())
}

fn failed(action: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {action} {}: {}", path.display(), go::os_error(error))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(path: &Path, text: &str, mode: Option<u32>) -> Result<bool, String> {
        let staged = stage(path, text, mode)?;
        staged.map(Staged::commit).transpose().map(|done| done.is_some())
    }

    #[test]
    fn what_is_the_same_is_left_and_what_is_not_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.conf");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(put(&path, "one", None), Ok(true));
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode()),
            ("one", 0o644)
        );
        assert_eq!(put(&path, "one", None), Ok(false));
        assert_eq!(put(&path, "two", Some(0o600)), Ok(true));
        assert_eq!(put(&path, "three", None), Ok(true));
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode()),
            ("three", 0o600)
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(put(&link, "four", None), Ok(true));
        assert_eq!(fs::read_to_string(&path).unwrap(), "four");
        // One that is not wanted after all leaves nothing behind.
        drop(stage(&path, "five", None).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = put(&folder.path().join("none/a.conf"), "x", None).unwrap_err();
        assert!(
            error.contains("cannot create a file in") && error.contains("none"),
            "{error}"
        );
        let error = put(folder.path(), "x", None).unwrap_err();
        assert!(
            error.contains("cannot read") && error.contains("is a directory"),
            "{error}"
        );
    }
}
