//! Nothing leaves this node that it could take back: output waits until the clocks it shows are on disk.
//!
//! Whoever restarts from a store must go on above all that it has said. Reserving clocks ahead would do as
//! well, but leave gaps: every event within the gap of one crashed node is lost on those who join by it
//! (they ignore what is older than its clock), and gaps use up the window in which events are told apart. So
//! clocks are stored as they are, and what shows them waits for the disk. That is seldom, and short:
//! datagrams wait only for what this node itself has said, streams (whole states) for what it has heard too.
//! A disk that is slow or in trouble holds up the network only once, for [`bounds::HOLD_MAX`].

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Drive, Driver};
use crate::bounds;
use crate::node::Effect;
use crate::node::memory::Marks;
use crate::snapshot::Recorder;

/// Something that waits for the disk.
pub(super) enum Output {
    /// A datagram, or a stream to dial.
    Effect(Effect),
    /// The reply on an inbound stream.
    Reply(oneshot::Sender<Vec<u8>>, Vec<u8>),
    /// Somebody who wants to know that all is stored.
    Word(oneshot::Sender<()>),
}

/// The recorder, and what waits for it.
pub(super) struct Commit {
    recorder: Recorder,
    /// The last clocks that the recorder has been told.
    marks: Marks,
    datagrams: VecDeque<(Marks, Output)>,
    streams: VecDeque<(Marks, Output)>,
    /// When the patience with the disk ends.
    until: Option<Instant>,
    /// The patience has ended; nothing waits until the disk has caught up with this.
    overdue: Option<Marks>,
}

impl Commit {
    pub fn new(recorder: Recorder) -> Self {
        Commit {
            marks: recorder.durable(),
            recorder,
            datagrams: VecDeque::new(),
            streams: VecDeque::new(),
            until: None,
            overdue: None,
        }
    }

    /// The node leaves for good.
    pub fn leave(&mut self) {
        self.recorder.leave();
    }

    /// When something has waited for long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Comes back when the recorder has news.
    pub async fn progress(&mut self) {
        self.recorder.progress().await;
    }

    pub fn into_recorder(self) -> Recorder {
        self.recorder
    }

    /// Whether what shows these clocks must wait.
    fn must_wait(&self, needs: &Marks) -> bool {
        self.overdue.is_none() && self.recorder.is_recording() && !self.recorder.durable().cover(needs)
    }

    fn waiting(&self) -> usize {
        self.datagrams.len() + self.streams.len()
    }

    /// What may go now, in its order.
    fn release(&mut self) -> Vec<Output> {
        let durable = self.recorder.durable();
        if self.overdue.is_some_and(|marks| durable.cover(&marks)) {
            self.overdue = None;
        }
        let too_long = self.until.is_some_and(|until| until <= Instant::now());
        if too_long || self.waiting() > bounds::HELD_OUTPUT || !self.recorder.is_recording() {
            self.overdue = Some(self.marks);
        }
        let all = self.overdue.is_some();
        let mut free = Vec::new();
        for queue in [&mut self.datagrams, &mut self.streams] {
            while let Some((_, output)) = queue.pop_front_if(|(needs, _)| all || durable.cover(needs)) {
                free.push(output);
            }
        }
        if self.waiting() == 0 {
            self.until = None;
        }
        free
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
        commit
            .until
            .get_or_insert_with(|| Instant::now() + bounds::HOLD_MAX);
        let queue = if streams {
            &mut commit.streams
        } else {
            &mut commit.datagrams
        };
        queue.push_back((needs, output));
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
                        .push_back((Marks::default(), Output::Effect(effect))),
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
        let needs = self.node.marks();
        match &mut self.commit {
            Some(commit) if commit.must_wait(&needs) => {
                commit
                    .until
                    .get_or_insert_with(|| Instant::now() + bounds::HOLD_MAX);
                commit.streams.push_back((needs, Output::Word(word)));
                self.record();
            }
            _ => drop(word.send(())),
        }
    }
}
