//! The driver's front: what the rest of the agent may ask of it, from any task or thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fyrd_keys::{Cipher, Fingerprint};
use tokio::sync::{mpsc, oneshot};

use super::Node;
use super::ledger::{DriverCounters, Ledger, Traffic};
use crate::queue;
use fyrd_core::bounds;
use fyrd_core::node::Input;
use fyrd_core::serf::measures::SerfMeasures;
use fyrd_core::serf::{Answer, Command, Event, QueryUpdate};
use fyrd_core::swim::measures::SwimMeasures;

/// The driver is gone, so nothing can be asked of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's network loop has ended")]
pub struct Stopped;

/// What a [`Handle`] sends to its driver.
pub(super) enum Request {
    Command(Command, oneshot::Sender<Answer>),
    Read(Box<dyn FnOnce(&Node) + Send>),
    Subscribe(queue::Sender<Arc<Event>>),
    SubscribeQueries(queue::Sender<QueryUpdate>),
    SubscribeLookUps(mpsc::Sender<Vec<Arc<str>>>),
    Tell(Input<'static>),
    Keys(oneshot::Sender<Option<KeySummary>>),
    TakeMeasures(oneshot::Sender<(SwimMeasures, SerfMeasures)>),
    Stop,
}

/// What can be told of the keys.
#[derive(Clone, Copy, Debug)]
pub struct KeySummary {
    /// How many there are.
    pub count: usize,
    /// Stands for the primary key, which seals.
    pub fingerprint: Fingerprint,
    /// What it seals with.
    pub cipher: Cipher,
}

/// Talks to a running driver; clones talk to the same one.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    ledger: Arc<Ledger>,
}

impl Handle {
    pub(super) fn new(ledger: Arc<Ledger>) -> (Handle, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(bounds::DRIVER_REQUESTS);
        (Handle { requests, ledger }, receiver)
    }

    /// Gives the node a command and waits for its answer.
    pub async fn command(&self, command: Command) -> Result<Answer, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Command(command, answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// Looks at the node between two of its steps. Keep `look` short: nothing is received meanwhile.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (found, seen) = oneshot::channel();
        let look = Box::new(move |node: &Node| {
            // Who asked may have lost patience.
            let _ = found.send(look(node));
        });
        self.send(Request::Read(look)).await?;
        seen.await.map_err(|_| Stopped)
    }

    /// Waits until the snapshot, if there is one, has stored the clocks as they are now, or is in trouble.
    pub async fn settled(&self) -> Result<(), Stopped> {
        self.command(Command::Settle).await.map(drop)
    }

    /// All events from now on. Up to `capacity` wait for the subscriber; what comes on top is dropped
    /// and counted.
    pub async fn subscribe(&self, capacity: usize) -> Result<queue::Receiver<Arc<Event>>, Stopped> {
        let (events, receiver) = queue::bounded(capacity);
        self.send(Request::Subscribe(events)).await?;
        Ok(receiver)
    }

    /// What comes in for queries of ours from now on, as [`Handle::subscribe`]. Subscribe before asking.
    pub async fn subscribe_queries(&self, capacity: usize) -> Result<queue::Receiver<QueryUpdate>, Stopped> {
        let (updates, receiver) = queue::bounded(capacity);
        self.send(Request::SubscribeQueries(updates)).await?;
        Ok(receiver)
    }

    /// The names that the node wants looked up from now on. It asks for no more before it was told of them.
    pub async fn subscribe_look_ups(&self) -> Result<mpsc::Receiver<Vec<Arc<str>>>, Stopped> {
        let (look_ups, receiver) = mpsc::channel(1);
        self.send(Request::SubscribeLookUps(look_ups)).await?;
        Ok(receiver)
    }

    /// Tells the node what has happened outside of the driver.
    pub async fn tell(&self, input: Input<'static>) -> Result<(), Stopped> {
        self.send(Request::Tell(input)).await
    }

    /// What can be told of the keys; nothing without encryption.
    pub async fn keys(&self) -> Result<Option<KeySummary>, Stopped> {
        let (summary, told) = oneshot::channel();
        self.send(Request::Keys(summary)).await?;
        told.await.map_err(|_| Stopped)
    }

    /// Ends the driver without a leave; comes back when its sockets are closed.
    pub async fn stop(&self) {
        if self.send(Request::Stop).await.is_ok() {
            self.requests.closed().await;
        }
    }

    /// What the driver has counted; to be had even after its end.
    pub fn counters(&self) -> DriverCounters {
        self.ledger.counters.read()
    }

    /// How many packets the primary key has sealed since the start; 0 without encryption.
    pub fn sealed_by_primary(&self) -> u64 {
        self.ledger.sealed_by_primary.load(Relaxed)
    }

    /// What node and network have counted and measured since the last call. There is one caller, for what
    /// it takes is gone.
    pub async fn take_measures(&self) -> Result<(SwimMeasures, SerfMeasures, Traffic), Stopped> {
        let (measures, taken) = oneshot::channel();
        self.send(Request::TakeMeasures(measures)).await?;
        let (swim, serf) = taken.await.map_err(|_| Stopped)?;
        Ok((swim, serf, std::mem::take(&mut *self.ledger.traffic())))
    }

    async fn send(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
