//! The snapshot on a disk that fills up or turns read-only: recording ends and begins again, and nothing
//! else happens.
//!
//! The test runs itself once more in a mount namespace of its own, where it may mount a small disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fyrd::snapshot::{self, Recorder, SnapshotConfig, State};
use fyrd_core::node::StoreNews;
use fyrd_core::node::memory::{Commit, Keeper, Marks, Record, SeenEvent};
use fyrd_core::time::Time;

const PATIENCE: Duration = Duration::from_secs(90);
const NOW: Time = Time::from_nanos(1_700_000_000_000_000_000);
const DISK: &str = "FYRD_TEST_DISK";

/// Runs a test of this file again, where a small disk is mounted at a path that it is told.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let directory = tempfile::tempdir().unwrap();
    let id = Command::new("id").arg("-u").output().unwrap();
    let flags: &[&str] = if id.stdout == b"0\n" {
        &["-m"]
    } else {
        &["-m", "-r"]
    };
    let status = Command::new("timeout")
        .args(["300", "unshare"])
        .args(flags)
        .args([
            "sh",
            "-c",
            "mount -t tmpfs -o size=12m none \"$0\" && exec \"$@\"",
        ])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("snapshot_disk::{test}"),
            "--include-ignored",
            "--nocapture",
        ])
        .env(DISK, directory.path())
        .status();
    assert!(status.unwrap().success(), "{test} on a small disk");
    None
}

fn settings(path: &Path) -> SnapshotConfig {
    SnapshotConfig {
        path: path.to_owned(),
        node: "a".to_owned(),
        forget_left_members: true,
    }
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

/// What a driver does: keeps the recorder informed, and tells everything when that is wanted.
struct Life {
    recorder: Recorder,
    keeper: Keeper,
    at: u64,
    commits: u64,
}

impl Life {
    fn open(path: &Path) -> Life {
        let (loaded, recorder) = snapshot::open(settings(path), NOW).unwrap();
        let mut keeper = Keeper::default();
        let memory = loaded.memory;
        memory
            .events
            .into_iter()
            .for_each(|event| keeper.apply(Record::Event(event)));
        keeper.mark(memory.marks);
        Life {
            recorder,
            keeper,
            at: memory.marks.event,
            commits: 0,
        }
    }

    /// Something happens.
    fn step(&mut self) {
        self.at += 1;
        let event = SeenEvent {
            ltime: self.at - 1,
            place: 0,
            name: "deploy".into(),
            payload: vec![7; 3_000].into(),
        };
        let mut records = vec![Record::Event(event)];
        if self.at > 100 {
            records.push(Record::ForgetEvents(self.at - 100));
        }
        for record in records {
            self.keeper.apply(record.clone());
            self.recorder.note(record);
        }
        self.keeper.mark(marks(self.at));
        self.commit();
    }

    fn commit(&mut self) {
        self.commits += 1;
        self.recorder.commit(Commit {
            number: self.commits,
            marks: marks(self.at),
            left: false,
            hurry: true,
        });
    }

    fn hear(&mut self, news: StoreNews) {
        if news == StoreNews::WantsEverything {
            for event in self.keeper.memory().events {
                self.recorder.note(Record::Event(event));
            }
            self.commit();
        }
    }

    fn is_recording(&self) -> bool {
        self.recorder.watch().status().state == State::Recording
    }

    fn durable(&self) -> Marks {
        self.recorder.watch().status().durable
    }

    /// Goes on until this is so.
    async fn until(&mut self, what: &str, mut so: impl FnMut(&Life) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            if so(self) {
                return;
            }
            let status = self.recorder.watch().status();
            assert!(Instant::now() < until, "not {what}: {status:?}");
            tokio::select! {
                news = self.recorder.news() => self.hear(news),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    async fn stored(&mut self) {
        let marks = marks(self.at);
        self.until("stored", |life| life.durable().cover(&marks)).await;
    }

    /// Steps until the disk has had enough.
    async fn fail(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.is_recording() {
            assert!(Instant::now() < until, "the disk takes everything");
            self.step();
            let marks = marks(self.at);
            self.until("stored or failed", |life| {
                !life.is_recording() || life.durable().cover(&marks)
            })
            .await;
        }
    }
}

/// Takes all the room there is.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn run(command: &str, words: &[&str]) {
    assert!(Command::new(command).args(words).status().unwrap().success());
}

fn reason(life: &Life) -> String {
    match life.recorder.watch().status().state {
        State::Recording => panic!("it records"),
        State::Degraded { reason, .. } => reason,
    }
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn recording_resumes_when_the_disk_does() {
    let Some(disk) = on_a_small_disk("recording_resumes_when_the_disk_does") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let path = disk.join("snapshot");
    let filler = disk.join("filler");
    runtime.block_on(async {
        let mut life = Life::open(&path);
        life.step();
        life.stored().await;

        fill(&filler);
        life.fail().await;
        assert_eq!(reason(&life), "no space left on device");
        let durable = life.durable();
        assert!(!durable.cover(&marks(life.at)));

        // Now it is read-only as well.
        let mount = disk.to_str().unwrap();
        run("mount", &["--bind", mount, mount]);
        run("mount", &["-o", "remount,bind,ro", mount]);
        let read_only = "read-only file system";
        life.until("read-only", |life| {
            let state = life.recorder.watch().status().state;
            matches!(state, State::Degraded { reason, .. } if reason == read_only)
        })
        .await;
        assert_eq!(life.durable(), durable);
        for _ in 0..300 {
            life.step();
        }
        run("umount", &[mount]);
        fs::remove_file(&filler).unwrap();

        life.stored().await;
        assert!(life.is_recording());
        let status = life.recorder.watch().status();
        assert_eq!((status.state, status.failures), (State::Recording, 1));
        for _ in 0..200 {
            life.step();
            life.stored().await;
        }
        life.recorder.finish(PATIENCE).await;
        let contents = snapshot::read(&path).unwrap();
        assert!(contents.intact);
        assert_eq!(contents.memory, life.keeper.memory());
    });
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn a_start_on_a_full_disk_knows_its_past_and_records_when_there_is_room() {
    let Some(disk) = on_a_small_disk("a_start_on_a_full_disk_knows_its_past_and_records_when_there_is_room")
    else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let path = disk.join("snapshot");
    let filler = disk.join("filler");
    runtime.block_on(async {
        let mut life = Life::open(&path);
        for _ in 0..50 {
            life.step();
        }
        life.stored().await;
        life.recorder.finish(PATIENCE).await;
        let before = life.keeper.memory();
        fill(&filler);
        let mut life = Life::open(&path);
        assert_eq!(life.keeper.memory(), before);
        life.fail().await;
        fs::remove_file(&filler).unwrap();
        life.stored().await;
        life.recorder.finish(PATIENCE).await;
        assert_eq!(snapshot::read(&path).unwrap().memory, life.keeper.memory());

        let mount = disk.to_str().unwrap();
        run("mount", &["-o", "remount,ro", mount]);
        let read_only = Life::open(&path);
        assert_eq!(read_only.keeper.memory(), life.keeper.memory());
        assert!(!read_only.is_recording());
        assert_eq!(reason(&read_only), "read-only file system");
        let nowhere = snapshot::open(settings(&disk.join("other")), NOW).map(|_| ());
        assert_eq!(
            nowhere.unwrap_err().to_string(),
            format!("open {}/other: read-only file system", disk.display())
        );
    });
}
