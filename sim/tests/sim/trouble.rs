//! A host whose own system, routes or address are in trouble takes nobody else for failed because of that, and still
//! learns who has died.

use std::time::Duration;

use fyrd_core::serf::{MemberEventKind, MemberStatus};
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: std::ops::Range<u64> = 1..6;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn world(seed: u64) -> World {
    World::new(WorldConfig::new(seed))
}

/// How often `host` declared any of `subjects` failed.
fn failures(world: &World, host: HostId, subjects: &[HostId]) -> usize {
    let failed = |&subject: &HostId| {
        let name = world.host(subject).name();
        world
            .host(host)
            .member_events(MemberEventKind::Failed, name)
            .len()
    };
    subjects.iter().map(failed).sum()
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
                world.links.refuse(mute, other);
            }
            world.run_for(secs(300));
            assert_eq!(failures(&world, mute, others), 0, "seed {seed}, {count} hosts");
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
        world.links.refuse(hosts[0], hosts[4]);
        world.run_for(secs(120));
        assert_eq!(world.node(hosts[4]).incarnation(), 1, "it had to refute something");
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
        world.links.refuse(first, dead);
    }
    world.crash(dead);
    let began = world.now();
    let seen = world.run_until(secs(60), |world| failures(world, first, &[dead]) > 0);
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
