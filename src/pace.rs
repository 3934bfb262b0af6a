//! Saying something not more often than once in a while.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Knows when something may be said again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    every: Duration,
    next: Cell<Option<Instant>>,
}

impl Pace {
    /// Once in this time.
    pub fn new(every: Duration) -> Pace {
        let next = Cell::new(None);
        Pace { every, next }
    }

    /// Whether it may be said at `now`; if so, the next time is this time later.
    pub fn allows(&self, now: Instant) -> bool {
        let allows = self.next.get().is_none_or(|next| next <= now);
        if allows {
            self.next.set(Some(now + self.every));
        }
        allows
    }

    /// Lets it be said again at once.
    pub fn reset(&self) {
        self.next.set(None);
    }
}
