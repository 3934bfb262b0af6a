//! What a snapshot says: its stores are read in every way there is, and held against the essence.
//!
//! The essence is written after each flush of the store. So a store that is behind it has lost something, whatever
//! sled says of it, and the essence counts; one that is ahead was interrupted between the two, and counts. Where
//! both have lost something, what can be saved of both is, with the higher clocks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use super::SCHEMA;
use super::error::OpenError;
use super::essence::{self, Recall};
use super::files;
use super::found::{Found, highest};
use super::home;
use super::store::{self, Store};
use super::trouble::{Trouble, guarded};
use fyrd_core::bounds::SNAPSHOT_READ;
use fyrd_core::node::memory::Marks;
use fyrd_core::time::Time;

/// All that could be read, and what did not work.
#[derive(Default)]
pub(super) struct Gathered {
    /// The first store that reads as it was written, and its number.
    pub store: Option<(u32, Store)>,
    /// What it says, or what could be saved of one that does not.
    trees: Option<Found>,
    /// Stores that cannot be read as they were written, and why.
    pub bad: Vec<(u32, String)>,
    /// Why a store could not be opened, although nothing is known to be wrong with it.
    pub refused: Option<io::Error>,
    /// Whether that one may hold something: a disk that was full when it began has left it empty.
    pub may_hold: bool,
    /// The essence.
    pub recall: Recall,
}

/// What a node goes on from.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub found: Found,
    /// Whether the store is to be written anew, and why.
    pub rebuild: Option<Reason>,
}

/// Why a store is written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no store that could be gone on with.
    NoStore,
    /// It lacks the last so many batches.
    Older(u64),
}

/// Reads all there is of a snapshot, and names it as `shown` in errors. Whatever sled leaves behind is tidied up
/// on the way.
pub(super) fn gather(path: &Path, shown: &Path, now: Time) -> Result<Gathered, OpenError> {
    let generations = home::generations(path).map_err(OpenError::io("read", shown))?;
    let current = home::current(path);
    let mut gathered = gather_essence(path, now).map_err(|error| match error {
        OpenError::Newer { found, .. } => newer(shown, found),
        other => other,
    })?;
    for generation in generations {
        let directory = home::directory(path, generation);
        match read_every_way(&directory, now) {
            Ok((store, found)) if found.intact => {
                gathered.store = Some((generation, store));
                gathered.trees = Some(found);
                break;
            }
            Ok((store, found)) => {
                store.close();
                gathered.bad.push((generation, "it is damaged".to_owned()));
                gathered.trees.get_or_insert(found);
            }
            Err(Trouble::Newer(schema)) => return Err(newer(shown, schema)),
            // Nothing was ever written into it: its beginning was interrupted.
            Err(Trouble::Empty) if Some(generation) != current => drop(fs::remove_dir_all(directory)),
            Err(Trouble::Io(error)) if is_refusal(&error) => {
                // The disk cannot be written, but perhaps read: then the node starts with what it says.
                gathered.trees = read_copy(&directory, now);
                gathered.may_hold = Some(generation) == current || !is_full(&error);
                gathered.refused = Some(error);
                break;
            }
            Err(trouble) => gathered.bad.push((generation, trouble.to_string())),
        }
    }
    Ok(gathered)
}

/// Reads the essence alone, and changes nothing.
pub(super) fn gather_essence(path: &Path, now: Time) -> Result<Gathered, OpenError> {
    let recall = essence::read(path, now).map_err(|trouble| match trouble {
        Trouble::Newer(schema) => newer(path, schema),
        Trouble::Io(error) => OpenError::io("read", path)(error),
        other => OpenError::Damaged {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    })?;
    Ok(Gathered {
        recall,
        ..Gathered::default()
    })
}

impl Gathered {
    /// Whether anything can be gone on from.
    pub fn is_readable(&self) -> bool {
        self.trees.is_some() || self.recall.found.is_some()
    }

    /// Decides what counts.
    pub fn judge(&mut self) -> Verdict {
        let trees = self.trees.take();
        let essence = self.recall.found.as_ref();
        let essence = essence.filter(|essence| belongs(essence, trees.as_ref()));
        let verdict = |found, rebuild| Verdict { found, rebuild };
        match (trees, essence.cloned()) {
            (None, None) => {
                let was_any = !self.bad.is_empty() || self.recall.existed;
                verdict(Found::default(), was_any.then_some(Reason::NoStore))
            }
            (None, Some(essence)) => verdict(essence, Some(Reason::NoStore)),
            (Some(trees), None) => {
                let rebuild = (!trees.intact).then_some(Reason::NoStore);
                verdict(trees, rebuild)
            }
            (Some(trees), Some(essence)) => {
                let behind = essence.serial.saturating_sub(trees.serial);
                let reason = match trees.intact {
                    true => Reason::Older(behind),
                    false => Reason::NoStore,
                };
                match (trees.intact, essence.intact) {
                    (true, _) if behind == 0 => verdict(trees, None),
                    (_, true) => verdict(raised(essence, &trees), Some(reason)),
                    _ => verdict(merged(trees, essence), Some(reason)),
                }
            }
        }
    }
}

/// Whether an essence is one of these trees.
fn belongs(essence: &Found, trees: Option<&Found>) -> bool {
    let (essence, trees) = (&essence.owner, trees.map(|trees| &trees.owner));
    trees.is_none_or(|trees| trees.identity == 0 || trees.identity == essence.identity)
}

/// With clocks above those of the other. What is of no interest stands where it stood, for nothing is lost.
fn raised(mut found: Found, other: &Found) -> Found {
    let held = found.memory.marks;
    found.take_marks(Marks {
        event_floor: held.event_floor,
        query_floor: held.query_floor,
        ..highest(held, other.memory.marks)
    });
    found.serial = found.serial.max(other.serial);
    found
}

/// What can be saved of two that are damaged, or of a damaged one and an older one.
fn merged(trees: Found, essence: Found) -> Found {
    let (mut newer, older) = match trees.serial > essence.serial {
        true => (trees, essence),
        false => (essence, trees),
    };
    let (memory, rest) = (&mut newer.memory, older.memory);
    let mut members: BTreeMap<_, _> = BTreeMap::new();
    for member in rest.members.into_iter().chain(memory.members.drain(..)) {
        members.insert(member.facts.name.clone(), member);
    }
    memory.members = members.into_values().collect();
    let mut events: BTreeMap<_, _> = BTreeMap::new();
    for event in rest.events.into_iter().chain(memory.events.drain(..)) {
        events.insert((event.ltime, event.place), event);
    }
    memory.events = events.into_values().collect();
    memory.queries.extend(rest.queries);
    memory.queries.sort_unstable();
    memory.queries.dedup();
    newer.take_marks(highest(newer.memory.marks, rest.marks));
    newer.raise_floors();
    newer.intact = false;
    newer.unreadable += older.unreadable;
    if newer.owner.identity == 0 {
        newer.owner = older.owner;
    }
    newer
}

/// Reads a store, and where it does not read as it was written, once more without each of the things that sled can
/// do without.
fn read_every_way(directory: &Path, now: Time) -> Result<(Store, Found), Trouble> {
    store::sweep(directory);
    let mut best = read_store(directory, now);
    for turn in 0..store::TURNS {
        match &best {
            Ok((_, found)) if found.intact => break,
            Err(Trouble::Io(error)) if is_refusal(error) => break,
            Err(Trouble::Newer(_) | Trouble::Empty) => break,
            // sled's threads may still be at it.
            Err(Trouble::Damaged(reason)) if reason == TOO_LONG => break,
            _ => {}
        }
        let saved = match best {
            Ok((store, found)) => {
                store.close();
                Ok(found)
            }
            Err(trouble) => Err(trouble),
        };
        if !store::do_without(directory, turn) {
            best = match saved {
                // It was closed for nothing.
                Ok(_) => read_store(directory, now),
                Err(trouble) => Err(trouble),
            };
            continue;
        }
        best = match (read_store(directory, now), saved) {
            (Err(_), Err(trouble)) => Err(trouble),
            (again, _) => again,
        };
    }
    best
}

const TOO_LONG: &str = "it cannot be read to its end";

/// Opens and reads a store. sled may wait for ever for one of its threads that met a damage, so it is given
/// a time.
fn read_store(directory: &Path, now: Time) -> Result<(Store, Found), Trouble> {
    let (tell, hear) = mpsc::channel();
    let directory = directory.to_owned();
    thread::Builder::new()
        .name("snapshot-read".to_owned())
        .spawn(move || {
            let read = guarded(|| {
                let mut store = Store::open(&directory)?;
                match store.read(now) {
                    Ok(found) => Ok((store, found)),
                    Err(trouble) => {
                        store.close();
                        Err(trouble)
                    }
                }
            });
            // Nobody may be there any more.
            let _ = tell.send(read);
        })?;
    hear.recv_timeout(SNAPSHOT_READ)
        .unwrap_or_else(|_| Err(Trouble::Damaged(TOO_LONG.to_owned())))
}

/// Whether the system refuses to open the store, rather than that the store is bad.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::*;
    let kinds = [
        PermissionDenied,
        StorageFull,
        QuotaExceeded,
        ReadOnlyFilesystem,
        OutOfMemory,
        TimedOut,
    ];
    kinds.contains(&error.kind()) || error.to_string().contains("could not acquire lock")
}

/// Whether there is no room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Reads a copy of a store in some other place, for sled opens none that it cannot write.
fn read_copy(directory: &Path, now: Time) -> Option<Found> {
    let (_scratch, copy) = copy_elsewhere(directory).ok()?;
    let (store, found) = read_every_way(&copy, now).ok()?;
    store.close();
    Some(found)
}

/// Copies a directory to where there is room, for as long as the first of these is held.
pub(super) fn copy_elsewhere(directory: &Path) -> io::Result<(tempfile::TempDir, PathBuf)> {
    let in_place = |place: &Path| {
        let scratch = tempfile::tempdir_in(place)?;
        let copy = scratch.path().join("copy");
        files::copy(directory, &copy)?;
        Ok((scratch, copy))
    };
    in_place(Path::new("/dev/shm")).or_else(|_: io::Error| in_place(&std::env::temp_dir()))
}

/// A later version wrote it.
fn newer(path: &Path, found: u32) -> OpenError {
    OpenError::Newer {
        path: path.to_owned(),
        found,
        known: SCHEMA,
    }
}
