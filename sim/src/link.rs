//! What happens to packets on their way: latency, loss, duplication, reordering, damage, cuts, address
//! translation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
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
    /// The mean of what a packet waits in queues on top, drawn from an exponential distribution.
    pub queueing: Duration,
    /// The share of datagrams in which one bit arrives wrong. Only a cluster that seals its packets can
    /// tell; UDP's own checksum would, too.
    pub corrupt: f64,
    /// The longest datagram that gets through, in bytes.
    pub mtu: usize,
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
            queueing: Duration::ZERO,
            corrupt: 0.0,
            mtu: usize::MAX,
        }
    }
}

/// How many times the mean a packet waits in queues at most: nothing waits longer than a buffer is.
const LONGEST_QUEUE: f64 = 20.0;

impl Link {
    /// A local network: a fraction of a millisecond, seldom more.
    pub fn lan() -> Self {
        Link {
            latency_min: Duration::from_micros(100),
            latency_max: Duration::from_micros(600),
            queueing: Duration::from_micros(200),
            ..Link::default()
        }
    }

    /// A path over the internet: tens of milliseconds with a long tail, and a packet lost now and then.
    pub fn wan() -> Self {
        Link {
            latency_min: Duration::from_millis(20),
            latency_max: Duration::from_millis(60),
            queueing: Duration::from_millis(8),
            loss: 0.002,
            ..Link::default()
        }
    }

    /// The same link, on which at least this share of datagrams is lost.
    #[must_use]
    pub fn losing(self, loss: f64) -> Self {
        Link {
            loss: self.loss.max(loss),
            ..self
        }
    }

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
        let path = if self.latency_min >= self.latency_max {
            self.latency_min
        } else {
            rng.random_range(self.latency_min..=self.latency_max)
        };
        if self.queueing.is_zero() {
            return path;
        }
        let wait = -(1.0 - rng.random::<f64>()).ln();
        path + self.queueing.mul_f64(wait.min(LONGEST_QUEUE))
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

/// Hosts spread over regions, in turn: host 0 in the first, host 1 in the second and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The links from each region to each.
    links: Vec<Vec<Link>>,
}

impl Map {
    /// Three continents, with the latencies of real ones: 40 ms one way between the first two, 75 and
    /// 115 ms to the third.
    pub fn three_regions() -> Self {
        const ONE_WAY_MS: [[u64; 3]; 3] = [[0, 40, 115], [40, 0, 75], [115, 75, 0]];
        let link = |ms: u64| match ms {
            0 => Link::lan(),
            ms => Link {
                latency_min: Duration::from_millis(ms),
                latency_max: Duration::from_millis(ms + ms / 10),
                ..Link::wan()
            },
        };
        Map {
            links: ONE_WAY_MS
                .iter()
                .map(|row| row.iter().map(|&ms| link(ms)).collect())
                .collect(),
        }
    }

    fn between(&self, from: HostId, to: HostId) -> Option<Link> {
        let regions = self.links.len().max(1);
        self.links.get(from.0 % regions)?.get(to.0 % regions).copied()
    }
}

/// A link that loses more than this share of datagrams makes no calm network.
const CALM_LOSS: f64 = 0.1;

/// All links between all hosts.
#[derive(Clone, Debug, Default)]
pub struct Links {
    usual: Link,
    map: Option<Map>,
    /// Hosts behind an address translator, with the source address that others see.
    translated: BTreeMap<HostId, SocketAddr>,
    special: BTreeMap<(HostId, HostId), Link>,
    cuts: BTreeSet<(HostId, HostId)>,
    /// Between whom no streams are possible, whoever dials.
    no_streams: BTreeSet<(HostId, HostId)>,
    /// Who is reached by nobody, but for answers over the streams that it dials itself.
    closed: BTreeSet<HostId>,
    /// From whom to whom the sender's own system sends nothing.
    forbidden: BTreeSet<(HostId, HostId)>,
    refusals: BTreeSet<(HostId, HostId)>,
}

impl Links {
    pub(super) fn new(usual: Link) -> Self {
        Links {
            usual,
            ..Links::default()
        }
    }

    /// Changes all links that have no setting of their own, and takes a map away.
    pub fn set_usual(&mut self, link: Link) {
        self.usual = link;
        self.map = None;
    }

    /// Spreads the hosts over a map. Links with a setting of their own keep it.
    pub fn set_map(&mut self, map: Map) {
        self.map = Some(map);
    }

    /// Changes every link there is on the map, or the usual one, but none with a setting of its own.
    pub fn change_all(&mut self, change: impl Fn(&mut Link)) {
        change(&mut self.usual);
        let mapped = self.map.iter_mut().flat_map(|map| map.links.iter_mut().flatten());
        mapped.for_each(change);
    }

    /// Takes away every setting of single links.
    pub fn clear_special(&mut self) {
        self.special.clear();
    }

    /// Lets others see another source address on what this host sends, as behind a NAT whose port for
    /// it is forwarded: what is sent to the announced address still arrives, what is sent to this one
    /// does not.
    pub fn translate(&mut self, host: HostId, source: SocketAddr) {
        self.translated.insert(host, source);
    }

    /// What others take for the source of a host's packets.
    pub(super) fn source(&self, host: HostId, own: SocketAddr) -> SocketAddr {
        self.translated.get(&host).copied().unwrap_or(own)
    }

    /// Whether nothing is cut, and hardly anything lost.
    pub fn is_calm(&self) -> bool {
        self.cuts.is_empty()
            && self.forbidden.is_empty()
            && self.refusals.is_empty()
            && self.no_streams.is_empty()
            && self.closed.is_empty()
            && self
                .all()
                .all(|link| link.loss <= CALM_LOSS && link.corrupt <= CALM_LOSS)
    }

    /// Whether nothing is cut, lost or damaged at all.
    pub fn is_clean(&self) -> bool {
        self.cuts.is_empty()
            && self.forbidden.is_empty()
            && self.refusals.is_empty()
            && self.no_streams.is_empty()
            && self.closed.is_empty()
            && self
                .all()
                .all(|link| link.loss == 0.0 && link.corrupt == 0.0 && link.mtu == usize::MAX)
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        let mapped = self.map.iter().flat_map(|map| map.links.iter().flatten());
        let usual = self.map.is_none().then_some(&self.usual);
        usual.into_iter().chain(mapped).chain(self.special.values())
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

    /// Lets the system of one host send nothing to another, as where no route leads there or a firewall forbids it. The
    /// other direction stays as it is, but for streams, which need both.
    pub fn forbid(&mut self, from: HostId, to: HostId) {
        self.forbidden.insert((from, to));
    }

    /// Lets no streams through between two hosts, while datagrams go as before.
    pub fn block_streams(&mut self, a: HostId, b: HostId) {
        self.no_streams.extend([(a, b), (b, a)]);
    }

    /// Lets nothing in to a host but the answers over streams that it dials itself: as behind an address translator
    /// that forwards nothing, or where it announces an address that is not its own.
    pub fn close(&mut self, host: HostId) {
        self.closed.insert(host);
    }

    /// Lets something on the way, a firewall or a box that resets what it cannot pass on, refuse each connection that
    /// one host opens to another. Datagrams pass as ever, and go nowhere if that direction is cut as well.
    pub fn refuse(&mut self, from: HostId, to: HostId) {
        self.refusals.insert((from, to));
    }

    pub(super) fn refuses(&self, from: HostId, to: HostId) -> bool {
        self.refusals.contains(&(from, to))
    }

    /// Ends all of this.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.forbidden.clear();
        self.refusals.clear();
        self.no_streams.clear();
        self.closed.clear();
    }

    /// The link from one host to another. A host reaches itself without the network.
    pub(super) fn between(&self, from: HostId, to: HostId) -> Link {
        if from == to {
            return Link::steady(Duration::from_micros(20));
        }
        let special = self.special.get(&(from, to)).copied();
        special
            .or_else(|| self.map.as_ref()?.between(from, to))
            .unwrap_or(self.usual)
    }

    /// Whether nothing that `from` sends without having been asked gets in at `to`.
    fn is_closed(&self, from: HostId, to: HostId) -> bool {
        from != to && self.closed.contains(&to)
    }

    pub(super) fn has_streams(&self, from: HostId, to: HostId) -> bool {
        !self.is_closed(from, to)
            && !self.no_streams.contains(&(from, to))
            && !self.is_cut(from, to)
            && !self.is_cut(to, from)
    }

    pub(super) fn is_forbidden(&self, from: HostId, to: HostId) -> bool {
        self.forbidden.contains(&(from, to))
    }

    pub(super) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.contains(&(from, to)) || self.is_forbidden(from, to)
    }

    /// Draws when the copies of a datagram arrive.
    pub(super) fn datagram(
        &self,
        rng: &mut Xoshiro256PlusPlus,
        from: HostId,
        to: HostId,
        len: usize,
    ) -> [Option<Duration>; 2] {
        if self.is_cut(from, to) || self.is_closed(from, to) {
            return [None, None];
        }
        let link = self.between(from, to);
        if len > link.mtu {
            return [None, None];
        }
        link.copies(rng)
    }

    /// Perhaps turns one bit of a datagram on its way.
    pub(super) fn damage(&self, rng: &mut Xoshiro256PlusPlus, from: HostId, to: HostId, bytes: &mut [u8]) {
        let share = self.between(from, to).corrupt;
        if hits(rng, share) && !bytes.is_empty() {
            let place = rng.random_range(0..bytes.len());
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn rng() -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(1)
    }

    #[test]
    fn latencies_lie_where_the_map_says_and_have_a_tail() {
        let mut links = Links::default();
        links.set_map(Map::three_regions());
        let mut rng = rng();
        for (from, to, least_ms, mean_ms) in [(0, 3, 0, 1), (0, 1, 40, 50), (1, 2, 75, 87), (2, 0, 115, 129)]
        {
            let link = links.between(HostId(from), HostId(to));
            let drawn: Vec<Duration> = (0..2000).map(|_| link.latency(&mut rng)).collect();
            let mean = drawn.iter().sum::<Duration>() / 2000;
            assert!(
                drawn
                    .iter()
                    .all(|&latency| latency >= Duration::from_millis(least_ms))
            );
            assert!(
                mean.as_millis().abs_diff(mean_ms) <= 2,
                "{from} to {to}: {mean:?}"
            );
            assert!(drawn.iter().max() > Some(&(mean + 3 * link.queueing)), "a tail");
        }
        links.set_one_way(HostId(0), HostId(1), Link::steady(Duration::from_millis(7)));
        assert_eq!(
            links.between(HostId(0), HostId(1)).latency(&mut rng).as_millis(),
            7
        );
    }

    #[test]
    fn datagrams_above_the_mtu_are_lost_and_a_damaged_one_has_one_bit_wrong() {
        let link = Link {
            mtu: 1000,
            corrupt: 0.5,
            ..Link::default()
        };
        let links = Links::new(link);
        let (from, to, mut rng) = (HostId(0), HostId(1), rng());
        assert_eq!(links.datagram(&mut rng, from, to, 1001), [None, None]);
        assert!(links.datagram(&mut rng, from, to, 1000)[0].is_some());
        let wrong_bits = |bytes: [u8; 100]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let damaged: Vec<u32> = (0..1000)
            .map(|_| {
                let mut bytes = [0; 100];
                links.damage(&mut rng, from, to, &mut bytes);
                wrong_bits(bytes)
            })
            .collect();
        assert!(damaged.iter().all(|&bits| bits <= 1));
        assert!((400..600).contains(&damaged.iter().sum::<u32>()));
    }

    #[test]
    fn calm_is_what_loses_little_and_clean_what_loses_nothing() {
        let mut links = Links::new(Link::default());
        assert!(links.is_calm() && links.is_clean());
        links.change_all(|link| link.loss = 0.05);
        assert!(links.is_calm() && !links.is_clean());
        links.set_one_way(HostId(0), HostId(1), Link::default().losing(0.3));
        assert!(!links.is_calm());
        links.clear_special();
        links.cut_one_way(HostId(0), HostId(1));
        assert!(!links.is_calm());
        links.heal();
        assert!(links.is_calm());
    }
}
