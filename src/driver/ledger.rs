//! What went wrong on the network: counted always, logged at a limited rate.
//!
//! Anyone can make us count, so nobody may make us fill the disk: at most a few lines in each
//! interval, and then one that says how many were held back.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pace::Pace;
use fyrd_core::bounds;
use fyrd_core::swim::measures::Tally;

/// Declares the counters once, as atomics for the driver's tasks and as plain numbers for readers.
macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What the driver has counted since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct DriverCounters {
            $($(#[$doc])+ pub $name: u64,)+
        }

        /// The running counters.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> DriverCounters {
                DriverCounters { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Datagrams received, good and bad.
    datagrams_received,
    /// Datagrams handed to the operating system.
    datagrams_sent,
    /// Datagrams that could not be read.
    datagrams_refused,
    /// Datagrams of other clusters, as their label says.
    datagrams_mislabelled,
    /// Datagrams that no key opened, plaintext among encrypted peers included.
    datagrams_undecryptable,
    /// Datagrams that could not be sent.
    datagrams_unsent,
    /// Errors the UDP socket reported while receiving.
    receive_errors,
    /// Inbound streams that were admitted.
    streams_accepted,
    /// Inbound streams closed at once because a cap was reached.
    streams_over_cap,
    /// Inbound streams that brought nothing readable in time.
    streams_refused,
    /// Inbound streams of other clusters, as their label says.
    streams_mislabelled,
    /// Events that a slow subscriber lost.
    events_dropped,
    /// Query updates that a slow subscriber lost.
    query_updates_dropped,
}

/// Counters and limited log, shared by the driver's tasks.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) counters: Counters,
    limiter: Mutex<Limiter>,
    /// When another cluster may be spoken of.
    other_clusters: Mutex<Pace>,
    traffic: Mutex<Traffic>,
}

/// What went over the network, as bytes of each datagram and stream, since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Datagrams sent.
    pub udp_sent: Tally,
    /// Datagrams received.
    pub udp_received: Tally,
    /// Messages sent over streams.
    pub tcp_sent: Tally,
    /// Streams of peers.
    pub tcp_accepted: u64,
    /// Streams of ours.
    pub tcp_connected: u64,
}

impl Traffic {
    /// Adds what went over the network later.
    pub fn merge(&mut self, later: &Traffic) {
        self.udp_sent.merge(&later.udp_sent);
        self.udp_received.merge(&later.udp_received);
        self.tcp_sent.merge(&later.tcp_sent);
        self.tcp_accepted += later.tcp_accepted;
        self.tcp_connected += later.tcp_connected;
    }
}

impl Ledger {
    pub(super) fn new() -> Ledger {
        Ledger {
            counters: Counters::default(),
            limiter: Mutex::new(Limiter::new(Instant::now())),
            other_clusters: Mutex::new(Pace::new(bounds::OTHER_CLUSTER_LOG_INTERVAL)),
            traffic: Mutex::default(),
        }
    }

    /// Logs a peer's mistake, unless too many were logged just now.
    pub(super) fn peer_error(&self, text: std::fmt::Arguments<'_>) {
        if self.allowed() {
            tracing::error!(target: "memberlist", "{text}");
        }
    }

    /// Logs that another cluster's label was met. It goes on for as long as somebody has the wrong address or label,
    /// so it must not take the place of other errors.
    pub(super) fn other_cluster(&self, error: impl Display, from: SocketAddr) {
        let pace = self.other_clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.allows(Instant::now()) {
            tracing::error!(target: "memberlist", "{error} from={from}");
        }
    }

    /// As [`Ledger::peer_error`], for what is expected under load.
    pub(super) fn warning(&self, text: std::fmt::Arguments<'_>) {
        if self.allowed() {
            tracing::warn!(target: "memberlist", "{text}");
        }
    }

    /// Says how many lines were held back, once their interval is over.
    pub(super) fn settle(&self) {
        let held_back = self.lock().settle(Instant::now());
        if held_back > 0 {
            tracing::warn!(target: "memberlist", "{held_back} more network errors were not logged");
        }
    }

    /// Notes a datagram that was sent.
    pub(super) fn sent(&self, len: usize) {
        count(&self.counters.datagrams_sent);
        self.traffic().udp_sent.add(len as f64);
    }

    /// What is to be added to, or taken; hold it for no longer.
    pub(super) fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allowed(&self) -> bool {
        self.settle();
        self.lock().allow()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Lets so many lines through in each interval.
#[derive(Debug)]
struct Limiter {
    interval_start: Instant,
    logged: u32,
    held_back: u64,
}

const INTERVAL: Duration = Duration::from_secs(10);

impl Limiter {
    fn new(now: Instant) -> Limiter {
        Limiter {
            interval_start: now,
            logged: 0,
            held_back: 0,
        }
    }

    fn settle(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.interval_start) < INTERVAL {
            return 0;
        }
        self.interval_start = now;
        self.logged = 0;
        std::mem::take(&mut self.held_back)
    }

    fn allow(&mut self) -> bool {
        if self.logged < bounds::NETWORK_LOG_LINES {
            self.logged += 1;
            return true;
        }
        self.held_back += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_a_few_lines_and_a_sum() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let logged = (0..1000).filter(|_| limiter.allow()).count();
        assert_eq!(logged, bounds::NETWORK_LOG_LINES as usize);
        assert_eq!(limiter.settle(start + INTERVAL / 2), 0);
        assert_eq!(
            limiter.settle(start + INTERVAL),
            1000 - u64::from(bounds::NETWORK_LOG_LINES)
        );
        assert!(limiter.allow());
        assert_eq!(limiter.settle(start + 2 * INTERVAL), 0);
    }
}
