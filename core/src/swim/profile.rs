//! Timing profiles: how often to probe, gossip and exchange state, and how patient to be.

use std::time::Duration;

/// What a key of a profile takes: where it goes, with the least and the largest value that make sense.
pub(super) enum Slot {
    Time(fn(&mut Profile) -> &mut Duration, Duration),
    Count(fn(&mut Profile) -> &mut usize, usize, usize),
    Factor(fn(&mut Profile) -> &mut u32),
    Switch(fn(&mut Profile) -> &mut bool),
}

/// What is wrong with a profile: its name, the key, the value and the bound, on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile '{label}': {text}")]
pub struct ProfileError {
    pub(super) label: String,
    pub(super) text: String,
}

/// Makes the structs, the table of their keys and a profile of zeros from one list of `KEY: KIND(BOUNDS)`.
macro_rules! profile {
    (swim { $($(#[$doc:meta])* $key:ident: $kind:ident($($bound:expr),*),)* }
     serf { $($(#[$serf_doc:meta])* $serf_key:ident: $serf_kind:ident($($serf_bound:expr),*),)* }) => {
        /// Every value that a profile sets; `profiles/lan.toml` says what each one means.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Profile {
            /// The profile's name, as shown in the banner.
            pub name: String,
            $($(#[$doc])* pub $key: value!($kind),)*
            /// Which refinements of failure detection are on. All are; no profile file can change that.
            pub refinements: Refinements,
            /// Serf's share.
            pub serf: SerfProfile,
        }

        /// Serf's share of a profile.
        #[derive(Clone, Debug, PartialEq)]
        pub struct SerfProfile {
            $($(#[$serf_doc])* pub $serf_key: value!($serf_kind),)*
        }

        /// Every key of a profile.
        pub(super) const FIELDS: &[(&str, Slot)] = &[
            $((stringify!($key), Slot::$kind(|p| &mut p.$key $(, $bound)*)),)*
            $((
                concat!("serf.", stringify!($serf_key)),
                Slot::$serf_kind(|p| &mut p.serf.$serf_key $(, $serf_bound)*),
            ),)*
        ];

        impl Profile {
            /// All zero; a complete file fills every field.
            pub(super) fn blank() -> Profile {
                Profile {
                    name: String::new(),
                    $($key: Default::default(),)*
                    refinements: Refinements::default(),
                    serf: SerfProfile { $($serf_key: Default::default(),)* },
                }
            }
        }
    };
}

/// The type of a kind's value.
macro_rules! value {
    (Time) => {
        Duration
    };
    (Count) => {
        usize
    };
    (Factor) => {
        u32
    };
    (Switch) => {
        bool
    };
}

const ZERO: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The smallest datagram that still holds an alive message with the longest name and tags.
const SMALLEST_UDP_BUFFER: usize = 1024;

/// The largest payload of a UDP datagram over IPv4.
const LARGEST_UDP_BUFFER: usize = 65_507;

profile! {
    swim {
        /// Deadline of one stream exchange.
        tcp_timeout: Time(MILLISECOND),
        /// How many members are asked for an indirect ping.
        indirect_checks: Count(0, 1000),
        /// Multiplier of the retransmit limit.
        retransmit_mult: Factor(),
        /// Multiplier of the minimal suspicion timeout.
        suspicion_mult: Factor(),
        /// Maximal suspicion timeout as a multiple of the minimal one.
        suspicion_max_timeout_mult: Factor(),
        /// Base interval of push/pulls; zero turns them off.
        push_pull_interval: Time(ZERO),
        /// Least pause between two push/pulls with members that know something else; zero turns them off.
        repair_interval: Time(ZERO),
        /// While all probed members know the same, one in so many push/pulls takes place.
        push_pull_thinning: Count(1, 1000),
        /// Interval between probes; zero turns them off.
        probe_interval: Time(ZERO),
        /// Whether all nodes agree whose turn it is to probe whom.
        probe_turns: Switch(),
        /// How long a direct ping may take.
        probe_timeout: Time(MILLISECOND),
        /// Upper bound (exclusive) of the local health score (Lifeguard).
        awareness_max_multiplier: Factor(),
        /// Interval between gossip rounds.
        gossip_interval: Time(MILLISECOND),
        /// How many nodes a gossip round reaches.
        gossip_nodes: Count(1, 1000),
        /// To how many neighbours on the ring one of them goes in turn; zero: all are random.
        gossip_ring: Count(0, 100),
        /// Fewest sends of news about a member that others pass on as well; zero: that does not matter.
        gossip_least: Count(0, 1000),
        /// How long news is gathered before its first sends.
        eager_delay: Time(ZERO),
        /// Least pause between two waves of eager gossip.
        eager_pause: Time(MILLISECOND),
        /// Least pause between two of them in which the same news is sent.
        eager_repeat: Time(ZERO),
        /// Share of a message's sends that leave so, in percent; zero turns eager gossip off.
        eager_share: Count(0, 100),
        /// Packets a second that leave so in the long run.
        eager_rate: Count(1, 1_000_000),
        /// Packets that leave so at once after some quiet.
        eager_burst: Count(1, 1_000_000),
        /// How long a dead node is still gossiped to, and then kept in the list.
        gossip_to_the_dead_time: Time(ZERO),
        /// Largest datagram this node builds, in bytes.
        udp_buffer_size: Count(SMALLEST_UDP_BUFFER, LARGEST_UDP_BUFFER),
        /// A dead node's name may come back at another address after this long; zero: never.
        dead_node_reclaim_time: Time(ZERO),
        /// Turns the fallback probe over a stream off.
        disable_tcp_pings: Switch(),
        /// After so many of its usual round trips the ack of a member is late.
        late_ack_mult: Factor(),
        /// No ack is late sooner.
        late_ack_min: Time(ZERO),
        /// An ack is late by then; zero: only when the direct ping has had its time.
        late_ack_max: Time(ZERO),
        /// How far apart two refusals must be to count; zero: none counts.
        evidence_pause: Time(ZERO),
        /// How many members on average look at a suspect for themselves.
        evidence_looks: Count(0, 1000),
        /// How many others must have been refused as well.
        evidence_confirmations: Count(0, 3),
    }
    serf {
        /// Longest time member events are held back for coalescing.
        coalesce_period: Time(ZERO),
        /// Quiet time that ends coalescing early.
        quiescent_period: Time(ZERO),
        /// As `coalesce_period`, for user events.
        user_coalesce_period: Time(ZERO),
        /// As `quiescent_period`, for user events.
        user_quiescent_period: Time(ZERO),
        /// How long a leave or force-leave waits for its broadcast.
        broadcast_timeout: Time(SECOND),
        /// Pause between the leave broadcast and the end, so that it spreads.
        leave_propagate_delay: Time(ZERO),
        /// How many Lamport times of events are remembered.
        event_buffer: Count(1, 65_536),
        /// How many Lamport times of queries are remembered.
        query_buffer: Count(1, 65_536),
        /// Multiplier of the default query timeout.
        query_timeout_mult: Factor(),
        /// How often old members and intents are looked for.
        reap_interval: Time(MILLISECOND),
        /// How often a failed member is tried again.
        reconnect_interval: Time(MILLISECOND),
        /// How long a failed member is kept.
        reconnect_timeout: Time(ZERO),
        /// How long a left member is kept.
        tombstone_timeout: Time(ZERO),
        /// How long an intent about an unknown member is kept.
        recent_intent_timeout: Time(ZERO),
        /// How often broadcast queues are checked.
        queue_check_interval: Time(MILLISECOND),
        /// Queue length that is worth a warning.
        queue_depth_warning: Count(0, usize::MAX),
        /// Queue length above which the oldest entries are dropped.
        max_queue_depth: Count(1, 10_000_000),
        /// When not zero, the bound is the larger of this and twice the member count instead.
        min_queue_depth: Count(0, 10_000_000),
    }
}

impl Profile {
    /// Whether a label that takes so many bytes leaves each datagram the room it needs.
    pub fn check_label(&self, label_overhead: usize) -> Result<(), String> {
        let least = SMALLEST_UDP_BUFFER + label_overhead;
        if label_overhead > 0 && self.udp_buffer_size < least {
            return Err(format!(
                "udp_buffer_size = {} of profile '{}' leaves too little beside the label, must be at least {least}",
                self.udp_buffer_size, self.name
            ));
        }
        Ok(())
    }
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
