//! Times in which this process did not run: it was stopped, or its machine slept or was overloaded.

use std::time::Duration;

use tracing::warn;

use super::{Swim, Timer};
use crate::time::Time;

/// How often at most pauses of this process are logged.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A pause that takes this fraction of the time for a direct ping's ack is one that the ack may have waited for.
const SHORT_PAUSE: u32 = 4;

/// Pauses of this process, told now and then: a host that stalls does so every few seconds.
#[derive(Debug, Default)]
pub(super) struct Pauses {
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
