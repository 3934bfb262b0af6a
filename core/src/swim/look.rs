//! A known name is claimed at another address: this node looks before it believes either.
//!
//! memberlist takes every such claim for a conflict, so that a host which comes back at a new address is kept out
//! for as long as its old record stands, and may even end itself. Here the address that is in question is asked:
//! the one listed for another node, the one claimed for our own name. If somebody answers there to the name, it is a
//! conflict. If nobody does, the new address is taken, provided that the incarnation is higher; and a claim to our
//! own name is refuted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tracing::{debug, error, info};

use super::delegate::Delegate;
use super::exchange::Exchange;
use super::members::{Facts, NodeId, State};
use super::state::{alive_of, encoded};
use super::{Swim, Timer, Trouble};
use crate::bounds::MAX_LOOKS;
use crate::time::Time;

/// Pings of one look; on a lossy network a single one says little.
const PINGS: u32 = 2;

/// For so long after a move there may be members that have not heard of it; a push/pull tells them in the end.
const MOVED_FOR: Duration = Duration::from_secs(120);

/// How many members on average tell one that accuses another in an old incarnation, or that owns a name twice.
const TELLERS: f64 = 3.0;

/// After an answer the same name is left alone for so many probe timeouts: the two owners go on to claim it.
const REST: u32 = 10;

/// A look at the address in question.
#[derive(Debug)]
pub(super) struct Look {
    /// What is claimed, in its newest incarnation.
    claimed: Facts,
    incarnation: u32,
    /// Who is asked: as listed, or for our own name as claimed.
    asked: Facts,
    seq_no: u32,
    pings: u32,
    answered: bool,
    /// When to ping again, to give up, or to forget an answer.
    next: Time,
}

impl Swim {
    /// Takes a claim that contradicts the address of a listed node.
    pub(super) fn look(
        &mut self,
        now: Time,
        id: NodeId,
        claimed: Facts,
        incarnation: u32,
        delegate: &mut impl Delegate,
    ) {
        if let Some(look) = self
            .looks
            .get_mut(&id)
            .filter(|look| look.claimed.name == claimed.name)
        {
            if !look.answered && incarnation > look.incarnation {
                (look.claimed, look.incarnation) = (claimed, incarnation);
            }
            return;
        }
        if self.looks.len() >= MAX_LOOKS {
            return self.refuse(format_args!(
                "another address for {}: {MAX_LOOKS} such claims are being looked into",
                claimed.name
            ));
        }
        let Some(record) = self.members.get(id) else {
            return;
        };
        // Who has not heard of a move yet still tells the place that was left behind.
        let left = self.moved.get(&id).filter(|(at, _)| now.since(*at) < MOVED_FOR);
        if incarnation < record.incarnation && left.is_some_and(|(_, left)| *left == claimed.socket()) {
            return;
        }
        let asked = if id == self.me {
            claimed.clone()
        } else {
            (*record.facts).clone()
        };
        if self.repeats.again(Trouble::Claim, &claimed.name) {
            info!(target: "memberlist", "{} is listed at {}:{}, and claimed to be at {}:{}; asking {}",
                claimed.name, record.facts.addr, record.facts.port, claimed.addr, claimed.port, asked.socket());
        }
        let seq_no = self.next_seq_no();
        let stream = asked.takes_stream_pings() && !self.config.profile.disable_tcp_pings;
        if stream {
            let source = self.config.facts.clone();
            let plain = encoded(|out| source.ping(&asked.name, seq_no).encode(out));
            // A little earlier than the look ends, so that its result counts.
            let timeout = self.config.profile.probe_timeout * 3 / 4;
            let to = asked.socket();
            self.start_exchange(Exchange::LookPing { seq_no }, to, plain, timeout, delegate);
        }
        let look = Look {
            claimed,
            incarnation,
            asked,
            seq_no,
            pings: 0,
            answered: false,
            next: now,
        };
        self.looks.insert(id, look);
        self.tick_look(now, id, delegate);
    }

    /// Pings once more, or ends the look.
    pub(super) fn tick_look(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let pause = self.config.profile.probe_timeout / PINGS;
        let Some(look) = self.looks.get_mut(&id).filter(|look| look.next <= now) else {
            return;
        };
        if look.answered || look.pings == PINGS {
            if let Some(look) = self.looks.remove(&id).filter(|look| !look.answered) {
                self.end_look(now, id, look, delegate);
            }
            return;
        }
        look.pings += 1;
        look.next = now + pause;
        let (to, name, seq_no) = (look.asked.socket(), Arc::clone(&look.asked.name), look.seq_no);
        self.timers.set(now + pause, Timer::Look(id));
        let source = self.config.facts.clone();
        self.send_with_gossip(to, delegate, |out| source.ping(&name, seq_no).encode(out));
    }

    /// Somebody answers to the name at the address in question. Says whether it was about a look.
    pub(super) fn look_answered(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) -> bool {
        let mut looks = self.looks.iter_mut();
        let Some((&id, look)) = looks.find(|(_, look)| look.seq_no == seq_no) else {
            return false;
        };
        if std::mem::replace(&mut look.answered, true) {
            return true;
        }
        look.next = now + self.config.profile.probe_timeout * REST;
        self.timers.set(look.next, Timer::Look(id));
        let (addr, port) = (look.claimed.addr, look.claimed.port);
        let Some(record) = self.members.get(id) else {
            return true;
        };
        let known = Arc::clone(&record.facts);
        let (state, incarnation, rival) = (record.state, record.incarnation, look.claimed.socket());
        let is_news = self.repeats.again(Trouble::Conflict, &known.name);
        if is_news {
            error!(target: "memberlist", "Conflicting address for {}. Mine: {}:{} Theirs: {addr}:{port} Old state: {state:?}",
                known.name, known.addr, known.port);
        }
        // About others there is little to do but to say so.
        if is_news || id == self.me {
            delegate.name_conflict(now, &known, addr, port);
        }
        // Who lists one of the two gossips to that one. The other has to hear of it as well, or only one asks for votes,
        // and with an even split both stay.
        if id != self.me {
            self.tell_by_chance(rival, &known, incarnation, delegate);
        }
        true
    }

    /// Nobody answered to the name at the address in question.
    fn end_look(&mut self, now: Time, id: NodeId, look: Look, delegate: &mut impl Delegate) {
        let Look {
            claimed, incarnation, ..
        } = look;
        if id == self.me {
            debug!(target: "memberlist", "Nobody at {} answers to the name of this node", claimed.socket());
            return self.refute(incarnation);
        }
        let Some(record) = self
            .members
            .get(id)
            .filter(|record| record.facts.name == claimed.name)
        else {
            return;
        };
        if incarnation <= record.incarnation {
            // The node will hear of its record and refute it, if it is there.
            return;
        }
        info!(target: "memberlist", "Updating address for {} from {}:{}, where it does not answer, to {}:{}",
            claimed.name, record.facts.addr, record.facts.port, claimed.addr, claimed.port);
        let left = record.facts.socket();
        self.moved.retain(|_, (at, _)| now.since(*at) < MOVED_FOR);
        if self.moved.len() < MAX_LOOKS {
            self.moved.insert(id, (now, left));
        }
        let facts = self.config.pool.share(claimed);
        self.accept_alive(now, id, facts, incarnation, true, delegate);
    }

    /// Whoever accuses a member that has just moved in an incarnation that it has left behind still asks at its old
    /// address. Others pay no attention to that, so nobody would tell it before the next push/pull. A few of those
    /// who know better do, each by chance, so that a large cluster does not tell it all at once.
    pub(super) fn correct(
        &mut self,
        now: Time,
        node: &str,
        incarnation: u32,
        accuser: &str,
        delegate: &mut impl Delegate,
    ) {
        if self.is_me(accuser) || node == accuser {
            return;
        }
        let Some(id) = self.members.find(node) else { return };
        if self
            .moved
            .get(&id)
            .is_none_or(|(at, _)| now.since(*at) >= MOVED_FOR)
        {
            return;
        }
        let known = self.members.get(id);
        let Some(record) =
            known.filter(|record| record.state == State::Alive && record.incarnation > incarnation)
        else {
            return;
        };
        let Some(accuser) = self
            .members
            .by_name(accuser)
            .filter(|accuser| !accuser.state.is_gone())
        else {
            return;
        };
        let (to, facts, incarnation) = (
            accuser.facts.socket(),
            Arc::clone(&record.facts),
            record.incarnation,
        );
        self.tell_by_chance(to, &facts, incarnation, delegate);
    }

    /// Tells where a member is listed, to somebody who should know. A few do, each by chance.
    fn tell_by_chance(
        &mut self,
        to: SocketAddr,
        facts: &Facts,
        incarnation: u32,
        delegate: &mut impl Delegate,
    ) {
        let chance = TELLERS / self.members.len() as f64;
        if self.rng.random::<f64>() < chance {
            let plain = encoded(|out| alive_of(facts, incarnation).encode(out));
            delegate.send(to, plain, false);
        }
    }

    /// This process did not run for `pause`, in which answers could not be read.
    pub(super) fn extend_looks(&mut self, now: Time, pause: Duration) {
        for (&id, look) in &mut self.looks {
            look.next = (look.next + pause).max(now);
            self.timers.set(look.next, Timer::Look(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::RawAddr;
    use crate::swim::delegate::Silent;
    use crate::swim::testing::{alive, start};
    use crate::wire::message::{Ack, Message, Suspect};

    const T: Time = Time::ZERO;

    /// After what happens next, and nothing is heard of but what `answers`.
    fn after_the_look(swim: &mut Swim, delegate: &mut Silent, answers: bool) {
        let look = swim.looks.values().next().expect("a look");
        if answers {
            let (seq_no, payload, from) = (look.seq_no, &[][..], look.asked.socket());
            swim.handle_ack(
                T,
                from,
                &Ack {
                    seq_no,
                    payload,
                    ..Ack::default()
                },
                delegate,
            );
        }
        swim.timers = Default::default();
        let end = T + swim.config.profile.probe_timeout;
        for id in [1, 2].map(|part| (part, swim.looks.keys().next().copied())) {
            if let (part, Some(id)) = id {
                swim.tick_look(T + (end.since(T) / 2) * part, id, delegate);
            }
        }
    }

    /// Where a node is listed, by the last number of its address, and in which incarnation.
    fn listed(swim: &Swim, name: &str) -> (u8, u32) {
        let record = swim.members.by_name(name).expect("a member");
        let RawAddr::V4([.., last]) = record.facts.addr else {
            panic!("{:?}", record.facts.addr)
        };
        (last, record.incarnation)
    }

    #[test]
    fn a_silent_owner_gives_way_to_a_higher_incarnation_and_one_that_answers_to_none() {
        for (answers, claimed, listed_after, conflicts) in [
            (false, 6, (3, 6), 0),
            (false, 5, (2, 5), 0),
            (true, 6, (2, 5), 1),
            (true, 1, (2, 5), 1),
        ] {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
            swim.handle_alive(T, &alive("b", 3, claimed), &mut delegate);
            assert_eq!(delegate.sent, ["10.0.0.2:7946".parse().expect("an address")]);
            assert_eq!(delegate.conflicts.len(), 0, "before it is clear");
            after_the_look(&mut swim, &mut delegate, answers);
            assert_eq!(listed(&swim, "b"), listed_after, "{answers} {claimed}");
            assert_eq!(delegate.conflicts.len(), conflicts, "{answers} {claimed}");
        }
    }

    #[test]
    fn the_other_of_two_owners_is_told_by_a_few() {
        for (others, tellers) in [(1, 20..21), (200, 0..5)] {
            let mut told = 0;
            for seed in 0..20 {
                let (mut swim, mut delegate) = start(seed);
                for i in 0..others {
                    swim.handle_alive(T, &alive(&format!("n{i}"), 10 + i as u8, 2), &mut delegate);
                }
                swim.handle_alive(T, &alive("n0", 9, 2), &mut delegate);
                delegate.sent.clear();
                after_the_look(&mut swim, &mut delegate, true);
                told += delegate.sent.len();
                assert!(delegate.sent.iter().all(|to| to.ip().to_string() == "10.0.0.9"));
            }
            assert!(tellers.contains(&told), "{others}: {told}");
        }
    }

    #[test]
    fn who_has_not_heard_of_a_move_claims_nothing() {
        let (mut swim, mut delegate) = start(1);
        swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
        swim.handle_alive(T, &alive("b", 3, 6), &mut delegate);
        after_the_look(&mut swim, &mut delegate, false);
        assert_eq!(listed(&swim, "b"), (3, 6));
        swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
        assert_eq!(swim.looks.len(), 0, "left behind");
        // From the old place in a new incarnation, from elsewhere, or much later, it may be true.
        for (host, incarnation, later) in [(2, 7, 0), (4, 5, 0), (2, 5, 121)] {
            swim.handle_alive(
                T + Duration::from_secs(later),
                &alive("b", host, incarnation),
                &mut delegate,
            );
            assert_eq!(swim.looks.len(), 1, "{host} {incarnation} {later}");
            swim.looks.clear();
        }
    }

    #[test]
    fn our_own_name_is_defended_against_a_ghost_and_disputed_with_one_that_answers() {
        for (answers, incarnation, conflicts) in [(false, 10, 0), (true, 1, 1)] {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(T, &alive("me", 9, 9), &mut delegate);
            assert_eq!(delegate.sent, ["10.0.0.9:7946".parse().expect("an address")]);
            after_the_look(&mut swim, &mut delegate, answers);
            assert_eq!(listed(&swim, "me"), (1, incarnation));
            assert_eq!(delegate.conflicts.len(), conflicts);
        }
    }

    #[test]
    fn a_dispute_over_our_own_name_is_never_kept_quiet() {
        // About others it is said at the first, second and fourth time.
        for (name, said) in [("me", 5), ("b", 3)] {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
            for incarnation in 6..11 {
                swim.handle_alive(T, &alive(name, 9, incarnation), &mut delegate);
                after_the_look(&mut swim, &mut delegate, true);
                swim.looks.clear();
            }
            assert_eq!(delegate.conflicts.len(), said, "{name}");
        }
    }

    #[test]
    fn a_claim_that_could_not_be_refuted_is_refused_before_anybody_is_asked() {
        for name in ["b", "me"] {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
            swim.handle_alive(T, &alive(name, 9, u32::MAX - 1), &mut delegate);
            assert_eq!((swim.looks.len(), delegate.sent.len(), swim.refused), (0, 0, 1));
        }
    }

    #[test]
    fn claims_that_repeat_cost_one_look_and_a_storm_of_names_is_bounded() {
        let (mut swim, mut delegate) = start(1);
        swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
        for host in 3..100 {
            swim.handle_alive(T, &alive("b", host, 6), &mut delegate);
        }
        assert_eq!((swim.looks.len(), delegate.sent.len()), (1, 1));
        for i in 0..2 * MAX_LOOKS {
            let name = format!("n{i}");
            swim.handle_alive(T, &alive(&name, 2, 5), &mut delegate);
            swim.handle_alive(T, &alive(&name, 3, 6), &mut delegate);
        }
        assert_eq!(swim.looks.len(), MAX_LOOKS);
    }

    #[test]
    fn an_accuser_that_has_missed_a_move_is_told_by_a_few() {
        // Of how many members, and whether the accusation is old; how many would tell the accuser.
        for (members, old, tellers) in [(3, true, 20..21), (3, false, 0..1), (200, true, 0..5)] {
            let mut told = 0;
            for seed in 0..20 {
                let (mut swim, mut delegate) = start(seed);
                swim.config.profile.evidence_looks = 0;
                for i in 0..members - 1 {
                    swim.handle_alive(T, &alive(&format!("n{i}"), 10 + i as u8, 2), &mut delegate);
                }
                let suspect = Suspect {
                    refused: false,
                    incarnation: if old { 1 } else { 2 },
                    node: "n0",
                    from: "n1",
                };
                let from = "10.0.0.9:7946".parse().expect("an address");
                swim.handle_message(T, from, &Message::Suspect(suspect), &mut delegate);
                assert_eq!(delegate.sent, [], "nobody has moved");
                let id = swim.members.find("n0").expect("a member");
                swim.moved.insert(id, (T, from));
                swim.handle_message(T, from, &Message::Suspect(suspect), &mut delegate);
                told += delegate.sent.len();
                assert!(delegate.sent.iter().all(|to| to.ip().to_string() == "10.0.0.11"));
            }
            assert!(tellers.contains(&told), "{members} {old}: {told}");
        }
    }

    /// A host restarted on the default bind announces its address in 16 bytes, where it had four before.
    #[test]
    fn the_two_forms_of_an_address_are_no_contradiction() {
        let (mut swim, mut delegate) = start(1);
        swim.handle_alive(T, &alive("b", 2, 5), &mut delegate);
        let long = RawAddr::mapped("10.0.0.2".parse().expect("an address"));
        for incarnation in [5, 6] {
            let mut claim = alive("b", 2, incarnation);
            claim.addr = long.as_bytes();
            swim.handle_alive(T, &claim, &mut delegate);
        }
        assert!(swim.looks.is_empty());
        assert_eq!(
            swim.members.by_name("b").map(|record| record.facts.addr),
            Some(long)
        );
        let long = RawAddr::mapped("10.0.0.1".parse().expect("an address"));
        let mut claim = alive("me", 1, 5);
        claim.addr = long.as_bytes();
        swim.handle_alive(T, &claim, &mut delegate);
        assert!(swim.looks.is_empty());
        assert_eq!(
            swim.incarnation(),
            6,
            "refuted, for it is not what this node says"
        );
    }
}
