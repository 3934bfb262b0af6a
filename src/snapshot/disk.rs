//! What is written where: the store that counts, and the essence beside it.

use std::path::Path;

use super::essence::{self, Essence, Recall};
use super::files;
use super::found::Owner;
use super::home::Home;
use super::pending::Batch;
use super::store::{Presence, Store};
use super::trouble::Trouble;
use fyrd_core::time::Time;
use fyrd_keys::replace::sync_directory;

/// The store that counts and its essence, open.
#[derive(Debug)]
pub(super) struct Disk {
    generation: u32,
    store: Store,
    essence: Essence,
    owner: Owner,
}

impl Disk {
    /// Goes on with a store that was read, and the essence that was read beside it.
    pub fn resume(
        home: &Home,
        owner: &Owner,
        (generation, mut store): (u32, Store),
        recall: &Recall,
    ) -> Result<Disk, Trouble> {
        let begun = store.begin(owner);
        let opened = begun.and_then(|()| Essence::open(home.path(), owner, &store, recall));
        Disk::of(generation, store, opened, owner)
    }

    /// Writes a store of this batch alone, and an essence of it. The store counts only when both are there: on a disk that
    /// is full sled does not open what it has written, and then the essence has to tell.
    pub fn begin(home: &Home, owner: &Owner, batch: &Batch, serial: u64, now: Time) -> Result<Disk, Trouble> {
        let (generation, store) = build_unnamed(home, owner, |store| store.fill(batch, serial, now))?;
        let opened = Essence::open(home.path(), owner, &store, &Recall::default());
        let disk = Disk::of(generation, store, opened, owner);
        let begun = disk.and_then(|disk| match home.switch_to(generation) {
            Ok(()) => Ok(disk),
            Err(error) => {
                disk.close();
                Err(error.into())
            }
        });
        begun.inspect_err(|_| home.remove(generation))
    }

    fn of(
        generation: u32,
        store: Store,
        essence: Result<Essence, Trouble>,
        owner: &Owner,
    ) -> Result<Disk, Trouble> {
        match essence {
            Ok(essence) => Ok(Disk {
                generation,
                store,
                essence,
                owner: owner.clone(),
            }),
            Err(trouble) => {
                store.close();
                Err(trouble)
            }
        }
    }

    /// Which store counts.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Counts the batches.
    pub fn serial(&self) -> u64 {
        self.store.checkpoint().serial
    }

    /// Writes a batch, whole or not at all. It is not yet on the disk then.
    pub fn apply(&mut self, home: &Home, batch: &Batch, now: Time) -> Result<(), Trouble> {
        // sled writes some of it at once, which would hide that somebody has cut its file.
        self.look(home)?;
        let changes = self.store.changes(batch)?;
        self.store.apply(&changes, batch, now)?;
        self.essence.note(&changes);
        Ok(())
    }

    /// Has all that was applied on the disk when it returns. The store comes first: what is ahead of it in the
    /// essence is what it has lost.
    pub fn flush(&mut self, home: &Home) -> Result<(), Trouble> {
        self.look(home)?;
        self.store.flush()?;
        self.essence.flush(self.store.checkpoint(), self.store.left())
    }

    /// Whether there is something to do while nobody waits.
    pub fn has_leisure(&self) -> bool {
        self.essence.is_behind()
    }

    /// Does what can wait. Nothing may have been applied since the last flush.
    pub fn use_leisure(&mut self) -> Result<(), Trouble> {
        self.essence.even_out(self.store.checkpoint(), self.store.left())
    }

    /// Writes anew what has grown of the essence. Nothing may have been applied since the last flush.
    pub fn shrink_essence(&mut self) -> Result<(), Trouble> {
        self.essence.shrink(&self.store)
    }

    /// Closes the files of the essence, for another is to take their place. Nothing can be flushed after that.
    pub fn release_essence(&mut self) {
        self.essence.release();
    }

    /// Looks whether all files are as this process has left them.
    pub fn look(&mut self, home: &Home) -> Result<(), Trouble> {
        let gone = |what: &Path| Err(Trouble::Gone(what.display().to_string()));
        if !home.is_there() {
            return gone(home.path());
        }
        match self.store.look() {
            Presence::Here => {}
            Presence::Gone => return gone(&home.directory(self.generation)),
            Presence::Shorter => self.rewrite(home)?,
        }
        match self.essence.is_there() {
            true => Ok(()),
            false => gone(&home.path().join(essence::NAMES[0])),
        }
    }

    /// Copies the entries into a new store: sled's log does not shrink by itself.
    pub fn rewrite(&mut self, home: &Home) -> Result<(), Trouble> {
        let (generation, store) = build(home, &self.owner, |new| self.store.copy_into(new))?;
        self.generation = generation;
        std::mem::replace(&mut self.store, store).close();
        home.clear_except(Some(generation));
        Ok(())
    }

    /// Bytes of what it holds.
    pub fn live_bytes(&self) -> u64 {
        self.store.live_bytes()
    }

    /// Bytes that the store takes on the disk.
    pub fn store_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    /// How many entries it holds.
    pub fn entries(&self) -> u64 {
        self.store.entries()
    }

    /// Closes it.
    pub fn close(self) {
        self.store.close();
    }
}

/// Writes a store, and makes it the one that counts.
pub(super) fn build(
    home: &Home,
    owner: &Owner,
    fill: impl FnOnce(&mut Store) -> Result<(), Trouble>,
) -> Result<(u32, Store), Trouble> {
    let (generation, store) = build_unnamed(home, owner, fill)?;
    match home.switch_to(generation) {
        Ok(()) => Ok((generation, store)),
        Err(error) => {
            store.close();
            home.remove(generation);
            Err(error.into())
        }
    }
}

/// Writes a store, and leaves nothing of it behind if that fails.
pub(super) fn build_unnamed(
    home: &Home,
    owner: &Owner,
    fill: impl FnOnce(&mut Store) -> Result<(), Trouble>,
) -> Result<(u32, Store), Trouble> {
    let generation = home.next()?;
    let directory = home.directory(generation);
    let built = files::make_directory(&directory)
        .map_err(Trouble::from)
        .and_then(|()| Store::open(&directory))
        .and_then(|mut store| {
            let filled = store
                .begin(owner)
                .and_then(|()| fill(&mut store))
                .and_then(|()| store.flush())
                .and_then(|()| store.sync_directory());
            match filled {
                Ok(()) => Ok(store),
                Err(trouble) => {
                    store.close();
                    Err(trouble)
                }
            }
        });
    match built.and_then(|store| Ok((sync_directory(home.path()).map(|()| store))?)) {
        Ok(store) => Ok((generation, store)),
        Err(trouble) => {
            home.remove(generation);
            Err(trouble)
        }
    }
}
