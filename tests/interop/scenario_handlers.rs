//! What people do with event handlers: deploy by event, watch everything, answer an event with an event.
//!
//! Each scenario runs on a cluster of Fyrd, on one of both kinds, and on one of the real Serf, so that the
//! expectations themselves are checked as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually, side_by_side};
use fyrd_core::wire::message::{PushNodeState, PushPull, StreamMessage};

/// The kinds of the three agents of a cluster.
type Cluster = [Kind; 3];

const CLUSTERS: [Cluster; 3] = [
    [Kind::Fyrd, Kind::Fyrd, Kind::Fyrd],
    [Kind::Fyrd, Kind::Serf, Kind::Fyrd],
    [Kind::Serf, Kind::Serf, Kind::Serf],
];

/// An agent with the timing for one machine.
fn plan(kind: Kind, name: &str) -> Plan {
    Plan::new(kind, name).arg("-profile=local")
}

fn write_script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}")).expect("the script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the script's mode");
    path
}

/// Waits until a file in the agent's folder, where its handlers run, holds exactly this.
#[track_caller]
fn holds(agent: &Agent, file: &str, want: &str) {
    eventually(
        &format!("{file} of {} holds {want:?}", agent.name()),
        PATIENCE,
        || match fs::read_to_string(agent.file(file)) {
            Ok(text) if text == want => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_deploy_event_runs_everywhere_and_acts_where_the_role_is_right() {
    side_by_side(&CLUSTERS, deploy);
}

fn deploy(kinds: &Cluster) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = write_script(
        folder.path(),
        "deploy",
        r#"payload=$(cat)
echo "$SERF_EVENT $payload" >>ran
[ "$SERF_SELF_ROLE" = web ] || exit 0
echo "$SERF_SELF_NAME $SERF_USER_EVENT $payload" >>deployed
"#,
    );
    let start = |kind, name: &str, role: &str, seed: Option<&Agent>| {
        let config = serde_json::json!({
            "role": role,
            "profile": "local",
            "event_handlers": [format!("user:deploy={}", script.display()), "user:other=echo other >>ran"],
            "start_join": seed.map(Agent::address).into_iter().collect::<Vec<_>>(),
        });
        let path = folder.path().join(format!("{name}.json"));
        fs::write(&path, config.to_string()).expect("the config file");
        Plan::new(kind, name)
            .arg(format!("-config-file={}", path.display()))
            .start()
    };
    let one = start(kinds[0], "one", "web", None);
    let two = start(kinds[1], "two", "web", Some(&one));
    let three = start(kinds[2], "three", "lb", Some(&one));
    all_alive(&[&one, &two, &three]);

    for (version, from) in [("v1", &three), ("v2", &two)] {
        let said = from.cli(&["event", "deploy", version]).success();
        assert_eq!(said.trim(), "Event 'deploy' dispatched! Coalescing enabled: true");
        // Both at once could be coalesced into the later one, and only that one be delivered.
        for agent in [&one, &two, &three] {
            let ran = if version == "v1" {
                "user v1\n"
            } else {
                "user v1\nuser v2\n"
            };
            holds(agent, "ran", ran);
        }
    }
    holds(&one, "deployed", "one deploy v1\none deploy v2\n");
    holds(&two, "deployed", "two deploy v1\ntwo deploy v2\n");
    assert!(!three.file("deployed").exists(), "a balancer has deployed");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_handler_for_everything_sees_each_event_its_members_and_the_new_state() {
    side_by_side(&CLUSTERS, watch);
}

/// What one run of the handler has written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    event: String,
    stdin: Vec<String>,
    /// Name to state, as `members` listed them meanwhile.
    members: BTreeMap<String, String>,
}

fn watch(kinds: &Cluster) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = write_script(
        folder.path(),
        "watch",
        r#"{
    echo "event $SERF_EVENT"
    sed 's/^/stdin /'
    "$1" members -rpc-addr="127.0.0.1:$2" | sed 's/^/member /'
    echo end
} >>runs
"#,
    );
    let handler = format!("{} {} {{rpc}}", script.display(), kinds[0].program());
    let watcher = plan(kinds[0], "watcher")
        .arg(format!("-event-handler={handler}"))
        .start();
    has_run(
        &watcher,
        "member-join",
        "watcher\t127.0.0.1\t\t",
        "watcher",
        "alive",
    );

    let two = plan(kinds[1], "two")
        .args(["-tag=role=web", "-tag=http=8081"])
        .join(&watcher)
        .start();
    let run = has_run(&watcher, "member-join", "two\t127.0.0.1\tweb\t", "two", "alive");
    let tags = run.stdin[0].rsplit('\t').next().unwrap_or_default();
    let mut tags: Vec<&str> = tags.split(',').collect();
    tags.sort_unstable();
    assert_eq!(tags, ["http=8081", "role=web"]);

    let mut three = plan(kinds[2], "three").join(&watcher).start();
    has_run(&watcher, "member-join", "three\t127.0.0.1\t\t", "three", "alive");

    two.cli(&["leave"]).success();
    has_run(&watcher, "member-leave", "two\t127.0.0.1\tweb\t", "two", "left");
    three.kill();
    has_run(
        &watcher,
        "member-failed",
        "three\t127.0.0.1\t\t",
        "three",
        "failed",
    );

    watcher.cli(&["event", "note", "to all"]).success();
    has_run(&watcher, "user", "to all", "watcher", "alive");
}

/// Waits for a run with this event and a line on stdin that starts like this, which found that state.
#[track_caller]
fn has_run(agent: &Agent, event: &str, stdin: &str, member: &str, status: &str) -> Run {
    let what = format!("a handler run for {event} with {stdin:?} that found {member} {status}");
    eventually(&what, PATIENCE, || {
        let runs = parse_runs(&fs::read_to_string(agent.file("runs")).unwrap_or_default());
        let found = runs.iter().find(|run| {
            run.event == event
                && run.stdin.iter().any(|line| line.starts_with(stdin))
                && run.members.get(member).is_some_and(|found| found == status)
        });
        found.cloned().ok_or_else(|| format!("{runs:#?}"))
    })
}

fn parse_runs(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    // A run that still goes on has no end line yet.
    let complete = text.rsplit_once("end\n").map_or("", |(complete, _)| complete);
    for block in complete.split("end\n") {
        let values = |prefix: &'static str| block.lines().filter_map(move |line| line.strip_prefix(prefix));
        let members = values("member ").filter_map(|row| {
            let mut columns = row.split_whitespace();
            Some((columns.next()?.to_owned(), columns.nth(1)?.to_owned()))
        });
        runs.push(Run {
            event: values("event ").collect(),
            stdin: values("stdin ").map(str::to_owned).collect(),
            members: members.collect(),
        });
    }
    runs
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn an_event_is_answered_by_events_of_all_who_received_it() {
    side_by_side(&CLUSTERS, memory);
}

fn memory(kinds: &Cluster) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Answers of several nodes in one second would be coalesced into the last of them.
    let script = write_script(
        folder.path(),
        "mem",
        r#"free=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
exec "$1" event -rpc-addr="127.0.0.1:$2" -coalesce=false memresponse "$SERF_SELF_NAME $free"
"#,
    );
    let start = |kind: Kind, name: &str, seed: Option<&Agent>| {
        let mem = format!("{} {} {{rpc}}", script.display(), kind.program());
        let mut plan = plan(kind, name)
            .arg(format!("-event-handler=user:mem={mem}"))
            .arg("-event-handler=user:memresponse=cat >>answers");
        if let Some(seed) = seed {
            plan = plan.join(seed);
        }
        plan.start()
    };
    let one = start(kinds[0], "one", None);
    let two = start(kinds[1], "two", Some(&one));
    let three = start(kinds[2], "three", Some(&one));
    all_alive(&[&one, &two, &three]);

    one.cli(&["event", "mem"]).success();
    for agent in [&one, &two, &three] {
        eventually(&format!("{} has all answers", agent.name()), PATIENCE, || {
            let answers = fs::read_to_string(agent.file("answers")).unwrap_or_default();
            let mut from: Vec<&str> = Vec::new();
            for line in answers.lines() {
                let (name, free) = line.split_once(' ').ok_or(line)?;
                assert!(free.parse::<u64>().is_ok_and(|free| free > 0), "{line:?}");
                from.push(name);
            }
            from.sort_unstable();
            if from == ["one", "three", "two"] {
                Ok(())
            } else {
                Err(answers)
            }
        });
    }
}

/// One exchange of states can bring more members than usually come in a day; no handler may miss one.
#[test]
fn joining_a_large_cluster_brings_every_member_to_the_handlers() {
    let agent = Plan::new(Kind::Fyrd, "n1")
        .args(["-profile=local", "-event-handler=member-join=cut -f1 >>joined"])
        .start();
    let names: BTreeSet<String> = (0..6000).map(|n| format!("member-{n}")).collect();
    let node = |name| PushNodeState {
        name,
        addr: &[127, 0, 0, 1],
        port: 9,
        incarnation: 1,
        vsn: &[1, 5, 2, 2, 5, 5],
        ..PushNodeState::default()
    };
    let state = PushPull {
        join: true,
        nodes: names.iter().map(|name| node(name.as_str())).collect(),
        ..PushPull::default()
    };
    let mut bytes = Vec::new();
    StreamMessage::PushPull(state).encode(&mut bytes);
    let mut stream = TcpStream::connect(agent.address()).expect("a connection");
    stream.write_all(&bytes).expect("the state is taken");

    let lost = || agent.log().contains("it lost an event");
    eventually("the handler has seen every member", PATIENCE, || {
        let joined = fs::read_to_string(agent.file("joined")).unwrap_or_default();
        let seen: BTreeSet<&str> = joined.lines().filter(|name| *name != "n1").collect();
        let missing = names.iter().filter(|name| !seen.contains(name.as_str())).count();
        assert!(!lost(), "{missing} are missing");
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} are missing"))
        }
    });
}
