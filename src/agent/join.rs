//! Joins: from what a user writes to addresses, for a user or for the node (docs/protocol.md#a14-joining).

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Agent;
use super::seeds::{resolve, resolve_seed};
use crate::driver::Stopped;
use crate::rpc::server::Joined;
use fyrd_core::node::Input;
use fyrd_core::serf::dial::{join_errors, list_errors};
use fyrd_core::serf::{Answer, Command, JoinTarget, LookedUp};

impl Agent {
    /// Joins the cluster through these members: `[NAME/]HOST[:PORT]`, by default at our own bind port. A name is
    /// contacted at all its addresses. The error lists what went wrong with each, when none answered.
    pub async fn join_all(&self, existing: &[String], replay: bool) -> Result<Joined, String> {
        self.join_looked_up(existing, replay, false).await
    }

    /// The same with seeds of the configuration, which programs may name.
    pub(super) async fn join_seeds(&self, seeds: &[String], replay: bool) -> Result<Joined, String> {
        self.join_looked_up(seeds, replay, true).await
    }

    async fn join_looked_up(
        &self,
        existing: &[String],
        replay: bool,
        configured: bool,
    ) -> Result<Joined, String> {
        info!(target: "agent", "joining: [{}] replay: {replay}", existing.join(" "));
        let names: Vec<Arc<str>> = existing.iter().map(|name| Arc::from(name.as_str())).collect();
        let looked_up = self.look_up(names, configured).await;
        let result = self.contact(looked_up, replay).await;
        match &result {
            Ok(Joined { contacted: 0, .. }) => {}
            Ok(Joined { contacted, failed }) => {
                info!(target: "agent", "joined: {contacted} nodes");
                if !failed.is_empty() {
                    warn!(target: "agent", "error joining others: {}", list_errors(failed));
                }
            }
            Err(reason) => warn!(target: "agent", "error joining: {reason}"),
        }
        result
    }

    async fn contact(&self, looked_up: Vec<LookedUp>, replay: bool) -> Result<Joined, String> {
        let found = looked_up.iter().filter_map(|seed| seed.found.as_ref().ok());
        let targets: Vec<JoinTarget> = found.flatten().cloned().collect();
        let mut failures = Vec::new();
        if !targets.is_empty() {
            let command = Command::Join {
                targets,
                ignore_old: !replay,
            };
            match self.0.driver.command(command).await {
                Err(Stopped) => return Err("Serf can't Join after Leave or Shutdown".to_string()),
                Ok(Answer::Joined { contacted: 0, errors }) => failures = errors,
                Ok(Answer::Joined { contacted, errors }) => {
                    let failed = join_errors(&looked_up, &errors);
                    return Ok(Joined { contacted, failed });
                }
                Ok(Answer::Failed(reason)) => return Err(reason),
                Ok(Answer::Done | Answer::Keys(_) | Answer::QueryStarted { .. }) => {
                    return Ok(Joined::default());
                }
            }
        }
        let errors = join_errors(&looked_up, &failures);
        if errors.is_empty() {
            Ok(Joined::default())
        } else {
            Err(list_errors(&errors))
        }
    }

    /// Looks the names of seeds up whenever the node asks for them.
    pub(super) async fn look_up_for_node(self, mut asked: mpsc::Receiver<Vec<Arc<str>>>) {
        while let Some(names) = asked.recv().await {
            let looked_up = self.look_up(names, true).await;
            if self.0.driver.tell(Input::LookedUp(looked_up)).await.is_err() {
                return;
            }
        }
    }

    async fn look_up(&self, names: Vec<Arc<str>>, configured: bool) -> Vec<LookedUp> {
        let mut looked_up = Vec::new();
        for name in names {
            let mut found = match configured {
                true => resolve_seed(&name, self.0.bind_port).await,
                false => resolve(&name, self.0.bind_port).await,
            };
            for target in found.iter_mut().flatten() {
                target.addr = self.0.home.enter(target.addr);
            }
            looked_up.push(LookedUp { name, found });
        }
        looked_up
    }
}
