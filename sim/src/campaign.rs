//! Worlds drawn from a seed: a cluster, a network, troubles, calm again, and all promises watched.
//!
//! One seed is one world and one run of it ([`run`]). First the cluster forms. Then faults and load strike it
//! at random for a while. Then the faults end, and the cluster has time to heal. At last, in a network that
//! loses nothing, there is some more load, and the key changes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fyrd_keys::{Key, Keyring};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::check::{Finding, Patience, Sealed, Watch};
use super::happening::Power;
use super::link::{Link, Map};
use super::trace::Trace;
use super::trial::Network;
use super::{Disk, HostId, World, WorldConfig};
use fyrd_core::serf::keyring::{KeyBytes, KeyOp, key_verdict};
use fyrd_core::serf::{Answer, Command, MemberStatus, QueryParams, RetryJoin, Seeds, Tags};
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;

/// Stands in every name, tag and payload, so that a leak can be seen.
const MARK: &str = "hidden";

/// The label of a cluster that has one.
const LABEL: &[u8] = b"blue";

/// No world is larger at its start; a third more may come.
const NODES: std::ops::RangeInclusive<usize> = 3..=24;

/// How often a step of a rotation is tried. Queries are passed on a limited number of times, so in a small
/// cluster every tenth misses somebody; whoever rotates asks again, as `fyrd keys rotate` does.
const ROTATION_TRIES: usize = 6;

/// Pairs of keys, the one at the start and the one after the rotation.
const KEYS: [[&str; 2]; 3] = [
    ["AAECAwQFBgcICQoLDA0ODw==", "EBESExQVFhcYGRobHB0eHw=="],
    [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
    ],
    [
        "chacha20poly1305:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "chacha20poly1305:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
    ],
];

/// Joins that fail are tried again as often as this: a world does not last for long.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A kind of thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Datagrams are lost.
    Loss,
    /// Datagrams come twice, and out of order.
    Disorder,
    /// Bits arrive wrong. Only in worlds that seal, for others cannot tell.
    Damage,
    /// Long datagrams do not get through.
    SmallMtu,
    /// Single directions between two hosts are cut.
    OneWayCuts,
    /// The network falls into two parts.
    Partition,
    /// Hosts stand still for a while, one or several at a time.
    Stalls,
    /// Clocks jump ahead.
    ClockJumps,
    /// Hosts crash, and start anew.
    Crashes,
    /// Hosts leave, and new ones come.
    Churn,
    /// What hosts send and receive waits, while their timers go on.
    BlockedIo,
    /// Disks take their time. Only in worlds that remember, as with the next two.
    SlowDisks,
    /// Disks do not answer.
    HungDisks,
    /// Disks take nothing more.
    FullDisks,
}

const TROUBLES: [Trouble; 14] = [
    Trouble::Loss,
    Trouble::Disorder,
    Trouble::Damage,
    Trouble::SmallMtu,
    Trouble::OneWayCuts,
    Trouble::Partition,
    Trouble::Stalls,
    Trouble::ClockJumps,
    Trouble::Crashes,
    Trouble::Churn,
    Trouble::BlockedIo,
    Trouble::SlowDisks,
    Trouble::HungDisks,
    Trouble::FullDisks,
];

/// What a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hosts at the start.
    pub nodes: usize,
    /// The timing of all nodes: a profile that is compiled in.
    pub profile: &'static str,
    /// Where the hosts stand.
    pub network: Network,
    /// Which of the pairs of keys; `None` for a plain cluster.
    pub keys: Option<usize>,
    /// Whether nodes compress.
    pub compress: bool,
    /// Whether the cluster has a label.
    pub labelled: bool,
    /// Whether every third host stands behind an address translator.
    pub translated: bool,
    /// Whether nodes remember over a restart, as with a snapshot.
    pub remembers: bool,
    /// What goes wrong.
    pub troubles: Vec<Trouble>,
    /// For how long.
    pub trouble_for: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &mut Xoshiro256PlusPlus) -> Self {
        let nodes = rng.random_range(NODES).min(rng.random_range(NODES));
        let (profile, seconds) = match rng.random_range(0..10) {
            0..6 => ("lan", 30..150),
            6..8 => ("wan", 120..480),
            _ => ("local", 30..150),
        };
        let network = match profile {
            "wan" => *[Network::Wan, Network::Regions]
                .choose(rng)
                .unwrap_or(&Network::Wan),
            _ => *[Network::Lan, Network::Lan, Network::Regions]
                .choose(rng)
                .unwrap_or(&Network::Lan),
        };
        let keys = rng.random::<bool>().then(|| rng.random_range(0..KEYS.len()));
        let mut troubles: Vec<Trouble> = TROUBLES
            .into_iter()
            .filter(|_| rng.random_range(0..3) == 0)
            .collect();
        let remembers = rng.random();
        troubles.retain(|trouble| match trouble {
            Trouble::Damage => keys.is_some(),
            Trouble::SlowDisks | Trouble::HungDisks | Trouble::FullDisks => remembers,
            _ => true,
        });
        Plan {
            nodes,
            profile,
            network,
            keys,
            compress: rng.random(),
            labelled: rng.random_range(0..3) == 0,
            translated: rng.random_range(0..5) == 0,
            remembers,
            troubles,
            trouble_for: Duration::from_secs(rng.random_range(seconds)),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What it stood for.
    pub plan: Plan,
    /// Promises that were broken.
    pub findings: Vec<Finding>,
    /// The fingerprint of all that happened.
    pub trace: Trace,
    /// How long it was, in simulated time.
    pub lasted: Duration,
}

/// Runs the world of a seed.
pub fn run(seed: u64) -> Outcome {
    let mut run = Run::new(seed);
    run.form();
    run.trouble();
    run.calm();
    run.talk();
    run.rotate();
    let mut findings = run.watch.findings().to_vec();
    findings.extend(run.findings);
    Outcome {
        seed,
        plan: run.plan,
        findings,
        trace: run.world.trace(),
        lasted: run.world.now().since(Time::ZERO),
    }
}

struct Run {
    plan: Plan,
    rng: Xoshiro256PlusPlus,
    world: World,
    watch: Watch,
    hosts: Vec<HostId>,
    /// The life in which each host was told whom to join through.
    seeded: BTreeMap<HostId, u32>,
    said: u32,
    findings: Vec<Finding>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let keys = plan
            .keys
            .map(|pair| KEYS[pair].map(|text| text.parse::<Key>().expect("a key")));
        let mut config = WorldConfig::new(rng.random());
        config.profile = Profile::builtin(plan.profile).expect("a profile that is compiled in");
        config.compress = plan.compress;
        config.key = keys.as_ref().map(|[first, _]| first.clone());
        if plan.labelled {
            config.label = LABEL.to_vec();
        }
        let label = config.label.clone();
        let mut world = World::new(config);
        let mut watch = Watch::all();
        if let Some(keys) = keys.clone() {
            let ring = Keyring::from_keys(keys.to_vec()).expect("two keys fit a ring");
            watch.add(Sealed::new(ring, label, vec![MARK.as_bytes().to_vec()]));
        }
        if keys.is_some() || plan.remembers {
            world.tap();
        }
        let mut run = Run {
            plan,
            rng,
            world,
            watch,
            hosts: Vec::new(),
            seeded: BTreeMap::new(),
            said: 0,
            findings: Vec::new(),
        };
        run.restore_links();
        run
    }

    /// The network as the plan has it, with nothing wrong.
    fn restore_links(&mut self) {
        let links = &mut self.world.links;
        links.heal();
        links.clear_special();
        match self.plan.network {
            Network::Lan => links.set_usual(Link::lan()),
            Network::Wan => links.set_usual(Link::wan()),
            Network::Regions => links.set_map(Map::three_regions()),
        }
    }

    fn add_host(&mut self) -> HostId {
        let number = self.hosts.len();
        let tags = Tags::from([("role".to_owned(), format!("{MARK}-{}", number % 3))]);
        let remembers = self.plan.remembers;
        let id = self.world.add_with(&format!("{MARK}-{number}"), |config| {
            config.tags = tags;
            config.records = remembers;
            // Who joins again after a partition wants to hear what it has missed, which the checkers count.
            config.replay = true;
        });
        self.world.host_mut(id).responder = Some(format!("{MARK} answer").into_bytes());
        if self.plan.translated && number % 3 == 1 {
            let source = Ipv4Addr::new(198, 51, 100, number as u8);
            let port = self.rng.random_range(20_000..60_000);
            self.world.links.translate(id, SocketAddr::from((source, port)));
        }
        self.hosts.push(id);
        id
    }

    fn form(&mut self) {
        for _ in 0..self.plan.nodes {
            self.add_host();
        }
        let limit = self.patience().recover;
        self.settle(limit);
    }

    fn patience(&self) -> Patience {
        Patience::of(&self.world.config.profile, self.hosts.len())
    }

    /// Runs until nobody waits for anything, for `limit` at most.
    fn settle(&mut self, limit: Duration) {
        let end = self.world.now() + limit;
        loop {
            self.name_seeds();
            self.watch.run_for(&mut self.world, Duration::from_secs(3));
            if !self.watch.is_waiting() || !self.watch.findings().is_empty() || self.world.now() >= end {
                return;
            }
            // What was sealed before arrives before the next step.
            self.watch.run_for(&mut self.world, Duration::from_secs(1));
        }
    }

    /// Tells hosts that have started whom to join through, as their configurations would: the first host, which is
    /// never taken down, and some others.
    fn name_seeds(&mut self) {
        for host in self.hosts.clone() {
            let life = self.world.host(host).life;
            if self.world.host(host).power() != Power::Up || self.seeded.get(&host) == Some(&life) {
                continue;
            }
            self.seeded.insert(host, life);
            let mut seeds = vec![self.hosts[0]];
            seeds.extend(self.hosts.choose(&mut self.rng));
            seeds.extend(self.hosts.choose(&mut self.rng));
            seeds.retain(|&seed| seed != host);
            if seeds.is_empty() {
                continue;
            }
            let name = |&seed: &HostId| self.world.host(seed).name().to_owned();
            let retry = RetryJoin {
                names: seeds.iter().map(name).collect(),
                every: RETRY_INTERVAL,
                max: None,
            };
            let joined = Vec::new();
            let retry = Some(retry);
            self.world.seeds(host, Seeds { joined, retry });
        }
    }

    fn trouble(&mut self) {
        let end = self.world.now() + self.plan.trouble_for;
        while self.world.now() < end && self.watch.findings().is_empty() {
            if self.rng.random_range(0..3) == 0 {
                self.say_something();
            } else if let Some(&trouble) = self.plan.troubles.choose(&mut self.rng) {
                self.strike(trouble);
            }
            self.name_seeds();
            let pause = Duration::from_millis(self.rng.random_range(100..4000));
            self.watch.run_for(&mut self.world, pause);
        }
    }

    fn some_host(&mut self, power: Power) -> Option<HostId> {
        // The first host is never taken down, so that there is somebody to join.
        let others = self.hosts.iter().copied().skip(1);
        let fitting: Vec<HostId> = others
            .filter(|&host| self.world.host(host).power() == power)
            .collect();
        fitting.choose(&mut self.rng).copied()
    }

    fn strike(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Loss => {
                let loss = self.rng.random_range(0.0..0.3);
                self.world.links.change_all(|link| link.loss = loss);
            }
            Trouble::Disorder => {
                let share = self.rng.random_range(0.0..0.3);
                self.world
                    .links
                    .change_all(|link| (link.duplicate, link.reorder) = (share, share));
            }
            Trouble::Damage => {
                let share = self.rng.random_range(0.0..0.1);
                self.world.links.change_all(|link| link.corrupt = share);
            }
            Trouble::SmallMtu => {
                let mtu = *[700, 1200, usize::MAX]
                    .choose(&mut self.rng)
                    .unwrap_or(&usize::MAX);
                self.world.links.change_all(|link| link.mtu = mtu);
            }
            Trouble::OneWayCuts => {
                let (from, to) = (
                    self.rng.random_range(0..self.hosts.len()),
                    self.rng.random_range(0..self.hosts.len()),
                );
                match self.rng.random_range(0..3) {
                    0 => self.world.links.heal(),
                    _ => self.world.links.cut_one_way(self.hosts[from], self.hosts[to]),
                }
            }
            Trouble::Partition => match self.rng.random_range(0..3) {
                0 => {
                    let (one, other) = self.hosts.split_at(self.rng.random_range(1..self.hosts.len()));
                    self.world.links.partition(one, other);
                }
                _ => self.world.links.heal(),
            },
            Trouble::Stalls => {
                let frozen = self
                    .some_host(Power::Frozen)
                    .filter(|_| self.rng.random_range(0..3) > 0);
                if let Some(host) = frozen {
                    self.world.thaw(host);
                } else if let Some(host) = self.some_host(Power::Up) {
                    self.world.freeze(host);
                }
            }
            Trouble::ClockJumps => {
                let by = Duration::from_millis(self.rng.random_range(100..60_000));
                if let Some(host) = self.some_host(Power::Up) {
                    self.world.jump_clock(host, by);
                }
            }
            Trouble::Crashes => {
                let down = self.some_host(Power::Down).filter(|_| self.rng.random());
                if let Some(host) = down {
                    self.world.start(host);
                } else if let Some(host) = self.some_host(Power::Up) {
                    // The worst moment is the one after it has spoken, while a bad disk has not got it yet.
                    if self.plan.remembers && self.is_citizen(host) && self.rng.random() {
                        self.say(host);
                        let pause = Duration::from_millis(self.rng.random_range(1..500));
                        self.watch.run_for(&mut self.world, pause);
                    }
                    self.world.crash(host);
                }
            }
            Trouble::BlockedIo => {
                let blocked = self
                    .hosts
                    .iter()
                    .copied()
                    .find(|&id| self.world.host(id).is_blocked());
                if let Some(host) = blocked.filter(|_| self.rng.random_range(0..3) > 0) {
                    self.world.unblock_io(host);
                } else if let Some(host) = self.some_host(Power::Up) {
                    self.world.block_io(host);
                }
            }
            Trouble::SlowDisks => {
                let takes = Duration::from_millis(self.rng.random_range(1..400));
                self.trouble_disk(Disk::Slow(takes));
            }
            Trouble::HungDisks => self.trouble_disk(Disk::Hangs),
            Trouble::FullDisks => self.trouble_disk(Disk::Fails),
            Trouble::Churn => {
                if self.rng.random() && self.hosts.len() < self.plan.nodes * 4 / 3 {
                    self.add_host();
                } else if let Some(host) = self.some_host(Power::Up) {
                    self.world.command(host, Command::Leave);
                }
            }
        }
    }

    /// Gives some host a bad disk, or heals one.
    fn trouble_disk(&mut self, disk: Disk) {
        let bad = |id: &HostId| self.world.disk(*id) != Disk::Swift;
        let bad: Vec<HostId> = self.hosts.iter().copied().filter(bad).collect();
        match bad.choose(&mut self.rng) {
            Some(&host) if self.rng.random() => self.world.set_disk(host, Disk::Swift),
            _ => {
                if let Some(host) = self.some_host(Power::Up) {
                    self.world.set_disk(host, disk);
                }
            }
        }
    }

    /// Lets some host speak, ask or change its tags.
    fn say_something(&mut self) {
        let up: Vec<HostId> = self
            .hosts
            .iter()
            .copied()
            .filter(|&host| self.is_citizen(host))
            .collect();
        if let Some(&host) = up.choose(&mut self.rng) {
            self.say(host);
        }
    }

    fn say(&mut self, host: HostId) {
        self.said += 1;
        let text = format!("{MARK} {}", self.said);
        let command = match self.rng.random_range(0..4) {
            0 | 1 => Command::UserEvent {
                name: text,
                payload: vec![b'x'; self.rng.random_range(0..300)],
                coalesce: self.rng.random(),
            },
            2 => Command::SetTags(Tags::from([("word".to_owned(), text)])),
            _ => Command::Query(QueryParams {
                name: text,
                request_ack: self.rng.random(),
                relay_factor: self.rng.random_range(0..3),
                ..QueryParams::default()
            }),
        };
        self.world.command(host, command);
    }

    fn is_citizen(&self, host: HostId) -> bool {
        let host = self.world.host(host);
        host.power() == Power::Up && host.status_of(host.name()) == Some(MemberStatus::Alive)
    }

    /// Ends all trouble. Of the hosts that are down some start anew; those that have left end.
    fn calm(&mut self) {
        self.restore_links();
        for host in self.hosts.clone() {
            self.world.set_disk(host, Disk::Swift);
            self.world.unblock_io(host);
            self.world.thaw(host);
            if self.world.host(host).power() == Power::Down {
                if self.rng.random() {
                    self.world.start(host);
                }
            } else if !self.is_citizen(host) {
                self.world.crash(host);
            }
        }
        let patience = self.patience();
        self.settle(patience.recover + patience.detect + patience.spread);
    }

    fn talk(&mut self) {
        for _ in 0..6 {
            self.say_something();
            self.watch.run_for(&mut self.world, Duration::from_millis(300));
        }
        let patience = self.patience();
        self.settle(patience.recover + patience.spread);
    }

    /// Changes the key in a network that loses nothing, once no suspicion of before is left.
    fn rotate(&mut self) {
        let Some(pair) = self.plan.keys.filter(|_| self.watch.findings().is_empty()) else {
            return;
        };
        self.world.links.change_all(|link| link.loss = 0.0);
        let rest = self.patience().detect + Duration::from_secs(5);
        self.watch.run_for(&mut self.world, rest);
        let [old, new] = KEYS[pair].map(|text| text.parse::<Key>().expect("a key"));
        for (op, key) in [(KeyOp::Install, &new), (KeyOp::Use, &new), (KeyOp::Remove, &old)] {
            let tries = (0..ROTATION_TRIES).map_while(|_| self.change_key(op, key).err());
            let failures: Vec<String> = tries.collect();
            if failures.len() == ROTATION_TRIES {
                self.findings.push(Finding {
                    at: self.world.now(),
                    promise: "in a clean network a rotation succeeds",
                    what: format!("{op:?}: {}", failures.join("; ")),
                });
                return;
            }
            // What was sealed before arrives before the next step.
            self.watch.run_for(&mut self.world, Duration::from_secs(1));
        }
        self.watch.run_for(&mut self.world, Duration::from_secs(10));
        self.talk();
    }

    /// One step of a rotation; the next may only follow when all have taken it.
    fn change_key(&mut self, op: KeyOp, key: &Key) -> Result<(), String> {
        let (asker, key) = (self.hosts[0], KeyBytes(key.to_wire()));
        let command = self.world.command(asker, Command::Keys { op, key });
        // A key query ends by itself after its time.
        while !self.world.host(asker).answers.contains_key(&command) {
            self.watch.run_for(&mut self.world, Duration::from_millis(100));
        }
        match &self.world.host(asker).answers[&command].1 {
            Answer::Keys(report) => key_verdict(report),
            other => Err(format!("{other:?}")),
        }
    }
}
