//! What is counted and measured for telemetry, in constant space. Whoever is interested takes it away
//! from time to time; the names there are in docs/compatibility.md#telemetry.

/// Any number of measurements, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// The least, if there is any.
    pub min: f64,
    /// The greatest, if there is any.
    pub max: f64,
}

impl Tally {
    /// One measurement.
    pub fn of(value: f64) -> Tally {
        Tally {
            count: 1,
            sum: value,
            sum_squares: value * value,
            min: value,
            max: value,
        }
    }

    /// So many times one.
    pub fn ones(count: u64) -> Tally {
        let sum = count as f64;
        Tally {
            count,
            sum,
            sum_squares: sum,
            min: 1.0,
            max: 1.0,
        }
    }

    /// Adds a measurement.
    pub fn add(&mut self, value: f64) {
        self.merge(&Tally::of(value));
    }

    /// Adds all measurements of another.
    pub fn merge(&mut self, other: &Tally) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The mean of the measurements.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum / self.count as f64
    }

    /// Their standard deviation, as that of a sample.
    pub fn deviation(&self) -> f64 {
        let count = self.count as f64;
        let (above, below) = (
            count * self.sum_squares - self.sum * self.sum,
            count * (count - 1.0),
        );
        // Rounding may leave a little less than nothing.
        if below <= 0.0 || above <= 0.0 {
            return 0.0;
        }
        (above / below).sqrt()
    }
}

/// Counted since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SwimMeasures {
    /// Alive messages that changed something.
    pub alive: u64,
    /// Suspicions that began.
    pub suspect: u64,
    /// Dead messages that changed something.
    pub dead: u64,
    /// Probes that took longer because this node is not healthy.
    pub degraded_probes: u64,
    /// Suspicions that ran out with fewer confirmations than hoped for.
    pub degraded_timeouts: u64,
}

impl SwimMeasures {
    /// Adds what was counted later.
    pub fn merge(&mut self, later: &SwimMeasures) {
        self.alive += later.alive;
        self.suspect += later.suspect;
        self.dead += later.dead;
        self.degraded_probes += later.degraded_probes;
        self.degraded_timeouts += later.degraded_timeouts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies() {
        let mut all = Tally::default();
        assert_eq!((all.mean(), all.deviation()), (0.0, 0.0));
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            all.add(value);
        }
        assert_eq!(
            (all.count, all.sum, all.min, all.max, all.mean()),
            (8, 40.0, 2.0, 9.0, 5.0)
        );
        assert!((all.deviation() - 2.138).abs() < 0.001);
        let mut ones = Tally::of(1.0);
        ones.merge(&Tally::ones(2));
        ones.merge(&Tally::default());
        assert_eq!((ones, ones.deviation()), (Tally::ones(3), 0.0));
    }
}
