//! The last events, numbered, so that a client that was away for a moment can go on where it stopped.
//!
//! One ring serves all clients: each has only its place in it. Who is slower than the ring is told how much it has
//! missed, and holds up nobody.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::members;
use crate::events::filter::kind;
use crate::events::hub::Subscription;
use fyrd_core::bounds::{HTTP_FEED_BYTES, HTTP_FEED_EVENTS};
use fyrd_core::serf::Event;

/// Queries of the protocol itself, which nobody else sees.
const INTERNAL_PREFIX: &str = "_serf_";

/// A place in the run of events. It names the life of the agent too, because numbers begin anew with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// When the agent started, in milliseconds since 1970.
    pub(super) life: u64,
    /// How many events had been then.
    pub(super) number: u64,
}

impl Place {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Place> {
        let (life, number) = text.split_once('-')?;
        Some(Place {
            life: life.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.life, self.number)
    }
}

/// One event, as clients get it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its number; the first has 1.
    pub(super) number: u64,
    /// What kind of event it is, as for handlers: `member-join`, `user`, `query` and so on.
    pub(super) kind: &'static str,
    /// The name that a user event or a query has.
    pub(super) name: Option<String>,
    /// The event as JSON, on one line.
    pub(super) text: String,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Feed {
    life: u64,
    ring: RefCell<Ring>,
    /// The number of the last event.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Rc<Entry>>,
    bytes: usize,
    /// The number of the last event.
    last: u64,
    /// The number of the last event that changed the list of members.
    members: u64,
}

impl Feed {
    /// A ring without events.
    pub(super) fn new() -> Feed {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Feed {
            life: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            ring: RefCell::default(),
            news: watch::Sender::new(0),
        }
    }

    /// Takes in what the node tells, until the node is gone.
    pub(super) async fn run(self: Rc<Self>, mut events: Subscription) {
        while let Some(event) = events.recv().await {
            let lost = events.take_lost();
            if lost > 0 {
                self.push("lost", None, json!({"event": "lost", "events": lost}));
            }
            self.take(&event);
        }
    }

    /// Takes in one event.
    pub(super) fn take(&self, event: &Event) {
        let name = match event {
            Event::User { name, .. } => Some(name),
            Event::Query { name, .. } if name.starts_with(INTERNAL_PREFIX) => return,
            Event::Query { name, .. } => Some(name),
            Event::Member { .. } | Event::Isolation { .. } => None,
        };
        self.push(kind(event), name.cloned(), object(event));
        if matches!(event, Event::Member { .. }) {
            let mut ring = self.ring.borrow_mut();
            ring.members = ring.last;
        }
    }

    /// The place after the last event.
    pub(super) fn end(&self) -> Place {
        self.place(self.ring.borrow().last)
    }

    /// The place after the last change of the list of members.
    pub(super) fn members_end(&self) -> Place {
        self.place(self.ring.borrow().members)
    }

    /// The place after the event of that number.
    pub(super) fn place(&self, number: u64) -> Place {
        Place {
            life: self.life,
            number,
        }
    }

    /// The events after that number, or how many of them are no longer here.
    pub(super) fn after(&self, number: u64) -> Result<Vec<Rc<Entry>>, u64> {
        let ring = self.ring.borrow();
        let oldest = ring.last - ring.entries.len() as u64;
        if number < oldest {
            return Err(oldest - number);
        }
        let skipped = usize::try_from(number - oldest).unwrap_or(usize::MAX);
        Ok(ring.entries.iter().skip(skipped).map(Rc::clone).collect())
    }

    /// Tells of each event by its number.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn push(&self, kind: &'static str, name: Option<String>, object: Value) {
        let text = object.to_string();
        let number = {
            let mut ring = self.ring.borrow_mut();
            ring.last += 1;
            ring.bytes += text.len();
            let number = ring.last;
            ring.entries.push_back(Rc::new(Entry {
                number,
                kind,
                name,
                text,
            }));
            // The newest stays, however large it is.
            while ring.entries.len() > 1
                && (ring.entries.len() > HTTP_FEED_EVENTS || ring.bytes > HTTP_FEED_BYTES)
            {
                let gone = ring.entries.pop_front().map_or(0, |entry| entry.text.len());
                ring.bytes -= gone;
            }
            number
        };
        self.news.send_replace(number);
    }
}

/// The event as a client reads it. A payload that is no text stands there in base64.
fn object(event: &Event) -> Value {
    let kind = kind(event);
    match event {
        Event::Member { members, .. } => {
            let members: Vec<_> = members.iter().map(|member| members::json(member)).collect();
            json!({"event": kind, "members": members})
        }
        Event::User {
            ltime,
            name,
            payload,
            coalesce,
        } => with_payload(
            json!({"event": kind, "name": name, "ltime": ltime, "coalesce": coalesce}),
            payload,
        ),
        Event::Query {
            ltime,
            id,
            name,
            payload,
            source,
        } => with_payload(
            json!({"event": kind, "name": name, "ltime": ltime, "id": id, "source": source}),
            payload,
        ),
        Event::Isolation { .. } => json!({"event": kind}),
    }
}

fn with_payload(mut object: Value, payload: &[u8]) -> Value {
    match std::str::from_utf8(payload) {
        Ok(text) => object["payload"] = text.into(),
        Err(_) => object["payload_base64"] = STANDARD.encode(payload).into(),
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, payload: &[u8]) -> Event {
        Event::User {
            ltime: 7,
            name: name.to_owned(),
            payload: payload.to_vec(),
            coalesce: false,
        }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place { life: 5, number: 17 };
        assert_eq!(place.to_string(), "5-17");
        assert_eq!(Place::parse("5-17"), Some(place));
        for text in [
            "",
            "5",
            "-",
            "5-",
            "-17",
            "5-x",
            "5-17-3",
            "99999999999999999999-1",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn events_are_numbered_and_the_oldest_go() {
        let feed = Feed::new();
        assert_eq!(feed.end().number, 0);
        assert!(feed.after(0).unwrap().is_empty());
        for number in 1..=HTTP_FEED_EVENTS + 2 {
            feed.take(&user(&number.to_string(), b""));
        }
        assert_eq!(feed.after(0).unwrap_err(), 2);
        let rest = feed.after(2).unwrap();
        assert_eq!(rest.len(), HTTP_FEED_EVENTS);
        assert_eq!((rest[0].number, rest[0].name.as_deref()), (3, Some("3")));
        assert!(feed.after(feed.end().number).unwrap().is_empty());
        assert_eq!(*feed.news().borrow(), feed.end().number);
    }

    #[test]
    fn large_events_push_others_out_but_not_themselves() {
        let feed = Feed::new();
        feed.take(&user("small", b""));
        feed.take(&user("large", &vec![b'x'; HTTP_FEED_BYTES]));
        assert_eq!(feed.after(0).unwrap_err(), 1);
        assert_eq!(feed.after(1).unwrap().len(), 1);
        feed.take(&user("small", b""));
        assert_eq!(feed.after(2).unwrap().len(), 1);
        assert!(feed.ring.borrow().bytes < 100);
    }

    #[test]
    fn only_members_change_the_place_of_members() {
        let feed = Feed::new();
        feed.take(&user("deploy", b""));
        assert_eq!(feed.members_end().number, 0);
        let kind = fyrd_core::serf::MemberEventKind::Join;
        feed.take(&Event::Member {
            kind,
            members: Vec::new(),
        });
        feed.take(&user("deploy", b""));
        assert_eq!((feed.members_end().number, feed.end().number), (2, 3));
    }

    #[test]
    fn payloads_are_text_or_base64_and_queries_of_the_protocol_are_not_told() {
        let feed = Feed::new();
        feed.take(&user("deploy", "v\u{fc}\n".as_bytes()));
        feed.take(&user("deploy", &[0xff]));
        for name in ["_serf_ping", "load"] {
            feed.take(&Event::Query {
                ltime: 1,
                id: 2,
                name: name.to_owned(),
                payload: Vec::new(),
                source: "n1".to_owned(),
            });
        }
        let texts: Vec<String> = feed.after(0).unwrap().iter().map(|e| e.text.clone()).collect();
        assert_eq!(
            texts,
            [
                r#"{"coalesce":false,"event":"user","ltime":7,"name":"deploy","payload":"vü\n"}"#,
                r#"{"coalesce":false,"event":"user","ltime":7,"name":"deploy","payload_base64":"/w=="}"#,
                r#"{"event":"query","id":2,"ltime":1,"name":"load","payload":"","source":"n1"}"#,
            ]
        );
    }
}
