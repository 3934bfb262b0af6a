//! What an operator meets in the first hour: warnings at the start, what a reload did, words that are wrong, errors
//! that say what to do. The program `script` of util-linux makes the terminals.

use std::process::Command;

use crate::support::{Agent, Kind, Plan};

fn start(plan: Plan) -> Agent {
    plan.arg("-profile=local").start()
}

/// What a person at a terminal sees of a command.
fn on_a_terminal(words: &str) -> String {
    let line = format!("{} {words}", Kind::Fyrd.program());
    let shown = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .expect("util-linux's script");
    String::from_utf8_lossy(&shown.stdout).replace('\r', "")
}

/// What the same person's script sees, on both channels.
fn in_a_pipe(words: &str) -> (String, String) {
    let output = Command::new(Kind::Fyrd.program())
        .args(words.split(' '))
        .output()
        .expect("the program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_start_warns_of_what_others_can_do() {
    let plan = Plan::new(Kind::Fyrd, "n1")
        .arg("-advertise=10.1.2.3")
        .arg("-rpc-addr=0.0.0.0:{rpc}")
        .arg("junk")
        .arg("-node=other");
    let agent = start(plan);
    agent.says("[WARN] agent: Gossip is not encrypted: whoever reaches 10.1.2.3:7946 can join");
    agent.says("[WARN] agent: RPC asks for no token: whoever reaches 0.0.0.0:");
    agent.says("[WARN] agent: Flags end at the word \"junk\": it is ignored, with all that follows it (junk -node=other");
    // On this host alone nobody has to be warned.
    let agent = start(Plan::new(Kind::Fyrd, "n2"));
    assert!(!agent.log().contains("[WARN]"), "{}", agent.log());
}

#[test]
fn a_reload_says_what_it_did_and_what_waits_for_a_restart() {
    let plan = Plan::new(Kind::Fyrd, "n1")
        .with_file("c.json", r#"{"tags":{"a":"1"},"rpc_auth":"before"}"#)
        .arg("-config-file=c.json");
    let agent = start(plan);
    agent.write(
        "c.json",
        r#"{"tags":{"a":"2"},"log_level":"debug","rpc_auth":"hidden","snapshot_path":"s"}"#,
    );
    agent.signal("HUP");
    agent.says("Configuration reloaded, in force now: log_level, tags");
    for key in ["rpc_auth", "snapshot_path"] {
        agent.says(&format!(
            "==> Warning: '{key}' is another in the configuration now, which takes effect at the next start only"
        ));
    }
    agent.signal("HUP");
    agent.says("Configuration reloaded, nothing in it changes what runs");
    assert!(!agent.log().contains("hidden"), "{}", agent.log());
}

#[test]
fn the_wrong_word_is_named_last_and_errors_say_what_to_do() {
    let nobody = "-rpc-addr=127.0.0.1:1";
    let table = [
        (
            "mebers".to_owned(),
            "unknown command \"mebers\"; did you mean \"members\"?",
        ),
        (
            "members -stauts=x".to_owned(),
            "unknown flag -stauts; did you mean -status?",
        ),
        (
            "keys rotat".to_owned(),
            "unknown word \"rotat\"; did you mean \"rotate\"?",
        ),
        (
            format!("members {nobody}"),
            "No agent listens there. 'fyrd agent' starts one; -rpc-addr=HOST:PORT or SERF_RPC_ADDR names another address.",
        ),
        (
            "agent -encrypt=abc".to_owned(),
            "A key is base64 of 16, 24 or 32 bytes, as 'fyrd keygen' prints it.",
        ),
    ];
    for (words, last) in table {
        let shown = on_a_terminal(&words);
        assert_eq!(
            shown.lines().last().map(str::trim),
            Some(last),
            "{words}: {shown}"
        );
        let (out, err) = in_a_pipe(&words);
        assert!(!out.contains(last) && !err.contains(last), "{words}: {out}{err}");
    }
}

#[test]
fn a_missing_and_a_wrong_token_are_told_apart() {
    let plan = Plan::new(Kind::Fyrd, "n1")
        .with_file("c.json", r#"{"rpc_auth":"right"}"#)
        .arg("-config-file=c.json");
    let agent = start(plan);
    let at = format!("-rpc-addr=127.0.0.1:{}", agent.rpc_port());
    let missing = on_a_terminal(&format!("members {at}"));
    assert!(missing.contains("This agent wants the token"), "{missing}");
    let wrong = on_a_terminal(&format!("members {at} -rpc-auth=wrong"));
    assert!(wrong.contains("The agent has another token, or none"), "{wrong}");
}
