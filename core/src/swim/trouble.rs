//! What this node knows of troubles of its own host, and tells its operator once a minute at most.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::warn;

use super::Swim;
use crate::time::Time;

/// How often at most a trouble that lasts is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A trouble that may come again and again, told now and then.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<Time>,
    /// How often it came since then.
    untold: u32,
}

impl Trouble {
    /// It has come again: whether to tell it, and how often it came since it was told last.
    pub fn came(&mut self, now: Time) -> Option<u32> {
        if self.told.is_some_and(|at| now.since(at) < TELL_INTERVAL) {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Swim {
    /// The system of this host has refused to send a ping.
    pub(super) fn note_refused_send(&mut self, now: Time, name: &str, to: SocketAddr, reason: &str) {
        if let Some(more) = self.refused_sends.came(now) {
            warn!(target: "memberlist", "This host cannot send to {name} at {to}: {reason}. That says nothing about \
                {name}: look at this host's routes and firewall ({more} more such pings since the last warning)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_lasts_is_told_once_a_minute_with_a_count() {
        let mut trouble = Trouble::default();
        let told: Vec<(u64, u32)> = (0..130)
            .filter_map(|second| {
                let now = Time::ZERO + Duration::from_secs(second);
                trouble.came(now).map(|untold| (second, untold))
            })
            .collect();
        assert_eq!(told, [(0, 0), (60, 59), (120, 59)]);
    }
}
