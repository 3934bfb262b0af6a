//! SIGHUP: what takes effect at once, what does not, and what a mistake changes: nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Agent, Kind, Plan, until};

const SETTINGS: &str = "conf/10.json";
const RELOADED: &str = "Configuration reloaded";
const REFUSED: &str = "==> Failed to reload configs";

/// An agent that reads its settings from the folder `conf`, and has seen itself join: no line of its log comes
/// by itself from then on.
fn start(settings: &str) -> Agent {
    let agent = plan(Kind::Fyrd, settings).arg("-config-dir=conf").start();
    agent.says("Received event: member-join");
    agent
}

fn plan(kind: Kind, settings: &str) -> Plan {
    Plan::new(kind, "n1")
        .args(["-profile=local", "-tag=flag=1"])
        .with_file(SETTINGS, settings)
}

fn configure(agent: &Agent, settings: &str) {
    agent.write(SETTINGS, settings);
}

/// Reloads, and waits until the agent says this once more.
#[track_caller]
fn reload(agent: &Agent, until: &str) {
    let before = agent.times_said(until);
    agent.signal("HUP");
    agent.says_times(until, before + 1);
}

fn tags(agent: &Agent) -> String {
    let tags = &agent.info()["tags"];
    let tags: Vec<String> = tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    tags.join(" ")
}

/// Ends the sending even when the test fails, for its thread is waited for.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn handlers_change_under_load_and_no_event_is_lost() {
    let settings = |generation: usize| {
        format!(
            r#"{{"event_handlers":["user=echo $(cat) {generation} >> changing","user=cat >> constant"]}}"#
        )
    };
    let agent = start(&settings(0));
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let end = End(&done);
        let sending = scope.spawn(|| {
            let mut sent: Vec<String> = Vec::new();
            while !done.load(Ordering::Relaxed) {
                sent.push(sent.len().to_string());
                agent
                    .cli(&["event", "-coalesce=false", "e", &sent[sent.len() - 1]])
                    .success();
            }
            sent
        });
        for generation in 1..=5 {
            let before = agent.lines("changing").len();
            until("events flow", || agent.lines("changing").len() > before);
            configure(&agent, &settings(generation));
            reload(&agent, RELOADED);
            // From here on the new handler has all events.
            let fence = format!("fence{generation}");
            agent.cli(&["event", "-coalesce=false", "e", &fence]).success();
            let expected = format!("{fence} {generation}");
            until("the new handler runs", || {
                agent.lines("changing").contains(&expected)
            });
        }
        drop(end);
        sending.join().unwrap()
    });
    let without_fences = |lines: Vec<String>| -> Vec<String> {
        lines
            .into_iter()
            .filter(|line| !line.starts_with("fence"))
            .collect()
    };
    let constant = || without_fences(agent.lines("constant"));
    until("all events are handled", || constant().len() == sent.len());
    assert_eq!(
        constant(),
        sent,
        "a handler that stays sees each event once, in order"
    );
    until("all events are handled", || {
        without_fences(agent.lines("changing")).len() == sent.len()
    });
    let mut by: Vec<(usize, usize)> = without_fences(agent.lines("changing"))
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
        ("{", "==> Error decoding 'conf/20.json': unexpected EOF: EOF while parsing an object at line 1 column 1\n"),
        (r#"{"foo":1}"#, "==> Error decoding 'conf/20.json': 1 error(s) decoding:\n\n* '' has invalid keys: foo\n"),
        (r#"{"event_handlers":["foo=bar"]}"#, "==> Invalid event script: Event 'foo' invoking 'bar'\n"),
        (r#"{"interface":"nosuch"}"#, "==> Invalid network interface: route ip+net: no such network interface\n"),
        (large.as_str(), "==> Failed to update tags: Encoded length of tags exceeds limit of 512 bytes\n"),
    ];
    let agent = start(good);
    for (number, (bad, line)) in table.into_iter().enumerate() {
        configure(&agent, other);
        agent.write("conf/20.json", bad);
        reload(&agent, REFUSED);
        let expected =
            format!("==> Caught signal: hangup\n==> Reloading configuration...\n{line}{REFUSED}\n");
        assert!(agent.log().ends_with(&expected), "{}", agent.log());
        assert_eq!(tags(&agent), "a=1 flag=1");
        agent
            .cli(&["event", "-coalesce=false", "e", &number.to_string()])
            .success();
        until("the old handler runs", || agent.lines("old").len() == number + 1);
    }
    assert!(agent.lines("new").is_empty());
    // What could be read the whole time takes effect once the mistake is gone.
    std::fs::remove_file(agent.file("conf/20.json")).unwrap();
    agent.signal("HUP");
    until("the tags change", || tags(&agent) == "a=2 flag=1");
    agent.cli(&["event", "-coalesce=false", "e", "x"]).success();
    until("the new handler runs", || agent.lines("new").len() == 1);
}

/// Beside the real Serf: it ends at what an editor leaves, and reads what one hides.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn what_an_editor_leaves_in_a_directory_is_skipped() {
    for kind in [Kind::Fyrd, Kind::Serf] {
        let plan = plan(kind, r#"{"tags":{"a":"1","a":"2"}}"#)
            .with_file("conf/.20.json.json", r#"{"tags":{"hidden":"1"}}"#)
            .arg("-config-dir=conf");
        let agent = plan.start();
        agent.says("Received event: member-join");
        let hidden = tags(&agent);
        agent.write("conf/30.json", "");
        agent.signal("HUP");
        if kind == Kind::Serf {
            assert_eq!(hidden, "a=2 flag=1 hidden=1");
            agent.says("==> Error decoding 'conf/30.json': EOF\n==> Failed to reload configs");
            continue;
        }
        assert_eq!(hidden, "a=2 flag=1");
        agent.says(RELOADED);
        agent.says("==> Skipping 'conf/30.json': it is empty\n");
        agent.says("==> Skipping 'conf/.20.json.json': editors keep hidden files");
        agent.says("==> Warning: 'tags.a' stands more than once in 'conf/10.json'; the last one counts\n");
    }
}

#[test]
fn a_directory_that_becomes_empty_changes_nothing() {
    let agent = start(r#"{"tags":{"a":"1"}}"#);
    assert!(
        std::process::Command::new("mkfifo")
            .arg(agent.file("conf/20.json"))
            .status()
            .is_ok_and(|status| status.success())
    );
    reload(&agent, RELOADED);
    agent.says("==> Skipping 'conf/20.json': it is no file\n");
    configure(&agent, "");
    reload(&agent, REFUSED);
    agent.says("==> Error decoding 'conf/10.json': it is empty, and was not before;");
    std::fs::remove_file(agent.file(SETTINGS)).unwrap();
    reload(&agent, REFUSED);
    agent.says("==> Error reading 'conf': the directory holds no configuration any more;");
    assert_eq!(tags(&agent), "a=1 flag=1");
    configure(&agent, r#"{"tags":{"a":"2"}}"#);
    reload(&agent, RELOADED);
    until("the tags change", || tags(&agent) == "a=2 flag=1");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn words_are_serfs() {
    for kind in [Kind::Fyrd, Kind::Serf] {
        // Flags beat files, so the level is left to the file.
        let agent = plan(kind, "{}").args(["-config-dir=conf", "-log-level="]).start();
        // Before that, Serf does not listen to signals, and ends.
        agent.says("Received event: member-join");
        configure(
            &agent,
            r#"{"log_level":"bad","retry_interval":"1ms","role":"db"}"#,
        );
        reload(
            &agent,
            "==> Invalid log level: BAD. Valid log levels are: [TRACE DEBUG INFO WARN ERR]\n",
        );
        match kind {
            // Here a mistake changes nothing.
            Kind::Fyrd => agent.says(REFUSED),
            _ => until("the rest takes effect", || tags(&agent) == "flag=1 role=db"),
        };
        configure(&agent, "{");
        reload(&agent, REFUSED);
    }
}

#[test]
fn tags_set_by_command_stay() {
    let agent = start(r#"{"tags":{"a":"1","b":"1","c":"1"}}"#);
    agent
        .cli(&["tags", "-set=mine=x", "-set=b=mine", "-set=c=mine"])
        .success();
    reload(&agent, RELOADED);
    assert_eq!(tags(&agent), "a=1 b=mine c=mine flag=1 mine=x");
    configure(&agent, r#"{"tags":{"a":"2","c":"2","d":"2"}}"#);
    agent.signal("HUP");
    until("what changed in the file changes", || {
        tags(&agent) == "a=2 b=mine c=2 d=2 flag=1 mine=x"
    });
    configure(&agent, "{}");
    agent.signal("HUP");
    until("what is gone from the file goes", || {
        tags(&agent) == "b=mine flag=1 mine=x"
    });
}

#[test]
fn a_tags_file_is_kept() {
    let agent = Plan::new(Kind::Fyrd, "n1")
        .with_file("c.json", "{}")
        .args(["-config-file=c.json", "-tags-file=tags.json"])
        .start();
    agent.cli(&["tags", "-set=mine=x"]).success();
    reload(&agent, RELOADED);
    assert_eq!(tags(&agent), "mine=x");
    assert_eq!(agent.read("tags.json"), "{\n  \"mine\": \"x\"\n}");
    agent.write("c.json", r#"{"tags":{"a":"1"}}"#);
    reload(&agent, REFUSED);
    assert_eq!(
        agent.times_said("==> Tags config not allowed while using tag files\n"),
        1
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
        let mut agent = start(before);
        configure(&agent, after);
        reload(&agent, RELOADED);
        agent.signal(signal);
        assert_eq!(agent.ended(), Some(code), "{before} -> {after}, {signal}");
    }
}
