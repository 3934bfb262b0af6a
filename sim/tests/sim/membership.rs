//! Who is alive, on a simulated network: joining, failing, refuting, leaving, partitions.

use std::time::Duration;

use fyrd_core::serf::{Answer, Command, JoinTarget, MemberEventKind, MemberStatus, Tags};
use fyrd_core::swim::formulas::suspicion_bounds;
use fyrd_core::wire::{Message, Scratch, decode_datagram};
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn world(seed: u64) -> World {
    World::new(WorldConfig::new(seed))
}

fn lossy(loss: f64) -> Link {
    Link {
        loss,
        duplicate: 0.1,
        reorder: 0.3,
        ..Link::default()
    }
}

fn without(hosts: &[HostId], gone: HostId) -> Vec<HostId> {
    hosts.iter().copied().filter(|&host| host != gone).collect()
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// How often any of these hosts saw this kind of event about the node of `subject`.
fn seen(world: &World, hosts: &[HostId], kind: MemberEventKind, subject: HostId) -> usize {
    let name = world.host(subject).name();
    hosts
        .iter()
        .map(|&host| world.host(host).member_events(kind, name).len())
        .sum()
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte_and_another_seed_does_not() {
    let run = |seed| {
        let mut config = WorldConfig::new(seed);
        config.link = lossy(0.1);
        config.key = Some(
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
                .parse()
                .expect("a key"),
        );
        let mut world = World::new(config);
        let hosts = world.cluster(6);
        world.crash(hosts[3]);
        world.command(hosts[1], Command::Leave);
        world.run_for(secs(40));
        world.trace()
    };
    let first = run(7);
    assert!(first.steps() > 500);
    assert_eq!(first, run(7));
    assert_ne!(first.sum(), run(8).sum());
}

#[test]
fn nodes_that_join_one_and_nodes_that_join_in_a_chain_all_see_each_other() {
    for seed in SEEDS {
        for count in [2, 5, 25] {
            let mut world = world(seed);
            let hosts = world.add_many(count);
            // A chain in the worst order: each joins the next before that one has joined any.
            for pair in hosts.windows(2) {
                world.join(pair[0], pair[1]);
            }
            let limit = secs(60);
            assert!(
                world.run_until(limit, |world| world.all_alive(&hosts)),
                "seed {seed}, {count} nodes"
            );
            for &host in &hosts {
                assert_eq!(seen(&world, &hosts, MemberEventKind::Join, host), count);
                assert_eq!(seen(&world, &hosts, MemberEventKind::Failed, host), 0);
            }
        }
    }
}

#[test]
fn a_node_that_was_alone_for_long_still_announces_itself_when_a_peer_comes() {
    // n2 knows n1 alone, and hears of n0 only by gossip that has waited in n0's queue.
    let mut world = world(5);
    let hosts = world.add_many(2);
    let sent = world.ask(
        hosts[0],
        Command::UserEvent {
            name: "early".to_owned(),
            payload: Vec::new(),
            coalesce: false,
        },
    );
    assert_eq!(sent, Answer::Done);
    world.run_for(secs(20));
    world.tap();
    world.join(hosts[1], hosts[0]);
    world.run_for(secs(5));
    let own = world
        .tapped()
        .iter()
        .filter(|packet| packet.from == hosts[0] && packet.is_datagram)
        .flat_map(|packet| names_said_alive(&packet.plain))
        .filter(|name| name == "n0")
        .count();
    assert!(
        own > 0,
        "n0's first alive message was used up while nobody could hear it"
    );
}

fn names_said_alive(plain: &[u8]) -> Vec<String> {
    let mut scratch = Scratch::default();
    let datagram = decode_datagram(plain, &mut scratch).expect("our own packets can be read");
    let alive = datagram.messages.iter().filter_map(|message| match message {
        Message::Alive(alive) => Some(alive.node.to_owned()),
        _ => None,
    });
    alive.collect()
}

#[test]
fn a_crashed_node_fails_everywhere_within_the_bound_and_not_before_the_minimum() {
    for seed in SEEDS {
        for count in [3, 8, 20] {
            let mut world = world(seed);
            let hosts = world.cluster(count);
            world.run_for(secs(10));
            let victim = hosts[count / 2];
            let rest = without(&hosts, victim);
            let crashed = world.now();
            // Where the machine is gone as well, nothing refuses connections, and only time can tell.
            world.vanish(victim);
            let (min, max) = suspicion_bounds(4, 6, count, secs(1));
            // Two rounds until somebody's turn comes, the probe, the suspicion, and its spreading.
            let bound = secs(2 * count as u64 + 2) + max + secs(2);
            let failed = |world: &World| world.all_see(&rest, victim, MemberStatus::Failed);
            assert!(world.run_until(bound, failed), "seed {seed}, {count} nodes");
            let name = world.host(victim).name().to_owned();
            for &host in &rest {
                let at = world.host(host).member_events(MemberEventKind::Failed, &name);
                assert_eq!(at.len(), 1, "seed {seed}: {name} failed {} times", at.len());
                assert!(
                    at[0].since(crashed) >= min,
                    "seed {seed}: failed after {:?}",
                    at[0].since(crashed)
                );
                for &other in &rest {
                    assert_eq!(seen(&world, &[host], MemberEventKind::Failed, other), 0);
                }
            }
        }
    }
}

#[test]
fn a_node_frozen_for_less_than_the_suspicion_refutes_and_never_fails() {
    let mut suspected = 0;
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(8);
        world.run_for(secs(10));
        let before = world.node(hosts[3]).incarnation();
        // Within 3.5 s a probe of it has most often failed, and the shortest suspicion lasts 4 s.
        world.freeze(hosts[3]);
        world.run_for(millis(3500));
        world.thaw(hosts[3]);
        world.run_for(secs(40));
        assert!(world.all_alive(&hosts), "seed {seed}");
        assert_eq!(
            seen(&world, &hosts, MemberEventKind::Failed, hosts[3]),
            0,
            "seed {seed}"
        );
        suspected += u32::from(world.node(hosts[3]).incarnation() > before);
        // Its own time stood still, which is no reason to accuse others.
        for &host in &without(&hosts, hosts[3]) {
            assert_eq!(
                seen(&world, &hosts, MemberEventKind::Failed, host),
                0,
                "seed {seed}"
            );
        }
    }
    assert!(suspected > 0, "never suspected");
}

#[test]
fn a_node_that_was_frozen_accuses_nobody_of_the_silence_it_slept_through() {
    for seed in 1..=12 {
        let mut world = world(seed);
        let hosts = world.cluster(8);
        world.run_for(millis(10_000 + 77 * seed));
        // n2 is slow and suspected by all; it refutes while n5 sleeps, whose suspicion runs out.
        world.freeze(hosts[2]);
        let suspected = world.now();
        world.run_for(millis(3800));
        world.freeze(hosts[5]);
        world.thaw(hosts[2]);
        world.run_for(secs(25));
        world.thaw(hosts[5]);
        world.run_for(secs(30));
        let rest = without(&hosts, hosts[5]);
        for &host in &rest {
            let name = world.host(host).name().to_owned();
            for &observer in &hosts {
                let failed = world.host(observer).member_events(MemberEventKind::Failed, &name);
                let late = failed.iter().any(|at| at.since(suspected) > secs(20));
                assert!(!late, "seed {seed}: {name} failed at {observer:?}");
            }
        }
        for &host in &without(&rest, hosts[2]) {
            assert_eq!(
                world.node(host).incarnation(),
                1,
                "seed {seed}: {host:?} was accused"
            );
        }
    }
}

#[test]
fn a_node_frozen_for_long_fails_and_comes_back_by_itself() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(6);
        let rest = without(&hosts, hosts[2]);
        world.freeze(hosts[2]);
        let failed = |world: &World| world.all_see(&rest, hosts[2], MemberStatus::Failed);
        assert!(world.run_until(secs(60), failed), "seed {seed}");
        world.thaw(hosts[2]);
        assert!(
            world.run_until(secs(120), |world| world.all_alive(&hosts)),
            "seed {seed}"
        );
    }
}

#[test]
fn a_restarted_node_with_incarnation_one_is_alive_everywhere_again() {
    for seed in SEEDS {
        // Restarted before anybody noticed, while it is held dead, and after it was purged.
        for pause in [millis(300), secs(25), secs(120)] {
            let mut world = world(seed);
            let hosts = world.cluster(6);
            world.run_for(secs(5));
            world.crash(hosts[4]);
            world.run_for(pause);
            world.start(hosts[4]);
            assert_eq!(world.node(hosts[4]).incarnation(), 1);
            world.join(hosts[4], hosts[1]);
            assert!(
                world.run_until(secs(20), |world| world.all_alive(&hosts)),
                "seed {seed}, after {pause:?}"
            );
        }
    }
}

#[test]
fn a_graceful_leave_is_seen_as_such_by_all() {
    for seed in SEEDS {
        for loss in [0.0, 0.2] {
            let mut world = world(seed);
            let hosts = world.cluster(12);
            world.links.set_usual(lossy(loss));
            world.run_for(secs(5));
            let rest = without(&hosts, hosts[5]);
            let before = world.now();
            assert_eq!(world.ask(hosts[5], Command::Leave), Answer::Done);
            assert!(world.now().since(before) < secs(12), "seed {seed}");
            assert!(world.all_see(&[hosts[5]], hosts[5], MemberStatus::Left));
            world.crash(hosts[5]);
            assert!(
                world.run_until(secs(10), |world| world.all_see(
                    &rest,
                    hosts[5],
                    MemberStatus::Left
                )),
                "seed {seed}, loss {loss}"
            );
            world.run_for(secs(60));
            assert!(
                world.all_see(&rest, hosts[5], MemberStatus::Left),
                "seed {seed}, loss {loss}"
            );
            assert_eq!(
                seen(&world, &rest, MemberEventKind::Failed, hosts[5]),
                0,
                "seed {seed}, loss {loss}"
            );
            assert_eq!(seen(&world, &rest, MemberEventKind::Leave, hosts[5]), rest.len());
        }
    }
}

#[test]
fn a_leave_completes_alone_with_all_peers_dead_and_cut_off() {
    for seed in SEEDS {
        let mut alone = world(seed);
        let host = alone.add("solo");
        assert_eq!(alone.ask(host, Command::Leave), Answer::Done);
        assert_eq!(alone.ask(host, Command::Leave), Answer::Done, "a second leave");

        let mut world = world(seed);
        let hosts = world.cluster(3);
        world.crash(hosts[1]);
        world.crash(hosts[2]);
        // At once, while they seem alive, no broadcast can be heard.
        let before = world.now();
        assert_eq!(world.ask(hosts[0], Command::Leave), Answer::Done);
        assert!(world.now().since(before) <= secs(12));
        assert!(world.all_see(&hosts[..1], hosts[0], MemberStatus::Left));
    }
}

#[test]
fn a_leave_during_a_join_is_not_taken_back_by_the_join() {
    for seed in SEEDS {
        for before_timeout in [9500, 9700, 9900, 9990] {
            let mut world = world(seed);
            let hosts = world.cluster(4);
            let leaver = world.add("late");
            world.join(leaver, hosts[0]);
            let joined = |world: &World| world.all_see(&hosts, leaver, MemberStatus::Alive);
            assert!(world.run_until(secs(20), joined));
            // The second target never answers, so the join is under way until its deadline, and
            // would then announce itself while the leave is spreading.
            let nowhere = "10.9.9.9:7946".parse().expect("address");
            let targets = [world.host(hosts[1]).addr(), nowhere]
                .map(|addr| JoinTarget { name: None, addr })
                .to_vec();
            let join = Command::Join {
                targets,
                ignore_old: false,
            };
            world.command(leaver, join);
            world.run_for(millis(before_timeout));
            assert_eq!(world.ask(leaver, Command::Leave), Answer::Done);
            world.crash(leaver);
            world.run_for(secs(60));
            let left = world.all_see(&hosts, leaver, MemberStatus::Left);
            assert!(left, "seed {seed}, {before_timeout} ms");
            let failed = seen(&world, &hosts, MemberEventKind::Failed, leaver);
            assert_eq!(failed, 0, "seed {seed}, {before_timeout} ms");
        }
    }
}

#[test]
fn a_leaving_node_does_not_announce_new_tags() {
    let mut world = world(3);
    let hosts = world.cluster(4);
    assert_eq!(world.ask(hosts[1], Command::Leave), Answer::Done);
    let answer = world.ask(hosts[1], Command::SetTags(tags(&[("role", "ghost")])));
    assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
    world.run_for(secs(5));
    assert!(world.all_see(&without(&hosts, hosts[1]), hosts[1], MemberStatus::Left));
}

#[test]
fn force_leave_turns_a_failed_member_into_a_left_one_everywhere() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(7);
        let rest = without(&hosts, hosts[6]);
        world.crash(hosts[6]);
        let failed = |world: &World| world.all_see(&rest, hosts[6], MemberStatus::Failed);
        assert!(world.run_until(secs(60), failed));
        let force = Command::ForceLeave {
            name: "n6".to_owned(),
            prune: false,
        };
        assert_eq!(world.ask(hosts[0], force), Answer::Done);
        let left = |world: &World| world.all_see(&rest, hosts[6], MemberStatus::Left);
        assert!(world.run_until(secs(10), left), "seed {seed}");
        assert_eq!(seen(&world, &rest, MemberEventKind::Leave, hosts[6]), rest.len());
    }
}

#[test]
fn force_leave_of_a_live_node_is_refuted_and_prune_does_not_forget_it() {
    for seed in SEEDS {
        for prune in [false, true] {
            let mut world = world(seed);
            let hosts = world.cluster(7);
            let force = Command::ForceLeave {
                name: "n3".to_owned(),
                prune,
            };
            assert_eq!(world.ask(hosts[0], force), Answer::Done);
            world.run_for(secs(30));
            assert!(world.all_alive(&hosts), "seed {seed}, prune {prune}");
            assert_eq!(seen(&world, &hosts, MemberEventKind::Reap, hosts[3]), 0);
        }
    }
}

#[test]
fn prune_forgets_a_failed_member_everywhere() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(5);
        let rest = without(&hosts, hosts[4]);
        world.crash(hosts[4]);
        let failed = |world: &World| world.all_see(&rest, hosts[4], MemberStatus::Failed);
        assert!(world.run_until(secs(60), failed));
        let force = Command::ForceLeave {
            name: "n4".to_owned(),
            prune: true,
        };
        assert_eq!(world.ask(hosts[0], force), Answer::Done);
        let forgotten = |world: &World| {
            rest.iter()
                .all(|&host| world.host(host).status_of("n4").is_none())
        };
        assert!(world.run_until(secs(10), forgotten), "seed {seed}");
        // It stays forgotten: push/pulls do not bring it back.
        world.run_for(secs(120));
        assert!(forgotten(&world), "seed {seed}");
    }
}

#[test]
fn failed_and_left_members_are_forgotten_in_their_time() {
    let mut config = WorldConfig::new(5);
    config.profile.serf.reconnect_timeout = secs(300);
    config.profile.serf.tombstone_timeout = secs(600);
    let mut world = World::new(config);
    let hosts = world.cluster(5);
    assert_eq!(world.ask(hosts[3], Command::Leave), Answer::Done);
    world.crash(hosts[3]);
    world.crash(hosts[4]);
    let rest = &hosts[..3];
    for (seconds, failed, left) in [
        (60, true, true),
        (200, true, true),
        (100, false, true),
        (300, false, false),
    ] {
        world.run_for(secs(seconds));
        for &host in rest {
            let host = world.host(host);
            let statuses = (host.status_of("n4"), host.status_of("n3"));
            let expected = (
                failed.then_some(MemberStatus::Failed),
                left.then_some(MemberStatus::Left),
            );
            assert_eq!(statuses, expected, "{seconds} s on");
        }
    }
    for gone in &hosts[3..] {
        assert_eq!(seen(&world, rest, MemberEventKind::Reap, *gone), 3);
    }
    assert!(world.all_alive(rest));
}

#[test]
fn new_tags_are_seen_by_all_and_raise_the_incarnation() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(9);
        let before = world.node(hosts[2]).incarnation();
        let new = tags(&[("role", "db"), ("dc", "west")]);
        assert_eq!(world.ask(hosts[2], Command::SetTags(new.clone())), Answer::Done);
        assert_eq!(world.node(hosts[2]).incarnation(), before + 1);
        let spread = |world: &World| {
            world.hosts().all(|host| {
                let members = world.node(host).members();
                members
                    .iter()
                    .any(|member| &*member.name == "n2" && member.tags == new)
            })
        };
        assert!(world.run_until(secs(10), spread), "seed {seed}");
        assert_eq!(
            seen(&world, &hosts, MemberEventKind::Update, hosts[2]),
            hosts.len()
        );
        let large = tags(&[("k", &"v".repeat(506))]);
        let answer = world.ask(hosts[2], Command::SetTags(large));
        let text = "Encoded length of tags exceeds limit of 512 bytes";
        assert_eq!(answer, Answer::Failed(text.to_owned()));
        assert_eq!(*world.node(hosts[2]).tags(), new);
    }
}

#[test]
fn a_left_name_comes_back_at_another_address() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(5);
        let rest = without(&hosts, hosts[1]);
        world.ask(hosts[1], Command::Leave);
        world.crash(hosts[1]);
        let moved = world.add("n1");
        world.join(moved, hosts[0]);
        let back = |world: &World| {
            rest.iter().all(|&host| {
                let members = world.node(host).members();
                let member = members.iter().find(|member| &*member.name == "n1");
                member.is_some_and(|member| {
                    member.status == MemberStatus::Alive
                        && member.addr.socket(member.port) == world.host(moved).addr()
                })
            })
        };
        assert!(world.run_until(secs(30), back), "seed {seed}");
    }
}

#[test]
fn a_partition_of_equal_halves_heals_by_the_reconnect_rule() {
    for seed in SEEDS {
        // Short: each side still holds the other's dead. Long: it has purged them.
        for length in [secs(30), secs(300)] {
            let mut world = world(seed);
            let hosts = world.cluster(10);
            let (one, other) = hosts.split_at(5);
            world.links.partition(one, other);
            world.run_for(length);
            let split = one
                .iter()
                .all(|&host| world.all_see(&[host], other[0], MemberStatus::Failed));
            assert!(split || length == secs(30), "seed {seed}: no partition");
            let healed = world.now();
            world.links.heal();
            // Each of ten nodes tries one failed member every 30 s, with certainty as half are failed.
            let together = world.run_until(secs(120), |world| world.all_alive(&hosts));
            assert!(together, "seed {seed}, after {length:?}");
            eprintln!(
                "seed {seed}: {length:?} healed in {:?}",
                world.now().since(healed)
            );
        }
    }
}

#[test]
fn two_nodes_that_cannot_reach_each_other_are_helped_by_the_others() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(6);
        world.links.cut(hosts[0], hosts[1]);
        world.run_for(secs(120));
        assert!(world.all_alive(&hosts), "seed {seed}");
        for &host in &hosts {
            assert_eq!(
                seen(&world, &hosts, MemberEventKind::Failed, host),
                0,
                "seed {seed}"
            );
            assert_eq!(world.node(host).incarnation(), 1, "seed {seed}: was suspected");
            assert_eq!(world.node(host).stats().health_score, 0);
        }
    }
}

#[test]
fn a_link_that_works_one_way_only_fails_nobody() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(6);
        world.links.cut_one_way(hosts[0], hosts[1]);
        world.links.cut_one_way(hosts[3], hosts[2]);
        world.run_for(secs(120));
        assert!(world.all_alive(&hosts), "seed {seed}");
        for &host in &hosts {
            assert_eq!(
                seen(&world, &hosts, MemberEventKind::Failed, host),
                0,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn a_half_detached_node_makes_no_healthy_one_fail() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(10);
        let bad = hosts[4];
        let rest = without(&hosts, bad);
        for &host in &rest {
            world.links.set(host, bad, lossy(0.6));
        }
        world.run_for(secs(600));
        for &host in &rest {
            let failures = seen(&world, &rest, MemberEventKind::Failed, host);
            assert_eq!(failures, 0, "seed {seed}: {host:?} was declared failed");
        }
        assert!(
            rest.iter()
                .all(|&host| world.all_see(&rest, host, MemberStatus::Alive))
        );
    }
}

#[test]
fn a_cluster_that_loses_most_of_its_nodes_at_once_learns_it_and_takes_them_back() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(15);
        let (stay, go) = hosts.split_at(4);
        for &host in go {
            world.crash(host);
        }
        let gone = |world: &World| {
            go.iter()
                .all(|&host| world.all_see(stay, host, MemberStatus::Failed))
        };
        assert!(world.run_until(secs(240), gone), "seed {seed}");
        assert!(world.all_alive(stay));
        // They come back alone: nobody tells them whom to join, but the others try them again.
        for &host in go {
            world.start(host);
        }
        let before = world.now();
        assert!(
            world.run_until(secs(600), |world| world.all_alive(&hosts)),
            "seed {seed}"
        );
        eprintln!("seed {seed}: all back after {:?}", world.now().since(before));
    }
}

#[test]
fn a_cluster_whose_datagrams_are_all_lost_stays_together_over_streams() {
    let mut world = world(2);
    let hosts = world.cluster(4);
    world.links.set_usual(lossy(1.0));
    world.run_for(secs(120));
    assert!(world.all_alive(&hosts));
    for &host in &hosts {
        assert_eq!(seen(&world, &hosts, MemberEventKind::Failed, host), 0);
        assert_eq!(world.node(host).stats().health_score, 0);
    }
}

#[test]
fn helpers_that_answer_with_nacks_leave_the_health_alone_and_silent_ones_do_not() {
    // With its helpers there, a node that meets a dead one is still healthy.
    let mut healthy = world(6);
    let hosts = healthy.cluster(6);
    healthy.crash(hosts[5]);
    healthy.run_for(secs(60));
    for &host in &hosts[..5] {
        assert_eq!(healthy.node(host).stats().health_score, 0);
    }
    // One that hears nobody at all gets three points for each failed probe, up to the bound.
    let mut deaf = world(6);
    let hosts = deaf.cluster(6);
    deaf.links.partition(&hosts[..1], &hosts[1..]);
    let mut highest = 0;
    for _ in 0..200 {
        deaf.run_for(millis(100));
        highest = highest.max(deaf.node(hosts[0]).stats().health_score);
    }
    assert!((3..=7).contains(&highest), "{highest}");
}

#[test]
fn nobody_asks_itself_for_help() {
    let mut world = world(9);
    let hosts = world.cluster(3);
    world.crash(hosts[2]);
    world.tap();
    world.run_for(secs(30));
    for packet in world.tapped() {
        assert_ne!(packet.to, world.host(packet.from).addr(), "a datagram to oneself");
    }
}

#[test]
fn no_member_list_is_left_behind_by_a_lossy_network() {
    for seed in SEEDS {
        let mut world = world(seed);
        let hosts = world.cluster(16);
        world.links.set_usual(lossy(0.3));
        world.crash(hosts[7]);
        let rest = without(&hosts, hosts[7]);
        world.run_for(secs(180));
        assert!(
            world.all_see(&rest, hosts[7], MemberStatus::Failed),
            "seed {seed}"
        );
        world.links.set_usual(Link::default());
        let calm = world.run_until(secs(120), |world| world.all_alive(&rest));
        assert!(calm, "seed {seed}");
        let failures: usize = rest
            .iter()
            .map(|&host| seen(&world, &rest, MemberEventKind::Failed, host))
            .sum();
        assert_eq!(failures, 0, "seed {seed}: live nodes were declared failed");
    }
}

#[test]
fn every_timer_still_runs_after_a_day() {
    let mut world = world(11);
    let hosts = world.cluster(3);
    world.run_for(secs(24 * 3600 / 8));
    let before: Vec<_> = hosts.iter().map(|&host| world.host(host).counters).collect();
    world.run_for(secs(250));
    for (&host, before) in hosts.iter().zip(before) {
        let now = world.host(host).counters;
        // A ping and an ack each second, and a push/pull every 30 s, of which three of four are left out.
        assert!(now.datagrams_sent - before.datagrams_sent >= 475, "{host:?}");
        assert!(now.streams_dialled - before.streams_dialled >= 2, "{host:?}");
    }
}
