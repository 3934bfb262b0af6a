//! How well network coordinates fit five known topologies, those of Serf's own gates, learnt by probing.

use std::time::Duration;

use fyrd_core::serf::coordinate::distance;
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How long nodes learn: about a thousand probes each, as many as in Serf's gates.
const LEARNING: Duration = Duration::from_secs(1000);
const SEEDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// A matrix of round trips, in seconds.
type Truth = Vec<Vec<f64>>;

struct Topology {
    name: &'static str,
    serf_gate: &'static str,
    truth: fn(&mut Xoshiro256PlusPlus) -> Truth,
}

const TOPOLOGIES: [Topology; 5] = [
    Topology {
        name: "line of 10, 10 ms apart",
        serf_gate: "0.31 %",
        truth: |_| matrix(10, |i, j| 0.010 * i.abs_diff(j) as f64),
    },
    Topology {
        name: "grid of 25, 10 ms apart",
        serf_gate: "0.16 %",
        truth: |_| {
            let place = |i: usize| ((i % 5) as f64, (i / 5) as f64);
            matrix(25, |i, j| {
                let ((a, b), (c, d)) = (place(i), place(j));
                0.010 * (a - c).hypot(b - d)
            })
        },
    },
    Topology {
        name: "two halves of 25, 1 ms within, 10 ms more between",
        serf_gate: "",
        truth: |_| matrix(25, |i, j| if (i < 12) == (j < 12) { 0.001 } else { 0.011 }),
    },
    Topology {
        name: "circle of 24, 100 ms in radius, and one twice as far from all",
        serf_gate: "",
        truth: |_| {
            let angle = |i: usize| std::f64::consts::TAU * i as f64 / 25.0;
            matrix(25, |i, j| {
                if i == 0 || j == 0 {
                    0.200
                } else {
                    2.0 * 0.100 * ((angle(i) - angle(j)) / 2.0).sin().abs()
                }
            })
        },
    },
    Topology {
        name: "25 at random, 100 ms, deviating by 10 ms",
        serf_gate: "7.5 % (of 100)",
        truth: |rng| {
            let mut normal = || {
                let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
                (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
            };
            let drawn: Vec<f64> = (0..25 * 24 / 2)
                .map(|_| (0.100 + 0.010 * normal()).max(0.001))
                .collect();
            matrix(25, |i, j| {
                let (high, low) = (i.max(j), i.min(j));
                drawn[high * (high - 1) / 2 + low]
            })
        },
    },
];

fn matrix(n: usize, rtt: impl Fn(usize, usize) -> f64) -> Truth {
    let row = |i| (0..n).map(|j| if i == j { 0.0 } else { rtt(i, j) }).collect();
    (0..n).map(row).collect()
}

pub fn print() {
    println!("\n### Coordinates: mean relative error of estimated round trips after 1,000 s of probing\n");
    println!(
        "| topology | error | worst of {} seeds | Serf's own gate |",
        SEEDS.len()
    );
    println!("|---|---:|---:|---:|");
    for topology in &TOPOLOGIES {
        let errors = super::in_parallel(&SEEDS, |&seed| learn(topology, seed));
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let worst = errors.iter().copied().fold(0.0, f64::max);
        println!(
            "| {} | {:.2} % | {:.2} % | {} |",
            topology.name,
            mean * 100.0,
            worst * 100.0,
            topology.serf_gate
        );
    }
}

fn learn(topology: &Topology, seed: u64) -> f64 {
    let truth = (topology.truth)(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
    let mut config = WorldConfig::new(seed);
    config.compress = false;
    let mut world = World::new(config);
    let hosts = world.acquainted(truth.len());
    for (i, row) in truth.iter().enumerate() {
        for (j, rtt) in row.iter().enumerate() {
            let link = Link::steady(Duration::from_secs_f64(rtt / 2.0));
            world.links.set_one_way(HostId(i), HostId(j), link);
        }
    }
    world.run_for(LEARNING);
    let own = |i: usize| {
        let node = world.node(hosts[i]);
        node.coordinate(node.local_name())
            .expect("a node knows its own coordinate")
    };
    let mut errors = Vec::new();
    for (i, row) in truth.iter().enumerate() {
        for (j, &rtt) in row.iter().enumerate().filter(|(j, _)| *j != i) {
            errors.push((distance(&own(i), &own(j)) - rtt).abs() / rtt);
        }
    }
    errors.iter().sum::<f64>() / errors.len() as f64
}
