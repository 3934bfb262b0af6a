//! How an agent began, on which hangs what it can be relied on for.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::stats::time_of_day;
use crate::go;
use fyrd_core::serf::Stats;

/// The start of an agent.
#[derive(Debug)]
pub(super) struct Beginning {
    instant: Instant,
    /// When it was.
    pub at: SystemTime,
    /// Whether there is somebody to join: by option, or from the last run.
    seeks: bool,
    /// Whether anybody has been met.
    met: Cell<bool>,
    /// The name of the timing profile.
    pub profile: String,
    /// Where the agent gossips, what it announces, and where it listens for commands.
    addresses: [(&'static str, String); 3],
}

impl Beginning {
    /// An agent that starts now.
    pub fn now(seeks: bool, profile: String, addresses: [(&'static str, String); 3]) -> Beginning {
        Beginning {
            instant: Instant::now(),
            at: SystemTime::now(),
            seeks,
            met: Cell::new(false),
            profile,
            addresses,
        }
    }

    /// How long ago that is.
    pub fn uptime(&self) -> Duration {
        self.instant.elapsed()
    }

    /// What `info` shows of it.
    pub fn figures(&self) -> BTreeMap<String, String> {
        let seconds = Duration::from_secs(self.uptime().as_secs());
        let nanos = i64::try_from(seconds.as_nanos()).unwrap_or(i64::MAX);
        let others = [
            ("profile", self.profile.clone()),
            ("started", time_of_day(self.at)),
            ("uptime", go::Duration { nanos }.to_string()),
        ];
        let all = self.addresses.iter().cloned().chain(others);
        all.map(|(key, value)| (key.to_string(), value)).collect()
    }

    /// Whether there is somebody to join and nobody has been met yet, by what the node says now.
    pub fn is_lonely(&self, stats: &Stats) -> bool {
        // Who was gone already in the last run is listed at once.
        if stats.members.saturating_sub(stats.failed + stats.left) > 1 {
            self.met.set(true);
        }
        self.seeks && !self.met.get()
    }
}
