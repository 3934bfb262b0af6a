//! A cluster tried out: formed, left at rest, given events, and some of its nodes crashed, with figures of each.
//!
//! This is what `fyrd simulate` shows. The figures are those a user decides by: how long it takes to
//! form, how fast events spread, when the dead are noticed, whether the living are mistaken for dead,
//! and what all that costs on the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fyrd_keys::Key;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;

use super::link::{Link, Map};
use super::patience::Patience;
use super::quantiles::{Quantiles, Samples};
use super::{HostId, World, WorldConfig};
use fyrd_core::serf::{Command, Event, MemberEventKind};
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;

/// Where the nodes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// In one local network.
    Lan,
    /// All over the internet.
    Wan,
    /// In three regions, a third of them each.
    Regions,
}

/// What shall be tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How many nodes.
    pub nodes: usize,
    /// Their timing.
    pub profile: Profile,
    /// Where they stand.
    pub network: Network,
    /// Their label, empty for none.
    pub label: String,
    /// The share of datagrams that is lost, 0 to 1.
    pub loss: f64,
    /// How many of them crash, all at once.
    pub kill: usize,
    /// How many user events are sent, one every 100 ms, each by some node.
    pub events: usize,
    /// The seed of all randomness.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many nodes there were.
    pub nodes: usize,
    /// The profile's name.
    pub profile: String,
    /// Where the nodes stood.
    pub network: Network,
    /// The share of datagrams that was lost.
    pub loss: f64,
    /// The seed.
    pub seed: u64,
    /// Seconds until every node saw every other; `None` if that did not come about.
    pub formed_s: Option<f64>,
    /// How events spread.
    pub events: EventReport,
    /// How crashes were noticed.
    pub detection: DetectionReport,
    /// Living nodes that were declared failed.
    pub false_positives: FalsePositives,
    /// What a node sends at rest.
    pub rest: Traffic,
    /// What a node sends over the whole trial.
    pub whole: Traffic,
    /// Seconds of simulated time in all.
    pub simulated_s: f64,
}

/// How events spread.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EventReport {
    /// How many were sent.
    pub sent: usize,
    /// How many never reached some node while it was watched.
    pub incomplete: usize,
    /// Seconds from sending to each node but the sender.
    pub delay_s: Quantiles,
    /// Seconds from sending to the last node.
    pub everywhere_s: Quantiles,
}

/// How crashes were noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DetectionReport {
    /// How many nodes crashed.
    pub killed: usize,
    /// How many of them were not failed everywhere in time.
    pub undetected: usize,
    /// Seconds from the crash until the first node declared it.
    pub first_s: Quantiles,
    /// Seconds from the crash until the last node knew.
    pub everywhere_s: Quantiles,
}

/// Living nodes that were declared failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FalsePositives {
    /// How often a node believed so of another.
    pub events: usize,
    /// How many nodes it happened to.
    pub nodes: usize,
}

/// What one node sends in a second, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Datagrams a second.
    pub datagrams_per_s: f64,
    /// Bytes a second in datagrams, as sealed, without the headers of UDP and IP.
    pub datagram_bytes_per_s: f64,
    /// Bytes a second in streams.
    pub stream_bytes_per_s: f64,
}

/// How far a trial is: what it does, and the share of that which is done, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is done at the moment.
    pub phase: &'static str,
    /// How much of it.
    pub done: f64,
}

/// How often what the nodes have seen is collected.
const STEP: Duration = Duration::from_millis(200);
/// How long the traffic at rest is measured.
const REST: Duration = Duration::from_secs(30);
/// Between two user events.
const EVENT_PAUSE: Duration = Duration::from_millis(100);

impl Trial {
    /// Carries the trial out. The same trial always gives the same report.
    pub fn run(&self, progress: &mut dyn FnMut(Progress)) -> Report {
        let mut run = Run::new(self, progress);
        let formed = run.form();
        run.quiet_down();
        let rest = run.rest();
        run.talk();
        run.kill();
        run.report(formed, rest)
    }
}

/// Bytes and packets so far, of all nodes together.
#[derive(Clone, Copy, Default)]
struct Sent {
    at: Time,
    datagrams: u64,
    bytes: u64,
    stream_bytes: u64,
}

impl Sent {
    fn since(self, earlier: Sent, nodes: usize) -> Traffic {
        let node_seconds = self.at.since(earlier.at).as_secs_f64() * nodes as f64;
        let rate = |now: u64, before: u64| {
            let rate = (now - before) as f64 / node_seconds.max(f64::MIN_POSITIVE);
            (rate * 1e3).round() / 1e3
        };
        Traffic {
            datagrams_per_s: rate(self.datagrams, earlier.datagrams),
            datagram_bytes_per_s: rate(self.bytes, earlier.bytes),
            stream_bytes_per_s: rate(self.stream_bytes, earlier.stream_bytes),
        }
    }
}

/// One event on its way.
struct Spread {
    sent: Time,
    sender: HostId,
    arrived: usize,
    last: Time,
}

struct Run<'a> {
    trial: &'a Trial,
    progress: &'a mut dyn FnMut(Progress),
    rng: Xoshiro256PlusPlus,
    world: World,
    hosts: Vec<HostId>,
    /// How many others each host holds for alive.
    alive: Vec<usize>,
    /// The names of those that crashed, and when.
    dead: BTreeMap<String, Time>,
    /// By the name of a crashed one: when the first and the last noticed, and how many have.
    noticed: BTreeMap<String, (Time, Time, usize)>,
    mistaken: BTreeSet<String>,
    mistakes: usize,
    spreads: BTreeMap<String, Spread>,
    delays: Samples,
    last_join: Time,
    started: Time,
}

impl<'a> Run<'a> {
    fn new(trial: &'a Trial, progress: &'a mut dyn FnMut(Progress)) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(trial.seed);
        let mut config = WorldConfig::new(rng.random());
        config.profile = trial.profile.clone();
        config.label = trial.label.clone().into_bytes();
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        config.key = Key::from_wire(&bytes).ok();
        let mut world = World::new(config);
        match trial.network {
            Network::Lan => world.links.set_usual(Link::lan()),
            Network::Wan => world.links.set_usual(Link::wan()),
            Network::Regions => world.links.set_map(Map::three_regions()),
        }
        world
            .links
            .change_all(|link| link.loss = link.loss.max(trial.loss));
        let started = world.now();
        Run {
            trial,
            progress,
            rng,
            world,
            hosts: Vec::new(),
            alive: Vec::new(),
            dead: BTreeMap::new(),
            noticed: BTreeMap::new(),
            mistaken: BTreeSet::new(),
            mistakes: 0,
            spreads: BTreeMap::new(),
            delays: Samples::default(),
            last_join: started,
            started,
        }
    }

    fn patience(&self) -> Patience {
        Patience::of(&self.trial.profile, self.trial.nodes)
    }

    fn tell(&mut self, phase: &'static str, done: f64) {
        (self.progress)(Progress {
            phase,
            done: done.clamp(0.0, 1.0),
        });
    }

    /// Lets a step pass, and takes in the events of that time.
    fn step(&mut self, duration: Duration) {
        self.world.run_for(duration);
        for index in 0..self.hosts.len() {
            let id = self.hosts[index];
            for (at, event) in self.world.take_events(id) {
                self.take(id, at, &event);
            }
        }
    }

    fn take(&mut self, id: HostId, at: Time, event: &Event) {
        match event {
            Event::Member { kind, members } => {
                for member in members {
                    if *member.name == *self.world.host(id).name() {
                        continue;
                    }
                    match kind {
                        MemberEventKind::Join => {
                            self.alive[id.0] += 1;
                            self.last_join = self.last_join.max(at);
                        }
                        MemberEventKind::Failed => {
                            self.alive[id.0] = self.alive[id.0].saturating_sub(1);
                            self.take_failure(at, &member.name);
                        }
                        MemberEventKind::Leave | MemberEventKind::Update | MemberEventKind::Reap => {}
                    }
                }
            }
            Event::User { name, .. } => {
                if let Some(spread) = self.spreads.get_mut(name)
                    && spread.sender != id
                {
                    spread.arrived += 1;
                    spread.last = at;
                    self.delays.add(at.since(spread.sent));
                }
            }
            Event::Query { .. } | Event::Isolation { .. } => {}
        }
    }

    fn take_failure(&mut self, at: Time, name: &str) {
        if self.dead.contains_key(name) {
            let (_, last, count) = self.noticed.entry(name.to_owned()).or_insert((at, at, 0));
            *last = at;
            *count += 1;
        } else {
            self.mistakes += 1;
            self.mistaken.insert(name.to_owned());
        }
    }

    /// Starts all nodes at once, each joining one that was started before it; gives the time it took.
    fn form(&mut self) -> Option<f64> {
        let nodes = self.trial.nodes;
        for number in 0..nodes {
            let id = self.world.add(&format!("node-{number}"));
            self.hosts.push(id);
            self.alive.push(0);
            if number > 0 {
                self.world.join(id, self.hosts[self.rng.random_range(0..number)]);
            }
            if number % 64 == 0 {
                self.tell("starting", number as f64 / nodes as f64);
            }
        }
        let limit = self.world.now() + self.patience().recover;
        loop {
            self.step(STEP);
            let known: usize = self.alive.iter().sum();
            self.tell("forming", known as f64 / (nodes * (nodes - 1)).max(1) as f64);
            if known == nodes * (nodes - 1) {
                return Some(self.last_join.since(self.started).as_secs_f64());
            }
            if self.world.now() >= limit {
                return None;
            }
        }
    }

    /// Waits until the broadcasts of the joins have been sent as often as the limit says.
    fn quiet_down(&mut self) {
        let limit = self.world.now() + self.patience().spread;
        let is_busy = |world: &World, id: HostId| {
            let lengths = world
                .host(id)
                .node()
                .map(|node| node.lengths())
                .unwrap_or_default();
            lengths
                .iter()
                .any(|(table, len)| table.ends_with("broadcasts") && *len > 0)
        };
        while self.world.now() < limit {
            self.step(STEP * 5);
            let busy = self.hosts.iter().filter(|&&id| is_busy(&self.world, id)).count();
            self.tell("settling", 1.0 - busy as f64 / self.hosts.len() as f64);
            if busy == 0 {
                return;
            }
        }
    }

    fn rest(&mut self) -> Traffic {
        let before = self.sent();
        let end = self.world.now() + REST;
        while self.world.now() < end {
            self.step(STEP * 5);
            let left = end.since(self.world.now()).as_secs_f64() / REST.as_secs_f64();
            self.tell("resting", 1.0 - left);
        }
        self.sent().since(before, self.hosts.len())
    }

    fn sent(&self) -> Sent {
        let mut sent = Sent {
            at: self.world.now(),
            ..Sent::default()
        };
        for &id in &self.hosts {
            let counters = &self.world.host(id).counters;
            sent.datagrams += counters.datagrams_sent;
            sent.bytes += counters.bytes_sent;
            sent.stream_bytes += counters.stream_bytes_sent;
        }
        sent
    }

    fn talk(&mut self) {
        let others = self.hosts.len() - 1;
        for number in 0..self.trial.events {
            let sender = self.hosts[self.rng.random_range(0..self.hosts.len())];
            let name = format!("event-{number}");
            let sent = self.world.now();
            let spread = Spread {
                sent,
                sender,
                arrived: 0,
                last: sent,
            };
            self.spreads.insert(name.clone(), spread);
            let event = Command::UserEvent {
                name,
                payload: vec![b'x'; 32],
                coalesce: false,
            };
            self.world.command(sender, event);
            self.step(EVENT_PAUSE);
            self.tell("sending events", number as f64 / self.trial.events as f64);
        }
        let limit = self.world.now() + self.patience().spread;
        let is_waiting = |run: &Run<'_>| run.spreads.values().any(|spread| spread.arrived < others);
        while is_waiting(self) && self.world.now() < limit {
            self.step(STEP);
            let arrived: usize = self.spreads.values().map(|spread| spread.arrived).sum();
            let all = others * self.spreads.len();
            self.tell("spreading events", arrived as f64 / all.max(1) as f64);
        }
    }

    fn kill(&mut self) {
        let mut order = self.hosts.clone();
        order.shuffle(&mut self.rng);
        order.truncate(self.trial.kill);
        let now = self.world.now();
        for &id in &order {
            self.dead.insert(self.world.host(id).name().to_owned(), now);
            self.world.crash(id);
        }
        self.hosts.retain(|id| !order.contains(id));
        let (limit, all) = (now + self.patience().detect, self.hosts.len() * self.dead.len());
        loop {
            let noticed: usize = self.noticed.values().map(|(_, _, count)| count).sum();
            self.tell("detecting crashes", noticed as f64 / all.max(1) as f64);
            if noticed >= all || self.world.now() >= limit {
                return;
            }
            self.step(STEP);
        }
    }

    fn report(self, formed_s: Option<f64>, rest: Traffic) -> Report {
        let everyone = self.trial.nodes - 1;
        let mut everywhere = Samples::default();
        let complete = self.spreads.values().filter(|spread| spread.arrived >= everyone);
        complete.for_each(|spread| everywhere.add(spread.last.since(spread.sent)));
        let everywhere_s = everywhere.quantiles();
        let (mut first, mut last) = (Samples::default(), Samples::default());
        for (name, (first_at, last_at, count)) in &self.noticed {
            let died = self.dead.get(name).copied().unwrap_or(self.started);
            first.add(first_at.since(died));
            if *count >= self.hosts.len() {
                last.add(last_at.since(died));
            }
        }
        let detected_s = last.quantiles();
        let start = Sent {
            at: self.started,
            ..Sent::default()
        };
        Report {
            nodes: self.trial.nodes,
            profile: self.trial.profile.name.clone(),
            network: self.trial.network,
            loss: self.trial.loss,
            seed: self.trial.seed,
            formed_s,
            events: EventReport {
                sent: self.spreads.len(),
                incomplete: self.spreads.len() - everywhere_s.count,
                delay_s: self.delays.clone().quantiles(),
                everywhere_s,
            },
            detection: DetectionReport {
                killed: self.dead.len(),
                undetected: self.dead.len() - detected_s.count,
                first_s: first.quantiles(),
                everywhere_s: detected_s,
            },
            false_positives: FalsePositives {
                events: self.mistakes,
                nodes: self.mistaken.len(),
            },
            rest,
            whole: self.sent().since(start, self.hosts.len()),
            simulated_s: self.world.now().since(self.started).as_secs_f64(),
        }
    }
}

impl World {
    /// Takes what a host's node has told since the last call, so that a long run holds no more than it
    /// must.
    pub fn take_events(&mut self, id: HostId) -> Vec<(Time, Arc<Event>)> {
        std::mem::take(&mut self.hosts[id.0].events)
    }
}
