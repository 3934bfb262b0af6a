//! A node that was here before hears first what it has missed (design.md section 7).
//!
//! Peers that have not noticed its absence gossip to it from its first moment on, so the newest events would
//! come before those of the time when it was down. They wait until a join has brought a peer's ring of recent
//! events, or for [`CATCH_UP_MAX`](crate::bounds::CATCH_UP_MAX) if none does.

use std::collections::BTreeSet;

use super::{Serf, Timer, verbatim};
use crate::bounds::{CATCH_UP_EVENTS, CATCH_UP_MAX};
use crate::time::Time;
use crate::wire::SerfMessage;

/// The messages that wait, by Lamport time, each once however often it is gossiped.
pub(super) type Waiting = BTreeSet<(u64, Box<[u8]>)>;

impl Serf {
    /// User events by gossip wait from now on.
    pub(super) fn begin_catching_up(&mut self, now: Time) {
        self.catching_up = Some(Waiting::new());
        self.timers.set(now + CATCH_UP_MAX, Timer::CatchUp);
    }

    /// Keeps a user event back, if it has to wait.
    pub(super) fn waits_for_older(&mut self, ltime: u64, message: &[u8]) -> bool {
        let Some(waiting) = &mut self.catching_up else {
            return false;
        };
        waiting.insert((ltime, message.into()));
        if waiting.len() > CATCH_UP_EVENTS {
            self.end_catching_up();
        }
        true
    }

    /// What was missed has come. Now the events that had to wait are handled, those that came with it
    /// excepted, as they are known by now.
    pub fn end_catching_up(&mut self) {
        for (_, message) in self.catching_up.take().unwrap_or_default() {
            if let Ok(SerfMessage::UserEvent(event)) = SerfMessage::decode(&message)
                && self.handle_user_event(&event)
            {
                self.queues.events.push(None, verbatim(&message), None);
            }
        }
    }
}
