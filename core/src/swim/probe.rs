//! Failure detection: the probe cycle of SWIM with Lifeguard's nacks and local health
//! (docs/protocol.md#a15-probe-cycle).
//!
//! One node is probed at a time: first by a direct ping, then, when no ack comes within the probe
//! timeout, by indirect pings through a few other members and by a ping over a stream. A target that
//! has answered none of them by the end of the probe interval becomes suspect. A member that was asked
//! for an indirect ping owes an ack or a nack; each missing one suggests that the fault is ours, and
//! raises the local health score, which stretches the next probe interval.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::delegate::Delegate;
use super::exchange::Exchange;
use super::failure::{Cause, Failure};
use super::members::{Facts, Record, State};
use super::{Swim, Timer, Trouble};
use crate::swim::members::NodeId;
use crate::time::Time;
use crate::wire::message::{Ack, IndirectPing, StreamMessage, Suspect};

/// The oldest memberlist protocol that understands a nack.
const PMAX_NACK: u8 = 4;
/// The oldest memberlist protocol that understands a CRC.
pub(super) const PMAX_CRC: u8 = 5;

/// The probe under way.
#[derive(Debug)]
pub(super) struct Probe {
    seq_no: u32,
    target: NodeId,
    facts: Arc<Facts>,
    sent: Time,
    /// When the direct ping has failed, and indirect pings are sent.
    indirect_at: Time,
    indirect_sent: bool,
    /// Whether the system of this host refused to send the direct ping.
    unsent: bool,
    /// The end of the probe: without an ack until then the target becomes suspect.
    ends_at: Time,
    /// Who was asked for an indirect ping.
    asked: Vec<Arc<Facts>>,
    expected_nacks: u32,
    nacks: u32,
    stream: StreamPing,
    /// When the target's host refused a connection.
    refused: Option<Time>,
    /// Whether this process stood still meanwhile, which the round trip would include.
    paused: bool,
}

impl Probe {
    /// Whether that nothing has answered speaks against the target. If this host could not even send the ping,
    /// others must have tried in vain; who owes no nack is taken to have done so. Where nobody else is there to be
    /// asked, the silence of the target has to do.
    fn is_evidence(&self, silence: bool) -> bool {
        if self.asked.is_empty() {
            return !self.unsent || silence;
        }
        !self.unsent || self.nacks > 0 || self.expected_nacks == 0
    }
}

/// The ping of a probe over a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPing {
    /// Not sent, or failed.
    Idle,
    UnderWay,
    Answered,
}

impl Swim {
    pub(super) fn tick_probe(&mut self, now: Time, delegate: &mut impl Delegate) {
        let interval = self.config.profile.probe_interval;
        if self.rests(Timer::Probe, now + interval, interval) {
            return;
        }
        self.timers.set(now + interval, Timer::Probe);
        if self.probe.is_some() {
            // Ticks missed during a long probe collapse into one, which starts when it ends.
            self.probe_pending = true;
        } else {
            self.start_probe(now, delegate);
        }
        self.ask_last_heard(now, delegate);
    }

    fn start_probe(&mut self, now: Time, delegate: &mut impl Delegate) {
        let Some(target) = self.next_target(now) else {
            return;
        };
        let Some(record) = self.members.get(target) else {
            return;
        };
        let (facts, state, incarnation) = (Arc::clone(&record.facts), record.state, record.incarnation);
        let seq_no = self.next_seq_no();
        self.measures.degraded_probes += u64::from(self.awareness > 0);
        let interval = self
            .config
            .profile
            .probe_interval
            .saturating_mul(self.awareness + 1);
        let slack = self.slack();
        let interval = interval + slack;
        let indirect_at = now + self.config.profile.probe_timeout + slack;
        self.timers.set(indirect_at, Timer::ProbeTimeout(seq_no));
        self.timers.set(now + interval, Timer::ProbeDeadline(seq_no));
        self.probe = Some(Probe {
            seq_no,
            target,
            facts: Arc::clone(&facts),
            sent: now,
            indirect_at,
            indirect_sent: false,
            unsent: false,
            ends_at: now + interval,
            asked: Vec::new(),
            expected_nacks: 0,
            nacks: 0,
            stream: StreamPing::Idle,
            refused: None,
            paused: false,
        });
        if let Some(late) = self.lateness(&facts, delegate) {
            self.timers.set(now + late + slack, Timer::LateAck(seq_no));
        }
        let source = self.config.facts.clone();
        let ping = source.ping(&facts.name, seq_no);
        if state == State::Alive || !self.config.profile.refinements.buddy {
            self.send_with_gossip(facts.socket(), delegate, |out| ping.encode(out));
            return;
        }
        self.ping_suspect(&facts, incarnation, seq_no, delegate);
    }

    /// The ack of the direct ping is late by the usual round trip. Where this process was late as well, that says nothing.
    pub(super) fn end_usual_round_trip(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) {
        let paused = |probe: &Probe| probe.seq_no == seq_no && probe.paused;
        if !self.probe.as_ref().is_some_and(paused) {
            self.try_stream(now, seq_no, delegate);
        }
    }

    /// Pings the target of a probe over a stream, unless that is under way or done: when the ack of the direct ping is
    /// late, and when it has had its time.
    pub(super) fn try_stream(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) {
        let Some(probe) = self.probe.as_mut().filter(|probe| {
            let is_open = probe.stream == StreamPing::Idle && probe.refused.is_none();
            probe.seq_no == seq_no && is_open && probe.facts.takes_stream_pings()
        }) else {
            return;
        };
        if self.config.profile.disable_tcp_pings {
            return;
        }
        probe.stream = StreamPing::UnderWay;
        let facts = Arc::clone(&probe.facts);
        let timeout = probe.ends_at.since(now).max(Duration::from_millis(1));
        self.ping_over_stream(Exchange::StreamPing { seq_no }, &facts, seq_no, timeout, delegate);
    }

    /// The direct ping has had its time.
    pub(super) fn end_direct_ping(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) {
        let late = |probe: &Probe| probe.seq_no == seq_no && probe.indirect_at <= now;
        if let Some(probe) = self.probe.as_ref().filter(|probe| late(probe)) {
            // Over a stream it may have answered already.
            if probe.stream != StreamPing::Answered {
                self.note_silence(now, probe.target, delegate);
            }
            self.ping_indirectly(now, seq_no, delegate);
        }
    }

    /// The direct ping was in vain: ask others, and try a stream.
    fn ping_indirectly(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) {
        let Some(probe) = self
            .probe
            .as_mut()
            .filter(|probe| probe.seq_no == seq_no && !probe.indirect_sent)
        else {
            return;
        };
        probe.indirect_sent = true;
        let (facts, target) = (Arc::clone(&probe.facts), probe.target);
        let peers = self.pick_relays(target);
        let source = self.config.facts.clone();
        let mut expected_nacks = 0;
        for peer in &peers {
            let nack = peer.pmax() >= PMAX_NACK && self.config.profile.refinements.nacks;
            expected_nacks += u32::from(nack);
            let ping = IndirectPing {
                seq_no,
                target: facts.addr.as_bytes(),
                port: facts.port,
                node: &facts.name,
                nack,
                source_addr: source.addr.as_bytes(),
                source_port: source.port,
                source_node: &source.name,
            };
            self.send_with_gossip(peer.socket(), delegate, |out| ping.encode(out));
        }
        if let Some(probe) = self.probe.as_mut() {
            probe.expected_nacks = expected_nacks;
            probe.asked = peers;
        }
        self.try_stream(now, seq_no, delegate);
    }

    /// Whom to ask for an indirect ping: first whoever has reached the target last, or else anybody whom this node
    /// does not reach itself, for where sites are joined by one host only, nobody else can; and others at random.
    fn pick_relays(&mut self, target: NodeId) -> Vec<Arc<Facts>> {
        let (count, me) = (self.config.profile.indirect_checks, self.me);
        let fits = |id: NodeId, record: &Record| id != target && id != me && record.state == State::Alive;
        let known = self.reached_by.get(&target).copied().or(self.last_relay);
        let first = known.and_then(|id| Some((id, self.members.get(id).filter(|record| fits(id, record))?)));
        let Some((first, record)) = first.filter(|_| count > 0) else {
            return self.pick_members(count, fits);
        };
        let mut relays = vec![Arc::clone(&record.facts)];
        relays.extend(self.pick_members(count - 1, |id, record| id != first && fits(id, record)));
        relays
    }

    /// Remembers who has reached the target of a probe, for as long as this node itself cannot.
    fn note_way(&mut self, probe: &Probe, from: SocketAddr) {
        let relay = probe.asked.iter().find(|peer| peer.socket() == from);
        if let Some(relay) = relay.and_then(|peer| self.members.find(&peer.name)) {
            self.reached_by.insert(probe.target, relay);
            self.last_relay = Some(relay);
        } else if from == probe.facts.socket() {
            self.reached_by.remove(&probe.target);
        }
    }

    /// A datagram could not even be sent: there is no point in waiting for its answer. Whether others reach the
    /// target decides.
    pub fn handle_send_failed(
        &mut self,
        now: Time,
        to: SocketAddr,
        reason: &str,
        delegate: &mut impl Delegate,
    ) {
        let direct = |probe: &&mut Probe| probe.facts.socket() == to && !probe.indirect_sent;
        if let Some(probe) = self.probe.as_mut().filter(direct) {
            probe.unsent = true;
            let (seq_no, name) = (probe.seq_no, Arc::clone(&probe.facts.name));
            self.note_refused_send(now, &name, to, reason);
            self.ping_indirectly(now, seq_no, delegate);
        }
    }

    /// This process did not run for `pause`, so the probe under way gets it back; a round trip that includes it measures
    /// nothing.
    pub(super) fn resume_probe(&mut self, now: Time, pause: Duration) {
        let Some(probe) = &mut self.probe else { return };
        probe.indirect_at = (probe.indirect_at + pause).max(now);
        probe.ends_at = (probe.ends_at + pause).max(now);
        probe.paused = true;
        self.timers
            .set(probe.indirect_at, Timer::ProbeTimeout(probe.seq_no));
        self.timers.set(probe.ends_at, Timer::ProbeDeadline(probe.seq_no));
    }

    pub(super) fn stream_ping_answered(
        &mut self,
        now: Time,
        seq_no: u32,
        result: &Result<Option<&StreamMessage<'_>>, Failure>,
        delegate: &mut impl Delegate,
    ) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.seq_no == seq_no) else {
            return;
        };
        probe.stream = StreamPing::Idle;
        match result {
            Ok(Some(StreamMessage::Ack(ack))) if ack.seq_no == seq_no => {
                probe.stream = StreamPing::Answered;
                let from = probe.facts.socket();
                self.note_heard(now, from, delegate);
            }
            Ok(_) => debug!(target: "memberlist", "Fallback ping of {} got no ack", probe.facts.name),
            Err(failure) => {
                debug!(target: "memberlist", "Failed fallback ping: {failure}");
                // Where this host's own system refuses to send, it may be the one that refuses this as well.
                if failure.cause == Cause::Refused && !probe.unsent && self.minds_evidence() {
                    self.note_refused_probe(now, delegate);
                }
            }
        }
    }

    /// The target's host refuses connections. Others are asked at once, and the probe ends as soon as their acks
    /// would be late as well.
    fn note_refused_probe(&mut self, now: Time, delegate: &mut impl Delegate) {
        let Some(probe) = self.probe.as_mut() else { return };
        probe.refused = Some(now);
        let (facts, seq_no) = (Arc::clone(&probe.facts), probe.seq_no);
        self.ping_indirectly(now, seq_no, delegate);
        let late = self.lateness(&facts, delegate);
        let late = late.unwrap_or(self.config.profile.probe_timeout);
        if let Some(probe) = self.probe.as_mut() {
            probe.ends_at = probe.ends_at.min(now + late * 2);
            self.timers.set(probe.ends_at, Timer::ProbeDeadline(seq_no));
        }
    }

    pub(super) fn handle_ack(
        &mut self,
        now: Time,
        from: SocketAddr,
        ack: &Ack<'_>,
        delegate: &mut impl Delegate,
    ) {
        // A member that announces this node's address has it answer itself, perhaps with the number of a ping of its own.
        if from == self.config.facts.socket() {
            return;
        }
        if self.relay_answered(ack.seq_no, delegate)
            || self.look_answered(now, ack.seq_no, delegate)
            || self.glance_answered(ack.seq_no)
            || self.return_answered(now, ack.seq_no, delegate)
        {
            return;
        }
        let Some(probe) = self.probe.take_if(|probe| probe.seq_no == ack.seq_no) else {
            return;
        };
        if now < probe.indirect_at && !probe.indirect_sent && !probe.paused {
            let round_trip = now.since(probe.sent);
            self.round_trips.note(round_trip);
            delegate.ping_answered(now, &probe.facts, round_trip, ack.payload);
        }
        // The ack of a relay comes from somebody else, and says nothing of what the target knows.
        if !probe.indirect_sent {
            self.turns.hear(ack.turn);
            self.compare(now, &probe.facts, ack.digest, delegate);
        }
        self.repeats.over(Trouble::Datagrams, &probe.facts.name);
        self.note_way(&probe, from);
        self.note_heard(now, probe.facts.socket(), delegate);
        self.answered(now, probe.target, delegate);
        self.change_awareness(self.health_by_ack(now, &probe, from));
        self.probe_ended(now, delegate);
    }

    /// What the ack of a probe says about this node's health.
    ///
    /// Where the target itself answers, but late, one of the two hosts is slow. Who meets that again and again is slow itself,
    /// or all are, and then many probes make all slower. But it may be the network that is slow, and a node that never
    /// probes notices nothing, so this goes only halfway. Where packets are lost, others bring the ack.
    fn health_by_ack(&self, now: Time, probe: &Probe, from: SocketAddr) -> i32 {
        let profile = &self.config.profile;
        let is_late = now.since(probe.sent) > profile.probe_timeout && from == probe.facts.socket();
        if !is_late || !profile.refinements.notices_pauses {
            return -1;
        }
        i32::from(self.awareness < profile.awareness_max_multiplier / 2)
    }

    pub(super) fn handle_nack(&mut self, seq_no: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.seq_no == seq_no) {
            probe.nacks += 1;
        }
    }

    /// Nothing has answered in time, or only the stream has.
    pub(super) fn end_probe(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) {
        let is_over = |probe: &mut Probe| probe.seq_no == seq_no && probe.ends_at <= now;
        let Some(probe) = self.probe.take_if(is_over) else {
            return;
        };
        let name = Arc::clone(&probe.facts.name);
        if probe.stream == StreamPing::Answered {
            if self.repeats.again(Trouble::Datagrams, &name) {
                warn!(target: "memberlist", "Was able to connect to {name} over TCP but UDP probes failed, network may be misconfigured");
            }
            self.answered(now, probe.target, delegate);
            self.change_awareness(-1);
        } else {
            // A refusal says whose fault it is, and does not wait for the nacks.
            if probe.refused.is_none() {
                let missed = probe.expected_nacks.saturating_sub(probe.nacks);
                self.change_awareness(if probe.expected_nacks > 0 {
                    missed as i32
                } else {
                    1
                });
            }
            if !probe.is_evidence(self.is_long(now.since(self.heard))) {
                debug!(target: "memberlist", "Nobody can say whether {name} is there: this host could not ask it");
                return self.probe_ended(now, delegate);
            }
            info!(target: "memberlist", "Suspect {name} has failed, no acks received");
            let known = self
                .members
                .get(probe.target)
                .filter(|record| record.facts.name == name && record.facts.socket() == probe.facts.socket());
            if let Some(incarnation) = known.map(|record| record.incarnation) {
                let me = Arc::clone(&self.config.facts.name);
                let refused = probe.refused.is_some();
                self.accuse(
                    now,
                    &Suspect {
                        from: &me,
                        incarnation,
                        node: &name,
                        refused,
                    },
                );
                if let Some(at) = probe.refused {
                    self.note_refusal(now, probe.target, at, delegate);
                }
            }
        }
        self.probe_ended(now, delegate);
    }

    fn probe_ended(&mut self, now: Time, delegate: &mut impl Delegate) {
        // There is one probe at a time, and each second it would wake the process up for nothing.
        let of_probe = |timer: &Timer| {
            matches!(
                timer,
                Timer::LateAck(_) | Timer::ProbeTimeout(_) | Timer::ProbeDeadline(_)
            )
        };
        self.timers.cancel(of_probe);
        if std::mem::take(&mut self.probe_pending) {
            self.start_probe(now, delegate);
        }
    }

    pub(super) fn change_awareness(&mut self, delta: i32) {
        let top = self.config.profile.awareness_max_multiplier.saturating_sub(1);
        self.awareness = self.awareness.saturating_add_signed(delta).min(top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::{alive, start};
    use crate::swim::turns::Turns;

    #[test]
    fn at_rest_a_node_wakes_up_once_a_probe() {
        let (mut swim, mut delegate) = start(1);
        for i in 0..9 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
        }
        let mut wakes = 0;
        while let Some(now) = swim
            .next_deadline()
            .filter(|due| due.since(Time::ZERO).as_secs() < 70)
        {
            swim.handle_tick(now, &mut delegate);
            if let Some(probe) = &swim.probe {
                let ack = Ack {
                    seq_no: probe.seq_no,
                    ..Ack::default()
                };
                let from = probe.facts.socket();
                swim.handle_ack(now, from, &ack, &mut delegate);
            }
            swim.spread(now, &delegate);
            // The first seconds are for the news of the members.
            wakes += usize::from(now.since(Time::ZERO).as_secs() >= 10);
        }
        // 60 probes, and two push/pulls.
        assert!((60..=63).contains(&wakes), "{wakes}");
    }

    #[test]
    fn a_node_whose_timers_are_late_gives_each_step_of_a_probe_more_time() {
        let steps = |lateness| {
            let (mut swim, mut delegate) = start(1);
            swim.handle_alive(Time::ZERO, &alive("n1", 10, 1), &mut delegate);
            (0..80).for_each(|_| swim.note_late_timer(Time::ZERO, lateness));
            swim.timers = Default::default();
            swim.start_probe(Time::ZERO, &mut delegate);
            let mut due = std::iter::from_fn(|| {
                let at = swim.timers.next()?;
                swim.timers.pop_due(at).map(|_| at.since(Time::ZERO).as_millis())
            });
            [due.next(), due.next(), due.next()]
        };
        let ms = |late, indirect, end| [late, indirect, end].map(Some);
        assert_eq!(steps(Duration::ZERO), ms(250, 500, 1000));
        assert_eq!(steps(Duration::from_millis(80)), ms(409, 659, 1159));
    }

    #[test]
    fn who_is_not_answered_probes_all_others_in_turn_however_long_that_takes() {
        for first in 0..40 {
            let (mut swim, mut delegate) = start(1);
            swim.turns = Turns::at(first);
            for i in 0..3 {
                swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
            }
            // Each probe takes eight intervals.
            swim.awareness = swim.config.profile.awareness_max_multiplier - 1;
            let mut probes = std::collections::BTreeMap::new();
            while probes.len() < 6 {
                let due = swim.next_deadline().unwrap();
                swim.handle_tick(due, &mut delegate);
                probes.extend(swim.probe.as_ref().map(|probe| (probe.seq_no, probe.target)));
            }
            let targets: std::collections::BTreeSet<_> = probes.values().collect();
            assert_eq!(targets.len(), 3, "from turn {first}: {probes:?}");
        }
    }

    #[test]
    fn an_ack_from_ones_own_address_answers_no_probe() {
        let (mut swim, mut delegate) = start(1);
        swim.handle_alive(Time::ZERO, &alive("twin", 1, 1), &mut delegate);
        while swim.probe.is_none() {
            let due = swim.next_deadline().unwrap();
            swim.handle_tick(due, &mut delegate);
        }
        let sent = swim.probe.as_ref().unwrap().sent;
        let ack = Ack {
            seq_no: swim.seq_no,
            ..Ack::default()
        };
        for (from, answered) in [("10.0.0.1:7946", false), ("10.0.0.2:7946", true)] {
            swim.handle_ack(sent, from.parse().unwrap(), &ack, &mut delegate);
            assert_eq!(swim.probe.is_none(), answered, "{from}");
        }
    }

    #[test]
    fn a_late_ack_of_the_target_itself_makes_patient_but_not_for_ever() {
        let ms = Duration::from_millis;
        for (acked, by_target, before, after) in [
            (ms(900), true, 2, 3),
            (ms(900), true, 4, 4),
            (ms(900), true, 6, 6),
            // A relay brings it, where packets are lost.
            (ms(900), false, 2, 1),
            (ms(450), true, 2, 1),
        ] {
            let (mut swim, mut delegate) = start(1);
            for i in 0..9 {
                swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
            }
            while swim.probe.is_none() {
                let due = swim.next_deadline().unwrap();
                swim.handle_tick(due, &mut delegate);
            }
            swim.awareness = before;
            let (sent, seq_no) = swim
                .probe
                .as_ref()
                .map(|probe| (probe.sent, probe.seq_no))
                .unwrap();
            swim.timers
                .cancel(|timer| !matches!(timer, Timer::LateAck(_) | Timer::ProbeTimeout(_)));
            while let Some(due) = swim.next_deadline().filter(|due| *due <= sent + acked) {
                swim.handle_tick(due, &mut delegate);
            }
            let from = swim.probe.as_ref().unwrap().facts.socket();
            let relay = ([10, 0, 0, 99], 7946).into();
            let ack = Ack {
                seq_no,
                ..Ack::default()
            };
            swim.handle_ack(
                sent + acked,
                if by_target { from } else { relay },
                &ack,
                &mut delegate,
            );
            assert_eq!(swim.awareness, after, "{acked:?} {by_target} {before}");
        }
    }
}
