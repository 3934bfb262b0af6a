//! The loop, driven with a node that only echoes.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use fyrd_core::node::ExchangeId;
use fyrd_core::serf::{Command, JoinTarget, QueryParams};
use fyrd_core::wire::{Ack, Message, Ping, StreamDecoder, StreamMessage};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "EBESExQVFhcYGRobHB0eHw==";
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows every input as an event, and does what commands say.
#[derive(Default)]
struct Echo {
    effects: VecDeque<Effect>,
    ticks: u64,
    next_tick: Time,
    joining: Option<CommandId>,
    last_now: Time,
}

impl Echo {
    fn show(&mut self, name: &str, payload: &[u8]) {
        let (name, payload) = (name.to_owned(), payload.to_vec());
        self.effects.push_back(Effect::Event(Arc::new(Event::User {
            ltime: self.ticks,
            name,
            payload,
            coalesce: false,
        })));
    }

    fn answer(&mut self, id: CommandId, answer: Answer) {
        self.effects.push_back(Effect::Answer { id, answer });
    }

    fn command(&mut self, id: CommandId, command: Command) {
        match command {
            // "Send this payload to the address in the name."
            Command::UserEvent {
                name,
                payload,
                coalesce,
            } => {
                let mut plain = Vec::new();
                Message::User(&payload).encode(&mut plain);
                self.effects.push_back(Effect::Send {
                    to: name.parse().unwrap(),
                    plain,
                    crc: coalesce,
                });
                self.answer(id, Answer::Done);
            }
            Command::Join {
                targets, announce, ..
            } => {
                let mut plain = Vec::new();
                StreamMessage::Ping(Ping {
                    seq_no: 7,
                    ..Ping::default()
                })
                .encode(&mut plain);
                let (to, timeout) = (targets[0].addr, Duration::from_millis(300));
                let id_of_exchange = ExchangeId(1);
                self.effects.push_back(Effect::Exchange {
                    id: id_of_exchange,
                    to,
                    plain,
                    expect_reply: announce,
                    timeout,
                });
                self.joining = Some(id);
            }
            Command::Leave => self.effects.push_back(Effect::LostName),
            Command::Query(_) => {}
            _ => self.answer(id, Answer::Failed("not known".to_owned())),
        }
    }
}

impl Drive for Echo {
    type Recorder = Recorder;

    fn handle(&mut self, now: Time, input: Input<'_>) {
        assert!(now >= self.last_now, "time runs backwards");
        self.last_now = now;
        match input {
            Input::Tick if now >= self.next_tick => {
                self.ticks += 1;
                self.next_tick = now + Duration::from_millis(5);
            }
            Input::Tick | Input::Keyring { .. } => {}
            Input::Datagram { from, messages } => {
                for message in messages {
                    if let Message::User(payload) = message {
                        self.show(&from.to_string(), payload);
                    }
                }
            }
            Input::Stream { id, message, .. } => match message {
                StreamMessage::Ping(ping) => {
                    let mut plain = Vec::new();
                    StreamMessage::Ack(Ack {
                        seq_no: ping.seq_no,
                        payload: b"",
                    })
                    .encode(&mut plain);
                    self.effects.push_back(Effect::Reply { id, plain });
                }
                StreamMessage::User(payload) => self.show("stream", payload),
                other => self.show("stream", format!("{other:?}").as_bytes()),
            },
            Input::Exchange { result, .. } => {
                let id = self.joining.take().unwrap();
                let answer = match result {
                    Ok(Some(StreamMessage::Ack(Ack { seq_no: 7, .. }))) => Answer::Joined {
                        contacted: 1,
                        errors: Vec::new(),
                    },
                    Ok(None) => Answer::Done,
                    Ok(other) => Answer::Failed(format!("unexpected {other:?}")),
                    Err(reason) => Answer::Failed(reason),
                };
                self.answer(id, answer);
            }
            Input::SendFailed { to } => self.show("send-failed", to.to_string().as_bytes()),
            Input::Command { id, command } => self.command(id, command),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(self.next_tick)
    }
}

struct Agent {
    handle: Handle<Echo>,
    events: queue::Receiver<Arc<Event>>,
    addr: SocketAddr,
    run: JoinHandle<Ended>,
}

impl Agent {
    async fn next(&mut self) -> (String, Vec<u8>) {
        match &*timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap() {
            Event::User { name, payload, .. } => (name.clone(), payload.clone()),
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn send(&self, to: SocketAddr, payload: &[u8]) {
        let (name, payload) = (to.to_string(), payload.to_vec());
        let answer = self
            .handle
            .command(Command::UserEvent {
                name,
                payload,
                coalesce: true,
            })
            .await;
        assert_eq!(answer, Ok(Answer::Done));
    }

    async fn exchange(&self, to: SocketAddr) -> Answer {
        let targets = vec![JoinTarget { name: None, addr: to }];
        let join = self.handle.command(Command::Join {
            targets,
            ignore_old: false,
            announce: true,
        });
        timeout(PATIENCE, join).await.unwrap().unwrap()
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

fn setup(key: Option<&str>) -> Setup<Recorder> {
    Setup {
        keyring: key.map(|key| Keyring::new(key.parse().unwrap())),
        keyring_file: None,
        label: Vec::new(),
        compress: true,
        tcp_timeout: Duration::from_secs(10),
        recorder: None,
        limits: Limits::default(),
    }
}

async fn start_at(bind: &str, setup: Setup<Recorder>) -> Agent {
    let sockets = Sockets::bind(bind.parse().unwrap()).await.unwrap();
    let addr = sockets.local_addr();
    let node = |_| Ok(Echo::default());
    let (driver, handle) = Driver::assemble(sockets, setup, Instant::now(), node).unwrap();
    let run = tokio::spawn(driver.run());
    let events = handle.subscribe(10_000).await.unwrap();
    Agent {
        handle,
        events,
        addr,
        run,
    }
}

async fn start(setup: Setup<Recorder>) -> Agent {
    start_at("127.0.0.1:0", setup).await
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
    let labelled = |key, label: &str| Setup {
        label: label.as_bytes().to_vec(),
        ..setup(key)
    };
    let mut receiver = start(labelled(Some(KEY), "lab")).await;
    let sender = start(labelled(Some(KEY), "lab")).await;
    for stranger in [
        setup(None),
        labelled(None, "lab"),
        labelled(Some(OTHER_KEY), "lab"),
        setup(Some(KEY)),
    ] {
        start(stranger).await.send(receiver.addr, b"stranger").await;
    }
    receiver
        .until("strangers are refused", |counters| {
            counters.datagrams_received == 4
        })
        .await;
    let counters = receiver.handle.counters();
    assert_eq!(
        (counters.datagrams_undecryptable, counters.datagrams_refused),
        (2, 2)
    );
    sender.send(receiver.addr, b"friend").await;
    assert_eq!(
        receiver.next().await,
        (sender.addr.to_string(), b"friend".to_vec())
    );
    sender.send(receiver.addr, &[b'x'; 9000]).await;
    assert_eq!(receiver.next().await.1, vec![b'x'; 9000]);
}

#[tokio::test]
async fn plain_datagrams_cross_between_ipv4_and_a_dual_stack_socket() {
    let Ok(probe) = Sockets::bind("[::]:0".parse().unwrap()).await else {
        return;
    };
    drop(probe);
    let mut dual = start_at("[::]:0", setup(None)).await;
    let mut v4 = start_at("0.0.0.0:0", setup(None)).await;
    let local = |agent: &Agent| SocketAddr::from(([127, 0, 0, 1], agent.addr.port()));
    v4.send(local(&dual), b"up").await;
    assert_eq!(
        dual.next().await,
        (local(&v4).to_string(), b"up".to_vec()),
        "never in v4-mapped form"
    );
    dual.send(local(&v4), b"down").await;
    assert_eq!(v4.next().await, (local(&dual).to_string(), b"down".to_vec()));
    dual.send(
        SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), v4.addr.port()),
        b"mapped",
    )
    .await;
    assert_eq!(v4.next().await.1, b"mapped");
    assert_eq!(
        v4.exchange(local(&dual)).await,
        Answer::Joined {
            contacted: 1,
            errors: Vec::new()
        }
    );
    let v6 = SocketAddr::new("::1".parse().unwrap(), dual.addr.port());
    assert_eq!(
        v4.exchange(v6).await,
        Answer::Joined {
            contacted: 1,
            errors: Vec::new()
        }
    );
    v4.send("[::1]:9".parse().unwrap(), b"nowhere").await;
    assert_eq!(v4.next().await, ("send-failed".to_owned(), b"[::1]:9".to_vec()));
}

#[tokio::test]
async fn exchanges_tell_what_went_wrong_in_serfs_words() {
    let plain = start(setup(None)).await;
    let keyed = start(setup(Some(KEY))).await;
    let twin = start(setup(Some(KEY))).await;
    let stranger = start(setup(Some(OTHER_KEY))).await;
    let joined = Answer::Joined {
        contacted: 1,
        errors: Vec::new(),
    };
    assert_eq!(twin.exchange(keyed.addr).await, joined);
    assert_eq!(start(setup(None)).await.exchange(plain.addr).await, joined);
    let failed = |text: &str| Answer::Failed(text.to_owned());
    assert_eq!(
        plain.exchange(keyed.addr).await,
        failed("Remote state is encrypted and encryption is not configured")
    );
    assert_eq!(
        keyed.exchange(plain.addr).await,
        failed("Encryption is configured but remote state is not encrypted")
    );
    assert_eq!(
        stranger.exchange(keyed.addr).await,
        failed("No installed keys could decrypt the message")
    );
    plain.handle.stop().await;
    assert_eq!(
        twin.exchange(plain.addr).await,
        Answer::Failed(format!("dial tcp {}: connect: connection refused", plain.addr))
    );
}

#[tokio::test]
async fn exchanges_with_odd_peers_end_in_time() {
    let agent = start(setup(None)).await;
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
    let failed = |text: String| Answer::Failed(text);
    assert_eq!(agent.exchange(odd).await, failed("EOF".to_owned()));
    assert_eq!(
        agent.exchange(odd).await,
        failed("remote error: no, thanks".to_owned())
    );
    let Answer::Failed(reason) = agent.exchange(odd).await else {
        panic!("accepted garbage")
    };
    assert!(reason.ends_with(&format!(" from={odd}")), "{reason}");
    assert_eq!(
        agent.exchange(odd).await,
        failed(format!("unexpected EOF from={odd}"))
    );
    let Answer::Failed(reason) = agent.exchange(odd).await else {
        panic!("a silent peer answered")
    };
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
    assert_eq!(plain.handle.counters().streams_refused, 8);
    assert_eq!(keyed.handle.counters().streams_refused, 4);
}

#[tokio::test]
async fn a_stream_that_arrives_byte_by_byte_is_read() {
    let agent = start(setup(None)).await;
    let mut message = Vec::new();
    StreamMessage::Ping(Ping {
        seq_no: 3,
        node: "somebody",
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
            payload: b""
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
async fn streams_over_the_cap_are_closed_at_once_and_harm_nobody() {
    let limits = Limits {
        streams: 8,
        streams_per_source: 4,
        bytes: 1 << 20,
    };
    let agent = start(Setup {
        limits,
        ..setup(None)
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(agent.addr).await.unwrap());
    }
    agent
        .until("four are in", |counters| counters.streams_accepted == 4)
        .await;
    for _ in 0..500 {
        let mut refused = TcpStream::connect(agent.addr).await.unwrap();
        assert_eq!(read_to_end(&mut refused).await, b"");
    }
    assert_eq!(agent.handle.counters().streams_over_cap, 500);
    assert_eq!(agent.handle.counters().streams_accepted, 4);
    assert!(agent.handle.read(|node| node.ticks).await.unwrap() > 0);
    drop(held);
    let dialler = start(setup(None)).await;
    let joining = async {
        while dialler.exchange(agent.addr).await
            != (Answer::Joined {
                contacted: 1,
                errors: Vec::new(),
            })
        {}
    };
    timeout(PATIENCE, joining)
        .await
        .expect("room again once the others are gone");
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
    let (target, stop) = (agent.addr, Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let packet = [1; 1400];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = socket.send_to(&packet, target);
            }
        }
    });
    agent
        .until("the flood is on", |counters| {
            counters.datagrams_undecryptable > 1000
        })
        .await;
    let before = agent.handle.read(|node| node.ticks).await.unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let asked = Instant::now();
        agent.handle.read(|_| ()).await.unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    agent
        .until("the flood goes on", |counters| {
            counters.datagrams_undecryptable > 20_000
        })
        .await;
    let after = agent.handle.read(|node| node.ticks).await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    assert!(slowest < Duration::from_secs(1), "a command took {slowest:?}");
    assert!(after > before, "the timers stood still");
}

#[tokio::test]
async fn stopping_closes_the_sockets_and_releases_everybody() {
    let agent = start(setup(None)).await;
    let waiting = tokio::spawn({
        let handle = agent.handle.clone();
        async move { handle.command(Command::Query(QueryParams::default())).await }
    });
    tokio::task::yield_now().await;
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
    let agent = start(setup(None)).await;
    assert_eq!(agent.handle.command(Command::Leave).await, Err(Stopped));
    assert_eq!(agent.run.await.unwrap(), Ended::LostName);

    let Agent {
        handle, events, run, ..
    } = start(setup(None)).await;
    drop((handle, events));
    assert_eq!(timeout(PATIENCE, run).await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_slow_subscriber_loses_events_and_delays_nobody() {
    let mut agent = start(setup(None)).await;
    let mut slow = agent.handle.subscribe(2).await.unwrap();
    for n in 0..5 {
        agent.send(agent.addr, &[n]).await;
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
    agent.send(agent.addr, &[9]).await;
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

/// A driver of its own that does not run yet.
async fn assembled() -> (Driver<Echo>, Handle<Echo>, SocketAddr) {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = sockets.local_addr();
    let node = |_| Ok(Echo::default());
    let (driver, handle) = Driver::assemble(sockets, setup(None), Instant::now(), node).unwrap();
    (driver, handle, addr)
}

#[tokio::test]
async fn receive_errors_neither_end_nor_spin_the_loop() {
    let (mut driver, handle, addr) = assembled().await;
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
        handle,
        events,
        addr,
        run,
    };
    agent.send(addr, b"still here").await;
    assert_eq!(agent.next().await.1, b"still here");
}

/// On Windows, half of a large cluster gone means one reset for each datagram to it: the living must be heard
/// nevertheless, at once.
#[tokio::test]
async fn errors_of_single_datagrams_do_not_hold_up_the_next() {
    let (mut driver, handle, addr) = assembled().await;
    let mut packet = Vec::new();
    Message::User(b"alive").encode(&mut packet);
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
