//! From a path to a memory: what a start finds, mends and begins.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::watch;

use super::disk::Disk;
use super::error::OpenError;
use super::found::{Found, Owner};
use super::home::{self, Home};
use super::pending::Batch;
use super::place::{self, Place};
use super::recorder::Recorder;
use super::recover::{self, Gathered, Reason, Verdict};
use super::trouble::Trouble;
use super::worker::{self, Progress, Start, Worker};
use super::{Contents, Loaded, SCHEMA, SnapshotConfig, essence};
use fyrd_core::node::memory::Record;
use fyrd_core::time::Time;

/// Messages to the thread that may wait: one parcel, two that wake it, and the end.
const CHANNEL: usize = 4;

/// See [`super::open`].
pub(super) fn open(config: SnapshotConfig, now: Time) -> Result<(Loaded, Recorder), OpenError> {
    let Place { home, text, kept } = place::take(&config, now)?;
    let mut loaded = Loaded {
        imported: kept,
        ..Loaded::default()
    };
    if let Some(text) = &text {
        loaded.warnings.extend(text.warnings.texts.iter().cloned());
        if text.warnings.more > 0 {
            loaded.warnings.push(format!(
                "{} more lines of the snapshot were left out",
                text.warnings.more
            ));
        }
    }
    let home = match home {
        Ok(home) => home,
        Err(trouble) => {
            // What the text says counts, although it could not be moved in.
            let text = text.unwrap_or_default();
            (loaded.memory, loaded.left) = (text.memory, text.left);
            let owner = Owner {
                node: config.node.clone(),
                identity: new_identity()?,
            };
            return finish(config, loaded, None, owner, 0, Err(trouble));
        }
    };
    loaded.warnings.extend(place::unlocked_warning(&home));
    with_home(config, loaded, home, now)
}

fn with_home(
    config: SnapshotConfig,
    mut loaded: Loaded,
    home: Home,
    now: Time,
) -> Result<(Loaded, Recorder), OpenError> {
    let mut gathered = recover::gather(home.path(), home.path(), now)?;
    if !gathered.is_readable()
        && gathered.may_hold
        && let Some(error) = gathered.refused.take()
    {
        let first = home.generations().ok().and_then(|all| all.first().copied());
        let directory = home.directory(first.unwrap_or_default());
        return Err(OpenError::io("open", directory)(error));
    }
    let Verdict { found, rebuild } = gathered.judge();
    let mut store = gathered.store.take();
    if rebuild.is_some() {
        if let Some((generation, store)) = store.take() {
            store.close();
            gathered.bad.push((generation, older(&rebuild)));
        }
        loaded.warnings.extend(lost(&home, &gathered, &found));
    }
    for (generation, reason) in gathered.bad.drain(..) {
        set_aside(&home, generation, &reason, &mut loaded);
    }
    if rebuild.is_none() && gathered.recall.existed && gathered.recall.found.is_none() {
        let path = home.path().display();
        loaded.warnings.push(format!(
            "the essence of the snapshot {path} could not be read and is written anew; nothing is lost, for the store is whole"
        ));
    }
    if found.intact && found.unreadable > 0 {
        loaded.warnings.push(format!(
            "{} entries of the snapshot {} hold what no node accepts, and were left out",
            found.unreadable,
            home.path().display()
        ));
    }
    let serial = found.serial;
    let mut owner = found.owner.clone();
    (loaded.left, loaded.memory) = (found.left, found.memory);
    // An import says nothing of the members: they are all in the store, if there is one.
    let mut first = match &store {
        Some(_) => Batch::default(),
        None => Batch::of(&loaded.memory),
    };
    first.marks = loaded.memory.marks;
    let is_foreign = !owner.node.is_empty() && owner.node != config.node;
    if is_foreign {
        loaded.warnings.push(format!(
            "the snapshot {} was written by node '{}', and this node is '{}': its clocks are taken over, but the {} \
             members that it knew are forgotten, for it may have come with a copied disk; use -join to join a cluster",
            home.path().display(),
            owner.node,
            config.node,
            loaded.memory.members.len()
        ));
    }
    if is_foreign || (loaded.left && config.forget_left_members) {
        for name in loaded.memory.forget_members() {
            first.note(Record::ForgetMember(name));
        }
    }
    if is_foreign || owner.identity == 0 {
        owner.identity = new_identity()?;
    }
    owner.node.clone_from(&config.node);
    let disk = match gathered.refused.take() {
        Some(error) => Err(Trouble::Io(error)),
        None => begin_life(&home, &owner, store, &gathered, &first, serial),
    };
    finish(config, loaded, Some(home), owner, serial, disk)
}

fn finish(
    config: SnapshotConfig,
    loaded: Loaded,
    home: Option<Home>,
    owner: Owner,
    serial: u64,
    disk: Result<Disk, Trouble>,
) -> Result<(Loaded, Recorder), OpenError> {
    let (outbox, inbox) = sync_channel(CHANNEL);
    let marks = loaded.memory.marks;
    let mut begun = Progress::new(marks);
    if let Err(trouble) = &disk {
        begun.fail(trouble.to_string());
    }
    let (progress, view) = watch::channel(begun);
    let hurry = Arc::new(AtomicBool::new(false));
    let path = config.path.clone();
    let start = Start {
        home,
        config,
        owner,
        serial,
        disk,
        inbox,
        hurry: Arc::clone(&hurry),
        progress,
    };
    thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || Worker::new(start).run())
        .map_err(OpenError::io("start a thread for", &path))?;
    Ok((loaded, Recorder::new(path, outbox, view, hurry)))
}

fn new_identity() -> Result<u128, OpenError> {
    let mut bytes = [0; 16];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))
        .map_err(OpenError::io("open", "the system's random numbers"))?;
    // 0 says that there is none.
    Ok(u128::from_be_bytes(bytes).max(1))
}

/// Records that this node runs again, so has not left, and forgets the members that are to be forgotten.
fn begin_life(
    home: &Home,
    owner: &Owner,
    store: Option<(u32, super::store::Store)>,
    gathered: &Gathered,
    first: &Batch,
    serial: u64,
) -> Result<Disk, Trouble> {
    let Some(store) = store else {
        let disk = Disk::begin(home, owner, first, serial + 1, worker::now())?;
        home.clear_except(Some(disk.generation()));
        return Ok(disk);
    };
    if home.current() != Some(store.0) {
        home.switch_to(store.0)?;
    }
    home.clear_except(Some(store.0));
    let mut disk = Disk::resume(home, owner, store, &gathered.recall)?;
    match disk
        .apply(home, first, worker::now())
        .and_then(|()| disk.flush(home))
    {
        Ok(()) => Ok(disk),
        Err(trouble) => {
            disk.close();
            Err(trouble)
        }
    }
}

fn older(rebuild: &Option<Reason>) -> String {
    match rebuild {
        Some(Reason::Older(batches)) => {
            format!("it is whole and yet older than what was flushed last, by {batches} batches")
        }
        _ => "it does not belong here".to_owned(),
    }
}

/// What a user should know of a memory that no store holds as it was written.
fn lost(home: &Home, gathered: &Gathered, found: &Found) -> Option<String> {
    let path = home.path().display();
    let memory = &found.memory;
    let saved = format!(
        "{} members, {} events and {} queries",
        memory.members.len(),
        memory.events.len(),
        memory.queries.len()
    );
    let reasons: Vec<&str> = gathered.bad.iter().map(|(_, reason)| reason.as_str()).collect();
    let reason = match reasons.is_empty() {
        true => "there is no store".to_owned(),
        false => reasons.join(", "),
    };
    Some(match (gathered.is_readable() || found.intact, found.intact) {
        (_, true) => format!(
            "the snapshot {path} cannot be read as it was written ({reason}); nothing is lost, for all of it stands \
             in the essence beside it: {saved}"
        ),
        _ => format!(
            "the snapshot {path} cannot be read as it was written ({reason}), nor can the essence beside it; a new one \
             is begun, and {saved} could be saved"
        ),
    })
}

/// Puts a store away, and says where.
fn set_aside(home: &Home, generation: u32, reason: &str, loaded: &mut Loaded) {
    let path = home.directory(generation);
    match home.set_aside(generation) {
        Ok(to) => {
            loaded.warnings.push(format!(
                "the store {} has been set aside as {}: {reason}",
                path.display(),
                to.display()
            ));
            loaded.set_aside = Some(to);
        }
        Err(error) => loaded.warnings.push(format!(
            "the store {} is given up ({reason}) and could not be set aside: {}",
            path.display(),
            Trouble::Io(error)
        )),
    }
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
    if fs::read_dir(path)
        .map_err(OpenError::io("open", path))?
        .next()
        .is_none()
    {
        return Err(no_snapshot("this directory is empty"));
    }
    let lock = home::lock_to_look(path)?;
    let generations = home::generations(path).map_err(OpenError::io("read", path))?;
    let first = generations.first().map(|first| home::directory(path, *first));
    let bytes = first.map_or(0, |first| super::files::bytes_below(&first)) + essence::bytes(path);
    let mut warnings = Vec::new();
    // sled opens nothing that it does not change.
    let (mut gathered, uncopied) = match recover::copy_elsewhere(path) {
        Ok((_scratch, copy)) => {
            drop(lock);
            let mut gathered = recover::gather(&copy, path, now)?;
            if let Some((_, store)) = gathered.store.take() {
                store.close();
            }
            (gathered, None)
        }
        Err(error) => (recover::gather_essence(path, now)?, Some(error)),
    };
    if !gathered.is_readable() {
        return Err(match (uncopied, gathered.bad.pop()) {
            (Some(error), _) => OpenError::io("copy", path)(error),
            (None, Some((_, reason))) => OpenError::Damaged {
                path: path.to_owned(),
                reason,
            },
            (None, None) => no_snapshot("this directory holds no snapshot yet"),
        });
    }
    if let Some(error) = uncopied {
        warnings.push(format!(
            "the store could not be copied to be read ({}), so this is what the essence beside it says",
            Trouble::Io(error)
        ));
    }
    let Verdict { found, rebuild } = gathered.judge();
    if let Some(Reason::Older(batches)) = rebuild {
        warnings.push(format!(
            "the store lacks the last {batches} batches, which stand in the essence beside it"
        ));
    }
    Ok(contents(found, bytes, warnings))
}

pub(super) fn contents(found: Found, bytes: u64, warnings: Vec<String>) -> Contents {
    let written = std::time::Duration::from_nanos(found.written);
    Contents {
        memory: found.memory,
        left: found.left,
        node: found.owner.node,
        identity: found.owner.identity,
        schema: SCHEMA,
        written: std::time::SystemTime::UNIX_EPOCH.checked_add(written),
        bytes,
        unreadable: found.unreadable,
        intact: found.intact,
        warnings,
    }
}
