//! The timing profiles that simulated clusters use (protocol.md A24).

use std::time::Duration;

use crate::swim::profile::{Profile, SerfProfile};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Serf's defaults for a local network.
pub fn lan() -> Profile {
    Profile {
        name: "lan".to_owned(),
        tcp_timeout: secs(10),
        indirect_checks: 3,
        retransmit_mult: 4,
        suspicion_mult: 4,
        suspicion_max_timeout_mult: 6,
        push_pull_interval: secs(30),
        probe_interval: secs(1),
        probe_timeout: Duration::from_millis(500),
        awareness_max_multiplier: 8,
        gossip_interval: Duration::from_millis(200),
        gossip_nodes: 3,
        gossip_to_the_dead_time: secs(30),
        udp_buffer_size: 1400,
        dead_node_reclaim_time: Duration::ZERO,
        disable_tcp_pings: false,
        serf: SerfProfile {
            coalesce_period: secs(3),
            quiescent_period: secs(1),
            user_coalesce_period: secs(3),
            user_quiescent_period: secs(1),
            broadcast_timeout: secs(5),
            leave_propagate_delay: secs(1),
            event_buffer: 512,
            query_buffer: 512,
            query_timeout_mult: 16,
            reap_interval: secs(15),
            reconnect_interval: secs(30),
            reconnect_timeout: secs(24 * 3600),
            tombstone_timeout: secs(24 * 3600),
            recent_intent_timeout: secs(300),
            queue_check_interval: secs(30),
            queue_depth_warning: 128,
            max_queue_depth: 4096,
            min_queue_depth: 0,
        },
    }
}
