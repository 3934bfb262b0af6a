//! The only I/O loop around the node: sockets, clock and operating-system randomness.
//!
//! One task owns node, keyring and socket, so protocol state needs no locks:
//!
//! ```text
//! UDP socket    --> open --> decode --+
//! stream tasks  --> open --> decode --+--> Node::handle --> effects --> seal --> UDP socket
//! Handle (RPC, agent) --> Command ----+                        |  +---> stream tasks
//! deadline      --> Tick -------------+                        +------> subscribers, answers
//!                                                              +------> keyring, keyring file
//! ```
//!
//! After each input all effects are carried out before the next input is looked at. Crypto of streams
//! runs in this task as well: at about a gigabyte a second even the largest message (20 MiB) holds
//! the loop for some 20 ms, and usual ones (below 100 kB) for no time that matters.

mod alarm;
mod gate;
mod handle;
mod keyring;
mod ledger;
mod perform;
mod sockets;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use fyrd_keys::Keyring;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::go;
use crate::queue;
use crate::snapshot::Recorder;
use fyrd_core::bounds;
use fyrd_core::envelope::{Drawn, Envelope, Unopened};
use fyrd_core::node::{CommandId, Input, NodeConfig, StoreNews, StreamId};
use fyrd_core::serf::{Answer, Event, QueryUpdate};
use fyrd_core::time::Time;
use fyrd_core::wire;

pub use fyrd_core::node::Node;
pub use handle::{Handle, KeySummary, Stopped};
pub use ledger::{DriverCounters, Traffic};
pub use sockets::{BindError, HomeLink, Sockets};

use alarm::Alarm;
use gate::{Gate, Limits};
use handle::Request;
use keyring::KeyringDesk;
use ledger::{Ledger, count};
use streams::{Shared, StreamEvent};

/// What to do about a key that has sealed a lot.
pub const ROTATE: &str = "put a new one in its place with `fyrd keys rotate`";

/// Everything a driver has to be told, besides its sockets.
#[derive(Debug)]
pub struct DriverConfig {
    /// The node's configuration. Its overheads are set by the driver, which knows them.
    pub node: NodeConfig,
    /// The keys; `None` switches encryption off.
    pub keyring: Option<Keyring>,
    /// Where the keys are kept; changes are saved there before they take effect. `None` forgets them.
    pub keyring_file: Option<PathBuf>,
    /// The cluster's label, empty for none.
    pub label: Vec<u8>,
    /// How old, or far ahead, a packet may be; `None` takes any.
    pub replay_window: Option<Duration>,
    /// Whether to compress what is sent; received is either form.
    pub compress: bool,
    /// Who keeps what the node must remember over a restart, if anybody does.
    pub recorder: Option<Recorder>,
}

/// Why a driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The node lost its name to another.
    LostName,
    /// It has tried to join as often as it may.
    NotJoined,
}

/// The loop; see the module's own text.
pub struct Driver {
    node: Node,
    /// The node's time at `start`, counted from the Unix epoch so that it means something after a restart;
    /// from then on the monotonic clock counts.
    epoch: Time,
    start: Instant,
    udp: UdpSocket,
    udp_is_v6: bool,
    home: HomeLink,
    /// Taken by the accepting task when the loop starts.
    listener: Option<TcpListener>,
    envelope: Envelope,
    /// Where nonces come from.
    nonces: fn() -> Drawn,
    desk: KeyringDesk,
    /// The datagram being received.
    packet: Vec<u8>,
    /// The same, decompressed.
    scratch: wire::Scratch,
    /// Datagrams that the operating system had no room for yet.
    unsent: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Destinations that the operating system refused, still to be told to the node.
    failed_sends: Vec<(SocketAddr, String)>,
    /// When something is due.
    alarm: Alarm,
    /// Receive errors without a datagram between them.
    receive_errors_in_row: u32,
    /// When the socket may be read again after too many of those.
    rest_until: Option<Instant>,
    requests: mpsc::Receiver<Request>,
    stream_events: mpsc::Receiver<StreamEvent>,
    shared: Shared,
    tasks: JoinSet<()>,
    answers: HashMap<CommandId, oneshot::Sender<Answer>>,
    last_command: u64,
    last_stream: u64,
    /// Inbound streams that the node may still reply to.
    replies: HashMap<StreamId, oneshot::Sender<Vec<u8>>>,
    event_subscribers: Vec<queue::Sender<Arc<Event>>>,
    query_subscribers: Vec<queue::Sender<QueryUpdate>>,
    /// Who looks names up.
    look_ups: Option<mpsc::Sender<Vec<Arc<str>>>>,
    ledger: Arc<Ledger>,
    recorder: Option<Recorder>,
    ended: Option<Ended>,
}

/// Why the loop woke up.
enum Wake {
    Tick,
    Datagrams,
    Writable,
    ReceiveError(io::Error),
    Stream(StreamEvent),
    KeyringSaved(Result<(), String>),
    Store(StoreNews),
    Request(Option<Request>),
}

impl Driver {
    /// A driver of a new node. Nothing is sent or received before [`Driver::run`].
    pub fn new(sockets: Sockets, config: DriverConfig) -> Result<(Driver, Handle), String> {
        Driver::limited(sockets, config, Limits::default())
    }

    fn limited(sockets: Sockets, config: DriverConfig, limits: Limits) -> Result<(Driver, Handle), String> {
        let DriverConfig {
            mut node,
            keyring,
            keyring_file,
            label,
            replay_window,
            compress,
            recorder,
        } = config;
        if label.len() > bounds::LABEL_MAX {
            let len = label.len();
            return Err(format!(
                "label of {len} bytes is too long, it must have at most {} bytes",
                bounds::LABEL_MAX
            ));
        }
        // An agent that could seal nothing had better not start.
        perform::system_nonce()?;
        let envelope = Envelope::new(keyring, label, compress).with_replay_window(replay_window);
        node.records = recorder.is_some();
        node.seal_overhead = envelope.seal_overhead();
        node.compress = compress;
        node.label_overhead = envelope.label_overhead();
        let ledger = Arc::new(Ledger::new());
        let (handle, requests) = Handle::new(ledger.clone());
        let (event_sender, stream_events) = mpsc::channel(bounds::STREAM_EVENTS);
        let shared = Shared {
            gate: Gate::new(limits),
            ledger: ledger.clone(),
            events: event_sender,
            dials: Arc::new(Semaphore::new(bounds::DIALS_MAX)),
            label: envelope.label().into(),
            encrypted: envelope.keyring().is_some(),
            home: sockets.home,
            timeout: node.profile.tcp_timeout,
        };
        let epoch = unix_time();
        let driver = Driver {
            node: Node::new(node, epoch)?,
            epoch,
            start: Instant::now(),
            udp_is_v6: sockets.local_addr().is_ipv6(),
            home: sockets.home,
            udp: sockets.udp,
            listener: Some(sockets.tcp),
            envelope,
            nonces: perform::system_nonce,
            desk: KeyringDesk::new(keyring_file),
            packet: vec![0; bounds::UDP_RECEIVE_BUFFER],
            scratch: wire::Scratch::default(),
            unsent: VecDeque::new(),
            failed_sends: Vec::new(),
            receive_errors_in_row: 0,
            alarm: Alarm::new(),
            rest_until: None,
            requests,
            stream_events,
            shared,
            tasks: JoinSet::new(),
            answers: HashMap::new(),
            last_command: 0,
            last_stream: 0,
            replies: HashMap::new(),
            event_subscribers: Vec::new(),
            query_subscribers: Vec::new(),
            look_ups: None,
            ledger,
            recorder,
            ended: None,
        };
        Ok((driver, handle))
    }

    /// Runs until it is stopped, all handles are gone, or the node has lost its name.
    pub async fn run(mut self) -> Ended {
        if let Some(listener) = self.listener.take() {
            self.tasks.spawn(streams::accept(listener, self.shared.clone()));
        }
        self.tell_members();
        self.envelope.set_time(unix_time());
        // Who subscribed before the start hears of the node's first events too.
        while let Ok(request) = self.requests.try_recv() {
            self.request(request);
        }
        self.settle();
        let mut ticked = false;
        let ended = loop {
            if let Some(ended) = self.ended {
                break ended;
            }
            // A timer that is due goes before a flood of input, but not twice in a row.
            let wake = if !ticked && self.tick_is_due() {
                Wake::Tick
            } else {
                self.wait().await
            };
            ticked = matches!(wake, Wake::Tick);
            if self.act(wake) == Fullness::More {
                // The batch is full and more is waiting: let the other tasks have a turn.
                tokio::task::yield_now().await;
            }
            self.note_sealed();
            while self.tasks.try_join_next().is_some() {}
        };
        self.close().await;
        ended
    }

    fn now(&self) -> Time {
        self.epoch + self.start.elapsed()
    }

    fn tick_is_due(&self) -> bool {
        self.node
            .next_deadline()
            .is_some_and(|deadline| deadline <= self.now())
    }

    async fn wait(&mut self) -> Wake {
        let node_deadline = self
            .node
            .next_deadline()
            .map(|at| self.start + at.since(self.epoch));
        self.alarm
            .set([node_deadline, self.rest_until].into_iter().flatten().min());
        let resting = self.rest_until.is_some();
        tokio::select! {
            ready = self.udp.readable(), if !resting => match ready {
                Ok(()) => Wake::Datagrams,
                Err(error) => Wake::ReceiveError(error),
            },
            _ = self.udp.writable(), if !self.unsent.is_empty() => Wake::Writable,
            Some(event) = self.stream_events.recv() => Wake::Stream(event),
            result = self.desk.saved() => Wake::KeyringSaved(result),
            news = store_news(&mut self.recorder) => Wake::Store(news),
            request = self.requests.recv() => Wake::Request(request),
            () = self.alarm.ring() => Wake::Tick,
        }
    }

    fn act(&mut self, wake: Wake) -> Fullness {
        self.envelope.set_time(unix_time());
        match wake {
            Wake::Tick => {
                self.rest_until = self.rest_until.filter(|until| *until > Instant::now());
                self.feed(Input::Tick);
            }
            Wake::Datagrams => return self.receive(UdpSocket::try_recv_from),
            Wake::Writable => self.send_waiting(),
            Wake::ReceiveError(error) => self.note_receive_error(&error),
            Wake::Stream(event) => self.stream_event(event),
            Wake::KeyringSaved(result) => self.keyring_saved(result),
            Wake::Store(news) => self.feed(Input::Store(news)),
            Wake::Request(Some(request)) => self.request(request),
            Wake::Request(None) => self.ended = Some(Ended::Stopped),
        }
        Fullness::Drained
    }

    /// Hands the node one input and carries out all that follows.
    fn feed(&mut self, input: Input<'_>) {
        self.node.handle(self.now(), input);
        self.settle();
    }

    /// Carries out all effects. Refused sends are told to the node once; what it sends then, and
    /// is refused again, waits for the next input, so that no loop comes of it.
    fn settle(&mut self) {
        self.perform_all();
        for (to, reason) in std::mem::take(&mut self.failed_sends) {
            let reason = &reason;
            self.node.handle(self.now(), Input::SendFailed { to, reason });
        }
        self.perform_all();
    }

    fn perform_all(&mut self) {
        while let Some(effect) = self.node.poll_effect() {
            self.perform(effect);
        }
    }

    /// Publishes how much the primary key has sealed, and says when that is too much.
    fn note_sealed(&self) {
        let Some(keyring) = self.envelope.keyring() else {
            return;
        };
        let sealed = keyring.sealed_by_primary();
        let before = self.ledger.sealed_by_primary.swap(sealed, Ordering::Relaxed);
        let worn = |sealed| sealed / bounds::SEALED_BY_ONE_KEY;
        if worn(sealed) > worn(before) {
            let key = keyring.primary().fingerprint();
            tracing::warn!(target: "memberlist", "{sealed} packets were sealed with key {key}: {ROTATE}");
        }
    }

    /// Takes what `next` has, up to a batch.
    fn receive(
        &mut self,
        mut next: impl FnMut(&UdpSocket, &mut [u8]) -> io::Result<(usize, SocketAddr)>,
    ) -> Fullness {
        for _ in 0..bounds::DATAGRAM_BATCH {
            match next(&self.udp, &mut self.packet) {
                Ok((len, from)) => {
                    self.receive_errors_in_row = 0;
                    self.ledger.traffic().udp_received.add(len as f64);
                    self.datagram(len, self.home.enter(sockets::plain(from)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fullness::Drained,
                Err(error) => {
                    self.note_receive_error(&error);
                    if self.rest_until.is_some() {
                        return Fullness::Drained;
                    }
                }
            }
            if self.ended.is_some() {
                return Fullness::Drained;
            }
        }
        Fullness::More
    }

    /// Errors tell of a single datagram, not of the socket. Many in a row do mean the socket; then it rests a
    /// moment between tries. Of those that each stand for one datagram it takes far more to mean that.
    fn note_receive_error(&mut self, error: &io::Error) {
        count(&self.ledger.counters.receive_errors);
        self.receive_errors_in_row += 1;
        let in_row_max = if sockets::is_of_one_datagram(error) {
            bounds::RECEIVE_RESETS_IN_ROW
        } else {
            bounds::RECEIVE_ERRORS_IN_ROW
        };
        if self.receive_errors_in_row >= in_row_max {
            self.receive_errors_in_row = 0;
            self.rest_until = Some(Instant::now() + bounds::RECEIVE_PAUSE);
        }
        let reason = go::os_error(error);
        self.ledger
            .peer_error(format_args!("Error reading UDP packet: {reason}"));
    }

    fn datagram(&mut self, len: usize, from: SocketAddr) {
        if len == 0 {
            return;
        }
        let now = self.now();
        let counters = &self.ledger.counters;
        count(&counters.datagrams_received);
        let packet = self.packet.get_mut(..len).unwrap_or_default();
        let plain = match self.envelope.open_datagram(from, packet) {
            Ok(plain) => plain,
            Err(error) => {
                count(match error {
                    Unopened::Sealed(_) => &counters.datagrams_undecryptable,
                    Unopened::Stale(_) => &counters.datagrams_stale,
                    Unopened::Label(_) => &counters.datagrams_mislabelled,
                    Unopened::Malformed(_) => &counters.datagrams_refused,
                });
                return match error {
                    Unopened::Label(_) => self.ledger.other_cluster(error, from),
                    _ => self.ledger.peer_error(format_args!("{error} from={from}")),
                };
            }
        };
        let datagram = match wire::decode_datagram(plain, &mut self.scratch) {
            Ok(datagram) => datagram,
            Err(error) => {
                count(&counters.datagrams_refused);
                return self.ledger.peer_error(format_args!("{error} from={from}"));
            }
        };
        if let Some(error) = datagram.first_refusal {
            count(&counters.datagrams_refused);
            self.ledger.peer_error(format_args!("{error} from={from}"));
        }
        if !datagram.messages.is_empty() {
            self.node.handle(
                now,
                Input::Datagram {
                    from,
                    len,
                    messages: &datagram.messages,
                },
            );
        }
        let room = datagram.into_room();
        self.scratch.keep(room);
        self.settle();
    }

    /// Closes everything in order: streams, then the socket, then the door for requests, whose closing
    /// tells [`Handle::stop`] that all the rest is closed. Datagrams that wait get one more chance, for
    /// the last ones of a leave are among them.
    async fn close(mut self) {
        if !self.unsent.is_empty() {
            let _ = tokio::time::timeout(bounds::LAST_SEND, self.udp.writable()).await;
            self.send_waiting();
        }
        let Driver {
            udp,
            mut tasks,
            requests,
            recorder,
            ..
        } = self;
        tasks.shutdown().await;
        drop(udp);
        if let Some(recorder) = recorder {
            recorder.finish(bounds::LAST_FLUSH).await;
        }
        drop(requests);
    }
}

/// Whether a batch took all that was there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fullness {
    Drained,
    More,
}

/// The recorder's next news; never without one.
async fn store_news(recorder: &mut Option<Recorder>) -> StoreNews {
    match recorder {
        Some(recorder) => recorder.news().await,
        None => std::future::pending().await,
    }
}

/// The time of day. A clock before 1970 counts as 1970.
pub fn unix_time() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time::ZERO + since.unwrap_or_default()
}
