//! One generation of the store: four sled trees in a directory.
//!
//! A batch is one transaction over all trees, so a crash leaves the state after some batch, never a mixture.
//! The checkpoint in `clocks` is part of it, and reading checks the trees against it.
//!
//! On Linux, sled's own flush syncs neither the size of the file nor the disk's cache, so the file is synced
//! here as well. sled panics at some kinds of damage, so all calls run behind [`guarded`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use sled::{IVec, Transactional, Tree};

use super::codec::{self, Checkpoint, Sum};
use super::error::os_text;
use super::pending::Batch;
use super::{SCHEMA, home};
use fyrd_core::bounds::{MAX_LTIME, MAX_MEMBERS, PEER_NAME_MAX, SNAPSHOT_CACHE, SNAPSHOT_ENTRIES_MAX};
use fyrd_core::node::memory::Memory;
use fyrd_core::time::Time;
use fyrd_keys::replace::sync_directory;

/// Why a store does not work.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The operating system refuses.
    Io(io::Error),
    /// It does not hold what was written.
    Damaged(String),
    /// Nothing has been written into it yet.
    Empty,
    /// A later version wrote it, of this schema.
    Newer(u32),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Io(error) => f.write_str(&os_text(error)),
            Trouble::Damaged(what) => f.write_str(what),
            Trouble::Empty => f.write_str("it is empty"),
            Trouble::Newer(schema) => write!(f, "schema {schema} of a later version"),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Trouble::Io(error),
            sled::Error::Corruption { .. } => Trouble::Damaged("a checksum does not match".into()),
            other => Trouble::Damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

/// Runs what uses sled, and turns a panic in it into a trouble.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let line = text
            .and_then(|text| text.lines().next())
            .unwrap_or("sled gave up");
        Err(Trouble::Damaged(line.to_owned()))
    })
}

/// What reading found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub memory: Memory,
    pub left: bool,
    pub node: String,
    /// When it was written last, in nanoseconds from the Unix epoch.
    pub written: u64,
    /// Entries that could not be read.
    pub unreadable: usize,
    /// Whether this is what the last batch left. Otherwise the memory holds what could be saved, with clocks
    /// above all of it.
    pub intact: bool,
}

/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    // Dropped first, for its drop writes.
    trees: Trees,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    file: Option<File>,
    dir: PathBuf,
    checkpoint: Checkpoint,
}

#[derive(Debug)]
struct Trees {
    members: Tree,
    clocks: Tree,
    seen: Tree,
    meta: Tree,
    db: sled::Db,
}

/// A change of one tree: a key, and its value unless it goes.
type Change = (Vec<u8>, Option<Vec<u8>>);

const CHECKPOINT: &[u8] = b"now";

impl Store {
    /// Opens the store in this directory, or makes one. Its checkpoint is empty until it is [`read`](Store::read).
    pub fn open(dir: &Path) -> Result<Store, Trouble> {
        guarded(|| {
            let db = open_db(dir)?;
            let trees = Trees {
                members: db.open_tree("members")?,
                clocks: db.open_tree("clocks")?,
                seen: db.open_tree("seen")?,
                meta: db.open_tree("meta")?,
                db,
            };
            let file = if cfg!(target_os = "linux") {
                Some(File::open(dir.join("db"))?)
            } else {
                None
            };
            Ok(Store {
                trees,
                file,
                dir: dir.to_owned(),
                checkpoint: Checkpoint::default(),
            })
        })
    }

    /// Names the store's owner, which makes it one.
    pub fn begin(&mut self, node: &str) -> Result<(), Trouble> {
        guarded(|| {
            self.trees.meta.insert("schema", &SCHEMA.to_be_bytes())?;
            self.trees.meta.insert("node", node)?;
            Ok(())
        })
    }

    /// Writes a batch, whole or not at all. It is not yet on the disk then.
    pub fn apply(&mut self, batch: &Batch, now: Time) -> Result<(), Trouble> {
        guarded(|| {
            let members = member_changes(batch);
            let seen = self.seen_changes(batch)?;
            let before = self.checkpoint;
            let after = Cell::new(before);
            let trees = &self.trees;
            (&trees.members, &trees.seen, &trees.clocks, &trees.meta)
                .transaction(|(member_tree, seen_tree, clocks, meta)| {
                    let mut checkpoint = Checkpoint {
                        marks: batch.marks,
                        written: now.as_nanos(),
                        ..before
                    };
                    change(member_tree, &members, &mut checkpoint.members)?;
                    change(seen_tree, &seen, &mut checkpoint.seen)?;
                    meta.insert(b"left", &[u8::from(batch.left)])?;
                    clocks.insert(CHECKPOINT, codec::encode_checkpoint(&checkpoint))?;
                    after.set(checkpoint);
                    Ok(())
                })
                .map_err(|error| match error {
                    TransactionError::Abort(never) => never,
                    TransactionError::Storage(error) => error.into(),
                })?;
            self.checkpoint = after.get();
            Ok(())
        })
    }

    /// The changes of tree `seen`. What goes is looked up, for keys are only known by their beginning.
    fn seen_changes(&self, batch: &Batch) -> Result<Vec<Change>, Trouble> {
        let seen = &self.trees.seen;
        let mut changes = Vec::new();
        let mut forget = |prefix: Vec<u8>| -> Result<(), Trouble> {
            for entry in seen.scan_prefix(prefix) {
                changes.push((entry?.0.to_vec(), None));
            }
            Ok(())
        };
        for (ltime, slot) in &batch.events {
            if slot.forget {
                forget(codec::seen_prefix(codec::EVENT, *ltime))?;
                continue;
            }
            for place in slot.seen.keys() {
                forget(codec::seen_key(codec::EVENT, *ltime, *place))?;
            }
        }
        for (ltime, slot) in &batch.queries {
            if slot.forget {
                forget(codec::seen_prefix(codec::QUERY, *ltime))?;
            }
        }
        for event in batch.events.values().flat_map(|slot| slot.seen.values()) {
            let parts = codec::encode_event(event);
            changes.extend(parts.into_iter().map(|(key, part)| (key, Some(part))));
        }
        for (ltime, slot) in &batch.queries {
            let keys = slot.seen.iter();
            let keys = keys.map(|id| codec::seen_key(codec::QUERY, *ltime, *id));
            changes.extend(keys.map(|key| (key, Some(Vec::new()))));
        }
        Ok(changes)
    }

    /// Has all that was applied on the disk when it returns.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        guarded(|| {
            self.trees.db.flush()?;
            #[cfg(target_os = "linux")]
            if let Some(file) = &self.file {
                file.sync_data()?;
            }
            Ok(())
        })
    }

    /// Makes sure that the directory itself is on the disk, once after its files have been made.
    pub fn sync_directory(&self) -> Result<(), Trouble> {
        Ok(sync_directory(&self.dir)?)
    }

    /// Copies all entries and the checkpoint into a store that has just begun.
    pub fn copy_into(&self, other: &mut Store) -> Result<(), Trouble> {
        guarded(|| {
            let pairs = [
                (&self.trees.members, &other.trees.members),
                (&self.trees.seen, &other.trees.seen),
                (&self.trees.meta, &other.trees.meta),
                (&self.trees.clocks, &other.trees.clocks),
            ];
            for (from, to) in pairs {
                for entry in from.iter() {
                    let (key, value) = entry?;
                    to.insert(key, value)?;
                }
            }
            other.checkpoint = self.checkpoint;
            Ok(())
        })
    }

    /// Reads everything. Times after `now` are taken for `now`.
    pub fn read(&mut self, now: Time) -> Result<Found, Trouble> {
        guarded(|| {
            self.check_schema()?;
            let mut found = Found::default();
            let checkpoint = self.trees.clocks.get(CHECKPOINT)?;
            let checkpoint = checkpoint.and_then(|value| codec::decode_checkpoint(&value));
            let mut reading = Reading {
                found: &mut found,
                now,
            };
            let members = reading.members(&self.trees.members);
            let seen = reading.seen(&self.trees.seen);
            found.intact =
                checkpoint.is_some_and(|checkpoint| members == checkpoint.members && seen == checkpoint.seen);
            self.checkpoint = Checkpoint {
                members,
                seen,
                ..checkpoint.unwrap_or_default()
            };
            found.written = self.checkpoint.written;
            found.memory.marks = self.checkpoint.marks;
            found.unreadable += usize::from(checkpoint.is_none());
            raise(&mut found.memory);
            if !found.intact {
                // Some of what was handled is not known any more; handling it again would be worse than
                // missing what came meanwhile.
                let marks = &mut found.memory.marks;
                marks.event_floor = marks.event_floor.max(marks.event);
                marks.query_floor = marks.query_floor.max(marks.query);
            }
            let meta = |key: &str| self.trees.meta.get(key).ok().flatten().unwrap_or_default();
            found.left = meta("left").first().is_some_and(|left| *left != 0);
            found.node = String::from_utf8_lossy(&meta("node")).into_owned();
            Ok(found)
        })
    }

    fn check_schema(&self) -> Result<(), Trouble> {
        let value = self.trees.meta.get("schema")?;
        let Trees {
            members,
            clocks,
            seen,
            ..
        } = &self.trees;
        let is_empty = || members.is_empty() && clocks.is_empty() && seen.is_empty();
        match value.and_then(|value| codec::Cursor(&value).u32()) {
            Some(SCHEMA) => Ok(()),
            Some(schema) if schema > SCHEMA => Err(Trouble::Newer(schema)),
            None if is_empty() => Err(Trouble::Empty),
            _ => Err(Trouble::Damaged("it does not say its schema".into())),
        }
    }

    /// Bytes of what it holds.
    pub fn live_bytes(&self) -> u64 {
        self.checkpoint
            .members
            .bytes
            .saturating_add(self.checkpoint.seen.bytes)
    }

    /// How many entries it holds.
    pub fn entries(&self) -> u64 {
        self.checkpoint
            .members
            .count
            .saturating_add(self.checkpoint.seen.count)
    }

    /// Bytes it takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        home::bytes_below(&self.dir)
    }

    /// Closes it. sled flushes then, which may fail or panic; whoever needs a flush has had it.
    pub fn close(self) {
        let _ = guarded(|| {
            drop(self);
            Ok(())
        });
    }
}

/// sled's threads may hold the files, and so sled's lock, for a moment after the store has been dropped.
fn open_db(dir: &Path) -> Result<sled::Db, Trouble> {
    let until = Instant::now() + LINGER;
    loop {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(SNAPSHOT_CACHE)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < until =>
            {
                thread::sleep(LINGER_STEP);
            }
            result => return Ok(result?),
        }
    }
}

const LINGER: Duration = Duration::from_secs(10);
const LINGER_STEP: Duration = Duration::from_millis(5);

fn member_changes(batch: &Batch) -> Vec<Change> {
    // A name that would not be read again is not written.
    let is_name = |name: &&Arc<str>| !name.is_empty() && name.len() <= PEER_NAME_MAX;
    let members = batch.members.iter().filter(|(name, _)| is_name(name));
    let changes = members.map(|(name, member)| {
        let value = member.as_ref().map(codec::encode_member);
        (name.as_bytes().to_vec(), value)
    });
    changes.collect()
}

/// Applies changes in order, and keeps the sum.
fn change(
    tree: &TransactionalTree,
    changes: &[Change],
    sum: &mut Sum,
) -> Result<(), ConflictableTransactionError<Trouble>> {
    for (key, value) in changes {
        let old: Option<IVec> = match value {
            Some(value) => {
                sum.add(key, value);
                tree.insert(key.as_slice(), value.as_slice())?
            }
            None => tree.remove(key.as_slice())?,
        };
        if let Some(old) = old {
            sum.remove(key, &old);
        }
    }
    Ok(())
}

/// Raises the clocks above all that was stamped, which changes nothing in a store that is whole.
fn raise(memory: &mut Memory) {
    let marks = &mut memory.marks;
    let above = |mark: &mut u64, seen: Option<u64>| {
        if let Some(seen) = seen.filter(|seen| *seen <= MAX_LTIME) {
            *mark = (*mark).max(seen + 1);
        }
    };
    above(
        &mut marks.member,
        memory.members.iter().map(|member| member.status_ltime).max(),
    );
    above(
        &mut marks.event,
        memory.events.iter().map(|event| event.ltime).max(),
    );
    above(&mut marks.query, memory.queries.iter().map(|query| query.0).max());
}

/// Reads trees, as much of them as can be read.
struct Reading<'a> {
    found: &'a mut Found,
    now: Time,
}

impl Reading<'_> {
    /// Goes through a tree up to the first error, and sums it up.
    fn entries(&mut self, tree: &Tree, mut entry: impl FnMut(&mut Self, &[u8], &[u8]) -> bool) -> Sum {
        let mut sum = Sum::default();
        for result in tree.iter().take(SNAPSHOT_ENTRIES_MAX) {
            let Ok((key, value)) = result else {
                self.found.unreadable += 1;
                break;
            };
            sum.add(&key, &value);
            if !entry(self, &key, &value) {
                self.found.unreadable += 1;
            }
        }
        sum
    }

    fn members(&mut self, tree: &Tree) -> Sum {
        self.entries(tree, |reading, key, value| {
            let member = codec::decode_member(key, value, reading.now);
            let room = reading.found.memory.members.len() < MAX_MEMBERS;
            let member = member.filter(|_| room);
            let taken = member.is_some();
            reading.found.memory.members.extend(member);
            taken
        })
    }

    fn seen(&mut self, tree: &Tree) -> Sum {
        let mut events: BTreeMap<(u64, u32), (u16, Vec<u8>)> = BTreeMap::new();
        let sum = self.entries(tree, |reading, key, value| {
            if let Some(query) = codec::decode_query_key(key) {
                reading.found.memory.queries.push(query);
                return true;
            }
            let Some((ltime, place, part)) = codec::decode_event_key(key) else {
                return false;
            };
            let (parts, whole) = events.entry((ltime, place)).or_default();
            let fits = *parts == part;
            if fits {
                *parts += 1;
                whole.extend(value);
            }
            fits
        });
        for ((ltime, place), (_, whole)) in &mut events {
            match codec::decode_event(*ltime, *place, &mem::take(whole)) {
                Some(event) => self.found.memory.events.push(event),
                None => self.found.unreadable += 1,
            }
        }
        sum
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What sled has written is not safe from a power cut before that.
    #[test]
    fn a_flush_without_a_sync_of_the_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.begin("a").unwrap();
        store.flush().unwrap();
        // A socket cannot be synced.
        let (socket, _other) = UnixStream::pair().unwrap();
        let database = store.file.replace(File::from(OwnedFd::from(socket)));
        assert!(matches!(store.flush(), Err(Trouble::Io(_))));
        store.file = database;
        store.flush().unwrap();
    }
}
