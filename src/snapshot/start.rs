//! From a path to a memory: what a start finds, mends and begins.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, sync_channel};
use std::thread;

use tokio::sync::watch;

use super::error::OpenError;
use super::home::{self, Home};
use super::pending::Batch;
use super::recorder::Recorder;
use super::store::{Found, Store, Trouble, guarded};
use super::worker::{self, Progress, Start, Worker};
use super::{Contents, Loaded, SCHEMA, SnapshotConfig, import};
use fyrd_core::bounds::SNAPSHOT_READ;
use fyrd_core::node::memory::{Marks, Record};
use fyrd_core::time::Time;
use fyrd_keys::replace;

/// Messages to the thread that may wait: one parcel, two that wake it, and the end.
const CHANNEL: usize = 4;

/// See [`super::open`].
pub(super) fn open(config: SnapshotConfig, now: Time) -> Result<(Loaded, Recorder), OpenError> {
    let mut loaded = Loaded::default();
    let path = &config.path;
    import::finish(path)?;
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => make_home(path)?,
        Err(error) => return Err(OpenError::io("open", path)(error)),
        Ok(metadata) if metadata.is_file() => import::import(&config, now, &mut loaded)?,
        Ok(_) => {}
    }
    let home = Home::lock(path, &config.node)?;
    let mut pick = pick(&home, now, &mut loaded)?;
    let store = pick.store.take();
    let found = pick.found;
    if !found.node.is_empty() && found.node != config.node {
        loaded.warnings.push(format!(
            "the snapshot {} was written by node '{}'; its members and clocks are taken over",
            path.display(),
            found.node
        ));
    }
    if found.intact && found.unreadable > 0 {
        loaded.warnings.push(format!(
            "{} entries of the snapshot {} hold what no node accepts, and were left out",
            found.unreadable,
            path.display()
        ));
    }
    loaded.left = found.left;
    loaded.memory = found.memory;
    let mut first = match &store {
        Some(_) => Batch::default(),
        None => Batch::of(&loaded.memory),
    };
    first.marks = loaded.memory.marks;
    if loaded.left && config.forget_left_members {
        let forgotten = loaded.memory.members.drain(..);
        let names = forgotten.map(|member| Arc::clone(&member.facts.name));
        names.for_each(|name| first.note(Record::ForgetMember(name)));
    }
    let store = begin_life(&home, &config, store, &first);
    if let (Err(trouble), false) = (&store, pick.was_there) {
        return Err(cannot_begin(trouble, home.path()));
    }
    Ok((loaded, spawn(config, home, store, first.marks)?))
}

/// Makes the directory.
fn make_home(path: &Path) -> Result<(), OpenError> {
    fs::create_dir(path).map_err(OpenError::io("open", path))?;
    let parent = replace::parent(path);
    replace::sync_directory(parent).map_err(OpenError::io("sync", parent))
}

/// Records that this node runs again, so has not left, and forgets the members that a leave made it forget.
fn begin_life(
    home: &Home,
    config: &SnapshotConfig,
    store: Option<(u32, Store)>,
    first: &Batch,
) -> Result<(u32, Store), Trouble> {
    let Some((generation, mut store)) = store else {
        let (generation, store) =
            worker::build(home, &config.node, |store| store.apply(first, worker::now()))?;
        home.clear_except(Some(generation));
        return Ok((generation, store));
    };
    let begun = store
        .begin(&config.node)
        .and_then(|()| store.apply(first, worker::now()))
        .and_then(|()| store.flush());
    match begun {
        Ok(()) => Ok((generation, store)),
        Err(trouble) => {
            store.close();
            Err(trouble)
        }
    }
}

fn cannot_begin(trouble: &Trouble, path: &Path) -> OpenError {
    match trouble {
        Trouble::Io(error) => OpenError::io("open", path)(copy_of(error)),
        other => OpenError::Damaged {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    }
}

fn copy_of(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}

fn spawn(
    config: SnapshotConfig,
    home: Home,
    store: Result<(u32, Store), Trouble>,
    marks: Marks,
) -> Result<Recorder, OpenError> {
    let (outbox, inbox) = sync_channel(CHANNEL);
    let mut begun = Progress::new(marks);
    if let Err(trouble) = &store {
        begun.fail(trouble.to_string());
    }
    let (progress, view) = watch::channel(begun);
    let hurry = Arc::new(AtomicBool::new(false));
    let path = config.path;
    let start = Start {
        home,
        node: config.node,
        store,
        inbox,
        hurry: Arc::clone(&hurry),
        progress,
    };
    thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || Worker::new(start).run())
        .map_err(OpenError::io("start a thread for", &path))?;
    Ok(Recorder::new(path, outbox, view, hurry))
}

/// What is there to go on from.
#[derive(Default)]
struct Pick {
    /// The store, unless a new one must be written.
    store: Option<(u32, Store)>,
    found: Found,
    /// Whether there was any store.
    was_there: bool,
}

/// Picks the current store, or else the newest intact one, or else what can be read of a damaged one. Damaged
/// stores are set aside, unfinished ones are removed.
fn pick(home: &Home, now: Time, loaded: &mut Loaded) -> Result<Pick, OpenError> {
    let generations = home.generations().map_err(OpenError::io("read", home.path()))?;
    let current = home.current();
    let mut pick = Pick::default();
    let mut saved: Option<Found> = None;
    for generation in generations {
        pick.was_there = true;
        let directory = home.directory(generation);
        match read_store(&directory, now) {
            Ok((store, found)) if found.intact => {
                pick.store = Some((generation, store));
                pick.found = found;
                break;
            }
            Ok((store, found)) => {
                store.close();
                set_aside(home, generation, "it is damaged", Some(&found), loaded)?;
                saved.get_or_insert(found);
            }
            Err(Trouble::Newer(schema)) => return Err(newer(home.path(), schema)),
            // Nothing was ever written into it: its beginning was interrupted.
            Err(Trouble::Empty) if Some(generation) != current => home.remove(generation),
            Err(Trouble::Io(error)) if is_refusal(&error) => {
                // The disk cannot be written, but perhaps read: then the node starts with what it says.
                let copied = read_copy(&directory, now).filter(|_| takes_nothing(&error));
                pick.found = copied.ok_or_else(|| OpenError::io("open", directory)(error))?;
                return Ok(pick);
            }
            Err(trouble) => set_aside(home, generation, &trouble.to_string(), None, loaded)?,
        }
    }
    if let (None, Some(saved)) = (&pick.store, saved) {
        pick.found = saved;
    }
    let keep = pick.store.as_ref().map(|(generation, _)| *generation);
    if let Some(generation) = keep {
        if Some(generation) != current {
            home.switch_to(generation)
                .map_err(OpenError::io("write", home.path()))?;
        }
        home.clear_except(keep);
    }
    Ok(pick)
}

/// Whether the system refuses to open the store, rather than that the store is bad.
fn is_refusal(error: &std::io::Error) -> bool {
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

/// Whether the disk can be read, and only not be written.
fn takes_nothing(error: &std::io::Error) -> bool {
    use ErrorKind::*;
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Reads a copy of a store in some other place, for sled opens none that it cannot write.
fn read_copy(directory: &Path, now: Time) -> Option<Found> {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    places.iter().find_map(|place| {
        let scratch = tempfile::tempdir_in(place).ok()?;
        let copy = scratch.path().join("store");
        home::copy(directory, &copy).ok()?;
        let (store, found) = read_store(&copy, now).ok()?;
        store.close();
        found.intact.then_some(found)
    })
}

fn newer(path: &Path, found: u32) -> OpenError {
    OpenError::Newer {
        path: path.to_owned(),
        found,
        known: SCHEMA,
    }
}

/// Puts a store away, and says what has been lost.
fn set_aside(
    home: &Home,
    generation: u32,
    reason: &str,
    saved: Option<&Found>,
    loaded: &mut Loaded,
) -> Result<(), OpenError> {
    let to = home.set_aside(generation)?;
    let rest = match saved {
        None => "nothing of it could be saved".to_owned(),
        Some(found) => format!(
            "{} members, {} events and {} queries could be saved",
            found.memory.members.len(),
            found.memory.events.len(),
            found.memory.queries.len()
        ),
    };
    loaded.warnings.push(format!(
        "the snapshot {} cannot be read as it was written ({reason}); it has been set aside as {}, a new one is begun, and {rest}",
        home.path().display(),
        to.display(),
    ));
    loaded.set_aside = Some(to);
    Ok(())
}

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
        .unwrap_or_else(|_| Err(Trouble::Damaged("it cannot be read to its end".into())))
}

/// See [`super::read`].
pub(super) fn read(path: &Path, now: Time) -> Result<Contents, OpenError> {
    let no_snapshot = |reason: &str| OpenError::NoSnapshot {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let metadata = fs::metadata(path).map_err(OpenError::io("open", path))?;
    if !metadata.is_dir() {
        return Err(no_snapshot(
            "this file is no snapshot of Fyrd, but may be one of Serf",
        ));
    }
    let generations = |home: &Home| home.generations().map_err(OpenError::io("read", path));
    if fs::read_dir(path)
        .map_err(OpenError::io("open", path))?
        .next()
        .is_none()
    {
        return Err(no_snapshot("this directory is empty"));
    }
    let home = Home::lock_to_look(path)?;
    let bytes = home::bytes_below(&path_of_first(&home, &generations(&home)?));
    let mut last = None;
    for generation in generations(&home)? {
        match read_store(&home.directory(generation), now) {
            Ok((store, found)) => {
                store.close();
                return Ok(contents(found, bytes));
            }
            Err(Trouble::Newer(schema)) => return Err(newer(path, schema)),
            Err(Trouble::Io(error)) if is_refusal(&error) => return Err(OpenError::io("open", path)(error)),
            Err(trouble) => last = Some(trouble),
        }
    }
    Err(match last {
        Some(trouble) => OpenError::Damaged {
            path: path.to_owned(),
            reason: trouble.to_string(),
        },
        None => no_snapshot("this directory holds no snapshot yet"),
    })
}

fn path_of_first(home: &Home, generations: &[u32]) -> PathBuf {
    let first = generations.first();
    first.map_or_else(PathBuf::new, |generation| home.directory(*generation))
}

fn contents(found: Found, bytes: u64) -> Contents {
    let written = std::time::Duration::from_nanos(found.written);
    Contents {
        memory: found.memory,
        left: found.left,
        node: found.node,
        schema: SCHEMA,
        written: std::time::SystemTime::UNIX_EPOCH.checked_add(written),
        bytes,
        unreadable: found.unreadable,
        intact: found.intact,
    }
}
