//! Opening the snapshot: what the last run has left.

use tracing::{info, warn};

use super::setup::Setup;
use crate::driver;
use crate::snapshot::{self, Recorder, Watch};
use fyrd_core::node::memory::{MemberRecord, Memory};
use fyrd_core::serf::MemberStatus;

/// What the last run has left, and who keeps what this one leaves; nothing without a snapshot.
#[derive(Default)]
pub(super) struct Past {
    /// What the node starts from.
    pub memory: Memory,
    /// Whether the last run ended with a leave.
    pub left: bool,
    /// Who goes on recording.
    pub recorder: Option<Recorder>,
    /// How the snapshot fares.
    pub watch: Option<Watch>,
}

impl Past {
    /// Whether there are members that the node will look for: those that were alive, unless it has left them.
    pub fn remembers_living(&self) -> bool {
        let lived = |member: &MemberRecord| member.status == MemberStatus::Alive;
        !self.left && self.memory.members.iter().any(lived)
    }

    /// Opens the snapshot, if there is to be one. That comes before any socket, so that nothing is received or
    /// sent by a node that does not know its clocks.
    pub fn load(setup: &Setup) -> Result<Past, String> {
        let Some(path) = &setup.snapshot else {
            return Ok(Past::default());
        };
        let settings = snapshot::SnapshotConfig {
            path: path.clone(),
            node: setup.name.clone(),
            forget_left_members: !setup.rejoin_after_leave,
        };
        let (loaded, recorder) = snapshot::open(settings, driver::unix_time()).map_err(|e| {
            format!("Failed to start the Serf agent: Error creating Serf: Failed to setup snapshot: failed to open snapshot: {e}")
        })?;
        if let Some(kept) = &loaded.imported {
            info!(target: "serf", "Imported Serf's snapshot, which is kept as {}", kept.display());
        }
        for warning in &loaded.warnings {
            warn!(target: "serf", "{warning}");
        }
        Ok(Past {
            memory: loaded.memory,
            left: loaded.left,
            watch: Some(recorder.watch()),
            recorder: Some(recorder),
        })
    }
}
