//! Looks after the members that the user named to join through, for as long as the agent runs.
//!
//! The node itself tries its failed members again, but only until it forgets them: two sides of a partition
//! that lasts longer know nothing of each other. So a seed of which no member has the address is dialled now
//! and then, whoever else is there.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use tracing::{debug, info};

use super::join::resolve;
use super::{Agent, STOPPED};
use crate::driver::Stopped;
use fyrd_core::node::Node;
use fyrd_core::serf::{Answer, Command, JoinTarget, MemberStatus};

/// The longest pause between two dials of one seed, in reconnect intervals. A seed whose member announces
/// another address than the one dialled answers each time, and costs an exchange of the whole state.
const LONGEST_PAUSE: u32 = 16;

/// One of them.
struct Seed<'a> {
    text: &'a str,
    /// How many intervals lie between the next two dials.
    pause: u32,
    /// How many intervals are left until the next dial.
    wait: u32,
}

impl Agent {
    /// Dials those of `existing` that are no members, until the agent leaves or ends. `every` is the shortest
    /// pause.
    pub(super) async fn watch_seeds(
        &self,
        existing: &[String],
        every: Duration,
        mut rng: Xoshiro256PlusPlus,
    ) {
        let mut seeds: Vec<Seed<'_>> = existing
            .iter()
            .map(|text| Seed {
                text,
                pause: 1,
                wait: 1,
            })
            .collect();
        while !seeds.is_empty() {
            // Hosts that were cut off together do not dial together.
            tokio::time::sleep(every.mul_f64(rng.random_range(0.5..1.5))).await;
            let Ok(Some(members)) = self.0.driver.read(addresses).await else {
                return;
            };
            for seed in &mut seeds {
                self.look_after(seed, &members).await;
            }
        }
    }

    async fn look_after(&self, seed: &mut Seed<'_>, members: &[SocketAddr]) {
        let targets = match resolve(seed.text, self.0.bind_port).await {
            Ok(targets) => targets,
            Err(reason) => return debug!(target: "agent", "Failed to resolve {}: {reason}", seed.text),
        };
        if targets.iter().any(|target| members.contains(&target.addr)) {
            (seed.pause, seed.wait) = (1, 1);
            return;
        }
        seed.wait -= 1;
        if seed.wait == 0 {
            seed.pause = (2 * seed.pause).min(LONGEST_PAUSE);
            seed.wait = seed.pause;
            self.dial_seed(seed.text, targets).await;
        }
    }

    async fn dial_seed(&self, seed: &str, targets: Vec<JoinTarget>) {
        debug!(target: "agent", "{seed} is no member, dialling it");
        let join = Command::Join {
            targets,
            ignore_old: false,
            announce: false,
        };
        match self.0.driver.command(join).await {
            Ok(Answer::Joined { contacted: 0, errors }) => {
                for (addr, reason) in errors {
                    debug!(target: "agent", "Failed to join {addr} again: {reason}");
                }
            }
            Ok(Answer::Joined { .. }) => {
                info!(target: "agent", "Joined {seed} again, which was no member any more")
            }
            Ok(answer) => debug!(target: "agent", "Failed to join {seed} again: {answer:?}"),
            Err(Stopped) => debug!(target: "agent", "Failed to join {seed} again: {STOPPED}"),
        }
    }
}

/// Where all members are, the failed and the left ones too; `None` once this node leaves.
fn addresses(node: &Node) -> Option<Vec<SocketAddr>> {
    let members = node.members();
    let me = members.iter().find(|member| *member.name == *node.local_name())?;
    if me.status != MemberStatus::Alive {
        return None;
    }
    Some(
        members
            .iter()
            .map(|member| member.addr.socket(member.port))
            .collect(),
    )
}
