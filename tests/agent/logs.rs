//! The log in its forms: text, JSON, journald's, a file of its own; and what it says.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{Agent, KEY_32, Kind, Plan, until};

fn objects(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

fn says(objects: &[Value], component: &str, message: &str) -> bool {
    objects.iter().any(|object| {
        object["component"] == component && object["message"].as_str().unwrap().contains(message)
    })
}

#[test]
fn a_log_in_json_has_an_object_a_line_and_nothing_else() {
    let mut agent = Plan::new(Kind::Fyrd, "a").arg("-log-format=json").start();
    agent.signal("HUP");
    agent.says("Reloading configuration...");
    agent.cli(&["event", "deploy", "now"]).success();
    agent.signal("INT");
    assert_eq!(agent.ended(), Some(0));
    let objects = objects(&agent.log());
    for (component, message) in [
        ("serf", "EventMemberJoin: a 127.0.0.1"),
        ("agent", "Serf agent running!"),
        ("agent", "Node name: 'a'"),
        (
            "agent",
            "Configuration reloaded: nothing to take over has changed",
        ),
    ] {
        assert!(says(&objects, component, message), "{message}: {objects:#?}");
    }
    for object in objects {
        chrono::DateTime::parse_from_rfc3339(object["time"].as_str().unwrap()).unwrap();
        assert!(
            ["info", "warn"].contains(&object["level"].as_str().unwrap()),
            "{object}"
        );
    }
    let ended = Plan::new(Kind::Fyrd, "b")
        .arg("-log-format=yaml")
        .try_start()
        .unwrap_err();
    assert!(
        ended
            .output
            .contains("Invalid log format: 'yaml'. It must be text or json"),
        "{ended:?}"
    );
}

#[test]
fn a_log_file_can_be_moved_away() {
    let agent = Plan::new(Kind::Fyrd, "a").arg("-log-file=log").start();
    until("the file has the log", || {
        agent
            .read("log")
            .contains("[INFO] serf: EventMemberJoin: a 127.0.0.1")
    });
    assert_eq!(
        fs::metadata(agent.file("log")).unwrap().mode() & 0o007,
        0,
        "others may read it"
    );
    fs::rename(agent.file("log"), agent.file("log.1")).unwrap();
    agent.signal("HUP");
    until("the file is opened anew", || {
        agent.file("log").exists() && agent.read("log").contains("Configuration reloaded")
    });
    assert!(
        !agent.read("log").contains("EventMemberJoin"),
        "{}",
        agent.read("log")
    );
    let ended = Plan::new(Kind::Fyrd, "b")
        .arg("-log-file=none/log")
        .try_start()
        .unwrap_err();
    let expected = "Error opening log file: open none/log: no such file or directory";
    assert!(ended.output.contains(expected), "{ended:?}");
}

/// An agent whose output is this very file, and which is told that journald reads it.
#[test]
fn journald_gets_levels_and_no_second_time() {
    let script = "exec >journal; export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1); exec \"$@\"";
    let launcher = ["sh", "-c", script, "sh"].map(str::to_owned);
    // That it runs is seen by its RPC port: its output is elsewhere.
    let folder = tempfile::tempdir().unwrap();
    let port = crate::support::port::Port::reserve();
    let child = std::process::Command::new(&launcher[0])
        .args(&launcher[1..])
        .args([Kind::Fyrd.program(), "agent", "-node=a", "-bind=127.0.0.1:0"])
        .arg(format!("-rpc-addr=127.0.0.1:{}", port.number()))
        .current_dir(&folder)
        .spawn();
    let _agent = Ends(child.unwrap());
    let read = || fs::read_to_string(folder.path().join("journal")).unwrap_or_default();
    until("the journal has the log", || {
        read().contains("\n<6>serf: EventMemberJoin: a 127.0.0.1\n")
    });
    assert!(
        read().contains("\n<4>agent: Gossip is not encrypted"),
        "{}",
        read()
    );
}

/// Ends a process, also when the test fails.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn warnings(agent: &Agent) -> Vec<String> {
    let log = agent.log();
    let warnings = log.lines().filter_map(|line| line.split_once("[WARN] "));
    warnings.map(|(_, text)| text.to_owned()).collect()
}

#[test]
fn a_start_warns_of_what_is_open_and_of_nothing_else() {
    let closed = Plan::new(Kind::Fyrd, "a").key(Some(KEY_32)).start();
    assert_eq!(warnings(&closed), [""; 0]);
    let port = crate::support::port::Port::reserve();
    let open = Plan::new(Kind::Fyrd, "b")
        .arg(format!("-rpc-addr=0.0.0.0:{}", port.number()))
        .start();
    let warned = warnings(&open);
    assert!(
        warned
            .iter()
            .any(|line| line.starts_with("agent: Gossip is not encrypted")),
        "{warned:?}"
    );
    assert!(
        warned
            .iter()
            .any(|line| line.starts_with("agent.ipc: Who reaches 0.0.0.0:")),
        "{warned:?}"
    );
    assert_eq!(warned.len(), 2, "{warned:?}");
}

#[test]
fn a_reload_says_what_it_takes_over_and_what_it_does_not() {
    let agent = Plan::new(Kind::Fyrd, "a")
        .with_file("a.json", r#"{"tags": {"a": "1"}, "rpc_auth": "before"}"#)
        .arg("-config-file=a.json")
        .start();
    agent.write(
        "a.json",
        r#"{"tags": {"a": "2"}, "log_level": "debug", "rpc_auth": "hidden", "snapshot_path": "s"}"#,
    );
    agent.signal("HUP");
    agent.says("Configuration reloaded, taken over: log_level, tags");
    for key in ["rpc_auth", "snapshot_path"] {
        agent.says(&format!("'{key}' is another in the configuration now"));
    }
    assert!(!agent.log().contains("hidden"), "{}", agent.log());
}

#[test]
fn a_failing_handler_is_logged_with_its_last_words() {
    let agent = Plan::new(Kind::Fyrd, "a")
        .with_file("plain.txt", "")
        .args([
            "-event-handler=user:a=echo first; echo 'disk full' >&2; exit 3",
            "-event-handler=user:b=./nosuch.sh",
        ])
        .start();
    agent.cli(&["event", "a"]).success();
    agent.says("exit status 3, saying: disk full");
    agent.cli(&["event", "b"]).success();
    agent.says("exit status 127 (not found), saying: ");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("exit status 127")).unwrap();
    assert!(line.contains("not found"), "{line}");
}
