//! Parts of one cluster that know nothing of each other, and strangers at an address that was a member's.

use std::time::Duration;

use fyrd_core::serf::{Command, RetryJoin, Seeds};
use fyrd_keys::Key;
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: std::ops::Range<u64> = 1..11;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Four hosts behind one name, each its own seed, as in a container platform; cut in two before they start.
fn cut_at_the_start(seed: u64, retry: bool, for_long: Duration) -> (World, Vec<HostId>) {
    let mut world = World::new(WorldConfig::new(seed));
    let hosts = world.add_many(4);
    world.name_hosts("cluster", &hosts);
    world.links.partition(&hosts[..2], &hosts[2..]);
    for &host in &hosts {
        let names = vec!["cluster".to_owned()];
        let seeds = if retry {
            let retry = RetryJoin {
                names,
                every: secs(30),
                max: None,
            };
            Seeds {
                joined: Vec::new(),
                retry: Some(retry),
            }
        } else {
            world.join(host, host);
            Seeds {
                joined: names,
                retry: None,
            }
        };
        world.seeds(host, seeds);
    }
    world.run_for(for_long);
    (world, hosts)
}

#[test]
fn islands_behind_one_name_become_one_cluster_within_30_s() {
    for seed in SEEDS {
        for retry in [false, true] {
            for length in [secs(60), secs(600)] {
                let (mut world, hosts) = cut_at_the_start(seed, retry, length);
                assert!(!world.all_alive(&hosts), "seed {seed}: no islands");
                world.links.heal();
                let together = world.run_until(secs(30), |world| world.all_alive(&hosts));
                assert!(together, "seed {seed}, retry {retry}, after {length:?}");
            }
        }
    }
}

#[test]
fn who_joins_only_itself_goes_on_trying() {
    for seed in SEEDS {
        let mut world = World::new(WorldConfig::new(seed));
        let hosts = world.add_many(2);
        world.name_hosts("cluster", &hosts[..1]);
        let retry = RetryJoin {
            names: vec!["cluster".to_owned()],
            every: secs(10),
            max: None,
        };
        let seeds = Seeds {
            joined: Vec::new(),
            retry: Some(retry),
        };
        world.seeds(hosts[0], seeds);
        world.run_for(secs(60));
        world.name_hosts("cluster", &hosts);
        let together = world.run_until(secs(15), |world| world.all_alive(&hosts));
        assert!(together, "seed {seed}");
    }
}

/// A seed that is taken down in good order and started again knows nobody, and nobody tells it.
#[test]
fn a_seed_that_has_left_and_is_back_without_a_word_is_joined_again() {
    for seed in SEEDS {
        let mut world = World::new(WorldConfig::new(seed));
        let hosts = world.cluster(4);
        world.name_hosts("seed", &hosts[..1]);
        for &host in &hosts[1..] {
            let joined = vec!["seed".to_owned()];
            world.seeds(host, Seeds { joined, retry: None });
        }
        world.ask(hosts[0], Command::Leave);
        world.crash(hosts[0]);
        world.run_for(secs(60));
        world.start(hosts[0]);
        let together = world.run_until(secs(60), |world| world.all_alive(&hosts));
        assert!(together, "seed {seed}");
    }
}

/// The address of a member that is gone now belongs to another cluster with the same key.
#[test]
fn strangers_at_an_old_address_are_not_joined() {
    for seed in SEEDS {
        // The dead are tried again as failed members, and the seed as one given by its address.
        let mut world = World::new(WorldConfig::new(seed));
        let ours = world.cluster(3);
        let address = world.host(ours[0]).addr();
        world.name_hosts(&address.to_string(), &ours[..1]);
        let joined = vec![address.to_string()];
        world.seeds(ours[1], Seeds { joined, retry: None });
        world.run_for(secs(60));
        world.crash(ours[0]);
        world.move_away(ours[0]);
        // Until a dead member leaves the list of swim, gossip for it goes there; only a label keeps that out.
        world.run_for(secs(120));
        let theirs = [
            world.add_with("theirs", |config| {
                config.addr = address.ip().into();
            }),
            world.add("theirs2"),
        ];
        world.name_hosts(&address.to_string(), &theirs[..1]);
        world.join(theirs[1], theirs[0]);
        world.run_for(secs(300));
        // Forgotten, so that only the seed is left.
        let name = world.host(ours[0]).name().to_owned();
        world.ask(ours[1], Command::ForceLeave { name, prune: true });
        world.run_for(secs(300));
        for &host in &ours[1..] {
            assert_eq!(world.host(host).status_of("theirs2"), None, "seed {seed}");
        }
        for &host in &theirs {
            assert_eq!(world.host(host).status_of("n1"), None, "seed {seed}");
        }
    }
}

/// Discovery asks once a minute. Who answers and is no member any more is joined again.
#[test]
fn what_discovery_finds_after_all_memory_is_gone_is_joined_again() {
    for seed in SEEDS {
        let mut config = WorldConfig::new(seed);
        config.profile.serf.reconnect_timeout = secs(60);
        let mut world = World::new(config);
        let hosts = world.add_many(4);
        let (left, right) = hosts.split_at(2);
        let round = |world: &mut World, found: [&[HostId]; 2]| {
            for (own, found) in [left, right].into_iter().zip(found) {
                for &host in own {
                    world.discover(host, found);
                }
            }
            world.run_for(secs(60));
        };
        for _ in 0..3 {
            round(&mut world, [&hosts, &hosts]);
        }
        assert!(world.all_alive(&hosts), "seed {seed}");
        let dialled = |world: &World| -> Vec<u64> {
            let counters = hosts.iter().map(|&host| world.host(host).counters);
            counters.map(|counters| counters.streams_dialled).collect()
        };
        let before = dialled(&world);
        for _ in 0..10 {
            round(&mut world, [&hosts, &hosts]);
        }
        for (before, after) in before.iter().zip(dialled(&world)) {
            // A push/pull each half a minute, on average.
            assert!(
                after - before <= 25,
                "seed {seed}: {} streams in ten minutes",
                after - before
            );
        }
        world.links.partition(left, right);
        for _ in 0..10 {
            round(&mut world, [left, right]);
        }
        world.links.heal();
        world.run_for(secs(120));
        assert_eq!(world.host(left[0]).status_of(world.host(right[0]).name()), None);
        round(&mut world, [&hosts, &hosts]);
        assert!(world.all_alive(&hosts), "seed {seed}: two clusters for good");
    }
}

/// Two clusters share a key, and everybody is told of the others: by join, as a seed, and by discovery.
#[test]
fn clusters_of_one_key_and_two_labels_never_merge() {
    let key: Key = "AAECAwQFBgcICQoLDA0ODw==".parse().expect("a key");
    for (ours, theirs) in [(&b"blue"[..], &b"green"[..]), (b"blue", b""), (b"", b"green")] {
        for key in [None, Some(key.clone())] {
            let mut world = World::new(WorldConfig {
                key,
                ..WorldConfig::new(1)
            });
            let mut clusters = Vec::new();
            for (name, label) in [("a", ours), ("b", theirs)] {
                let add = |i| world.add_labelled(&format!("{name}{i}"), label, |_| {});
                let hosts: Vec<HostId> = (0..3).map(add).collect();
                for &host in &hosts[1..] {
                    world.join(host, hosts[0]);
                }
                clusters.push(hosts);
            }
            world.run_for(secs(10));
            for (own, others) in [(0, 1), (1, 0)] {
                let others = clusters[others].clone();
                for &host in &clusters[own] {
                    world.join(host, others[0]);
                    world.discover(host, &others);
                    let seed = world.host(others[1]).name().to_owned();
                    let joined = vec![seed];
                    world.seeds(host, Seeds { joined, retry: None });
                }
            }
            world.run_for(secs(100));
            // To a member that has just died the others go on to gossip, and no stream comes before that.
            let dead = clusters[0].remove(2);
            let address = world.host(dead).addr();
            world.crash(dead);
            world.move_away(dead);
            let heir = world.add_labelled("heir", theirs, |config| config.addr = address.ip().into());
            world.join(heir, clusters[1][0]);
            clusters[1].push(heir);
            world.run_for(secs(200));
            for (own, others) in [(0, 1), (1, 0)] {
                let (own, others) = (&clusters[own], &clusters[others]);
                assert!(world.all_alive(own), "{ours:?} and {theirs:?}: one is not whole");
                for &host in own {
                    for &other in others {
                        let seen = world.host(host).status_of(world.host(other).name());
                        assert_eq!(seen, None, "{ours:?} and {theirs:?} have met");
                    }
                }
            }
            assert!(world.host(heir).counters.unreadable > 10);
        }
    }
}
