//! Hosts that come back at another address, and two that claim one name, on a network and beside the real Serf.

use std::time::{Duration, Instant};

use crate::support::network::Routed;
use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually, side_by_side};

/// What becomes of the address where a host was.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// Its system is there, and refuses.
    Refuses,
    /// Nothing comes back from there.
    Drops,
    /// An agent of another name has it.
    Another,
}

/// Thrice of what is promised, for the machine may be busy. Without a look at the old address it takes longer than
/// anybody waits.
const BACK: Duration = Duration::from_secs(15);

/// Waits until all of `seen_by` list this agent as alive where it is.
fn is_seen_there(seen_by: &[&Agent], agent: &Agent, within: Duration) {
    for viewer in seen_by {
        let what = format!("{} sees {} where it is", viewer.name(), agent.name());
        eventually(&what, within, || {
            let members = viewer.members()?;
            let here = members.iter().any(|member| {
                member.name == agent.name() && member.status == "alive" && member.addr == agent.address()
            });
            if here { Ok(()) } else { Err(format!("{members:?}")) }
        });
    }
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn a_host_that_crashes_and_is_back_at_another_address_is_alive_within_seconds() {
    side_by_side(&[Old::Refuses, Old::Drops, Old::Another], |&old| {
        let mut network =
            Routed::new(6).unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
        let plan = |network: &Routed, name: &str, host: usize| {
            Plan::new(Kind::Fyrd, name)
                .host(&network.address(host))
                .launcher(&network.launcher(host))
                .arg("-snapshot=snap")
        };
        let mut agents: Vec<Agent> = Vec::new();
        for host in 0..5 {
            let agent = plan(&network, &format!("n{host}"), host).start();
            if let Some(first) = agents.first() {
                agent.cli(&["join", &first.address()]).success();
            }
            agents.push(agent);
        }
        all_alive(&agents.iter().collect::<Vec<_>>());
        let mut moved = agents.remove(2);
        moved.kill();
        let began = Instant::now();
        let mut another = None;
        match old {
            Old::Refuses => {}
            Old::Drops => network.cut(&[0, 1, 3, 4, 5], &[2]),
            Old::Another => {
                let agent = plan(&network, "another", 2).port_of(&moved).start();
                agent.cli(&["join", &agents[0].address()]).success();
                another = Some(agent);
            }
        }
        moved.move_to(&network.address(5), &network.launcher(5));
        moved.restart();
        let started = began.elapsed();
        is_seen_there(&agents.iter().collect::<Vec<_>>(), &moved, BACK);
        println!(
            "{old:?}: started after {started:?}, seen by all after {:?}",
            began.elapsed()
        );
        let all: Vec<&Agent> = agents.iter().chain([&moved]).chain(&another).collect();
        all_alive(&all);
        for agent in all {
            assert_eq!(agent.times_said("Name conflict"), 0);
            assert_eq!(agent.times_said("Node name conflicts"), 0);
        }
    });
}

/// The real Serf keeps to the old addresses until it has forgotten them, and tells of conflicts; that ends nobody.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn our_agents_restart_one_by_one_at_new_ports_beside_serfs_and_none_ends() {
    let mut agents: Vec<Agent> = Vec::new();
    for (number, kind) in [Kind::Serf, Kind::Serf, Kind::Fyrd, Kind::Fyrd, Kind::Fyrd]
        .into_iter()
        .enumerate()
    {
        let plan = Plan::new(kind, &format!("n{number}"));
        let agent = plan
            .args((kind == Kind::Fyrd).then_some("-snapshot=snap"))
            .start();
        if let Some(first) = agents.first() {
            agent.cli(&["join", &first.address()]).success();
        }
        agents.push(agent);
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    let (serfs, ours) = agents.split_at_mut(2);
    for moves in 0..ours.len() {
        ours[moves].kill();
        ours[moves].move_away();
        ours[moves].restart();
        let seen_by: Vec<&Agent> = ours.iter().collect();
        is_seen_there(&seen_by, &ours[moves], PATIENCE);
    }
    for agent in ours.iter_mut().chain(serfs) {
        agent.assert_running();
    }
    for agent in &*ours {
        is_seen_there(&ours.iter().collect::<Vec<_>>(), agent, PATIENCE);
        assert_eq!(agent.times_said("quitting"), 0);
    }
}

/// An odd and an even number of voters, half of them the real Serf.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_newcomer_with_a_taken_name_ends_where_serfs_vote_too() {
    side_by_side(&[4, 5], |&count| {
        let mut agents: Vec<Agent> = Vec::new();
        for number in 0..count {
            let kind = if number % 2 == 0 { Kind::Serf } else { Kind::Fyrd };
            let plan = Plan::new(kind, &format!("n{number}"));
            agents.push(match agents.first() {
                Some(first) => plan.join(first).start(),
                None => plan.start(),
            });
        }
        let mut all = agents.iter().collect::<Vec<_>>();
        all_alive(&all);
        let mut twin = Plan::new(Kind::Fyrd, "n1").start();
        twin.cli(&["join", &agents[0].address()]).success();
        assert_eq!(twin.ended(), Some(1));
        twin.says("minority in name conflict resolution, quitting");
        all.retain(|agent| agent.name() != "n1");
        is_seen_there(&all, &agents[1], PATIENCE);
        all_alive(&agents.iter().collect::<Vec<_>>());
    });
}
