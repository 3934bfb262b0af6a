//! Dissemination: the gossip round (docs/protocol.md#a19-gossip), the choice of random members, the start
//! of all loops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::delegate::Delegate;
use super::members::{Facts, Record, State};
use super::packet::PacketBuilder;
use super::probe::PMAX_CRC;
use super::queue::{Lane, Pace, Part};
use super::{Swim, Timer};
use crate::swim::formulas::push_pull_interval;
use crate::swim::members::NodeId;
use crate::time::Time;

/// While the packets of a round cannot hold all that waits, the next follows after this fraction of the gossip
/// interval.
const HURRY: u32 = 4;

/// In one packet of so many, the delegate's broadcasts come first.
const DELEGATE_FIRST_EVERY: u32 = 4;

/// What a round or a wave has sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// How many packets, or what they would be without compression: a peer takes messages one by one.
    pub packets: usize,
    /// Whether they could not hold all that was due.
    pub is_short: bool,
    /// The first of them.
    first: Vec<u8>,
}

impl Swim {
    /// Starts every loop at a random point of its interval, so that nodes that start together do not
    /// probe and gossip in step.
    pub(super) fn start_timers(&mut self, now: Time) {
        let profile = &self.config.profile;
        let loops = [
            (profile.probe_interval, Duration::ZERO, Timer::Probe),
            (profile.gossip_interval, Duration::ZERO, Timer::Gossip),
            (
                profile.push_pull_interval,
                profile.push_pull_interval,
                Timer::PushPull,
            ),
        ];
        for (interval, extra, timer) in loops {
            if !interval.is_zero() {
                let stagger = self.rng.random_range(Duration::ZERO..interval);
                self.timers.set(now + stagger + extra, timer);
            }
        }
    }

    /// Whether a loop has nothing to do because there is nobody else. It stands still then, and nothing wakes the
    /// process up for it.
    pub(super) fn rests(&mut self, timer: Timer, next: Time, interval: Duration) -> bool {
        let is_alone = self.members.len() == 1;
        if is_alone {
            self.resting.push((timer, next, interval));
        }
        is_alone
    }

    /// Has the loops that stand still go on, in the step they would have kept.
    pub(super) fn wake_up(&mut self, now: Time) {
        self.wake_loops(now, |_| true);
    }

    /// Has the gossip rounds go on if there is something to say again.
    pub(super) fn wake_gossip(&mut self, now: Time, delegate: &impl Delegate) {
        let may_go_on = !self.resting.is_empty() && self.members.len() > 1;
        if may_go_on && !self.has_nothing_to_say(delegate) {
            self.wake_loops(now, |timer| timer == Timer::Gossip);
        }
    }

    /// While somebody is under suspicion the rounds go on, for their step tells a pause of this process.
    fn has_nothing_to_say(&self, delegate: &impl Delegate) -> bool {
        self.queue.is_empty() && self.suspicions.is_empty() && delegate.is_quiet()
    }

    fn wake_loops(&mut self, now: Time, which: impl Fn(Timer) -> bool) {
        for (timer, due, interval) in self.resting.extract_if(.., |(timer, ..)| which(*timer)) {
            let missed = now.since(due).as_nanos().div_ceil(interval.as_nanos());
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            self.timers.set(due + interval.saturating_mul(missed), timer);
        }
    }

    pub(super) fn tick_gossip(&mut self, now: Time, delegate: &mut impl Delegate) {
        let interval = self.config.profile.gossip_interval;
        if self.rests(Timer::Gossip, now + interval, interval) {
            return;
        }
        // In a cluster at rest there is nothing to send, and nothing wakes the process up for it.
        if self.has_nothing_to_say(delegate) {
            self.resting.push((Timer::Gossip, now + interval, interval));
            return;
        }
        let dead_for = self.config.profile.gossip_to_the_dead_time;
        let me = self.me;
        let targets = self.pick_members(self.config.profile.gossip_nodes, |id, record| {
            let hears = match record.state {
                State::Alive | State::Suspect => true,
                State::Dead => now.since(record.changed) <= dead_for,
                State::Left => false,
            };
            hears && id != me
        });
        // Dead targets get a copy of what goes to a living one, and that does not count as a send: a
        // message has few sends, and a dead node most likely hears none of them.
        let (living, dead): (Vec<_>, Vec<_>) =
            (targets.into_iter()).partition(|target| !self.is_gone(&target.name));
        let ring = self.ring();
        let (told, overhear, part) = if living.is_empty() && ring.is_empty() {
            // No wave goes to the dead.
            (dead, living, Part::All)
        } else {
            (living, dead, self.part_beside_waves())
        };
        let sent = self.tell(&ring, told, part, delegate);
        for target in overhear.iter().filter(|_| !sent.first.is_empty()) {
            gossip_to(target, sent.first.clone(), delegate);
        }
        let pause = if sent.is_short { interval / HURRY } else { interval };
        let pause = pause.max(self.slack());
        self.timers.set(now + pause, Timer::Gossip);
    }

    /// Sends what waits to these targets, each message once to each of them in turn. The first gives its place to a
    /// neighbour on the ring: a message's first send goes to the nearest, its next one in that place to the next.
    ///
    /// A packet is filled only for a target that exists: what is put into it counts as sent, and the alive message of a
    /// node that is still alone must wait for its first peer.
    pub(super) fn tell(
        &mut self,
        ring: &[Arc<Facts>],
        mut targets: Vec<Arc<Facts>>,
        part: Part,
        delegate: &mut impl Delegate,
    ) -> Sent {
        let mut sent = Sent::default();
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let (lanes, turns) = (number(targets.len().max(ring.len().min(1))), number(ring.len()));
        let pace = |lane, turn| Pace {
            part,
            lane: Some(Lane { lanes, lane, turn }),
        };
        let mut told = None;
        for (turn, neighbour) in (0..).zip(ring) {
            let before = sent.packets;
            self.send_gossip(neighbour, pace(0, Some((turn, turns))), &mut sent, delegate);
            told = told.or((sent.packets > before).then_some(neighbour));
            if sent.is_short {
                break;
            }
        }
        targets.retain(|target| told.is_none_or(|told| told.name != target.name));
        let random = if ring.is_empty() { 0..lanes } else { 1..lanes };
        for (lane, target) in random.zip(&targets) {
            self.send_gossip(target, pace(lane, None), &mut sent, delegate);
        }
        sent
    }

    /// Sends a packet of what may be sent at this pace, if there is anything.
    fn send_gossip(&mut self, target: &Facts, pace: Pace, sent: &mut Sent, delegate: &mut impl Delegate) {
        let size = self.config.profile.udp_buffer_size;
        let mut packet = self.stretch.packet(size, self.config.overhead);
        sent.is_short |= self.fill(&mut packet, pace, delegate);
        if packet.is_empty() {
            return;
        }
        sent.packets += packet.worth();
        for datagram in self.stretch.finish(packet) {
            if sent.first.is_empty() {
                sent.first.clone_from(&datagram);
            }
            gossip_to(target, datagram, delegate);
        }
    }

    fn is_gone(&self, name: &str) -> bool {
        (self.members.by_name(name)).is_none_or(|record| record.state.is_gone())
    }

    /// Fills a packet: membership first, then what the delegate has. In one packet of four it is
    /// the other way round, so that a storm of membership does not keep everything else waiting. Says whether
    /// something did not fit.
    pub(super) fn fill(
        &mut self,
        packet: &mut PacketBuilder,
        pace: Pace,
        delegate: &mut impl Delegate,
    ) -> bool {
        let limit = self.retransmit_limit();
        self.packets = self.packets.wrapping_add(1);
        if self.packets.is_multiple_of(DELEGATE_FIRST_EVERY) {
            let is_short = delegate.fill(packet, pace);
            self.queue.fill(packet, limit, pace) | is_short
        } else {
            let is_short = self.queue.fill(packet, limit, pace);
            delegate.fill(packet, pace) | is_short
        }
    }

    pub(super) fn tick_push_pull(&mut self, now: Time, delegate: &mut impl Delegate) {
        let interval = push_pull_interval(self.config.profile.push_pull_interval, self.members.len());
        self.timers.set(now + interval, Timer::PushPull);
        if self.repair.spares_push_pull(&self.config.profile) {
            return;
        }
        let me = self.me;
        let peers = self.pick_members(1, |id, record| record.state == State::Alive && id != me);
        if let Some(peer) = peers.first() {
            self.push_pull_with(peer, delegate);
        }
    }

    /// The neighbours on the ring that are told in turns, the nearest first.
    ///
    /// Random sends alone leave some out: with L sends by each member, one in e^L. The ring has a way to everybody, so
    /// news is missed only by whom all others leave out, and who comes on the ring behind others that were left out as
    /// well (Voulgaris, van Steen: Hybrid Dissemination, Middleware 2007).
    pub(super) fn ring(&mut self) -> Vec<Arc<Facts>> {
        // Where each round has a single target, that is not spent on neighbours: nothing would ever go elsewhere.
        let wanted = match self.config.profile.gossip_nodes {
            0 | 1 => 0,
            _ => self.config.profile.gossip_ring,
        };
        let [behind, before] = self.members.ring_from(self.me);
        let ids: Vec<NodeId> = behind
            .iter()
            .chain(before)
            .take(wanted)
            .map(|&(_, id)| id)
            .collect();
        let records = ids.iter().filter_map(|&id| self.members.get(id));
        records.map(|record| Arc::clone(&record.facts)).collect()
    }

    /// Up to `count` different members for which `fits` holds, each such set equally likely.
    ///
    /// Most members usually fit, so a few random draws find enough of them at a cost that does not depend
    /// on the size of the cluster. When the draws fail, the whole list is searched.
    pub(super) fn pick_members(
        &mut self,
        count: usize,
        fits: impl Fn(NodeId, &Record) -> bool,
    ) -> Vec<Arc<Facts>> {
        let n = self.members.len();
        let mut picked = BTreeSet::new();
        let mut facts = Vec::with_capacity(count);
        for _ in 0..4 * count {
            if facts.len() == count || n == 0 {
                return facts;
            }
            let Some(id) = self.members.at(self.rng.random_range(0..n)) else {
                continue;
            };
            let Some(record) = self.members.get(id).filter(|record| fits(id, record)) else {
                continue;
            };
            if picked.insert(id) {
                facts.push(Arc::clone(&record.facts));
            }
        }
        let rest: Vec<NodeId> = (0..n)
            .filter_map(|place| self.members.at(place))
            .filter(|&id| {
                !picked.contains(&id) && self.members.get(id).is_some_and(|record| fits(id, record))
            })
            .collect();
        let missing = count - facts.len();
        let drawn: Vec<NodeId> = rest.sample(&mut self.rng, missing).copied().collect();
        facts.extend(
            drawn
                .iter()
                .filter_map(|&id| Some(Arc::clone(&self.members.get(id)?.facts))),
        );
        facts
    }
}

pub(super) fn gossip_to(target: &Facts, plain: Vec<u8>, delegate: &mut impl Delegate) {
    delegate.send(target.socket(), plain, target.pmax() >= PMAX_CRC);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::swim::delegate::Silent;
    use crate::swim::testing::{alive, start};

    #[test]
    fn nodes_are_picked_without_repetition_and_nobody_is_missed() {
        for (listed, wanted) in [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3), (30, 3), (5, 0)] {
            let (mut swim, mut delegate) = start(listed as u64 + 7);
            let names: Vec<String> = (0..listed).map(|i| format!("n{i}")).collect();
            for (i, name) in names.iter().enumerate() {
                swim.handle_alive(Time::ZERO, &alive(name, 10 + i as u8, 1), &mut delegate);
            }
            let me = swim.me;
            let mut picks = BTreeMap::new();
            for _ in 0..400 {
                let picked = swim.pick_members(wanted, |id, _| id != me);
                let distinct: BTreeSet<_> = picked.iter().map(|facts| facts.name.clone()).collect();
                assert_eq!(distinct.len(), wanted.min(listed), "{wanted} of {listed}");
                assert_eq!(picked.len(), distinct.len());
                for name in distinct {
                    *picks.entry(name).or_insert(0) += 1;
                }
            }
            if wanted > 0 {
                assert_eq!(picks.len(), listed, "somebody was never picked");
                let mean = 400 * wanted.min(listed) / listed.max(1);
                assert!(picks.values().all(|&n| n > mean / 3 && n < mean * 3), "{picks:?}");
            }
        }
    }

    fn host(address: std::net::SocketAddr) -> u8 {
        match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            other => panic!("{other}"),
        }
    }

    #[test]
    fn everything_goes_to_neighbours_on_the_ring_in_turn_however_much_there_is() {
        let (mut swim, mut delegate) = start(3);
        for i in 0..30 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
        }
        while !swim.queue.is_empty() {
            swim.tick_gossip(Time::ZERO, &mut delegate);
        }
        let ring = swim.ring();
        assert_eq!(ring.len(), 4);
        let ring: Vec<u8> = ring.iter().map(|facts| host(facts.socket())).collect();
        // A packet holds nine of them, so each neighbour gets one packet after another.
        let news = |i: u32| [vec![8], i.to_be_bytes().to_vec(), vec![0; 145]].concat();
        for i in 0..90 {
            swim.queue.push(None, news(i), None);
        }
        swim.timers = Default::default();
        let mut heard: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        let mut sends = vec![0; 90];
        let now = Time::from_nanos(1_000_000_000);
        swim.timers.set(now, Timer::Gossip);
        swim.spread(now, &delegate);
        while let Some(at) = swim.next_deadline() {
            (delegate.sent, delegate.packets) = Default::default();
            swim.handle_tick(at, &mut delegate);
            swim.spread(at, &delegate);
            for (to, packet) in delegate.sent.iter().zip(&delegate.packets) {
                for i in (0..90).filter(|&i| holds(packet, &news(i))) {
                    heard.entry(host(*to)).or_default().push(i);
                    sends[i as usize] += 1;
                }
            }
        }
        assert_eq!(sends, vec![8; 90]);
        // Of eight sends the first, the fourth and the seventh.
        for neighbour in &ring[..3] {
            let mut all = heard[neighbour].clone();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..90).collect::<Vec<_>>());
        }
        assert!(heard.len() > 15, "the others are told by chance");
    }

    #[test]
    fn a_single_target_goes_everywhere() {
        let (mut swim, mut delegate) = start(3);
        for i in 0..30 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
        }
        swim.config.profile.gossip_nodes = 1;
        assert!(swim.ring().is_empty());
        delegate.sent.clear();
        for i in 0..200 {
            swim.queue.push(None, vec![8, i], None);
            swim.tick_gossip(Time::ZERO, &mut delegate);
        }
        let told: BTreeSet<_> = delegate.sent.iter().collect();
        assert_eq!(told.len(), 30);
    }

    fn holds(packet: &[u8], message: &[u8]) -> bool {
        packet.windows(message.len()).any(|part| part == message)
    }

    #[test]
    fn a_lone_node_rests_until_somebody_comes_and_keeps_its_step() {
        let (mut swim, mut delegate) = start(1);
        let first = swim.next_deadline().unwrap();
        let profile = swim.config.profile.clone();
        swim.handle_tick(first + profile.probe_interval, &mut delegate);
        // Only push/pull is left, and nothing of it has been due.
        let next = swim.next_deadline().unwrap();
        assert!(next > Time::ZERO + profile.push_pull_interval, "{next:?}");
        let resting = swim.resting.clone();
        assert_eq!(resting.len(), 2);
        let now = first + Duration::from_secs(20);
        swim.handle_alive(now, &alive("other", 10, 1), &mut delegate);
        assert_eq!(swim.resting, []);
        let soon = swim.next_deadline().unwrap();
        assert!(soon >= now && soon <= now + profile.gossip_interval, "{soon:?}");
        let step = |(_, due, interval): &(Timer, Time, Duration)| {
            soon.since(*due).as_nanos() % interval.as_nanos() == 0
        };
        assert!(resting.iter().any(step), "{soon:?} {resting:?}");
    }

    #[test]
    fn rounds_rest_while_there_is_nothing_to_say_and_go_on_in_step() {
        let (mut swim, mut delegate) = start(1);
        for i in 0..9 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
        }
        swim.timers = Default::default();
        swim.timers.set(Time::ZERO, Timer::Gossip);
        let interval = swim.config.profile.gossip_interval;
        let mut now = Time::ZERO;
        while let Some(due) = swim.next_deadline() {
            now = due;
            swim.handle_tick(now, &mut delegate);
            swim.spread(now, &delegate);
        }
        assert!(swim.queue.is_empty());
        // A quarter of an interval after a round would have been due.
        now = now + interval * 7 + interval / 4;
        swim.spread(now, &delegate);
        assert_eq!(swim.next_deadline(), None, "there is nothing to say");
        swim.handle_alive(now, &alive("n3", 13, 2), &mut delegate);
        swim.spread(now, &delegate);
        swim.timers.cancel(|&timer| timer == Timer::Eager);
        assert_eq!(swim.next_deadline(), Some(now + interval * 3 / 4));
        assert_eq!(swim.resting, []);
    }

    #[test]
    fn rounds_do_not_rest_while_somebody_is_under_suspicion() {
        let (mut swim, mut delegate) = start(1);
        for i in 0..9 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{i}"), 10 + i, 1), &mut delegate);
        }
        swim.suspect(Time::ZERO, "n3", 1, "n4");
        while !swim.queue.is_empty() {
            swim.tick_gossip(Time::ZERO, &mut delegate);
        }
        swim.timers = Default::default();
        swim.tick_gossip(Time::ZERO, &mut delegate);
        assert_eq!(
            swim.next_deadline(),
            Some(Time::ZERO + swim.config.profile.gossip_interval)
        );
    }

    #[test]
    fn the_dead_overhear_what_the_living_are_told() {
        let (mut swim, mut delegate) = start(1);
        let now = Time::ZERO;
        for (i, name) in ["living", "dead", "dead too"].into_iter().enumerate() {
            swim.handle_alive(now, &alive(name, 10 + i as u8, 1), &mut delegate);
        }
        for name in ["dead", "dead too"] {
            swim.dead(now, name, 1, "living", &mut delegate);
        }
        let mut heard = BTreeMap::new();
        while !swim.queue.is_empty() {
            swim.tick_gossip(now, &mut delegate);
        }
        for to in &delegate.sent {
            *heard.entry(to.ip().to_string()).or_insert(0) += 1;
        }
        // Four members: each message is sent four times, all of them to the one who lives.
        let each = ["10.0.0.10", "10.0.0.11", "10.0.0.12"].map(|ip| heard.get(ip).copied());
        assert_eq!(each, [Some(4), Some(4), Some(4)], "{heard:?}");
    }

    #[test]
    fn copies_of_news_spare_sends_in_large_clusters() {
        let sends = |members: u32, least, copy: &dyn Fn(&mut Swim, &mut Silent)| {
            let (mut swim, mut delegate) = start(3);
            swim.config.profile.gossip_least = least;
            for i in 0..members {
                let name = format!("n{i}");
                swim.handle_alive(Time::ZERO, &alive(&name, i as u8, 1), &mut delegate);
            }
            while !swim.queue.is_empty() {
                swim.tick_gossip(Time::ZERO, &mut delegate);
            }
            (delegate.sent, delegate.packets) = Default::default();
            swim.handle_alive(Time::ZERO, &alive("n7", 7, 5), &mut delegate);
            (0..20).for_each(|_| copy(&mut swim, &mut delegate));
            while !swim.queue.is_empty() {
                swim.tick_gossip(Time::ZERO, &mut delegate);
            }
            delegate.sent.len()
        };
        let same = |swim: &mut Swim, delegate: &mut Silent| {
            swim.handle_alive(Time::ZERO, &alive("n7", 7, 5), delegate);
        };
        let older = |swim: &mut Swim, delegate: &mut Silent| {
            swim.handle_alive(Time::ZERO, &alive("n7", 7, 4), delegate);
        };
        let suspect = |swim: &mut Swim, _: &mut Silent| swim.suspect(Time::ZERO, "n7", 5, "n8");
        let dead = |swim: &mut Swim, delegate: &mut Silent| swim.dead(Time::ZERO, "n7", 5, "n8", delegate);
        assert_eq!(sends(150, 8, &older), 12);
        for copy in [&same as &dyn Fn(&mut Swim, &mut Silent), &suspect, &dead] {
            assert_eq!(sends(150, 8, copy), 8);
            assert_eq!(sends(150, 0, copy), 12, "as with Serf");
            assert_eq!(sends(50, 8, copy), 8);
        }
    }

    #[test]
    fn news_waits_for_somebody_to_hear_it_and_full_packets_hurry_the_next_round() {
        let (mut swim, mut delegate) = start(1);
        for i in 1..50 {
            swim.tick_gossip(Time::ZERO + Duration::from_secs(i), &mut delegate);
        }
        assert_eq!(swim.queue.len(), 1);
        assert_eq!(delegate.sent, []);
        let now = Time::ZERO + Duration::from_secs(100);
        for i in 0..200 {
            let name = format!("a-node-with-quite-a-long-name-{i}");
            swim.handle_alive(now, &alive(&name, 1 + i as u8, 1), &mut delegate);
        }
        swim.timers = Default::default();
        swim.tick_gossip(now, &mut delegate);
        assert_eq!(delegate.sent.len(), 3);
        let quick = swim.config.profile.gossip_interval / HURRY;
        assert_eq!(swim.next_deadline(), Some(now + quick));
    }
}
