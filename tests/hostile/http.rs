//! HTTP clients that send too much, too slowly, never read, or come by the thousand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::support::http::{FLAG, ask, closes_within, connect, get, send};
use crate::support::process::{descriptors, memory};
use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually};

/// Far more than the agent takes at once.
const CLIENTS: usize = 1_000;

/// All of its clients together cost the agent less than this.
const MEMORY_GROWTH: u64 = 32 << 20;

fn pair() -> (Agent, Agent) {
    let agent = Plan::new(Kind::Fyrd, "target").arg(FLAG).start();
    let other = Plan::new(Kind::Fyrd, "other").join(&agent).start();
    all_alive(&[&agent, &other]);
    (agent, other)
}

#[test]
fn a_thousand_clients_that_say_nothing_cost_little_and_go() {
    let (mut agent, other) = pair();
    let (before, open) = (memory(agent.pid()), descriptors(agent.pid()));
    let clients: Vec<UnixStream> = (0..CLIENTS)
        .filter_map(|_| UnixStream::connect(agent.file("http.sock")).ok())
        .collect();
    assert!(clients.len() > CLIENTS / 2);
    // The longest idle gives way, so an honest client is answered however many come; also one that keeps its connection.
    let mut kept = connect(&agent);
    for _ in 0..20 {
        assert_eq!(get(&agent, "/healthz").status, 200);
        kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("a request is taken");
        let mut answer = [0; 15];
        kept.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let _ = kept.read(&mut [0; 4096]).expect("the rest of it");
    }
    let grown = memory(agent.pid()).saturating_sub(before);
    assert!(grown < MEMORY_GROWTH, "{grown} bytes");
    drop(clients);
    eventually("all descriptors are given back", PATIENCE, || {
        let now = descriptors(agent.pid());
        if now <= open + 8 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    all_alive(&[&agent, &other]);
    agent.assert_running();
}

#[test]
fn heads_without_end_and_garbage_are_refused() {
    let (mut agent, other) = pair();
    let mut stream = connect(&agent);
    let line = format!("X-Filler: {}\r\n", "x".repeat(1_000));
    let _ = stream.write_all(b"GET /v1/self HTTP/1.1\r\nHost: localhost\r\n");
    // The agent stops reading long before; then writing fails.
    for _ in 0..1_000 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    assert!(closes_within(&mut stream, PATIENCE));
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ] {
        let mut stream = connect(&agent);
        let _ = stream.write_all(garbage.as_bytes());
        assert!(closes_within(&mut stream, PATIENCE), "{garbage:?}");
    }
    let mut slow = connect(&agent);
    slow.write_all(b"GET / HT").unwrap();
    assert!(closes_within(&mut slow, PATIENCE), "half a request");
    assert_eq!(get(&agent, "/v1/self").status, 200);
    all_alive(&[&agent, &other]);
    agent.assert_running();
}

#[test]
fn clients_that_never_read_are_let_go_and_delay_nothing() {
    let mut agent = Plan::new(Kind::Fyrd, "target")
        .with_file("config.json", r#"{"user_event_size_limit": 9000}"#)
        .args([FLAG, "-config-file=config.json"])
        .start();
    let (before, open) = (memory(agent.pid()), descriptors(agent.pid()));
    let mut deaf: Vec<UnixStream> = (0..32).map(|_| connect(&agent)).collect();
    for stream in &mut deaf {
        send(stream, "GET", "/v1/events", &["Host: localhost"]);
    }
    // More than the system keeps for each of them.
    let payload = "x".repeat(8_000);
    for _ in 0..60 {
        agent
            .cli(&["event", "-coalesce=false", "noise", &payload])
            .success();
    }
    let events = get(&agent, "/metrics").body;
    assert!(events.contains("fyrd_user_events_total 60\n"), "{events}");
    let grown = memory(agent.pid()).saturating_sub(before);
    assert!(grown < MEMORY_GROWTH, "{grown} bytes");
    // Whoever began to read now would be served on.
    eventually("all of them are let go", PATIENCE, || {
        let now = descriptors(agent.pid());
        if now <= open + 8 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    drop(deaf);
    agent.assert_running();
}

#[test]
fn who_watches_leaves_room_for_those_who_ask() {
    let (mut agent, other) = pair();
    let watches = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let clients: Vec<UnixStream> = (0..CLIENTS)
        .filter_map(|_| {
            let mut stream = UnixStream::connect(agent.file("http.sock")).ok()?;
            stream.write_all(watches).ok()?;
            Some(stream)
        })
        .collect();
    assert!(clients.len() > CLIENTS / 2);
    for _ in 0..20 {
        assert_eq!(get(&agent, "/healthz").status, 200);
    }
    all_alive(&[&agent, &other]);
    agent.assert_running();
}

#[test]
fn a_host_is_named_once_and_the_first_line_counts() {
    let (agent, _other) = pair();
    for (path, hosts, status) in [
        ("/v1/self", &["Host: localhost"][..], 200),
        ("/v1/self", &[], 403),
        ("/v1/self", &["Host: evil.example"], 403),
        ("/v1/self", &["Host: localhost", "Host: evil.example"], 400),
        ("http://evil.example/v1/self", &["Host: localhost"], 403),
        ("http://localhost/v1/self", &["Host: evil.example"], 200),
    ] {
        assert_eq!(ask(&agent, "GET", path, hosts).status, status, "{path} {hosts:?}");
    }
}
