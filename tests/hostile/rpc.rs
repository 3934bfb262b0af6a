//! What bad clients of the RPC can do: nothing to the agent, and nothing to other clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{self, Agent, Kind, PATIENCE, Plan, eventually};
use fyrd::rpc::frame::scan;

const HANDSHAKE: &[u8] = b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Version\x01";
const GREETED: &[u8] = b"\x82\xa5Error\xa0\xa3Seq\x01";

/// Every command that has a body.
const WITH_BODY: &[&str] = &[
    "auth",
    "event",
    "force-leave",
    "join",
    "members-filtered",
    "tags",
    "stream",
    "monitor",
    "stop",
    "query",
    "respond",
    "install-key",
    "use-key",
    "remove-key",
    "get-coordinate",
];

/// Resident memory that malice may cost: far above what a test run scatters, far below what any of the
/// lengths promised here would take.
const GROWTH_MAX_KB: u64 = 48 << 10;

#[test]
fn malformed_requests_close_their_connection_and_no_other() {
    let mut agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut good = Client::greeted(&agent);
    let before = resident_kb(&agent);
    let deep = |byte: u8| vec![byte; 100_000];
    let bodies: &[&[u8]] = &[
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\xc6\xff\xff\xff\xffx",
        b"\xc9\xff\xff\xff\xff\x01x",
        b"\xd4\x01x",
        b"\x81\xa1x\xdd\x7f\xff\xff\xff",
        b"\x81\xdb\xff\xff\xff\xf0",
        b"\x05",
        b"\xa1x",
        &deep(0x91),
        &deep(0x81),
        &[b"\x81\xa7Payload", &deep(0x91)[..]].concat(),
        &[b"\x82\xa4Name\xa1x\xa7Payload\xc6\x00\x20\x00\x00", &deep(0)[..]].concat(),
    ];
    // As a header, and as a body of everything.
    for body in bodies {
        assert_closed(&agent, body);
        for command in WITH_BODY {
            assert_closed(&agent, &[&request(command, 2), *body].concat());
        }
    }
    for (command, body) in [
        ("event", &b"\x81\xa4Name\x05"[..]),
        ("event", b"\x81\xa8Coalesce\x02"),
        ("stop", b"\x81\xa4Stop\xff"),
        ("stop", b"\x81\xa4Stop\xcb\0\0\0\0\0\0\0\0"),
        ("query", b"\x81\xabRelayFactor\xcd\x01\x2c"),
        ("query", b"\x81\xaaFilterTags\x91\xa1x"),
        ("query", b"\x81\xabFilterNodes\xa1x"),
        ("query", b"\x81\xa7Timeout\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("respond", b"\x81\xa2ID\xff"),
        ("stream", b"\x81\xa4Type\x90"),
        ("monitor", b"\x81\xa8LogLevel\x80"),
        ("install-key", b"\x81\xa3Key\x01"),
    ] {
        assert_closed(&agent, &[&request(command, 2), body].concat());
    }
    assert_eq!(
        good.answer(&request("stop", 7), b"\x81\xa4Stop\x01"),
        b"\x82\xa5Error\xa0\xa3Seq\x07"
    );
    agent.assert_running();
    assert_small_growth(&agent, before);
}

/// Requests that are well formed and yet nonsense are answered, and the connection goes on.
#[test]
fn nonsense_is_answered() {
    let mut agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut client = Client::greeted(&agent);
    let many_filters = {
        let mut body = b"\x82\xa4Name\xa1q\xaaFilterTags\xde\x03\xe8".to_vec();
        (0..1000).for_each(|n| body.extend([&[0xa4], format!("{n:04}").as_bytes(), b"\xa1."].concat()));
        body
    };
    let many_kinds = [&b"\x81\xa4Type\xc5\xff\xff"[..], &[b','; 0xffff]].concat();
    for (command, body, wanted) in [
        (
            "query",
            &b"\x83\xa4Name\xa1q\xa7Timeout\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xabRelayFactor\xcc\xff"[..],
            "",
        ),
        ("query", &many_filters, "query exceeds limit of 1024 bytes"),
        ("stream", &many_kinds, "Invalid event filter"),
        (
            "respond",
            b"\x81\xa2ID\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            "No pending queries matching ID",
        ),
        ("stop", b"\x81\xa4Stop\xcf\xff\xff\xff\xff\xff\xff\xff\xff", ""),
        (
            "install-key",
            b"\x81\xa3Key\xc4\x02\xff\xfe",
            "illegal base64 data at input byte 0",
        ),
        (
            "monitor",
            b"\x81\xa8LogLevel\xa4\n\x1b\0x",
            "Unknown log level: \n\u{1b}\0X",
        ),
    ] {
        let got = client.answer(&request(command, 9), body);
        let text = String::from_utf8_lossy(&got);
        assert!(text.contains(wanted), "{command}: {text:?}");
        assert_eq!(
            wanted.is_empty(),
            got == b"\x82\xa5Error\xa0\xa3Seq\x09",
            "{command}: {text:?}"
        );
        if command.ends_with("-key") {
            client.frame();
        }
    }
    agent.assert_running();
}

#[test]
fn a_thousand_idle_or_half_open_clients_harm_nobody() {
    let mut agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut good = Client::greeted(&agent);
    let before = resident_kb(&agent);
    let mut held = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(("127.0.0.1", agent.rpc_port())).expect("a connection");
        // Nothing, half a header, a greeting, half a body; some have hung up halfway.
        let said: &[u8] = match number % 4 {
            0 => b"",
            1 => b"\x82\xa7Comm",
            2 => HANDSHAKE,
            _ => b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Vers",
        };
        // Those beyond the cap are closed meanwhile.
        let _ = stream.write_all(said);
        if number % 10 == 9 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        held.push(stream);
    }
    for seq in 2..100 {
        let expected = [&b"\x82\xa5Error\xa0\xa3Seq"[..], &[seq]].concat();
        assert_eq!(good.answer(&request("stop", seq), b"\x81\xa4Stop\x01"), expected);
    }
    drop(held);
    eventually("there is room for a new client", PATIENCE, || {
        let members = agent.cli(&["members"]);
        if members.code == Some(0) {
            Ok(())
        } else {
            Err(format!("{members:?}"))
        }
    });
    let lines = count(&agent, "Refused client:") + count(&agent, "Closed the client that was idle");
    assert!(lines <= 20, "{lines} lines about clients without a place");
    agent.assert_running();
    assert_small_growth(&agent, before);
}

/// One client opens streams, a monitor and queries, and never reads. Another sends 20,000 events, and a
/// third reads them all.
#[test]
fn a_client_that_never_reads_loses_records_and_slows_nobody() {
    const EVENTS: u32 = 20_000;
    let mut agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut deaf = Client::greeted(&agent);
    for seq in 2..12 {
        let subscribed = deaf.answer(&request("stream", seq), b"\x81\xa4Type\xa1*");
        assert!(
            subscribed.starts_with(b"\x82\xa5Error\xa0\xa3Seq"),
            "{}",
            subscribed.escape_ascii()
        );
    }
    deaf.send(&[&request("monitor", 12), &b"\x81\xa8LogLevel\xa5DEBUG"[..]].concat());
    deaf.send(&[&request("query", 13), &b"\x82\xa4Name\xa1q\xaaRequestAck\xc3"[..]].concat());
    let mut reader = Client::greeted(&agent);
    reader.answer(&request("stream", 2), b"\x81\xa4Type\xa6user:e");
    let mut sender = Client::greeted(&agent);
    let before = resident_kb(&agent);
    let start = Instant::now();
    let payload = [b'x'; 400];
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            (0..EVENTS).for_each(|number| {
                reader.frame();
                let record = reader.frame();
                let wanted = number.to_be_bytes();
                assert!(
                    record.windows(4).any(|bytes| bytes == wanted),
                    "event {number} is missing"
                );
            });
        });
        for number in 0..EVENTS {
            let body = [
                &b"\x83\xa8Coalesce\xc2\xa4Name\xa1e\xa7Payload\xc5\x01\x94"[..],
                &number.to_be_bytes(),
                &payload,
            ]
            .concat();
            sender.send(&[&request("event", 5), &body[..]].concat());
            assert_eq!(sender.frame(), b"\x82\xa5Error\xa0\xa3Seq\x05");
        }
        reading.join().expect("all events are read");
    });
    let took = start.elapsed();
    agent.assert_running();
    assert_small_growth(&agent, before);
    let lines = count(&agent, "Dropping");
    // Two kinds, each told of once in ten seconds.
    let most = 2 * (took.as_secs() / 10 + 2);
    assert!(
        (1..=most).contains(&(lines as u64)),
        "{lines} lines about drops in {took:?}"
    );
    assert!(count(&agent, "Dropping event to ipc.client: 127.0.0.1:") > 0);
    assert!(count(&agent, "Dropping logs to ipc.client: 127.0.0.1:") > 0);

    // What it did not lose is whole, once it reads.
    let mut records = 0;
    while records < 512 {
        let header = deaf.frame();
        assert!(
            header.starts_with(b"\x82\xa5Error\xa0\xa3Seq"),
            "{}",
            header.escape_ascii()
        );
        if header.ends_with(b"\x0c") || header.ends_with(b"\x0d") {
            // The answer to these requests has no body; their records look the same, so they end this.
            break;
        }
        deaf.frame();
        records += 1;
    }
    drop(deaf);
    assert_eq!(agent.members().expect("members").len(), 1);
}

/// A client past its greeting.
/// Each change is made from what the tags were, and is on its way while the tags file is written.
#[test]
fn changes_of_tags_at_the_same_time_all_take_effect() {
    let agent = Plan::new(Kind::Fyrd, "n1")
        .args(["-profile=local", "-tags-file=tags.json"])
        .start();
    let mut clients: Vec<Client> = (0..16).map(|_| Client::greeted(&agent)).collect();
    agent.signal("STOP");
    for (letter, client) in (b'a'..).zip(&mut clients) {
        let body = [b"\x81\xa4Tags\x81\xa1", &[letter][..], b"\xa11"].concat();
        client.send(&[request("tags", 2), body].concat());
    }
    agent.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.frame(), b"\x82\xa5Error\xa0\xa3Seq\x02");
    }
    let members = agent.members().expect("members");
    assert_eq!(members[0].tags.len(), 16, "{members:?}");
    let kept = std::fs::read_to_string(agent.file("tags.json")).expect("the tags file");
    assert_eq!(kept.matches(": \"1\"").count(), 16, "{kept}");
}

struct Client {
    stream: TcpStream,
    /// What was read and not looked at yet.
    buffer: Vec<u8>,
}

impl Client {
    fn greeted(agent: &Agent) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", agent.rpc_port())).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a deadline");
        let buffer = Vec::new();
        let mut client = Client { stream, buffer };
        client.send(HANDSHAKE);
        assert_eq!(client.frame(), GREETED);
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the request is taken");
    }

    /// The next object.
    fn frame(&mut self) -> Vec<u8> {
        let mut scan = scan(1 << 20);
        loop {
            if let Some(length) = scan.advance(&self.buffer).expect("well-formed") {
                return self.buffer.drain(..length).collect();
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).expect("an answer");
            assert!(count > 0, "the agent has closed the connection");
            self.buffer.extend(&bytes[..count]);
        }
    }

    /// The header of the answer to a request.
    fn answer(&mut self, header: &[u8], body: &[u8]) -> Vec<u8> {
        self.send(&[header, body].concat());
        self.frame()
    }
}

/// Sends this after a greeting: the agent must hang up.
fn assert_closed(agent: &Agent, bytes: &[u8]) {
    let mut stream = Client::greeted(agent).stream;
    // The agent may hang up before all is sent, and closing over unread bytes may look like a reset.
    let _ = stream.write_all(bytes);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    let waiting = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    let open = end.is_err_and(|error| waiting.contains(&error.kind()));
    let shown = bytes.get(..80).unwrap_or(bytes).escape_ascii();
    assert!(!open && rest.is_empty(), "after {shown}: {}", rest.escape_ascii());
}

fn request(command: &str, seq: u8) -> Vec<u8> {
    let length = 0xa0 | u8::try_from(command.len()).expect("a short name");
    [
        b"\x82\xa7Command",
        &[length][..],
        command.as_bytes(),
        b"\xa3Seq",
        &[seq],
    ]
    .concat()
}

fn count(agent: &Agent, text: &str) -> usize {
    agent.log().lines().filter(|line| line.contains(text)).count()
}

fn resident_kb(agent: &Agent) -> u64 {
    support::process::memory(agent.pid()) >> 10
}

#[track_caller]
fn assert_small_growth(agent: &Agent, before: u64) {
    let growth = resident_kb(agent).saturating_sub(before);
    println!("memory grew by {growth} kB");
    assert!(growth < GROWTH_MAX_KB, "memory grew by {growth} kB");
}
