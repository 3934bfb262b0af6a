//! What somebody without a key may cost an agent, its operator and everybody else: next to nothing.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use fyrd_core::wire::{Alive, Filter, Message, Ping, Query, SerfMessage, encode_compound, finish_datagram};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{self, Agent, Kind, Plan, all_alive, until};

/// A connection to the agent's gossip port, from this address of the machine.
fn dial(agent: &Agent, from: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SockAddr::from(SocketAddr::from((from, 0))))
        .expect("an address");
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    socket.connect(&to.into()).expect("a connection");
    socket.into()
}

fn udp(host: u8) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a deadline");
    socket
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// As many pings as Fyrd takes in a datagram; each wants its answer at `to`.
fn pings(node: &str, to: SocketAddr, differ: bool) -> Vec<u8> {
    some_pings(255, node, to, differ)
}

fn some_pings(count: u32, node: &str, to: SocketAddr, differ: bool) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("{to}") };
    let octets = to.ip().octets();
    let bodies: Vec<Vec<u8>> = (0..count)
        .map(|n| {
            encoded(&Message::Ping(Ping {
                seq_no: if differ { 1000 + n } else { 1000 },
                node,
                source_addr: &octets,
                source_port: to.port(),
                source_node: "stranger",
            }))
        })
        .collect();
    let mut out = Vec::new();
    encode_compound(&bodies, &mut out);
    finish_datagram(out, true, false)
}

/// How many bytes come in until it is quiet.
fn received(socket: &UdpSocket) -> usize {
    let (mut sum, mut buffer) = (0, [0; 65_536]);
    while let Ok(len) = socket.recv(&mut buffer) {
        sum += len;
    }
    sum
}

/// The length of the first datagram, which has to come within a generous time.
fn first(socket: &UdpSocket) -> usize {
    let patience = socket.read_timeout().expect("it can be asked");
    socket
        .set_read_timeout(Some(support::PATIENCE))
        .expect("it can be set");
    let len = socket.recv(&mut [0; 65_536]).expect("an answer");
    socket.set_read_timeout(patience).expect("it can be set");
    len
}

/// Connections without a key, which say as much as keeps a careless deadline from passing, take nobody's place.
#[test]
fn whoever_holds_no_key_holds_no_places() {
    let key = Some(support::KEY_32);
    let agent = Plan::new(Kind::Fyrd, "n1").key(key).start();
    let mut held = Vec::new();
    for _ in 0..150 {
        for host in [2, 3] {
            let mut stream = dial(&agent, Ipv4Addr::new(127, 0, 0, host));
            stream
                .write_all(b"\x0a\x00\x01\x00\x00")
                .expect("a header is taken");
            held.push(stream);
        }
    }
    let other = Plan::new(Kind::Fyrd, "n2").key(key).join(&agent).start();
    all_alive(&[&agent, &other]);
    let yielded: usize = agent.info()["refused"]["streams_yielded"]
        .parse()
        .expect("a count");
    assert!(yielded >= 2 * (150 - 128), "{yielded}");
    drop(held);
}

/// A member that comes back finds a place whatever others hold, and no address gets back more than it sent.
#[test]
fn no_answer_is_longer_than_its_question() {
    let agent = Plan::new(Kind::Fyrd, "n1").start();
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    let (attacker, victim) = (udp(2), udp(3));
    let mut sent = 0;
    for _ in 0..20 {
        let packet = pings("n1", victim.local_addr().expect("its address"), true);
        sent += attacker.send_to(&packet, to).expect("sent");
    }
    let own = pings("n1", attacker.local_addr().expect("its address"), true);
    for _ in 0..20 {
        sent += attacker.send_to(&own, to).expect("sent");
    }
    // A busy host may take its time for the first answer.
    let answered = first(&attacker) + received(&attacker);
    assert!((1..=sent).contains(&answered), "{answered} bytes for {sent}");
    // So the agent has read what came before.
    assert_eq!(
        received(&victim),
        0,
        "of {sent} bytes that others sent in its name"
    );
    // Equal questions have one answer.
    let equal = pings("n1", attacker.local_addr().expect("its address"), false);
    attacker.send_to(&equal, to).expect("sent");
    assert!(first(&attacker) > 0 && received(&attacker) == 0);
}

/// The same at Serf, which is what makes the test above worth its while.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn serf_answers_more_than_it_is_asked() {
    let agent = Plan::new(Kind::Serf, "n1").start();
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    let (attacker, victim) = (udp(2), udp(3));
    // Serf 0.9.4 misreads a datagram of more than 127 messages.
    let packet = some_pings(120, "n1", victim.local_addr().expect("its address"), false);
    let sent = attacker.send_to(&packet, to).expect("sent");
    assert!(first(&victim) + received(&victim) > 10 * sent);
}

/// One hundred packets with 25,500 reasons for a line of the log, and as many that nobody can read.
#[test]
fn a_flood_of_nonsense_is_no_flood_of_lines() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-log-level=debug").start();
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    let socket = udp(2);
    let packet = pings("somebody else", socket.local_addr().expect("its address"), true);
    for _ in 0..100 {
        socket.send_to(&packet, to).expect("sent");
        socket.send_to(b"\xfenonsense", to).expect("sent");
    }
    agent.says("Got ping for unexpected node 'somebody else'");
    agent.says("more lines like this one were not logged");
    let lines = agent.log().lines().count();
    assert!(lines < 200, "{lines} lines");
}

/// What names, tags and payloads hold is shown, and does nothing.
#[test]
fn nothing_that_a_peer_says_acts_on_a_terminal() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-log-level=debug").start();
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    let evil = "evil\u{1b}[2J\n    2026/11/20 17:47:07 [INFO] agent: all is well\u{202e}";
    let mut meta = Vec::new();
    fyrd_core::wire::encode_tags([("role", evil)], &mut meta);
    let alive = Message::Alive(Alive {
        incarnation: 1,
        node: evil,
        addr: &[127, 0, 0, 3],
        port: 9,
        meta: &meta,
        vsn: &[1, 5, 2, 2, 5, 5],
    });
    udp(2).send_to(&encoded(&alive), to).expect("sent");
    agent.says("EventMemberJoin: evil");
    let event = ["event", evil, evil];
    agent.cli(&event).success();
    agent.says("Received event: user-event: evil");
    let acts =
        |text: &str| text.contains(['\u{1b}', '\u{202e}']) || text.contains("\n    2026/11/20 17:47:07");
    assert!(!acts(&agent.log()), "{}", agent.log().escape_debug());
    for words in [
        &["members"][..],
        &["members", "-detailed"],
        &["info"],
        &["query", "-timeout=200ms", evil],
    ] {
        let shown = agent.cli(words);
        assert!(!acts(&shown.stdout), "{words:?}: {}", shown.stdout.escape_debug());
    }
    let json = agent.cli(&["members", "-format=json"]).success();
    let listed = support::parse_members(&json).expect("JSON");
    assert!(listed.iter().any(|member| member.name == evil), "{json}");
}

/// A query is refused whose filters would stop the node, and those who ask so are told.
#[test]
fn filters_that_take_too_much_work_are_refused() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-tag=role=web").start();
    let to = SocketAddr::from(([127, 0, 0, 1], agent.gossip_port()));
    let mut filter = Vec::new();
    let bomb = "(?:.{0,50}){0,20}";
    Filter::Tag { tag: "x", expr: bomb }.encode(&mut filter);
    let query = Query {
        ltime: 5,
        id: 7,
        addr: &[127, 0, 0, 1],
        port: agent.gossip_port(),
        source_node: "n1",
        filters: vec![&filter; 127],
        flags: 0,
        relay_factor: 0,
        timeout_ns: 1_000_000_000,
        name: "slow",
        payload: b"",
    };
    let mut message = vec![8];
    SerfMessage::Query(query).encode(&mut message);
    udp(2)
        .send_to(&finish_datagram(message, true, false), to)
        .expect("sent");
    agent.says("Refused to answer query 'slow': its tag filters take too much work");
    let tag = format!("-tag=role={bomb}");
    let asked = agent.cli(&["query", &tag, "slow"]);
    assert_ne!(asked.code, Some(0));
    assert!(
        asked.stdout.contains("its tag filters take too much work"),
        "{asked:?}"
    );
    let answered = agent
        .cli(&["query", "-timeout=300ms", "-tag=role=^w.{0,20}b$", "quick"])
        .success();
    assert!(answered.contains("Ack from 'n1'"), "{answered}");
}

/// Whoever is without a window, or has a clock that is far off, is told what the matter is.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_replay_window_keeps_serf_out_and_says_so() {
    let key = Some(support::KEY_32);
    let first = Plan::new(Kind::Fyrd, "n1")
        .key(key)
        .arg("-replay-window=60s")
        .start();
    let second = Plan::new(Kind::Fyrd, "n2")
        .key(key)
        .arg("-replay-window=60s")
        .join(&first)
        .start();
    all_alive(&[&first, &second]);
    let serf = Plan::new(Kind::Serf, "n3").key(key).start();
    let reason = "every member needs a replay_window, and an agent of Serf has none";
    let joined = first.cli(&["join", &serf.address()]);
    assert!(
        joined.code != Some(0) && joined.stdout.contains(reason),
        "{joined:?}"
    );
    let joined = serf.cli(&["join", &first.address()]);
    assert!(
        joined.code != Some(0) && joined.stdout.contains(reason),
        "{joined:?}"
    );
    until("it is counted", || {
        first
            .info()
            .get("refused")
            .is_some_and(|refused| refused.contains_key("streams_refused"))
    });
    all_alive(&[&first, &second]);
    let ended = Plan::new(Kind::Fyrd, "n4")
        .arg("-replay-window=60s")
        .try_start()
        .expect_err("no key");
    assert!(
        ended.output.contains("replay_window needs encryption"),
        "{ended:?}"
    );
}
