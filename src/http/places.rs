//! How many clients may wait for something: a number of places, each given back when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// The places of one kind.
#[derive(Clone, Debug)]
pub(super) struct Places(Rc<Cell<usize>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Place(Rc<Cell<usize>>);

impl Places {
    /// So many places, all free.
    pub(super) fn new(count: usize) -> Places {
        Places(Rc::new(Cell::new(count)))
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        self.0.set(self.0.get().checked_sub(1)?);
        Some(Place(Rc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let places = Places::new(2);
        let (one, two) = (places.take(), places.take());
        assert!(one.is_some() && two.is_some() && places.take().is_none());
        drop(one);
        assert!(places.take().is_some());
    }
}
