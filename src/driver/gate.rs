//! Admission of inbound streams: how many at once, how many from one source, how many bytes in all.
//!
//! A stream holds a [`Pass`] from accept to close and takes bytes from the common budget as they
//! arrive; dropping the pass gives everything back. What a peer merely announces costs nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fyrd_core::bounds;

/// The limits of a [`Gate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
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
    streams: usize,
    bytes: usize,
    /// Only sources with at least one stream, so its size is bounded by `streams`.
    sources: HashMap<IpAddr, usize>,
}

/// One stream's right to exist.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    /// Who dialled; `None` for a stream that we dialled.
    source: Option<IpAddr>,
    bytes: usize,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Gate {
        Gate {
            limits,
            admitted: Arc::default(),
        }
    }

    /// Admits a stream, or says no because a cap is reached.
    pub(super) fn admit(&self, from: SocketAddr) -> Option<Pass> {
        let source = source_of(from.ip());
        let mut admitted = self.lock();
        if admitted.streams >= self.limits.streams {
            return None;
        }
        let of_source = admitted.sources.entry(source).or_default();
        if *of_source >= self.limits.streams_per_source {
            return None;
        }
        *of_source += 1;
        admitted.streams += 1;
        Some(Pass {
            gate: self.clone(),
            source: Some(source),
            bytes: 0,
        })
    }

    /// A pass for a stream that we dial: its bytes count, the caps are for others.
    pub(super) fn dialled(&self) -> Pass {
        Pass {
            gate: self.clone(),
            source: None,
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut admitted = self.gate.lock();
        admitted.bytes -= self.bytes;
        let Some(source) = self.source else { return };
        admitted.streams -= 1;
        if let Some(of_source) = admitted.sources.get_mut(&source) {
            *of_source -= 1;
            if *of_source == 0 {
                admitted.sources.remove(&source);
            }
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

    #[test]
    fn caps_hold_per_source_and_in_all() {
        let gate = gate();
        let first = gate.admit(addr("10.0.0.1:1")).unwrap();
        let _second = gate.admit(addr("[::ffff:10.0.0.1]:2")).unwrap();
        assert!(gate.admit(addr("10.0.0.1:3")).is_none());
        let _third = gate.admit(addr("10.0.0.2:1")).unwrap();
        assert!(gate.admit(addr("10.0.0.3:1")).is_none());
        drop(first);
        assert!(gate.admit(addr("10.0.0.1:4")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let gate = gate();
        let _first = gate.admit(addr("[2001:db8::1]:1")).unwrap();
        let _second = gate.admit(addr("[2001:db8::2]:1")).unwrap();
        assert!(gate.admit(addr("[2001:db8::3]:1")).is_none());
        assert!(gate.admit(addr("[2001:db8:0:1::3]:1")).is_some());
    }

    #[test]
    fn bytes_are_common_and_come_back() {
        let gate = gate();
        let mut first = gate.admit(addr("10.0.0.1:1")).unwrap();
        let mut second = gate.admit(addr("10.0.0.2:1")).unwrap();
        assert!(first.take(60));
        assert!(!second.take(41));
        assert!(second.take(40));
        drop(first);
        assert!(second.take(60));
        drop(second);
        let admitted = gate.lock();
        assert_eq!(
            (admitted.streams, admitted.bytes, admitted.sources.len()),
            (0, 0, 0)
        );
    }
}
