//! A queue of deadlines. A timer may be outdated when it fires (the probe has been answered, the suspicion refuted), and
//! is ignored then. What would fire often for nothing is taken out.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Deadlines with what they are for, earliest first; equal times come in the order they were set.
#[derive(Debug)]
pub struct Deadlines<T> {
    heap: BinaryHeap<Deadline<T>>,
    set: u64,
}

#[derive(Debug)]
struct Deadline<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Deadlines {
            heap: BinaryHeap::new(),
            set: 0,
        }
    }
}

impl<T> Deadlines<T> {
    /// Asks for `what` at `at`.
    pub fn set(&mut self, at: Time, what: T) {
        self.set += 1;
        let number = self.set;
        self.heap.push(Deadline { at, number, what });
    }

    /// Takes out those for which this holds.
    pub fn cancel(&mut self, is_outdated: impl Fn(&T) -> bool) {
        self.heap.retain(|deadline| !is_outdated(&deadline.what));
    }

    /// How many are set, outdated ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|deadline| deadline.at)
    }

    /// Takes the earliest deadline that has passed.
    pub fn pop_due(&mut self, now: Time) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|deadline| deadline.what)
    }
}

impl<T> Ord for Deadline<T> {
    /// The heap gives its greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Deadline<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Deadline<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Deadline<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_time_order_then_in_the_order_set() {
        let mut deadlines = Deadlines::default();
        let at = Time::from_nanos;
        for (time, what) in [(5, 'c'), (3, 'z'), (3, 'a'), (9, 'd')] {
            deadlines.set(at(time), what);
        }
        assert_eq!(deadlines.next(), Some(at(3)));
        let mut due = Vec::new();
        while let Some(what) = deadlines.pop_due(at(5)) {
            due.push(what);
        }
        assert_eq!(due, ['z', 'a', 'c']);
        assert_eq!(deadlines.next(), Some(at(9)));
        deadlines.set(at(7), 'e');
        deadlines.cancel(|&what| what == 'e');
        assert_eq!((deadlines.next(), deadlines.len()), (Some(at(9)), 1));
    }
}
