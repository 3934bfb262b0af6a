//! Timing profiles: how often to probe, gossip and exchange state, and how patient to be.

use std::time::Duration;

pub use super::profile_text::ProfileError;

/// Every value that a profile sets; `profiles/lan.toml` says what each one means.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The profile's name, as shown in the banner.
    pub name: String,
    /// Deadline of one stream exchange.
    pub tcp_timeout: Duration,
    /// How many members are asked for an indirect ping.
    pub indirect_checks: usize,
    /// Multiplier of the retransmit limit.
    pub retransmit_mult: u32,
    /// Multiplier of the minimal suspicion timeout.
    pub suspicion_mult: u32,
    /// Maximal suspicion timeout as a multiple of the minimal one.
    pub suspicion_max_timeout_mult: u32,
    /// Base interval of push/pulls; zero turns them off.
    pub push_pull_interval: Duration,
    /// Interval between probes; zero turns them off.
    pub probe_interval: Duration,
    /// How long a direct ping may take.
    pub probe_timeout: Duration,
    /// Upper bound (exclusive) of the local health score (Lifeguard).
    pub awareness_max_multiplier: u32,
    /// Interval between gossip rounds; zero turns them off.
    pub gossip_interval: Duration,
    /// How many nodes a gossip round reaches.
    pub gossip_nodes: usize,
    /// How long a dead node is still gossiped to, and then kept in the list.
    pub gossip_to_the_dead_time: Duration,
    /// Largest datagram this node builds, in bytes.
    pub udp_buffer_size: usize,
    /// A dead node's name may come back at another address after this long; zero: never.
    pub dead_node_reclaim_time: Duration,
    /// Turns the fallback probe over a stream off.
    pub disable_tcp_pings: bool,
    /// Which refinements of failure detection are on. All are; no profile file can change that.
    pub refinements: Refinements,
    /// Serf's share.
    pub serf: SerfProfile,
}

/// Refinements of failure detection that can be turned off one by one, so that experiments can tell what
/// each is worth. Those of Lifeguard (arXiv 1707.00788) that are not listed here are values of a profile:
/// `awareness_max_multiplier` and `suspicion_max_timeout_mult` at 1 turn local health and dynamic
/// suspicion off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refinements {
    /// Whether indirect pings ask for a nack (Lifeguard, local health probe).
    pub nacks: bool,
    /// Whether the ping of a suspect tells it of the suspicion (Lifeguard, buddy system).
    pub buddy: bool,
    /// Whether a process that did not run for a while extends the probe under way by that time, and suspicions
    /// by a part of it. Neither Lifeguard nor Serf does.
    pub notices_pauses: bool,
    /// Whether a node that hears nothing from anybody declares nobody dead for a while: it may be the one that
    /// is cut off. Neither Lifeguard nor Serf does.
    pub minds_silence: bool,
}

impl Default for Refinements {
    fn default() -> Self {
        Refinements {
            nacks: true,
            buddy: true,
            notices_pauses: true,
            minds_silence: true,
        }
    }
}

/// The Serf layer's share of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct SerfProfile {
    /// Longest time member events are held back for coalescing.
    pub coalesce_period: Duration,
    /// Quiet time that ends coalescing early.
    pub quiescent_period: Duration,
    /// As `coalesce_period`, for user events.
    pub user_coalesce_period: Duration,
    /// As `quiescent_period`, for user events.
    pub user_quiescent_period: Duration,
    /// How long a leave or force-leave waits for its broadcast.
    pub broadcast_timeout: Duration,
    /// Pause between the leave broadcast and the end, so that it spreads.
    pub leave_propagate_delay: Duration,
    /// How many Lamport times of events are remembered.
    pub event_buffer: usize,
    /// How many Lamport times of queries are remembered.
    pub query_buffer: usize,
    /// Multiplier of the default query timeout.
    pub query_timeout_mult: u32,
    /// How often old members and intents are looked for.
    pub reap_interval: Duration,
    /// How often a failed member is tried again.
    pub reconnect_interval: Duration,
    /// How long a failed member is kept.
    pub reconnect_timeout: Duration,
    /// How long a left member is kept.
    pub tombstone_timeout: Duration,
    /// How long an intent about an unknown member is kept.
    pub recent_intent_timeout: Duration,
    /// How often broadcast queues are checked.
    pub queue_check_interval: Duration,
    /// Queue length that is worth a warning.
    pub queue_depth_warning: usize,
    /// Queue length above which the oldest entries are dropped.
    pub max_queue_depth: usize,
    /// When not zero, the bound is the larger of this and twice the member count instead.
    pub min_queue_depth: usize,
}
