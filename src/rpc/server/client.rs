//! One connection: reading requests, seeing to it that a client introduces itself, ending well.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::Backend;
use super::connection::{Connection, Reader};
use super::loss::Loss;
use super::outbox::Outbox;
use super::pending::PendingQueries;
use crate::rpc::frame::{FrameReader, MAX_REQUEST_BYTES};
use crate::rpc::types::{Request, RequestHeader};
use fyrd_core::bounds;

/// What follows a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    /// The connection ends, for this reason.
    Close(String),
    /// The agent has left, and the client knows it.
    Left,
}

/// One connection.
pub(super) struct Client<B> {
    pub(super) backend: B,
    requests: FrameReader<Reader>,
    pub(super) outbox: Outbox,
    /// The previous request's header, which fills in for what the next one omits.
    pub(super) header: RequestHeader,
    pub(super) greeted: bool,
    pub(super) authenticated: bool,
    /// When both must be done, for those who need both.
    introduced_by: Instant,
    /// Subscriptions and queries under way; they end with the client.
    pub(super) tasks: JoinSet<()>,
    /// The event streams, by the number of their request. Dropping the value stops one.
    pub(super) streams: BTreeMap<u64, oneshot::Sender<()>>,
    /// The log monitor, as the streams.
    pub(super) monitor: Option<(u64, oneshot::Sender<()>)>,
    /// The queries that came by a stream and may be answered.
    pub(super) pending: Rc<PendingQueries>,
    pub(super) losses: Losses,
}

/// What a client that does not read loses, kind by kind.
pub(super) struct Losses {
    pub(super) events: Rc<Loss>,
    pub(super) lines: Rc<Loss>,
    pub(super) answers: Rc<Loss>,
}

impl Losses {
    fn of(peer: &str) -> Losses {
        let loss = |what| Rc::new(Loss::new(format!("Dropping {what} to ipc.client: {peer}")));
        Losses {
            events: loss("event"),
            lines: loss("logs"),
            answers: loss("query response"),
        }
    }
}

impl<B: Backend> Client<B> {
    pub(super) async fn run(connection: Connection, backend: B, left: Rc<Notify>) {
        let Connection { reader, writer, peer } = connection;
        let mut client = Client {
            backend,
            requests: FrameReader::new(reader, MAX_REQUEST_BYTES),
            outbox: Outbox::new(writer),
            header: RequestHeader::default(),
            greeted: false,
            authenticated: false,
            introduced_by: Instant::now() + bounds::RPC_INTRODUCTION,
            tasks: JoinSet::new(),
            streams: BTreeMap::new(),
            monitor: None,
            pending: Rc::default(),
            losses: Losses::of(&peer),
        };
        match client.converse().await {
            Ok(true) => {
                client.wait_for_its_end().await;
                left.notify_one();
            }
            Ok(false) => {}
            Err(reason) => error!(target: "agent.ipc", "{reason} client={peer}"),
        }
        client.linger().await;
    }

    /// Serves requests to the end; whether the agent has left. The error is what the log shall say.
    async fn converse(&mut self) -> Result<bool, String> {
        loop {
            let Some(header) = self.next_header().await? else {
                return Ok(false);
            };
            self.header = header;
            self.backend.note_request();
            while self.tasks.try_join_next().is_some() {}
            let handling = self.handle().await;
            match handling.map_err(|reason| format!("Failed to evaluate request: {reason}"))? {
                Next::Continue => {}
                Next::Left => return Ok(true),
                Next::Close(reason) => return Err(format!("Failed to evaluate request: {reason}")),
            }
        }
    }

    async fn next_header(&mut self) -> Result<Option<RequestHeader>, String> {
        let fail = |reason: String| format!("failed to decode request header: {reason}");
        match self.next_frame().await {
            Ok(Some(frame)) => {
                let header = RequestHeader::decode_after(&self.header, &frame);
                header.map(Some).map_err(|error| fail(error.to_string()))
            }
            Ok(None) => Ok(None),
            // On Windows most clients end like this.
            Err(error) if cfg!(windows) && error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// Who has not introduced himself may not hold a place for ever; all others may idle.
    async fn next_frame(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let limit = if self.is_admitted() {
            None
        } else {
            Some(self.introduced_by)
        };
        let next = self.requests.next();
        let frame = match limit {
            None => next.await,
            Some(limit) => match timeout_at(limit, next).await {
                Ok(frame) => frame,
                Err(_) => return Err(io::Error::other("no handshake or authentication in time")),
            },
        };
        // A frame may hold a token or a key.
        Ok(frame?.map(|frame| Zeroizing::new(frame.to_vec())))
    }

    fn is_admitted(&self) -> bool {
        self.greeted && (self.authenticated || self.backend.rpc_auth().is_none())
    }

    /// Handles the request whose header has just been read.
    async fn handle(&mut self) -> Result<Next, String> {
        let command = self.header.command.clone();
        if !self.greeted && command != "handshake" {
            self.read_body(&command).await?;
            self.refuse("Handshake required").await?;
            return Ok(Next::Close("Handshake required".to_owned()));
        }
        let needs_auth = self.backend.rpc_auth().is_some() && !self.authenticated;
        if needs_auth && command != "handshake" && command != "auth" {
            self.read_body(&command).await?;
            warn!(target: "agent.ipc", "Client sending commands before auth");
            self.refuse("Authentication required").await?;
            return Ok(Next::Continue);
        }
        let body = self.read_body(&command).await?;
        let request = Request::decode(&command, &body).map_err(|error| format!("decode failed: {error}"))?;
        self.perform(request).await
    }

    /// The body's bytes, none for a command that has no body.
    async fn read_body(&mut self, command: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        if Request::has_body(command) != Some(true) {
            return Ok(Zeroizing::default());
        }
        match self.next_frame().await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err("decode failed: EOF".to_owned()),
            Err(error) => Err(format!("decode failed: {error}")),
        }
    }

    /// Answers a request that has no body to answer with.
    pub(super) async fn acknowledge(&self, done: Result<(), String>) -> Result<(), String> {
        self.send(&done.err().unwrap_or_default(), None::<&()>).await
    }

    pub(super) async fn refuse(&self, reason: &str) -> Result<(), String> {
        self.send(reason, None::<&()>).await
    }

    pub(super) async fn answer(&self, body: &impl Serialize) -> Result<(), String> {
        self.send("", Some(body)).await
    }

    pub(super) async fn send(&self, error: &str, body: Option<&impl Serialize>) -> Result<(), String> {
        self.outbox.answer(self.header.seq, error, body).await
    }

    /// Lets the client close first, for a moment. To Serf's own client an answer and the end of the connection
    /// behind it are two pieces of news, and it takes either first.
    async fn wait_for_its_end(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.requests.next().await {} };
        let _ = timeout(bounds::RPC_LINGER, ended).await;
    }

    /// Closes the sending side, then reads what the client had under way, for a moment: closing over
    /// unread bytes would reset the connection and could take our last answer along.
    async fn linger(&mut self) {
        // One of them may hold the sending side, waiting for a client that will not read any more.
        self.tasks.shutdown().await;
        let ending = async {
            self.outbox.close().await;
            while let Ok(Some(_)) = self.requests.next().await {}
        };
        let _ = timeout(bounds::RPC_LINGER, ending).await;
    }
}
