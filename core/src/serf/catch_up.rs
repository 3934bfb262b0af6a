//! A restarted node hears first what it has missed: user events come in the order of Lamport time
//! (docs/design.md#the-snapshot).
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

    /// What was missed has come. Handles the events that had to wait, except those that came with it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serf::Effect;
    use crate::serf::memory::{Marks, Memory};
    use crate::serf::restart::tests::restarted;
    use crate::serf::types::Event;
    use crate::wire::UserEvent;

    fn message(ltime: u64) -> Vec<u8> {
        let name = format!("event-{ltime}");
        let event = UserEvent {
            ltime,
            name: &name,
            payload: b"",
            coalesce: false,
        };
        let mut out = Vec::new();
        SerfMessage::UserEvent(event).encode(&mut out);
        out
    }

    /// A node that was here before.
    fn back() -> Serf {
        restarted(&Memory {
            marks: Marks {
                event: 5,
                ..Marks::default()
            },
            ..Memory::default()
        })
    }

    /// The Lamport times of the events handled since the last call.
    fn handled(serf: &mut Serf) -> Vec<u64> {
        let outputs = std::iter::from_fn(|| serf.poll_effect());
        outputs
            .filter_map(|output| match output {
                Effect::Event(event) => match *event {
                    Event::User { ltime, .. } => Some(ltime),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_join_lets_go_in_order_what_has_waited_and_passes_it_on() {
        let mut serf = back();
        for ltime in [7, 6, 7] {
            assert!(serf.waits_for_older(ltime, &message(ltime)));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        serf.end_catching_up();
        assert_eq!(handled(&mut serf), [6, 7]);
        assert_eq!(serf.queues.events.len(), 2);
        assert!(!serf.waits_for_older(8, &message(8)));
    }

    #[test]
    fn no_more_waits_than_may() {
        let mut serf = back();
        let end = 5 + CATCH_UP_EVENTS as u64;
        for ltime in 5..end {
            assert!(serf.waits_for_older(ltime, &message(ltime)));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        assert!(serf.waits_for_older(end, &message(end)));
        assert_eq!(handled(&mut serf).len(), CATCH_UP_EVENTS + 1);
        assert!(!serf.waits_for_older(end + 1, &message(end + 1)));
    }
}
