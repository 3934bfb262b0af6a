//! Forged and hostile messages, sealed with the cluster's key: the worst a peer can do.

use std::net::SocketAddr;
use std::time::Duration;

use fyrd_core::bounds::{EVENT_RING_BYTES_MAX, MAX_INCARNATION, MAX_MEMBERS, MAX_OPEN_QUERIES, MAX_RELAYS};
use fyrd_core::node::{Input, Node};
use fyrd_core::serf::{Answer, Command, MemberEventKind, MemberStatus};
use fyrd_core::wire::{
    Alive, Dead, IndirectPing, JoinIntent, LeaveIntent, Message, Ping, PushNodeState, PushPull,
    PushPullState, Query, Relay, Scratch, SerfMessage, StreamMessage, Suspect, UserEvent, decode_datagram,
};
use fyrd_sim::{HostId, World, WorldConfig};

const SEEDS: [u64; 3] = [31, 32, 33];
const VSN: [u8; 6] = [1, 5, 2, 2, 5, 5];
const META: &[u8] = &[0xff, 0x80];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn stranger() -> SocketAddr {
    "10.66.6.6:666".parse().expect("address")
}

fn cluster(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(WorldConfig::new(seed));
    let hosts = world.cluster(count);
    (world, hosts)
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

fn assert_healthy(world: &World, hosts: &[HostId], what: &str) {
    assert!(world.all_alive(hosts), "{what}: somebody is not alive");
    for &host in hosts {
        for &other in hosts {
            let name = world.host(other).name();
            let failed = world.host(host).member_events(MemberEventKind::Failed, name);
            assert!(failed.is_empty(), "{what}: {name} failed");
        }
    }
}

/// Tags must still spread from every node to every node: a node whose incarnation the others refuse
/// looks alive, but is no longer heard.
fn assert_heard(world: &mut World, hosts: &[HostId], what: &str) {
    for &host in hosts {
        let name = world.host(host).name().to_owned();
        let tags = [("heard".to_owned(), format!("{what}-{name}"))].into();
        assert_eq!(world.ask(host, Command::SetTags(tags)), Answer::Done);
    }
    let spread = |world: &World| {
        hosts.iter().all(|&host| {
            let members = world.node(host).members();
            let heard = members.iter().filter(|member| {
                let value = format!("{what}-{}", member.name);
                member.tags.get("heard") == Some(&value)
            });
            heard.count() == hosts.len()
        })
    };
    assert!(world.run_until(secs(60), spread), "{what}: somebody is not heard");
}

#[test]
fn no_incarnation_evicts_a_node_or_makes_it_unheard() {
    let limits = [
        2,
        1000,
        (1 << 24) + 1,
        MAX_INCARNATION - 1,
        MAX_INCARNATION,
        MAX_INCARNATION + 1,
        u32::MAX - 1,
        u32::MAX,
    ];
    for seed in SEEDS {
        for incarnation in limits {
            let (mut world, hosts) = cluster(seed, 5);
            let octets = [10, 0, 0, 3];
            let alive = Message::Alive(Alive {
                incarnation,
                node: "n2",
                addr: &octets,
                port: 7946,
                meta: b"forged",
                vsn: &VSN,
            });
            let suspect = Message::Suspect(Suspect {
                refused: false,
                incarnation,
                node: "n2",
                from: "n4",
            });
            let dead = |from| {
                Message::Dead(Dead {
                    incarnation,
                    node: "n2",
                    from,
                })
            };
            for (message, what) in [(suspect, "suspect"), (alive, "alive"), (suspect, "suspect again")] {
                // To a bystander, and to the victim.
                for target in [hosts[0], hosts[2]] {
                    world.forge(stranger(), target, plain(&message));
                    world.run_for(secs(40));
                    assert_healthy(&world, &hosts, &format!("seed {seed}: {what} {incarnation}"));
                }
            }
            for message in [dead("n4"), dead("n2")] {
                for target in [hosts[0], hosts[2]] {
                    world.forge(stranger(), target, plain(&message));
                    world.run_for(secs(10));
                    let back = world.run_until(secs(60), |world| world.all_alive(&hosts));
                    assert!(back, "seed {seed}: {message:?} took n2 away");
                }
            }
            assert_heard(&mut world, &hosts, &format!("{incarnation}"));
        }
    }
}

#[test]
fn many_rounds_of_raised_incarnations_do_not_wear_a_node_out() {
    let (mut world, hosts) = cluster(34, 4);
    for _ in 0..140 {
        let current = world.node(hosts[1]).incarnation();
        for incarnation in [current + (1 << 24), current.max(MAX_INCARNATION)] {
            let dead = Message::Dead(Dead {
                incarnation,
                node: "n1",
                from: "n3",
            });
            world.forge(stranger(), hosts[0], plain(&dead));
        }
        world.run_for(secs(3));
    }
    assert!(world.run_until(secs(60), |world| world.all_alive(&hosts)));
    assert_heard(&mut world, &hosts, "worn");
}

/// A push/pull tells that a member has left, but not when: one more than the time of its last join is taken. A prune
/// behind the leave may have that very time.
#[test]
fn a_prune_at_the_time_that_a_push_pull_gave_a_leave_counts() {
    let (mut world, hosts) = cluster(36, 5);
    assert_eq!(world.ask(hosts[4], Command::Leave), Answer::Done);
    world.crash(hosts[4]);
    let left = |world: &World| world.all_see(&hosts[..4], hosts[4], MemberStatus::Left);
    assert!(world.run_until(secs(30), left));
    let mut user_state = Vec::new();
    let state = PushPullState {
        ltime: 50,
        status_ltimes: vec![("n4", 40)],
        left_members: vec!["n4"],
        event_ltime: 1,
        events: vec![],
        query_ltime: 1,
    };
    SerfMessage::PushPull(state).encode(&mut user_state);
    let mut request = Vec::new();
    let push_pull = PushPull {
        user_state: &user_state,
        ..PushPull::default()
    };
    StreamMessage::PushPull(push_pull).encode(&mut request);
    world.forge_stream(hosts[1], hosts[0], request);
    world.run_for(secs(1));
    let prune = LeaveIntent {
        ltime: 41,
        node: "n4",
        prune: true,
    };
    world.forge(stranger(), hosts[1], user(&SerfMessage::Leave(prune)));
    let forgotten = |world: &World| {
        let mut rest = hosts[..4].iter();
        rest.all(|&host| world.host(host).status_of("n4").is_none())
    };
    assert!(world.run_until(secs(10), forgotten));
}

#[test]
fn no_lamport_time_silences_a_cluster() {
    for ltime in [
        1 << 40,
        (1 << 40) + 3,
        1 << 62,
        (1 << 62) + 1,
        u64::MAX - 1,
        u64::MAX,
    ] {
        let (mut world, hosts) = cluster(35, 5);
        let addr = [10, 0, 0, 2];
        let query = Query {
            ltime,
            id: 1,
            addr: &addr,
            port: 7946,
            source_node: "n1",
            filters: vec![],
            flags: 0,
            relay_factor: 0,
            timeout_ns: i64::MAX,
            name: "q",
            payload: b"",
        };
        let state = PushPullState {
            ltime,
            status_ltimes: vec![("n2", ltime)],
            left_members: vec!["n2"],
            event_ltime: ltime,
            events: vec![],
            query_ltime: ltime,
        };
        let mut user_state = Vec::new();
        SerfMessage::PushPull(state).encode(&mut user_state);
        let push_pull = StreamMessage::PushPull(PushPull {
            join: true,
            nodes: vec![],
            user_state: &user_state,
            ..PushPull::default()
        });
        let event = UserEvent {
            ltime,
            name: "e",
            payload: b"",
            coalesce: false,
        };
        let leave = LeaveIntent {
            ltime,
            node: "n2",
            prune: true,
        };
        let join = JoinIntent { ltime, node: "n2" };
        for message in [
            SerfMessage::UserEvent(event),
            SerfMessage::Query(query),
            SerfMessage::Leave(leave),
            SerfMessage::Join(join),
            SerfMessage::Leave(leave),
        ] {
            // Gossip may lose it for some; they must still understand the others.
            world.links.cut(hosts[0], hosts[4]);
            world.forge(stranger(), hosts[0], user(&message));
            world.run_for(secs(2));
            world.links.heal();
        }
        let mut request = Vec::new();
        push_pull.encode(&mut request);
        world.forge_stream(hosts[1], hosts[0], request);
        world.run_for(secs(60));
        assert_healthy(&world, &hosts, &format!("LTime {ltime}"));
        for (i, &host) in hosts.iter().enumerate() {
            let event = Command::UserEvent {
                name: "after".to_owned(),
                payload: vec![i as u8],
                coalesce: false,
            };
            assert_eq!(world.ask(host, event), Answer::Done);
            let query = Command::Query(fyrd_core::serf::QueryParams {
                name: "after".to_owned(),
                ..Default::default()
            });
            world.ask(host, query);
            world.run_for(secs(10));
        }
        for &host in &hosts {
            let after = |name: &String| name == "after";
            let events = world.host(host).user_events();
            assert_eq!(
                events.iter().filter(|(name, _)| after(name)).count(),
                5,
                "LTime {ltime}"
            );
            assert_eq!(
                world
                    .host(host)
                    .queries()
                    .iter()
                    .filter(|name| after(name))
                    .count(),
                5
            );
        }
        // A leave is still told from a failure.
        assert_eq!(world.ask(hosts[3], Command::Leave), Answer::Done);
        world.crash(hosts[3]);
        let rest: Vec<_> = hosts.iter().copied().filter(|&host| host != hosts[3]).collect();
        let left = |world: &World| world.all_see(&rest, hosts[3], MemberStatus::Left);
        assert!(world.run_until(secs(30), left), "LTime {ltime}");
    }
}

#[test]
fn an_announced_death_in_a_push_pull_is_a_suspicion_at_most() {
    for seed in SEEDS {
        for state in [1, 2] {
            let (mut world, hosts) = cluster(seed, 5);
            let addr = [10, 0, 0, 3];
            let node = PushNodeState {
                name: "n2",
                addr: &addr,
                port: 7946,
                meta: META,
                incarnation: 1,
                state,
                vsn: &VSN,
            };
            let mut request = Vec::new();
            StreamMessage::PushPull(PushPull {
                join: false,
                nodes: vec![node],
                user_state: &[],
                ..PushPull::default()
            })
            .encode(&mut request);
            world.forge_stream(hosts[1], hosts[0], request);
            world.run_for(secs(40));
            assert_healthy(&world, &hosts, &format!("seed {seed}: state {state}"));
            assert_eq!(world.node(hosts[2]).incarnation(), 2, "it was not even suspected");
        }
    }
}

#[test]
fn a_push_pull_with_versions_that_do_not_fit_changes_nothing() {
    for vsn in [
        &[1, 5, 9, 2, 5, 5][..],
        &[1, 5, 2, 2, 4, 4],
        &[3, 5, 3, 2, 5, 5],
        &[],
        &[1, 5, 2],
    ] {
        let (mut world, hosts) = cluster(36, 3);
        let addr = [10, 0, 0, 77];
        let node = |name, vsn| PushNodeState {
            name,
            addr: &addr,
            port: 7946,
            meta: META,
            incarnation: 1,
            state: 0,
            vsn,
        };
        let mut request = Vec::new();
        StreamMessage::PushPull(PushPull {
            join: true,
            nodes: vec![node("fits", &VSN[..]), node("fits-not", vsn)],
            user_state: &[],
            ..PushPull::default()
        })
        .encode(&mut request);
        world.forge_stream(hosts[1], hosts[0], request);
        // By gossip neither: held by one node, it would spoil every push/pull.
        let alive = Message::Alive(Alive {
            incarnation: 1,
            node: "fits-not",
            addr: &addr,
            port: 7946,
            meta: META,
            vsn,
        });
        world.forge(stranger(), hosts[0], plain(&alive));
        world.run_for(secs(2));
        for &host in &hosts {
            assert_eq!(world.host(host).status_of("fits"), None, "{vsn:?}");
            assert_eq!(world.host(host).status_of("fits-not"), None, "{vsn:?}");
        }
        let late = world.add("late");
        world.join(late, hosts[0]);
        assert!(world.run_until(secs(20), |world| world.all_see(&hosts, late, MemberStatus::Alive)));
    }
}

#[test]
fn pings_and_responses_are_relayed_to_members_alone_and_within_a_rate() {
    let (mut world, hosts) = cluster(37, 3);
    let victim = "10.250.0.9:53".parse::<SocketAddr>().expect("address");
    world.tap();
    let ping = |node, target, seq_no| {
        plain(&Message::IndirectPing(IndirectPing {
            seq_no,
            target,
            port: 53,
            node,
            nack: true,
            ..IndirectPing::default()
        }))
    };
    for node in ["n1", "unknown", ""] {
        world.forge(stranger(), hosts[0], ping(node, &[10, 250, 0, 9], 1));
    }
    let relay = Relay {
        dest_addr: &[10, 250, 0, 9],
        dest_port: 53,
        dest_name: "n1",
        inner: &[5, 0x80],
    };
    world.forge(stranger(), hosts[0], user(&SerfMessage::Relay(relay)));
    world.run_for(secs(5));
    let packets = world.tapped();
    assert!(packets.iter().all(|packet| packet.to != victim));
    // The asker got its nacks.
    assert!(packets.iter().any(|packet| packet.to == stranger()));

    for seq_no in 0..2 * MAX_RELAYS as u32 {
        let target = [10, 0, 0, 2];
        let ping = plain(&Message::IndirectPing(IndirectPing {
            seq_no,
            target: &target,
            port: 7946,
            node: "n1",
            nack: true,
            ..IndirectPing::default()
        }));
        world.forge(stranger(), hosts[0], ping);
    }
    // Before any of them can have been answered.
    world.run_for(Duration::from_micros(100));
    let relayed = world
        .tapped()
        .iter()
        .filter(|packet| packet.to == world.host(hosts[1]).addr())
        .count();
    assert!((MAX_RELAYS - 8..=MAX_RELAYS + 8).contains(&relayed), "{relayed}");
    world.run_for(secs(10));
    assert_healthy(&world, &hosts, "indirect pings");
}

/// One node alone, fed by hand.
fn lone_node() -> (World, Node) {
    let mut world = World::new(WorldConfig::new(38));
    let host = world.add("n0");
    let node = Node::new(world.host(host).config.clone(), world.now()).expect("the configuration is right");
    (world, node)
}

#[test]
fn invented_names_fill_neither_list_beyond_its_bound() {
    let (world, mut node) = lone_node();
    let mut now = world.now();
    let mut invented = 0;
    for _ in 0..3 {
        for _ in 0..MAX_MEMBERS / 2 + 1000 {
            invented += 1;
            let name = format!("invented-{invented}");
            let alive = Message::Alive(Alive {
                incarnation: 1,
                node: &name,
                addr: &[10, 1, 1, 1],
                port: 1,
                meta: META,
                vsn: &VSN,
            });
            let dead = Message::Dead(Dead {
                incarnation: 1,
                node: &name,
                from: "n9",
            });
            let messages = [alive, dead];
            node.handle(
                now,
                Input::Datagram {
                    from: stranger(),
                    len: 1400,
                    messages: &messages,
                },
            );
            while node.poll_effect().is_some() {}
        }
        // Long enough for the node list to purge its dead, so that it takes new ones.
        for _ in 0..50 {
            now += secs(1);
            node.handle(now, Input::Tick);
            while node.poll_effect().is_some() {}
        }
    }
    let known = node.stats().members;
    assert!(
        known > MAX_MEMBERS / 2 && known <= MAX_MEMBERS,
        "{known} members of {invented} invented"
    );
}

#[test]
fn a_flood_of_events_and_endless_queries_leaves_room_for_new_ones() {
    let (world, mut node) = lone_node();
    let now = world.now();
    while node.poll_effect().is_some() {}
    let mut give = |message: &SerfMessage<'_>| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let messages = [Message::User(&bytes)];
        node.handle(
            now,
            Input::Datagram {
                from: stranger(),
                len: 1400,
                messages: &messages,
            },
        );
        let mut events = 0;
        while let Some(effect) = node.poll_effect() {
            events += usize::from(matches!(effect, fyrd_core::node::Effect::Event(_)));
        }
        events
    };
    let payload = vec![7; 8000];
    let flood = EVENT_RING_BYTES_MAX / 8000 + 100;
    for i in 0..flood {
        let name = format!("e{i}");
        let event = UserEvent {
            ltime: 10 + (i / 200) as u64,
            name: &name,
            payload: &payload,
            coalesce: false,
        };
        assert_eq!(give(&SerfMessage::UserEvent(event)), 1, "event {i} of {flood}");
    }
    // What had to be forgotten is not handled a second time.
    let first = UserEvent {
        ltime: 10,
        name: "e0",
        payload: &payload,
        coalesce: false,
    };
    assert_eq!(give(&SerfMessage::UserEvent(first)), 0);

    for i in 0..2 * MAX_OPEN_QUERIES as u64 {
        let query = Query {
            ltime: i / 8,
            id: i as u32,
            addr: &[10, 0, 0, 2],
            port: 7946,
            source_node: "n1",
            filters: vec![],
            flags: 0,
            relay_factor: 0,
            timeout_ns: i64::MAX,
            name: "q",
            payload: b"",
        };
        assert_eq!(give(&SerfMessage::Query(query)), 1, "query {i}");
    }
}

#[test]
fn noise_of_every_kind_leaves_a_cluster_as_it_was() {
    let (mut world, hosts) = cluster(39, 3);
    world.tap();
    world.run_for(secs(40));
    let packets = world.tapped();
    // Real packets, cut short and with single bytes changed.
    for (i, packet) in packets
        .iter()
        .filter(|packet| packet.is_datagram)
        .enumerate()
        .take(400)
    {
        let mut bytes = packet.plain.clone();
        let at = (i * 7919) % bytes.len();
        if i % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (i % 8);
        }
        let mut scratch = Scratch::default();
        let _ = decode_datagram(&bytes, &mut scratch);
        world.forge(stranger(), hosts[i % 3], bytes);
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(secs(60));
    assert_healthy(&world, &hosts, "noise");
}

/// Whoever can send a packet can name any address in it. What goes there is no more than what came, though every
/// node answers a query.
#[test]
fn nobody_is_sent_more_than_was_sent_in_his_name() {
    let (mut world, hosts) = cluster(61, 5);
    for &host in &hosts {
        world.host_mut(host).responder = Some(vec![7; 5_000]);
    }
    world.tap();
    let name = "x".repeat(40);
    let query = Query {
        ltime: 9,
        id: 1,
        addr: &[10, 66, 6, 6],
        port: 666,
        source_node: "ghost",
        filters: vec![],
        // An acknowledgement, and large answers by stream.
        flags: 1 | 1 << 16,
        relay_factor: 0,
        timeout_ns: 10_000_000_000,
        name: &name,
        payload: b"",
    };
    let asked = user(&SerfMessage::Query(query));
    world.forge(stranger(), hosts[0], asked.clone());
    for seq_no in 0..50 {
        let ping = Ping {
            seq_no,
            node: "n0",
            source_node: "ghost",
            ..Ping::default()
        };
        world.forge(stranger(), hosts[0], plain(&Message::Ping(ping)));
    }
    world.run_for(secs(20));
    let packets = world.tapped();
    let to_stranger: Vec<_> = packets.iter().filter(|packet| packet.to == stranger()).collect();
    assert!(
        to_stranger
            .iter()
            .all(|packet| packet.is_datagram && packet.plain.len() <= asked.len())
    );
    let pings = to_stranger
        .iter()
        .filter(|packet| packet.plain.first() == Some(&2));
    assert_eq!(pings.clone().count(), 50);
    assert!(
        pings.clone().all(|packet| packet.plain.len() <= 24),
        "neither gossip nor a coordinate"
    );
    // The acknowledgement of each node, and no answer.
    assert_eq!(to_stranger.len(), 50 + hosts.len());
    assert_healthy(&world, &hosts, "answers");
}
