//! A table of named things with small, stable ids.
//!
//! A hash index over a slab keeps a record at a few machine words, so that thousands of simulated
//! nodes with thousands of members each fit in one process. Iteration is in slot order, never in
//! hash order, which keeps the core deterministic.

use std::cmp::Ordering;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Names an entry of a [`NameTable<T>`] for as long as it stands there; later entries may reuse it. The type
/// keeps the id of one table from being looked up in another.
pub struct Id<T>(u32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    fn of(slot: u32) -> Self {
        Id(slot, PhantomData)
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.0)
    }
}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// Something that a [`NameTable`] can hold.
pub trait Named {
    /// The name it is found by; must not change while it is in a table.
    fn name(&self) -> &str;
}

/// A slab with an index by name.
#[derive(Debug)]
pub struct NameTable<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    changes: u64,
}

impl<T: Named> NameTable<T> {
    /// An empty table. The seed makes its hashes unguessable to peers who choose names.
    pub fn new(seed: u64) -> Self {
        NameTable {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            changes: 0,
        }
    }

    /// Makes room for this many more entries, and no more than that.
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve_exact(more.saturating_sub(self.free.len()));
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.reserve(more, |&slot| {
            hasher.hash_one(named(slots, slot).unwrap_or_default())
        });
    }

    /// Grows with each change, and with what might have been one: while it is the same, all entries are.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The id of this name.
    pub fn find(&self, name: &str) -> Option<Id<T>> {
        let slots = &self.slots;
        self.index
            .find(self.hasher.hash_one(name), |&slot| {
                named(slots, slot) == Some(name)
            })
            .map(|&slot| Id::of(slot))
    }

    /// The entry of this id, if it still stands.
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// The entry of this id, if it still stands.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        self.changes += 1;
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// The entry of this name.
    pub fn by_name(&self, name: &str) -> Option<&T> {
        self.get(self.find(name)?)
    }

    /// The entry of this name.
    pub fn by_name_mut(&mut self, name: &str) -> Option<&mut T> {
        let id = self.find(name)?;
        self.get_mut(id)
    }

    /// Adds an entry. The caller has made sure that no entry has this name.
    pub fn insert(&mut self, entry: T) -> Id<T> {
        debug_assert!(self.find(entry.name()).is_none());
        self.changes += 1;
        let hash = self.hasher.hash_one(entry.name());
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                grow_slowly(&mut self.slots);
                self.slots.push(Some(entry));
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |&slot| {
            hasher.hash_one(named(slots, slot).unwrap_or_default())
        });
        Id::of(slot)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        self.changes += 1;
        let name = self.get(id)?.name();
        let hash = self.hasher.hash_one(name);
        if let Ok(found) = self.index.find_entry(hash, |&slot| slot == id.0) {
            found.remove();
        }
        self.free.push(id.0);
        self.slots.get_mut(id.0 as usize)?.take()
    }

    /// All entries, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| Some((Id::of(slot as u32), entry.as_ref()?)))
    }

    /// All entries, without their ids.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}

/// Makes room for another element, and an eighth more. Tables of members take most of the memory of a simulated
/// cluster, and doubling them would leave a quarter of it empty on average.
pub fn grow_slowly<T>(elements: &mut Vec<T>) {
    if elements.len() == elements.capacity() {
        elements.reserve_exact((elements.len() / 8).max(8));
    }
}

fn named<T: Named>(slots: &[Option<T>], slot: u32) -> Option<&str> {
    Some(slots.get(slot as usize)?.as_ref()?.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for String {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn whatever_may_have_changed_an_entry_is_counted() {
        let mut table = NameTable::new(7);
        let id = table.insert("a".to_owned());
        let mut last = table.changes();
        let mut is_counted = |table: &NameTable<String>| {
            let before = std::mem::replace(&mut last, table.changes());
            table.changes() > before
        };
        let _ = (table.get(id), table.by_name("a"), table.iter().count());
        assert!(!is_counted(&table));
        table.get_mut(id);
        assert!(is_counted(&table));
        table.by_name_mut("a");
        assert!(is_counted(&table));
        table.remove(id);
        assert!(is_counted(&table));
        table.insert("b".to_owned());
        assert!(is_counted(&table));
    }

    #[test]
    fn ids_stay_valid_while_others_come_and_go() {
        let mut table = NameTable::new(7);
        let ids: Vec<Id<String>> = (0..1000).map(|i| table.insert(format!("n{i}"))).collect();
        for id in ids.iter().step_by(2) {
            table.remove(*id);
        }
        assert_eq!(table.len(), 500);
        assert_eq!(table.find("n4"), None);
        assert_eq!(table.find("n5"), Some(ids[5]));
        let again = table.insert("n4".to_owned());
        assert_eq!(table.get(again).map(String::as_str), Some("n4"));
        assert_eq!(table.values().count(), 501);
        assert!(
            (0..1000)
                .filter(|i| i % 2 == 1)
                .all(|i| table.find(&format!("n{i}")) == Some(ids[i]))
        );
    }
}
