//! User events whose sender allows it are held back for a while, and of those with one name only the
//! newest are delivered: all that have the highest Lamport time (docs/protocol.md#b12-coalescing).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::window::Window;
use fyrd_core::bounds::USER_EVENTS_HELD_BACK;
use fyrd_core::serf::Event;
use fyrd_core::time::Time;

/// Holds user events back for a while.
#[derive(Debug)]
pub struct UserCoalescer {
    window: Window,
    /// What is held back, the name that came first first.
    pending: Vec<Newest>,
    /// Where a name stands in `pending`.
    places: HashMap<String, usize>,
    /// How many events are held back.
    held: usize,
}

/// The newest events of one name.
#[derive(Debug)]
struct Newest {
    ltime: u64,
    events: Vec<Arc<Event>>,
}

impl UserCoalescer {
    /// A coalescer; without a period it delivers at once.
    pub fn new(period: Duration, quiet: Duration) -> Self {
        UserCoalescer {
            window: Window::new(period, quiet),
            pending: Vec::new(),
            places: HashMap::new(),
            held: 0,
        }
    }

    /// Takes in a user event that may be coalesced.
    pub fn handle(&mut self, now: Time, event: Arc<Event>) {
        let Event::User { ltime, ref name, .. } = *event else {
            return;
        };
        let known = self.places.get(name).copied();
        match known.and_then(|place| self.pending.get_mut(place)) {
            None => {
                self.places.insert(name.clone(), self.pending.len());
                self.held += 1;
                let events = vec![event];
                self.pending.push(Newest { ltime, events });
            }
            Some(newest) if ltime > newest.ltime => {
                self.held = self.held + 1 - newest.events.len();
                newest.ltime = ltime;
                newest.events = vec![event];
            }
            Some(newest) if ltime == newest.ltime => {
                self.held += 1;
                newest.events.push(event);
            }
            Some(_) => {}
        }
        self.window.extend(now);
        if self.held >= USER_EVENTS_HELD_BACK {
            self.window.end(now);
        }
    }

    /// When to call [`UserCoalescer::poll_events`] next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.window.deadline()
    }

    /// What is due.
    pub fn poll_events(&mut self, now: Time) -> Vec<Arc<Event>> {
        if !self.window.close_if_due(now) {
            return Vec::new();
        }
        self.places.clear();
        self.held = 0;
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().flat_map(|newest| newest.events).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn event(ltime: u64, name: &str, payload: &str) -> Arc<Event> {
        Arc::new(Event::User {
            ltime,
            name: name.to_owned(),
            payload: payload.into(),
            coalesce: true,
        })
    }

    type Delivery = (u64, String);

    /// Feeds `(ms, ltime, name, payload)`; returns what came out as `(ms, "name@ltime=payload")`.
    fn run(script: &[(u64, u64, &str, &str)]) -> Vec<Delivery> {
        let mut coalescer = UserCoalescer::new(Duration::from_secs(3), Duration::from_secs(1));
        let mut out = Vec::new();
        let mut flush = |coalescer: &mut UserCoalescer, until: u64| {
            while let Some(deadline) = coalescer.next_deadline().filter(|due| *due <= at(until)) {
                for event in coalescer.poll_events(deadline) {
                    let Event::User {
                        ltime,
                        name,
                        payload,
                        coalesce: true,
                    } = &*event
                    else {
                        panic!("only user events that may be coalesced")
                    };
                    let text = format!("{name}@{ltime}={}", str::from_utf8(payload).unwrap());
                    out.push((deadline.as_nanos() / 1_000_000, text));
                }
            }
        };
        for (ms, ltime, name, payload) in script {
            flush(&mut coalescer, *ms);
            coalescer.handle(at(*ms), event(*ltime, name, payload));
        }
        flush(&mut coalescer, u64::MAX / 2_000_000);
        out
    }

    #[test]
    fn the_newest_of_a_name_are_delivered() {
        type Row<'a> = (&'a [(u64, u64, &'a str, &'a str)], &'a [(u64, &'a str)]);
        #[rustfmt::skip]
        let table: [Row<'_>; 6] = [
            (&[(0, 5, "a", "1")], &[(1000, "a@5=1")]),
            (&[(0, 5, "a", "1"), (10, 6, "a", "2"), (20, 4, "a", "3")], &[(1020, "a@6=2")]),
            (&[(0, 5, "a", "1"), (10, 5, "a", "2"), (20, 5, "a", "1")],
             &[(1020, "a@5=1"), (1020, "a@5=2"), (1020, "a@5=1")]),
            (&[(0, 5, "a", "1"), (10, 5, "a", "2"), (20, 6, "a", "3")], &[(1020, "a@6=3")]),
            (&[(0, 5, "b", "1"), (10, 3, "a", "2"), (20, 6, "b", "3")], &[(1020, "b@6=3"), (1020, "a@3=2")]),
            // A name starts anew in the next window, whatever its Lamport time.
            (&[(0, 5, "a", "1"), (1500, 4, "a", "2")], &[(1000, "a@5=1"), (2500, "a@4=2")]),
        ];
        for (script, expected) in table {
            let out = run(script);
            let out: Vec<(u64, &str)> = out.iter().map(|(ms, text)| (*ms, text.as_str())).collect();
            assert_eq!(out, expected, "{script:?}");
        }
    }

    #[test]
    fn the_period_ends_a_stream() {
        let script: Vec<(u64, u64, &str, &str)> = (0..8).map(|i| (i * 500, i, "a", "")).collect();
        let expected: Vec<Delivery> = vec![(3000, "a@5=".into()), (4500, "a@7=".into())];
        assert_eq!(run(&script), expected);
    }

    #[test]
    fn a_flood_is_delivered_early_instead_of_held() {
        let mut coalescer = UserCoalescer::new(Duration::from_secs(3), Duration::from_secs(1));
        for number in 0..USER_EVENTS_HELD_BACK as u64 {
            assert_eq!(coalescer.poll_events(at(0)), []);
            coalescer.handle(at(0), event(number, &format!("e{number}"), ""));
        }
        assert_eq!(coalescer.next_deadline(), Some(at(0)));
        assert_eq!(coalescer.poll_events(at(0)).len(), USER_EVENTS_HELD_BACK);
        assert_eq!(coalescer.next_deadline(), None);
        // Replacing holds no more than one.
        for ltime in 0..2 * USER_EVENTS_HELD_BACK as u64 {
            coalescer.handle(at(0), event(ltime, "e", ""));
        }
        assert_eq!(coalescer.next_deadline(), Some(at(1000)));
    }

    #[test]
    fn without_a_period_events_are_due_at_once() {
        let mut coalescer = UserCoalescer::new(Duration::ZERO, Duration::from_secs(1));
        coalescer.handle(at(7), event(1, "a", ""));
        assert_eq!(coalescer.poll_events(at(7)).len(), 1);
    }
}
