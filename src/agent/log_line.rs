//! Lines of the log, and who takes them besides the console.

use std::cell::RefCell;
use std::sync::Arc;

use chrono::{DateTime, Local, NaiveDateTime, Timelike};

use super::carrier::Carrier;
use crate::go::{self, printable};

/// The form of a line's time.
pub const TIME: &str = "%Y/%m/%d %H:%M:%S";

/// How many lines wait for a log of the system.
const RECORDS_MAX: usize = 4096;

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Err,
}

impl Level {
    /// Reads a level's name, in any case.
    pub fn parse(name: &str) -> Result<Level, String> {
        let upper = name.to_uppercase();
        let all = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Err];
        let valid = "Valid log levels are: [TRACE DEBUG INFO WARN ERR]";
        all.into_iter()
            .find(|level| level.as_str() == upper)
            .ok_or_else(|| format!("Invalid log level: {upper}. {valid}"))
    }

    /// The name, as lines show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Err => "ERR",
        }
    }
}

impl From<&tracing::Level> for Level {
    fn from(level: &tracing::Level) -> Level {
        match *level {
            tracing::Level::TRACE => Level::Trace,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::INFO => Level::Info,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::ERROR => Level::Err,
        }
    }
}

/// A line of the log, without indentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was said.
    pub at: DateTime<Local>,
    /// How important it is.
    pub level: Level,
    /// `2026/11/20 17:47:07 [INFO] serf: text`
    pub text: Arc<str>,
}

impl LogLine {
    /// A line that is said now. Names, tags and payloads stand in it, so nothing in it acts on a terminal.
    pub fn new(level: Level, target: &str, text: &str) -> LogLine {
        let at = Local::now();
        let text = printable::entry(text);
        // A text that brings its own end of line gets no second one.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = with_time(at, |time| {
            format!("{time} [{}] {target}: {text}", level.as_str()).into()
        });
        LogLine { at, level, text }
    }

    /// The text without time and level, which logs of the system have from elsewhere.
    pub fn message(&self) -> &str {
        self.text.split_once("] ").map_or(&*self.text, |(_, text)| text)
    }
}

/// Makes a line with the time in its form. There may be thousands of lines in a second, so the form is made once for
/// each second.
fn with_time<T>(at: DateTime<Local>, make: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static LAST: RefCell<Option<(NaiveDateTime, String)>> = const { RefCell::new(None) };
    }
    let second = at.naive_local().with_nanosecond(0);
    LAST.with_borrow_mut(|last| {
        let known = last.take().filter(|(of, _)| Some(*of) == second);
        let text = known.map_or_else(|| at.format(TIME).to_string(), |(_, text)| text);
        let made = make(&text);
        *last = second.map(|second| (second, text));
        made
    })
}

/// Takes lines besides the console.
pub type Sink = Carrier<LogLine>;

/// Gives lines to `deliver` on a thread of its own, without regard to the gate.
pub fn sink(deliver: impl FnMut(LogLine) + Send + 'static) -> Result<Sink, String> {
    Carrier::start("system-log", RECORDS_MAX, |_| 1, deliver).map_err(|error| go::os_error(&error))
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, TimeZone};

    use super::*;

    #[test]
    fn each_line_has_its_own_second() {
        let at = Local.timestamp_opt(1_795_000_000, 0).single().expect("a time");
        for millis in [0, 999, 1000, 1001, 61_000, 0] {
            let at = at + Duration::milliseconds(millis);
            let expected = at.format(TIME).to_string();
            assert_eq!(with_time(at, str::to_owned), expected, "after {millis} ms");
        }
    }
}
