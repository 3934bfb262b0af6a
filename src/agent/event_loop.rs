//! What the node tells: member events are coalesced, then all events are announced in the log. Handlers
//! and streams will be served from here.

use std::time::Instant;

use tokio::sync::mpsc;
use tracing::info;

use crate::events::coalesce::MemberCoalescer;
use crate::serf::Event;
use crate::swim::profile::SerfProfile;
use crate::time::Time;

/// How many events may wait for this loop; it only waits for itself, so this is never reached.
pub const EVENT_QUEUE: usize = 4096;

/// Queries of the protocol itself, which nobody else sees.
const INTERNAL_PREFIX: &str = "_serf_";

/// Runs until the node is gone.
pub async fn run(mut events: mpsc::Receiver<Event>, profile: SerfProfile) {
    let start = Instant::now();
    let mut coalescer = MemberCoalescer::new(profile.coalesce_period, profile.quiescent_period);
    loop {
        let deadline = coalescer.next_deadline().map(|at| start + at.since(Time::ZERO));
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                None => return,
                Some(Event::Member { kind, members }) => {
                    coalescer.handle(Time::ZERO + start.elapsed(), kind, members);
                }
                Some(event) => announce(&event),
            },
            () = timer => {}
        }
        for event in coalescer.poll_events(Time::ZERO + start.elapsed()) {
            announce(&event);
        }
    }
}

fn announce(event: &Event) {
    if let Some(title) = title(event) {
        info!(target: "agent", "Received event: {title}");
    }
}

/// How the log calls an event; nothing for what is not for users.
fn title(event: &Event) -> Option<String> {
    match event {
        Event::Member { kind, .. } => Some(kind.as_str().to_string()),
        Event::User { name, .. } => Some(format!("user-event: {name}")),
        Event::Query { name, .. } if name.starts_with(INTERNAL_PREFIX) => None,
        Event::Query { name, .. } => Some(format!("query: {name}")),
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
