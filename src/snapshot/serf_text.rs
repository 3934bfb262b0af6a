//! Serf's text snapshot, read and written (docs/protocol.md#b14-text-snapshot).
//!
//! It is an append-only list of lines: who came (`alive: NAME ADDR`) and went (`not-alive: NAME`), the last
//! times seen of the three clocks, and `leave`. Reading is total: what Serf would stumble over is left out
//! with a warning. Writing gives what Serf rejoins from, and drops the events that were handled before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::os_text;
use fyrd_core::addr::RawAddr;
use fyrd_core::bounds::{
    MAX_LTIME, MAX_MEMBERS, PEER_NAME_MAX, SERF_SNAPSHOT_LINE, SNAPSHOT_LINE_SHOWN, SNAPSHOT_WARNINGS,
};
use fyrd_core::node::memory::{Marks, MemberRecord, Memory};
use fyrd_core::serf::{MemberStatus, Tags, tags};
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;

/// Serf's protocol version in which tags are written.
const NEWEST_PROTOCOL: u8 = 5;

/// How a snapshot is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading<'a> {
    /// The name of the node whose snapshot it is; Serf lists it among the others, and it is left out.
    pub node: Option<&'a str>,
    /// Whether a graceful leave is overlooked. Else it forgets all that stands before it.
    pub rejoin_after_leave: bool,
    /// When it is read: the lines tell no times, only an order.
    pub now: Time,
}

/// What a text snapshot says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// What the node goes on from. Members are in the order in which they were heard of, newest first; of
    /// them only name and address are known, and `since` is `now`, less a nanosecond for each place.
    pub memory: Memory,
    /// Whether the node's last run ended with a graceful leave.
    pub left: bool,
    /// How many lines were of a known kind, comments aside. Without any it is hardly a snapshot.
    pub known_lines: usize,
    /// What was left out and why, in Serf's words.
    pub warnings: Warnings,
}

/// The first few of many warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// Their texts, at most [`SNAPSHOT_WARNINGS`].
    pub texts: Vec<String>,
    /// How many more there were.
    pub more: usize,
}

impl Warnings {
    fn add(&mut self, what: &str, line: &[u8]) {
        if self.texts.len() >= SNAPSHOT_WARNINGS {
            self.more += 1;
            return;
        }
        let shown = line.get(..SNAPSHOT_LINE_SHOWN).unwrap_or(line);
        let cut = if shown.len() < line.len() { "..." } else { "" };
        self.texts.push(format!(
            "{what}: {}{cut}",
            String::from_utf8_lossy(shown).escape_debug()
        ));
    }
}

/// Why a file is not read as a text snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The operating system refuses.
    #[error("{}", os_text(source))]
    Io {
        /// What was tried, as a verb: `open` or `read`.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// It has something in it, and not a single line of a known kind.
    #[error("it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf")]
    Foreign,
}

/// Reads the snapshot in a file, which can be empty. It is read line by line, so that its length does not matter.
///
/// # Errors
/// When the file cannot be read, or is no snapshot at all.
pub fn read(path: &Path, reading: Reading<'_>) -> Result<Imported, Unreadable> {
    let failed = |what| move |source| Unreadable::Io { what, source };
    let file = File::open(path).map_err(failed("open"))?;
    let (imported, says_something) = read_lines(BufReader::new(file), reading).map_err(failed("read"))?;
    if imported.known_lines == 0 && says_something {
        return Err(Unreadable::Foreign);
    }
    Ok(imported)
}

/// Reads a snapshot's text. Nothing in it is an error: lines that mean nothing are skipped with a warning, and a
/// last line without its end was being written when Serf was killed.
pub fn parse(text: &[u8], reading: Reading<'_>) -> Imported {
    // Reading from memory does not fail.
    read_lines(text, reading).map_or_else(|_| Imported::default(), |(imported, _)| imported)
}

/// Reads lines to the end; says whether there is anything but zeros, which a file system puts in the place of what
/// it has not written before a crash.
fn read_lines(mut text: impl BufRead, reading: Reading<'_>) -> io::Result<(Imported, bool)> {
    let mut reader = Reader::default();
    let mut line = Vec::new();
    let mut says_something = false;
    // Whether the line so far is nothing but zeros.
    let mut is_blank = false;
    loop {
        line.clear();
        let read = (&mut text)
            .take(SERF_SNAPSHOT_LINE as u64)
            .read_until(b'\n', &mut line)?;
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        let zeros = line.iter().take_while(|byte| **byte == 0).count();
        let rest = &line[zeros..];
        is_blank = rest.is_empty() && (is_blank || zeros > 0);
        says_something |= !rest.is_empty() || (is_whole && !is_blank);
        if is_whole {
            if !is_blank {
                reader.line(rest, reading);
            }
            is_blank = false;
        } else if read < SERF_SNAPSHOT_LINE {
            return Ok((reader.finish(reading), says_something));
        } else if !rest.is_empty() && skip_line(&mut text)? {
            reader.out.warnings.add("Unrecognized snapshot line", rest);
        }
    }
}

/// Skips the rest of a line; says whether it had an end.
fn skip_line(text: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let some = text.fill_buf()?;
        if some.is_empty() {
            return Ok(false);
        }
        let end = some.iter().position(|byte| *byte == b'\n');
        let skipped = end.map_or(some.len(), |end| end + 1);
        text.consume(skipped);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The state between two lines.
#[derive(Default)]
struct Reader {
    /// By name: the place of the line that said so last, and the address.
    alive: BTreeMap<Box<str>, (usize, SocketAddr)>,
    places: usize,
    clock: u64,
    event_clock: u64,
    query_clock: u64,
    out: Imported,
}

impl Reader {
    fn line(&mut self, line: &[u8], reading: Reading<'_>) {
        let warnings = &mut self.out.warnings;
        let mut time = |clock: &mut u64, digits: &[u8], what: &str| match ltime(digits) {
            Some(seen) if seen <= MAX_LTIME => *clock = seen,
            Some(_) => warnings.add("Lamport time too far ahead", line),
            None => warnings.add(&format!("Failed to convert {what} time"), line),
        };
        if let Some(rest) = line.strip_prefix(b"alive: ") {
            self.alive(line, rest);
        } else if let Some(name) = line.strip_prefix(b"not-alive: ") {
            // A name that is not text was not taken either.
            std::str::from_utf8(name).ok().map(|name| self.alive.remove(name));
        } else if let Some(digits) = line.strip_prefix(b"clock: ") {
            time(&mut self.clock, digits, "clock");
        } else if let Some(digits) = line.strip_prefix(b"event-clock: ") {
            time(&mut self.event_clock, digits, "event clock");
        } else if let Some(digits) = line.strip_prefix(b"query-clock: ") {
            time(&mut self.query_clock, digits, "query clock");
        } else if line == b"leave" {
            self.out.left = true;
            if !reading.rejoin_after_leave {
                self.alive.clear();
                (self.clock, self.event_clock, self.query_clock) = (0, 0, 0);
            }
        } else if line.starts_with(b"#") {
            return;
        } else if !line.starts_with(b"coordinate: ") {
            warnings.add("Unrecognized snapshot line", line);
            return;
        }
        self.out.known_lines += 1;
    }

    /// Takes `NAME ADDR`. Names may hold spaces, addresses do not.
    fn alive(&mut self, line: &[u8], rest: &[u8]) {
        // Whoever writes this has started again since its leave, its own line coming first.
        self.out.left = false;
        let pair = std::str::from_utf8(rest)
            .ok()
            .and_then(|rest| rest.rsplit_once(' '));
        let Some((name, Ok(addr))) = pair.map(|(name, addr)| (name, addr.parse::<SocketAddr>())) else {
            return self.out.warnings.add("Failed to parse address", line);
        };
        if name.is_empty() || name.len() > PEER_NAME_MAX || addr.port() == 0 {
            return self.out.warnings.add("Not a member that can be joined", line);
        }
        if self.alive.len() >= MAX_MEMBERS && !self.alive.contains_key(name) {
            return self.out.warnings.add("Too many members", line);
        }
        self.places += 1;
        self.alive.insert(name.into(), (self.places, addr));
    }

    fn finish(mut self, reading: Reading<'_>) -> Imported {
        if let Some(me) = reading.node {
            self.alive.remove(me);
        }
        let mut alive: Vec<_> = self.alive.into_iter().collect();
        alive.sort_unstable_by_key(|(_, (place, _))| std::cmp::Reverse(*place));
        let no_tags = tags::write(&Tags::new(), NEWEST_PROTOCOL).unwrap_or_default();
        let no_tags: Box<[u8]> = no_tags.into();
        let members = alive.into_iter().enumerate();
        self.out.memory.members = members
            .map(|(place, (name, (_, addr)))| MemberRecord {
                facts: Arc::new(Facts {
                    name: Arc::from(name),
                    addr: RawAddr::from(addr.ip()),
                    port: addr.port(),
                    meta: no_tags.clone(),
                    // As memberlist writes that a node did not say.
                    vsn: [0; 6],
                }),
                incarnation: 0,
                status: MemberStatus::Alive,
                status_ltime: 0,
                since: reading.now - Duration::from_nanos(place as u64),
            })
            .collect();
        self.out.memory.marks = Marks {
            incarnation: 0,
            member: self.clock + 1,
            event: self.event_clock + 1,
            query: self.query_clock + 1,
            event_floor: self.event_clock + 1,
            query_floor: self.query_clock + 1,
        };
        self.out
    }
}

/// A time as Serf writes it: digits and nothing else.
fn ltime(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// A memory in Serf's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The file's content.
    pub text: String,
    /// Names of members that Serf's form cannot hold.
    pub left_out: Vec<Arc<str>>,
}

/// Writes what Serf can know of a memory: who was there, in the order in which they were heard of, and the
/// clocks. A `leave` stands before the clocks, so that Serf forgets the members, as it does after a leave, but
/// does not handle old events again.
pub fn write(memory: &Memory, left: bool) -> Exported {
    let present =
        |member: &&MemberRecord| matches!(member.status, MemberStatus::Alive | MemberStatus::Leaving);
    let mut members: Vec<&MemberRecord> = memory.members.iter().filter(present).collect();
    members.sort_by(|a, b| (a.since, &a.facts.name).cmp(&(b.since, &b.facts.name)));
    let mut text = String::new();
    let mut left_out = Vec::new();
    for member in members {
        let name = &member.facts.name;
        if name.is_empty() || name.contains('\n') {
            left_out.push(Arc::clone(name));
        } else {
            text.push_str(&format!("alive: {name} {}\n", member.facts.socket()));
        }
    }
    if left {
        text.push_str("leave\n");
    }
    let marks = &memory.marks;
    let events = memory.events.iter().map(|event| event.ltime).max();
    let queries = memory.queries.iter().map(|(ltime, _)| *ltime).max();
    for (clock, seen) in [
        ("clock", marks.member.saturating_sub(1)),
        ("event-clock", last_seen(events, marks.event, marks.event_floor)),
        ("query-clock", last_seen(queries, marks.query, marks.query_floor)),
    ] {
        text.push_str(&format!("{clock}: {seen}\n"));
    }
    Exported { text, left_out }
}

/// The time up to which Serf shall drop what comes: that of the last event or query handled. The clock can be
/// ahead of it, after a push/pull whose events have not come, and those in between were missed.
fn last_seen(seen: Option<u64>, clock: u64, floor: u64) -> u64 {
    let below = |time: u64| time.saturating_sub(1);
    seen.unwrap_or(below(clock)).max(below(floor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use fyrd_core::node::memory::SeenEvent;

    /// Copied from a file that the real agent wrote: two members, two events, a query, then its leave.
    const BY_SERF: &str = "alive: b 127.0.0.9:17913\nalive: a b 127.0.0.9:17911\nclock: 1\nevent-clock: 1\n\
                           event-clock: 2\nquery-clock: 1\nleave\nclock: 2\n";

    const NOW: Time = Time::from_nanos(1_000_000);

    fn parsed(text: &str, rejoin_after_leave: bool) -> Imported {
        let reading = Reading {
            node: Some("me"),
            rejoin_after_leave,
            now: NOW,
        };
        parse(text.as_bytes(), reading)
    }

    fn members(imported: &Imported) -> Vec<String> {
        let members = imported.memory.members.iter();
        members
            .map(|member| format!("{}@{}", member.facts.name, member.facts.socket()))
            .collect()
    }

    fn clocks(imported: &Imported) -> [u64; 5] {
        let marks = imported.memory.marks;
        assert_eq!(marks.incarnation, 0);
        [
            marks.member,
            marks.event,
            marks.query,
            marks.event_floor,
            marks.query_floor,
        ]
    }

    #[test]
    fn a_file_is_read_only_if_it_can_be_a_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let refusal = || match read(&path, Reading::default()) {
            Err(Unreadable::Io { what, source }) => format!("{what}: {}", os_text(&source)),
            Err(error) => error.to_string(),
            Ok(imported) => panic!("{imported:?}"),
        };
        assert_eq!(refusal(), "open: no such file or directory");
        for text in ["", "# a comment\nalive: b 10.0.0.2:7946\n", BY_SERF] {
            std::fs::write(&path, text).unwrap();
            let imported = read(&path, Reading::default()).unwrap();
            assert_eq!(imported, parse(text.as_bytes(), Reading::default()), "{text:?}");
        }
        for text in ["#!/bin/sh\n", "\n", "clock: 5"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                refusal(),
                "it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf",
                "{text:?}"
            );
        }
    }

    /// Zeros are what a file system has in the place of what it has not written before a crash.
    #[test]
    fn zeros_and_overlong_lines_are_stepped_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let long = "x".repeat(3 * SERF_SNAPSHOT_LINE);
        let zeros = "\0".repeat(3 * SERF_SNAPSHOT_LINE);
        for (text, known, warnings) in [
            (zeros.clone(), 0, 0),
            (format!("{zeros}\n"), 0, 0),
            (format!("\0\0{BY_SERF}"), 8, 0),
            (format!("{zeros}\n{BY_SERF}"), 8, 0),
            (format!("{BY_SERF}{zeros}"), 8, 0),
            (format!("{long}\n{BY_SERF}"), 8, 1),
            (format!("{BY_SERF}{long}"), 8, 0),
            (format!("{BY_SERF}{}\n", &long[..SERF_SNAPSHOT_LINE]), 8, 1),
            (format!("{BY_SERF}{}\n", &long[..SERF_SNAPSHOT_LINE - 1]), 8, 1),
        ] {
            std::fs::write(&path, &text).unwrap();
            let imported = read(&path, Reading::default()).unwrap();
            let shown = (imported.known_lines, imported.warnings.texts.len());
            assert_eq!(shown, (known, warnings), "{} bytes", text.len());
        }
    }

    #[test]
    fn a_leave_forgets_all_before_it_unless_it_is_overlooked() {
        let left = parsed(BY_SERF, false);
        assert!(left.left && left.memory.members.is_empty());
        assert_eq!(clocks(&left), [3, 1, 1, 1, 1]);
        let back = parsed(BY_SERF, true);
        assert!(back.left);
        assert_eq!(members(&back), ["a b@127.0.0.9:17911", "b@127.0.0.9:17913"]);
        assert_eq!(clocks(&back), [3, 3, 2, 3, 2]);
        for imported in [left, back] {
            assert_eq!((imported.known_lines, imported.warnings.texts.len()), (8, 0));
        }
        // What follows the leave counts, and whoever has come back has not left.
        let again = format!("{BY_SERF}alive: me 10.0.0.9:1\nalive: c 10.0.0.1:1\nevent-clock: 9\n");
        let again = parsed(&again, false);
        assert!(!again.left);
        assert_eq!(members(&again), ["c@10.0.0.1:1"]);
        assert_eq!(clocks(&again), [3, 10, 1, 10, 1]);
    }

    #[test]
    fn members_come_in_the_order_of_their_last_news() {
        let text = "alive: a 10.0.0.1:1\nalive: b [fd00::1]:2\nalive: c 10.0.0.3:3\nalive: me 10.0.0.4:4\n\
                    not-alive: b\nalive: a 10.0.0.9:9\nnot-alive: nobody\nalive: d x 10.0.0.5:5\n\
                    alive: b [fd00::2]:2\n";
        let imported = parsed(text, false);
        let expected = ["b@[fd00::2]:2", "d x@10.0.0.5:5", "a@10.0.0.9:9", "c@10.0.0.3:3"];
        assert_eq!(members(&imported), expected);
        let since: Vec<Time> = imported
            .memory
            .members
            .iter()
            .map(|member| member.since)
            .collect();
        assert!(since.is_sorted_by(|a, b| a > b) && since[0] == NOW, "{since:?}");
        assert_eq!(clocks(&imported), [1; 5]);
    }

    #[test]
    fn only_complete_lines_count() {
        for (text, clock) in [
            ("clock: 7\nclock: 12345", 8),
            ("clock: 7", 1),
            ("", 1),
            ("clock: 7\n", 8),
        ] {
            let imported = parsed(text, false);
            assert_eq!(clocks(&imported)[0], clock, "{text:?}");
            assert_eq!(imported.warnings, Warnings::default(), "{text:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_skipped_with_a_warning() {
        let long = "x".repeat(SNAPSHOT_LINE_SHOWN + 1);
        let name = "n".repeat(PEER_NAME_MAX + 1);
        let beyond = format!("event-clock: {}", MAX_LTIME + 1);
        #[rustfmt::skip]
        let table: [(&[u8], &str); 19] = [
            (b"", "Unrecognized snapshot line: "),
            (b"junk", "Unrecognized snapshot line: junk"),
            (b"leave ", "Unrecognized snapshot line: leave "),
            (b"alive:", "Unrecognized snapshot line: alive:"),
            (b"Clock: 5", "Unrecognized snapshot line: Clock: 5"),
            (b"\xff\x1b[2J", "Unrecognized snapshot line: \u{fffd}\\u{1b}[2J"),
            (long.as_bytes(), &format!("Unrecognized snapshot line: {}...", &long[1..])),
            (b"alive: x", "Failed to parse address: alive: x"),
            (b"alive: x y", "Failed to parse address: alive: x y"),
            (b"alive: x 1.2.3.4", "Failed to parse address: alive: x 1.2.3.4"),
            (b"alive: x 1.2.3.4:5\r", "Failed to parse address: alive: x 1.2.3.4:5\\r"),
            (b"alive: \xff 1.2.3.4:5", "Failed to parse address: alive: \u{fffd} 1.2.3.4:5"),
            (b"alive: x 1.2.3.4:0", "Not a member that can be joined: alive: x 1.2.3.4:0"),
            (b"alive:  1.2.3.4:5", "Not a member that can be joined: alive:  1.2.3.4:5"),
            (b"clock: x", "Failed to convert clock time: clock: x"),
            (b"clock: +5", "Failed to convert clock time: clock: +5"),
            (b"event-clock: -1", "Failed to convert event clock time: event-clock: -1"),
            (b"query-clock: 18446744073709551616", "Failed to convert query clock time: query-clock: 18446744073709551616"),
            (beyond.as_bytes(), &format!("Lamport time too far ahead: {beyond}")),
        ];
        for (line, warning) in table {
            let text = [b"alive: ok 1.2.3.4:5\nclock: 3\n", line, b"\n"].concat();
            let imported = parse(&text, Reading::default());
            assert_eq!(imported.warnings.texts, [warning], "{line:?}");
            assert_eq!(members(&imported), ["ok@1.2.3.4:5"], "{line:?}");
            assert_eq!(clocks(&imported), [4, 1, 1, 1, 1], "{line:?}");
        }
        let imported = parsed(&format!("alive: {name} 1.2.3.4:5\n"), false);
        assert!(imported.memory.members.is_empty() && imported.warnings.texts.len() == 1);
        for quiet in ["# junk\n", "coordinate: junk\n", "not-alive: x\n"] {
            assert_eq!(parsed(quiet, false).warnings, Warnings::default(), "{quiet}");
        }
        assert_eq!(parsed("# junk\nx\n", false).known_lines, 0);
        // The highest time that is believed.
        let highest = parsed(&format!("event-clock: {MAX_LTIME}\n"), false);
        assert_eq!(clocks(&highest)[1], MAX_LTIME + 1);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut text = String::new();
        for i in 0..MAX_MEMBERS + SNAPSHOT_WARNINGS + 5 {
            text.push_str(&format!("alive: n{i} 1.2.3.4:5\n"));
        }
        // A member that is known may still move.
        text.push_str("alive: n0 9.9.9.9:9\n");
        let imported = parsed(&text, false);
        assert_eq!(imported.memory.members.len(), MAX_MEMBERS);
        assert_eq!(members(&imported)[0], "n0@9.9.9.9:9");
        assert_eq!(imported.warnings.texts.len(), SNAPSHOT_WARNINGS);
        assert_eq!(imported.warnings.more, 5);
    }

    fn record(name: &str, status: MemberStatus, since: u64) -> MemberRecord {
        MemberRecord {
            facts: Arc::new(Facts {
                name: name.into(),
                addr: RawAddr::mapped("10.0.0.1".parse().unwrap()),
                port: 7946,
                meta: b"\xff\x80".to_vec().into(),
                vsn: [1, 5, 2, 2, 5, 5],
            }),
            incarnation: 7,
            status,
            status_ltime: 9,
            since: Time::from_nanos(since),
        }
    }

    #[test]
    fn writes_what_serf_reads() {
        let memory = Memory {
            marks: Marks {
                incarnation: 3,
                member: 12,
                event: 5,
                query: 0,
                event_floor: 8,
                query_floor: 0,
            },
            members: vec![
                record("new", MemberStatus::Alive, 30),
                record("two words", MemberStatus::Leaving, 20),
                record("gone", MemberStatus::Left, 5),
                record("lost", MemberStatus::Failed, 6),
                record("two\nlines", MemberStatus::Alive, 1),
                record("old", MemberStatus::Alive, 10),
            ],
            ..Memory::default()
        };
        let here = "alive: old 10.0.0.1:7946\nalive: two words 10.0.0.1:7946\nalive: new 10.0.0.1:7946\n";
        let clocks = "clock: 11\nevent-clock: 7\nquery-clock: 0\n";
        let exported = write(&memory, false);
        assert_eq!(exported.text, format!("{here}{clocks}"));
        assert_eq!(exported.left_out, ["two\nlines".into()]);
        assert_eq!(write(&memory, true).text, format!("{here}leave\n{clocks}"));
        let seen = |ltime| SeenEvent {
            ltime,
            place: 0,
            name: "e".into(),
            payload: Box::default(),
        };
        let marks = Marks {
            event: 70,
            query: 70,
            ..Marks::default()
        };
        let reserved = Memory {
            marks,
            events: vec![seen(5), seen(6), seen(4)],
            queries: vec![(3, 9)],
            ..Memory::default()
        };
        assert_eq!(
            write(&reserved, false).text,
            "clock: 0\nevent-clock: 6\nquery-clock: 3\n"
        );
        let none = write(&Memory::default(), false);
        assert_eq!(none.text, "clock: 0\nevent-clock: 0\nquery-clock: 0\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>, rejoin: bool) {
            let reading = Reading { rejoin_after_leave: rejoin, ..Reading::default() };
            let imported = parse(&text, reading);
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(imported.known_lines + imported.warnings.texts.len() <= 2 * lines);
        }

        #[test]
        fn what_is_written_is_read(
            names in proptest::collection::btree_set("[^\n]{1,30}", 0..20),
            times in proptest::array::uniform3(1..=MAX_LTIME),
            left: bool,
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let members = names.iter().enumerate();
            let memory = Memory {
                marks: Marks { incarnation: 0, member: times[0], event: times[1], query: times[2],
                    event_floor: times[1], query_floor: times[2] },
                members: members.map(|(i, name)| record(name, MemberStatus::Alive, i as u64)).collect(),
                ..Memory::default()
            };
            let exported = write(&memory, left);
            let reading = Reading { rejoin_after_leave: true, ..Reading::default() };
            let imported = parse(exported.text.as_bytes(), reading);
            prop_assert_eq!(&imported.warnings, &Warnings::default());
            prop_assert_eq!(imported.memory.marks, memory.marks);
            prop_assert_eq!(imported.left, left);
            let read: Vec<&str> = imported.memory.members.iter().rev().map(|m| &*m.facts.name).collect();
            prop_assert_eq!(read, names);
        }
    }
}
