//! Times in which this process did not run: it was stopped, or its machine slept or was overloaded.

use std::time::Duration;

use tracing::warn;

use super::{Swim, Timer};
use crate::time::Time;

/// How often at most pauses of this process are logged.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A pause that takes this fraction of the time for a direct ping's ack is one that the ack may have waited for.
const SHORT_PAUSE: u32 = 4;

/// A timer counts as one of so many in the average of how late they come.
const AVERAGED: u32 = 8;

/// Where timers are late, somebody else needs so many times as long for an answer: its host may be the same.
const LAGS: u32 = 2;

/// Pauses of this process, told now and then: a host that stalls does so every few seconds.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// How late the last timers came, on average.
    lag: Duration,
    logged: Option<Time>,
    /// How many there were since then, and their sum.
    untold: (u32, Duration),
}

impl Pauses {
    fn note(&mut self, now: Time, pause: Duration) {
        if self.logged.is_some_and(|at| now.since(at) < PAUSE_LOG_INTERVAL) {
            self.untold = (self.untold.0 + 1, self.untold.1 + pause);
            return;
        }
        self.logged = Some(now);
        match std::mem::take(&mut self.untold) {
            (0, _) => warn!(target: "memberlist", "Nothing ran for {pause:?}; is this host overloaded?"),
            (count, sum) => {
                warn!(target: "memberlist", "Nothing ran for {pause:?}; is this host overloaded? \
                ({count} more pauses since the last warning, {sum:?} together)")
            }
        }
    }
}

impl Swim {
    /// The first of the timers that are due now comes that late.
    pub(super) fn note_late_timer(&mut self, now: Time, late: Duration) {
        let profile = &self.config.profile;
        if profile.refinements.notices_pauses {
            // A single long pause says nothing of what follows.
            let counted = late.min(profile.probe_interval);
            self.pauses.lag = (self.pauses.lag * (AVERAGED - 1) + counted) / AVERAGED;
        }
        self.note_pause(now, late);
    }

    /// How long this process and those on hosts like its own may need for what takes no time elsewhere.
    pub(super) fn slack(&self) -> Duration {
        self.pauses.lag * LAGS
    }

    /// The first timer is that late. A process that waits for a processor wakes up too late again and again, and on such a
    /// host so do those whom it probes: then each probe gets the time back, lest all suspect all and that brings more work
    /// than ever. Suspicions go on, for they have time enough, unless nothing ran for so long that many messages wait.
    pub(super) fn note_pause(&mut self, now: Time, pause: Duration) {
        let profile = &self.config.profile;
        if !profile.refinements.notices_pauses || pause <= profile.probe_timeout / SHORT_PAUSE {
            return;
        }
        if pause > profile.probe_interval {
            self.resume(now, pause);
        } else {
            self.resume_probe(now, pause);
        }
    }

    /// This process did not run for `pause`. Silence in that time was ours, so the probe under way gets it back.
    /// Suspicions get enough to read what has waited: all of it would keep a host that stalls again and again from ever
    /// noticing who has died. Local health is left to how the probe ends.
    pub(super) fn resume(&mut self, now: Time, pause: Duration) {
        self.pauses.note(now, pause);
        // What this process has missed says nothing about the network.
        self.heard = (self.heard + pause).min(now);
        self.resume_probe(now, pause);
        self.extend_looks(now, pause);
        for (&id, suspicion) in &mut self.suspicions {
            suspicion.resume(now, pause, self.config.profile.probe_timeout);
            self.timers
                .set(suspicion.deadline().max(now), Timer::Suspicion(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::{alive, start};

    #[test]
    fn late_timers_give_others_time_and_a_single_pause_says_nothing() {
        let ms = Duration::from_millis;
        let (mut swim, mut delegate) = start(1);
        swim.handle_alive(Time::ZERO, &alive("n1", 1, 1), &mut delegate);
        let mut tick_late = |swim: &mut Swim| {
            swim.timers = Default::default();
            swim.timers.set(Time::ZERO, Timer::ProbeTimeout(0));
            swim.handle_tick(Time::ZERO + ms(80), &mut delegate);
            swim.slack()
        };
        for _ in 0..40 {
            tick_late(&mut swim);
        }
        assert!((ms(150)..=ms(160)).contains(&swim.slack()), "{:?}", swim.slack());
        // Hours, as when a laptop sleeps.
        swim.note_late_timer(Time::ZERO, Duration::from_secs(7200));
        assert!(swim.slack() < ms(400), "{:?}", swim.slack());
        swim.config.profile.refinements.notices_pauses = false;
        swim.pauses = Pauses::default();
        assert_eq!(tick_late(&mut swim), Duration::ZERO, "as with Serf");
    }
}
