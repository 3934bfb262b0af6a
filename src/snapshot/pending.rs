//! Records that wait to be written: a later one replaces an earlier one about the same member or time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use fyrd_core::node::memory::{Marks, MemberRecord, Memory, Record, SeenEvent};

/// What changes in the store at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// The marks of that moment.
    pub marks: Marks,
    /// Members by name; `None` for those that are forgotten.
    pub members: HashMap<Arc<str>, Option<MemberRecord>>,
    /// Events by Lamport time.
    pub events: BTreeMap<u64, Slot<BTreeMap<u32, SeenEvent>>>,
    /// Queries by Lamport time.
    pub queries: BTreeMap<u64, Slot<BTreeSet<u32>>>,
    /// Whether the node has left.
    pub left: bool,
}

/// What changes at one Lamport time.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot<T> {
    /// Whether all that is in the store of this time goes first.
    pub forget: bool,
    /// What comes.
    pub seen: T,
}

impl Batch {
    /// All that a memory holds.
    pub fn of(memory: &Memory) -> Self {
        let mut batch = Batch {
            marks: memory.marks,
            ..Batch::default()
        };
        let members = memory.members.iter().cloned().map(Record::Member);
        let events = memory.events.iter().cloned().map(Record::Event);
        let queries = memory.queries.iter().copied().map(Record::Query);
        members
            .chain(events)
            .chain(queries)
            .for_each(|record| batch.note(record));
        batch
    }

    /// Adds a record, which replaces an earlier one about the same.
    pub fn note(&mut self, record: Record) {
        match record {
            Record::Member(member) => {
                self.members.insert(member.facts.name.clone(), Some(member));
            }
            Record::ForgetMember(name) => {
                self.members.insert(name, None);
            }
            Record::Event(event) => {
                let slot = self.events.entry(event.ltime).or_default();
                slot.seen.insert(event.place, event);
            }
            Record::Query((ltime, id)) => {
                self.queries.entry(ltime).or_default().seen.insert(id);
            }
            Record::ForgetEvents(ltime) => {
                let seen = BTreeMap::new();
                self.events.insert(ltime, Slot { forget: true, seen });
            }
            Record::ForgetQueries(ltime) => {
                let seen = BTreeSet::new();
                self.queries.insert(ltime, Slot { forget: true, seen });
            }
        }
    }

    /// Takes clocks, none of which runs backwards.
    pub fn raise(&mut self, marks: Marks) {
        let held = &mut self.marks;
        *held = Marks {
            incarnation: held.incarnation.max(marks.incarnation),
            member: held.member.max(marks.member),
            event: held.event.max(marks.event),
            query: held.query.max(marks.query),
            event_floor: held.event_floor.max(marks.event_floor),
            query_floor: held.query_floor.max(marks.query_floor),
        };
    }

    /// How many things it says; the events of one Lamport time count as one.
    pub fn len(&self) -> usize {
        self.members.len() + self.events.len() + self.queries.len()
    }

    /// Takes all records out, and leaves the marks and whether the node has left.
    pub fn take(&mut self) -> Batch {
        let rest = Batch {
            marks: self.marks,
            left: self.left,
            ..Batch::default()
        };
        mem::replace(self, rest)
    }
}
