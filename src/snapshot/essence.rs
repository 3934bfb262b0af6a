//! The essence: all entries of the store once more, in two files of our own that take turns.
//!
//! A flush appends what has changed since to one of the two copies, after the store itself has been flushed; the
//! other one gets it with the next flush, or once there is a pause. So the cost of a flush does not grow with the
//! cluster, each copy alone says everything but at most the last flush, and an essence that is ahead of the store
//! means that the store has lost something. A copy that has grown is written anew beside itself and renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::codec::{self, Changes, Checkpoint, Cursor};
use super::files;
use super::found::{Found, Owner, Reading, highest};
use super::frame::{self, Bytes, Frame};
use super::store::Store;
use super::trouble::Trouble;
use fyrd_core::bounds::{ESSENCE_FILE_MAX, ESSENCE_FRAME, ESSENCE_GROWTH, ESSENCE_SMALL};
use fyrd_core::time::Time;
use fyrd_keys::replace::{Access, is_leftover, replace};

/// The two copies.
pub(super) const NAMES: [&str; 2] = ["essence-1", "essence-2"];

/// Both copies, open.
#[derive(Debug)]
pub(super) struct Essence {
    owner: Owner,
    copies: [Copy; 2],
    /// The copy that the next flush writes.
    turn: usize,
}

#[derive(Debug)]
struct Copy {
    path: PathBuf,
    /// `None` while it is written anew: Windows replaces no file that is open.
    file: Option<File>,
    /// Bytes that count; what stands behind them was not written to its end.
    len: u64,
    /// The batch that it ends with.
    serial: u64,
    /// Changes that it has not got yet, in frames of so many bytes.
    waiting: Vec<Vec<u8>>,
}

/// A copy that can be gone on with, up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clean {
    serial: u64,
    len: u64,
}

/// What reading both copies comes to.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// What they hold, unless nothing can be read.
    pub found: Option<Found>,
    /// Whether there is any file of an essence.
    pub existed: bool,
    clean: [Option<Clean>; 2],
}

impl Essence {
    /// Goes on with the copies as far as they hold what the store holds, and writes the others anew.
    pub fn open(dir: &Path, owner: &Owner, store: &Store, recall: &Recall) -> Result<Essence, Trouble> {
        let serial = store.checkpoint().serial;
        let same = recall.found.as_ref().is_some_and(|found| found.owner == *owner);
        let copy = |number: usize| {
            let path = dir.join(NAMES[number]);
            match recall.clean[number].filter(|clean| same && clean.serial == serial) {
                Some(clean) => Copy::resume(path, clean),
                None => Copy::anew(path, owner, store),
            }
        };
        Ok(Essence {
            owner: owner.clone(),
            copies: [copy(0)?, copy(1)?],
            turn: 0,
        })
    }

    /// Takes what a batch changes, which the store has taken.
    pub fn note(&mut self, changes: &Changes) {
        for copy in &mut self.copies {
            for (tree, changes) in [(codec::MEMBERS, &changes.members), (codec::SEEN, &changes.seen)] {
                for (key, value) in changes {
                    let frames = &mut copy.waiting;
                    if frames.last().is_none_or(|last| last.len() >= ESSENCE_FRAME) {
                        frames.push(Vec::new());
                    }
                    if let Some(last) = frames.last_mut() {
                        frame::put_change(last, tree, key, value.as_deref());
                    }
                }
            }
        }
    }

    /// Has all that was noted on the disk, in one of the copies. The store must have it there already.
    pub fn flush(&mut self, checkpoint: &Checkpoint, left: bool) -> Result<(), Trouble> {
        let copy = &mut self.copies[self.turn];
        self.turn = 1 - self.turn;
        copy.append(&self.owner, checkpoint, left)
    }

    /// Whether a copy is behind the other.
    pub fn is_behind(&self) -> bool {
        self.copies[0].serial != self.copies[1].serial
    }

    /// Brings the copy that is behind up to the other. Nothing may have been noted since the last flush.
    pub fn even_out(&mut self, checkpoint: &Checkpoint, left: bool) -> Result<(), Trouble> {
        match self.is_behind() {
            true => self.flush(checkpoint, left),
            false => Ok(()),
        }
    }

    /// Writes a copy anew that has grown too large, one at a time. Nothing may have been noted since the last flush.
    pub fn shrink(&mut self, store: &Store) -> Result<(), Trouble> {
        let bound = ESSENCE_SMALL.max(store.live_bytes().saturating_mul(ESSENCE_GROWTH));
        let Some(copy) = self.copies.iter_mut().find(|copy| copy.len > bound) else {
            return Ok(());
        };
        copy.file = None;
        *copy = Copy::anew(copy.path.clone(), &self.owner, store)?;
        Ok(())
    }

    /// Closes both files: Windows replaces none that is open.
    pub fn release(&mut self) {
        for copy in &mut self.copies {
            copy.file = None;
        }
    }

    /// Whether both files are as this process has left them.
    pub fn is_there(&self) -> bool {
        let is_there = |copy: &Copy| {
            let held = copy.file.as_ref().filter(|_| cfg!(unix));
            let len = files::length_if_same(held, &copy.path);
            len.is_some_and(|len| len >= copy.len)
        };
        self.copies.iter().all(is_there)
    }
}

impl Copy {
    fn resume(path: PathBuf, clean: Clean) -> Result<Copy, Trouble> {
        let file = files::private_file().open(&path)?;
        file.set_len(clean.len)?;
        Ok(Copy {
            path,
            file: Some(file),
            len: clean.len,
            serial: clean.serial,
            waiting: Vec::new(),
        })
    }

    /// Writes everything that the store holds.
    fn anew(path: PathBuf, owner: &Owner, store: &Store) -> Result<Copy, Trouble> {
        let mut failed = None;
        let mut len = 0;
        replace(&path, Access::Owner, |file| {
            let written = write_whole(file, owner, store);
            len = file.stream_position()?;
            written.map_err(|trouble| match trouble {
                Trouble::Io(error) => error,
                other => {
                    failed = Some(other);
                    std::io::Error::other("the store cannot be read")
                }
            })
        })
        .map_err(|error| failed.unwrap_or(Trouble::Io(error.source)))?;
        Ok(Copy {
            file: Some(files::private_file().open(&path)?),
            path,
            len,
            serial: store.checkpoint().serial,
            waiting: Vec::new(),
        })
    }

    fn append(&mut self, owner: &Owner, checkpoint: &Checkpoint, left: bool) -> Result<(), Trouble> {
        let waiting = std::mem::take(&mut self.waiting);
        let set = Set {
            owner,
            checkpoint,
            left,
            after: Some(self.serial),
        };
        let mut bytes = Vec::new();
        // One without changes says the clocks.
        let last = waiting.len().saturating_sub(1);
        for (part, changes) in waiting.iter().enumerate() {
            set.frame(part, part < last, changes, &mut bytes)?;
        }
        if waiting.is_empty() {
            set.frame(0, false, &[], &mut bytes)?;
        }
        let Some(file) = &mut self.file else {
            return Err(Trouble::Gone(self.path.display().to_string()));
        };
        let written = file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a frame would be taken for damage.
            let _ = file.set_len(self.len);
            return Err(error.into());
        }
        self.len += bytes.len() as u64;
        self.serial = checkpoint.serial;
        Ok(())
    }
}

fn write_whole(file: &mut File, owner: &Owner, store: &Store) -> Result<(), Trouble> {
    let set = Set {
        owner,
        checkpoint: store.checkpoint(),
        left: store.left(),
        after: None,
    };
    let (mut part, mut changes, mut bytes) = (0, Vec::new(), Vec::new());
    store.each_entry(|tree, key, value| {
        if changes.len() >= ESSENCE_FRAME {
            bytes.clear();
            set.frame(part, true, &changes, &mut bytes)?;
            file.write_all(&bytes)?;
            changes.clear();
            part += 1;
        }
        frame::put_change(&mut changes, tree, key, Some(value));
        Ok(())
    })?;
    bytes.clear();
    set.frame(part, false, &changes, &mut bytes)?;
    Ok(file.write_all(&bytes)?)
}

/// What the frames of a set have in common.
struct Set<'a> {
    owner: &'a Owner,
    checkpoint: &'a Checkpoint,
    left: bool,
    after: Option<u64>,
}

impl Set<'_> {
    fn frame(&self, part: usize, more: bool, changes: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        let frame = Frame {
            version: frame::VERSION,
            node: &self.owner.node,
            identity: Bytes(&self.owner.identity.to_be_bytes()),
            serial: self.checkpoint.serial,
            after: self.after,
            part: part as u32,
            more,
            left: self.left,
            checkpoint: Bytes(&codec::encode_checkpoint(self.checkpoint)),
            changes: Bytes(changes),
        };
        frame::write(&frame, out).map_err(|error| Trouble::Damaged(error.to_string()))
    }
}

/// Whether this is what a crash left of a copy that was being written anew.
pub(super) fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    NAMES.iter().any(|copy| is_leftover(name, Path::new(copy)))
}

/// Removes both copies, as far as that works.
pub(super) fn remove(dir: &Path) {
    for name in NAMES {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Reads both copies, and changes nothing. Times after `now` are taken for `now`.
pub(super) fn read(dir: &Path, now: Time) -> Result<Recall, Trouble> {
    let mut existed = false;
    let mut bytes = [Vec::new(), Vec::new()];
    for (name, bytes) in NAMES.iter().zip(&mut bytes) {
        match File::open(dir.join(name)) {
            Ok(file) => {
                existed = true;
                // What cannot be read to its end is damaged there.
                let _ = file.take(ESSENCE_FILE_MAX).read_to_end(bytes);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => existed = true,
        }
    }
    let (found, clean) = recall(&bytes, now)?;
    Ok(Recall {
        found,
        existed,
        clean,
    })
}

/// The bytes that both copies take.
pub(super) fn bytes(dir: &Path) -> u64 {
    let metadata = NAMES.iter().filter_map(|name| fs::metadata(dir.join(name)).ok());
    metadata.map(|metadata| metadata.len()).sum()
}

/// What the bytes of both copies come to.
pub(super) fn recall(
    copies: &[Vec<u8>; 2],
    now: Time,
) -> Result<(Option<Found>, [Option<Clean>; 2]), Trouble> {
    let copies = copies.each_ref().map(|bytes| Sets::of(bytes));
    let mut clean = copies.each_ref().map(Sets::clean);
    let frames = || copies.iter().flat_map(|copy| &copy.frames);
    if let Some(newer) = frames()
        .map(|frame| frame.version)
        .find(|it| *it > frame::VERSION)
    {
        return Err(Trouble::Newer(newer.into()));
    }
    let written = copies.iter().flat_map(Sets::written);
    let Some(newest) = written.max_by_key(|frame| frame.serial) else {
        return Ok((None, clean));
    };
    // A copy of another snapshot says nothing of this one.
    let is_ours = |frame: &Frame<'_>| frame.identity == newest.identity;
    for (copy, clean) in copies.iter().zip(&mut clean) {
        *clean = clean.filter(|_| copy.frames.iter().all(is_ours));
    }
    let frames = || frames().filter(|frame| is_ours(frame));
    let mut sets: Vec<&[Frame<'_>]> = copies.iter().flat_map(Sets::complete).collect();
    sets.retain(|set| is_ours(&set[0]));
    sets.sort_by_key(|set| set[0].serial);
    let chain = longest(&sets);
    let reaches = chain.last().map_or(0, |set| set[0].serial);
    let is_all = !chain.is_empty() && reaches == newest.serial;
    let mut entries = BTreeMap::new();
    let (end, unreadable) = if is_all {
        (
            chain.last().map_or(newest, |set| &set[0]),
            lay(&mut entries, chain.into_iter().flatten()),
        )
    } else {
        // Something is missing in both copies: what can be saved, in order.
        let mut all: Vec<&Frame<'_>> = frames().collect();
        all.sort_by_key(|frame| (frame.serial, frame.part));
        (newest, lay(&mut entries, all.into_iter()))
    };
    let mut found = Found {
        left: end.left,
        owner: Owner {
            node: end.node.to_owned(),
            identity: Cursor(end.identity.0).u128().unwrap_or_default(),
        },
        unreadable,
        ..Found::default()
    };
    let mut reading = Reading {
        found: &mut found,
        now,
    };
    let of = |kind: u8| {
        let entries = entries.iter().filter(move |((tree, _), _)| *tree == kind);
        entries.map(|((_, key), value)| Ok::<_, ()>((key, value)))
    };
    let members = reading.members(of(codec::MEMBERS));
    let seen = reading.seen(of(codec::SEEN));
    let checkpoint = codec::decode_checkpoint(end.checkpoint.0);
    found.check(checkpoint.filter(|_| is_all), members, seen);
    if !is_all {
        found.serial = newest.serial;
        let marks = frames().filter_map(|frame| codec::decode_checkpoint(frame.checkpoint.0));
        let marks = marks.fold(found.memory.marks, |marks, it| highest(marks, it.marks));
        found.take_marks(marks);
        found.raise_floors();
    }
    Ok((Some(found), clean))
}

/// The frames of one copy.
struct Sets<'a> {
    frames: Vec<Frame<'a>>,
    /// Where each ends, and whether it follows the one before without a gap.
    places: Vec<(usize, bool)>,
}

impl<'a> Sets<'a> {
    fn of(bytes: &'a [u8]) -> Sets<'a> {
        let read = frame::read(bytes).into_iter();
        let (frames, places) = read.map(|(frame, end, follows)| (frame, (end, follows))).unzip();
        Sets { frames, places }
    }

    /// Frames that were written together, each time with their place among all.
    fn sets(&self) -> impl Iterator<Item = (usize, &[Frame<'a>])> {
        let sets = self.frames.chunk_by(|a, b| {
            a.more && b.serial == a.serial && b.after == a.after && b.part == a.part.wrapping_add(1)
        });
        sets.scan(0, |at, set| {
            let place = *at;
            *at += set.len();
            Some((place, set))
        })
    }

    /// The sets of which all frames can be read.
    fn complete(&self) -> impl Iterator<Item = &[Frame<'a>]> {
        self.sets().map(|(_, set)| set).filter(|set| is_complete(set))
    }

    /// The frames that were written to their end: the last ones may have been interrupted, or never flushed.
    fn written(&self) -> &[Frame<'a>] {
        match self.sets().last() {
            Some((place, set)) if !is_complete(set) && place > 0 => &self.frames[..place],
            _ => &self.frames,
        }
    }

    /// How far it can be gone on with: from its beginning, without a gap.
    fn clean(&self) -> Option<Clean> {
        let mut clean: Option<Clean> = None;
        for (place, set) in self.sets() {
            let places = &self.places[place..place + set.len()];
            let before = clean.map(|clean| clean.serial);
            if set[0].after != before || places.iter().any(|(_, follows)| !follows) {
                return None;
            }
            if !is_complete(set) {
                let is_last = place + set.len() == self.frames.len();
                return clean.filter(|_| is_last);
            }
            let len = places.last().map_or(0, |(end, _)| *end as u64);
            clean = Some(Clean {
                serial: set[0].serial,
                len,
            });
        }
        clean
    }
}

fn is_complete(set: &[Frame<'_>]) -> bool {
    set[0].part == 0 && set.last().is_some_and(|last| !last.more)
}

/// Of sets in order, those that lead furthest: everything first, then each what came after no more than that.
fn longest<'a, 'b>(sets: &[&'b [Frame<'a>]]) -> Vec<&'b [Frame<'a>]> {
    let wholes = sets.iter().filter(|set| set[0].after.is_none());
    let chains = wholes.map(|whole| {
        let mut chain = vec![*whole];
        let mut at = whole[0].serial;
        for set in sets {
            if set[0].serial > at && set[0].after.is_some_and(|after| after <= at) {
                chain.push(set);
                at = set[0].serial;
            }
        }
        (at, chain)
    });
    chains
        .max_by_key(|(at, _)| *at)
        .map(|(_, chain)| chain)
        .unwrap_or_default()
}

/// Lays the changes of frames on top of each other; gives the number of those that are none.
fn lay<'a: 'b, 'b>(
    entries: &mut BTreeMap<(u8, &'a [u8]), &'a [u8]>,
    frames: impl Iterator<Item = &'b Frame<'a>>,
) -> usize {
    let mut unreadable = 0;
    for frame in frames {
        let mut changes = Cursor(frame.changes.0);
        while !changes.0.is_empty() {
            let Some((tree, key, value)) = frame::take_change(&mut changes) else {
                unreadable += 1;
                break;
            };
            match value {
                Some(value) => drop(entries.insert((tree, key), value)),
                None => drop(entries.remove(&(tree, key))),
            }
        }
    }
    unreadable
}
