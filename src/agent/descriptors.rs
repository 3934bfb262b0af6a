//! How many files, sockets included, the process may have open.

use fyrd_core::bounds::DESCRIPTORS_FOR_GOSSIP;
use tracing::warn;

use crate::rpc::server::Limits;

/// Asks for as many descriptors as the agent can use, and makes do with what it gets: gossip has its share, RPC clients
/// have the rest.
pub fn share(mut limits: Limits) -> Limits {
    let Some(allowed) = system::raise() else {
        return limits;
    };
    let rest = usize::try_from(allowed).unwrap_or(usize::MAX);
    let rest = rest.saturating_sub(DESCRIPTORS_FOR_GOSSIP).max(LEAST_CLIENTS);
    if rest < limits.clients {
        warn!(
            target: "agent",
            "At most {rest} RPC clients at once, instead of {} (rpc_max_clients): the system allows {allowed} open files",
            limits.clients
        );
        limits.clients = rest;
    }
    limits
}

/// However few descriptors there are, commands get through.
const LEAST_CLIENTS: usize = 16;

#[cfg(unix)]
mod system {
    use fyrd_core::bounds::DESCRIPTORS_WANTED;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    /// Raises the soft limit towards the hard one, as Go's runtime does; the limit that holds then.
    pub fn raise() -> Option<u64> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        let wanted = hard.min(DESCRIPTORS_WANTED);
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            return Some(wanted);
        }
        Some(soft)
    }
}

#[cfg(not(unix))]
mod system {
    /// There is no such limit here.
    pub fn raise() -> Option<u64> {
        None
    }
}
