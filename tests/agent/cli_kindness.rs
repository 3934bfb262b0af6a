//! What the command line says where Serf's is silent.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Agent, KEY_32, Kind, Plan};

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
