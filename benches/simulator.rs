//! How fast the simulator is, and how much memory it takes.
fn main() {
    use fyrd::sim::{World, WorldConfig, link::Link};
    use std::time::{Duration, Instant};
    let args: Vec<String> = std::env::args().collect();
    let n: usize = args[1].parse().unwrap();
    let profile = &args[2];
    let secs: u64 = args[3].parse().unwrap();
    let compress = args[4] == "c";
    let config = WorldConfig {
        profile: fyrd::swim::profile::Profile::builtin(profile).unwrap(),
        key: Some(fyrd_keys::Key::parse("MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=").unwrap()),
        compress,
        link: Link::default(),
        ..WorldConfig::new(7)
    };
    let t = Instant::now();
    let mut world = World::new(config);
    world.cluster(n);
    println!(
        "formed in {:?} simulated {:?} trace {:x} steps {}",
        t.elapsed(),
        world.now(),
        world.trace().sum(),
        world.trace().steps()
    );
    world.run_for(Duration::from_secs(120));
    println!(
        "rested {:?} trace {:x} steps {}",
        t.elapsed(),
        world.trace().sum(),
        world.trace().steps()
    );
    let t = Instant::now();
    world.run_for(Duration::from_secs(secs));
    println!(
        "{secs} s in {:?}: {:.1} times, trace {:x} steps {}",
        t.elapsed(),
        secs as f64 / t.elapsed().as_secs_f64(),
        world.trace().sum(),
        world.trace().steps()
    );
}
