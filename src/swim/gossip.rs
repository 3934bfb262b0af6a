//! Spreading news: the gossip round (A19), the choice of random nodes, the start of all loops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::members::{Facts, Record, State};
use super::packet::PacketBuilder;
use super::probe::PMAX_CRC;
use super::upper::Upper;
use super::{Output, Swim, Timer};
use crate::names::Id;
use crate::swim::formulas::{push_pull_interval, retransmit_limit};
use crate::time::Time;

/// Every how many packets the layer above comes first.
const UPPER_FIRST_EVERY: u32 = 4;

impl Swim {
    /// Every loop starts at a random point of its interval, so that nodes started together do not
    /// act together.
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

    pub(super) fn tick_gossip(&mut self, now: Time, upper: &mut impl Upper) {
        self.timers
            .set(now + self.config.profile.gossip_interval, Timer::Gossip);
        // A round without news is the common one.
        if self.queue.is_empty() && upper.is_quiet() {
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
        // Packets are filled only once somebody is there to hear them: whatever is put into one
        // counts as sent, and the news of a node that is still alone must wait for its first peer.
        for target in targets {
            let mut packet = PacketBuilder::new(self.config.profile.udp_buffer_size, self.config.overhead);
            self.fill(&mut packet, upper);
            if packet.is_empty() {
                return;
            }
            self.out.push_back(Output::Send {
                to: target.socket(),
                plain: packet.finish(),
                crc: target.pmax() >= PMAX_CRC,
            });
        }
    }

    /// Fills a packet: membership first, then what the layer above has. In one packet of four it is
    /// the other way round, so that a storm of membership does not keep everything else waiting.
    pub(super) fn fill(&mut self, packet: &mut PacketBuilder, upper: &mut impl Upper) {
        let limit = retransmit_limit(self.config.profile.retransmit_mult, self.members.len());
        self.packets = self.packets.wrapping_add(1);
        if self.packets.is_multiple_of(UPPER_FIRST_EVERY) {
            upper.fill(packet);
            self.queue.fill(packet, limit);
        } else {
            self.queue.fill(packet, limit);
            upper.fill(packet);
        }
    }

    pub(super) fn tick_push_pull(&mut self, now: Time, upper: &mut impl Upper) {
        let interval = push_pull_interval(self.config.profile.push_pull_interval, self.members.len());
        self.timers.set(now + interval, Timer::PushPull);
        let me = self.me;
        let peers = self.pick_members(1, |id, record| record.state == State::Alive && id != me);
        if let Some(peer) = peers.first() {
            self.push_pull_with(peer, upper);
        }
    }

    /// Up to `count` different nodes of which `fits` holds, each such set equally likely.
    ///
    /// In the common case most nodes fit and a few random draws find them whatever the size of the
    /// cluster; when draws keep failing, the list is searched, so that nobody is missed.
    pub(super) fn pick_members(
        &mut self,
        count: usize,
        fits: impl Fn(Id, &Record) -> bool,
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
        let rest: Vec<Id> = (0..n)
            .filter_map(|place| self.members.at(place))
            .filter(|&id| {
                !picked.contains(&id) && self.members.get(id).is_some_and(|record| fits(id, record))
            })
            .collect();
        let missing = count - facts.len();
        let drawn: Vec<Id> = rest.sample(&mut self.rng, missing).copied().collect();
        facts.extend(
            drawn
                .iter()
                .filter_map(|&id| Some(Arc::clone(&self.members.get(id)?.facts))),
        );
        facts
    }
}
