//! One generation of the store: four sled trees in a directory.
//!
//! A batch is one transaction over all trees, so a crash leaves the state after some batch, never a mixture.
//! The checkpoint in `clocks` is part of it, and reading checks the trees against it.
//!
//! On Linux, sled's own flush syncs neither the size of the file nor the disk's cache, so the file is synced
//! here as well. sled panics at some kinds of damage, so all calls run behind [`guarded`].

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use sled::{IVec, Transactional, Tree};

use super::SCHEMA;
use super::codec::{self, Change, Changes, Checkpoint, Sum};
use super::files;
use super::found::{Found, Owner, Reading};
use super::pending::Batch;
use super::trouble::{Trouble, guarded};
use fyrd_core::bounds::{PEER_NAME_MAX, SNAPSHOT_CACHE};
use fyrd_core::time::Time;
use fyrd_keys::replace::sync_directory;

/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    // Dropped first, for its drop writes.
    trees: Trees,
    /// What sled writes to, to be synced and looked after; not on Windows, where it could not be removed then.
    file: Option<File>,
    dir: PathBuf,
    checkpoint: Checkpoint,
    left: bool,
    /// The length of the file after the last look.
    len: u64,
}

#[derive(Debug)]
struct Trees {
    members: Tree,
    clocks: Tree,
    seen: Tree,
    meta: Tree,
    db: sled::Db,
}

/// Whether the files of a store are as this process has left them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    /// Shorter, which can be sled's own doing or somebody's.
    Shorter,
    Gone,
}

const DATABASE: &str = "db";
const CHECKPOINT: &[u8] = b"now";

/// Entries that are written at once into a store that does not count yet: so many that it is quick, and so few
/// that sled, which holds all of it twice meanwhile, needs no room to speak of.
const FILL: usize = 512;

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
            // sled makes its files for everybody to read.
            files::make_private(dir);
            let file = match cfg!(unix) {
                true => Some(File::open(dir.join(DATABASE))?),
                false => None,
            };
            Ok(Store {
                trees,
                file,
                dir: dir.to_owned(),
                checkpoint: Checkpoint::default(),
                left: false,
                len: 0,
            })
        })
    }

    /// Names the store's owner, which makes it one.
    pub fn begin(&mut self, owner: &Owner) -> Result<(), Trouble> {
        guarded(|| {
            let meta = &self.trees.meta;
            meta.insert("schema", &SCHEMA.to_be_bytes())?;
            meta.insert("node", owner.node.as_str())?;
            meta.insert("identity", &owner.identity.to_be_bytes())?;
            Ok(())
        })
    }

    /// What a batch changes in the trees. What goes is looked up, for keys are only known by their beginning.
    pub fn changes(&self, batch: &Batch) -> Result<Changes, Trouble> {
        guarded(|| {
            Ok(Changes {
                members: member_changes(batch),
                seen: self.seen_changes(batch)?,
            })
        })
    }

    /// Writes the changes of a batch, whole or not at all. They are not yet on the disk then.
    pub fn apply(&mut self, changes: &Changes, batch: &Batch, now: Time) -> Result<(), Trouble> {
        guarded(|| {
            let before = self.checkpoint;
            let after = Cell::new(before);
            let trees = &self.trees;
            (&trees.members, &trees.seen, &trees.clocks, &trees.meta)
                .transaction(|(member_tree, seen_tree, clocks, meta)| {
                    let mut checkpoint = next(&before, batch, now);
                    change(member_tree, &changes.members, &mut checkpoint.members)?;
                    change(seen_tree, &changes.seen, &mut checkpoint.seen)?;
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
            self.left = batch.left;
            Ok(())
        })
    }

    /// Writes a batch into a store that has just begun, and counts for nobody before all of it is there.
    pub fn fill(&mut self, batch: &Batch, serial: u64, now: Time) -> Result<(), Trouble> {
        guarded(|| {
            let mut checkpoint = Checkpoint {
                serial,
                ..next(&self.checkpoint, batch, now)
            };
            let trees = &self.trees;
            let put = |tree: &Tree, sum: &mut Sum, changes: &mut dyn Iterator<Item = Change>| {
                let mut changes = changes.filter_map(|(key, value)| Some((key, value?))).peekable();
                while changes.peek().is_some() {
                    let mut some = sled::Batch::default();
                    for (key, value) in changes.by_ref().take(FILL) {
                        sum.add(&key, &value);
                        some.insert(key, value);
                    }
                    tree.apply_batch(some)?;
                }
                Ok::<(), Trouble>(())
            };
            let members = batch.members.iter().filter_map(member_change);
            put(&trees.members, &mut checkpoint.members, &mut { members })?;
            put(&trees.seen, &mut checkpoint.seen, &mut seen_puts(batch))?;
            trees.meta.insert(b"left", &[u8::from(batch.left)])?;
            trees
                .clocks
                .insert(CHECKPOINT, codec::encode_checkpoint(&checkpoint))?;
            self.checkpoint = checkpoint;
            self.left = batch.left;
            Ok(())
        })
    }

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
        changes.extend(seen_puts(batch));
        Ok(changes)
    }

    /// Has all that was applied on the disk when it returns.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        guarded(|| {
            flush(&self.trees.db)?;
            if cfg!(target_os = "linux")
                && let Some(file) = &self.file
            {
                file.sync_data()?;
            }
            // Only what sled writes later can make it shorter again.
            self.look();
            Ok(())
        })
    }

    /// Makes sure that the directory itself is on the disk, once after its files have been made.
    pub fn sync_directory(&self) -> Result<(), Trouble> {
        Ok(sync_directory(&self.dir)?)
    }

    /// Looks whether its files are as this process has left them.
    pub fn look(&mut self) -> Presence {
        let Some(len) = files::length_if_same(self.file.as_ref(), &self.dir.join(DATABASE)) else {
            return Presence::Gone;
        };
        let before = std::mem::replace(&mut self.len, len);
        match len < before {
            // sled gives back whole segments at the end, and never the first.
            true if len == 0 || len % SEGMENT != 0 => Presence::Gone,
            true => Presence::Shorter,
            false => Presence::Here,
        }
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
            other.left = self.left;
            Ok(())
        })
    }

    /// Gives all entries, those of members first.
    pub fn each_entry(
        &self,
        mut give: impl FnMut(u8, &[u8], &[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        guarded(|| {
            for (kind, tree) in [
                (codec::MEMBERS, &self.trees.members),
                (codec::SEEN, &self.trees.seen),
            ] {
                for entry in tree.iter() {
                    let (key, value) = entry?;
                    give(kind, &key, &value)?;
                }
            }
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
            let members = reading.members(self.trees.members.iter());
            let seen = reading.seen(self.trees.seen.iter());
            found.check(checkpoint, members, seen);
            self.checkpoint = Checkpoint {
                members,
                seen,
                ..checkpoint.unwrap_or_default()
            };
            let meta = |key: &str| self.trees.meta.get(key).ok().flatten().unwrap_or_default();
            found.left = meta("left").first().is_some_and(|left| *left != 0);
            self.left = found.left;
            found.owner = Owner {
                node: String::from_utf8_lossy(&meta("node")).into_owned(),
                identity: codec::Cursor(&meta("identity")).u128().unwrap_or_default(),
            };
            self.look();
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

    /// What it holds after the last batch.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether the node has left, by the last batch.
    pub fn left(&self) -> bool {
        self.left
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
        files::bytes_below(&self.dir)
    }

    /// Closes it. sled flushes then, which may fail or panic; whoever needs a flush has had it.
    pub fn close(self) {
        let _ = guarded(|| {
            drop(self);
            Ok(())
        });
    }
}

/// Removes what sled leaves behind when it is interrupted, and takes for damage at the next open: a snapshot of
/// its own that is not finished. What is in the log is in no need of it.
pub(super) fn sweep(dir: &Path) {
    for path in sled_snapshots(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digits = name.strip_prefix(SLED_SNAPSHOT).unwrap_or_default();
        let is_whole = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let len = fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
        if !is_whole || len <= SLED_SNAPSHOT_LEAST {
            let _ = fs::remove_file(path);
        }
    }
}

/// Takes away what sled can do without, in turn: first its own snapshots, for the log alone says the same, then
/// its settings, which are always ours. Says whether there was anything of it.
pub(super) fn do_without(dir: &Path, turn: usize) -> bool {
    let files = match turn {
        0 => sled_snapshots(dir),
        _ => vec![dir.join("conf")],
    };
    let removed = files.iter().filter(|file| fs::remove_file(file).is_ok());
    removed.count() > 0
}

/// How often [`do_without`] has something to take away.
pub(super) const TURNS: usize = 2;

fn sled_snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(SLED_SNAPSHOT.as_bytes())
        })
        .map(|entry| entry.path())
        .collect()
}

const SLED_SNAPSHOT: &str = "snap.";

/// A length and a checksum.
const SLED_SNAPSHOT_LEAST: u64 = 12;

/// A flush that takes longer may have been forgotten.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// sled's log consists of segments of this many bytes.
const SEGMENT: u64 = 512 * 1024;

/// Has sled write what it holds.
///
/// When one of its threads could not write a buffer, sled 0.34 forgets to wake who waits for that, and then its `flush`
/// never ends. A second one at the same time sees the error and wakes the first.
fn flush(db: &sled::Db) -> Result<(), sled::Error> {
    thread::scope(|scope| {
        let (flushing, flushed) = mpsc::channel::<()>();
        let watch = move || {
            while flushed.recv_timeout(FLUSH_PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // The first tells what is wrong.
                let _ = db.flush();
            }
        };
        // Without it, a flush is what it is in sled.
        let _ = thread::Builder::new()
            .name("snapshot-watch".to_owned())
            .spawn_scoped(scope, watch);
        let result = db.flush();
        drop(flushing);
        result.map(drop)
    })
}

/// sled's threads may hold the files, and so sled's lock, for a moment after the store has been dropped.
fn open_db(dir: &Path) -> Result<sled::Db, Trouble> {
    let until = Instant::now() + LINGER;
    loop {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(SNAPSHOT_CACHE)
            .mode(sled::Mode::LowSpace)
            .segment_size(SEGMENT as usize)
            .flush_every_ms(None);
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error, dir) && Instant::now() < until => {
                thread::sleep(LINGER_STEP);
            }
            result => return Ok(result?),
        }
    }
}

/// Whether sled was refused its lock because somebody has it.
fn is_locked(error: &std::io::Error, dir: &Path) -> bool {
    error.to_string().contains("could not acquire lock") && !lacks_locks(dir)
}

/// Whether the file system of a store has no locks to give. sled does not hand the system's reason on, so the
/// system is asked again.
pub(super) fn lacks_locks(dir: &Path) -> bool {
    File::open(dir.join(DATABASE))
        .is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::Error(_))))
}

const LINGER: Duration = Duration::from_secs(10);
const LINGER_STEP: Duration = Duration::from_millis(5);

/// The checkpoint after a batch, before its entries are summed up.
fn next(before: &Checkpoint, batch: &Batch, now: Time) -> Checkpoint {
    Checkpoint {
        marks: batch.marks,
        written: now.as_nanos(),
        serial: before.serial + 1,
        ..*before
    }
}

fn member_changes(batch: &Batch) -> Vec<Change> {
    batch.members.iter().filter_map(member_change).collect()
}

fn member_change(
    (name, member): (&Arc<str>, &Option<fyrd_core::node::memory::MemberRecord>),
) -> Option<Change> {
    // A name that would not be read again is not written.
    let is_name = !name.is_empty() && name.len() <= PEER_NAME_MAX;
    let value = member.as_ref().map(codec::encode_member);
    is_name.then(|| (name.as_bytes().to_vec(), value))
}

/// What comes into tree `seen`.
fn seen_puts(batch: &Batch) -> impl Iterator<Item = Change> {
    let events = batch.events.values().flat_map(|slot| slot.seen.values());
    let events = events
        .flat_map(codec::encode_event)
        .map(|(key, part)| (key, Some(part)));
    let queries = batch.queries.iter().flat_map(|(ltime, slot)| {
        let keys = slot.seen.iter();
        keys.map(|id| (codec::seen_key(codec::QUERY, *ltime, *id), Some(Vec::new())))
    });
    events.chain(queries)
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
        store.begin(&Owner::default()).unwrap();
        store.flush().unwrap();
        // A socket cannot be synced.
        let (socket, _other) = UnixStream::pair().unwrap();
        let database = store.file.replace(File::from(OwnedFd::from(socket)));
        assert!(matches!(store.flush(), Err(Trouble::Io(_))));
        store.file = database;
        store.flush().unwrap();
    }
}
