//! Back to the cluster after a restart: dials the members that were there in an earlier life.
//!
//! They are tried newest first and a few at a time, and again with longer and longer pauses, by a node that is
//! alone for as long as it takes. A node with company goes on a little: after a crash of the whole cluster its
//! parts can come together in islands, which know nothing of each other. Who is not met soon becomes a failed
//! member of the node, and is looked for by the node's own reconnects.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::driver::{Handle, Stopped};
use fyrd_core::node::Node;
use fyrd_core::node::memory::MemberRecord;
use fyrd_core::serf::{Answer, Command, JoinTarget, MemberStatus};
use fyrd_core::time::Time;

/// Dials at the same time.
const AT_ONCE: usize = 3;

/// So many peers are asked for their whole state, even if all are known by then.
const ENOUGH: usize = 3;

/// The first dial waits for up to this long, so that hosts that start together do not dial together.
const START_JITTER: Duration = Duration::from_millis(200);

/// Longest pause between two dials of a node that is alone; half of it on average. It bounds what a round costs.
const ALONE_SPACING: Duration = Duration::from_millis(50);

/// The same for a node that has company, and no hurry.
const COMPANY_SPACING: Duration = Duration::from_secs(1);

/// The pause after the first round; it doubles with each one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Rounds that fail are told no more often than this.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The list of all members is read no more often than this, unless their number changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Company that comes or goes is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A member of an earlier life of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: Arc<str>,
    /// Where it was.
    pub addr: SocketAddr,
    /// When it was last heard of, on any clock that all peers share.
    pub heard: Time,
}

impl Peer {
    /// Those of the remembered members that were there.
    pub fn of(members: &[MemberRecord]) -> Vec<Peer> {
        let there = members
            .iter()
            .filter(|member| member.status == MemberStatus::Alive);
        there
            .map(|member| Peer {
                name: Arc::clone(&member.facts.name),
                addr: member.facts.socket(),
                heard: member.since,
            })
            .collect()
    }
}

/// What a rejoin has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name; a peer of this name is skipped.
    pub name: String,
    /// Where this node can be reached; a peer there would be itself.
    pub addrs: Vec<SocketAddr>,
    /// Whether the last life ended with a graceful leave.
    pub left: bool,
    /// Whether to rejoin even then.
    pub rejoin_after_leave: bool,
    /// The seed of all jitter.
    pub seed: u64,
}

/// Rejoins in the background; comes back when nothing is left to do, or the agent leaves or ends.
pub async fn run(handle: Handle, peers: Vec<Peer>, settings: Settings) {
    if settings.left {
        if !settings.rejoin_after_leave {
            return;
        }
        info!(target: "serf", "Ignoring previous leave in snapshot");
    }
    let rejoin = Rejoin {
        start: Instant::now(),
        policy: Policy::new(peers, &settings),
        name: settings.name,
        handle,
        dials: JoinSet::new(),
        looked: None,
        reported: None,
        reached: 0,
    };
    if let Err(stopped) = rejoin.run().await {
        debug!(target: "serf", "Rejoin ends: {stopped}");
    }
}

/// The policy at work.
struct Rejoin {
    handle: Handle,
    /// This node's name.
    name: String,
    policy: Policy,
    dials: JoinSet<(Peer, Result<Answer, Stopped>)>,
    /// What the policy's time counts from.
    start: Instant,
    /// When the members were read last, and how many there were.
    looked: Option<(Instant, usize)>,
    /// When a failed round was told last.
    reported: Option<Instant>,
    /// How many dials have been answered.
    reached: usize,
}

impl Rejoin {
    async fn run(mut self) -> Result<(), Stopped> {
        loop {
            if !self.look().await? {
                return Ok(());
            }
            let wake = match self.policy.poll(self.now()) {
                Step::Done => return Ok(()),
                Step::Dial { peer, again } => {
                    self.dial(peer, again);
                    continue;
                }
                Step::Failed => {
                    self.report();
                    continue;
                }
                Step::Wait(until) => self.start + until.min(self.now() + CHECK_INTERVAL).since(Time::ZERO),
            };
            tokio::select! {
                Some(dialled) = self.dials.join_next() => {
                    // A dial that broke off without a result is one that failed.
                    if let Ok((peer, answer)) = dialled && !self.answered(peer, answer?) {
                        return Ok(());
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Tells the policy who is there; whether this node stays.
    async fn look(&mut self) -> Result<bool, Stopped> {
        let looked = self.looked;
        let due = move |members| {
            looked.is_none_or(|(at, before)| members != before || at.elapsed() >= LOOK_INTERVAL)
        };
        let look = move |node: &Node| {
            let stats = node.stats();
            (
                stats,
                node.has_merged(),
                due(stats.members).then(|| node.members()),
            )
        };
        let (stats, merged, members) = self.handle.read(look).await?;
        let here = stats.members.saturating_sub(stats.failed + stats.left);
        // Who is known by gossip alone has not told what was missed, so somebody must be dialled nevertheless.
        self.policy.company(self.now(), merged && here > 1);
        let Some(members) = members else {
            return Ok(true);
        };
        self.looked = merged.then(|| (Instant::now(), stats.members));
        // The list is in the order of names.
        let find = |name: &str| members.binary_search_by(|member| (*member.name).cmp(name));
        // Whoever answers first may have been away as well, so a few are asked what was missed.
        let enough = self.reached >= ENOUGH;
        self.policy
            .met(|name, dialled| merged && (enough || dialled) && find(name).is_ok());
        let me = find(&self.name).ok().and_then(|place| members.get(place));
        Ok(me.is_none_or(|me| me.status == MemberStatus::Alive))
    }

    fn dial(&mut self, peer: Peer, again: bool) {
        let Peer { name, addr, .. } = &peer;
        if again {
            debug!(target: "serf", "Attempting re-join to previously known node: {name}: {addr}");
        } else {
            info!(target: "serf", "Attempting re-join to previously known node: {name}: {addr}");
        }
        let target = JoinTarget {
            name: Some(name.to_string()),
            addr: *addr,
        };
        let handle = self.handle.clone();
        self.dials.spawn(async move {
            let join = Command::Join {
                targets: vec![target],
                ignore_old: false,
                announce: false,
            };
            let answer = handle.command(join).await;
            (peer, answer)
        });
    }

    /// Takes the result of a dial; whether to go on.
    fn answered(&mut self, peer: Peer, answer: Answer) -> bool {
        match answer {
            Answer::Joined { contacted: 0, errors } => {
                for (addr, reason) in errors {
                    debug!(target: "serf", "Failed to re-join {}: {addr}: {reason}", peer.name);
                }
                self.policy.failed(peer);
                true
            }
            Answer::Joined { .. } => {
                info!(target: "serf", "Re-joined to previously known node: {}: {}", peer.name, peer.addr);
                self.reached += 1;
                self.policy.reached(&peer);
                true
            }
            // Who leaves joins nobody.
            _ => false,
        }
    }

    fn report(&mut self) {
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            self.reported = Some(Instant::now());
            warn!(target: "serf", "Failed to re-join any previously known node");
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Dial this one, and tell the result.
    Dial {
        peer: Peer,
        /// Whether it was dialled before.
        again: bool,
    },
    /// A round of a node that is alone is over, and it is still alone. Ask again.
    Failed,
    /// Nothing before this time, unless a dial ends earlier.
    Wait(Time),
    /// Nothing any more.
    Done,
}

/// Whom to dial, and when. Work comes in rounds of all missing peers, until none is missing.
#[derive(Debug)]
struct Policy {
    /// Who is missing and not being dialled, in the order of their turns, with whether they had one before.
    missing: VecDeque<(Peer, bool)>,
    /// Who is being dialled.
    dialling: Vec<Arc<str>>,
    /// Those of the missing, from the front, whose turn comes in this round; `None` between rounds.
    round: Option<usize>,
    /// Whether nobody else is there.
    alone: bool,
    /// Not before this time begins the next round, or the next dial of this one.
    next: Time,
    /// The pause after this round, before jitter.
    pause: Duration,
    rng: Xoshiro256PlusPlus,
}

impl Policy {
    /// Time begins at zero.
    fn new(mut peers: Vec<Peer>, settings: &Settings) -> Policy {
        let me = |peer: &Peer| *peer.name == *settings.name || settings.addrs.contains(&peer.addr);
        peers.retain(|peer| !me(peer));
        peers.sort_by(|a, b| b.heard.cmp(&a.heard).then_with(|| a.name.cmp(&b.name)));
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
        Policy {
            missing: peers.into_iter().map(|peer| (peer, false)).collect(),
            dialling: Vec::new(),
            round: None,
            alone: true,
            next: Time::ZERO + START_JITTER.mul_f64(rng.random()),
            pause: FIRST_PAUSE,
            rng,
        }
    }

    /// Whether the node has company. After each change the next round comes soon.
    fn company(&mut self, now: Time, company: bool) {
        if self.alone != company {
            return;
        }
        self.alone = !company;
        self.pause = FIRST_PAUSE;
        if self.round.is_none() {
            self.next = self.next.min(now + self.jittered(FIRST_PAUSE));
        }
    }

    /// Peers that are in the list of members, in whatever state, are no longer missing: looking after members
    /// is the node's own work. `known` is told whether the peer was dialled before.
    fn met(&mut self, known: impl Fn(&str, bool) -> bool) {
        let turns = self.round.unwrap_or_default();
        let gone = self
            .missing
            .iter()
            .take(turns)
            .filter(|(peer, dialled)| known(&peer.name, *dialled))
            .count();
        self.round = self.round.map(|turns| turns - gone);
        self.missing
            .retain(|(peer, dialled)| !known(&peer.name, *dialled));
    }

    /// A dial has reached its address. If it was not the peer that answered, the peer is no longer there.
    fn reached(&mut self, peer: &Peer) {
        self.dialling.retain(|name| *name != peer.name);
    }

    /// A dial has failed; the peer's next turn comes after all others.
    fn failed(&mut self, peer: Peer) {
        self.dialling.retain(|name| *name != peer.name);
        self.missing.push_back((peer, true));
    }

    /// What to do now.
    fn poll(&mut self, now: Time) -> Step {
        if self.dialling.is_empty() && self.missing.is_empty() {
            return Step::Done;
        }
        // Dials that end wake whoever waits.
        let idle = now + LONGEST_PAUSE;
        match self.round {
            Some(0) if self.dialling.is_empty() => self.end_round(now),
            Some(0) => Step::Wait(idle),
            Some(_) if self.dialling.len() >= AT_ONCE => Step::Wait(idle),
            _ if now < self.next => Step::Wait(self.next),
            Some(turns) => self.take_turn(now, turns),
            None => self.take_turn(now, self.missing.len()),
        }
    }

    fn take_turn(&mut self, now: Time, turns: usize) -> Step {
        let Some((peer, again)) = self.missing.pop_front() else {
            self.round = Some(0);
            return Step::Wait(now);
        };
        self.round = Some(turns.saturating_sub(1));
        self.dialling.push(Arc::clone(&peer.name));
        let spacing = if self.alone {
            ALONE_SPACING
        } else {
            COMPANY_SPACING
        };
        self.next = now + spacing.mul_f64(self.rng.random());
        Step::Dial { peer, again }
    }

    fn end_round(&mut self, now: Time) -> Step {
        self.round = None;
        self.next = now + self.jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if self.alone {
            Step::Failed
        } else {
            Step::Wait(self.next)
        }
    }

    /// A quarter more or less.
    fn jittered(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(self.rng.random_range(0.75..1.25))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::TcpListener;

    use super::*;
    use crate::driver::{Driver, DriverConfig, Sockets};
    use crate::logged::Lines;
    use fyrd_core::addr::RawAddr;
    use fyrd_core::node::NodeConfig;
    use fyrd_core::swim::profile::Profile;

    const DIAL: Duration = Duration::from_millis(20);

    /// How long after its first company a node lists those whom it has not met as failed.
    const UNTIL_LISTED: Duration = Duration::from_secs(30);

    fn settings() -> Settings {
        Settings {
            name: "me".to_string(),
            addrs: vec!["10.0.0.99:1".parse().unwrap()],
            left: false,
            rejoin_after_leave: false,
            seed: 7,
        }
    }

    /// Peers p0, p1, ...; the first was heard of last.
    fn peers(count: usize) -> Vec<Peer> {
        let peer = |i: usize| Peer {
            name: format!("p{i}").into(),
            addr: SocketAddr::from(([10, 0, 0, 1], 1000 + i as u16)),
            heard: Time::from_nanos(1000 - i as u64),
        };
        // In no order.
        (0..count).rev().map(peer).collect()
    }

    /// A policy in a world in which each dial takes a while, and reaches those that are up.
    struct World {
        policy: Policy,
        now: Time,
        up: BTreeSet<String>,
        /// Whom the node knows beside itself.
        known: BTreeSet<String>,
        all: BTreeSet<String>,
        /// When the node lists whom it has not met.
        listed_at: Option<Time>,
        /// Of whom the first one met tells.
        tells: BTreeSet<String>,
        company: bool,
        dials: BTreeMap<Time, Peer>,
        /// What was dialled when, and the ends of failed rounds as "-".
        seen: Vec<(Time, String)>,
        most_at_once: usize,
        reached: usize,
    }

    impl World {
        fn new(peers: Vec<Peer>, settings: &Settings) -> World {
            World {
                all: peers.iter().map(|peer| peer.name.to_string()).collect(),
                listed_at: None,
                policy: Policy::new(peers, settings),
                now: Time::ZERO,
                up: BTreeSet::new(),
                known: BTreeSet::new(),
                tells: BTreeSet::new(),
                reached: 0,
                company: false,
                dials: BTreeMap::new(),
                seen: Vec::new(),
                most_at_once: 0,
            }
        }

        /// Runs for so long; whether the policy has more to do.
        fn run(&mut self, seconds: u64) -> bool {
            let end = self.now + Duration::from_secs(seconds);
            while self.now < end {
                self.policy.company(self.now, self.company);
                if self.company && self.now >= *self.listed_at.get_or_insert(self.now + UNTIL_LISTED) {
                    self.known.extend(self.all.iter().cloned());
                }
                let enough = self.reached >= ENOUGH;
                self.policy
                    .met(|name, dialled| (enough || dialled) && self.known.contains(name));
                let mut wake = match self.policy.poll(self.now) {
                    Step::Done => return false,
                    Step::Failed => {
                        self.seen.push((self.now, "-".to_string()));
                        continue;
                    }
                    Step::Dial { peer, again } => {
                        let before = self.seen.iter().any(|(_, name)| *name == *peer.name);
                        assert_eq!(again, before);
                        self.seen.push((self.now, peer.name.to_string()));
                        self.dials.insert(self.now + DIAL, peer);
                        self.most_at_once = self.most_at_once.max(self.dials.len());
                        continue;
                    }
                    Step::Wait(until) => until.min(self.now + CHECK_INTERVAL),
                };
                if let Some((&done, _)) = self.dials.first_key_value()
                    && done <= wake
                {
                    wake = done;
                    let peer = self.dials.remove(&done).unwrap();
                    if self.up.contains(&*peer.name) {
                        self.policy.reached(&peer);
                        self.reached += 1;
                        self.known.insert(peer.name.to_string());
                        self.known.append(&mut self.tells);
                        self.company = true;
                    } else {
                        self.policy.failed(peer);
                    }
                }
                // The policy may not spin.
                self.now = wake.max(self.now + Duration::from_nanos(1));
            }
            true
        }

        fn names(&self) -> Vec<&str> {
            self.seen.iter().map(|(_, name)| name.as_str()).collect()
        }

        /// The times between the beginnings of dials, in seconds, where they are longer than within a round.
        fn pauses(&self) -> Vec<f64> {
            let dials: Vec<Time> = self
                .seen
                .iter()
                .filter(|(_, name)| name != "-")
                .map(|(at, _)| *at)
                .collect();
            let gaps = dials.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64());
            gaps.filter(|gap| *gap > 0.5).collect()
        }
    }

    #[test]
    fn an_alone_node_tries_all_again_with_growing_pauses() {
        let mut peers = peers(5);
        let mut me = peers[0].clone();
        me.name = "me".into();
        let mut here = peers[0].clone();
        (here.name, here.addr) = ("renamed".into(), settings().addrs[0]);
        peers.extend([me, here]);
        let mut world = World::new(peers, &settings());
        assert!(world.run(180));
        assert_eq!(
            world.names()[..13],
            [
                "p0", "p1", "p2", "p3", "p4", "-", "p0", "p1", "p2", "p3", "p4", "-", "p0"
            ]
        );
        assert_eq!(world.most_at_once, AT_ONCE);
        let pauses = world.pauses();
        assert!(pauses.len() >= 7, "{pauses:?}");
        for (pause, wanted) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
            assert!(
                (0.75 * wanted..=1.25 * wanted + 0.2).contains(pause),
                "{pauses:?}"
            );
        }
        // Two nodes that start together do not dial together.
        let mut other = World::new(
            self::peers(5),
            &Settings {
                seed: 8,
                ..settings()
            },
        );
        other.run(180);
        assert_ne!(world.seen[0].0, other.seen[0].0);
        assert_ne!(world.pauses(), other.pauses());
    }

    #[test]
    fn three_are_asked_and_then_only_those_of_whom_nobody_knows() {
        let mut world = World::new(peers(40), &settings());
        world.up = (1..4).chain([30]).map(|i| format!("p{i}")).collect();
        // The first one met tells of nearly all others.
        world.tells = (2..30).chain(33..40).map(|i| format!("p{i}")).collect();
        assert!(world.run(20));
        let dials = |name: &str| world.names().iter().filter(|dialled| **dialled == name).count();
        for name in ["p1", "p2", "p3", "p30"] {
            assert_eq!(dials(name), 1, "{name}");
        }
        for name in ["p0", "p31", "p32"] {
            assert!(dials(name) > 1, "{name}");
        }
        let all: BTreeSet<&str> = world.names().into_iter().collect();
        // Dials may be under way when the third one answers.
        assert!(all.len() < 7 + AT_ONCE && !all.contains("-"), "{all:?}");
        // Then they are members that have failed.
        assert!(!world.run(60));
    }

    #[test]
    fn company_that_comes_and_goes_is_noticed_soon() {
        let mut world = World::new(peers(4), &settings());
        assert!(world.run(40));
        let before = world.seen.len();
        world.company = true;
        world.known.extend(["p1", "p2"].map(str::to_string));
        let came = world.now;
        assert!(world.run(10));
        let since = &world.seen[before..];
        assert!(since[0].0.since(came) < Duration::from_secs(2));
        assert!(
            since
                .iter()
                .all(|(_, name)| ["p0", "p3"].contains(&name.as_str())),
            "{since:?}"
        );
        // There is no hurry meanwhile.
        assert!(since.len() <= 10, "{since:?}");
        world.company = false;
        let alone = world.seen.len();
        assert!(world.run(15));
        let soon = &world.names()[alone..];
        assert!(soon.len() >= 7 && soon.contains(&"-"), "{soon:?}");
    }

    #[test]
    fn a_lonely_node_never_gives_up() {
        let mut world = World::new(peers(3), &settings());
        assert!(world.run(7 * 24 * 3600));
        let last = world.seen.last().unwrap().0;
        assert!(world.now.since(last) < 2 * LONGEST_PAUSE, "{last:?}");
    }

    #[test]
    fn who_is_somebody_else_by_now_is_not_dialled_again() {
        let mut world = World::new(peers(1), &settings());
        world.up = ["p0".to_string()].into();
        assert!(!world.run(10));
        assert_eq!(world.names(), ["p0"]);
        let mut none = World::new(peers(0), &settings());
        assert!(!none.run(1));
    }

    #[test]
    fn only_those_that_were_there_are_looked_for() {
        use MemberStatus::*;
        let members = [Alive, Leaving, Left, Failed].map(|status| MemberRecord {
            facts: Arc::new(fyrd_core::swim::members::Facts {
                name: status.as_str().into(),
                addr: RawAddr::V4([10, 0, 0, 1]),
                port: 7946,
                meta: Box::default(),
                vsn: [0; 6],
            }),
            incarnation: 1,
            status,
            status_ltime: 1,
            since: Time::from_nanos(5),
        });
        let there = Peer {
            name: "alive".into(),
            addr: SocketAddr::from(([10, 0, 0, 1], 7946)),
            heard: Time::from_nanos(5),
        };
        assert_eq!(Peer::of(&members), [there]);
    }

    /// A node of its own on a free port, running.
    async fn node(name: &str) -> (Handle, SocketAddr) {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = sockets.local_addr();
        let node = NodeConfig::new(name, addr, Profile::builtin("local").unwrap(), 3);
        let config = DriverConfig {
            node,
            keyring: None,
            keyring_file: None,
            label: Vec::new(),
            compress: true,
            recorder: None,
        };
        let (driver, handle) = Driver::new(sockets, config).unwrap();
        tokio::task::spawn_local(driver.run());
        (handle, addr)
    }

    /// Runs a test with sockets and a clock.
    fn live(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let patient = async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() };
        tokio::task::LocalSet::new().block_on(&runtime, patient);
    }

    async fn names(handle: &Handle) -> Vec<String> {
        let names = |node: &Node| {
            node.members()
                .iter()
                .map(|member| member.name.to_string())
                .collect()
        };
        handle.read(names).await.unwrap()
    }

    /// Two islands and members that are gone, the nearest island being known as the newest.
    #[test]
    fn islands_are_joined_and_a_leave_ends_the_search() {
        let test = async {
            let ((a, own), (b, to_b), (c, to_c)) = (node("a").await, node("b").await, node("c").await);
            let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let peers = [
                ("b", to_b),
                ("gone1", closed),
                ("gone2", closed),
                ("gone3", closed),
                ("a2", own),
                ("c", to_c),
            ];
            let peers = peers.iter().zip((0..10).rev()).map(|((name, addr), heard)| Peer {
                name: (*name).into(),
                addr: *addr,
                heard: Time::from_nanos(heard),
            });
            let settings = Settings {
                name: "a".to_string(),
                addrs: vec![own],
                ..settings()
            };
            let running = tokio::task::spawn_local(run(a.clone(), peers.collect(), settings));
            for handle in [&a, &b, &c] {
                while names(handle).await != ["a", "b", "c"] {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            // It still looks for those that are gone.
            assert!(!running.is_finished());
            assert_eq!(a.command(Command::Leave).await, Ok(Answer::Done));
            running.await.unwrap();
            for handle in [a, b, c] {
                handle.stop().await;
            }
        };
        live(test);
    }

    /// The first to answer tells of all others, but may have missed the same events.
    #[test]
    fn a_few_peers_are_asked_for_their_state_though_the_first_knows_all() {
        let reached = Lines::with("Re-joined to previously known node");
        let test = async {
            let (a, own) = node("a").await;
            let mut peers = Vec::new();
            let mut others = Vec::new();
            for name in ["b", "c", "d", "e", "f"] {
                let (handle, addr) = node(name).await;
                let targets = others.first().map(|(_, addr)| JoinTarget {
                    name: None,
                    addr: *addr,
                });
                let join = Command::Join {
                    targets: targets.into_iter().collect(),
                    ignore_old: false,
                    announce: false,
                };
                handle.command(join).await.unwrap();
                peers.push(Peer {
                    name: name.into(),
                    addr,
                    heard: Time::ZERO,
                });
                others.push((handle, addr));
            }
            // All are known to those that are asked first.
            for (handle, _) in &others {
                while names(handle).await.len() < others.len() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            let settings = Settings {
                name: "a".to_string(),
                addrs: vec![own],
                ..settings()
            };
            run(a.clone(), peers, settings).await;
            assert_eq!(names(&a).await.len(), 1 + others.len());
            for handle in others.into_iter().map(|(handle, _)| handle).chain([a]) {
                handle.stop().await;
            }
        };
        live(test);
        assert!(reached.count() >= ENOUGH, "{} of 5", reached.count());
    }

    #[test]
    fn who_has_left_stays_away_unless_told_otherwise() {
        let test = async {
            for rejoin_after_leave in [false, true] {
                let ((a, own), (b, to_b)) = (node("a").await, node("b").await);
                let peer = Peer {
                    name: "b".into(),
                    addr: to_b,
                    heard: Time::ZERO,
                };
                let settings = Settings {
                    name: "a".to_string(),
                    addrs: vec![own],
                    left: true,
                    rejoin_after_leave,
                    ..settings()
                };
                run(a.clone(), vec![peer], settings).await;
                let expected: &[&str] = if rejoin_after_leave { &["a", "b"] } else { &["b"] };
                assert_eq!(names(&b).await, expected);
                a.stop().await;
                b.stop().await;
            }
        };
        live(test);
    }
}
