//! An agent that hears nobody tells its own operator at once.

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually};

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
