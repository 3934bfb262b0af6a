//! Hosts that come back at another address, and two that claim one name.

use std::time::Duration;

use fyrd_core::serf::{MemberEventKind, MemberStatus};
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: std::ops::Range<u64> = 1..21;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A cluster, and who is in it.
fn cluster(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(WorldConfig::new(seed));
    let hosts = world.cluster(count);
    world.run_for(secs(10));
    (world, hosts)
}

/// Whether all list this host as alive where it is.
fn all_see_it_there(world: &World, hosts: &[HostId], moved: HostId) -> bool {
    let (name, addr) = (world.host(moved).name(), world.host(moved).addr());
    hosts.iter().all(|&host| {
        let members = world.node(host).members();
        let member = members.iter().find(|member| *member.name == *name);
        member.is_some_and(|member| {
            member.status == MemberStatus::Alive && member.addr.socket(member.port) == addr
        })
    })
}

#[test]
fn a_host_that_crashes_and_comes_back_elsewhere_is_alive_within_seconds() {
    let (mut runs, mut late) = (0, 0);
    for seed in SEEDS {
        // Back before it is missed, while it is suspected, and after it was declared failed.
        for away in [1, 6, 20] {
            let (mut world, hosts) = cluster(seed, 7);
            world.crash(hosts[2]);
            world.run_for(secs(away));
            world.move_away(hosts[2]);
            world.start(hosts[2]);
            world.join(hosts[2], hosts[5]);
            let back = |world: &World| all_see_it_there(world, &hosts, hosts[2]);
            runs += 1;
            // Gossip misses a member now and then; then it is a probe that brings the news.
            if !world.run_until(secs(5), back) {
                late += 1;
                assert!(world.run_until(secs(25), back), "seed {seed}, away for {away} s");
            }
            world.run_for(secs(60));
            assert!(world.all_alive(&hosts), "seed {seed}, away for {away} s");
            assert!(
                hosts.iter().all(|&host| world.host(host).lost_name.is_none()),
                "seed {seed}"
            );
        }
    }
    assert!(late * 20 <= runs, "{late} of {runs} took longer than 5 s");
}

#[test]
fn a_rolling_restart_in_which_every_address_changes_keeps_one_cluster() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 5);
        for (place, &host) in hosts.iter().enumerate() {
            world.crash(host);
            world.move_away(host);
            world.start(host);
            world.join(host, hosts[(place + 1) % hosts.len()]);
            world.run_for(secs(4));
        }
        let together = |world: &World| hosts.iter().all(|&host| all_see_it_there(world, &hosts, host));
        assert!(world.run_until(secs(10), together), "seed {seed}");
        assert!(
            hosts.iter().all(|&host| world.host(host).lost_name.is_none()),
            "seed {seed}"
        );
    }
}

#[test]
fn of_two_that_claim_one_name_one_keeps_it_and_all_agree_which() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 6);
        let twin = world.add("n2");
        world.join(twin, hosts[0]);
        let over = |world: &World| world.host(twin).lost_name.is_some();
        assert!(world.run_until(secs(60), over), "seed {seed}");
        world.crash(twin);
        world.run_for(secs(30));
        assert!(world.all_alive(&hosts), "seed {seed}");
        assert_eq!(world.host(hosts[2]).lost_name, None, "seed {seed}");
        for &host in &hosts {
            let failed = world.host(host).member_events(MemberEventKind::Failed, "n2");
            assert!(failed.is_empty(), "seed {seed}");
        }
    }
}

/// Two sides of a cluster get a member of one name while they cannot see each other.
#[test]
fn an_even_split_over_a_name_ends_one_of_the_two() {
    for seed in SEEDS {
        let mut world = World::new(WorldConfig::new(seed));
        let sides = [["a", "b", "same"], ["c", "d", "same"]].map(|names| names.map(|name| world.add(name)));
        world.links.partition(&sides[0], &sides[1]);
        for side in &sides {
            world.join(side[1], side[0]);
            world.join(side[2], side[0]);
        }
        world.run_for(secs(20));
        world.links.heal();
        world.join(sides[1][0], sides[0][0]);
        let ended = |world: &World| {
            let twins = [sides[0][2], sides[1][2]];
            twins.map(|twin| world.host(twin).lost_name.is_some())
        };
        let over = |world: &World| ended(world).contains(&true);
        assert!(world.run_until(secs(120), over), "seed {seed}: nobody ended");
        let loser = if ended(&world)[0] {
            sides[0][2]
        } else {
            sides[1][2]
        };
        world.crash(loser);
        world.run_for(secs(60));
        assert_eq!(
            ended(&world).iter().filter(|ended| **ended).count(),
            1,
            "seed {seed}: both ended"
        );
    }
}
