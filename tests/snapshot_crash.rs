//! kill -9 at random points: what the snapshot promises (design.md section 7) holds over hundreds of lives.
//!
//! A real, encrypted agent is killed and started again, round after round, while it and two peers that stay up
//! fire events and queries, tags change, and other members come, leave and fail. An observer asks it for its
//! state as peers do, right before it is killed and right after it is back. All that was seen is recorded, and
//! the checks look at the record alone (`crash/history.rs`). The last tests break one promise each, by doing to
//! the store what a bug would have done to it, and expect the checks to find it.

#[path = "crash/history.rs"]
mod history;
#[path = "crash/observer.rs"]
mod observer;
#[path = "crash/subject.rs"]
mod subject;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fyrd::node::memory::{Marks, Record};
use fyrd::rpc::client::{Client, ClientError};
use fyrd::rpc::types::{EventRequest, Member, QueryRequest};
use fyrd::snapshot::{self, Recorder};
use fyrd::time::Time;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use history::{Broken, Clocks, Fact, Handled, History, Promise, Stored, check, is_gone};
use observer::Observer;
use subject::{SUBJECT, Subject, copy_folder, handler, read_handled};
use support::{Agent, KEY_32, Kind, PATIENCE, Plan, eventually, signal};

/// Rounds of each of the four worlds: together the promised 200.
const ROUNDS: usize = 50;

/// Within this time a restarted node has met its peers again, on a machine that does much else.
const REJOIN: Duration = Duration::from_secs(30);

/// A planted fault keeps it from that, and the test need not wait for long.
const NO_REJOIN: Duration = Duration::from_secs(6);

/// How often a state is asked for that must come.
const POLL: Duration = Duration::from_millis(5);

/// Peers call so seldom that they do not bring back a node which should have come back by itself. So gossip has
/// to reach everybody, for which `local` says things too seldom.
const PROFILE: &str = r#"base = "local"
push_pull_interval = "60s"
retransmit_mult = 6"#;

#[test]
fn two_hundred_kills_world_1() {
    survive(Kind::Fyrd, 1);
}

#[test]
fn two_hundred_kills_world_2() {
    survive(Kind::Fyrd, 2);
}

#[test]
fn two_hundred_kills_world_3() {
    survive(Kind::Fyrd, 3);
}

/// One of its peers is the real Serf.
#[test]
fn two_hundred_kills_world_4_with_serf() {
    survive(Kind::Serf, 4);
}

/// More for whoever looks for rarer bugs.
fn rounds() -> usize {
    std::env::var("FYRD_CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

fn survive(second_peer: Kind, seed: u64) {
    let mut world = World::new(second_peer, seed);
    for round in 0..rounds() {
        world.round(round);
    }
    let broken = world.end();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
}

/// The checks bite: between a kill and the restart something happens to the store, as if a bug had written it.
#[track_caller]
fn spoiled(fault: impl FnOnce(&mut World), expected: &[Promise]) {
    spoiled_but_for(fault, |_| true, expected);
}

/// The same, where some of what is broken does not count.
#[track_caller]
fn spoiled_but_for(fault: impl FnOnce(&mut World), counts: impl Fn(&Broken) -> bool, expected: &[Promise]) {
    let mut world = World::new(Kind::Fyrd, 5);
    world.look_and_kill();
    world.autopsy();
    let before = world.subject.beside("before");
    copy_folder(&world.subject.store(), &before).expect("a copy");
    world.restart(false, true);
    world.meet(REJOIN);
    world.last_word(LastWord::Event);
    world.last_word(LastWord::Query);
    world.last_word(LastWord::Tags);
    world.peer_fires(0);
    eventually("all is handled", PATIENCE, || match world.subject.handled() {
        handled if handled.len() == 3 => Ok(()),
        handled => Err(format!("{handled:?}")),
    });
    world.settle();
    world.look_and_kill();
    fault(&mut world);
    world.autopsy();
    world.miss(2);
    world.restart(false, true);
    world.meet(NO_REJOIN);
    world.hear(true, NO_REJOIN);
    let broken = world.verdict();
    let promises: BTreeSet<Promise> = broken
        .iter()
        .filter(|broken| counts(broken))
        .map(|broken| broken.promise)
        .collect();
    assert_eq!(promises.into_iter().collect::<Vec<_>>(), expected, "{broken:#?}");
}

/// Changes what is in a store, with the product's own hand.
fn rewrite(world: &World, change: impl FnOnce(&mut Recorder, &Stored)) {
    let stored = world.subject.stored();
    let settings = snapshot::Settings {
        path: world.subject.store(),
        node: SUBJECT.to_owned(),
        forget_left_members: true,
    };
    world.runtime.block_on(async {
        let (_, mut recorder) = snapshot::open(settings, Time::ZERO).expect("the store");
        change(&mut recorder, &stored);
        recorder.push();
        recorder.finish(PATIENCE).await;
    });
}

#[test]
fn a_store_left_alone_breaks_no_promise() {
    spoiled(|_| {}, &[]);
}

/// As when clocks are flushed after what shows them has been sent.
#[test]
fn a_store_that_is_behind_is_noticed() {
    let roll_back = |world: &mut World| {
        copy_folder(&world.subject.beside("before"), &world.subject.store()).expect("the older store");
    };
    spoiled(roll_back, &[Promise::Kept, Promise::Forward, Promise::Once]);
}

#[test]
fn forgotten_events_and_queries_are_noticed() {
    let forget = |world: &mut World| {
        rewrite(world, |recorder, stored| {
            assert!(!stored.events.is_empty() && !stored.queries.is_empty());
            for (ltime, _) in &stored.events {
                recorder.note(Record::ForgetEvents(*ltime));
            }
            for ltime in &stored.queries {
                recorder.note(Record::ForgetQueries(*ltime));
            }
        });
    };
    spoiled(forget, &[Promise::Kept, Promise::Once]);
}

#[test]
fn forgotten_members_are_noticed() {
    let forget = |world: &mut World| {
        rewrite(world, |recorder, stored| {
            assert_eq!(stored.members.len(), 2);
            for name in stored.members.keys() {
                recorder.note(Record::ForgetMember(name.as_str().into()));
            }
        });
    };
    // Some of what was missed it may still hear by gossip.
    let delivered = |broken: &Broken| broken.promise != Promise::Delivered;
    spoiled_but_for(forget, delivered, &[Promise::Kept, Promise::Rejoined]);
}

#[test]
fn events_that_are_taken_for_old_are_noticed() {
    let raise_floor = |world: &mut World| {
        rewrite(world, |recorder, stored| {
            recorder.mark(Marks {
                incarnation: stored.clocks.incarnation as u32,
                member: stored.clocks.member,
                event: stored.clocks.event,
                query: stored.clocks.query,
                event_floor: stored.clocks.event + 100,
                query_floor: 0,
            });
        });
    };
    spoiled(raise_floor, &[Promise::Delivered]);
}

/// The last word given to the subject before it is killed. Nobody waits for its end.
#[derive(Clone, Copy, Debug)]
enum LastWord {
    None,
    Event,
    Query,
    Tags,
}

/// The subject, its peers, and what is known of them.
struct World {
    rng: StdRng,
    runtime: Runtime,
    observer: Observer,
    subject: Subject,
    client: Option<Client>,
    peers: Vec<(Agent, Client)>,
    /// Members that come, and those that have gone.
    passing: Option<Agent>,
    gone: Vec<Agent>,
    /// The profile of all but Serf.
    profile: NamedTempFile,
    history: History,
    names: usize,
}

impl World {
    fn new(second_peer: Kind, seed: u64) -> World {
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
            let client = runtime.block_on(Client::connect(&address)).expect("its RPC");
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

    fn note(&mut self, fact: Fact) {
        let life = self.subject.life();
        self.history.facts.push((life, fact));
    }

    /// Some work, a kill, some more work, and a restart.
    fn round(&mut self, round: usize) {
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

    fn peer_fires(&mut self, peer: usize) -> String {
        let name = self.name("theirs");
        let fired = self.runtime.block_on(self.peers[peer].1.event(event(&name)));
        fired.expect("an event");
        name
    }

    /// Has the subject say something, and waits at most a moment for its answer.
    fn last_word(&mut self, word: LastWord) {
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
                self.passing = Some(plan(Kind::Fyrd, &name).arg(profile).join(seed).start());
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

    /// Makes sure that all is stored that is known now.
    fn settle(&mut self) {
        // What an earlier life handled may not have come to the disk before it was killed.
        let life = self.subject.life();
        let mut handled = self.subject.handled();
        handled.retain(|handled| handled.life == Some(life));
        let mut client = self.subject.client(&self.runtime);
        let (members, clocks) = self.runtime.block_on(async {
            let members = client.members().await.expect("members");
            (members, client.stats().await.expect("info"))
        });
        let serf = &clocks["serf"];
        let clock = |key: &str| serf[key].parse().expect("a Lamport time");
        let clocks = Clocks {
            incarnation: 0,
            member: clock("member_time"),
            event: clock("event_time"),
            query: clock("query_time"),
        };
        let mut members = statuses(Ok(members));
        members.remove(SUBJECT);
        self.note(Fact::Settled {
            clocks,
            members,
            handled,
        });
    }

    /// Sees the subject's state, and kills it with the last byte of that.
    fn look_and_kill(&mut self) {
        let sight = self.observer.look(self.subject.addr());
        self.subject.kill();
        self.client = None;
        let clocks = sight.expect("its state").clocks(SUBJECT);
        self.note(Fact::Saw {
            by: "the observer",
            clocks,
        });
        for index in 0..self.peers.len() {
            let addr: SocketAddr = self.peers[index].0.address().parse().expect("its address");
            let incarnation = self
                .observer
                .look(addr)
                .expect("a peer's state")
                .incarnation(SUBJECT);
            let clocks = Clocks {
                incarnation,
                ..Clocks::default()
            };
            self.note(Fact::Saw { by: "a peer", clocks });
        }
    }

    /// Looks at what the kill has left.
    fn autopsy(&mut self) {
        if self.subject.disk_was_slow() {
            self.note(Fact::DiskWasSlow);
        }
        let stored = self.subject.stored();
        self.note(Fact::Killed { stored });
    }

    /// A life that ends while it begins.
    fn stillborn(&mut self) {
        self.subject.spawn(&[]);
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..120)));
        self.subject.kill();
        self.autopsy();
    }

    /// Events that the subject is not there to hear, all of one peer, so that their order is plain.
    fn miss(&mut self, count: usize) {
        // Serf's own gossip of `local` is not sure to reach everybody.
        let peer = match self.peers[1].0.kind() {
            Kind::Fyrd => self.rng.random_range(0..2),
            Kind::Serf | Kind::Windows => 0,
        };
        let names: Vec<String> = (0..count).map(|_| self.peer_fires(peer)).collect();
        if names.is_empty() {
            return;
        }
        // Whomever it asks first shall know all of them; they are still gossiped then.
        for (peer, _) in &self.peers {
            eventually("the peers know what it has missed", PATIENCE, || {
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
        if let Some(agent) = &self.passing {
            let clock = |agent: &Agent| {
                let addr = agent.address().parse().expect("its address");
                self.observer.look(addr).map(|sight| sight.clocks("").event)
            };
            let newest = clock(&self.peers[peer].0).expect("a peer's state");
            eventually(
                "another member knows what it has missed",
                PATIENCE,
                || match clock(agent) {
                    Ok(known) if known >= newest => Ok(()),
                    other => Err(format!("{other:?}, not {newest}")),
                },
            );
        }
        self.note(Fact::Missed { names });
    }

    /// A new life. While its peers hold still, nobody can tell it what it should know by itself.
    fn restart(&mut self, join: bool, quiet: bool) {
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

    /// Waits until the subject and its peers see each other, with the same tags, and notes whether they do.
    fn meet(&mut self, patience: Duration) {
        let begun = Instant::now();
        let agreed = loop {
            match self.views() {
                Ok(()) => break Ok(()),
                Err(views) if begun.elapsed() > patience => {
                    break Err(format!("not together after {patience:?}: {views}"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        self.note(Fact::Agreed(agreed));
    }

    fn views(&mut self) -> Result<(), String> {
        let World {
            runtime,
            client,
            peers,
            ..
        } = self;
        let own = runtime
            .block_on(client.as_mut().expect("it runs").members())
            .map_err(|error| error.to_string())?;
        let tags = |members: &[Member], name: &str| {
            members
                .iter()
                .find(|member| member.name == name && member.status == "alive")
                .map(|member| (member.port, member.tags.clone()))
        };
        for (peer, client) in peers {
            let theirs = runtime
                .block_on(client.members())
                .map_err(|error| error.to_string())?;
            for name in [SUBJECT, peer.name()] {
                let (own, theirs) = (tags(&own, name), tags(&theirs, name));
                if own.is_none() || own != theirs {
                    let who = peer.name();
                    return Err(format!(
                        "{name} is {own:?} for {SUBJECT} and {theirs:?} for {who}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits for what was missed, and has it stored: else a kill at this moment may have it handled again.
    fn hear(&mut self, anything: bool, patience: Duration) {
        let missed = self.history.facts.iter().rev().find_map(|(_, fact)| match fact {
            Fact::Missed { names } => Some(names.clone()),
            _ => None,
        });
        let Some(missed) = missed.filter(|_| anything) else {
            return;
        };
        let begun = Instant::now();
        let heard = |handled: &[Handled]| {
            missed
                .iter()
                .all(|name| handled.iter().any(|handled| handled.name == *name))
        };
        while !heard(&self.subject.handled()) && begun.elapsed() < patience {
            std::thread::sleep(POLL);
        }
        self.settle();
    }

    /// Has the whole cluster settle, and gives what is broken.
    fn end(mut self) -> Vec<Broken> {
        if let Some(mut agent) = self.passing.take() {
            agent.kill();
            self.gone.push(agent);
        }
        self.whole_views_agree();
        self.settle();
        self.report();
        self.verdict()
    }

    fn verdict(mut self) -> Vec<Broken> {
        self.history.handled = self.subject.handled();
        self.what_peers_heard();
        let broken = check(&self.history);
        if !broken.is_empty() && std::env::var_os("FYRD_CRASH_KEEP").is_some() {
            self.subject.keep();
        }
        broken
    }

    /// In the end all say the same of all whom they know. Who came and went while the subject was down is unknown
    /// to it, as to any newcomer.
    fn whole_views_agree(&mut self) {
        let World {
            runtime,
            client,
            peers,
            ..
        } = self;
        let own = client.as_mut().expect("it runs");
        eventually("all views are the same", PATIENCE, || {
            let own = statuses(runtime.block_on(own.members()));
            for (peer, client) in peers.iter_mut() {
                let theirs = statuses(runtime.block_on(client.members()));
                let differ = |(name, status): &(&String, &String)| theirs.get(*name) != Some(*status);
                let unknown =
                    |(name, status): &(&String, &String)| !is_gone(status) && !own.contains_key(*name);
                if own.iter().any(|member| differ(&member)) || theirs.iter().any(|member| unknown(&member)) {
                    return Err(format!(
                        "{SUBJECT} sees {own:#?}, {} sees {theirs:#?}",
                        peer.name()
                    ));
                }
            }
            Ok(())
        });
    }

    /// What peers have heard of the subject's own was on the wire, so it counts as seen in the life that said it.
    fn what_peers_heard(&mut self) {
        for index in 0..self.peers.len() {
            for Handled {
                kind, name, ltime, ..
            } in read_handled(&handled_by(&self.peers[index].0), |_| None)
            {
                let Some((life, _)) = name.strip_prefix("own").and_then(|rest| rest.split_once('-')) else {
                    continue;
                };
                let clocks = match kind.as_str() {
                    "user" => Clocks {
                        event: ltime + 1,
                        ..Clocks::default()
                    },
                    _ => Clocks {
                        query: ltime + 1,
                        ..Clocks::default()
                    },
                };
                let life = life.parse().expect("a life");
                self.history.facts.push((
                    life,
                    Fact::Saw {
                        by: "a peer's handler",
                        clocks,
                    },
                ));
            }
        }
    }

    /// Figures for people: how much a run has tried.
    fn report(&self) {
        let handled = self.subject.handled();
        let count = |kind: &str| handled.iter().filter(|handled| handled.kind == kind).count();
        let facts = &self.history.facts;
        let seen = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::Saw { .. }))
            .count();
        let settled = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::Settled { .. }))
            .count();
        let slow = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::DiskWasSlow))
            .count();
        let again = {
            let mut names: Vec<&str> = handled.iter().map(|handled| handled.name.as_str()).collect();
            names.sort_unstable();
            names.windows(2).filter(|pair| pair[0] == pair[1]).count()
        };
        println!(
            "{} lives, {seen} looks, {settled} settled points, {} events and {} queries handled, of which {again} again \
             because nothing was stored before the kill; {slow} lives met a slow disk",
            self.subject.life() + 1,
            count("user"),
            count("query"),
        );
    }
}

fn statuses(members: Result<Vec<Member>, ClientError>) -> BTreeMap<String, String> {
    let members = members.expect("members");
    members
        .into_iter()
        .map(|member| (member.name, member.status))
        .collect()
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

fn handled_by(peer: &Agent) -> PathBuf {
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
