//! What a state machine wants done, until its driver takes it.

use std::collections::VecDeque;

/// Room for this many entries is kept; a node at rest needs no more.
const KEEP: usize = 32;

/// A queue that gives memory back once it is empty: one push/pull can put out thousands of effects at once, and
/// a simulator holds thousands of nodes.
#[derive(Debug)]
pub struct Outbox<T>(VecDeque<T>);

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Outbox(VecDeque::new())
    }
}

impl<T> Outbox<T> {
    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends an entry.
    pub fn push_back(&mut self, entry: T) {
        self.0.push_back(entry);
    }

    /// Takes the oldest entry.
    pub fn pop_front(&mut self) -> Option<T> {
        let entry = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > KEEP {
            self.0 = VecDeque::new();
        }
        entry
    }
}

impl<T> Extend<T> for Outbox<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        self.0.extend(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_and_leave_no_room_behind() {
        let mut outbox = Outbox::default();
        (0..10_000).for_each(|i| outbox.push_back(i));
        assert!((0..10_000).all(|i| outbox.pop_front() == Some(i)));
        assert_eq!(outbox.pop_front(), None);
        assert_eq!(outbox.0.capacity(), 0);
    }
}
