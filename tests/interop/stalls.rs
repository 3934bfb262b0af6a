//! Hosts that stand still now and then, as overloaded virtual machines do, notice who has died about as soon as
//! with the real Serf.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Agent, Kind, Plan, all_alive};

/// So many agents, of which the survivors stand still for so long in each period.
#[derive(Clone, Copy, Debug)]
struct Shape {
    agents: usize,
    stall: Duration,
    period: Duration,
}

/// Clusters of each kind and shape; the median of them counts.
const CLUSTERS: usize = 3;

/// Longer than anybody should take.
const LIMIT: Duration = Duration::from_secs(90);

/// Between two looks at clock and logs.
const TICK: Duration = Duration::from_millis(20);

/// After what time the first survivor of a cluster notices that one agent was killed.
fn noticed(kind: Kind, shape: Shape, number: usize) -> Duration {
    let mut agents: Vec<Agent> = Vec::new();
    for i in 0..shape.agents {
        let plan = Plan::new(kind, &format!("n{i}"));
        let plan = match agents.first() {
            Some(first) => plan.join(first),
            None => plan,
        };
        agents.push(plan.start());
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    let mut victim = agents.remove(0);
    let begin = Instant::now();
    let mut stopped = vec![false; agents.len()];
    let mut killed: Option<Instant> = None;
    loop {
        for (i, (agent, stopped)) in agents.iter().zip(&mut stopped).enumerate() {
            // Each survivor has a rhythm of its own.
            let phase = shape.period.mul_f64(0.37 * i as f64 + 0.21 * number as f64);
            let at = (begin.elapsed() + phase).as_millis() % shape.period.as_millis();
            let stand_still = at < shape.stall.as_millis();
            if stand_still != *stopped {
                let signal = if stand_still {
                    Signal::SIGSTOP
                } else {
                    Signal::SIGCONT
                };
                kill(Pid::from_raw(agent.pid() as i32), signal).expect("the agent runs");
                *stopped = stand_still;
            }
        }
        match killed {
            None if begin.elapsed() > 3 * shape.period => {
                victim.kill();
                killed = Some(Instant::now());
            }
            Some(at)
                if agents
                    .iter()
                    .any(|agent| agent.times_said("EventMemberFailed: n0") > 0) =>
            {
                return at.elapsed();
            }
            Some(at) if at.elapsed() > LIMIT => return LIMIT,
            _ => {}
        }
        std::thread::sleep(TICK);
    }
}

#[test]
#[ignore = "needs serf (tests/run)"]
fn survivors_that_stand_still_now_and_then_notice_a_death_about_as_soon_as_serfs_do() {
    let shape = |agents, stall, period| Shape {
        agents,
        stall: Duration::from_millis(stall),
        period: Duration::from_millis(period),
    };
    let shapes = [shape(2, 1200, 4000), shape(3, 1200, 2500), shape(5, 2000, 5000)];
    std::thread::scope(|scope| {
        let runs = shapes.map(|shape| {
            [Kind::Serf, Kind::Fyrd].map(|kind| {
                std::array::from_fn::<_, CLUSTERS, _>(|number| {
                    scope.spawn(move || noticed(kind, shape, number))
                })
            })
        });
        for (shape, kinds) in shapes.into_iter().zip(runs) {
            let [serf, fyrd] = kinds.map(|clusters| {
                let mut times = clusters.map(|run| run.join().expect("the run ends"));
                times.sort();
                times
            });
            println!("{shape:?}: Serf {serf:?}, Fyrd {fyrd:?}");
            let (serf, fyrd) = (serf[CLUSTERS / 2], fyrd[CLUSTERS / 2]);
            // The probes of both begin anywhere in their interval, so a few runs differ by more than half.
            assert!(
                fyrd <= serf.mul_f64(1.5) + Duration::from_secs(2),
                "{shape:?}: {serf:?}, {fyrd:?}"
            );
        }
    });
}
