//! The driver's end of the store: gathers what the node tells, and reports what is on the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use super::pending::Batch;
use super::worker::{Message, Parcel, Progress};
use fyrd_core::bounds::{SNAPSHOT_PENDING, SNAPSHOT_STALL};
use fyrd_core::node::StoreNews;
use fyrd_core::node::memory::{Commit, Marks, Record};

/// Whether the node's records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// They are.
    Recording,
    /// They are not; the disk is tried again from time to time.
    Degraded {
        /// Since when.
        since: SystemTime,
        /// Why.
        reason: String,
    },
}

/// What users may want to know about the snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it works.
    pub state: State,
    /// The clocks on the disk.
    pub durable: Marks,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Entries in the store: members, events and queries.
    pub records: u64,
    /// Flushes that have succeeded.
    pub flushes: u64,
    /// Times the recording has been interrupted.
    pub failures: u64,
    /// When the last flush succeeded.
    pub last_flush: Option<SystemTime>,
}

/// A view of the store's status for other tasks.
#[derive(Clone, Debug)]
pub struct Watch {
    path: PathBuf,
    progress: watch::Receiver<Progress>,
}

impl Watch {
    /// How it is now.
    pub fn status(&self) -> Status {
        let progress = self.progress.borrow();
        let stalled = progress
            .busy
            .filter(|(since, _)| since.elapsed() > SNAPSHOT_STALL)
            .map(|(_, since)| (since, "the disk does not answer".to_owned()));
        let state = match progress.trouble.clone().or(stalled) {
            None => State::Recording,
            Some((since, reason)) => State::Degraded { since, reason },
        };
        Status {
            path: self.path.clone(),
            state,
            durable: progress.durable,
            bytes: progress.bytes,
            records: progress.records,
            flushes: progress.flushes,
            failures: progress.failures,
            last_flush: progress.last_flush,
        }
    }
}

/// Takes the node's records, and has them written. No method blocks.
///
/// What one commit closes is written whole or not at all, with the clocks of that moment, so that no record is
/// ever newer than the clocks beside it. When the channel has no room, commits gather, coalesced into one.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    outbox: SyncSender<Message>,
    progress: watch::Receiver<Progress>,
    hurry: Arc<AtomicBool>,
    /// What gathers, and the last commit of it.
    pending: Batch,
    gathered: u64,
    /// The last commit handed over.
    pushed: u64,
    /// Whether records were noted that no commit has closed yet.
    open: bool,
    /// The beginning that what gathers belongs to.
    beginning: u64,
    /// More gathered than may; all has been dropped, and everything is to be noted anew.
    overflowed: bool,
    /// What gathers is everything.
    whole: bool,
    /// Somebody waits for what gathers.
    hurried: bool,
    /// What the node has heard: the last commit stored, and whether records are kept.
    told: (u64, bool),
}

impl Recorder {
    pub(super) fn new(
        path: PathBuf,
        outbox: SyncSender<Message>,
        progress: watch::Receiver<Progress>,
        hurry: Arc<AtomicBool>,
    ) -> Self {
        let pending = Batch {
            marks: progress.borrow().durable,
            ..Batch::default()
        };
        Recorder {
            path,
            outbox,
            progress,
            hurry,
            pending,
            gathered: 0,
            pushed: 0,
            open: false,
            beginning: 1,
            overflowed: false,
            whole: false,
            hurried: false,
            told: (0, true),
        }
    }

    /// Takes a record. A later one of the same name, or Lamport time and place, replaces it.
    pub fn note(&mut self, record: Record) {
        if self.is_lost() {
            return;
        }
        self.open = true;
        self.pending.note(record);
        if self.pending.len() > SNAPSHOT_PENDING {
            self.pending.take();
            // As soon as the thread takes something again, the store begins anew.
            self.overflowed = true;
        }
    }

    /// Has all records written that were noted since the last commit, with these clocks. None of them runs
    /// backwards. One that is in a hurry is flushed at once, with all before it; others within 100 ms.
    pub fn commit(&mut self, commit: Commit) {
        self.open = false;
        self.gathered = commit.number;
        self.pending.left |= commit.left;
        self.pending.raise(commit.marks);
        self.hurried |= commit.hurry;
        let before = self.pushed;
        self.push();
        // A parcel says it itself, unless it must wait for the one before.
        let is_said = self.pushed > before || self.progress.borrow().stored >= self.pushed;
        if commit.hurry && !is_said && !self.hurry.swap(true, Ordering::AcqRel) {
            // Without room there is a message that wakes the thread anyway.
            let _ = self.outbox.try_send(Message::Wake);
        }
    }

    /// Hands over what has gathered, if there is room; `false` if there is none.
    fn push(&mut self) -> bool {
        if self.gathered == self.pushed || self.open || self.is_lost() {
            return true;
        }
        // Only one parcel waits in the channel, so that what comes after it is coalesced here.
        if self.progress.borrow().taken < self.pushed {
            return false;
        }
        let parcel = Parcel {
            batch: self.pending.take(),
            number: self.gathered,
            beginning: self.beginning,
            whole: self.whole,
            hurry: self.hurried,
        };
        match self.outbox.try_send(Message::Batch(Box::new(parcel))) {
            Ok(()) => {
                self.pushed = self.gathered;
                (self.whole, self.hurried) = (false, false);
                true
            }
            Err(TrySendError::Full(Message::Batch(parcel))) => {
                self.pending = parcel.batch;
                false
            }
            // The thread has ended, which the node is told.
            Err(_) => true,
        }
    }

    /// The next thing that the node must hear. Can be dropped at any time without loss.
    pub async fn news(&mut self) -> StoreNews {
        loop {
            self.push();
            if let Some(news) = self.take_news() {
                return news;
            }
            if self.progress.changed().await.is_err() {
                if std::mem::take(&mut self.told.1) {
                    return StoreNews::Fails;
                }
                return std::future::pending().await;
            }
        }
    }

    fn take_news(&mut self) -> Option<StoreNews> {
        let progress = self.progress.borrow_and_update();
        let (stored, beginning) = (progress.stored, progress.beginning);
        let is_lost = self.overflowed || progress.lost >= self.beginning;
        let has_room = progress.lost < self.beginning && progress.taken == self.pushed;
        drop(progress);
        if stored > self.told.0 {
            self.told.0 = stored;
            return Some(StoreNews::Stored(stored));
        }
        if is_lost && self.told.1 {
            self.told.1 = false;
            return Some(StoreNews::Fails);
        }
        if beginning > self.beginning || (self.overflowed && has_room) {
            self.beginning = beginning;
            self.pending.take();
            // Nothing is handed over before the node has told all of it.
            (self.overflowed, self.whole, self.open) = (false, true, true);
            self.told.1 = true;
            return Some(StoreNews::WantsEverything);
        }
        None
    }

    /// Whether what gathers would be thrown away.
    fn is_lost(&self) -> bool {
        self.overflowed || self.progress.borrow().lost >= self.beginning
    }

    /// A view of the status for other tasks.
    pub fn watch(&self) -> Watch {
        Watch {
            path: self.path.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Writes and flushes what has gathered, ends the thread and releases the lock, or gives up waiting after
    /// this time.
    pub async fn finish(mut self, patience: Duration) {
        let _ = timeout(patience, async {
            while !self.push() {
                if self.progress.changed().await.is_err() {
                    return;
                }
            }
            while let Err(TrySendError::Full(_)) = self.outbox.try_send(Message::Finish) {
                if self.progress.changed().await.is_err() {
                    return;
                }
            }
            // The thread's end closes this.
            while self.progress.changed().await.is_ok() {}
        })
        .await;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Whoever drops it without more ado still wants what has gathered.
        self.push();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    fn recorder() -> (Recorder, Receiver<Message>, watch::Sender<Progress>) {
        let (outbox, inbox) = sync_channel(4);
        let (progress, view) = watch::channel(Progress::new(Marks::default()));
        (
            Recorder::new(PathBuf::new(), outbox, view, Arc::default()),
            inbox,
            progress,
        )
    }

    fn parcel(inbox: &Receiver<Message>) -> Parcel {
        match inbox.try_recv().unwrap() {
            Message::Batch(parcel) => *parcel,
            other => panic!("{other:?}"),
        }
    }

    fn commit(number: u64) -> Commit {
        Commit {
            number,
            ..Commit::default()
        }
    }

    #[tokio::test]
    async fn commits_gather_while_one_parcel_waits() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        assert!(inbox.try_recv().is_err(), "the batch is open");
        recorder.commit(commit(1));
        for id in 2..5 {
            recorder.note(Record::Query((1, id)));
            recorder.commit(commit(id.into()));
        }
        recorder.note(Record::ForgetQueries(1));
        recorder.note(Record::Query((1, 9)));
        recorder.commit(commit(5));
        let first = parcel(&inbox);
        assert_eq!((first.number, first.batch.queries[&1].seen.len()), (1, 1));
        assert!(inbox.try_recv().is_err());
        progress.send_modify(|progress| (progress.taken, progress.stored) = (1, 1));
        assert_eq!(recorder.news().await, StoreNews::Stored(1));
        let second = parcel(&inbox);
        let slot = &second.batch.queries[&1];
        assert!(second.number == 5 && slot.forget && slot.seen.iter().eq([&9]));
    }

    #[tokio::test]
    async fn a_batch_that_is_not_closed_is_not_written() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        recorder.commit(commit(1));
        recorder.note(Record::Query((1, 2)));
        recorder.commit(commit(2));
        recorder.note(Record::Query((1, 3)));
        parcel(&inbox);
        progress.send_modify(|progress| progress.taken = 1);
        assert!(recorder.push() && inbox.try_recv().is_err());
        recorder.commit(commit(3));
        assert_eq!(parcel(&inbox).number, 3);
    }

    #[tokio::test]
    async fn what_gathers_without_bound_is_replaced_by_everything() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        recorder.commit(commit(1));
        for name in 0..=SNAPSHOT_PENDING {
            recorder.note(Record::ForgetMember(name.to_string().into()));
        }
        assert!(recorder.pending.len() == 0);
        recorder.commit(commit(2));
        assert_eq!(recorder.news().await, StoreNews::Fails);
        assert_eq!(recorder.take_news(), None, "the parcel before still waits");
        progress.send_modify(|progress| progress.taken = 1);
        assert_eq!(recorder.news().await, StoreNews::WantsEverything);
        assert_eq!(recorder.take_news(), None, "once");
        assert!(!parcel(&inbox).whole);
        recorder.note(Record::Query((2, 1)));
        recorder.commit(commit(3));
        assert!(parcel(&inbox).whole);
    }

    #[tokio::test]
    async fn a_thread_that_fails_or_ends_is_told_of_once() {
        let (mut recorder, inbox, progress) = recorder();
        let status = |recorder: &Recorder| recorder.watch().status().state;
        assert_eq!(status(&recorder), State::Recording);
        progress.send_modify(|progress| progress.fail("full".into()));
        assert_eq!(recorder.news().await, StoreNews::Fails);
        assert_eq!(recorder.take_news(), None);
        recorder.note(Record::Query((1, 1)));
        recorder.commit(commit(1));
        assert!(matches!(status(&recorder), State::Degraded { .. }) && inbox.try_recv().is_err());
        progress.send_modify(|progress| progress.beginning = 2);
        assert_eq!(recorder.news().await, StoreNews::WantsEverything);
        recorder.commit(commit(2));
        let whole = parcel(&inbox);
        assert!(whole.whole && whole.beginning == 2 && whole.batch.len() == 0);
        progress.send_modify(|progress| progress.trouble = None);
        assert_eq!(status(&recorder), State::Recording);
        let long_ago = std::time::Instant::now().checked_sub(SNAPSHOT_STALL * 2);
        progress.send_modify(|progress| progress.busy = Some((long_ago.unwrap(), SystemTime::now())));
        assert!(matches!(status(&recorder), State::Degraded { .. }), "it hangs");
        drop(progress);
        assert_eq!(recorder.news().await, StoreNews::Fails);
        recorder.finish(Duration::from_secs(60)).await;
    }

    #[test]
    fn who_waits_wakes_the_thread_once() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        recorder.commit(Commit {
            hurry: true,
            ..commit(1)
        });
        assert!(parcel(&inbox).hurry);
        assert!(inbox.try_recv().is_err(), "the parcel says it");
        for _ in 0..2 {
            recorder.commit(Commit {
                hurry: true,
                ..commit(1)
            });
        }
        assert!(matches!(inbox.try_recv(), Ok(Message::Wake)));
        assert!(inbox.try_recv().is_err(), "the thread has not looked yet");
        assert!(recorder.hurry.swap(false, Ordering::AcqRel));
        progress.send_modify(|progress| (progress.taken, progress.stored) = (1, 1));
        recorder.commit(Commit {
            hurry: true,
            ..commit(1)
        });
        assert!(inbox.try_recv().is_err(), "all is on the disk");
    }

    #[test]
    fn a_store_begun_anew_after_a_leave_knows_of_it_and_holds_the_members() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.commit(Commit {
            left: true,
            hurry: true,
            ..commit(1)
        });
        let left = parcel(&inbox);
        assert!(left.batch.left && left.hurry);
        progress.send_modify(|progress| (progress.taken, progress.beginning) = (1, 2));
        assert_eq!(recorder.take_news(), Some(StoreNews::WantsEverything));
        recorder.note(Record::ForgetMember("b".into()));
        recorder.commit(Commit {
            left: true,
            ..commit(2)
        });
        let whole = parcel(&inbox);
        assert!(whole.whole && whole.batch.left);
        assert_eq!(whole.batch.members.len(), 1);
    }

    #[test]
    fn what_has_gathered_is_handed_over_in_the_end() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.commit(commit(1));
        recorder.note(Record::Query((1, 1)));
        recorder.commit(commit(2));
        parcel(&inbox);
        progress.send_modify(|progress| progress.taken = 1);
        drop(recorder);
        assert_eq!(parcel(&inbox).batch.queries.len(), 1);
    }

    #[test]
    fn marks_never_run_backwards() {
        let (mut recorder, inbox, progress) = recorder();
        let all = |at: u32| Marks {
            incarnation: at,
            member: at.into(),
            event: at.into(),
            query: at.into(),
            event_floor: at.into(),
            query_floor: at.into(),
        };
        for (number, at) in [(1, 5), (2, 3)] {
            recorder.commit(Commit {
                marks: all(at),
                ..commit(number)
            });
            assert_eq!(parcel(&inbox).batch.marks, all(5));
            progress.send_modify(|progress| progress.taken = number);
        }
    }
}
