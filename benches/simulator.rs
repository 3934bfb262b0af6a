//! How fast the simulator is, and how much memory its nodes take.
//!
//! `cargo bench --bench simulator` prints two tables; `-- memory` or `-- speed` one of them; `-- all`
//! measures the memory of 10,000 nodes as well, which takes minutes and most of 8 GB.
//!
//! The worlds are made with [`World::acquainted`]: all nodes know each other from the start. From then on
//! everything is real: probes, gossip and push/pulls, compressed, sealed, opened, decoded, merged. First
//! they rest for as long as it takes until every node has made its first push/pull; then the clock is read over one
//! whole push/pull interval, so that each node makes one more. It is the processor's time, not the wall's, so
//! that other work on the machine counts little. Each memory row is a process of its own.

use std::process::Command;
use std::time::Duration;

use fyrd_core::swim::formulas::push_pull_interval;
use fyrd_core::swim::profile::Profile;
use fyrd_keys::{Cipher, Key};
use fyrd_sim::link::Link;
use fyrd_sim::{World, WorldConfig};

/// Nodes and profile of the worlds whose speed is measured.
const SPEED: [(usize, &str); 4] = [(100, "wan"), (100, "lan"), (1000, "wan"), (1000, "lan")];

/// Nodes of the worlds whose memory is measured; the last only when asked for.
const MEMORY: [usize; 3] = [1000, 3000, 10_000];

/// How long a world of the memory table rests, so that its nodes have used what they need at rest. Some of them make
/// their first push/pull in this time: a node waits for one to two intervals, which are a minute here.
const REST: Duration = Duration::from_secs(65);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory-of", count] => memory_row(count.parse().expect("a number of nodes")),
        ["memory"] => memory(&MEMORY[..2]),
        ["speed"] => speed(),
        ["all"] => {
            speed();
            memory(&MEMORY);
        }
        [] => {
            speed();
            memory(&MEMORY[..2]);
        }
        _ => {
            eprintln!("unknown arguments {args:?}: it takes speed, memory, all, or nothing");
            std::process::exit(2);
        }
    }
}

fn world(count: usize, profile: &str, compress: bool) -> World {
    let key = Key::generate(Cipher::Aes256Gcm, |bytes| {
        bytes.fill(7);
        Ok::<(), ()>(())
    });
    let mut world = World::new(WorldConfig {
        profile: Profile::builtin(profile).expect("a profile that is compiled in"),
        key: key.ok(),
        compress,
        link: Link::default(),
        ..WorldConfig::new(7)
    });
    world.acquainted(count);
    world
}

fn speed() {
    println!("| nodes | profile | compression | simulated s | processor s | times real time |");
    println!("|---:|---|---|---:|---:|---:|");
    for (count, profile) in SPEED {
        for compress in [true, false] {
            let mut world = world(count, profile, compress);
            let interval = Profile::builtin(profile).expect("as above").push_pull_interval;
            world.run_for(2 * interval);
            let span = push_pull_interval(interval, count);
            let before = processor_time();
            world.run_for(span);
            let taken = processor_time() - before;
            let compression = if compress { "LZW" } else { "none" };
            println!(
                "| {count} | {profile} | {compression} | {} | {:.2} | {:.0} |",
                span.as_secs(),
                taken.as_secs_f64(),
                span.as_secs_f64() / taken.as_secs_f64()
            );
        }
    }
    println!();
}

fn memory(counts: &[usize]) {
    println!("| nodes | resident MB | most MB | bytes a member a node |");
    println!("|---:|---:|---:|---:|");
    for count in counts {
        let own = std::env::current_exe().expect("this program");
        let status = Command::new(own)
            .args(["memory-of", &count.to_string()])
            .status()
            .expect("this program starts again");
        assert!(status.success(), "{count} nodes: {status}");
    }
}

fn memory_row(count: usize) {
    let before = resident("VmRSS:");
    let mut world = world(count, "wan", true);
    world.run_for(REST);
    let after = resident("VmRSS:");
    println!(
        "| {count} | {} | {} | {:.1} |",
        after / 1_000_000,
        resident("VmHWM:") / 1_000_000,
        (after - before) as f64 / (count * count) as f64
    );
}

/// How long this process has run on a processor (Linux alone tells).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux with scheduler statistics");
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// A line of this process's status, in bytes.
fn resident(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number of KiB") * 1024
}
