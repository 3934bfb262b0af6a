//! The daemon: configuration, start-up, ordered shutdown, logging, signals.
//!
//! [`options`] and [`files`] give options, [`setup`] checks them, [`run`] starts what the setup says and
//! waits for its end. [`Agent`] is what RPC reaches of it.

pub mod address;
pub mod advice;
mod backend;
mod beginning;
mod carrier;
mod decode;
mod descriptors;
#[cfg(windows)]
pub mod event_log;
mod event_loop;
#[cfg(feature = "http")]
mod exposure;
pub mod files;
mod join;
mod log_file;
mod log_form;
mod log_line;
pub mod logging;
pub mod mdns;
pub mod options;
mod past;
mod printer;
mod program;
mod query_router;
mod reload;
pub mod schema;
pub mod secret;
mod seeds;
mod service_manager;
pub mod setup;
mod shutdown;
pub mod signals;
mod startup;
mod stats;
mod syslog;
pub mod telemetry;
#[cfg(feature = "templates")]
mod templating;
mod text;
pub mod validate;

use std::cell::Cell;
use std::rc::Rc;

use tracing::{error, info};

pub use startup::{run, run_on};

use crate::driver::{Handle, HomeLink, Stopped};
use crate::events::handlers::Handlers;
use crate::events::hub::Hub;
use crate::rpc::server::Limits;
use fyrd_core::serf::{Answer, Command};
use logging::Console;
use query_router::QueryRouter;
use secret::Secret;

use crate::snapshot::Watch;

/// What is said to whoever asks something of an agent that is about to end.
const STOPPED: &str = "Serf is shutting down";

/// A running agent, as RPC and signals reach it. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Agent(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    driver: Handle,
    /// Where events are listened to.
    hub: Rc<Hub>,
    /// Who waits for the answers to queries of ours.
    queries: Rc<QueryRouter>,
    /// Where the log can be listened to.
    console: Console,
    handlers: Rc<Handlers>,
    telemetry: telemetry::Metrics,
    name: String,
    rpc_auth: Secret,
    beginning: beginning::Beginning,
    places: Places,
    #[cfg(feature = "templates")]
    templates: crate::templates::Keeper,
    rpc_limits: Limits,
    tags_file: Option<String>,
    /// Held while tags change, for a change is made from what they were.
    tags_change: tokio::sync::Mutex<()>,
    encrypted: bool,
    /// The cluster's label, empty for none.
    label: String,
    bind_port: u16,
    /// Where link-local addresses of members are.
    home: HomeLink,
    /// Whether the leave is over.
    left: Cell<bool>,
    /// How the snapshot fares, if there is one.
    snapshot: Option<Watch>,
}

/// Where the agent can be reached.
#[derive(Debug)]
struct Places {
    /// By other members: what is announced to them.
    gossip: String,
    /// By commands, as configured.
    rpc: String,
    /// By HTTP clients, as configured; empty for nowhere.
    http: String,
}

#[cfg(feature = "http")]
impl Shared {
    /// How each template fares, by its file.
    fn template_figures(&self) -> Vec<(String, crate::http::TemplateFigures)> {
        #[cfg(feature = "templates")]
        let reports = self.templates.reports().into_iter();
        #[cfg(feature = "templates")]
        return reports
            .map(|(name, report)| {
                let figures = crate::http::TemplateFigures {
                    is_current: report.trouble.is_none(),
                    written: report.written,
                    failures: report.failures,
                };
                (name, figures)
            })
            .collect();
        #[cfg(not(feature = "templates"))]
        Vec::new()
    }
}

impl Agent {
    /// Leaves gracefully; comes back when that is over.
    pub async fn leave_cluster(&self) -> Result<(), String> {
        info!(target: "agent", "requesting graceful leave from Serf");
        let result = self.command(Command::Leave).await;
        match &result {
            Ok(()) => self.0.left.set(true),
            Err(reason) => error!(target: "agent", "failed to leave: {reason}"),
        }
        result
    }

    /// Whether this agent has left the cluster.
    pub fn has_left(&self) -> bool {
        self.0.left.get()
    }

    async fn command(&self, command: Command) -> Result<(), String> {
        match self.0.driver.command(command).await {
            Ok(Answer::Failed(reason)) => Err(reason),
            Ok(_) => Ok(()),
            Err(Stopped) => Err(STOPPED.to_string()),
        }
    }
}
