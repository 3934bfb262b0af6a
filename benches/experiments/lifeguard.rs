//! The experiments of the Lifeguard paper (arXiv 1707.00788): of 100 nodes some are slow again and again; how
//! many healthy ones are declared failed, and how soon dead ones.

use std::collections::BTreeMap;
use std::time::Duration;

use fyrd_core::serf::{Event, MemberEventKind};
use fyrd_core::swim::profile::{Profile, Refinements};
use fyrd_core::time::Time;
use fyrd_sim::link::Link;
use fyrd_sim::quantiles::{Quantiles, Samples};
use fyrd_sim::{HostId, World, WorldConfig};

const NODES: usize = 100;
/// For how long nodes are slow again and again, at least.
const TROUBLE: Duration = Duration::from_secs(120);
/// How long the others have afterwards to declare failures.
const AFTERMATH: Duration = Duration::from_secs(30);
/// What a node needs for each datagram, slow or not: what memberlist was measured to take for a full one.
const A_DATAGRAM: Duration = Duration::from_micros(31);

/// The part of the paper's grid that is run: slow nodes, milliseconds of each stall, milliseconds between.
const SLOW: [usize; 4] = [1, 4, 16, 32];
const STALLS_MS: [u64; 6] = [128, 512, 2048, 8192, 16_384, 32_768];
const GAPS_MS: [u64; 4] = [1, 64, 1024, 16_384];
/// How often the experiment about latencies is repeated for each number of slow nodes.
const REPEATS: u64 = 5;

/// What is wrong with a slow node.
#[derive(Clone, Copy, PartialEq)]
enum Stall {
    /// What it sends and receives waits, while its timers go on.
    Blocked,
    /// Its process stands still, timers and all.
    Frozen,
}

impl Stall {
    fn begin(self, world: &mut World, host: HostId) {
        match self {
            Stall::Blocked => world.block_io(host),
            Stall::Frozen => world.freeze(host),
        }
    }

    fn end(self, world: &mut World, host: HostId) {
        match self {
            Stall::Blocked => world.unblock_io(host),
            Stall::Frozen => world.thaw(host),
        }
    }
}

/// What is compared.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Local health, with nacks (LHA-Probe).
    probe: bool,
    /// Suspicions that are long until others confirm them (LHA-Suspicion).
    suspicion: bool,
    buddy: bool,
    notices_pauses: bool,
    minds_silence: bool,
    /// Whether acks that are late and refusals count.
    evidence: bool,
    /// What else only Fyrd has: news leaves in waves, members take turns to probe, and gaps are repaired at once.
    ours: bool,
}

const SWIM: Variant = Variant {
    name: "SWIM",
    probe: false,
    suspicion: false,
    buddy: false,
    notices_pauses: false,
    minds_silence: false,
    evidence: false,
    ours: false,
};
const SERF: Variant = Variant {
    name: "all of Lifeguard, as Serf",
    probe: true,
    suspicion: true,
    buddy: true,
    notices_pauses: false,
    minds_silence: false,
    evidence: false,
    ours: false,
};
const FYRD: Variant = Variant {
    name: "Fyrd as shipped",
    notices_pauses: true,
    minds_silence: true,
    evidence: true,
    ours: true,
    ..SERF
};
/// Lifeguard's parts one by one, between nothing and everything.
const PARTS: [Variant; 6] = [
    SWIM,
    Variant {
        name: "LHA-Probe",
        probe: true,
        ..SWIM
    },
    Variant {
        name: "LHA-Suspicion",
        suspicion: true,
        ..SWIM
    },
    Variant {
        name: "buddy system",
        buddy: true,
        ..SWIM
    },
    SERF,
    FYRD,
];
const WHOLES: [Variant; 3] = [SWIM, SERF, FYRD];

impl Variant {
    fn profile(self) -> Profile {
        let mut profile = Profile::builtin("lan").expect("a profile that is compiled in");
        profile.refinements = Refinements {
            nacks: self.probe,
            buddy: self.buddy,
            notices_pauses: self.notices_pauses,
            minds_silence: self.minds_silence,
        };
        if !self.probe {
            profile.awareness_max_multiplier = 1;
        }
        if !self.suspicion {
            profile.suspicion_max_timeout_mult = 1;
        }
        if !self.evidence {
            profile.late_ack_max = Duration::ZERO;
            profile.evidence_pause = Duration::ZERO;
        }
        if !self.ours {
            (profile.eager_share, profile.gossip_ring, profile.gossip_least) = (0, 0, 0);
            profile.probe_turns = false;
            profile.repair_interval = Duration::ZERO;
        }
        profile
    }
}

/// What one run of stalls brought.
#[derive(Default)]
struct Mistakes {
    /// Failures declared of nodes that were not slow, anywhere.
    all: usize,
    /// Those of them at nodes that were not slow either.
    at_healthy: usize,
}

/// One cell of the grid.
#[derive(Clone, Copy)]
struct Cell {
    variant: Variant,
    stall: Stall,
    slow: usize,
    stall_ms: u64,
    gap_ms: u64,
}

pub fn print() {
    println!("\n### False positives: {NODES} nodes, packets of some waiting again and again\n");
    print_grid(&PARTS, Stall::Blocked, true);
    println!("### False positives: {NODES} nodes, some standing still again and again\n");
    print_grid(&WHOLES, Stall::Frozen, false);
    print_latencies();
}

fn print_grid(variants: &[Variant], stall: Stall, in_detail: bool) {
    let mut cells: Vec<Cell> = Vec::new();
    for &variant in variants {
        for slow in SLOW {
            for stall_ms in STALLS_MS {
                cells.extend(GAPS_MS.map(|gap_ms| Cell {
                    variant,
                    stall,
                    slow,
                    stall_ms,
                    gap_ms,
                }));
            }
        }
    }
    let mistakes = super::in_parallel(&cells, |cell| stall_again_and_again(*cell));
    let by = |what: &str, label: &dyn Fn(&Cell) -> String| {
        print_mistakes(what, variants, &cells, &mistakes, label);
    };
    by("slow nodes", &|cell| cell.slow.to_string());
    if in_detail {
        by("stall", &|cell| format!("{} ms", cell.stall_ms));
        by("gap", &|cell| format!("{} ms", cell.gap_ms));
    }
}

/// One table: what falls on each value of one of the grid's dimensions.
fn print_mistakes(
    what: &str,
    variants: &[Variant],
    cells: &[Cell],
    mistakes: &[Mistakes],
    label: &dyn Fn(&Cell) -> String,
) {
    let mut rows: Vec<String> = Vec::new();
    for cell in cells {
        if !rows.contains(&label(cell)) {
            rows.push(label(cell));
        }
    }
    rows.push("all".to_owned());
    let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
    println!(
        "| {what} | {} |\n|---|{}",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for row in rows {
        let sums: Vec<String> = names
            .iter()
            .map(|name| {
                let fits = |cell: &Cell| cell.variant.name == *name && (row == "all" || label(cell) == row);
                let fitting = cells.iter().zip(mistakes).filter(|(cell, _)| fits(cell));
                let (all, healthy) = fitting.fold((0, 0), |sum, (_, found)| {
                    (sum.0 + found.all, sum.1 + found.at_healthy)
                });
                format!("{all} / {healthy}")
            })
            .collect();
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
    for &host in &hosts {
        world.set_pace(host, A_DATAGRAM);
    }
    world.run_for(Duration::from_secs(15));
    for &host in &hosts {
        world.take_events(host);
    }
    (world, hosts)
}

fn failures(world: &mut World, host: HostId) -> Vec<(Time, String)> {
    let mut found = Vec::new();
    for (at, event) in world.take_events(host) {
        if let Event::Member { kind, members } = &*event
            && *kind == MemberEventKind::Failed
        {
            found.extend(members.iter().map(|member| (at, member.name.to_string())));
        }
    }
    found
}

/// The paper's interval experiment: the slow nodes stall together, go on together, and so on.
fn stall_again_and_again(cell: Cell) -> Mistakes {
    let Cell {
        stall,
        stall_ms,
        gap_ms,
        ..
    } = cell;
    let seed = 1_000_000 + stall_ms * 64 + gap_ms + cell.slow as u64;
    let (mut world, hosts) = cluster(cell.variant, seed);
    let (slow, healthy) = hosts.split_at(cell.slow);
    let end = world.now() + TROUBLE;
    while world.now() < end {
        slow.iter().for_each(|&host| stall.begin(&mut world, host));
        world.run_for(Duration::from_millis(stall_ms));
        slow.iter().for_each(|&host| stall.end(&mut world, host));
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

/// The paper's threshold experiment: nodes stall once, for so long that they count as failed.
fn print_latencies() {
    println!("### Detection: {NODES} nodes, packets of 1 to 32 of them waiting for 32.768 s, seconds\n");
    println!(
        "| | first detection: median | 99 % | 99.9 % | known to all healthy nodes: median | 99 % | 99.9 % |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for variant in WHOLES {
        let runs: Vec<(usize, u64)> = SLOW
            .iter()
            .flat_map(|&slow| (0..REPEATS).map(move |repeat| (slow, repeat)))
            .collect();
        let (mut first, mut last) = (Samples::default(), Samples::default());
        for (one, all) in super::in_parallel(&runs, |&(slow, repeat)| stall_once(variant, slow, repeat)) {
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

fn stall_once(variant: Variant, slow: usize, repeat: u64) -> (Samples, Samples) {
    let (mut world, hosts) = cluster(variant, 77 + repeat * 1000 + slow as u64);
    let (slow, healthy) = hosts.split_at(slow);
    let start = world.now();
    slow.iter()
        .for_each(|&host| Stall::Blocked.begin(&mut world, host));
    world.run_for(Duration::from_millis(32_768));
    let mut told: BTreeMap<String, Vec<Time>> = BTreeMap::new();
    for &host in healthy {
        for (at, name) in failures(&mut world, host) {
            told.entry(name).or_default().push(at);
        }
    }
    let (mut first, mut last) = (Samples::default(), Samples::default());
    for &host in slow {
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
