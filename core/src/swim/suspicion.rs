//! Suspicions with confirmations (Lifeguard, section "LHA Suspicion"; docs/protocol.md#a16-suspicion).
//!
//! A suspicion starts with its longest timeout, and each peer that confirms it independently makes it
//! shorter. So a node that many cannot reach is declared dead soon, and one that this node alone cannot
//! reach has much time to refute.

use std::time::Duration;

use crate::swim::formulas::suspicion_timeout;
use crate::time::Time;

/// One running suspicion.
#[derive(Debug)]
pub struct Suspicion {
    started: Time,
    min: Duration,
    max: Duration,
    /// How many confirmations bring the timeout to its minimum.
    k: u32,
    /// Who has suspected, the initiator first; never more than k + 1.
    accusers: Vec<Box<str>>,
    /// What is known first hand.
    pub evidence: Evidence,
}

impl Suspicion {
    /// Starts a suspicion on the word of `initiator`.
    pub fn new(started: Time, k: u32, min: Duration, max: Duration, initiator: &str) -> Self {
        Suspicion {
            started,
            min,
            max,
            k,
            accusers: vec![initiator.into()],
            evidence: Evidence::default(),
        }
    }

    /// When the suspected node is to be declared failed.
    pub fn deadline(&self) -> Time {
        self.started + suspicion_timeout(self.confirmations(), self.k, self.min, self.max)
    }

    /// This process did not run for `pause`, until `now`. A refutation may wait to be read, so the suspicion is
    /// extended by up to `grace`, and ends no earlier than after so long.
    pub fn resume(&mut self, now: Time, pause: Duration, grace: Duration) {
        self.postpone(now, pause.min(grace));
        let short_by = (now + grace).since(self.deadline());
        self.started += short_by;
    }

    /// Extends it by a time that ended `now`, and in which this process could hear nobody. A suspicion that
    /// began within that time is extended only by the part since then.
    fn postpone(&mut self, now: Time, by: Duration) {
        self.started = (self.started + by).min(now);
    }

    /// As [`Suspicion::postpone`], for a time in which nobody was heard. Somebody is heard now, so it was the fault of
    /// this node or its network, however often that happens.
    pub fn hold_up(&mut self, now: Time, by: Duration) {
        self.postpone(now, by.min(self.patience()));
    }

    /// For how long the verdict may wait while nobody is heard. That may be the fault of the others, so it does not wait
    /// for ever.
    pub fn patience(&self) -> Duration {
        self.max
    }

    /// How many peers have confirmed.
    pub fn confirmations(&self) -> u32 {
        self.accusers.len() as u32 - 1
    }

    /// How many confirmations bring it to its shortest timeout.
    pub fn hoped_for(&self) -> u32 {
        self.k
    }

    /// Counts a confirmation; says whether it was a new one, which is to be gossiped on.
    pub fn confirm(&mut self, from: &str) -> bool {
        if self.confirmations() >= self.k || self.accusers.iter().any(|known| **known == *from) {
            return false;
        }
        self.accusers.push(from.into());
        true
    }
}

/// What is known first hand of a member under suspicion.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The others who say that they were refused.
    pub witnesses: Vec<Box<str>>,
    /// When this node was refused first and last, since there was any sign of life.
    pub refused: Option<(Time, Time)>,
    /// The look under way.
    pub look: Option<Glance>,
    /// When something is to be done next; timers that come at another time are outdated.
    pub due: Option<Time>,
    /// How often this node has looked, and how often it has drawn whether to.
    pub looks: u32,
    pub draws: u32,
    pub neighbours: Neighbours,
}

/// Whether those near a suspect can be reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbours {
    /// Counts how often they were asked.
    pub round: u32,
    /// How many are still to answer; `None` while nobody was asked, or if one did not answer.
    pub left: Option<usize>,
}

/// A look at a suspect: a ping and a stream.
#[derive(Debug)]
pub struct Glance {
    pub seq_no: u32,
    /// Until then the ping may be answered.
    pub patient_until: Time,
    pub refused: Option<Time>,
}

impl Evidence {
    /// Whether a refusal is known of, this node's own or another's.
    pub fn is_refused(&self) -> bool {
        self.refused.is_some() || !self.witnesses.is_empty()
    }

    /// Whether this node was refused itself.
    pub fn is_first_hand(&self) -> bool {
        self.refused.is_some()
    }

    pub fn note_refusal(&mut self, at: Time) {
        let first = self.refused.map_or(at, |(first, _)| first);
        self.refused = Some((first, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_accusers_count_and_only_up_to_k() {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        let mut suspicion = Suspicion::new(Time::ZERO, 2, min, max, "a");
        assert_eq!(suspicion.deadline(), Time::ZERO + max);
        assert!(!suspicion.confirm("a"));
        assert!(suspicion.confirm("b"));
        assert!(!suspicion.confirm("b"));
        assert_eq!(suspicion.deadline(), Time::ZERO + Duration::from_millis(11_381));
        assert!(suspicion.confirm("c"));
        assert!(!suspicion.confirm("d"));
        assert_eq!(suspicion.deadline(), Time::ZERO + min);
    }

    #[test]
    fn a_small_cluster_waits_only_the_minimum() {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        let suspicion = Suspicion::new(Time::ZERO, 0, min, max, "a");
        assert_eq!(suspicion.deadline(), Time::ZERO + min);
    }

    #[test]
    fn after_a_pause_of_ours_there_is_time_to_read_what_has_waited_and_no_more() {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        let (grace, at) = (Duration::from_millis(500), |ms| {
            Time::ZERO + Duration::from_millis(ms)
        });
        // When it began, how long nothing ran, until when; and its deadline before and after.
        for (began, pause, now, before, after) in [
            (0, 1200, 5000, 24_000, 24_500),
            (0, 200, 5000, 24_000, 24_200),
            (0, 30_000, 31_000, 24_000, 31_500),
            (0, 1200, 23_900, 24_000, 24_500),
            (31_000, 30_000, 31_000, 55_000, 55_000),
        ] {
            let mut suspicion = Suspicion::new(at(began), 2, min, max, "a");
            assert_eq!(suspicion.deadline(), at(before));
            suspicion.resume(at(now), Duration::from_millis(pause), grace);
            assert_eq!(suspicion.deadline(), at(after), "{began} {pause} {now}");
        }
    }

    #[test]
    fn each_silence_that_ends_holds_it_up_by_its_part_of_it_and_no_longer_than_its_longest_timeout() {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        let mut suspicion = Suspicion::new(at(5), 2, min, max, "a");
        // Until when and for how long nobody was heard, and when it would have begun without.
        for (until, silent, began) in [(8, 10, 8), (20, 10, 18), (100, 30, 42), (200, 30, 66)] {
            suspicion.hold_up(at(until), Duration::from_secs(silent));
            assert_eq!(suspicion.deadline(), at(began) + max, "until {until}");
        }
    }
}
