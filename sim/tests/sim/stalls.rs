//! Hosts that stand still now and then (overloaded virtual machines, snapshots of their disks) still notice
//! who has died.

use std::time::Duration;

use fyrd_core::serf::MemberEventKind;
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
    let failures = |world: &World, host: HostId, about: HostId| {
        let name = world.host(about).name();
        world.host(host).member_events(MemberEventKind::Failed, name)
    };
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
        let told = |&host: &HostId| !failures(&world, host, victim).is_empty();
        if killed.is_some() && survivors.iter().all(told) {
            break;
        }
    }
    let killed = killed.expect("it was killed");
    let told = |&host: &HostId| {
        let times = failures(&world, host, victim);
        times.iter().find(|at| **at >= killed).map(|at| at.since(killed))
    };
    let times: Option<Vec<Duration>> = survivors.iter().map(told).collect();
    let pairs = survivors
        .iter()
        .flat_map(|&host| survivors.iter().map(move |&about| (host, about)));
    Notice {
        last: times.and_then(|times| times.into_iter().max()),
        mistakes: pairs
            .map(|(host, about)| failures(&world, host, about).len())
            .sum(),
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
