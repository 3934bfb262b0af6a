//! What would be said again and again for as long as a peer does the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bounds::REPEATS_MAX;

/// Counts how often something was worth a line, for each kind of it and each name.
#[derive(Debug)]
pub struct Repeats<K> {
    times: BTreeMap<(K, Arc<str>), u32>,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Repeats {
            times: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Repeats<K> {
    /// It has happened again. Says whether that is worth a line: the first time, the second, the fourth, and so on.
    pub fn again(&mut self, kind: K, name: &str) -> bool {
        self.count(kind, name).is_power_of_two()
    }

    /// The same for what is worth a single line.
    pub fn first(&mut self, kind: K, name: &str) -> bool {
        self.count(kind, name) == 1
    }

    /// It is over: the next time is a first one.
    pub fn over(&mut self, kind: K, name: &str) {
        if !self.times.is_empty() {
            self.times.remove(&(kind, Arc::from(name)));
        }
    }

    /// How much is remembered.
    pub fn remembered(&self) -> usize {
        self.times.len()
    }

    fn count(&mut self, kind: K, name: &str) -> u32 {
        if self.times.len() >= REPEATS_MAX {
            // Some lines come once more; to say nothing would be worse.
            self.times.clear();
        }
        let times = self.times.entry((kind, Arc::from(name))).or_default();
        *times = times.saturating_add(1);
        *times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_ever_less_often_and_begin_anew_when_it_was_over() {
        let mut repeats = Repeats::default();
        let said: Vec<u32> = (1..=20).filter(|_| repeats.again('a', "n")).collect();
        assert_eq!(said, [1, 2, 4, 8, 16]);
        assert!(repeats.again('b', "n") && repeats.again('a', "m"));
        repeats.over('a', "n");
        assert!(repeats.again('a', "n"));
        assert!(repeats.first('c', "n") && !repeats.first('c', "n"));
        for i in 0..2 * REPEATS_MAX {
            repeats.again('d', &i.to_string());
            assert!(repeats.remembered() <= REPEATS_MAX);
        }
    }
}
