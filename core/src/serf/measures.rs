//! The Serf layer's share of what [`crate::swim::measures`] is for.

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
        self.queries += later.queries;
        self.acks += later.acks;
        self.responses += later.responses;
        self.duplicate_acks += later.duplicate_acks;
        self.duplicate_responses += later.duplicate_responses;
        self.rejected_coordinates += later.rejected_coordinates;
        self.zero_round_trips += later.zero_round_trips;
    }
}
