//! Clusters of Fyrd alone under ChaCha20-Poly1305; and strangers with another key, another cipher or none
//! at the gate of any cluster: told why, let in never, noticed by nobody.

use crate::support::{self, Agent, Kind, Plan, all_alive, side_by_side};

const CHACHA: &str = "chacha20poly1305:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_CHACHA: &str = "chacha20poly1305:YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=";

/// A joiner that must be refused.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    cluster: Option<&'static str>,
    kind: Kind,
    key: Option<&'static str>,
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn strangers_are_refused_and_the_cluster_is_undisturbed() {
    let strangers = [
        (Some(CHACHA), Kind::Fyrd, Some(OTHER_CHACHA)),
        // The same 32 bytes, but for the other cipher.
        (Some(CHACHA), Kind::Fyrd, Some(support::KEY_32)),
        (Some(CHACHA), Kind::Fyrd, None),
        (Some(CHACHA), Kind::Serf, Some(support::KEY_32)),
        (Some(CHACHA), Kind::Serf, None),
        (None, Kind::Fyrd, Some(CHACHA)),
        (None, Kind::Fyrd, Some(support::KEY_24)),
        (None, Kind::Serf, Some(support::KEY_32)),
        (Some(support::KEY_16), Kind::Serf, Some(support::KEY_24)),
        (Some(support::KEY_16), Kind::Serf, None),
        (Some(support::KEY_16), Kind::Fyrd, Some(support::KEY_24)),
        (Some(support::KEY_16), Kind::Fyrd, Some(CHACHA)),
        (Some(support::KEY_16), Kind::Fyrd, None),
    ]
    .map(|(cluster, kind, key)| Stranger { cluster, kind, key });
    // One cluster a key: what each stranger leaves behind would show to those after it.
    side_by_side(&[Some(CHACHA), Some(support::KEY_16), None], |&key| {
        let mut cluster = start(Kind::Fyrd, key);
        for stranger in strangers.iter().filter(|stranger| stranger.cluster == key) {
            refused(stranger, &mut cluster);
        }
    });
}

/// The other way round: what Fyrd sends with a wrong key must not disturb a Serf cluster either.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_serf_cluster_refuses_strange_fyrds() {
    let mut cluster = start(Kind::Serf, Some(support::KEY_32));
    for key in [None, Some(support::KEY_16), Some(CHACHA)] {
        refused(
            &Stranger {
                cluster: Some(support::KEY_32),
                kind: Kind::Fyrd,
                key,
            },
            &mut cluster,
        );
    }
}

fn start(kind: Kind, key: Option<&str>) -> Vec<Agent> {
    let plan = |name: &str| Plan::new(kind, name).key(key);
    let first = plan("first").start();
    let second = plan("second").join(&first).start();
    let third = plan("third").join(&second).start();
    let cluster = vec![first, second, third];
    all_alive(&cluster.iter().collect::<Vec<_>>());
    cluster
}

fn refused(stranger: &Stranger, cluster: &mut [Agent]) {
    let port = cluster[0].gossip_port();
    let started = Plan::new(stranger.kind, "stranger")
        .key(stranger.key)
        .join(&cluster[0])
        .try_start();
    let Err(ended) = started else {
        panic!("{stranger:?} got in")
    };
    assert_eq!(ended.code, Some(1), "{stranger:?}: {ended:?}");
    // Who it tried, and what went wrong there.
    let reason = ended
        .output
        .lines()
        .find(|line| line.contains("Failed to join 127.0.0.1"));
    let reason = reason.unwrap_or_else(|| panic!("{stranger:?} is not told why: {ended:?}"));
    assert!(reason.len() > "	* Failed to join 127.0.0.1: ".len(), "{reason}");
    for key in stranger.key.iter().chain(&stranger.cluster) {
        let text = key.rsplit(':').next().unwrap_or(key);
        assert!(
            !ended.output.contains(text),
            "{stranger:?}: the output shows a key"
        );
    }

    for agent in cluster.iter_mut() {
        agent.assert_running();
    }
    let all: Vec<&Agent> = cluster.iter().collect();
    all_alive(&all);
    // A cluster that still takes streams is one that still answers its own kind.
    let again = cluster[1].cli(&["join", &format!("127.0.0.1:{port}")]);
    assert_eq!(
        again.success(),
        "Successfully joined cluster by contacting 1 nodes.\n"
    );
}
