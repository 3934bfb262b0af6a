//! An agent with a snapshot that is killed and started again, and what it leaves on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fyrd::rpc::client::Client;
use fyrd::snapshot;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::history::{Clocks, Handled, Stored};
use super::observer::{Observer, Sight};
use crate::support::PATIENCE;
use crate::support::port::Port;

/// Its name.
pub const SUBJECT: &str = "subject";

/// How often a starting agent is asked whether it is there.
const POLL: Duration = Duration::from_millis(2);

/// One node over all its lives.
pub struct Subject {
    folder: TempDir,
    gossip: Port,
    rpc: Port,
    args: Vec<String>,
    child: Option<Child>,
    /// The process of each life.
    pids: Vec<u32>,
}

impl Subject {
    /// Keeps what it leaves behind, for whoever looks for the reason of something.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!(
            "what {SUBJECT} left behind is in {}",
            self.folder.path().display()
        );
    }

    /// One that has not been started yet.
    pub fn new(key: &str, args: &[&str]) -> Subject {
        let encrypt = format!("-encrypt={key}");
        Subject {
            // A kill takes nothing that the system has been given, so memory does as well as a disk, which
            // others may keep too busy for it to be waited for.
            folder: tempfile::tempdir_in("/dev/shm").expect("a folder in memory"),
            gossip: Port::reserve(),
            rpc: Port::reserve(),
            args: std::iter::once(encrypt.as_str())
                .chain(args.iter().copied())
                .map(str::to_owned)
                .collect(),
            child: None,
            pids: Vec::new(),
        }
    }

    /// Where it gossips.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.gossip.number()))
    }

    /// The number of its present or last life.
    pub fn life(&self) -> usize {
        self.pids.len() - 1
    }

    /// The snapshot.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("snapshot")
    }

    /// A place beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins a life, and does not wait for it to be of use.
    pub fn spawn(&mut self, more: &[String]) {
        assert!(self.child.is_none(), "it still runs");
        let log = File::create(self.beside(&format!("log{}", self.pids.len() + 1))).expect("the log");
        let handled = self.beside("handled");
        // Even if this test is killed, the agent ends with it. The shell's parent tells which life it is.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_fyrd"), "agent"])
            .arg(format!("-node={SUBJECT}"))
            .arg(format!("-bind={}", self.addr()))
            .arg(format!("-rpc-addr={}", self.rpc_addr()))
            .arg(format!("-snapshot={}", self.store().display()))
            .arg(format!("-event-handler=user,query={}", handler(&handled)))
            .args(["-log-level=debug"])
            .args(&self.args)
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("setpriv starts");
        self.pids.push(child.id());
        self.child = Some(child);
    }

    /// Waits until it answers on the wire, and tells what.
    pub fn first_sight(&mut self, observer: &Observer) -> Sight {
        let begun = Instant::now();
        loop {
            match observer.look(self.addr()) {
                Ok(sight) => return sight,
                Err(reason) => assert!(begun.elapsed() < PATIENCE, "{reason}\n{}", self.log()),
            }
            self.assert_running();
            std::thread::sleep(POLL);
        }
    }

    /// Connects to its RPC as soon as it can.
    pub fn client(&mut self, runtime: &Runtime) -> Client {
        let begun = Instant::now();
        loop {
            match runtime.block_on(Client::connect(&self.rpc_addr(), None)) {
                Ok(client) => return client,
                Err(reason) => assert!(begun.elapsed() < PATIENCE, "{reason}\n{}", self.log()),
            }
            self.assert_running();
            std::thread::sleep(POLL);
        }
    }

    /// Ends it, without any warning to it, at this very moment.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            let status = child.wait().expect("its end");
            assert_eq!(status.code(), None, "it ended by itself\n{}", self.log());
        }
    }

    /// All that its handler has been run for.
    pub fn handled(&self) -> Vec<Handled> {
        let life = |pid: u32| self.pids.iter().position(|known| *known == pid);
        read_handled(&self.beside("handled"), life)
    }

    /// What stands in the store. It must not run. The store itself stays as it is, for its next life shall
    /// find what the kill has left.
    pub fn stored(&self) -> Stored {
        assert!(self.child.is_none(), "it still runs");
        let copy = self.beside("copy");
        copy_folder(&self.store(), &copy).expect("a copy of the store");
        read_store(&copy)
    }

    /// Whether its present or last life has given up waiting for its disk.
    pub fn disk_was_slow(&self) -> bool {
        let log = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).contains("the snapshot's disk is slow")
    }

    /// The end of what its present or last life has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.beside(&format!("log{}", self.pids.len()))
    }

    fn rpc_addr(&self) -> String {
        format!("127.0.0.1:{}", self.rpc.number())
    }

    fn assert_running(&mut self) {
        let ended = self
            .child
            .as_mut()
            .expect("it runs")
            .try_wait()
            .expect("its state");
        assert!(ended.is_none(), "it ended with {ended:?}\n{}", self.log());
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- end of the log of {SUBJECT} ----\n{}\n", self.log());
        }
    }
}

/// A handler that appends a line for each event and query.
pub fn handler(to: &Path) -> String {
    let variables = "$PPID $SERF_EVENT $SERF_USER_EVENT$SERF_QUERY_NAME $SERF_USER_LTIME$SERF_QUERY_LTIME";
    format!("echo \"{variables}\" >> {}", to.display())
}

/// What [`handler`] has written.
pub fn read_handled(from: &Path, life: impl Fn(u32) -> Option<usize>) -> Vec<Handled> {
    let text = fs::read_to_string(from).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [pid, kind, name, ltime] = words[..] else {
            panic!("an odd line of the handler: {line:?}");
        };
        Handled {
            kind: kind.to_owned(),
            name: name.to_owned(),
            ltime: ltime.parse().expect("a Lamport time"),
            life: life(pid.parse().expect("a process")),
        }
    };
    complete.lines().map(line).collect()
}

/// What the product itself reads from a store.
pub fn read_store(path: &Path) -> Stored {
    let contents = snapshot::read(path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(contents.unreadable, 0, "entries that cannot be read");
    let memory = contents.memory;
    let members: BTreeMap<String, String> = memory
        .members
        .iter()
        .map(|member| (member.facts.name.to_string(), member.status.as_str().to_owned()))
        .collect();
    let events = memory.events.iter();
    Stored {
        clocks: Clocks {
            incarnation: memory.marks.incarnation.into(),
            member: memory.marks.member,
            event: memory.marks.event,
            query: memory.marks.query,
        },
        members,
        events: events
            .map(|event| (event.ltime, event.name.to_string()))
            .collect(),
        queries: memory.queries.iter().map(|(ltime, _)| *ltime).collect(),
    }
}

/// Makes `to` a copy of the folder `from`, and nothing else.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
