//! Agents on hosts whose routes, address or start are in trouble.

use std::time::Duration;

use crate::support::network::Routed;
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually};

fn plan(name: &str) -> Plan {
    Plan::new(Kind::Fyrd, name).key(Some(KEY_32))
}

/// How often this agent's handler was told of that member, as kind and name.
fn told(agent: &Agent, kind: &str, name: &str) -> usize {
    let line = format!("{kind} {name}");
    agent.lines("told").iter().filter(|told| **told == line).count()
}

/// Writes what comes and goes into the file `told`.
const TELL: &str =
    "-event-handler=member-join,member-failed=while read name rest; do echo $SERF_EVENT $name; done >>told";

#[test]
fn a_seed_that_is_killed_and_starts_empty_is_joined_by_those_who_ping_it() {
    let mut seed = plan("seed").start();
    let others: Vec<Agent> = (0..2)
        .map(|i| plan(&format!("n{i}")).join(&seed).start())
        .collect();
    let all: Vec<&Agent> = others.iter().chain([&seed]).collect();
    all_alive(&all);
    seed.kill();
    seed.restart();
    let joined = Duration::from_secs(15);
    eventually("the seed sees the others", joined, || {
        let statuses = seed.statuses()?;
        if statuses.len() == 3 {
            Ok(())
        } else {
            Err(format!("{statuses:?}"))
        }
    });
    // Mostly because it was pinged; the others may also have tried it again just then.
    all_alive(&others.iter().chain([&seed]).collect::<Vec<_>>());
}

/// The usual profile, but for the time between push/pulls, by which a host hears what is said of it.
fn push_pulls(plan: Plan, every: &str) -> Plan {
    let profile = format!("base = \"lan\"\npush_pull_interval = \"{every}\"\n");
    plan.with_file("profile.toml", &profile)
        .arg("-profile=profile.toml")
        .arg("-log-level=debug")
        .arg(TELL)
}

#[test]
fn a_host_that_nobody_reaches_is_told_so_and_comes_and_goes_for_no_handler() {
    // Longer than a suspicion, so that it is failed before it can refute.
    let plan = |name: &str| push_pulls(plan(name), "7s");
    let seed = plan("n0").start();
    let other = plan("n1").join(&seed).start();
    all_alive(&[&seed, &other]);
    // Nobody is at the address that it announces.
    let closed = plan("closed")
        .arg("-advertise=127.99.99.99:9")
        .join(&seed)
        .start();
    eventually("its own operator is told", 2 * PATIENCE, || {
        let info = closed.info();
        info.get("accused").map(|_| ()).ok_or(format!("{info:?}"))
    });
    closed.says("Other members get no answers from this host at 127.99.99.99:9");
    for agent in [&seed, &other] {
        eventually(
            "it was failed and refuted that again and again",
            2 * PATIENCE,
            || {
                let refuted = agent.times_said("waiting for an answer of it");
                if refuted >= 2 {
                    Ok(())
                } else {
                    Err(refuted.to_string())
                }
            },
        );
        assert_eq!(told(agent, "member-join", "closed"), 1);
        assert_eq!(told(agent, "member-failed", "closed"), 1);
        assert!(!agent.info().contains_key("accused"));
    }
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn an_agent_without_routes_declares_nobody_failed_and_learns_who_has_died() {
    let network =
        Routed::new(3).unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
    let mut agents: Vec<Agent> = Vec::new();
    for index in 0..3 {
        let mut plan = push_pulls(plan(&format!("n{index}")), "2s")
            .host(&network.address(index))
            .launcher(&network.launcher(index));
        if let Some(seed) = agents.first() {
            plan = plan.join(seed);
        }
        agents.push(plan.start());
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    // Each way in which a system can refuse to send: no such host, forbidden, invalid.
    for (kind, to) in [("unreachable", 1), ("prohibit", 2)] {
        network.forbid(0, to, kind);
    }
    all_see(
        &[&agents[1], &agents[2]],
        &[("n0", "failed"), ("n1", "alive"), ("n2", "alive")],
    );
    agents[0].says("This host cannot send to n");
    agents[0].says("look at this host's routes and firewall");
    // With three members a suspicion takes four seconds.
    std::thread::sleep(Duration::from_secs(6));
    for other in ["n1", "n2"] {
        assert_eq!(told(&agents[0], "member-failed", other), 0);
    }
    all_see(
        &[&agents[0]],
        &[("n0", "alive"), ("n1", "alive"), ("n2", "alive")],
    );
    // One way is lost for good, and nothing answers behind it.
    network.allow(0, 2);
    all_see(
        &[&agents[1], &agents[2]],
        &[("n0", "alive"), ("n1", "alive"), ("n2", "alive")],
    );
    agents[1].kill();
    all_see(
        &[&agents[0], &agents[2]],
        &[("n0", "alive"), ("n1", "failed"), ("n2", "alive")],
    );
}
