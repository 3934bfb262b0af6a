//! Clusters of both kinds, in every profile that crosses hosts and with every kind of key Serf has.

use crate::support::{self, Agent, Kind, Member, Plan, all_alive, all_see, eventually, side_by_side};

/// One cluster of the matrix.
#[derive(Clone, Copy, Debug)]
struct Case {
    profile: &'static str,
    key: Option<&'static str>,
    /// The kind of the agent that starts alone.
    first: Kind,
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn five_agents_of_both_kinds_agree_on_everything() {
    let keys = [
        None,
        Some(support::KEY_16),
        Some(support::KEY_24),
        Some(support::KEY_32),
    ];
    let mut cases = Vec::new();
    for profile in ["lan", "wan"] {
        for key in keys {
            // Every third cluster begins with a Serf, so that each profile has both beginnings.
            let first = if cases.len() % 3 == 0 {
                Kind::Serf
            } else {
                Kind::Fyrd
            };
            cases.push(Case { profile, key, first });
        }
    }
    side_by_side(&cases, agree);
}

/// Starts three Fyrd and two Serf agents, joined alternately through a seed of each kind, and compares
/// what everybody says about everybody.
fn agree(case: &Case) {
    let agents = start(case);
    let all: Vec<&Agent> = agents.iter().collect();
    all_alive(&all);

    let reference = eventually("the first agent knows all tags", support::PATIENCE, || {
        let members = agents[0].members()?;
        if members.iter().all(has_its_tags) {
            Ok(members)
        } else {
            Err(format!("{members:#?}"))
        }
    });
    for agent in &agents {
        for asking in [Kind::Serf, Kind::Fyrd] {
            let what = format!("{asking:?} at {} agrees with {}", agent.name(), agents[0].name());
            eventually(&what, support::PATIENCE, || {
                let members = agent.members_by(asking)?;
                if members == reference {
                    Ok(())
                } else {
                    Err(format!("{members:#?}\nagainst {reference:#?}"))
                }
            });
        }
        let member = reference
            .iter()
            .find(|member| member.name == agent.name())
            .expect("a member");
        assert_eq!(member.addr, agent.address());
        assert_eq!(member.port, agent.gossip_port());
        assert_eq!(
            agent.info()["serf"]["encrypted"],
            case.key.is_some().to_string(),
            "{}",
            agent.name()
        );
    }
}

fn start(case: &Case) -> Vec<Agent> {
    let (first, second) = match case.first {
        Kind::Serf => (Kind::Serf, Kind::Fyrd),
        Kind::Fyrd | Kind::Windows => (Kind::Fyrd, Kind::Serf),
    };
    let plan = |kind, name: &str| {
        Plan::new(kind, name)
            .arg(format!("-profile={}", case.profile))
            .key(case.key)
            .args(tags(name))
    };
    let one = plan(first, "one").start();
    let two = plan(second, "two").join(&one).start();
    let three = plan(Kind::Fyrd, "three").join(&two).start();
    let four = plan(Kind::Serf, "four").join(&one).start();
    let five = plan(Kind::Fyrd, "five").join(&two).start();
    vec![one, two, three, four, five]
}

/// Tags a parser could trip over: empty, with separators, with characters JSON and HTML treat specially.
fn tag_pairs(name: &str) -> Vec<(String, String)> {
    let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    vec![
        own("role", name),
        own("empty", ""),
        own("sum", "a=b=c,d=e"),
        own("odd key", "<a & b> \"quoted\" \\ back\tslash é 語"),
    ]
}

fn tags(name: &str) -> Vec<String> {
    tag_pairs(name)
        .into_iter()
        .map(|(key, value)| format!("-tag={key}={value}"))
        .collect()
}

fn has_its_tags(member: &Member) -> bool {
    member.tags == tag_pairs(&member.name).into_iter().collect()
}

/// Serf 0.9.4 does not limit names. Those that a datagram carries are members like all others; one that Fyrd cannot
/// hold must keep neither Fyrd nor anybody else out, whether Fyrd hears of it or from it.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_member_with_an_overlong_name_keeps_nobody_away() {
    const HANDLER: &str = "-event-handler=query:ask=printf heard";
    let (long, listed, asking) = ("n".repeat(1500), "l".repeat(1300), "a".repeat(600));
    let plain = Plan::new(Kind::Serf, "plain").start();
    let asker = Plan::new(Kind::Serf, &asking).arg(HANDLER).join(&plain).start();
    let _listed = Plan::new(Kind::Serf, &listed).join(&plain).start();
    let odd = Plan::new(Kind::Serf, &long).join(&plain).start();
    let far = Plan::new(Kind::Fyrd, "far").arg(HANDLER).join(&plain).start();
    let near = Plan::new(Kind::Fyrd, "near").arg(HANDLER).join(&odd).start();

    let held = [
        ("plain", "alive"),
        (listed.as_str(), "alive"),
        (asking.as_str(), "alive"),
        ("far", "alive"),
        ("near", "alive"),
    ];
    all_see(&[&far, &near], &held);
    let everybody = [&held[..], &[(long.as_str(), "alive")]].concat();
    all_see(&[&plain, &odd], &everybody);
    for agent in [&far, &near] {
        let complaint = format!("Cannot hold member '{}'", &long[..1400]);
        assert!(agent.log().contains(&complaint), "{}", agent.log());
    }

    // What a long name asks is heard, for a rotation of keys may start there. (Serf lets names of more than some 1,000
    // bytes ask nothing: the query would be too large.)
    let answered = asker.cli(&["query", "-no-ack", "-timeout=5s", "-format=json", "ask"]);
    let answered: serde_json::Value = serde_json::from_str(&answered.success()).expect("JSON");
    for agent in [&far, &near] {
        assert_eq!(answered["Responses"][agent.name()], "heard", "{answered}");
    }
    let node = format!("-node={asking}");
    let answered = far.cli(&["query", "-timeout=5s", "-format=json", &node, "ask"]);
    let answered: serde_json::Value = serde_json::from_str(&answered.success()).expect("JSON");
    assert_eq!(answered["Acks"], serde_json::json!([asking]));
    assert_eq!(answered["Responses"][&asking], "heard", "{answered}");
}

/// An ack of ours has a field that Serf does not know. Serf takes the rest of it, the coordinate, as ever.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn serf_learns_from_acks_that_carry_a_digest_and_says_nothing_of_it() {
    let plan = |kind, name: &str| {
        Plan::new(kind, name)
            .arg("-profile=local")
            .key(Some(support::KEY_32))
    };
    let serf = plan(Kind::Serf, "serf").arg("-log-level=trace").start();
    let fyrd = plan(Kind::Fyrd, "fyrd").join(&serf).start();
    all_alive(&[&serf, &fyrd]);
    eventually("Serf knows how far Fyrd is", support::PATIENCE, || {
        let rtt = serf.cli_of(Kind::Serf, &["rtt", "fyrd"]);
        if rtt.stdout.contains("Estimated fyrd <-> serf rtt")
            || rtt.stdout.contains("Estimated serf <-> fyrd rtt")
        {
            Ok(())
        } else {
            Err(format!("{rtt:?}"))
        }
    });
    // The log of both is quiet, that of Serf at its lowest level.
    for complaint in ["[ERR]", "[WARN]", "decode"] {
        assert!(!serf.log().contains(complaint), "{}", serf.log());
        assert!(!fyrd.log().contains(complaint), "{}", fyrd.log());
    }
}
