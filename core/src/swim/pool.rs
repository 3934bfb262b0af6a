//! Facts that many nodes of one process share.
//!
//! Every node holds the facts of every member, so a simulated cluster would hold each of them once a node.
//! Nodes that were given the same pool hold them once together. What a node does never depends on it.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::swim::members::Facts;

/// How many facts a pool holds before it first looks for those that nobody uses any more.
const FIRST_SWEEP: usize = 1024;

/// A pool of facts, or none at all (the default): then each node holds facts of its own. Clones are the
/// same pool.
#[derive(Clone, Debug, Default)]
pub struct FactsPool(Option<Arc<Mutex<Pooled>>>);

#[derive(Debug)]
struct Pooled {
    facts: HashTable<Arc<Facts>>,
    hasher: FixedState,
    sweep_at: usize,
}

impl FactsPool {
    /// An empty pool, to be given to all nodes of a process.
    pub fn shared() -> Self {
        FactsPool(Some(Arc::new(Mutex::new(Pooled {
            facts: HashTable::new(),
            hasher: FixedState::default(),
            sweep_at: FIRST_SWEEP,
        }))))
    }

    /// These facts, from the pool if they are there already.
    pub(super) fn share(&self, facts: Facts) -> Arc<Facts> {
        let Some(pool) = &self.0 else {
            return Arc::new(facts);
        };
        // A pool that was left half changed by a panic still holds nothing but facts.
        pool.lock().unwrap_or_else(PoisonError::into_inner).share(facts)
    }
}

impl Pooled {
    fn share(&mut self, facts: Facts) -> Arc<Facts> {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(&facts);
        if let Some(known) = self.facts.find(hash, |known| **known == facts) {
            return Arc::clone(known);
        }
        let facts = Arc::new(facts);
        self.facts
            .insert_unique(hash, Arc::clone(&facts), |known| hasher.hash_one(&**known));
        if self.facts.len() >= self.sweep_at {
            self.facts.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = FIRST_SWEEP.max(2 * self.facts.len());
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::RawAddr;

    fn facts(name: &str, port: u16) -> Facts {
        Facts {
            name: name.into(),
            addr: RawAddr::V4([10, 0, 0, 1]),
            port,
            meta: Box::from(&b"tags"[..]),
            vsn: [1, 5, 2, 2, 5, 5],
        }
    }

    #[test]
    fn equal_facts_are_one_and_others_are_not() {
        let pool = FactsPool::shared();
        let first = pool.share(facts("a", 1));
        assert!(Arc::ptr_eq(&first, &pool.clone().share(facts("a", 1))));
        let other = pool.share(facts("a", 2));
        assert_eq!(*other, facts("a", 2));
        let none = FactsPool::default();
        assert!(!Arc::ptr_eq(
            &none.share(facts("a", 1)),
            &none.share(facts("a", 1))
        ));
    }

    #[test]
    fn facts_that_nobody_holds_leave_the_pool() {
        let pool = FactsPool::shared();
        let held: Vec<_> = (0..10).map(|port| pool.share(facts("held", port))).collect();
        for i in 0..10 * FIRST_SWEEP {
            pool.share(facts(&format!("n{i}"), 1));
        }
        let inner = pool.0.as_ref().expect("a pool").lock().expect("no panic");
        assert!(inner.facts.len() < 2 * FIRST_SWEEP, "{}", inner.facts.len());
        for facts in &held {
            assert!(inner.facts.iter().any(|known| Arc::ptr_eq(known, facts)));
        }
    }
}
