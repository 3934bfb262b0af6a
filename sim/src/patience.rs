//! How long a cluster may need.

use std::time::Duration;

use fyrd_core::swim::formulas::{push_pull_interval, suspicion_bounds};
use fyrd_core::swim::profile::Profile;

/// How long things may take in a calm network, from a profile's own figures.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a dead node has failed everywhere: it is probed, perhaps by nodes of the worst health, then
    /// suspected for as long as it may be; whoever misses the gossip learns it in a push/pull.
    pub detect: Duration,
    /// Until a living node that was taken for dead is back everywhere: false suspicions still end first,
    /// then it is dialled again by the reconnect rule.
    pub recover: Duration,
    /// Until a change has reached everybody: by gossip as a rule, by push/pulls at the latest.
    pub spread: Duration,
}

impl Patience {
    /// For a cluster of `n`.
    pub fn of(profile: &Profile, n: usize) -> Self {
        let (_, suspicion) = suspicion_bounds(
            profile.suspicion_mult,
            profile.suspicion_max_timeout_mult,
            n,
            profile.probe_interval,
        );
        let exchange = push_pull_interval(profile.push_pull_interval, n);
        let slow_probe = profile.probe_interval * profile.awareness_max_multiplier;
        let detect = slow_probe * 2 + suspicion + exchange * 2;
        Patience {
            detect,
            recover: detect + profile.serf.reconnect_interval * 6 + exchange * 2,
            spread: exchange * 4,
        }
    }
}
