//! What reading comes to, entry by entry: the trees of a store and the essence hold the same entries.

use std::collections::BTreeMap;
use std::mem;

use super::codec::{self, Checkpoint, Sum};
use fyrd_core::bounds::{MAX_LTIME, MAX_MEMBERS, SNAPSHOT_ENTRIES_MAX};
use fyrd_core::node::memory::{Marks, Memory};
use fyrd_core::time::Time;

/// Whose snapshot it is. The identity is made at the first start, so that what belongs to another snapshot is
/// told apart although its node has the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub node: String,
    /// 0 if it is not known.
    pub identity: u128,
}

/// What reading found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub memory: Memory,
    pub left: bool,
    pub owner: Owner,
    /// Counts the batches. What has the higher number is newer; 0 if it is not known.
    pub serial: u64,
    /// When it was written last, in nanoseconds from the Unix epoch.
    pub written: u64,
    /// Entries that could not be read.
    pub unreadable: usize,
    /// Whether this is what the last batch left. Otherwise the memory holds what could be saved, with clocks
    /// above all of it.
    pub intact: bool,
}

impl Found {
    /// Takes the clocks, and raises them above all that was stamped, which changes nothing in what is whole.
    pub fn take_marks(&mut self, marks: Marks) {
        // A time that nothing can have is damage, and says nothing of the others.
        let above = |mark: &mut u64, seen: &mut dyn Iterator<Item = u64>| {
            if let Some(seen) = seen.filter(|seen| *seen <= MAX_LTIME).max() {
                *mark = (*mark).max(seen + 1);
            }
        };
        let Memory {
            marks: held,
            members,
            events,
            queries,
        } = &mut self.memory;
        *held = marks;
        above(
            &mut held.member,
            &mut members.iter().map(|member| member.status_ltime),
        );
        above(&mut held.event, &mut events.iter().map(|event| event.ltime));
        above(&mut held.query, &mut queries.iter().map(|query| query.0));
    }

    /// Some of what was handled is not known any more. Handling it again would be worse than missing what came
    /// meanwhile.
    pub fn raise_floors(&mut self) {
        let marks = &mut self.memory.marks;
        marks.event_floor = marks.event_floor.max(marks.event);
        marks.query_floor = marks.query_floor.max(marks.query);
    }

    /// Takes the checkpoint that stands beside the entries, if there is one, and holds them against it.
    pub fn check(&mut self, checkpoint: Option<Checkpoint>, members: Sum, seen: Sum) {
        self.intact = checkpoint.is_some_and(|it| members == it.members && seen == it.seen);
        self.unreadable += usize::from(checkpoint.is_none());
        let checkpoint = checkpoint.unwrap_or_default();
        self.written = checkpoint.written;
        self.serial = checkpoint.serial;
        self.take_marks(checkpoint.marks);
        if !self.intact {
            self.raise_floors();
        }
    }
}

/// The higher of each of two clocks.
pub(super) fn highest(a: Marks, b: Marks) -> Marks {
    Marks {
        incarnation: a.incarnation.max(b.incarnation),
        member: a.member.max(b.member),
        event: a.event.max(b.event),
        query: a.query.max(b.query),
        event_floor: a.event_floor.max(b.event_floor),
        query_floor: a.query_floor.max(b.query_floor),
    }
}

/// Reads entries, as many of them as can be read.
pub(super) struct Reading<'a> {
    pub found: &'a mut Found,
    /// Times after this are taken for it.
    pub now: Time,
}

impl Reading<'_> {
    /// Goes through entries up to the first error, and sums them up.
    fn entries<K: AsRef<[u8]>, V: AsRef<[u8]>, E>(
        &mut self,
        entries: impl Iterator<Item = Result<(K, V), E>>,
        mut entry: impl FnMut(&mut Self, &[u8], &[u8]) -> bool,
    ) -> Sum {
        let mut sum = Sum::default();
        for result in entries.take(SNAPSHOT_ENTRIES_MAX) {
            let Ok((key, value)) = result else {
                self.found.unreadable += 1;
                break;
            };
            let (key, value) = (key.as_ref(), value.as_ref());
            sum.add(key, value);
            if !entry(self, key, value) {
                self.found.unreadable += 1;
            }
        }
        sum
    }

    /// Reads entries of tree `members`.
    pub fn members<K: AsRef<[u8]>, V: AsRef<[u8]>, E>(
        &mut self,
        entries: impl Iterator<Item = Result<(K, V), E>>,
    ) -> Sum {
        self.entries(entries, |reading, key, value| {
            let member = codec::decode_member(key, value, reading.now);
            let room = reading.found.memory.members.len() < MAX_MEMBERS;
            let member = member.filter(|_| room);
            let taken = member.is_some();
            reading.found.memory.members.extend(member);
            taken
        })
    }

    /// Reads entries of tree `seen`, in order.
    pub fn seen<K: AsRef<[u8]>, V: AsRef<[u8]>, E>(
        &mut self,
        entries: impl Iterator<Item = Result<(K, V), E>>,
    ) -> Sum {
        let mut events: BTreeMap<(u64, u32), (u16, Vec<u8>)> = BTreeMap::new();
        let sum = self.entries(entries, |reading, key, value| {
            if let Some(query) = codec::decode_query_key(key) {
                reading.found.memory.queries.push(query);
                return true;
            }
            let Some((ltime, place, part)) = codec::decode_event_key(key) else {
                return false;
            };
            let (parts, whole) = events.entry((ltime, place)).or_default();
            let fits = *parts == part;
            if fits {
                *parts += 1;
                whole.extend(value);
            }
            fits
        });
        for ((ltime, place), (_, whole)) in &mut events {
            match codec::decode_event(*ltime, *place, &mem::take(whole)) {
                Some(event) => self.found.memory.events.push(event),
                None => self.found.unreadable += 1,
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_raised_above_all_times_that_there_can_be() {
        let mut found = Found::default();
        found.memory.queries = vec![(7, 1), (MAX_LTIME + 1, 1), (u64::MAX, 1), (3, 2)];
        found.take_marks(Marks {
            event: 5,
            ..Marks::default()
        });
        let marks = found.memory.marks;
        assert_eq!((marks.member, marks.event, marks.query), (0, 5, 8));
    }
}
