//! The loop, with a real node in it and odd peers around it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::logged::Lines;
use fyrd_core::addr::RawAddr;
use fyrd_core::node::Effect;
use fyrd_core::serf::{Command, JoinTarget};
use fyrd_core::swim::profile::Profile;
use fyrd_core::wire::{Ack, Alive, Ping, SerfMessage, StreamDecoder, StreamMessage, UserEvent};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "EBESExQVFhcYGRobHB0eHw==";
const PATIENCE: Duration = Duration::from_secs(60);

/// What an agent is made with.
struct Setup {
    bind: &'static str,
    key: Option<&'static str>,
    label: &'static str,
    tcp_timeout: Duration,
    limits: Limits,
    recorder: Option<Recorder>,
}

fn setup(key: Option<&'static str>) -> Setup {
    Setup {
        bind: "127.0.0.1:0",
        key,
        label: "",
        tcp_timeout: Duration::from_secs(10),
        limits: Limits::default(),
        recorder: None,
    }
}

struct Agent {
    name: String,
    handle: Handle,
    events: queue::Receiver<Arc<Event>>,
    addr: SocketAddr,
    run: JoinHandle<Ended>,
}

impl Agent {
    /// The next user event's name and payload.
    async fn next(&mut self) -> (String, Vec<u8>) {
        loop {
            match &*timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap() {
                Event::User { name, payload, .. } => return (name.clone(), payload.clone()),
                Event::Member { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn say(&self, name: &str, payload: &[u8]) {
        let event = Command::UserEvent {
            name: name.to_owned(),
            payload: payload.to_vec(),
            coalesce: false,
        };
        assert_eq!(self.handle.command(event).await, Ok(Answer::Done));
    }

    /// Joins; why not, if it did not work.
    async fn join(&self, to: SocketAddr) -> Result<(), String> {
        let targets = vec![JoinTarget { name: None, addr: to }];
        let join = self.handle.command(Command::Join {
            targets,
            ignore_old: false,
        });
        match timeout(PATIENCE, join).await.unwrap().unwrap() {
            Answer::Joined { contacted: 1, .. } => Ok(()),
            Answer::Joined { errors, .. } => {
                let [(of, reason)] = &errors[..] else {
                    panic!("{errors:?}")
                };
                assert_eq!(*of, to);
                Err(reason.clone())
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(DriverCounters) -> bool) {
        let waiting = async {
            while !holds(self.handle.counters()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let done = timeout(PATIENCE, waiting).await;
        assert!(done.is_ok(), "{what}: {:?}", self.handle.counters());
    }
}

/// A driver that does not run yet, its node's name, and where it is.
async fn assembled(setup: Setup) -> (Driver, Handle, String, SocketAddr) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let sockets = Sockets::bind(setup.bind.parse().unwrap()).await.unwrap();
    let addr = sockets.local_addr();
    let name = format!("n{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut profile = Profile::builtin("local").unwrap();
    profile.tcp_timeout = setup.tcp_timeout;
    let config = DriverConfig {
        node: NodeConfig {
            addr: RawAddr::V4([127, 0, 0, 1]),
            ..NodeConfig::new(&name, addr, profile, 7)
        },
        keyring: setup.key.map(|key| Keyring::new(key.parse().unwrap())),
        keyring_file: None,
        label: setup.label.as_bytes().to_vec(),
        replay_window: None,
        compress: true,
        recorder: setup.recorder,
    };
    let (driver, handle) = Driver::limited(sockets, config, setup.limits).unwrap();
    (driver, handle, name, addr)
}

async fn start(setup: Setup) -> Agent {
    let (driver, handle, name, addr) = assembled(setup).await;
    let run = tokio::spawn(driver.run());
    let events = handle.subscribe(10_000).await.unwrap();
    Agent {
        name,
        handle,
        events,
        addr,
        run,
    }
}

/// Somebody who seals as agents do.
struct Peer {
    socket: UdpSocket,
    envelope: Envelope,
}

impl Peer {
    async fn new(key: Option<&str>, label: &str) -> Peer {
        let keyring = key.map(|key| Keyring::new(key.parse().unwrap()));
        Peer {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            envelope: Envelope::new(keyring, label.as_bytes().to_vec(), true),
        }
    }

    async fn send(&mut self, to: SocketAddr, plain: Vec<u8>) {
        let packet = self
            .envelope
            .close_datagram(|| Ok([1; 12]), plain, false)
            .unwrap();
        self.socket.send_to(packet, to).await.unwrap();
    }
}

/// A datagram that tells of a user event, before any layer is around it.
fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut plain = vec![8];
    SerfMessage::UserEvent(UserEvent {
        ltime: 1,
        name,
        payload,
        coalesce: false,
    })
    .encode(&mut plain);
    plain
}

/// Reads a stream to its end; the answer, if there was one.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let reading = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset counts as an end.
    let _ = reading.expect("the stream must be closed");
    answer
}

fn plain_error(answer: &[u8]) -> String {
    let mut decoder = StreamDecoder::default();
    decoder.push(answer);
    match decoder.message() {
        Ok(StreamMessage::Err(text)) => text.to_owned(),
        other => panic!("expected an error answer, not {other:?}"),
    }
}

fn sealed_error(key: &str, answer: &[u8]) -> String {
    let ring = Keyring::new(key.parse().unwrap());
    let (header, block) = answer.split_first_chunk().unwrap();
    let mut block = block.to_vec();
    let (plain, _) = ring.open_stream(header, b"", &mut block, None).unwrap();
    plain_error(plain)
}

#[tokio::test]
async fn datagrams_cross_encrypted_and_nothing_else_does() {
    let labelled = || Setup {
        label: "lab",
        ..setup(Some(KEY))
    };
    let mut receiver = start(labelled()).await;
    for (key, label) in [
        (None, ""),
        (None, "lab"),
        (Some(OTHER_KEY), "lab"),
        (Some(KEY), ""),
    ] {
        let mut stranger = Peer::new(key, label).await;
        stranger.send(receiver.addr, event("stranger", b"")).await;
    }
    receiver
        .until("strangers are refused", |counters| {
            counters.datagrams_received == 4
        })
        .await;
    let counters = receiver.handle.counters();
    assert_eq!(
        (
            counters.datagrams_undecryptable,
            counters.datagrams_mislabelled,
            counters.datagrams_refused
        ),
        (2, 2, 0)
    );
    let mut friend = Peer::new(Some(KEY), "lab").await;
    friend.send(receiver.addr, event("friend", b"")).await;
    assert_eq!(receiver.next().await.0, "friend");
    friend.send(receiver.addr, event("long", &[b'x'; 9000])).await;
    assert_eq!(receiver.next().await.1, vec![b'x'; 9000]);
    // And as agents send them.
    let sender = start(labelled()).await;
    assert_eq!(sender.join(receiver.addr).await, Ok(()));
    sender.say("agent", b"hello").await;
    assert_eq!(receiver.next().await, ("agent".to_owned(), b"hello".to_vec()));
}

#[tokio::test]
async fn plain_datagrams_cross_between_ipv4_and_a_dual_stack_socket() {
    let Ok(probe) = Sockets::bind("[::]:0".parse().unwrap()).await else {
        return;
    };
    drop(probe);
    let at = |bind| Setup { bind, ..setup(None) };
    let mut dual = start(at("[::]:0")).await;
    let mut v4 = start(at("0.0.0.0:0")).await;
    let local = |agent: &Agent| SocketAddr::from(([127, 0, 0, 1], agent.addr.port()));
    let mut peer = Peer::new(None, "").await;
    let source: &str = format!("from={}", peer.socket.local_addr().unwrap()).leak();
    let told = Lines::with(source);
    peer.send(local(&dual), vec![99]).await;
    dual.until("a bad one came", |counters| counters.datagrams_refused == 1)
        .await;
    assert_eq!(told.count(), 1, "never in v4-mapped form");
    assert_eq!(v4.join(local(&dual)).await, Ok(()));
    v4.say("up", b"").await;
    assert_eq!(dual.next().await.0, "up");
    dual.say("down", b"").await;
    while v4.next().await.0 != "down" {}
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), v4.addr.port());
    assert_eq!(dual.join(mapped).await, Ok(()));
    let v6 = SocketAddr::new("::1".parse().unwrap(), dual.addr.port());
    assert_eq!(start(at("[::]:0")).await.join(v6).await, Ok(()));
    // Somebody whom an IPv4 socket cannot reach.
    assert_eq!(v4.handle.counters().datagrams_unsent, 0);
    let mut plain = Vec::new();
    Alive {
        incarnation: 1,
        node: "far",
        addr: &std::net::Ipv6Addr::LOCALHOST.octets(),
        port: 9,
        meta: b"",
        vsn: &[1, 5, 2, 2, 5, 5],
    }
    .encode(&mut plain);
    peer.send(local(&v4), plain).await;
    v4.until("it is tried", |counters| counters.datagrams_unsent > 0)
        .await;
}

#[tokio::test]
async fn exchanges_tell_what_went_wrong_in_serfs_words() {
    let plain = start(setup(None)).await;
    let keyed = start(setup(Some(KEY))).await;
    let twin = start(setup(Some(KEY))).await;
    let stranger = start(setup(Some(OTHER_KEY))).await;
    assert_eq!(twin.join(keyed.addr).await, Ok(()));
    assert_eq!(start(setup(None)).await.join(plain.addr).await, Ok(()));
    let failed = |text: &str| Err(text.to_owned());
    assert_eq!(
        plain.join(keyed.addr).await,
        failed("Remote state is encrypted and encryption is not configured")
    );
    assert_eq!(
        keyed.join(plain.addr).await,
        failed("Encryption is configured but remote state is not encrypted")
    );
    assert_eq!(
        stranger.join(keyed.addr).await,
        failed("No installed keys could decrypt the message")
    );
    plain.handle.stop().await;
    assert_eq!(
        twin.join(plain.addr).await,
        Err(format!("dial tcp {}: connect: connection refused", plain.addr))
    );
}

/// With a store, what an agent says waits until its clocks are stored, and then comes.
#[tokio::test]
async fn replies_and_datagrams_that_wait_for_the_disk_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let settings = crate::snapshot::SnapshotConfig {
        path: path.clone(),
        node: "n".to_owned(),
        forget_left_members: true,
    };
    let (_, recorder) = crate::snapshot::open(settings, unix_time()).unwrap();
    let mut first = start(Setup {
        recorder: Some(recorder),
        ..setup(None)
    })
    .await;
    let second = start(setup(None)).await;
    assert_eq!(second.join(first.addr).await, Ok(()));
    second.say("hello", b"").await;
    assert_eq!(first.next().await.0, "hello");
    assert_eq!(first.handle.settled().await, Ok(()));
    first.handle.stop().await;
    let kept = crate::snapshot::read(&path).unwrap().memory;
    assert_eq!((kept.events.len(), kept.members.len()), (1, 1));
    assert_eq!(kept.marks.incarnation, 1);
}

#[tokio::test]
async fn exchanges_with_odd_peers_end_in_time() {
    let agent = start(Setup {
        tcp_timeout: Duration::from_millis(300),
        ..setup(None)
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let odd = listener.local_addr().unwrap();
    let peer = tokio::spawn(async move {
        let mut request = [0; 1000];
        let mut error = Vec::new();
        StreamMessage::Err("no, thanks").encode(&mut error);
        for answer in [&b""[..], &error, b"\x63hello", b"\x02\x81"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
        }
        let (mut silent, _) = listener.accept().await.unwrap();
        read_to_end(&mut silent).await;
    });
    assert_eq!(agent.join(odd).await, Err("EOF".to_owned()));
    assert_eq!(agent.join(odd).await, Err("remote error: no, thanks".to_owned()));
    let reason = agent.join(odd).await.unwrap_err();
    assert!(reason.ends_with(&format!(" from={odd}")), "{reason}");
    assert_eq!(agent.join(odd).await, Err(format!("unexpected EOF from={odd}")));
    let reason = agent.join(odd).await.unwrap_err();
    assert!(reason.starts_with("read tcp 127.0.0.1:"), "{reason}");
    assert!(reason.ends_with(&format!("->{odd}: i/o timeout")), "{reason}");
    peer.await.unwrap();
}

#[tokio::test]
async fn bad_streams_are_answered_or_closed_as_serf_does() {
    let plain = start(setup(None)).await;
    let keyed = start(setup(Some(KEY))).await;
    let sealed = |key: &str| {
        Keyring::new(key.parse().unwrap())
            .seal_stream(&[1; 12], b"", b"\x00\x80")
            .unwrap()
    };
    let send = async |to: SocketAddr, bytes: &[u8]| {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    };
    // A long plain stream: the answer must survive the closing over unread bytes.
    let mut long = vec![6; 200_000];
    let answer = send(keyed.addr, &long).await;
    assert_eq!(
        sealed_error(KEY, &answer),
        "Encryption is configured but remote state is not encrypted"
    );
    assert_eq!(
        sealed_error(KEY, &send(keyed.addr, &sealed(OTHER_KEY)).await),
        "No installed keys could decrypt the message"
    );
    assert_eq!(
        sealed_error(KEY, &send(keyed.addr, b"\x0a\x7f\xff\xff\xff").await),
        "Remote node state is larger than limit (2147483647)"
    );
    assert_eq!(
        plain_error(&send(plain.addr, &sealed(KEY)).await),
        "Remote state is encrypted and encryption is not configured"
    );
    let broken_compression = b"\x09\x82\xa4Algo\x00\xa3Buf\xa3abc";
    assert!(!send(plain.addr, broken_compression).await.is_empty());
    long.fill(0xff);
    for garbage in [
        &b"\x63hello"[..],
        b"\x06\xc1",
        b"\x0c\0\0\0\0\x06",
        b"\xf4\x00",
        b"\xf4\x03lab\x00\x80",
        &long,
    ] {
        assert_eq!(send(plain.addr, garbage).await, b"", "{:x?}", garbage.get(..4));
    }
    let empty_plaintext = Keyring::new(KEY.parse().unwrap())
        .seal_stream(&[1; 12], b"", b"")
        .unwrap();
    assert_eq!(send(keyed.addr, &empty_plaintext).await, b"");
    assert_eq!(plain.handle.counters().streams_refused, 7);
    assert_eq!(plain.handle.counters().streams_mislabelled, 1);
    assert_eq!(keyed.handle.counters().streams_refused, 4);
}

#[tokio::test]
async fn a_stream_that_arrives_byte_by_byte_is_read() {
    let agent = start(setup(None)).await;
    let mut message = Vec::new();
    StreamMessage::Ping(Ping {
        seq_no: 3,
        node: &agent.name,
        ..Ping::default()
    })
    .encode(&mut message);
    let mut stream = TcpStream::connect(agent.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in message {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut decoder = StreamDecoder::default();
    decoder.push(&read_to_end(&mut stream).await);
    assert_eq!(
        decoder.message(),
        Ok(StreamMessage::Ack(Ack {
            seq_no: 3,
            ..Ack::default()
        }))
    );
}

#[tokio::test]
async fn a_slow_stream_is_closed_at_its_deadline() {
    let agent = start(Setup {
        tcp_timeout: Duration::from_millis(200),
        ..setup(None)
    })
    .await;
    let begun = Instant::now();
    let (mut reader, mut writer) = TcpStream::connect(agent.addr).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        // A user message whose header opens with a name of 255 bytes, which come one at a time.
        let mut alive = writer.write_all(b"\x08\x81\xd9\xff").await.is_ok();
        while alive {
            tokio::time::sleep(Duration::from_millis(20)).await;
            alive = writer.write_all(b"a").await.is_ok();
        }
    });
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, reader.read_to_end(&mut answer)).await;
    assert!(end.is_ok() && answer.is_empty());
    agent
        .until("the stream is counted", |counters| counters.streams_refused == 1)
        .await;
    drip.abort();
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= Duration::from_millis(200) && elapsed < Duration::from_secs(4),
        "{elapsed:?}"
    );

    let mut idle = TcpStream::connect(agent.addr).await.unwrap();
    assert_eq!(read_to_end(&mut idle).await, b"");
    agent
        .until("the idle one too", |counters| counters.streams_refused == 2)
        .await;
}

#[tokio::test]
async fn streams_without_a_key_yield_and_harm_nobody() {
    let limits = Limits {
        streams: 8,
        streams_per_source: 4,
        bytes: 1 << 20,
    };
    let agent = start(Setup {
        limits,
        ..setup(Some(KEY))
    })
    .await;
    // Each has sent as much as a header is long.
    let mut held = Vec::new();
    for count in 1..=500 {
        let mut stream = TcpStream::connect(agent.addr).await.unwrap();
        stream.write_all(b"\x0a\0\0\x01\0").await.unwrap();
        held.push(stream);
        agent
            .until("it is in", |counters| counters.streams_accepted == count)
            .await;
    }
    agent
        .until("the older ones have yielded", |counters| {
            counters.streams_yielded == 496
        })
        .await;
    assert_eq!(read_to_end(&mut held[0]).await, b"");
    assert_eq!(agent.handle.read(Node::known).await, Ok(1));
    let dialler = start(setup(Some(KEY))).await;
    assert_eq!(dialler.join(agent.addr).await, Ok(()));
}

#[tokio::test]
async fn a_stream_that_says_nothing_has_a_second() {
    let agent = start(setup(Some(KEY))).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(agent.addr).await.unwrap();
    silent.write_all(b"\x0a").await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, b"");
    // Its deadline is ten.
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= bounds::STREAM_FIRST_BYTES && elapsed < Duration::from_secs(8),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn streams_together_hold_no_more_than_their_budget() {
    let limits = Limits {
        streams: 8,
        streams_per_source: 8,
        bytes: 100_000,
    };
    let agent = start(Setup {
        limits,
        ..setup(None)
    })
    .await;
    // A user message that announces a megabyte.
    let mut stream = TcpStream::connect(agent.addr).await.unwrap();
    stream
        .write_all(b"\x08\x81\xaaUserMsgLen\xce\x00\x10\x00\x00")
        .await
        .unwrap();
    let _ = stream.write_all(&vec![0; 200_000]).await;
    assert_eq!(read_to_end(&mut stream).await, b"");
    agent
        .until("closed for its greed", |counters| counters.streams_refused == 1)
        .await;
}

#[tokio::test]
async fn a_flood_of_garbage_stops_neither_commands_nor_timers() {
    let agent = start(setup(Some(KEY))).await;
    let (target, stop) = (agent.addr, Arc::new(AtomicBool::new(false)));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let packet = [1; 1400];
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(&packet, target);
            }
        }
    });
    agent
        .until("the flood is on", |counters| {
            counters.datagrams_undecryptable > 1000
        })
        .await;
    let before = agent.handle.read(Node::next_deadline).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        agent.handle.read(|_| ()).await.unwrap();
        asked.push(start.elapsed());
    }
    agent
        .until("the flood goes on", |counters| {
            counters.datagrams_undecryptable > 5_000
        })
        .await;
    let timers = async { while agent.handle.read(Node::next_deadline).await.unwrap() <= before {} };
    let went_on = timeout(PATIENCE, timers).await;
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    // A machine that is busy besides may let a command wait, but not all of them: the flood goes on all the while.
    asked.sort();
    let median = asked[asked.len() / 2];
    assert!(
        median < Duration::from_millis(500),
        "half of the commands took {median:?}"
    );
    assert!(went_on.is_ok(), "the timers stood still");
}

#[tokio::test]
async fn stopping_closes_the_sockets_and_releases_everybody() {
    let agent = start(setup(None)).await;
    // Takes a connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let waiting = tokio::spawn({
        let handle = agent.handle.clone();
        let join = Command::Join {
            targets: vec![JoinTarget { name: None, addr }],
            ignore_old: false,
        };
        async move { handle.command(join).await }
    });
    let _open = silent.accept().await.unwrap();
    let mut open = TcpStream::connect(agent.addr).await.unwrap();
    agent
        .until("the stream is in", |counters| counters.streams_accepted == 1)
        .await;
    agent.handle.stop().await;
    // All is free again, at once.
    Sockets::bind(agent.addr).await.unwrap();
    assert_eq!(agent.run.await.unwrap(), Ended::Stopped);
    assert_eq!(waiting.await.unwrap(), Err(Stopped));
    assert_eq!(agent.handle.read(|_| ()).await, Err(Stopped));
    assert!(agent.handle.subscribe(1).await.is_err());
    assert_eq!(read_to_end(&mut open).await, b"");
    agent.handle.stop().await;
}

#[tokio::test]
async fn a_lost_name_and_lost_handles_end_the_driver() {
    let (mut driver, _handle, ..) = assembled(setup(None)).await;
    driver.perform(Effect::LostName);
    assert_eq!(timeout(PATIENCE, driver.run()).await, Ok(Ended::LostName));

    let Agent {
        handle, events, run, ..
    } = start(setup(None)).await;
    drop((handle, events));
    assert_eq!(timeout(PATIENCE, run).await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_slow_subscriber_loses_events_and_delays_nobody() {
    let mut agent = start(setup(None)).await;
    // It has come by then, so nobody hears of that any more.
    assert_eq!(agent.handle.read(Node::known).await, Ok(1));
    let mut slow = agent.handle.subscribe(2).await.unwrap();
    for n in 0..5 {
        agent.say("count", &[n]).await;
        assert_eq!(agent.next().await.1, [n]);
    }
    assert_eq!(agent.handle.counters().events_dropped, 3);
    let mut kept = Vec::new();
    while let Ok(event) = slow.try_recv() {
        if let Event::User { payload, .. } = &*event {
            kept.extend_from_slice(payload);
        }
    }
    assert_eq!(kept, [0, 1]);
    drop(slow);
    agent.say("count", &[9]).await;
    agent.next().await;
    assert_eq!(agent.handle.counters().events_dropped, 3);
}

/// What Windows reports after a datagram to a closed port.
fn connection_reset() -> io::Error {
    if cfg!(windows) {
        io::Error::from_raw_os_error(10054)
    } else {
        io::ErrorKind::ConnectionReset.into()
    }
}

/// What Windows reports for a datagram that is larger than the buffer.
fn message_too_long() -> io::Error {
    io::Error::from_raw_os_error(10040)
}

#[tokio::test]
async fn receive_errors_neither_end_nor_spin_the_loop() {
    let (mut driver, handle, name, addr) = assembled(setup(None)).await;
    let other = || io::Error::from(io::ErrorKind::InvalidInput);
    for n in 1..bounds::RECEIVE_ERRORS_IN_ROW {
        driver.act(Wake::ReceiveError(other()));
        assert_eq!(driver.rest_until, None, "after {n} errors");
    }
    driver.act(Wake::ReceiveError(other()));
    assert!(
        driver.rest_until.is_some(),
        "a socket that only fails is left alone for a moment"
    );
    assert_eq!(driver.ended, None);
    let run = tokio::spawn(driver.run());
    let events = handle.subscribe(10).await.unwrap();
    let mut agent = Agent {
        name,
        handle,
        events,
        addr,
        run,
    };
    Peer::new(None, "")
        .await
        .send(addr, event("still here", b""))
        .await;
    assert_eq!(agent.next().await.0, "still here");
}

/// On Windows, half of a large cluster gone means one reset for each datagram to it: the living must be heard
/// nevertheless, at once.
#[tokio::test]
async fn errors_of_single_datagrams_do_not_hold_up_the_next() {
    let (mut driver, handle, _, addr) = assembled(setup(None)).await;
    let packet = event("alive", b"");
    let mut left = 10 * bounds::DATAGRAM_BATCH;
    let mut queue = |_: &UdpSocket, buffer: &mut [u8]| {
        if left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        left -= 1;
        match left {
            n if n % 3 == 0 => Err(message_too_long()),
            n if n > 1 => Err(connection_reset()),
            _ => {
                buffer[..packet.len()].copy_from_slice(&packet);
                Ok((packet.len(), addr))
            }
        }
    };
    let mut turns = 1;
    while driver.receive(&mut queue) == Fullness::More {
        turns += 1;
    }
    // After each batch the loop does other things, and the whole queue was read without a rest.
    assert_eq!((turns, driver.rest_until, driver.ended), (11, None, None));
    let counters = handle.counters();
    assert_eq!(counters.datagrams_received, 1);
    assert_eq!(counters.receive_errors as usize, 10 * bounds::DATAGRAM_BATCH - 1);
    // A socket that has nothing else to say, without end, is left alone for a moment.
    let mut turns = 0;
    while driver.rest_until.is_none() {
        driver.receive(|_, _| Err(connection_reset()));
        turns += 1;
        assert!(turns <= bounds::RECEIVE_RESETS_IN_ROW, "it spins");
    }
    assert_eq!(driver.ended, None);
}

/// A process image that exists twice must not seal twice with one nonce, so none may come from its own memory.
#[tokio::test]
async fn every_nonce_is_drawn_from_the_operating_system_and_without_one_nothing_is_sent() {
    static DRAWN: std::sync::Mutex<Vec<[u8; 12]>> = std::sync::Mutex::new(Vec::new());
    let (mut driver, handle, _, _) = assembled(setup(Some(KEY))).await;
    let draw = driver.nonces;
    assert_ne!(draw().unwrap(), draw().unwrap());
    driver.nonces = || {
        let nonce = super::perform::system_nonce()?;
        DRAWN.lock().unwrap().push(nonce);
        Ok(nonce)
    };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let send = || Effect::Send {
        to: socket.local_addr().unwrap(),
        plain: event("x", b""),
        crc: false,
    };
    driver.udp.writable().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        driver.perform(send());
        let mut packet = [0; 1500];
        let received = timeout(PATIENCE, socket.recv(&mut packet)).await;
        assert!(received.unwrap().unwrap() > 13);
        seen.push(*packet[1..].first_chunk::<12>().unwrap());
    }
    assert_eq!(seen, *DRAWN.lock().unwrap());
    driver.note_sealed();
    assert_eq!(handle.sealed_by_primary(), 3);
    driver.nonces = || Err("no randomness".to_owned());
    driver.perform(send());
    assert_eq!(handle.counters().datagrams_unsent, 1);
    let nothing = timeout(Duration::from_millis(100), socket.recv(&mut [0; 1500])).await;
    assert!(nothing.is_err());
}
