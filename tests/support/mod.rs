//! What the black-box tests share: agents of both kinds as child processes, their command lines, and
//! waiting for a state.
//!
//! Nothing here knows a wire format: the product and the real Serf are only ever touched from outside,
//! by flags, signals, sockets and printed output.

// Every test binary compiles its own copy and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod agent;
pub mod disk;
#[cfg(unix)]
pub mod http;
pub mod network;
pub mod port;
pub mod process;
pub mod rough;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use agent::{Agent, Plan};

/// Long enough for every state change on a machine that is busy with other tests as well.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Most probes are commands, which shall not keep a machine busy that has better to do.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A command that has not answered by then never will.
const COMMAND_SECONDS: &str = "30";

/// Keys of the three AES lengths, in base64; the last is the key of the encrypted test vectors.
pub const KEY_16: &str = "kW9qBzL3yXv0T2mN8sRdGg==";
/// See [`KEY_16`].
pub const KEY_24: &str = "b0Zr4yQmW1Xh7uKpTgD2sVn9LcJeA6Rf";
/// See [`KEY_16`].
pub const KEY_32: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Whose program an agent or a command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The real Serf, as the distribution packages it.
    Serf,
    /// The program under test.
    Fyrd,
    /// The same, built for Windows; it needs a launcher that runs such programs.
    Windows,
}

impl Kind {
    /// The path or name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Serf => serf_program(),
            Kind::Fyrd => env!("CARGO_BIN_EXE_fyrd"),
            Kind::Windows => concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/target/windows/x86_64-pc-windows-gnu/debug/fyrd.exe"
            ),
        }
    }

    /// Runs one command to its end.
    pub fn run(self, args: &[&str]) -> Finished {
        self.run_with(args, &[], &[])
    }

    /// Runs one command to its end, under a launcher (a program that executes its arguments) and with
    /// additions to its environment.
    pub fn run_with(self, args: &[&str], launcher: &[String], env: &[(&str, &str)]) -> Finished {
        let output = Command::new("timeout")
            .arg(COMMAND_SECONDS)
            .args(launcher)
            .arg(self.program())
            .args(args)
            .env_remove("SERF_RPC_ADDR")
            .env_remove("SERF_RPC_AUTH")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("coreutils' `timeout` starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A missing Serf is a failure, never a reason to skip: the promise to be its equal would go unchecked.
fn serf_program() -> &'static str {
    static CHECKED: OnceLock<bool> = OnceLock::new();
    let present = CHECKED.get_or_init(|| {
        let probe = Command::new("serf")
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    });
    assert!(
        present,
        "the real `serf` is needed on the PATH for these tests; on Debian: apt-get install serf (tests/run does it)"
    );
    "serf"
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit status; none when a signal ended it, 124 when it ran out of time.
    pub code: Option<i32>,
    /// Everything it printed.
    pub stdout: String,
    /// Everything it printed beside that.
    pub stderr: String,
}

impl Finished {
    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "the command failed: {self:?}");
        self.stdout
    }
}

/// One row of `members -format=json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// `ip:port`.
    pub addr: String,
    /// The gossip port.
    pub port: u16,
    /// All tags.
    pub tags: BTreeMap<String, String>,
    /// `alive`, `leaving`, `left` or `failed`.
    pub status: String,
    /// Delegate protocol versions: `min`, `max`, `version`.
    pub protocol: BTreeMap<String, u8>,
}

/// Reads the output of `members -format=json`, sorted by name.
pub fn parse_members(json: &str) -> Result<Vec<Member>, String> {
    #[derive(serde::Deserialize)]
    struct Listing {
        members: Option<Vec<Member>>,
    }
    let listing: Listing = serde_json::from_str(json).map_err(|error| format!("{error} in {json:?}"))?;
    let mut members = listing.members.unwrap_or_default();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

/// Asks again and again until `probe` is satisfied; fails with its last complaint after `within`.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > within => {
                panic!("not within {within:?}: {what}\nlast state: {last}");
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Waits until this holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, PATIENCE, || {
        holds().then_some(()).ok_or_else(|| "it does not hold".to_owned())
    });
}

/// How often a log tells of each user event whose name begins so.
///
/// An event is not always the last on its line: Serf writes a line's end apart from the line, so that another
/// one may come in between.
pub fn heard(log: &str, prefix: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for text in log.split("Received event: user-event: ").skip(1) {
        let event = text.split_whitespace().next().unwrap_or_default();
        if event.starts_with(prefix) {
            *times.entry(event.to_owned()).or_default() += 1;
        }
    }
    times
}

/// Waits until each of `agents`, asked by the command line of its own kind, lists exactly these names
/// with these states.
#[track_caller]
pub fn all_see(agents: &[&Agent], want: &[(&str, &str)]) {
    let want: BTreeMap<String, String> = want.iter().map(|(n, s)| (n.to_string(), s.to_string())).collect();
    for agent in agents {
        eventually(&format!("{} sees {want:?}", agent.name()), PATIENCE, || {
            let seen: BTreeMap<String, String> = agent.statuses()?;
            if seen == want {
                Ok(())
            } else {
                Err(format!("{} sees {seen:?}", agent.name()))
            }
        });
    }
}

/// Waits until each of `agents` lists all of them, and nobody else, as alive.
#[track_caller]
pub fn all_alive(agents: &[&Agent]) {
    let want: Vec<(&str, &str)> = agents.iter().map(|agent| (agent.name(), "alive")).collect();
    all_see(agents, &want);
}

/// Runs the cases side by side, for each spends most of its time waiting, and fails naming all that failed.
#[track_caller]
pub fn side_by_side<C: Sync + std::fmt::Debug>(cases: &[C], test: impl Fn(&C) + Sync) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|case| (case, scope.spawn(|| test(case))))
            .collect();
        let ended = running.into_iter().map(|(case, thread)| (case, thread.join()));
        ended
            .filter(|(_, result)| result.is_err())
            .map(|(case, _)| format!("{case:?}"))
            .collect()
    });
    assert!(
        failed.is_empty(),
        "these cases failed (their reasons are above): {failed:#?}"
    );
}

/// Sends a signal by name (`STOP`, `CONT`, `INT`, `KILL`, ...) to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {pid}"))
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "signal {name} to process {pid}"
    );
}
