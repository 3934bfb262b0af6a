//! User events: handled once each, remembered for as long as their Lamport time is recent (B8).

use tracing::debug;

use super::types::Event;
use super::{Output, Serf, user_message};
use crate::bounds::{EVENT_RING_BYTES_MAX, MAX_EVENTS_PER_LTIME, USER_EVENT_HARD_LIMIT};
use crate::wire::{SerfMessage, UserEvent};

/// The events of one Lamport time.
#[derive(Clone, Debug)]
pub(super) struct EventSlot {
    pub ltime: u64,
    pub events: Vec<(Box<str>, Box<[u8]>)>,
}

impl EventSlot {
    fn bytes(&self) -> usize {
        self.events
            .iter()
            .map(|(name, payload)| name.len() + payload.len())
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
        self.out.push_back(Output::Event(Event::User {
            ltime: event.ltime,
            name: event.name.to_owned(),
            payload: event.payload.to_vec(),
            coalesce: event.coalesce,
        }));
        true
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
        if let Some(old) = slot.take_if(|slot| slot.ltime != event.ltime) {
            self.event_bytes -= old.bytes();
        }
        let added = event.name.len() + event.payload.len();
        let slot = slot.get_or_insert_with(|| EventSlot {
            ltime: event.ltime,
            events: Vec::new(),
        });
        if slot
            .events
            .iter()
            .any(|(name, payload)| **name == *event.name && **payload == *event.payload)
        {
            return false;
        }
        if slot.events.len() >= MAX_EVENTS_PER_LTIME || self.event_bytes + added > EVENT_RING_BYTES_MAX {
            self.refuse(format_args!(
                "user event '{}': no room to remember it",
                event.name
            ));
            return false;
        }
        slot.events.push((event.name.into(), event.payload.into()));
        self.event_bytes += added;
        true
    }
}
