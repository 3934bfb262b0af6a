//! What can happen to a host, and what is under way to it and from it.

use std::net::SocketAddr;

use super::HostId;
use fyrd_core::node::{ExchangeId, Failure};

/// Whether a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    Up,
    /// It is stopped (SIGSTOP): packets queue up, and its time passes without it.
    Frozen,
    /// It has crashed or was ended. Of what it knew only what it has recorded is left.
    Down,
}

#[derive(Debug)]
pub(super) enum Happening {
    Arrive(HostId, Arrival),
    Wake(HostId),
    /// A flush of the host's disk begins or ends.
    Disk(HostId),
    /// The host's time for one datagram is over.
    Finished(HostId),
}

/// Something on its way to a host.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Dial {
        from: HostId,
        life: u32,
        exchange: ExchangeId,
        bytes: Vec<u8>,
    },
    Replied {
        life: u32,
        exchange: ExchangeId,
        result: Result<Vec<u8>, Failure>,
    },
    /// Not from the network: the dialler has waited for as long as it wanted to.
    TimedOut {
        life: u32,
        exchange: ExchangeId,
        to: SocketAddr,
    },
}

/// Something sealed that leaves a host.
#[derive(Debug)]
pub(super) enum Departure {
    Datagram {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Dial {
        to: SocketAddr,
        life: u32,
        exchange: ExchangeId,
        bytes: Vec<u8>,
    },
}
