//! Agents of either program on free ports of 127.0.0.1, for black-box tests.
#![allow(dead_code, reason = "not every test needs all of it")]

#[path = "../support/port.rs"]
mod port;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const FYRD: &str = env!("CARGO_BIN_EXE_fyrd");
pub const SERF: &str = "serf";

/// Longer than anything here takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// An agent that is killed when the test is over.
pub struct Agent {
    pub child: Child,
    pub gossip: String,
    pub rpc: String,
    said: Arc<Mutex<String>>,
}

impl Agent {
    /// Starts one with this name and waits until it runs. It works in `directory`.
    pub fn start(program: &str, name: &str, directory: &Path, flags: &[&str]) -> Agent {
        let (gossip, rpc) = (free_address(), free_address());
        let mut child = Command::new(program)
            .args(["agent", "-profile=local"])
            .args([
                format!("-node={name}"),
                format!("-bind={gossip}"),
                format!("-rpc-addr={rpc}"),
            ])
            .args(flags)
            .current_dir(directory)
            .env("DIR", directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need the program serf");
        let said = Arc::new(Mutex::new(String::new()));
        let (out, lines) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let agent = Agent {
            child,
            gossip,
            rpc,
            said,
        };
        agent.wait_for("Log data will now stream in");
        agent
    }

    /// All that it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// How often it has said this.
    pub fn times(&self, text: &str) -> usize {
        self.said().matches(text).count()
    }

    pub fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1);
    }

    pub fn wait_for_times(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.times(text) < times {
            assert!(
                Instant::now() < deadline,
                "no {text:?} ({times} times):\n{}",
                self.said()
            );
            pause();
        }
    }

    /// Runs a command against it that has to succeed; its output.
    pub fn run(&self, words: &[&str]) -> String {
        let output = Command::new(FYRD)
            .arg(words[0])
            .arg(format!("-rpc-addr={}", self.rpc))
            .args(&words[1..])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {text}");
        text
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([format!("-{name}"), pid]).status();
        assert!(status.unwrap().success());
    }

    /// Reloads, and waits until it says this once more.
    pub fn reload(&self, until: &str) {
        let before = self.times(until);
        self.signal("HUP");
        self.wait_for_times(until, before + 1);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> Option<i32> {
        let mut status = None;
        poll("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.gossip, self.said());
        }
    }
}

/// Waits until something holds.
pub fn poll(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        pause();
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// An address whose port is free for TCP and UDP.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", port::Port::for_good())
}

/// Writes a script that can be run.
pub fn write_script(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The lines of a file, none while it does not exist.
pub fn lines(path: &Path) -> Vec<String> {
    read(path).lines().map(str::to_string).collect()
}
