//! The subject, its peers and whoever comes and goes, and all that happens to them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fyrd::rpc::client::{Client, ClientError};
use fyrd::rpc::types::{EventRequest, QueryRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use super::history::{Fact, History};
use super::observer::Observer;
use super::sight::statuses;
use super::subject::{SUBJECT, Subject, handler, read_handled};
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, eventually, signal};

/// Within this time a restarted node has met its peers again, on a machine that does much else.
pub const REJOIN: Duration = Duration::from_secs(30);

/// Peers call so seldom that they do not bring back a node which should have come back by itself. So gossip has
/// to reach everybody, for which `local` says things too seldom.
const PROFILE: &str = r#"base = "local"
push_pull_interval = "60s"
retransmit_mult = 6"#;

/// The last word given to the subject before it is killed. Nobody waits for its end.
#[derive(Clone, Copy, Debug)]
pub enum LastWord {
    None,
    Event,
    Query,
    Tags,
}

/// The subject, its peers, and what is known of them.
pub struct World {
    rng: StdRng,
    pub runtime: Runtime,
    pub observer: Observer,
    pub subject: Subject,
    pub client: Option<Client>,
    pub peers: Vec<(Agent, Client)>,
    /// Members that come, and those that have gone.
    pub passing: Option<Agent>,
    pub gone: Vec<Agent>,
    /// The profile of all but Serf.
    profile: NamedTempFile,
    pub history: History,
    names: usize,
}

impl World {
    /// Two peers that stay, the second of this kind, and the subject, which has met them.
    pub fn new(second_peer: Kind, seed: u64) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut profile = tempfile::Builder::new()
            .suffix(".toml")
            .tempfile()
            .expect("a file");
        writeln!(profile, "{PROFILE}").expect("a profile");
        let profile_flag = format!("-profile={}", profile.path().display());
        let first = peer(Kind::Fyrd, "peer1").arg(&profile_flag).start();
        let second = match second_peer {
            Kind::Fyrd => peer(Kind::Fyrd, "peer2").arg(&profile_flag),
            Kind::Serf => peer(Kind::Serf, "peer2").arg("-profile=local"),
            Kind::Windows => unreachable!("wine keeps no pace with kills"),
        };
        let second = second.join(&first).start();
        let peers = [first, second].map(|agent| {
            let address = format!("127.0.0.1:{}", agent.rpc_port());
            let client = runtime
                .block_on(Client::connect(&address, None))
                .expect("its RPC");
            (agent, client)
        });
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            observer: Observer::new(KEY_32),
            subject: Subject::new(KEY_32, &["-tag=role=subject", &profile_flag]),
            client: None,
            peers: peers.into(),
            passing: None,
            gone: Vec::new(),
            profile,
            history: History::default(),
            names: 0,
            runtime,
        };
        let join = format!("-join={}", world.peers[0].0.address());
        world.subject.spawn(&[join]);
        world.client = Some(world.subject.client(&world.runtime));
        world.meet(REJOIN);
        world
    }

    /// Keeps what was seen in the present life.
    pub fn note(&mut self, fact: Fact) {
        let life = self.subject.life();
        self.history.facts.push((life, fact));
    }

    /// Some work, a kill, some more work, and a restart.
    pub fn round(&mut self, round: usize) {
        self.others_come_and_go(round);
        for _ in 0..self.rng.random_range(0..4) {
            self.some_work();
        }
        // The point at which the kill comes is to be any point.
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..120)));
        if self.rng.random_bool(0.6) {
            self.settle();
        }
        let last = [LastWord::None, LastWord::Event, LastWord::Query, LastWord::Tags];
        let last = last[self.rng.random_range(0..last.len())];
        self.last_word(last);
        self.look_and_kill();
        self.autopsy();
        let missed = self.rng.random_range(0..4);
        if missed == 0 && self.rng.random_bool(0.3) {
            self.stillborn();
        }
        self.miss(missed);
        let join = self.rng.random_bool(0.25);
        let quiet = !join && self.rng.random_bool(0.5);
        self.restart(join, quiet);
        self.meet(REJOIN);
        self.hear(missed > 0, REJOIN);
    }

    /// Something new under the sun.
    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}{}", self.names)
    }

    /// An event or query by the subject or a peer, or new tags.
    fn some_work(&mut self) {
        match self.rng.random_range(0..5) {
            0 => self.last_word(LastWord::Event),
            1 => self.last_word(LastWord::Query),
            2 => self.last_word(LastWord::Tags),
            3 => {
                let (name, peer) = (self.name("theirs"), self.rng.random_range(0..2));
                let asked = self.runtime.block_on(self.peers[peer].1.query(query(&name)));
                asked.expect("a query");
            }
            _ => {
                let peer = self.rng.random_range(0..2);
                self.peer_fires(peer);
            }
        }
    }

    /// An event by a peer; its name.
    pub fn peer_fires(&mut self, peer: usize) -> String {
        let name = self.name("theirs");
        let fired = self.runtime.block_on(self.peers[peer].1.event(event(&name)));
        fired.expect("an event");
        name
    }

    /// Has the subject say something, and waits at most a moment for its answer.
    pub fn last_word(&mut self, word: LastWord) {
        // The life in the name tells later which life has said it.
        let name = format!("own{}-", self.subject.life());
        let name = self.name(&name);
        let patience = Duration::from_millis(self.rng.random_range(1..30));
        let client = self.client.as_mut().expect("it runs");
        let saying = async {
            match word {
                LastWord::None => Ok(()),
                LastWord::Event => client.event(event(&name)).await,
                LastWord::Query => client.query(query(&name)).await.map(drop),
                LastWord::Tags => {
                    let tags = BTreeMap::from([("name".to_owned(), name)]);
                    client.tags(tags, Vec::new()).await
                }
            }
        };
        let said: Result<Result<(), ClientError>, _> = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, saying).await });
        if let Ok(said) = said {
            said.expect("what it was told to say");
        } else {
            // The answer that still comes would be taken for that of another request.
            self.client = Some(self.subject.client(&self.runtime));
        }
    }

    /// Starts a member that will go again, or has it leave or fail.
    fn others_come_and_go(&mut self, round: usize) {
        if !round.is_multiple_of(6) {
            return;
        }
        match self.passing.take() {
            None => {
                let name = self.name("passing");
                let seed = &self.peers[0].0;
                let profile = format!("-profile={}", self.profile.path().display());
                self.passing = Some(peer(Kind::Fyrd, &name).arg(profile).join(seed).start());
            }
            Some(mut agent) => {
                if self.rng.random_bool(0.5) {
                    agent.kill();
                } else {
                    agent.signal("INT");
                }
                self.gone.push(agent);
            }
        }
    }

    /// A life that ends while it begins.
    fn stillborn(&mut self) {
        self.subject.spawn(&[]);
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..120)));
        self.subject.kill();
        self.autopsy();
    }

    /// Events that the subject is not there to hear, all of one peer, so that their order is plain.
    pub fn miss(&mut self, count: usize) {
        // Serf's own gossip of `local` is not sure to reach everybody.
        let peer = match self.peers[1].0.kind() {
            Kind::Fyrd => self.rng.random_range(0..2),
            Kind::Serf | Kind::Windows => 0,
        };
        let names: Vec<String> = (0..count).map(|_| self.peer_fires(peer)).collect();
        if names.is_empty() {
            return;
        }
        // Whomever it asks first shall know all of them; they are still gossiped then, the newest first, so that who has
        // heard of the newest need not know the others.
        let peers = self.peers.iter().map(|(peer, _)| peer);
        for peer in peers.chain(&self.passing) {
            eventually("all know what it has missed", PATIENCE, || {
                let handled = read_handled(&handled_by(peer), |_| None);
                match names
                    .iter()
                    .find(|name| !handled.iter().any(|handled| handled.name == **name))
                {
                    None => Ok(()),
                    Some(name) => Err(format!("{} has not heard of {name}", peer.name())),
                }
            });
        }
        self.note(Fact::Missed { names });
    }

    /// A new life. While its peers hold still, nobody can tell it what it should know by itself.
    pub fn restart(&mut self, join: bool, quiet: bool) {
        let seed = self.peers[self.rng.random_range(0..2)].0.address();
        let more = join.then(|| format!("-join={seed}"));
        let signals = |name| {
            for (peer, _) in &self.peers {
                signal(peer.pid(), name);
            }
        };
        if quiet {
            signals("STOP");
        }
        self.subject.spawn(&Vec::from_iter(more));
        let sight = self.subject.first_sight(&self.observer);
        let mut client = self.subject.client(&self.runtime);
        let members = statuses(self.runtime.block_on(client.members()));
        if quiet {
            signals("CONT");
        }
        self.client = Some(client);
        self.note(Fact::Began {
            clocks: sight.clocks(SUBJECT),
            members,
        });
    }
}

fn plan(kind: Kind, name: &str) -> Plan {
    Plan::new(kind, name).key(Some(KEY_32))
}

/// A peer that stays up, and writes down what it handles beside its log.
fn peer(kind: Kind, name: &str) -> Plan {
    // The agent's own folder is where it runs.
    plan(kind, name).arg(format!(
        "-event-handler=user,query={}",
        handler(Path::new("handled"))
    ))
}

/// Where a peer writes that.
pub fn handled_by(peer: &Agent) -> PathBuf {
    peer.file("handled")
}

fn event(name: &str) -> EventRequest {
    EventRequest {
        name: name.to_owned(),
        payload: name.as_bytes().to_vec(),
        coalesce: false,
    }
}

fn query(name: &str) -> QueryRequest {
    QueryRequest {
        name: name.to_owned(),
        request_ack: true,
        timeout: 1_000_000_000,
        ..QueryRequest::default()
    }
}
