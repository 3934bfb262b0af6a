//! A host whose own system, routes or address are in trouble takes nobody else for failed because of that, and still
//! learns who has died.

use std::time::Duration;

use fyrd_core::serf::{Command, MemberEventKind, MemberStatus};
use fyrd_core::wire::Ping;
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: std::ops::Range<u64> = 1..6;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn world(seed: u64) -> World {
    World::new(WorldConfig::new(seed))
}

#[test]
fn a_host_that_may_send_nothing_declares_nobody_failed_whom_it_hears() {
    for seed in SEEDS {
        for count in [3, 5, 10] {
            let mut world = world(seed);
            let hosts = world.cluster(count);
            let (mute, others) = (hosts[0], &hosts[1..]);
            world.run_for(secs(5));
            for &other in others {
                world.links.forbid(mute, other);
            }
            world.run_for(secs(300));
            assert_eq!(
                world.failures(&[mute], others).len(),
                0,
                "seed {seed}, {count} hosts"
            );
            assert!(world.node(mute).stats().health_score > 0);
            assert!(world.all_see(others, mute, MemberStatus::Failed));
            world.links.heal();
            let healed = world.run_until(secs(90), |world| world.all_alive(&hosts));
            assert!(healed, "seed {seed}, {count} hosts");
        }
    }
}

#[test]
fn a_route_lost_to_a_living_member_makes_no_suspect_of_it_while_others_reach_it() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(5);
        world.links.forbid(hosts[0], hosts[4]);
        world.run_for(secs(120));
        assert_eq!(
            world.node(hosts[4]).incarnation(),
            1,
            "it had to refute something"
        );
        assert!(world.all_alive(&hosts));
    }
}

/// After what time the first host notices that the last one has died, to which it may send nothing.
fn noticed(seed: u64, count: usize, refused: bool) -> Option<Duration> {
    let mut world = world(seed);
    let hosts = world.cluster(count);
    world.run_for(secs(5));
    let (first, dead) = (hosts[0], hosts[count - 1]);
    if refused {
        world.links.forbid(first, dead);
    }
    world.crash(dead);
    let began = world.now();
    let seen = world.run_until(secs(60), |world| !world.failures(&[first], &[dead]).is_empty());
    seen.then(|| world.now().since(began))
}

#[test]
fn a_route_lost_to_a_member_that_dies_hides_its_death_from_nobody() {
    for count in [2, 3, 5] {
        let mean = |refused| {
            let times: Option<Vec<Duration>> = SEEDS.map(|seed| noticed(seed, count, refused)).collect();
            let times = times.unwrap_or_else(|| panic!("not noticed, {count} hosts, refused: {refused}"));
            times.iter().sum::<Duration>() / times.len() as u32
        };
        let (usual, refused) = (mean(false), mean(true));
        assert!(refused < usual + secs(5), "{count} hosts: {usual:?}, {refused:?}");
    }
}

#[test]
fn a_seed_that_starts_empty_is_joined_by_whoever_pings_it() {
    for seed in SEEDS {
        for count in [2, 3, 10] {
            let mut world = world(seed);
            let hosts = world.cluster(count);
            world.run_for(secs(20));
            world.crash(hosts[0]);
            world.start(hosts[0]);
            let joined = world.run_until(secs(12), |world| world.all_alive(&hosts));
            assert!(joined, "seed {seed}, {count} hosts");
        }
    }
}

/// A host of ten that starts without memory is pinged by all of them, and cannot reach any over a stream.
#[test]
fn those_who_ping_are_dialled_one_at_a_time_and_after_pauses() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(10);
        let (blind, others) = (hosts[0], &hosts[1..]);
        // Nobody speaks of how the cluster came about any more.
        world.run_for(secs(20));
        world.crash(blind);
        world.start(blind);
        for &other in others {
            world.links.block_streams(blind, other);
        }
        world.run_for(secs(120));
        let dialled = world.host(blind).counters.streams_dialled;
        assert!((2..20).contains(&dialled), "seed {seed}: {dialled}");
        world.links.heal();
        let joined = world.run_until(secs(40), |world| world.all_alive(&hosts));
        assert!(joined, "seed {seed}");
    }
}

#[test]
fn who_has_left_joins_nobody_who_pings() {
    let mut world = world(1);
    let hosts = world.cluster(3);
    world.ask(hosts[0], Command::Leave);
    let dialled = world.host(hosts[0]).counters.streams_dialled;
    let from = world.host(hosts[1]).addr();
    for node in ["n0", "n1"] {
        let mut plain = Vec::new();
        let ping = Ping {
            seq_no: 77,
            node,
            source_addr: &[10, 0, 0, 2],
            source_port: 7946,
            source_node: "n1",
        };
        ping.encode(&mut plain);
        world.forge(from, hosts[0], plain.clone());
        // A node that is alone, but is pinged by the name of another, does not join either.
        let lone = world.add("lone");
        world.forge(from, lone, plain);
        world.run_for(secs(10));
        assert_eq!(world.host(lone).counters.streams_dialled, 0);
    }
    assert_eq!(world.host(hosts[0]).counters.streams_dialled, dialled);
}

/// Two sites of four hosts, and one more host through which alone they reach each other. How much of five minutes
/// any host sees another as failed, once they have had five minutes to find the way.
fn wrong_views_through_a_hub(seed: u64) -> f64 {
    let mut world = world(seed);
    let hosts = world.cluster(9);
    world.links.partition(&hosts[..4], &hosts[4..8]);
    world.run_for(secs(300));
    let (mut wrong, mut all) = (0, 0);
    for _ in 0..300 {
        world.run_for(secs(1));
        for &subject in &hosts {
            let name = world.host(subject).name();
            let sees = |host: &&HostId| world.host(**host).status_of(name) == Some(MemberStatus::Alive);
            wrong += hosts.iter().filter(|host| !sees(host)).count();
            all += hosts.len();
        }
    }
    wrong as f64 / all as f64
}

#[test]
fn sites_joined_by_one_host_alone_see_each_other() {
    let runs: Vec<f64> = SEEDS.map(wrong_views_through_a_hub).collect();
    // A tenth of the time if those who are asked for an indirect ping are drawn at random alone.
    assert!(runs.iter().sum::<f64>() / (runs.len() as f64) < 0.005, "{runs:?}");
}

/// How often the members of a host that nobody can reach for four minutes are told that it is there, and that it is
/// failed.
#[test]
fn the_coming_and_going_of_a_host_that_nobody_reaches_is_told_to_nobody_but_itself() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(4);
        world.run_for(secs(5));
        let (closed, others) = (hosts[3], &hosts[..3]);
        world.links.close(closed);
        let told = |world: &World, kind| -> Vec<usize> {
            let events = others
                .iter()
                .map(|&host| world.host(host).member_events(kind, "n3"));
            events.map(|times| times.len()).collect()
        };
        let (mut changes, mut accused) = (0, 0);
        let mut seen = world.all_see(others, closed, MemberStatus::Alive);
        for _ in 0..240 {
            world.run_for(secs(1));
            let sees = world.all_see(others, closed, MemberStatus::Alive);
            changes += u32::from(sees != seen);
            seen = sees;
            accused = accused.max(world.node(closed).stats().accused);
            for &other in others {
                let failed = !world.failures(&[other], &[closed]).is_empty();
                let listed = world.node(other).members();
                let listed = listed.iter().find(|member| &*member.name == "n3");
                let listed = listed.map(|member| member.status);
                let expected = if failed {
                    MemberStatus::Failed
                } else {
                    MemberStatus::Alive
                };
                assert_eq!(listed, Some(expected), "seed {seed}");
            }
        }
        assert!(
            changes > 4,
            "seed {seed}: the list follows what it says: {changes}"
        );
        assert_eq!(told(&world, MemberEventKind::Join), [1; 3], "seed {seed}");
        assert_eq!(told(&world, MemberEventKind::Failed), [1; 3], "seed {seed}");
        assert!(accused >= 3, "seed {seed}: its operator is told: {accused}");
        world.links.heal();
        let healed = world.run_until(secs(90), |world| told(world, MemberEventKind::Join) == [2; 3]);
        assert!(healed, "seed {seed}: {:?}", told(&world, MemberEventKind::Join));
        world.run_for(secs(200));
        assert_eq!(world.node(closed).stats().accused, 0);
        assert_eq!(told(&world, MemberEventKind::Failed), [1; 3], "seed {seed}");
    }
}
