//! Event handlers, as scripts see them: beside the real Serf in one cluster, and where Fyrd is to do
//! better. Serf itself must be installed for the former.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually, side_by_side, until};

/// Appends what a script is given to the file that its argument names.
const RECORDER: &str = r#"#!/bin/sh
{ env -0 | grep -z ^SERF_ | LC_ALL=C sort -z | tr '\0' '\n'; echo --; cat; echo ==; } > "new.$1.$$"
cat "new.$1.$$" >> "$1"
rm "new.$1.$$"
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

/// An agent that is quick about it.
fn plan(kind: Kind, name: &str) -> Plan {
    Plan::new(kind, name).arg("-profile=local")
}

/// Whether there is no such process, or nothing of it but its exit status.
fn is_over(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .is_empty()
}

/// What all runs of one handler were given. Of members only the first mention in an event of a kind counts,
/// since windows may fall differently and Serf repeats updates; gossip brings other events in any order.
#[derive(Debug, Default, PartialEq)]
struct Records {
    members: BTreeMap<(String, String), String>,
    others: Vec<String>,
}

impl Records {
    fn of(agent: &Agent, file: &str) -> Records {
        let mut records = Records::default();
        for record in agent.read(file).split_terminator("==\n") {
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

/// An agent all of whose events are recorded. The profile lan repeats messages often enough for nearly none to
/// be lost.
fn recording(kind: Kind, name: &str) -> Agent {
    Plan::new(kind, name)
        .with_file("record.sh", RECORDER)
        .args([
            "-tag=role=x y",
            "-tag=my-tag.x=1",
            "-tag=\u{fc}n\u{ef}=2",
            "-tag=e=",
        ])
        .args(RECORDED.map(|(filters, file)| format!("-event-handler={filters}./record.sh {file}")))
        .start()
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn scripts_are_given_what_serf_gives_them() {
    let fyrd = recording(Kind::Fyrd, "fyrd");
    let serf = recording(Kind::Serf, "serf");
    let mut leaver = Plan::new(Kind::Serf, "leaver")
        .args(["-tag=role=a\tb", "-tag=k=c\nd,e"])
        .start();
    // With more members, word that one left may come before word that it wants to, as with Serf.
    fyrd.cli(&["join", &serf.address(), &leaver.address()]).success();
    let both_have = |file: &str, text: &str, times: usize| {
        for agent in [&fyrd, &serf] {
            until(&format!("{file} of {} has {text:?}", agent.name()), || {
                agent.read(file).matches(text).count() >= times
            });
        }
    };
    for name in ["\nfyrd\t", "\nserf\t", "\nleaver\t"] {
        both_have("star", name, 1);
    }
    leaver.cli(&["tags", "-set=k=new"]).success();
    for file in ["update", "star", "bare"] {
        both_have(file, "SERF_EVENT=member-update", 1);
    }
    for agent in [&fyrd, &serf] {
        agent.cli(&["tags", "-set=late=3", "-delete=e"]).success();
    }
    both_have("update", "late=3", 2);
    leaver.cli(&["leave"]).success();
    assert_eq!(leaver.ended(), Some(0));
    both_have("leave", "leaver\t", 1);
    let caller = Plan::new(Kind::Serf, "caller").start();
    let mut victim = Plan::new(Kind::Serf, "vic\ttim").start();
    fyrd.cli(&["join", &caller.address(), &victim.address()])
        .success();
    both_have("star", "\nvic\\ttim\t", 1);
    both_have("star", "\ncaller\t", 1);
    // Own tags are as they are when the script runs.
    #[rustfmt::skip]
    let payloads: [&[&str]; 6] = [
        &["deploy"], &["deploy", "x"], &["deploy", "x\n"], &["other", "a\tb\nc"], &["", "p"], &["d\u{e9}ploy", "\u{fc}"],
    ];
    for words in payloads {
        caller
            .cli(&[&["event", "-coalesce=false"], words].concat())
            .success();
        caller.cli(&[&["query", "-timeout=1s"], words].concat()).success();
    }
    caller.cli(&["query", "-timeout=1s", "load"]).success();
    both_have("query-load", "SERF_QUERY_NAME=load", 1);
    for payload in ["1", "2", "3"] {
        caller.cli(&["event", "deploy", payload]).success();
    }
    both_have("user-deploy", "\n3\n", 1);
    victim.kill();
    both_have("failed", "vic\\ttim\t", 1);
    both_have("bare", "SERF_EVENT=member-failed", 1);
    for (_, file) in RECORDED {
        // An event that gossip has lost comes with the next push/pull.
        let records = eventually(&format!("{file} is the same"), PATIENCE, || {
            let (ours, theirs) = (Records::of(&fyrd, file), Records::of(&serf, file));
            if ours == theirs {
                Ok(ours)
            } else {
                Err(format!("{ours:#?}, of Serf {theirs:#?}"))
            }
        });
        assert_ne!(records, Records::default(), "{file}");
    }
    // Only the newest of the coalesced events came.
    assert_eq!(fyrd.read("user-deploy").matches("\n2\n").count(), 0);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn queries_are_answered_as_serf_answers_them() {
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
    let start = |kind, name| {
        plan(kind, name)
            .with_file("c.json", r#"{"query_response_size_limit":9000}"#)
            .args(flags)
            .start()
    };
    let (fyrd, serf) = (start(Kind::Fyrd, "fyrd"), start(Kind::Serf, "serf"));
    fyrd.cli(&["join", &serf.address()]).success();
    all_alive(&[&fyrd, &serf]);
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
    side_by_side(&names, |&name| {
        let text = fyrd
            .cli(&["query", "-format=json", "-timeout=4s", name, "payload"])
            .success();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let response = |from: &str| answer["Responses"][from].as_str().map(str::to_string);
        let (ours, theirs) = (response("fyrd"), response("serf"));
        let lengths = [&ours, &theirs].map(|text| text.as_ref().map_or(0, String::len));
        let expected = match name {
            "plain" => ["yes\npayload\n".len(); 2],
            "mixed" => ["a\nb\nc\n".len(); 2],
            "bare" => [1; 2],
            // Serf sends the end of it, and waits for whoever holds the output.
            "tail" => [23_893, 8192],
            "background" => ["early\n".len(), "early\nlate\n".len()],
            _ => [0; 2],
        };
        assert_eq!(lengths, expected, "{name}");
        assert!(
            lengths[0] != lengths[1] || ours == theirs,
            "{name}: {ours:?}, of Serf {theirs:?}"
        );
        assert_eq!(answer["Acks"].as_array().map(Vec::len), Some(2), "{name}");
    });
    // What stands in a line of Fyrd's log makes no lines of its own.
    for (agent, output) in [(&fyrd, "a\\nb\\nc\n"), (&serf, "a\nb\nc\n")] {
        agent.says("[ERR] agent: Error invoking script 'echo x; exit 3': exit status 3");
        agent.says(&format!("[DEBUG] agent: Event 'query' script output: {output}"));
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn answers_that_cannot_be_sent_are_logged() {
    let flags = [
        "-event-handler=query:big=seq 1000",
        "-event-handler=query:two,query:two=echo x",
        "-event-handler=query:late=sleep 1.2; echo x",
    ];
    side_by_side(&[Kind::Fyrd, Kind::Serf], |&kind| {
        let agent = plan(kind, "n1").args(flags).start();
        // Fyrd takes large answers by stream, so a Serf agent asks.
        let asker = plan(Kind::Serf, "asker").start();
        asker.cli(&["join", &agent.address()]).success();
        let refused = |query: &str, reason: &str| {
            agent.says(&format!(
                "[WARN] agent: Failed to respond to query 'query: {query}': failed to respond to key query: {reason}"
            ));
        };
        // Time enough for a script on a busy machine; else the answer is late as well.
        asker.cli(&["query", "-timeout=3s", "big"]).success();
        refused("big", "response exceeds limit of 1024 bytes");
        let text = agent.cli(&["query", "-timeout=3s", "two"]).success();
        assert!(text.contains("Total Responses: 1"), "{text}");
        refused("two", "response ");
        agent.cli(&["query", "-timeout=300ms", "late"]).success();
        agent.says("[WARN] agent: Script 'sleep 1.2; echo x' slow, execution exceeding 1s");
        refused("late", "response is past the deadline");
    });
}

/// Scripts that share a file rely on it: in the order of events, for one event in the order of the configuration,
/// none before the one before it has ended.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn events_run_their_handlers_one_after_the_other() {
    side_by_side(&[Kind::Fyrd, Kind::Serf], |&kind| {
        let agent = plan(kind, "n1")
            .args([
                "-event-handler=user=sleep 0.1; echo first $SERF_USER_EVENT >>order",
                "-event-handler=user:a=sleep 0.1; echo second >>order",
                "-event-handler=user=echo third $SERF_USER_EVENT >>order",
                "-event-handler=user:a,user=echo twice >>order",
            ])
            .start();
        let sent = ["a", "b", "a", "b"];
        for name in sent {
            agent.cli(&["event", "-coalesce=false", name]).success();
        }
        let mut expected = Vec::new();
        for name in sent {
            expected.push(format!("first {name}"));
            expected.extend((name == "a").then(|| "second".to_owned()));
            expected.push(format!("third {name}"));
            expected.extend((name == "a").then(|| "twice".to_owned()));
            expected.push("twice".to_owned());
        }
        until("all have run", || agent.lines("order").len() >= expected.len());
        assert_eq!(agent.lines("order"), expected, "{kind:?}");
    });
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_change_of_tags_that_changes_nothing_is_no_event() {
    side_by_side(&[Kind::Fyrd, Kind::Serf], |&kind| {
        let agent = plan(kind, "n1")
            .args(["-tag=a=1", "-event-handler=member-update=cat >>updates"])
            .start();
        for change in ["-set=a=1", "-delete=nosuch", "-set=a=2"] {
            agent.cli(&["tags", change]).success();
        }
        until("the last change is told", || {
            agent.read("updates").contains("a=2")
        });
        assert_eq!(agent.times_said("EventMemberUpdate: n1"), 1, "{kind:?}");
        assert_eq!(agent.lines("updates").len(), 1, "{kind:?}");
    });
}

#[test]
fn handlers_that_are_independent_wait_for_none_but_themselves() {
    let agent = plan(Kind::Fyrd, "n1")
        .args([
            "-handler-order=independent",
            "-event-handler=user=while ! test -e go; do sleep 0.05; done; echo slow >>order",
            "-event-handler=user=echo quick >>order",
        ])
        .start();
    for _ in 0..2 {
        agent.cli(&["event", "-coalesce=false", "e"]).success();
    }
    until("the quick one has run", || agent.lines("order").len() == 2);
    agent.write("go", "");
    until("the slow one has run", || agent.lines("order").len() == 4);
    assert_eq!(agent.lines("order"), ["quick", "quick", "slow", "slow"]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn of_two_that_answer_the_first_in_the_configuration_counts() {
    side_by_side(&[Kind::Fyrd, Kind::Serf], |&kind| {
        let agent = plan(kind, "n1")
            .args([
                "-event-handler=query:who=sleep 0.3",
                "-event-handler=query:who=sleep 0.3; echo configured first",
                "-event-handler=query=echo quicker",
            ])
            .start();
        let text = agent.cli(&["query", "-timeout=4s", "who"]).success();
        assert!(text.contains("Response from 'n1': configured first"), "{text}");
        agent.says(
            "Failed to respond to query 'query: who': failed to respond to key query: response already sent",
        );
        let text = agent.cli(&["query", "-timeout=2s", "other"]).success();
        assert!(text.contains("Response from 'n1': quicker"), "{text}");
    });
}

#[test]
fn a_large_answer_arrives_whole_and_one_beyond_the_limit_not_at_all() {
    let agent = plan(Kind::Fyrd, "n1")
        .args([
            "-event-handler=query:secret=head -c 13004 /dev/zero | tr '\\0' s",
            "-event-handler=query:large=head -c 900000 /dev/zero | tr '\\0' l",
            "-event-handler=query:most=head -c 2000000 /dev/zero | tr '\\0' m",
            "-event-handler=user=head -c 20000 /dev/zero | tr '\\0' u",
        ])
        .start();
    let peer = plan(Kind::Fyrd, "n2").start();
    peer.cli(&["join", &agent.address()]).success();
    let answer = |asked: &Agent, name: &str| {
        let text = asked
            .cli(&["query", "-format=json", "-timeout=5s", name])
            .success();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        answer["Responses"]["n1"].as_str().map(str::to_owned)
    };
    side_by_side(
        &[("secret", "s", 13_004), ("large", "l", 900_000)],
        |&(name, letter, bytes)| {
            for asked in [&peer, &agent] {
                let given = answer(asked, name).unwrap_or_default();
                assert_eq!(given.len(), bytes, "{name}, {}", asked.name());
                assert!(given == letter.repeat(bytes), "{name}");
            }
        },
    );
    assert_eq!(answer(&peer, "most"), None);
    agent.says(
        "[WARN] agent: Failed to respond to query 'query: most': script 'head -c 2000000 /dev/zero | tr '\\0' m' \
         generated 2000000 bytes of output, an answer is limited to 1048576",
    );
    agent.cli(&["event", "e"]).success();
    agent.says("generated 20000 bytes of output, truncated to 8192");
    until("it is counted", || {
        let info = agent.cli(&["info"]).success();
        info.contains("done=1 failed=0 ended=0 dropped=0 unsent=1")
    });
}

/// A daemon that keeps its output open delays neither the answer nor the next event.
#[test]
fn a_handler_is_over_when_its_shell_is() {
    let daemon = "sleep 60 & echo $! >>pids";
    let agent = plan(Kind::Fyrd, "n1")
        .arg(format!("-event-handler=query:start={daemon}; echo started"))
        .arg(format!("-event-handler=user={daemon}; echo >>events"))
        .start();
    let text = agent.cli(&["query", "-timeout=10s", "start"]).success();
    for _ in 0..2 {
        agent.cli(&["event", "-coalesce=false", "e"]).success();
    }
    until("both have run", || agent.lines("events").len() == 2);
    let pids = agent.lines("pids");
    assert!(
        pids.len() == 3 && pids.iter().all(|pid| !is_over(pid)),
        "{pids:?}"
    );
    let ended = Command::new("kill").arg("-KILL").args(&pids).status();
    assert!(text.contains("Response from 'n1': started"), "{text}");
    assert!(ended.unwrap().success());
}

/// As the first process of a container, or a subreaper, an agent is given what its scripts leave behind.
#[test]
#[ignore = "needs the real Serf and python3 (tests/run)"]
fn what_scripts_leave_behind_is_reaped() {
    // PR_SET_CHILD_SUBREAPER stays over an exec.
    let subreaper = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])";
    let launcher = ["python3", "-c", subreaper].map(str::to_owned);
    for kind in [Kind::Fyrd, Kind::Serf] {
        let agent = plan(kind, "n1")
            .launcher(&launcher)
            .args(["-log-level=debug", "-event-handler=user=sleep 0.1 & echo >>ran"])
            .start();
        for _ in 0..10 {
            agent.cli(&["event", "-coalesce=false", "e"]).success();
        }
        until("all have run", || agent.lines("ran").len() == 10);
        if kind == Kind::Fyrd {
            agent.says_times("Reaped process ", 10);
            assert_eq!(zombies_of(&agent), 0);
        } else {
            until("Serf keeps them", || zombies_of(&agent) == 10);
        }
    }
}

fn zombies_of(agent: &Agent) -> usize {
    let children = Command::new("ps")
        .args(["-o", "stat=", "--ppid", &agent.pid().to_string()])
        .output()
        .expect("ps");
    let states = String::from_utf8_lossy(&children.stdout).into_owned();
    states.lines().filter(|state| state.starts_with('Z')).count()
}

#[test]
fn a_slow_handler_delays_no_query_and_no_gossip() {
    let agent = plan(Kind::Fyrd, "n1")
        .args([
            "-event-handler=user:slow,query:route=test $SERF_EVENT = query || { echo $$ >>slow; sleep 60; }; echo routed",
            "-event-handler=user:quick=echo >>quick",
            "-event-handler=query:ping=echo pong",
        ])
        .start();
    let start = Instant::now();
    for name in ["slow", "slow", "slow", "quick"] {
        agent.cli(&["event", "-coalesce=false", name]).success();
    }
    until("slow runs", || agent.lines("slow").len() == 1);
    side_by_side(&[("ping", "pong"), ("route", "routed")], |&(name, answer)| {
        let text = agent.cli(&["query", "-timeout=3s", name]).success();
        assert!(text.contains(answer), "{text}");
    });
    let peer = plan(Kind::Fyrd, "n2").start();
    agent.cli(&["join", &peer.address()]).success();
    agent.says("EventMemberJoin: n2");
    agent.cli(&["force-leave", "nobody"]).success();
    let info = agent.cli(&["info"]).success();
    assert!(start.elapsed() < Duration::from_secs(50), "slow was over");
    assert!(
        info.contains("queued=2 running=1 done=1 failed=0 ended=0 dropped=0"),
        "{info}"
    );
    assert!(
        info.contains("queued=1 running=0 done=0 failed=0 ended=0 dropped=0"),
        "{info}"
    );
    assert!(
        info.contains("\tuser:slow = test $SERF_EVENT = query || "),
        "{info}"
    );
    assert!(agent.lines("quick").is_empty(), "it overtook an event");
    // What a killed agent's scripts do is their own business, but not for a minute after the test.
    let group = format!("-{}", agent.lines("slow")[0]);
    let ended = Command::new("kill").args(["-KILL", "--", &group]).status();
    assert!(ended.unwrap().success());
}

#[test]
fn events_come_in_order_and_what_does_not_fit_is_counted() {
    let agent = plan(Kind::Fyrd, "n1")
        .args([
            "-event-handler=user:step=cat >> steps",
            "-event-handler=user:flood=while ! test -e go; do sleep 0.05; done",
        ])
        .start();
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for number in &expected {
        agent.cli(&["event", "-coalesce=false", "step", number]).success();
    }
    until("all steps ran", || agent.lines("steps").len() == 30);
    assert_eq!(agent.lines("steps"), expected);
    // One runs, 1,024 wait.
    for _ in 0..1030 {
        agent.cli(&["event", "-coalesce=false", "flood"]).success();
    }
    let counted = |counts: &str| {
        until(counts, || agent.cli(&["info"]).success().contains(counts));
    };
    counted("queued=1024 running=1 done=0 failed=0 ended=0 dropped=5");
    agent.says("events wait for it, 1 were dropped so far");
    agent.write("go", "");
    counted("queued=0 running=0 done=1025 failed=0 ended=0 dropped=5");
}

#[test]
fn a_time_limit_ends_a_script_with_all_it_started() {
    // Long enough for a script to begin in, on a busy machine too.
    let agent = plan(Kind::Fyrd, "n1")
        .with_file("c.json", r#"{"handler_timeout":"2s"}"#)
        .args([
            "-config-file=c.json",
            "-event-handler=user=sleep 60 & echo $! >> pids; echo $$ >> pids; wait",
            "-event-handler=query:q=echo partly; sleep 60",
        ])
        .start();
    for _ in 0..2 {
        agent.cli(&["event", "-coalesce=false", "e"]).success();
    }
    let text = agent.cli(&["query", "-timeout=5s", "q"]).success();
    assert!(text.contains("Total Responses: 0"), "{text}");
    agent.says_times("wait': ended after the time limit of 2s", 2);
    let pids = agent.lines("pids");
    assert_eq!(pids.len(), 4);
    for pid in pids {
        until("the process ends", || is_over(&pid));
    }
    until("both are counted", || {
        let info = agent.cli(&["info"]).success();
        info.contains("queued=0 running=0 done=0 failed=0 ended=2 dropped=0")
    });
}

#[test]
fn a_leave_gives_handlers_time_but_not_for_ever() {
    let mut agent = plan(Kind::Fyrd, "n1")
        .args([
            // Else its own leave would wait for the other.
            "-handler-order=independent",
            "-event-handler=member-leave=sleep 0.5; cat >> left",
            "-event-handler=user=echo $$ >> pid; sleep 60",
        ])
        .start();
    agent.says("Received event: member-join");
    agent.cli(&["event", "-coalesce=false", "e"]).success();
    until("the script runs", || !agent.lines("pid").is_empty());
    let start = Instant::now();
    agent.signal("INT");
    assert_eq!(agent.ended(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(agent.read("left").starts_with("n1\t127.0.0.1\t"));
    agent.says("Error invoking script 'echo $$ >> pid; sleep 60': ended because the agent ends");
    until("the process ends", || is_over(&agent.lines("pid")[0]));
}

#[test]
fn the_handler_router_recipe_works() {
    let agent = plan(Kind::Fyrd, "n1")
        .with_file(
            "router.sh",
            "#!/bin/sh\nHANDLER_DIR=handlers\n\
             case $SERF_EVENT in\n\
             user) EVENT=user-$SERF_USER_EVENT ;;\n\
             query) EVENT=query-$SERF_QUERY_NAME ;;\n\
             *) EVENT=$SERF_EVENT ;;\n\
             esac\n\
             HANDLER=$HANDLER_DIR/$EVENT\n\
             [ -f \"$HANDLER\" ] && [ -x \"$HANDLER\" ] && exec \"$HANDLER\" || exit 0\n",
        )
        .with_file("handlers/user-deploy", "#!/bin/sh\ncat >> deployed\n")
        .with_file("handlers/query-load", "#!/bin/sh\necho load of $(cat)\n")
        .arg("-event-handler=./router.sh")
        .start();
    agent.cli(&["event", "deploy", "v1"]).success();
    until("deployed", || agent.read("deployed") == "v1\n");
    let text = agent.cli(&["query", "-timeout=3s", "load", "cpu"]).success();
    assert!(text.contains("Response from 'n1': load of cpu"), "{text}");
    let text = agent.cli(&["query", "-timeout=3s", "unknown"]).success();
    assert!(
        text.contains("Total Acks: 1") && text.contains("Total Responses: 0"),
        "{text}"
    );
    let log = agent.log();
    assert!(!log.contains("Error invoking script"), "{log}");
}

const JOIN: &str = "#!/bin/sh\n[ \"$SERF_TAG_ROLE\" = lb ] || exit 0\n\
     while read line; do\n\
     ROLE=$(echo $line | awk '{print $3}'); [ \"$ROLE\" = web ] || continue\n\
     echo $line | awk '{ printf \"    server %s %s check\\n\", $1, $2 }' >> haproxy.cfg\n\
     done\necho >> reloads\n";
const LEAVE: &str = "#!/bin/sh\n[ \"$SERF_TAG_ROLE\" = lb ] || exit 0\n\
     while read line; do\n\
     NAME=$(echo $line | awk '{print $1}'); sed -i \"/$NAME /d\" haproxy.cfg\n\
     done\necho >> reloads\n";

/// An agent of the demo of Serf's web load balancer.
fn balanced(name: &str, role: &str) -> Agent {
    plan(Kind::Fyrd, name)
        .with_file("join.sh", JOIN)
        .with_file("leave.sh", LEAVE)
        .arg(format!("-tag=role={role}"))
        .args([
            "-event-handler=member-join=./join.sh",
            "-event-handler=member-leave,member-failed=./leave.sh",
            "-event-handler=query:load=uptime",
        ])
        .start()
}

/// The demo of Serf's web load balancer: scripts keep a list of servers up to date.
#[test]
fn the_web_load_balancer_demo_works() {
    let balancer = balanced("lb", "lb");
    balancer.says("Received event: member-join");
    until("its own join is over", || balancer.lines("reloads").len() == 1);
    let mut webs = ["w1", "w2", "w3"].map(|name| balanced(name, "web"));
    for web in &webs {
        web.cli(&["join", &balancer.address()]).success();
    }
    let servers = || {
        let mut servers = balancer.lines("haproxy.cfg");
        servers.sort();
        servers
    };
    let server = |name: &str| format!("    server {name} 127.0.0.1 check");
    until("all serve", || servers() == ["w1", "w2", "w3"].map(server));
    let text = balancer
        .cli(&["query", "-no-ack", "-timeout=5s", "load"])
        .success();
    assert!(text.contains("Total Responses: 4"), "{text}");
    webs[0].cli(&["leave"]).success();
    assert_eq!(webs[0].ended(), Some(0));
    until("one has left", || servers() == ["w2", "w3"].map(server));
    webs[1].kill();
    until("one has failed", || servers() == ["w3"].map(server));
}

/// The two scripts of that demo write one file. All servers are replaced at once, FYRD_SWAPS times.
#[test]
fn a_blue_green_swap_leaves_the_balancer_with_the_new_servers() {
    const WEBS: usize = 6;
    let swaps = std::env::var("FYRD_SWAPS").map_or(2, |swaps| swaps.parse().unwrap());
    let balancer = balanced("lb", "lb");
    let webs = |swap: usize| {
        let names: Vec<String> = (0..WEBS).map(|web| format!("web-{swap}-{web}")).collect();
        names
            .iter()
            .map(|name| balanced(name, "web"))
            .collect::<Vec<Agent>>()
    };
    let join = |web: &Agent| drop(web.cli(&["join", &balancer.address()]).success());
    let serve = |webs: &[Agent]| {
        let mut expected: Vec<String> = webs
            .iter()
            .map(|web| format!("    server {} 127.0.0.1 check", web.name()))
            .collect();
        expected.sort();
        eventually("exactly the living serve", PATIENCE, || {
            let mut servers = balancer.lines("haproxy.cfg");
            servers.sort();
            if servers == expected {
                Ok(())
            } else {
                Err(servers.join("\n"))
            }
        });
    };
    let mut old = webs(0);
    old.iter().for_each(join);
    serve(&old);
    for swap in 1..=swaps {
        let mut new = webs(swap);
        std::thread::scope(|scope| {
            for (old, new) in old.iter().zip(&new) {
                scope.spawn(|| old.cli(&["leave"]).success());
                scope.spawn(|| join(new));
            }
        });
        serve(&new);
        std::mem::swap(&mut old, &mut new);
    }
}
