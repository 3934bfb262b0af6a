//! What has broken in Serf and memberlist, and the tests that show that it does not break here.
//!
//! The numbers are threads of hashicorp/serf, hashicorp/memberlist (mb) and hashicorp/consul. [`TABLE`] names
//! the tests; one of them checks that all of those exist, the others here are those that had no better place.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fyrd_core::bounds::MAX_RECENT_INTENTS;
use fyrd_core::serf::{Answer, Command, MemberStatus};
use fyrd_core::wire::{Dead, JoinIntent, LeaveIntent, Message, SerfMessage};
use fyrd_sim::{HostId, World, WorldConfig};

/// What hurt, and the tests against it, as `file: test`.
const TABLE: &[(&str, &[&str])] = &[
    // Security and correctness.
    (
        "mb#357: counts in a push/pull header allocate memory",
        &[
            "tests/hostile/process.rs: headers_that_promise_too_much",
            "core/tests/wire/properties.rs: a_header_that_promises_2_to_the_31_nodes_is_refused_before_any_comes",
        ],
    ),
    (
        "mb#362: 198 KB of LZW become 256 MiB",
        &[
            "core/tests/wire/properties.rs: a_bomb_is_refused_with_bounded_memory",
            "tests/hostile/process.rs: bombs_to_an_encrypted_agent",
        ],
    ),
    (
        "mb#360: the length of a user message is believed",
        &["tests/hostile/process.rs: headers_that_promise_too_much"],
    ),
    (
        "mb#368, #369, #336: malformed packets panic",
        &[
            "tests/fuzz_corpus.rs: every_input_of_the_corpus_keeps_the_promises",
            "core/tests/wire/properties.rs: vectors_with_any_one_bit_flipped_never_panic",
            "tests/hostile/process.rs: mutated_packets_to_a_plain_agent",
        ],
    ),
    (
        "mb#358: an incarnation of u32::MAX evicts a node for good",
        &[
            "sim/tests/sim/hostile.rs: no_incarnation_evicts_a_node_or_makes_it_unheard",
            "sim/tests/sim/hostile.rs: many_rounds_of_raised_incarnations_do_not_wear_a_node_out",
        ],
    ),
    (
        "a Lamport time near 2^64 makes all later events too old",
        &[
            "sim/tests/sim/hostile.rs: no_lamport_time_silences_a_cluster",
            "core/src/serf/lamport.rs: a_leap_to_the_end_of_time_is_not_believed",
        ],
    ),
    (
        "mb#311: after mass restarts, stale Dead messages of a high incarnation hide live nodes",
        &["sim/tests/sim/weaknesses.rs: stale_deaths_of_high_incarnations_hide_nobody_after_a_mass_restart"],
    ),
    (
        "a stale Alive resurrects the dead",
        &["sim/tests/sim/weaknesses.rs: a_stale_alive_does_not_resurrect_the_dead"],
    ),
    (
        "mb#370: a forged leave takes another node's address",
        &[
            "sim/tests/sim/weaknesses.rs: a_forged_leave_moves_no_name_to_another_address",
            "core/src/swim/state.rs: a_left_name_moves_to_another_address_at_once_and_a_dead_one_only_if_its_owner_is_silent",
        ],
    ),
    (
        "mb#222, serf#605: partitions that outlast the dead-gossip window never heal",
        &[
            "sim/tests/sim/membership.rs: a_partition_of_equal_halves_heals_by_the_reconnect_rule",
            "tests/interop/faults.rs: a_partition_of_two_minutes_heals_and_leaves_nothing_behind",
            "tests/interop/faults.rs: two_sides_that_forgot_each_other_meet_again_through_their_seeds",
        ],
    ),
    (
        "mb#342, serf#784: data races in keyring and state",
        &["tests/interop/key_rotation.rs: rotations_under_load_lose_nothing_and_disturb_nobody"],
    ),
    (
        "mb#350: in clusters of three the helper of a probe is missed now and then",
        &["core/src/swim/gossip.rs: nodes_are_picked_without_repetition_and_nobody_is_missed"],
    ),
    (
        "serf#684, #315, #72: IPv6",
        &[
            "tests/interop/addresses.rs: a_mixed_cluster_lives_on_ipv6",
            "tests/interop/addresses.rs: every_form_of_a_join_address_works",
        ],
    ),
    (
        "consul#1465: the source port behind a NAT is not the advertised one",
        // There, each datagram comes from an address that is not its sender's.
        &["tests/interop/faults.rs: loss_and_delay_end_in_agreement"],
    ),
    (
        "indirect pings are relayed to any address",
        &["sim/tests/sim/hostile.rs: pings_and_responses_are_relayed_to_members_alone_and_within_a_rate"],
    ),
    (
        "serf#148: the RPC token comes late and in the open",
        &[
            "tests/interop/rpc.rs: an_rpc_token_is_asked_for_and_honoured",
            "src/rpc/server/tests.rs: a_token_guards_every_command",
        ],
    ),
    // Operations and scale.
    (
        "consul#3705, #7960, #14200: storms of intents",
        &["sim/tests/sim/weaknesses.rs: intents_do_not_storm"],
    ),
    (
        "mb#299, mb#243: membership traffic starves user events",
        &["sim/tests/sim/serf.rs: a_storm_of_joining_nodes_does_not_keep_events_and_leaves_waiting"],
    ),
    (
        "serf#269, consul#916: one half-detached node makes others flap",
        &[
            "sim/tests/sim/membership.rs: a_half_detached_node_makes_no_healthy_one_fail",
            "sim/tests/sim/silence.rs: hosts_whose_packets_are_held_up_keep_their_verdicts_to_themselves",
            "tests/interop/faults.rs: cuts_in_one_direction_fail_nobody_and_a_deaf_member_comes_back",
        ],
    ),
    (
        "serf#359, #604: members stuck in leaving; a failed broadcast aborts the leave",
        &[
            "sim/tests/sim/membership.rs: a_leave_completes_alone_with_all_peers_dead_and_cut_off",
            "sim/tests/sim/membership.rs: a_leave_during_a_join_is_not_taken_back_by_the_join",
        ],
    ),
    (
        "mb#157, consul#6897: the same name at a new address is blocked",
        &[
            "sim/tests/sim/membership.rs: a_left_name_comes_back_at_another_address",
            "sim/tests/sim/moves.rs: a_host_that_crashes_and_comes_back_elsewhere_is_alive_within_seconds",
        ],
    ),
    (
        "consul#719, serf#579: offline during a rotation means locked out",
        &[
            "tests/interop/key_rotation.rs: a_rotation_stops_for_a_member_that_is_down_and_goes_on_when_it_is_back",
            "tests/interop/key_rotation.rs: keys_are_neither_used_nor_removed_behind_a_members_back",
        ],
    ),
    (
        "consul#835: keys must not be persisted on some sites",
        &["tests/interop/key_rotation.rs: rotations_under_load_lose_nothing_and_disturb_nobody"],
    ),
];

#[test]
fn every_weakness_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (weakness, tests) in TABLE {
        assert!(!tests.is_empty(), "{weakness}");
        for test in *tests {
            let (file, name) = test.split_once(": ").expect("file: test");
            let source =
                std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let at = source
                .find(&format!("fn {name}()"))
                .unwrap_or_else(|| panic!("{weakness}: no {name} in {file}"));
            let before: Vec<&str> = source[..at].lines().rev().take(4).collect();
            assert!(
                before
                    .iter()
                    .any(|line| line.contains("test]") || line.contains("::test(")),
                "{test} is no test"
            );
            let ignored = before.iter().find(|line| line.contains("#[ignore"));
            assert!(
                ignored.is_none_or(|line| line.contains("(tests/run)")),
                "{test} is ignored"
            );
        }
    }
}

const SEEDS: [u64; 3] = [61, 62, 63];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn stranger() -> SocketAddr {
    "10.66.6.6:666".parse().expect("address")
}

fn plain(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn user(message: &SerfMessage<'_>) -> Vec<u8> {
    let mut out = vec![8];
    message.encode(&mut out);
    out
}

fn cluster(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(WorldConfig::new(seed));
    let hosts = world.cluster(count);
    (world, hosts)
}

#[test]
fn stale_deaths_of_high_incarnations_hide_nobody_after_a_mass_restart() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 12);
        let (stay, restart) = hosts.split_at(4);
        // Years of changes, and what the others say of them when they are gone.
        let death = |world: &World, host: HostId| {
            plain(&Message::Dead(Dead {
                incarnation: 5000,
                node: world.host(host).name(),
                from: "n0",
            }))
        };
        for &host in restart {
            world.forge(stranger(), stay[0], death(&world, host));
        }
        world.run_for(secs(20));
        assert!(world.all_alive(&hosts), "seed {seed}: they refute while they run");
        for &host in restart {
            assert!(
                world.node(host).incarnation() > 5000,
                "seed {seed}: they had to refute"
            );
            world.crash(host);
        }
        let gone = |world: &World| {
            restart
                .iter()
                .all(|&host| world.all_see(stay, host, MemberStatus::Failed))
        };
        assert!(world.run_until(secs(90), gone), "seed {seed}: nobody noticed");
        // All come back at once and know nothing, while deaths of their earlier lives still go round.
        for &host in restart {
            world.start(host);
            world.join(host, stay[1]);
        }
        for round in 0..20 {
            for (index, &host) in restart.iter().enumerate() {
                world.forge(
                    stranger(),
                    hosts[(index + round) % hosts.len()],
                    death(&world, host),
                );
            }
            world.run_for(Duration::from_millis(500));
        }
        let back = world.run_until(secs(60), |world| world.all_alive(&hosts));
        assert!(back, "seed {seed}: somebody is hidden");
        for &host in restart {
            assert!(
                world.node(host).incarnation() > 5000,
                "seed {seed}: {host:?} did not refute"
            );
        }
        // And they are heard: a change of tags reaches everybody.
        let tags = [("after".to_owned(), "restart".to_owned())];
        for &host in restart {
            assert_eq!(
                world.ask(host, Command::SetTags(tags.clone().into())),
                Answer::Done
            );
        }
        let heard = world.run_until(secs(30), |world| {
            hosts.iter().all(|&host| {
                let members = world.node(host).members();
                members
                    .iter()
                    .filter(|member| member.tags.contains_key("after"))
                    .count()
                    == restart.len()
            })
        });
        assert!(heard, "seed {seed}: somebody is not heard");
    }
}

#[test]
fn a_stale_alive_does_not_resurrect_the_dead() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 5);
        // The alive messages of its life, kept by somebody.
        world.tap();
        for i in 0..3 {
            let tags = [("life".to_owned(), i.to_string())].into();
            assert_eq!(world.ask(hosts[4], Command::SetTags(tags)), Answer::Done);
        }
        world.run_for(secs(5));
        let name = world.host(hosts[4]).name().to_owned();
        let kept: Vec<Vec<u8>> = world
            .tapped()
            .into_iter()
            .filter(|packet| packet.is_datagram && packet.from == hosts[4])
            .map(|packet| packet.plain)
            .filter(|plain| plain.windows(name.len()).any(|window| window == name.as_bytes()))
            .collect();
        assert!(kept.len() > 10, "seed {seed}: {} packets", kept.len());
        let rest = &hosts[..4];
        world.crash(hosts[4]);
        let dead = |world: &World| world.all_see(rest, hosts[4], MemberStatus::Failed);
        assert!(world.run_until(secs(60), dead));
        for (index, packet) in kept.iter().enumerate() {
            world.forge(stranger(), rest[index % rest.len()], packet.clone());
            world.run_for(Duration::from_millis(100));
            assert!(dead(&world), "seed {seed}: packet {index} brought it back");
        }
    }
}

#[test]
fn a_forged_leave_moves_no_name_to_another_address() {
    for seed in SEEDS {
        let (mut world, hosts) = cluster(seed, 5);
        let owner = world.host(hosts[2]).addr();
        let name = world.host(hosts[2]).name().to_owned();
        let leave = plain(&Message::Dead(Dead {
            incarnation: 1,
            node: &name,
            from: &name,
        }));
        let claim = plain(&Message::Alive(fyrd_core::wire::Alive {
            incarnation: 2,
            node: &name,
            addr: &[10, 66, 6, 6],
            port: 666,
            meta: &[0xff, 0x80],
            vsn: &[1, 5, 2, 2, 5, 5],
        }));
        for round in 0..10 {
            // To all but the owner: nobody it could object to before the claim comes.
            for &host in hosts.iter().filter(|&&host| host != hosts[2]) {
                world.forge(stranger(), host, leave.clone());
                world.forge(stranger(), host, claim.clone());
            }
            world.run_for(secs(1 + round % 3));
        }
        assert!(
            world.run_until(secs(60), |world| world.all_alive(&hosts)),
            "seed {seed}: it was taken away"
        );
        for &host in &hosts {
            let members = world.node(host).members();
            let member = members
                .iter()
                .find(|member| *member.name == *name)
                .expect("a member");
            let addr = member.addr.socket(member.port);
            assert_eq!(addr, owner, "seed {seed}: {host:?} holds another address");
        }
    }
}

#[test]
fn intents_do_not_storm() {
    let (mut world, hosts) = cluster(71, 10);
    let invented: Vec<String> = (0..20).map(|index| format!("unknown-{index}")).collect();
    let names: Vec<String> = hosts[1..]
        .iter()
        .map(|&host| world.host(host).name().to_owned())
        .collect();
    let sent_before: u64 = hosts
        .iter()
        .map(|&host| world.host(host).counters.bytes_sent)
        .sum();
    let mut ltime = 100;
    let mut deepest = 0;
    let mut taken = 0;
    // Joins and leaves of the same nodes over and over, as when many agents restart again and again.
    for _ in 0..200 {
        for name in names.iter().chain(&invented) {
            ltime += 1;
            let join = SerfMessage::Join(JoinIntent { ltime, node: name });
            ltime += 1;
            let leave = SerfMessage::Leave(LeaveIntent {
                ltime,
                node: name,
                prune: false,
            });
            world.forge(stranger(), hosts[0], user(&leave));
            world.forge(stranger(), hosts[0], user(&join));
            taken += 2;
        }
        world.run_for(Duration::from_millis(20));
        let depth = hosts
            .iter()
            .map(|&host| world.node(host).stats().intent_queue)
            .max();
        deepest = deepest.max(depth.unwrap_or_default());
    }
    let known = names.len() + invented.len() + 1;
    assert!(
        deepest <= known,
        "{deepest} intents of {taken} wait, about {known} nodes"
    );
    assert!(deepest > 5 && known < MAX_RECENT_INTENTS, "there was no storm");
    world.run_for(secs(30));
    assert!(world.all_alive(&hosts), "somebody is thought to leave");
    let sent: u64 = hosts
        .iter()
        .map(|&host| world.host(host).counters.bytes_sent)
        .sum::<u64>()
        - sent_before;
    println!(
        "{taken} intents, at most {deepest} waiting, {} KB sent",
        sent >> 10
    );
    for &host in &hosts {
        assert_eq!(
            world.node(host).stats().intent_queue,
            0,
            "{host:?} still has to say something"
        );
    }
}
