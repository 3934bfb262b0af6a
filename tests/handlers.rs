//! Event handlers, as scripts see them: beside the real Serf in one cluster, and where Fyrd is to do
//! better. Serf itself must be installed for the former.
#![cfg(unix)]

mod agents;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use agents::{Agent, FYRD, PATIENCE, SERF, lines, poll, read, write_script};

/// Appends what a script is given to the file that its argument names.
const RECORDER: &str = r#"#!/bin/sh
{ env -0 | grep -z ^SERF_ | LC_ALL=C sort -z | tr '\0' '\n'; echo --; cat; echo ==; } > "$DIR/new.$1.$$"
cat "$DIR/new.$1.$$" >> "$DIR/$1"
rm "$DIR/new.$1.$$"
"#;

/// Every form of filter, and the name of the file for its records.
const RECORDED: [(&str, &str); 13] = [
    ("member-join=", "join"),
    ("member-leave=", "leave"),
    ("member-failed=", "failed"),
    ("member-update=", "update"),
    ("member-leave,member-failed=", "gone"),
    ("user=", "user"),
    ("user:deploy=", "user-deploy"),
    ("user:=", "user-empty"),
    ("query=", "query"),
    ("query:load=", "query-load"),
    ("user:deploy,user,query:load=", "mixed"),
    ("*=", "star"),
    ("", "bare"),
];

/// This profile repeats messages often enough for nearly none to be lost.
const SURE: &str = "-profile=lan";

/// What all runs of one handler were given. Of members only the first mention in an event of a kind counts,
/// since windows may fall differently and Serf repeats updates; gossip brings other events in any order.
#[derive(Debug, Default, PartialEq)]
struct Records {
    members: BTreeMap<(String, String), String>,
    others: Vec<String>,
}

impl Records {
    fn read(path: &Path) -> Records {
        let mut records = Records::default();
        for record in read(path).split_terminator("==\n") {
            let (variables, input) = record.split_once("--\n").unwrap();
            let variables: String = variables
                .lines()
                .filter(|line| !line.starts_with("SERF_SELF_NAME="))
                .map(|line| line.to_string() + "\n")
                .collect();
            let event = variables.lines().next().unwrap();
            if event.starts_with("SERF_EVENT=member-") {
                for line in input.lines() {
                    let mention = (event.to_string(), sorted_tags(line));
                    records.members.entry(mention).or_insert(variables.clone());
                }
            } else {
                records.others.push(format!("{variables}{input}"));
            }
        }
        records.others.sort();
        records
    }
}

/// A member's line with its tags in order, which Serf gives in any.
fn sorted_tags(line: &str) -> String {
    let (head, tags) = line.rsplit_once('\t').unwrap();
    let mut tags: Vec<&str> = tags.split(',').collect();
    tags.sort_unstable();
    format!("{head}\t{}", tags.join(","))
}

/// Starts an agent all of whose events are recorded in `directory`.
fn recording(program: &str, name: &str, directory: &Path) -> Agent {
    write_script(&directory.join("record.sh"), RECORDER);
    let mut flags = vec![SURE.to_string()];
    flags.extend(
        [
            "-tag=role=x y",
            "-tag=my-tag.x=1",
            "-tag=\u{fc}n\u{ef}=2",
            "-tag=e=",
        ]
        .map(str::to_string),
    );
    for (filters, file) in RECORDED {
        flags.push(format!("-event-handler={filters}./record.sh {file}"));
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Agent::start(program, name, directory, &flags)
}

#[test]
fn scripts_are_given_what_serf_gives_them() {
    let (ours, theirs, elsewhere) = (directory(), directory(), directory());
    let fyrd = recording(FYRD, "fyrd", ours.path());
    let serf = recording(SERF, "serf", theirs.path());
    let peer =
        |name: &str, flags: &[&str]| Agent::start(SERF, name, elsewhere.path(), &[&[SURE], flags].concat());
    let mut leaver = peer("leaver", &["-tag=role=a\tb", "-tag=k=c\nd,e"]);
    // With more members, word that one left may come before word that it wants to, as with Serf.
    fyrd.run(&["join", &serf.gossip, &leaver.gossip]);
    let both_have = |file: &str, text: &str, times: usize| {
        for directory in [&ours, &theirs] {
            let path = directory.path().join(file);
            poll(&format!("{} has {text:?}", path.display()), || {
                read(&path).matches(text).count() >= times
            });
        }
    };
    for name in ["\nfyrd\t", "\nserf\t", "\nleaver\t"] {
        both_have("star", name, 1);
    }
    leaver.run(&["tags", "-set=k=new"]);
    for file in ["update", "star", "bare"] {
        both_have(file, "SERF_EVENT=member-update", 1);
    }
    for agent in [&fyrd, &serf] {
        agent.run(&["tags", "-set=late=3", "-delete=e"]);
    }
    both_have("update", "late=3", 2);
    leaver.run(&["leave"]);
    assert_eq!(leaver.end(), Some(0));
    both_have("leave", "leaver\t", 1);
    let caller = peer("caller", &[]);
    let victim = peer("vic\ttim", &[]);
    fyrd.run(&["join", &caller.gossip, &victim.gossip]);
    both_have("star", "\nvic\\ttim\t", 1);
    both_have("star", "\ncaller\t", 1);
    // Own tags are as they are when the script runs.
    #[rustfmt::skip]
    let payloads: [&[&str]; 6] = [
        &["deploy"], &["deploy", "x"], &["deploy", "x\n"], &["other", "a\tb\nc"], &["", "p"], &["d\u{e9}ploy", "\u{fc}"],
    ];
    for words in payloads {
        caller.run(&[&["event", "-coalesce=false"], words].concat());
        caller.run(&[&["query", "-timeout=1s"], words].concat());
    }
    caller.run(&["query", "-timeout=1s", "load"]);
    both_have("query-load", "SERF_QUERY_NAME=load", 1);
    for payload in ["1", "2", "3"] {
        caller.run(&["event", "deploy", payload]);
    }
    both_have("user-deploy", "\n3\n", 1);
    drop(victim);
    both_have("failed", "vic\\ttim\t", 1);
    both_have("bare", "SERF_EVENT=member-failed", 1);
    for (_, file) in RECORDED {
        let of = |directory: &tempfile::TempDir| Records::read(&directory.path().join(file));
        // An event that gossip has lost comes with the next push/pull.
        let deadline = Instant::now() + PATIENCE;
        while of(&ours) != of(&theirs) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(of(&ours), of(&theirs), "{file}");
        assert_ne!(of(&ours), Records::default(), "{file}");
    }
    // Only the newest of the coalesced events came.
    assert_eq!(read(&ours.path().join("user-deploy")).matches("\n2\n").count(), 0);
}

#[test]
fn queries_are_answered_as_serf_answers_them() {
    let directory = directory();
    let config = directory.path().join("c.json");
    std::fs::write(&config, r#"{"query_response_size_limit":9000}"#).unwrap();
    let flags = [
        "-config-file=c.json",
        "-log-level=debug",
        "-event-handler=query:plain=echo yes; cat",
        "-event-handler=query:mixed=echo a; echo b >&2; echo c",
        "-event-handler=query:failed=echo x; exit 3",
        "-event-handler=query:silent=true",
        "-event-handler=query:bare=printf x",
        "-event-handler=query:tail=seq 5000",
        "-event-handler=query:background=(sleep 0.3; echo late) & echo early",
    ];
    let fyrd = Agent::start(FYRD, "fyrd", directory.path(), &flags);
    let serf = Agent::start(SERF, "serf", directory.path(), &flags);
    fyrd.run(&["join", &serf.gossip]);
    poll("both know each other", || {
        [&fyrd, &serf]
            .iter()
            .all(|agent| agent.run(&["members", "-status=alive"]).lines().count() == 2)
    });
    let names = [
        "plain",
        "mixed",
        "failed",
        "silent",
        "bare",
        "tail",
        "background",
        "unknown",
    ];
    for name in names {
        let text = fyrd.run(&["query", "-format=json", "-timeout=1500ms", name, "payload"]);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let response = |from: &str| answer["Responses"][from].as_str().map(str::to_string);
        assert_eq!(response("fyrd"), response("serf"), "{name}");
        let expected = match name {
            "plain" => Some("yes\npayload\n".len()),
            "mixed" => Some("a\nb\nc\n".len()),
            "bare" => Some(1),
            "tail" => Some(8192),
            "background" => Some("early\nlate\n".len()),
            _ => None,
        };
        assert_eq!(response("fyrd").map(|text| text.len()), expected, "{name}");
        assert_eq!(answer["Acks"].as_array().map(Vec::len), Some(2), "{name}");
    }
    for agent in [&fyrd, &serf] {
        agent.wait_for("[ERR] agent: Error invoking script 'echo x; exit 3': exit status 3");
        agent.wait_for("[DEBUG] agent: Event 'query' script output: a\nb\nc\n");
    }
}

#[test]
fn answers_that_cannot_be_sent_are_logged() {
    let directory = directory();
    let flags = [
        "-event-handler=query:big=seq 1000",
        "-event-handler=query:two,query:two=echo x",
        "-event-handler=query:late=sleep 1.2; echo x",
    ];
    for program in [FYRD, SERF] {
        let agent = Agent::start(program, "n1", directory.path(), &flags);
        // Fyrd takes large answers by stream, so a Serf agent asks.
        let asker = Agent::start(SERF, "asker", directory.path(), &[]);
        asker.run(&["join", &agent.gossip]);
        let refused = "[WARN] agent: Failed to respond to query 'query: ";
        asker.run(&["query", "-timeout=300ms", "big"]);
        agent.wait_for(&format!(
            "{refused}big': failed to respond to key query: response exceeds limit of 1024 bytes"
        ));
        let text = agent.run(&["query", "-timeout=500ms", "two"]);
        assert!(text.contains("Total Responses: 1"), "{text}");
        agent.wait_for(&format!(
            "{refused}two': failed to respond to key query: response "
        ));
        agent.run(&["query", "-timeout=300ms", "late"]);
        agent.wait_for("[WARN] agent: Script 'sleep 1.2; echo x' slow, execution exceeding 1s");
        agent.wait_for(&format!(
            "{refused}late': failed to respond to key query: response is past the deadline"
        ));
    }
}

#[test]
fn a_slow_handler_delays_nobody_else() {
    let directory = directory();
    let flags = [
        "-event-handler=user:slow=echo >> slow; sleep 60",
        "-event-handler=user:quick=echo >> quick",
        "-event-handler=query:ping=echo pong",
    ];
    let agent = Agent::start(FYRD, "n1", directory.path(), &flags);
    let start = Instant::now();
    for _ in 0..3 {
        agent.run(&["event", "-coalesce=false", "slow"]);
    }
    agent.run(&["event", "-coalesce=false", "quick"]);
    poll("quick ran", || lines(&directory.path().join("quick")).len() == 1);
    assert!(agent.run(&["query", "-timeout=1s", "ping"]).contains("pong"));
    let peer = Agent::start(FYRD, "n2", directory.path(), &[]);
    agent.run(&["join", &peer.gossip]);
    agent.wait_for("EventMemberJoin: n2");
    agent.run(&["force-leave", "nobody"]);
    assert!(start.elapsed() < Duration::from_secs(50), "slow was over");
    assert_eq!(lines(&directory.path().join("slow")).len(), 1);
    let info = agent.run(&["info"]);
    assert!(
        info.contains("queued=2 running=1 done=0 failed=0 ended=0 dropped=0"),
        "{info}"
    );
    assert!(info.contains("\tuser:slow = echo >> slow; sleep 60\n"), "{info}");
    end_sleeper(&agent);
}

/// What a killed agent's scripts do is their own business, but not for a minute after the test.
fn end_sleeper(agent: &Agent) {
    let children = format!("/proc/{0}/task/{0}/children", agent.child.id());
    for child in std::fs::read_to_string(children)
        .unwrap_or_default()
        .split_whitespace()
    {
        let status = std::process::Command::new("kill")
            .args(["-KILL", "--", &format!("-{child}")])
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn events_come_in_order_and_what_does_not_fit_is_counted() {
    let directory = directory();
    let flags = [
        "-event-handler=user:step=cat >> steps",
        "-event-handler=user:flood=while ! test -e go; do sleep 0.05; done",
    ];
    let agent = Agent::start(FYRD, "n1", directory.path(), &flags);
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for number in &expected {
        agent.run(&["event", "-coalesce=false", "step", number]);
    }
    poll("all steps ran", || {
        lines(&directory.path().join("steps")).len() == 30
    });
    assert_eq!(lines(&directory.path().join("steps")), expected);
    // One runs, 1,024 wait.
    for _ in 0..1030 {
        agent.run(&["event", "-coalesce=false", "flood"]);
    }
    poll("some are dropped", || {
        agent
            .run(&["info"])
            .contains("queued=1024 running=1 done=0 failed=0 ended=0 dropped=5")
    });
    agent.wait_for("events wait for it, 1 were dropped so far");
    std::fs::write(directory.path().join("go"), "").unwrap();
    poll("it goes on", || {
        agent
            .run(&["info"])
            .contains("queued=0 running=0 done=1025 failed=0 ended=0 dropped=5")
    });
}

#[test]
fn a_time_limit_ends_a_script_with_all_it_started() {
    let directory = directory();
    std::fs::write(directory.path().join("c.json"), r#"{"handler_timeout":"500ms"}"#).unwrap();
    let flags = [
        "-config-file=c.json",
        "-event-handler=user=sleep 60 & echo $! >> pids; echo $$ >> pids; wait",
        "-event-handler=query:q=echo partly; sleep 60",
    ];
    let agent = Agent::start(FYRD, "n1", directory.path(), &flags);
    for _ in 0..2 {
        agent.run(&["event", "-coalesce=false", "e"]);
    }
    let text = agent.run(&["query", "-timeout=2s", "q"]);
    assert!(text.contains("Total Responses: 0"), "{text}");
    agent.wait_for_times("wait': ended after the time limit of 500ms", 2);
    let pids = lines(&directory.path().join("pids"));
    assert_eq!(pids.len(), 4);
    for pid in pids {
        poll("the process ends", || {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .unwrap_or_default()
                .is_empty()
        });
    }
    let info = agent.run(&["info"]);
    assert!(
        info.contains("queued=0 running=0 done=0 failed=0 ended=2 dropped=0"),
        "{info}"
    );
}

#[test]
fn a_leave_gives_handlers_time_but_not_for_ever() {
    let directory = directory();
    let flags = [
        "-event-handler=member-leave=sleep 0.5; cat >> left",
        "-event-handler=user=echo $$ >> pid; sleep 60",
    ];
    let mut agent = Agent::start(FYRD, "n1", directory.path(), &flags);
    agent.wait_for("Received event: member-join");
    agent.run(&["event", "-coalesce=false", "e"]);
    poll("the script runs", || {
        !lines(&directory.path().join("pid")).is_empty()
    });
    let start = Instant::now();
    agent.signal("INT");
    assert_eq!(agent.end(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(read(&directory.path().join("left")).starts_with("n1\t127.0.0.1\t"));
    agent.wait_for("Error invoking script 'echo $$ >> pid; sleep 60': ended because the agent ends");
    let pid = lines(&directory.path().join("pid"))[0].clone();
    assert!(
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .is_empty()
    );
}

#[test]
fn the_handler_router_recipe_works() {
    let directory = directory();
    let handlers = directory.path().join("handlers");
    std::fs::create_dir(&handlers).unwrap();
    write_script(
        &directory.path().join("router.sh"),
        "#!/bin/sh\nHANDLER_DIR=handlers\n\
         case $SERF_EVENT in\n\
         user) EVENT=user-$SERF_USER_EVENT ;;\n\
         query) EVENT=query-$SERF_QUERY_NAME ;;\n\
         *) EVENT=$SERF_EVENT ;;\n\
         esac\n\
         HANDLER=$HANDLER_DIR/$EVENT\n\
         [ -f \"$HANDLER\" ] && [ -x \"$HANDLER\" ] && exec \"$HANDLER\" || exit 0\n",
    );
    write_script(&handlers.join("user-deploy"), "#!/bin/sh\ncat >> deployed\n");
    write_script(&handlers.join("query-load"), "#!/bin/sh\necho load of $(cat)\n");
    let agent = Agent::start(FYRD, "n1", directory.path(), &["-event-handler=./router.sh"]);
    agent.run(&["event", "deploy", "v1"]);
    poll("deployed", || read(&directory.path().join("deployed")) == "v1\n");
    let text = agent.run(&["query", "-timeout=1s", "load", "cpu"]);
    assert!(text.contains("Response from 'n1': load of cpu"), "{text}");
    let text = agent.run(&["query", "-timeout=1s", "unknown"]);
    assert!(
        text.contains("Total Acks: 1") && text.contains("Total Responses: 0"),
        "{text}"
    );
    assert!(
        !agent.said().contains("Error invoking script"),
        "{}",
        agent.said()
    );
}

/// The demo of Serf's web load balancer: scripts keep a list of servers up to date.
#[test]
fn the_web_load_balancer_demo_works() {
    let directory = directory();
    write_script(
        &directory.path().join("join.sh"),
        "#!/bin/sh\n[ \"$SERF_TAG_ROLE\" = lb ] || exit 0\n\
         while read line; do\n\
         ROLE=$(echo $line | awk '{print $3}'); [ \"$ROLE\" = web ] || continue\n\
         echo $line | awk '{ printf \"    server %s %s check\\n\", $1, $2 }' >> haproxy.cfg\n\
         done\necho >> reloads\n",
    );
    write_script(
        &directory.path().join("leave.sh"),
        "#!/bin/sh\n[ \"$SERF_TAG_ROLE\" = lb ] || exit 0\n\
         while read line; do\n\
         NAME=$(echo $line | awk '{print $1}'); sed -i \"/$NAME /d\" haproxy.cfg\n\
         done\necho >> reloads\n",
    );
    let start = |name: &str, role: &str| {
        let role = format!("-tag=role={role}");
        let flags = [
            role.as_str(),
            "-event-handler=member-join=./join.sh",
            "-event-handler=member-leave,member-failed=./leave.sh",
            "-event-handler=query:load=uptime",
        ];
        Agent::start(FYRD, name, directory.path(), &flags)
    };
    let balancer = start("lb", "lb");
    balancer.wait_for("Received event: member-join");
    poll("its own join is over", || {
        lines(&directory.path().join("reloads")).len() == 1
    });
    let mut webs: Vec<Agent> = ["w1", "w2", "w3"].map(|name| start(name, "web")).into();
    for web in &webs {
        web.run(&["join", &balancer.gossip]);
    }
    let servers = || {
        let mut servers = lines(&directory.path().join("haproxy.cfg"));
        servers.sort();
        servers
    };
    let server = |name: &str| format!("    server {name} 127.0.0.1 check");
    poll("all serve", || servers() == ["w1", "w2", "w3"].map(server));
    let text = balancer.run(&["query", "-no-ack", "-timeout=5s", "load"]);
    assert!(text.contains("Total Responses: 4"), "{text}");
    webs[0].run(&["leave"]);
    assert_eq!(webs[0].end(), Some(0));
    poll("one has left", || servers() == ["w2", "w3"].map(server));
    drop(webs.remove(1));
    poll("one has failed", || servers() == ["w3"].map(server));
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
