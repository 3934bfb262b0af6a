//! Times in which this process did not run: it was stopped, or its machine slept or was overloaded.

use std::time::Duration;

use tracing::warn;

use super::{Swim, Timer};
use crate::time::Time;

/// How often at most pauses of this process are logged.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(60);

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
