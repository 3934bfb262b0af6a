//! Nothing leaves this node that it could not stand by after a crash: output waits until the clocks that it
//! shows are on the disk.
//!
//! A node that restarts from a store must go on above all clocks that it has shown to others. Reserving clocks
//! ahead would do as well, but leave gaps: every event within the gap of one crashed node is lost on those who join by it
//! (they ignore what is older than its clock), and gaps use up the window in which events are told apart. So
//! clocks are stored as they are, and what shows them waits for the disk. That is seldom, and short:
//! datagrams wait only for what this node itself has broadcast, streams (push/pulls) for what it has heard too.
//!
//! All that a node tells its store goes in commits, numbered from 1. A commit closes what was recorded since
//! the one before, and carries the clocks of that moment. What must wait waits for the number of the commit
//! that stores it. A disk that is slow or in trouble holds up the network only once, for [`HOLD_MAX`].

use std::collections::VecDeque;

use tracing::warn;

use super::{CommandId, Effect, StoreNews, StreamId};
use crate::bounds::{HELD_OUTPUT, HOLD_MAX, SNAPSHOT_LOG};
use crate::outbox::Outbox;
use crate::serf::Answer;
use crate::serf::memory::{Commit, Marks, Record};
use crate::time::Time;

/// What waits for the store, and what the store has been told.
#[derive(Debug)]
pub(super) struct Hold {
    /// Whether there is a store at all; without one nothing waits, and nothing is told.
    keeps: bool,
    now: Time,
    /// The number of the last commit.
    commit: u64,
    /// The clocks now, and the commit that stores them: the last one or the next.
    marks: Marks,
    marks_in: u64,
    /// The high-water marks of what this node has broadcast, and the commit that stores them.
    announced: Marks,
    announced_in: u64,
    /// Whether anything was recorded since the last commit.
    recorded: bool,
    /// Whether everything is being recorded, and not only what changes.
    everything: bool,
    /// Whether this node leaves, and whether the store knows.
    leaves: bool,
    leave_told: bool,
    /// The store has been told to hurry with all commits up to this one.
    hurried: u64,
    /// All commits up to this one are on the disk.
    stored: u64,
    disk: Disk,
    datagrams: VecDeque<Held<Effect>>,
    streams: VecDeque<Held<Effect>>,
    /// Users who want to know that all is stored.
    words: VecDeque<Held<CommandId>>,
    /// What has waited for long enough.
    free: Outbox<Effect>,
    last_warning: Option<Time>,
}

/// Whether there is a use in waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    KeepsUp,
    /// Nothing waits until it has stored this commit.
    Behind(u64),
    /// It records nothing, and will want everything once it does.
    Fails,
}

/// Something that waits for a commit, and since when.
#[derive(Debug)]
struct Held<T> {
    needs: u64,
    since: Time,
    what: T,
}

impl Hold {
    /// For a node that begins with these clocks, which are stored.
    pub fn new(keeps: bool, stored: Marks, now: Time) -> Self {
        Hold {
            keeps,
            now,
            commit: 0,
            marks: stored,
            marks_in: 0,
            announced: Marks::default(),
            announced_in: 0,
            recorded: false,
            everything: false,
            leaves: false,
            leave_told: false,
            hurried: 0,
            stored: 0,
            disk: Disk::KeepsUp,
            datagrams: VecDeque::new(),
            streams: VecDeque::new(),
            words: VecDeque::new(),
            free: Outbox::default(),
            last_warning: None,
        }
    }

    /// Takes the time and the clocks as they are after an input. Call it before what that input has brought
    /// about goes through [`Hold::pass`].
    pub fn look(&mut self, now: Time, marks: Marks, announced: Marks) {
        self.now = now;
        if marks != self.marks {
            (self.marks, self.marks_in) = (marks, self.commit + 1);
        }
        if announced != self.announced {
            (self.announced, self.announced_in) = (announced, self.marks_in);
        }
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end_patience();
        }
    }

    /// Gives an effect back that may be carried out now.
    pub fn pass(&mut self, effect: Effect) -> Option<Effect> {
        let (queue, needs) = match &effect {
            Effect::Record(record) => return self.is_wanted(record).then_some(effect),
            Effect::Send { .. } => (&mut self.datagrams, self.announced_in),
            Effect::Exchange { .. } | Effect::Reply { .. } => (&mut self.streams, self.marks_in),
            _ => return Some(effect),
        };
        if !self.keeps || self.disk != Disk::KeepsUp || needs <= self.stored {
            return Some(effect);
        }
        queue.push_back(Held {
            needs,
            since: self.now,
            what: effect,
        });
        if self.waiting() > HELD_OUTPUT {
            self.end_patience();
        }
        None
    }

    /// What has waited for long enough.
    pub fn poll_free(&mut self) -> Option<Effect> {
        self.free.pop_front()
    }

    /// Closes what was recorded since the last commit, once all effects have passed; or tells the store to
    /// hurry, where something has begun to wait for what it has been told before.
    pub fn poll_commit(&mut self) -> Option<Effect> {
        if !self.keeps || self.disk == Disk::Fails {
            return None;
        }
        let is_new = self.next_commit() > self.commit;
        self.commit = self.next_commit();
        let hurry = self.awaited() > self.hurried || self.leaves != self.leave_told;
        if !is_new && !hurry {
            return None;
        }
        if hurry {
            self.hurried = self.commit;
        }
        (self.recorded, self.everything, self.leave_told) = (false, false, self.leaves);
        Some(Effect::Commit(Commit {
            number: self.commit,
            marks: self.marks,
            left: self.leaves,
            hurry,
        }))
    }

    /// Takes word of the store. Everything must be recorded when it wants that.
    pub fn hear(&mut self, news: StoreNews) {
        match news {
            StoreNews::Stored(commit) => {
                self.stored = self.stored.max(commit);
                if matches!(self.disk, Disk::Behind(until) if until <= self.stored) {
                    self.disk = Disk::KeepsUp;
                }
                let stored = self.stored;
                for queue in [&mut self.datagrams, &mut self.streams] {
                    while let Some(held) = queue.pop_front_if(|held| held.needs <= stored) {
                        self.free.push_back(held.what);
                    }
                }
                while let Some(held) = self.words.pop_front_if(|held| held.needs <= stored) {
                    self.free.push_back(word(held.what));
                }
            }
            StoreNews::Fails => {
                self.disk = Disk::Fails;
                self.release_all();
            }
            StoreNews::WantsEverything => {
                self.everything = true;
                self.disk = Disk::Behind(self.next_commit());
                self.release_all();
            }
        }
    }

    /// Answers this command once all that the node knows now is stored, or nothing waits any more.
    pub fn give_word(&mut self, command: CommandId) {
        let needs = self.next_commit();
        if !self.keeps || self.disk != Disk::KeepsUp || needs <= self.stored {
            return self.free.push_back(word(command));
        }
        self.words.push_back(Held {
            needs,
            since: self.now,
            what: command,
        });
    }

    /// The node leaves for good. What it hears of other members from now on only tells how they see it go,
    /// and is not recorded.
    pub fn leave(&mut self) {
        self.leaves = true;
    }

    /// Whether a reply on this stream waits.
    pub fn holds_reply(&self, stream: StreamId) -> bool {
        let is_it = |held: &Held<Effect>| matches!(held.what, Effect::Reply { id, .. } if id == stream);
        self.streams.iter().any(is_it)
    }

    /// Whether all that has been sent is stored.
    pub fn vouches(&self) -> bool {
        self.keeps && self.disk == Disk::KeepsUp
    }

    /// When something has waited for long enough.
    pub fn deadline(&self) -> Option<Time> {
        let firsts = [
            self.datagrams.front().map(|held| held.since),
            self.streams.front().map(|held| held.since),
            self.words.front().map(|held| held.since),
        ];
        firsts.into_iter().flatten().min().map(|since| since + HOLD_MAX)
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.datagrams.len() + self.streams.len() + self.words.len()
    }

    /// The number of the commit that stores all that is known now.
    fn next_commit(&self) -> u64 {
        let is_open = self.recorded || self.everything || self.leaves != self.leave_told;
        self.marks_in.max(self.commit + u64::from(is_open))
    }

    /// The last commit that anything waits for.
    fn awaited(&self) -> u64 {
        let lasts = [
            self.datagrams.back().map(|held| held.needs),
            self.streams.back().map(|held| held.needs),
            self.words.back().map(|held| held.needs),
        ];
        lasts.into_iter().flatten().max().unwrap_or(0)
    }

    /// Whether a record is worth telling; it opens the next commit then.
    fn is_wanted(&mut self, record: &Record) -> bool {
        let of_member = matches!(record, Record::Member(_) | Record::ForgetMember(_));
        let is_wanted = self.disk != Disk::Fails && (self.everything || !of_member || !self.leaves);
        self.recorded |= is_wanted;
        is_wanted
    }

    fn end_patience(&mut self) {
        self.disk = Disk::Behind(self.next_commit());
        self.release_all();
        let is_due = |last: Time| self.now.since(last) >= SNAPSHOT_LOG;
        if self.last_warning.is_none_or(is_due) {
            self.last_warning = Some(self.now);
            warn!(target: "memberlist", "the snapshot's disk is slow: sent what it has not stored yet");
        }
    }

    fn release_all(&mut self) {
        let effects = self.datagrams.drain(..).chain(self.streams.drain(..));
        self.free.extend(effects.map(|held| held.what));
        self.free.extend(self.words.drain(..).map(|held| word(held.what)));
    }
}

fn word(id: CommandId) -> Effect {
    Effect::Answer {
        id,
        answer: Answer::Done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::ExchangeId;

    /// A node with an event clock and nothing else, and the hold behind it.
    struct Scene {
        hold: Hold,
        now: Time,
        clock: u64,
        announced: u64,
        /// The last commit.
        commit: Commit,
    }

    impl Scene {
        fn new() -> Self {
            Scene {
                hold: Hold::new(true, Marks::default(), Time::ZERO),
                now: Time::ZERO,
                clock: 0,
                announced: 0,
                commit: Commit::default(),
            }
        }

        /// What comes out after an input that has brought these effects about, in short.
        fn step(&mut self, effects: Vec<Effect>) -> Vec<String> {
            let event = |event| Marks {
                event,
                ..Marks::default()
            };
            self.hold.look(self.now, event(self.clock), event(self.announced));
            let mut out = Vec::new();
            for effect in effects {
                out.extend(self.hold.pass(effect));
            }
            out.splice(0..0, std::iter::from_fn(|| self.hold.poll_free()));
            out.extend(self.hold.poll_commit());
            let mut shown = Vec::new();
            for effect in out {
                match effect {
                    Effect::Commit(commit) => self.commit = commit,
                    Effect::Send { plain, .. } => shown.push(String::from_utf8(plain).unwrap()),
                    Effect::Reply { id, .. } => shown.push(format!("reply {}", id.0)),
                    Effect::Exchange { id, .. } => shown.push(format!("dial {}", id.0)),
                    Effect::Answer { id, .. } => shown.push(format!("word {}", id.0)),
                    Effect::Record(_) => shown.push("record".to_owned()),
                    other => panic!("{other:?}"),
                }
            }
            shown
        }

        fn say(&mut self, text: &str) -> Vec<String> {
            self.clock += 1;
            self.announced = self.clock;
            self.step(vec![send(text)])
        }

        fn hear_and_pass_on(&mut self) -> Vec<String> {
            self.clock += 1;
            self.step(vec![send("heard")])
        }

        fn hear(&mut self, news: StoreNews) -> Vec<String> {
            self.hold.hear(news);
            self.step(Vec::new())
        }

        fn ask_word(&mut self, id: u64) -> Vec<String> {
            self.hold.give_word(CommandId(id));
            self.step(Vec::new())
        }

        fn pass_time(&mut self, ms: u64) -> Vec<String> {
            self.now += Duration::from_millis(ms);
            self.step(Vec::new())
        }
    }

    fn send(text: &str) -> Effect {
        Effect::Send {
            to: ([127, 0, 0, 1], 1).into(),
            plain: text.into(),
            crc: false,
        }
    }

    fn reply(id: u64) -> Effect {
        Effect::Reply {
            id: StreamId(id),
            plain: Vec::new(),
        }
    }

    fn dial(id: u64) -> Effect {
        Effect::Exchange {
            id: ExchangeId(id),
            to: ([127, 0, 0, 1], 1).into(),
            plain: Vec::new(),
            expect_reply: true,
            timeout: Duration::ZERO,
        }
    }

    fn forget(name: &str) -> Effect {
        Effect::Record(Record::ForgetMember(name.into()))
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn datagrams_wait_for_what_this_node_has_said_and_go_in_order() {
        let mut scene = Scene::new();
        for (text, number) in [("one", 1), ("two", 2), ("three", 3)] {
            assert_eq!(scene.say(text), NOTHING);
            assert!(scene.commit.hurry, "somebody waits, and the store is told");
            assert_eq!((scene.commit.number, scene.commit.marks.event), (number, number));
        }
        assert_eq!(scene.hear(StoreNews::Stored(1)), ["one"]);
        assert_eq!(scene.hear(StoreNews::Stored(3)), ["two", "three"]);
        assert_eq!(scene.hear_and_pass_on(), ["heard"], "others have said it");
        assert!(!scene.commit.hurry, "nobody waits");
        assert!(scene.hold.vouches());
    }

    #[test]
    fn replies_and_dialled_streams_wait_for_what_was_heard_as_well() {
        let mut scene = Scene::new();
        assert_eq!(scene.hear_and_pass_on(), ["heard"]);
        let told = scene.commit;
        assert_eq!((told.number, told.hurry), (1, false));
        assert_eq!(scene.step(vec![reply(7), dial(8), send("more")]), ["more"]);
        assert!(scene.hold.holds_reply(StreamId(7)) && !scene.hold.holds_reply(StreamId(8)));
        let hurry = true;
        assert_eq!(scene.commit, Commit { hurry, ..told }, "it was not urgent before");
        assert_eq!(scene.hear(StoreNews::Stored(1)), ["reply 7", "dial 8"]);
        assert!(!scene.hold.holds_reply(StreamId(7)));
        assert_eq!(scene.step(vec![reply(9)]), ["reply 9"]);
    }

    /// A member that failed was on the disk only after the next flush, though `info` had been answered.
    #[test]
    fn the_word_that_all_is_stored_counts_records_that_move_no_clock() {
        let mut scene = Scene::new();
        assert_eq!(scene.step(vec![forget("somebody")]), ["record"]);
        assert_eq!(scene.ask_word(1), NOTHING);
        assert!(scene.commit.hurry);
        assert_eq!(scene.hear(StoreNews::Stored(1)), ["word 1"]);
        assert_eq!(scene.ask_word(2), ["word 2"], "nothing is new");
    }

    /// A disk that hangs says nothing, so there is nothing but the time to tell.
    #[test]
    fn the_word_is_given_in_the_end_though_nothing_else_happens() {
        let mut scene = Scene::new();
        scene.step(vec![forget("somebody")]);
        assert_eq!(scene.ask_word(1), NOTHING);
        assert_eq!(scene.hold.deadline(), Some(Time::ZERO + HOLD_MAX));
        assert_eq!(scene.pass_time(249), NOTHING);
        assert_eq!(scene.pass_time(1), ["word 1"]);
        assert_eq!(scene.ask_word(2), ["word 2"], "and once only");
    }

    #[test]
    fn a_slow_disk_is_waited_for_once() {
        let mut scene = Scene::new();
        scene.say("one");
        assert_eq!(scene.pass_time(250), ["one"]);
        assert!(!scene.hold.vouches());
        // It is still behind; even these would otherwise wait.
        assert_eq!(scene.say("two"), ["two"]);
        assert_eq!(scene.step(vec![reply(1)]), ["reply 1"]);
        assert_eq!(scene.ask_word(1), ["word 1"]);
        scene.hear(StoreNews::Stored(1));
        assert_eq!(
            scene.step(vec![reply(2)]),
            NOTHING,
            "it has caught up, and counts again"
        );
        assert_eq!(scene.hear(StoreNews::Stored(2)), ["reply 2"]);
        assert_eq!(scene.say("three"), NOTHING);
        let told = scene.hold.last_warning;
        assert_eq!(scene.pass_time(250), ["three"]);
        assert_eq!(scene.hold.last_warning, told, "users are told once in a while");
    }

    #[test]
    fn nothing_waits_for_a_disk_in_trouble() {
        let mut scene = Scene::new();
        scene.say("one");
        assert_eq!(scene.step(vec![reply(1)]), NOTHING);
        assert_eq!(scene.hear(StoreNews::Fails), ["one", "reply 1"]);
        let last = scene.commit;
        assert_eq!(scene.say("two"), ["two"]);
        assert_eq!(
            scene.step(vec![forget("somebody")]),
            NOTHING,
            "nobody would keep it"
        );
        assert_eq!(scene.ask_word(1), ["word 1"]);
        assert_eq!(scene.commit, last);
        // It works again, but what was sent meanwhile is not stored yet.
        scene.hear(StoreNews::WantsEverything);
        assert_eq!(scene.commit.number, 2);
        assert_eq!(scene.say("three"), ["three"]);
        assert!(!scene.hold.vouches());
        assert_eq!(scene.hear(StoreNews::Stored(2)), NOTHING);
        assert!(scene.hold.vouches());
        assert_eq!(scene.say("four"), NOTHING);
        assert_eq!(scene.hear(StoreNews::Stored(4)), ["four"]);
    }

    #[test]
    fn a_store_that_begins_anew_is_told_everything_with_one_commit() {
        let mut scene = Scene::new();
        scene.say("one");
        scene.hear(StoreNews::Stored(1));
        scene.hold.hear(StoreNews::WantsEverything);
        assert_eq!(scene.step(vec![forget("everybody")]), ["record"]);
        assert_eq!((scene.commit.number, scene.commit.marks.event), (2, 1));
        assert_eq!(scene.step(Vec::new()), NOTHING);
        assert_eq!(scene.commit.number, 2);
    }

    #[test]
    fn after_a_leave_what_happens_to_members_is_not_recorded() {
        let mut scene = Scene::new();
        scene.hold.leave();
        assert_eq!(scene.step(vec![forget("b")]), NOTHING);
        let left = scene.commit;
        assert!(
            (left.number, left.left, left.hurry) == (1, true, true),
            "{left:?}"
        );
        let query = Effect::Record(Record::Query((1, 1)));
        assert_eq!(scene.step(vec![query, forget("c")]), ["record"]);
        assert!(scene.commit.number == 2 && scene.commit.left);
        // A store that begins anew must hold the members, for the node may want to rejoin after a restart.
        scene.hold.hear(StoreNews::WantsEverything);
        assert_eq!(scene.step(vec![forget("c")]), ["record"]);
        assert!(scene.commit.left);
    }

    /// When something always waits, because more is broadcast before the last is stored, the patience must not end.
    #[test]
    fn patience_counts_for_each_output_anew() {
        let mut scene = Scene::new();
        scene.say("one");
        scene.pass_time(200);
        scene.say("two");
        scene.hear(StoreNews::Stored(1));
        assert_eq!(scene.pass_time(100), NOTHING);
        assert_eq!(
            scene.hold.deadline(),
            Some(Time::ZERO + Duration::from_millis(450))
        );
        assert_eq!(scene.pass_time(150), ["two"]);
        assert_eq!(scene.hold.deadline(), None);
    }

    #[test]
    fn too_much_output_does_not_wait() {
        let mut scene = Scene::new();
        scene.say("first");
        for _ in 1..HELD_OUTPUT {
            assert_eq!(scene.step(vec![send("more")]), NOTHING);
        }
        assert_eq!(scene.hold.waiting(), HELD_OUTPUT);
        let all = scene.step(vec![send("last")]);
        assert_eq!(
            (all.len(), &*all[0], &*all[HELD_OUTPUT]),
            (HELD_OUTPUT + 1, "first", "last")
        );
        assert_eq!(scene.say("next"), ["next"]);
    }

    #[test]
    fn without_a_store_nothing_waits_and_nothing_is_told() {
        let mut scene = Scene::new();
        scene.hold = Hold::new(false, Marks::default(), Time::ZERO);
        assert_eq!(scene.say("one"), ["one"]);
        assert_eq!(scene.ask_word(1), ["word 1"]);
        assert_eq!(scene.commit, Commit::default());
    }
}
