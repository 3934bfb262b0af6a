//! What an earlier life of this node has left: the snapshot's memory, and whom to look for again.

use std::net::SocketAddr;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::task::spawn_local;
use tracing::{info, warn};

use super::rejoin::{self, Peer};
use super::setup::Setup;
use crate::driver::{self, Handle};
use crate::snapshot::{self, Recorder, Watch};
use fyrd_core::node::memory::Memory;

/// What the agent has to know of an earlier life; nothing without a snapshot.
#[derive(Default)]
pub(super) struct Past {
    /// Whether it has handled anything, and did not end with a leave.
    pub is_known: bool,
    /// How the snapshot fares.
    pub watch: Option<Watch>,
    /// Whether it ended with a leave.
    left: bool,
    /// Whom to look for.
    peers: Vec<Peer>,
}

impl Past {
    /// Opens the snapshot, if there is to be one. That comes before any socket, so that nothing is heard or
    /// said by a node that does not know its clocks.
    pub fn load(setup: &Setup) -> Result<(Memory, Option<Recorder>, Past), String> {
        let Some(path) = &setup.snapshot else {
            return Ok(Default::default());
        };
        let settings = snapshot::Settings {
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
        let past = Past {
            is_known: loaded.memory.marks.event > 0 && !loaded.left,
            watch: Some(recorder.watch()),
            left: loaded.left,
            peers: Peer::of(&loaded.memory.members),
        };
        Ok((loaded.memory, Some(recorder), past))
    }

    /// Looks in the background for those who were there, on behalf of the node that is bound here.
    pub fn rejoin(self, handle: Handle, setup: &Setup, bound: SocketAddr) -> Result<(), String> {
        if self.peers.is_empty() {
            return Ok(());
        }
        let (addr, port) = setup.announced(bound)?;
        let settings = rejoin::Settings {
            name: setup.name.clone(),
            addrs: vec![bound, addr.socket(port)],
            left: self.left,
            rejoin_after_leave: setup.rejoin_after_leave,
            seed: SysRng.try_next_u64().map_err(|e| e.to_string())?,
        };
        spawn_local(rejoin::run(handle, self.peers, settings));
        Ok(())
    }
}
