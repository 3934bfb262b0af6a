//! Hosts that stand still now and then (overloaded virtual machines, snapshots of their disks) still notice
//! who has died.

use std::time::Duration;

use fyrd_sim::{HostId, World, WorldConfig};

/// So many agents, of which the survivors stand still for so long in each period, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Shape {
    agents: usize,
    stall_ms: u64,
    period_ms: u64,
}

/// What came of one run.
struct Notice {
    /// After what time the last of the survivors knew.
    last: Option<Duration>,
    /// How often one who lived was taken for dead.
    mistakes: usize,
}

/// Kills one agent of a cluster whose survivors stand still now and then. `as_serf`: without what Fyrd adds to
/// Lifeguard.
fn noticed(seed: u64, shape: Shape, as_serf: bool) -> Notice {
    const STEP_MS: u64 = 50;
    let mut config = WorldConfig::new(seed);
    config.profile.refinements.notices_pauses = !as_serf;
    config.profile.refinements.minds_silence = !as_serf;
    let mut world = World::new(config);
    let hosts = world.cluster(shape.agents);
    let (victim, survivors) = (hosts[0], &hosts[1..]);
    let phase = |host: HostId| (seed * 7919 + host.0 as u64 * 2741) % shape.period_ms;
    let kill_at = 30_000 + seed * 331 % shape.period_ms / STEP_MS * STEP_MS;
    let mut killed = None;
    for now in (0..400_000).step_by(STEP_MS as usize) {
        for &host in survivors {
            let at = (now + phase(host)) % shape.period_ms;
            if at < STEP_MS {
                world.freeze(host);
            } else if (shape.stall_ms..shape.stall_ms + STEP_MS).contains(&at) {
                world.thaw(host);
            }
        }
        if now == kill_at {
            world.crash(victim);
            killed = Some(world.now());
        }
        world.run_for(Duration::from_millis(STEP_MS));
        let told = |&host: &HostId| !world.failures(&[host], &[victim]).is_empty();
        if killed.is_some() && survivors.iter().all(told) {
            break;
        }
    }
    let killed = killed.expect("it was killed");
    let told = |&host: &HostId| {
        let times = world.failures(&[host], &[victim]);
        times.iter().find(|at| **at >= killed).map(|at| at.since(killed))
    };
    let times: Option<Vec<Duration>> = survivors.iter().map(told).collect();
    Notice {
        last: times.and_then(|times| times.into_iter().max()),
        mistakes: world.failures(survivors, survivors).len(),
    }
}

#[test]
fn survivors_that_stand_still_now_and_then_notice_who_has_died_about_as_soon_as_with_serf() {
    const SEEDS: u64 = 15;
    for (agents, stall_ms, period_ms) in [
        (2, 1200, 4000),
        (3, 1200, 2500),
        (5, 2000, 5000),
        (10, 2000, 5000),
    ] {
        let shape = Shape {
            agents,
            stall_ms,
            period_ms,
        };
        let [serf, fyrd] = [true, false].map(|as_serf| {
            let mut runs: Vec<Notice> = (1..=SEEDS).map(|seed| noticed(seed, shape, as_serf)).collect();
            runs.sort_by_key(|run| run.last);
            let mistakes: usize = runs.iter().map(|run| run.mistakes).sum();
            (runs[runs.len() / 2].last, mistakes)
        });
        let (Some(serf_last), Some(fyrd_last)) = (serf.0, fyrd.0) else {
            panic!("{shape:?}: not noticed: {serf:?} {fyrd:?}");
        };
        assert!(
            fyrd_last.as_secs_f64() < 1.5 * serf_last.as_secs_f64(),
            "{shape:?}: {serf:?} {fyrd:?}"
        );
        assert!(fyrd.1 <= serf.1, "{shape:?}: {serf:?} {fyrd:?}");
    }
}

/// What becomes of a cluster whose hosts each get a processor for `STEP` of each `period`: packets a node and second
/// once that has gone on for half a minute, and how often one who lived was taken for dead.
fn starved(seed: u64, period: Duration, notices: bool) -> (f64, usize) {
    const STEP: Duration = Duration::from_millis(50);
    const HALF_A_MINUTE: Duration = Duration::from_secs(30);
    let mut config = WorldConfig::new(seed);
    config.profile.refinements.notices_pauses = notices;
    let mut world = World::new(config);
    let hosts = world.cluster(40);
    let begin = world.now();
    let turns = (period.as_millis() / STEP.as_millis()) as usize;
    let mut packets = 0;
    for turn in 0.. {
        for (place, &host) in hosts.iter().enumerate() {
            let phase = (turn + place * 7) % turns;
            if phase == 0 {
                world.thaw(host);
            } else if phase == 1 || turn == 0 {
                world.freeze(host);
            }
        }
        world.run_for(STEP);
        match world.now().since(begin) {
            passed if passed > 2 * HALF_A_MINUTE => break,
            passed if passed > HALF_A_MINUTE => {
                packets += world.tapped().len();
                world.tap();
            }
            _ => {}
        }
    }
    (
        packets as f64 / HALF_A_MINUTE.as_secs_f64() / hosts.len() as f64,
        world.failures(&hosts, &hosts).len(),
    )
}

/// A host of a thousand agents, or of one in a container that may not have more: where all answer late, asking more
/// makes all later still.
#[test]
fn hosts_that_seldom_get_a_processor_make_no_more_work_for_each_other() {
    for (seed, period) in [(1, 700), (2, 1000)] {
        let period = Duration::from_millis(period);
        let [as_serf, fyrd] = [false, true].map(|notices| starved(seed, period, notices));
        assert!(
            fyrd.0 < as_serf.0 / 2.0 && fyrd.0 < 2.5,
            "{period:?}: {as_serf:?} {fyrd:?}"
        );
        assert_eq!(fyrd.1, 0, "{period:?}");
    }
}
