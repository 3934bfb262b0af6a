//! What went wrong on the network: counted always, and logged, of which the log lets pass what is of use.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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
    /// Datagrams outside of the replay window.
    datagrams_stale,
    /// Datagrams that could not be sent.
    datagrams_unsent,
    /// Errors the UDP socket reported while receiving.
    receive_errors,
    /// Inbound streams that were admitted.
    streams_accepted,
    /// Inbound streams closed at once because a cap was reached.
    streams_over_cap,
    /// Inbound streams that had shown no key, and were closed to make room for others.
    streams_yielded,
    /// Inbound streams that brought nothing readable in time.
    streams_refused,
    /// Inbound streams of other clusters, as their label says.
    streams_mislabelled,
    /// Events that a slow subscriber lost.
    events_dropped,
    /// Query updates that a slow subscriber lost.
    query_updates_dropped,
}

/// Counters, shared by the driver's tasks.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) counters: Counters,
    /// Packets that the primary key has sealed since the start.
    pub(super) sealed_by_primary: AtomicU64,
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
            sealed_by_primary: AtomicU64::new(0),
            other_clusters: Mutex::new(Pace::new(bounds::OTHER_CLUSTER_LOG_INTERVAL)),
            traffic: Mutex::default(),
        }
    }

    /// Logs a peer's mistake.
    pub(super) fn peer_error(&self, text: std::fmt::Arguments<'_>) {
        tracing::error!(target: "memberlist", "{text}");
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
        tracing::warn!(target: "memberlist", "{text}");
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
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
