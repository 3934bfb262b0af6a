//! What users say and ask in a mixed, encrypted cluster: every event once at every agent, queries only
//! where their filters point, answers with relays, and what a joiner hears of the past.

use std::collections::BTreeMap;

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually, heard, side_by_side};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn plan(kind: Kind, name: &str, role: &str) -> Plan {
    Plan::new(kind, name).key(Some(KEY)).args([
        format!("-tag=role={role}"),
        "-event-handler=query:who=echo $SERF_SELF_NAME".to_owned(),
    ])
}

/// Two agents of each kind, a Fyrd seed and a Serf seed among them.
fn cluster() -> [Agent; 4] {
    let f1 = plan(Kind::Fyrd, "f1", "web").start();
    let s1 = plan(Kind::Serf, "s1", "web").join(&f1).start();
    let f2 = plan(Kind::Fyrd, "f2", "db").join(&s1).start();
    let s2 = plan(Kind::Serf, "s2", "db").join(&f1).start();
    all_alive(&[&f1, &s1, &f2, &s2]);
    [f1, s1, f2, s2]
}

/// The names in the lines of a query's output that begin so, sorted.
fn names(output: &str, prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = output
        .lines()
        .filter_map(|line| line.strip_prefix(prefix)?.split('\'').nth(1).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn every_event_reaches_every_agent_once() {
    let agents = cluster();
    let rounds = 15;
    for round in 0..rounds {
        for agent in &agents {
            let name = format!("e{round}-{}", agent.name());
            agent
                .cli(&["event", "-coalesce=false", &name, "payload"])
                .success();
        }
    }
    let want: BTreeMap<String, usize> = (0..rounds)
        .flat_map(|round| {
            agents
                .iter()
                .map(move |agent| (format!("e{round}-{}", agent.name()), 1))
        })
        .collect();
    for agent in &agents {
        eventually(&format!("all events at {}", agent.name()), PATIENCE, || {
            let got = heard(&agent.log(), "e");
            if got.len() < want.len() {
                Err(format!("{} of {}", got.len(), want.len()))
            } else {
                Ok(())
            }
        });
    }
    // Repeats travel for some rounds of gossip yet; a query and its answers take as long.
    agents[0].cli(&["query", "-timeout=2s", "nobody"]).success();
    for agent in &agents {
        assert_eq!(heard(&agent.log(), "e"), want, "at {}", agent.name());
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn queries_are_answered_by_those_they_are_for() {
    let agents = cluster();
    let table: [(&[&str], &[&str]); 6] = [
        (&[], &["f1", "f2", "s1", "s2"]),
        (&["-node=f2", "-node=s1"], &["f2", "s1"]),
        (&["-tag=role=^w"], &["f1", "s1"]),
        (&["-tag=role=^d", "-node=s2", "-node=f1"], &["s2"]),
        (&["-relay-factor=2"], &["f1", "f2", "s1", "s2"]),
        (&["-relay-factor=3", "-tag=role=b$"], &["f1", "f2", "s1", "s2"]),
    ];
    side_by_side(&[0, 1, 2, 3], |asker| {
        let asker = &agents[*asker];
        for (filters, want) in table {
            let mut words = vec!["query", "-timeout=2s"];
            words.extend_from_slice(filters);
            words.push("who");
            let what = format!("{} asks with {filters:?}", asker.name());
            let output = asker.cli(&words).success();
            assert_eq!(names(&output, "Ack from "), want, "{what}\n{output}");
            assert_eq!(names(&output, "Response from "), want, "{what}\n{output}");
            let totals = format!("Total Acks: {0}\nTotal Responses: {0}", want.len());
            assert!(output.contains(&totals), "{what}\n{output}");
        }
        let output = asker
            .cli(&["query", "-timeout=500ms", "-no-ack", "who"])
            .success();
        assert!(!output.contains("Ack"), "{output}");
    });
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_joiner_hears_of_the_past_only_when_it_wants_to() {
    let agents = cluster();
    for n in 0..5 {
        agents[n % 4]
            .cli(&["event", "-coalesce=false", &format!("past{n}")])
            .success();
    }
    for agent in &agents {
        eventually("the past at all", PATIENCE, || {
            match heard(&agent.log(), "past").len() {
                5 => Ok(()),
                other => Err(format!("{other} at {}", agent.name())),
            }
        });
    }
    for (seed, kind) in [(0, Kind::Fyrd), (1, Kind::Fyrd), (0, Kind::Serf), (1, Kind::Serf)] {
        for replay in [false, true] {
            let name = format!("{kind:?}-{seed}-{replay}").to_lowercase();
            let joiner = plan(kind, &name, "new")
                .arg(format!("-replay={replay}"))
                .join(&agents[seed])
                .start();
            // What is said after the join is heard in any case, and tells that the past is through.
            let now = format!("now-{name}");
            agents[seed].cli(&["event", "-coalesce=false", &now]).success();
            eventually(&format!("{name} hears the present"), PATIENCE, || {
                match heard(&joiner.log(), "now-").get(&now) {
                    Some(1) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            let past = heard(&joiner.log(), "past");
            assert_eq!(past.len(), if replay { 5 } else { 0 }, "{name}");
            assert!(past.values().all(|count| *count == 1), "{name}: {past:?}");
            joiner.cli(&["leave"]).success();
        }
    }
}
