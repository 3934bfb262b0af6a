//! A real agent whose snapshot is in trouble: full, read-only, damaged, in use, or no place for one
//! (docs/design.md#the-snapshot, promise 4).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::disk::Disk;
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually, side_by_side};
use fyrd::snapshot;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn plan(name: &str) -> Plan {
    Plan::new(Kind::Fyrd, name)
        .key(Some(KEY_32))
        .arg("-profile=local")
}

fn with_snapshot(name: &str, path: &Path) -> Plan {
    plan(name).arg(format!("-snapshot={}", path.display()))
}

fn disk(bytes: u64) -> Disk {
    Disk::new(bytes).unwrap_or_else(|reason| panic!("this machine allows no mount namespace: {reason}"))
}

fn snapshot_info(agent: &Agent) -> BTreeMap<String, String> {
    agent.info()["snapshot"].clone()
}

#[track_caller]
fn until_state(agent: &Agent, state: &str) -> BTreeMap<String, String> {
    eventually(&format!("the snapshot is {state}"), PATIENCE, || {
        let info = snapshot_info(agent);
        if info["state"] == state {
            Ok(info)
        } else {
            Err(format!("{info:?}"))
        }
    })
}

fn fire(agent: &Agent, name: &str, payload: &str) {
    agent.cli(&["event", "-coalesce=false", name, payload]).success();
}

fn event_time(agent: &Agent) -> u64 {
    agent.info()["serf"]["event_time"]
        .parse()
        .expect("a Lamport time")
}

/// Names of the events and members in the store of an agent that does not run.
fn stored(path: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let memory = snapshot::read(path)
        .unwrap_or_else(|error| panic!("{error}"))
        .memory;
    let events = memory.events.iter().map(|event| event.name.to_string()).collect();
    let members = memory
        .members
        .iter()
        .map(|member| member.facts.name.to_string())
        .collect();
    (events, members)
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn a_disk_that_fills_up_harms_the_snapshot_alone_and_only_for_a_while() {
    let disk = disk(16 << 20);
    let path = disk.path().join("snapshot");
    let mut subject = with_snapshot("subject", &path).launcher(&disk.launcher()).start();
    let peer = plan("peer").join(&subject).start();
    all_alive(&[&subject, &peer]);
    fire(&peer, "before", "");
    let info = until_state(&subject, "recording");
    assert!(!info.contains_key("reason"), "{info:?}");

    disk.shell("dd if=/dev/zero of=filler bs=4k");
    let payload = "x".repeat(400);
    let mut fired = 0;
    let info = eventually("the disk is full", PATIENCE, || {
        for _ in 0..20 {
            fire(&peer, &format!("full{fired}"), &payload);
            fired += 1;
        }
        let info = snapshot_info(&subject);
        if info["state"] == "degraded" {
            Ok(info)
        } else {
            Err(format!("{info:?}"))
        }
    });
    assert!(
        info["reason"].to_lowercase().contains("no space left"),
        "{info:?}"
    );
    assert!(info.contains_key("degraded_since"), "{info:?}");

    // The cluster does not notice.
    let newcomer = plan("newcomer").join(&subject).start();
    all_alive(&[&subject, &peer, &newcomer]);
    fire(&subject, "meanwhile", "");
    let times = || (event_time(&subject), event_time(&peer), event_time(&newcomer));
    eventually("all have heard it", PATIENCE, || match times() {
        (a, b, c) if a == b && b == c && a > fired => Ok(()),
        times => Err(format!("{times:?}")),
    });
    let log = subject.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("cannot be written"))
        .count();
    assert_eq!(lines, 1, "{log}");

    disk.shell("rm filler").success();
    until_state(&subject, "recording");
    fire(&peer, "after", "");
    eventually("it has heard the last event", PATIENCE, || {
        let (own, theirs) = (event_time(&subject), event_time(&peer));
        if own == theirs {
            Ok(())
        } else {
            Err(format!("{own} and {theirs}"))
        }
    });
    let before = event_time(&subject);
    subject.kill();
    let (events, members) = stored(&disk.seen_from_outside().join("snapshot"));
    for name in ["before", "full0", "meanwhile", "after"] {
        assert!(events.contains(name), "{name} is missing in {events:?}");
    }
    assert_eq!(members, ["newcomer", "peer"].map(str::to_owned).into());
    subject.restart();
    assert!(event_time(&subject) >= before);
    all_alive(&[&subject, &peer, &newcomer]);
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn a_disk_that_is_read_only_at_the_start_keeps_nobody_from_the_cluster() {
    let disk = disk(16 << 20);
    let path = disk.path().join("snapshot");
    let mut subject = with_snapshot("subject", &path).launcher(&disk.launcher()).start();
    let peer = plan("peer").join(&subject).start();
    all_alive(&[&subject, &peer]);
    fire(&peer, "before", "");
    eventually("it has heard it", PATIENCE, || match event_time(&subject) {
        2 => Ok(()),
        time => Err(time.to_string()),
    });
    subject.kill();
    disk.shell(&format!("mount -o remount,ro {}", disk.path().display()))
        .success();
    subject.restart();
    let info = until_state(&subject, "degraded");
    assert!(info["reason"].contains("read-only file system"), "{info:?}");
    // What stands there counts all the same: it rejoins, and its clocks go on.
    all_alive(&[&subject, &peer]);
    assert!(event_time(&subject) >= 2);
    disk.shell(&format!("mount -o remount,rw {}", disk.path().display()))
        .success();
    until_state(&subject, "recording");
    fire(&subject, "after", "");
    subject.info();
    subject.kill();
    let (events, _) = stored(&disk.seen_from_outside().join("snapshot"));
    assert!(
        events.contains("before") && events.contains("after"),
        "{events:?}"
    );
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The store is set aside, and all that was in it comes from the essence; where that is damaged as well, a new one
/// is begun with what is left.
#[test]
fn a_damaged_store_is_set_aside_and_nothing_is_lost_but_with_its_essence() {
    let cases = [
        ("flipped", false),
        ("truncated", false),
        ("overwritten", false),
        ("overwritten", true),
    ];
    side_by_side(&cases, |(damage, all)| {
        let mut rng = StdRng::seed_from_u64(4);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        let mut subject = with_snapshot("subject", &path).start();
        let peer = plan("peer").join(&subject).start();
        all_alive(&[&subject, &peer]);
        for i in 0..50 {
            fire(&subject, &format!("event{i}"), "some text to be kept");
        }
        subject.info();
        subject.kill();
        let is_hit =
            |file: &&PathBuf| file.ends_with("db") || (*all && file.to_string_lossy().contains("essence"));
        for file in files(&path).iter().filter(is_hit) {
            let mut bytes = fs::read(file).expect("its bytes");
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            match *damage {
                "flipped" => {
                    for _ in 0..used / 64 {
                        let place = rng.random_range(0..used);
                        bytes[place] ^= 1 << rng.random_range(0..8);
                    }
                }
                "truncated" => bytes.truncate(rng.random_range(1..used / 2)),
                _ => rng.fill(bytes.as_mut_slice()),
            }
            fs::write(file, bytes).expect("it can be written");
        }
        subject.restart();
        let log = subject.log();
        let set_aside = log.lines().filter(|line| line.contains("set aside as")).count();
        let saved = log
            .lines()
            .filter(|line| line.contains("nothing is lost"))
            .count();
        assert_eq!((set_aside, saved), (1, usize::from(!all)), "{damage}: {log}");
        assert_eq!(snapshot_info(&subject)["state"], "recording", "{damage}");
        if *all {
            subject.cli(&["join", &peer.address()]).success();
        } else {
            assert!(event_time(&subject) > 50, "{damage}");
        }
        // The new one is as good as any.
        all_see(&[&subject, &peer], &[("peer", "alive"), ("subject", "alive")]);
        fire(&subject, "later", "");
        subject.info();
        subject.kill();
        let (events, members) = stored(&path);
        assert!(
            events.contains("later") && members.contains("peer"),
            "{damage}: {events:?} {members:?}"
        );
        assert!(*all || events.contains("event0"), "{damage}: {events:?}");
    });
}

#[test]
fn a_second_agent_is_told_who_has_the_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    let first = with_snapshot("first", &path).start();
    let ended = with_snapshot("second", &path)
        .try_start()
        .expect_err("it must not start");
    assert_eq!(ended.code, Some(1));
    let expected = format!("snapshot {} is in use by process ", path.display());
    assert!(
        ended.output.contains(&expected) && ended.output.contains("(node 'first')"),
        "{}",
        ended.output
    );
    assert_eq!(
        snapshot_info(&first)["state"],
        "recording",
        "the first one has not been disturbed"
    );
}

#[test]
fn a_path_that_cannot_work_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), b"no snapshot of anybody\n").expect("a file");
    // Serf starts there, so Fyrd does.
    let agent = with_snapshot("subject", &at("file")).start();
    let info = snapshot_info(&agent);
    assert_eq!(info["state"], "degraded", "{info:?}");
    assert!(
        agent.log().contains("it is neither a snapshot of Fyrd"),
        "{}",
        agent.log()
    );
    fs::create_dir(at("foreign")).expect("a folder");
    fs::write(at("foreign/diary.txt"), b"dear diary").expect("a file");
    let cases = [
        (at("missing/snapshot"), "no such file or directory"),
        (at("file/snapshot"), "not a directory"),
        (at("foreign"), "diary.txt"),
    ];
    for (path, reason) in cases {
        let ended = with_snapshot("subject", &path)
            .try_start()
            .expect_err("it must not start");
        assert_eq!(ended.code, Some(1), "{path:?}");
        let said = ended.output;
        assert!(
            said.contains("Failed to setup snapshot: failed to open snapshot: "),
            "{said}"
        );
        assert!(
            said.contains(reason) && said.contains(&*path.to_string_lossy()),
            "{said}"
        );
    }
    assert_eq!(
        fs::read(at("file")).expect("the file"),
        b"no snapshot of anybody\n"
    );
    assert_eq!(
        fs::read_dir(at("foreign")).expect("the folder").count(),
        1,
        "nothing was written into it"
    );
}
