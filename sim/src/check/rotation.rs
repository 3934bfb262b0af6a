//! Nobody is suspected because of a key rotation, and no packet is lost to it.

use fyrd_keys::{Fingerprint, Keyring};

use super::{Checker, Sight};
use crate::HostId;
use fyrd_core::time::Time;

/// While keys change in a clean network, no packet is unreadable and no suspicion begins.
#[derive(Debug, Default)]
pub struct QuietRotation {
    rings: Vec<Vec<Fingerprint>>,
    unreadable: Vec<u64>,
    /// When a ring last changed.
    changed: Option<Time>,
    /// Since when nothing is lost in the network and all views had time to settle.
    clean_since: Option<Time>,
}

impl Checker for QuietRotation {
    fn promise(&self) -> &'static str {
        "nobody is suspected because of a key rotation"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        let hosts = || sight.world.hosts().map(|id| sight.world.host(id));
        let fingerprints = |ring: &Keyring| ring.keys().map(|key| key.fingerprint()).collect();
        let rings: Vec<Vec<Fingerprint>> = hosts()
            .map(|host| host.envelope.keyring().map(fingerprints).unwrap_or_default())
            .collect();
        let unreadable: Vec<u64> = hosts().map(|host| host.counters.unreadable).collect();
        let was_known = self.rings.len() == rings.len();
        if was_known && self.rings != rings {
            self.changed = Some(sight.now);
        }
        let is_clean = sight.world.links.is_clean() && sight.calm_since.is_some();
        self.clean_since = is_clean.then(|| self.clean_since.unwrap_or(sight.now));
        let long_ago = |since: Time| sight.now.since(since) > sight.patience.detect;
        let settled = self.clean_since.is_some_and(long_ago)
            && sight.standings.iter().all(|standing| long_ago(standing.since));
        let rotating = self
            .changed
            .is_some_and(|at| sight.now.since(at) <= sight.patience.detect);
        if settled && rotating {
            for (index, before) in self.unreadable.iter().enumerate() {
                let id = HostId(index);
                let lost = unreadable[index] - before;
                if lost > 0 {
                    report.push(format!(
                        "{} could not read {lost} packets during a rotation",
                        sight.name(id)
                    ));
                }
                let suspicions = sight.suspicions.get(index).copied().unwrap_or(0);
                if suspicions > 0 {
                    report.push(format!("{} suspected somebody during a rotation", sight.name(id)));
                }
            }
        }
        (self.rings, self.unreadable) = (rings, unreadable);
    }
}
