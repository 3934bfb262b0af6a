//! A node that hears nothing from anybody cannot tell whether it is the others who are gone.

use std::time::Duration;

use fyrd_core::serf::{Event, MemberStatus};
use fyrd_core::swim::formulas::suspicion_bounds;
use fyrd_core::time::Time;
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn world(seed: u64, minds_silence: bool) -> World {
    let mut config = WorldConfig::new(seed);
    config.profile.refinements.minds_silence = minds_silence;
    World::new(config)
}

/// Twelve of sixty hosts have their packets held up for 32 s again and again. What comes through in the gap in between is
/// too little to hear all refutations. How often a healthy host is declared failed anywhere, and at a healthy one.
fn mistakes(seed: u64, gap: Duration, minds_silence: bool) -> [usize; 2] {
    let mut config = WorldConfig::new(seed);
    let profile = &mut config.profile;
    profile.refinements.minds_silence = minds_silence;
    // What accusers are told again helps as well; here silence is to show what it does alone.
    (profile.evidence_pause, profile.late_ack_max) = (Duration::ZERO, Duration::ZERO);
    let mut world = World::new(config);
    let hosts = world.acquainted(60);
    let (slow, healthy) = hosts.split_at(12);
    for &host in &hosts {
        world.set_pace(host, Duration::from_micros(31));
    }
    world.run_for(secs(5));
    for _ in 0..4 {
        for &host in slow {
            world.block_io(host);
        }
        world.run_for(secs(32));
        for &host in slow {
            world.unblock_io(host);
        }
        world.run_for(gap);
    }
    world.run_for(secs(30));
    [
        world.failures(&hosts, healthy).len(),
        world.failures(healthy, healthy).len(),
    ]
}

#[test]
fn hosts_whose_packets_are_held_up_keep_their_verdicts_to_themselves() {
    // In a millisecond some thirty datagrams are read, of those that have waited longest.
    let gaps = [
        secs(1),
        secs(1),
        Duration::from_millis(1),
        Duration::from_millis(1),
    ];
    // One world has several times the mistakes of another, so their sums are compared.
    let [without, with] = [false, true].map(|minds_silence| {
        let of = |(seed, gap)| mistakes(seed, gap, minds_silence);
        let sum = |[a, b]: [usize; 2], [c, d]: [usize; 2]| [a + c, b + d];
        SEEDS
            .into_iter()
            .zip(gaps)
            .map(of)
            .reduce(sum)
            .unwrap_or_default()
    });
    println!("{without:?}, {with:?}");
    assert!(without[0] > 300, "only {without:?}, which shows nothing");
    for (with, without) in with.iter().zip(without) {
        assert!(with * 20 < without, "{with} of {without}");
    }
}

/// The others may be gone indeed, so the verdicts come in the end, and not later than twice the longest timeout
/// after the last of them is suspected.
#[test]
fn a_host_that_is_cut_off_learns_that_it_is_alone() {
    for seed in SEEDS {
        let mut world = world(seed, true);
        let hosts = world.cluster(12);
        let (lonely, others) = (hosts[0], &hosts[1..]);
        world.links.partition(&[lonely], others);
        let profile = WorldConfig::new(seed).profile;
        let (_, longest) = suspicion_bounds(
            profile.suspicion_mult,
            profile.suspicion_max_timeout_mult,
            hosts.len(),
            profile.probe_interval,
        );
        // Each of its probes fails, so they slow down with its local health; and who was first in the round that is under
        // way may be last in the next.
        let probes = profile.probe_interval * profile.awareness_max_multiplier * 2 * others.len() as u32;
        let alone = |world: &World| {
            others
                .iter()
                .all(|&other| world.all_see(&[lonely], other, MemberStatus::Failed))
        };
        assert!(world.run_until(probes + 2 * longest, alone), "seed {seed}");
        // They took no longer than ever to notice.
        assert!(world.all_see(others, lonely, MemberStatus::Failed), "seed {seed}");
    }
}

/// Few are left who could be heard. What has died is noticed all the same, and no later. One world takes up to twice as
/// long as another, so their sums are compared.
#[test]
fn survivors_of_a_disaster_notice_it() {
    for left in [1, 2, 5, 10, 20] {
        let [without, with] = [false, true].map(|minds_silence| {
            let of = |seed| until_all_are_gone(world(seed, minds_silence), left);
            (1..=12).map(of).sum::<Duration>()
        });
        let bound = without.mul_f64(1.15);
        assert!(with <= bound, "{left} left: {without:?}, {with:?}");
    }
}

fn until_all_are_gone(mut world: World, left: usize) -> Duration {
    let hosts = world.acquainted(40);
    world.run_for(secs(5));
    let (stay, go) = hosts.split_at(left);
    for &host in go {
        world.vanish(host);
    }
    let before = world.now();
    let gone = |world: &World| {
        go.iter()
            .all(|&host| world.all_see(stay, host, MemberStatus::Failed))
    };
    assert!(world.run_until(secs(1200), gone), "{left} left");
    world.now().since(before)
}

/// When this host was told of its isolation, and when that it is over.
fn told(world: &World, host: HostId) -> Vec<(Time, bool)> {
    let events = world.host(host).events.iter();
    events
        .filter_map(|(at, event)| match **event {
            Event::Isolation { isolated } => Some((*at, isolated)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_operator_of_an_isolated_host_hears_of_it_within_ten_seconds_and_others_never() {
    for seed in 1..=6 {
        for count in [3, 10, 40] {
            let mut world = World::new(WorldConfig::new(seed));
            // Loss alone is no isolation.
            world.links.set_usual(Link::lan().losing(0.1));
            let hosts = world.cluster(count);
            world.run_for(secs(120));
            let (isolated, rest) = hosts.split_first().expect("a host");
            assert!(
                hosts.iter().all(|&host| told(&world, host).is_empty()),
                "{seed} {count}"
            );
            world.links.partition(&[*isolated], rest);
            let cut = world.now();
            world.run_for(secs(10));
            let first = told(&world, *isolated);
            assert!(
                matches!(first[..], [(_, true)]),
                "seed {seed}, {count}: {first:?} after {cut:?}"
            );
            // Where one of three is gone, one lost packet of the other leaves nobody to be heard.
            assert!(
                count == 3 || rest.iter().all(|&host| told(&world, host).is_empty()),
                "{seed} {count}"
            );
            world.links.heal();
            world.run_for(secs(60));
            let all = told(&world, *isolated);
            assert!(
                matches!(all[..], [(_, true), (_, false)]),
                "seed {seed}, {count}: {all:?}"
            );
        }
    }
}

/// Eight of ten hosts die at once. The two that are left hear each other, but their lists are out of date.
#[test]
fn who_has_lost_most_of_its_cluster_is_told_within_ten_seconds_and_until_the_verdicts_are_in() {
    let (mut late, mut very_late, mut again) = (0, 0, 0);
    for seed in 1..=10 {
        let mut world = World::new(WorldConfig::new(seed));
        let hosts = world.cluster(10);
        world.run_for(secs(60));
        let (stay, go) = hosts.split_at(2);
        for &host in go {
            world.vanish(host);
        }
        world.run_for(secs(10));
        late += stay.iter().filter(|host| told(&world, **host).is_empty()).count();
        // Local health slows the probes down, so that an answer in between may cost some seconds.
        world.run_for(secs(5));
        very_late += stay.iter().filter(|host| told(&world, **host).is_empty()).count();
        let gone = |world: &World| {
            go.iter()
                .all(|&host| world.all_see(stay, host, MemberStatus::Failed))
        };
        assert!(world.run_until(secs(180), gone), "seed {seed}");
        world.run_for(secs(30));
        for &host in stay {
            let all = told(&world, host);
            // An answer to another that comes late may end it for a while.
            let ends = all
                .iter()
                .map(|(_, begins)| *begins)
                .eq([true, false].into_iter().cycle().take(all.len()));
            assert!(
                ends && !all.is_empty() && all.len().is_multiple_of(2),
                "seed {seed}: {all:?}"
            );
            again += usize::from(all.len() > 2);
        }
    }
    assert!(
        late <= 5 && very_late <= 1 && again <= 2,
        "{late}, {very_late}, {again} of 20"
    );
}

/// A rack goes down: three of its hosts may well be probed in a row, but the others are heard meanwhile.
#[test]
fn a_rack_that_dies_makes_nobody_else_believe_to_be_cut_off() {
    for seed in 1..=3 {
        let mut world = World::new(WorldConfig::new(seed));
        let hosts = world.acquainted(100);
        world.run_for(secs(10));
        let (rack, others) = hosts.split_at(30);
        for &host in rack {
            world.vanish(host);
        }
        world.run_for(secs(60));
        for &host in others {
            assert_eq!(told(&world, host), [], "seed {seed}");
        }
    }
}
