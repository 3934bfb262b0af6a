//! How soon a node with 5,000 members in its snapshot is back: until it answers on the wire, until it knows
//! all of them again, and what the store takes.
//!
//! `cargo bench --bench restart`. One real agent plays the cluster: it is told of 4,999 members that do not
//! exist, so what is measured is the restart, not a network.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fyrd::rpc::client::Client;
use fyrd::snapshot::{self, SnapshotConfig};
use fyrd_core::addr::RawAddr;
use fyrd_core::node::memory::{Commit, Marks, MemberRecord, Record};
use fyrd_core::serf::MemberStatus;
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;
use fyrd_core::wire::{PushNodeState, PushPull, PushPullState, SerfMessage, StreamMessage, encode_tags};

const MEMBERS: usize = 5_000;
const RUNS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
const VERSIONS: [u8; 6] = [1, 5, 2, 2, 5, 5];

/// An agent that ends with this program.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_addr() -> SocketAddr {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
    probe.local_addr().expect("its address")
}

fn start(name: &str, gossip: SocketAddr, rpc: SocketAddr, more: &[String]) -> Agent {
    let child = Command::new(env!("CARGO_BIN_EXE_fyrd"))
        .args(["agent", "-profile=lan", "-log-level=err"])
        .arg(format!("-node={name}"))
        .arg(format!("-bind={gossip}"))
        .arg(format!("-rpc-addr={rpc}"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the agent starts");
    Agent(child)
}

fn until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The names and addresses of members that nobody runs; nothing listens on their port.
fn invented() -> impl Iterator<Item = (String, [u8; 4])> {
    (1..MEMBERS as u32).map(|i| (format!("member-{i:05}"), [127, 1, (i >> 8) as u8, i as u8]))
}

fn meta() -> Vec<u8> {
    let mut meta = Vec::new();
    encode_tags([("role", "web"), ("dc", "east"), ("rack", "r17")], &mut meta);
    meta
}

/// A push/pull with an agent; nothing if it does not answer yet.
fn push(to: SocketAddr, nodes: Vec<PushNodeState<'_>>) -> Option<()> {
    let mut state = Vec::new();
    SerfMessage::PushPull(PushPullState::default()).encode(&mut state);
    let mut message = Vec::new();
    StreamMessage::PushPull(PushPull {
        nodes,
        user_state: &state,
        ..PushPull::default()
    })
    .encode(&mut message);
    let mut stream = TcpStream::connect(to).ok()?;
    stream.write_all(&message).ok()?;
    stream.read_exact(&mut [0]).ok()
}

fn write_store(path: &Path, hub: SocketAddr, runtime: &tokio::runtime::Runtime) {
    let settings = SnapshotConfig {
        path: path.to_owned(),
        node: "subject".to_owned(),
        forget_left_members: true,
    };
    let now = fyrd::driver::unix_time();
    let (_, mut recorder) = snapshot::open(settings, now).expect("a store");
    let meta = meta();
    let record = |name: &str, addr: [u8; 4], port: u16, since: Time| {
        Record::Member(MemberRecord {
            facts: Arc::new(Facts {
                name: name.into(),
                addr: RawAddr::V4(addr),
                port,
                meta: meta.clone().into(),
                vsn: VERSIONS,
            }),
            incarnation: 3,
            status: MemberStatus::Alive,
            status_ltime: 5,
            since,
        })
    };
    for (name, addr) in invented() {
        recorder.note(record(&name, addr, 1, Time::ZERO));
    }
    recorder.note(record("hub", [127, 0, 0, 1], hub.port(), now));
    recorder.commit(Commit {
        number: 1,
        marks: Marks {
            incarnation: 4,
            member: 10,
            event: 10,
            query: 10,
            ..Marks::default()
        },
        ..Commit::default()
    });
    runtime.block_on(recorder.finish(PATIENCE));
}

fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a folder");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("its size");
        if metadata.is_dir() {
            bytes_below(&entry.path())
        } else {
            metadata.len()
        }
    });
    sizes.sum()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (names, meta): (Vec<_>, _) = (invented().collect(), meta());
    let nodes = names.iter().map(|(name, addr)| PushNodeState {
        name,
        addr,
        port: 1,
        meta: &meta,
        incarnation: 3,
        state: 0,
        vsn: &VERSIONS,
    });
    let nodes: Vec<_> = nodes.collect();
    let members = |rpc: SocketAddr| -> Option<usize> {
        runtime.block_on(async {
            let mut client = Client::connect(&rpc.to_string(), None).await.ok()?;
            client.members().await.ok().map(|members| members.len())
        })
    };
    let (mut first, mut back) = (Vec::new(), Vec::new());
    let mut size = 0;
    for _ in 0..RUNS {
        // A fresh one each time, for it soon finds out that the others do not exist.
        let (hub, hub_rpc) = (free_addr(), free_addr());
        let _hub = start("hub", hub, hub_rpc, &[]);
        until(|| push(hub, nodes.clone()));
        until(|| members(hub_rpc).filter(|count| *count >= MEMBERS));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        write_store(&path, hub, &runtime);
        size = bytes_below(&path);
        let (gossip, rpc) = (free_addr(), free_addr());
        let begun = Instant::now();
        let _subject = start("subject", gossip, rpc, &[format!("-snapshot={}", path.display())]);
        until(|| push(gossip, Vec::new()));
        first.push(begun.elapsed());
        until(|| members(rpc).filter(|count| *count > MEMBERS));
        back.push(begun.elapsed());
    }
    println!("members in the snapshot: {MEMBERS}; store: {} KiB", size >> 10);
    println!(
        "first answer on the wire: {:?} (median of {RUNS})",
        median(&mut first)
    );
    println!("all members known again: {:?}", median(&mut back));
}
