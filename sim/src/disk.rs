//! A host's disk: what its node has told, and how much of that a crash leaves.
//!
//! The node's commits wait in memory until a flush brings them to the disk, as they do in an agent: at once
//! where somebody waits, else 100 ms after the flush before. Whatever waits when the host crashes is lost; of
//! a flush under way nobody knows whether it still succeeds.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;

use super::happening::{Happening, Power};
use super::{HostId, World};
use fyrd_core::bounds::SNAPSHOT_FLUSH;
use fyrd_core::node::memory::{Commit, Keeper, Marks, Memory, Record};
use fyrd_core::node::{Input, StoreNews};
use fyrd_core::time::Time;

/// How a disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Every commit is stored at once.
    Swift,
    /// Each flush takes so long.
    Slow(Duration),
    /// No flush ends.
    Hangs,
    /// It takes nothing. Once it does again, the store is begun anew.
    Fails,
}

/// What a host's node has told.
#[derive(Debug)]
pub(super) struct Store {
    disk: Disk,
    /// What is on the disk.
    kept: Keeper,
    /// The clocks of the last commit that was flushed.
    flushed: Marks,
    /// Whether that commit said that the node leaves.
    left: bool,
    /// Records that no commit has closed.
    open: Vec<Record>,
    /// What is not on the disk yet, oldest first.
    waiting: VecDeque<Batch>,
    /// The last commit taken.
    last: u64,
    /// The next commit replaces all that is kept.
    whole: bool,
    last_flush: Time,
    work: Work,
    /// What the node has not been told yet.
    news: VecDeque<StoreNews>,
}

/// One commit.
#[derive(Debug)]
struct Batch {
    commit: Commit,
    records: Vec<Record>,
    whole: bool,
    /// How many events the host's listeners had been told of.
    told: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Idle,
    Due(Time),
    Flushing { until: u64, done: Time },
}

impl Default for Store {
    fn default() -> Self {
        Store {
            disk: Disk::Swift,
            kept: Keeper::default(),
            flushed: Marks::default(),
            left: false,
            open: Vec::new(),
            waiting: VecDeque::new(),
            last: 0,
            whole: false,
            last_flush: Time::ZERO,
            work: Work::Idle,
            news: VecDeque::new(),
        }
    }
}

impl Store {
    /// The clocks of the last commit that was flushed.
    #[cfg(feature = "campaign")]
    pub fn flushed(&self) -> Marks {
        self.flushed
    }

    pub fn memory(&self) -> Memory {
        self.kept.memory()
    }

    /// Whether the last run ended with a leave. Once the next one has begun, that is no longer so.
    pub fn take_leave(&mut self) -> bool {
        std::mem::take(&mut self.left)
    }

    /// Loses all that is on the disk, and does not know it.
    #[cfg(feature = "campaign")]
    pub fn lose_memory(&mut self) {
        self.kept = Keeper::default();
    }

    pub fn note(&mut self, record: Record) {
        if self.disk != Disk::Fails {
            self.open.push(record);
        }
    }
}

impl World {
    /// Gives a host another disk, as it were. What is on the one before stays.
    pub fn set_disk(&mut self, id: HostId, disk: Disk) {
        let store = &mut self.hosts[id.0].store;
        let before = std::mem::replace(&mut store.disk, disk);
        if before == disk {
            return;
        }
        if disk == Disk::Fails || before == Disk::Fails {
            store.open.clear();
            store.waiting.clear();
            store.work = Work::Idle;
            store.whole = disk != Disk::Fails;
            store.news.push_back(if store.whole {
                StoreNews::WantsEverything
            } else {
                StoreNews::Fails
            });
        } else if disk == Disk::Swift {
            self.flush_up_to(id, u64::MAX);
        } else {
            // What hung begins anew.
            if before == Disk::Hangs {
                store.work = Work::Idle;
            }
            self.plan_flush(id, true);
        }
        self.tell_news(id);
    }

    /// How a host's disk behaves.
    pub fn disk(&self, id: HostId) -> Disk {
        self.hosts[id.0].store.disk
    }

    /// Takes a commit of a host's node.
    pub(super) fn take_commit(&mut self, id: HostId, commit: Commit) {
        let host = &mut self.hosts[id.0];
        let store = &mut host.store;
        if store.disk == Disk::Fails {
            return;
        }
        // A number that comes again says only that somebody waits.
        if commit.number != store.last {
            store.last = commit.number;
            store.waiting.push_back(Batch {
                commit,
                records: std::mem::take(&mut store.open),
                whole: std::mem::take(&mut store.whole),
                told: host.events.len(),
            });
        }
        if store.disk == Disk::Swift {
            self.flush_up_to(id, u64::MAX);
            // The caller carries out all that comes of it.
            self.hand_news(id);
        } else {
            self.plan_flush(id, commit.hurry);
        }
    }

    fn plan_flush(&mut self, id: HostId, hurry: bool) {
        let now = self.now;
        let store = &mut self.hosts[id.0].store;
        let at = match hurry {
            true => now,
            false => now.max(store.last_flush + SNAPSHOT_FLUSH),
        };
        let is_planned = match store.work {
            Work::Idle => store.waiting.is_empty(),
            Work::Due(due) => due <= at,
            Work::Flushing { .. } => true,
        };
        if !is_planned {
            store.work = Work::Due(at);
            self.agenda.set(at, Happening::Disk(id));
        }
    }

    /// Goes on with a host's flushes as far as they are due.
    pub(super) fn work_disk(&mut self, id: HostId) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        let store = &mut host.store;
        if host.power != Power::Up {
            return;
        }
        match (store.work, store.disk) {
            (Work::Due(at), Disk::Slow(takes)) if at <= now => {
                let Some(last) = store.waiting.back() else { return };
                let (until, done) = (last.commit.number, now + takes);
                store.work = Work::Flushing { until, done };
                self.agenda.set(done, Happening::Disk(id));
            }
            (Work::Flushing { until, done }, Disk::Slow(_)) if done <= now => {
                self.flush_up_to(id, until);
                let hurry = self.hosts[id.0]
                    .store
                    .waiting
                    .iter()
                    .any(|batch| batch.commit.hurry);
                self.plan_flush(id, hurry);
                self.tell_news(id);
            }
            _ => {}
        }
    }

    /// Brings commits to the disk.
    fn flush_up_to(&mut self, id: HostId, last: u64) {
        let host = &mut self.hosts[id.0];
        let store = &mut host.store;
        while let Some(batch) = store.waiting.pop_front_if(|batch| batch.commit.number <= last) {
            if batch.whole {
                store.kept = Keeper::default();
            }
            batch
                .records
                .into_iter()
                .for_each(|record| store.kept.apply(record));
            store.kept.mark(batch.commit.marks);
            store.flushed = batch.commit.marks;
            store.left = batch.commit.left;
            host.stored_events = batch.told;
            store.news.push_back(StoreNews::Stored(batch.commit.number));
        }
        (store.work, store.last_flush) = (Work::Idle, self.now);
    }

    /// Tells the node of a running host what its store has to say.
    pub(super) fn tell_news(&mut self, id: HostId) {
        if self.hosts[id.0].power == Power::Up {
            self.hand_news(id);
            self.settle(id);
        }
    }

    fn hand_news(&mut self, id: HostId) {
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        let Some(node) = host.node.as_mut() else { return };
        for news in host.store.news.drain(..) {
            node.handle(now, Input::Store(news));
        }
    }

    /// What a crash does to a host's store.
    pub(super) fn lose_unflushed(&mut self, id: HostId) {
        if let Work::Flushing { until, .. } = self.hosts[id.0].store.work
            && self.rng.random()
        {
            self.flush_up_to(id, until);
        }
        let host = &mut self.hosts[id.0];
        if host.config.records {
            host.forgotten.push(host.stored_events..host.events.len());
        }
        let store = &mut host.store;
        store.open.clear();
        store.waiting.clear();
        store.news.clear();
        (store.work, store.last, store.whole) = (Work::Idle, 0, false);
        if store.disk == Disk::Fails {
            store.news.push_back(StoreNews::Fails);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorldConfig;
    use fyrd_core::serf::{Answer, Command};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn event(name: &str) -> Command {
        Command::UserEvent {
            name: name.to_owned(),
            payload: Vec::new(),
            coalesce: false,
        }
    }

    fn kept_events(world: &World, id: HostId) -> usize {
        world.hosts[id.0].store.memory().events.len()
    }

    /// Two nodes that remember and know each other.
    fn pair() -> (World, HostId, HostId) {
        let mut world = World::new(WorldConfig::new(3));
        let [one, other] = ["n0", "n1"].map(|name| world.add_with(name, |config| config.records = true));
        world.join(other, one);
        assert!(world.run_until(ms(5000), |world| world.all_alive(&[one, other])));
        world.run_for(ms(2000));
        (world, one, other)
    }

    #[test]
    fn what_is_not_flushed_is_lost_with_a_crash_and_what_is_stays() {
        let (mut world, one, other) = pair();
        world.set_disk(one, Disk::Slow(ms(20)));
        world.command(one, event("first"));
        world.run_for(ms(60));
        assert_eq!(kept_events(&world, one), 1);
        assert!(world.run_until(ms(1000), |world| world.host(other).user_events().len() == 1));
        world.run_for(ms(2000));
        world.set_disk(one, Disk::Hangs);
        world.command(one, event("second"));
        // The next gossip is due within 200 ms, and waits for 250.
        world.run_for(ms(240));
        // Nobody has heard of it, so nobody will take the next of this Lamport time for a repetition.
        assert_eq!(world.host(other).user_events().len(), 1);
        world.crash(one);
        assert_eq!(kept_events(&world, one), 1);
        // Two joins and the first event are stored.
        assert_eq!(world.host(one).forgotten.first(), Some(&(3..4)));
        world.set_disk(one, Disk::Swift);
        world.start(one);
        assert_eq!(world.node(one).stats().event_time, 2);
        world.command(one, event("third"));
        assert!(world.run_until(ms(30_000), |world| world.host(other).user_events().len() == 2));
        assert_eq!(world.host(other).user_events()[1].0, "third");
    }

    #[test]
    fn a_disk_that_hangs_holds_up_output_once_and_a_reply_within_its_stream() {
        let (mut world, one, other) = pair();
        world.set_disk(one, Disk::Hangs);
        world.command(one, event("first"));
        world.run_for(ms(240));
        assert!(world.host(other).user_events().is_empty() && world.node(one).vouches());
        assert!(world.run_until(ms(300), |world| world.host(other).user_events().len() == 1));
        assert!(!world.node(one).vouches());
        // From here on nothing waits, though the disk is still behind.
        world.command(one, event("second"));
        assert!(world.run_until(ms(240), |world| world.host(other).user_events().len() == 2));
        world.set_disk(one, Disk::Slow(ms(20)));
        world.run_for(ms(30));
        assert!(world.node(one).vouches());
        // A whole state that shows more than is stored waits as well, and comes.
        world.set_disk(one, Disk::Slow(ms(100)));
        world.command(one, event("third"));
        let join = world.join(other, one);
        world.run_for(ms(80));
        assert!(!world.host(other).answers.contains_key(&join));
        assert!(world.run_until(ms(200), |world| world.host(other).answers.contains_key(&join)));
        let (_, answer) = &world.host(other).answers[&join];
        assert!(
            matches!(answer, Answer::Joined { contacted: 1, .. }),
            "{answer:?}"
        );
    }

    #[test]
    fn a_disk_that_failed_is_told_everything_when_it_works_again() {
        let (mut world, one, _) = pair();
        world.command(one, event("first"));
        world.set_disk(one, Disk::Fails);
        world.command(one, event("second"));
        assert_eq!(kept_events(&world, one), 1);
        assert!(!world.node(one).vouches());
        world.set_disk(one, Disk::Slow(ms(20)));
        world.run_for(ms(10));
        assert_eq!(
            kept_events(&world, one),
            1,
            "the old store counts until the new one is written"
        );
        world.run_for(ms(200));
        assert_eq!(kept_events(&world, one), 2);
        assert!(world.node(one).vouches());
        assert_eq!(world.hosts[one.0].store.memory().members.len(), 1);
    }

    #[test]
    fn who_waits_for_word_gets_it_when_all_is_stored_or_the_disk_is_too_slow() {
        let (mut world, one, _) = pair();
        world.set_disk(one, Disk::Slow(ms(50)));
        world.command(one, event("first"));
        let word = world.command(one, Command::Settle);
        let answered = move |world: &World| world.host(one).answers.contains_key(&word);
        world.run_for(ms(40));
        assert!(!answered(&world));
        world.run_for(ms(20));
        assert!(answered(&world) && kept_events(&world, one) == 1);
        world.set_disk(one, Disk::Hangs);
        world.command(one, event("second"));
        let word = world.command(one, Command::Settle);
        let answered = move |world: &World| world.host(one).answers.contains_key(&word);
        world.run_for(ms(249));
        assert!(!answered(&world));
        world.run_for(ms(2));
        assert!(answered(&world));
    }
}
