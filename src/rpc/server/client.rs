//! One connection: reading requests, seeing to it that a client introduces itself, ending well.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::Backend;
use super::connection::{Connection, Reader};
use super::guesses::Guesses;
use super::loss::Loss;
use super::members::Listing;
use super::outbox::Outbox;
use super::pending::PendingQueries;
use crate::rpc::frame::{FrameReader, MAX_REQUEST_BYTES};
use crate::rpc::types::{Request, RequestHeader};
use crate::seats::Seat;
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
    /// Where it comes from.
    pub(super) source: String,
    pub(super) guesses: Guesses,
    pub(super) listing: Rc<Listing>,
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
    /// Until it has to give way to another.
    seat: Option<Seat>,
    yielded: Rc<Loss>,
    peer: String,
}

/// Tells a client for which there is no seat why it is not served, in answer to its first request.
pub(super) async fn refuse(connection: Connection, max: usize) {
    let Connection { reader, writer, .. } = connection;
    let requests = FrameReader::new(reader, bounds::RPC_FRAME_OF_STRANGER);
    let (mut requests, outbox) = (requests, Outbox::new(writer));
    let refusing = async {
        let first = requests.next().await.ok().flatten();
        let header = first.map(|frame| RequestHeader::decode_after(&RequestHeader::default(), frame));
        let seq = header.and_then(Result::ok).map_or(0, |header| header.seq);
        let reason = format!("Too many RPC clients: all {max} places (rpc_max_clients) are taken and in use");
        // It may have gone already.
        let _ = outbox.answer(seq, &reason, None::<&()>).await;
        outbox.close().await;
        while let Ok(Some(_)) = requests.next().await {}
    };
    let _ = timeout(bounds::RPC_LINGER, refusing).await;
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
    pub(super) fn new(
        connection: Connection,
        backend: B,
        seat: Seat,
        yielded: Rc<Loss>,
        guesses: Guesses,
        listing: Rc<Listing>,
    ) -> Client<B> {
        let Connection {
            reader,
            writer,
            peer,
            source,
        } = connection;
        Client {
            backend,
            requests: FrameReader::new(reader, bounds::RPC_FRAME_OF_STRANGER),
            outbox: Outbox::new(writer),
            header: RequestHeader::default(),
            greeted: false,
            authenticated: false,
            source,
            guesses,
            listing,
            introduced_by: Instant::now() + bounds::RPC_INTRODUCTION,
            tasks: JoinSet::new(),
            streams: BTreeMap::new(),
            monitor: None,
            pending: Rc::default(),
            losses: Losses::of(&peer),
            seat: Some(seat),
            yielded,
            peer,
        }
    }

    pub(super) async fn run(mut self, left: Rc<Notify>) {
        match self.converse().await {
            Ok(true) => {
                self.wait_for_its_end().await;
                left.notify_one();
            }
            Ok(false) => {}
            Err(reason) => error!(target: "agent.ipc", "{reason} client={}", self.peer),
        }
        self.linger().await;
    }

    /// Serves requests to the end; whether the agent has left. The error is what the log shall say.
    async fn converse(&mut self) -> Result<bool, String> {
        loop {
            self.flush_before_reading().await?;
            let Some(header) = self.next_header().await? else {
                return Ok(false);
            };
            self.header = header;
            self.backend.note_request();
            while self.tasks.try_join_next().is_some() {}
            let handling = self.handle().await;
            match handling.map_err(|reason| format!("Failed to evaluate request: {reason}"))? {
                Next::Continue => self.note_admission(),
                Next::Left => return Ok(true),
                Next::Close(reason) => return Err(format!("Failed to evaluate request: {reason}")),
            }
        }
    }

    /// The client may wait for an answer before it sends more, so nothing is held while it is waited for.
    async fn flush_before_reading(&mut self) -> Result<(), String> {
        if self.outbox.holds() && !self.requests.has_next() {
            self.outbox.flush().await?;
        }
        Ok(())
    }

    async fn next_header(&mut self) -> Result<Option<RequestHeader>, String> {
        let fail = |reason: String| format!("failed to decode request header: {reason}");
        match self.next_request().await {
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

    /// The next request's header; nothing once the client has gone, or has had to give its seat to another.
    async fn next_request(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        loop {
            while self.tasks.try_join_next().is_some() {}
            let limit = self.introduction_limit();
            let Some(seat) = &self.seat else {
                return Ok(None);
            };
            seat.set_idle(self.tasks.is_empty());
            let frame = async { own(self.requests.next().await) };
            tokio::select! {
                // What has come is served, even if the seat is wanted.
                biased;
                frame = frame => {
                    seat.set_idle(false);
                    return frame;
                }
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => return Err(not_in_time()),
                // It may be idle from now on.
                _ = self.tasks.join_next(), if !self.tasks.is_empty() => continue,
                () = seat.wanted() => {}
            }
            self.give_way().await;
        }
    }

    /// No request of a client has the number 0, so Serf's own drops what this one says.
    async fn give_way(&mut self) {
        self.seat = None;
        self.yielded.add(1);
        let reason = "Closed for being idle: all places for RPC clients (rpc_max_clients) are taken";
        // It may have gone already.
        let _ = self.outbox.answer(0, reason, None::<&()>).await;
    }

    fn introduction_limit(&self) -> Option<Instant> {
        (!self.is_admitted()).then_some(self.introduced_by)
    }

    /// Who has not introduced himself may not hold a seat for ever; all others may idle.
    async fn next_frame(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let limit = self.introduction_limit();
        let next = self.requests.next();
        match limit {
            None => own(next.await),
            Some(limit) => own(timeout_at(limit, next).await.map_err(|_| not_in_time())?),
        }
    }

    /// Who has introduced himself keeps his seat before strangers, and may send large requests.
    fn note_admission(&mut self) {
        if self.is_admitted()
            && let Some(seat) = &self.seat
            && seat.admit()
        {
            self.requests.set_limit(MAX_REQUEST_BYTES);
        }
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
        self.flush_before_reading().await?;
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

    /// As [`Client::acknowledge`], together with the next answer if the next request is here already.
    pub(super) async fn acknowledge_soon(&self, done: Result<(), String>) -> Result<(), String> {
        self.outbox
            .hold(self.header.seq, &done.err().unwrap_or_default())
            .await
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

/// A copy of a frame, which may hold a token or a key.
fn own(frame: io::Result<Option<&[u8]>>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    Ok(frame?.map(|frame| Zeroizing::new(frame.to_vec())))
}

fn not_in_time() -> io::Error {
    io::Error::other("no handshake or authentication in time")
}
