//! What the command line says where Serf's is silent.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Agent, KEY_32, Kind, Plan, all_alive, until};

fn start() -> Agent {
    Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start()
}

#[test]
fn a_command_against_a_stopped_agent_ends_and_says_why() {
    let agent = start();
    agent.signal("STOP");
    let start = Instant::now();
    let told = agent.cli(&["members", "-rpc-timeout=1s"]);
    agent.signal("CONT");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.stdout,
        "Error connecting to Serf agent: no answer from the agent within 1s: it is stopped, or too busy (-rpc-timeout)\n"
    );
    agent.cli(&["members", "-rpc-timeout=0"]).success();
}

#[test]
fn a_join_of_good_and_bad_names_the_bad() {
    let (agent, good) = (start(), Plan::new(Kind::Fyrd, "n2").arg("-profile=local").start());
    let told = agent.cli(&["join", &good.address(), "127.0.0.1:1"]);
    assert_eq!(
        told.stdout,
        "Successfully joined cluster by contacting 1 nodes.\n"
    );
    assert_eq!(
        told.stderr,
        "Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused\n"
    );
    assert_eq!(told.code, Some(0));
    agent.says("[WARN] agent: error joining others: 1 error occurred:");
}

/// Scripts hear nothing of it; the program `script` of util-linux makes a terminal.
#[test]
fn flags_behind_words_are_warned_about_on_a_terminal() {
    let agent = start();
    let event = ["event", "deploy", "-coalesce=false"];
    assert_eq!(agent.cli(&event).stderr, "");
    let line = format!(
        "{} event -rpc-addr=127.0.0.1:{} deploy -coalesce=false",
        Kind::Fyrd.program(),
        agent.rpc_port()
    );
    let shown = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output()
        .expect("util-linux's script");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("Warning: -coalesce=false stands behind a word, so it is no flag; flags come first"),
        "{shown}"
    );
}

/// What a terminal shows of a command.
fn on_a_terminal(agent: &Agent, command: &str, words: &str) -> String {
    let line = format!(
        "{} {command} -rpc-addr=127.0.0.1:{} {words}",
        Kind::Fyrd.program(),
        agent.rpc_port()
    );
    let shown = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .output()
        .expect("util-linux's script");
    String::from_utf8_lossy(&shown.stdout).replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_a_headline_colours_and_advice_and_a_pipe_gets_neither() {
    let mut agent = start();
    let shown = on_a_terminal(&agent, "members", "");
    assert!(shown.starts_with("\u{1b}[1mNAME  ADDRESS"), "{shown:?}");
    assert!(shown.contains("\u{1b}[32malive\u{1b}[0m"), "{shown:?}");
    let plain = agent.cli(&["members"]).success();
    assert!(plain.starts_with("n1  127.0.0.1:"), "{plain:?}");
    let shown = on_a_terminal(&agent, "members", "-status=alice");
    let advice =
        "No status matches 'alice'; there are alive, failed, leaving, left, none. Did you mean 'alive'?\n";
    assert_eq!(shown, format!("\n{advice}").trim_start_matches('\n'), "{shown:?}");
    assert_eq!(agent.cli(&["members", "-status=alice"]).stderr, "");
    let shown = on_a_terminal(&agent, "memebrs", "");
    assert!(
        shown.ends_with("'memebrs' is no command. Did you mean 'members'?\n"),
        "{shown:?}"
    );
    agent.kill();
    let shown = on_a_terminal(&agent, "members", "");
    assert!(shown.contains("connection refused\n"), "{shown:?}");
    assert!(
        shown.contains("No agent listens there. 'agent' starts one"),
        "{shown:?}"
    );
    assert_eq!(agent.cli(&["members"]).stderr, "");
}

#[test]
fn a_query_ends_when_all_or_enough_have_responded() {
    let first = Plan::new(Kind::Fyrd, "n1")
        .args(["-profile=local", "-event-handler=query:load=echo 1"])
        .start();
    let second = Plan::new(Kind::Fyrd, "n2")
        .args(["-profile=local", "-event-handler=query:load=echo 2"])
        .join(&first)
        .start();
    all_alive(&[&first, &second]);
    let limit = Duration::from_secs(50);
    for words in [["-wait=all"].as_slice(), &["-wait=1"], &["-wait=all", "-node=n2"]] {
        let start = Instant::now();
        let query = [["query", "-timeout=60s"].as_slice(), words, &["load"]].concat();
        let told = first.cli(&query).success();
        assert!(start.elapsed() < limit, "{words:?}");
        let enough = if words == ["-wait=all"] { 2 } else { 1 };
        assert_eq!(told.matches("Response from").count(), enough, "{words:?}: {told}");
    }
    let start = Instant::now();
    first.cli(&["reachability", "-wait=all"]).success();
    assert!(start.elapsed() < limit);
    let told = first.cli(&["query", "-wait=all", "-tag=a=b", "load"]);
    assert!(told.stdout.contains("give a number"), "{told:?}");
}

#[test]
fn members_are_sorted_and_watched() {
    let first = start();
    let second = Plan::new(Kind::Fyrd, "a2")
        .arg("-profile=local")
        .join(&first)
        .start();
    all_alive(&[&first, &second]);
    let names = |sort: &str| {
        let told = first.cli(&["members", sort]).success();
        let names = told.lines().filter_map(|line| line.split_whitespace().next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("-sort=name"), ["a2", "n1"]);
    assert_eq!(names("-sort=status"), ["a2", "n1"]);
    assert!(
        first
            .cli(&["members", "-sort=age"])
            .stdout
            .contains("must be name, address, status or role")
    );
    let mut watch = Command::new(Kind::Fyrd.program())
        .args([
            "members",
            "-watch",
            &format!("-rpc-addr=127.0.0.1:{}", first.rpc_port()),
        ])
        .stdout(std::fs::File::create(first.file("watched")).unwrap())
        .spawn()
        .unwrap();
    until("the members are listed", || {
        first.read("watched").contains("a2  127.0.0.1:")
    });
    second.cli(&["leave"]).success();
    until("the change is seen", || first.read("watched").contains("left"));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_monitor_in_json_has_an_object_a_line() {
    let agent = start();
    let mut monitor = Command::new(Kind::Fyrd.program())
        .args([
            "monitor",
            "-format=json",
            &format!("-rpc-addr=127.0.0.1:{}", agent.rpc_port()),
        ])
        .stdout(std::fs::File::create(agent.file("monitored")).unwrap())
        .spawn()
        .unwrap();
    until("the monitor has begun", || {
        agent.read("monitored").contains("Accepted client")
    });
    agent.cli(&["event", "deploy", "a\nb"]).success();
    until("the event is there", || {
        agent.read("monitored").contains(r#""name":"deploy""#)
    });
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let text = agent.read("monitored");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let objects: Vec<serde_json::Value> = text.lines().map(parse).collect();
    let event = objects
        .iter()
        .find(|object| object["event"] == "user")
        .expect("the event");
    assert_eq!((&event["payload"], &event["ltime"]), (&"a\nb".into(), &1.into()));
}

#[test]
fn info_tells_what_an_operator_asks_first() {
    let agent = Plan::new(Kind::Fyrd, "n1").key(Some(KEY_32)).start();
    let info = agent.info();
    let own = &info["fyrd"];
    assert_eq!(
        (own["profile"].as_str(), own["gossip_addr"].as_str()),
        ("lan", agent.address().as_str())
    );
    assert!(
        own["uptime"].ends_with('s') && own["started"].ends_with('Z'),
        "{own:?}"
    );
    let keys = &info["encryption"];
    assert_eq!(keys["cipher"], "AES-256-GCM");
    assert!(
        keys["primary_key"].len() >= 8 && !KEY_32.contains(&keys["primary_key"]),
        "{keys:?}"
    );
}
