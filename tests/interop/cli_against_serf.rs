//! Runs each command twice against the same real Serf agents, once as `serf` and once as `fyrd`, and
//! compares standard output, standard error and exit code.
//!
//! What may differ is taken out first: the order of rows and of tags in a row (random in Serf), the
//! program's name and version, the prose of help texts, and the figures that change by themselves.
//! Serf itself must be installed; these tests fail without it.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::support::PATIENCE;

const FYRD: &str = env!("CARGO_BIN_EXE_fyrd");
const SERF: &str = "serf";
const KEY: &str = "HvY8ubRZMgafUOWvrOadwOckVa1wN3QWAo46FVKbVN8=";
const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// A real Serf agent on free ports of 127.0.0.1; killed on drop.
struct Agent {
    child: Child,
    gossip: String,
    rpc: String,
}

impl Agent {
    fn start(name: &str, extra: &[&str]) -> Agent {
        let (gossip, rpc) = (free_address(), free_address());
        let child = Command::new(SERF)
            .args([
                "agent",
                "-profile=local",
                "-node",
                name,
                "-bind",
                &gossip,
                "-rpc-addr",
                &rpc,
            ])
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need the program serf");
        let agent = Agent { child, gossip, rpc };
        // With rpc_auth set, "Authentication required" is a sign of life as well.
        poll("the agent answers", || {
            !agent.run(SERF, &["members"]).text().contains("Error connecting")
        });
        agent
    }

    /// Two agents in one cluster.
    fn start_pair(extra: &[&str]) -> (Agent, Agent) {
        let first = Agent::start(
            "n1",
            &[extra, &["-tag", "role=web", "-tag", "dc=e<a>st"]].concat(),
        );
        let second = Agent::start("n2", extra);
        assert_eq!(first.run(SERF, &["join", &second.gossip]).code, Some(0));
        for agent in [&first, &second] {
            poll("the agents know each other", || {
                agent
                    .run(SERF, &["members", "-status=alive"])
                    .stdout
                    .lines()
                    .count()
                    == 2
            });
        }
        (first, second)
    }

    /// Runs a command against this agent.
    fn run<S: AsRef<OsStr>>(&self, program: &str, words: &[S]) -> Outcome {
        run(program, words, &[("SERF_RPC_ADDR", &self.rpc)])
    }

    /// Runs a command with both programs and insists that they agree.
    fn compare<S: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[S]) -> Outcome {
        compare(words, &[("SERF_RPC_ADDR", &self.rpc)])
    }

    fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        poll("the agent ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did, with the differences that are allowed taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

impl Outcome {
    fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        Outcome {
            stdout: normalise(&output.stdout),
            stderr: normalise(&output.stderr),
            code: output.status.code(),
        }
    }
}

fn run<S: AsRef<OsStr>>(program: &str, words: &[S], environment: &[(&str, &str)]) -> Outcome {
    Command::new(program)
        .args(words)
        .env_remove("SERF_RPC_ADDR")
        .env_remove("SERF_RPC_AUTH")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("these tests need the programs serf and fyrd")
        .into()
}

fn compare<S: AsRef<OsStr> + std::fmt::Debug>(words: &[S], environment: &[(&str, &str)]) -> Outcome {
    let serf = run(SERF, words, environment);
    let fyrd = run(FYRD, words, environment);
    assert_eq!(fyrd, serf, "fyrd (left) and serf (right) differ on {words:?}");
    serf
}

/// Takes out what may differ.
fn normalise(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // From a usage line on all is help, in everybody's own words.
    let (before, usage) = text.split_at(text.find("Usage: ").unwrap_or(text.len()));
    let usage = usage
        .lines()
        .next()
        .unwrap_or_default()
        .replacen("Usage: fyrd ", "Usage: serf ", 1);
    let mut lines: Vec<String> = before
        .split_inclusive('\n')
        .map(|line| sort_tags(line.to_owned()))
        .collect();
    let row = Regex::new(r"^(failed: .*|\S+ .*127\.0\.0\.1:\d+ .*|\S+= +\[\d/\d\])\n$").unwrap();
    let is_row = |line: &str| row.is_match(line);
    // Which row is the last of its table, and so lacks its trailing blanks, is random too.
    for rows in lines
        .chunk_by_mut(|a, b| is_row(a) && is_row(b))
        .filter(|rows| is_row(&rows[0]))
    {
        rows.iter_mut()
            .for_each(|line| *line = format!("{}\n", line.trim_end()));
        rows.sort();
    }
    // An agent sends acks and answers as they come.
    if before.starts_with("Query '") {
        lines.sort();
    }
    let mut text = lines.concat();
    for (pattern, replacement) in [
        (r"(?m)^0\.\d\.\d(-dev)?$", "VERSION"),
        (
            r"(goroutines|[a-z]+_queue|[a-z]+_time|health_score)( = |\u{22}: \u{22})\d+",
            "$1$2N",
        ),
        (r"in cluster: lookup (\S+) on [^ ]+:", "lookup $1:"),
        (r"time to last response: \d\.\d\d", "time to last response: N"),
        (r"Query time: \d\.\d\d", "Query time: N"),
    ] {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, replacement)
            .into_owned();
    }
    text + &usage
}

/// Sorts the words of a comma-separated list of `k=v`, where a line holds one.
fn sort_tags(line: String) -> String {
    let list = Regex::new(r"\S+=\S+(,\S+=\S+)+").unwrap();
    list.replace(&line, |found: &regex::Captures<'_>| {
        let mut tags: Vec<&str> = found[0].split(',').collect();
        tags.sort_unstable();
        tags.join(",")
    })
    .into_owned()
}

fn free_address() -> String {
    format!("127.0.0.1:{}", crate::support::port::Port::for_good())
}

fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn dispatcher() {
    let cases: &[&[&str]] = &[
        &[],
        &[""],
        &["bogus"],
        &["help"],
        &["help", "members"],
        &["mem"],
        &["-h"],
        &["-help"],
        &["--help"],
        &["--h"],
        &["-h", "bogus"],
        &["-x"],
        &["-x", "-y"],
        &["-x", "members"],
        &["-x", "version"],
        &["-", "members"],
        &["--", "members"],
        &["-version"],
        &["-h", "members"],
        &["members", "-h"],
        &["members", "-x", "--help"],
        &["members", "a", "-help"],
        &["version", "-h"],
        &["-v"],
        &["--version"],
        &["version"],
        &["version", "junk"],
        &["version", "-x"],
        &["event", "deploy", "-v"],
        &["event", "--", "-v"],
        &["-h", "-v"],
        &["-v", "-h", "members"],
        &["-x", "-v"],
        &["members", "--", "-v", "-h"],
    ];
    for words in cases {
        compare(words, &[]);
    }
    for command in [
        "event",
        "force-leave",
        "info",
        "join",
        "keys",
        "leave",
        "members",
        "monitor",
        "query",
        "reachability",
        "rtt",
        "tags",
    ] {
        let help = compare(&[command, "-h"], &[]);
        assert_eq!((help.code, help.stdout.as_str()), (Some(0), ""), "{command}");
        compare(&[command, "-nosuch"], &[]);
        compare(&[command, "-rpc-addr"], &[]);
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn flag_syntax() {
    let cases: &[&[&str]] = &[
        &["members", "--h"],
        &["members", "-h=x"],
        &["members", "-version"],
        &["members", "---x"],
        &["members", "-=x"],
        &["members", "--=x"],
        &["members", "-name"],
        &["members", "-detailed=maybe"],
        &["members", "-detailed="],
        &["members", "-detailed", "-nosuch"],
        &["members", "-name=x", "-nosuch=y"],
        &["event", "-coalesce=2", "a"],
        &["query", "-timeout=5", "a"],
        &["query", "-timeout", "abc", "a"],
        &["query", "-timeout=1d", "a"],
        &["query", "-timeout=", "a"],
        &["query", "-relay-factor=abc", "a"],
        &["query", "-relay-factor=99999999999999999999", "a"],
        &["query", "-relay-factor=0x", "a"],
        &["query", "-relay-factor=300", "a"],
        &["query", "-relay-factor", "-1", "a"],
        &["query"],
        &["query", "a", "b", "c"],
        &["event"],
        &["event", "a", "b", "c"],
        &["force-leave"],
        &["force-leave", "a", "b"],
        &["join"],
        &["tags"],
        &["tags", "-set"],
        &["keys"],
        &["keys", "-install="],
        &["keys", "-list", "-use=x"],
        &["keys", "-list=x"],
        &["monitor", "-log-level"],
    ];
    for words in cases {
        assert_eq!(compare(words, &[]).code, Some(1), "{words:?}");
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn no_connection() {
    let nobody = free_address();
    for command in [
        &["members"][..],
        &["members", "--", "-h"],
        &["members", "-tag", "foo"],
        &["info", "-format=yaml"],
        &["rtt"],
        &["tags", "-set=foo"],
        &["tags", "-delete="],
        &["join", "127.0.0.1:1"],
        &["leave"],
        &["force-leave", "x"],
        &["event", "x"],
        &["query", "-format=xml", "x"],
        &["query", "-tag=foo", "x"],
        &["monitor"],
        &["reachability"],
        &["keys", "-list"],
    ] {
        let outcome = compare(command, &[("SERF_RPC_ADDR", &nobody)]);
        assert_eq!(
            (outcome.code, outcome.stderr.as_str()),
            (Some(1), ""),
            "{command:?}"
        );
    }
    for address in [
        "",
        ":1",
        "[::1]:1",
        "::1:1",
        "127.0.0.1",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "127.0.0.1:foo",
        "127.0.0.1:1x",
        "127.0.0.1:",
        "127.0.0.1:07",
        "[::1",
        "[::1]",
        "[::1]x:1",
        "[127.0.0.1]:1",
        "a:b:c",
        "ab[c:1",
        "ab]c:1",
        "256.0.0.1:1",
        "127.1:1",
    ] {
        compare(&["members", &format!("-rpc-addr={address}")], &[]);
        if !address.is_empty() {
            compare(&["members"], &[("SERF_RPC_ADDR", address)]);
        }
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn reading_commands() {
    let (n1, n2) = Agent::start_pair(&[]);
    let members = n1.compare(&["members"]);
    assert_eq!(members.code, Some(0));
    assert!(
        members.stdout.contains("dc=e<a>st,role=web") && members.stdout.contains("n2"),
        "{members:?}"
    );
    let cases: &[&[&str]] = &[
        &["members", "junk"],
        &["members", "-detailed"],
        &["members", "-name=n1"],
        &["members", "-name", "N1"],
        &["members", "-name=zz|1"],
        &["members", "-status=alive", "-tag", "role=w.*"],
        &["members", "-tag", "role=", "-status=a.*"],
        &["members", "-tag=role=x", "-tag=role=web"],
        &["members", "-role=web"],
        &["members", "-role=web", "-format=json"],
        &["members", "-format=json", "-name=n1"],
        &["members", "-format=json", "-name=n2"],
        &["members", "-format=json", "-name=nobody"],
        &["members", "-name=nobody"],
        &["members", "-format=yaml"],
        &["members", "-format="],
        &["members", "-name=["],
        &["members", "-tag=foo"],
        &["members", "-tag==foo"],
        &["members", "-detailed=false", "-name=n2"],
        &["info"],
        &["info", "-format=json"],
        &["info", "-format=yaml"],
        &["info", "extra"],
        &["rtt"],
        &["rtt", "a", "b", "c"],
        &["rtt", "nosuch"],
        &["rtt", "nosuch", "n1"],
        &["rtt", "n1", "no\"such"],
        &["keys", "-list"],
        &["keys", "-install", OTHER_KEY],
        &["monitor", "-log-level=foo"],
        &["monitor", "-log-level="],
    ];
    for words in cases {
        n1.compare(words);
    }
    // Which member comes first in JSON is random in Serf; one member's form was compared above.
    let json = n1.run(FYRD, &["members", "-format=json"]).stdout;
    assert!(
        json.find("\"n1\"").unwrap() < json.find("\"n2\"").unwrap(),
        "{json}"
    );
    drop(n2);
}

/// Coordinates change with every probe, so that the programs need not agree at the first try.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn rtt() {
    let (n1, _n2) = Agent::start_pair(&[]);
    for words in [&["rtt", "n2"][..], &["rtt", "n1", "n1"], &["rtt", "n1", "n2"]] {
        poll("both programs estimate the same", || {
            let (serf, fyrd) = (n1.run(SERF, words), n1.run(FYRD, words));
            // There is no coordinate before the first probe.
            fyrd.stdout.starts_with("Estimated n") && serf == fyrd
        });
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn changing_commands() {
    let (n1, n2) = Agent::start_pair(&[]);
    let cases: &[&[&str]] = &[
        &["event", "deploy"],
        &["event", "deploy", "v1"],
        &["event", "deploy", ""],
        &["event", "", "v1"],
        &["event", "-coalesce=false", "deploy"],
        &["event", "-coalesce", "false", "deploy"],
        &["event", "deploy", "-coalesce=false"],
        &["event", "--", "deploy"],
        &["force-leave", "nosuch"],
        &["join", &n2.gossip],
        &["join", "-replay", &n2.gossip, "127.0.0.1:1"],
        &["join", "127.0.0.1:1"],
        &["join", "127.0.0.1:1", "127.0.0.1:2"],
        &["tags", "-set=a=b=c", "-set", "d="],
        &["tags", "-delete=a", "-delete", "d", "-set", "e=f"],
        &["tags", "-delete=nosuch"],
        &["tags", "-set=foo"],
        &["tags", "-set=foo=1", "-set=bar"],
        &["tags", "-set==foo"],
        &["tags", "-set="],
    ];
    for words in cases {
        n1.compare(words);
    }
    for size in [485, 520, 10_000] {
        let outcome = n1.compare(&["event", "x", &"y".repeat(size)]);
        assert_eq!(outcome.code, Some(1), "an event of {size} bytes");
    }
    let outcome = n1.compare(&["tags", &format!("-set=a={}", "b".repeat(600))]);
    assert!(
        outcome.stdout.contains("exceeds limit of 512 bytes"),
        "{outcome:?}"
    );
    let outcome = n1.run(FYRD, &["tags", "-set=made=here"]);
    assert_eq!(outcome.stdout, "Successfully updated agent tags\n");
    assert!(n1.run(SERF, &["members"]).stdout.contains("made=here"));
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn leave_and_force_leave() {
    let mut outcomes = Vec::new();
    for program in [SERF, FYRD] {
        let (n1, mut n2) = Agent::start_pair(&[]);
        outcomes.push((n2.run(program, &["leave"]), n2.wait()));
        let (mut n3, n4) = Agent::start_pair(&[]);
        drop(n4);
        poll("the failure is seen", || {
            n3.run(SERF, &["members", "-status=failed"]).stdout.contains("n2")
        });
        outcomes.push((n3.run(program, &["force-leave", "n2"]), None));
        assert!(n3.run(SERF, &["members", "-status=left"]).stdout.contains("n2"));
        outcomes.push((n3.run(program, &["force-leave", "-prune", "n2"]), None));
        poll("the member is gone", || {
            !n3.run(SERF, &["members"]).stdout.contains("n2")
        });
        outcomes.push((n3.run(program, &["leave", "junk"]), n3.wait()));
        drop(n1);
    }
    let (serf, fyrd) = outcomes.split_at(4);
    assert_eq!(fyrd, serf);
    assert_eq!(
        (serf[0].0.stdout.as_str(), serf[0].1),
        ("Graceful leave complete\n", Some(0))
    );
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn authentication() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    std::fs::write(&config, r#"{"rpc_auth": "letmein"}"#).unwrap();
    let locked = Agent::start("n1", &["-config-file", config.to_str().unwrap()]);
    let open = Agent::start("n2", &[]);
    let addressed = |agent: &Agent| ("SERF_RPC_ADDR", agent.rpc.clone());
    for (words, token) in [
        (&["members"][..], ""),
        (&["members"], "letmein"),
        (&["members"], "wrong"),
        (&["members", "-rpc-auth=letmein"], "wrong"),
        (&["members", "-rpc-auth="], "letmein"),
        (&["info"], ""),
        (&["rtt", "x"], ""),
        (&["rtt", "x", "y"], ""),
        (&["join", "127.0.0.1:1"], ""),
        (&["leave"], ""),
        (&["force-leave", "x"], ""),
        (&["tags", "-set=a=b"], ""),
        (&["event", "x"], ""),
        (&["query", "x"], ""),
        (&["monitor"], ""),
        (&["reachability"], ""),
        (&["keys", "-list"], ""),
        (&["keys", "-use=x"], ""),
    ] {
        for agent in [&locked, &open] {
            if std::ptr::eq(agent, &open) && words != ["members"] {
                continue;
            }
            let (name, address) = addressed(agent);
            compare(words, &[(name, &address), ("SERF_RPC_AUTH", token)]);
        }
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn keys() {
    let (n1, _n2) = Agent::start_pair(&["-encrypt", KEY]);
    let cases: &[&[&str]] = &[
        &["keys", "-list"],
        &["keys", "-install", OTHER_KEY],
        &["keys", "-list"],
        &["keys", "-use", OTHER_KEY],
        &["keys", "-remove", OTHER_KEY],
        &["keys", "-remove", KEY],
        &["keys", "-use", KEY],
        &["keys", "-install=@@@"],
        &["keys", "-install=YWJj"],
        &["keys", "-use=abc"],
    ];
    for words in cases {
        n1.compare(words);
    }
    let listed = n1.run(FYRD, &["keys", "-list"]).stdout;
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("  [2/2]"), "{listed}");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn queries() {
    let (n1, n2) = Agent::start_pair(&[
        "-event-handler",
        "query:echo=cat",
        "-event-handler",
        "query:up=echo up; echo",
    ]);
    let cases: &[&[&str]] = &[
        &["-node=n1", "up"],
        &["-node=n1", "-format=json", "up"],
        &["-node=n1", "-node=nosuch", "echo", "a<b>"],
        &["-node=n1", "-no-ack", "echo", "hello"],
        &["-node=n1", "-no-ack", "-format=json", "echo", "hello"],
        &["-tag", "role=w", "echo", "x"],
        &["-tag", "role=nosuch", "echo", "x"],
        &["-tag", "role=nosuch", "-format=json", "echo", "x"],
        &["-relay-factor=0x0", "-node=n2", "quiet"],
        &["-format=xml", "up"],
        &["-tag=foo", "up"],
        &["-tag=foo", "-format=xml", "up"],
        &["_serf_x"],
        &["-node=n1", ""],
    ];
    for words in cases {
        n1.compare(&[&["query", "-timeout=1s"], *words].concat());
    }
    n1.compare(&["query", "x", &"y".repeat(1100)]);
    drop(n2);
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn payloads_may_be_any_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let agent = Agent::start("n1", &["-event-handler", "query:echo=cat"]);
    let words: Vec<OsString> = ["query", "-timeout=1s", "-no-ack", "echo"]
        .iter()
        .map(OsString::from)
        .collect();
    let payload = OsString::from_vec(b"a\xff\x01b\n".to_vec());
    for program in [SERF, FYRD] {
        let output = Command::new(program)
            .args(&words)
            .arg(&payload)
            .env("SERF_RPC_ADDR", &agent.rpc)
            .output()
            .unwrap()
            .stdout;
        let expected = b"Query 'echo' dispatched\nResponse from 'n1': a\xff\x01b\nTotal Responses: 1\n";
        assert_eq!(output, expected, "{program}");
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn reachability() {
    let (n1, n2) = Agent::start_pair(&[]);
    // Acks come in any order, and so are only counted.
    for program in [SERF, FYRD] {
        let outcome = n1.run(program, &["reachability", "-verbose"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let mut lines: Vec<&str> = outcome.stdout.lines().collect();
        lines[2..4].sort_unstable();
        let expected = [
            "Total members: 2, live members: 2",
            "Starting reachability test...",
            "\tAck from 'n1'",
            "\tAck from 'n2'",
            "Query time: N sec, time to last response: N sec",
            "Successfully contacted all live nodes",
        ];
        assert_eq!(lines, expected, "{program}");
    }
    drop(n2);
    for program in [SERF, FYRD] {
        poll("the failure is seen", || {
            n1.run(SERF, &["members", "-status=failed"]).stdout.contains("n2")
        });
        let outcome = n1.run(program, &["reachability"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(
            outcome.stdout.starts_with("Total members: 2, live members: 1\n"),
            "{outcome:?}"
        );
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn keygen() {
    for program in [SERF, FYRD] {
        for words in [&["keygen"][..], &["keygen", "-x", "junk"]] {
            let outcome = run(program, words, &[]);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
            assert_eq!(outcome.stdout.len(), 45, "{program} {words:?}");
        }
    }
    // The key is good enough for Serf.
    let key = run(FYRD, &["keygen"], &[]).stdout;
    let agent = Agent::start("n1", &["-encrypt", key.trim()]);
    assert!(agent.run(FYRD, &["keys", "-list"]).stdout.contains(key.trim()));
}

/// A running command, whose lines can be waited for.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(program: &str, words: &[&str], agent: &Agent) -> Running {
        let mut child = Command::new(program)
            .args(words)
            .env("SERF_RPC_ADDR", &agent.rpc)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Running {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    fn wait_for(&mut self, part: &str) {
        while !self.seen.iter().any(|line| line.contains(part)) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("no {part:?} among {:?}", self.seen),
            }
        }
    }

    /// The event told of in the lines so far, with its fields sorted.
    fn event(&self) -> Vec<String> {
        let start = self.seen.iter().position(|line| line == "Event Info:").unwrap();
        let fields = self.seen[start + 1..]
            .iter()
            .take_while(|line| line.starts_with('\t'));
        let mut fields: Vec<String> = fields.cloned().collect();
        fields.sort();
        fields
    }

    fn finish(&mut self) -> (Option<i32>, String) {
        let mut code = None;
        poll("the monitor ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        self.seen.extend(self.lines.iter());
        let mut errors = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        (code.unwrap().code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
fn interrupt(running: &[Running]) {
    let ids = running.iter().map(|running| running.child.id().to_string());
    assert!(
        Command::new("kill")
            .arg("-INT")
            .args(ids)
            .status()
            .unwrap()
            .success()
    );
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_query_that_is_cut_short() {
    for end_by_signal in [true, false] {
        let agent = Agent::start("n1", &[]);
        let mut both =
            [SERF, FYRD].map(|program| Running::start(program, &["query", "-timeout=60s", "x"], &agent));
        both.iter_mut().for_each(|query| query.wait_for("Ack from 'n1'"));
        if end_by_signal {
            interrupt(&both);
        } else {
            drop(agent);
        }
        let [serf, fyrd] = both.each_mut().map(|query| (query.finish(), query.seen.clone()));
        assert_eq!(fyrd, serf);
        assert_eq!(serf.0.0, Some(if end_by_signal { 1 } else { 0 }));
        assert_eq!(serf.1.len(), if end_by_signal { 2 } else { 4 }, "{serf:?}");
    }
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn monitor() {
    for end_by_signal in [true, false] {
        let agent = Agent::start("n1", &[]);
        let mut both =
            [SERF, FYRD].map(|program| Running::start(program, &["monitor", "-log-level=debug"], &agent));
        for monitor in &mut both {
            monitor.wait_for("agent: Serf agent starting");
            monitor.wait_for("Accepted client");
        }
        // A stream may still be starting when the first lines of the log come. Held back for others to come
        // with it, such an event could come after the one that is looked for.
        poll("both monitors are subscribed", || {
            agent.run(SERF, &["event", "-coalesce=false", "ready"]);
            both.iter_mut().all(|monitor| {
                monitor.seen.extend(monitor.lines.try_iter());
                monitor.seen.iter().any(|line| line == "\tName: \"ready\"")
            })
        });
        for monitor in &mut both {
            monitor.seen.clear();
        }
        agent.run(SERF, &["event", "-coalesce=false", "deploy", "a\"\u{e4}"]);
        for monitor in &mut both {
            monitor.wait_for("agent: Received event: user-event: deploy");
            monitor.wait_for("\"deploy\"");
        }
        if end_by_signal {
            interrupt(&both);
        } else {
            drop(agent);
        }
        let [serf, fyrd] = both.map(|monitor| monitor.finish_with_event());
        assert_eq!(fyrd, serf);
        assert_eq!(serf.0, Some(if end_by_signal { 0 } else { 1 }));
    }
}

impl Running {
    /// Exit code, the last event, the last lines that are no log, and the standard error.
    fn finish_with_event(mut self) -> (Option<i32>, Vec<String>, Vec<String>, String) {
        self.seen.extend(self.lines.try_iter());
        let last = self.seen.iter().rposition(|line| line == "Event Info:").unwrap();
        self.seen.drain(..last);
        self.wait_for("Payload");
        let event = self.event();
        let (code, errors) = self.finish();
        let is_end = |line: &String| line.is_empty() || line.contains("emote side");
        (
            code,
            event,
            self.seen.iter().filter(|line| is_end(line)).cloned().collect(),
            errors,
        )
    }
}

/// The reader of a pipe may go away at any time, as `head` does.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_closed_pipe_ends_the_program_quietly() {
    let agent = Agent::start("n1", &[]);
    for words in [
        &["members"][..],
        &["members", "-h"],
        &["monitor"],
        &["info", "-format=json"],
        &["version"],
        &["-h"],
    ] {
        let mut child = Command::new(FYRD)
            .args(words)
            .env("SERF_RPC_ADDR", &agent.rpc)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        poll("the program ends", || {
            // Something for monitor to write.
            agent.run(SERF, &["event", "x"]);
            child.try_wait().unwrap().is_some()
        });
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(!errors.contains("panicked"), "{words:?}: {errors}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_named_serf_says_serf() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("serf");
    std::os::unix::fs::symlink(FYRD, &link).unwrap();
    let help = Command::new(&link)
        .arg("members")
        .arg("-h")
        .output()
        .unwrap()
        .stderr;
    assert!(help.starts_with(b"Usage: serf members [options]\n"));
    let help = Command::new(FYRD)
        .arg("members")
        .arg("-h")
        .output()
        .unwrap()
        .stderr;
    assert!(help.starts_with(b"Usage: fyrd members [options]\n"));
}
