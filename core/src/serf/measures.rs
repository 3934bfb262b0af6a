//! The Serf layer's share of what [`crate::swim::measures`] is for.

use std::time::Duration;

use crate::swim::measures::Tally;

/// Counted and measured since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SerfMeasures {
    /// Bytes of messages sent.
    pub sent: Tally,
    /// Bytes of messages received.
    pub received: Tally,
    /// Queries heard of for the first time.
    pub queries: u64,
    /// Acknowledgements of queries of ours.
    pub acks: u64,
    /// Answers to queries of ours.
    pub responses: u64,
    /// Acknowledgements that had come before.
    pub duplicate_acks: u64,
    /// Answers that had come before.
    pub duplicate_responses: u64,
    /// Queued intents, at each check.
    pub intent_queue: Tally,
    /// Queued user events, at each check.
    pub event_queue: Tally,
    /// Queued queries, at each check.
    pub query_queue: Tally,
    /// Round trips from which nothing could be learned.
    pub rejected_coordinates: u64,
    /// Round trips that took no time at all.
    pub zero_round_trips: u64,
    /// How far the own coordinate moved, in milliseconds.
    pub adjustment_ms: Tally,
    /// Round trips of direct pings.
    pub round_trips: RoundTrips,
}

/// How long round trips took, in constant space.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrips {
    /// How many there were.
    pub count: u64,
    /// Seconds, all together.
    pub seconds: f64,
    /// How many took no longer than each of [`RoundTrips::BOUNDS`], and longer than the one before; at last those
    /// that took longer than all.
    pub buckets: [u64; RoundTrips::BOUNDS.len() + 1],
}

impl RoundTrips {
    /// Upper bounds of the buckets in seconds: from one rack to the other side of the world, and beyond.
    pub const BOUNDS: [f64; 11] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    ];

    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = Self::BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        self.count += 1;
        self.seconds += seconds;
        self.buckets[bucket] += 1;
    }

    fn merge(&mut self, later: &RoundTrips) {
        self.count += later.count;
        self.seconds += later.seconds;
        for (sum, more) in self.buckets.iter_mut().zip(later.buckets) {
            *sum += more;
        }
    }
}

impl SerfMeasures {
    /// Adds what was counted and measured later.
    pub fn merge(&mut self, later: &SerfMeasures) {
        for (sum, more) in [
            (&mut self.sent, &later.sent),
            (&mut self.received, &later.received),
            (&mut self.intent_queue, &later.intent_queue),
            (&mut self.event_queue, &later.event_queue),
            (&mut self.query_queue, &later.query_queue),
            (&mut self.adjustment_ms, &later.adjustment_ms),
        ] {
            sum.merge(more);
        }
        self.round_trips.merge(&later.round_trips);
        self.queries += later.queries;
        self.acks += later.acks;
        self.responses += later.responses;
        self.duplicate_acks += later.duplicate_acks;
        self.duplicate_responses += later.duplicate_responses;
        self.rejected_coordinates += later.rejected_coordinates;
        self.zero_round_trips += later.zero_round_trips;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_fall_into_their_buckets() {
        let mut all = RoundTrips::default();
        for micros in [0, 500, 501, 70_000, 1_000_000, 5_000_000] {
            all.add(Duration::from_micros(micros));
        }
        assert_eq!(all.buckets, [2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1]);
        let mut twice = all;
        twice.merge(&all);
        assert_eq!((twice.count, twice.buckets[0], twice.buckets[11]), (12, 4, 2));
        assert!((all.seconds - 6.071_001).abs() < 1e-9, "{}", all.seconds);
    }
}
