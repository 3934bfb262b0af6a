//! What happens to members in a mixed, encrypted cluster: they die, return, leave, change and freeze,
//! and both kinds say the same about it.

use std::time::{Duration, Instant};

use crate::support::{self, Agent, Kind, PATIENCE, Plan, all_alive, all_see, eventually, side_by_side};

const BOTH: [Kind; 2] = [Kind::Fyrd, Kind::Serf];

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn killed_members_are_failed_for_all_and_alive_again_after_a_restart() {
    let mut victims = [
        member(Kind::Fyrd, "f-victim", None),
        member(Kind::Serf, "s-victim", None),
    ];
    let fyrd = member(Kind::Fyrd, "f", Some(&victims[0]));
    let serf = member(Kind::Serf, "s", Some(&fyrd));
    assert_eq!(victims[1].cli(&["join", &serf.address()]).code, Some(0));
    all_alive(&[&fyrd, &serf, &victims[0], &victims[1]]);

    victims.iter_mut().for_each(Agent::kill);
    let failed = [
        ("f", "alive"),
        ("s", "alive"),
        ("f-victim", "failed"),
        ("s-victim", "failed"),
    ];
    all_see(&[&fyrd, &serf], &failed);

    // The old record still has a higher incarnation, which each must overtake to be believed.
    for victim in &mut victims {
        victim.restart();
        assert_eq!(
            victim.cli(&["join", &serf.address()]).code,
            Some(0),
            "{} joins again",
            victim.name()
        );
    }
    all_alive(&[&fyrd, &serf, &victims[0], &victims[1]]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn force_leave_by_either_kind_works_on_either_kind() {
    side_by_side(&BOTH, |&remover| {
        let other = if remover == Kind::Serf {
            Kind::Fyrd
        } else {
            Kind::Serf
        };
        let remover = member(remover, "remover", None);
        let witness = member(other, "witness", Some(&remover));
        let mut victims = BOTH.map(|kind| member(kind, &format!("{kind:?}-victim"), Some(&witness)));
        all_alive(&[&remover, &witness, &victims[0], &victims[1]]);

        victims.iter_mut().for_each(Agent::kill);
        let (first, second) = (victims[0].name(), victims[1].name());
        let alive = [("remover", "alive"), ("witness", "alive")];
        let and = |more: &[(&'static str, &'static str)]| [&alive[..], more].concat();
        assert_eq!([first, second], ["Fyrd-victim", "Serf-victim"]);
        all_see(
            &[&remover, &witness],
            &and(&[("Fyrd-victim", "failed"), ("Serf-victim", "failed")]),
        );

        for name in [first, second] {
            let done = remover.cli(&["force-leave", name]);
            assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
        }
        all_see(
            &[&remover, &witness],
            &and(&[("Fyrd-victim", "left"), ("Serf-victim", "left")]),
        );

        let prune = || {
            for name in [first, second] {
                assert_eq!(remover.cli(&["force-leave", "-prune", name]).code, Some(0));
            }
        };
        prune();
        // Nothing but gossip carries a prune, and all four sends of a real Serf may go to the two dead: its
        // draw of random members now and then overlooks the only one who lives. It is asked until that one
        // has heard; Fyrd is asked once.
        if remover.kind() == Kind::Serf {
            eventually("the witness hears of the prune", PATIENCE, || {
                let seen = witness.statuses()?;
                if seen.len() == alive.len() {
                    return Ok(());
                }
                prune();
                Err(format!("{seen:?}"))
            });
        }
        all_see(&[&remover, &witness], &alive);
    });
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_graceful_leave_is_left_for_all() {
    let fyrd = member(Kind::Fyrd, "f", None);
    let serf = member(Kind::Serf, "s", Some(&fyrd));
    let mut by_command = BOTH.map(|kind| member(kind, &format!("{kind:?}-command"), Some(&serf)));
    let mut by_signal = BOTH.map(|kind| member(kind, &format!("{kind:?}-signal"), Some(&fyrd)));
    all_alive(&[
        &fyrd,
        &serf,
        &by_command[0],
        &by_command[1],
        &by_signal[0],
        &by_signal[1],
    ]);

    for agent in &mut by_command {
        assert_eq!(agent.cli(&["leave"]).success(), "Graceful leave complete\n");
        assert_eq!(agent.ended(), Some(0), "{} after its leave", agent.name());
    }
    for agent in &mut by_signal {
        agent.signal("INT");
        assert_eq!(agent.ended(), Some(0), "{} after SIGINT", agent.name());
        assert!(
            agent.log().contains("Gracefully shutting down agent"),
            "{}",
            agent.log()
        );
    }
    let left = [
        ("f", "alive"),
        ("s", "alive"),
        ("Fyrd-command", "left"),
        ("Serf-command", "left"),
        ("Fyrd-signal", "left"),
        ("Serf-signal", "left"),
    ];
    all_see(&[&fyrd, &serf], &left);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_left_member_may_come_back() {
    let fyrd = member(Kind::Fyrd, "f", None);
    let serf = member(Kind::Serf, "s", Some(&fyrd));
    let mut returning = BOTH.map(|kind| member(kind, &format!("{kind:?}-back"), Some(&serf)));
    all_alive(&[&fyrd, &serf, &returning[0], &returning[1]]);
    for agent in &mut returning {
        agent.cli(&["leave"]).success();
        agent.ended();
    }
    all_see(
        &[&fyrd, &serf],
        &[
            ("f", "alive"),
            ("s", "alive"),
            ("Fyrd-back", "left"),
            ("Serf-back", "left"),
        ],
    );
    for agent in &mut returning {
        agent.restart();
        assert_eq!(agent.cli(&["join", &fyrd.address()]).code, Some(0));
    }
    all_alive(&[&fyrd, &serf, &returning[0], &returning[1]]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_change_of_tags_reaches_all() {
    let fyrd = member(Kind::Fyrd, "f", None);
    let serf = member(Kind::Serf, "s", Some(&fyrd));
    let witnesses = BOTH.map(|kind| member(kind, &format!("{kind:?}-witness"), Some(&serf)));
    let all = [&fyrd, &serf, &witnesses[0], &witnesses[1]];
    all_alive(&all);

    for (changed, value) in [(&fyrd, "new=value é <&>"), (&serf, "")] {
        let set = format!("fresh={value}");
        let done = changed.cli(&["tags", "-set", &set, "-set", "role=changed", "-delete", "gone"]);
        assert_eq!(done.success(), "Successfully updated agent tags\n");
        for witness in all {
            let what = format!("{} sees the new tags of {}", witness.name(), changed.name());
            eventually(&what, PATIENCE, || {
                let members = witness.members()?;
                let tags = members
                    .iter()
                    .find(|member| member.name == changed.name())
                    .map(|member| &member.tags);
                let expected =
                    [("fresh", value), ("role", "changed")].map(|(k, v)| (k.to_owned(), v.to_owned()));
                if tags == Some(&expected.into()) {
                    Ok(())
                } else {
                    Err(format!("{tags:?}"))
                }
            });
        }
    }
}

/// Frozen for a moment: suspected, but able to refute, and never lost for good.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_frozen_member_refutes_the_suspicion() {
    side_by_side(&BOTH, |&kind| {
        let (fyrd, serf, sleeper) = with_sleeper(kind);
        let all = [&fyrd, &serf, &sleeper];
        sleeper.signal("STOP");
        eventually("the frozen member is suspected", PATIENCE, || {
            let suspected = [&fyrd, &serf]
                .iter()
                .any(|agent| agent.log().contains("Suspect sleeper"));
            if suspected {
                Ok(())
            } else {
                Err("nobody suspects it".to_owned())
            }
        });
        sleeper.signal("CONT");
        // Longer than the longest suspicion of a cluster this small, so that an unrefuted one would end here.
        stays_mostly_alive(&all, Duration::from_secs(26));
        all_alive(&all);
    });
}

/// Frozen until the others gave it up: failed, and alive again for all when it wakes.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_member_frozen_for_long_returns_when_it_wakes() {
    side_by_side(&BOTH, |&kind| {
        let (fyrd, serf, sleeper) = with_sleeper(kind);
        sleeper.signal("STOP");
        all_see(
            &[&fyrd, &serf],
            &[("f", "alive"), ("s", "alive"), ("sleeper", "failed")],
        );
        sleeper.signal("CONT");
        all_alive(&[&fyrd, &serf, &sleeper]);
    });
}

fn member(kind: Kind, name: &str, seed: Option<&Agent>) -> Agent {
    let plan = Plan::new(kind, name)
        .key(Some(support::KEY_32))
        .arg("-tag=role=before")
        .arg("-tag=gone=soon");
    match seed {
        Some(seed) => plan.join(seed).start(),
        None => plan.start(),
    }
}

fn with_sleeper(kind: Kind) -> (Agent, Agent, Agent) {
    let fyrd = member(Kind::Fyrd, "f", None);
    let serf = member(Kind::Serf, "s", Some(&fyrd));
    let sleeper = member(kind, "sleeper", Some(&serf));
    all_alive(&[&fyrd, &serf, &sleeper]);
    (fyrd, serf, sleeper)
}

/// Watches for this long and fails if anybody is without some member for more than a moment.
fn stays_mostly_alive(agents: &[&Agent], span: Duration) {
    const A_MOMENT: Duration = Duration::from_secs(15);
    let start = Instant::now();
    let mut last_good = vec![start; agents.len()];
    while start.elapsed() < span {
        for (agent, last_good) in agents.iter().zip(&mut last_good) {
            let statuses = agent.statuses();
            let good = statuses
                .as_ref()
                .is_ok_and(|seen| seen.values().all(|status| status == "alive"));
            if good {
                *last_good = Instant::now();
            }
            assert!(
                last_good.elapsed() < A_MOMENT,
                "{} sees for too long: {statuses:?}",
                agent.name()
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}
