//! What this layer hands over to be kept, and what it starts from after a restart
//! (docs/design.md#the-snapshot).
//!
//! Members that were gone are members again at once, as gone. Those that were there are absent until they are
//! met: the dialer looks for them, and who has not come up soon after the first peer was met is listed as gone.

use std::sync::Arc;

use tracing::{info, warn};

use super::effect::Effect;
use super::lamport::LamportClock;
use super::members::Entry;
use super::user_events::{EventSlot, size_of_event};
use super::{Ask, Serf, Timer};
use crate::bounds::{EVENT_RING_BYTES_MAX, MAX_EVENTS_PER_LTIME, MAX_MEMBERS, MAX_QUERIES_PER_LTIME};
use crate::serf::members::MemberId;
use crate::serf::memory::{Marks, MemberRecord, Memory, Record, SeenEvent};
use crate::serf::types::{MemberEventKind, MemberStatus};
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

    /// The high-water marks of what this node itself has broadcast: its clocks after the last of it, 0 for none.
    pub fn announced(&self) -> Marks {
        self.announced
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
        let ids: Vec<MemberId> = self.members.iter().map(|(id, _)| id).collect();
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
            // No members yet, but the next run has to look for them as well.
            .chain(
                self.absent
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
    pub fn record(&mut self, record: impl FnOnce() -> Record) {
        if self.config.records {
            self.effects.push_back(Effect::Record(record()));
        }
    }

    /// Tells how a member stands. This node itself starts anew each time.
    pub(super) fn record_member(&mut self, id: MemberId) {
        if !self.config.records {
            return;
        }
        if let Some(entry) = self
            .members
            .get(id)
            .filter(|entry| !self.is_me(&entry.facts.name))
        {
            let name = Arc::clone(&entry.facts.name);
            self.asks.push_back(Ask::Record(name));
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
            self.wants_missed = !self.config.left;
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

    /// Whether a join of which the user wants no events from before it shall bring none. A node that was here
    /// before, and did not leave, wants to hear what it has missed, until it has joined.
    pub fn ignores_old(&self, wanted: bool) -> bool {
        wanted && !self.wants_missed
    }

    /// A join in the user's name has reached somebody. It announces itself with an intent, which a rejoin does not.
    pub fn note_joined(&mut self, now: Time) {
        self.wants_missed = false;
        // A join that ends while this node leaves must not take the leave back.
        if !self.is_leaving() {
            self.announce_join(now);
        }
    }

    /// The whole state of a peer has come, whoever asked for it. The absent have a while to be heard of.
    pub(super) fn note_merge(&mut self, now: Time) {
        if !std::mem::replace(&mut self.merged, true) && !self.absent.is_empty() {
            let wait = self.config.profile.serf.reconnect_interval;
            self.timers.set(now + wait, Timer::Absent);
        }
        self.note_company(now);
    }

    /// Lists as gone whoever was there at the end of the last run and is unknown to the peers that have been met.
    /// Listeners are told, as if this node had not been away, and whoever failed is tried again like all others.
    pub(super) fn list_absent(&mut self, now: Time) {
        for record in std::mem::take(&mut self.absent) {
            let name = &record.facts.name;
            if self.members.find(name).is_some() || self.members.len() >= MAX_MEMBERS {
                continue;
            }
            let (mut left, mut status_ltime) = (record.status == MemberStatus::Leaving, record.status_ltime);
            if let Some(intent) = self
                .intents
                .get(&**name)
                .filter(|intent| intent.ltime > status_ltime)
            {
                (left, status_ltime) = (intent.leaves, intent.ltime);
            }
            let (status, kind) = if left {
                info!(target: "serf", "EventMemberLeave: {name} {} (while this node was away)", record.facts.addr);
                (MemberStatus::Left, MemberEventKind::Leave)
            } else {
                info!(target: "serf", "EventMemberFailed: {name} {} (while this node was away)", record.facts.addr);
                (MemberStatus::Failed, MemberEventKind::Failed)
            };
            let id = self.members.insert(Entry {
                facts: record.facts,
                status,
                status_ltime,
            });
            self.gone_since.insert(id, now);
            self.record_member(id);
            self.emit_member(kind, id);
        }
    }

    /// A member that was gone is still known as such. One that was there is absent until it is met again; its
    /// last intent counts then.
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
            self.absent.push(record.clone());
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
            digest: 0,
        });
        if slot.events.len() >= MAX_EVENTS_PER_LTIME || self.event_bytes + added > EVENT_RING_BYTES_MAX {
            return true;
        }
        slot.push(event.name.clone(), event.payload.clone());
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::addr::RawAddr;
    use crate::serf::SerfConfig;
    use crate::swim::delegate::Delegate;
    use crate::swim::members::Facts;
    use crate::swim::profile::Profile;
    use crate::wire::{JoinIntent, LeaveIntent, Query, UserEvent};

    /// The time of a restart.
    pub const NOW: Time = Time::from_nanos(100);

    /// As many Lamport times as the windows hold here.
    const WINDOW: u64 = 4;

    pub fn facts(name: &str) -> Facts {
        Facts {
            name: name.into(),
            addr: RawAddr::V4([10, 0, 0, 2]),
            port: 7946,
            meta: Box::default(),
            vsn: [1, 5, 2, 2, 5, 5],
        }
    }

    pub fn member(name: &str, status: MemberStatus) -> MemberRecord {
        MemberRecord {
            facts: Arc::new(facts(name)),
            incarnation: 0,
            status,
            status_ltime: 10,
            since: Time::from_nanos(5),
        }
    }

    /// Node "me" after a restart.
    pub fn restarted(memory: &Memory) -> Serf {
        let mut profile = Profile::builtin("lan").unwrap();
        profile.serf.event_buffer = WINDOW as usize;
        profile.serf.query_buffer = WINDOW as usize;
        let config = SerfConfig {
            facts: facts("me"),
            profile,
            user_event_size_limit: 512,
            query_size_limit: 1024,
            query_response_size_limit: 1024,
            resolve_name_conflicts: true,
            disable_coordinates: true,
            records: true,
            left: false,
            rejoin_after_leave: false,
            replay: false,
            seed: 1,
        };
        Serf::new(config, memory, NOW)
    }

    fn records(serf: &mut Serf) -> Vec<Record> {
        let outputs = std::iter::from_fn(|| serf.poll_effect());
        outputs
            .filter_map(|output| match output {
                Effect::Record(record) => Some(record),
                _ => None,
            })
            .collect()
    }

    fn event(ltime: u64) -> UserEvent<'static> {
        UserEvent {
            ltime,
            name: "deploy",
            payload: b"v2",
            coalesce: false,
        }
    }

    fn query(ltime: u64, id: u32) -> Query<'static> {
        Query {
            ltime,
            id,
            addr: &[10, 0, 0, 3],
            port: 7946,
            source_node: "asker",
            filters: Vec::new(),
            flags: 0,
            relay_factor: 0,
            timeout_ns: 1_000_000_000,
            name: "uptime",
            payload: b"",
        }
    }

    /// Both windows hold the same before and after, and what has left them leaves the store as well.
    #[test]
    fn what_is_in_the_windows_is_known_and_what_is_not_is_forgotten_for_good() {
        let seen = |ltime| SeenEvent {
            ltime,
            place: 0,
            name: "deploy".into(),
            payload: b"v2"[..].into(),
        };
        let memory = Memory {
            marks: Marks {
                event: WINDOW + 2,
                query: WINDOW + 2,
                ..Marks::default()
            },
            events: (1..=WINDOW + 1).rev().map(seen).collect(),
            queries: (1..=WINDOW + 1).rev().map(|ltime| (ltime, 9)).collect(),
            ..Memory::default()
        };
        let mut serf = restarted(&memory);
        let gone = [Record::ForgetEvents(1), Record::ForgetQueries(1)];
        assert_eq!(records(&mut serf), gone);
        for ltime in 1..=WINDOW + 1 {
            assert!(!serf.handle_user_event(&event(ltime)), "event {ltime}");
            assert!(!serf.handle_query(NOW, &query(ltime, 9)), "query {ltime}");
        }
        assert_eq!(serf.event_bytes, WINDOW as usize * size_of_event("deploy", b"v2"));
        serf.record_everything();
        let mut held = records(&mut serf);
        held.sort_by_key(|record| match record {
            Record::Event(event) => (0, event.ltime),
            Record::Query((ltime, _)) => (1, *ltime),
            other => panic!("{other:?}"),
        });
        let events = (2..=WINDOW + 1).map(|ltime| Record::Event(seen(ltime)));
        let queries = (2..=WINDOW + 1).map(|ltime| Record::Query((ltime, 9)));
        assert!(held.iter().cloned().eq(events.chain(queries)), "{held:?}");
        assert!(serf.handle_query(NOW, &query(2, 8)), "another one of that time");
    }

    #[test]
    fn the_clocks_go_on_and_what_is_below_the_floors_is_of_no_interest() {
        let marks = Marks {
            incarnation: 0,
            member: 7,
            event: 8,
            query: 9,
            event_floor: 7,
            query_floor: 8,
        };
        let mut serf = restarted(&Memory {
            marks,
            ..Memory::default()
        });
        assert_eq!(serf.marks(), marks);
        assert!(!serf.handle_user_event(&event(6)) && serf.handle_user_event(&event(7)));
        assert!(!serf.handle_query(NOW, &query(7, 1)) && serf.handle_query(NOW, &query(8, 1)));
    }

    /// An old leave that is still gossiped must not make one that is there seem to go.
    #[test]
    fn the_last_word_about_who_was_there_counts_when_it_is_met() {
        let members = vec![
            member("here", MemberStatus::Alive),
            member("going", MemberStatus::Leaving),
            // A store that another node began may list this one.
            member("me", MemberStatus::Failed),
        ];
        let mut serf = restarted(&Memory {
            members,
            ..Memory::default()
        });
        assert_eq!(serf.known(), 0);
        let old = LeaveIntent {
            ltime: 10,
            node: "here",
            prune: false,
        };
        assert!(!serf.handle_leave_intent(NOW, &old));
        let join = JoinIntent {
            ltime: 10,
            node: "going",
        };
        assert!(!serf.handle_join_intent(NOW, &join));
        for (name, status) in [("here", MemberStatus::Alive), ("going", MemberStatus::Leaving)] {
            serf.member_joined(NOW, &Arc::new(facts(name)));
            assert_eq!(serf.status_of(name), Some(status));
        }
    }

    /// Only the peers that are met first can tell who is still there, so nobody is missed at once.
    #[test]
    fn who_is_not_met_in_time_went_while_this_node_was_away() {
        let gone = [
            ("crashed", MemberStatus::Alive, MemberStatus::Failed),
            ("leaving", MemberStatus::Leaving, MemberStatus::Left),
            ("left", MemberStatus::Alive, MemberStatus::Left),
        ];
        let mut serf = restarted(&Memory {
            members: gone.map(|(name, before, _)| member(name, before)).into(),
            ..Memory::default()
        });
        let wait = serf.config.profile.serf.reconnect_interval;
        serf.note_merge(NOW);
        let leave = LeaveIntent {
            ltime: 11,
            node: "left",
            prune: false,
        };
        assert!(serf.handle_leave_intent(NOW, &leave));
        let almost = NOW + wait - std::time::Duration::from_nanos(1);
        serf.handle_tick(almost);
        assert_eq!(serf.known(), 0);
        while serf.poll_ask().is_some() {}
        let end = NOW + wait;
        serf.handle_tick(end);
        while let Some(effect) = serf.poll_effect() {
            let forgets = matches!(effect, Effect::Record(Record::ForgetMember(_)));
            assert!(!forgets, "{effect:?}");
        }
        let asks = std::iter::from_fn(|| serf.poll_ask());
        let mut recorded: Vec<String> = asks
            .filter_map(|ask| match ask {
                Ask::Record(name) => Some(name.to_string()),
                _ => None,
            })
            .collect();
        recorded.sort();
        assert_eq!(recorded, gone.map(|(name, ..)| name));
        for (name, _, after) in gone {
            let record = serf.member_record(end, name).unwrap();
            assert_eq!((record.status, record.since), (after, end), "{name}");
        }
    }
}
