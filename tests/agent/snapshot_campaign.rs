//! The snapshot against what disks and systems do: processes killed as they start, no room at any write, no locks,
//! power cuts, mounts of every kind. Nothing that was promised may be lost, and every start starts
//! (docs/design.md#the-snapshot).
//!
//! Here each campaign is a small sample; the variables beside each constant give it its full size.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fyrd::snapshot::{self, Recorder, SnapshotConfig, State};
use fyrd_core::node::StoreNews;
use fyrd_core::node::memory::{Commit, Marks, Memory, Record, SeenEvent};
use fyrd_core::time::Time;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::support::{eventually, signal};

const PATIENCE: Duration = Duration::from_secs(60);
const NOW: Time = Time::from_nanos(1_700_000_000_000_000_000);

/// Tells a process of these tests that it is to lead a life at this path.
const LIFE: &str = "FYRD_TEST_LIFE";

fn times(variable: &str, sample: usize) -> usize {
    std::env::var(variable).map_or(sample, |text| text.parse().expect("a number"))
}

fn settings(path: &Path) -> SnapshotConfig {
    SnapshotConfig {
        path: path.to_owned(),
        node: "a".to_owned(),
        forget_left_members: true,
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// All clocks at this time.
fn marks(at: u64) -> Marks {
    Marks {
        incarnation: 1,
        member: at,
        event: at,
        query: at,
        ..Marks::default()
    }
}

/// What has happened by then: an event at each Lamport time.
fn record(at: u64) -> Record {
    Record::Event(SeenEvent {
        ltime: at - 1,
        place: 0,
        name: format!("event-{at}").into(),
        payload: vec![7; 500].into(),
    })
}

/// Has everything up to this time stored; false if the disk does not take it.
async fn store(recorder: &mut Recorder, at: u64) -> bool {
    recorder.note(record(at));
    recorder.commit(Commit {
        number: at,
        marks: marks(at),
        left: false,
        hurry: true,
    });
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            match recorder.news().await {
                StoreNews::Stored(number) if number >= at => return true,
                StoreNews::Stored(_) => {}
                StoreNews::Fails | StoreNews::WantsEverything => return false,
            }
        }
    });
    told.await.expect("the disk answers or fails")
}

/// Whether a memory is what there was at that time or later.
#[track_caller]
fn check(memory: &Memory, at: u64, what: &str) {
    // At 1 nothing has happened yet.
    if at == 1 {
        return;
    }
    assert!(
        memory.marks.cover(&marks(at)),
        "{what}: {:?} instead of {at}",
        memory.marks
    );
    let known: BTreeSet<u64> = memory.events.iter().map(|event| event.ltime + 1).collect();
    let missing: Vec<u64> = (2..=at).filter(|at| !known.contains(at)).collect();
    assert!(missing.is_empty(), "{what}: events {missing:?} are missing");
}

/// A store with everything up to this time.
fn prepared(path: &Path, at: u64) {
    run(async {
        let (_, mut recorder) = snapshot::open(settings(path), NOW).unwrap();
        for at in 2..=at {
            assert!(store(&mut recorder, at).await);
        }
        recorder.finish(PATIENCE).await;
    });
}

/// Starts this test once more, in a process of its own that leads a life at a path.
fn life(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            &format!("snapshot_campaign::{test}"),
            "--include-ignored",
            "--nocapture",
        ])
        .env(LIFE, path)
        .stderr(Stdio::inherit());
    command
}

/// Goes on with the snapshot for some steps, prints `stored N` after each that is stored and `start N` for what it
/// found, and ends as a kill would have it end.
fn lead_life(path: &Path, steps: u64) -> ! {
    run(async {
        let (loaded, mut recorder) =
            snapshot::open(settings(path), NOW).expect("an agent that Serf would start, starts");
        let mut at = loaded.memory.marks.event.max(1);
        check(&loaded.memory, at, "at the start");
        println!("start {at}");
        for _ in 0..steps {
            at += 1;
            if !store(&mut recorder, at).await {
                println!("fails");
                break;
            }
            println!("stored {at}");
        }
        std::process::exit(0);
    })
}

/// What such a life has said: what it started with, and what it stored last.
fn told(output: &std::process::Output, what: &str) -> (u64, Option<u64>) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{what}: {text}");
    let last = |word: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(word));
        lines
            .next_back()
            .map(|number| number.trim().parse().expect("a number"))
    };
    (last("start ").expect("a start"), last("stored "))
}

/// An agent that is killed as it starts, again and again: FYRD_KILLED_STARTS, 3,000 for all.
#[test]
fn starts_that_are_killed_within_30_ms_lose_nothing() {
    const SAMPLE: usize = 60;
    const LANES: usize = 3;
    let killed = AtomicUsize::new(0);
    let starts = times("FYRD_KILLED_STARTS", SAMPLE).div_ceil(LANES);
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let killed = &killed;
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("snapshot");
                prepared(&path, 30);
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(lane as u64);
                for start in 0..starts {
                    let what = format!("start {start} of lane {lane}");
                    let pause = Duration::from_micros(rng.random_range(0..30_000));
                    let mut agent = Command::new(env!("CARGO_BIN_EXE_fyrd"))
                        .args(["agent", "-node=a", "-bind=127.0.0.1:0", "-rpc-addr=127.0.0.1:0"])
                        .arg(format!("-snapshot={}", path.display()))
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .spawn()
                        .unwrap();
                    std::thread::sleep(pause);
                    assert!(agent.try_wait().unwrap().is_none(), "{what}: it ended by itself");
                    agent.kill().unwrap();
                    agent.wait().unwrap();
                    killed.fetch_add(1, Ordering::Relaxed);
                    let contents = snapshot::read(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(contents.warnings, [] as [&str; 0], "{what}");
                    assert!(contents.intact, "{what}");
                    check(&contents.memory, 30, &what);
                }
                let (loaded, recorder) = snapshot::open(settings(&path), NOW).unwrap();
                assert_eq!(loaded.warnings, [] as [&str; 0], "lane {lane}");
                check(&loaded.memory, 30, "in the end");
                run(recorder.finish(PATIENCE));
            });
        }
    });
    println!("{} starts were killed", killed.into_inner());
}

/// Built from C, for it stands between a process and the system.
fn shim(folder: &Path) -> PathBuf {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int count;

/* Whether this call, one of those that take room, is to fail: from the FYRD_FAIL_AT'th on. */
static int full(void) {
    const char *at = getenv("FYRD_FAIL_AT");
    if (!at) return 0;
    if (__atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST) < atoi(at)) return 0;
    const char *mark = getenv("FYRD_FAIL_MARK");
    if (mark) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        int fd = real(mark, O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) close(fd);
    }
    errno = ENOSPC;
    return 1;
}

static int is_file(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return is_file(fd) && full() ? -1 : real(fd, bytes, len);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return is_file(fd) && full() ? -1 : real(fd, bytes, len, at);
}
int mkdir(const char *path, mode_t mode) {
    int (*real)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");
    return full() ? -1 : real(path, mode);
}
int open64(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if ((flags & O_CREAT) && access(path, F_OK) != 0 && full()) return -1;
    return real(path, flags, mode);
}
int flock(int fd, int how) {
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    if (getenv("FYRD_NO_LOCKS")) { errno = ENOLCK; return -1; }
    return real(fd, how);
}
"#;
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "the shim is built");
    library
}

/// No room from each write on in turn.
#[test]
#[ignore = "needs a C compiler (tests/run)"]
fn a_disk_that_fills_up_at_any_write_loses_nothing_in_this_life_and_the_next_two() {
    const TEST: &str = "a_disk_that_fills_up_at_any_write_loses_nothing_in_this_life_and_the_next_two";
    if let Some(path) = std::env::var_os(LIFE) {
        lead_life(Path::new(&path), 4);
    }
    let folder = tempfile::tempdir().unwrap();
    let shim = shim(folder.path());
    for is_new in [true, false] {
        let mut tried = 0;
        for fail_at in 0.. {
            let what = format!("no room from write {fail_at} on, a new one: {is_new}");
            let path = folder.path().join(format!("{is_new}-{fail_at}"));
            let mut before = 1;
            if !is_new {
                before = 20;
                prepared(&path, before);
            }
            let mark = folder.path().join("mark");
            let _ = fs::remove_file(&mark);
            let on_full_disk = |fail_at: usize| {
                let output = life(TEST, &path)
                    .env("LD_PRELOAD", &shim)
                    .env("FYRD_FAIL_AT", fail_at.to_string())
                    .env("FYRD_FAIL_MARK", &mark)
                    .output();
                output.unwrap()
            };
            let (start, stored) = told(&on_full_disk(fail_at), &what);
            assert!(start >= before, "{what}: {start}");
            let was_full = mark.exists();
            let mut least = stored.unwrap_or(before).max(before);
            // The disk is still full when it starts again, and once more.
            for life in 2..4 {
                let (start, stored) = told(&on_full_disk(0), &what);
                assert!(start >= least, "{what}, life {life}: {start} instead of {least}");
                least = stored.unwrap_or(start).max(start);
            }
            let (loaded, recorder) = snapshot::open(settings(&path), NOW).unwrap();
            check(&loaded.memory, least, &what);
            assert_eq!(recorder.watch().status().state, State::Recording, "{what}");
            run(recorder.finish(PATIENCE));
            tried += 1;
            if !was_full {
                break;
            }
        }
        println!("{tried} writes, a new one: {is_new}");
        assert!(tried > 2, "the disk was never full");
    }
}

/// A first start that is killed leaves a store that does not count yet.
#[test]
#[ignore = "needs a C compiler (tests/run)"]
fn what_a_killed_first_start_has_left_on_a_full_disk_keeps_nobody_down() {
    const TEST: &str = "what_a_killed_first_start_has_left_on_a_full_disk_keeps_nobody_down";
    if let Some(path) = std::env::var_os(LIFE) {
        lead_life(Path::new(&path), 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("begun");
    prepared(&path, 1);
    for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let mut life = life(TEST, &path);
    let output = life
        .env("LD_PRELOAD", shim(folder.path()))
        .env("FYRD_FAIL_AT", "0");
    assert_eq!(told(&output.output().unwrap(), "on a full disk"), (1, None));
}

#[test]
#[ignore = "needs a C compiler (tests/run)"]
fn without_locks_a_start_knows_its_past() {
    const TEST: &str = "without_locks_a_start_knows_its_past";
    if let Some(path) = std::env::var_os(LIFE) {
        lead_life(Path::new(&path), 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let shim = shim(folder.path());
    let without_locks = || {
        let output = life(TEST, &path)
            .env("LD_PRELOAD", &shim)
            .env("FYRD_NO_LOCKS", "1")
            .output();
        told(&output.unwrap(), "no locks")
    };
    assert_eq!(without_locks().0, 1);
    fs::remove_dir_all(&path).unwrap();
    prepared(&path, 20);
    assert_eq!(without_locks().0, 20);
}

/// A block device in a file, with ext4 on it.
struct Device {
    image: PathBuf,
    mounted: PathBuf,
}

impl Device {
    /// Mounts an image, which it makes if there is none.
    fn mount(image: &Path, mounted: &Path) -> Device {
        if !image.exists() {
            let file = fs::File::create(image).unwrap();
            file.set_len(24 << 20).unwrap();
            command(
                "mkfs.ext4",
                &["-q", "-F", "-O", "has_journal", image.to_str().unwrap()],
            );
        }
        fs::create_dir_all(mounted).unwrap();
        command(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), mounted.to_str().unwrap()],
        );
        Device {
            image: image.to_owned(),
            mounted: mounted.to_owned(),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mounted).status();
    }
}

fn command(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Ends a life that a test has begun, also when the test fails.
struct Ends(Child);

impl Ends {
    /// What a device has at one moment. A copy that is made while the device is written to has some blocks from before
    /// and some from afterwards, which no power cut leaves; so the writer stands still, and two equal copies in a row
    /// show that the system's own writing did too.
    fn image_at_a_moment(&self, image: &Path) -> Vec<u8> {
        signal(self.0.id(), "STOP");
        let mut copy = fs::read(image).unwrap();
        eventually("the device is not written to", PATIENCE, || {
            let before = std::mem::replace(&mut copy, fs::read(image).unwrap());
            if before == copy {
                Ok(())
            } else {
                Err("it changes".to_owned())
            }
        });
        copy
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The power fails at random moments, some in the first second of a snapshot: what the device has by then, and not
/// what the system has still in memory, is all there is. FYRD_POWER_CUTS, 100 for all.
#[test]
#[ignore = "needs root, ext4 and loop devices (tests/run)"]
fn power_cuts_lose_nothing_that_was_stored() {
    const TEST: &str = "power_cuts_lose_nothing_that_was_stored";
    const SAMPLE: usize = 4;
    if let Some(path) = std::env::var_os(LIFE) {
        lead_life(Path::new(&path), u64::MAX);
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    for cut in 0..times("FYRD_POWER_CUTS", SAMPLE) {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = Device::mount(&folder.path().join("image"), &folder.path().join("disk"));
        let path = device.mounted.join("snapshot");
        let said = folder.path().join("said");
        let life = life(TEST, &path).stdout(fs::File::create(&said).unwrap()).spawn();
        let life = Ends(life.unwrap());
        let longest = if cut % 2 == 0 { 1_000 } else { 4_000 };
        std::thread::sleep(Duration::from_millis(rng.random_range(20..longest)));
        // What is said to be stored now must be on the device that is copied afterwards.
        let stored = fs::read_to_string(&said).unwrap();
        let mut stored = stored.lines().filter_map(|line| line.strip_prefix("stored "));
        let stored: Option<u64> = stored.next_back().and_then(|number| number.parse().ok());
        let image = folder.path().join("copy");
        fs::write(&image, life.image_at_a_moment(&device.image)).unwrap();
        drop((life, device));
        let device = Device::mount(&image, &folder.path().join("after"));
        let path = device.mounted.join("snapshot");
        let (loaded, recorder) = snapshot::open(settings(&path), NOW).unwrap();
        let what = format!("cut {cut}, {stored:?}: {:?}", loaded.warnings);
        check(&loaded.memory, stored.unwrap_or(1), &what);
        assert_eq!(recorder.watch().status().state, State::Recording, "{what}");
        run(recorder.finish(PATIENCE));
    }
}

/// Runs a shell's script in a mount namespace of its own.
fn in_namespace(script: &str, words: &[&str]) -> String {
    let id = Command::new("id").arg("-u").output().unwrap();
    let flags: &[&str] = if id.stdout == b"0\n" {
        &["-m"]
    } else {
        &["-m", "-r"]
    };
    let output = Command::new("unshare")
        .args(flags)
        .args(["sh", "-ec", script])
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A damaged snapshot that is a mount point, that came with the image of a container, and that lies on a disk that
/// takes nothing.
#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn mounts_of_every_kind_keep_no_start_from_knowing_its_past() {
    const TEST: &str = "mounts_of_every_kind_keep_no_start_from_knowing_its_past";
    if let Some(path) = std::env::var_os(LIFE) {
        lead_life(Path::new(&path), 2);
    }
    let scripts = [
        ("a mount point", "mount --bind $1/snapshot $1/snapshot", true),
        (
            "a tmpfs",
            "mount -t tmpfs none $1/tmp; cp -r $1/snapshot/. $1/tmp; mount --bind $1/tmp $1/snapshot",
            true,
        ),
        (
            "an overlay",
            "mount -t tmpfs none $1/tmp; mkdir $1/tmp/up $1/tmp/work; \
             mount -t overlay none -o lowerdir=$1/snapshot,upperdir=$1/tmp/up,workdir=$1/tmp/work $1/snapshot",
            true,
        ),
        (
            "a read-only mount",
            "mount --bind $1/snapshot $1/snapshot; mount -o remount,bind,ro $1/snapshot",
            false,
        ),
    ];
    for (what, mount, is_writable) in scripts {
        for is_damaged in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("snapshot");
            prepared(&path, 20);
            if is_damaged {
                let database = path.join("gen-000001/db");
                let len = fs::metadata(&database).unwrap().len() as usize;
                fs::write(database, vec![7; len]).unwrap();
            }
            fs::create_dir(folder.path().join("tmp")).unwrap();
            let script =
                format!("{mount}; \"$2\" --exact snapshot_campaign::{TEST} --include-ignored --nocapture");
            let script = format!("export {LIFE}=$1/snapshot; {script}");
            let program = std::env::current_exe().unwrap();
            let words = ["sh", folder.path().to_str().unwrap(), program.to_str().unwrap()];
            let said = in_namespace(&script, &words);
            let what = format!("{what}, damaged: {is_damaged}: {said}");
            assert!(said.contains("start 20"), "{what}");
            assert_eq!(said.contains("stored 22"), is_writable, "{what}");
        }
    }
}

/// What Serf's text holds, and what it costs: FYRD_IMPORTED_MEMBERS, 100,000 for a cluster of the greatest size.
#[test]
fn a_text_of_many_members_is_imported_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let members = times("FYRD_IMPORTED_MEMBERS", 3_000);
    let mut text = String::new();
    for member in 0..members {
        let [_, a, b, c] = (member as u32).to_be_bytes();
        text.push_str(&format!("alive: member-{member} 10.{a}.{b}.{c}:7946\n"));
    }
    fs::write(&path, text).unwrap();
    let begun = Instant::now();
    let (loaded, recorder) = snapshot::open(settings(&path), NOW).unwrap();
    println!("{members} members in {:?}", begun.elapsed());
    assert_eq!(loaded.memory.members.len(), members);
    run(recorder.finish(PATIENCE));
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let sizes = status
            .lines()
            .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
        println!("{}", sizes.collect::<Vec<_>>().join(", "));
    }
    assert_eq!(snapshot::read(&path).unwrap().memory.members.len(), members);
}
