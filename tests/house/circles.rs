//! Circles in a graph.

use std::collections::{BTreeMap, BTreeSet};

/// The groups of nodes that reach each other along the arrows.
pub fn circles<N: Ord + Clone>(arrows: &BTreeSet<(N, N)>) -> Vec<BTreeSet<N>> {
    let mut found: Vec<BTreeSet<N>> = Vec::new();
    let reached: BTreeMap<N, BTreeSet<N>> = arrows
        .iter()
        .map(|(from, _)| (from.clone(), reach(from, arrows)))
        .collect();
    for (from, reached_from) in &reached {
        if reached_from.contains(from) && !found.iter().any(|group| group.contains(from)) {
            let comes_back = |to: &&N| reached.get(*to).is_some_and(|back| back.contains(from));
            found.push(reached_from.iter().filter(comes_back).cloned().collect());
        }
    }
    found
}

/// All that is reached from a node, along one arrow at least.
fn reach<N: Ord + Clone>(from: &N, arrows: &BTreeSet<(N, N)>) -> BTreeSet<N> {
    let next = |from: &N| {
        let from = from.clone();
        arrows
            .iter()
            .filter(move |arrow| arrow.0 == from)
            .map(|arrow| arrow.1.clone())
    };
    let mut reached = BTreeSet::new();
    let mut open: Vec<N> = next(from).collect();
    while let Some(node) = open.pop() {
        if reached.insert(node.clone()) {
            open.extend(next(&node));
        }
    }
    reached
}

#[test]
fn circles_are_found_and_nothing_else() {
    let graph = |arrows: &[(u8, u8)]| circles(&arrows.iter().copied().collect());
    assert!(graph(&[(1, 2), (2, 3), (1, 3), (4, 3)]).is_empty());
    assert_eq!(
        graph(&[(1, 2), (2, 3), (3, 1), (3, 4), (5, 1)]),
        [[1, 2, 3].into()]
    );
    assert_eq!(
        graph(&[(1, 2), (2, 1), (2, 3), (3, 4), (4, 3)]),
        [[1, 2].into(), [3, 4].into()]
    );
}
