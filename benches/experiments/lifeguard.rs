//! The experiments of the Lifeguard paper (arXiv 1707.00788, section V): some of 100 nodes stand still
//! again and again, and what the others make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use fyrd::serf::{Event, MemberEventKind};
use fyrd::sim::link::Link;
use fyrd::sim::quantiles::{Quantiles, Samples};
use fyrd::sim::{HostId, World, WorldConfig};
use fyrd::swim::profile::{Profile, Refinements};
use fyrd::time::Time;

const NODES: usize = 100;
/// For how long nodes stand still again and again, at least.
const TROUBLE: Duration = Duration::from_secs(120);
/// How long is waited for the verdicts afterwards.
const AFTERMATH: Duration = Duration::from_secs(30);

/// The part of the paper's grid that is run: nodes, milliseconds of each stall, milliseconds between.
const STALLED: [usize; 4] = [1, 4, 16, 32];
const STALLS_MS: [u64; 4] = [128, 2048, 8192, 32_768];
const GAPS_MS: [u64; 4] = [1, 64, 1024, 16_384];
/// How often the experiment about latencies is repeated for each number of stalled nodes.
const REPEATS: u64 = 5;

/// What is compared.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Local health, dynamic suspicion, nacks and the buddy system.
    lifeguard: bool,
    notices_pauses: bool,
}

const VARIANTS: [Variant; 3] = [
    Variant {
        name: "SWIM",
        lifeguard: false,
        notices_pauses: false,
    },
    Variant {
        name: "SWIM with Lifeguard, as Serf",
        lifeguard: true,
        notices_pauses: false,
    },
    Variant {
        name: "Fyrd as shipped",
        lifeguard: true,
        notices_pauses: true,
    },
];

impl Variant {
    fn profile(self) -> Profile {
        let mut profile = Profile::builtin("lan").expect("a profile that is compiled in");
        profile.refinements = Refinements {
            nacks: self.lifeguard,
            buddy: self.lifeguard,
            notices_pauses: self.notices_pauses,
        };
        if !self.lifeguard {
            profile.awareness_max_multiplier = 1;
            profile.suspicion_max_timeout_mult = 1;
        }
        profile
    }
}

/// What one run of stalls brought.
#[derive(Default)]
struct Mistakes {
    /// Failures declared of nodes that did not stand still, anywhere.
    all: usize,
    /// Those of them at nodes that did not stand still either.
    at_healthy: usize,
}

/// One cell of the grid.
type Cell = (Variant, usize, u64, u64);

pub fn print() {
    println!("\n### False positives: {NODES} nodes, some standing still again and again\n");
    let mut cells: Vec<Cell> = Vec::new();
    for variant in VARIANTS {
        for stalled in STALLED {
            for stall in STALLS_MS {
                cells.extend(GAPS_MS.map(|gap| (variant, stalled, stall, gap)));
            }
        }
    }
    let mistakes = super::in_parallel(&cells, |cell| stall_again_and_again(*cell));
    print_mistakes("nodes", &cells, &mistakes, |cell| cell.1.to_string());
    print_mistakes("stall", &cells, &mistakes, |cell| format!("{} ms", cell.2));
    print_mistakes("gap", &cells, &mistakes, |cell| format!("{} ms", cell.3));
    print_latencies();
}

/// One table: what falls on each value of one of the grid's dimensions.
fn print_mistakes(what: &str, cells: &[Cell], mistakes: &[Mistakes], label: impl Fn(&Cell) -> String) {
    let mut rows: Vec<String> = Vec::new();
    for cell in cells {
        if !rows.contains(&label(cell)) {
            rows.push(label(cell));
        }
    }
    rows.push("all".to_owned());
    let names = VARIANTS.map(|variant| variant.name).join(" | ");
    println!("| {what} | {names} |\n|---|---:|---:|---:|");
    for row in rows {
        let sums = VARIANTS.map(|variant| {
            let fits = |cell: &Cell| cell.0.name == variant.name && (row == "all" || label(cell) == row);
            let fitting = cells.iter().zip(mistakes).filter(|(cell, _)| fits(cell));
            let (all, healthy) = fitting.fold((0, 0), |sum, (_, found)| {
                (sum.0 + found.all, sum.1 + found.at_healthy)
            });
            format!("{all} / {healthy}")
        });
        println!("| {row} | {} |", sums.join(" | "));
    }
    println!();
}

fn cluster(variant: Variant, seed: u64) -> (World, Vec<HostId>) {
    let mut config = WorldConfig::new(seed);
    config.profile = variant.profile();
    config.link = Link::lan();
    config.compress = false;
    let mut world = World::new(config);
    let hosts = world.cluster(NODES);
    world.run_for(Duration::from_secs(15));
    for &host in &hosts {
        world.take_events(host);
    }
    (world, hosts)
}

fn failures(world: &mut World, host: HostId) -> Vec<(Time, String)> {
    let mut found = Vec::new();
    for (at, event) in world.take_events(host) {
        if let Event::Member { kind, members } = event
            && kind == MemberEventKind::Failed
        {
            found.extend(members.iter().map(|member| (at, member.name.to_string())));
        }
    }
    found
}

/// The paper's interval experiment: the stalled nodes stand still together, go on together, and so on.
fn stall_again_and_again((variant, stalled, stall_ms, gap_ms): Cell) -> Mistakes {
    let (mut world, hosts) = cluster(variant, 1_000_000 + stall_ms * 64 + gap_ms + stalled as u64);
    let (sick, healthy) = hosts.split_at(stalled);
    let end = world.now() + TROUBLE;
    while world.now() < end {
        sick.iter().for_each(|&host| world.freeze(host));
        world.run_for(Duration::from_millis(stall_ms));
        sick.iter().for_each(|&host| world.thaw(host));
        world.run_for(Duration::from_millis(gap_ms));
    }
    world.run_for(AFTERMATH);
    let names: Vec<String> = healthy
        .iter()
        .map(|&host| world.host(host).name().to_owned())
        .collect();
    let mut mistakes = Mistakes::default();
    for &host in &hosts {
        let found = failures(&mut world, host);
        let wrong = found.iter().filter(|(_, name)| names.contains(name)).count();
        mistakes.all += wrong;
        mistakes.at_healthy += if healthy.contains(&host) { wrong } else { 0 };
    }
    mistakes
}

/// The paper's threshold experiment: nodes stand still once, for so long that they count as failed.
fn print_latencies() {
    println!("### Detection: {NODES} nodes, 1 to 32 of them standing still for 32.768 s, seconds\n");
    println!(
        "| | first detection: median | 99 % | 99.9 % | known to all healthy nodes: median | 99 % | 99.9 % |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for variant in VARIANTS {
        let runs: Vec<(usize, u64)> = STALLED
            .iter()
            .flat_map(|&stalled| (0..REPEATS).map(move |repeat| (stalled, repeat)))
            .collect();
        let (mut first, mut last) = (Samples::default(), Samples::default());
        for (one, all) in super::in_parallel(&runs, |&(stalled, repeat)| stall_once(variant, stalled, repeat))
        {
            first.merge(one);
            last.merge(all);
        }
        let (first, last) = (first.quantiles(), last.quantiles());
        let cells = |quantiles: Quantiles| {
            format!(
                "{:.2} | {:.2} | {:.2}",
                quantiles.p50, quantiles.p99, quantiles.p999
            )
        };
        println!("| {} | {} | {} |", variant.name, cells(first), cells(last));
    }
}

fn stall_once(variant: Variant, stalled: usize, repeat: u64) -> (Samples, Samples) {
    let (mut world, hosts) = cluster(variant, 77 + repeat * 1000 + stalled as u64);
    let (sick, healthy) = hosts.split_at(stalled);
    let start = world.now();
    sick.iter().for_each(|&host| world.freeze(host));
    world.run_for(Duration::from_millis(32_768));
    let mut told: BTreeMap<String, Vec<Time>> = BTreeMap::new();
    for &host in healthy {
        for (at, name) in failures(&mut world, host) {
            told.entry(name).or_default().push(at);
        }
    }
    let (mut first, mut last) = (Samples::default(), Samples::default());
    for &host in sick {
        let Some(times) = told.get(world.host(host).name()) else {
            continue;
        };
        if let Some(&at) = times.iter().min() {
            first.add(at.since(start));
        }
        if let Some(&at) = times.iter().max().filter(|_| times.len() == healthy.len()) {
            last.add(at.since(start));
        }
    }
    (first, last)
}
