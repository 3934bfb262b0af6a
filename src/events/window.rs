//! When to deliver what is held back: the first event starts a period, each event restarts a quiet time,
//! and whichever ends first delivers.

use std::time::Duration;

use fyrd_core::time::Time;

/// The period and the quiet time of one kind of event.
#[derive(Debug)]
pub(super) struct Window {
    period: Duration,
    quiet: Duration,
    /// When the period ends, and when the quiet time.
    ends: Option<(Time, Time)>,
}

impl Window {
    /// A window that is not open yet. Without a period, all is due at once.
    pub fn new(period: Duration, quiet: Duration) -> Self {
        Window {
            period,
            quiet: quiet.min(period),
            ends: None,
        }
    }

    /// An event came.
    pub fn extend(&mut self, now: Time) {
        let period_ends = self
            .ends
            .map_or(now + self.period, |(period_ends, _)| period_ends);
        self.ends = Some((period_ends, now + self.quiet));
    }

    /// Lets all be due at once.
    pub fn end(&mut self, now: Time) {
        self.ends = Some((now, now));
    }

    /// When it ends, if it is open.
    pub fn deadline(&self) -> Option<Time> {
        self.ends
            .map(|(period_ends, quiet_ends)| period_ends.min(quiet_ends))
    }

    /// Closes the window if it is over; whether it was.
    pub fn close_if_due(&mut self, now: Time) -> bool {
        let due = self.deadline().is_some_and(|deadline| now >= deadline);
        if due {
            self.ends = None;
        }
        due
    }
}
