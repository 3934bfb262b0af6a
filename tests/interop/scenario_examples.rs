//! The scripts of `examples/`, run as their readers run them, with real balancers and web servers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Finished, Kind, PATIENCE, eventually, side_by_side};
use tempfile::TempDir;

/// No command of an example takes longer, not even its demo on a busy machine.
const COMMAND_SECONDS: &str = "180";

/// Enough requests that a balancer which takes its servers in turns asks every one of them.
const REQUESTS: usize = 20;

/// A running example in a folder of its own; dropping it ends everything it has started.
struct Example {
    script: PathBuf,
    parent: TempDir,
}

impl Example {
    fn new(name: &str) -> Example {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}/run"));
        let parent = tempfile::tempdir().expect("a temporary folder");
        Example { script, parent }
    }

    fn folder(&self) -> PathBuf {
        self.parent.path().join("example")
    }

    fn run(&self, args: &[&str]) -> Finished {
        let output = Command::new("timeout")
            .args(["--kill-after=20", COMMAND_SECONDS])
            .arg(&self.script)
            .args(args)
            .env("FYRD", Kind::Fyrd.program())
            .env("FYRD_EXAMPLE_DIR", self.folder())
            // Even if this test is killed, nothing stays behind.
            .env("FYRD_EXAMPLE_OWNER", std::process::id().to_string())
            .stdin(Stdio::null())
            .output()
            .expect("coreutils' `timeout` starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; a missing nginx or haproxy is a failure like any other.
    #[track_caller]
    fn must(&self, args: &[&str]) -> String {
        let finished = self.run(args);
        assert_eq!(
            finished.code,
            Some(0),
            "{args:?}\n{}\n{}",
            finished.stdout,
            finished.stderr
        );
        finished.stdout
    }

    /// The names of those who answer through the balancer.
    fn answering(&self) -> Result<BTreeSet<String>, String> {
        (0..REQUESTS).map(|_| self.request()).collect()
    }

    /// One request to the balancer: the name of the host, or what the balancer said instead.
    fn request(&self) -> Result<String, String> {
        let url = fs::read_to_string(self.folder().join("url")).map_err(|error| error.to_string())?;
        let address = url.trim().trim_start_matches("http://").trim_end_matches('/');
        get(address).map_err(|error| format!("{address}: {error}"))?
    }

    #[track_caller]
    fn answered_by(&self, want: &[&str]) {
        let want: BTreeSet<String> = want.iter().map(|name| (*name).to_owned()).collect();
        eventually(
            &format!("answers come from exactly {want:?}"),
            PATIENCE,
            || match self.answering()? {
                seen if seen == want => Ok(()),
                seen => Err(format!("answers came from {seen:?}")),
            },
        );
    }

    /// The hosts the balancer is configured with.
    fn servers(&self) -> BTreeSet<String> {
        self.must(&["servers"]).lines().map(str::to_owned).collect()
    }

    /// Processes that work in the example's folder; every one it starts does.
    fn processes(&self) -> Vec<PathBuf> {
        let all = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let inside = |path: &PathBuf| {
            fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.parent.path()))
        };
        all.map(|entry| entry.path()).filter(inside).collect()
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert!(!self.folder().exists(), "the folder is left");
        assert_eq!(self.processes(), Vec::<PathBuf>::new());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if !self.folder().exists() {
            return;
        }
        if std::thread::panicking() {
            print_logs(&self.folder());
        }
        self.run(&["stop"]);
    }
}

/// What HAProxy's main process leaves behind when it is ended in the middle of a reload.
#[test]
#[ignore = "needs pgrep (tests/run)"]
fn children_that_end_later_than_their_parent_are_ended_as_well() {
    let script = r#"
        set -euo pipefail
        DIR=$PWD/here
        . "$1"
        make_dir
        launch parent bash -c '(trap "sleep 1; exit" TERM; touch ready; while :; do sleep 0.05; done) & sleep 100'
        eventually 60 "the child" test -e "$DIR/ready"
        end parent
        for process in /proc/[0-9]*; do
            if [ "$process/cwd" -ef "$DIR" ]; then echo "left: $process"; fi
        done"#;
    let folder = tempfile::tempdir().expect("a folder");
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/processes.sh"))
        .current_dir(folder.path());
    let output = bash.output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn print_logs(folder: &Path) {
    let tail = "tail -n 30 log/*.log balancer/*.log balancer/servers* 2>/dev/null";
    let logs = Command::new("sh").args(["-c", tail]).current_dir(folder).output();
    if let Ok(logs) = logs {
        eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
    }
}

/// GET /; the inner error is an answer other than 200.
fn get(address: &str) -> std::io::Result<Result<String, String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: example\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    Ok(match status.split(' ').nth(1) {
        Some("200") => Ok(body.trim().to_owned()),
        _ => Err(format!("status line {status:?}")),
    })
}

#[test]
#[ignore = "needs nginx, HAProxy and curl (tests/run)"]
fn the_balancer_follows_the_cluster() {
    side_by_side(&["nginx", "haproxy"], follow);
}

fn follow(balancer: &&str) {
    let example = Example::new("load-balancer");
    example.must(&["start", balancer]);
    example.answered_by(&["web1", "web2", "web3"]);

    // Whoever leaves in good order finishes its work first, so no request may get lost, whoever comes and goes.
    while_requested(&example, || {
        example.must(&["add", "web4"]);
        example.answered_by(&["web1", "web2", "web3", "web4"]);
        example.must(&["leave", "web2"]);
        example.answered_by(&["web1", "web3", "web4"]);
        example.must(&["add", "web6"]);
        example.must(&["leave", "web6"]);
    });
    example.answered_by(&["web1", "web3", "web4"]);

    example.must(&["kill", "web3"]);
    eventually("the balancer forgets the dead host", PATIENCE, || {
        match example.servers() {
            servers if servers.contains("web3") => Err(format!("{servers:?}")),
            servers => Ok(servers),
        }
    });
    example.answered_by(&["web1", "web4"]);
    let status = example.must(&["status"]);
    let row = |name: &str| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
    };
    // The local profile sends a leave only twice, so that it can miss the balancer's agent, which then
    // notices a failure. To the balancer that is the same.
    assert!(!row("web2").contains(" alive "), "{status}");
    assert!(row("web3").contains(" failed "), "{status}");

    // A balancer without any server says so, and recovers.
    example.must(&["leave", "web1"]);
    example.must(&["leave", "web4"]);
    let error = eventually("the balancer has nobody to ask", PATIENCE, || {
        example.request().err().ok_or_else(|| "an answer".to_owned())
    });
    assert!(error.contains(" 50"), "{error}");
    example.must(&["add", "web5"]);
    example.answered_by(&["web5"]);

    example.must(&["stop"]);
    example.nothing_is_left();
}

/// Sends one request after the other while `action` goes on; none may fail.
fn while_requested(example: &Example, action: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let (count, failed) = std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut count = 0;
            let mut failed = Vec::new();
            while !over.load(Ordering::Relaxed) {
                count += 1;
                failed.extend(example.request().err());
            }
            (count, failed)
        });
        action();
        over.store(true, Ordering::Relaxed);
        requests.join().expect("the requests")
    });
    assert!(failed.is_empty(), "of {count} requests failed: {failed:?}");
    assert!(count > REQUESTS, "only {count} requests");
}

#[test]
#[ignore = "needs nginx, HAProxy and curl (tests/run)"]
fn the_load_balancer_demo_works_and_leaves_room_for_another_run() {
    side_by_side(&["nginx", "haproxy"], |balancer| {
        let example = Example::new("load-balancer");
        let said = example.must(&["demo", balancer]);
        assert!(said.ends_with("== It works\n"), "{said}");
        example.nothing_is_left();
        example.must(&["start", balancer]);
        example.answered_by(&["web1", "web2", "web3"]);
        example.must(&["stop"]);
        example.nothing_is_left();
    });
}

#[test]
#[ignore = "needs nginx, HAProxy and curl (tests/run)"]
fn the_autoscaler_demo_works_with_both_balancers() {
    side_by_side(&["nginx", "haproxy"], |balancer| {
        let example = Example::new("autoscaler");
        let said = example.must(&["demo", balancer]);
        assert!(said.contains("stopping web"), "{said}");
        assert!(said.ends_with("== It works\n"), "{said}");
        example.nothing_is_left();
    });
}

#[test]
#[ignore = "needs nginx, HAProxy and curl (tests/run)"]
fn a_second_start_is_refused_and_leaves_the_first_alone() {
    let example = Example::new("load-balancer");
    example.must(&["start", "haproxy"]);
    for command in ["start", "demo"] {
        let second = example.run(&[command]);
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains("seems to run already"), "{second:?}");
    }
    example.answered_by(&["web1", "web2", "web3"]);
    example.must(&["stop"]);
    example.nothing_is_left();
    let stop = example.run(&["stop"]);
    assert_eq!(stop.code, Some(1), "{stop:?}");
    assert!(stop.stderr.contains("nothing runs"), "{stop:?}");
}
