//! Many RPC clients at once: all are served, and those that idle lock nobody out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Agent, Kind, Plan};

const HANDSHAKE: &[u8] = b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Version\x01";
const GREETED: &[u8] = b"\x82\xa5Error\xa0\xa3Seq\x01";
const STREAM: &[u8] = b"\x82\xa7Command\xa6stream\xa3Seq\x02\x81\xa4Type\xa4user";
const STREAMING: &[u8] = b"\x82\xa5Error\xa0\xa3Seq\x02";

fn connect(agent: &Agent) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", agent.rpc_port())).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[track_caller]
fn exchange(stream: &mut TcpStream, request: &[u8], expected: &[u8]) {
    stream.write_all(request).expect("the request is taken");
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, expected, "{}", answer.escape_ascii());
}

/// This process needs a descriptor for each client, and the other tests need theirs.
fn allow_files(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count.min(hard), hard).expect("more open files");
    }
}

#[test]
fn a_thousand_clients_at_once_are_all_served_and_may_stay() {
    allow_files(4096);
    let agent = Plan::new(Kind::Fyrd, "n1").start();
    let mut clients: Vec<TcpStream> = (0..1000).map(|_| connect(&agent)).collect();
    for client in &mut clients {
        client.write_all(HANDSHAKE).unwrap();
    }
    for client in &mut clients {
        exchange(client, b"", GREETED);
    }
    assert!(agent.cli(&["members"]).success().contains("n1"));
    // All are still there.
    for client in &mut clients {
        exchange(client, STREAM, STREAMING);
    }
}

#[test]
fn idle_clients_lock_nobody_out_and_subscribers_are_told_so() {
    let agent = Plan::new(Kind::Fyrd, "n1")
        .with_file("c.json", r#"{"rpc_max_clients": 40, "rpc_max_subscriptions": 1}"#)
        .arg("-config-file=c.json")
        .start();
    let mut idle: Vec<TcpStream> = (0..40).map(|_| connect(&agent)).collect();
    idle.iter_mut()
        .for_each(|client| exchange(client, HANDSHAKE, GREETED));
    for command in ["members", "info"] {
        assert!(agent.cli(&[command]).success().contains("n1"));
    }
    agent.says("[WARN] agent.ipc: Closed the client that was idle for longest: all 40 places (rpc_max_clients) are taken");
    let mut subscribed: Vec<TcpStream> = Vec::new();
    while subscribed.len() < 40 {
        let mut client = connect(&agent);
        exchange(&mut client, HANDSHAKE, GREETED);
        exchange(&mut client, STREAM, STREAMING);
        subscribed.push(client);
    }
    let refused = b"\x82\xa5Error\xd9";
    exchange(
        &mut subscribed[0],
        &STREAM
            .iter()
            .map(|b| if *b == 2 { 3 } else { *b })
            .collect::<Vec<u8>>(),
        refused,
    );
    let start = Instant::now();
    let told = agent.cli(&["members"]);
    assert_eq!(
        told.stdout.trim(),
        "Error connecting to Serf agent: Too many RPC clients: all 40 places (rpc_max_clients) are taken and in use"
    );
    assert!(start.elapsed() < Duration::from_secs(60));
    agent.says("[WARN] agent.ipc: Refused client: all 40 places (rpc_max_clients) are taken and in use");
    drop(subscribed);
    assert!(agent.cli(&["members"]).success().contains("n1"));
}
