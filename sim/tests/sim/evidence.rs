//! A process that is gone is known in seconds, because its host refuses connections; whatever else keeps a member
//! from answering has the time that Serf gives it.

use std::time::Duration;

use fyrd_core::serf::MemberStatus;
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A world with this profile in which refusals count, or do not.
fn world(seed: u64, profile: &str, evidence: bool) -> World {
    let mut config = WorldConfig::new(seed);
    config.profile = Profile::builtin(profile).expect("a profile");
    if profile == "wan" {
        config.link = Link::wan();
    }
    if !evidence {
        config.profile.evidence_pause = Duration::ZERO;
        config.profile.late_ack_max = Duration::ZERO;
    }
    World::new(config)
}

/// How often any of them reported any of them failed.
fn mistakes(world: &World, hosts: &[HostId]) -> usize {
    world.failures(hosts, hosts).len()
}

/// How a host goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Killed,
    Gone,
    Stopped,
}

/// After what time the first and the last of the others know that a host is gone.
fn notice(world: &mut World, hosts: &[HostId], end: End) -> (Duration, Duration) {
    world.run_for(secs(10));
    let (&victim, rest) = hosts.split_last().expect("a host");
    let at = world.now();
    match end {
        End::Killed => world.crash(victim),
        End::Gone => world.vanish(victim),
        End::Stopped => world.freeze(victim),
    }
    let known = |world: &World| world.all_see(rest, victim, MemberStatus::Failed);
    assert!(world.run_until(secs(600), known), "never noticed");
    let times = world.failures(rest, &[victim]);
    assert_eq!(times.len(), rest.len(), "it fails once at each");
    assert_eq!(mistakes(world, rest), 0, "and nobody else does");
    let after = |at_host: Option<&Time>| at_host.map_or(Duration::ZERO, |time| time.since(at));
    (after(times.iter().min()), after(times.iter().max()))
}

/// The median of the last notices over some seeds.
fn median_notice(profile: &str, count: usize, loss: f64, end: End, evidence: bool) -> [Duration; 2] {
    let mut runs: Vec<[Duration; 2]> = (1..=9)
        .map(|seed| {
            let mut world = world(seed, profile, evidence);
            world.links.change_all(|link| *link = link.losing(loss));
            let hosts = world.acquainted(count);
            let (first, last) = notice(&mut world, &hosts, end);
            [last, first]
        })
        .collect();
    runs.sort();
    let [last, first] = runs[runs.len() / 2];
    [first, last]
}

#[test]
fn a_killed_process_is_known_in_two_thirds_of_serfs_time_in_all_clusters() {
    for (profile, count, loss) in [
        ("lan", 2, 0.0),
        ("lan", 3, 0.0),
        ("lan", 10, 0.05),
        ("lan", 60, 0.0),
        ("wan", 5, 0.02),
        ("wan", 30, 0.0),
    ] {
        let [with, without] =
            [true, false].map(|evidence| median_notice(profile, count, loss, End::Killed, evidence)[1]);
        assert!(
            with * 3 / 2 < without,
            "{profile} {count} {loss}: {with:?}, {without:?}"
        );
    }
}

/// After what time all know of a killed process, in a cluster of which one half was there before the other.
fn noticed_in_turns(seed: u64, in_turns: bool) -> Duration {
    let mut config = WorldConfig::new(seed);
    config.profile.probe_turns = in_turns;
    let mut world = World::new(config);
    let mut hosts = world.cluster(10);
    world.run_for(secs(20));
    for number in 0..10 {
        let host = world.add(&format!("late{number}"));
        world.join(host, hosts[0]);
        hosts.push(host);
    }
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    let (_, last) = notice(&mut world, &hosts, End::Killed);
    last
}

#[test]
fn whoever_is_killed_is_probed_within_two_intervals_by_somebody_where_all_agree_on_turns() {
    // The pause between two refusals, and how long acks and neighbours are waited for.
    let within = secs(2) + secs(2) + millis(500);
    let late = |in_turns| {
        let times = (1..=60).map(|seed| noticed_in_turns(seed, in_turns));
        times.filter(|time| *time > within).count()
    };
    let [with, without] = [true, false].map(late);
    assert_eq!(with, 0);
    // Chance leaves one in eight alone for so long.
    assert!(without > 2, "{without} late without turns");
}

#[test]
fn a_host_that_is_silent_has_the_time_that_serf_gives_it() {
    for (profile, count) in [("lan", 3), ("lan", 20), ("wan", 12)] {
        for end in [End::Gone, End::Stopped] {
            let [with, without] =
                [true, false].map(|evidence| median_notice(profile, count, 0.0, end, evidence)[1]);
            let (low, high) = (without.mul_f64(0.8), without.mul_f64(1.25));
            assert!(
                (low..high).contains(&with),
                "{profile} {count} {end:?}: {with:?}, {without:?}"
            );
        }
    }
}

/// The figures of docs/design.md#evidence.
#[test]
#[ignore = "prints a table, and takes minutes"]
fn table_of_detection_times() {
    for profile in ["lan", "wan"] {
        for count in [3, 10, 60, 1000] {
            for loss in [0.0, 0.05] {
                let [with, without] =
                    [true, false].map(|evidence| median_notice(profile, count, loss, End::Killed, evidence));
                println!("| {profile} | {count} | {loss} | {with:.1?} | {without:.1?} |");
            }
        }
    }
}

#[test]
fn a_process_restarted_in_place_within_two_seconds_never_fails() {
    for (profile, count) in [("lan", 2), ("lan", 3), ("lan", 12), ("wan", 6)] {
        for seed in 1..=4 {
            let mut world = world(seed, profile, true);
            let hosts = world.cluster(count);
            // All of them in turn, the way an upgrade does it.
            for &host in hosts.iter().chain(&hosts) {
                world.crash(host);
                world.run_for(millis(1990));
                world.start(host);
                let seed_host = hosts.iter().copied().find(|&other| other != host);
                world.join(host, seed_host.expect("another"));
                world.run_for(secs(7) + millis(seed * 130));
            }
            world.run_for(secs(60));
            assert!(world.all_alive(&hosts), "{profile} {count}, seed {seed}");
            assert_eq!(mistakes(&world, &hosts), 0, "{profile} {count}, seed {seed}");
        }
    }
}

#[test]
fn a_host_that_refuses_one_sender_while_others_reach_it_never_fails() {
    for (profile, count) in [("lan", 3), ("lan", 12), ("wan", 8)] {
        for seed in 1..=4 {
            let mut world = world(seed, profile, true);
            let hosts = world.cluster(count);
            let (sender, target) = (hosts[1], hosts[0]);
            world.links.refuse(sender, target);
            world.links.cut_one_way(sender, target);
            world.run_for(secs(300));
            assert_eq!(mistakes(&world, &hosts), 0, "{profile} {count}, seed {seed}");
        }
    }
}

#[test]
fn a_host_whose_tcp_port_alone_is_closed_never_fails() {
    for (profile, count) in [("lan", 2), ("lan", 3), ("lan", 12), ("wan", 8)] {
        for seed in 1..=4 {
            let mut world = world(seed, profile, true);
            world.links.change_all(|link| *link = link.losing(0.1));
            let hosts = world.cluster(count);
            for &other in &hosts[1..] {
                world.links.refuse(other, hosts[0]);
            }
            world.run_for(secs(300));
            assert_eq!(mistakes(&world, &hosts), 0, "{profile} {count}, seed {seed}");
        }
    }
}

/// The link between two sites is cut for less than the shortest suspicion takes, and a box on it resets what it cannot pass
/// on: from either side, the whole other site refuses. Only a host that is alone on its side cannot be told from one
/// whose process is gone: nobody reaches it but through that box.
#[test]
fn a_cut_link_whose_end_resets_connections_is_no_evidence() {
    for (profile, count, cut_secs) in [("lan", 12, 3), ("lan", 60, 6), ("wan", 12, 25)] {
        for here in [1, 2, 3, count / 2] {
            for seed in 1..=4 {
                let mut world = world(seed, profile, true);
                let hosts = world.acquainted(count);
                world.run_for(secs(20));
                let (one, other) = hosts.split_at(here);
                world.links.partition(one, other);
                for &a in one {
                    for &b in other {
                        world.links.refuse(a, b);
                        world.links.refuse(b, a);
                    }
                }
                world.run_for(secs(cut_secs));
                world.links.heal();
                // Suspicions that nobody refutes in time may run out later, as with Serf.
                world.run_for(secs(1));
                let subjects = if here == 1 { other } else { &hosts };
                let found = world.failures(&hosts, subjects).len();
                assert_eq!(found, 0, "{profile} {count}, {here} cut off, seed {seed}");
            }
        }
    }
}
