//! Evidence that a process is gone: its host refuses connections (docs/design.md#evidence).
//!
//! Silence may have many reasons, so a member that does not answer has the time that Serf gives it. A refusal has
//! few: the system of the member's host answers, and says that nobody listens there. Whoever hears of a suspicion
//! looks for itself, some by chance, and says in its own accusation whether it was refused. A member that was
//! refused twice, with a pause in between in which a restarted process would be back, and hears the same from others,
//! does not wait any longer. What speaks against it: any sign of life, many that refuse at once, or a neighbour of
//! the suspect that cannot be reached either, for then it is the way to them that refuses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tracing::{debug, info};

use super::delegate::Delegate;
use super::exchange::Exchange;
use super::failure::{Cause, Failure};
use super::members::{Facts, NodeId, State};
use super::packet::PacketBuilder;
use super::probe::PMAX_CRC;
use super::state::{alive_of, encoded};
use super::suspicion::{Evidence, Glance, Neighbours};
use super::{Swim, Timer};
use crate::bounds::MAX_WITNESSES;
use crate::time::Time;
use crate::wire::message::{StreamMessage, Suspect};

/// How many of the members whose addresses are nearest to the suspect's are asked whether they can be reached, and
/// how many others: where half of the cluster is cut off, hardly ever all of these are on this side.
const NEIGHBOURS: usize = 2;
const STRANGERS: usize = 6;

/// So many members may be refused at once, or this share of the cluster, before it is rather the network.
const CROWD: usize = 2;
const CROWD_SHARE: usize = 10;

/// How often those who have not looked draw again while there are too few witnesses, each time with twice the chance.
const DRAWS: u32 = 3;

impl Swim {
    /// Whether refusals count at all.
    pub(super) fn minds_evidence(&self) -> bool {
        !self.config.profile.evidence_pause.is_zero()
    }

    /// How long an ack of this member may take before it is late; `None`: as long as a direct ping may.
    pub(super) fn lateness(&self, facts: &Facts, delegate: &impl Delegate) -> Option<Duration> {
        let profile = &self.config.profile;
        if profile.late_ack_max.is_zero() {
            return None;
        }
        let usual = delegate
            .round_trip(&facts.name)
            .or_else(|| self.round_trips.longest());
        let late = usual.map_or(profile.late_ack_max, |rtt| {
            rtt.saturating_mul(profile.late_ack_mult)
        });
        Some(late.max(profile.late_ack_min).min(profile.late_ack_max))
    }

    /// Takes an accusation that came in: it may be new, and it may tell of a refusal.
    pub(super) fn hear_accusation(
        &mut self,
        now: Time,
        source: SocketAddr,
        suspect: &Suspect<'_>,
        delegate: &mut impl Delegate,
    ) {
        let is_old = suspect.incarnation < self.incarnation();
        if self.is_me(suspect.node) && is_old && self.minds_evidence() {
            return self.repeat_refutation(source, suspect.from, delegate);
        }
        let passed_on = self.accuse(now, suspect);
        if !self.minds_evidence() || self.is_me(suspect.from) {
            return;
        }
        let Some(id) = self.members.find(suspect.node) else {
            return;
        };
        let current = self.members.get(id).map(|record| record.incarnation);
        let Some(suspicion) = self
            .suspicions
            .get_mut(&id)
            .filter(|_| current == Some(suspect.incarnation))
        else {
            return;
        };
        let evidence = &mut suspicion.evidence;
        let is_new = suspect.refused
            && evidence.witnesses.len() < MAX_WITNESSES
            && !evidence.witnesses.iter().any(|known| **known == *suspect.from);
        if is_new {
            evidence.witnesses.push(suspect.from.into());
            let was_refused = evidence.refused.is_some();
            if !passed_on {
                self.broadcast_suspect(suspect);
            }
            if was_refused {
                // Gossip about one member replaces itself, so the witnesses tell each other.
                self.testify_to(id, suspect.from, delegate);
            }
        }
        self.draw(now, id, delegate);
        self.weigh(now, id, delegate);
    }

    /// Whoever accuses this node itself in an old incarnation has missed its refutation, and would wait in vain for
    /// another: it is told again. Only who speaks for itself is, for others repeat what is out of date.
    fn repeat_refutation(&mut self, source: SocketAddr, accuser: &str, delegate: &mut impl Delegate) {
        let accuser = self.members.by_name(accuser).map(|record| &record.facts);
        let (Some(accuser), Some(me)) = (accuser, self.members.get(self.me)) else {
            return;
        };
        if accuser.socket() == source && !self.leaving {
            let plain = encoded(|out| alive_of(&me.facts, me.incarnation).encode(out));
            delegate.send(source, plain, accuser.pmax() >= PMAX_CRC);
        }
    }

    /// Perhaps looks at a suspect: so many of all members do, by chance.
    fn draw(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let profile = &self.config.profile;
        let (looks, pause) = (profile.evidence_looks, profile.evidence_pause);
        let suspects = self.suspicions.len();
        let Some(evidence) = self
            .suspicions
            .get_mut(&id)
            .map(|suspicion| &mut suspicion.evidence)
        else {
            return;
        };
        let known = evidence.witnesses.len();
        let is_first = evidence.draws == 0;
        let is_next =
            evidence.due.is_none() && evidence.draws <= DRAWS && (1..MAX_WITNESSES).contains(&known);
        if evidence.looks > 0 || evidence.refused.is_some() || !(is_first || is_next) {
            return;
        }
        let [behind, before] = self.members.ring_from(self.me);
        let others = (behind.len() + before.len()).saturating_sub(suspects).max(1);
        let chance = looks as f64 * f64::from(1 << evidence.draws) / others as f64;
        evidence.draws += 1;
        if self.rng.random::<f64>() < chance {
            return self.glance(now, id, delegate);
        }
        let again = now + pause / 2;
        evidence.due = Some(again);
        self.timers.set(again, Timer::Evidence(id));
    }

    /// Looks at a suspect.
    fn glance(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (facts, incarnation) = (Arc::clone(&record.facts), record.incarnation);
        if !facts.takes_stream_pings() || self.config.profile.disable_tcp_pings {
            return;
        }
        let late = self.lateness(&facts, delegate);
        let late = late.unwrap_or(self.config.profile.probe_timeout);
        let seq_no = self.next_seq_no();
        let Some(suspicion) = self.suspicions.get_mut(&id) else {
            return;
        };
        suspicion.evidence.looks += 1;
        suspicion.evidence.due = None;
        suspicion.evidence.look = Some(Glance {
            seq_no,
            patient_until: now + late,
            refused: None,
        });
        self.ping_suspect(&facts, incarnation, seq_no, delegate);
        let ask = Exchange::Glance { id, seq_no };
        self.ping_over_stream(
            ask,
            &facts,
            seq_no,
            self.config.profile.evidence_pause * 2,
            delegate,
        );
    }

    /// The stream of a look has ended.
    pub(super) fn glance_ended(
        &mut self,
        now: Time,
        id: NodeId,
        seq_no: u32,
        result: &Result<Option<&StreamMessage<'_>>, Failure>,
    ) {
        let Some(evidence) = self
            .suspicions
            .get_mut(&id)
            .map(|suspicion| &mut suspicion.evidence)
        else {
            return;
        };
        let Some(look) = evidence.look.as_mut().filter(|look| look.seq_no == seq_no) else {
            return;
        };
        match result {
            Err(failure) if failure.cause == Cause::Refused => {
                look.refused = Some(now);
                let due = look.patient_until.max(now);
                evidence.due = Some(due);
                self.timers.set(due, Timer::Evidence(id));
            }
            Ok(Some(StreamMessage::Ack(ack))) if ack.seq_no == seq_no => self.note_life(id),
            // Whatever else it is, it is no refusal, and the suspect has all the time that Serf gives it.
            _ => {
                evidence.look = None;
                evidence.refused = None;
            }
        }
    }

    /// An ack came; says whether it was that of a look.
    pub(super) fn glance_answered(&mut self, seq_no: u32) -> bool {
        let of_look = |look: &Glance| look.seq_no == seq_no;
        let found = self
            .suspicions
            .iter()
            .find(|(_, suspicion)| suspicion.evidence.look.as_ref().is_some_and(of_look));
        let Some((&id, _)) = found else { return false };
        self.note_life(id);
        true
    }

    /// Somebody of this name speaks, so what was refused was refused by something else.
    pub(super) fn note_life_of(&mut self, name: &str) {
        if !self.suspicions.is_empty()
            && let Some(id) = self.members.find(name)
        {
            self.note_life(id);
        }
    }

    fn note_life(&mut self, id: NodeId) {
        if let Some(suspicion) = self.suspicions.get_mut(&id) {
            let evidence = &mut suspicion.evidence;
            *evidence = Evidence {
                looks: evidence.looks,
                draws: evidence.draws,
                ..Evidence::default()
            };
        }
    }

    /// The time for the next step has come.
    pub(super) fn tick_evidence(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let Some(suspicion) = self.suspicions.get_mut(&id) else {
            return;
        };
        let evidence = &mut suspicion.evidence;
        if evidence.due.is_none_or(|due| now < due) {
            return;
        }
        evidence.due = None;
        if let Some(at) = evidence.look.take().and_then(|look| look.refused) {
            self.note_refusal(now, id, at, delegate);
        } else if evidence.refused.is_some() {
            self.glance(now, id, delegate);
            self.ask_neighbours(id, delegate);
        } else {
            self.draw(now, id, delegate);
        }
    }

    /// This node was refused by a suspect, at `at`, and heard nothing else from it.
    pub(super) fn note_refusal(&mut self, now: Time, id: NodeId, at: Time, delegate: &mut impl Delegate) {
        let pause = self.config.profile.evidence_pause;
        let Some(evidence) = self
            .suspicions
            .get_mut(&id)
            .map(|suspicion| &mut suspicion.evidence)
        else {
            return;
        };
        let is_first = evidence.refused.is_none();
        evidence.note_refusal(at);
        // The probes go on, and may be refused meanwhile as well.
        if is_first || evidence.due.is_none() {
            // As long as there are not enough witnesses, it looks less and less often.
            let pause = pause.saturating_mul(1 << (evidence.looks.min(8) / 2));
            let again = (at + pause).max(now);
            evidence.due = Some(again);
            self.timers.set(again, Timer::Evidence(id));
        }
        if is_first {
            self.testify(id, delegate);
        }
        self.weigh(now, id, delegate);
    }

    /// Says that this node was refused: to all, and to those at once who say the same.
    fn testify(&mut self, id: NodeId, delegate: &mut impl Delegate) {
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (facts, incarnation) = (Arc::clone(&record.facts), record.incarnation);
        let me = Arc::clone(&self.config.facts.name);
        self.broadcast_suspect(&Suspect {
            from: &me,
            incarnation,
            node: &facts.name,
            refused: true,
        });
        let Some(suspicion) = self.suspicions.get(&id) else {
            return;
        };
        for witness in suspicion.evidence.witnesses.clone() {
            self.testify_to(id, &witness, delegate);
        }
    }

    fn testify_to(&self, id: NodeId, witness: &str, delegate: &mut impl Delegate) {
        let (Some(record), Some(witness)) = (self.members.get(id), self.members.by_name(witness)) else {
            return;
        };
        let suspect = Suspect {
            from: &self.config.facts.name,
            incarnation: record.incarnation,
            node: &record.facts.name,
            refused: true,
        };
        let crc = witness.facts.pmax() >= PMAX_CRC;
        let plain = encoded(|out| suspect.encode(out));
        delegate.send(witness.facts.socket(), plain, crc);
    }

    /// Asks those who are near a suspect whether they can be reached, and somebody else. A neighbour that is under
    /// suspicion as well is asked like any other: if it does not answer, it may be the way to both.
    fn ask_neighbours(&mut self, id: NodeId, delegate: &mut impl Delegate) {
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (suspect, me) = (Arc::clone(&record.facts), self.me);
        let mut others: Vec<Arc<Facts>> = self
            .members
            .iter()
            .filter(|record| {
                let name = &record.facts.name;
                !record.state.is_gone() && !self.is_me(name) && *name != suspect.name
            })
            .map(|record| Arc::clone(&record.facts))
            .collect();
        others.sort_by_cached_key(|facts| (apart(facts.socket(), suspect.socket()), Arc::clone(&facts.name)));
        others.truncate(NEIGHBOURS);
        others.extend(self.pick_members(STRANGERS, |other, record| {
            // Suspects too: behind a cut link, those are the ones on the other side.
            other != me && other != id && !record.state.is_gone()
        }));
        let Some(suspicion) = self.suspicions.get_mut(&id) else {
            return;
        };
        let neighbours = &mut suspicion.evidence.neighbours;
        let round = neighbours.round + 1;
        *neighbours = Neighbours {
            round,
            left: Some(others.len()),
        };
        for facts in others {
            let seq_no = self.next_seq_no();
            let ask = Exchange::Neighbour { id, round };
            self.ping_over_stream(ask, &facts, seq_no, self.config.profile.evidence_pause, delegate);
        }
    }

    /// The stream to a neighbour has ended. One that stands still is reached, too: its system has taken the connection.
    pub(super) fn neighbour_ended(
        &mut self,
        now: Time,
        id: NodeId,
        round: u32,
        failure: Option<&Failure>,
        delegate: &mut impl Delegate,
    ) {
        if let Some(suspicion) = self.suspicions.get_mut(&id)
            && suspicion.evidence.neighbours.round == round
        {
            let left = &mut suspicion.evidence.neighbours.left;
            let is_reached = failure.is_none_or(|failure| !failure.reached_nobody());
            *left = left.filter(|_| is_reached).map(|left| left.saturating_sub(1));
            self.weigh(now, id, delegate);
        }
    }

    /// Declares a suspect failed if the evidence is enough.
    fn weigh(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let profile = &self.config.profile;
        let Some(evidence) = self.suspicions.get(&id).map(|suspicion| &suspicion.evidence) else {
            return;
        };
        let Some((first, last)) = evidence.refused else {
            return;
        };
        let twice = last.since(first) >= profile.evidence_pause;
        if !twice || evidence.neighbours.left != Some(0) || evidence.look.is_some() {
            return;
        }
        let is_fresh = now.since(last) < profile.evidence_pause / 2;
        let Some(record) = self.members.get(id) else {
            return;
        };
        let (name, incarnation) = (Arc::clone(&record.facts.name), record.incarnation);
        let present = |name: &str| {
            let member = self.members.by_name(name);
            member.is_some_and(|member| member.state == State::Alive)
        };
        let others = self
            .members
            .iter()
            .filter(|member| !member.state.is_gone())
            .count();
        // Oneself and the suspect are no witnesses.
        let wanted = profile.evidence_confirmations.min(others.saturating_sub(2));
        let witnesses = evidence
            .witnesses
            .iter()
            .filter(|witness| present(witness))
            .count();
        if witnesses < wanted {
            return;
        }
        let refusing = self
            .suspicions
            .values()
            .filter(|suspicion| suspicion.evidence.is_refused());
        if refusing.count() > CROWD.max(self.members.len() / CROWD_SHARE) {
            return debug!(target: "memberlist", "{name} refuses connections, and so do many others; waiting");
        }
        if !is_fresh {
            self.glance(now, id, delegate);
            return self.ask_neighbours(id, delegate);
        }
        info!(target: "memberlist", "Marking {name} as failed, its host refuses connections ({witnesses} peers confirm it)");
        let me = Arc::clone(&self.config.facts.name);
        self.dead(now, &name, incarnation, &me, delegate);
    }

    /// Whether several members refuse this node's connections: then it is not cut off, however little it hears.
    pub(super) fn is_refused_by_several(&self) -> bool {
        let first_hand = |evidence: &Evidence| evidence.is_first_hand();
        let mut refusing = self
            .suspicions
            .values()
            .filter(|suspicion| first_hand(&suspicion.evidence));
        refusing.nth(1).is_some()
    }

    /// Pings a suspect, which hears of the suspicion in the same packet, so that it can refute at once.
    pub(super) fn ping_suspect(
        &self,
        facts: &Facts,
        incarnation: u32,
        seq_no: u32,
        delegate: &mut impl Delegate,
    ) {
        let own = &self.config.facts;
        let mut packet = PacketBuilder::new(self.config.profile.udp_buffer_size, self.config.overhead);
        packet.push_base(|out| own.ping(&facts.name, seq_no).encode(out));
        let suspect = Suspect {
            from: &own.name,
            incarnation,
            node: &facts.name,
            refused: false,
        };
        packet.push_base(|out| suspect.encode(out));
        delegate.send(facts.socket(), packet.finish(), facts.pmax() >= PMAX_CRC);
    }

    /// Pings a member over a stream of its own.
    pub(super) fn ping_over_stream(
        &mut self,
        ask: Exchange,
        facts: &Facts,
        seq_no: u32,
        timeout: Duration,
        delegate: &mut impl Delegate,
    ) {
        let plain = encoded(|out| self.config.facts.ping(&facts.name, seq_no).encode(out));
        self.start_exchange(ask, facts.socket(), plain, timeout, delegate);
    }
}

/// How far two addresses are apart: those that begin alike are near.
fn apart(a: SocketAddr, b: SocketAddr) -> (u128, u16) {
    let bits = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    (bits(a) ^ bits(b), a.port() ^ b.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::delegate::Silent;
    use crate::swim::testing::{alive, start};
    use crate::wire::message::{Ack, Message, Ping};

    /// What is tried on a node that has five others, b to f, of whom b is suspected.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        /// Why each look of its own fails.
        cause: Cause,
        /// Who says that b has refused it as well.
        witnesses: &'static [&'static str],
        /// Whether those it asks as neighbours answer.
        neighbours: bool,
        /// Whether b says something after the first refusal.
        life: bool,
        /// Who else refuses.
        crowd: &'static [&'static str],
        /// Whether b is declared failed before any suspicion runs out.
        fails: bool,
    }

    const GOOD: Case = Case {
        cause: Cause::Refused,
        witnesses: &["c", "d"],
        neighbours: true,
        life: false,
        crowd: &[],
        fails: true,
    };

    fn accuse(swim: &mut Swim, now: Time, node: &str, from: &str, refused: bool, delegate: &mut Silent) {
        let suspect = Suspect {
            from,
            incarnation: 1,
            node,
            refused,
        };
        let source = "10.0.0.9:7946".parse().expect("an address");
        swim.handle_message(now, source, &Message::Suspect(suspect), delegate);
    }

    /// Lets every stream end that is under way.
    fn end_streams(swim: &mut Swim, now: Time, case: Case, delegate: &mut Silent) {
        let ids: Vec<_> = swim.exchanges.keys().copied().collect();
        for id in ids {
            let (seq_no, answers) = match swim.exchanges.get(&id) {
                Some(Exchange::Neighbour { .. }) => (0, case.neighbours),
                Some(Exchange::Glance { seq_no, .. }) => (*seq_no, false),
                _ => continue,
            };
            let ack = StreamMessage::Ack(Ack {
                seq_no,
                payload: &[],
                digest: &[],
                turn: 0,
            });
            let result = match answers {
                true => Ok(Some(&ack)),
                false => Err(Failure::new(case.cause, "refused, or not")),
            };
            swim.handle_exchange(now, id, result, delegate);
        }
    }

    /// When b is declared failed, in milliseconds after the first look at it.
    fn declared(case: Case, pause: Duration) -> Option<u64> {
        let (mut swim, mut delegate) = start(1);
        for (host, name) in (2..).zip(["b", "c", "d", "e", "f"]) {
            swim.handle_alive(Time::ZERO, &alive(name, host, 1), &mut delegate);
        }
        // Nothing else is of interest; everybody looks.
        swim.timers = Default::default();
        swim.config.profile.evidence_looks = 1000;
        swim.config.profile.evidence_pause = pause;
        swim.config.profile.refinements.notices_pauses = false;
        accuse(&mut swim, Time::ZERO, "b", "e", false, &mut delegate);
        for tenth in 1..=35 {
            let now = Time::ZERO + Duration::from_millis(100) * tenth;
            swim.handle_tick(now, &mut delegate);
            end_streams(&mut swim, now, case, &mut delegate);
            if tenth == 5 {
                for other in case.crowd {
                    accuse(&mut swim, now, other, "e", true, &mut delegate);
                }
                for witness in case.witnesses {
                    accuse(&mut swim, now, "b", witness, true, &mut delegate);
                }
            }
            if case.life && tenth >= 10 {
                let ping = Ping {
                    node: "me",
                    source_node: "b",
                    ..Ping::default()
                };
                let source = "10.0.0.2:7946".parse().expect("an address");
                swim.handle_message(now, source, &Message::Ping(ping), &mut delegate);
            }
            if delegate.gone.iter().any(|name| name == "b") {
                return Some(100 * u64::from(tenth));
            }
        }
        None
    }

    #[test]
    fn only_two_refusals_with_witnesses_and_nothing_against_them_are_enough() {
        let pause = Duration::from_secs(2);
        let cases = [
            GOOD,
            Case {
                witnesses: &["c", "c", "me"],
                fails: false,
                ..GOOD
            },
            Case {
                witnesses: &["c", "unknown"],
                fails: false,
                ..GOOD
            },
            Case {
                witnesses: &["c", "d", "e", "f"],
                ..GOOD
            },
            Case {
                cause: Cause::Unanswered,
                fails: false,
                ..GOOD
            },
            Case {
                cause: Cause::Stalled,
                fails: false,
                ..GOOD
            },
            Case {
                cause: Cause::Reset,
                fails: false,
                ..GOOD
            },
            Case {
                cause: Cause::Unreachable,
                fails: false,
                ..GOOD
            },
            Case {
                neighbours: false,
                fails: false,
                ..GOOD
            },
            Case {
                life: true,
                fails: false,
                ..GOOD
            },
            Case {
                crowd: &["f"],
                ..GOOD
            },
            Case {
                crowd: &["e", "f"],
                fails: false,
                ..GOOD
            },
        ];
        for case in cases {
            let at = declared(case, pause);
            assert_eq!(at.is_some(), case.fails, "{case:?}: {at:?}");
            // The first refusal, and the second so much later.
            assert!(at.is_none_or(|at| (2000..3000).contains(&at)), "{case:?}: {at:?}");
        }
        assert_eq!(declared(GOOD, Duration::ZERO), None, "as with Serf");
    }

    #[test]
    fn an_accuser_that_has_missed_the_refutation_is_told_again_if_it_speaks_for_itself() {
        for (source, incarnation, told) in [("10.0.0.2", 1, 1), ("10.0.0.3", 1, 0), ("10.0.0.2", 2, 0)] {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(Time::ZERO, &alive("b", 2, 1), &mut delegate);
            swim.refute(1);
            assert_eq!(swim.incarnation(), 2);
            let suspect = Suspect {
                from: "b",
                incarnation,
                node: "me",
                refused: false,
            };
            let source = format!("{source}:7946").parse().expect("an address");
            swim.handle_message(Time::ZERO, source, &Message::Suspect(suspect), &mut delegate);
            assert_eq!(delegate.sent.len(), told, "{source} {incarnation}");
        }
    }

    #[test]
    fn an_ack_is_late_after_some_round_trips_within_bounds() {
        let (mut swim, mut delegate) = start(1);
        let facts = swim.config.facts.clone();
        let ms = Duration::from_millis;
        for (round_trip, late) in [
            (None, 250),
            (Some(ms(1)), 100),
            (Some(ms(40)), 160),
            (Some(ms(500)), 250),
        ] {
            delegate.round_trip = round_trip;
            assert_eq!(swim.lateness(&facts, &delegate), Some(ms(late)), "{round_trip:?}");
        }
        // Where it is not known, those of the others tell.
        delegate.round_trip = None;
        for (measured, late) in [(ms(1), 100), (ms(40), 160), (ms(1), 155), (ms(500), 250)] {
            swim.round_trips.note(measured);
            assert_eq!(swim.lateness(&facts, &delegate), Some(ms(late)), "{measured:?}");
        }
        swim.config.profile.late_ack_max = Duration::ZERO;
        assert_eq!(swim.lateness(&facts, &delegate), None, "as with Serf");
    }

    #[test]
    fn so_many_look_on_average_however_many_hear() {
        for members in [5_u8, 40, 200] {
            let mut looks = 0;
            for seed in 0..200 {
                let (mut swim, mut delegate) = start(seed);
                for host in 2..2 + members {
                    swim.handle_alive(Time::ZERO, &alive(&format!("n{host}"), host, 1), &mut delegate);
                }
                accuse(&mut swim, Time::ZERO, "n2", "n3", false, &mut delegate);
                looks += swim.exchanges.len();
            }
            // All of them hear of it, but the suspect and its accuser.
            let lookers = looks as f64 / 200.0 * f64::from(members - 1);
            assert!((3.0..7.0).contains(&lookers), "{members}: {lookers}");
        }
    }
}
