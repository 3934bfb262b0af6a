//! What happens to packets on their way: latency, loss, duplication, reordering, cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::HostId;

/// How packets fare from one host to another. Loss, duplication and reordering strike datagrams
/// alone: streams repair them, as TCP does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The shortest time a packet takes.
    pub latency_min: Duration,
    /// The longest time a packet takes, unless it is held back.
    pub latency_max: Duration,
    /// The share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicate: f64,
    /// The share of datagrams that are held back, so that later ones overtake them.
    pub reorder: f64,
    /// How long a datagram is held back at most.
    pub reorder_by: Duration,
}

impl Default for Link {
    /// A quiet local network: half a millisecond to two, and nothing goes wrong.
    fn default() -> Self {
        Link {
            latency_min: Duration::from_micros(500),
            latency_max: Duration::from_millis(2),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(50),
        }
    }
}

impl Link {
    /// A link that always takes this long.
    pub fn steady(latency: Duration) -> Self {
        Link {
            latency_min: latency,
            latency_max: latency,
            ..Link::default()
        }
    }

    /// Draws how long one packet takes.
    pub(super) fn latency(&self, rng: &mut Xoshiro256PlusPlus) -> Duration {
        if self.latency_min >= self.latency_max {
            return self.latency_min;
        }
        rng.random_range(self.latency_min..=self.latency_max)
    }

    /// Draws when the copies of one datagram arrive: none, one or two.
    fn copies(&self, rng: &mut Xoshiro256PlusPlus) -> [Option<Duration>; 2] {
        if hits(rng, self.loss) {
            return [None, None];
        }
        let first = Some(self.copy(rng));
        let second = hits(rng, self.duplicate).then(|| self.copy(rng));
        [first, second]
    }

    fn copy(&self, rng: &mut Xoshiro256PlusPlus) -> Duration {
        let latency = self.latency(rng);
        if hits(rng, self.reorder) {
            latency + rng.random_range(Duration::ZERO..=self.reorder_by)
        } else {
            latency
        }
    }
}

fn hits(rng: &mut Xoshiro256PlusPlus, share: f64) -> bool {
    share > 0.0 && rng.random::<f64>() < share
}

/// All links between all hosts.
#[derive(Clone, Debug, Default)]
pub struct Links {
    usual: Link,
    special: BTreeMap<(HostId, HostId), Link>,
    cuts: BTreeSet<(HostId, HostId)>,
}

impl Links {
    pub(super) fn new(usual: Link) -> Self {
        Links {
            usual,
            ..Links::default()
        }
    }

    /// Changes all links that have no setting of their own.
    pub fn set_usual(&mut self, link: Link) {
        self.usual = link;
    }

    /// Changes one direction between two hosts.
    pub fn set_one_way(&mut self, from: HostId, to: HostId, link: Link) {
        self.special.insert((from, to), link);
    }

    /// Changes both directions between two hosts.
    pub fn set(&mut self, a: HostId, b: HostId, link: Link) {
        self.set_one_way(a, b, link);
        self.set_one_way(b, a, link);
    }

    /// Cuts one direction: nothing gets from `from` to `to`. A stream needs both directions.
    pub fn cut_one_way(&mut self, from: HostId, to: HostId) {
        self.cuts.insert((from, to));
    }

    /// Cuts both directions between two hosts.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts every link between a host on one side and a host on the other.
    pub fn partition(&mut self, one: &[HostId], other: &[HostId]) {
        for &a in one {
            for &b in other {
                self.cut(a, b);
            }
        }
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// The link from one host to another. A host reaches itself without the network.
    pub(super) fn between(&self, from: HostId, to: HostId) -> Link {
        if from == to {
            return Link::steady(Duration::from_micros(20));
        }
        *self.special.get(&(from, to)).unwrap_or(&self.usual)
    }

    pub(super) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Draws when the copies of a datagram arrive.
    pub(super) fn datagram(
        &self,
        rng: &mut Xoshiro256PlusPlus,
        from: HostId,
        to: HostId,
    ) -> [Option<Duration>; 2] {
        if self.is_cut(from, to) {
            return [None, None];
        }
        self.between(from, to).copies(rng)
    }
}
