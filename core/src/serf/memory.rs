//! What a node knows that must outlive it (docs/design.md#the-snapshot).
//!
//! A node that was configured to do so tells each change as a [`Record`]; whoever keeps the records can
//! make the [`Memory`] from them with which the same node starts again. Times are the node's own,
//! so they mean something over a restart only when its driver counts them from the Unix epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::serf::types::{MemberStatus, QueryKey};
use crate::swim::members::Facts;
use crate::time::Time;

/// Everything a node starts from. The default is a node that has never been before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The clocks, from which it goes on.
    pub marks: Marks,
    /// The other members. Those that are gone are members again at once; of those that were there only
    /// the Lamport time of their last intent counts, until they are met again.
    pub members: Vec<MemberRecord>,
    /// The user events of the de-duplication window, in any order.
    pub events: Vec<SeenEvent>,
    /// The queries of the de-duplication window, in any order.
    pub queries: Vec<QueryKey>,
}

impl Memory {
    /// Forgets the other members; gives their names. The clocks and what was handled stay, for others may have
    /// seen them. So it is after a leave that counts, and where the memory turns out to be another node's, as on
    /// a copied disk: whom that one knew is no company of this one.
    pub fn forget_members(&mut self) -> Vec<Arc<str>> {
        let members = self.members.drain(..);
        members.map(|member| Arc::clone(&member.facts.name)).collect()
    }
}

/// The numbers of a node that never run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The incarnation it announces.
    pub incarnation: u32,
    /// The member clock: its next stamp, one above the highest time seen. 0 means never started.
    pub member: u64,
    /// The event clock, likewise.
    pub event: u64,
    /// The query clock, likewise.
    pub query: u64,
    /// Events before this Lamport time are of no interest.
    pub event_floor: u64,
    /// Queries before this Lamport time are of no interest.
    pub query_floor: u64,
}

impl Marks {
    /// Whether a node that starts from these marks goes on from `other` or later.
    pub fn cover(&self, other: &Marks) -> bool {
        self.incarnation >= other.incarnation
            && self.member >= other.member
            && self.event >= other.event
            && self.query >= other.query
            && self.event_floor >= other.event_floor
            && self.query_floor >= other.query_floor
    }
}

/// A member as it must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// What it announces: name, address, tags, versions.
    pub facts: Arc<Facts>,
    /// Its newest incarnation; 0 if its incarnation has been forgotten.
    pub incarnation: u32,
    /// Where it stands.
    pub status: MemberStatus,
    /// The Lamport time of the last intent about it that counted.
    pub status_ltime: u64,
    /// When this was so: for one that is gone, since when.
    pub since: Time,
}

/// A user event that was handled, or that was decided not to be of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEvent {
    /// Its Lamport time.
    pub ltime: u64,
    /// Its place among the events of that time, from 0.
    pub place: u32,
    /// Its name.
    pub name: Box<str>,
    /// Its payload.
    pub payload: Box<[u8]>,
}

/// A change of what must be remembered. It replaces what was recorded under the same name, or the same
/// Lamport time and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A member came or changed.
    Member(MemberRecord),
    /// This member is no longer known.
    ForgetMember(Arc<str>),
    /// This event was seen.
    Event(SeenEvent),
    /// All events of this Lamport time have left the window.
    ForgetEvents(u64),
    /// This query was seen.
    Query(QueryKey),
    /// All queries of this Lamport time have left the window.
    ForgetQueries(u64),
}

/// Closes what was recorded since the commit before. All of it is written together, or nothing: no record is
/// ever newer than the clocks beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Counts from 1. A number that was told before only comes again to say that somebody waits for it.
    pub number: u64,
    /// The clocks of this moment.
    pub marks: Marks,
    /// Whether the node has begun to leave for good.
    pub left: bool,
    /// Whether somebody waits until this, and all before it, is stored.
    pub hurry: bool,
}

/// Makes a [`Memory`] of records, in memory: what a store on a disk must come to as well.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    marks: Marks,
    members: BTreeMap<Arc<str>, MemberRecord>,
    events: BTreeMap<(u64, u32), SeenEvent>,
    queries: BTreeSet<QueryKey>,
}

impl Keeper {
    /// Takes the clocks of a commit.
    pub fn mark(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// Takes a change.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Member(member) => drop(self.members.insert(Arc::clone(&member.facts.name), member)),
            Record::ForgetMember(name) => drop(self.members.remove(&name)),
            Record::Event(event) => drop(self.events.insert((event.ltime, event.place), event)),
            Record::ForgetEvents(ltime) => self.events.retain(|(held, _), _| *held != ltime),
            Record::Query(query) => drop(self.queries.insert(query)),
            Record::ForgetQueries(ltime) => self.queries.retain(|(held, _)| *held != ltime),
        }
    }

    /// All of it.
    pub fn memory(&self) -> Memory {
        Memory {
            marks: self.marks,
            members: self.members.values().cloned().collect(),
            events: self.events.values().cloned().collect(),
            queries: self.queries.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_cover_only_what_is_nowhere_above_them() {
        let marks = Marks {
            incarnation: 5,
            member: 5,
            event: 5,
            query: 5,
            event_floor: 5,
            query_floor: 5,
        };
        assert!(marks.cover(&marks) && marks.cover(&Marks::default()));
        for higher in [
            Marks {
                incarnation: 6,
                ..marks
            },
            Marks { member: 6, ..marks },
            Marks { event: 6, ..marks },
            Marks { query: 6, ..marks },
            Marks {
                event_floor: 6,
                ..marks
            },
            Marks {
                query_floor: 6,
                ..marks
            },
        ] {
            assert!(!marks.cover(&higher), "{higher:?}");
            assert!(higher.cover(&marks), "{higher:?}");
        }
    }
}
