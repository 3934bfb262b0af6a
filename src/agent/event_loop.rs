//! What the node tells: member events and some user events are coalesced, then all events are announced
//! in the log, given to the handlers, and published to the hub, where streams listen.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::info;

use crate::events::coalesce::MemberCoalescer;
use crate::events::filter;
use crate::events::handlers::Handlers;
use crate::events::hub::{Hub, Subscription};
use crate::events::user_coalesce::UserCoalescer;
use fyrd_core::bounds;
use fyrd_core::serf::Event;
use fyrd_core::swim::profile::SerfProfile;
use fyrd_core::time::Time;

/// How many events may wait for this loop: all that one exchange of states can bring, a join of every
/// member and a full ring of events, for the loop has its turn only after that.
pub const EVENT_QUEUE: usize = bounds::MAX_MEMBERS + bounds::RING_EVENTS_MAX;

/// Queries of the protocol itself, which nobody else sees.
const INTERNAL_PREFIX: &str = "_serf_";

/// What stands between the node and those who listen.
pub struct EventLoop {
    start: Instant,
    members: MemberCoalescer,
    users: UserCoalescer,
    handlers: Rc<Handlers>,
    hub: Rc<Hub>,
}

impl EventLoop {
    /// A loop that has seen nothing yet.
    pub fn new(profile: &SerfProfile, handlers: Rc<Handlers>, hub: Rc<Hub>) -> EventLoop {
        EventLoop {
            start: Instant::now(),
            members: MemberCoalescer::new(profile.coalesce_period, profile.quiescent_period),
            users: UserCoalescer::new(profile.user_coalesce_period, profile.user_quiescent_period),
            handlers,
            hub,
        }
    }

    /// Runs until the node is gone, or until `finish` is sent or dropped; then nothing is held back any
    /// more.
    pub async fn run(mut self, mut events: Subscription, mut finish: oneshot::Receiver<()>) {
        loop {
            let deadline = [self.members.next_deadline(), self.users.next_deadline()]
                .into_iter()
                .flatten()
                .min()
                .map(|at| self.start + at.since(Time::ZERO));
            let timer = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    None => return,
                    Some(event) => self.take(event),
                },
                () = timer => {}
                _ = &mut finish => break,
            }
            self.deliver(self.now());
        }
        while let Ok(event) = events.try_recv() {
            self.take(event);
        }
        self.deliver(Time::from_nanos(u64::MAX));
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn take(&mut self, event: Arc<Event>) {
        match &*event {
            Event::Member { kind, members } => {
                self.handlers.learn_tags(*kind, members);
                self.members.handle(self.now(), *kind, members);
            }
            Event::User { coalesce: true, .. } => self.users.handle(self.now(), event),
            _ => self.announce(&event),
        }
    }

    fn deliver(&mut self, now: Time) {
        for event in self.members.poll_events(now) {
            self.announce(&Arc::new(event));
        }
        for event in self.users.poll_events(now) {
            self.announce(&event);
        }
    }

    fn announce(&self, event: &Arc<Event>) {
        if let Some(title) = title(event) {
            info!(target: "agent", "Received event: {title}");
            self.handlers.handle(event);
            self.hub.publish(event);
        }
    }
}

/// How the log calls an event; nothing for what is not for users.
fn title(event: &Event) -> Option<String> {
    match event {
        Event::Member { kind, .. } => Some(kind.as_str().to_string()),
        Event::User { name, .. } => Some(format!("user-event: {name}")),
        Event::Query { name, .. } if name.starts_with(INTERNAL_PREFIX) => None,
        Event::Query { name, .. } => Some(format!("query: {name}")),
        Event::Isolation { .. } => Some(filter::kind(event).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_serfs() {
        let query = |name: &str| Event::Query {
            ltime: 1,
            id: 1,
            name: name.to_string(),
            payload: Vec::new(),
            source: "n1".to_string(),
        };
        let user = Event::User {
            ltime: 1,
            name: "deploy".to_string(),
            payload: Vec::new(),
            coalesce: false,
        };
        assert_eq!(title(&user).as_deref(), Some("user-event: deploy"));
        assert_eq!(title(&query("load")).as_deref(), Some("query: load"));
        assert_eq!(title(&query("_serf_ping")), None);
    }
}
