//! Members that were failed and say that they live: whether they can be reached as well.
//!
//! A host behind an address translator, or one that announces an address that it has no more, speaks to all and is
//! reached by nobody: it is declared failed, refutes that, and is declared failed again, for as long as it runs. What
//! members tell each other follows, for all hold the same. Users and listeners see a return once the member has
//! answered: a ping of this node soon after the return, any probe, or a stream that was dialled to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::delegate::Delegate;
use super::members::{NodeId, State};
use super::{Swim, Timer};
use crate::swim::formulas::suspicion_bounds;
use crate::swim::state::encoded;
use crate::time::Time;

/// Pings of this node, a probe interval apart; later answers come from its probes alone.
const PINGS: u32 = 3;

/// All members ping who has returned, each within so much time for every member: not faster than a host answers that
/// was overloaded just now.
const SPACING: Duration = Duration::from_millis(5);

/// A failed member that says it lives, and has not answered yet.
#[derive(Debug)]
pub(super) struct Return {
    since: Time,
    seq_no: u32,
    pings: u32,
}

impl Swim {
    /// A failed member says that it lives.
    pub(super) fn await_answer(&mut self, now: Time, id: NodeId) {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        // Not at once: its acks would carry its return to those alone who know of it.
        let spread = SPACING.saturating_mul(members).mul_f64(self.random());
        let first = now + self.config.profile.probe_interval + spread;
        let seq_no = self.next_seq_no();
        let (since, pings) = (now, 0);
        self.returns.insert(id, Return { since, seq_no, pings });
        self.timers.set(first, Timer::Return(id));
    }

    /// Pings once more, or does without an answer: for long enough nobody has declared the member failed again.
    pub(super) fn tick_return(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        let (profile, n) = (&self.config.profile, self.members.len());
        let (_, longest) = suspicion_bounds(
            profile.suspicion_mult,
            profile.suspicion_max_timeout_mult,
            n,
            profile.probe_interval,
        );
        let Some((returned, record)) = self.returns.get_mut(&id).zip(self.members.get(id)) else {
            return;
        };
        let trial_ends = returned.since + 2 * longest;
        if returned.pings == PINGS {
            if record.state == State::Suspect || now < trial_ends {
                let again = trial_ends.max(now + profile.probe_interval);
                return self.timers.set(again, Timer::Return(id));
            }
            return self.answered(now, id, delegate);
        }
        returned.pings += 1;
        self.timers.set(now + profile.probe_interval, Timer::Return(id));
        let (facts, seq_no, source) = (
            Arc::clone(&record.facts),
            returned.seq_no,
            self.config.facts.clone(),
        );
        // Without gossip: the sends of what all have to hear would go to the one who knows it already.
        let plain = encoded(|out| source.ping(&facts.name, seq_no).encode(out));
        delegate.send(facts.socket(), plain, false);
    }

    /// This member has answered.
    pub(super) fn answered(&mut self, now: Time, id: NodeId, delegate: &mut impl Delegate) {
        if self.returns.remove(&id).is_some()
            && let Some(record) = self.members.get(id)
        {
            delegate.member_answered(now, &Arc::clone(&record.facts));
        }
    }

    /// An ack came. Says whether it was about a return.
    pub(super) fn return_answered(&mut self, now: Time, seq_no: u32, delegate: &mut impl Delegate) -> bool {
        let mut returns = self.returns.iter();
        let Some((&id, _)) = returns.find(|(_, returned)| returned.seq_no == seq_no) else {
            return false;
        };
        self.answered(now, id, delegate);
        true
    }

    /// A stream that was dialled to this address was answered.
    pub(super) fn answered_at(&mut self, now: Time, addr: SocketAddr, delegate: &mut impl Delegate) {
        let members = &self.members;
        let there = |id: &&NodeId| {
            members
                .get(**id)
                .is_some_and(|record| record.facts.socket() == addr)
        };
        if let Some(&id) = self.returns.keys().find(there) {
            self.answered(now, id, delegate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::delegate::Silent;
    use crate::swim::testing::{alive, start};
    use crate::wire::message::Ack;

    const T: Time = Time::ZERO;

    /// A node that has just been told by "b", which was failed, that it lives; only that is of interest.
    fn returned() -> (Swim, Silent, NodeId) {
        let (mut swim, mut delegate) = start(1);
        delegate.doubts = true;
        swim.handle_alive(T, &alive("b", 2, 1), &mut delegate);
        swim.dead(T, "b", 1, "c", &mut delegate);
        swim.timers = Default::default();
        swim.handle_alive(T, &alive("b", 2, 2), &mut delegate);
        let id = swim.members.find("b").expect("a member");
        assert!(swim.returns.contains_key(&id));
        (swim, delegate, id)
    }

    /// Lets the timers run until `secs` seconds are over.
    fn run(swim: &mut Swim, delegate: &mut Silent, secs: u64) {
        let end = T + Duration::from_secs(secs);
        while let Some(due) = swim.next_deadline().filter(|due| *due <= end) {
            swim.handle_tick(due, delegate);
        }
    }

    #[test]
    fn a_return_is_told_when_the_member_answers() {
        let (mut swim, mut delegate, _) = returned();
        run(&mut swim, &mut delegate, 2);
        assert!(!delegate.sent.is_empty() && delegate.sent.len() <= PINGS as usize);
        assert_eq!(delegate.answered.len(), 0);
        let seq_no = swim.returns.values().next().expect("it is awaited").seq_no;
        let from = "10.0.0.2:7946".parse().expect("an address");
        let ack = Ack {
            seq_no,
            ..Ack::default()
        };
        swim.handle_ack(T, from, &ack, &mut delegate);
        swim.answered_at(T, from, &mut delegate);
        assert_eq!(delegate.answered, ["b"]);
    }

    #[test]
    fn a_member_that_answers_nobody_is_told_once_it_could_have_failed_again_twice() {
        let (mut swim, mut delegate, _) = returned();
        // With two members a suspicion takes 24 s at most.
        run(&mut swim, &mut delegate, 47);
        assert_eq!(
            (delegate.answered.len(), delegate.sent.len()),
            (0, PINGS as usize)
        );
        run(&mut swim, &mut delegate, 50);
        assert_eq!(delegate.answered, ["b"]);
    }

    #[test]
    fn whoever_is_suspected_when_its_time_is_over_waits_for_the_verdict() {
        let (mut swim, mut delegate, _) = returned();
        run(&mut swim, &mut delegate, 47);
        swim.suspect(T + Duration::from_secs(47), "b", 2, "c");
        run(&mut swim, &mut delegate, 50);
        assert_eq!(delegate.answered.len(), 0);
        run(&mut swim, &mut delegate, 100);
        assert_eq!((delegate.answered.len(), swim.returns.len()), (0, 0));
    }

    #[test]
    fn a_member_that_fails_again_is_not_told_at_all() {
        let (mut swim, mut delegate, id) = returned();
        swim.dead(T, "b", 2, "c", &mut delegate);
        assert!(!swim.returns.contains_key(&id));
        run(&mut swim, &mut delegate, 100);
        assert_eq!(delegate.answered.len(), 0);
    }
}
