//! Experiments on simulated clusters, whose tables stand in benches/README.md: what the Lifeguard paper
//! measured, how fast a change spreads beside theory, and how well coordinates fit known topologies.
//!
//! ```text
//! cargo bench --bench experiments                    # all of them
//! cargo bench --bench experiments -- convergence     # one: lifeguard, convergence or vivaldi
//! ```
//!
//! All randomness has fixed seeds, so the figures are the same on every machine.

mod convergence;
mod lifeguard;
mod vivaldi;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo runs benches as tests too; these take minutes, and are no tests.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let experiments: [(&str, fn()); 3] = [
        ("lifeguard", lifeguard::print),
        ("convergence", convergence::print),
        ("vivaldi", vivaldi::print),
    ];
    let named: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for (name, print) in experiments {
        if named.is_empty() || named.iter().any(|wanted| *wanted == name) {
            let start = Instant::now();
            print();
            eprintln!("({name}: {:.0} s)", start.elapsed().as_secs_f64());
        }
    }
}

/// Does each piece of work, on all processors, and gives the results in order.
fn in_parallel<T: Sync, R: Send>(work: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let worker = || {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = work.get(index) else { return own };
                own.push((index, run(piece)));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let joined = handles
            .into_iter()
            .map(|handle| handle.join().expect("no experiment panics"));
        joined.flatten().collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
