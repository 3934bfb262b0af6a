//! What the snapshot costs: how long an answer waits for the disk, how much can be recorded, how large the
//! store becomes, and how long a start takes. See README.md here.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use fyrd::snapshot::{self, Loaded, Recorder, SnapshotConfig};
use fyrd_core::addr::RawAddr;
use fyrd_core::node::StoreNews;
use fyrd_core::node::memory::{Commit, Marks, MemberRecord, Record, SeenEvent};
use fyrd_core::serf::MemberStatus;
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;

const PATIENCE: Duration = Duration::from_secs(60);
const MEMBERS: u32 = 5_000;
/// Names that come and go in the day of churn.
const CHURN_NAMES: u32 = 10_000;
/// Members at any time of it.
const CHURN_LIVE: u32 = 1_000;
/// Changes of it: one a second for 24 hours.
const CHURN_CHANGES: u32 = 86_400;
/// The windows in which events and queries are told apart.
const WINDOW: u64 = 512;

fn main() {
    let words: Vec<String> = env::args().collect();
    if let [_, step, path] = &words[..]
        && step == "open"
    {
        return open_and_tell(Path::new(path));
    }
    let base = env::var_os("SNAPSHOT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(base).expect("a directory");
    println!("| what | figure |\n|---|---:|");
    waiting(&scratch.path().join("waiting"));
    recording(&scratch.path().join("members"));
    start(&scratch.path().join("members"));
    churn(&scratch.path().join("churn"));
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(future)
}

fn open(path: &Path) -> (Loaded, Recorder) {
    let settings = SnapshotConfig {
        path: path.to_owned(),
        node: "a".to_owned(),
        forget_left_members: true,
    };
    let now = Time::from_nanos(1_700_000_000_000_000_000);
    snapshot::open(settings, now).expect("a snapshot")
}

fn member(number: u32, status: MemberStatus, status_ltime: u64) -> Record {
    let [_, b, c, d] = number.to_be_bytes();
    Record::Member(MemberRecord {
        facts: Arc::new(Facts {
            name: format!("node-{number:05}.rack-{b}.example").into(),
            addr: RawAddr::from(IpAddr::V4(Ipv4Addr::new(10, b, c, d))),
            port: 7946,
            meta: [
                b"\xff\x82\xa4role\xa3web\xa2dc\xa4".as_slice(),
                format!("{:04}", number % 7).as_bytes(),
            ]
            .concat()
            .into(),
            vsn: [1, 5, 2, 2, 5, 4],
        }),
        incarnation: 1,
        status,
        status_ltime,
        since: Time::from_nanos(1),
    })
}

fn event(ltime: u64) -> Record {
    Record::Event(SeenEvent {
        ltime,
        place: 0,
        name: "deploy".into(),
        payload: vec![b'x'; 100].into(),
    })
}

fn marks(at: u64) -> Marks {
    Marks {
        incarnation: 1,
        member: at,
        event: at,
        query: at,
        ..Marks::default()
    }
}

fn commit(recorder: &mut Recorder, at: u64, hurry: bool) {
    recorder.commit(Commit {
        number: at,
        marks: marks(at),
        left: false,
        hurry,
    });
}

async fn stored(recorder: &mut Recorder, at: u64) {
    commit(recorder, at, true);
    loop {
        match recorder.news().await {
            StoreNews::Stored(number) if number >= at => return,
            StoreNews::Stored(_) => {}
            other => panic!("{other:?}: {:?}", recorder.watch().status()),
        }
    }
}

/// How long what shows a new clock waits for the disk.
fn waiting(path: &Path) {
    run(async {
        let (_, mut recorder) = open(path);
        let mut waits = Vec::new();
        for at in 1..=1_000 {
            let started = Instant::now();
            recorder.note(event(at));
            stored(&mut recorder, at + 1).await;
            waits.push(started.elapsed());
        }
        waits.sort();
        for (what, place) in [
            ("median", 500),
            ("99 of 100 below", 990),
            ("longest of 1,000", 999),
        ] {
            row(
                &format!("wait for the disk, {what}, ms"),
                format!("{:.2}", waits[place].as_secs_f64() * 1e3),
            );
        }
        recorder.finish(PATIENCE).await;
    });
    // What the disk alone takes, by the same two calls.
    use std::io::Write;
    let mut file = fs::File::create(path.with_extension("plain")).expect("a file");
    let mut waits: Vec<Duration> = (0..1_000)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[1; 400])
                .and_then(|()| file.sync_data())
                .expect("a write");
            started.elapsed()
        })
        .collect();
    waits.sort();
    row(
        "for comparison: write and fdatasync of a growing file, median, ms",
        format!("{:.2}", waits[500].as_secs_f64() * 1e3),
    );
}

/// How fast a large cluster is recorded, when it comes at once and when it comes bit by bit.
fn recording(path: &Path) {
    run(async {
        let (_, mut recorder) = open(path);
        let started = Instant::now();
        for number in 0..MEMBERS {
            recorder.note(member(number, MemberStatus::Alive, 1));
        }
        stored(&mut recorder, 2).await;
        row(
            "5,000 members at once, ms until on the disk",
            started.elapsed().as_millis(),
        );
        let started = Instant::now();
        let changes = 100_000;
        for change in 0..changes {
            recorder.note(member(change % MEMBERS, MemberStatus::Failed, u64::from(change)));
            commit(&mut recorder, u64::from(change) + 3, false);
        }
        stored(&mut recorder, u64::from(changes) + 3).await;
        let rate = f64::from(changes) / started.elapsed().as_secs_f64();
        row("changes of members recorded a second", format!("{rate:.0}"));
        for ltime in 1..=WINDOW {
            recorder.note(event(ltime));
            recorder.note(Record::Query((ltime, 1)));
        }
        commit(&mut recorder, u64::from(changes) + 4, false);
        recorder.finish(PATIENCE).await;
    });
}

/// What a start costs with a large cluster, in a process of its own.
fn start(path: &Path) {
    let program = env::current_exe().expect("this program");
    let status = Command::new(program)
        .args(["open".as_ref(), path.as_os_str()])
        .status();
    assert!(status.expect("this program again").success());
}

fn open_and_tell(path: &Path) {
    let before = resident();
    let started = Instant::now();
    let (loaded, recorder) = open(path);
    let took = started.elapsed();
    let (members, warnings) = (loaded.memory.members.len(), loaded.warnings.len());
    assert_eq!((members as u32, warnings), (MEMBERS, 0));
    row(
        "start with 5,000 members: ms until the memory is there",
        took.as_millis(),
    );
    if let (Ok(before), Ok(after)) = (before, resident()) {
        row("its memory beside, KiB", after - before);
    }
    run(recorder.finish(PATIENCE));
    row("its size on the disk, KiB", snapshot_bytes(path) / 1024);
}

/// Memory of this process, in KiB.
fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("no VmRSS"))
}

fn snapshot_bytes(path: &Path) -> u64 {
    snapshot::read(path).expect("a snapshot").bytes
}

/// A day of a cluster in which every second somebody comes or goes and an event and a query are heard.
fn churn(path: &Path) {
    run(async {
        let (_, mut recorder) = open(path);
        let watch = recorder.watch();
        let started = Instant::now();
        let mut largest = 0;
        for at in 1..=u64::from(CHURN_CHANGES) {
            let number = (at % u64::from(CHURN_NAMES)) as u32;
            recorder.note(member(number, MemberStatus::Alive, at));
            let gone = (number + CHURN_NAMES - CHURN_LIVE) % CHURN_NAMES;
            recorder.note(Record::ForgetMember(
                format!("node-{gone:05}.rack-{}.example", gone.to_be_bytes()[1]).into(),
            ));
            recorder.note(event(at));
            recorder.note(Record::Query((at, 1)));
            if at > WINDOW {
                recorder.note(Record::ForgetEvents(at - WINDOW));
                recorder.note(Record::ForgetQueries(at - WINDOW));
            }
            // As on a real day, what changes is written, not coalesced away.
            if at % 8 != 0 {
                commit(&mut recorder, at + 1, false);
            } else {
                stored(&mut recorder, at + 1).await;
                largest = largest.max(watch.status().bytes);
            }
        }
        stored(&mut recorder, u64::from(CHURN_CHANGES) + 2).await;
        let took = started.elapsed().as_secs_f64();
        let status = watch.status();
        recorder.finish(PATIENCE).await;
        row("24 h of churn, entries at its end", status.records);
        row("its size at most, KiB", largest / 1024);
        row("its size at the end, KiB", status.bytes / 1024);
        row("it took, s", format!("{took:.1}"));
    });
    let contents = snapshot::read(path).expect("a snapshot");
    assert!(contents.intact, "{contents:?}");
}
