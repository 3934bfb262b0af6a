//! What a node still knows after a restart, on a simulated network (docs/design.md#the-snapshot).

use std::time::Duration;

use fyrd_core::addr::RawAddr;
use fyrd_core::serf::{Answer, Command, MemberEventKind, MemberStatus, QueryParams};
use fyrd_core::time::Time;
use fyrd_core::wire::{Alive, Message};
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: [u64; 4] = [31, 32, 33, 34];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn event(name: &str) -> Command {
    Command::UserEvent {
        name: name.to_owned(),
        payload: name.as_bytes().to_vec(),
        coalesce: false,
    }
}

fn names(world: &World, host: HostId) -> Vec<String> {
    let events = world.host(host).user_events();
    events.into_iter().map(|(name, _)| name).collect()
}

/// How long who is gone is remembered, here: a day would make simulations long.
const DAY: u64 = 3600;

/// A cluster all of whose members keep what they must remember.
fn cluster(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut config = WorldConfig::new(seed);
    config.profile.serf.reconnect_timeout = secs(DAY);
    config.profile.serf.tombstone_timeout = secs(DAY);
    let mut world = World::new(config);
    let hosts: Vec<HostId> = (0..count)
        .map(|i| world.add_with(&format!("n{i}"), |config| config.records = true))
        .collect();
    for &host in &hosts[1..] {
        world.join(host, hosts[0]);
    }
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    (world, hosts)
}

/// A join that wants to hear what it has missed.
fn rejoin(world: &mut World, host: HostId, to: HostId) {
    let target = fyrd_core::serf::JoinTarget {
        name: None,
        addr: world.host(to).addr(),
    };
    let join = Command::Join {
        targets: vec![target],
        ignore_old: false,
        announce: false,
    };
    assert!(matches!(
        world.ask(host, join),
        Answer::Joined { contacted: 1, .. }
    ));
}

#[test]
fn events_missed_while_down_arrive_once_and_in_order_and_others_not_again() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 4);
        let (away, here) = (hosts[3], hosts[0]);
        for i in 0..20 {
            world.ask(hosts[i % 4], event(&format!("before{i}")));
        }
        assert!(world.run_until(secs(60), |world| names(world, away).len() == 20));
        world.crash(away);
        // Enough that the ring of 512 places wraps around.
        for i in 0..508 {
            world.ask(here, event(&format!("missed{i:03}")));
        }
        world.run_for(secs(1));
        world.start(away);
        rejoin(&mut world, away, here);
        world.run_for(secs(120));
        let heard = names(&world, away).split_off(20);
        let missed: Vec<String> = (0..508).map(|i| format!("missed{i:03}")).collect();
        assert_eq!(heard, missed, "seed {seed}");
    }
}

/// Peers that have not noticed that it was away gossip to it before it has joined anybody.
#[test]
fn events_that_are_still_gossiped_wait_for_those_that_were_missed_before_them() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 4);
        let (away, here) = (hosts[3], hosts[0]);
        world.ask(here, event("before"));
        assert!(world.run_until(secs(60), |world| names(world, away).len() == 1));
        world.crash(away);
        for i in 0..30 {
            world.ask(here, event(&format!("missed{i:02}")));
            world.run_for(Duration::from_millis(100));
        }
        world.start(away);
        world.run_for(secs(1));
        assert_eq!(names(&world, away).len(), 1, "seed {seed}: it waits");
        rejoin(&mut world, away, here);
        world.run_for(secs(30));
        let missed: Vec<String> = (0..30).map(|i| format!("missed{i:02}")).collect();
        assert_eq!(names(&world, away).split_off(1), missed, "seed {seed}");
        assert!(world.all_alive(&hosts));
    }
}

/// Without a rejoin, what waits is not lost.
#[test]
fn events_do_not_wait_for_ever_for_a_join() {
    let (mut world, hosts) = cluster(43, 4);
    let (away, here) = (hosts[3], hosts[0]);
    world.ask(here, event("before"));
    assert!(world.run_until(secs(60), |world| names(world, away).len() == 1));
    world.crash(away);
    world.start(away);
    for i in 0..5 {
        world.ask(here, event(&format!("after{i}")));
    }
    assert!(world.run_until(secs(6), |world| names(world, away).len() > 1));
    let expected = ["before", "after0", "after1", "after2", "after3", "after4"];
    assert_eq!(names(&world, away), expected);
}

#[test]
fn a_restart_says_nothing_below_what_was_said_before() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 4);
        for round in 0..5 {
            let node = hosts[round % 4];
            world.ask(node, event(&format!("round{round}")));
            world.ask(
                node,
                Command::Query(QueryParams {
                    name: "q".into(),
                    ..QueryParams::default()
                }),
            );
            world.ask(
                node,
                Command::SetTags([("round".to_owned(), round.to_string())].into()),
            );
            // Crashed at the very moment, and all alone afterwards.
            let (marks, said) = (world.node(node).marks(), world.node(node).said());
            assert!(marks.cover(&said), "{marks:?} {said:?}");
            world.crash(node);
            world.start(node);
            let after = world.node(node).marks();
            assert!(
                after.cover(&marks),
                "seed {seed}: {marks:?}, after the restart {after:?}"
            );
            assert!(
                after.incarnation > marks.incarnation,
                "peers believe nothing of the same incarnation"
            );
            rejoin(&mut world, node, hosts[(round + 1) % 4]);
            assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
        }
    }
}

#[test]
fn a_query_is_not_delivered_again_after_a_restart() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 3);
        let asked = Command::Query(QueryParams {
            name: "once".into(),
            ..QueryParams::default()
        });
        world.ask(hosts[0], asked);
        // Crash as soon as it has arrived, while it is still being gossiped.
        assert!(world.run_until(secs(5), |world| !world.host(hosts[2]).queries().is_empty()));
        world.crash(hosts[2]);
        world.start(hosts[2]);
        rejoin(&mut world, hosts[2], hosts[1]);
        world.run_for(secs(30));
        assert_eq!(world.host(hosts[2]).queries(), ["once"], "seed {seed}");
    }
}

#[test]
fn who_was_gone_is_still_known_as_such_until_reaped() {
    for seed in [31, 32] {
        let (mut world, hosts) = cluster(seed, 5);
        let witness = hosts[0];
        assert_eq!(world.ask(hosts[3], Command::Leave), Answer::Done);
        world.crash(hosts[3]);
        world.crash(hosts[4]);
        assert!(world.run_until(secs(120), |world| {
            let host = world.host(witness);
            host.status_of("n3") == Some(MemberStatus::Left)
                && host.status_of("n4") == Some(MemberStatus::Failed)
        }));
        let gone = world.now();
        world.run_for(secs(DAY / 2));
        world.crash(witness);
        world.start(witness);
        assert_eq!(
            world.host(witness).status_of("n3"),
            Some(MemberStatus::Left),
            "seed {seed}"
        );
        assert_eq!(
            world.host(witness).status_of("n4"),
            Some(MemberStatus::Failed),
            "seed {seed}"
        );
        assert_eq!(
            world.host(witness).status_of("n1"),
            None,
            "who was there has to be met again"
        );
        let again = |kind, name: &str| {
            let events = world.host(witness).member_events(kind, name);
            events.into_iter().filter(|at| *at > gone).count()
        };
        assert_eq!(
            again(MemberEventKind::Leave, "n3") + again(MemberEventKind::Failed, "n4"),
            0
        );
        // A day after they went, not a day after the restart.
        rejoin(&mut world, witness, hosts[1]);
        let reaped = |world: &World| {
            ["n3", "n4"].iter().all(|name| {
                let events = world.host(witness).member_events(MemberEventKind::Reap, name);
                events.len() == 1
            })
        };
        assert!(world.run_until(secs(DAY), reaped), "seed {seed}");
        assert!(world.now().since(gone) < secs(DAY + 120));
    }
}

#[test]
fn an_old_leave_does_not_count_after_a_restart_of_who_hears_it() {
    let (mut world, hosts) = cluster(41, 3);
    // n2 leaves and comes back, so its leave is old.
    assert_eq!(world.ask(hosts[2], Command::Leave), Answer::Done);
    world.crash(hosts[2]);
    assert!(
        world.run_until(secs(60), |world| world.host(hosts[0]).status_of("n2")
            == Some(MemberStatus::Left))
    );
    world.start(hosts[2]);
    world.join(hosts[2], hosts[1]);
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    world.run_for(secs(60));
    world.crash(hosts[0]);
    world.start(hosts[0]);
    // The first thing that it hears is the old leave, at the Lamport time that it had.
    let plain = {
        let mut plain = vec![8];
        let intent = fyrd_core::wire::LeaveIntent {
            ltime: 4,
            node: "n2",
            prune: false,
        };
        fyrd_core::wire::SerfMessage::Leave(intent).encode(&mut plain);
        plain
    };
    world.forge(world.host(hosts[1]).addr(), hosts[0], plain);
    world.run_for(secs(1));
    rejoin(&mut world, hosts[0], hosts[1]);
    assert!(world.run_until(secs(10), |world| world.all_alive(&hosts)));
    world.run_for(secs(60));
    assert!(world.all_alive(&hosts));
}

#[test]
fn a_node_that_went_long_ago_is_not_kept_from_coming_back() {
    let (mut world, hosts) = cluster(42, 4);
    world.crash(hosts[3]);
    let failed = |world: &World| world.all_see(&hosts[..3], hosts[3], MemberStatus::Failed);
    assert!(world.run_until(secs(120), failed));
    for &host in &hosts[..3] {
        world.crash(host);
    }
    world.run_for(secs(600));
    for &host in &hosts {
        world.start(host);
    }
    for &host in &hosts[1..] {
        rejoin(&mut world, host, hosts[0]);
    }
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    assert!(world.now() > Time::ZERO + secs(600));
}

#[test]
fn who_went_while_a_node_was_away_is_known_as_gone_and_not_looked_for_for_ever() {
    // It makes no difference whether the node goes to another or is met by it.
    for (seed, goes) in SEEDS.into_iter().flat_map(|seed| [(seed, true), (seed, false)]) {
        let (mut world, hosts) = cluster(seed, 5);
        let away = hosts[0];
        world.run_for(secs(60));
        world.crash(away);
        assert_eq!(world.ask(hosts[3], Command::Leave), Answer::Done);
        world.crash(hosts[3]);
        world.crash(hosts[4]);
        // Long enough that nobody lists the dead any more.
        world.run_for(secs(600));
        let back = world.now();
        world.start(away);
        let (from, to) = if goes { (away, hosts[1]) } else { (hosts[1], away) };
        rejoin(&mut world, from, to);
        let known = |world: &World| {
            let host = world.host(away);
            host.status_of("n3") == Some(MemberStatus::Left)
                && host.status_of("n4") == Some(MemberStatus::Failed)
        };
        assert!(world.run_until(secs(60), known), "seed {seed}, goes: {goes}");
        let told = |kind, name: &str| {
            let events = world.host(away).member_events(kind, name);
            events.into_iter().filter(|at| *at > back).count()
        };
        assert_eq!(told(MemberEventKind::Leave, "n3"), 1, "seed {seed}");
        assert_eq!(told(MemberEventKind::Failed, "n4"), 1, "seed {seed}");
        assert_eq!(
            told(MemberEventKind::Failed, "n1") + told(MemberEventKind::Failed, "n2"),
            0
        );
        // The one that failed is tried again, and found when it is back.
        world.start(hosts[4]);
        let found = |world: &World| world.host(away).status_of("n4") == Some(MemberStatus::Alive);
        assert!(world.run_until(secs(300), found), "seed {seed}");
        // Another restart finds what was told, not what was before.
        world.run_for(secs(DAY / 2));
        world.crash(away);
        world.start(away);
        assert_eq!(
            world.host(away).status_of("n3"),
            Some(MemberStatus::Left),
            "seed {seed}"
        );
        let forgotten = |world: &World| world.host(away).status_of("n3").is_none();
        rejoin(&mut world, away, hosts[1]);
        assert!(world.run_until(secs(DAY / 2 + 120), forgotten), "seed {seed}");
    }
}

#[test]
fn who_is_known_by_gossip_alone_has_not_told_what_was_missed() {
    // The agent looks for a peer until a whole state has come; before, it stopped when it had heard of all.
    let (mut world, hosts) = cluster(51, 3);
    let away = hosts[2];
    world.crash(away);
    world.ask(hosts[0], event("missed"));
    world.run_for(secs(2));
    world.start(away);
    let heard = |world: &World| {
        let host = world.host(away);
        host.status_of("n0").is_some() && host.status_of("n1").is_some()
    };
    for (host, name) in [(hosts[0], "n0"), (hosts[1], "n1")] {
        let RawAddr::V4(addr) = world.host(host).config.addr else {
            panic!("simulated hosts have IPv4 addresses")
        };
        let mut plain = Vec::new();
        let alive = Alive {
            incarnation: 9,
            node: name,
            addr: &addr,
            port: world.host(host).config.port,
            meta: b"\xff\x80",
            vsn: &[1, 5, 2, 2, 5, 5],
        };
        Message::Alive(alive).encode(&mut plain);
        world.forge(world.host(host).addr(), away, plain);
    }
    assert!(world.run_until(secs(1), heard));
    assert!(!world.node(away).has_merged());
    assert_eq!(names(&world, away), [""; 0]);
    rejoin(&mut world, away, hosts[0]);
    assert!(world.node(away).has_merged());
    assert_eq!(names(&world, away), ["missed"]);
}
