//! What this layer tells to be remembered, and what it starts from when it was before (design.md section 7).

use std::sync::Arc;

use tracing::warn;

use super::lamport::LamportClock;
use super::members::Entry;
use super::user_events::{EventSlot, size_of_event};
use super::{Output, Serf};
use crate::bounds::{EVENT_RING_BYTES_MAX, MAX_EVENTS_PER_LTIME, MAX_MEMBERS, MAX_QUERIES_PER_LTIME};
use crate::names::Id;
use crate::serf::MemberStatus;
use crate::serf::memory::{Marks, MemberRecord, Memory, Record, SeenEvent};
use crate::time::Time;

impl Serf {
    /// The clocks as they are; the incarnation is swim's.
    pub fn marks(&self) -> Marks {
        Marks {
            incarnation: 0,
            member: self.clock.time(),
            event: self.event_clock.time(),
            query: self.query_clock.time(),
            event_floor: self.event_min_time,
            query_floor: self.query_min_time,
        }
    }

    /// The clocks after the last thing that this node itself has said; 0 where it has said nothing.
    pub fn said(&self) -> Marks {
        self.said
    }

    /// How a member stands; its incarnation is swim's.
    pub fn member_record(&self, now: Time, name: &str) -> Option<MemberRecord> {
        let id = self.members.find(name)?;
        let entry = self.members.get(id)?;
        Some(MemberRecord {
            facts: Arc::clone(&entry.facts),
            incarnation: 0,
            status: entry.status,
            status_ltime: entry.status_ltime,
            since: self.gone_since.get(&id).copied().unwrap_or(now),
        })
    }

    /// Tells all that is to be remembered.
    pub fn record_everything(&mut self) {
        let ids: Vec<Id> = self.members.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.record_member(id);
        }
        let records: Vec<Record> = self
            .events
            .iter()
            .flatten()
            .flat_map(|slot| {
                slot.events.iter().zip(0..).map(|((name, payload), place)| {
                    Record::Event(SeenEvent {
                        ltime: slot.ltime,
                        place,
                        name: name.clone(),
                        payload: payload.clone(),
                    })
                })
            })
            .chain(
                self.queries
                    .iter()
                    .flat_map(|(ltime, ids)| ids.iter().map(|id| Record::Query((*ltime, *id)))),
            )
            // No members yet, but the next life has to look for them as well.
            .chain(
                self.unmet
                    .iter()
                    .filter(|record| self.members.find(&record.facts.name).is_none())
                    .cloned()
                    .map(Record::Member),
            )
            .collect();
        for record in records {
            self.record(|| record);
        }
    }

    /// Tells a change that is to be remembered, if anybody wants to know.
    pub(super) fn record(&mut self, record: impl FnOnce() -> Record) {
        if self.config.records {
            self.out.push_back(Output::Record(record()));
        }
    }

    /// Tells how a member stands. This node itself starts anew each time.
    pub(super) fn record_member(&mut self, id: Id) {
        if !self.config.records {
            return;
        }
        if let Some(entry) = self
            .members
            .get(id)
            .filter(|entry| !self.is_me(&entry.facts.name))
        {
            let name = Arc::clone(&entry.facts.name);
            self.out.push_back(Output::RecordMember(name));
        }
    }

    /// Goes on from what was remembered. What does not fit any more is forgotten for good.
    pub(super) fn restore(&mut self, memory: &Memory, now: Time) {
        let marks = &memory.marks;
        self.clock = LamportClock::from_time(marks.member);
        self.event_clock = LamportClock::from_time(marks.event);
        self.query_clock = LamportClock::from_time(marks.query);
        self.event_min_time = marks.event_floor;
        self.query_min_time = marks.query_floor;
        if marks.event > 0 {
            self.begin_catching_up(now);
        }
        for record in &memory.members {
            self.restore_member(record, now);
        }
        let mut events: Vec<&SeenEvent> = memory.events.iter().collect();
        events.sort_unstable_by_key(|event| (event.ltime, event.place));
        for event in events {
            if !self.restore_event(event) {
                self.record(|| Record::ForgetEvents(event.ltime));
            }
        }
        let mut queries = memory.queries.clone();
        queries.sort_unstable();
        for (ltime, id) in queries {
            if !self.restore_query(ltime, id) {
                self.record(|| Record::ForgetQueries(ltime));
            }
        }
    }

    /// Who is gone is still known as such. Who was there has to be met again, but what it last said about
    /// its coming and going counts then.
    fn restore_member(&mut self, record: &MemberRecord, now: Time) {
        let name = &record.facts.name;
        if self.is_me(name) || self.members.find(name).is_some() {
            return;
        }
        let gone = matches!(record.status, MemberStatus::Left | MemberStatus::Failed);
        if !gone {
            if record.status_ltime > 0 {
                let leaves = record.status == MemberStatus::Leaving;
                self.remember_intent(now, name, record.status_ltime, leaves);
            }
            self.unmet.push(record.clone());
        } else if self.members.len() < MAX_MEMBERS {
            let id = self.members.insert(Entry {
                facts: Arc::clone(&record.facts),
                status: record.status,
                status_ltime: record.status_ltime,
            });
            self.gone_since.insert(id, record.since.min(now));
        } else {
            warn!(target: "serf", "{MAX_MEMBERS} members are known already; forgetting {name}, which is gone");
        }
    }

    /// Puts an event into the ring without telling anybody; `false` if it is too old or there is no room.
    fn restore_event(&mut self, event: &SeenEvent) -> bool {
        self.event_clock.witness(event.ltime);
        let size = self.events.len() as u64;
        if event.ltime.saturating_add(size) < self.event_clock.time() {
            return false;
        }
        let added = size_of_event(&event.name, &event.payload);
        let Some(slot) = self.events.get_mut((event.ltime % size) as usize) else {
            return false;
        };
        // Events come in the order of time, so whatever else stands here is older.
        if let Some(old) = slot.take_if(|slot| slot.ltime != event.ltime) {
            self.event_bytes -= old.bytes();
        }
        let slot = slot.get_or_insert_with(|| EventSlot {
            ltime: event.ltime,
            events: Vec::new(),
        });
        if slot.events.len() >= MAX_EVENTS_PER_LTIME || self.event_bytes + added > EVENT_RING_BYTES_MAX {
            return true;
        }
        slot.events.push((event.name.clone(), event.payload.clone()));
        self.event_bytes += added;
        true
    }

    fn restore_query(&mut self, ltime: u64, id: u32) -> bool {
        self.query_clock.witness(ltime);
        let size = self.queries.len() as u64;
        if ltime.saturating_add(size) < self.query_clock.time() {
            return false;
        }
        if let Some((held, ids)) = self.queries.get_mut((ltime % size) as usize) {
            if *held != ltime {
                (*held, *ids) = (ltime, Vec::new());
            }
            if ids.len() < MAX_QUERIES_PER_LTIME {
                ids.push(id);
            }
        }
        true
    }
}
