//! From Serf to Fyrd and back: an agent of a running, encrypted cluster is replaced by the other program,
//! with the same flags on the same snapshot.

use std::fs;
use std::net::TcpListener;

use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually, until};

/// How the real agent ends before it is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Killed,
    Left,
}

fn plan(kind: Kind, name: &str) -> Plan {
    let plan = Plan::new(kind, name).arg("-profile=local").key(Some(KEY_32));
    plan.arg("-event-handler=user=echo $SERF_USER_EVENT >>events")
}

/// Two that stay and one that moves, which nobody named in its flags.
fn cluster(flags: &[&str]) -> (Agent, Agent, Agent) {
    let s = plan(Kind::Serf, "s").start();
    let f = plan(Kind::Fyrd, "f").join(&s).start();
    let mover = plan(Kind::Serf, "mover")
        .arg("-snapshot=snap")
        .args(flags.iter().copied())
        .start();
    mover.cli(&["join", &s.address()]).success();
    all_alive(&[&s, &f, &mover]);
    (s, f, mover)
}

/// Sends an event, and waits until the agent has handled it.
#[track_caller]
fn handles(agent: &Agent, from: &Agent, event: &str) {
    from.cli(&["event", event]).success();
    waits_for(agent, event);
}

#[track_caller]
fn waits_for(agent: &Agent, event: &str) {
    eventually(&format!("{event} is handled"), PATIENCE, || {
        let found = events(agent);
        if found.lines().any(|line| line == event) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

fn events(agent: &Agent) -> String {
    fs::read_to_string(agent.file("events")).unwrap_or_default()
}

fn stop(mover: &mut Agent, end: End) {
    mover.settle_snapshot(&mover.file("snap"));
    match end {
        End::Killed => mover.kill(),
        End::Left => leave(mover),
    }
}

fn leave(agent: &mut Agent) {
    agent.signal("INT");
    assert_eq!(agent.ended(), Some(0));
}

/// Puts Serf's form of the store in its place.
fn export(mover: &Agent) {
    let (snap, text, kept) = (mover.file("snap"), mover.file("text"), mover.file("kept"));
    let output = format!("-output={}", text.display());
    let line = [
        "snapshot",
        "export",
        "-format=serf",
        &output,
        snap.to_str().unwrap(),
    ];
    Kind::Fyrd.run(&line).success();
    fs::rename(&snap, kept).unwrap();
    fs::rename(text, snap).unwrap();
}

/// There and back without a leave: nothing is handled twice, nothing is missed.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn killed_agents_are_replaced_without_anybody_noticing() {
    let (s, f, mut mover) = cluster(&[]);
    handles(&mover, &s, "e1");
    stop(&mut mover, End::Killed);
    s.cli(&["event", "e2"]).success();

    mover.become_kind(Kind::Fyrd);
    mover.restart();
    all_alive(&[&s, &f, &mover]);
    // By its own memory, or because a member that it does not know yet has pinged it just before.
    until("it has rejoined", || {
        let log = mover.log();
        let ways = [
            "Re-joined to previously known node: ",
            ", which has pinged this node",
        ];
        ways.iter().any(|way| log.contains(way))
    });
    waits_for(&mover, "e2");
    handles(&mover, &f, "e3");
    // What was imported is kept, and is not imported again.
    assert!(
        fs::read_to_string(mover.file("snap.serf-imported"))
            .unwrap()
            .contains("alive: ")
    );
    // It tells how it is once all it has handled is stored. What is not would be handled again.
    mover.info();
    mover.kill();
    s.cli(&["event", "e4"]).success();
    mover.restart();
    all_alive(&[&s, &f, &mover]);
    waits_for(&mover, "e4");

    mover.signal("TERM");
    assert_eq!(mover.ended(), Some(1));
    export(&mover);
    f.cli(&["event", "e5"]).success();
    mover.become_kind(Kind::Serf);
    mover.restart();
    all_alive(&[&s, &f, &mover]);
    waits_for(&mover, "e5");
    handles(&mover, &s, "e6");
    assert_eq!(events(&mover), "e1\ne2\ne3\ne4\ne5\ne6\n");
}

/// With -rejoin a leave is no obstacle, there or back.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn agents_that_left_rejoin_when_told_to() {
    let (s, f, mut mover) = cluster(&["-rejoin"]);
    handles(&mover, &s, "e1");
    stop(&mut mover, End::Left);
    all_see(&[&s, &f], &[("f", "alive"), ("mover", "left"), ("s", "alive")]);

    mover.become_kind(Kind::Fyrd);
    mover.restart();
    all_alive(&[&s, &f, &mover]);
    assert!(
        mover
            .log()
            .contains("[INFO] serf: Ignoring previous leave in snapshot"),
        "{}",
        mover.log()
    );
    handles(&mover, &f, "e2");
    leave(&mut mover);
    all_see(&[&s, &f], &[("f", "alive"), ("mover", "left"), ("s", "alive")]);

    export(&mover);
    mover.become_kind(Kind::Serf);
    mover.restart();
    all_alive(&[&s, &f, &mover]);
    handles(&mover, &s, "e3");
    assert_eq!(events(&mover), "e1\ne2\ne3\n");
}

/// Without it, who has left stays away until it is told to join.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn agents_that_left_stay_away() {
    let (s, f, mut mover) = cluster(&[]);
    stop(&mut mover, End::Left);
    let without = [("f", "alive"), ("mover", "left"), ("s", "alive")];
    all_see(&[&s, &f], &without);
    mover.become_kind(Kind::Fyrd);
    mover.restart();
    // A rejoin would begin within a second; this event takes longer to be everywhere.
    handles(&s, &f, "e1");
    handles(&f, &s, "e2");
    f.cli(&["query", "-timeout=1s", "tick"]).success();
    assert_eq!(mover.statuses().unwrap().len(), 1);
    assert!(!mover.log().contains("re-join"), "{}", mover.log());
    all_see(&[&s, &f], &without);
    mover.cli(&["join", &s.address()]).success();
    all_alive(&[&s, &f, &mover]);
}

/// A member that is gone for good delays nobody, and one that comes back later is found.
#[test]
fn a_lonely_agent_goes_on_trying() {
    let mut a = plan(Kind::Fyrd, "a").arg("-snapshot=snap").start();
    let mut b = plan(Kind::Fyrd, "b").start();
    a.cli(&["join", &b.address()]).success();
    all_alive(&[&a, &b]);
    // With this it has stored whom it knows.
    a.info();
    a.kill();
    b.kill();
    // Somebody who accepts and never answers.
    let silent = TcpListener::bind(b.address()).unwrap();
    a.restart();
    let failed = "[WARN] serf: Failed to re-join any previously known node";
    eventually("the first round has failed", PATIENCE, || {
        a.log().contains(failed).then_some(()).ok_or(a.log())
    });
    let attempt = format!(
        "[INFO] serf: Attempting re-join to previously known node: b: {}",
        b.address()
    );
    assert_eq!(a.log().matches(&attempt).count(), 1, "{}", a.log());
    drop(silent);
    b.restart();
    all_alive(&[&a, &b]);
}
