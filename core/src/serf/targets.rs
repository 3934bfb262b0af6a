//! Whom to dial, in which order, and how often: the rules, without any I/O.
//!
//! Members of the last run and failed members have turns, most recently seen first, a few at a time and with
//! a space between them: a short one while nobody else is here, a long one in company. Seeds and discovered
//! addresses are few and wait for no turn. Whoever does not answer is tried again after longer and longer
//! pauses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::bounds::{DISCOVERED_AT_ONCE, MAX_DISCOVERED, MAX_RECONNECTS};
use crate::swim::delegate::Contact;
use crate::time::Time;

/// Turns that are taken at the same time.
const AT_ONCE: usize = 3;

/// So many peers of the last run are asked for their whole state, even if all are members by then: whoever
/// answers first may have been away as well.
pub const ENOUGH: usize = 3;

/// The first turn waits for up to this long, so that hosts that start together do not dial together.
const START_JITTER: Duration = Duration::from_millis(200);

/// Longest space between two turns of a node that is alone; half of it on average.
const ALONE_SPACING: Duration = Duration::from_millis(50);

/// The same for a node that has company, and no hurry.
const COMPANY_SPACING: Duration = Duration::from_secs(1);

/// Pauses of peers of the last run. Half a minute bounds how long the first of them that is back is missed.
const PEER_PACE: Pace = Pace {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// Pauses between dials of those who ping. They go on to ping, so whoever is alone is joined soon once it can be.
const PINGER_PACE: Pace = Pace {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(8),
};

/// Pauses of addresses that were discovered and are no members. They are heard of again each minute, and dialled only
/// then; the first pause ends before that at any jitter.
const DISCOVERED_PACE: Pace = Pace {
    first: Duration::from_secs(45),
    longest: Duration::from_secs(64 * 60),
};

/// Pauses of seeds, in reconnect intervals.
const SEED_PAUSES: (u32, u32) = (2, 16);

/// What was discovered is joined together once no more was heard of for so long, ...
const QUIET_TIME: Duration = Duration::from_millis(100);

/// ... but no later than this after the first of it.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// A member of the last run, or one that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: Arc<str>,
    /// Where it was.
    pub addr: SocketAddr,
    /// When it was heard of last, on any clock that all share.
    pub heard: Time,
}

impl Known {
    /// How it is contacted: nobody but itself will do, for its address may be another cluster's by now.
    pub fn contact(&self) -> Contact {
        Contact {
            addr: self.addr,
            name: Some(Arc::clone(&self.name)),
        }
    }
}

/// Who has turns, or pauses between tries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A member of the last run that has not been met since.
    Peer(Arc<str>),
    /// A failed member.
    Failed(Arc<str>),
    /// An address of a seed.
    Seed(SocketAddr),
    /// An address where discovery has found an agent.
    Discovered(SocketAddr),
}

/// An attempt to join somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// A member of the last run.
    Peer {
        /// Whom.
        peer: Known,
        /// Whether it was dialled before.
        again: bool,
    },
    /// A failed member.
    Failed(Known),
    /// Somebody who pings this node, which sees nobody.
    Pinger(Known),
    /// A seed that is no member.
    Seed {
        /// As the user named it.
        name: Arc<str>,
        /// Where it is.
        addr: SocketAddr,
        /// Who was there, if anybody was and nobody else will do.
        met: Option<Arc<str>>,
    },
    /// What discovery has found.
    Discovered(Vec<SocketAddr>),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Dial, and tell by [`Targets::ended`] how that went.
    Dial(Dial),
    /// Nothing before this time, unless a dial ends earlier; `None`: nothing at all.
    Wait(Option<Time>),
}

/// Everybody who is dialled by the node itself.
#[derive(Debug)]
pub struct Targets {
    targets: BTreeMap<Who, Target>,
    /// Who waits for a turn.
    turns: BTreeSet<Turn>,
    /// How many turns are being taken.
    turns_taken: usize,
    /// Not before this time comes the next turn.
    next_turn: Time,
    /// Dials that wait for no turn.
    ready: VecDeque<Dial>,
    gathered: Gathered,
    pinger: Pinger,
    /// Whether nobody else is here.
    alone: bool,
    /// Peers that have not had their first answer or failure.
    untried: usize,
    /// How many peers have answered.
    reached: usize,
    seed_pace: Pace,
    rng: Xoshiro256PlusPlus,
}

/// One of them.
#[derive(Debug)]
struct Target {
    addr: Option<SocketAddr>,
    heard: Time,
    /// Whether it was dialled before.
    dialled: bool,
    /// Failures that count for the next pause.
    failures: u32,
    /// Who was there, if nobody else will do.
    met: Option<Arc<str>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for its turn, which comes no earlier than this.
    Waiting(Time),
    Dialling,
    /// Is dialled again when it is heard of at this time or later.
    Resting(Time),
}

/// Its place in the order of turns: when it is due, then when it was heard of.
type Turn = (Time, Reverse<Time>, Who);

/// Discovered addresses that will be joined together.
#[derive(Debug, Default)]
struct Gathered {
    addrs: BTreeSet<SocketAddr>,
    first: Time,
    last: Time,
    /// Whether others are being joined.
    joining: bool,
}

/// Those who ping a node that sees nobody. One of them is dialled at a time, whoever pings next.
#[derive(Debug, Default)]
struct Pinger {
    dialling: bool,
    /// Dials in a row after which the node was still alone.
    failures: u32,
    /// Not before this time comes the next dial.
    next: Time,
}

/// The pauses after failures in a row.
#[derive(Clone, Copy, Debug)]
struct Pace {
    first: Duration,
    longest: Duration,
}

impl Pace {
    /// The pause after so many failures, before jitter.
    fn pause(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

impl Targets {
    /// Nobody yet, for a node that is alone. `reconnect_interval` is the profile's.
    pub fn new(reconnect_interval: Duration, seed: u64) -> Targets {
        let (first, longest) = SEED_PAUSES;
        Targets {
            targets: BTreeMap::new(),
            turns: BTreeSet::new(),
            turns_taken: 0,
            next_turn: Time::ZERO,
            ready: VecDeque::new(),
            gathered: Gathered::default(),
            pinger: Pinger::default(),
            alone: true,
            untried: 0,
            reached: 0,
            seed_pace: Pace {
                first: reconnect_interval * first,
                longest: reconnect_interval * longest,
            },
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// Looks for the peers of the last run, at the start of a node.
    pub fn look_for(&mut self, now: Time, peers: Vec<Known>) {
        let due = now + START_JITTER.mul_f64(self.rng.random());
        for Known { name, addr, heard } in peers {
            self.insert(Who::Peer(name), addr, heard, due);
        }
        self.untried = self.targets.len();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.targets.len() + self.ready.len() + self.gathered.addrs.len()
    }

    /// How many peers of the last run have answered.
    pub fn reached(&self) -> usize {
        self.reached
    }

    /// Whether the node is alone although every peer of the last run has failed to answer.
    pub fn has_failed(&self) -> bool {
        self.alone && self.untried == 0
    }

    /// Whether the node has company, which changes the order of turns each time it comes or goes: the next
    /// turns come soon.
    pub fn company(&mut self, now: Time, company: bool) -> bool {
        if self.alone != company {
            return false;
        }
        self.alone = !company;
        self.pinger.failures = 0;
        let soon = now + self.jittered(PEER_PACE.first);
        self.turns.clear();
        for (who, target) in &mut self.targets {
            if let State::Waiting(due) = target.state {
                target.failures = 0;
                target.state = State::Waiting(due.min(soon));
                self.turns
                    .insert((due.min(soon), Reverse(target.heard), who.clone()));
            }
        }
        true
    }

    /// Gives turns to some of the failed members. On average each is tried once an interval by the living
    /// together, of whom `here` are: a few of them do not spend their time on the dead, and many that come back
    /// at once after a long partition are all found soon.
    pub fn draw_failed(&mut self, now: Time, failed: &[Known], here: usize) {
        let share = failed.len() as f64 / here.max(1) as f64;
        let one_more = self.rng.random::<f64>() < share.fract();
        let waiting = self
            .targets
            .keys()
            .filter(|who| matches!(who, Who::Failed(_)))
            .count();
        let tries = (share as usize + usize::from(one_more)).min(MAX_RECONNECTS.saturating_sub(waiting));
        let drawn: Vec<Known> = failed.sample(&mut self.rng, tries).cloned().collect();
        for Known { name, addr, heard } in drawn {
            let who = Who::Failed(name);
            if !self.targets.contains_key(&who) {
                self.insert(who, addr, heard, now);
            }
        }
    }

    /// A seed was looked up. `member` is who is there, `by_address` whether the user named the address itself.
    pub fn look_at_seed(
        &mut self,
        now: Time,
        name: &Arc<str>,
        addr: SocketAddr,
        member: Option<Arc<str>>,
        by_address: bool,
    ) {
        let who = Who::Seed(addr);
        let target = self.targets.entry(who).or_insert_with(|| Target::new(now, now));
        if let Some(member) = member {
            // Its pauses begin anew when it is missed again.
            target.failures = 0;
            target.state = State::Resting(now);
            target.met = by_address.then_some(member);
        } else if matches!(target.state, State::Resting(until) if until <= now) {
            target.state = State::Dialling;
            let (name, met) = (Arc::clone(name), target.met.clone());
            self.ready.push_back(Dial::Seed { name, addr, met });
        }
    }

    /// Somebody pings this node, which sees nobody.
    pub fn knock(&mut self, by: Known) {
        if !self.pinger.dialling && self.pinger.next <= by.heard {
            self.pinger.dialling = true;
            self.ready.push_back(Dial::Pinger(by));
        }
    }

    /// Forgets the addresses of seeds that are none of these: what a name means changes.
    pub fn keep_seeds(&mut self, addrs: &[SocketAddr]) {
        self.targets
            .retain(|who, _| !matches!(who, Who::Seed(addr) if !addrs.contains(addr)));
    }

    /// Discovery has found an agent there, which is a member or not.
    pub fn discover(&mut self, now: Time, addr: SocketAddr, is_member: bool) {
        if is_member && let Some(target) = self.targets.get_mut(&Who::Discovered(addr)) {
            if let State::Resting(_) = target.state {
                // Its pauses begin anew when it is missed again.
                target.failures = 0;
                target.state = State::Resting(now);
            }
            return;
        }
        if !self.is_wanted(now, addr) || self.gathered.addrs.len() >= DISCOVERED_AT_ONCE {
            return;
        }
        let gathered = &mut self.gathered;
        if gathered.addrs.is_empty() {
            gathered.first = now;
        }
        if gathered.addrs.insert(addr) {
            gathered.last = now;
        }
    }

    /// What to do now. Whoever is `done` gives up its turn: it is told whether it was dialled before.
    pub fn poll(&mut self, now: Time, is_done: impl Fn(&Who, bool) -> bool) -> Step {
        if let Some(dial) = self.ready.pop_front() {
            return Step::Dial(dial);
        }
        if self.gathered.due().is_some_and(|due| due <= now) {
            let mut addrs: Vec<SocketAddr> = std::mem::take(&mut self.gathered.addrs).into_iter().collect();
            // Some may have been heard of again while they were being joined.
            addrs.retain(|addr| self.is_wanted(now, *addr));
            if !addrs.is_empty() {
                self.gathered.joining = true;
                return Step::Dial(Dial::Discovered(addrs));
            }
        }
        while let Some(due) = self.next_turn()
            && due <= now
            && let Some((_, _, who)) = self.turns.pop_first()
        {
            let dialled = self.targets.get(&who).is_some_and(|target| target.dialled);
            if is_done(&who, dialled) {
                self.forget(&who);
            } else if let Some(dial) = self.take_turn(now, who) {
                return Step::Dial(dial);
            }
        }
        let times = [self.next_turn(), self.gathered.due()];
        Step::Wait(times.into_iter().flatten().min())
    }

    /// A dial is over; these of its addresses have not answered.
    pub fn ended(&mut self, now: Time, dial: &Dial, failed: &[SocketAddr]) {
        match dial {
            Dial::Peer { peer, .. } => {
                let who = Who::Peer(Arc::clone(&peer.name));
                self.turns_taken -= 1;
                if failed.is_empty() {
                    // If it was not the peer that answered, the peer is no longer there.
                    self.reached += 1;
                    return self.forget(&who);
                }
                // A round of all turns lies between two tries as well.
                let round = ALONE_SPACING.mul_f64(0.5) * u32::try_from(self.turns.len()).unwrap_or(u32::MAX);
                let Some(target) = self.targets.get_mut(&who) else {
                    return;
                };
                self.untried -= usize::from(!std::mem::replace(&mut target.dialled, true));
                target.failures += 1;
                let pause = PEER_PACE.pause(target.failures);
                let due = now + round + self.jittered(pause);
                self.wait(who, due);
            }
            Dial::Failed(member) => {
                self.turns_taken -= 1;
                self.targets.remove(&Who::Failed(Arc::clone(&member.name)));
            }
            Dial::Pinger(_) => {
                let pause = PINGER_PACE.pause(self.pinger.failures + 1);
                self.pinger = Pinger {
                    dialling: false,
                    failures: self.pinger.failures + 1,
                    next: now + self.jittered(pause),
                };
            }
            // Silence costs little, so a seed is tried at each look until it answers. One whose member announces
            // another address answers each time, and costs a push/pull.
            Dial::Seed { addr, .. } if failed.is_empty() => self.rest(now, &Who::Seed(*addr), self.seed_pace),
            Dial::Seed { addr, .. } => {
                if let Some(target) = self.targets.get_mut(&Who::Seed(*addr)) {
                    target.state = State::Resting(now);
                }
            }
            Dial::Discovered(addrs) => {
                self.gathered.joining = false;
                for addr in addrs {
                    self.end_discovered(now, *addr);
                }
            }
        }
    }

    /// Nobody is dialled any more.
    pub fn clear(&mut self) {
        self.targets.clear();
        self.turns.clear();
        self.ready.clear();
        self.gathered.addrs.clear();
    }

    /// Whether a discovered address is to be joined.
    fn is_wanted(&self, now: Time, addr: SocketAddr) -> bool {
        match self.targets.get(&Who::Discovered(addr)) {
            None => true,
            Some(target) => matches!(target.state, State::Resting(until) if until <= now),
        }
    }

    fn insert(&mut self, who: Who, addr: SocketAddr, heard: Time, due: Time) {
        let target = Target {
            addr: Some(addr),
            ..Target::new(heard, due)
        };
        self.targets.insert(who.clone(), target);
        self.wait(who, due);
    }

    fn wait(&mut self, who: Who, due: Time) {
        if let Some(target) = self.targets.get_mut(&who) {
            target.state = State::Waiting(due);
            self.turns.insert((due, Reverse(target.heard), who));
        }
    }

    fn forget(&mut self, who: &Who) {
        if let (Who::Peer(_), Some(target)) = (who, self.targets.remove(who)) {
            self.untried -= usize::from(!target.dialled);
        }
    }

    /// When somebody has the next turn; `None` if nobody waits, or a turn has to end first.
    fn next_turn(&self) -> Option<Time> {
        let (due, ..) = self.turns.first().filter(|_| self.turns_taken < AT_ONCE)?;
        Some(self.next_turn.max(*due))
    }

    fn take_turn(&mut self, now: Time, who: Who) -> Option<Dial> {
        let target = self.targets.get_mut(&who)?;
        target.state = State::Dialling;
        let known = |name| {
            Some(Known {
                name,
                addr: target.addr?,
                heard: target.heard,
            })
        };
        let dial = match who {
            Who::Peer(name) => Dial::Peer {
                peer: known(name)?,
                again: target.dialled,
            },
            Who::Failed(name) => Dial::Failed(known(name)?),
            Who::Seed(_) | Who::Discovered(_) => return None,
        };
        self.turns_taken += 1;
        let spacing = if self.alone {
            ALONE_SPACING
        } else {
            COMPANY_SPACING
        };
        self.next_turn = now + spacing.mul_f64(self.rng.random());
        Some(dial)
    }

    /// Adds a failure, and keeps the target from being dialled for a while.
    fn rest(&mut self, now: Time, who: &Who, pace: Pace) {
        let jitter = self.jitter();
        if let Some(target) = self.targets.get_mut(who) {
            target.failures += 1;
            target.state = State::Resting(now + pace.pause(target.failures).mul_f64(jitter));
        }
    }

    fn end_discovered(&mut self, now: Time, addr: SocketAddr) {
        let who = Who::Discovered(addr);
        if !self.targets.contains_key(&who) {
            let discovered = |who: &&Who| matches!(who, Who::Discovered(_));
            if self.targets.keys().filter(discovered).count() >= MAX_DISCOVERED {
                return;
            }
            self.targets.insert(who.clone(), Target::new(now, now));
        }
        // Looking after members is the gossip's work. Who answers and is none costs a push/pull each time.
        self.rest(now, &who, DISCOVERED_PACE);
    }

    /// A quarter more or less.
    fn jittered(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(self.jitter())
    }

    fn jitter(&mut self) -> f64 {
        self.rng.random_range(0.75..1.25)
    }
}

impl Target {
    fn new(heard: Time, due: Time) -> Target {
        Target {
            addr: None,
            heard,
            dialled: false,
            failures: 0,
            met: None,
            state: State::Resting(due),
        }
    }
}

impl Gathered {
    /// When they are joined.
    fn due(&self) -> Option<Time> {
        let due = (self.first + GATHER_TIME).min(self.last + QUIET_TIME);
        (!self.addrs.is_empty() && !self.joining).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIAL: Duration = Duration::from_millis(100);

    const INTERVAL: Duration = Duration::from_secs(30);

    /// How long after its first company a node lists those whom it has not met as failed.
    const UNTIL_LISTED: Duration = Duration::from_secs(30);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn addr(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 1000 + number))
    }

    /// Peers p0, p1, ...; the first was heard of last.
    fn peers(count: usize) -> Vec<Known> {
        let peer = |i: usize| Known {
            name: format!("p{i}").into(),
            addr: addr(i as u16),
            heard: Time::from_nanos(1000 - i as u64),
        };
        // In no order.
        (0..count).rev().map(peer).collect()
    }

    fn targets(peers: Vec<Known>, seed: u64) -> Targets {
        let mut targets = Targets::new(INTERVAL, seed);
        targets.look_for(Time::ZERO, peers);
        targets
    }

    /// A node's targets in a world in which each dial takes a while, and reaches those that are up.
    struct World {
        targets: Targets,
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
        dials: BTreeMap<Time, Dial>,
        /// What was dialled when.
        seen: Vec<(Time, String)>,
        most_at_once: usize,
    }

    impl World {
        fn new(peers: Vec<Known>, seed: u64) -> World {
            World {
                all: peers.iter().map(|peer| peer.name.to_string()).collect(),
                listed_at: None,
                targets: targets(peers, seed),
                now: Time::ZERO,
                up: BTreeSet::new(),
                known: BTreeSet::new(),
                tells: BTreeSet::new(),
                company: false,
                dials: BTreeMap::new(),
                seen: Vec::new(),
                most_at_once: 0,
            }
        }

        /// Runs for so long; whether somebody is still to be dialled.
        fn run(&mut self, seconds: u64) -> bool {
            let end = self.now + secs(seconds);
            while self.now < end {
                self.targets.company(self.now, self.company);
                if self.company && self.now >= *self.listed_at.get_or_insert(self.now + UNTIL_LISTED) {
                    self.known.extend(self.all.iter().cloned());
                }
                let (known, enough) = (&self.known, self.targets.reached() >= ENOUGH);
                let step = self.targets.poll(self.now, |who, dialled| {
                    let Who::Peer(name) = who else { return false };
                    (enough || dialled) && known.contains(&**name)
                });
                match step {
                    Step::Dial(dial) => self.dial(dial),
                    Step::Wait(until) => {
                        let ends = self.dials.keys().next().copied();
                        let Some(wake) = [until, ends].into_iter().flatten().min() else {
                            return false;
                        };
                        // Rules that ask for the present again would never let the node go.
                        assert!(wake > self.now || ends == Some(wake));
                        self.now = wake;
                        if ends == Some(wake) {
                            self.end_dial();
                        }
                    }
                }
            }
            true
        }

        fn dial(&mut self, dial: Dial) {
            let Dial::Peer { peer, again } = &dial else {
                panic!("{dial:?}")
            };
            let before = self.seen.iter().any(|(_, name)| **name == *peer.name);
            assert_eq!(*again, before);
            self.seen.push((self.now, peer.name.to_string()));
            self.dials.insert(self.now + DIAL, dial);
            self.most_at_once = self.most_at_once.max(self.dials.len());
        }

        fn end_dial(&mut self) {
            let (_, dial) = self.dials.pop_first().unwrap();
            let Dial::Peer { peer, .. } = &dial else {
                panic!("{dial:?}")
            };
            let answers = self.up.contains(&*peer.name);
            let failed = if answers { vec![] } else { vec![peer.addr] };
            if answers {
                self.known.insert(peer.name.to_string());
                self.known.append(&mut self.tells);
                self.company = true;
            }
            self.targets.ended(self.now, &dial, &failed);
        }

        fn names(&self) -> Vec<&str> {
            self.seen.iter().map(|(_, name)| name.as_str()).collect()
        }

        /// The times between two dials of one peer, in seconds.
        fn pauses(&self, peer: &str) -> Vec<f64> {
            let mine = self.seen.iter().filter(|(_, name)| name == peer);
            let dials: Vec<Time> = mine.map(|(at, _)| *at).collect();
            dials
                .windows(2)
                .map(|pair| pair[1].since(pair[0]).as_secs_f64())
                .collect()
        }
    }

    #[test]
    fn an_alone_node_tries_all_again_with_growing_pauses() {
        let mut world = World::new(peers(5), 7);
        assert!(!world.targets.has_failed());
        assert!(world.run(180));
        assert_eq!(world.names()[..5], ["p0", "p1", "p2", "p3", "p4"]);
        assert_eq!(world.most_at_once, AT_ONCE);
        assert!(world.targets.has_failed());
        for peer in ["p0", "p1", "p2", "p3", "p4"] {
            let pauses = world.pauses(peer);
            assert!(pauses.len() >= 7, "{pauses:?}");
            for (pause, wanted) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
                // A dial, and the turns of the others, come on top.
                let range = 0.75 * wanted..=1.25 * wanted + 0.8;
                assert!(range.contains(pause), "{pauses:?}");
            }
        }
        // Two nodes that start together do not dial together.
        let mut other = World::new(peers(5), 8);
        other.run(180);
        assert_ne!(world.seen[0].0, other.seen[0].0);
        assert_ne!(world.pauses("p0"), other.pauses("p0"));
    }

    /// However many there are, a node that is alone dials no more often than its turns allow, and all in turn.
    #[test]
    fn a_thousand_peers_have_turns_one_after_the_other() {
        let mut world = World::new(peers(1000), 7);
        assert!(world.run(600));
        assert!(world.most_at_once <= AT_ONCE);
        let dials = |peer: &str| world.pauses(peer).len();
        let (most, fewest) = (0..1000).fold((0, usize::MAX), |(most, fewest), i| {
            let count = dials(&format!("p{i}"));
            (most.max(count), fewest.min(count))
        });
        assert!(fewest >= 5 && most <= fewest + 4, "{fewest} to {most}");
    }

    #[test]
    fn three_are_asked_and_then_only_those_of_whom_nobody_knows() {
        let mut world = World::new(peers(40), 7);
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
        assert!(all.len() < 7 + AT_ONCE, "{all:?}");
        assert!(!world.targets.has_failed());
        // Then they are members that have failed.
        assert!(!world.run(60));
    }

    #[test]
    fn company_that_comes_and_goes_is_noticed_soon() {
        let mut world = World::new(peers(4), 7);
        assert!(world.run(40));
        let before = world.seen.len();
        world.company = true;
        world.known.extend(["p1", "p2"].map(str::to_string));
        let came = world.now;
        assert!(world.run(10));
        let since = &world.seen[before..];
        assert!(since[0].0.since(came) < secs(2));
        assert!(
            since
                .iter()
                .all(|(_, name)| ["p0", "p3"].contains(&name.as_str())),
            "{since:?}"
        );
        // There is no hurry meanwhile.
        assert!(since.len() <= 10, "{since:?}");
        world.company = false;
        world.known.clear();
        let alone = world.seen.len();
        assert!(world.run(15));
        let soon = &world.names()[alone..];
        assert!(soon.len() >= 6 && world.targets.has_failed(), "{soon:?}");
    }

    #[test]
    fn a_lonely_node_never_gives_up() {
        let mut world = World::new(peers(3), 7);
        assert!(world.run(7 * 24 * 3600));
        let last = world.seen.last().unwrap().0;
        assert!(world.now.since(last) < 2 * PEER_PACE.longest, "{last:?}");
    }

    #[test]
    fn who_is_somebody_else_by_now_is_not_dialled_again() {
        let mut world = World::new(peers(1), 7);
        world.up = ["p0".to_string()].into();
        assert!(!world.run(10));
        assert_eq!(world.names(), ["p0"]);
        let mut none = World::new(peers(0), 7);
        assert!(!none.run(1));
    }

    /// Discovery hears of all agents once a minute.
    #[test]
    fn members_are_left_alone_and_others_tried_less_and_less() {
        let mut targets = targets(Vec::new(), 7);
        let nobody = |_: &Who, _| false;
        let (fails, answers, member) = (addr(1), addr(2), addr(3));
        let mut dials = BTreeMap::from([fails, answers, member].map(|addr| (addr, Vec::new())));
        for round in 0..300 {
            let now = Time::ZERO + secs(60 * round);
            targets.discover(now, fails, false);
            // One that answers, and announces another address than discovery has found.
            targets.discover(now, answers, false);
            // One is found before it is a member, and is forgotten for two minutes.
            let is_member = round > 0 && !(200..202).contains(&round);
            targets.discover(now, member, is_member);
            let now = now + GATHER_TIME;
            while let Step::Dial(dial) = targets.poll(now, nobody) {
                let Dial::Discovered(addrs) = &dial else {
                    panic!("{dial:?}")
                };
                for addr in addrs {
                    dials.get_mut(addr).unwrap().push(round);
                }
                targets.ended(now, &dial, &[fails]);
            }
        }
        assert_eq!(dials[&member], [0, 200, 201]);
        for addr in [fails, answers] {
            let rounds = &dials[&addr];
            assert_eq!(rounds[..2], [0, 1]);
            let pauses: Vec<u64> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
            for (pause, longest) in pauses.iter().zip([1, 2, 4, 8, 15, 30, 60, 80, 80]) {
                assert!(*pause <= longest && *pause >= longest / 2, "{rounds:?}");
            }
            assert!(rounds.len() <= 13, "{rounds:?}");
        }
    }

    #[test]
    fn the_discovered_are_joined_together_and_nobody_twice_at_a_time() {
        let mut targets = targets(Vec::new(), 7);
        let nobody = |_: &Who, _| false;
        let start = Time::ZERO + secs(1);
        let ms = |ms| start + Duration::from_millis(ms);
        for i in 0..3 {
            targets.discover(ms(50 * i), addr(i as u16), false);
        }
        assert_eq!(targets.poll(ms(150), nobody), Step::Wait(Some(ms(200))));
        let dial = Dial::Discovered((0..3).map(addr).collect());
        assert_eq!(targets.poll(ms(200), nobody), Step::Dial(dial.clone()));
        // Heard of again, together with another one, before the join is over.
        targets.discover(ms(210), addr(1), false);
        targets.discover(ms(210), addr(9), false);
        assert_eq!(targets.poll(ms(900), nobody), Step::Wait(None));
        targets.ended(ms(900), &dial, &[]);
        let later = Dial::Discovered(vec![addr(9)]);
        assert_eq!(targets.poll(ms(900), nobody), Step::Dial(later.clone()));
        targets.ended(ms(901), &later, &[]);
        // Those that keep answering do not put the others off for ever, nor are there more than may be.
        for i in 0..2000 {
            targets.discover(ms(1000 + i), addr(100 + i as u16), false);
        }
        let Step::Dial(Dial::Discovered(addrs)) = targets.poll(ms(2000), nobody) else {
            panic!("they are not joined")
        };
        assert_eq!(addrs.len(), DISCOVERED_AT_ONCE);
    }

    #[test]
    fn a_seed_that_is_silent_is_dialled_at_each_look_and_one_that_answers_less_and_less() {
        let name: Arc<str> = "seed".into();
        for (failed, pauses) in [(&[addr(1)][..], [1; 6]), (&[], [2, 4, 8, 16, 16, 16])] {
            let mut targets = targets(Vec::new(), 7);
            let mut look = |look: u32, member: Option<&str>| {
                let now = Time::ZERO + INTERVAL * look;
                targets.look_at_seed(now, &name, addr(1), member.map(Arc::from), false);
                match targets.poll(now, |_, _| false) {
                    Step::Dial(dial) => {
                        targets.ended(now, &dial, failed);
                        true
                    }
                    Step::Wait(_) => false,
                }
            };
            let dialled: Vec<u32> = (0..100).filter(|number| look(*number, None)).collect();
            assert_eq!(dialled[0], 0);
            let found = dialled.windows(2).map(|pair| pair[1] - pair[0]);
            for (pause, wanted) in found.zip(pauses) {
                assert!(
                    (wanted * 3 / 4..=wanted * 5 / 4 + 1).contains(&pause),
                    "{dialled:?}"
                );
            }
            assert!(!look(100, Some("n")));
            assert!(look(101, None), "it is no member any more");
        }
    }

    #[test]
    fn an_address_means_the_member_that_was_there_and_a_name_whoever_is_behind_it() {
        let name: Arc<str> = "seed".into();
        for (by_address, expected) in [(true, Some(Arc::from("n"))), (false, None)] {
            let mut targets = targets(Vec::new(), 7);
            let mut dialled = |at, member: Option<&str>| {
                targets.look_at_seed(at, &name, addr(1), member.map(Arc::from), by_address);
                match targets.poll(at, |_, _| false) {
                    Step::Dial(dial) => {
                        targets.ended(at, &dial, &[addr(1)]);
                        Some(dial)
                    }
                    Step::Wait(_) => None,
                }
            };
            let dial = |met| {
                Some(Dial::Seed {
                    name: Arc::clone(&name),
                    addr: addr(1),
                    met,
                })
            };
            assert_eq!(dialled(Time::ZERO, None), dial(None), "before anybody was there");
            assert_eq!(dialled(Time::ZERO + INTERVAL, Some("n")), None);
            assert_eq!(dialled(Time::ZERO + INTERVAL * 2, None), dial(expected));
        }
    }

    #[test]
    fn addresses_that_a_name_has_no_more_are_forgotten() {
        let mut targets = targets(Vec::new(), 7);
        let name: Arc<str> = "seed".into();
        for number in 0..100 {
            targets.look_at_seed(Time::ZERO, &name, addr(number), Some("n".into()), false);
            targets.keep_seeds(&[addr(number)]);
            assert_eq!(targets.len(), 1);
        }
    }

    #[test]
    fn each_failed_member_is_tried_once_an_interval_by_the_living_together() {
        let nobody = |_: &Who, _| false;
        for (failed, here, expected) in [(2, 4, 500), (4, 2, 2000), (3, 3, 1000), (100, 2, 8000)] {
            let mut targets = targets(Vec::new(), 7);
            targets.company(Time::ZERO, true);
            let failed = peers(failed);
            let mut dials = 0;
            for draw in 0..1000 {
                let mut now = Time::ZERO + INTERVAL * draw;
                targets.draw_failed(now, &failed, here);
                loop {
                    match targets.poll(now, nobody) {
                        Step::Dial(dial) => {
                            dials += 1;
                            targets.ended(now, &dial, &[addr(0)]);
                        }
                        Step::Wait(Some(next)) => now = next,
                        Step::Wait(None) => break,
                    }
                }
                assert!(now < Time::ZERO + INTERVAL * (draw + 1), "one interval's turns");
            }
            let near = expected * 9 / 10..=expected * 11 / 10;
            assert!(near.contains(&dials), "{dials} of {expected}");
        }
    }
}
