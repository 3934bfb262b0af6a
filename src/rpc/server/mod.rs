//! The agent's side of the Serf RPC protocol.
//!
//! Each client is a task that reads a request, performs it through the [`Backend`], answers, and
//! only then looks at the next. What a client subscribes to (events, log lines, the answers to a
//! query) comes from tasks of its own; an outbox writes header and body in one piece, so that nothing
//! is ever torn. Each subscription has a bounded queue: a client that does not read loses records, with
//! a count in the log, and slows nobody.
//!
//! Where Serf closes a connection without a word, this server does so too, with one exception that
//! is kinder to users: a bad pattern in `members-filtered` is answered with what is wrong with it.

mod client;
mod commands;
mod connection;
mod guesses;
mod keys;
mod listener;
mod loss;
mod members;
mod monitor;
mod outbox;
mod pending;
mod query;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(unix)]
mod unix;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error};

use crate::events::hub::Subscription;
use crate::seats::Seats;
use fyrd_core::bounds;
use fyrd_core::serf::keyring::{KeyBytes, KeyOp};
use fyrd_core::serf::{self, KeyReport, QueryKey, QueryParams, Tags};
use fyrd_core::wire::WireCoordinate;

pub use connection::Connection;
pub use listener::Listener;
pub(crate) use loss::Loss;
pub use monitor::LogTap;
pub use query::{QueryAnswers, RespondError};

use client::Client;
use guesses::Guesses;
use members::Listing;

/// What the server asks of the agent.
#[expect(
    async_fn_in_trait,
    reason = "all clients are served on the agent's own thread"
)]
pub trait Backend: Clone + 'static {
    /// The token that clients must present, if any.
    fn rpc_auth(&self) -> Option<&str>;
    /// All known members.
    async fn members(&self) -> Vec<Arc<serf::Member>>;
    /// All known members and the number of this state of them, or nothing if it is the one that is known.
    async fn members_since(&self, known: Option<u64>) -> Option<(u64, Vec<Arc<serf::Member>>)>;
    /// Contacts these addresses; what came of it, or why none answered, as users shall read it.
    async fn join(&self, existing: Vec<String>, replay: bool) -> Result<Joined, String>;
    /// Leaves the cluster; comes back when the leave is over. The agent must not end before
    /// [`serve`] does, or the client will not be told.
    async fn leave(&self) -> Result<(), String>;
    /// Makes a failed member a left one, or erases it.
    async fn force_leave(&self, name: String, prune: bool) -> Result<(), String>;
    /// Deletes tags, then sets others.
    async fn set_tags(&self, set: Tags, delete: Vec<String>) -> Result<(), String>;
    /// The agent's figures, in groups.
    async fn stats(&self) -> BTreeMap<String, BTreeMap<String, String>>;
    /// A node's network coordinate, if known.
    async fn coordinate(&self, name: String) -> Option<WireCoordinate>;
    /// Sends a user event.
    async fn user_event(&self, name: String, payload: Vec<u8>, coalesce: bool) -> Result<(), String>;
    /// All events from now on, of which up to `capacity` wait.
    fn events(&self, capacity: usize) -> Subscription;
    /// The log's recent lines of a level (by name, in any case) and above, and all that follow, of which
    /// up to `capacity` wait.
    fn log(&self, level: &str, capacity: usize) -> Result<LogTap, String>;
    /// Asks the cluster.
    async fn query(&self, params: QueryParams) -> Result<QueryAnswers, String>;
    /// Answers a query that came as an event.
    async fn respond(&self, query: QueryKey, payload: Vec<u8>) -> Result<(), RespondError>;
    /// Has all members do this with that key, empty for a listing. A report of failures is no error.
    async fn keys(&self, op: KeyOp, key: KeyBytes) -> Result<KeyReport, String>;
    /// How much clients may take.
    fn limits(&self) -> Limits {
        Limits::default()
    }
    /// A client has connected.
    fn note_client(&self) {}
    /// A client has sent a request.
    fn note_request(&self) {}
}

/// What came of a join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// How many addresses answered.
    pub contacted: usize,
    /// What went wrong with the others, as users shall read it.
    pub failed: Vec<String>,
}

/// How much clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once.
    pub clients: usize,
    /// Event streams and queries of one client at once.
    pub subscriptions: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients: bounds::RPC_CLIENTS_MAX,
            subscriptions: bounds::RPC_SUBSCRIPTIONS_MAX,
        }
    }
}

/// Serves clients until one of them has made the agent leave and has been told so. To end earlier,
/// drop the future: that closes all connections. Within a `LocalRuntime`.
pub async fn serve<B: Backend>(listener: impl Into<Listener>, backend: B) {
    let left = Rc::new(Notify::new());
    let accepting = accept(listener.into(), backend, left.clone());
    tokio::select! {
        () = left.notified() => {}
        () = accepting => {}
    }
}

async fn accept<B: Backend>(listener: Listener, backend: B, left: Rc<Notify>) {
    let mut clients = JoinSet::new();
    let guesses = Guesses::default();
    let listing = Rc::new(Listing::default());
    let seats = Seats::new(backend.limits().clients);
    let max = seats.max();
    let refused = Loss::new(format!(
        "Refused client: all {max} places (rpc_max_clients) are taken and in use"
    ));
    let yielded = Rc::new(Loss::new(format!(
        "Closed the client that was idle for longest: all {max} places (rpc_max_clients) are taken"
    )));
    loop {
        let accepted = listener.accept().await;
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok(connection) => match seats.take().await {
                Some(seat) => {
                    debug!(target: "agent.ipc", "Accepted client: {}", connection.peer);
                    backend.note_client();
                    let client = Client::new(
                        connection,
                        backend.clone(),
                        seat,
                        yielded.clone(),
                        guesses.clone(),
                        Rc::clone(&listing),
                    );
                    clients.spawn_local(client.run(left.clone()));
                }
                None => {
                    refused.add(1);
                    clients.spawn_local(client::refuse(connection, max));
                    // A client that tries again at once shall not spin us.
                    sleep(bounds::ACCEPT_PAUSE).await;
                }
            },
            Err(error) => {
                error!(target: "agent.ipc", "Failed to accept client: {error}");
                sleep(bounds::ACCEPT_PAUSE).await;
            }
        }
    }
}
