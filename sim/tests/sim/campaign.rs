//! Many worlds drawn from seeds, each watched by all checkers.
//!
//! `cargo test --test sim campaign` runs 200 fixed seeds. One seed again, with its plan:
//!
//! ```text
//! FYRD_SEED=17 cargo test --test sim -- --ignored --nocapture one_seed
//! ```
//!
//! A longer campaign over seeds that nobody has tried yet:
//!
//! ```text
//! FYRD_SEEDS=10000 cargo test --release --test sim -- --ignored --nocapture fresh_seeds
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fyrd_sim::campaign::{self, Outcome, Plan, Trouble};

const FIXED_SEEDS: u64 = 200;

/// Runs `count` seeds from `first` on all processors; gives the outcomes in the order of the seeds.
fn run_seeds(first: u64, count: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = || {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return own;
                }
                own.push(campaign::run(first.wrapping_add(index)));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = handles
            .into_iter()
            .map(|handle| handle.join().expect("no world panics"));
        joined.flatten().collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed.wrapping_sub(first));
    outcomes
}

fn judge(outcomes: &[Outcome]) {
    let broken: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| !outcome.findings.is_empty())
        .collect();
    for outcome in &broken {
        println!("\n{:?}", outcome.plan);
        for finding in &outcome.findings {
            println!("  {finding}");
        }
        let seed = outcome.seed;
        println!("  again: FYRD_SEED={seed} cargo test --test sim -- --ignored --nocapture one_seed");
    }
    assert!(
        broken.is_empty(),
        "{} of {} worlds broke a promise",
        broken.len(),
        outcomes.len()
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} must be a whole number")),
    )
}

#[test]
fn no_promise_is_broken_in_200_worlds() {
    let outcomes = run_seeds(0, FIXED_SEEDS);
    judge(&outcomes);
    // The worlds are what they are meant to be: not all alike, and not all quiet.
    let plans = || outcomes.iter().map(|outcome| &outcome.plan);
    assert!(plans().filter(|plan| plan.keys.is_some()).count() > 60);
    assert!(plans().filter(|plan| plan.profile == "wan").count() > 20);
    assert!(plans().filter(|plan| plan.troubles.len() > 2).count() > 60);
    let crash_over_bad_disks = |plan: &&Plan| {
        let has = |trouble| plan.troubles.contains(&trouble);
        has(Trouble::Crashes)
            && (has(Trouble::SlowDisks) || has(Trouble::HungDisks) || has(Trouble::FullDisks))
    };
    assert!(plans().filter(crash_over_bad_disks).count() > 10);
    assert!(outcomes.iter().all(|outcome| outcome.trace.steps() > 100));
    // The same seed is the same run, byte for byte; another is another.
    for (again, first) in run_seeds(40, 8).iter().zip(&outcomes[40..]) {
        assert_eq!(again.trace, first.trace, "seed {}", first.seed);
    }
    let mut sums: Vec<u64> = outcomes.iter().map(|outcome| outcome.trace.sum()).collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), outcomes.len());
}

#[test]
#[ignore = "repeats one seed: FYRD_SEED=N"]
fn one_seed() {
    let seed = number("FYRD_SEED").expect("FYRD_SEED names the seed");
    let outcome = campaign::run(seed);
    println!(
        "{:?}\n{:?} of simulated time, {:?}",
        outcome.plan, outcome.lasted, outcome.trace
    );
    judge(&[outcome]);
}

#[test]
#[ignore = "as long as you like: FYRD_SEEDS=N"]
fn fresh_seeds() {
    let count = number("FYRD_SEEDS").unwrap_or(1000);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    // Apart from the fixed seeds, and from those of other days.
    let first = (clock.as_secs() << 24) + FIXED_SEEDS;
    println!("seeds {first} to {}", first + count - 1);
    // In portions, so that a broken promise is told soon.
    for portion in (0..count).step_by(100) {
        judge(&run_seeds(first + portion, 100.min(count - portion)));
    }
}
