//! How long something has been so: most promises allow a wrong state for a while, but not for good.

use std::collections::BTreeMap;
use std::time::Duration;

use fyrd_core::time::Time;

/// Conditions, each with the time since which it has held at every glance.
#[derive(Debug)]
pub(super) struct Lasting<K> {
    since: BTreeMap<K, (Time, bool)>,
    seen: Vec<K>,
}

impl<K: Ord> Default for Lasting<K> {
    fn default() -> Self {
        Lasting {
            since: BTreeMap::new(),
            seen: Vec::new(),
        }
    }
}

impl<K: Ord + Clone> Lasting<K> {
    /// The condition holds now.
    pub fn note(&mut self, key: K) {
        self.seen.push(key);
    }

    /// Ends a glance: conditions not noted during it are over. Gives those that have now lasted longer
    /// than `bound`, each once.
    pub fn end_glance(&mut self, now: Time, bound: Duration) -> Vec<K> {
        let mut seen = std::mem::take(&mut self.seen);
        seen.sort();
        self.since.retain(|key, _| seen.binary_search(key).is_ok());
        let mut overdue = Vec::new();
        for key in seen {
            let (since, told) = self.since.entry(key.clone()).or_insert((now, false));
            if now.since(*since) > bound && !*told {
                *told = true;
                overdue.push(key);
            }
        }
        overdue
    }

    /// Whether any condition holds that must not for long.
    pub fn is_waiting(&self) -> bool {
        !self.since.is_empty()
    }

    /// Time does not count: begin anew.
    pub fn clear(&mut self) {
        self.since.clear();
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_all_the_time_is_told_and_once() {
        let mut lasting = Lasting::default();
        let mut told = Vec::new();
        for second in 0..10 {
            lasting.note("always");
            if second != 4 {
                lasting.note("not at four");
            }
            let now = Time::ZERO + Duration::from_secs(second);
            let overdue = lasting.end_glance(now, Duration::from_secs(5));
            told.extend(overdue.into_iter().map(|key| (second, key)));
        }
        assert_eq!(told, [(6, "always")]);
        assert!(lasting.is_waiting());
        lasting.end_glance(Time::ZERO + Duration::from_secs(10), Duration::ZERO);
        assert!(!lasting.is_waiting());
    }
}
