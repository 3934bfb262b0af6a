//! Streams in and out: one task each, that moves bytes and nothing more.
//!
//! A task reads until one message is complete and hands its raw bytes to the driver, which opens,
//! decodes and answers. Every stream has one deadline for all of its life, and pays for each byte
//! from the common budget of its [`Gate`], so a slow or greedy peer costs a bounded sum for a bounded
//! time. Who says nothing at first has a second of it, and who has shown no key yet yields to newcomers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::gate::{Claim, Dismissal, Gate, Pass};
use super::ledger::{Ledger, count};
use super::sockets::{HomeLink, plain};
use crate::go;
use fyrd_core::bounds;
use fyrd_core::envelope::{Assembly, Received, Unreadable};
use fyrd_core::node::{Cause, ExchangeId, Failure};
use fyrd_keys::STREAM_HEADER_LEN;

/// What a stream's task tells the driver.
pub(super) enum StreamEvent {
    /// A peer's stream brought a message. An answer may follow; without one the stream is closed.
    Arrived {
        from: SocketAddr,
        message: Received,
        /// To be granted when the message is of this cluster.
        claim: Claim,
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
        result: Result<Option<Received>, Failure>,
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
                let Some((pass, dismissal)) = shared.gate.admit(from) else {
                    count(&shared.ledger.counters.streams_over_cap);
                    shared
                        .ledger
                        .warning(format_args!("too many streams at once, closed one from={from}"));
                    continue;
                };
                count(&shared.ledger.counters.streams_accepted);
                shared.ledger.traffic().tcp_accepted += 1;
                streams.spawn(serve(stream, from, pass, dismissal, shared.clone()));
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
) -> Result<Option<Received>, Failure> {
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
        .map_err(|_| Failure::new(Cause::Unanswered, go::dial_timeout(to)))?
        .map_err(|error| {
            let text = go::dial_error(to, &error) + shared.home.advice(to);
            Failure::new(cause_of(&error, Cause::Unanswered), text)
        })?;
    shared.ledger.traffic().tcp_connected += 1;
    let ends = (stream.local_addr().map_or(to, plain), to);
    let stalled = |what| Failure::new(Cause::Stalled, go::transfer_timeout(what, ends));
    let broken = |what, error: &io::Error| {
        let text = go::transfer_error(what, ends, error);
        Failure::new(cause_of(error, Cause::Stalled), text)
    };
    timeout_at(deadline, stream.write_all(bytes))
        .await
        .map_err(|_| stalled("write"))?
        .map_err(|error| broken("write", &error))?;
    shared.ledger.traffic().tcp_sent.add(bytes.len() as f64);
    if !expect_reply {
        // All is written; a peer that is gone meanwhile would not have told us anyway.
        let _ = timeout_at(deadline, stream.shutdown()).await;
        return Ok(None);
    }
    // The answering side sends no label, though its encryption covers ours.
    let reading = read_message(&mut stream, None, shared.encrypted, pass, deadline);
    match timeout_at(deadline, reading).await {
        Err(_) => Err(stalled("read")),
        Ok(Ok(reply)) => Ok(Some(reply)),
        Ok(Err(Unread::Io(error))) => Err(broken("read", &error)),
        Ok(Err(Unread::Late)) => Err(stalled("read")),
        Ok(Err(Unread::Nothing)) => Err(Failure::new(Cause::Closed, hung_up(&shared.label))),
        Ok(Err(Unread::Unreadable(Unreadable::Refused(reason)))) => Err(Failure::protocol(reason)),
        Ok(Err(Unread::Unreadable(reason))) => Err(Failure::protocol(format!("{reason} from={to}"))),
    }
}

/// What an error of the operating system says about a stream. `slow` is what a time-out of its own means: it has
/// one while dialling, and one for what is not acknowledged.
fn cause_of(error: &io::Error, slow: Cause) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => slow,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Cause::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Cause::Reset
        }
        _ => Cause::Local,
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

/// Serves one inbound stream within its deadline, or until it has to make room.
async fn serve(stream: TcpStream, from: SocketAddr, pass: Pass, dismissal: Dismissal, shared: Shared) {
    let ledger = Arc::clone(&shared.ledger);
    tokio::select! {
        () = serve_to_the_end(stream, from, pass, shared) => {}
        Ok(()) = dismissal => {
            count(&ledger.counters.streams_yielded);
            ledger.warning(format_args!("too many streams at once, closed one that had shown no key from={from}"));
        }
    }
}

async fn serve_to_the_end(mut stream: TcpStream, from: SocketAddr, mut pass: Pass, shared: Shared) {
    let begun = Instant::now();
    let deadline = begun + shared.timeout;
    let first_bytes = begun + first_bytes(shared.timeout);
    let ledger = &shared.ledger;
    let label = Some(&*shared.label);
    let reading = read_message(&mut stream, label, shared.encrypted, &mut pass, first_bytes);
    let (reply, answered) = oneshot::channel();
    let event = match timeout_at(deadline, reading).await {
        Ok(Ok(message)) => StreamEvent::Arrived {
            from,
            message,
            claim: pass.claim(),
            reply,
        },
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
        Ok(Err(Unread::Late)) | Err(_) => return refuse(ledger, from, "i/o timeout"),
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

/// How long a stream has for its first bytes: a second, and more where the profile has more patience.
fn first_bytes(timeout: Duration) -> Duration {
    (timeout / 10).max(bounds::STREAM_FIRST_BYTES).min(timeout)
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
    /// It did not say in time what it is about.
    Late,
    Unreadable(Unreadable),
    Io(io::Error),
}

fn dropped(reason: &str) -> Unread {
    Unread::Unreadable(Unreadable::Dropped(reason.to_owned()))
}

/// Reads one message. `label` is what the other side must send first; `None` when it sends none. Until
/// `first_bytes` as many must be there as the shortest header has.
async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    label: Option<&[u8]>,
    encrypted: bool,
    pass: &mut Pass,
    first_bytes: Instant,
) -> Result<Received, Unread> {
    let mut assembly = Assembly::new(label, encrypted);
    let mut arrived = 0;
    loop {
        assembly.bytes.reserve(bounds::STREAM_READ);
        let reading = stream.read_buf(&mut assembly.bytes);
        let read = if arrived < STREAM_HEADER_LEN {
            timeout_at(first_bytes, reading).await.map_err(|_| Unread::Late)?
        } else {
            reading.await
        };
        let got = read.map_err(Unread::Io)?;
        if got == 0 {
            return Err(if arrived == 0 {
                Unread::Nothing
            } else {
                dropped("unexpected EOF")
            });
        }
        arrived += got;
        if !pass.take(got) {
            return Err(dropped("all streams together hold too many bytes"));
        }
        if let Some(message) = assembly.advance().map_err(Unread::Unreadable)? {
            return Ok(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Limits;
    use super::*;

    fn shared() -> Shared {
        let (events, _) = mpsc::channel(1);
        Shared {
            gate: Gate::new(Limits::default()),
            ledger: Arc::new(Ledger::new()),
            events,
            dials: Arc::new(Semaphore::new(1)),
            label: Arc::default(),
            encrypted: false,
            home: HomeLink::default(),
            timeout: Duration::from_secs(10),
        }
    }

    /// What becomes of an exchange with this address.
    async fn cause(to: SocketAddr) -> Cause {
        let shared = shared();
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut pass = shared.gate.dialled();
        let result = converse(to, b"hello", true, deadline, &mut pass, &shared).await;
        let failure = result.map(|_| ()).expect_err("nobody answers as a member does");
        failure.cause
    }

    #[tokio::test]
    async fn a_failed_exchange_has_a_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let odd_peer = tokio::spawn(async move {
            for said in [None, Some(&b"\x63"[..]), Some(&b""[..])] {
                let (mut stream, _) = listener.accept().await.unwrap();
                match said {
                    // Closed over what was not read: the system resets the connection.
                    None => stream.readable().await.unwrap(),
                    Some(said) => {
                        assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 5);
                        stream.write_all(said).await.unwrap();
                    }
                }
            }
            let silent = listener.accept().await.unwrap();
            (silent, listener)
        });
        let reset = cause(at).await;
        // wine closes it as if all had been read.
        assert!(
            reset == Cause::Reset || cfg!(windows) && reset == Cause::Closed,
            "{reset:?}"
        );
        for expected in [Cause::Protocol, Cause::Closed, Cause::Stalled] {
            assert_eq!(cause(at).await, expected);
        }
        drop(odd_peer.await.unwrap());
        assert_eq!(cause(at).await, Cause::Refused);
    }

    /// Where a listener takes no more, the system drops what would open a connection.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_dial_that_nobody_answers_is_no_refusal() {
        use socket2::{Domain, Socket, Type};

        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let _queued = TcpStream::connect(at).await.unwrap();
        assert_eq!(cause(at).await, Cause::Unanswered);
    }

    #[test]
    fn errors_of_the_system_have_a_cause() {
        use io::ErrorKind as Kind;

        for (kind, expected) in [
            (Kind::ConnectionRefused, Cause::Refused),
            (Kind::TimedOut, Cause::Unanswered),
            (Kind::HostUnreachable, Cause::Unreachable),
            (Kind::NetworkUnreachable, Cause::Unreachable),
            (Kind::ConnectionReset, Cause::Reset),
            (Kind::BrokenPipe, Cause::Reset),
            (Kind::PermissionDenied, Cause::Local),
            (Kind::AddrNotAvailable, Cause::Local),
            (Kind::InvalidInput, Cause::Local),
        ] {
            assert_eq!(cause_of(&kind.into(), Cause::Unanswered), expected, "{kind:?}");
        }
        #[cfg(target_os = "linux")]
        let codes = [111, 110, 113, 101, 104, 24];
        #[cfg(windows)]
        let codes = [10061, 10060, 10065, 10051, 10054, 10024];
        #[cfg(any(windows, target_os = "linux"))]
        for (code, expected) in codes.into_iter().zip([
            Cause::Refused,
            Cause::Stalled,
            Cause::Unreachable,
            Cause::Unreachable,
            Cause::Reset,
            Cause::Local,
        ]) {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(cause_of(&error, Cause::Stalled), expected, "{code}");
        }
    }
}
