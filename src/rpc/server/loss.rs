//! Telling the log that something is being lost, without flooding it.
//!
//! A line for each loss would itself be lost at a client that monitors the log too slowly, and so beget
//! the next one. The first loss is told at once; what follows is summed up at intervals.

use std::cell::Cell;
use std::time::Instant;

use tracing::warn;

use crate::pace::Pace;
use fyrd_core::bounds;

/// One kind of loss, at one client.
#[derive(Debug)]
pub(crate) struct Loss {
    /// What the log says, before the count.
    text: String,
    untold: Cell<u64>,
    told: Pace,
}

impl Loss {
    pub(crate) fn new(text: String) -> Loss {
        Loss {
            text,
            untold: Cell::new(0),
            told: Pace::new(bounds::RPC_LOSS_REPORT),
        }
    }

    /// Counts, and tells if it is time to.
    pub(crate) fn add(&self, count: u64) {
        self.add_at(Instant::now(), count);
    }

    fn add_at(&self, now: Instant, count: u64) {
        self.untold.set(self.untold.get().saturating_add(count));
        if self.untold.get() > 0 && self.told.allows(now) {
            self.tell();
        }
    }

    fn tell(&self) {
        // Not within the macro, which looks at its arguments only if somebody listens.
        let count = self.untold.take();
        warn!(target: "agent.ipc", "{} (count: {count})", self.text);
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        if self.untold.get() > 0 {
            self.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_is_told_at_once_and_the_rest_in_sums() {
        let loss = Loss::new("x".to_owned());
        let start = Instant::now();
        loss.add_at(start, 0);
        loss.add_at(start, 1);
        assert_eq!(
            loss.untold.get(),
            0,
            "told at once, for nothing was told when nothing was lost"
        );
        for _ in 0..1000 {
            loss.add_at(start, 2);
        }
        assert_eq!(loss.untold.get(), 2000, "summed up");
        loss.add_at(start + bounds::RPC_LOSS_REPORT, 0);
        assert_eq!(loss.untold.get(), 0, "told after the interval");
    }
}
