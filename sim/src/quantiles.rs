//! Percentiles of measured durations.

use std::time::Duration;

use serde::Serialize;

/// Measured durations, to be asked for percentiles.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    seconds: Vec<f64>,
}

/// Percentiles of a number of samples, in seconds, by nearest rank; zero when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many samples there are.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// 90 % are not above it.
    pub p90: f64,
    /// 99 % are not above it.
    pub p99: f64,
    /// 99.9 % are not above it.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Samples {
    /// One more.
    pub fn add(&mut self, sample: Duration) {
        self.seconds.push(sample.as_secs_f64());
    }

    /// Those of another on top.
    pub fn merge(&mut self, other: Samples) {
        self.seconds.extend(other.seconds);
    }

    /// Their percentiles.
    pub fn quantiles(mut self) -> Quantiles {
        self.seconds.sort_by(f64::total_cmp);
        let count = self.seconds.len();
        let rank = |share: f64| {
            let rank = (share * count as f64).ceil() as usize;
            let sample = self.seconds.get(rank.clamp(1, count.max(1)) - 1).copied();
            // Nanoseconds are all that is measured, and read better than what is left after them.
            sample.map_or(0.0, |seconds| (seconds * 1e9).round() / 1e9)
        };
        Quantiles {
            count,
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
            p999: rank(0.999),
            max: rank(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        let mut samples = Samples::default();
        assert_eq!(samples.clone().quantiles(), Quantiles::default());
        for seconds in (1..=1000).rev() {
            samples.add(Duration::from_secs(seconds));
        }
        let expected = Quantiles {
            count: 1000,
            p50: 500.0,
            p90: 900.0,
            p99: 990.0,
            p999: 999.0,
            max: 1000.0,
        };
        assert_eq!(samples.quantiles(), expected);
        let mut one = Samples::default();
        one.add(Duration::from_millis(5));
        let one = one.quantiles();
        assert_eq!((one.p50, one.p999, one.max), (0.005, 0.005, 0.005));
    }
}
