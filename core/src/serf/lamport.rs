//! Lamport clocks (docs/protocol.md#b3-lamport-clocks).

use crate::bounds::{MAX_LTIME, MAX_LTIME_STEP};

/// One logical clock. Its time is the stamp that the next thing we say will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LamportClock(u64);

impl Default for LamportClock {
    /// Clocks start at 1: stamp 0 stands for "never".
    fn default() -> Self {
        LamportClock(1)
    }
}

impl LamportClock {
    /// A clock that goes on from this time.
    pub fn from_time(time: u64) -> Self {
        LamportClock(time.max(1))
    }

    /// The current time.
    pub fn time(self) -> u64 {
        self.0
    }

    /// Moves on by one.
    pub fn increment(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    /// Moves beyond a time seen elsewhere.
    pub fn witness(&mut self, seen: u64) {
        if seen >= self.0 {
            self.0 = seen.saturating_add(1);
        }
    }

    /// Whether a time seen elsewhere can have come about honestly. One forged stamp near the end of
    /// the range would otherwise make all later events and queries too old.
    pub fn accepts(self, seen: u64) -> bool {
        seen <= self.0.max(MAX_LTIME).saturating_add(MAX_LTIME_STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_moves_beyond_what_it_has_seen_and_never_back() {
        let mut clock = LamportClock::default();
        assert_eq!(clock.time(), 1);
        for (seen, time) in [(0, 1), (1, 2), (77, 78), (5, 78), (78, 79)] {
            clock.witness(seen);
            assert_eq!(clock.time(), time, "after {seen}");
        }
        clock.increment();
        assert_eq!(clock.time(), 80);
    }

    #[test]
    fn a_leap_to_the_end_of_time_is_not_believed() {
        let mut clock = LamportClock::default();
        assert!(clock.accepts(MAX_LTIME + MAX_LTIME_STEP));
        assert!(!clock.accepts(MAX_LTIME + MAX_LTIME_STEP + 1));
        assert!(!clock.accepts(u64::MAX));
        // Whoever was taken to the limit is still understood by those who were not, and goes on.
        clock.witness(MAX_LTIME);
        assert!(LamportClock::default().accepts(clock.time()));
        clock.witness(MAX_LTIME + MAX_LTIME_STEP);
        assert!(clock.accepts(clock.time() + MAX_LTIME_STEP));
        assert!(!clock.accepts(u64::MAX));
    }
}
