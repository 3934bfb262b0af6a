//! SIGHUP: what takes effect at once, what does not, and what a mistake changes: nothing.
#![cfg(unix)]

mod agents;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use agents::{Agent, FYRD, SERF, lines, poll};

/// An agent that reads its settings from the folder `conf`.
fn start(program: &str, directory: &Path, settings: &str) -> Agent {
    fs::create_dir_all(directory.join("conf")).unwrap();
    configure(directory, settings);
    Agent::start(program, "n1", directory, &["-config-dir=conf", "-tag=flag=1"])
}

fn configure(directory: &Path, settings: &str) {
    fs::write(directory.join("conf/10.json"), settings).unwrap();
}

fn tags(agent: &Agent) -> String {
    let info = agent.run(&["info", "-format=json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let tags = info["tags"].as_object().unwrap().iter();
    let tags: Vec<String> = tags
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
        .collect();
    tags.join(" ")
}

const RELOADED: &str = "Configuration reloaded";
const REFUSED: &str = "==> Failed to reload configs";

#[test]
fn handlers_change_under_load_and_no_event_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let settings = |generation: usize| {
        format!(
            r#"{{"event_handlers":["user=echo $(cat) {generation} >> changing","user=cat >> constant"]}}"#
        )
    };
    let agent = start(FYRD, path, &settings(0));
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent: Vec<String> = Vec::new();
            while !done.load(Ordering::Relaxed) {
                sent.push(sent.len().to_string());
                agent.run(&["event", "-coalesce=false", "e", &sent[sent.len() - 1]]);
            }
            sent
        });
        for generation in 1..=5 {
            let before = lines(&path.join("changing")).len();
            poll("events flow", || lines(&path.join("changing")).len() > before);
            configure(path, &settings(generation));
            agent.reload(RELOADED);
            // From here on the new handler has all events.
            let fence = format!("fence{generation}");
            agent.run(&["event", "-coalesce=false", "e", &fence]);
            let expected = format!("{fence} {generation}");
            poll("the new handler runs", || {
                lines(&path.join("changing")).contains(&expected)
            });
        }
        done.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    let without_fences = |lines: Vec<String>| -> Vec<String> {
        lines
            .into_iter()
            .filter(|line| !line.starts_with("fence"))
            .collect()
    };
    let constant = || without_fences(lines(&path.join("constant")));
    poll("all events are handled", || constant().len() == sent.len());
    assert_eq!(
        constant(),
        sent,
        "a handler that stays sees each event once, in order"
    );
    poll("all events are handled", || {
        without_fences(lines(&path.join("changing"))).len() == sent.len()
    });
    let mut by: Vec<(usize, usize)> = without_fences(lines(&path.join("changing")))
        .iter()
        .map(|line| {
            let (number, generation) = line.split_once(' ').unwrap();
            (number.parse().unwrap(), generation.parse().unwrap())
        })
        .collect();
    by.sort_unstable();
    let numbers: Vec<String> = by.iter().map(|(number, _)| number.to_string()).collect();
    assert_eq!(numbers, sent, "each event has one handler");
    assert!(by.is_sorted_by_key(|(_, generation)| *generation), "{by:?}");
}

#[test]
fn a_mistake_changes_nothing_and_is_named() {
    let good = r#"{"tags":{"a":"1"},"event_handlers":["user=cat >> old"]}"#;
    let other = r#"{"tags":{"a":"2"},"log_level":"err","leave_on_terminate":true,"event_handlers":["user=cat >> new"]}"#;
    let large = format!(r#"{{"tags":{{"b":"{}"}}}}"#, "x".repeat(600));
    #[rustfmt::skip]
    let table = [
        ("{", "==> Error decoding 'conf/20.json': unexpected EOF\n"),
        (r#"{"foo":1}"#, "==> Error decoding 'conf/20.json': 1 error(s) decoding:\n\n* '' has invalid keys: foo\n"),
        (r#"{"event_handlers":["foo=bar"]}"#, "==> Invalid event script: Event 'foo' invoking 'bar'\n"),
        (r#"{"interface":"nosuch"}"#, "==> Invalid network interface: route ip+net: no such network interface\n"),
        (large.as_str(), "==> Failed to update tags: Encoded length of tags exceeds limit of 512 bytes\n"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let agent = start(FYRD, path, good);
    for (number, (bad, line)) in table.into_iter().enumerate() {
        configure(path, other);
        fs::write(path.join("conf/20.json"), bad).unwrap();
        agent.reload(REFUSED);
        let expected =
            format!("==> Caught signal: hangup\n==> Reloading configuration...\n{line}{REFUSED}\n");
        assert!(agent.said().ends_with(&expected), "{}", agent.said());
        assert_eq!(tags(&agent), "a=1 flag=1");
        agent.run(&["event", "-coalesce=false", "e", &number.to_string()]);
        poll("the old handler runs", || {
            lines(&path.join("old")).len() == number + 1
        });
    }
    assert!(lines(&path.join("new")).is_empty());
    // What could be read the whole time takes effect once the mistake is gone.
    fs::remove_file(path.join("conf/20.json")).unwrap();
    agent.signal("HUP");
    poll("the tags change", || tags(&agent) == "a=2 flag=1");
    agent.run(&["event", "-coalesce=false", "e", "x"]);
    poll("the new handler runs", || lines(&path.join("new")).len() == 1);
}

#[test]
fn words_are_serfs() {
    for program in [FYRD, SERF] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("conf")).unwrap();
        configure(path, "{}");
        // Flags beat files, so the level is left to the file.
        let flags = ["-config-dir=conf", "-tag=flag=1", "-log-level="];
        let agent = Agent::start(program, "n1", path, &flags);
        // Before that, Serf does not listen to signals, and ends.
        agent.wait_for("Received event: member-join");
        configure(path, r#"{"log_level":"bad","retry_interval":"1ms","role":"db"}"#);
        agent.reload("==> Invalid log level: BAD. Valid log levels are: [TRACE DEBUG INFO WARN ERR]\n");
        poll("the rest takes effect", || tags(&agent) == "flag=1 role=db");
        configure(path, "{");
        agent.reload(REFUSED);
    }
}

#[test]
fn tags_set_by_command_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let agent = start(FYRD, path, r#"{"tags":{"a":"1","b":"1","c":"1"}}"#);
    agent.run(&["tags", "-set=mine=x", "-set=b=mine", "-set=c=mine"]);
    agent.reload(RELOADED);
    assert_eq!(tags(&agent), "a=1 b=mine c=mine flag=1 mine=x");
    configure(path, r#"{"tags":{"a":"2","c":"2","d":"2"}}"#);
    agent.signal("HUP");
    poll("what changed in the file changes", || {
        tags(&agent) == "a=2 b=mine c=2 d=2 flag=1 mine=x"
    });
    configure(path, "{}");
    agent.signal("HUP");
    poll("what is gone from the file goes", || {
        tags(&agent) == "b=mine flag=1 mine=x"
    });
}

#[test]
fn a_tags_file_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("c.json"), "{}").unwrap();
    let flags = ["-config-file=c.json", "-tags-file=tags.json"];
    let agent = Agent::start(FYRD, "n1", path, &flags);
    agent.run(&["tags", "-set=mine=x"]);
    agent.reload(RELOADED);
    assert_eq!(tags(&agent), "mine=x");
    let kept = fs::read_to_string(path.join("tags.json")).unwrap();
    assert_eq!(kept, "{\n  \"mine\": \"x\"\n}");
    fs::write(path.join("c.json"), r#"{"tags":{"a":"1"}}"#).unwrap();
    agent.reload(REFUSED);
    assert!(
        agent
            .said()
            .contains("==> Tags config not allowed while using tag files\n")
    );
    assert_eq!(tags(&agent), "mine=x");
}

#[test]
fn what_signals_mean_is_reloaded() {
    for (before, after, signal, code) in [
        ("{}", r#"{"leave_on_terminate":true}"#, "TERM", 0),
        (r#"{"leave_on_terminate":true}"#, "{}", "TERM", 1),
        ("{}", r#"{"skip_leave_on_interrupt":true}"#, "INT", 1),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = start(FYRD, directory.path(), before);
        configure(directory.path(), after);
        agent.reload(RELOADED);
        agent.signal(signal);
        assert_eq!(agent.end(), Some(code), "{before} -> {after}, {signal}");
    }
}
