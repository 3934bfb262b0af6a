//! Serf's text snapshot between the two programs: ours reads what the real agent writes, and the real agent
//! goes on from what ours writes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, all_see, eventually};
use fyrd::snapshot::serf_text::{self, Imported, Reading, Warnings};
use fyrd_core::addr::RawAddr;
use fyrd_core::node::memory::{Marks, MemberRecord, Memory, SeenEvent};
use fyrd_core::serf::MemberStatus;
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;

/// Writes down each user event with its Lamport time.
const NOTE_EVENTS: &str = "-event-handler=user=echo $SERF_USER_EVENT $SERF_USER_LTIME >>events";

fn serf(name: &str) -> Plan {
    let plan = Plan::new(Kind::Serf, name).arg("-profile=local");
    plan.arg("-snapshot=snap").arg(NOTE_EVENTS)
}

fn read(agent: &Agent, rejoin_after_leave: bool) -> Imported {
    let text = fs::read(agent.file("snap")).unwrap();
    let reading = Reading {
        node: Some(agent.name()),
        rejoin_after_leave,
        now: Time::ZERO,
    };
    serf_text::parse(&text, reading)
}

fn members(imported: &Imported) -> Vec<(String, String)> {
    let members = imported.memory.members.iter();
    members
        .map(|member| (member.facts.name.to_string(), member.facts.socket().to_string()))
        .collect()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The clocks as the agent shows them.
fn clocks(agent: &Agent) -> [u64; 3] {
    let info = agent.info();
    ["member_time", "event_time", "query_time"].map(|clock| info["serf"][clock].parse().unwrap())
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn what_the_real_agent_writes_is_read() {
    let mut a = serf("a").start();
    let mut b = serf("two words").join(&a).start();
    let mut c = serf("c").join(&a).start();
    all_alive(&[&a, &b, &c]);
    for event in ["e1", "e2", "e3"] {
        a.cli(&["event", event]).success();
    }
    a.cli(&["query", "-timeout=1s", "q"]).success();
    c.signal("INT");
    assert_eq!(c.ended(), Some(0));
    let after_leave = [("a", "alive"), ("c", "left"), ("two words", "alive")];
    all_see(&[&a, &b], &after_leave);
    a.settle_snapshot(&a.file("snap"));
    let before = clocks(&a);
    a.kill();
    let imported = read(&a, false);
    assert_eq!(imported.warnings, Warnings::default());
    assert!(!imported.left);
    assert_eq!(members(&imported), [("two words".to_owned(), b.address())]);
    let marks = imported.memory.marks;
    assert_eq!([marks.member, marks.event, marks.query], before);
    assert_eq!((marks.event_floor, marks.query_floor), (4, marks.query));
    // The one that left knew all of them.
    let overlooked = read(&c, true);
    assert!(overlooked.left);
    let both = [
        ("a".to_owned(), a.address()),
        ("two words".to_owned(), b.address()),
    ];
    let mut found = members(&overlooked);
    found.sort();
    assert_eq!(found, both);
    let left = read(&c, false);
    assert!(left.left && left.memory.members.is_empty());
    assert_eq!(
        (left.memory.marks.event_floor, left.warnings),
        (1, Warnings::default())
    );
    // Killed between its lines and a file of another kind's.
    b.kill();
    fs::write(
        b.file("snap"),
        [fs::read(b.file("snap")).unwrap(), b"alive: cut".to_vec()].concat(),
    )
    .unwrap();
    assert_eq!(read(&b, false).warnings, Warnings::default());
}

/// What an agent has handled that knew `peer` and saw the event with this Lamport time.
fn memory(peer: &Agent, seen: u64) -> Memory {
    let peer_addr: std::net::SocketAddr = peer.address().parse().unwrap();
    let member = |name: &str, port, status, since| MemberRecord {
        facts: Arc::new(Facts {
            name: name.into(),
            addr: RawAddr::from(peer_addr.ip()),
            port,
            meta: Box::default(),
            vsn: [1, 5, 2, 2, 5, 5],
        }),
        incarnation: 9,
        status,
        status_ltime: 1,
        since: Time::from_nanos(since),
    };
    Memory {
        marks: Marks {
            incarnation: 7,
            member: 40,
            event: 30,
            query: 20,
            event_floor: 1,
            query_floor: 1,
        },
        members: vec![
            member("nobody", 1, MemberStatus::Alive, 2),
            member(peer.name(), peer_addr.port(), MemberStatus::Alive, 1),
            member("lost", 1, MemberStatus::Failed, 3),
        ],
        events: vec![SeenEvent {
            ltime: seen,
            place: 0,
            name: "e".into(),
            payload: Box::default(),
        }],
        queries: Vec::new(),
    }
}

/// Starts the real agent on what ours writes.
fn start_on(memory: &Memory, left: bool, flags: &[&str]) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported");
    fs::write(&path, serf_text::write(memory, left).text).unwrap();
    let plan = Plan::new(Kind::Serf, "a").arg(format!("-snapshot={}", path.display()));
    let agent = plan
        .arg("-profile=local")
        .arg(NOTE_EVENTS)
        .args(flags.iter().copied())
        .start();
    assert!(!agent.log().contains("snapshot line"), "{}", agent.log());
    (agent, folder)
}

/// An agent in whose buffer two events wait.
fn with_events() -> Agent {
    let b = serf("b").start();
    for event in ["e1", "e2"] {
        b.cli(&["event", event]).success();
    }
    b
}

/// Sends a last event, and waits until the agent has handled just these and that one.
#[track_caller]
fn handles(agent: &Agent, b: &Agent, missed: &[&str]) {
    b.cli(&["event", "last"]).success();
    let last = format!("last {}", clocks(b)[1] - 1);
    eventually("the last event is handled", PATIENCE, || {
        let found = lines(&agent.file("events"));
        if found.contains(&last) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    let wanted: Vec<&str> = missed.iter().copied().chain([last.as_str()]).collect();
    assert_eq!(lines(&agent.file("events")), wanted);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn the_real_agent_goes_on_from_what_is_written() {
    let b = with_events();
    let (a, _folder) = start_on(&memory(&b, 1), false, &[]);
    all_alive(&[&a, &b]);
    let log = a.log();
    assert!(
        log.contains(&format!("Re-joined to previously known node: b: {}", b.address())),
        "{log}"
    );
    let [member, event, query] = clocks(&a);
    assert!(
        member >= 40 && event >= 2 && query >= 20,
        "{member} {event} {query}"
    );
    handles(&a, &b, &["e2 2"]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn the_real_agent_stays_away_after_a_leave_and_handles_nothing_twice() {
    let b = with_events();
    let (a, _folder) = start_on(&memory(&b, 1), true, &[]);
    a.cli(&["join", "-replay", &b.address()]).success();
    assert!(!a.log().contains("re-join"), "{}", a.log());
    all_alive(&[&a, &b]);
    handles(&a, &b, &["e2 2"]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn the_real_agent_overlooks_a_leave_when_told_to() {
    let b = with_events();
    let (a, _folder) = start_on(&memory(&b, 2), true, &["-rejoin"]);
    all_alive(&[&a, &b]);
    assert!(
        a.log().contains("Ignoring previous leave in snapshot"),
        "{}",
        a.log()
    );
    handles(&a, &b, &[]);
}
