//! User events: handled once each, remembered for as long as their Lamport time is recent
//! (docs/protocol.md#b8-user-events).

use tracing::debug;

use super::types::Event;
use super::{Serf, user_message};
use crate::bounds::{EVENT_RING_BYTES_MAX, EVENT_RING_OVERHEAD, MAX_EVENTS_PER_LTIME, USER_EVENT_HARD_LIMIT};
use crate::hash::stable_hash;
use crate::serf::memory::{Record, SeenEvent};
use crate::wire::{SerfMessage, UserEvent};

/// The events of one Lamport time.
#[derive(Clone, Debug)]
pub(super) struct EventSlot {
    pub ltime: u64,
    pub events: Vec<(Box<str>, Box<[u8]>)>,
    /// The sum of the events' hashes: the same in whatever order they came.
    pub digest: u64,
}

impl EventSlot {
    pub fn push(&mut self, name: Box<str>, payload: Box<[u8]>) {
        let ltime = self.ltime.to_be_bytes();
        let hash = stable_hash([&ltime[..], name.as_bytes(), &payload]);
        self.digest = self.digest.wrapping_add(hash);
        self.events.push((name, payload));
    }

    fn holds(&self, event: &UserEvent<'_>) -> bool {
        let same =
            |(name, payload): &(Box<str>, Box<[u8]>)| **name == *event.name && **payload == *event.payload;
        self.events.iter().any(same)
    }

    pub fn bytes(&self) -> usize {
        self.events
            .iter()
            .map(|(name, payload)| size_of_event(name, payload))
            .sum()
    }
}

impl Serf {
    /// Sends a user event.
    ///
    /// # Errors
    /// When it is too large; the texts are Serf's. Nothing has changed then.
    pub fn user_event(&mut self, name: &str, payload: &[u8], coalesce: bool) -> Result<(), String> {
        let limit = self.config.user_event_size_limit;
        let (size, when) = (name.len() + payload.len(), "before encoding");
        if size > limit {
            return Err(format!(
                "user event exceeds configured limit of {limit} bytes {when}"
            ));
        }
        if size > USER_EVENT_HARD_LIMIT {
            return Err(format!(
                "user event exceeds sane limit of {USER_EVENT_HARD_LIMIT} bytes {when}"
            ));
        }
        let event = UserEvent {
            ltime: self.event_clock.time(),
            name,
            payload,
            coalesce,
        };
        let message = user_message(&SerfMessage::UserEvent(event));
        let (size, when) = (message.len() - 1, "after encoding");
        if size > limit {
            return Err(format!(
                "encoded user event exceeds configured limit of {limit} bytes {when}"
            ));
        }
        if size > USER_EVENT_HARD_LIMIT {
            return Err(format!(
                "encoded user event exceeds reasonable limit of {USER_EVENT_HARD_LIMIT} bytes {when}"
            ));
        }
        self.event_clock.increment();
        self.announced.event = self.event_clock.time();
        self.handle_user_event(&event);
        self.queues.events.push(None, message, None);
        Ok(())
    }

    /// Takes a user event; says whether it was new, and is to be passed on.
    pub(super) fn handle_user_event(&mut self, event: &UserEvent<'_>) -> bool {
        if !self.event_clock.accepts(event.ltime) {
            self.refuse(format_args!(
                "user event '{}' at Lamport time {}: too far ahead",
                event.name, event.ltime
            ));
            return false;
        }
        self.event_clock.witness(event.ltime);
        if event.ltime < self.event_min_time || !self.remember_event(event) {
            return false;
        }
        self.tell(Event::User {
            ltime: event.ltime,
            name: event.name.to_owned(),
            payload: event.payload.to_vec(),
            coalesce: event.coalesce,
        });
        true
    }

    /// Appends which of the remembered events this node has: of how many Lamport times, up to which, and the sum of
    /// their hashes. Of the last two, the low half says enough.
    pub(super) fn write_event_digest(&self, out: &mut Vec<u8>) {
        let clock = self.event_clock.time();
        let times = (self.events.len() as u64).min(clock.saturating_sub(self.event_min_time));
        let times = u16::try_from(times).unwrap_or(u16::MAX);
        out.extend_from_slice(&times.to_be_bytes());
        let sum = self.event_digest(clock.saturating_sub(u64::from(times)));
        for number in [clock as u32, sum] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Whether a peer with this digest has the same events. One that cares for older ones than this node does
    /// has more, and shall have them; nothing follows from its digest.
    pub(super) fn knows_events_of(&self, digest: &[u8]) -> bool {
        let Some((times, rest)) = digest.split_first_chunk() else {
            return true;
        };
        let Some((clock, sum)) = rest.split_first_chunk() else {
            return true;
        };
        let Ok(sum) = <[u8; 4]>::try_from(sum) else {
            return true;
        };
        let own = self.event_clock.time();
        // Whose clock is far away has other events, whatever the rest of it says.
        let ahead = u32::from_be_bytes(*clock).wrapping_sub(own as u32) as i32;
        let clock = own.saturating_add_signed(ahead.into());
        let from = clock.saturating_sub(u16::from_be_bytes(*times).into());
        from < self.event_min_time || (clock == own && u32::from_be_bytes(sum) == self.event_digest(from))
    }

    fn event_digest(&self, from: u64) -> u32 {
        let slots = self.events.iter().flatten();
        let slots = slots.filter(|slot| slot.ltime >= from);
        slots.fold(0_u64, |sum, slot| sum.wrapping_add(slot.digest)) as u32
    }

    /// Puts an event into the ring; `false` if it was there, is too old, or there is no room.
    fn remember_event(&mut self, event: &UserEvent<'_>) -> bool {
        let size = self.events.len() as u64;
        let now = self.event_clock.time();
        if now > size && event.ltime < now - size {
            debug!(target: "serf", "received old event {} from time {} (current: {now})", event.name, event.ltime);
            return false;
        }
        let place = (event.ltime % size) as usize;
        let Some(slot) = self.events.get_mut(place) else {
            return false;
        };
        let old = slot.take_if(|slot| slot.ltime != event.ltime);
        if let Some(old) = old {
            self.event_bytes -= old.bytes();
            self.record(|| Record::ForgetEvents(old.ltime));
        }
        let Some(slot) = self.events.get_mut(place) else {
            return false;
        };
        if slot.as_ref().is_some_and(|slot| slot.holds(event)) {
            return false;
        }
        let added = size_of_event(event.name, event.payload);
        let full = slot
            .as_ref()
            .is_some_and(|slot| slot.events.len() >= MAX_EVENTS_PER_LTIME);
        if full || !self.make_room(added, event.ltime) {
            self.refuse(format_args!(
                "user event '{}': no room to remember it",
                event.name
            ));
            return false;
        }
        let Some(slot) = self.events.get_mut(place) else {
            return false;
        };
        let slot = slot.get_or_insert_with(|| EventSlot {
            ltime: event.ltime,
            events: Vec::new(),
            digest: 0,
        });
        let place = slot.events.len() as u32;
        slot.push(event.name.into(), event.payload.into());
        self.event_bytes += added;
        self.record(|| {
            Record::Event(SeenEvent {
                ltime: event.ltime,
                place,
                name: event.name.into(),
                payload: event.payload.into(),
            })
        });
        true
    }

    /// Forgets the oldest events until `added` bytes fit, but none as new as `ltime`. What was
    /// forgotten is too old from then on, lest it be handled again.
    fn make_room(&mut self, added: usize, ltime: u64) -> bool {
        while self.event_bytes + added > EVENT_RING_BYTES_MAX {
            let oldest = self
                .events
                .iter_mut()
                .filter(|slot| slot.as_ref().is_some_and(|slot| slot.ltime < ltime))
                .min_by_key(|slot| slot.as_ref().map(|slot| slot.ltime));
            let Some(slot) = oldest.and_then(Option::take) else {
                return false;
            };
            self.event_bytes -= slot.bytes();
            self.record(|| Record::ForgetEvents(slot.ltime));
            self.event_min_time = self.event_min_time.max(slot.ltime.saturating_add(1));
        }
        true
    }
}

pub(super) fn size_of_event(name: &str, payload: &[u8]) -> usize {
    name.len() + payload.len() + EVENT_RING_OVERHEAD
}
