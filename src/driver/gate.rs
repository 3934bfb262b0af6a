//! Admission of inbound streams: how many at once, how many from one source, how many bytes in all.
//!
//! A stream holds a [`Pass`] from accept to close and takes bytes from the common budget as they
//! arrive; dropping the pass gives everything back. What a peer merely announces costs nothing.
//!
//! Nobody keeps a place by holding it: until a stream has brought a message that this cluster's keys open, it
//! yields when another one comes and there is no room. And whatever strangers do, addresses of members have
//! places of their own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use fyrd_core::bounds;

/// The limits of a [`Gate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For strangers and for members, each.
    pub streams: usize,
    pub streams_per_source: usize,
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams: bounds::STREAMS_MAX,
            streams_per_source: bounds::STREAMS_PER_SOURCE_MAX,
            bytes: bounds::STREAM_BYTES_MAX,
        }
    }
}

/// Counts what is admitted. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    limits: Limits,
    admitted: Arc<Mutex<Admitted>>,
}

#[derive(Debug, Default)]
struct Admitted {
    /// By number, and so by age.
    streams: BTreeMap<u64, Place>,
    last: u64,
    bytes: usize,
    /// Addresses of members, as sources.
    members: HashSet<IpAddr>,
}

/// What one stream holds.
#[derive(Debug)]
struct Place {
    source: IpAddr,
    is_member: bool,
    /// Tells its task that it has to go; `None` while it may stay.
    yields: Option<oneshot::Sender<()>>,
}

/// One stream's right to exist.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    /// `None` for a stream that we dialled.
    number: Option<u64>,
    bytes: usize,
}

/// Over when a stream has to make room.
pub(super) type Dismissal = oneshot::Receiver<()>;

impl Gate {
    pub(super) fn new(limits: Limits) -> Gate {
        Gate {
            limits,
            admitted: Arc::default(),
        }
    }

    /// Says which addresses members have.
    pub(super) fn set_members(&self, members: impl Iterator<Item = IpAddr>) {
        self.lock().members = members.map(source_of).collect();
    }

    /// Adds some to them; says how many there are now.
    pub(super) fn add_members(&self, members: impl Iterator<Item = IpAddr>) -> usize {
        let mut admitted = self.lock();
        admitted.members.extend(members.map(source_of));
        admitted.members.len()
    }

    /// Admits a stream, in place of another one if need be, or says no because none of those there yields.
    pub(super) fn admit(&self, from: SocketAddr) -> Option<(Pass, Dismissal)> {
        let source = source_of(from.ip());
        let mut admitted = self.lock();
        let is_member = admitted.members.contains(&source);
        if admitted.count(|place| place.source == source) >= self.limits.streams_per_source {
            admitted.make_room(|place| place.source == source)?;
        }
        if admitted.count(|place| place.is_member == is_member) >= self.limits.streams {
            admitted.make_room(|place| place.is_member == is_member)?;
        }
        admitted.last += 1;
        let number = admitted.last;
        let (yields, dismissal) = oneshot::channel();
        let place = Place {
            source,
            is_member,
            yields: Some(yields),
        };
        admitted.streams.insert(number, place);
        let pass = Pass {
            gate: self.clone(),
            number: Some(number),
            bytes: 0,
        };
        Some((pass, dismissal))
    }

    /// A pass for a stream that we dial: its bytes count, the caps are for others.
    pub(super) fn dialled(&self) -> Pass {
        Pass {
            gate: self.clone(),
            number: None,
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    fn count(&self, of: impl Fn(&Place) -> bool) -> usize {
        self.streams.values().filter(|place| of(place)).count()
    }

    /// Takes a place from one of these that yield: from the source that holds most of them, its oldest.
    fn make_room(&mut self, of: impl Fn(&Place) -> bool) -> Option<()> {
        let yielding = || {
            let places = self.streams.iter();
            places.filter(|(_, place)| place.yields.is_some() && of(place))
        };
        let mut sources: HashMap<IpAddr, usize> = HashMap::new();
        for (_, place) in yielding() {
            *sources.entry(place.source).or_default() += 1;
        }
        let most = sources.values().copied().max()?;
        let greedy = |place: &Place| sources.get(&place.source) == Some(&most);
        let number = yielding()
            .find(|(_, place)| greedy(place))
            .map(|(number, _)| *number)?;
        // Its task may have ended this very moment.
        let yields = self.streams.remove(&number)?.yields?;
        let _ = yields.send(());
        Some(())
    }
}

impl Pass {
    /// Takes bytes that arrived from the common budget; false when it is used up.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let mut admitted = self.gate.lock();
        let total = admitted.bytes.saturating_add(bytes);
        if total > self.gate.limits.bytes {
            return false;
        }
        admitted.bytes = total;
        self.bytes += bytes;
        true
    }

    /// For whoever finds out whether the stream may stay.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            gate: self.gate.clone(),
            number: self.number,
        }
    }
}

/// A stream's claim to keep its place.
#[derive(Debug)]
pub(super) struct Claim {
    gate: Gate,
    number: Option<u64>,
}

impl Claim {
    /// From now on it does: it has brought what strangers cannot, and waits for its answer.
    pub(super) fn grant(self) {
        let mut admitted = self.gate.lock();
        if let Some(place) = self.number.and_then(|number| admitted.streams.get_mut(&number)) {
            place.yields = None;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut admitted = self.gate.lock();
        admitted.bytes -= self.bytes;
        if let Some(number) = self.number {
            admitted.streams.remove(&number);
        }
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, since one host can use all of it.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Limits {
            streams: 3,
            streams_per_source: 2,
            bytes: 100,
        })
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A stream that has shown that it belongs here.
    fn trusted(gate: &Gate, from: &str) -> Option<Pass> {
        let (pass, _) = gate.admit(addr(from))?;
        pass.claim().grant();
        Some(pass)
    }

    #[test]
    fn caps_hold_per_source_and_in_all() {
        let gate = gate();
        let first = trusted(&gate, "10.0.0.1:1").unwrap();
        let _second = trusted(&gate, "[::ffff:10.0.0.1]:2").unwrap();
        assert!(gate.admit(addr("10.0.0.1:3")).is_none());
        let _third = trusted(&gate, "10.0.0.2:1").unwrap();
        assert!(gate.admit(addr("10.0.0.3:1")).is_none());
        drop(first);
        assert!(gate.admit(addr("10.0.0.1:4")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let gate = gate();
        let _first = trusted(&gate, "[2001:db8::1]:1").unwrap();
        let _second = trusted(&gate, "[2001:db8::2]:1").unwrap();
        assert!(gate.admit(addr("[2001:db8::3]:1")).is_none());
        assert!(gate.admit(addr("[2001:db8:0:1::3]:1")).is_some());
    }

    #[test]
    fn who_has_shown_no_key_yields_the_greediest_first_and_then_the_oldest() {
        let gate = gate();
        let gone = |dismissal: &mut Dismissal| dismissal.try_recv().is_ok();
        let (_a, mut lone) = gate.admit(addr("10.0.0.1:1")).unwrap();
        let (_b, mut first) = gate.admit(addr("10.0.0.2:1")).unwrap();
        let (_c, mut second) = gate.admit(addr("10.0.0.2:2")).unwrap();
        let (_d, mut third) = gate.admit(addr("10.0.0.3:1")).unwrap();
        assert_eq!(
            [&mut lone, &mut first, &mut second, &mut third].map(gone),
            [false, true, false, false]
        );
        // Each has one by now; and a pass that is dropped late takes nothing from whoever has the place.
        drop(_b);
        let (_e, _) = gate.admit(addr("10.0.0.4:1")).unwrap();
        assert_eq!(
            [&mut lone, &mut second, &mut third].map(gone),
            [true, false, false]
        );
        assert_eq!(gate.lock().streams.len(), 3);
    }

    #[test]
    fn members_have_places_of_their_own() {
        let gate = gate();
        gate.set_members([addr("10.0.0.9:1").ip()].into_iter());
        let held: Vec<Pass> = (1..4)
            .filter_map(|n| trusted(&gate, &format!("10.0.0.{n}:1")))
            .collect();
        assert!(held.len() == 3 && gate.admit(addr("10.0.0.5:1")).is_none());
        let (_pass, mut dismissal) = gate.admit(addr("10.0.0.9:1")).unwrap();
        drop(held);
        let strangers = (1..9).filter_map(|n| gate.admit(addr(&format!("10.0.0.{n}:1"))));
        assert_eq!(strangers.collect::<Vec<_>>().len(), 8);
        assert!(dismissal.try_recv().is_err(), "strangers do not move it");
    }

    #[test]
    fn bytes_are_common_and_come_back() {
        let gate = gate();
        let (mut first, _) = gate.admit(addr("10.0.0.1:1")).unwrap();
        let (mut second, _) = gate.admit(addr("10.0.0.2:1")).unwrap();
        assert!(first.take(60));
        assert!(!second.take(41));
        assert!(second.take(40));
        drop(first);
        assert!(second.take(60));
        drop(second);
        let admitted = gate.lock();
        assert_eq!((admitted.streams.len(), admitted.bytes), (0, 0));
    }
}
