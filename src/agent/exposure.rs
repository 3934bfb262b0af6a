//! What HTTP clients read of the agent, and where they may.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tracing::info;

use super::options::Options;
use super::{Agent, Shared, address, event_loop, files, telemetry};
use crate::events::hub::Subscription;
use crate::http::{self, Figures, Gate};
use crate::rpc::dial::UNIX_PREFIX;
use crate::rpc::server::Listener;
use fyrd_core::serf::{Member, MemberStatus, Stats};

/// How long an agent that has somebody to join, and has met nobody, does not count as ready. The first of a cluster
/// never meets anybody before it is ready, where readiness is what makes it known to the others.
const ALONE: Duration = Duration::from_secs(60);

/// Where and to whom HTTP is spoken.
#[derive(Debug)]
pub struct Exposure {
    addr: String,
    gate: Gate,
}

impl Exposure {
    /// What the options say; nothing if HTTP is not wanted.
    pub fn of(options: &Options) -> Result<Option<Exposure>, String> {
        let addr = &options.http_addr;
        if addr.is_empty() {
            return Ok(None);
        }
        let file = &options.http_token_file;
        let token = (!file.is_empty()).then(|| files::read_token(file)).transpose()?;
        Ok(Some(Exposure {
            addr: addr.clone(),
            gate: Gate::new(token, options.http_hosts.clone()),
        }))
    }

    /// What the operator should know about it.
    pub fn warning(&self) -> Option<String> {
        let open = !self.gate.has_token() && !http::is_local(&self.addr);
        open.then(|| {
            format!(
                "Warning: whoever reaches {} can read members, tags and events; -http-token-file=PATH asks for a token",
                self.addr
            )
        })
    }

    /// Opens the port.
    pub async fn listen(self) -> Result<Exposed, String> {
        let Exposure { addr, gate } = self;
        let listener = match addr.strip_prefix(UNIX_PREFIX) {
            Some(path) => Listener::unix(path)?,
            None => {
                let addr = address::parse(&addr, None).map_err(|e| format!("listen tcp: {e}"))?;
                Listener::tcp(addr).await?
            }
        };
        info!(target: "agent", "Answering HTTP at {addr}");
        Ok(Exposed { listener, gate })
    }
}

/// An open port at which nobody answers yet.
pub struct Exposed {
    listener: Listener,
    gate: Gate,
}

impl Exposed {
    /// Starts to answer for this agent.
    pub fn serve(self, agent: &Agent) {
        spawn_local(http::serve(self.listener, agent.clone(), self.gate));
    }
}

impl http::Backend for Agent {
    async fn members(&self) -> Option<Vec<Arc<Member>>> {
        self.0.driver.read(|node| node.members()).await.ok()
    }

    async fn figures(&self) -> Option<Figures> {
        let shared = &*self.0;
        telemetry::fetch(&shared.telemetry, &shared.driver).await.ok()?;
        let me = shared.name.clone();
        let (stats, status) = shared
            .driver
            .read(move |node| (node.stats(), node.status_of(&me)))
            .await
            .ok()?;
        let uptime = shared.beginning.uptime();
        Some(Figures {
            unready: unready(shared, &stats, status, uptime),
            name: shared.name.clone(),
            profile: shared.beginning.profile.clone(),
            started: shared.beginning.at,
            uptime,
            stats,
            totals: shared.telemetry.totals(),
            counters: shared.driver.counters(),
            keys: shared.driver.keys().await.ok()?,
            handlers: shared.handlers.figures().into_iter().collect(),
            templates: shared.template_figures(),
            snapshot: shared.snapshot.as_ref().map(|watch| watch.status()),
            memory: telemetry::memory(),
        })
    }

    /// Not those that handlers get, which may have been held back to be bundled.
    async fn events(&self) -> Option<Subscription> {
        self.0.driver.subscribe(event_loop::EVENT_QUEUE).await.ok()
    }
}

fn unready(
    shared: &Shared,
    stats: &Stats,
    status: Option<MemberStatus>,
    uptime: Duration,
) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    if stats.isolated {
        reasons.push("nobody is heard, this host may be cut off");
    }
    if shared.beginning.is_lonely(stats) && uptime < ALONE {
        reasons.push("nobody of those to join has answered yet");
    }
    if status != Some(MemberStatus::Alive) {
        reasons.push("this agent has left or is leaving");
    }
    reasons
}
