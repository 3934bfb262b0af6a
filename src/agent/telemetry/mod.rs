//! Metrics: counters, samples and gauges under Serf's names (docs/compatibility.md#telemetry), kept in memory for a
//! minute and, if wanted, sent to statsd or statsite.
//!
//! [`Metrics`] take them from whoever has something to tell. The core and the driver tell nothing by
//! themselves: [`run`] fetches from them what they have counted, as often as somebody needs it.

mod collect;
mod intervals;
mod statsd;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use chrono::{DateTime, Local};

use crate::http::Totals;
use fyrd_core::swim::measures::Tally;
use intervals::Intervals;
use statsd::Outlet;

pub use collect::{EVENT_QUEUE, fetch, memory, run};

/// Before every name.
const SERVICE: &str = "serf-agent";

/// Longest name, in bytes. Users choose parts of names, and a line must fit a datagram.
const NAME_MAX: usize = 256;

/// Where metrics are sent; an empty address is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// `host:port` of a statsd, by UDP.
    pub statsd: String,
    /// `host:port` of a statsite, by TCP.
    pub statsite: String,
}

/// What kind of metric a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Sample,
    Gauge,
}

/// Takes metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    intervals: Intervals,
    totals: Totals,
    outlets: Vec<Outlet>,
    /// Stands in the names of gauges when they are sent to a place where those of many hosts meet.
    host: Option<String>,
}

impl Metrics {
    /// Empty metrics, and the tasks that send what they take to these sinks. Nothing is checked here: a
    /// sink that is not there now may be there later.
    pub fn new(sinks: &Sinks) -> Metrics {
        let mut outlets = Vec::new();
        if !sinks.statsite.is_empty() {
            outlets.push(Outlet::statsite(&sinks.statsite));
        }
        if !sinks.statsd.is_empty() {
            outlets.push(Outlet::statsd(&sinks.statsd));
        }
        let host = (!outlets.is_empty()).then(|| gethostname::gethostname().to_string_lossy().into_owned());
        Metrics(Rc::new(RefCell::new(Inner {
            intervals: Intervals::new(Instant::now()),
            totals: Totals::default(),
            outlets,
            host,
        })))
    }

    /// Adds to a counter: how often, and by how much in all.
    pub fn count(&self, name: &str, by: &Tally) {
        self.record(Kind::Counter, name, by);
    }

    /// Adds measurements to those of a name.
    pub fn sample(&self, name: &str, measured: &Tally) {
        self.record(Kind::Sample, name, measured);
    }

    /// Sets a value that stands until the next.
    pub fn gauge(&self, name: &str, value: f64) {
        self.record(Kind::Gauge, name, &Tally::of(value));
    }

    /// The complete intervals, as text.
    pub fn dump(&self) -> String {
        self.0.borrow().intervals.dump(Local::now())
    }

    /// All that has come together since the start, as of the last [`fetch`].
    pub fn totals(&self) -> Totals {
        self.0.borrow().totals
    }

    fn add(&self, to_totals: impl FnOnce(&mut Totals)) {
        to_totals(&mut self.0.borrow_mut().totals);
    }

    fn record(&self, kind: Kind, name: &str, tally: &Tally) {
        if tally.count == 0 {
            return;
        }
        let mut inner = self.0.borrow_mut();
        let host = inner.host.as_deref().filter(|_| kind == Kind::Gauge);
        let name = full_name(host, name);
        let now: DateTime<Local> = Local::now();
        if inner.intervals.record(now, kind, &name, tally) {
            for outlet in &mut inner.outlets {
                outlet.record(kind, &name, tally);
            }
        }
    }

    /// Whether they are sent to anybody.
    fn are_sent(&self) -> bool {
        !self.0.borrow().outlets.is_empty()
    }

    /// Sends on what has come together.
    fn flush(&self) {
        for outlet in &mut self.0.borrow_mut().outlets {
            outlet.flush();
        }
    }
}

/// The name as the dump shows it. Blanks become underlines as in Serf, and so does what could end a line
/// there or in a sink.
fn full_name(host: Option<&str>, name: &str) -> String {
    let mut full = match host {
        Some(host) => format!("{SERVICE}.{host}.{name}"),
        None => format!("{SERVICE}.{name}"),
    };
    if full.len() > NAME_MAX {
        let end = full.floor_char_boundary(NAME_MAX);
        full.truncate(end);
    }
    full.replace(|c: char| c == ' ' || c.is_control(), "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(full_name(None, "serf.events.a b"), "serf-agent.serf.events.a_b");
        assert_eq!(full_name(Some("h"), "runtime.x"), "serf-agent.h.runtime.x");
        assert_eq!(full_name(None, "a\n[x]\0\u{85}"), "serf-agent.a_[x]__");
        let long = full_name(None, &"\u{fc}".repeat(300));
        assert!(
            long.len() <= NAME_MAX && long.len() >= NAME_MAX - 1,
            "{}",
            long.len()
        );
    }

    #[test]
    fn without_sinks_gauges_have_no_host() {
        let metrics = Metrics::new(&Sinks::default());
        metrics.gauge("runtime.x", 1.0);
        metrics.count("c", &Tally::default());
        let inner = metrics.0.borrow();
        let all = inner
            .intervals
            .dump(Local::now() + std::time::Duration::from_secs(10));
        assert!(all.contains("[G] 'serf-agent.runtime.x': 1.000\n"), "{all}");
        assert!(!all.contains("serf-agent.c"), "{all}");
    }
}
