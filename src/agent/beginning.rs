//! How an agent began, on which hangs what it can be relied on for.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "http")]
use fyrd_core::serf::Stats;

/// The start of an agent.
#[derive(Debug)]
pub(super) struct Beginning {
    instant: Instant,
    /// When it was.
    pub at: SystemTime,
    /// Whether there is somebody to join: by option, or from the last run.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP clients ask for it"))]
    seeks: bool,
    /// Whether anybody has been met.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP clients ask for it"))]
    met: Cell<bool>,
    /// The name of the timing profile.
    pub profile: String,
}

impl Beginning {
    /// An agent that starts now.
    pub fn now(seeks: bool, profile: String) -> Beginning {
        Beginning {
            instant: Instant::now(),
            at: SystemTime::now(),
            seeks,
            met: Cell::new(false),
            profile,
        }
    }

    /// How long ago that is.
    pub fn uptime(&self) -> Duration {
        self.instant.elapsed()
    }

    /// Whether there is somebody to join and nobody has been met yet, by what the node says now.
    #[cfg(feature = "http")]
    pub fn is_lonely(&self, stats: &Stats) -> bool {
        // Who was gone already in the last run is listed at once.
        if stats.members.saturating_sub(stats.failed + stats.left) > 1 {
            self.met.set(true);
        }
        self.seeks && !self.met.get()
    }
}
