//! `fyrd snapshot`, run against the stores of real agents.

use std::fs;

use crate::support::{Agent, Finished, Kind, Plan, all_alive, all_see};
use serde_json::Value;

fn snapshot(words: &[&str]) -> Finished {
    Kind::Fyrd.run(&[&["snapshot"], words].concat())
}

/// What the command says of a snapshot that it refuses.
#[track_caller]
fn refused(words: &[&str]) -> String {
    let finished = snapshot(words);
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(1), ""),
        "{finished:?}"
    );
    finished.stdout
}

fn clock(agent: &Agent, name: &str) -> u64 {
    agent.info()["serf"][name].parse().unwrap()
}

#[test]
fn what_a_killed_agent_goes_on_from_is_shown_and_exported() {
    let plan = |name| Plan::new(Kind::Fyrd, name).arg("-profile=local");
    let mut a = plan("a").arg("-snapshot=snap").start();
    let b = plan("two words").arg("-tag=role=web").join(&a).start();
    let mut c = plan("c").join(&a).start();
    all_alive(&[&a, &b, &c]);
    c.signal("INT");
    assert_eq!(c.ended(), Some(0));
    all_see(&[&a], &[("a", "alive"), ("c", "left"), ("two words", "alive")]);
    for event in ["e1", "e2"] {
        a.cli(&["event", event, "payload"]).success();
    }
    let path = a.file("snap");
    let snap = path.to_str().unwrap();

    // While it runs, it alone has its snapshot.
    let in_use = format!("in use by process {} (node 'a')", a.pid());
    for words in [["inspect", snap], ["export", snap]] {
        let said = refused(&words);
        assert!(
            said.starts_with("Error reading snapshot '") && said.contains(&in_use),
            "{said}"
        );
    }

    let clocks = ["member_time", "event_time", "query_time"].map(|name| clock(&a, name));
    a.kill();
    let json = snapshot(&["inspect", "-format=json", snap]).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["kind"], &json["node"], &json["left"]),
        (&"fyrd".into(), &"a".into(), &false.into())
    );
    assert_eq!(json["store"]["schema"], 1);
    for (name, time) in ["member_time", "event_time", "query_time"].iter().zip(clocks) {
        assert!(
            json["clocks"][name].as_u64() >= Some(time),
            "{name}: {time}, {json}"
        );
    }
    let events: Vec<_> = json["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["name"])
        .collect();
    assert_eq!(events, ["e1", "e2"]);
    assert_eq!(json["events"][0]["payload_bytes"], 7);
    let members = json["members"].as_array().unwrap();
    let shown: Vec<_> = members
        .iter()
        .map(|member| (&member["name"], &member["status"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&"c".into(), &"left".into()),
            (&"two words".into(), &Value::from("alive"))
        ]
    );
    assert_eq!(members[1]["addr"], b.address());
    assert_eq!(members[1]["tags"]["role"], "web");

    let text = snapshot(&["inspect", snap]).success();
    for line in [
        "\tkind = fyrd\n",
        "\tnode = a\n",
        "events:\n\tcount = 2\n\tfirst_time = 1\n\tlast_time = 2\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("\ttwo words  ") && last.ends_with("  role=web"),
        "{text}"
    );

    let written = snapshot(&["export", "-format=serf", snap]).success();
    let member = json["clocks"]["member_time"].as_u64().unwrap() - 1;
    let query = json["clocks"]["query_time"].as_u64().unwrap() - 1;
    let expected = format!(
        "alive: two words {}\nclock: {member}\nevent-clock: 2\nquery-clock: {query}\n",
        b.address()
    );
    assert_eq!(written, expected);

    // To a file, which is never replaced by mistake.
    let path = a.file("exported");
    let output = format!("-output={}", path.display());
    assert_eq!(
        snapshot(&["export", snap, &output]).success(),
        format!("Snapshot written to {}\n", path.display())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    fs::write(&path, "mine").unwrap();
    let exists = format!("Error: '{}' exists; use -force to replace it\n", path.display());
    assert_eq!(refused(&["export", &output, snap]), exists);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    snapshot(&["export", "-force", &output, snap]).success();
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let onto_store = refused(&["export", "-force", &format!("-output={snap}"), snap]);
    assert!(onto_store.starts_with("Error writing '"), "{onto_store}");

    // A look leaves no trace: the agent goes on as if nobody had looked.
    a.restart();
    all_see(
        &[&a, &b],
        &[("a", "alive"), ("c", "left"), ("two words", "alive")],
    );
    assert!(clock(&a, "event_time") >= clocks[1]);
    a.signal("INT");
    assert_eq!(a.ended(), Some(0));
    let json = snapshot(&["inspect", "-format=json", snap]).success();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["left"], true);
    assert!(snapshot(&["export", snap]).success().contains("\nleave\nclock: "));
}

#[test]
fn what_is_no_snapshot_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (missing, empty, foreign) = (inside("missing"), inside("empty"), inside("foreign"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&foreign).unwrap();
    fs::write(inside("foreign/letter.txt"), "Dear").unwrap();
    fs::write(inside("letter"), "Dear").unwrap();
    for verb in ["inspect", "export"] {
        for (path, reason) in [
            (&missing, "no such file or directory"),
            (&empty, ""),
            (&foreign, ""),
            (
                &inside("letter"),
                "it is neither a snapshot of Fyrd, which is a folder, nor a text snapshot of Serf",
            ),
        ] {
            let said = refused(&[verb, path]);
            assert!(
                said.starts_with(&format!("Error reading snapshot '{path}': ")),
                "{said}"
            );
            assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
        }
    }
    // Nothing was made or changed by looking.
    assert!(!fs::exists(&missing).unwrap());
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
    let usage = refused(&["inspect"]);
    assert!(
        usage.starts_with("The path of a snapshot must be specified.\n\nUsage: fyrd snapshot inspect "),
        "{usage}"
    );
}

/// What Serf writes is shown as well, while its agent runs too.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_snapshot_of_serf_is_shown() {
    let serf = Plan::new(Kind::Serf, "s").arg("-snapshot=snap").start();
    serf.cli(&["event", "e"]).success();
    let path = serf.file("snap");
    serf.settle_snapshot(&path);
    let text = snapshot(&["inspect", path.to_str().unwrap()]).success();
    assert!(text.contains("\tevent_time = 2\n"), "{text}");
    assert!(
        text.starts_with("snapshot:\n\tkind = serf\n\tleft = false\n"),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("\ts  {}  alive\n", serf.address())),
        "{text}"
    );
}
