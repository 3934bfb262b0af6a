//! An agent that hears nobody tells its own operator at once.

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, all_see, eventually};

#[test]
fn an_agent_whose_peers_all_fall_silent_says_so_by_event_info_and_log_and_takes_it_back() {
    let handler = "-event-handler=isolated,isolation-over=echo $SERF_EVENT >>events";
    let lonely = Plan::new(Kind::Fyrd, "lonely")
        .arg(handler)
        .arg("-event-handler=echo $SERF_EVENT >>all")
        .start();
    let peers: Vec<Agent> = (0..4)
        .map(|i| Plan::new(Kind::Fyrd, &format!("p{i}")).join(&lonely).start())
        .collect();
    let all: Vec<&Agent> = peers.iter().chain([&lonely]).collect();
    all_alive(&all);
    assert!(!lonely.info().contains_key("isolation"));
    for peer in &peers {
        peer.signal("STOP");
    }
    let wait_for = |lines: &[&str]| {
        eventually("the handler runs", PATIENCE, || {
            let found = lonely.lines("events");
            if found == lines {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
    };
    wait_for(&["isolated"]);
    assert!(lonely.info().contains_key("isolation"), "{:?}", lonely.info());
    lonely.says("this host may be cut off");
    for peer in &peers {
        peer.signal("CONT");
    }
    wait_for(&["isolated", "isolation-over"]);
    assert!(!lonely.info().contains_key("isolation"));
    all_alive(&all);
    let unknown_to_serf = |line: &String| line.starts_with("isolat");
    assert!(!lonely.lines("all").iter().any(unknown_to_serf));
}

/// As with `lan`, at a third of its times.
const QUICK: &str = "base = \"lan\"
probe_interval = \"300ms\"
probe_timeout = \"150ms\"
";

/// Two of ten survive. They hear each other, so it is the rest of the cluster that is silent.
#[test]
fn the_survivors_of_a_cluster_are_told_until_the_dead_are_listed_as_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("quick.toml");
    std::fs::write(&profile, QUICK).expect("a profile");
    let plan = |name: &str| {
        Plan::new(Kind::Fyrd, name)
            .arg(format!("-profile={}", profile.display()))
            .arg("-event-handler=isolated,isolation-over=echo $SERF_EVENT >>events")
    };
    let first = plan("n0").start();
    let mut others: Vec<Agent> = (1..10)
        .map(|i| plan(&format!("n{i}")).join(&first).start())
        .collect();
    all_alive(&others.iter().chain([&first]).collect::<Vec<_>>());
    for agent in &mut others[1..] {
        agent.kill();
    }
    let survivors = [&first, &others[0]];
    let wait_for = |lines: &[&str]| {
        for agent in survivors {
            eventually(&format!("{} says {lines:?}", agent.name()), PATIENCE, || {
                let found = agent.lines("events");
                if found == lines {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            });
        }
    };
    wait_for(&["isolated"]);
    for agent in survivors {
        let listed = agent.times_said("EventMemberFailed");
        assert!(listed < 8, "all were listed as failed before it was told");
    }
    wait_for(&["isolated", "isolation-over"]);
    let gone = (2..10).map(|i| (format!("n{i}"), "failed"));
    let want: Vec<(String, &str)> = [("n0".to_owned(), "alive"), ("n1".to_owned(), "alive")]
        .into_iter()
        .chain(gone)
        .collect();
    let want: Vec<(&str, &str)> = want
        .iter()
        .map(|(name, status)| (name.as_str(), *status))
        .collect();
    all_see(&survivors, &want);
}
