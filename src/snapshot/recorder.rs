//! The driver's end of the store: gathers records, and knows what is on the disk.

use std::mem;
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
use fyrd_core::node::memory::{Marks, Record};

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
/// The order is: [`note`](Recorder::note) the records, [`mark`](Recorder::mark) the clocks, then
/// [`push`](Recorder::push). What one push hands over is written whole or not at all, with the marks of that
/// moment, so that no record is ever newer than the clocks beside it. When the channel has no room, records
/// gather on, coalesced; [`progress`](Recorder::progress) tells when to push again.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    outbox: SyncSender<Message>,
    progress: watch::Receiver<Progress>,
    hurry: Arc<AtomicBool>,
    pending: Batch,
    /// The marks, and whether the node has left, as they were handed over last.
    pushed: (Marks, bool),
    /// The last parcel handed over.
    number: u64,
    /// The beginning that what gathers belongs to.
    beginning: u64,
    /// More gathered than may; all has been dropped, and everything is to be noted anew.
    overflowed: bool,
    /// What gathers is everything.
    whole: bool,
    /// The channel had no room at the last push.
    refused: bool,
    /// Somebody waits for what gathers.
    hurried: bool,
    /// What [`progress`](Recorder::progress) returned for last.
    told: News,
}

/// What the driver wants to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    settled: u64,
    beginning: u64,
    lost: u64,
    works: bool,
}

impl Recorder {
    pub(super) fn new(
        path: PathBuf,
        outbox: SyncSender<Message>,
        progress: watch::Receiver<Progress>,
        hurry: Arc<AtomicBool>,
    ) -> Self {
        let marks = progress.borrow().durable;
        let mut recorder = Recorder {
            path,
            outbox,
            progress,
            hurry,
            pending: Batch::default(),
            pushed: (marks, false),
            number: 0,
            beginning: 1,
            overflowed: false,
            whole: false,
            refused: false,
            hurried: false,
            told: News::default(),
        };
        recorder.pending.marks = marks;
        recorder.told = recorder.news();
        recorder
    }

    /// Takes a record. A later one of the same name, or Lamport time and place, replaces it.
    pub fn note(&mut self, record: Record) {
        if self.is_lost() {
            return;
        }
        let of_member = matches!(record, Record::Member(_) | Record::ForgetMember(_));
        if of_member && self.pending.left && !self.whole {
            return;
        }
        self.pending.note(record);
        if self.pending.len() > SNAPSHOT_PENDING {
            self.pending.take();
            // As soon as the thread takes something again, the store begins anew.
            (self.overflowed, self.refused) = (true, true);
        }
    }

    /// Takes the node's marks as they are now. None of them runs backwards.
    pub fn mark(&mut self, marks: Marks) {
        let held = &mut self.pending.marks;
        *held = Marks {
            incarnation: held.incarnation.max(marks.incarnation),
            member: held.member.max(marks.member),
            event: held.event.max(marks.event),
            query: held.query.max(marks.query),
            event_floor: held.event_floor.max(marks.event_floor),
            query_floor: held.query_floor.max(marks.query_floor),
        };
    }

    /// Hands over what has gathered, if there is room.
    pub fn push(&mut self) {
        if self.is_lost() {
            self.pending.take();
            return;
        }
        let state = (self.pending.marks, self.pending.left);
        if self.pending.len() == 0 && state == self.pushed && !self.whole {
            self.hurried = false;
            return;
        }
        // Only one parcel waits in the channel, so that what comes after it is coalesced here.
        if self.progress.borrow().taken < self.number {
            self.refused = true;
            return;
        }
        let parcel = Parcel {
            batch: self.pending.take(),
            number: self.number + 1,
            beginning: self.beginning,
            whole: self.whole,
            hurry: self.hurried,
        };
        match self.outbox.try_send(Message::Batch(Box::new(parcel))) {
            Ok(()) => {
                self.number += 1;
                self.pushed = state;
                (self.whole, self.hurried, self.refused) = (false, false, false);
            }
            Err(TrySendError::Full(Message::Batch(parcel))) => {
                self.pending = parcel.batch;
                self.refused = true;
            }
            // The thread has ended, which `is_recording` tells.
            Err(_) => {}
        }
    }

    /// Has all that was pushed, or will be with the next push, flushed at once, for somebody waits for it.
    /// Without it a flush may come as late as 100 ms after the one before.
    pub fn hurry(&mut self) {
        self.hurried = true;
        if self.progress.borrow().settled < self.number && !self.hurry.swap(true, Ordering::AcqRel) {
            // Without room there is a message that wakes the thread anyway.
            let _ = self.outbox.try_send(Message::Wake);
        }
    }

    /// What is certainly on the disk.
    pub fn durable(&self) -> Marks {
        self.progress.borrow().durable
    }

    /// The number of the push that hands over, or has handed over, the last of what has been noted so far.
    pub fn noted(&self) -> u64 {
        let gathers = self.pending.len() > 0 || self.whole;
        self.number + u64::from(gathers || (self.pending.marks, self.pending.left) != self.pushed)
    }

    /// The number of the last push that is on the disk, all before it included.
    pub fn settled(&self) -> u64 {
        self.progress.borrow().settled
    }

    /// Waits until [`durable`](Recorder::durable) has grown, room for another push has come, or the state has
    /// changed. Can be dropped at any time without loss.
    pub async fn progress(&mut self) {
        loop {
            let news = self.news();
            let room = self.refused && self.progress.borrow().taken == self.number;
            if news != self.told || room {
                self.told = news;
                self.refused = false;
                return;
            }
            if self.progress.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn news(&self) -> News {
        let progress = self.progress.borrow();
        News {
            settled: progress.settled,
            beginning: progress.beginning,
            lost: progress.lost,
            works: progress.trouble.is_none(),
        }
    }

    /// Whether records are kept. While they are not, nothing becomes durable, and nobody should wait for it.
    /// After an interruption this is true again once everything has been written anew.
    pub fn is_recording(&self) -> bool {
        let progress = self.progress.borrow();
        let stalled = progress
            .busy
            .is_some_and(|(since, _)| since.elapsed() > SNAPSHOT_STALL);
        progress.trouble.is_none() && !stalled && !self.overflowed && self.progress.has_changed().is_ok()
    }

    /// Whether the store begins anew, so that all records must be noted again, the marks too, and pushed. True
    /// once for each such beginning.
    pub fn wants_everything(&mut self) -> bool {
        let progress = self.progress.borrow();
        let asked = progress.beginning > self.beginning;
        let caught_up = self.overflowed && progress.lost < self.beginning && progress.taken == self.number;
        self.beginning = progress.beginning;
        drop(progress);
        if !asked && !caught_up {
            return false;
        }
        self.pending.take();
        self.overflowed = false;
        self.whole = true;
        true
    }

    /// Whether what gathers would be thrown away.
    fn is_lost(&self) -> bool {
        self.overflowed || self.progress.borrow().lost >= self.beginning
    }

    /// Remembers that the node has left gracefully. Later records of members are ignored, for they only tell
    /// how the others see it go. Flushed at once.
    pub fn leave(&mut self) {
        self.pending.left = true;
        self.hurry();
        self.push();
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
            loop {
                self.push();
                if !self.refused {
                    break;
                }
                self.progress().await;
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
        if !mem::take(&mut self.refused) {
            self.push();
        }
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

    #[tokio::test]
    async fn records_gather_while_one_parcel_waits() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.push();
        assert!(inbox.try_recv().is_err(), "nothing to say");
        recorder.note(Record::Query((1, 1)));
        recorder.push();
        for id in 2..5 {
            recorder.note(Record::Query((1, id)));
            recorder.push();
        }
        recorder.note(Record::ForgetQueries(1));
        recorder.note(Record::Query((1, 9)));
        assert_eq!(parcel(&inbox).batch.queries[&1].seen.len(), 1);
        assert!(inbox.try_recv().is_err());
        progress.send_modify(|progress| progress.taken = 1);
        recorder.progress().await;
        recorder.push();
        let slot = &parcel(&inbox).batch.queries[&1];
        assert!(slot.forget && slot.seen.iter().eq([&9]));
    }

    #[tokio::test]
    async fn what_gathers_without_bound_is_replaced_by_everything() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        recorder.push();
        let names = 0..=SNAPSHOT_PENDING;
        for name in names {
            recorder.note(Record::ForgetMember(name.to_string().into()));
        }
        assert!(!recorder.is_recording() && recorder.pending.len() == 0);
        recorder.push();
        assert!(!recorder.wants_everything(), "the parcel before still waits");
        progress.send_modify(|progress| progress.taken = 1);
        recorder.progress().await;
        assert!(recorder.wants_everything() && !recorder.wants_everything());
        assert!(!parcel(&inbox).whole);
        recorder.note(Record::Query((2, 1)));
        recorder.push();
        assert!(parcel(&inbox).whole);
    }

    #[tokio::test]
    async fn a_thread_that_fails_or_ends_is_not_waited_for() {
        let (mut recorder, inbox, progress) = recorder();
        assert!(recorder.is_recording());
        progress.send_modify(|progress| {
            progress.trouble = Some((SystemTime::now(), "full".into()));
            progress.lost = 1;
        });
        recorder.progress().await;
        recorder.note(Record::Query((1, 1)));
        recorder.push();
        assert!(!recorder.is_recording() && inbox.try_recv().is_err());
        progress.send_modify(|progress| progress.beginning = 2);
        recorder.progress().await;
        assert!(recorder.wants_everything() && !recorder.is_recording());
        recorder.push();
        let whole = parcel(&inbox);
        assert!(whole.whole && whole.beginning == 2);
        progress.send_modify(|progress| progress.trouble = None);
        assert!(recorder.is_recording());
        let long_ago = std::time::Instant::now().checked_sub(SNAPSHOT_STALL * 2);
        progress.send_modify(|progress| progress.busy = Some((long_ago.unwrap(), SystemTime::now())));
        assert!(!recorder.is_recording(), "it hangs");
        assert!(matches!(recorder.watch().status().state, State::Degraded { .. }));
        progress.send_modify(|progress| progress.busy = None);
        drop(progress);
        assert!(!recorder.is_recording());
        recorder.finish(Duration::from_secs(60)).await;
    }

    #[test]
    fn who_waits_wakes_the_thread_once() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.hurry();
        assert!(inbox.try_recv().is_err(), "the next push says it");
        recorder.note(Record::Query((1, 1)));
        recorder.push();
        assert!(parcel(&inbox).hurry);
        recorder.hurry();
        recorder.hurry();
        assert!(matches!(inbox.try_recv(), Ok(Message::Wake)));
        assert!(inbox.try_recv().is_err());
        assert!(recorder.hurry.swap(false, Ordering::AcqRel));
        progress.send_modify(|progress| (progress.taken, progress.settled) = (1, 1));
        recorder.hurry();
        assert!(inbox.try_recv().is_err(), "all is on the disk");
    }

    #[test]
    fn a_leave_is_flushed_at_once_and_a_store_begun_anew_after_it_still_holds_the_members() {
        let (mut recorder, inbox, progress) = recorder();
        recorder.leave();
        let left = parcel(&inbox);
        assert!(left.batch.left && left.hurry);
        progress.send_modify(|progress| (progress.taken, progress.beginning) = (1, 2));
        assert!(recorder.wants_everything());
        recorder.note(Record::ForgetMember("b".into()));
        recorder.push();
        let whole = parcel(&inbox);
        assert!(whole.whole && whole.batch.left);
        assert_eq!(whole.batch.members.len(), 1);
    }

    #[test]
    fn what_has_gathered_is_handed_over_in_the_end() {
        let (mut recorder, inbox, _progress) = recorder();
        recorder.note(Record::Query((1, 1)));
        drop(recorder);
        assert_eq!(parcel(&inbox).batch.queries.len(), 1);
    }

    #[test]
    fn marks_never_run_backwards() {
        let (mut recorder, inbox, _progress) = recorder();
        let all = |at: u32| Marks {
            incarnation: at,
            member: at.into(),
            event: at.into(),
            query: at.into(),
            event_floor: at.into(),
            query_floor: at.into(),
        };
        recorder.mark(all(5));
        recorder.mark(all(3));
        recorder.push();
        assert_eq!(parcel(&inbox).batch.marks, all(5));
    }
}
