//! What a claim about a node does: the table of protocol.md A17, and refutation (A18).

use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::Swim;
use super::Timer;
use super::members::{Facts, Record, State};
use super::queue::{Subject, Token};
use super::suspicion::Suspicion;
use super::upper::Upper;
use super::version;
use crate::addr::RawAddr;
use crate::bounds::{MAX_INCARNATION, MAX_INCARNATION_STEP, MAX_MEMBERS};
use crate::names::Id;
use crate::swim::formulas::{expected_confirmations, suspicion_bounds};
use crate::time::Time;
use crate::wire::message::{Alive, Dead, Suspect};

impl Swim {
    pub(super) fn handle_alive(&mut self, now: Time, alive: &Alive<'_>, upper: &mut impl Upper) {
        if self.leaving && self.is_me(alive.node) {
            return;
        }
        let Some(claim) = self.read_claim(alive) else {
            return;
        };
        match self.members.find(claim.name) {
            Some(id) => self.alive_known(now, id, &claim, upper),
            None => self.alive_new(now, &claim, upper),
        }
    }

    /// A claim is only taken when it is whole: one listed node whose versions do not fit would make
    /// every later push/pull of this node fail (trap 5).
    fn read_claim<'a>(&mut self, alive: &Alive<'a>) -> Option<Claim<'a>> {
        let addr = RawAddr::from_bytes(alive.addr);
        let vsn: Option<[u8; 6]> = alive.vsn.try_into().ok();
        let ours = self.config.facts.vsn;
        let (Some(addr), Some(vsn)) = (addr, vsn.filter(|vsn| version::understand(&ours, vsn))) else {
            self.refuse(format_args!(
                "an alive message about {} without address, or without versions that we share",
                alive.node
            ));
            return None;
        };
        let port = if alive.port == 0 {
            self.config.bind_port
        } else {
            alive.port
        };
        Some(Claim {
            incarnation: alive.incarnation,
            name: alive.node,
            addr,
            port,
            meta: alive.meta,
            vsn,
        })
    }

    fn alive_new(&mut self, now: Time, claim: &Claim<'_>, upper: &mut impl Upper) {
        let incarnation = claim.incarnation;
        // Incarnation 0 is what a record is created with, so it never brings a node to life.
        if incarnation == 0 || !may_claim(0, incarnation) || self.members.len() >= MAX_MEMBERS {
            self.refused += 1;
            return;
        }
        let place = rand::RngExt::random_range(&mut self.rng, 0..=self.members.len());
        let facts = Arc::new(claim.to_facts());
        let record = Record {
            facts: Arc::clone(&facts),
            incarnation,
            state: State::Alive,
            changed: now,
        };
        self.members.insert(record, place);
        self.broadcast_alive(&facts, incarnation, Subject::Node(Arc::clone(&facts.name)), None);
        upper.member_joined(now, &facts);
    }

    fn alive_known(&mut self, now: Time, id: Id, claim: &Claim<'_>, upper: &mut impl Upper) {
        let Some(record) = self.members.get(id) else {
            return;
        };
        // Old news from where the node is known to be, the commonest claim of all, costs no more than this.
        if id != self.me && claim.incarnation <= record.incarnation && claim.is_from(&record.facts) {
            return;
        }
        let (known, state, incarnation) = (Arc::clone(&record.facts), record.state, claim.incarnation);
        let mut reclaimed = false;
        if known.addr != claim.addr || known.port != claim.port {
            reclaimed = self.may_reclaim(now, record);
            if !reclaimed {
                error!(target: "memberlist", "Conflicting address for {}. Mine: {}:{} Theirs: {}:{} Old state: {:?}",
                    known.name, known.addr, known.port, claim.addr, claim.port, state);
                upper.name_conflict(now, &known, claim.addr, claim.port);
                return;
            }
            info!(target: "memberlist", "Updating address for left or failed node {} from {}:{} to {}:{}",
                known.name, known.addr, known.port, claim.addr, claim.port);
        }
        let current = record.incarnation;
        if id == self.me {
            let same = *known.meta == *claim.meta && known.vsn == claim.vsn;
            if incarnation > current || (incarnation == current && !same) {
                self.refute(incarnation);
            }
            return;
        }
        if !reclaimed && incarnation <= current {
            return;
        }
        if !may_claim(if reclaimed { 0 } else { current }, incarnation) {
            return self.refuse_incarnation(&known.name, current, incarnation);
        }
        self.suspicions.remove(&id);
        let updated = *known.meta != *claim.meta;
        let facts = if claim.says(&known) {
            known
        } else {
            Arc::new(claim.to_facts())
        };
        let Some(record) = self.members.get_mut(id) else {
            return;
        };
        record.facts = Arc::clone(&facts);
        record.incarnation = incarnation;
        if state != State::Alive {
            record.state = State::Alive;
            record.changed = now;
        }
        self.broadcast_alive(&facts, incarnation, Subject::Node(Arc::clone(&facts.name)), None);
        if state.is_gone() {
            upper.member_joined(now, &facts);
        } else if updated {
            upper.member_updated(now, &facts);
        }
    }

    /// A name may come back at another address once its former owner has left, or, if configured,
    /// has been dead for long enough.
    fn may_reclaim(&self, now: Time, record: &Record) -> bool {
        let reclaim = self.config.profile.dead_node_reclaim_time;
        match record.state {
            State::Left => true,
            State::Dead => !reclaim.is_zero() && now.since(record.changed) > reclaim,
            State::Alive | State::Suspect => false,
        }
    }

    fn refuse_incarnation(&mut self, name: &str, current: u32, claimed: u32) {
        self.refuse(format_args!(
            "an incarnation of {claimed} for {name}, of which {current} is known"
        ));
    }

    pub(super) fn suspect(&mut self, now: Time, node: &str, incarnation: u32, from: &str) {
        let Some(id) = self.members.find(node) else { return };
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (current, state) = (record.incarnation, record.state);
        if incarnation < current {
            return;
        }
        if !may_accuse(current, incarnation) {
            return self.refuse_incarnation(node, current, incarnation);
        }
        if let Some(suspicion) = self.suspicions.get_mut(&id) {
            if suspicion.confirm(from) {
                let deadline = suspicion.deadline();
                self.timers.set(deadline, Timer::Suspicion(id));
                self.broadcast_suspect(node, incarnation, from);
            }
            return;
        }
        if state != State::Alive {
            return;
        }
        if id == self.me {
            if !self.leaving {
                warn!(target: "memberlist", "Refuting a suspect message (from: {from})");
                self.refute(incarnation);
            }
            return;
        }
        self.broadcast_suspect(node, incarnation, from);
        self.start_suspicion(now, id, incarnation, from);
    }

    fn start_suspicion(&mut self, now: Time, id: Id, incarnation: u32, from: &str) {
        let (profile, n) = (&self.config.profile, self.members.len());
        let k = expected_confirmations(profile.suspicion_mult, n);
        let (min, max) = suspicion_bounds(
            profile.suspicion_mult,
            profile.suspicion_max_timeout_mult,
            n,
            profile.probe_interval,
        );
        let suspicion = Suspicion::new(now, k, min, max, from);
        self.timers.set(suspicion.deadline(), Timer::Suspicion(id));
        self.suspicions.insert(id, suspicion);
        if let Some(record) = self.members.get_mut(id) {
            record.incarnation = incarnation;
            record.state = State::Suspect;
            record.changed = now;
        }
    }

    pub(super) fn end_suspicion(&mut self, now: Time, id: Id, upper: &mut impl Upper) {
        // A confirmation may have set an earlier deadline, a refutation may have ended it all.
        let Some(suspicion) = self
            .suspicions
            .get(&id)
            .filter(|suspicion| suspicion.deadline() <= now)
        else {
            return;
        };
        let confirmations = suspicion.confirmations();
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (name, incarnation) = (Arc::clone(&record.facts.name), record.incarnation);
        info!(target: "memberlist", "Marking {name} as failed, suspect timeout reached ({confirmations} peer confirmations)");
        let me = Arc::clone(&self.config.facts.name);
        self.dead(now, &name, incarnation, &me, upper);
    }

    pub(super) fn dead(
        &mut self,
        now: Time,
        node: &str,
        incarnation: u32,
        from: &str,
        upper: &mut impl Upper,
    ) {
        let Some(id) = self.members.find(node) else { return };
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (current, state) = (record.incarnation, record.state);
        if incarnation < current {
            return;
        }
        if !may_accuse(current, incarnation) {
            return self.refuse_incarnation(node, current, incarnation);
        }
        if id == self.me {
            if !self.leaving {
                warn!(target: "memberlist", "Refuting a dead message (from: {from})");
                self.refute(incarnation);
            }
            return;
        }
        self.suspicions.remove(&id);
        if state.is_gone() {
            // Nothing new, but evidence of a later death keeps an older alive message from bringing
            // the node back.
            if let Some(record) = self.members.get_mut(id) {
                record.incarnation = incarnation;
            }
            return;
        }
        let message = Dead {
            incarnation,
            node,
            from,
        };
        self.queue.push(
            Some(Subject::Node(node.into())),
            encoded(|out| message.encode(out)),
            None,
        );
        let Some(record) = self.members.get_mut(id) else {
            return;
        };
        record.incarnation = incarnation;
        record.state = if node == from { State::Left } else { State::Dead };
        record.changed = now;
        let facts = Arc::clone(&record.facts);
        upper.member_gone(now, &facts);
    }

    /// The last word about ourselves when leaving. It carries the current incarnation.
    pub(super) fn declare_own_death(&mut self, now: Time, token: Token, upper: &mut impl Upper) {
        let Some(record) = self.members.get_mut(self.me) else {
            return;
        };
        record.state = State::Left;
        record.changed = now;
        let (facts, incarnation) = (Arc::clone(&record.facts), record.incarnation);
        let message = Dead {
            incarnation,
            node: &facts.name,
            from: &facts.name,
        };
        self.queue.push(
            Some(Subject::Node(Arc::clone(&facts.name))),
            encoded(|out| message.encode(out)),
            Some(token),
        );
        upper.member_gone(now, &facts);
    }

    /// Contradicts a false claim about ourselves with a higher incarnation. That somebody thought us
    /// dead is also a sign that we may be slow (Lifeguard).
    fn refute(&mut self, accused: u32) {
        let Some(record) = self.members.get_mut(self.me) else {
            return;
        };
        let current = record.incarnation;
        if !may_claim(current, accused) {
            let name = Arc::clone(&self.config.facts.name);
            return self.refuse_incarnation(&name, current, accused);
        }
        record.incarnation = record
            .incarnation
            .saturating_add(1)
            .max(accused.saturating_add(1));
        let (facts, incarnation) = (Arc::clone(&record.facts), record.incarnation);
        debug!(target: "memberlist", "Refuting with incarnation {incarnation}");
        self.change_awareness(1);
        self.broadcast_alive(&facts, incarnation, Subject::Refutation, None);
    }

    /// Announces our own record as it stands.
    pub(super) fn announce_self(&mut self, token: Option<Token>) {
        let Some(record) = self.members.get(self.me) else {
            return;
        };
        let (facts, incarnation) = (Arc::clone(&record.facts), record.incarnation);
        self.broadcast_alive(&facts, incarnation, Subject::Node(Arc::clone(&facts.name)), token);
    }

    fn broadcast_alive(&mut self, facts: &Facts, incarnation: u32, subject: Subject, token: Option<Token>) {
        let message = Alive {
            incarnation,
            node: &facts.name,
            addr: facts.addr.as_bytes(),
            port: facts.port,
            meta: &facts.meta,
            vsn: &facts.vsn,
        };
        self.queue
            .push(Some(subject), encoded(|out| message.encode(out)), token);
    }

    fn broadcast_suspect(&mut self, node: &str, incarnation: u32, from: &str) {
        let message = Suspect {
            incarnation,
            node,
            from,
        };
        self.queue.push(
            Some(Subject::Node(node.into())),
            encoded(|out| message.encode(out)),
            None,
        );
    }
}

/// Whether an alive message may raise a node to this incarnation. At the end of the range nothing could
/// be refuted any more, so one forged message there would take a node's name away for good.
fn may_claim(current: u32, claimed: u32) -> bool {
    claimed < u32::MAX && claimed <= current.max(MAX_INCARNATION).saturating_add(MAX_INCARNATION_STEP)
}

/// Whether a node may be accused at this incarnation: only where it can still refute.
fn may_accuse(current: u32, claimed: u32) -> bool {
    claimed <= current.max(MAX_INCARNATION)
}

/// What an alive message claims, checked, and still borrowed: most claims are old news and end here.
struct Claim<'a> {
    incarnation: u32,
    name: &'a str,
    addr: RawAddr,
    port: u16,
    meta: &'a [u8],
    vsn: [u8; 6],
}

impl Claim<'_> {
    fn to_facts(&self) -> Facts {
        Facts {
            name: Arc::from(self.name),
            addr: self.addr,
            port: self.port,
            meta: self.meta.into(),
            vsn: self.vsn,
        }
    }

    fn is_from(&self, known: &Facts) -> bool {
        known.addr == self.addr && known.port == self.port
    }

    fn says(&self, known: &Facts) -> bool {
        self.is_from(known) && *known.meta == *self.meta && known.vsn == self.vsn
    }
}

pub(super) fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    write(&mut out);
    out
}
