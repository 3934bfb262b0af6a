//! What an operator meets at the command line in the first hour: words that are wrong, errors that say what to do, tables
//! for people and JSON for programs, commands that wait and watch. The program `script` of util-linux makes the terminals.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Agent, KEY_32, Kind, Plan, all_alive, until};

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

#[test]
fn clients_are_no_news() {
    let agent = start(Plan::new(Kind::Fyrd, "n1"));
    agent.cli(&["members"]).success();
    let shown = agent.cli(&["info"]).success();
    drop(shown);
    assert!(!agent.log().contains("Accepted client"), "{}", agent.log());
}

/// A command's output as JSON.
fn json_of(agent: &Agent, words: &[&str]) -> serde_json::Value {
    let told = agent.cli(words);
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

#[test]
fn what_prints_data_prints_json() {
    let plan = |name: &str| {
        Plan::new(Kind::Fyrd, name)
            .key(Some(KEY_32))
            .arg("-profile=local")
    };
    let first = plan("n1").start();
    let second = plan("n2").join(&first).start();
    all_alive(&[&first, &second]);
    until("n1 knows where n2 is", || {
        first.cli(&["rtt", "n2"]).code == Some(0)
    });
    let rtt = json_of(&first, &["rtt", "-format=json", "n2"]);
    assert!(
        rtt["from"] == "n2" && rtt["to"] == "n1" && rtt["rtt_ms"].is_f64(),
        "{rtt}"
    );
    let all = json_of(&first, &["rtt", "-all", "-format=json"]);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    assert!(all[0]["from"] == "n1" && all[0]["to"] == "n2", "{all}");
    let text = first.cli(&["rtt", "-all", "n2"]).success();
    assert!(text.starts_with("n1  ") && text.ends_with(" ms\n"), "{text}");
    let keys = json_of(&first, &["keys", "list", "-format=json"]);
    assert_eq!(
        (&keys["members"], &keys["keys"][0]["members"]),
        (&2.into(), &2.into()),
        "{keys}"
    );
    let info = json_of(&first, &["info", "-format=json"]);
    assert_eq!(
        info["encryption"]["primary_key"], keys["keys"][0]["fingerprint"],
        "{info}"
    );
    assert!(!keys.to_string().contains(KEY_32) && !info.to_string().contains(KEY_32));
    let printed = json_of(&first, &["keys", "list", "-format=json", "-print"]);
    assert_eq!(printed["keys"][0]["key"], KEY_32);
    let (version, _) = in_a_pipe("version -format=json");
    let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
    assert_eq!(version["program"], "fyrd");
}

#[test]
fn queries_end_when_all_or_enough_have_answered() {
    let plan = |name: &str| {
        let handler = "-event-handler=query:load=echo of $SERF_SELF_NAME";
        Plan::new(Kind::Fyrd, name)
            .args([handler, "-profile=local"])
            .arg(format!("-tag=name={name}"))
    };
    let first = plan("n1").start();
    let second = plan("n2").join(&first).start();
    all_alive(&[&first, &second]);
    // Without the wait each of these would take a minute.
    let start = Instant::now();
    let query = |words: &[&str]| {
        json_of(
            &first,
            &[&["query", "-timeout=60s", "-format=json"], words].concat(),
        )
    };
    let answers = |answer: &serde_json::Value| answer["Responses"].as_object().map(|map| map.len());
    assert_eq!(answers(&query(&["-wait=all", "load"])), Some(2));
    assert_eq!(answers(&query(&["-wait=1", "load"])), Some(1));
    // As many as it is for; the pattern needs to fit a part only.
    assert_eq!(answers(&query(&["-wait=all", "-tag=name=2", "load"])), Some(1));
    assert_eq!(answers(&query(&["-wait=all", "-node=n1", "load"])), Some(1));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let reached = json_of(&first, &["reachability", "-wait=all", "-format=json"]);
    assert_eq!(
        (&reached["reachable"], &reached["live"]),
        (&true.into(), &2.into()),
        "{reached}"
    );
    let enough = first.cli(&["reachability", "-wait=1"]).success();
    assert!(enough.contains("Successfully contacted "), "{enough}");
    let at = format!("-rpc-addr=127.0.0.1:{}", first.rpc_port());
    let shown = on_a_terminal(&format!("query -timeout=2s {at} load"));
    assert!(shown.contains("2 members have responded, 1."), "{shown}");
    let wrong = first.cli(&["query", "-wait=some", "load"]);
    assert_eq!(
        (wrong.code, wrong.stdout.as_str()),
        (
            Some(1),
            "Error: -wait=some: it must be all, or how many answers to wait for, from 1 on\n"
        )
    );
}

#[test]
fn members_on_a_terminal_have_a_header_and_a_pipe_has_serfs_lines() {
    let agent = start(Plan::new(Kind::Fyrd, "n1").arg("-tag=role=web"));
    let at = format!("-rpc-addr=127.0.0.1:{}", agent.rpc_port());
    let shown = on_a_terminal(&format!("members {at}"));
    assert!(shown.starts_with("NAME  ADDRESS "), "{shown}");
    assert!(shown.contains("\u{1b}[32malive \u{1b}[0m  role=web\n"), "{shown}");
    let plain = format!("n1  {}  alive  role=web\n", agent.address());
    assert_eq!(in_a_pipe(&format!("members {at}")), (plain, String::new()));
    let wrong = on_a_terminal(&format!("members {at} -status=alice"));
    assert!(wrong.trim_end().ends_with("did you mean \"alive\"?"), "{wrong}");
}

#[test]
fn watchers_see_each_change() {
    let agent = start(Plan::new(Kind::Fyrd, "n1").arg("-tag=a=1"));
    let at = format!("-rpc-addr=127.0.0.1:{}", agent.rpc_port());
    let lines = |words: &[&str]| {
        let mut child = Command::new(Kind::Fyrd.program())
            .args(words)
            .arg(&at)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        (
            Ended(child),
            lines
                .map(|line| serde_json::from_str::<serde_json::Value>(&line.expect("a line")).expect("JSON")),
        )
    };
    let (_watching, mut members) = lines(&["members", "-watch", "-format=json"]);
    let (_monitoring, mut events) = lines(&["monitor", "-format=json"]);
    assert_eq!(members.next().expect("members")["members"][0]["tags"]["a"], "1");
    events
        .find(|line| line["type"] == "log")
        .expect("a line of the log");
    agent.cli(&["tags", "-set=a=2"]).success();
    assert_eq!(members.next().expect("members")["members"][0]["tags"]["a"], "2");
    let update = events
        .find(|line| line["event"] == "member-update")
        .expect("an event");
    assert_eq!(update["members"][0]["name"], "n1");
    agent
        .cli(&["event", "-coalesce=false", "deploy", "x\ny"])
        .success();
    let event = events.find(|line| line["type"] == "user").expect("an event");
    assert_eq!(
        (&event["name"], &event["payload"]),
        (&"deploy".into(), &"x\ny".into())
    );
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
