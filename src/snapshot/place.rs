//! From a path to a directory that is locked for this process, or to the reason why there is none for now.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::home::Home;
use super::serf_text::Imported;
use super::trouble::Trouble;
use super::{SnapshotConfig, files, import};
use fyrd_core::time::Time;
use fyrd_keys::replace;

/// What there is at a path.
pub(super) struct Place {
    /// The directory, or why there is none for now.
    pub home: Result<Home, Trouble>,
    /// What Serf's text at this path says, whether or not it could be moved in.
    pub text: Option<Imported>,
    /// Where that text is now.
    pub kept: Option<PathBuf>,
}

/// Looks at the path, makes the directory or imports the text that is there, and locks it. A disk that is full,
/// and what may be tried again later, is no error.
pub(super) fn take(config: &SnapshotConfig, now: Time) -> Result<Place, OpenError> {
    let path = &config.path;
    let none = |trouble| Place {
        home: Err(trouble),
        text: None,
        kept: None,
    };
    if let Err(error) = import::finish(path) {
        return Ok(none(error.into()));
    }
    let (mut text, mut kept) = (None, None);
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match make_home(path) {
            Err(error) if is_full(&error) => return Ok(none(error.into())),
            result => result.map_err(OpenError::io("open", path))?,
        },
        Err(error) => return Err(OpenError::io("open", path)(error)),
        Ok(metadata) if metadata.is_file() => {
            let Some(imported) = import::read(config, now)? else {
                return Ok(none(Trouble::Damaged(NO_SNAPSHOT.to_owned())));
            };
            match import::swap(config, &imported, now) {
                Ok(to) => kept = Some(to),
                Err(trouble) => {
                    return Ok(Place {
                        text: Some(imported),
                        ..none(trouble)
                    });
                }
            }
            text = Some(imported);
        }
        Ok(_) => {}
    }
    let home = Ok(Home::lock(path, &config.node)?);
    Ok(Place { home, text, kept })
}

const NO_SNAPSHOT: &str = "it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf; \
                           name another path, or move it away";

/// Makes the directory.
fn make_home(path: &Path) -> io::Result<()> {
    files::make_directory(path)?;
    replace::sync_directory(replace::parent(path))
}

/// Whether the disk has no room, which may change.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What a warning says of a home that could not be locked.
pub(super) fn unlocked_warning(home: &Home) -> Option<String> {
    home.unlocked().map(|reason| {
        format!(
            "the snapshot {} could not be locked ({reason}), so nothing keeps another agent from using it as well",
            home.path().display()
        )
    })
}
