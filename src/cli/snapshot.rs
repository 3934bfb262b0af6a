//! `snapshot`: shows what an agent would go on from after a restart, and writes it for Serf's own agent.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Command;
use serde::Serialize;

use super::flags::Flags;
use super::info::Format;
use super::{Failure, Terminal, WrongWord, flags, table};
use crate::go;
use crate::go::printable::word;
use crate::snapshot::serf_text::{self, Reading, Warnings};
use fyrd_core::node::memory::{MemberRecord, Memory};
use fyrd_core::serf::{Tags, tags};
use fyrd_core::time::Time;
use fyrd_keys::replace::{Access, replace};

pub(super) fn define() -> Command {
    Command::new("snapshot")
        .about("Shows an agent's snapshot, or writes it for Serf")
        .long_about(
            "Reads the snapshot that an agent keeps with -snapshot. The agent must not be running.\n\n\
             With 'inspect', shows what an agent would go on from: clocks, members and the events and queries \
             that would not be handled again. This reads a text snapshot of Serf as well.\n\n\
             With 'export', writes a text snapshot with which Serf's own agent rejoins, and leaves alone the \
             events that were handled before. Tags and failed or left members have no place in it.",
        )
        .override_usage("snapshot inspect [options] path\n       snapshot export [options] path")
        .args([
            flags::boolean("force", "With 'export': replace the output file if it exists."),
            flags::string(
                "format",
                "text",
                "With 'inspect': how to print it, 'text' or 'json'. With 'export': for whom to write it, \
                 'serf', which is the default.",
            ),
            flags::string(
                "output",
                "<file>",
                "With 'export': write to this file, which must not exist yet, instead of the terminal.",
            ),
        ])
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let (flags, words) = flags::parse_between(define, words)?;
    let mut words = words.iter();
    let verb = words.next();
    let run = match verb.and_then(|word| word.to_str()) {
        Some("inspect") => inspect,
        Some("export") => export,
        _ => return Err(WrongWord::of(verb, &["inspect", "export"])),
    };
    let path = words.next().filter(|path| !path.is_empty()).map(Path::new);
    let path = path.ok_or(Failure::Usage(Some("The path of a snapshot must be specified.")))?;
    if words.next().is_some() {
        return Err(Failure::Usage(Some("Too many command line arguments.")));
    }
    run(terminal, &flags, path)
}

fn inspect(terminal: &mut Terminal<'_>, flags: &Flags, path: &Path) -> Result<(), Failure> {
    if flags.string("output").is_some() || flags.is_set("force") {
        return Err(Failure::Usage(Some("-output and -force are for 'export'.")));
    }
    let format = Format::of(flags)?;
    let snapshot = Snapshot::read(path)?;
    format.print(terminal, &json(&snapshot), || text(&snapshot))?;
    for warning in &snapshot.warnings {
        terminal.help(&format!("Warning: {}\n", word(warning)));
    }
    Ok(())
}

fn export(terminal: &mut Terminal<'_>, flags: &Flags, path: &Path) -> Result<(), Failure> {
    match flags.string("format") {
        None | Some("serf") => {}
        Some(other) => {
            return Err(Failure::Error(format!(
                "Error: Unknown format {} of an export; there is 'serf'",
                go::quote(other)
            )));
        }
    }
    let output = flags.string("output").map(PathBuf::from);
    if output
        .as_ref()
        .is_some_and(|output| output.as_os_str().is_empty())
    {
        return Err(Failure::Usage(Some("-output needs the name of a file.")));
    }
    if output.is_none() && flags.is_set("force") {
        return Err(Failure::Usage(Some("-force needs -output.")));
    }
    let snapshot = Snapshot::read(path)?;
    if snapshot.kind == Kind::Serf {
        return Err(failed(path, "it is a text snapshot of Serf already"));
    }
    let exported = serf_text::write(&snapshot.memory, snapshot.left);
    for name in &exported.left_out {
        let name = go::quote(name);
        terminal.help(&format!(
            "Warning: Serf's form has no place for the member {name}\n"
        ));
    }
    match output {
        None => terminal.line(exported.text.trim_end()),
        Some(output) => {
            write(&output, &exported.text, flags.is_set("force")).map_err(Failure::Error)?;
            terminal.line(format!("Snapshot written to {}", output.display()));
        }
    }
    Ok(())
}

/// Whose a snapshot is, as far as it says, and the members in it.
#[cfg(feature = "templates")]
pub(super) fn members(path: &Path) -> Result<(Option<String>, Vec<MemberRecord>), Failure> {
    let snapshot = Snapshot::read(path)?;
    Ok((snapshot.node, snapshot.memory.members))
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, text: &str, force: bool) -> Result<(), String> {
    let shown = path.display();
    if !force && path.symlink_metadata().is_ok() {
        return Err(format!("Error: '{shown}' exists; use -force to replace it"));
    }
    replace(path, Access::Usual, |file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("Error writing '{shown}': {}", go::os_error(&error.source)))
}

/// Whose form a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Fyrd,
    Serf,
}

/// A snapshot of either kind.
#[derive(Debug)]
struct Snapshot {
    kind: Kind,
    /// Whose it is, as far as it says.
    node: Option<String>,
    /// Whether the node left gracefully.
    left: bool,
    memory: Memory,
    warnings: Vec<String>,
    store: Option<Store>,
}

/// What a store of ours tells of itself.
#[derive(Debug, Serialize)]
struct Store {
    /// Made at the node's first start.
    identity: String,
    schema: u32,
    /// On the disk.
    bytes: u64,
    /// When last, in UTC.
    written: Option<String>,
}

impl Snapshot {
    /// A store is a folder, Serf's snapshot a file.
    fn read(path: &Path) -> Result<Snapshot, Failure> {
        let found = fs::metadata(path).map_err(|error| failed(path, &go::os_error(&error)))?;
        if found.is_dir() {
            Snapshot::read_store(path)
        } else {
            Snapshot::read_text(path)
        }
    }

    fn read_store(path: &Path) -> Result<Snapshot, Failure> {
        let contents = crate::snapshot::read(path).map_err(|error| failed(path, &error.to_string()))?;
        Ok(Snapshot {
            kind: Kind::Fyrd,
            node: Some(contents.node),
            left: contents.left,
            memory: contents.memory,
            warnings: {
                let mut warnings = contents.warnings;
                if contents.unreadable > 0 {
                    warnings.push(format!("{} entries could not be read", contents.unreadable));
                }
                warnings
            },
            store: Some(Store {
                identity: format!("{:032x}", contents.identity),
                schema: contents.schema,
                bytes: contents.bytes,
                written: contents.written.map(|at| utc(at.into())),
            }),
        })
    }

    fn read_text(path: &Path) -> Result<Snapshot, Failure> {
        // Shown is what stands there; what of it counts depends on how an agent is started.
        let reading = Reading {
            rejoin_after_leave: true,
            ..Reading::default()
        };
        let imported = serf_text::read(path, reading).map_err(|error| failed(path, &error.to_string()))?;
        Ok(Snapshot {
            kind: Kind::Serf,
            node: None,
            left: imported.left,
            memory: imported.memory,
            warnings: all(imported.warnings),
            store: None,
        })
    }
}

fn all(warnings: Warnings) -> Vec<String> {
    let more = (warnings.more > 0).then(|| format!("{} more lines were left out", warnings.more));
    warnings.texts.into_iter().chain(more).collect()
}

fn failed(path: &Path, problem: &str) -> Failure {
    Failure::Error(format!("Error reading snapshot '{}': {problem}", path.display()))
}

fn text(snapshot: &Snapshot) -> String {
    let Memory {
        marks,
        members,
        events,
        queries,
    } = &snapshot.memory;
    let kind = match snapshot.kind {
        Kind::Fyrd => "fyrd",
        Kind::Serf => "serf",
    };
    let mut text = format!("snapshot:\n\tkind = {kind}\n\tleft = {}\n", snapshot.left);
    if let Some(node) = &snapshot.node {
        text.push_str(&format!("\tnode = {}\n", word(node)));
    }
    if let Some(store) = &snapshot.store {
        text.push_str(&format!(
            "\tbytes = {}\n\tidentity = {}\n\tschema = {}\n",
            store.bytes, store.identity, store.schema
        ));
        let written = store.written.as_ref().map(|at| format!("\twritten = {at}\n"));
        text.push_str(&written.unwrap_or_default());
    }
    text.push_str(&format!(
        "clocks:\n\tevent_floor = {}\n\tevent_time = {}\n\tincarnation = {}\n\tmember_time = {}\n\t\
         query_floor = {}\n\tquery_time = {}\n",
        marks.event_floor, marks.event, marks.incarnation, marks.member, marks.query_floor, marks.query
    ));
    text.push_str(&seen("events", events.iter().map(|event| event.ltime)));
    text.push_str(&seen("queries", queries.iter().map(|(ltime, _)| *ltime)));
    text.push_str(&format!("members:\n\tcount = {}", members.len()));
    let mut rows: Vec<String> = members.iter().map(row).collect();
    rows.sort();
    for line in table::columns(&rows).lines() {
        text.push_str(&format!("\n\t{line}"));
    }
    text
}

fn seen(what: &str, ltimes: impl Iterator<Item = u64> + Clone) -> String {
    let mut text = format!("{what}:\n\tcount = {}\n", ltimes.clone().count());
    if let (Some(first), Some(last)) = (ltimes.clone().min(), ltimes.max()) {
        text.push_str(&format!("\tfirst_time = {first}\n\tlast_time = {last}\n"));
    }
    text
}

fn row(member: &MemberRecord) -> String {
    let facts = &member.facts;
    let tags: Vec<String> = tags::read(&facts.meta)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let since = when(member.since).map(|since| format!("since {since}"));
    format!(
        "{}|{}|{}|{}|{}",
        word(&facts.name),
        facts.socket(),
        member.status.as_str(),
        since.unwrap_or_default(),
        word(&tags.join(","))
    )
}

/// The time of day, if one is known.
fn when(time: Time) -> Option<String> {
    let nanos = i64::try_from(time.as_nanos())
        .ok()
        .filter(|_| time.since(Time::ZERO) > A_DAY)?;
    Some(utc(DateTime::from_timestamp_nanos(nanos)))
}

fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Times on the first day of the epoch are no times of day.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Json<'a> {
    kind: Kind,
    /// A text snapshot does not say.
    node: Option<&'a str>,
    left: bool,
    /// A text snapshot is none.
    store: Option<&'a Store>,
    clocks: JsonClocks,
    members: Vec<JsonMember<'a>>,
    events: Vec<JsonEvent<'a>>,
    queries: Vec<JsonQuery>,
}

#[derive(Serialize)]
struct JsonClocks {
    incarnation: u32,
    member_time: u64,
    event_time: u64,
    query_time: u64,
    event_floor: u64,
    query_floor: u64,
}

#[derive(Serialize)]
struct JsonMember<'a> {
    name: &'a str,
    addr: String,
    status: &'static str,
    status_time: u64,
    incarnation: u32,
    since: Option<String>,
    tags: Tags,
}

#[derive(Serialize)]
struct JsonEvent<'a> {
    ltime: u64,
    name: &'a str,
    payload_bytes: usize,
}

#[derive(Serialize)]
struct JsonQuery {
    ltime: u64,
    id: u32,
}

fn json(snapshot: &Snapshot) -> Json<'_> {
    let memory = &snapshot.memory;
    let marks = &memory.marks;
    let mut members: Vec<&MemberRecord> = memory.members.iter().collect();
    members.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
    let mut events: Vec<_> = memory.events.iter().collect();
    events.sort_by_key(|event| (event.ltime, event.place));
    let mut queries = memory.queries.clone();
    queries.sort();
    Json {
        kind: snapshot.kind,
        node: snapshot.node.as_deref(),
        left: snapshot.left,
        store: snapshot.store.as_ref(),
        clocks: JsonClocks {
            incarnation: marks.incarnation,
            member_time: marks.member,
            event_time: marks.event,
            query_time: marks.query,
            event_floor: marks.event_floor,
            query_floor: marks.query_floor,
        },
        members: members.into_iter().map(member_json).collect(),
        events: events
            .into_iter()
            .map(|event| JsonEvent {
                ltime: event.ltime,
                name: &event.name,
                payload_bytes: event.payload.len(),
            })
            .collect(),
        queries: queries
            .into_iter()
            .map(|(ltime, id)| JsonQuery { ltime, id })
            .collect(),
    }
}

fn member_json(member: &MemberRecord) -> JsonMember<'_> {
    let facts = &member.facts;
    JsonMember {
        name: &facts.name,
        addr: facts.socket().to_string(),
        status: member.status.as_str(),
        status_time: member.status_ltime,
        incarnation: member.incarnation,
        since: when(member.since),
        tags: tags::read(&facts.meta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(words: &[&str]) -> (Result<(), Failure>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let result = run(&mut Terminal::new("fyrd".into(), &mut out, &mut err), &words);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (result, text(out), text(err))
    }

    #[test]
    fn wrong_words_and_flags_give_the_usage() {
        let usage = |problem| Err(Failure::Usage(problem));
        #[rustfmt::skip]
        let table: [(&[&str], _); 9] = [
            (&[], usage(None)),
            (&["show", "x"], Err(WrongWord::of(Some(&"show".into()), &["inspect", "export"]))),
            (&["inspect"], usage(Some("The path of a snapshot must be specified."))),
            (&["export", ""], usage(Some("The path of a snapshot must be specified."))),
            (&["inspect", "x", "y"], usage(Some("Too many command line arguments."))),
            (&["inspect", "-output=y", "x"], usage(Some("-output and -force are for 'export'."))),
            (&["inspect", "x", "-force"], usage(Some("-output and -force are for 'export'."))),
            (&["export", "-force", "x"], usage(Some("-force needs -output."))),
            (&["export", "-output=", "x"], usage(Some("-output needs the name of a file."))),
        ];
        for (words, expected) in table {
            assert_eq!(
                snapshot(words),
                (expected, String::new(), String::new()),
                "{words:?}"
            );
        }
        let error = |text: &str| Err(Failure::Error(text.to_owned()));
        let format = "Encoding error: Invalid output format \"xml\"";
        assert_eq!(snapshot(&["inspect", "x", "-format=xml"]).0, error(format));
        let format = "Error: Unknown format \"json\" of an export; there is 'serf'";
        assert_eq!(snapshot(&["export", "-format=json", "x"]).0, error(format));
        assert!(matches!(
            snapshot(&["inspect", "-nosuch", "x"]).0,
            Err(Failure::Flags(_))
        ));
    }

    #[test]
    fn a_text_snapshot_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with blank");
        let name = path.to_str().unwrap();
        fs::write(
            &path,
            "alive: b 10.0.0.2:7946\nalive: a\x1bx [::1]:1\nclock: 4\nevent-clock: 2\nleave\njunk\n",
        )
        .unwrap();
        let expected = "snapshot:\n\tkind = serf\n\tleft = true\nclocks:\n\tevent_floor = 3\n\tevent_time = 3\n\t\
            incarnation = 0\n\tmember_time = 5\n\tquery_floor = 1\n\tquery_time = 1\nevents:\n\tcount = 0\n\
            queries:\n\tcount = 0\nmembers:\n\tcount = 2\n\t\
            a\\x1bx  [::1]:1        alive    \n\tb       10.0.0.2:7946  alive\n";
        let warning = "Warning: Unrecognized snapshot line: junk\n";
        let (result, out, err) = snapshot(&["inspect", name]);
        assert_eq!((result, err.as_str()), (Ok(()), warning));
        assert_eq!(out, expected);
        let (result, out, _) = snapshot(&["inspect", name, "-format=json"]);
        assert_eq!(result, Ok(()));
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["kind"], "serf");
        assert_eq!(json["clocks"]["member_time"], 5);
        assert_eq!(json["members"][1]["addr"], "10.0.0.2:7946");
        assert_eq!(json["store"], serde_json::Value::Null);
        let (result, ..) = snapshot(&["export", name]);
        let problem = format!("Error reading snapshot '{name}': it is a text snapshot of Serf already");
        assert_eq!(result, Err(Failure::Error(problem)));
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let name = path.to_str().unwrap();
        let check = |problem: &str| {
            for verb in ["inspect", "export"] {
                let expected = format!("Error reading snapshot '{name}': {problem}");
                assert_eq!(snapshot(&[verb, name]).0, Err(Failure::Error(expected)));
            }
        };
        check("no such file or directory");
        fs::write(&path, "#!/bin/sh\necho alive: a 10.0.0.1:1\n").unwrap();
        check("it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf");
    }

    #[test]
    fn an_output_file_is_replaced_only_by_force_and_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write(&path, "one\n", false).unwrap();
        let refused = write(&path, "two\n", false).unwrap_err();
        assert_eq!(
            refused,
            format!("Error: '{}' exists; use -force to replace it", path.display())
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        write(&path, "two\n", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        // A failure leaves nothing behind.
        let directory = folder.path().join("directory");
        fs::create_dir(&directory).unwrap();
        assert!(
            write(&directory, "three\n", true)
                .unwrap_err()
                .starts_with("Error writing '")
        );
        let nowhere = folder.path().join("none/out");
        let expected = format!("Error writing '{}': no such file or directory", nowhere.display());
        assert_eq!(write(&nowhere, "x", false), Err(expected));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn times_are_shown_from_the_second_day_on() {
        assert_eq!(when(Time::from_nanos(5)), None);
        let time = Time::ZERO + Duration::from_secs(1_700_000_000);
        assert_eq!(when(time).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(when(Time::from_nanos(u64::MAX)), None);
    }
}
