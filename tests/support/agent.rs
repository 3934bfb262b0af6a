//! One agent of either kind as a child process with its own ports, folder and log.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::port::Port;
use super::{Finished, Kind, Member, PATIENCE, eventually, parse_members, signal};

/// Both kinds print this once start-up, joins included, has succeeded.
const READY: &str = "Log data will now stream in";

/// What the agent prints, in its folder.
const LOG: &str = "agent.log";

/// How much of each log a failing test prints.
const TAIL_LINES: usize = 60;

/// Another program may take a port in the instant before the agent binds it.
const START_TRIES: usize = 5;

/// How an agent is to be started.
#[derive(Clone, Debug)]
pub struct Plan {
    kind: Kind,
    name: String,
    host: String,
    args: Vec<String>,
    launcher: Vec<String>,
    token: Option<String>,
    port: Option<u16>,
    files: Vec<(String, String)>,
}

impl Plan {
    /// An agent of this kind and name on 127.0.0.1.
    pub fn new(kind: Kind, name: &str) -> Plan {
        Plan {
            kind,
            name: name.to_owned(),
            host: "127.0.0.1".to_owned(),
            args: Vec::new(),
            launcher: Vec::new(),
            token: None,
            port: None,
            files: Vec::new(),
        }
    }

    /// Binds elsewhere; IPv6 in brackets.
    pub fn host(mut self, host: &str) -> Plan {
        self.host = host.to_owned();
        self
    }

    /// Binds the gossip port of that agent, on another address than it.
    pub fn port_of(mut self, other: &Agent) -> Plan {
        self.port = Some(other.gossip_port());
        self
    }

    /// Adds a flag; `{port}` in it stands for the gossip port, `{rpc}` for the RPC port.
    pub fn arg(mut self, arg: impl Into<String>) -> Plan {
        self.args.push(arg.into());
        self
    }

    /// Adds flags.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Plan {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Puts a file into the agent's own folder, which is where it and its handlers run. A script can be run.
    pub fn with_file(mut self, name: &str, text: &str) -> Plan {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Encrypts with this key, or not at all.
    pub fn key(self, key: Option<&str>) -> Plan {
        self.args(key.map(|key| format!("-encrypt={key}")))
    }

    /// Joins through this agent while starting.
    pub fn join(self, seed: &Agent) -> Plan {
        let address = seed.address();
        self.arg(format!("-join={address}"))
    }

    /// Starts agent and commands through a program that executes its arguments.
    pub fn launcher(mut self, launcher: &[String]) -> Plan {
        self.launcher = launcher.to_vec();
        self
    }

    /// Tells the commands of [`Agent::members`] and the like which RPC token to present.
    pub fn token(mut self, token: &str) -> Plan {
        self.token = Some(token.to_owned());
        self
    }

    /// Starts the agent and waits until it says that it runs.
    #[track_caller]
    pub fn start(self) -> Agent {
        let described = format!("{self:?}");
        match self.try_start() {
            Ok(agent) => agent,
            Err(ended) => panic!("the agent did not start: {described}\n{ended:?}"),
        }
    }

    /// Starts the agent; if it ends instead of running, says how.
    pub fn try_start(self) -> Result<Agent, Ended> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut agent = Agent {
                plan: self.clone(),
                gossip: Port::reserve(),
                rpc: Port::reserve(),
                folder: tempfile::tempdir().expect("a temporary folder"),
                child: None,
            };
            for (name, text) in &self.files {
                agent.write(name, text);
            }
            match agent.launch() {
                Ok(()) => return Ok(agent),
                Err(ended) if ended.output.contains("address already in use") && tries < START_TRIES => {}
                Err(ended) => return Err(ended),
            }
        }
    }
}

/// How an agent ended that was meant to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status; none when a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed.
    pub output: String,
}

/// A running agent; dropping it ends the process, and prints the end of its log if the test is failing.
#[derive(Debug)]
pub struct Agent {
    plan: Plan,
    gossip: Port,
    rpc: Port,
    folder: TempDir,
    child: Option<Child>,
}

impl Agent {
    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Whose program it is.
    pub fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// The port of gossip and streams.
    pub fn gossip_port(&self) -> u16 {
        self.plan.port.unwrap_or(self.gossip.number())
    }

    /// The port of its RPC, always on 127.0.0.1.
    pub fn rpc_port(&self) -> u16 {
        self.rpc.number()
    }

    /// Where others can reach it: `host:port`.
    pub fn address(&self) -> String {
        let host = if self.plan.host == "0.0.0.0" {
            "127.0.0.1"
        } else {
            &self.plan.host
        };
        format!("{host}:{}", self.gossip_port())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).expect("the agent runs")
    }

    /// A file in the agent's own folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file in its folder holds; nothing while there is none.
    pub fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of a file in its folder.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Makes or replaces a file in its folder, and folders on the way there. A script can be run.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        std::fs::write(&path, text).expect("a file");
        #[cfg(unix)]
        if text.starts_with("#!") {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("its mode");
        }
    }

    /// All that the agent has printed, over all its restarts.
    pub fn log(&self) -> String {
        self.read(LOG)
    }

    /// How often it has printed this.
    pub fn times_said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    /// Waits until it has printed this so often.
    #[track_caller]
    pub fn says_times(&self, text: &str, times: usize) {
        let what = format!("{} says {text:?} {times} times", self.name());
        eventually(&what, PATIENCE, || {
            let log = self.log();
            if log.matches(text).count() >= times {
                Ok(())
            } else {
                Err(log)
            }
        });
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Ends the process without any warning to it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for the process to end by itself and gives its exit status.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let name = self.plan.name.clone();
        let child = self.child.as_mut().expect("the agent runs");
        let status = eventually(&format!("{name} ends"), PATIENCE, || {
            child
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "still running".to_owned())
        });
        self.child = None;
        status.code()
    }

    /// Fails when the process has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let ended = self
            .child
            .as_mut()
            .expect("the agent runs")
            .try_wait()
            .expect("its state");
        assert!(
            ended.is_none(),
            "{} ended with {ended:?}\n{}",
            self.plan.name,
            self.log()
        );
    }

    /// Starts the ended agent again with the same flags on the same ports.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} still runs", self.plan.name);
        if let Err(ended) = self.launch() {
            panic!("{} did not start again: {ended:?}", self.plan.name);
        }
    }

    /// Has the ended agent gossip on another port from its next start on.
    pub fn move_away(&mut self) {
        assert!(self.child.is_none(), "{} still runs", self.plan.name);
        self.gossip = Port::reserve();
    }

    /// Has the ended agent run elsewhere from its next start on: bound to this address, through this launcher.
    pub fn move_to(&mut self, host: &str, launcher: &[String]) {
        assert!(self.child.is_none(), "{} still runs", self.plan.name);
        self.plan.host = host.to_owned();
        self.plan.launcher = launcher.to_vec();
    }

    /// Goes on, once ended, as a program of another kind, with the same flags, ports and folder.
    pub fn become_kind(&mut self, kind: Kind) {
        assert!(self.child.is_none(), "{} still runs", self.plan.name);
        self.plan.kind = kind;
    }

    /// Waits until this Serf has its clocks in the snapshot at that path. It writes out only when it adds
    /// something half a second after the last time, so queries give it a reason.
    #[track_caller]
    pub fn settle_snapshot(&self, path: &Path) {
        eventually("the snapshot holds the clocks", PATIENCE, || {
            self.cli(&["query", "-no-ack", "-timeout=600ms", "settle"])
                .success();
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
            let info = self.info();
            let missing = ["clock", "event-clock", "query-clock"].into_iter().find(|clock| {
                let figure = match *clock {
                    "clock" => "member_time",
                    "event-clock" => "event_time",
                    _ => "query_time",
                };
                let time: u64 = info["serf"][figure].parse().unwrap();
                // Nothing is written of a clock that has not moved.
                time > 1 && !text.contains(&format!("\n{clock}: {}\n", time - 1))
            });
            missing.map_or(Ok(()), |clock| {
                Err(format!("{clock} of {info:?} is not in {text}"))
            })
        });
    }

    /// Runs a command of the agent's own kind against it.
    pub fn cli(&self, args: &[&str]) -> Finished {
        self.cli_of(self.plan.kind, args)
    }

    /// Runs a command of either kind against it: the first word is the command, then flags.
    pub fn cli_of(&self, kind: Kind, args: &[&str]) -> Finished {
        let address = format!("-rpc-addr=127.0.0.1:{}", self.rpc_port());
        let token = self.plan.token.as_ref().map(|token| format!("-rpc-auth={token}"));
        let (command, rest) = args.split_first().expect("a command");
        let mut line = vec![*command, address.as_str()];
        line.extend(token.as_deref());
        line.extend(rest);
        kind.run_with(&line, &self.plan.launcher, &[])
    }

    /// The agent's own view of the cluster, sorted by name.
    pub fn members(&self) -> Result<Vec<Member>, String> {
        self.members_by(self.plan.kind)
    }

    /// The agent's view of the cluster, asked by the command line of either kind.
    pub fn members_by(&self, kind: Kind) -> Result<Vec<Member>, String> {
        let listing = self.cli_of(kind, &["members", "-format=json"]);
        if listing.code != Some(0) {
            return Err(format!("`members` of {} failed: {listing:?}", self.plan.name));
        }
        parse_members(&listing.stdout)
    }

    /// Names and states as the agent sees them.
    pub fn statuses(&self) -> Result<BTreeMap<String, String>, String> {
        Ok(self
            .members()?
            .into_iter()
            .map(|member| (member.name, member.status))
            .collect())
    }

    /// `info -format=json`: groups of keys and values, all strings.
    #[track_caller]
    pub fn info(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let json = self.cli(&["info", "-format=json"]).success();
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"))
    }

    fn command_line(&self) -> Vec<String> {
        let port = self.gossip_port();
        // Even if this test is killed, the agents it started end with it.
        let mut line: Vec<String> = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned).into();
        line.extend(self.plan.launcher.iter().cloned());
        line.extend([
            self.plan.kind.program().to_owned(),
            "agent".to_owned(),
            format!("-node={}", self.plan.name),
            format!("-bind={}:{port}", self.plan.host),
            format!("-rpc-addr=127.0.0.1:{}", self.rpc.number()),
        ]);
        line.extend(
            self.plan
                .args
                .iter()
                .map(|arg| arg.replace("{port}", &port.to_string()))
                .map(|arg| arg.replace("{rpc}", &self.rpc.number().to_string())),
        );
        line
    }

    fn launch(&mut self) -> Result<(), Ended> {
        let start = self.read(LOG).len();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file(LOG))
            .expect("the log file");
        let line = self.command_line();
        let child = Command::new(&line[0])
            .args(&line[1..])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", line[0]));
        self.child = Some(child);
        eventually(
            &format!("{} runs", self.plan.name),
            Duration::from_secs(60),
            || {
                let ended = self
                    .child
                    .as_mut()
                    .and_then(|child| child.try_wait().ok().flatten());
                let output = self.log().get(start..).unwrap_or_default().to_owned();
                match ended {
                    Some(status) => {
                        self.child = None;
                        Ok(Err(Ended {
                            code: status.code(),
                            output,
                        }))
                    }
                    None if output.contains(READY) => Ok(Ok(())),
                    None => Err(output),
                }
            },
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!(
                "---- end of the log of {} ----\n{}\n",
                self.plan.name,
                tail.join("\n")
            );
        }
    }
}
