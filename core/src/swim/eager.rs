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
use super::members::State;
use super::profile::Profile;
use super::queue::{Pace, Part, Share};
use crate::swim::formulas::retransmit_limit;
use crate::time::Time;

/// A cluster that grows by more than one in so many members is forming.
const FORMING: usize = 10;

/// How many times longer than the least pause one grows, in news that does not end and does not fill packets either.
const LONGEST_PAUSE: u32 = 8;

/// When the next wave may leave.
#[derive(Debug, Default)]
pub(super) struct Eager {
    /// When the timer that is set for it goes off.
    waits: Option<Time>,
    /// Whether nothing but a pause keeps one from leaving when there is something to send.
    flows: bool,
    /// No wave leaves before.
    next: Time,
    /// The pause before that.
    pause: Duration,
    /// Nothing is sent to further members before.
    repeats: Time,
    bucket: Bucket,
    growth: Growth,
}

/// Whether the cluster is just forming. What is said then is mostly said to few, before the others are known, and would
/// have no sends left for them.
#[derive(Debug, Default)]
struct Growth {
    /// When a member was listed last.
    last: Time,
    /// How many members there were before this growth began.
    from: usize,
}

impl Growth {
    /// Since when there is no growth any more, after a gossip interval without; `None` if there is none worth
    /// waiting for.
    fn ends(&self, members: usize, profile: &Profile) -> Option<Time> {
        let grown = members.saturating_sub(self.from);
        (grown * FORMING > members).then(|| self.last + profile.gossip_interval)
    }
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
    /// A member is about to be listed beside so many.
    pub fn note_growth(&mut self, now: Time, members: usize, profile: &Profile) {
        if now.since(self.growth.last) >= profile.gossip_interval {
            self.growth.from = members;
        }
        self.growth.last = now;
    }

    /// Ends a wave, whose packets could not hold all that was due if it `is_short`.
    ///
    /// Between two waves passes at least what the profile says, and where this process has no processor when it wants one,
    /// its `slack`, for there packets that hold more make less work. While one wave follows the other in packets that are not
    /// full, the pause grows, so that news that trickles in shares them. Between two in which the same news is sent, longer:
    /// a round trip as well, so that the second is not lost to the same jam, but not more than a gossip interval, when a round
    /// is due anyway; in a flood it takes long enough to send all of it once.
    fn end_wave(
        &mut self,
        now: Time,
        is_short: bool,
        round_trip: Duration,
        slack: Duration,
        profile: &Profile,
    ) {
        if now >= self.repeats && !is_short {
            self.repeats = now + round_trip.min(profile.gossip_interval).max(profile.eager_repeat);
        }
        let goes_on = now < self.next + self.pause;
        self.pause = match self.pause * 2 {
            longer if goes_on && !is_short => longer.min(profile.eager_pause * LONGEST_PAUSE),
            _ => profile.eager_pause,
        };
        self.next = now + self.pause.max(slack);
    }
}

impl Swim {
    /// Has news sent soon. To be called whenever there may be some.
    pub fn spread(&mut self, now: Time, delegate: &impl Delegate) {
        self.wake_gossip(now, delegate);
        let waits = self.eager.waits;
        if let Some(at) = self.next_wave(now, delegate)
            && waits.is_none_or(|waits| at < waits)
        {
            if waits.is_some() {
                self.timers.cancel(|timer| *timer == Timer::Eager);
            }
            self.eager.waits = Some(at);
            self.timers.set(at, Timer::Eager);
        }
        self.eager.flows = self.not_before() <= now;
    }

    /// When the next wave shall leave, if there is something to send.
    fn next_wave(&self, now: Time, delegate: &impl Delegate) -> Option<Time> {
        let soon = now + self.config.profile.eager_delay;
        let soon = soon.max(self.eager.next).max(self.not_before());
        if self.has_early(self.fresh(), delegate) {
            return Some(soon);
        }
        self.has_early(self.early(), delegate)
            .then(|| soon.max(self.eager.repeats))
    }

    /// Which sends a round takes, or a packet that leaves anyway. Waves are left theirs, which they make soon, and each to
    /// its place, unless they are kept from it.
    pub(super) fn part_beside_waves(&self) -> Part {
        if self.eager.flows {
            Part::Rest(self.early())
        } else {
            Part::All
        }
    }

    /// No wave leaves before: the bucket has to hold its packets, and the cluster has to be formed.
    fn not_before(&self) -> Time {
        let profile = &self.config.profile;
        let paid = self.eager.bucket.has(profile.gossip_nodes, profile);
        let grown = self.eager.growth.ends(self.members.len(), profile);
        grown.map_or(paid, |grown| grown.max(paid))
    }

    fn has_early(&self, share: Share, delegate: &impl Delegate) -> bool {
        let pace = Pace {
            part: Part::Early(share),
            lane: None,
        };
        pace.sends_any() && (self.queue.has_due(pace, self.retransmit_limit()) || delegate.has_due(pace))
    }

    /// How much of what waits may leave now: a few members cannot be told more often than there are of them.
    fn early(&self) -> Share {
        Share {
            percent: self.config.profile.eager_share as u32,
            most: u32::try_from(self.members.len() - 1).unwrap_or(u32::MAX),
        }
    }

    /// What of that waits for its first wave.
    fn fresh(&self) -> Share {
        let early = self.early();
        let targets = u32::try_from(self.config.profile.gossip_nodes).unwrap_or(u32::MAX);
        Share {
            most: early.most.min(targets),
            ..early
        }
    }

    pub(super) fn retransmit_limit(&self) -> u32 {
        retransmit_limit(self.config.profile.retransmit_mult, self.members.len())
    }

    pub(super) fn tick_eager(&mut self, now: Time, delegate: &mut impl Delegate) {
        self.eager.waits = None;
        let is_repeated = now >= self.eager.repeats;
        let share = if is_repeated { self.early() } else { self.fresh() };
        if !self.has_early(share, delegate) {
            return;
        }
        let not_before = self.not_before();
        if not_before > now {
            self.eager.next = not_before;
            return;
        }
        let me = self.me;
        let targets = self.pick_members(self.config.profile.gossip_nodes, |id, record| {
            id != me && matches!(record.state, State::Alive | State::Suspect)
        });
        if targets.is_empty() {
            // All others are gone. Whether that is still so, the next round is early enough to ask.
            self.eager.next = now + self.config.profile.gossip_interval;
            return;
        }
        let ring = self.ring();
        let sent = self.tell(&ring, targets, Part::Early(share), delegate);
        let (round_trip, slack, profile) = (self.round_trips.usual(), self.slack(), &self.config.profile);
        self.eager.bucket.take(now, sent.packets, profile);
        self.eager
            .end_wave(now, sent.is_short, round_trip, slack, profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::Swim;
    use crate::swim::delegate::Silent;
    use crate::swim::stretch::Stretch;
    use crate::swim::testing::{alive, start};

    /// Long after all are known.
    const T: Time = Time::from_nanos(1_000_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A node that knows so many others, and has nothing to say.
    fn at_rest(others: u8) -> (Swim, Silent) {
        let (mut swim, mut delegate) = start(1);
        for i in 1..=others {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), i, 1), &mut delegate);
        }
        while !swim.queue.is_empty() {
            swim.tick_gossip(T, &mut delegate);
        }
        swim.timers = Default::default();
        delegate.sent.clear();
        (swim, delegate)
    }

    /// Lets all waves leave; says when, and how many packets.
    fn waves(swim: &mut Swim, delegate: &mut Silent, until: Time) -> Vec<(Duration, usize)> {
        let mut waves = Vec::new();
        swim.spread(T, delegate);
        while let Some(at) = swim.next_deadline().filter(|at| *at <= until) {
            let before = delegate.sent.len();
            swim.handle_tick(at, delegate);
            swim.spread(at, delegate);
            waves.push((at.since(T), delegate.sent.len() - before));
        }
        waves
    }

    #[test]
    fn most_sends_leave_in_waves_and_the_rest_with_the_rounds() {
        let (mut swim, mut delegate) = at_rest(20);
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        let early = waves(&mut swim, &mut delegate, T + ms(100));
        assert_eq!(early, [(ms(0), 3), (ms(20), 3)]);
        assert_eq!(swim.queue.len(), 1);
        // The limit is 8.
        swim.tick_gossip(T + ms(150), &mut delegate);
        assert_eq!((delegate.sent.len(), swim.queue.len()), (8, 0));
    }

    #[test]
    fn rounds_and_packets_that_leave_anyway_leave_waves_their_sends_unless_those_are_held_back() {
        let (mut swim, mut delegate) = at_rest(20);
        let profile = swim.config.profile.clone();
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        for is_held_back in [false, true] {
            if is_held_back {
                swim.eager.bucket.take(T, profile.eager_burst, &profile);
            }
            swim.spread(T, &delegate);
            (delegate.sent, delegate.packets) = Default::default();
            let to = ([10, 0, 0, 1], 7946).into();
            swim.send_with_gossip(to, &mut delegate, |out| out.push(0));
            let rides_along = delegate.packets[0].windows(2).any(|part| part == b"n7");
            assert_eq!(rides_along, is_held_back);
            swim.tick_gossip(T, &mut delegate);
            assert_eq!(delegate.sent.len() > 1, is_held_back);
        }
    }

    #[test]
    fn a_packet_that_holds_several_takes_as_many_from_the_bucket() {
        let taken_and_sent = |compress| {
            let (mut swim, mut delegate) = at_rest(200);
            swim.stretch = Stretch::new(compress);
            for i in 1..=200 {
                swim.handle_alive(T, &alive(&format!("n{i}"), i, 2), &mut delegate);
            }
            waves(&mut swim, &mut delegate, T + ms(30));
            let taken =
                swim.eager.bucket.full_at.since(T).as_secs_f64() * swim.config.profile.eager_rate as f64;
            (taken.round() as usize, delegate.sent.len())
        };
        let (taken, sent) = taken_and_sent(false);
        assert_eq!(taken, sent);
        let (taken, sent) = taken_and_sent(true);
        assert!(2 * taken > 3 * sent, "{taken} {sent}");
    }

    #[test]
    fn waves_are_a_round_trip_apart() {
        let (mut swim, mut delegate) = at_rest(20);
        swim.round_trips.note(ms(80));
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        let early = waves(&mut swim, &mut delegate, T + ms(150));
        assert_eq!(early, [(ms(0), 3), (ms(80), 3)]);
    }

    #[test]
    fn other_news_waits_for_the_pause_and_not_for_repetitions() {
        let (mut swim, mut delegate) = at_rest(20);
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        assert_eq!(waves(&mut swim, &mut delegate, T + ms(2)), [(ms(0), 3)]);
        swim.handle_alive(T, &alive("n9", 9, 2), &mut delegate);
        delegate.packets.clear();
        assert_eq!(waves(&mut swim, &mut delegate, T + ms(19)), [(ms(5), 3)]);
        let mentions = |name: &[u8]| {
            let holds = |packet: &&Vec<u8>| packet.windows(name.len()).any(|part| part == name);
            delegate.packets.iter().filter(holds).count()
        };
        assert_eq!((mentions(b"n9"), mentions(b"n7")), (3, 0));
        // No other timer is left, and the next wave has both.
        assert_eq!(waves(&mut swim, &mut delegate, T + ms(24)), [(ms(20), 3)]);
    }

    #[test]
    fn on_a_host_with_too_much_to_do_waves_and_rounds_are_rarer() {
        let (mut swim, mut delegate) = at_rest(20);
        for _ in 0..50 {
            swim.note_late_timer(T, ms(150));
        }
        let slack = swim.slack();
        assert!((ms(290)..=ms(300)).contains(&slack), "{slack:?}");
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        let early = waves(&mut swim, &mut delegate, T);
        assert_eq!(early, [(ms(0), 3)]);
        // Other news waits as long here.
        swim.handle_alive(T, &alive("n9", 9, 2), &mut delegate);
        let early = waves(&mut swim, &mut delegate, T + ms(300));
        // Its own timers are in time again, so it is as quick as ever after a few more.
        let pause = swim.slack();
        assert!(pause < slack && pause > slack / 2);
        let times: Vec<_> = early.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [slack * 7 / 8]);
        swim.queue.push(None, vec![8; 1000], None);
        swim.queue.push(None, vec![8; 1000], None);
        swim.timers = Default::default();
        swim.tick_gossip(T + ms(400), &mut delegate);
        assert_eq!(swim.next_deadline(), Some(T + ms(400) + pause));
    }

    #[test]
    fn what_is_said_while_the_cluster_forms_keeps_its_sends_for_those_to_come() {
        let (mut swim, mut delegate) = at_rest(20);
        for i in 30..33 {
            swim.handle_alive(T, &alive(&format!("n{i}"), i, 1), &mut delegate);
        }
        let early = waves(&mut swim, &mut delegate, T + ms(220));
        assert_eq!(early[..2], [(ms(200), 3), (ms(220), 3)]);
        // One member more among many is nothing special.
        let (mut swim, mut delegate) = at_rest(20);
        swim.handle_alive(T, &alive("n30", 30, 1), &mut delegate);
        let early = waves(&mut swim, &mut delegate, T + ms(100));
        assert_eq!(early, [(ms(0), 3), (ms(20), 3)]);
    }

    #[test]
    fn few_members_are_told_once_each_and_nothing_leaves_early_when_that_is_off() {
        let (mut swim, mut delegate) = at_rest(2);
        swim.handle_alive(T, &alive("n1", 1, 2), &mut delegate);
        assert_eq!(waves(&mut swim, &mut delegate, T + ms(100)), [(ms(0), 2)]);
        let (mut swim, mut delegate) = at_rest(20);
        swim.config.profile.eager_share = 0;
        swim.handle_alive(T, &alive("n7", 7, 2), &mut delegate);
        assert_eq!(waves(&mut swim, &mut delegate, T + ms(100)), []);
    }

    #[test]
    fn where_all_are_gone_nothing_is_tried_before_the_next_round() {
        let (mut swim, mut delegate) = at_rest(3);
        for name in ["n1", "n2", "n3"] {
            swim.dead(T, name, 1, "me", &mut delegate);
        }
        assert_eq!(
            waves(&mut swim, &mut delegate, T + ms(300)),
            [(ms(0), 0), (ms(200), 0)]
        );
    }

    #[test]
    fn news_that_trickles_in_shares_packets_and_a_flood_is_held_to_the_rate() {
        let (mut swim, mut delegate) = at_rest(20);
        let mut early = Vec::new();
        for at in (0..20_000).map(|i| T + ms(i)) {
            let number = at.since(T).as_millis() as u32;
            let name = format!("n{}", number % 20 + 1);
            let host = (number % 20 + 1) as u8;
            swim.handle_alive(at, &alive(&name, host, 2 + number), &mut delegate);
            swim.spread(at, &delegate);
            let before = delegate.sent.len();
            swim.handle_tick(at, &mut delegate);
            early.extend((delegate.sent.len() > before).then_some(at));
        }
        assert_eq!(early[..4], [0, 5, 15, 35].map(|at| T + ms(at)));
        let profile = &swim.config.profile;
        let allowed = profile.eager_burst + 20 * profile.eager_rate;
        assert!(
            (allowed - 10..=allowed).contains(&delegate.sent.len()),
            "{}",
            delegate.sent.len()
        );
    }
}
