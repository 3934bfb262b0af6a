//! The last minute of metrics in memory, in intervals of ten seconds, and their text.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};

use super::Kind;
use crate::go;
use fyrd_core::swim::measures::Tally;

/// How long an interval is.
pub const LENGTH: Duration = Duration::from_secs(10);

/// The same in seconds.
const INTERVAL: i64 = LENGTH.as_secs() as i64;

/// Intervals kept, the one being filled included.
const INTERVALS_MAX: usize = 6;

/// Distinct names of one kind in an interval. Names of user events are part of names of metrics, and
/// anybody may invent those.
const NAMES_MAX: usize = 1000;

/// All intervals, oldest first.
#[derive(Debug)]
pub struct Intervals {
    started: Instant,
    intervals: VecDeque<Interval>,
}

#[derive(Debug, Default)]
struct Interval {
    /// When it began, in seconds since 1970.
    begin: i64,
    gauges: BTreeMap<String, f64>,
    counters: BTreeMap<String, Entry>,
    samples: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    tally: Tally,
    updated: DateTime<Local>,
    /// The time since the program's start, which Go shows as well.
    uptime: Duration,
}

impl Intervals {
    /// No intervals yet.
    pub fn new(started: Instant) -> Intervals {
        Intervals {
            started,
            intervals: VecDeque::new(),
        }
    }

    /// Adds to the current interval; false when there are too many names.
    pub fn record(&mut self, now: DateTime<Local>, kind: Kind, name: &str, tally: &Tally) -> bool {
        let uptime = self.started.elapsed();
        let interval = self.current(now);
        if kind == Kind::Gauge {
            return place(&mut interval.gauges, name, || 0.0)
                .map(|gauge| *gauge = tally.sum)
                .is_some();
        }
        let entries = match kind {
            Kind::Sample => &mut interval.samples,
            Kind::Counter | Kind::Gauge => &mut interval.counters,
        };
        let new = || Entry {
            tally: Tally::default(),
            updated: now,
            uptime,
        };
        let Some(entry) = place(entries, name, new) else {
            return false;
        };
        entry.tally.merge(tally);
        (entry.updated, entry.uptime) = (now, uptime);
        true
    }

    /// The text of all intervals that are complete at `now`.
    pub fn dump(&self, now: DateTime<Local>) -> String {
        let current = begin_of(now);
        let mut text = String::new();
        for interval in self.intervals.iter().filter(|interval| interval.begin < current) {
            // Writing to a string cannot fail.
            let _ = interval.dump(&mut text);
        }
        text
    }

    fn current(&mut self, now: DateTime<Local>) -> &mut Interval {
        let begin = begin_of(now);
        // A clock that was set back goes on with the last interval.
        if self.intervals.back().is_none_or(|last| last.begin < begin) {
            if self.intervals.len() >= INTERVALS_MAX {
                self.intervals.pop_front();
            }
            self.intervals.push_back(Interval {
                begin,
                ..Interval::default()
            });
        }
        let last = self.intervals.len() - 1;
        &mut self.intervals[last]
    }
}

impl Interval {
    fn dump(&self, out: &mut String) -> std::fmt::Result {
        let begin = DateTime::from_timestamp(self.begin, 0)
            .unwrap_or_default()
            .with_timezone(&Local);
        let begin = go::time(&begin);
        for (name, value) in &self.gauges {
            writeln!(out, "[{begin}][G] '{name}': {value:.3}")?;
        }
        for (kind, entries) in [("C", &self.counters), ("S", &self.samples)] {
            for (name, entry) in entries {
                writeln!(out, "[{begin}][{kind}] '{name}': {}", entry.text())?;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn text(&self) -> String {
        let Tally {
            count, sum, min, max, ..
        } = self.tally;
        let (mean, deviation) = (self.tally.mean(), self.tally.deviation());
        let spread = if deviation == 0.0 {
            String::new()
        } else {
            format!("Min: {min:.3} Mean: {mean:.3} Max: {max:.3} Stddev: {deviation:.3} ")
        };
        let (seconds, nanos) = (self.uptime.as_secs(), self.uptime.subsec_nanos());
        let updated = go::time(&self.updated);
        format!("Count: {count} {spread}Sum: {sum:.3} LastUpdated: {updated} m=+{seconds}.{nanos:09}")
    }
}

/// The value of a name; none when the name is new and there are too many.
fn place<'a, T>(all: &'a mut BTreeMap<String, T>, name: &str, new: impl FnOnce() -> T) -> Option<&'a mut T> {
    if !all.contains_key(name) {
        if all.len() >= NAMES_MAX {
            return None;
        }
        all.insert(name.to_string(), new());
    }
    all.get_mut(name)
}

fn begin_of(time: DateTime<Local>) -> i64 {
    time.timestamp().div_euclid(INTERVAL) * INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Local> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 500_000_000)
            .unwrap()
            .with_timezone(&Local)
    }

    #[test]
    fn the_dump_has_serfs_form_and_leaves_out_the_window_being_filled() {
        let mut intervals = Intervals::new(Instant::now());
        let mut sizes = Tally::of(1.0);
        sizes.add(3.0);
        intervals.record(at(1), Kind::Sample, "s", &sizes);
        intervals.record(at(2), Kind::Gauge, "g", &Tally::of(7.0));
        intervals.record(at(3), Kind::Gauge, "g", &Tally::of(2.5));
        intervals.record(at(4), Kind::Counter, "c", &Tally::ones(1));
        intervals.record(at(5), Kind::Counter, "c", &Tally::ones(2));
        assert_eq!(intervals.dump(at(9)), "");
        let dump = intervals.dump(at(10));
        let lines: Vec<&str> = dump.lines().collect();
        let time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d0 [+-]\d{4} (UTC|[+-]\d{4})";
        let updated = r"LastUpdated: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.5 \S+ \S+ m=\+\d+\.\d{9}";
        let forms = [
            format!(r"^\[{time}\]\[G\] 'g': 2\.500$"),
            format!(r"^\[{time}\]\[C\] 'c': Count: 3 Sum: 3\.000 {updated}$"),
            format!(
                r"^\[{time}\]\[S\] 's': Count: 2 Min: 1\.000 Mean: 2\.000 Max: 3\.000 Stddev: 1\.414 Sum: 4\.000 {updated}$"
            ),
        ];
        assert_eq!(lines.len(), forms.len(), "{dump}");
        for (line, form) in lines.iter().zip(forms) {
            assert!(regex::Regex::new(&form).unwrap().is_match(line), "{line}");
        }
    }

    #[test]
    fn a_minute_is_kept() {
        let mut intervals = Intervals::new(Instant::now());
        for number in 0..20 {
            intervals.record(
                at(number * 10),
                Kind::Counter,
                &format!("c{number}"),
                &Tally::ones(1),
            );
        }
        let dump = intervals.dump(at(200));
        let names: Vec<&str> = dump.lines().filter_map(|line| line.split('\'').nth(1)).collect();
        assert_eq!(names, ["c14", "c15", "c16", "c17", "c18", "c19"]);
    }

    #[test]
    fn names_are_bounded() {
        let mut intervals = Intervals::new(Instant::now());
        let one = Tally::ones(1);
        for number in 0..NAMES_MAX {
            assert!(intervals.record(at(0), Kind::Counter, &number.to_string(), &one));
        }
        assert!(!intervals.record(at(1), Kind::Counter, "one too many", &one));
        assert!(intervals.record(at(1), Kind::Counter, "7", &one));
        assert!(intervals.record(at(1), Kind::Gauge, "g", &one));
        assert!(intervals.record(at(10), Kind::Counter, "in the next interval", &one));
    }
}
