//! The thread that writes the snapshot.
//!
//! It takes batches out of a short channel, applies each in one transaction, and flushes: at once when it had
//! been idle or somebody waits, else [`SNAPSHOT_FLUSH`] after the flush before. When the disk fails it closes
//! the store, which sled has given up by then, and tries from time to time to begin a new one, for which it
//! asks the driver for all records. The last intact store is kept until the new one is.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::home::{self, Home};
use super::pending::Batch;
use super::store::{Store, Trouble};
use crate::pace::Pace;
use fyrd_core::bounds::{SNAPSHOT_FLUSH, SNAPSHOT_GROWTH, SNAPSHOT_LOG, SNAPSHOT_RETRY, SNAPSHOT_SMALL};
use fyrd_core::node::memory::Marks;
use fyrd_core::time::Time;
use fyrd_keys::replace::sync_directory;

/// What the recorder sends to the thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Write this.
    Batch(Box<Parcel>),
    /// Look at the flag that somebody waits.
    Wake,
    /// Write what there is, and end.
    Finish,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub batch: Batch,
    /// The last commit in it.
    pub number: u64,
    /// The beginning it belongs to.
    pub beginning: u64,
    /// Whether it holds all records, to replace those in the store.
    pub whole: bool,
    /// Whether somebody waits for it.
    pub hurry: bool,
}

/// What the thread shows to the recorder.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// What is certainly on the disk.
    pub durable: Marks,
    /// The last commit taken out of the channel.
    pub taken: u64,
    /// The last commit that is on the disk, all before it included.
    pub stored: u64,
    /// Counts the times that all records were asked for; 1 is the start.
    pub beginning: u64,
    /// Parcels up to this beginning are thrown away.
    pub lost: u64,
    /// Since when it does not record, and why.
    pub trouble: Option<(SystemTime, String)>,
    /// When it began what it is doing, if that concerns the disk.
    pub busy: Option<(Instant, SystemTime)>,
    pub bytes: u64,
    pub records: u64,
    pub flushes: u64,
    pub failures: u64,
    pub last_flush: Option<SystemTime>,
}

impl Progress {
    pub fn new(durable: Marks) -> Self {
        Progress {
            durable,
            taken: 0,
            stored: 0,
            beginning: 1,
            lost: 0,
            trouble: None,
            busy: None,
            bytes: 0,
            records: 0,
            flushes: 0,
            failures: 0,
            last_flush: None,
        }
    }

    /// Nothing is recorded from now on, for this reason.
    pub fn fail(&mut self, reason: String) {
        let since = self.trouble.take().map(|(since, _)| since);
        self.failures += u64::from(since.is_none());
        self.trouble = Some((since.unwrap_or_else(SystemTime::now), reason));
        self.lost = self.beginning;
        self.busy = None;
    }
}

/// What a start hands to the thread.
pub(super) struct Start {
    pub home: Home,
    pub node: String,
    /// The store that counts, and its number; or why there is none yet.
    pub store: Result<(u32, Store), Trouble>,
    pub inbox: Receiver<Message>,
    pub hurry: Arc<AtomicBool>,
    pub progress: watch::Sender<Progress>,
}

/// The store, or when it is tried again.
enum Disk {
    Works(Store),
    Failed {
        next: Instant,
        pause: Duration,
        /// All records have been asked for, and have not come yet.
        asked: bool,
    },
}

pub(super) struct Worker {
    disk: Disk,
    generation: Option<u32>,
    node: String,
    inbox: Receiver<Message>,
    hurry: Arc<AtomicBool>,
    last_flush: Option<Instant>,
    /// The number and the marks of the last parcel that was applied and not flushed.
    applied: Option<(u64, Marks)>,
    /// Bytes after the last rewriting, or the last try.
    rewritten: u64,
    trouble_told: Pace,
    // The lock goes before the driver's end hears that the thread has ended.
    home: Home,
    progress: watch::Sender<Progress>,
}

impl Worker {
    pub fn new(start: Start) -> Self {
        let mut worker = Worker {
            disk: Disk::Failed {
                next: Instant::now(),
                pause: SNAPSHOT_RETRY.0,
                asked: false,
            },
            generation: None,
            node: start.node,
            inbox: start.inbox,
            hurry: start.hurry,
            last_flush: None,
            applied: None,
            rewritten: 0,
            trouble_told: Pace::new(SNAPSHOT_LOG),
            home: start.home,
            progress: start.progress,
        };
        match start.store {
            Ok((generation, store)) => {
                worker.generation = Some(generation);
                worker.disk = Disk::Works(store);
                worker.measure();
            }
            Err(trouble) => worker.fail(&trouble),
        }
        worker
    }

    /// Works until it is told to end, or the driver's end is gone.
    pub fn run(mut self) {
        loop {
            let message = match self.patience() {
                Some(patience) => self.inbox.recv_timeout(patience),
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut hurry = false;
            match message {
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => hurry = self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What waits in the channel shares the flush.
            let mut ends = false;
            while let Ok(message) = self.inbox.try_recv() {
                if matches!(message, Message::Finish) {
                    ends = true;
                    break;
                }
                hurry |= self.take(message);
            }
            if ends {
                break;
            }
            hurry |= self.hurry.swap(false, Ordering::AcqRel);
            let due = self
                .last_flush
                .is_none_or(|last| last.elapsed() >= SNAPSHOT_FLUSH);
            if hurry || due {
                self.flush();
            }
            self.retry();
            self.rewrite_if_large();
        }
        self.flush();
        if let Disk::Works(store) = std::mem::replace(
            &mut self.disk,
            Disk::Failed {
                next: Instant::now(),
                pause: SNAPSHOT_RETRY.1,
                asked: false,
            },
        ) {
            store.close();
        }
    }

    /// How long a message may let wait; `None` is for ever.
    fn patience(&self) -> Option<Duration> {
        match &self.disk {
            Disk::Works(_) if self.applied.is_none() => None,
            Disk::Works(_) => {
                let since = self.last_flush.map_or(SNAPSHOT_FLUSH, |last| last.elapsed());
                Some(SNAPSHOT_FLUSH.saturating_sub(since))
            }
            Disk::Failed { asked: true, .. } => None,
            Disk::Failed { next, .. } => Some(next.saturating_duration_since(Instant::now())),
        }
    }

    /// Takes a message; says whether somebody waits for it.
    fn take(&mut self, message: Message) -> bool {
        let Message::Batch(parcel) = message else {
            return false;
        };
        self.progress
            .send_modify(|progress| progress.taken = parcel.number);
        if parcel.beginning <= self.progress.borrow().lost {
            return false;
        }
        self.busy(true);
        if parcel.whole {
            self.begin_anew(&parcel);
        } else if let Disk::Works(store) = &mut self.disk {
            match store.apply(&parcel.batch, now()) {
                Ok(()) => self.applied = Some((parcel.number, parcel.batch.marks)),
                Err(trouble) => self.fail(&trouble),
            }
        }
        self.busy(false);
        parcel.hurry
    }

    /// Flushes what was applied, and shows that it is on the disk.
    fn flush(&mut self) {
        let Disk::Works(store) = &mut self.disk else {
            return;
        };
        let Some((number, marks)) = self.applied.take() else {
            return;
        };
        let started = Instant::now();
        self.progress
            .send_modify(|progress| progress.busy = Some((started, SystemTime::now())));
        let result = store.flush();
        self.last_flush = Some(Instant::now());
        match result {
            Ok(()) => self.settle(number, marks),
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Shows that a parcel is on the disk.
    fn settle(&mut self, number: u64, marks: Marks) {
        let (bytes, records) = self.size();
        self.progress.send_modify(|progress| {
            progress.durable = marks;
            progress.stored = number;
            progress.trouble = None;
            progress.flushes += 1;
            progress.last_flush = Some(SystemTime::now());
            progress.busy = None;
            (progress.bytes, progress.records) = (bytes, records);
        });
    }

    fn size(&self) -> (u64, u64) {
        match &self.disk {
            Disk::Works(store) => (store.disk_bytes(), store.entries()),
            Disk::Failed { .. } => (home::bytes_below(self.home.path()), 0),
        }
    }

    fn measure(&mut self) {
        let (bytes, records) = self.size();
        self.rewritten = bytes;
        self.progress
            .send_modify(|progress| (progress.bytes, progress.records) = (bytes, records));
    }

    fn busy(&self, busy: bool) {
        // Nobody is woken for it, for nobody waits for it.
        self.progress.send_if_modified(|progress| {
            progress.busy = busy.then(|| (Instant::now(), SystemTime::now()));
            false
        });
    }

    /// Replaces the store by one of this parcel alone.
    fn begin_anew(&mut self, parcel: &Parcel) {
        let built = build(&self.home, &self.node, |store| store.apply(&parcel.batch, now()));
        match built {
            Ok((generation, store)) => {
                self.switch(generation, store);
                self.applied = None;
                let trouble = self.progress.borrow().trouble.clone();
                self.settle(parcel.number, parcel.batch.marks);
                if let Some((since, _)) = trouble {
                    let lasted = since.elapsed().unwrap_or_default().as_secs();
                    info!(target: "serf", "snapshot: recording again, after {lasted}s; everything has been written anew");
                    self.trouble_told.reset();
                }
            }
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Goes on with another store, and closes and removes the one before.
    fn switch(&mut self, generation: u32, store: Store) {
        if let Disk::Works(old) = std::mem::replace(&mut self.disk, Disk::Works(store)) {
            old.close();
        }
        self.generation = Some(generation);
        self.home.clear_except(Some(generation));
        self.measure();
    }

    /// Closes a store that does not work.
    fn fail(&mut self, trouble: &dyn Display) {
        let pause = match &self.disk {
            Disk::Works(_) => SNAPSHOT_RETRY.0,
            Disk::Failed { pause, .. } => (*pause * 2).min(SNAPSHOT_RETRY.1),
        };
        let failed = Disk::Failed {
            next: Instant::now() + pause,
            pause,
            asked: false,
        };
        if let Disk::Works(store) = std::mem::replace(&mut self.disk, failed) {
            store.close();
        }
        self.applied = None;
        let reason = trouble.to_string();
        let path = self.home.path().display();
        if self.trouble_told.allows(Instant::now()) {
            warn!(target: "serf", "snapshot: {path} cannot be written: {reason}; the node goes on without, and tries again");
        }
        self.progress.send_modify(|progress| progress.fail(reason));
    }

    /// Tries the disk when it is time, and asks for all records if it works.
    fn retry(&mut self) {
        let Disk::Failed { next, asked, .. } = &mut self.disk else {
            return;
        };
        if *asked || Instant::now() < *next {
            return;
        }
        match build_unnamed(&self.home, &self.node, |_| Ok(())) {
            Ok((generation, store)) => {
                store.close();
                self.home.remove(generation);
                *asked = true;
                self.progress.send_modify(|progress| progress.beginning += 1);
            }
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Copies the entries into a new store when the log has grown, because sled's log does not shrink.
    fn rewrite_if_large(&mut self) {
        let Disk::Works(store) = &mut self.disk else {
            return;
        };
        let bytes = self.progress.borrow().bytes;
        let bound = SNAPSHOT_SMALL.max(SNAPSHOT_GROWTH.saturating_mul(store.live_bytes()));
        // One that is large although it was just written stays so, and one that could not be written is not
        // tried at each turn.
        if self.applied.is_some() || bytes <= bound || bytes <= self.rewritten.saturating_mul(2) {
            return;
        }
        self.progress
            .send_modify(|progress| progress.busy = Some((Instant::now(), SystemTime::now())));
        let copied = build(&self.home, &self.node, |new| store.copy_into(new));
        match copied {
            Ok((generation, new)) => self.switch(generation, new),
            Err(trouble) => {
                self.rewritten = bytes;
                let path = self.home.path().display();
                warn!(target: "serf", "snapshot: {path} has grown to {bytes} bytes and could not be rewritten: {trouble}");
            }
        }
        self.busy(false);
    }
}

/// Writes a store, and makes it the one that counts.
pub(super) fn build(
    home: &Home,
    node: &str,
    fill: impl FnOnce(&mut Store) -> Result<(), Trouble>,
) -> Result<(u32, Store), Trouble> {
    let (generation, store) = build_unnamed(home, node, fill)?;
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
fn build_unnamed(
    home: &Home,
    node: &str,
    fill: impl FnOnce(&mut Store) -> Result<(), Trouble>,
) -> Result<(u32, Store), Trouble> {
    let generation = home.next()?;
    let directory = home.directory(generation);
    let built = Store::open(&directory).and_then(|mut store| {
        let filled = store
            .begin(node)
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

/// The system's time, from the Unix epoch.
pub(super) fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Time::ZERO + since
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    /// A worker over a new store, with both ends of what goes in and out.
    struct Bench {
        worker: Worker,
        outbox: SyncSender<Message>,
        progress: watch::Receiver<Progress>,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::lock(folder.path(), "a").unwrap();
            let store = build(&home, "a", |store| store.apply(&Batch::default(), now()));
            let (outbox, inbox) = sync_channel(4);
            let (sender, progress) = watch::channel(Progress::new(Marks::default()));
            let worker = Worker::new(Start {
                home,
                node: "a".to_owned(),
                store,
                inbox,
                hurry: Arc::default(),
                progress: sender,
            });
            Bench {
                worker,
                outbox,
                progress,
                folder,
            }
        }

        fn progress(&self) -> Progress {
            self.progress.borrow().clone()
        }

        fn generations(&self) -> usize {
            self.worker.home.generations().unwrap().len()
        }

        /// The pause before the next try.
        fn pause(&self) -> Duration {
            match &self.worker.disk {
                Disk::Works(_) => panic!("it works"),
                Disk::Failed { pause, .. } => *pause,
            }
        }
    }

    fn marks(event: u64) -> Marks {
        Marks {
            event,
            ..Marks::default()
        }
    }

    /// A parcel whose event clock is its number.
    fn parcel(number: u64, beginning: u64, whole: bool) -> Message {
        let batch = Batch {
            marks: marks(number),
            ..Batch::default()
        };
        Message::Batch(Box::new(Parcel {
            batch,
            number,
            beginning,
            whole,
            hurry: false,
        }))
    }

    #[test]
    fn a_parcel_is_durable_only_after_the_flush() {
        let mut bench = Bench::new();
        bench.worker.take(parcel(1, 1, false));
        let seen = bench.progress();
        assert_eq!((seen.taken, seen.stored, seen.durable), (1, 0, marks(0)));
        bench.worker.flush();
        let seen = bench.progress();
        assert_eq!((seen.stored, seen.durable), (1, marks(1)));
    }

    #[test]
    fn what_replaces_the_store_is_not_followed_by_what_was_in_the_one_before() {
        let mut bench = Bench::new();
        bench.worker.take(parcel(1, 1, false));
        bench.worker.take(parcel(2, 1, true));
        bench.worker.flush();
        let seen = bench.progress();
        assert_eq!((seen.stored, seen.durable), (2, marks(2)));
        assert_eq!(bench.generations(), 1);
    }

    /// A disk that fails again while everything is under way would otherwise seem to work from then on, though
    /// the driver's end throws away all that it is told.
    #[test]
    fn everything_that_was_asked_for_before_the_last_failure_is_not_taken() {
        let mut bench = Bench::new();
        bench.worker.fail(&"full");
        bench.worker.take(parcel(1, 1, true));
        let seen = bench.progress();
        assert!(seen.trouble.is_some());
        assert_eq!((seen.taken, seen.stored, seen.durable), (1, 0, marks(0)));
        // What is asked for anew is.
        let Disk::Failed { next, .. } = &mut bench.worker.disk else {
            panic!("it works")
        };
        *next = Instant::now();
        bench.worker.retry();
        assert_eq!(bench.progress().beginning, 2);
        assert_eq!(bench.generations(), 1, "the try has left nothing");
        bench.worker.take(parcel(2, 2, true));
        let seen = bench.progress();
        assert!(seen.trouble.is_none());
        assert_eq!((seen.stored, seen.durable, seen.failures), (2, marks(2), 1));
    }

    #[test]
    fn a_disk_that_stays_full_is_tried_less_and_less_and_told_once() {
        let mut bench = Bench::new();
        // The next number is the highest there is, and a file has it, so no try can succeed.
        fs::write(bench.worker.home.directory(u32::MAX), "").unwrap();
        bench.worker.fail(&"full");
        let told = bench.worker.trouble_told.clone();
        assert_eq!(bench.pause(), SNAPSHOT_RETRY.0);
        let mut pause = SNAPSHOT_RETRY.0;
        for _ in 0..8 {
            bench.worker.retry();
            assert_eq!(bench.pause(), pause, "it was not due");
            let Disk::Failed { next, .. } = &mut bench.worker.disk else {
                panic!("it works")
            };
            *next = Instant::now();
            bench.worker.retry();
            pause = (pause * 2).min(SNAPSHOT_RETRY.1);
            assert_eq!(bench.pause(), pause);
        }
        assert_eq!(pause, SNAPSHOT_RETRY.1);
        assert_eq!(bench.worker.trouble_told, told);
        assert_eq!(bench.progress().failures, 1);
    }

    #[test]
    fn a_store_counts_only_when_it_is_written_and_a_failed_one_leaves_nothing() {
        let bench = Bench::new();
        let home = &bench.worker.home;
        let before = home.current();
        let failed = build(home, "a", |_| {
            assert_eq!(home.current(), before);
            assert_eq!(bench.generations(), 2);
            Err(Trouble::Empty)
        });
        assert!(failed.is_err());
        assert_eq!((home.current(), bench.generations()), (before, 1));
        assert!(!home.path().join("current.new").exists());
    }

    #[test]
    fn who_waits_does_not_wait_until_a_flush_is_due() {
        let mut bench = Bench::new();
        // No flush is due for as long as the test takes.
        bench.worker.last_flush = Instant::now().checked_add(Duration::from_secs(3600));
        let Bench {
            worker,
            outbox,
            mut progress,
            folder: _folder,
        } = bench;
        let hurry = Arc::clone(&worker.hurry);
        let thread = std::thread::spawn(move || worker.run());
        outbox.send(parcel(1, 1, false)).unwrap();
        hurry.store(true, Ordering::Release);
        outbox.send(Message::Wake).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while progress.borrow_and_update().stored < 1 {
            assert!(Instant::now() < until, "never flushed");
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(outbox);
        thread.join().unwrap();
    }
}
