//! How fast one change of a member's tags reaches all, beside what theory says.

use std::collections::BTreeSet;
use std::time::Duration;

use fyrd_core::serf::{Command, Event, MemberEventKind, Tags};
use fyrd_core::swim::profile::Profile;
use fyrd_sim::link::Link;
use fyrd_sim::quantiles::Samples;
use fyrd_sim::{World, WorldConfig};

const LOSSES: [f64; 3] = [0.0, 0.05, 0.25];
/// Cluster sizes, with the number of changes made in each.
const SIZES: [(usize, usize); 4] = [(30, 40), (100, 20), (1000, 5), (10_000, 1)];
/// After this long whoever has not heard is counted as missing.
const LIMIT: Duration = Duration::from_secs(20);

/// The fluid model behind HashiCorp's convergence simulator: each of `n` nodes tells `fanout` others a
/// round, a pair is counted once, and the informed grow logistically. Seconds until this share knows.
fn analytic(n: usize, loss: f64, share: f64) -> f64 {
    let profile = lan();
    let growth = profile.gossip_nodes as f64 * (1.0 - loss) * 0.5;
    let rounds = ((n as f64 + 1.0) * share / (1.0 - share)).ln() / growth;
    rounds.ceil() * profile.gossip_interval.as_secs_f64()
}

fn lan() -> Profile {
    Profile::builtin("lan").expect("a profile that is compiled in")
}

pub fn print() {
    println!("\n### Convergence: seconds until a change of tags is known, profile lan\n");
    println!(
        "| nodes | loss | theory, 99.99 % | half | 99 % | 99.9 % | all that heard within 20 s | of all |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let cases: Vec<(usize, usize, f64)> = SIZES
        .iter()
        .flat_map(|&(nodes, changes)| LOSSES.map(|loss| (nodes, changes, loss)))
        .collect();
    // The largest worlds fill the memory of a small machine, so they run one after the other.
    let (small, large): (Vec<_>, Vec<_>) = cases.iter().partition(|(nodes, ..)| *nodes <= 1000);
    let rows = super::in_parallel(&small, |&(nodes, changes, loss)| row(nodes, changes, loss));
    rows.iter().for_each(|row| println!("{row}"));
    for (nodes, changes, loss) in large {
        println!("{}", row(nodes, changes, loss));
    }
}

fn row(nodes: usize, changes: usize, loss: f64) -> String {
    let mut config = WorldConfig::new(nodes as u64 + (loss * 100.0) as u64);
    config.link = Link::lan();
    config.compress = false;
    // Push/pulls would repair what gossip misses, and this is to show gossip alone.
    config.profile = lan();
    config.profile.push_pull_interval = Duration::ZERO;
    let mut world = World::new(config);
    let hosts = world.acquainted(nodes);
    // Each node first says that it is there, a limited number of times.
    world.run_for(Duration::from_secs(5));
    world.links.change_all(|link| link.loss = loss);
    let mut delays = Samples::default();
    for change in 0..changes {
        let source = hosts[change * 7 % nodes];
        let name = world.host(source).name().to_owned();
        for &host in &hosts {
            world.take_events(host);
        }
        let start = world.now();
        let tags = Tags::from([("version".to_owned(), change.to_string())]);
        world.command(source, Command::SetTags(tags));
        let mut told = BTreeSet::new();
        let end = world.now() + LIMIT;
        while world.now() < end && told.len() < nodes - 1 {
            world.run_for(Duration::from_millis(100));
            for &host in hosts.iter().filter(|&&host| host != source) {
                for (at, event) in world.take_events(host) {
                    let Event::Member { kind, members } = &*event else {
                        continue;
                    };
                    let about = *kind == MemberEventKind::Update
                        && members.iter().any(|member| *member.name == *name);
                    if about && told.insert(host) {
                        delays.add(at.since(start));
                    }
                }
            }
        }
    }
    let quantiles = delays.quantiles();
    let expected = changes * (nodes - 1);
    format!(
        "| {nodes} | {:.0} % | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} % |",
        loss * 100.0,
        analytic(nodes, loss, 0.9999),
        quantiles.p50,
        quantiles.p99,
        quantiles.p999,
        quantiles.max,
        100.0 * quantiles.count as f64 / expected as f64,
    )
}
