//! How an agent starts and ends, as service managers and scripts see it: signals, exit codes, output.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// An agent that is killed when the test is over.
struct Agent {
    child: Child,
    out: BufReader<ChildStdout>,
    said: String,
    rpc: String,
}

impl Agent {
    /// Starts one and waits until it runs.
    fn start(flags: &[&str]) -> Agent {
        let mut agent = Agent::spawn(flags);
        agent.wait_for("Log data will now stream in as it occurs:");
        agent
    }

    fn spawn(flags: &[&str]) -> Agent {
        let rpc = format!("127.0.0.1:{}", free_port());
        let mut child = Command::new(env!("CARGO_BIN_EXE_fyrd"))
            .args(["agent", "-bind=127.0.0.1:0", "-node=n1", "-profile=local"])
            .arg(format!("-rpc-addr={rpc}"))
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Agent {
            child,
            out,
            said: String::new(),
            rpc,
        }
    }

    /// Reads lines until one holds the text.
    fn wait_for(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let len = self.out.read_line(&mut line).unwrap();
            assert!(len > 0, "the agent ended before it said {text:?}:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([format!("-{name}"), pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Runs a command against it.
    fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fyrd"));
        command
            .arg(words[0])
            .arg(format!("-rpc-addr={}", self.rpc))
            .args(&words[1..])
            .output()
            .unwrap()
    }

    /// Waits for its end: the exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let code = wait(&mut self.child);
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        self.said.push_str(&rest);
        (code, std::mem::take(&mut self.said))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "the agent does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn free_port() -> u16 {
    crate::support::port::Port::for_good()
}

/// A configuration file in a directory that lives as long as the first value.
fn config(json: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.json");
    fs::write(&path, json).unwrap();
    (directory, format!("-config-file={}", path.display()))
}

#[test]
fn interrupt_leaves_and_terminate_does_not() {
    #[rustfmt::skip]
    let table = [
        ("INT", "interrupt", "{}", 0, true),
        ("TERM", "terminated", "{}", 1, false),
        ("INT", "interrupt", r#"{"skip_leave_on_interrupt":true}"#, 1, false),
        ("TERM", "terminated", r#"{"leave_on_terminate":true}"#, 0, true),
    ];
    for (signal, name, json, expected, leaves) in table {
        let (_directory, file) = config(json);
        let agent = Agent::start(&[&file]);
        agent.signal(signal);
        let (code, said) = agent.end();
        assert_eq!(code, Some(expected), "{signal} {json}: {said}");
        assert!(said.contains(&format!("\n==> Caught signal: {name}\n")), "{said}");
        assert_eq!(
            said.contains("==> Gracefully shutting down agent..."),
            leaves,
            "{said}"
        );
        assert_eq!(
            said.contains("[WARN] serf: Shutdown without a Leave"),
            !leaves,
            "{said}"
        );
        assert!(
            said.trim_end().ends_with("[INFO] agent: shutdown complete"),
            "{said}"
        );
    }
}

#[test]
fn a_second_signal_cuts_a_leave_short() {
    let mut agent = Agent::start(&[]);
    agent.signal("INT");
    agent.wait_for("Gracefully shutting down agent...");
    agent.signal("INT");
    assert_eq!(agent.end().0, Some(1));
}

#[test]
fn other_signals_do_not_end_it() {
    let mut agent = Agent::start(&[]);
    for signal in ["HUP", "USR1", "USR2", "PIPE"] {
        agent.signal(signal);
    }
    agent.wait_for("Configuration reloaded");
    agent.signal("TERM");
    let (code, said) = agent.end();
    assert_eq!(code, Some(1));
    assert!(said.contains("==> Caught signal: hangup"), "{said}");
    assert!(said.contains("==> Reloading configuration..."), "{said}");
}

#[test]
fn leave_by_rpc_ends_it_with_success() {
    let agent = Agent::start(&[]);
    let leave = agent.command(&["leave"]);
    assert_eq!(
        String::from_utf8_lossy(&leave.stdout),
        "Graceful leave complete\n"
    );
    assert_eq!(leave.status.code(), Some(0));
    let (code, said) = agent.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("[INFO] agent: requesting graceful leave from Serf"),
        "{said}"
    );
}

#[test]
fn the_banner_is_serfs_and_logs_wait_for_it() {
    let key = "-encrypt=HvY8ubRZMgafUOWvrOadwOckVa1wN3QWAo46FVKbVN8=";
    let mut agent = Agent::start(&[key, "-advertise=127.0.0.1:99", "-disable-compression"]);
    let expected = format!(
        "==> Starting Serf agent...\n\
         ==> Starting Serf agent RPC...\n\
         ==> Serf agent running!\n\
         \x20                     Node name: 'n1'\n\
         \x20                     Bind addr: '127.0.0.1:0'\n\
         \x20   Advertise addr: '127.0.0.1:99'\n\
         \x20                      RPC addr: '{}'\n\
         \x20                     Encrypted: true\n\
         \x20                      Snapshot: false\n\
         \x20                       Profile: local\n\
         \x20   Message Compression Enabled: false\n\
         \n\
         ==> Log data will now stream in as it occurs:\n",
        agent.rpc
    );
    assert_eq!(agent.said, expected);
    agent.wait_for("[INFO] agent: Serf agent starting");
    agent.wait_for("[INFO] serf: EventMemberJoin: n1 127.0.0.1");
    agent.wait_for("[INFO] agent: Received event: member-join");
}

#[test]
fn the_encryption_key_can_come_from_the_environment() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fyrd"))
        .args(["agent", "-bind=127.0.0.1:0", "-rpc-addr=127.0.0.1:0"])
        .env("FYRD_ENCRYPT_KEY", "not base64")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(wait(&mut child), Some(1));
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(
        said,
        "==> Invalid encryption key: illegal base64 data at input byte 3\n"
    );
}

#[test]
fn a_first_join_that_fails_ends_it_and_shows_no_log() {
    let port = free_port();
    let agent = Agent::spawn(&[&format!("-join=127.0.0.1:{port}"), "-log-level=trace"]);
    let (code, said) = agent.end();
    assert_eq!(code, Some(1));
    let refused =
        format!("\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:{port}: connect: connection refused\n");
    assert!(
        said.ends_with(&format!(
            "==> Joining cluster...(replay: false)\n==> 1 error occurred:\n{refused}\n\n"
        )),
        "{said}"
    );
}

#[test]
fn joins_are_retried_as_often_as_allowed() {
    let port = free_port();
    let agent = Agent::start(&[
        &format!("-retry-join=127.0.0.1:{port}"),
        "-retry-max=1",
        "-retry-interval=1s",
    ]);
    let (code, said) = agent.end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        said.matches("[INFO] agent: Joining cluster...(replay: false)")
            .count(),
        2,
        "{said}"
    );
    assert_eq!(
        said.matches("[WARN] agent: Join failed: 1 error occurred, retrying in 1s\n")
            .count(),
        1,
        "{said}"
    );
    // Each try says once what went wrong.
    assert_eq!(said.matches("connection refused").count(), 2, "{said}");
    assert!(
        said.contains("[ERR] agent: maximum retry join attempts made, exiting"),
        "{said}"
    );
}

#[test]
fn a_join_is_retried_until_somebody_is_there() {
    let port = free_port();
    let target = format!("-retry-join=127.0.0.1:{port}");
    let mut first = Agent::start(&[&target, "-retry-interval=1s"]);
    first.wait_for("[WARN] agent: Join failed: ");
    let _second = Agent::start(&[&format!("-bind=127.0.0.1:{port}"), "-node=n2"]);
    first.wait_for("[INFO] agent: Join completed. Synced with 1 initial agents");
    first.wait_for("Received event: member-join");
    let members = String::from_utf8_lossy(&first.command(&["members"]).stdout).into_owned();
    assert!(members.contains("n2  ") && members.contains("alive"), "{members}");
}

#[test]
fn changed_tags_are_kept_in_the_tags_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tags.json");
    let flag = format!("-tags-file={}", path.display());
    let agent = Agent::start(&[&flag]);
    assert!(!path.exists());
    assert_eq!(
        agent.command(&["tags", "-set=b=2", "-set=a=1"]).status.code(),
        Some(0)
    );
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\n  \"a\": \"1\",\n  \"b\": \"2\"\n}"
    );
    assert_eq!(
        agent.command(&["tags", "-set=a=3", "-delete=b"]).status.code(),
        Some(0)
    );
    // Too large a change is refused, and not kept.
    let large = agent.command(&["tags", &format!("-set=a={}", "x".repeat(600))]);
    assert_eq!(
        String::from_utf8_lossy(&large.stdout),
        "Error setting tags: Encoded length of tags exceeds limit of 512 bytes\n"
    );
    drop(agent);
    let mut agent = Agent::start(&[&flag]);
    agent.wait_for(&format!(
        "[INFO] agent: Restored 1 tag(s) from {}",
        path.display()
    ));
    let members = String::from_utf8_lossy(&agent.command(&["members"]).stdout).into_owned();
    assert!(members.trim_end().ends_with("a=3"), "{members}");
}

#[test]
fn a_closed_output_costs_lines_and_not_the_agent() {
    let mut agent = Agent::start(&["-log-level=trace"]);
    close_output(&mut agent);
    // Each client that is accepted is worth a line, which has nowhere to go.
    for _ in 0..3 {
        assert_eq!(agent.command(&["members"]).status.code(), Some(0));
    }
    let mut monitor = Command::new(env!("CARGO_BIN_EXE_fyrd"))
        .args(["monitor", &format!("-rpc-addr={}", agent.rpc)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let lost = "[WARN] agent: Lines of the log cannot be written, and are lost: broken pipe";
    assert!(told.any(|line| line.unwrap().ends_with(lost)));
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

/// Signals that Go's runtime lets pass end nobody, nor does a file that may not grow.
#[test]
fn signals_without_a_meaning_are_ignored() {
    let mut agent = Agent::start(&[]);
    let named = [
        "USR2", "PIPE", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XCPU", "XFSZ",
    ]
    .map(str::to_owned);
    for name in named
        .into_iter()
        .chain((35..=64).map(|number| number.to_string()))
    {
        let sent = Command::new("kill")
            .args(["-s", &name, &agent.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "{name}");
    }
    assert_eq!(agent.command(&["members"]).status.code(), Some(0));
    assert_eq!(agent.child.try_wait().unwrap(), None);
}

/// Replaces the reading end by one that says nothing, which closes the real one.
fn close_output(agent: &mut Agent) {
    let mut silent = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    agent.out = BufReader::new(silent.stdout.take().unwrap());
    silent.wait().unwrap();
}
