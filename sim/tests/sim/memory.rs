//! What a node still knows after a restart, on a simulated network (docs/design.md#the-snapshot).

use std::sync::Arc;
use std::time::Duration;

use fyrd_core::addr::RawAddr;
use fyrd_core::serf::memory::MemberRecord;
use fyrd_core::serf::{Answer, Command, MemberEventKind, MemberStatus, QueryParams, RetryJoin, Seeds};
use fyrd_core::swim::members::Facts;
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
    cluster_of(WorldConfig::new(seed), count)
}

fn cluster_of(mut config: WorldConfig, count: usize) -> (World, Vec<HostId>) {
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

/// Starts a host whose node looks for nobody by itself, as after a leave.
fn start_passive(world: &mut World, host: HostId) {
    world.start_with(host, |config| config.left = true);
}

#[test]
fn events_missed_while_down_arrive_once_and_in_order_and_others_not_again() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 4);
        let (away, here) = (hosts[3], hosts[0]);
        for i in 0..20 {
            world.ask(hosts[i % 4], event(&format!("before{i}")));
        }
        // What it says itself must have left it.
        let all = |world: &World| hosts.iter().all(|host| names(world, *host).len() == 20);
        assert!(world.run_until(secs(60), all));
        world.crash(away);
        // Enough that the ring of 512 places wraps around.
        for i in 0..508 {
            world.ask(here, event(&format!("missed{i:03}")));
        }
        // Whoever is asked first must have heard of all of them.
        let heard = |world: &World| hosts[..3].iter().all(|host| names(world, *host).len() == 528);
        assert!(world.run_until(secs(600), heard), "seed {seed}");
        world.start(away);
        world.run_for(secs(120));
        let heard = names(&world, away).split_off(20);
        let missed: Vec<String> = (0..508).map(|i| format!("missed{i:03}")).collect();
        assert_eq!(heard, missed, "seed {seed}");
    }
}

/// Lets nobody join this host, nor it anybody.
fn no_streams(world: &mut World, host: HostId, hosts: &[HostId]) {
    for &other in hosts.iter().filter(|other| **other != host) {
        world.links.block_streams(host, other);
    }
}

/// Peers that have not noticed that it was away gossip to it before it has joined anybody.
#[test]
fn events_that_are_still_gossiped_wait_for_those_that_were_missed_before_them() {
    for seed in SEEDS {
        // Whoever probes it would find out what it lacks before it has joined anybody, as Serf peers do not.
        let mut config = WorldConfig::new(seed);
        config.profile.repair_interval = Duration::ZERO;
        let (mut world, hosts) = cluster_of(config, 4);
        let (away, here) = (hosts[3], hosts[0]);
        world.ask(here, event("before"));
        assert!(world.run_until(secs(60), |world| names(world, away).len() == 1));
        world.crash(away);
        for i in 0..30 {
            world.ask(here, event(&format!("missed{i:02}")));
            world.run_for(Duration::from_millis(100));
        }
        start_passive(&mut world, away);
        no_streams(&mut world, away, &hosts);
        world.run_for(secs(1));
        assert_eq!(names(&world, away).len(), 1, "seed {seed}: it waits");
        world.links.heal();
        world.join(away, here);
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
    start_passive(&mut world, away);
    no_streams(&mut world, away, &hosts);
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
            let (marks, announced) = (world.node(node).marks(), world.node(node).announced());
            assert!(marks.cover(&announced), "{marks:?} {announced:?}");
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
        if goes {
            world.start(away);
        } else {
            start_passive(&mut world, away);
            world.join(hosts[1], away);
        }
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
        assert!(world.run_until(secs(DAY / 2 + 120), forgotten), "seed {seed}");
    }
}

/// Lets a host hear by gossip that others are there.
fn tell_of(world: &mut World, host: HostId, others: &[HostId]) {
    for &other in others {
        let RawAddr::V4(addr) = world.host(other).config.addr else {
            panic!("simulated hosts have IPv4 addresses")
        };
        let mut plain = Vec::new();
        let name = world.host(other).name().to_owned();
        let alive = Alive {
            incarnation: 9,
            node: &name,
            addr: &addr,
            port: world.host(other).config.port,
            meta: b"\xff\x80",
            vsn: &[1, 5, 2, 2, 5, 5],
        };
        Message::Alive(alive).encode(&mut plain);
        world.forge(world.host(other).addr(), host, plain);
    }
}

/// A node looks for its peers until a whole state has come, even if it has heard of all of them by then.
#[test]
fn who_is_known_by_gossip_alone_has_not_told_what_was_missed() {
    let (mut world, hosts) = cluster(51, 3);
    let away = hosts[2];
    world.crash(away);
    world.ask(hosts[0], event("missed"));
    world.run_for(secs(2));
    // Its first dials fail.
    world.links.partition(&hosts[..2], &hosts[2..]);
    world.start(away);
    let first_dials = world.host(away).counters.streams_dialled;
    world.run_for(secs(12));
    assert!(world.host(away).counters.streams_dialled > first_dials);
    tell_of(&mut world, away, &hosts[..2]);
    let heard = |world: &World| {
        let host = world.host(away);
        host.status_of("n0").is_some() && host.status_of("n1").is_some()
    };
    assert!(world.run_until(secs(1), heard));
    assert_eq!(names(&world, away), [""; 0]);
    world.links.heal();
    // The next regular push/pull would come later.
    world.run_for(secs(13));
    assert_eq!(names(&world, away), ["missed"]);
}

/// A host that was alone in the last run but for one peer, which it knows by its memory alone.
fn remembering(world: &mut World, name: &str, peers: &[HostId]) -> HostId {
    let members: Vec<MemberRecord> = peers
        .iter()
        .rev()
        .zip(1..)
        .map(|(&peer, since)| {
            let config = &world.host(peer).config;
            MemberRecord {
                facts: Arc::new(Facts {
                    name: config.name.as_str().into(),
                    addr: config.addr,
                    port: config.port,
                    meta: Box::default(),
                    vsn: [1, 5, 2, 2, 5, 5],
                }),
                incarnation: 1,
                status: MemberStatus::Alive,
                status_ltime: 1,
                since: Time::from_nanos(since),
            }
        })
        .collect();
    let host = world.add_with(name, |config| config.records = true);
    world.crash(host);
    world.start_with(host, |config| config.memory.members = members);
    host
}

/// Two islands and members that are gone, the nearest island being known as the newest.
#[test]
fn islands_are_joined_and_a_leave_ends_the_search() {
    for seed in SEEDS {
        let mut world = World::new(WorldConfig::new(seed));
        let islands = world.add_many(2);
        let gone: Vec<HostId> = (0..3).map(|i| world.add(&format!("gone{i}"))).collect();
        for &host in &gone {
            world.crash(host);
        }
        let peers = [&islands[..1], &gone, &islands[1..]].concat();
        let back = remembering(&mut world, "back", &peers);
        let all = [islands[0], islands[1], back];
        assert!(
            world.run_until(secs(20), |world| world.all_alive(&all)),
            "seed {seed}"
        );
        // It still looks for those that are gone.
        let dials = |world: &World| world.host(back).counters.streams_dialled;
        let before = dials(&world);
        world.run_for(secs(20));
        assert!(dials(&world) > before, "seed {seed}");
        assert_eq!(world.ask(back, Command::Leave), Answer::Done);
        world.run_for(secs(20));
        let after = dials(&world);
        world.run_for(secs(600));
        // The regular push/pull goes on until the process ends; each failed member would be tried as often.
        let push_pulls = 600 / 30;
        assert!(dials(&world) <= after + push_pulls + 2, "seed {seed}");
    }
}

/// The first to answer tells of all others, but may have missed the same events.
#[test]
fn a_few_peers_are_asked_for_their_state_though_the_first_knows_all() {
    for seed in SEEDS {
        let mut world = World::new(WorldConfig::new(seed));
        let peers = world.cluster(5);
        let back = remembering(&mut world, "back", &peers);
        world.run_for(secs(4));
        assert_eq!(world.node(back).known(), 6, "seed {seed}");
        // Each is first asked whether it is who was there.
        let asked = world.host(back).counters.streams_dialled / 2;
        assert!((3..=5).contains(&asked), "{asked} of 5, seed {seed}");
    }
}

#[test]
fn who_has_left_stays_away_unless_told_otherwise() {
    for rejoin_after_leave in [false, true] {
        let (mut world, hosts) = cluster(52, 2);
        let away = hosts[1];
        world.host_mut(away).config.rejoin_after_leave = rejoin_after_leave;
        assert_eq!(world.ask(away, Command::Leave), Answer::Done);
        world.crash(away);
        world.start(away);
        world.run_for(secs(600));
        let back = world.host(away).status_of("n0") == Some(MemberStatus::Alive);
        assert_eq!(back, rejoin_after_leave);
        // The life after the next crash did not begin with a leave.
        if !rejoin_after_leave {
            world.join(away, hosts[0]);
            world.run_for(secs(60));
        }
        world.crash(away);
        world.start(away);
        assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    }
}

/// Failed members are forgotten after a while, and each side of a long partition then knows its seeds alone.
#[test]
fn two_sides_that_forgot_each_other_meet_again_through_their_seeds() {
    for seed in SEEDS {
        let mut config = WorldConfig::new(seed);
        config.profile.serf.reconnect_timeout = secs(60);
        let mut world = World::new(config);
        let hosts = world.cluster(4);
        for &host in &hosts[1..] {
            let joined = vec!["n0".to_owned()];
            world.seeds(host, Seeds { joined, retry: None });
        }
        world.run_for(secs(60));
        world.links.partition(&hosts[..2], &hosts[2..]);
        world.run_for(secs(900));
        assert_eq!(world.node(hosts[0]).known(), 2, "seed {seed}");
        world.links.heal();
        // At most 16 reconnect intervals, and a quarter, lie between two dials.
        let met = world.run_until(secs(16 * 30 * 5 / 4 + 60), |world| world.all_alive(&hosts));
        assert!(met, "seed {seed}");
    }
}

#[test]
fn a_join_is_retried_until_somebody_is_there() {
    let mut world = World::new(WorldConfig::new(53));
    let hosts = world.add_many(2);
    world.crash(hosts[1]);
    let retry = |max| Seeds {
        joined: Vec::new(),
        retry: Some(RetryJoin {
            names: vec!["n1".to_owned(), "nobody".to_owned()],
            every: secs(7),
            max,
        }),
    };
    world.seeds(hosts[0], retry(None));
    world.run_for(secs(60));
    let failures = world.host(hosts[0]).failed_joins.len();
    assert!((8..=9).contains(&failures), "{failures}");
    world.start(hosts[1]);
    assert!(world.run_until(secs(8), |world| world.all_alive(&hosts)));
    let failed = world.host(hosts[0]).failed_joins.clone();
    assert!(failed.iter().all(|(_, again)| *again == Some(secs(7))));
    world.run_for(secs(60));
    assert_eq!(world.host(hosts[0]).failed_joins, failed);
    // With a maximum, the node says when it is reached, and tries no more.
    let alone = world.add("alone");
    world.crash(hosts[1]);
    world.seeds(alone, retry(Some(2)));
    world.run_for(secs(120));
    let again: Vec<_> = world
        .host(alone)
        .failed_joins
        .iter()
        .map(|(_, again)| *again)
        .collect();
    assert_eq!(again, [Some(secs(7)), Some(secs(7)), None]);
}

#[test]
fn what_discovery_finds_is_joined_and_announced() {
    let mut world = World::new(WorldConfig::new(54));
    let hosts = world.add_many(4);
    for round in 0..3 {
        world.discover(hosts[0], &hosts);
        assert!(
            world.run_until(secs(2), |world| world.all_alive(&hosts)),
            "round {round}"
        );
        world.run_for(secs(60));
    }
    // Each of the others once, and push/pull.
    let dials = world.host(hosts[0]).counters.streams_dialled;
    assert!((3..=12).contains(&dials), "{dials}");
    assert!(
        world.node(hosts[1]).marks().member > 1,
        "an intent tells of the join"
    );
}
