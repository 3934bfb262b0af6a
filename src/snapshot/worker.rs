//! The thread that writes the snapshot.
//!
//! It takes batches out of a short channel, applies each in one transaction, and flushes: at once when it had
//! been idle or somebody waits, else [`SNAPSHOT_FLUSH`] after the flush before. When the disk fails it closes
//! the store, which sled has given up by then, and tries from time to time to begin a new one, for which it
//! asks the driver for all records. The last intact store is kept until the new one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::disk::{Disk, build_unnamed};
use super::found::Owner;
use super::home::Home;
use super::pending::Batch;
use super::place::{self, Place};
use super::trouble::Trouble;
use super::{SnapshotConfig, essence, files};
use crate::pace::Pace;
use fyrd_core::bounds::{
    SNAPSHOT_FLUSH, SNAPSHOT_GROWTH, SNAPSHOT_LOG, SNAPSHOT_LOOK, SNAPSHOT_RETRY, SNAPSHOT_SMALL,
};
use fyrd_core::node::memory::Marks;
use fyrd_core::time::Time;

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
    /// The directory, if there is one already.
    pub home: Option<Home>,
    pub config: SnapshotConfig,
    pub owner: Owner,
    /// The last batch that is known of.
    pub serial: u64,
    /// The store that counts; or why there is none yet.
    pub disk: Result<Disk, Trouble>,
    pub inbox: Receiver<Message>,
    pub hurry: Arc<AtomicBool>,
    pub progress: watch::Sender<Progress>,
}

/// The store, or when it is tried again.
enum State {
    Works(Box<Disk>),
    Failed {
        next: Instant,
        pause: Duration,
        /// All records have been asked for, and have not come yet.
        asked: bool,
    },
}

pub(super) struct Worker {
    state: State,
    config: SnapshotConfig,
    owner: Owner,
    /// The last batch, also of a store that has failed since.
    serial: u64,
    inbox: Receiver<Message>,
    hurry: Arc<AtomicBool>,
    last_flush: Option<Instant>,
    /// When the files were looked after.
    last_look: Instant,
    /// The number and the marks of the last parcel that was applied and not flushed.
    applied: Option<(u64, Marks)>,
    /// Bytes of the store after the last flush.
    store_bytes: u64,
    /// The same after the last rewriting, or the last try.
    rewritten: u64,
    trouble_told: Pace,
    // The lock goes before the driver's end hears that the thread has ended.
    home: Option<Home>,
    progress: watch::Sender<Progress>,
}

impl Worker {
    pub fn new(start: Start) -> Self {
        let mut worker = Worker {
            state: State::Failed {
                next: Instant::now(),
                pause: SNAPSHOT_RETRY.0,
                asked: false,
            },
            config: start.config,
            owner: start.owner,
            serial: start.serial,
            inbox: start.inbox,
            hurry: start.hurry,
            last_flush: None,
            last_look: Instant::now(),
            applied: None,
            store_bytes: 0,
            rewritten: 0,
            trouble_told: Pace::new(SNAPSHOT_LOG),
            home: start.home,
            progress: start.progress,
        };
        match start.disk {
            Ok(disk) => {
                worker.state = State::Works(Box::new(disk));
                worker.measure();
            }
            Err(trouble) => worker.fail(&trouble),
        }
        worker
    }

    /// Works until it is told to end, or the driver's end is gone.
    pub fn run(mut self) {
        loop {
            let mut hurry = false;
            match self.inbox.recv_timeout(self.patience()) {
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => hurry = self.take(message),
                Err(RecvTimeoutError::Timeout) => self.use_leisure(),
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
        self.use_leisure();
        let ended = State::Failed {
            next: Instant::now(),
            pause: SNAPSHOT_RETRY.1,
            asked: false,
        };
        if let State::Works(disk) = std::mem::replace(&mut self.state, ended) {
            disk.close();
        }
    }

    /// How long a message may let wait.
    fn patience(&self) -> Duration {
        match &self.state {
            State::Works(disk) if self.applied.is_some() || disk.has_leisure() => {
                let since = self.last_flush.map_or(SNAPSHOT_FLUSH, |last| last.elapsed());
                SNAPSHOT_FLUSH.saturating_sub(since)
            }
            State::Works(_) | State::Failed { asked: true, .. } => SNAPSHOT_LOOK,
            State::Failed { next, .. } => next.saturating_duration_since(Instant::now()),
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
        } else if let (State::Works(disk), Some(home)) = (&mut self.state, &self.home) {
            match disk.apply(home, &parcel.batch, now()) {
                Ok(()) => self.applied = Some((parcel.number, parcel.batch.marks)),
                Err(trouble) => self.fail(&trouble),
            }
        }
        self.busy(false);
        parcel.hurry
    }

    /// Flushes what was applied, and shows that it is on the disk.
    fn flush(&mut self) {
        let (State::Works(disk), Some(home)) = (&mut self.state, &self.home) else {
            return;
        };
        let Some((number, marks)) = self.applied.take() else {
            return;
        };
        let started = Instant::now();
        self.progress
            .send_modify(|progress| progress.busy = Some((started, SystemTime::now())));
        let result = disk.flush(home);
        self.last_flush = Some(Instant::now());
        self.last_look = started;
        match result {
            Ok(()) => self.settle(number, marks),
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Does what can wait while nothing else is to be done.
    fn use_leisure(&mut self) {
        let (State::Works(disk), Some(home)) = (&mut self.state, &self.home) else {
            return;
        };
        if self.applied.is_some() {
            return;
        }
        let mut result = Ok(());
        // What is appended to a file that somebody has cut would hide the cut.
        if disk.has_leisure() || self.last_look.elapsed() >= SNAPSHOT_LOOK {
            self.last_look = Instant::now();
            result = disk.look(home);
        }
        if let Err(trouble) = result.and_then(|()| disk.use_leisure()) {
            self.fail(&trouble);
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

    fn size(&mut self) -> (u64, u64) {
        match (&self.state, &self.home) {
            (State::Works(disk), Some(home)) => {
                self.store_bytes = disk.store_bytes();
                (self.store_bytes + essence::bytes(home.path()), disk.entries())
            }
            (_, Some(home)) => (files::bytes_below(home.path()), 0),
            (_, None) => (0, 0),
        }
    }

    fn measure(&mut self) {
        let (bytes, records) = self.size();
        self.rewritten = self.store_bytes;
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
        let Some(home) = &self.home else { return };
        if let State::Works(disk) = &mut self.state {
            self.serial = disk.serial();
            disk.release_essence();
        }
        self.serial += 1;
        match Disk::begin(home, &self.owner, &parcel.batch, self.serial, now()) {
            Ok(disk) => {
                self.switch(disk);
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
    fn switch(&mut self, disk: Disk) {
        let generation = disk.generation();
        if let State::Works(old) = std::mem::replace(&mut self.state, State::Works(Box::new(disk))) {
            old.close();
        }
        if let Some(home) = &self.home {
            home.clear_except(Some(generation));
        }
        self.measure();
    }

    /// Closes a store that does not work.
    fn fail(&mut self, trouble: &Trouble) {
        let mut pause = match &self.state {
            State::Works(_) => SNAPSHOT_RETRY.0,
            State::Failed { pause, .. } => (*pause * 2).min(SNAPSHOT_RETRY.1),
        };
        let mut next = Instant::now() + pause;
        if let (Trouble::Gone(_), State::Works(_)) = (trouble, &self.state) {
            // Nothing says that the disk does not work.
            (pause, next) = (SNAPSHOT_RETRY.0, Instant::now());
        }
        let failed = State::Failed {
            next,
            pause,
            asked: false,
        };
        if let State::Works(disk) = std::mem::replace(&mut self.state, failed) {
            self.serial = self.serial.max(disk.serial());
            disk.close();
        }
        self.applied = None;
        let reason = trouble.to_string();
        let path = self.config.path.display();
        if self.trouble_told.allows(Instant::now()) {
            warn!(target: "serf", "snapshot: {path} cannot be written: {reason}; the node goes on without, and tries again");
        }
        self.progress.send_modify(|progress| progress.fail(reason));
    }

    /// Tries the disk when it is time, and asks for all records if it works.
    fn retry(&mut self) {
        match &self.state {
            State::Failed {
                next, asked: false, ..
            } if *next <= Instant::now() => {}
            _ => return,
        }
        let owner = self.owner.clone();
        let tried = self.settle_in().and_then(|home| {
            let (generation, store) = build_unnamed(home, &owner, |_| Ok(()))?;
            store.close();
            home.remove(generation);
            Ok(())
        });
        match tried {
            Ok(()) => {
                if let State::Failed { asked, .. } = &mut self.state {
                    *asked = true;
                }
                self.progress.send_modify(|progress| progress.beginning += 1);
            }
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Has a directory that is locked, also where there was none before or somebody has taken it away.
    fn settle_in(&mut self) -> Result<&Home, Trouble> {
        if self.home.as_ref().is_some_and(|home| !home.is_there()) {
            self.home = None;
        }
        if self.home.is_none() {
            let Place { home, kept, .. } = place::take(&self.config, now())?;
            let home = home?;
            if let Some(kept) = kept {
                info!(target: "serf", "Imported Serf's snapshot, which is kept as {}", kept.display());
            }
            if let Some(warning) = place::unlocked_warning(&home) {
                warn!(target: "serf", "{warning}");
            }
            // What stands there is of another life, or older, and must not seem to be newer than what comes.
            let there = essence::read(home.path(), now())?
                .found
                .map_or(0, |found| found.serial);
            self.serial = self.serial.max(there);
            self.home = Some(home);
        }
        self.home
            .as_ref()
            .ok_or_else(|| Trouble::Gone(self.config.path.display().to_string()))
    }

    /// Copies the entries into a new store when the log has grown.
    fn rewrite_if_large(&mut self) {
        let (State::Works(disk), Some(home)) = (&mut self.state, &self.home) else {
            return;
        };
        if self.applied.is_some() {
            return;
        }
        if let Err(trouble) = disk.shrink_essence() {
            return self.fail(&trouble);
        }
        let bytes = self.store_bytes;
        let bound = SNAPSHOT_SMALL.max(SNAPSHOT_GROWTH.saturating_mul(disk.live_bytes()));
        // One that is large although it was just written stays so, and one that could not be written is not
        // tried at each turn.
        if bytes <= bound || bytes <= self.rewritten.saturating_mul(2) {
            return;
        }
        self.progress
            .send_modify(|progress| progress.busy = Some((Instant::now(), SystemTime::now())));
        match disk.rewrite(home) {
            Ok(()) => self.measure(),
            Err(trouble) => {
                self.rewritten = bytes;
                let path = home.path().display();
                warn!(target: "serf", "snapshot: {path} has grown to {bytes} bytes and could not be rewritten: {trouble}");
            }
        }
        self.busy(false);
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
    use crate::snapshot::disk::build;

    fn full() -> Trouble {
        Trouble::Damaged("full".to_owned())
    }

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
            let owner = Owner::default();
            let disk = Disk::begin(&home, &owner, &Batch::default(), 1, now());
            let (outbox, inbox) = sync_channel(4);
            let (sender, progress) = watch::channel(Progress::new(Marks::default()));
            let worker = Worker::new(Start {
                home: Some(home),
                config: SnapshotConfig {
                    path: folder.path().to_owned(),
                    node: "a".to_owned(),
                    forget_left_members: true,
                },
                owner,
                serial: 1,
                disk,
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

        fn home(&self) -> &Home {
            self.worker.home.as_ref().unwrap()
        }

        fn progress(&self) -> Progress {
            self.progress.borrow().clone()
        }

        fn generations(&self) -> usize {
            self.home().generations().unwrap().len()
        }

        /// The pause before the next try.
        fn pause(&self) -> Duration {
            match &self.worker.state {
                State::Works(_) => panic!("it works"),
                State::Failed { pause, .. } => *pause,
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
        bench.worker.fail(&full());
        bench.worker.take(parcel(1, 1, true));
        let seen = bench.progress();
        assert!(seen.trouble.is_some());
        assert_eq!((seen.taken, seen.stored, seen.durable), (1, 0, marks(0)));
        // What is asked for anew is.
        let State::Failed { next, .. } = &mut bench.worker.state else {
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
        fs::write(bench.home().directory(u32::MAX), "").unwrap();
        bench.worker.fail(&full());
        let told = bench.worker.trouble_told.clone();
        assert_eq!(bench.pause(), SNAPSHOT_RETRY.0);
        let mut pause = SNAPSHOT_RETRY.0;
        for _ in 0..8 {
            bench.worker.retry();
            assert_eq!(bench.pause(), pause, "it was not due");
            let State::Failed { next, .. } = &mut bench.worker.state else {
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
        let home = bench.home();
        let before = home.current();
        let failed = build(home, &Owner::default(), |_| {
            assert_eq!(home.current(), before);
            assert_eq!(bench.generations(), 2);
            Err(Trouble::Empty)
        });
        assert!(failed.is_err());
        assert_eq!((home.current(), bench.generations()), (before, 1));
        assert!(!home.path().join("current.new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_that_was_cut_is_not_gone_on_with_at_leisure() {
        let mut bench = Bench::new();
        bench.worker.take(parcel(1, 1, false));
        bench.worker.flush();
        // The first flush writes the first copy, so that the second one is behind.
        let copy = fs::File::options()
            .write(true)
            .open(bench.folder.path().join("essence-2"));
        copy.unwrap().set_len(10).unwrap();
        bench.worker.use_leisure();
        let trouble = bench.progress().trouble.map(|(_, reason)| reason);
        assert!(
            trouble.is_some_and(|reason| reason.contains("essence")),
            "it is not noticed"
        );
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
