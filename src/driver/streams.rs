//! Streams in and out: one task each, that moves bytes and nothing more.
//!
//! A task reads until one message is complete and hands its raw bytes to the driver, which opens,
//! decodes and answers. Every stream has one deadline for all of its life, and pays for each byte
//! from the common budget of its [`Gate`], so a slow or greedy peer costs a bounded sum for a bounded
//! time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::gate::{Gate, Pass};
use super::ledger::{Ledger, count};
use super::sockets::{HomeLink, plain};
use crate::go;
use fyrd_core::bounds;
use fyrd_core::envelope::{Assembly, Received, Unreadable};
use fyrd_core::node::ExchangeId;

/// What a stream's task tells the driver.
pub(super) enum StreamEvent {
    /// A peer's stream brought a message. An answer may follow; without one the stream is closed.
    Arrived {
        from: SocketAddr,
        message: Received,
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// A peer's stream cannot be understood, and the peer shall be told why.
    Refused {
        reason: String,
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// An exchange of ours is over. The pass pays for the reply until it has been looked at.
    Exchanged {
        id: ExchangeId,
        to: SocketAddr,
        result: Result<Option<Received>, String>,
        pass: Option<Pass>,
    },
}

/// What all stream tasks of one driver share.
#[derive(Clone)]
pub(super) struct Shared {
    pub gate: Gate,
    pub ledger: Arc<Ledger>,
    pub events: mpsc::Sender<StreamEvent>,
    pub dials: Arc<Semaphore>,
    pub label: Arc<[u8]>,
    pub encrypted: bool,
    pub home: HomeLink,
    pub timeout: Duration,
}

/// One exchange to perform.
pub(super) struct Exchange {
    pub id: ExchangeId,
    pub to: SocketAddr,
    /// Label and message, sealed.
    pub bytes: Vec<u8>,
    pub expect_reply: bool,
    pub deadline: Instant,
}

/// Accepts streams for ever.
pub(super) async fn accept(listener: TcpListener, shared: Shared) {
    let mut streams = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let from = shared.home.enter(plain(from));
                let Some(pass) = shared.gate.admit(from) else {
                    count(&shared.ledger.counters.streams_over_cap);
                    shared
                        .ledger
                        .warning(format_args!("too many streams at once, closed one from={from}"));
                    continue;
                };
                count(&shared.ledger.counters.streams_accepted);
                shared.ledger.traffic().tcp_accepted += 1;
                streams.spawn(serve(stream, from, pass, shared.clone()));
            }
            Err(error) => {
                let reason = go::os_error(&error);
                shared
                    .ledger
                    .peer_error(format_args!("Error accepting TCP connection: {reason}"));
                // Out of descriptors, say: a connection stays in the queue and accept fails at once again.
                sleep(bounds::ACCEPT_PAUSE).await;
            }
        }
        while streams.try_join_next().is_some() {}
    }
}

/// Dials, sends, and reads the reply if one is expected.
pub(super) async fn exchange(job: Exchange, shared: Shared) {
    let Exchange {
        id,
        to,
        bytes,
        expect_reply,
        deadline,
    } = job;
    let mut pass = shared.gate.dialled();
    let result = converse(to, &bytes, expect_reply, deadline, &mut pass, &shared).await;
    // The driver may have ended meanwhile.
    let _ = shared
        .events
        .send(StreamEvent::Exchanged {
            id,
            to,
            result,
            pass: Some(pass),
        })
        .await;
}

async fn converse(
    to: SocketAddr,
    bytes: &[u8],
    expect_reply: bool,
    deadline: Instant,
    pass: &mut Pass,
    shared: &Shared,
) -> Result<Option<Received>, String> {
    let dial = async {
        let permit = shared
            .dials
            .acquire()
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok::<_, io::Error>((permit, TcpStream::connect(shared.home.leave(to)).await?))
    };
    let (_permit, mut stream) = timeout_at(deadline, dial)
        .await
        .map_err(|_| go::dial_timeout(to))?
        .map_err(|error| go::dial_error(to, &error) + shared.home.advice(to))?;
    shared.ledger.traffic().tcp_connected += 1;
    let ends = (stream.local_addr().map_or(to, plain), to);
    timeout_at(deadline, stream.write_all(bytes))
        .await
        .map_err(|_| go::transfer_timeout("write", ends))?
        .map_err(|error| go::transfer_error("write", ends, &error))?;
    shared.ledger.traffic().tcp_sent.add(bytes.len() as f64);
    if !expect_reply {
        // All is written; a peer that is gone meanwhile would not have told us anyway.
        let _ = timeout_at(deadline, stream.shutdown()).await;
        return Ok(None);
    }
    // The answering side sends no label, though its encryption covers ours.
    let reading = read_message(&mut stream, None, shared.encrypted, pass);
    match timeout_at(deadline, reading).await {
        Err(_) => Err(go::transfer_timeout("read", ends)),
        Ok(Ok(reply)) => Ok(Some(reply)),
        Ok(Err(Unread::Io(error))) => Err(go::transfer_error("read", ends, &error)),
        Ok(Err(Unread::Nothing)) => Err(hung_up(&shared.label)),
        Ok(Err(Unread::Unreadable(Unreadable::Refused(reason)))) => Err(reason),
        Ok(Err(Unread::Unreadable(reason))) => Err(format!("{reason} from={to}")),
    }
}

/// What it means that a peer closed without an answer. One of another label does so.
fn hung_up(label: &[u8]) -> String {
    if label.is_empty() {
        return "EOF".to_owned();
    }
    let label = String::from_utf8_lossy(label);
    format!("EOF, as from a peer whose -label is not {label:?}")
}

/// Serves one inbound stream within its deadline.
async fn serve(mut stream: TcpStream, from: SocketAddr, mut pass: Pass, shared: Shared) {
    let deadline = Instant::now() + shared.timeout;
    let ledger = &shared.ledger;
    let reading = read_message(&mut stream, Some(&shared.label), shared.encrypted, &mut pass);
    let (reply, answered) = oneshot::channel();
    let event = match timeout_at(deadline, reading).await {
        Ok(Ok(message)) => StreamEvent::Arrived { from, message, reply },
        Ok(Err(Unread::Unreadable(Unreadable::Refused(reason)))) => {
            ledger.peer_error(format_args!("failed to receive: {reason} from={from}"));
            count(&ledger.counters.streams_refused);
            StreamEvent::Refused { reason, reply }
        }
        // A port check connects and goes.
        Ok(Err(Unread::Nothing)) => return,
        Ok(Err(Unread::Unreadable(Unreadable::Dropped(reason)))) => return refuse(ledger, from, &reason),
        Ok(Err(Unread::Unreadable(error @ Unreadable::OtherLabel(_)))) => {
            count(&ledger.counters.streams_mislabelled);
            return ledger.other_cluster(error, from);
        }
        Ok(Err(Unread::Io(error))) => return refuse(ledger, from, &go::os_error(&error)),
        Err(_) => return refuse(ledger, from, "i/o timeout"),
    };
    let answering = async {
        shared.events.send(event).await.ok()?;
        let answer = answered.await.ok()?;
        stream.write_all(&answer).await.ok()?;
        shared.ledger.traffic().tcp_sent.add(answer.len() as f64);
        stream.shutdown().await.ok()
    };
    if let Ok(Some(())) = timeout_at(deadline, answering).await {
        linger(&mut stream).await;
    }
}

fn refuse(ledger: &Ledger, from: SocketAddr, reason: &str) {
    count(&ledger.counters.streams_refused);
    ledger.peer_error(format_args!("failed to receive: {reason} from={from}"));
}

/// Waits a moment for the peer to close. Closing over unread bytes would reset the connection, and
/// the reset can overtake our answer.
async fn linger(stream: &mut TcpStream) {
    let drain = async {
        let mut scrap = [0; 1024];
        let mut left = bounds::STREAM_LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(got) => left = left.saturating_sub(got),
            }
        }
    };
    let _ = timeout(bounds::STREAM_LINGER, drain).await;
}

/// Why no message came of a stream.
#[derive(Debug)]
enum Unread {
    /// The peer closed without a byte.
    Nothing,
    Unreadable(Unreadable),
    Io(io::Error),
}

fn dropped(reason: &str) -> Unread {
    Unread::Unreadable(Unreadable::Dropped(reason.to_owned()))
}

/// Reads one message. `label` is what the other side must send first; `None` when it sends none.
async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    label: Option<&[u8]>,
    encrypted: bool,
    pass: &mut Pass,
) -> Result<Received, Unread> {
    let mut assembly = Assembly::new(label, encrypted);
    let mut nothing = true;
    loop {
        assembly.bytes.reserve(bounds::STREAM_READ);
        let got = stream.read_buf(&mut assembly.bytes).await.map_err(Unread::Io)?;
        if got == 0 {
            return Err(if nothing {
                Unread::Nothing
            } else {
                dropped("unexpected EOF")
            });
        }
        nothing = false;
        if !pass.take(got) {
            return Err(dropped("all streams together hold too many bytes"));
        }
        if let Some(message) = assembly.advance().map_err(Unread::Unreadable)? {
            return Ok(message);
        }
    }
}
