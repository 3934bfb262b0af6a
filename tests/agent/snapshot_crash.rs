//! kill -9 at random points: what the snapshot promises (docs/design.md#the-snapshot) holds over hundreds of lives.
//!
//! A real, encrypted agent is killed and started again, round after round, while it and two peers that stay up
//! fire events and queries, tags change, and other members come, leave and fail. An observer asks it for its
//! state as peers do, right before it is killed and right after it is back. All that was seen is recorded, and
//! the checks look at the record alone (`crash/history.rs`). The last tests break one promise each, by doing to
//! the store what a bug would have done to it, and expect the checks to find it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::crash::history::{Broken, Promise, Stored};
use crate::crash::subject::{SUBJECT, copy_folder};
use crate::crash::world::{LastWord, REJOIN, World};
use crate::support::{Kind, PATIENCE, eventually};
use fyrd::snapshot::{self, Recorder};
use fyrd_core::node::memory::{Commit, Marks, Record};
use fyrd_core::time::Time;

/// Rounds of each of the four worlds: together the promised 200.
const ROUNDS: usize = 50;

/// Where a planted fault keeps the subject from meeting its peers or hearing from them, the test need not wait
/// for as long as [`REJOIN`].
const NO_REJOIN: Duration = Duration::from_secs(6);

#[test]
fn two_hundred_kills_world_1() {
    survive(Kind::Fyrd, 1);
}

#[test]
fn two_hundred_kills_world_2() {
    survive(Kind::Fyrd, 2);
}

#[test]
fn two_hundred_kills_world_3() {
    survive(Kind::Fyrd, 3);
}

/// One of its peers is the real Serf.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn two_hundred_kills_world_4_with_serf() {
    survive(Kind::Serf, 4);
}

/// More for whoever looks for rarer bugs.
fn rounds() -> usize {
    std::env::var("FYRD_CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

fn survive(second_peer: Kind, seed: u64) {
    let mut world = World::new(second_peer, seed);
    for round in 0..rounds() {
        world.round(round);
    }
    let broken = world.end();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
}

/// The checks bite: between a kill and the restart something happens to the store, as if a bug had written it.
#[track_caller]
fn spoiled(fault: impl FnOnce(&mut World), expected: &[Promise]) {
    spoiled_but_for(fault, |_| true, expected);
}

/// The same, where some of what is broken does not count.
#[track_caller]
fn spoiled_but_for(fault: impl FnOnce(&mut World), counts: impl Fn(&Broken) -> bool, expected: &[Promise]) {
    let mut world = World::new(Kind::Fyrd, 5);
    world.look_and_kill();
    world.autopsy();
    let before = world.subject.beside("before");
    copy_folder(&world.subject.store(), &before).expect("a copy");
    world.restart(false, true);
    world.meet(REJOIN);
    world.last_word(LastWord::Event);
    world.last_word(LastWord::Query);
    world.last_word(LastWord::Tags);
    world.peer_fires(0);
    eventually("all is handled", PATIENCE, || match world.subject.handled() {
        handled if handled.len() == 3 => Ok(()),
        handled => Err(format!("{handled:?}")),
    });
    world.settle();
    world.look_and_kill();
    fault(&mut world);
    world.autopsy();
    world.miss(2);
    world.restart(false, true);
    let lost = |promise: &Promise| expected.contains(promise);
    let patience = |in_vain| if in_vain { NO_REJOIN } else { REJOIN };
    world.rejoin(patience(lost(&Promise::Rejoined)));
    world.hear(
        true,
        patience(lost(&Promise::Rejoined) || lost(&Promise::Delivered)),
    );
    let broken = world.verdict();
    let promises: BTreeSet<Promise> = broken
        .iter()
        .filter(|broken| counts(broken))
        .map(|broken| broken.promise)
        .collect();
    assert_eq!(promises.into_iter().collect::<Vec<_>>(), expected, "{broken:#?}");
}

/// Changes what is in a store, with the product's own hand.
fn rewrite(world: &World, change: impl FnOnce(&mut Recorder, &Stored) -> Marks) {
    let stored = world.subject.stored();
    let settings = snapshot::SnapshotConfig {
        path: world.subject.store(),
        node: SUBJECT.to_owned(),
        forget_left_members: true,
    };
    world.runtime.block_on(async {
        let (_, mut recorder) = snapshot::open(settings, Time::ZERO).expect("the store");
        let marks = change(&mut recorder, &stored);
        recorder.commit(Commit {
            number: 1,
            marks,
            ..Commit::default()
        });
        recorder.finish(PATIENCE).await;
    });
}

#[test]
fn a_store_left_alone_breaks_no_promise() {
    spoiled(|_| {}, &[]);
}

/// As when clocks are flushed after what shows them has been sent.
#[test]
fn a_store_that_is_behind_is_noticed() {
    let roll_back = |world: &mut World| {
        copy_folder(&world.subject.beside("before"), &world.subject.store()).expect("the older store");
    };
    spoiled(roll_back, &[Promise::Kept, Promise::Forward, Promise::Once]);
}

#[test]
fn forgotten_events_and_queries_are_noticed() {
    let forget = |world: &mut World| {
        rewrite(world, |recorder, stored| {
            assert!(!stored.events.is_empty() && !stored.queries.is_empty());
            for (ltime, _) in &stored.events {
                recorder.note(Record::ForgetEvents(*ltime));
            }
            for ltime in &stored.queries {
                recorder.note(Record::ForgetQueries(*ltime));
            }
            Marks::default()
        });
    };
    spoiled(forget, &[Promise::Kept, Promise::Once]);
}

#[test]
fn forgotten_members_are_noticed() {
    let forget = |world: &mut World| {
        rewrite(world, |recorder, stored| {
            assert_eq!(stored.members.len(), 2);
            for name in stored.members.keys() {
                recorder.note(Record::ForgetMember(name.as_str().into()));
            }
            Marks::default()
        });
    };
    // Some of what was missed it may still hear by gossip.
    let delivered = |broken: &Broken| broken.promise != Promise::Delivered;
    spoiled_but_for(forget, delivered, &[Promise::Kept, Promise::Rejoined]);
}

#[test]
fn events_that_are_taken_for_old_are_noticed() {
    let raise_floor = |world: &mut World| {
        rewrite(world, |_, stored| Marks {
            incarnation: stored.clocks.incarnation as u32,
            member: stored.clocks.member,
            event: stored.clocks.event,
            query: stored.clocks.query,
            event_floor: stored.clocks.event + 100,
            query_floor: 0,
        });
    };
    spoiled(raise_floor, &[Promise::Delivered]);
}
