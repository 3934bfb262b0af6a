//! Where log lines go: the system's log, and a standard output that may not be read.
//!
//! The log daemon is played by the test, in a mount namespace of its own whose `/dev` is the test's folder.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::port::Port;
use crate::support::{self, Kind, PATIENCE, eventually, until};

/// Runs an agent of a kind with `folder` in the place of `/dev`.
fn command(kind: Kind, folder: &Path, flags: &[&str]) -> Command {
    let uid = Command::new("id").arg("-u").output().unwrap();
    let namespaces: &[&str] = if uid.stdout == b"0\n" {
        &["-m"]
    } else {
        &["-m", "-r"]
    };
    let script = "mount --bind \"$0\" /dev && exec \"$@\"";
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(namespaces)
        .args(["sh", "-c", script])
        .arg(folder)
        .args([
            kind.program(),
            "agent",
            "-node=n1",
            "-bind=127.0.0.1:0",
            "-syslog",
        ])
        .args(flags)
        .stdin(Stdio::null());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(kind: Kind, folder: &Path, rpc: &Port, flags: &[&str]) -> Running {
    let rpc = format!("-rpc-addr=127.0.0.1:{}", rpc.number());
    let mut command = command(kind, folder, flags);
    let out = std::fs::File::create(folder.join("out")).unwrap();
    command.arg(rpc).stdout(out);
    Running(command.spawn().unwrap())
}

/// Waits until the agent has started. Before that, Serf does not listen to signals yet, and dies of them
/// without a word. It begins to right after its last words, so that it does once it has answered a command.
fn await_start(kind: Kind, folder: &Path, rpc: &Port) {
    until("the agent says that it runs", || {
        std::fs::read_to_string(folder.join("out")).is_ok_and(|out| out.contains("Log data will now stream"))
    });
    let info = kind.run(&["info", &format!("-rpc-addr=127.0.0.1:{}", rpc.number())]);
    assert_eq!(info.code, Some(0), "{info:?}");
}

fn receive(daemon: &UnixDatagram, text: &str) -> String {
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let len = daemon
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no record with {text:?}: {error}"));
        let record = String::from_utf8(buffer[..len].to_vec()).unwrap();
        if record.contains(text) {
            return record;
        }
    }
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn records_are_those_of_serf() {
    let (_keep, settings) = config(r#"{"syslog_facility":"daemon"}"#);
    for kind in [Kind::Serf, Kind::Fyrd] {
        let folder = tempfile::tempdir().unwrap();
        let daemon = UnixDatagram::bind(folder.path().join("log")).unwrap();
        let rpc = Port::reserve();
        let agent = start(kind, folder.path(), &rpc, &[&settings]);
        let pid = agent.0.id();
        let record = receive(&daemon, "EventMemberJoin");
        let form = format!(
            r"^<29>[A-Z][a-z][a-z] [ 123]\d \d\d:\d\d:\d\d serf\[{pid}\]: serf: EventMemberJoin: n1 127\.0\.0\.1\n$"
        );
        assert!(
            regex::Regex::new(&form).unwrap().is_match(&record),
            "{kind:?}: {record:?}"
        );
        await_start(kind, folder.path(), &rpc);
        support::signal(pid, "TERM");
        // The level's number, and the last words before the end.
        let record = receive(&daemon, "Shutdown without a Leave");
        assert!(record.starts_with("<28>"), "{kind:?}: {record:?}");
        receive(&daemon, "shutdown complete");
    }
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn the_level_filters() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = UnixDatagram::bind(folder.path().join("log")).unwrap();
    let rpc = Port::reserve();
    let agent = start(
        Kind::Fyrd,
        folder.path(),
        &rpc,
        &["-log-level=warn", "-encrypt=AAECAwQFBgcICQoLDA0ODw=="],
    );
    await_start(Kind::Fyrd, folder.path(), &rpc);
    support::signal(agent.0.id(), "TERM");
    let mut buffer = [0; 4096];
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = daemon.recv(&mut buffer).unwrap();
    let first = String::from_utf8_lossy(&buffer[..len]).into_owned();
    // LOCAL0 is the default.
    assert!(
        first.starts_with("<132>") && first.contains("Shutdown without a Leave"),
        "{first}"
    );
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn a_restarted_daemon_is_found_again_and_a_stream_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let daemon = UnixListener::bind(&path).unwrap();
    let rpc = Port::reserve();
    let _agent = start(Kind::Fyrd, folder.path(), &rpc, &["-log-level=debug"]);
    let (stream, _) = daemon.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains(": agent: Serf agent starting"), "{first}");
    drop((lines, daemon));
    std::fs::remove_file(&path).unwrap();
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_nonblocking(true).unwrap();
    // Each command is a line of the log; one of them finds the way to the new daemon.
    let mut buffer = [0; 4096];
    eventually("a record comes to the new daemon", PATIENCE, || {
        let info = Kind::Fyrd.run(&["info", &format!("-rpc-addr=127.0.0.1:{}", rpc.number())]);
        let len = daemon
            .recv(&mut buffer)
            .map_err(|error| format!("{error} {info:?}"))?;
        let record = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(
            record.contains(": agent.ipc: Accepted client:") || record.contains("serf["),
            "{record}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn errors_are_serfs() {
    let folder = tempfile::tempdir().unwrap();
    let (_keep, bad) = config(r#"{"syslog_facility":"LOCAL8"}"#);
    let (_keep2, bad_level) = config(r#"{"syslog_facility":"LOCAL8","log_level":"foo"}"#);
    let run = |kind: Kind, flags: &[&str]| -> (Option<i32>, String) {
        let Output { status, stdout, .. } = command(kind, folder.path(), flags).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap())
    };
    let table: [(&[&str], &str); 3] = [
        (&[], "==> Syslog setup failed: Unix syslog delivery error\n"),
        (
            &[&bad],
            "==> Syslog setup failed: invalid syslog facility: LOCAL8\n",
        ),
        (
            &[&bad_level],
            "==> Invalid log level: FOO. Valid log levels are: [TRACE DEBUG INFO WARN ERR]\n",
        ),
    ];
    for (flags, expected) in table {
        for kind in [Kind::Serf, Kind::Fyrd] {
            assert_eq!(
                run(kind, flags),
                (Some(1), expected.to_string()),
                "{kind:?} {flags:?}"
            );
        }
    }
}

/// Somebody started the agent in a pipe and does not read; the agent works on, and ends when it is told to.
#[test]
fn a_stalled_reader_does_not_stop_the_agent() {
    let rpc = Port::reserve();
    let addr = format!("-rpc-addr=127.0.0.1:{}", rpc.number());
    let mut child = Command::new(Kind::Fyrd.program())
        .args(["agent", "-node=n1", "-bind=127.0.0.1:0"])
        .args(["-log-level=debug", &addr])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut agent = Running(child);
    let mut line = String::new();
    while !line.contains("Log data will now stream in") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the agent ended");
    }
    // Each command makes a line of some 80 bytes, and a pipe holds 64 KiB.
    let deadline = Instant::now() + PATIENCE;
    for number in 0..1500 {
        let stream = std::net::TcpStream::connect(("127.0.0.1", rpc.number())).unwrap();
        drop(stream);
        assert!(Instant::now() < deadline, "only {number} connections were taken");
    }
    let info = Kind::Fyrd.run(&["info", &addr]);
    assert_eq!(info.code, Some(0), "{info:?}");
    support::signal(agent.0.id(), "TERM");
    // Nobody reads, but the agent ends all the same.
    let code = eventually("the agent ends", Duration::from_secs(20), || {
        agent.0.try_wait().unwrap().ok_or_else(|| "it runs".to_string())
    });
    assert_eq!(code.code(), Some(1));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    // The pipe was full, or this would have shown nothing.
    let shown = rest.matches("Accepted client").count();
    assert!((100..1500).contains(&shown), "{shown}");
}

fn config(json: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    std::fs::write(&path, json).unwrap();
    let flag = format!("-config-file={}", path.display());
    (folder, flag)
}
