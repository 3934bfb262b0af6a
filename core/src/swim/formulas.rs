//! The timing formulas of SWIM and Lifeguard as memberlist fixes them.

use std::time::Duration;

/// How long a suspect has to refute, at least and at most (docs/protocol.md#a16-suspicion).
///
/// `n` counts every listed node, dead ones not yet purged included. The logarithm is cut to three
/// decimals, as peers do, so that all nodes agree on the timeout.
pub fn suspicion_bounds(
    mult: u32,
    max_mult: u32,
    n: usize,
    probe_interval: Duration,
) -> (Duration, Duration) {
    let scale = (n.max(1) as f64).log10().max(1.0);
    let thousandths = (scale * 1000.0).floor() as u128;
    let nanos = u128::from(mult) * thousandths * probe_interval.as_nanos() / 1000;
    let min = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    (min, min.saturating_mul(max_mult))
}

/// How many independent confirmations shorten a suspicion to its minimum (Lifeguard's k); 0 in a cluster
/// too small to have that many others.
pub fn expected_confirmations(mult: u32, n: usize) -> u32 {
    let k = mult.saturating_sub(2);
    if n < k as usize + 2 { 0 } else { k }
}

/// The whole length of a suspicion after `confirmations` of `k` have come in.
pub fn suspicion_timeout(confirmations: u32, k: u32, min: Duration, max: Duration) -> Duration {
    if k == 0 {
        return min;
    }
    let fraction = (f64::from(confirmations) + 1.0).ln() / (f64::from(k) + 1.0).ln();
    let seconds = max.as_secs_f64() - fraction * (max.as_secs_f64() - min.as_secs_f64());
    let millis = Duration::from_millis((seconds * 1000.0).max(0.0).floor() as u64);
    millis.max(min)
}

/// How often each node sends a broadcast (docs/protocol.md#a20-broadcast-queue).
pub fn retransmit_limit(mult: u32, n: usize) -> u32 {
    let digits = (n as f64 + 1.0).log10().ceil() as u32;
    mult.saturating_mul(digits)
}

/// The interval between push/pulls. Each costs more the more nodes there are, so above 32 nodes they come less
/// often (docs/protocol.md#a21-pushpull-timer).
pub fn push_pull_interval(base: Duration, n: usize) -> Duration {
    if n <= 32 {
        return base;
    }
    let steps = ((n as f64).log2() - 5.0).ceil() as u32 + 1;
    base.saturating_mul(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn suspicion_bounds_match_the_table() {
        // Demands: LAN min 4 s up to 10 nodes, 8 s at 100, 12 s at 1,000; max six times that.
        for (n, min_ms) in [
            (0, 4000),
            (1, 4000),
            (10, 4000),
            (11, 4164),
            (100, 8000),
            (1000, 12_000),
        ] {
            let (min, max) = suspicion_bounds(4, 6, n, SECOND);
            assert_eq!(min, Duration::from_millis(min_ms), "n = {n}");
            assert_eq!(max, min * 6);
        }
        // WAN: 30 s x log10 N.
        let (min, _) = suspicion_bounds(6, 6, 100, Duration::from_secs(5));
        assert_eq!(min, Duration::from_secs(60));
    }

    #[test]
    fn confirmations_are_expected_only_of_a_cluster_that_can_give_them() {
        for (n, k) in [(1, 0), (2, 0), (3, 0), (4, 2), (100, 2)] {
            assert_eq!(expected_confirmations(4, n), k, "n = {n}");
        }
        assert_eq!(expected_confirmations(2, 100), 0);
        assert_eq!(expected_confirmations(1, 100), 0);
    }

    #[test]
    fn each_confirmation_shortens_the_suspicion() {
        let (min, max) = (4 * SECOND, 24 * SECOND);
        let table = [(0, 24_000), (1, 11_381), (2, 4000), (3, 4000)];
        for (confirmations, millis) in table {
            assert_eq!(
                suspicion_timeout(confirmations, 2, min, max),
                Duration::from_millis(millis)
            );
        }
        assert_eq!(suspicion_timeout(0, 0, min, max), min);
    }

    #[test]
    fn retransmit_limit_matches_the_table() {
        let table = [
            (0, 0),
            (1, 4),
            (2, 4),
            (8, 4),
            (9, 4),
            (10, 8),
            (98, 8),
            (99, 8),
            (100, 12),
            (10_000, 20),
        ];
        for (n, limit) in table {
            assert_eq!(retransmit_limit(4, n), limit, "n = {n}");
        }
    }

    #[test]
    fn push_pulls_slow_down_above_32_nodes() {
        for (n, factor) in [
            (1, 1),
            (32, 1),
            (33, 2),
            (64, 2),
            (65, 3),
            (128, 3),
            (129, 4),
            (1024, 6),
        ] {
            assert_eq!(
                push_pull_interval(30 * SECOND, n),
                30 * SECOND * factor,
                "n = {n}"
            );
        }
    }
}
