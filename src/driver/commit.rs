//! Nothing leaves this node that it could take back: output waits until the clocks it shows are on disk.
//!
//! Whoever restarts from a store must go on above all that it has said. Reserving clocks ahead would do as
//! well, but leave gaps: every event within the gap of one crashed node is lost on those who join by it
//! (they ignore what is older than its clock), and gaps use up the window in which events are told apart. So
//! clocks are stored as they are, and what shows them waits for the disk. That is seldom, and short:
//! datagrams wait only for what this node itself has said, streams (whole states) for what it has heard too.
//! A disk that is slow or in trouble holds up the network only once, for [`bounds::HOLD_MAX`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Drive, Driver};
use crate::snapshot::Recorder;
use fyrd_core::bounds;
use fyrd_core::node::Effect;
use fyrd_core::node::memory::{Marks, Record};

/// Who keeps records: [`Recorder`], whose methods these are, or in tests something that can be slow at will.
pub trait Keep {
    /// See [`Recorder::note`].
    fn note(&mut self, record: Record);
    /// See [`Recorder::mark`].
    fn mark(&mut self, marks: Marks);
    /// See [`Recorder::push`].
    fn push(&mut self);
    /// See [`Recorder::hurry`].
    fn hurry(&mut self);
    /// See [`Recorder::leave`].
    fn leave(&mut self);
    /// See [`Recorder::durable`].
    fn durable(&self) -> Marks;
    /// See [`Recorder::noted`].
    fn noted(&self) -> u64;
    /// See [`Recorder::settled`].
    fn settled(&self) -> u64;
    /// See [`Recorder::is_recording`].
    fn is_recording(&self) -> bool;
    /// See [`Recorder::wants_everything`].
    fn wants_everything(&mut self) -> bool;
    /// See [`Recorder::progress`].
    fn progress(&mut self) -> impl Future<Output = ()>;
    /// See [`Recorder::finish`].
    fn finish(self, patience: Duration) -> impl Future<Output = ()>;
}

impl Keep for Recorder {
    fn note(&mut self, record: Record) {
        self.note(record);
    }

    fn mark(&mut self, marks: Marks) {
        self.mark(marks);
    }

    fn push(&mut self) {
        self.push();
    }

    fn hurry(&mut self) {
        self.hurry();
    }

    fn leave(&mut self) {
        self.leave();
    }

    fn durable(&self) -> Marks {
        self.durable()
    }

    fn noted(&self) -> u64 {
        self.noted()
    }

    fn settled(&self) -> u64 {
        self.settled()
    }

    fn is_recording(&self) -> bool {
        self.is_recording()
    }

    fn wants_everything(&mut self) -> bool {
        self.wants_everything()
    }

    async fn progress(&mut self) {
        self.progress().await;
    }

    async fn finish(self, patience: Duration) {
        self.finish(patience).await;
    }
}

/// Something that waits for the disk.
enum Output {
    /// A datagram, or a stream to dial.
    Effect(Effect),
    /// The reply on an inbound stream.
    Reply(oneshot::Sender<Vec<u8>>, Vec<u8>),
    /// Somebody who wants to know that all is stored.
    Word(oneshot::Sender<()>),
}

/// What it waits for, and since when.
struct Held<T> {
    needs: T,
    since: Instant,
    output: Output,
}

/// The recorder, and what waits for it.
pub(super) struct Commit<R> {
    recorder: R,
    /// The last clocks that the recorder has been told.
    marks: Marks,
    datagrams: VecDeque<Held<Marks>>,
    streams: VecDeque<Held<Marks>>,
    /// These wait for records as well, so for a push and all before it.
    words: VecDeque<Held<u64>>,
    /// How long they wait at most.
    patience: Duration,
    /// The patience has ended; nothing waits until the disk has caught up with this.
    overdue: Option<Marks>,
}

impl<R: Keep> Commit<R> {
    pub fn new(recorder: R) -> Self {
        Commit {
            marks: recorder.durable(),
            recorder,
            datagrams: VecDeque::new(),
            streams: VecDeque::new(),
            words: VecDeque::new(),
            patience: bounds::HOLD_MAX,
            overdue: None,
        }
    }

    /// The node leaves for good.
    pub fn leave(&mut self) {
        self.recorder.leave();
    }

    /// When something has waited for long enough.
    pub fn deadline(&self) -> Option<Instant> {
        let firsts = [
            self.datagrams.front().map(|held| held.since),
            self.streams.front().map(|held| held.since),
            self.words.front().map(|held| held.since),
        ];
        firsts
            .into_iter()
            .flatten()
            .min()
            .map(|since| since + self.patience)
    }

    /// Comes back when the recorder has news.
    pub async fn progress(&mut self) {
        self.recorder.progress().await;
    }

    pub fn into_recorder(self) -> R {
        self.recorder
    }

    /// Whether there is a use in waiting.
    fn waits(&self) -> bool {
        let caught_up = |marks: Marks| self.recorder.durable().cover(&marks);
        self.overdue.is_none_or(caught_up) && self.recorder.is_recording()
    }

    /// Whether what shows these clocks must wait.
    fn must_wait(&self, needs: &Marks) -> bool {
        self.waits() && !self.recorder.durable().cover(needs)
    }

    fn waiting(&self) -> usize {
        self.datagrams.len() + self.streams.len() + self.words.len()
    }

    /// What may go now, in its order.
    fn release(&mut self) -> Vec<Output> {
        let (durable, settled) = (self.recorder.durable(), self.recorder.settled());
        if self.overdue.is_some_and(|marks| durable.cover(&marks)) {
            self.overdue = None;
        }
        let mut free = Vec::new();
        self.release_covered(&durable, settled, &mut free);
        let too_long = self.deadline().is_some_and(|until| until <= Instant::now());
        if too_long || self.waiting() > bounds::HELD_OUTPUT || !self.recorder.is_recording() {
            self.overdue = Some(self.marks);
            free.extend(self.datagrams.drain(..).map(|held| held.output));
            free.extend(self.streams.drain(..).map(|held| held.output));
            free.extend(self.words.drain(..).map(|held| held.output));
        }
        free
    }

    fn release_covered(&mut self, durable: &Marks, settled: u64, free: &mut Vec<Output>) {
        for queue in [&mut self.datagrams, &mut self.streams] {
            while let Some(held) = queue.pop_front_if(|held| durable.cover(&held.needs)) {
                free.push(held.output);
            }
        }
        while let Some(held) = self.words.pop_front_if(|held| held.needs <= settled) {
            free.push(held.output);
        }
    }
}

/// What begins to wait now.
fn held<T>(needs: T, output: Output) -> Held<T> {
    Held {
        needs,
        since: Instant::now(),
        output,
    }
}

impl<N: Drive> Driver<N> {
    /// Keeps an effect back that must not be seen yet, notes one that is to be recorded, and gives the
    /// others back to be carried out.
    pub(super) fn commit(&mut self, effect: Effect) -> Option<Effect> {
        let Some(commit) = &mut self.commit else {
            return Some(effect);
        };
        let (streams, needs) = match &effect {
            Effect::Send { .. } => (false, self.node.said()),
            Effect::Exchange { .. } | Effect::Reply { .. } => (true, self.node.marks()),
            _ => (false, Marks::default()),
        };
        let effect = match effect {
            Effect::Record(record) => {
                commit.recorder.note(record);
                return None;
            }
            effect if !commit.must_wait(&needs) => return Some(effect),
            effect => effect,
        };
        let output = match effect {
            Effect::Reply { id, plain } => {
                let (_, waiting) = self.current_stream.take_if(|(current, _)| *current == id)?;
                Output::Reply(waiting, plain)
            }
            effect => Output::Effect(effect),
        };
        let queue = if streams {
            &mut commit.streams
        } else {
            &mut commit.datagrams
        };
        queue.push_back(held(needs, output));
        None
    }

    /// Tells the recorder where the clocks stand, and lets go what has waited for it.
    pub(super) fn record(&mut self) {
        let now = self.now();
        let Some(commit) = &mut self.commit else { return };
        if commit.recorder.wants_everything() {
            self.node.record_everything(now);
            while let Some(effect) = self.node.poll_effect() {
                match effect {
                    Effect::Record(record) => commit.recorder.note(record),
                    effect => commit
                        .datagrams
                        .push_back(held(Marks::default(), Output::Effect(effect))),
                }
            }
            commit.recorder.mark(self.node.marks());
        }
        let marks = self.node.marks();
        if marks != commit.marks {
            commit.marks = marks;
            commit.recorder.mark(marks);
        }
        if commit.waiting() > 0 {
            commit.recorder.hurry();
        }
        commit.recorder.push();
        let was_overdue = commit.overdue.is_some();
        let free = commit.release();
        if !was_overdue && commit.overdue.is_some() && commit.recorder.is_recording() {
            self.ledger.warning(format_args!(
                "the snapshot's disk is slow: sent what it has not stored yet"
            ));
        }
        for output in free {
            match output {
                Output::Effect(effect) => self.perform(effect),
                Output::Reply(waiting, plain) => self.send_reply(waiting, plain),
                Output::Word(waiting) => drop(waiting.send(())),
            }
        }
    }

    /// Gives word when all that the node knows now is stored, or the patience with the disk has ended.
    pub(super) fn give_word(&mut self, word: oneshot::Sender<()>) {
        match &mut self.commit {
            Some(commit) if commit.waits() => {
                // A member that has failed, say, is a record that moves no clock.
                let needs = commit.recorder.noted();
                commit.words.push_back(held(needs, Output::Word(word)));
                self.record();
            }
            _ => drop(word.send(())),
        }
    }
}
