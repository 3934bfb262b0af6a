//! A running agent under attack from outside: it lives, keeps its memory and its descriptors, answers its
//! commands and pings, and stays alive for its peers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::process::{descriptors, memory, memory_peak};
use crate::support::{self, Agent, Kind, PATIENCE, Plan, all_alive, eventually};
use fyrd_keys::{Key, Keyring, NONCE_LEN};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use socket2::SockRef;

/// Far above what honest work takes here, far below what any of the bombs would take.
const MEMORY_GROWTH: u64 = 64 << 20;

/// A few descriptors come and go with probes and commands.
const DESCRIPTOR_SLACK: usize = 8;

/// Nothing that is sealed here is a secret, so that one nonce does for all.
const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];

/// Connections opened one after another, and how many of them are held; and how many are held half-open
/// at once. In all, with the tests side by side, below the usual limit of descriptors of a process.
const CONNECTIONS: usize = 10_000;
const HELD: usize = 100;
const HALF_OPEN: usize = 300;

#[test]
fn mutated_packets_to_a_plain_agent() {
    mutated_packets(None);
}

#[test]
fn mutated_packets_to_an_encrypted_agent() {
    mutated_packets(Some(support::KEY_32));
}

fn mutated_packets(key: Option<&str>) {
    let mut subject = Subject::start(key);
    let mut rng = StdRng::seed_from_u64(0x5eed);
    for (count, vector) in vectors().into_iter().enumerate() {
        let mut packets = truncated(&vector.bytes, &mut rng);
        packets.extend(flipped(&vector.bytes, &mut rng));
        // The checksum would catch nearly all of them before a decoder sees them.
        if let [0x0c, _, _, _, _, inside @ ..] = vector.bytes.as_slice() {
            packets.extend(truncated(inside, &mut rng));
            packets.extend(flipped(inside, &mut rng));
        }
        let every = if vector.transport == "tcp" { 1 } else { 16 };
        for (index, packet) in packets.iter().enumerate() {
            subject.datagram(packet);
            if index % every == 0 {
                subject.stream(packet);
            }
        }
        if count % 8 == 0 {
            subject.answers();
        }
    }
    subject.unharmed();
}

#[test]
fn random_garbage() {
    for key in [None, Some(support::KEY_16)] {
        let mut subject = Subject::start(key);
        let mut rng = StdRng::seed_from_u64(0x6a4ba6e);
        for round in 0..2_000_usize {
            let length = if round % 100 == 0 {
                60_000
            } else {
                rng.random_range(0..2_000)
            };
            let mut packet = vec![0_u8; length];
            rng.fill(packet.as_mut_slice());
            if let Some(first) = packet.first_mut() {
                // A valid type, three times in four, leads deeper into the decoders.
                *first = if round % 4 == 0 {
                    *first
                } else {
                    (round % 14) as u8
                };
            }
            subject.datagram(&packet);
            if round % 5 == 0 {
                subject.stream(&packet);
            }
            if round % 200 == 0 {
                subject.answers();
            }
        }
        subject.unharmed_and_joinable();
    }
}

/// What a header promises is not what the agent may set aside for it.
#[test]
fn headers_that_promise_too_much() {
    let huge: [&[u8]; 4] = [
        &[0xce, 0x80, 0, 0, 0],
        &[0xce, 0xff, 0xff, 0xff, 0xff],
        &[0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for count in huge {
        let zero: &[u8] = &[0];
        for (nodes, user) in [(count, zero), (zero, count), (count, count)] {
            let header = [b"\x06\x83\xa4Join\xc3\xa5Nodes", nodes, b"\xacUserStateLen", user].concat();
            messages.push(header);
        }
        messages.push([b"\x08\x81\xaaUserMsgLen", count].concat());
    }
    for lengths in [
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ] {
        messages.push([b"\x00\x82\xa4Node", lengths.as_slice(), b"abc"].concat());
        messages.push([b"\x04\x86\xa4Addr", lengths.as_slice(), b"abc"].concat());
        messages.push([b"\x09\x82\xa4Algo\x00\xa3Buf", lengths.as_slice(), b"abc"].concat());
        messages.push([b"\x06", lengths.as_slice(), b"abc"].concat());
    }
    for length in [20 << 20, (20 << 20) + 1, u32::MAX] {
        messages.push([b"\x0a".as_slice(), &length.to_be_bytes(), b"\x01abc"].concat());
    }
    // As many compound parts as a byte can count, all longer than the packet.
    messages.push([b"\x07\xff".as_slice(), &[0xff; 510], b"abc"].concat());

    for key in [None, Some(support::KEY_24)] {
        let mut subject = Subject::start(key);
        let mut held = Vec::new();
        for message in &messages {
            subject.datagram(message);
            subject.stream(message);
            held.extend((0..4).map(|_| subject.held(subject.gossip, message)));
        }
        subject.answers();
        drop(held);
        subject.unharmed_and_joinable();
    }
}

#[test]
fn bombs_to_a_plain_agent() {
    bombs(None);
}

#[test]
fn bombs_to_an_encrypted_agent() {
    bombs(Some(support::KEY_16));
}

/// Of compression and of nesting.
fn bombs(key: Option<&str>) {
    let subject = Subject::start(key);
    // 198 KB that would become 256 MiB; and what fits a datagram, which still would become 64 MiB.
    for megabytes in [256, 64] {
        let bomb = compressed(&compress(&vec![0x06_u8; megabytes << 20]));
        for _ in 0..4 {
            subject.stream(&bomb);
            subject.datagram(&bomb);
        }
        let checked = [b"\x0c".as_slice(), &crc32fast::hash(&bomb).to_be_bytes(), &bomb].concat();
        subject.datagram(&checked);
    }
    let ping = subject.ping(1 << 20);
    for wrap in [compound_of, compressed_of] as [fn(&[u8]) -> Vec<u8>; 2] {
        let mut nested = ping.clone();
        loop {
            let outer = wrap(&nested);
            if outer.len() > 60_000 || outer.len() < nested.len() {
                break;
            }
            nested = outer;
        }
        subject.datagram(&nested);
        subject.stream(&nested);
    }
    // One array in another, as the value of a field nobody knows.
    for depth in [100, 10_000, 60_000] {
        for opening in [0x91_u8, 0x81] {
            let deep = [b"\x00\x83\xa1x".as_slice(), &vec![opening; depth]].concat();
            subject.datagram(&deep);
            subject.stream(&deep);
        }
    }
    subject.unharmed_and_joinable();
}

#[test]
fn connections_held_half_open() {
    let mut subject = Subject::start(Some(support::KEY_16));
    let beginning = b"\x06\x83\xa4Join\xc3\xa5Nodes\x03\xacUserState";
    let mut held: Vec<TcpStream> = Vec::new();
    for (port, begun) in [
        (subject.gossip, beginning.as_slice()),
        (subject.rpc, b"\x82\xa7Comm"),
    ] {
        for index in 0..HALF_OPEN / 2 {
            held.push(subject.held(port, &begun[..index % begun.len()]));
        }
    }
    // A byte now and then keeps a careless deadline from ever passing.
    for _ in 0..10 {
        for stream in &mut held {
            let _ = stream.write(b"\xa1");
        }
        subject.answers();
    }
    subject.seen_alive();
    drop(held);
    subject.unharmed_and_joinable();
}

#[test]
fn ten_thousand_connections_to_the_gossip_port() {
    let mut subject = Subject::start(None);
    subject.storm(subject.gossip, b"\x06\x83\xa4Join");
    subject.unharmed_and_joinable();
}

#[test]
fn ten_thousand_connections_to_the_rpc_port() {
    let mut subject = Subject::start(Some(support::KEY_32));
    subject.storm(
        subject.rpc,
        b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Version\x01",
    );
    subject.unharmed_and_joinable();
}

#[test]
fn malformed_rpc_frames() {
    let mut subject = Subject::start(None);
    let handshake = b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Version\x01";
    let join = b"\x82\xa7Command\xa4join\xa3Seq\x02";
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for length in [
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ] {
        frames.push(length.to_vec());
        frames.push([b"\x82", length.as_slice()].concat());
        frames.push([b"\x82\xa7Command", length.as_slice()].concat());
        frames.push([handshake, join.as_slice(), length].concat());
        frames.push([handshake, join.as_slice(), b"\x82\xa8Existing", length].concat());
        frames.push(
            [
                handshake,
                join.as_slice(),
                b"\x82\xa8Existing\x91",
                length,
                b"abc",
            ]
            .concat(),
        );
    }
    for opening in [0x91_u8, 0x81, 0xdd, 0xc1, 0xd4] {
        frames.push(vec![opening; 200_000]);
        frames.push([handshake, join.as_slice(), b"\x82\xa1x", &vec![opening; 200_000]].concat());
    }
    let mut rng = StdRng::seed_from_u64(0xf4a3e);
    let honest = [handshake, b"\x82\xa7Command\xa7members\xa3Seq\x03".as_slice()].concat();
    frames.extend(truncated(&honest, &mut rng));
    frames.extend(flipped(&honest, &mut rng));

    let mut held = Vec::new();
    for frame in &frames {
        subject.conversation(subject.rpc, frame);
        held.push(subject.held(subject.rpc, frame));
    }
    subject.answers();
    drop(held);
    subject.unharmed_and_joinable();
}

/// The agent under attack, with a peer that watches it.
struct Subject {
    target: Agent,
    peer: Agent,
    /// An insider's keys: what is behind the encryption must stand the same attacks.
    ring: Option<Keyring>,
    gossip: u16,
    rpc: u16,
    socket: UdpSocket,
    memory: u64,
    descriptors: usize,
    next_seq: u32,
}

impl Subject {
    fn start(key: Option<&str>) -> Subject {
        let target = Plan::new(Kind::Fyrd, "target").key(key).start();
        let peer = Plan::new(Kind::Fyrd, "peer").key(key).join(&target).start();
        all_alive(&[&target, &peer]);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a deadline");
        let (gossip, rpc) = (target.gossip_port(), target.rpc_port());
        let (memory, descriptors) = (memory(target.pid()), descriptors(target.pid()));
        let ring = key.map(|key| Keyring::new(Key::parse(key).expect("a key")));
        Subject {
            target,
            peer,
            ring,
            gossip,
            rpc,
            socket,
            memory,
            descriptors,
            next_seq: 1 << 24,
        }
    }

    /// A datagram as it is and, if the agent encrypts, a sealed one as well.
    fn datagram(&self, bytes: &[u8]) {
        // Too long for a datagram is this test's problem, not the agent's.
        let _ = self.socket.send_to(bytes, ("127.0.0.1", self.gossip));
        if let Some(ring) = &self.ring {
            let mut sealed = bytes.to_vec();
            ring.seal_datagram(&NONCE, b"", &mut sealed);
            let _ = self.socket.send_to(&sealed, ("127.0.0.1", self.gossip));
        }
    }

    /// A whole connection to the gossip port, as it is and sealed likewise.
    fn stream(&self, bytes: &[u8]) {
        self.conversation(self.gossip, bytes);
        if let Some(ring) = &self.ring {
            let sealed = ring.seal_stream(&NONCE, b"", bytes);
            self.conversation(self.gossip, &sealed.expect("a sealed message"));
        }
    }

    /// Sends all, says that this was all, and hears the other side out.
    fn conversation(&self, port: u16, bytes: &[u8]) {
        let mut stream = self.held(port, bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// A connection left open after these bytes; the agent may refuse to read all of them.
    fn held(&self, port: u16, bytes: &[u8]) -> TcpStream {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream
            .set_write_timeout(Some(Duration::from_secs(5)))
            .expect("a deadline");
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a deadline");
        let _ = stream.write_all(bytes);
        stream
    }

    /// Opens and drops connections in turn, some with a reset, and holds a share of them to the end.
    fn storm(&mut self, port: u16, bytes: &[u8]) {
        let mut held = Vec::new();
        for index in 0..CONNECTIONS {
            let stream = self.held(port, &bytes[..index % (bytes.len() + 1)]);
            if index % 4 != 0 {
                SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .expect("an option");
            }
            if index % (CONNECTIONS / HELD) == 0 {
                held.push(stream);
            }
            if index % (CONNECTIONS / 5) == 0 {
                self.answers();
            }
        }
        self.answers();
        self.seen_alive();
    }

    /// The process lives and still answers a command and a ping.
    fn answers(&mut self) {
        self.target.assert_running();
        eventually("the target answers `members`", PATIENCE, || self.target.members());
        eventually("the target answers a ping", PATIENCE, || self.pinged());
    }

    fn pinged(&mut self) -> Result<(), String> {
        self.next_seq += 1;
        let ping = self.ping(self.next_seq);
        self.datagram(&ping);
        let expected = [b"\xa5SeqNo\xce".as_slice(), &self.next_seq.to_be_bytes()].concat();
        let mut buffer = [0; 65_536];
        // Answers to what the attack contained may come first.
        for _ in 0..10_000 {
            let (length, _) = self
                .socket
                .recv_from(&mut buffer)
                .map_err(|error| error.to_string())?;
            let packet = &mut buffer[..length];
            let answer = match &self.ring {
                None => packet,
                Some(ring) => match ring.open_datagram(b"", packet, None) {
                    Ok((plain, _)) => plain,
                    Err(_) => continue,
                },
            };
            if answer.windows(expected.len()).any(|window| window == expected) {
                return Ok(());
            }
        }
        Err("ten thousand other packets".to_owned())
    }

    fn ping(&self, seq: u32) -> Vec<u8> {
        [
            b"\x00\x82\xa4Node\xa6target\xa5SeqNo\xce".as_slice(),
            &seq.to_be_bytes(),
        ]
        .concat()
    }

    fn seen_alive(&self) {
        eventually("the peer sees the target alive", PATIENCE, || {
            let statuses = self.peer.statuses()?;
            if statuses.get("target").is_some_and(|s| s == "alive") {
                Ok(())
            } else {
                Err(format!("{statuses:?}"))
            }
        });
    }

    /// All that an attack must not have changed.
    fn unharmed(mut self) {
        self.answers();
        self.peer.assert_running();
        self.seen_alive();
        let (peak, now) = (memory_peak(self.target.pid()), memory(self.target.pid()));
        let bound = self.memory + MEMORY_GROWTH;
        assert!(
            peak < bound,
            "memory grew from {} to {now} bytes, with a peak of {peak}",
            self.memory
        );
        let most = self.descriptors + DESCRIPTOR_SLACK;
        eventually("the descriptors are given back", PATIENCE, || {
            let count = descriptors(self.target.pid());
            if count <= most {
                Ok(())
            } else {
                Err(format!("{count} open, {} before", self.descriptors))
            }
        });
    }

    /// The same, and whole states are still exchanged; not so after an attack that slipped in members
    /// with impossible versions, for with those on the list every exchange is refused by the protocol.
    fn unharmed_and_joinable(self) {
        let join = self.peer.cli(&["join", &self.target.address()]);
        assert_eq!(
            join.success(),
            "Successfully joined cluster by contacting 1 nodes.\n"
        );
        self.unharmed();
    }
}

/// One captured packet.
#[derive(serde::Deserialize)]
struct Vector {
    transport: String,
    hex: String,
    #[serde(skip)]
    bytes: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../core/tests/wire/vectors.json");
    let mut vectors: Vec<Vector> = serde_json::from_str(text).expect("the vectors");
    for vector in &mut vectors {
        let digits = vector
            .hex
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).expect("hex"));
        vector.bytes = digits
            .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
            .collect();
    }
    assert!(vectors.len() > 50);
    vectors
}

/// A sample of all the packet's beginnings, the shortest ones included.
fn truncated(packet: &[u8], rng: &mut StdRng) -> Vec<Vec<u8>> {
    let short = 0..packet.len().min(8);
    let sampled: Vec<usize> = (0..16).map(|_| rng.random_range(0..packet.len())).collect();
    short
        .chain(sampled)
        .map(|length| packet[..length].to_vec())
        .collect()
}

/// A sample of the packets that differ in one bit.
fn flipped(packet: &[u8], rng: &mut StdRng) -> Vec<Vec<u8>> {
    let sampled: Vec<usize> = (0..40).map(|_| rng.random_range(0..packet.len())).collect();
    // An address read from a packet is one the agent will write to: it has to stay on this machine.
    let address = |at: &usize| (at.saturating_sub(3)..=*at).any(|i| packet[i..].starts_with(&[127, 0, 0, 1]));
    let flip = |at: usize| {
        let mut packet = packet.to_vec();
        packet[at] ^= 1 << (at % 8);
        packet
    };
    sampled.into_iter().filter(|at| !address(at)).map(flip).collect()
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    weezl::encode::Encoder::new(weezl::BitOrder::Lsb, 8)
        .encode(bytes)
        .expect("compression")
}

fn compressed(buffer: &[u8]) -> Vec<u8> {
    let length = (buffer.len() as u32).to_be_bytes();
    [b"\x09\x82\xa4Algo\x00\xa3Buf\xdb".as_slice(), &length, buffer].concat()
}

fn compressed_of(message: &[u8]) -> Vec<u8> {
    compressed(&compress(message))
}

fn compound_of(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    [b"\x07\x01".as_slice(), &length, message].concat()
}
