//! What a full gossip datagram costs: 17 alive messages under AES-256-GCM.
//!
//! A loop runs all cases in turn, round after round, so that the shares of the bare cipher compare figures taken under the
//! same conditions on a machine that others use too. See benches/README.md.

use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use allocation_counter::measure;
use fyrd_core::node::{Input, Node, NodeConfig};
use fyrd_core::swim::packet::PacketBuilder;
use fyrd_core::swim::profile::Profile;
use fyrd_core::swim::queue::{GossipQueue, Pace, Subject};
use fyrd_core::time::Time;
use fyrd_core::wire::{Alive, Message, Scratch, decode_datagram, encode_tags, finish_datagram};
use fyrd_keys::{HEADROOM, Key, Keyring, NONCE_LEN, OVERHEAD, TAG_LEN};
use rand::TryRng;
use rand::rngs::SysRng;

/// How many messages a datagram holds when each is about 76 bytes long.
const MESSAGES: usize = 17;
/// How many different datagrams a batch has. Together they name a whole cluster, so that the member
/// table is as large, and its cache lines as cold, as they are in earnest.
const PACKETS: usize = 60;
const MEMBERS: usize = MESSAGES * PACKETS;
/// The size that the `lan` profile allows a datagram.
const UDP_SIZE: usize = 1400;
const KEY: [u8; 32] = [7; 32];
/// High enough that its encoding is as long at the end of the run as at the start.
const FIRST_INCARNATION: u32 = 1_000;
const ROUNDS: usize = 400;

/// Handles one batch, and says how long that took; what it has to prepare is not counted.
type Batch = Box<dyn FnMut() -> Duration>;

struct Case {
    name: &'static str,
    /// The place of the bare cipher among the cases that this one is held against.
    bare: usize,
    batch: Batch,
}

const BARE_SEAL: usize = 0;
const BARE_OPEN: usize = 1;

fn main() {
    print_table(&mut cases());
}

fn cases() -> Vec<Case> {
    let case = |name, bare, batch| Case { name, bare, batch };
    vec![
        case("bare AEAD, seal", BARE_SEAL, bare_seal()),
        case("bare AEAD, open", BARE_OPEN, bare_open()),
        case("nonces of the operating system", BARE_SEAL, system_nonces()),
        case("fill, seal", BARE_SEAL, fill_and_seal(false)),
        case("fill, compress, seal", BARE_SEAL, fill_and_seal(true)),
        case("open", BARE_OPEN, receive(false, Depth::Open, News::None)),
        case(
            "open, decode",
            BARE_OPEN,
            receive(false, Depth::Decode, News::None),
        ),
        case(
            "open, decode, handle: nothing new",
            BARE_OPEN,
            receive(false, Depth::Handle, News::None),
        ),
        case(
            "open, decode, handle: all new",
            BARE_OPEN,
            receive(false, Depth::Handle, News::All),
        ),
        case(
            "open, inflate, decode, handle: nothing new",
            BARE_OPEN,
            receive(true, Depth::Handle, News::None),
        ),
    ]
}

/// Runs all cases in turn, and prints the median of each.
fn print_table(cases: &mut [Case]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    let mut shares = times.clone();
    for _ in 0..ROUNDS {
        let round: Vec<f64> = cases
            .iter_mut()
            .map(|case| (case.batch)().as_secs_f64() / PACKETS as f64)
            .collect();
        for (index, (case, time)) in cases.iter().zip(&round).enumerate() {
            times[index].push(*time);
            shares[index].push(round[case.bare] / time);
        }
    }
    // Long after the beginning, when what is kept for the next packet is there.
    let allocations: Vec<f64> = cases.iter_mut().map(allocations).collect();
    println!(
        "One datagram of {MESSAGES} alive messages, {} bytes sealed; median of {ROUNDS} interleaved rounds of {PACKETS}",
        sealed_batch(FIRST_INCARNATION, false)[0].len()
    );
    println!("| step | µs a packet | packets a second | share of bare AEAD speed | allocations a packet |");
    println!("|---|---:|---:|---:|---:|");
    for (index, case) in cases.iter().enumerate() {
        let time = median(&mut times[index]);
        println!(
            "| {} | {:.2} | {:.0} | {:.0} % | {:.1} |",
            case.name,
            time * 1e6,
            1.0 / time,
            100.0 * median(&mut shares[index]),
            allocations[index]
        );
    }
}

thread_local! {
    /// Allocations so far, while they are counted.
    static ALLOCATIONS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Of a batch, for each packet.
fn allocations(case: &mut Case) -> f64 {
    ALLOCATIONS.set(Some(0));
    (case.batch)();
    ALLOCATIONS.take().unwrap_or_default() as f64 / PACKETS as f64
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The cipher alone, over as many bytes as a datagram has.
fn bare_seal() -> Batch {
    let aead = Aes256Gcm::new(&KEY.into());
    let mut bodies = plain_batch(FIRST_INCARNATION, false);
    let mut nonces = Nonces::default();
    Box::new(move || {
        timed(|| {
            for body in &mut bodies {
                let nonce = nonces.draw().into();
                black_box(aead.encrypt_inout_detached(&nonce, b"", body.as_mut_slice().into()))
                    .expect("seals");
            }
        })
    })
}

/// What an agent draws beside, once a packet.
fn system_nonces() -> Batch {
    Box::new(|| {
        timed(|| {
            for _ in 0..PACKETS {
                let mut nonce = [0_u8; NONCE_LEN];
                SysRng.try_fill_bytes(&mut nonce).expect("randomness");
                black_box(nonce);
            }
        })
    })
}

fn bare_open() -> Batch {
    let aead = Aes256Gcm::new(&KEY.into());
    let sealed = sealed_batch(FIRST_INCARNATION, false);
    let mut buffers = sealed.clone();
    Box::new(move || {
        refill(&mut buffers, &sealed);
        timed(|| {
            for block in &mut buffers {
                let (head, rest) = block.split_first_chunk_mut::<HEADROOM>().expect("long enough");
                let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().expect("long enough");
                let nonce = head.last_chunk::<NONCE_LEN>().expect("long enough");
                aead.decrypt_inout_detached(nonce.into(), b"", black_box(body).into(), (&*tag).into())
                    .expect("opens");
            }
        })
    })
}

/// From the gossip queue to the bytes for the socket.
fn fill_and_seal(compress: bool) -> Batch {
    let ring = ring();
    let mut queue = GossipQueue::default();
    for (index, name) in names().iter().enumerate() {
        let subject = Subject::Node(name.as_str().into());
        queue.push(Some(subject), alive(index, name, FIRST_INCARNATION), None);
    }
    let mut nonces = Nonces::default();
    let mut out = Vec::new();
    Box::new(move || {
        timed(|| {
            for _ in 0..PACKETS {
                let mut packet = PacketBuilder::new(UDP_SIZE, OVERHEAD);
                queue.fill(&mut packet, u32::MAX, Pace::ALL);
                let plain = finish_datagram(packet.finish(), compress, true);
                out.clear();
                out.resize(HEADROOM, 0);
                out.extend_from_slice(&plain);
                ring.seal_datagram_in(&nonces.draw(), b"", &mut out, 0);
                black_box(&out);
            }
        })
    })
}

/// How far a datagram is taken.
#[derive(Clone, Copy, PartialEq)]
enum Depth {
    Open,
    Decode,
    Handle,
}

/// What a datagram holds that the node does not know yet.
#[derive(Clone, Copy, PartialEq)]
enum News {
    None,
    All,
}

/// From the bytes of the socket to the node, which knows every member before.
fn receive(compress: bool, depth: Depth, news: News) -> Batch {
    let ring = ring();
    let from = SocketAddr::from(([127, 0, 0, 1], 7946));
    let mut node = informed_node(from);
    let mut incarnation = FIRST_INCARNATION;
    let mut sealed = sealed_batch(incarnation, compress);
    let mut buffers = sealed.clone();
    let mut scratch = Scratch::default();
    let hint = Some(ring.primary().fingerprint());
    Box::new(move || {
        if news == News::All {
            incarnation += 1;
            sealed = sealed_batch(incarnation, compress);
        }
        refill(&mut buffers, &sealed);
        let took = timed(|| {
            for buffer in &mut buffers {
                let (plain, _) = ring.open_datagram(b"", buffer, hint).expect("opens");
                if depth == Depth::Open {
                    black_box(plain);
                    continue;
                }
                let datagram = decode_datagram(plain, &mut scratch).expect("decodes");
                let messages = black_box(datagram.messages.as_slice());
                if depth == Depth::Handle {
                    node.handle(
                        Time::ZERO,
                        Input::Datagram {
                            from,
                            len: 1400,
                            messages,
                        },
                    );
                    while let Some(effect) = node.poll_effect() {
                        black_box(effect);
                    }
                }
                let room = datagram.into_room();
                scratch.keep(room);
            }
        });
        assert_eq!(node.stats().refused_messages, 0, "every message is taken");
        took
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    if let Some(before) = ALLOCATIONS.get() {
        let counted = measure(work);
        ALLOCATIONS.set(Some(before + counted.count_total));
        return Duration::ZERO;
    }
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Puts the ciphertexts back that were opened in place.
fn refill(buffers: &mut [Vec<u8>], sealed: &[Vec<u8>]) {
    for (buffer, sealed) in buffers.iter_mut().zip(sealed) {
        buffer.clone_from(sealed);
    }
}

/// Nonces that never repeat, without the cost of drawing them, which is the operating system's.
#[derive(Default)]
struct Nonces(u64);

impl Nonces {
    fn draw(&mut self) -> [u8; NONCE_LEN] {
        self.0 += 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.0.to_le_bytes());
        nonce
    }
}

fn ring() -> Keyring {
    Keyring::new(Key::from_wire(&KEY).expect("32 bytes are an AES-256 key"))
}

/// Names in an order unlike that of any index, as messages arrive in no order.
fn names() -> Vec<String> {
    (0..MEMBERS)
        .map(|index| format!("n-{:05}", index * 389 % MEMBERS))
        .collect()
}

fn alive(index: usize, name: &str, incarnation: u32) -> Vec<u8> {
    let mut meta = Vec::new();
    encode_tags([("role", "web")], &mut meta);
    let mut out = Vec::new();
    Message::Alive(Alive {
        incarnation,
        node: name,
        addr: &[10, 0, (index >> 8) as u8, index as u8],
        port: 7946,
        meta: &meta,
        vsn: &[1, 5, 2, 2, 5, 5],
    })
    .encode(&mut out);
    out
}

/// The datagrams before they are sealed.
fn plain_batch(incarnation: u32, compress: bool) -> Vec<Vec<u8>> {
    let names = names();
    let mut messages = names
        .iter()
        .enumerate()
        .map(|(index, name)| alive(index, name, incarnation));
    let mut batch = Vec::with_capacity(PACKETS);
    for _ in 0..PACKETS {
        let mut packet = PacketBuilder::new(UDP_SIZE, OVERHEAD);
        for message in messages.by_ref().take(MESSAGES) {
            assert!(packet.push(&message), "{MESSAGES} messages fit a datagram");
        }
        batch.push(finish_datagram(packet.finish(), compress, true));
    }
    batch
}

fn sealed_batch(incarnation: u32, compress: bool) -> Vec<Vec<u8>> {
    let (ring, mut nonces) = (ring(), Nonces::default());
    let mut batch = plain_batch(incarnation, compress);
    for datagram in &mut batch {
        ring.seal_datagram(&nonces.draw(), b"", datagram);
    }
    batch
}

/// A node that has heard of all members already.
fn informed_node(from: SocketAddr) -> Node {
    let mut node = Node::new(config(), Time::ZERO).expect("the configuration is sound");
    let mut scratch = Scratch::default();
    for plain in plain_batch(FIRST_INCARNATION, false) {
        let datagram = decode_datagram(&plain, &mut scratch).expect("decodes");
        let messages = datagram.messages.as_slice();
        node.handle(
            Time::ZERO,
            Input::Datagram {
                from,
                len: 1400,
                messages,
            },
        );
    }
    while node.poll_effect().is_some() {}
    assert_eq!(node.members().len(), MEMBERS + 1, "every member is known");
    node
}

fn config() -> NodeConfig {
    NodeConfig {
        seal_overhead: OVERHEAD,
        ..NodeConfig::new("self", ([127, 0, 0, 1], 7946).into(), profile(), 1)
    }
}

/// No clock runs here, so only the sizes matter.
fn profile() -> Profile {
    Profile::builtin("lan").expect("a profile that is compiled in")
}
