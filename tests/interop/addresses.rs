//! The forms an address takes: the default bind with its 16-byte form, IPv6, and all the ways to name a
//! host in a join.

use std::time::{Duration, Instant};

use crate::support::network::{Network, PRIVATE_ADDRESS};
use crate::support::{self, Agent, Kind, PATIENCE, Plan, all_alive, eventually, side_by_side};

const BOTH: [Kind; 2] = [Kind::Fyrd, Kind::Serf];

/// What either kind logs when an address seems to have changed its form or value.
const CONFLICT: [&str; 2] = ["onflict", "claiming"];

/// What Serf logs when it starts an exchange of the whole state.
const PUSH_PULL: &str = "Initiating push/pull sync with";

fn network() -> Network {
    Network::new().unwrap_or_else(|reason| {
        panic!(
            "this test needs network namespaces (unshare and ip, as root or with user namespaces): {reason}"
        )
    })
}

/// Agents on the default bind announce a v4-mapped address of 16 bytes, those on a specific one 4 bytes;
/// whoever re-sends one in the other form makes the others see a name conflict.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn both_lengths_of_an_ipv4_address_survive_gossip_and_push_pull() {
    let network = network();
    let plan = |kind, name: &str, host: &str| {
        let plan = Plan::new(kind, name).host(host).launcher(&network.launcher());
        plan.args([
            "-profile=local",
            "-log-level=DEBUG",
            "-encrypt=AAECAwQFBgcICQoLDA0ODw==",
        ])
    };
    let f_own = plan(Kind::Fyrd, "f-own", PRIVATE_ADDRESS).start();
    let s_any = plan(Kind::Serf, "s-any", "0.0.0.0").join(&f_own).start();
    let f_any = plan(Kind::Fyrd, "f-any", "0.0.0.0").join(&s_any).start();
    let s_own = plan(Kind::Serf, "s-own", PRIVATE_ADDRESS).join(&f_any).start();
    let all = [&f_own, &s_any, &f_any, &s_own];
    all_alive(&all);
    for agent in all {
        for member in agent.members().expect("members") {
            assert!(
                member.addr.starts_with("10.77.0.1:"),
                "{}: {member:?}",
                agent.name()
            );
        }
    }
    stays_in_peace_over_push_pull(&all);
}

/// The same mixture where the machine's own addresses do not matter.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn the_default_bind_with_an_advertised_address_lives_beside_specific_binds() {
    let plan = |kind, name: &str| Plan::new(kind, name).args(["-profile=local", "-log-level=DEBUG"]);
    let any = |kind, name: &str| {
        plan(kind, name)
            .host("0.0.0.0")
            .arg("-advertise=127.0.0.1:{port}")
    };
    let f_any = any(Kind::Fyrd, "f-any").start();
    let s_any = any(Kind::Serf, "s-any").join(&f_any).start();
    let f_own = plan(Kind::Fyrd, "f-own").join(&s_any).start();
    let s_own = plan(Kind::Serf, "s-own").join(&f_any).start();
    let all = [&f_any, &s_any, &f_own, &s_own];
    all_alive(&all);
    stays_in_peace_over_push_pull(&all);
}

/// On the default bind, Fyrd announces the address Serf would, or fails as Serf would; and what it
/// announces can be reached.
#[test]
#[ignore = "needs the real Serf and a network namespace (tests/run)"]
fn the_default_bind_finds_the_address_that_serf_finds() {
    let plan = |kind, name: &str| Plan::new(kind, name).host("0.0.0.0");
    let serf = match plan(Kind::Serf, "s").try_start() {
        Ok(serf) => serf,
        Err(by_serf) => {
            let by_fyrd = plan(Kind::Fyrd, "f")
                .try_start()
                .expect_err("Fyrd cannot know better than Serf");
            assert_eq!(by_fyrd, by_serf);
            return;
        }
    };
    let fyrd = plan(Kind::Fyrd, "f").start();
    assert_eq!(own_ip(&fyrd), own_ip(&serf));
    assert_eq!(fyrd.cli(&["join", &serf.address()]).code, Some(0));
    all_alive(&[&fyrd, &serf]);
    // Probes in both directions, over whatever family that address is of.
    for (from, to) in [(&fyrd, "s"), (&serf, "f")] {
        eventually(&format!("{} has probed {to}", from.name()), PATIENCE, || {
            let rtt = from.cli(&["rtt", to]);
            if rtt.code == Some(0) {
                Ok(())
            } else {
                Err(format!("{rtt:?}"))
            }
        });
    }
    all_alive(&[&fyrd, &serf]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_mixed_cluster_lives_on_ipv6() {
    let plan = |kind, name: &str| Plan::new(kind, name).host("[::1]").key(Some(support::KEY_32));
    let f1 = plan(Kind::Fyrd, "f1").start();
    let s1 = plan(Kind::Serf, "s1").join(&f1).start();
    let f2 = plan(Kind::Fyrd, "f2").join(&s1).start();
    let all = [&f1, &s1, &f2];
    all_alive(&all);
    for agent in all {
        for asking in BOTH {
            let members = agent.members_by(asking).expect("members");
            assert!(
                members.iter().all(|member| member.addr.starts_with("[::1]:")),
                "{members:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn every_form_of_a_join_address_works() {
    side_by_side(&BOTH, |&joiner| {
        for target in BOTH {
            let named = |name: &str, address: String| format!("{name}/{address}");
            joins(joiner, target, "127.0.0.1", &|seed| seed.address());
            joins(joiner, target, "127.0.0.1", &|seed| named("seed", seed.address()));
            joins(joiner, target, "127.0.0.1", &|seed| {
                format!("localhost:{}", seed.gossip_port())
            });
            joins(joiner, target, "[::1]", &|seed| seed.address());
            joins(joiner, target, "[::1]", &|seed| named("seed", seed.address()));
        }
    });
}

/// A missing port is the joiner's own.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_join_address_without_a_port_means_the_own_port() {
    for (joiner, target) in [
        (Kind::Fyrd, Kind::Serf),
        (Kind::Serf, Kind::Fyrd),
        (Kind::Fyrd, Kind::Fyrd),
    ] {
        let seed = Plan::new(target, "seed").start();
        let joiner = Plan::new(joiner, "joiner")
            .host("127.0.0.2")
            .port_of(&seed)
            .start();
        assert_eq!(
            joiner.cli(&["join", "127.0.0.1"]).code,
            Some(0),
            "{:?}",
            joiner.kind()
        );
        all_alive(&[&seed, &joiner]);
    }
}

fn joins(joiner: Kind, target: Kind, host: &str, address: &dyn Fn(&Agent) -> String) {
    let seed = Plan::new(target, "seed").host(host).start();
    let joiner = Plan::new(joiner, "joiner").host(host).start();
    let joined = joiner.cli(&["join", &address(&seed)]);
    assert_eq!(
        joined.success(),
        "Successfully joined cluster by contacting 1 nodes.\n"
    );
    all_alive(&[&seed, &joiner]);
}

fn own_ip(agent: &Agent) -> String {
    let members = agent.members().expect("members");
    let own = members
        .iter()
        .find(|member| member.name == agent.name())
        .expect("itself");
    own.addr.rsplit_once(':').expect("a port").0.to_owned()
}

/// Waits until each Serf has started one more exchange of state, then looks for complaints.
fn stays_in_peace_over_push_pull(all: &[&Agent]) {
    let exchanges = |agent: &Agent| agent.log().matches(PUSH_PULL).count();
    for serf in all.iter().filter(|agent| agent.kind() == Kind::Serf) {
        let before = exchanges(serf);
        eventually(
            &format!("{} exchanges state again", serf.name()),
            PATIENCE,
            || {
                if exchanges(serf) > before {
                    Ok(())
                } else {
                    Err(format!("still {before} exchanges"))
                }
            },
        );
    }
    all_alive(all);
    for agent in all {
        let log = agent.log();
        let complaint = log
            .lines()
            .find(|line| CONFLICT.iter().any(|word| line.contains(word)));
        assert_eq!(complaint, None, "in the log of {}", agent.name());
    }
}

/// A name server that is silent must not keep an agent from ending.
#[test]
#[ignore = "needs a mount namespace (tests/run)"]
fn an_agent_ends_while_it_still_looks_up_a_name() {
    let network = network();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let servers = folder.path().join("resolv.conf");
    std::fs::write(&servers, "nameserver 10.77.0.99\noptions timeout:30 attempts:1\n").expect("resolv.conf");
    // The server's link address is known, so that the kernel does not say that nobody has it.
    let script = "ip neigh replace 10.77.0.99 lladdr 02:00:00:00:00:01 dev here
mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let servers = servers.to_string_lossy().into_owned();
    let words = ["unshare", "-m", "sh", "-c", script, &servers].map(str::to_owned);
    let launcher = [network.launcher(), words.into()].concat();
    let mut agent = Plan::new(Kind::Fyrd, "n1")
        .launcher(&launcher)
        .args(["-profile=local", "-retry-join=silent.example.org"])
        .start();
    eventually("the name is looked up", PATIENCE, || {
        let looked_up = agent.log().contains("Joining cluster...");
        looked_up.then_some(()).ok_or_else(|| agent.log())
    });
    let start = Instant::now();
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!agent.log().contains("retrying in"), "{}", agent.log());
}

/// Both warn when everybody can reach a cluster that encrypts nothing, also where that is only announced.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_public_address_without_encryption_is_warned_about() {
    let warning = "[WARN] memberlist: Binding to public address without encryption!";
    for kind in [Kind::Serf, Kind::Fyrd] {
        for (address, key, warned) in [
            ("8.8.8.8:1", None, true),
            ("[2606:4700::1]:1", None, true),
            ("8.8.8.8:1", Some(support::KEY_32), false),
            ("10.1.2.3:1", None, false),
        ] {
            let agent = Plan::new(kind, "n1")
                .key(key)
                .arg(format!("-advertise={address}"))
                .start();
            agent.says("EventMemberJoin: n1");
            assert_eq!(
                agent.times_said(warning),
                usize::from(warned),
                "{kind:?} at {address}: {}",
                agent.log()
            );
        }
    }
}
