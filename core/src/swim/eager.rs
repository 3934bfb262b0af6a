//! Eager gossip: the first sends of news leave in waves of their own, and do not wait for the gossip round
//! (docs/design.md#eager-gossip).
//!
//! Only the time of sending differs from memberlist: a message is sent no more often, to as many members a
//! wave as a round reaches, and a share of its sends is left to the rounds. What the bucket does not allow now
//! waits, for the next wave or the next round, whichever comes first.

use std::time::Duration;

use super::Swim;
use super::Timer;
use super::delegate::Delegate;
use super::gossip::gossip_to;
use super::members::State;
use super::packet::PacketBuilder;
use super::profile::Profile;
use super::queue::Pace;
use crate::swim::formulas::retransmit_limit;
use crate::time::Time;

/// A new round trip counts as one of so many in the average.
const ROUND_TRIPS: u32 = 8;

/// When the next wave may leave.
#[derive(Debug, Default)]
pub(super) struct Eager {
    /// Whether a timer is set for it.
    waits: bool,
    /// No wave leaves before.
    next: Time,
    bucket: Bucket,
    /// The usual round trip, as the probes measure it.
    round_trip: Option<Duration>,
}

/// Packets that may leave at once, refilled at a steady rate.
#[derive(Debug, Default)]
struct Bucket {
    /// When it is full again.
    full_at: Time,
}

impl Bucket {
    /// Since when there are this many packets in it.
    fn has(&self, packets: usize, profile: &Profile) -> Time {
        let packets = packets.min(profile.eager_burst);
        self.full_at - refill_time(profile.eager_burst - packets, profile)
    }

    fn take(&mut self, now: Time, packets: usize, profile: &Profile) {
        self.full_at = self.full_at.max(now) + refill_time(packets, profile);
    }
}

fn refill_time(packets: usize, profile: &Profile) -> Duration {
    let nanos = packets as u64 * 1_000_000_000 / profile.eager_rate.max(1) as u64;
    Duration::from_nanos(nanos)
}

impl Eager {
    pub fn note_round_trip(&mut self, measured: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => measured,
            Some(usual) => (usual * (ROUND_TRIPS - 1) + measured) / ROUND_TRIPS,
        });
    }

    /// Between two waves passes a round trip, so that the second is not lost to the same jam; not less than the
    /// profile says, so that news can gather, and not more than a gossip interval, when a round is due anyway.
    fn pause(&self, profile: &Profile) -> Duration {
        let round_trip = self.round_trip.unwrap_or_default().min(profile.gossip_interval);
        round_trip.max(profile.eager_pause)
    }
}

impl Swim {
    /// Has news sent soon. To be called whenever there may be some.
    pub fn spread(&mut self, now: Time, delegate: &impl Delegate) {
        if self.eager.waits || !self.has_early(delegate) {
            return;
        }
        let at = (now + self.config.profile.eager_delay).max(self.eager.next);
        self.eager.waits = true;
        self.timers.set(at, Timer::Eager);
    }

    fn has_early(&self, delegate: &impl Delegate) -> bool {
        let pace = self.early();
        pace.sends_any() && (self.queue.has_due(pace, self.retransmit_limit()) || delegate.has_due(pace))
    }

    /// How much of what waits may leave now: a few members cannot be told more often than there are of them.
    fn early(&self) -> Pace {
        Pace::Early {
            percent: self.config.profile.eager_share as u32,
            most: u32::try_from(self.members.len() - 1).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn retransmit_limit(&self) -> u32 {
        retransmit_limit(self.config.profile.retransmit_mult, self.members.len())
    }

    pub(super) fn tick_eager(&mut self, now: Time, delegate: &mut impl Delegate) {
        self.eager.waits = false;
        if !self.has_early(delegate) {
            return;
        }
        let fanout = self.config.profile.gossip_nodes;
        let paid = self.eager.bucket.has(fanout, &self.config.profile);
        if paid > now {
            self.eager.next = paid;
            return;
        }
        let me = self.me;
        let targets = self.pick_members(fanout, |id, record| {
            id != me && matches!(record.state, State::Alive | State::Suspect)
        });
        self.eager.next = match targets.len() {
            // All others are gone. Whether that is still so, the next round is early enough to ask.
            0 => now + self.config.profile.gossip_interval,
            _ => now + self.eager.pause(&self.config.profile),
        };
        let mut sent = 0;
        for target in targets {
            let mut packet = PacketBuilder::new(self.config.profile.udp_buffer_size, self.config.overhead);
            self.fill(&mut packet, self.early(), delegate);
            if packet.is_empty() {
                break;
            }
            sent += 1;
            gossip_to(&target, packet.finish(), delegate);
        }
        self.eager.bucket.take(now, sent, &self.config.profile);
    }
}
