//! A restarted node hears first what it has missed: user events come in the order of Lamport time
//! (docs/design.md#the-snapshot).
//!
//! Peers that have not noticed its absence gossip to it from its first moment on, so the newest events would
//! come before those of the time when it was down. All wait until a join has brought the ring of recent events of a peer
//! that hears the news, or for [`CATCH_UP_MAX`](crate::bounds::CATCH_UP_MAX) if none does.

use std::collections::BTreeMap;

use super::joins::Purpose;
use super::targets::Dial;
use super::types::MemberStatus;
use super::{Serf, Timer, verbatim};
use crate::bounds::{CATCH_UP_EVENTS, CATCH_UP_MAX};
use crate::time::Time;
use crate::wire::{SerfMessage, UserEvent};

/// The messages that wait, by Lamport time, each once however often it comes; and how.
pub(super) type Waiting = BTreeMap<(u64, Box<[u8]>), Source>;

/// How a user event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By gossip: it is passed on.
    Gossip,
    /// In the ring of recent events of a push/pull: whoever sent that passes it on.
    Ring,
}

impl Serf {
    /// User events wait from now on.
    pub(super) fn begin_catching_up(&mut self, now: Time) {
        self.catching_up = Some(Waiting::new());
        self.timers.set(now + CATCH_UP_MAX, Timer::CatchUp);
    }

    /// Keeps a user event back, if it has to wait.
    pub(super) fn waits_for_older(&mut self, ltime: u64, message: &[u8], source: Source) -> bool {
        let Some(waiting) = &mut self.catching_up else {
            return false;
        };
        waiting.entry((ltime, message.into())).or_insert(source);
        if waiting.len() > CATCH_UP_EVENTS {
            self.end_catching_up();
        }
        true
    }

    /// Takes a user event of a peer's ring.
    pub(super) fn handle_ring_event(&mut self, event: UserEvent<'_>) {
        if self.catching_up.is_none() {
            self.handle_user_event(&event);
            return;
        }
        let ltime = event.ltime;
        let mut message = Vec::new();
        SerfMessage::UserEvent(event).encode(&mut message);
        self.waits_for_older(ltime, &message, Source::Ring);
    }

    /// Whether whoever was joined is one whom the cluster gossips to. Who is on its way out answers for a while yet, but
    /// its ring of events ends where it left.
    pub(super) fn hears_news(&self, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Dial(Dial::Peer { peer: joined, .. } | Dial::Failed(joined) | Dial::Pinger(joined)) => {
                self.status_of(&joined.name) == Some(MemberStatus::Alive)
            }
            _ => true,
        }
    }

    /// What was missed has come. Handles the events that had to wait.
    pub fn end_catching_up(&mut self) {
        for ((_, message), source) in self.catching_up.take().unwrap_or_default() {
            if let Ok(SerfMessage::UserEvent(event)) = SerfMessage::decode(&message)
                && self.handle_user_event(&event)
                && source == Source::Gossip
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
    use crate::serf::restart::tests::{facts, restarted};
    use crate::serf::targets::Known;
    use crate::serf::types::Event;
    use crate::swim::delegate::{Delegate, JoinId};
    use std::sync::Arc;

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
            assert!(serf.waits_for_older(ltime, &message(ltime), Source::Gossip));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        serf.end_catching_up();
        assert_eq!(handled(&mut serf), [6, 7]);
        assert_eq!(serf.queues.events.len(), 2);
        assert!(!serf.waits_for_older(8, &message(8), Source::Gossip));
    }

    #[test]
    fn who_is_on_its_way_out_does_not_bring_what_was_missed() {
        let mut serf = back();
        assert!(serf.waits_for_older(7, &message(7), Source::Gossip));
        let join = |serf: &mut Serf| {
            let pinger = Known {
                name: "other".into(),
                addr: "10.0.0.2:7946".parse().unwrap(),
                heard: Time::ZERO,
            };
            let id = JoinId(1);
            serf.joins.insert(id, Purpose::Dial(Dial::Pinger(pinger)));
            serf.end_join(Time::ZERO, id, 1, Vec::new());
        };
        // It says of itself that it has left, and is not listed. The newest of what it has missed came to it with a ping.
        serf.handle_ring_event(UserEvent {
            ltime: 8,
            name: "event-8",
            payload: b"",
            coalesce: false,
        });
        join(&mut serf);
        assert_eq!(handled(&mut serf), [0; 0]);
        assert!(serf.waits_for_older(6, &message(6), Source::Gossip));
        serf.member_joined(Time::ZERO, &Arc::new(facts("other")));
        join(&mut serf);
        assert_eq!(handled(&mut serf), [6, 7, 8]);
        // What comes in a ring is not passed on.
        assert_eq!(serf.queues.events.len(), 2);
    }

    #[test]
    fn of_whom_this_node_dials_by_itself_only_the_living_bring_news() {
        let addr = "10.0.0.2:7946".parse().unwrap();
        let other = Known {
            name: "other".into(),
            addr,
            heard: Time::ZERO,
        };
        let peer = Dial::Peer {
            peer: other.clone(),
            again: false,
        };
        let by_itself = [peer, Dial::Failed(other.clone()), Dial::Pinger(other)].map(Purpose::Dial);
        let told = [
            Purpose::Dial(Dial::Discovered(vec![addr])),
            Purpose::RetryJoin(Vec::new()),
        ];
        let mut serf = back();
        for listed in [false, true] {
            for purpose in &by_itself {
                assert_eq!(serf.hears_news(purpose), listed, "{purpose:?}");
            }
            assert!(told.iter().all(|purpose| serf.hears_news(purpose)));
            serf.member_joined(Time::ZERO, &Arc::new(facts("other")));
        }
    }

    #[test]
    fn no_more_waits_than_may() {
        let mut serf = back();
        let end = 5 + CATCH_UP_EVENTS as u64;
        for ltime in 5..end {
            assert!(serf.waits_for_older(ltime, &message(ltime), Source::Gossip));
        }
        assert_eq!(handled(&mut serf), [0; 0]);
        assert!(serf.waits_for_older(end, &message(end), Source::Gossip));
        assert_eq!(handled(&mut serf).len(), CATCH_UP_EVENTS + 1);
        assert!(!serf.waits_for_older(end + 1, &message(end + 1), Source::Gossip));
    }
}
