//! What an agent can tell in figures.

use std::time::{Duration, SystemTime};

use crate::driver::{DriverCounters, KeySummary, Traffic};
use crate::events::handlers::HandlerFigures;
use crate::snapshot;
use fyrd_core::serf::Stats;
use fyrd_core::serf::measures::SerfMeasures;
use fyrd_core::swim::measures::SwimMeasures;

/// All figures of one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The node's name.
    pub name: String,
    /// The name of its timing profile.
    pub profile: String,
    /// When the agent started.
    pub started: SystemTime,
    /// How long ago that is.
    pub uptime: Duration,
    /// The node's own view.
    pub stats: Stats,
    /// What has come together since the start.
    pub totals: Totals,
    /// What the driver has counted since the start.
    pub counters: DriverCounters,
    /// The keys; none without encryption.
    pub keys: Option<KeySummary>,
    /// What each handler has done, under the text that defines it.
    pub handlers: Vec<(String, HandlerFigures)>,
    /// How each template fares, by its file.
    pub templates: Vec<(String, TemplateFigures)>,
    /// How the snapshot fares, if there is one.
    pub snapshot: Option<snapshot::Status>,
    /// Bytes of the address space, and of those that are in memory, where the system tells.
    pub memory: Option<(f64, f64)>,
    /// What stands against sending work here: nothing, if the agent is ready.
    pub unready: Vec<&'static str>,
}

/// How a template fares.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateFigures {
    /// Whether its file is as the cluster is.
    pub is_current: bool,
    /// How often the file was written.
    pub written: u64,
    /// How often something failed on the way.
    pub failures: u64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Of the member list.
    pub swim: SwimMeasures,
    /// Of events and queries.
    pub serf: SerfMeasures,
    /// Of the network.
    pub traffic: Traffic,
    /// Of changes of members.
    pub members: MemberChanges,
    /// User events that were handled.
    pub user_events: u64,
    /// Times at which nobody was heard any more.
    pub isolations: u64,
}

/// How often members have changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberChanges {
    /// Came, or came back.
    pub join: u64,
    /// Left.
    pub leave: u64,
    /// Failed.
    pub failed: u64,
    /// Changed their tags or address.
    pub update: u64,
    /// Were forgotten.
    pub reap: u64,
    /// Came back soon after they had failed.
    pub flap: u64,
}
