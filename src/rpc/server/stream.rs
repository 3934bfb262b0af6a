//! Event streams: the agent's events, as far as a client's filters let them through.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Backend;
use super::client::Client;
use super::members::rpc_member;
use super::outbox::Records;
use super::pending::PendingQueries;
use crate::events::filter::{self, EventFilter};
use crate::events::hub::Subscription;
use crate::queue;
use crate::rpc::types::{EventRecord, MemberEventRecord, QueryEventRecord, UserEventRecord};
use fyrd_core::bounds;
use fyrd_core::serf::Event;

impl<B: Backend> Client<B> {
    /// Each stream has a queue of its own, and gets its own copy of each event.
    pub(super) async fn open_stream(&mut self, filters: &str) -> Result<(), String> {
        let seq = self.header.seq;
        if self.streams.contains_key(&seq) {
            return self.refuse("Stream with given sequence exists").await;
        }
        let filters = EventFilter::parse_list(filters);
        if !filters.iter().all(EventFilter::is_valid) {
            return self.refuse("Invalid event filter").await;
        }
        if let Err(reason) = self.has_room() {
            return self.refuse(&reason).await;
        }
        let events = self.backend.events(bounds::RPC_RECORDS_WAITING);
        self.acknowledge(Ok(())).await?;
        let (stop, mut stopped) = oneshot::channel();
        let (wanted, mut waiting) = queue::bounded(bounds::RPC_RECORDS_WAITING);
        let (outbox, pending, loss) = (
            self.outbox.clone(),
            self.pending.clone(),
            self.losses.events.clone(),
        );
        self.tasks.spawn_local(async move {
            let sending = async {
                while let Some(event) = next(&mut waiting, &mut stopped).await {
                    let record = |event: Arc<Event>| event_record(&event, &pending);
                    let Ok(records) = Records::gather(seq, event, || waiting.try_recv().ok(), record) else {
                        break;
                    };
                    if outbox.send(records, || waiting.take_lost(), &loss).await.is_err() {
                        break;
                    }
                }
                // Nobody takes events any more, which ends the sifting too.
                waiting.close();
            };
            tokio::join!(sift(events, &filters, wanted), sending);
        });
        self.streams.insert(seq, stop);
        Ok(())
    }

    /// Whether this client may have one more stream or query.
    pub(super) fn has_room(&self) -> Result<(), String> {
        let max = self.backend.limits().subscriptions;
        if self.tasks.len() < max {
            return Ok(());
        }
        Err(format!(
            "Too many streams and queries: one connection may have {max} at a time (rpc_max_subscriptions)"
        ))
    }
}

/// Takes events as they come, however slow the client, so that only those that it wants fill its queue.
async fn sift(mut events: Subscription, filters: &[EventFilter], wanted: queue::Sender<Arc<Event>>) {
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            () = wanted.closed() => return,
        };
        let Some(event) = event else { return };
        wanted.add_lost(events.take_lost());
        if filters.iter().any(|filter| filter.matches(&event)) {
            wanted.offer(event);
        }
    }
}

/// The next event, until the client stops the stream.
async fn next(
    waiting: &mut queue::Receiver<Arc<Event>>,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<Arc<Event>> {
    tokio::select! {
        biased;
        _ = stopped => None,
        event = waiting.recv() => event,
    }
}

fn event_record(event: &Event, pending: &PendingQueries) -> EventRecord {
    match event {
        Event::Member { kind, members } => EventRecord::Member(MemberEventRecord {
            event: kind.as_str().to_owned(),
            members: members.iter().map(|member| rpc_member(member)).collect(),
        }),
        // A client that knows the kind asks for it by name, and one that prints what comes can do so.
        Event::Isolation { .. } => EventRecord::Member(MemberEventRecord {
            event: filter::kind(event).to_owned(),
            members: Vec::new(),
        }),
        Event::User {
            ltime,
            name,
            payload,
            coalesce,
        } => EventRecord::User(UserEventRecord {
            coalesce: *coalesce,
            event: "user".to_owned(),
            l_time: *ltime,
            name: name.clone(),
            payload: payload.clone(),
        }),
        Event::Query {
            ltime,
            id,
            name,
            payload,
            ..
        } => EventRecord::Query(QueryEventRecord {
            event: "query".to_owned(),
            id: pending.number((*ltime, *id)),
            l_time: *ltime,
            name: name.clone(),
            payload: payload.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fyrd_core::serf::MemberEventKind;

    #[test]
    fn filters_choose_by_kind_and_name() {
        let member = |kind| Event::Member {
            kind,
            members: Vec::new(),
        };
        let user = |name: &str| Event::User {
            ltime: 1,
            name: name.to_owned(),
            payload: Vec::new(),
            coalesce: false,
        };
        let query = |name: &str| Event::Query {
            ltime: 1,
            id: 1,
            name: name.to_owned(),
            payload: Vec::new(),
            source: String::new(),
        };
        let events = [
            member(MemberEventKind::Join),
            member(MemberEventKind::Reap),
            user("a"),
            user("b"),
            query("a"),
            query("b"),
        ];
        for (filters, expected) in [
            ("", [1, 1, 1, 1, 1, 1]),
            ("*", [1, 1, 1, 1, 1, 1]),
            ("member-join", [1, 0, 0, 0, 0, 0]),
            ("member-reap,query:b", [0, 1, 0, 0, 0, 1]),
            ("user", [0, 0, 1, 1, 0, 0]),
            ("user:b", [0, 0, 0, 1, 0, 0]),
            ("query:", [0, 0, 0, 0, 1, 1]),
        ] {
            let filters = EventFilter::parse_list(filters);
            let passes = |event| u8::from(filters.iter().any(|filter| filter.matches(event)));
            assert_eq!(events.each_ref().map(passes), expected, "{filters:?}");
        }
    }

    #[tokio::test]
    async fn events_nobody_wants_take_no_room() {
        let hub = crate::events::hub::Hub::default();
        let event = |name: &str| {
            Arc::new(Event::User {
                ltime: 1,
                name: name.to_owned(),
                payload: Vec::new(),
                coalesce: false,
            })
        };
        let (wanted, mut waiting) = queue::bounded(2);
        let filters = EventFilter::parse_list("user:a");
        let sifting = sift(hub.subscribe(4), &filters, wanted);
        let publishing = async {
            for _ in 0..100 {
                hub.publish(&event("b"));
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                hub.publish(&event("a"));
                tokio::task::yield_now().await;
            }
            // The last of them finds no room, which takes the other side a turn to notice.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            waiting.close();
        };
        tokio::join!(sifting, publishing);
        let mut found = Vec::new();
        while let Some(event) = waiting.recv().await {
            found.push(event);
        }
        assert_eq!((found, waiting.take_lost()), (vec![event("a"), event("a")], 1));
    }
}
