//! Who is dialled without a user's command, when, and how often.
//!
//! After a restart the members of the last run are looked for: a node that is alone goes on for as long as it
//! takes, one with company a little longer, for after a crash of the whole cluster its parts can come together
//! in islands that know nothing of each other. Later the failed members are, until they are forgotten, and for
//! ever the seeds: those whom the user named to join through. What discovery finds is joined as it is found.
//! [`super::targets`] and [`seeds`] hold the rules. Looking names up and asking the network who is there is left to
//! whoever drives the node; when to do it is said here.

mod errors;
mod seeds;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

pub use errors::{join_errors, list_errors};

use super::effect::Effect;
use super::joins::{Purpose, anybody};
use super::targets::{Dial, ENOUGH, Known, Step, Targets, Who};
use super::types::{LookedUp, MemberStatus, Seeds};
use super::{Phase, Serf, Timer};
use crate::swim::delegate::Contact;
use crate::swim::failure::{Cause, Failure};
use crate::time::Time;
use seeds::{SeedStep, SeedWatch};

/// Peers of the last run that fail to answer are told no more often than this.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The dialer.
#[derive(Debug)]
pub(super) struct Dialer {
    targets: Targets,
    seeds: SeedWatch,
    /// When its timer is set for.
    wake: Option<Time>,
    /// When it was told last that no peer of the last run answers.
    reported: Option<Time>,
}

impl Dialer {
    /// A dialer that knows nobody. `reconnect_interval` is the profile's.
    pub fn new(reconnect_interval: Duration, seed: u64) -> Dialer {
        Dialer {
            targets: Targets::new(reconnect_interval, seed),
            seeds: SeedWatch::new(reconnect_interval, seed),
            wake: None,
            reported: None,
        }
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }
}

impl Serf {
    /// The user has named seeds. They are looked after from now on.
    pub fn handle_seeds(&mut self, now: Time, seeds: Seeds) {
        self.dialer.seeds.begin(now, seeds);
        self.dial(now);
    }

    /// Seeds that this node has asked for were looked up.
    pub fn handle_looked_up(&mut self, now: Time, looked_up: Vec<LookedUp>) {
        if self.dialer.seeds.retrying().is_some() {
            self.retry_join(now, looked_up);
        } else {
            let found = looked_up.iter().filter_map(|seed| seed.found.as_ref().ok());
            let addrs: Vec<SocketAddr> = found.flatten().map(|target| target.addr).collect();
            // While a name cannot be looked up, what it meant before counts.
            if looked_up.iter().all(|seed| seed.found.is_ok()) {
                self.dialer.targets.keep_seeds(&addrs);
            }
            let mut missing = false;
            for seed in looked_up {
                missing |= self.look_at_seed(now, seed);
            }
            self.dialer.seeds.look_again(now, missing);
        }
        self.dial(now);
    }

    /// Discovery has found agents at these addresses.
    pub fn handle_discovered(&mut self, now: Time, addrs: &[SocketAddr]) {
        let me = self.config.facts.socket();
        for &addr in addrs.iter().filter(|addr| **addr != me) {
            let is_member = self.member_at(addr).is_some();
            self.dialer.targets.discover(now, addr, is_member);
        }
        self.dial(now);
    }

    /// A node that sees itself alone is pinged by its name. The pinger lists it, so it was a member before this node
    /// was started anew or cut off, and through the pinger it is one again.
    pub(super) fn note_pinger(&mut self, now: Time, name: &str, addr: SocketAddr) {
        if self.here() > 1 || self.phase == Phase::Leaving {
            return;
        }
        let (name, heard) = (Arc::from(name), now);
        self.dialer.targets.knock(Known { name, addr, heard });
        self.dial(now);
    }

    /// The timer of the dialer has come.
    pub(super) fn handle_dial_timer(&mut self, now: Time) {
        self.dialer.wake = self.dialer.wake.filter(|wake| *wake > now);
        self.dial(now);
    }

    /// Gives turns to failed members.
    pub(super) fn reconnect(&mut self, now: Time) {
        self.timers.set(
            now + self.config.profile.serf.reconnect_interval,
            Timer::Reconnect,
        );
        let gone = self.gone_since.iter();
        let failed: Vec<Known> = gone
            .filter_map(|(&id, &since)| {
                let entry = self.members.get(id)?;
                (entry.status == MemberStatus::Failed).then(|| Known {
                    name: Arc::clone(&entry.facts.name),
                    addr: entry.facts.socket(),
                    heard: since,
                })
            })
            .collect();
        if !failed.is_empty() {
            self.dialer.targets.draw_failed(now, &failed, self.here());
            self.dial(now);
        }
    }

    /// Members have come or gone.
    pub(super) fn note_company(&mut self, now: Time) {
        // Who is known by gossip alone has not told what was missed, so somebody must be dialled nevertheless.
        let company = self.merged && self.here() > 1;
        if self.dialer.targets.company(now, company) {
            self.wake_dialer(now);
        }
    }

    /// Begins to look for the members of the last run, unless it ended with a leave that counts.
    pub(super) fn rejoin(&mut self, now: Time) {
        let peers = self.peers();
        if peers.is_empty() || (self.config.left && !self.config.rejoin_after_leave) {
            return;
        }
        if self.config.left {
            info!(target: "serf", "Ignoring previous leave in snapshot");
        }
        self.dialer.targets.look_for(now, peers);
        self.dial(now);
    }

    /// The members that were there at the end of the last run, this node excepted.
    fn peers(&self) -> Vec<Known> {
        let there = self.absent.iter().filter(|record| {
            record.status == MemberStatus::Alive && record.facts.socket() != self.config.facts.socket()
        });
        there
            .map(|record| Known {
                name: Arc::clone(&record.facts.name),
                addr: record.facts.socket(),
                heard: record.since,
            })
            .collect()
    }

    /// How many members are here, this node included.
    fn here(&self) -> usize {
        self.members.len().saturating_sub(self.gone_since.len())
    }

    /// Does all that is due, and sets the timer for what comes next.
    fn dial(&mut self, now: Time) {
        if self.phase == Phase::Leaving {
            self.dialer.targets.clear();
            self.dialer.seeds.clear();
            return;
        }
        let next_look = self.look_up_seeds(now);
        let next_dial = loop {
            let Serf {
                dialer,
                members,
                merged,
                ..
            } = self;
            let enough = dialer.targets.reached() >= ENOUGH;
            let step = dialer.targets.poll(now, |who, dialled| match who {
                // Whoever answers first may have been away as well, so a few are asked what was missed.
                Who::Peer(name) => *merged && (enough || dialled) && members.find(name).is_some(),
                Who::Failed(name) => members
                    .by_name(name)
                    .is_none_or(|entry| entry.status != MemberStatus::Failed),
                Who::Seed(_) | Who::Discovered(_) => false,
            });
            match step {
                Step::Dial(dial) => self.start_dial(dial),
                Step::Wait(next) => break next,
            }
        };
        if let Some(next) = [next_look, next_dial].into_iter().flatten().min() {
            self.wake_dialer(next);
        }
    }

    fn wake_dialer(&mut self, at: Time) {
        if self.dialer.wake.is_none_or(|wake| at < wake) {
            self.dialer.wake = Some(at);
            self.timers.set(at, Timer::Dial);
        }
    }

    /// Asks for the names of the seeds, if it is time; gives the time of the next look.
    fn look_up_seeds(&mut self, now: Time) -> Option<Time> {
        let seeds = &mut self.dialer.seeds;
        match seeds.poll(now) {
            SeedStep::Wait(next) => return next,
            SeedStep::LookUp => {}
            SeedStep::RetryJoin => {
                let replay = self.config.replay;
                info!(target: "agent", "Joining cluster...(replay: {replay})");
                info!(target: "agent", "joining: [{}] replay: {replay}", seeds.names().join(" "));
            }
        }
        self.effects.push_back(Effect::LookUp(seeds.names().to_vec()));
        None
    }

    fn retry_join(&mut self, now: Time, looked_up: Vec<LookedUp>) {
        let me = self.config.facts.socket();
        let found = looked_up.iter().filter_map(|seed| seed.found.as_ref().ok());
        let addrs = found.flatten().map(|target| target.addr);
        // Whoever joins nobody but itself has not joined.
        let others: Vec<Contact> = addrs.filter(|addr| *addr != me).map(anybody).collect();
        if others.is_empty() {
            let itself = [(me, Failure::new(Cause::Local, "that is this node itself"))];
            self.end_retry(now, &looked_up, 0, &itself);
        } else {
            let ignore_old = self.ignores_old(!self.config.replay);
            self.ask_for_join(Purpose::RetryJoin(looked_up), others, ignore_old);
        }
    }

    /// The join that is tried until it works has ended.
    pub(super) fn end_retry(
        &mut self,
        now: Time,
        looked_up: &[LookedUp],
        contacted: usize,
        errors: &[(SocketAddr, Failure)],
    ) {
        if self.phase == Phase::Leaving {
            return;
        }
        if contacted > 0 {
            info!(target: "agent", "joined: {contacted} nodes");
            info!(target: "agent", "Join completed. Synced with {contacted} initial agents");
            self.dialer.seeds.look_again(now, true);
            self.note_joined(now);
            return self.dial(now);
        }
        let reason = list_errors(&join_errors(looked_up, errors));
        warn!(target: "agent", "error joining: {reason}");
        let again = self.dialer.seeds.retry_failed(now);
        self.effects.push_back(Effect::JoinFailed { reason, again });
        self.dial(now);
    }

    /// Each address behind a name is a seed of its own: one that is here does not stand for the others, which may
    /// be on the other side of a partition. Says whether any is missing.
    fn look_at_seed(&mut self, now: Time, seed: LookedUp) -> bool {
        let LookedUp { name, found } = seed;
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                debug!(target: "agent", "Failed to resolve {name}: {reason}");
                return true;
            }
        };
        let me = self.config.facts.socket();
        let mut missing = false;
        for addr in found
            .into_iter()
            .map(|target| target.addr)
            .filter(|addr| *addr != me)
        {
            let member = self.member_at(addr);
            missing |= member.is_none();
            // A name means whoever is behind it now, an address the member that was there.
            let is_address = name.parse::<SocketAddr>().is_ok() || name.parse::<IpAddr>().is_ok();
            self.dialer
                .targets
                .look_at_seed(now, &name, addr, member, is_address);
        }
        missing
    }

    /// Who is at an address, of those that need not be looked for there: the failed are tried again until they are
    /// forgotten. Who has left may come back without a word.
    fn member_at(&self, addr: SocketAddr) -> Option<Arc<str>> {
        let mut members = self.members.values();
        let member = members.find(|entry| entry.facts.socket() == addr && entry.status != MemberStatus::Left);
        member.map(|entry| Arc::clone(&entry.facts.name))
    }

    fn start_dial(&mut self, dial: Dial) {
        let contacts = match &dial {
            Dial::Peer { peer, again } => {
                let Known { name, addr, .. } = peer;
                if *again {
                    debug!(target: "serf", "Attempting re-join to previously known node: {name}: {addr}");
                } else {
                    info!(target: "serf", "Attempting re-join to previously known node: {name}: {addr}");
                }
                vec![peer.contact()]
            }
            Dial::Failed(member) => {
                info!(target: "serf", "attempting reconnect to {} {}", member.name, member.addr);
                vec![member.contact()]
            }
            Dial::Pinger(member) => {
                info!(target: "serf", "Seeing nobody, but pinged by {}; joining it at {}", member.name, member.addr);
                vec![member.contact()]
            }
            Dial::Seed { name, addr, met } => {
                debug!(target: "agent", "{name} is no member, dialling it");
                vec![Contact {
                    addr: *addr,
                    name: met.clone(),
                }]
            }
            Dial::Discovered(addrs) => {
                let shown: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
                let replay = self.config.replay;
                info!(target: "agent", "joining: [{}] replay: {replay}", shown.join(" "));
                addrs.iter().copied().map(anybody).collect()
            }
        };
        let as_the_user = matches!(dial, Dial::Discovered(_)) && !self.config.replay;
        let ignore_old = self.ignores_old(as_the_user);
        self.ask_for_join(Purpose::Dial(dial), contacts, ignore_old);
    }

    /// A dial is over.
    pub(super) fn end_dial(
        &mut self,
        now: Time,
        dial: &Dial,
        contacted: usize,
        errors: &[(SocketAddr, Failure)],
    ) {
        if self.phase == Phase::Leaving {
            return;
        }
        match dial {
            Dial::Peer { peer, .. } if contacted > 0 => {
                info!(target: "serf", "Re-joined to previously known node: {}: {}", peer.name, peer.addr);
            }
            Dial::Peer { peer, .. } => {
                for (addr, reason) in errors {
                    debug!(target: "serf", "Failed to re-join {}: {addr}: {reason}", peer.name);
                }
            }
            Dial::Failed(member) if contacted > 0 => {
                debug!(target: "serf", "reconnected to {} {}", member.name, member.addr);
            }
            Dial::Failed(_) => {}
            Dial::Pinger(member) if contacted > 0 => {
                info!(target: "serf", "Joined {}, which has pinged this node", member.name);
            }
            Dial::Pinger(member) => {
                for (addr, reason) in errors {
                    debug!(target: "serf", "Failed to join {}, which has pinged this node: {addr}: {reason}", member.name);
                }
            }
            Dial::Seed { name, .. } if contacted > 0 => {
                info!(target: "agent", "Joined {name} again, which was no member any more");
            }
            Dial::Seed { .. } => {
                for (addr, reason) in errors {
                    debug!(target: "agent", "Failed to join {addr} again: {reason}");
                }
            }
            Dial::Discovered(_) => self.end_discovered(now, contacted, errors),
        }
        // Somebody else at the address of a seed is tried less and less, silence at each look.
        let counts = |failure: &Failure| !matches!(dial, Dial::Seed { .. }) || failure.reached_nobody();
        let failed = errors.iter().filter(|(_, failure)| counts(failure));
        let failed: Vec<SocketAddr> = failed.map(|(addr, _)| *addr).collect();
        self.dialer.targets.ended(now, dial, &failed);
        if matches!(dial, Dial::Peer { .. }) && contacted == 0 {
            self.report_missing_peers(now);
        }
        self.dial(now);
    }

    fn end_discovered(&mut self, now: Time, contacted: usize, errors: &[(SocketAddr, Failure)]) {
        if contacted > 0 {
            info!(target: "agent", "joined: {contacted} nodes");
            info!(target: "agent.mdns", "Joined {contacted} hosts");
            return self.note_joined(now);
        }
        let errors: Vec<String> = errors
            .iter()
            .map(|(addr, reason)| format!("Failed to join {addr}: {reason}"))
            .collect();
        error!(target: "agent.mdns", "Failed to join: {}", list_errors(&errors));
    }

    fn report_missing_peers(&mut self, now: Time) {
        let is_new = self
            .dialer
            .reported
            .is_none_or(|at| now.since(at) >= REPORT_INTERVAL);
        if self.dialer.targets.has_failed() && is_new {
            self.dialer.reported = Some(now);
            warn!(target: "serf", "Failed to re-join any previously known node");
        }
    }
}
