//! What gossip misses, and how soon it is found out: digests in acks, push/pulls because of them, and those that are
//! left out.

use std::time::Duration;

use fyrd_core::serf::{Command, Event, MemberStatus, Tags};
use fyrd_core::swim::profile::Profile;
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn lan() -> Profile {
    Profile::builtin("lan").expect("a profile that is compiled in")
}

/// As Serf does it.
fn without() -> Profile {
    Profile {
        repair_interval: Duration::ZERO,
        push_pull_thinning: 1,
        ..lan()
    }
}

fn at_rest(profile: Profile, nodes: usize, seed: u64) -> (World, Vec<HostId>) {
    let mut config = WorldConfig::new(seed);
    (config.profile, config.link, config.compress) = (profile, Link::lan(), false);
    let mut world = World::new(config);
    let hosts = world.acquainted(nodes);
    world.run_for(secs(40));
    (world, hosts)
}

fn tags(value: String) -> Command {
    Command::SetTags(Tags::from([("version".to_owned(), value)]))
}

fn has_tags(world: &World, host: HostId, of: HostId, value: &str) -> bool {
    let name = world.host(of).name();
    let members = world.node(host).members();
    (members.iter().filter(|member| *member.name == *name))
        .any(|member| member.tags.get("version").is_some_and(|version| version == value))
}

fn dialled(world: &World, hosts: &[HostId]) -> u64 {
    hosts
        .iter()
        .map(|&host| world.host(host).counters.streams_dialled)
        .sum()
}

/// How long it takes until a host that was deaf for a moment knows what was said meanwhile.
fn catches_up_after(profile: Profile, seed: u64) -> Duration {
    let (mut world, hosts) = at_rest(profile, 30, seed);
    let deaf = hosts[9];
    // Not long enough for anybody to be suspected, and yet all of it passes by.
    let others: Vec<_> = hosts.iter().copied().filter(|&host| host != deaf).collect();
    world.links.partition(&[deaf], &others);
    world.command(hosts[3], tags("2".to_owned()));
    let event = Command::UserEvent {
        name: "deploy".to_owned(),
        payload: Vec::new(),
        coalesce: false,
    };
    world.command(hosts[4], event);
    world.run_for(Duration::from_millis(450));
    world.links.heal();
    let healed = world.now();
    assert!(!has_tags(&world, deaf, hosts[3], "2"), "it was not deaf");
    let knows = |world: &World| {
        let heard = world
            .host(deaf)
            .events
            .iter()
            .any(|(_, event)| matches!(**event, Event::User { .. }));
        heard && has_tags(world, deaf, hosts[3], "2")
    };
    assert!(world.run_until(secs(200), knows), "never");
    world.now().since(healed)
}

#[test]
fn what_a_node_has_missed_is_there_after_two_probes() {
    let [with, plain] = [lan(), without()].map(|profile| {
        (1..=6)
            .map(|seed| catches_up_after(profile.clone(), seed))
            .collect::<Vec<_>>()
    });
    println!("{with:?}, without digests {plain:?}");
    assert!(with.iter().all(|after| *after <= secs(4)), "{with:?}");
    let [sum, plain_sum] = [&with, &plain].map(|delays| delays.iter().sum::<Duration>());
    assert!(sum * 4 < plain_sum, "{with:?}, without digests {plain:?}");
}

#[test]
fn at_rest_push_pulls_are_rare_and_never_end() {
    let mut bytes = Vec::new();
    for (profile, push_pulls) in [(lan(), 120..=180), (without(), 600..=620)] {
        let (mut world, hosts) = at_rest(profile, 60, 4);
        let sum = |world: &World| -> u64 {
            let counters = hosts.iter().map(|&host| world.host(host).counters);
            counters.map(|of| of.bytes_sent + of.stream_bytes_sent).sum()
        };
        let before = (dialled(&world, &hosts), sum(&world));
        world.run_for(secs(600));
        let dialled = dialled(&world, &hosts) - before.0;
        assert!(push_pulls.contains(&dialled), "{dialled} push/pulls");
        bytes.push(sum(&world) - before.1);
    }
    assert!(bytes[0] < bytes[1], "{bytes:?} bytes");
}

/// Streams that all nodes dial while so many of them change their tags a second.
fn dialled_in_a_storm(profile: Profile, nodes: usize, a_second: u32) -> u64 {
    let (mut world, hosts) = at_rest(profile, nodes, 6);
    let before = dialled(&world, &hosts);
    for number in 0..30 * a_second {
        world.command(hosts[number as usize * 7 % nodes], tags(number.to_string()));
        world.run_for(secs(1) / a_second);
    }
    world.run_for(secs(10));
    let last = (30 * a_second - 1) as usize;
    let source = hosts[last * 7 % nodes];
    assert!(
        hosts
            .iter()
            .all(|&host| has_tags(&world, host, source, &last.to_string()))
    );
    dialled(&world, &hosts) - before
}

#[test]
fn a_storm_of_changes_brings_no_storm_of_exchanges() {
    for a_second in [1, 10] {
        let [with, plain] = [lan(), without()].map(|profile| dialled_in_a_storm(profile, 100, a_second));
        println!("{a_second} changes a second: {with} streams, without digests {plain}");
        assert!(
            with <= plain * 3 / 2 + 20,
            "{a_second} changes a second: {with} streams, without digests {plain}"
        );
    }
}

/// Whether all of forty nodes that start together, and join through the first ten, see all within three seconds.
fn forms_at_once(profile: &Profile, seed: u64) -> bool {
    let mut config = WorldConfig::new(seed);
    (config.profile, config.link, config.compress) = (profile.clone(), Link::lan(), false);
    let mut world = World::new(config);
    let mut hosts: Vec<HostId> = Vec::new();
    for number in 0..40_usize {
        let host = world.add(&format!("n{number}"));
        if let Some(last) = number.checked_sub(1) {
            world.join(host, hosts[last % number.min(10)]);
        }
        hosts.push(host);
        world.run_for(Duration::from_millis(if number < 10 { 100 } else { 3 }));
    }
    world.run_until(secs(3), |world| world.all_alive(&hosts))
}

#[test]
fn nodes_that_start_together_and_join_through_several_all_see_all_within_seconds() {
    let paced = Profile {
        eager_share: 0,
        gossip_ring: 0,
        ..without()
    };
    let [all, plain] = [lan(), paced].map(|profile| {
        let formed = (1..=10).filter(|&seed| forms_at_once(&profile, seed));
        formed.count()
    });
    println!("{all} of 10, as Serf {plain}");
    assert_eq!(all, 10);
    assert!(plain < 10, "this shows nothing");
}

#[test]
fn among_serf_peers_push_pulls_come_as_often_as_with_serf() {
    let mut config = WorldConfig::new(3);
    (config.link, config.compress) = (Link::lan(), false);
    let mut world = World::new(config);
    let hosts: Vec<_> = (0..20)
        .map(|i| {
            let profile = if i % 2 == 0 { without() } else { lan() };
            world.add_with(&format!("n{i}"), |config| config.profile = profile)
        })
        .collect();
    for &host in &hosts[1..] {
        world.join(host, hosts[0]);
    }
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    world.run_for(secs(60));
    let before = dialled(&world, &hosts);
    world.run_for(secs(300));
    let push_pulls = dialled(&world, &hosts) - before;
    assert!((190..=215).contains(&push_pulls), "{push_pulls} push/pulls");
    assert!(world.all_see(&hosts, hosts[0], MemberStatus::Alive));
}
