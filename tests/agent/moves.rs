//! Agents that come back at another address, and two that claim one name.

use std::time::{Duration, Instant};

use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually};

fn plan(name: &str) -> Plan {
    Plan::new(Kind::Fyrd, name).key(Some(KEY_32))
}

/// Five agents; all but the first name it in `-join` at their first start only.
fn cluster(flags: &[&str]) -> Vec<Agent> {
    let agents: Vec<Agent> = (0..5)
        .map(|i| plan(&format!("n{i}")).args(flags.iter().copied()).start())
        .collect();
    for agent in &agents[1..] {
        agent.cli(&["join", &agents[0].address()]).success();
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    agents
}

/// Whether `seen_by` lists this agent as alive where it is.
fn is_seen_there(seen_by: &Agent, agent: &Agent) -> Result<(), String> {
    let members = seen_by.members()?;
    let here = members.iter().any(|member| {
        member.name == agent.name() && member.status == "alive" && member.port == agent.gossip_port()
    });
    if here {
        Ok(())
    } else {
        Err(format!("{}: {members:?}", seen_by.name()))
    }
}

#[test]
fn a_rolling_restart_at_new_ports_keeps_one_cluster_and_ends_nobody() {
    let mut agents = cluster(&["-snapshot=snap"]);
    for agent in &mut agents {
        let began = Instant::now();
        agent.kill();
        agent.move_away();
        agent.restart();
        // As an orchestrator would, but the next one goes only while this one can be found.
        std::thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
    }
    for agent in &mut agents {
        agent.assert_running();
    }
    for agent in &agents {
        eventually(&format!("all see {} where it is", agent.name()), PATIENCE, || {
            agents
                .iter()
                .try_for_each(|seen_by| is_seen_there(seen_by, agent))
        });
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    for agent in &agents {
        assert_eq!(agent.times_said("Name conflict"), 0);
        assert_eq!(agent.times_said("Node name conflicts"), 0);
    }
}

#[test]
fn a_newcomer_with_a_taken_name_ends_with_a_code_that_has_it_started_again() {
    let agents = cluster(&[]);
    let mut twin = plan("n3").start();
    twin.cli(&["join", &agents[0].address()]).success();
    assert_eq!(twin.ended(), Some(1));
    twin.says("minority in name conflict resolution, quitting");
    all_alive(&agents.iter().collect::<Vec<_>>());
}

/// The bridge of a container engine has one address on all hosts.
#[test]
fn a_member_that_announces_ones_own_address_is_named_once() {
    let one = plan("one").arg("-profile=local").start();
    let twin = plan("twin")
        .arg("-profile=local")
        .arg(format!("-advertise={}", one.address()))
        .start();
    twin.cli(&["join", &one.address()]).success();
    // Each finds the other at its own address, and nobody there who answers to the name.
    all_see(&[&one], &[("one", "alive"), ("twin", "failed")]);
    one.cli(&["join", &format!("127.0.0.1:{}", twin.gossip_port())])
        .success();
    // Whether it is announced again hangs on whether an answer comes before the next suspicion.
    eventually("twin is taken for alive, and fails again", PATIENCE, || {
        let failures = one.times_said("Marking twin as failed");
        (failures > 1).then_some(()).ok_or_else(|| one.log())
    });
    all_see(&[&one], &[("one", "alive"), ("twin", "failed")]);
    let line = format!("twin announces my own address {}; ", one.address());
    assert_eq!(one.times_said(&line), 1, "{}", one.log());
    let pings = one.times_said("Got ping for unexpected node");
    assert!((1..=8).contains(&pings), "{pings}: {}", one.log());
}
