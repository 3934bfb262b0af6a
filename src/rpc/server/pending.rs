//! The queries that a connection may answer.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fyrd_core::bounds;
use fyrd_core::serf::QueryKey;

/// The queries a connection has been told of, by the numbers it knows them by: 1, 2, and so on. A query
/// seen by two streams has two numbers.
///
/// Of those that are over some remain here, until newer ones push them out; it is the node that knows.
#[derive(Debug, Default)]
pub(super) struct PendingQueries(RefCell<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    last: u64,
    queries: BTreeMap<u64, QueryKey>,
}

impl PendingQueries {
    pub(super) fn number(&self, query: QueryKey) -> u64 {
        let mut numbered = self.0.borrow_mut();
        numbered.last += 1;
        let number = numbered.last;
        numbered.queries.insert(number, query);
        if numbered.queries.len() > bounds::MAX_OPEN_QUERIES {
            numbered.queries.pop_first();
        }
        number
    }

    pub(super) fn query(&self, number: u64) -> Option<QueryKey> {
        self.0.borrow().queries.get(&number).copied()
    }

    pub(super) fn forget(&self, number: u64) {
        self.0.borrow_mut().queries.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_and_the_oldest_are_forgotten() {
        let pending = PendingQueries::default();
        assert_eq!((pending.number((7, 1)), pending.number((7, 1))), (1, 2));
        assert_eq!(pending.query(2), Some((7, 1)));
        for ltime in 0..bounds::MAX_OPEN_QUERIES as u64 {
            pending.number((ltime, 9));
        }
        assert_eq!((pending.query(2), pending.query(3)), (None, Some((0, 9))));
        pending.forget(3);
        assert_eq!(pending.query(3), None);
    }
}
