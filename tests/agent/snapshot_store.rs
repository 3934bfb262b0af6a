//! The snapshot store, from its door: what was flushed is there again, whatever happens in between.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fyrd::snapshot::{self, Loaded, Recorder, SnapshotConfig, State};
use fyrd_core::addr::RawAddr;
use fyrd_core::bounds::{MAX_INCARNATION, MAX_INCARNATION_STEP, MAX_LTIME, MAX_LTIME_STEP, SNAPSHOT_ASIDE};
use fyrd_core::node::StoreNews;
use fyrd_core::node::memory::{Commit, Keeper, Marks, MemberRecord, Memory, Record, SeenEvent};
use fyrd_core::serf::MemberStatus;
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const PATIENCE: Duration = Duration::from_secs(60);

/// A time of day that lies in the past of the system's clock.
const NOW: Time = Time::from_nanos(1_700_000_000_000_000_000);

fn settings(path: &Path) -> SnapshotConfig {
    SnapshotConfig {
        path: path.to_owned(),
        node: "a".to_owned(),
        forget_left_members: true,
    }
}

fn open(path: &Path) -> (Loaded, Recorder) {
    snapshot::open(settings(path), NOW).unwrap()
}

/// Opens the database below a snapshot. sled's threads may hold its lock for a moment after the recorder has
/// let go of it.
fn open_generation(path: &Path) -> sled::Db {
    let until = Instant::now() + PATIENCE;
    loop {
        match sled::open(path) {
            Err(sled::Error::Io(error)) if Instant::now() < until => {
                assert!(error.to_string().contains("could not acquire lock"), "{error}");
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.unwrap(),
        }
    }
}

fn member(name: &str, status_ltime: u64) -> MemberRecord {
    MemberRecord {
        facts: Arc::new(Facts {
            name: name.into(),
            addr: RawAddr::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            port: 7946,
            meta: b"\xff\x82\xa4role\xa3web"[..].into(),
            vsn: [1, 5, 2, 2, 5, 4],
        }),
        incarnation: 7,
        status: MemberStatus::Alive,
        status_ltime,
        since: Time::from_nanos(5),
    }
}

fn event(ltime: u64, place: u32, bytes: usize) -> SeenEvent {
    SeenEvent {
        ltime,
        place,
        name: format!("deploy-{ltime}").into(),
        payload: vec![ltime as u8; bytes].into(),
    }
}

/// Marks that grow with a step, all of them.
fn marks(step: u64) -> Marks {
    Marks {
        incarnation: step as u32,
        member: step + 1,
        event: step + 2,
        query: step + 3,
        event_floor: step / 2,
        query_floor: step / 3,
    }
}

fn sorted(mut memory: Memory) -> Memory {
    memory.members.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
    memory.events.sort_by_key(|event| (event.ltime, event.place));
    memory.queries.sort();
    memory
}

/// Has what was noted written with these clocks; gives the number of the commit.
fn close(recorder: &mut Recorder, marks: Marks, left: bool) -> u64 {
    static COMMITS: AtomicU64 = AtomicU64::new(0);
    let number = 1 + COMMITS.fetch_add(1, Ordering::Relaxed);
    recorder.commit(Commit {
        number,
        marks,
        left,
        hurry: false,
    });
    number
}

/// Has what was noted written, and waits until it is on the disk.
async fn store(recorder: &mut Recorder, marks: Marks) {
    let number = close(recorder, marks, false);
    recorder.commit(Commit {
        number,
        marks,
        left: false,
        hurry: true,
    });
    let stored = async { while recorder.news().await != StoreNews::Stored(number) {} };
    let in_time = tokio::time::timeout(PATIENCE, stored).await.is_ok();
    assert!(in_time, "never flushed: {:?}", recorder.watch().status());
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    (directory, path)
}

#[test]
fn what_was_recorded_is_there_in_the_next_life() {
    let (_keep, path) = scratch();
    run(async {
        let (loaded, mut recorder) = open(&path);
        assert_eq!(loaded.memory, Memory::default());
        assert_eq!(recorder.watch().status().state, State::Recording);
        for record in [
            Record::Member(member("b", 3)),
            Record::Member(member("c", 4)),
            Record::Member(member("", 4)),
            Record::ForgetMember("c".into()),
            Record::Event(event(5, 0, 0)),
            Record::Event(event(5, 1, 9_000)),
            Record::Event(event(6, 0, 10)),
            Record::ForgetEvents(6),
            Record::Event(event(7, 0, 10)),
            Record::Query((8, 1)),
            Record::Query((8, 2)),
            Record::Query((9, 2)),
        ] {
            recorder.note(record);
        }
        store(&mut recorder, marks(10)).await;
        recorder.note(Record::Member(member("b", 11)));
        recorder.note(Record::Event(event(5, 1, 100)));
        recorder.note(Record::ForgetEvents(7));
        recorder.note(Record::ForgetQueries(8));
        close(&mut recorder, marks(20), false);
        let watch = recorder.watch();
        let flushes = watch.status().flushes;
        recorder.finish(PATIENCE).await;
        assert_eq!(watch.status().flushes, flushes + 1, "an end is no crash");

        let (loaded, recorder) = open(&path);
        let expected = Memory {
            marks: marks(20),
            members: vec![member("b", 11)],
            events: vec![event(5, 0, 0), event(5, 1, 100)],
            queries: vec![(9, 2)],
        };
        assert_eq!(loaded.warnings, [] as [&str; 0]);
        assert_eq!(sorted(loaded.memory), expected);
        assert!(!loaded.left);
        assert_eq!(recorder.watch().status().durable, marks(20));
        recorder.finish(PATIENCE).await;
    });
}

#[test]
fn a_second_opener_is_told_who_has_the_snapshot() {
    let (_keep, path) = scratch();
    run(async {
        let (_, recorder) = open(&path);
        let expected = format!(
            "snapshot {} is in use by process {} (node 'a')",
            path.display(),
            std::process::id()
        );
        assert_eq!(
            snapshot::open(settings(&path), NOW).unwrap_err().to_string(),
            expected
        );
        assert_eq!(snapshot::read(&path).unwrap_err().to_string(), expected);
        recorder.finish(PATIENCE).await;
        let contents = snapshot::read(&path).unwrap();
        assert_eq!((contents.node.as_str(), contents.schema), ("a", snapshot::SCHEMA));
        assert!(contents.intact && contents.written.is_some() && contents.bytes > 0);
        open(&path).1.finish(PATIENCE).await;
    });
}

/// A handler that was being started when its agent was killed has what the agent had open.
#[test]
fn the_lock_of_who_is_about_to_end_is_waited_for() {
    let (_keep, path) = scratch();
    run(open(&path).1.finish(PATIENCE));
    let lock = fs::File::open(path.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut child = Command::new("sleep").arg("0.3").stdin(lock).spawn().unwrap();
    run(open(&path).1.finish(PATIENCE));
    let ended = child.wait();
    assert!(ended.unwrap().success());
}

#[test]
fn paths_that_cannot_work_are_refused_with_the_reason() {
    let (keep, path) = scratch();
    let text = |path: &Path| snapshot::open(settings(path), NOW).unwrap_err().to_string();
    let below = path.join("none");
    let expected = format!("open {}: no such file or directory", below.display());
    assert_eq!(text(&below), expected);
    assert_eq!(snapshot::read(&below).unwrap_err().to_string(), expected);
    let file = keep.path().join("file");
    fs::write(&file, "some text\n").unwrap();
    #[cfg(unix)]
    {
        let below_file = file.join("x");
        assert_eq!(
            text(&below_file),
            format!("open {}: not a directory", below_file.display())
        );
    }
    let foreign = text(keep.path());
    assert!(foreign.contains("holds 'file'"), "{foreign}");
    fs::create_dir(&path).unwrap();
    let empty = snapshot::read(&path).unwrap_err().to_string();
    assert!(empty.ends_with("this directory is empty"), "{empty}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "a look leaves nothing");
    // An empty directory is as good as none.
    run(open(&path).1.finish(PATIENCE));
}

/// As Serf starts there, so does Fyrd. What belongs to somebody else is left alone, and the recording begins when
/// it is gone.
#[test]
fn a_file_that_is_no_snapshot_delays_the_recording_and_nothing_else() {
    let (_keep, path) = scratch();
    fs::write(&path, "some text\n").unwrap();
    run(async {
        let (loaded, mut recorder) = open(&path);
        assert_eq!(loaded.memory, Memory::default());
        let watch = recorder.watch();
        let State::Degraded { reason, .. } = watch.status().state else {
            panic!("it records")
        };
        let expected = "it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf; \
                        name another path, or move it away";
        assert_eq!(reason, expected);
        assert_eq!(fs::read_to_string(&path).unwrap(), "some text\n");
        fs::remove_file(&path).unwrap();
        heal(&mut recorder, marks(5)).await;
        recorder.finish(PATIENCE).await;
    });
    assert_eq!(snapshot::read(&path).unwrap().memory.marks, marks(5));
}

/// Answers the news of a recorder that fails, as a node with nothing but clocks would, until it records.
async fn heal(recorder: &mut Recorder, marks: Marks) {
    let watch = recorder.watch();
    let healed = async {
        while watch.status().durable != marks || watch.status().state != State::Recording {
            if recorder.news().await == StoreNews::WantsEverything {
                close(recorder, marks, false);
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, healed).await.is_ok();
    assert!(in_time, "never healed: {:?}", watch.status());
}

/// Whoever removes the files of a running agent is told of soon, and everything is written anew.
#[cfg(unix)]
#[test]
fn what_is_removed_replaced_or_cut_while_it_is_open_is_noticed_and_written_anew() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 7] = [
        ("all of it removed", |path| fs::remove_dir_all(path).unwrap()),
        ("all of it moved away", |path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
        }),
        ("the database removed", |path| {
            fs::remove_file(path.join("gen-000001/db")).unwrap();
        }),
        ("the database cut", |path| {
            let file = fs::File::options().write(true).open(path.join("gen-000001/db"));
            file.unwrap().set_len(100).unwrap();
        }),
        ("the database replaced", |path| {
            fs::copy(path.join("gen-000001/db"), path.join("x")).unwrap();
            fs::rename(path.join("x"), path.join("gen-000001/db")).unwrap();
        }),
        ("the essence removed", |path| {
            fs::remove_file(path.join("essence-2")).unwrap();
        }),
        ("the essence cut", |path| {
            let file = fs::File::options().write(true).open(path.join("essence-1"));
            file.unwrap().set_len(10).unwrap();
        }),
    ];
    for (what, deed) in deeds {
        let (_keep, path) = scratch();
        run(async {
            let (_, mut recorder) = open(&path);
            recorder.note(Record::Member(member("b", 3)));
            store(&mut recorder, marks(10)).await;
            let watch = recorder.watch();
            deed(&path);
            close(&mut recorder, marks(11), false);
            heal(&mut recorder, marks(12)).await;
            assert_eq!(watch.status().failures, 1, "{what}");
            recorder.finish(PATIENCE).await;
        });
        let contents = snapshot::read(&path).unwrap();
        assert_eq!(contents.memory.marks, marks(12), "{what}");
        assert!(
            contents.intact && contents.warnings.is_empty(),
            "{what}: {contents:?}"
        );
    }
}

#[test]
fn a_graceful_leave_forgets_the_members_unless_the_next_life_rejoins() {
    let (keep, path) = scratch();
    run(async {
        let (_, mut recorder) = open(&path);
        recorder.note(Record::Member(member("b", 3)));
        recorder.note(Record::Event(event(5, 0, 1)));
        store(&mut recorder, marks(10)).await;
        recorder.note(Record::Query((4, 4)));
        close(&mut recorder, marks(11), true);
        recorder.finish(PATIENCE).await;

        let rejoining = SnapshotConfig {
            forget_left_members: false,
            ..settings(&path)
        };
        let contents = snapshot::read(&path).unwrap();
        assert!(contents.left);
        assert_eq!(contents.memory.members, [member("b", 3)]);
        let (loaded, mut recorder) = snapshot::open(rejoining, NOW).unwrap();
        assert!(loaded.left);
        assert_eq!(loaded.memory, contents.memory);
        assert_eq!(loaded.memory.queries, [(4, 4)]);
        // This life did not leave again, and the next has a leave only if it does.
        close(&mut recorder, marks(11), true);
        recorder.finish(PATIENCE).await;

        let (loaded, recorder) = open(&path);
        assert!(loaded.left);
        assert_eq!(loaded.memory.members, []);
        assert_eq!(loaded.memory.events, [event(5, 0, 1)]);
        assert_eq!(loaded.memory.marks, marks(11));
        // What a kill at this very moment would leave.
        let killed = keep.path().join("killed");
        copy(&path, &killed);
        recorder.finish(PATIENCE).await;

        let (loaded, recorder) = open(&killed);
        assert!(!loaded.left, "the life before was killed");
        assert_eq!(loaded.memory.members, [], "and they stay forgotten");
        recorder.finish(PATIENCE).await;
    });
}

/// Peers that are up to it push clocks beyond the highest that is taken in one jump, and the cluster goes on
/// there, so a restart has to go on from there as well.
#[test]
fn clocks_that_peers_have_pushed_far_ahead_are_read_again() {
    let (_keep, path) = scratch();
    let far = MAX_LTIME + MAX_LTIME_STEP;
    let (mut peer, seen) = (member("b", far), event(far, 0, 10));
    peer.incarnation = MAX_INCARNATION + 2 * MAX_INCARNATION_STEP;
    let marks = Marks {
        incarnation: MAX_INCARNATION + 2 * MAX_INCARNATION_STEP,
        member: far + 1,
        event: far + MAX_LTIME_STEP,
        query: far + 1,
        event_floor: far,
        query_floor: far,
    };
    run(async {
        let (_, mut recorder) = open(&path);
        recorder.note(Record::Member(peer.clone()));
        recorder.note(Record::Event(seen.clone()));
        recorder.note(Record::Query((far, 1)));
        store(&mut recorder, marks).await;
        recorder.finish(PATIENCE).await;
    });
    let (loaded, recorder) = open(&path);
    assert_eq!(loaded.warnings, [] as [&str; 0]);
    let expected = Memory {
        marks,
        members: vec![peer],
        events: vec![seen],
        queries: vec![(far, 1)],
    };
    assert_eq!(loaded.memory, expected);
    run(recorder.finish(PATIENCE));
}

const SERF: &str = "alive: a 10.0.0.1:7946\nalive: b 10.0.0.2:7946\nalive: c 10.0.0.3:7946\n\
                    not-alive: c\nclock: 77\nevent-clock: 5\nquery-clock: 6\n";

#[test]
fn a_text_snapshot_of_serf_is_imported_once_and_kept() {
    let (keep, path) = scratch();
    let kept = keep.path().join("snapshot.serf-imported");
    fs::write(&path, SERF).unwrap();
    fs::write(&kept, "an older one").unwrap();
    run(async {
        let (loaded, recorder) = open(&path);
        let put = loaded.imported.unwrap();
        assert_ne!(put, kept);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "an older one");
        assert_eq!(fs::read_to_string(&put).unwrap(), SERF);
        assert_eq!(loaded.memory.marks.member, 78);
        assert_eq!(loaded.memory.members.len(), 1);
        recorder.finish(PATIENCE).await;
        let (again, recorder) = open(&path);
        assert_eq!(again.imported, None);
        assert_eq!(again.memory, loaded.memory);
        recorder.finish(PATIENCE).await;
    });
}

#[test]
fn an_import_that_was_interrupted_is_completed_at_the_next_start() {
    let (keep, path) = scratch();
    let beside = keep.path().join("snapshot.importing");
    let kept = keep.path().join("snapshot.serf-imported");
    let members_of = |loaded: &Loaded| loaded.memory.members.len();
    // Between the renames: the text is gone, the store is complete.
    fs::write(&path, SERF).unwrap();
    run(open(&path).1.finish(PATIENCE));
    fs::rename(&path, &beside).unwrap();
    let (loaded, recorder) = open(&path);
    assert_eq!(members_of(&loaded), 1);
    assert!(!beside.exists());
    run(recorder.finish(PATIENCE));
    // Before the first rename: both are there; the text counts.
    fs::rename(&path, &beside).unwrap();
    fs::remove_file(&kept).unwrap();
    fs::write(&path, format!("{SERF}alive: d 10.0.0.4:7946\n")).unwrap();
    let (loaded, recorder) = open(&path);
    assert_eq!(members_of(&loaded), 2);
    assert!(!beside.exists() && kept.exists());
    run(recorder.finish(PATIENCE));
    // Before the store was complete.
    fs::rename(&path, &beside).unwrap();
    fs::remove_file(beside.join("current")).unwrap();
    fs::write(&path, SERF).unwrap();
    let (loaded, recorder) = open(&path);
    assert_eq!(members_of(&loaded), 1);
    run(recorder.finish(PATIENCE));
    // The same, and the text has been taken away: there is nothing to import.
    fs::rename(&path, &beside).unwrap();
    fs::remove_file(beside.join("current")).unwrap();
    let (loaded, recorder) = open(&path);
    assert_eq!(members_of(&loaded), 0);
    assert!(!beside.exists());
    run(recorder.finish(PATIENCE));
}

/// Copies a snapshot that nobody has open.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_below(path: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// A store that was written in several flushes, the last of them not followed by a clean end, and all
/// states that it was in.
fn with_history(path: &Path) -> Vec<Memory> {
    let mut keeper = Keeper::default();
    let mut states = vec![Memory::default()];
    run(async {
        let (_, mut recorder) = open(path);
        for step in 1..=40_u64 {
            let mut records = vec![
                Record::Member(member(&format!("node-{}", step % 7), step)),
                Record::Event(event(step, 0, (step * 211 % 7_000) as usize)),
                Record::Query((step, 9)),
            ];
            if step > 10 {
                records.push(Record::ForgetEvents(step - 10));
                records.push(Record::ForgetQueries(step - 10));
                records.push(Record::ForgetMember(format!("node-{}", (step + 3) % 7).into()));
            }
            for record in records {
                keeper.apply(record.clone());
                recorder.note(record);
            }
            keeper.mark(marks(step));
            store(&mut recorder, marks(step)).await;
            states.push(sorted(keeper.memory()));
        }
        recorder.finish(PATIENCE).await;
    });
    states
}

/// Spoils one file, and says how.
fn spoil(rng: &mut Xoshiro256PlusPlus, path: &Path) -> String {
    let mut files = Vec::new();
    files_below(path, &mut files);
    let database = files.iter().find(|file| file.ends_with("db")).unwrap();
    // Most of what there is to spoil is there.
    let file = if rng.random_bool(0.7) {
        database
    } else {
        &files[rng.random_range(0..files.len())]
    };
    let mut bytes = fs::read(file).unwrap();
    let len = bytes.len();
    let place = rng.random_range(0..len.max(1));
    let kind = rng.random_range(0..6);
    let what = match kind {
        0 if len > 0 => {
            bytes[place] ^= 1 << rng.random_range(0..8);
            "a bit flipped"
        }
        1 => {
            bytes.truncate(place);
            "cut"
        }
        2 => {
            bytes.clear();
            "emptied"
        }
        3 => {
            fs::remove_file(file).unwrap();
            return format!("{} removed", file.display());
        }
        4 => {
            let end = len.min(place + 4096);
            rng.fill(&mut bytes[place..end]);
            "4 KiB of noise"
        }
        _ => {
            let end = len.min(place + 4096);
            bytes[place.min(len)..end].fill(0);
            "4 KiB of zeros"
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{} {what} at {place} of {len}", file.display())
}

/// What any start must give, however the disk was spoiled.
fn check_start(path: &Path, states: &[Memory], what: &str) -> bool {
    let started = Instant::now();
    let (loaded, mut recorder) = open(path);
    assert!(started.elapsed() < Duration::from_secs(20), "{what}: too long");
    let memory = sorted(loaded.memory);
    assert_eq!(Some(&memory), states.last(), "{what}: {:?}", loaded.warnings);
    if let Some(aside) = &loaded.set_aside {
        assert!(aside.is_dir(), "{what}");
        assert!(!loaded.warnings.is_empty(), "{what}");
    }
    let above = |mark: u64, seen: Option<u64>| seen.is_none_or(|seen| mark > seen);
    let marks_now = memory.marks;
    assert!(
        above(
            marks_now.event,
            memory.events.iter().map(|event| event.ltime).max()
        ) && above(marks_now.query, memory.queries.iter().map(|query| query.0).max())
            && above(
                marks_now.member,
                memory.members.iter().map(|member| member.status_ltime).max()
            ),
        "{what}: a clock behind what was seen: {memory:?}"
    );
    // And it goes on from there.
    run(async {
        recorder.note(Record::Member(member("later", 1)));
        store(&mut recorder, marks(1_000)).await;
        recorder.finish(PATIENCE).await;
    });
    let (again, recorder) = open(path);
    assert_eq!(again.set_aside, None, "{what}");
    assert_eq!(again.memory.marks, marks(1_000), "{what}");
    assert_eq!(again.memory.members.len(), {
        let held = memory.members.iter();
        held.filter(|member| &*member.facts.name != "later").count() + 1
    });
    run(recorder.finish(PATIENCE));
    loaded.set_aside.is_some()
}

/// The campaign: a store is damaged at a place, and all of it is there again at the next start, every time.
#[test]
fn no_damage_at_one_place_loses_anything() {
    let (keep, path) = scratch();
    let states = with_history(&path);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
    let mut set_aside = 0;
    let cases = cases();
    for case in 0..cases {
        let spoilt = keep.path().join(format!("case-{case}"));
        copy(&path, &spoilt);
        let what = format!("case {case}: {}", spoil(&mut rng, &spoilt));
        set_aside += u32::from(check_start(&spoilt, &states, &what));
        fs::remove_dir_all(&spoilt).unwrap();
    }
    assert!(set_aside > 0, "none was noticed");
    println!("{set_aside} of {cases} were set aside, and none has lost anything");
}

/// How many places are damaged; 600 are the whole campaign.
fn cases() -> u32 {
    std::env::var("FYRD_DAMAGED_PLACES").map_or(40, |cases| cases.parse().unwrap())
}

/// Where store and both copies of the essence are damaged, what is lost is said, and clocks go on above all that is
/// left.
#[test]
fn what_all_three_copies_lose_is_said() {
    let (keep, path) = scratch();
    let states = with_history(&path);
    let last = states.last().unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(6);
    let mut lost = 0;
    for case in 0..cases().min(100) / 2 {
        let spoilt = keep.path().join(format!("case-{case}"));
        copy(&path, &spoilt);
        for file in ["gen-000001/db", "essence-1", "essence-2"] {
            let mut bytes = fs::read(spoilt.join(file)).unwrap();
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(1, |last| last + 1);
            let place = rng.random_range(0..used);
            let end = used.min(place + 512);
            rng.fill(&mut bytes[place..end]);
            fs::write(spoilt.join(file), bytes).unwrap();
        }
        let (loaded, recorder) = open(&spoilt);
        let memory = sorted(loaded.memory);
        if memory != *last {
            lost += 1;
            let said = loaded.warnings.iter().any(|line| line.contains("could be saved"));
            assert!(said, "case {case}: {:?}", loaded.warnings);
        }
        run(recorder.finish(PATIENCE));
        let (again, recorder) = open(&spoilt);
        assert_eq!(
            (again.warnings.len(), sorted(again.memory)),
            (0, memory),
            "case {case}"
        );
        run(recorder.finish(PATIENCE));
        fs::remove_dir_all(&spoilt).unwrap();
    }
    assert!(lost > 0, "the damage was none");
}

/// sled writes a snapshot of its log at each open; a kill in that moment, or a full disk, leaves half of one.
#[test]
fn what_sled_leaves_behind_is_no_damage() {
    let (keep, path) = scratch();
    let states = with_history(&path);
    for (name, content) in [
        ("snap.FFFFFFFFFFFFFFFF.generating", &b""[..]),
        ("snap.FFFFFFFFFFFFFFFF.generating", &[7; 100]),
        ("snap.FFFFFFFFFFFFFFFF", &[]),
        ("snap.FFFFFFFFFFFFFFFF", &[7; 12]),
        ("snap.FFFFFFFFFFFFFFFF", &[7; 100]),
        ("snap.odd", &[7; 100]),
        ("conf", &[]),
        ("conf", &[7; 100]),
    ] {
        let spoilt = keep.path().join("left");
        copy(&path, &spoilt);
        fs::write(spoilt.join("gen-000001").join(name), content).unwrap();
        // Not even without an essence.
        for essence in ["essence-1", "essence-2"] {
            fs::remove_file(spoilt.join(essence)).unwrap();
        }
        let contents = snapshot::read(&spoilt).unwrap();
        assert_eq!(Some(&sorted(contents.memory)), states.last(), "{name}");
        let (loaded, recorder) = open(&spoilt);
        assert_eq!(Some(&sorted(loaded.memory)), states.last(), "{name}");
        assert_eq!(loaded.set_aside, None, "{name}: {:?}", loaded.warnings);
        run(recorder.finish(PATIENCE));
        fs::remove_dir_all(&spoilt).unwrap();
    }
}

/// A store that is whole and yet older than what was flushed is what a lost tail of sled's log looks like.
#[test]
fn a_store_that_has_gone_back_in_time_is_noticed() {
    let (keep, path) = scratch();
    let generation = path.join("gen-000001");
    let before = keep.path().join("before");
    run(async {
        let (_, mut recorder) = open(&path);
        recorder.note(Record::Member(member("b", 3)));
        store(&mut recorder, marks(10)).await;
        recorder.finish(PATIENCE).await;
        copy(&generation, &before);
        let (_, mut recorder) = open(&path);
        recorder.note(Record::Member(member("c", 11)));
        recorder.note(Record::Event(event(12, 0, 10)));
        store(&mut recorder, marks(20)).await;
        recorder.finish(PATIENCE).await;
    });
    fs::remove_dir_all(&generation).unwrap();
    copy(&before, &generation);
    let looked = snapshot::read(&path).unwrap();
    assert_eq!((looked.memory.marks, looked.warnings.len()), (marks(20), 1));
    let (loaded, recorder) = open(&path);
    assert_eq!(loaded.memory.marks, marks(20));
    assert_eq!((loaded.memory.members.len(), loaded.memory.events.len()), (2, 1));
    assert!(
        loaded.warnings[0].contains("older than what was flushed last, by 2 batches"),
        "{:?}",
        loaded.warnings
    );
    assert!(loaded.set_aside.is_some());
    run(recorder.finish(PATIENCE));
}

/// An image with a snapshot baked in: its clones have other names, and must not join the old cluster.
#[test]
fn the_members_of_a_node_of_another_name_are_forgotten_and_its_clocks_kept() {
    let (_keep, path) = scratch();
    let other = |node: &str| SnapshotConfig {
        node: node.to_owned(),
        ..settings(&path)
    };
    run(async {
        let (_, mut recorder) = open(&path);
        recorder.note(Record::Member(member("b", 3)));
        recorder.note(Record::Event(event(5, 0, 1)));
        store(&mut recorder, marks(10)).await;
        recorder.finish(PATIENCE).await;
        let first = snapshot::read(&path).unwrap().identity;
        assert_ne!(first, 0);
        let (loaded, recorder) = snapshot::open(other("clone"), NOW).unwrap();
        assert_eq!(loaded.memory.members, []);
        assert_eq!(
            (loaded.memory.marks, loaded.memory.events),
            (marks(10), vec![event(5, 0, 1)])
        );
        let [warning] = &loaded.warnings[..] else {
            panic!("{:?}", loaded.warnings)
        };
        assert!(
            warning.contains("written by node 'a', and this node is 'clone'")
                && warning.contains("1 members"),
            "{warning}"
        );
        recorder.finish(PATIENCE).await;
        let contents = snapshot::read(&path).unwrap();
        assert_eq!(
            (contents.node.as_str(), contents.memory.members),
            ("clone", vec![])
        );
        assert_ne!(contents.identity, first);
        // The same name once more is no other node.
        let (loaded, recorder) = snapshot::open(other("clone"), NOW).unwrap();
        assert_eq!(loaded.warnings, [] as [&str; 0]);
        recorder.finish(PATIENCE).await;
        assert_eq!(snapshot::read(&path).unwrap().identity, contents.identity);
    });
}

#[test]
fn a_look_writes_nothing() {
    let (_keep, path) = scratch();
    with_history(&path);
    let state = |path: &Path| {
        let mut files = Vec::new();
        files_below(path, &mut files);
        let read = files.into_iter().map(|file| {
            let metadata = fs::metadata(&file).unwrap();
            (fs::read(&file).unwrap(), metadata.modified().unwrap(), file)
        });
        read.collect::<Vec<_>>()
    };
    fs::remove_file(path.join("lock")).unwrap();
    let before = state(&path);
    snapshot::read(&path).unwrap();
    assert!(state(&path) == before, "something has changed");
    fs::remove_dir_all(path.join("gen-000001")).unwrap();
    assert!(snapshot::read(&path).unwrap().intact, "the essence alone");
}

#[cfg(unix)]
#[test]
fn nobody_else_is_let_in_and_what_was_open_to_all_is_closed() {
    use std::os::unix::fs::PermissionsExt;
    let (_keep, path) = scratch();
    let check = || {
        let mut files = Vec::new();
        files_below(&path, &mut files);
        assert!(files.len() >= 7, "{files:?}");
        for file in files
            .iter()
            .map(PathBuf::as_path)
            .chain([path.as_path(), &path.join("gen-000001")])
        {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has {mode:o}", file.display());
        }
        files
    };
    run(open(&path).1.finish(PATIENCE));
    for file in check() {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    for directory in [&path, &path.join("gen-000001")] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    run(open(&path).1.finish(PATIENCE));
    check();
}

/// Whoever holds the lock need not be who wrote its name there.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_has_ended_is_not_named_as_the_holder_of_the_lock() {
    let (_keep, path) = scratch();
    run(open(&path).1.finish(PATIENCE));
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    fs::write(path.join("owner"), format!("{}\na\n", child.id())).unwrap();
    let lock = fs::File::open(path.join("lock")).unwrap();
    lock.lock().unwrap();
    let expected = format!("snapshot {} is in use by another process", path.display());
    assert_eq!(snapshot::read(&path).unwrap_err().to_string(), expected);
}

#[test]
fn what_a_file_system_or_a_visitor_puts_into_a_snapshot_is_left_alone() {
    let (_keep, path) = scratch();
    fs::create_dir(&path).unwrap();
    fs::write(path.join(".nfs000000000001"), "x").unwrap();
    run(open(&path).1.finish(PATIENCE));
    fs::write(path.join("core.4711"), "x").unwrap();
    let (loaded, recorder) = open(&path);
    assert_eq!(loaded.warnings, [] as [&str; 0]);
    run(recorder.finish(PATIENCE));
    assert!(path.join("core.4711").exists() && path.join(".nfs000000000001").exists());
}

#[test]
fn of_stores_that_were_set_aside_only_the_newest_are_kept() {
    let (_keep, path) = scratch();
    run(open(&path).1.finish(PATIENCE));
    let aside = || {
        let names = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("unreadable-"))
            .count()
    };
    for round in 0..SNAPSHOT_ASIDE + 2 {
        let current = fs::read_to_string(path.join("current")).unwrap();
        fs::write(path.join(current.trim()).join("db"), "x").unwrap();
        let (loaded, recorder) = open(&path);
        assert!(loaded.set_aside.unwrap().starts_with(&path));
        run(recorder.finish(PATIENCE));
        assert_eq!(aside(), (round + 1).min(SNAPSHOT_ASIDE));
    }
}

#[test]
fn a_log_cut_at_any_length_loses_nothing() {
    let (keep, path) = scratch();
    let states = with_history(&path);
    let database = |path: &Path| path.join("gen-000001").join("db");
    let len = fs::metadata(database(&path)).unwrap().len();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    for case in 0..15 {
        let cut = keep.path().join(format!("cut-{case}"));
        copy(&path, &cut);
        // The last segment of sled's log, which is where a crash would cut.
        let to = len - rng.random_range(1..=len.min(512 * 1024));
        let file = fs::OpenOptions::new().write(true).open(database(&cut)).unwrap();
        file.set_len(to).unwrap();
        drop(file);
        check_start(&cut, &states, &format!("cut to {to} of {len}"));
    }
}

/// sled can come up after a crash with some of its pages older than others. No such mixture is taken for a
/// state, whichever of the trees is behind.
#[test]
fn trees_that_do_not_belong_together_are_set_aside() {
    for tree in ["members", "seen", "clocks"] {
        for has_essence in [true, false] {
            let (_keep, path) = scratch();
            let states = with_history(&path);
            let database = open_generation(&path.join("gen-000001"));
            let behind = database.open_tree(tree).unwrap();
            let (key, _) = behind.first().unwrap().unwrap();
            behind.remove(key).unwrap();
            database.flush().unwrap();
            drop((behind, database));
            if !has_essence {
                fs::remove_file(path.join("essence-1")).unwrap();
                fs::write(path.join("essence-2"), "x").unwrap();
            }
            let (loaded, recorder) = open(&path);
            assert!(loaded.set_aside.is_some(), "{tree}: {loaded:?}");
            assert_eq!(loaded.warnings.len(), 2, "{tree}: {:?}", loaded.warnings);
            let marks = loaded.memory.marks;
            if has_essence {
                assert_eq!(Some(&sorted(loaded.memory)), states.last(), "{tree}");
            } else {
                // What was handled is not all known any more, so nothing of that time is handled again.
                assert!(
                    marks.event_floor >= marks.event && marks.event > 40,
                    "{tree}: {marks:?}"
                );
                assert!(
                    marks.query_floor >= marks.query && marks.query > 40,
                    "{tree}: {marks:?}"
                );
            }
            run(recorder.finish(PATIENCE));
        }
    }
}

#[test]
fn a_switch_of_generations_may_be_interrupted_anywhere() {
    let (keep, path) = scratch();
    let states = with_history(&path);
    let last = states.last().unwrap();
    let (first, second) = (path.join("gen-000001"), path.join("gen-000002"));
    let check = |what: &str, left: &[&str]| {
        let (loaded, recorder) = open(&path);
        assert_eq!(loaded.warnings, [] as [&str; 0], "{what}");
        assert_eq!(&sorted(loaded.memory), last, "{what}");
        run(recorder.finish(PATIENCE));
        let mut names: Vec<String> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("gen-"))
            .collect();
        names.sort();
        assert_eq!(names, left, "{what}");
    };
    fs::create_dir(&second).unwrap();
    check("the next one is empty", &["gen-000001"]);
    let other = keep.path().join("other");
    run(open(&other).1.finish(PATIENCE));
    copy(&other.join("gen-000001"), &second);
    check("the next one is written, in part", &["gen-000001"]);
    copy(&first, &second);
    fs::write(path.join(".current-1"), "gen-0").unwrap();
    check("the next one is about to count", &["gen-000001"]);
    assert!(!path.join(".current-1").exists());
    copy(&other.join("gen-000001"), &second);
    fs::rename(&first, keep.path().join("kept")).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(keep.path().join("kept"), &second).unwrap();
    fs::write(path.join("current"), "gen-000002\n").unwrap();
    check("the one before is still there", &["gen-000002"]);
    copy(&other.join("gen-000001"), &first);
    fs::remove_file(path.join("current")).unwrap();
    check("nothing says which counts, so the newest", &["gen-000002"]);
    fs::write(path.join("current"), "\0\0\0").unwrap();
    fs::create_dir(path.join("gen-000003")).unwrap();
    check("and another was begun", &["gen-000002"]);
}

#[test]
fn a_store_of_the_future_is_refused_untouched() {
    let (_keep, path) = scratch();
    run(open(&path).1.finish(PATIENCE));
    let generation = path.join("gen-000001");
    let newest = snapshot::SCHEMA;
    let db = open_generation(&generation);
    let meta = db.open_tree("meta").unwrap();
    meta.insert("schema", &(newest + 1).to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop((meta, db));
    let refused = snapshot::open(settings(&path), NOW).unwrap_err().to_string();
    let expected = format!("has schema {}, and this program knows up to {newest}", newest + 1);
    assert!(refused.contains(&expected), "{refused}");
    assert_eq!(snapshot::read(&path).unwrap_err().to_string(), refused);
    assert!(generation.is_dir());
}

#[test]
fn a_store_that_has_grown_is_written_anew() {
    let (_keep, path) = scratch();
    run(async {
        let (_, mut recorder) = open(&path);
        let watch = recorder.watch();
        let names: Vec<String> = (0..20_000).map(|number| format!("node-{number:0>100}")).collect();
        for name in &names {
            let mut member = member(name, 1);
            Arc::get_mut(&mut member.facts).unwrap().meta = vec![1; 500].into();
            recorder.note(Record::Member(member));
        }
        store(&mut recorder, marks(5)).await;
        let full = watch.status().bytes;
        assert!(full > 12 << 20, "{full} bytes");
        for name in &names[10..] {
            recorder.note(Record::ForgetMember(name.as_str().into()));
        }
        store(&mut recorder, marks(6)).await;
        let until = Instant::now() + PATIENCE;
        let mut step = 7;
        while watch.status().bytes > 8 << 20 {
            assert!(Instant::now() < until, "{:?}", watch.status());
            store(&mut recorder, marks(step)).await;
            step += 1;
        }
        recorder.note(Record::Query((3, 3)));
        store(&mut recorder, marks(step)).await;
        recorder.finish(PATIENCE).await;
        let contents = snapshot::read(&path).unwrap();
        assert!(contents.intact && contents.bytes <= 8 << 20);
        assert_eq!(contents.memory.members.len(), 10);
        assert_eq!(contents.memory.queries, [(3, 3)]);
        assert_eq!(contents.memory.marks, marks(step));
    });
}
