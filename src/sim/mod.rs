//! A deterministic network of many nodes, on the same node and wire code that runs outside.
//!
//! A [`World`] holds hosts, links and one queue of what will happen. Its clock jumps from one entry
//! to the next, so hours pass in seconds. All randomness, that of the nodes included, comes from one
//! seed: the same seed and the same calls give the same run, byte for byte ([`World::trace`]).
//!
//! ```text
//! Effect::Send     -> compress, CRC, seal -> link -> open, decode -> Input::Datagram
//! Effect::Exchange -> compress, seal      -> link -> open, decode -> Input::Stream
//! Effect::Reply    -> compress, seal      -> link -> open, decode -> Input::Exchange
//! ```

pub mod host;
pub mod link;
mod packets;
pub mod trace;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fyrd_keys::{Key, Keyring, OVERHEAD};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::addr::RawAddr;
use crate::node::{CommandId, Effect, ExchangeId, Input, Node, NodeConfig, StreamId};
use crate::serf::keys;
use crate::serf::{Answer, Command, Event, JoinTarget, MemberStatus, Tags};
use crate::sim::host::{Host, INBOX_MAX, Power};
use crate::sim::link::{Link, Links};
use crate::sim::trace::Trace;
use crate::swim::profile::Profile;
use crate::time::Time;
use crate::wire::{StreamDecoder, decode_datagram};

/// The port of every simulated node.
const PORT: u16 = 7946;

/// Names a host for as long as its world exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The seed of all randomness.
    pub seed: u64,
    /// How packets fare between hosts.
    pub link: Link,
    /// The timing of all nodes.
    pub profile: Profile,
    /// The key of the cluster; `None` for plain packets.
    pub key: Option<Key>,
    /// Whether nodes compress.
    pub compress: bool,
}

impl WorldConfig {
    /// A plain cluster on a quiet local network.
    pub fn new(seed: u64) -> Self {
        WorldConfig {
            seed,
            link: Link::default(),
            profile: Profile::builtin("lan").expect("a profile that is compiled in"),
            key: None,
            compress: true,
        }
    }
}

/// A packet that a tap has seen, as it left its sender.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// When it was sent.
    pub at: Time,
    /// Who sent it.
    pub from: HostId,
    /// Where to.
    pub to: SocketAddr,
    /// Whether it is a datagram; else a message on a stream.
    pub is_datagram: bool,
    /// The message before any layer was put around it.
    pub plain: Vec<u8>,
    /// The bytes on the wire.
    pub bytes: Vec<u8>,
}

/// Something on its way to a host.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Dial {
        from: HostId,
        life: u32,
        exchange: ExchangeId,
        bytes: Vec<u8>,
    },
    Replied {
        life: u32,
        exchange: ExchangeId,
        result: Result<Vec<u8>, String>,
    },
}

#[derive(Debug)]
enum Happening {
    Arrive(HostId, Arrival),
    Wake(HostId),
}

/// The simulated network and all hosts on it.
#[derive(Debug)]
pub struct World {
    /// The links, to be cut and healed.
    pub links: Links,
    config: WorldConfig,
    now: Time,
    hosts: Vec<Host>,
    by_addr: BTreeMap<SocketAddr, HostId>,
    queue: BTreeMap<(Time, u64), Happening>,
    queued: u64,
    commands: u64,
    streams: u64,
    /// Inbound streams whose node may still reply, within the call that delivers them.
    open_stream: Option<(StreamId, HostId, u32, ExchangeId)>,
    rng: Xoshiro256PlusPlus,
    trace: Trace,
    tap: Option<Vec<Tapped>>,
}

impl World {
    /// An empty network.
    pub fn new(config: WorldConfig) -> Self {
        World {
            links: Links::new(config.link),
            now: Time::ZERO + Duration::from_secs(1),
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            commands: 0,
            streams: 0,
            open_stream: None,
            rng: Xoshiro256PlusPlus::seed_from_u64(config.seed),
            trace: Trace::default(),
            tap: None,
            config,
        }
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The fingerprint of all that has happened.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// One host.
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }

    /// One host, to change its configuration or its responder.
    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0]
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId)
    }

    /// The node of a host that is up or frozen.
    ///
    /// # Panics
    /// When the host is down.
    pub fn node(&self, id: HostId) -> &Node {
        self.host(id).node().expect("the host is not down")
    }

    /// Starts to keep a copy of every packet.
    pub fn tap(&mut self) {
        self.tap = Some(Vec::new());
    }

    /// Takes what the tap has seen.
    pub fn tapped(&mut self) -> Vec<Tapped> {
        self.tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds a host with a name and starts its node.
    pub fn add(&mut self, name: &str) -> HostId {
        self.add_with(name, |_| {})
    }

    /// Adds a host whose configuration is changed before its node starts.
    pub fn add_with(&mut self, name: &str, change: impl FnOnce(&mut NodeConfig)) -> HostId {
        let id = HostId(self.hosts.len());
        let ip = Ipv4Addr::from(0x0a00_0001 + id.0 as u32);
        let mut config = NodeConfig {
            name: name.to_owned(),
            addr: RawAddr::from(IpAddr::V4(ip)),
            port: PORT,
            bind_port: PORT,
            tags: Tags::new(),
            protocol: 5,
            profile: self.config.profile.clone(),
            seal_overhead: self.config.key.as_ref().map_or(0, |_| OVERHEAD),
            label_overhead: 0,
            user_event_size_limit: 512,
            query_size_limit: 1024,
            query_response_size_limit: 1024,
            resolve_name_conflicts: true,
            disable_coordinates: false,
            seed: 0,
        };
        change(&mut config);
        let ring = self.config.key.clone().map(Keyring::new);
        let host = Host::new(config, ring);
        self.by_addr.insert(host.addr(), id);
        self.hosts.push(host);
        self.start(id);
        id
    }

    /// Adds hosts named `n0`, `n1` and so on.
    pub fn add_many(&mut self, count: usize) -> Vec<HostId> {
        (0..count).map(|i| self.add(&format!("n{i}"))).collect()
    }

    /// Adds that many hosts, joins all to the first, and waits until all see all alive.
    ///
    /// # Panics
    /// When that does not come about within two minutes.
    pub fn cluster(&mut self, count: usize) -> Vec<HostId> {
        let hosts = self.add_many(count);
        for &host in &hosts[1..] {
            self.join(host, hosts[0]);
        }
        let joined = self.run_until(Duration::from_secs(120), |world| world.all_alive(&hosts));
        assert!(joined, "the cluster did not come together");
        hosts
    }

    /// Gives a host another key than the rest, or none.
    pub fn set_key(&mut self, id: HostId, key: Option<Key>) {
        self.hosts[id.0].ring = key.map(Keyring::new);
    }

    /// Ends a host's node without a word; what it knew is gone.
    pub fn crash(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        host.node = None;
        host.power = Power::Down;
        host.inbox.clear();
        host.exchanges.clear();
        host.wake_at = None;
        self.trace.note(self.now, "crash", id.0, &[]);
    }

    /// Starts a node on a host that is down, with the same name and no memory.
    pub fn start(&mut self, id: HostId) {
        let seed = self.rng.random();
        let host = &mut self.hosts[id.0];
        host.config.seed = seed;
        host.life += 1;
        host.power = Power::Up;
        host.node = Some(Node::new(host.config.clone(), self.now).expect("the configuration is right"));
        self.trace
            .note(self.now, "start", id.0, host.config.name.as_bytes());
        self.settle(id);
    }

    /// Stops a host's process; packets for it wait.
    pub fn freeze(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        if host.power == Power::Up {
            host.power = Power::Frozen;
        }
    }

    /// Lets a frozen host go on: it takes what has waited and does what has become due, in either
    /// order, as a real one may.
    pub fn thaw(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        if host.power != Power::Frozen {
            return;
        }
        host.power = Power::Up;
        let waited = std::mem::take(&mut host.inbox);
        if self.rng.random() {
            self.input(id, Input::Tick);
        }
        for arrival in waited {
            self.arrive(id, arrival);
        }
        self.input(id, Input::Tick);
    }

    /// Gives a command to a host's node.
    ///
    /// # Panics
    /// When the host is not up.
    pub fn command(&mut self, id: HostId, command: Command) -> CommandId {
        assert_eq!(
            self.hosts[id.0].power,
            Power::Up,
            "only a running host takes commands"
        );
        self.commands += 1;
        let command_id = CommandId(self.commands);
        self.input(
            id,
            Input::Command {
                id: command_id,
                command,
            },
        );
        command_id
    }

    /// Gives a command and runs until it is answered.
    ///
    /// # Panics
    /// When it is not answered within a minute.
    pub fn ask(&mut self, id: HostId, command: Command) -> Answer {
        let text = format!("{command:?}");
        let command = self.command(id, command);
        let answered = self.run_until(Duration::from_secs(60), |world| {
            world.host(id).answers.contains_key(&command)
        });
        assert!(answered, "no answer to {text}");
        self.host(id).answers[&command].1.clone()
    }

    /// Lets one host join another, as a user would.
    pub fn join(&mut self, id: HostId, to: HostId) -> CommandId {
        let addr = self.host(to).addr();
        self.command(
            id,
            Command::Join {
                targets: vec![JoinTarget { name: None, addr }],
                ignore_old: false,
                announce: true,
            },
        )
    }

    /// Delivers a datagram that no node has sent, sealed with the cluster's key, at once.
    pub fn forge(&mut self, from: SocketAddr, to: HostId, plain: Vec<u8>) {
        let ring = self.hosts[to.0].ring.as_ref();
        let bytes = packets::seal_datagram(ring, &mut self.rng, plain, self.config.compress, false);
        self.schedule(self.now, Happening::Arrive(to, Arrival::Datagram { from, bytes }));
    }

    /// Delivers a stream message as if `from` had dialled, sealed with the cluster's key, at once.
    /// The reply goes nowhere.
    pub fn forge_stream(&mut self, from: HostId, to: HostId, plain: Vec<u8>) {
        let ring = self.hosts[to.0].ring.as_ref();
        let bytes = packets::seal_stream(ring, &mut self.rng, plain, self.config.compress);
        let arrival = Arrival::Dial {
            from,
            life: 0,
            exchange: ExchangeId(0),
            bytes,
        };
        self.schedule(self.now, Happening::Arrive(to, arrival));
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done` holds, which is looked at every 50 ms; `false` if it does not
    /// within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(50));
        }
    }

    /// Whether each of these hosts is up and sees each of them alive.
    pub fn all_alive(&self, hosts: &[HostId]) -> bool {
        hosts
            .iter()
            .all(|&subject| self.all_see(hosts, subject, MemberStatus::Alive))
    }

    /// Whether each of these hosts sees the node of `subject` in this status.
    pub fn all_see(&self, hosts: &[HostId], subject: HostId, status: MemberStatus) -> bool {
        let name = self.host(subject).name();
        hosts
            .iter()
            .all(|&host| self.host(host).status_of(name) == Some(status))
    }

    /// Takes the next thing that happens up to `end`; `false` if there is none.
    fn step(&mut self, end: Time) -> bool {
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
            return false;
        };
        let ((at, _), happening) = entry.remove_entry();
        self.now = at;
        match happening {
            Happening::Arrive(id, arrival) => self.arrive(id, arrival),
            Happening::Wake(id) => {
                // A wake-up that was overtaken by an earlier one means nothing any more.
                if self.hosts[id.0].wake_at == Some(at) {
                    self.hosts[id.0].wake_at = None;
                    if self.hosts[id.0].power == Power::Up {
                        self.input(id, Input::Tick);
                    }
                }
            }
        }
        true
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn arrive(&mut self, id: HostId, arrival: Arrival) {
        let host = &mut self.hosts[id.0];
        match (host.power, arrival) {
            (Power::Up, Arrival::Datagram { from, bytes }) => self.receive_datagram(id, from, bytes),
            (
                Power::Up,
                Arrival::Dial {
                    from,
                    life,
                    exchange,
                    bytes,
                },
            ) => self.receive_dial(id, from, life, exchange, bytes),
            (
                Power::Up,
                Arrival::Replied {
                    life,
                    exchange,
                    result,
                },
            ) => self.receive_reply(id, life, exchange, result),
            (Power::Frozen, arrival) => {
                if host.inbox.len() < INBOX_MAX {
                    host.inbox.push_back(arrival);
                }
            }
            (
                Power::Down,
                Arrival::Dial {
                    from, life, exchange, ..
                },
            ) => {
                let refused = format!("dial tcp {}: connect: connection refused", host.addr());
                self.send_reply(id, from, life, exchange, Err(refused));
            }
            (Power::Down, _) => {}
        }
    }

    fn receive_datagram(&mut self, id: HostId, from: SocketAddr, mut bytes: Vec<u8>) {
        self.trace.note(self.now, "datagram", id.0, &bytes);
        let now = self.now;
        let host = &mut self.hosts[id.0];
        let mut scratch = Vec::new();
        let datagram = packets::open_datagram(host.ring.as_ref(), &mut bytes)
            .and_then(|plain| decode_datagram(plain, &mut scratch).ok());
        let (Some(datagram), Some(node)) = (datagram, host.node.as_mut()) else {
            host.counters.unreadable += 1;
            return;
        };
        host.counters.datagrams_received += 1;
        let messages = &datagram.messages;
        node.handle(now, Input::Datagram { from, messages });
        self.settle(id);
    }

    fn receive_dial(
        &mut self,
        id: HostId,
        from: HostId,
        life: u32,
        exchange: ExchangeId,
        mut bytes: Vec<u8>,
    ) {
        self.trace.note(self.now, "dial", id.0, &bytes);
        self.streams += 1;
        let stream = StreamId(self.streams);
        let (now, source) = (self.now, self.hosts[from.0].addr());
        let host = &mut self.hosts[id.0];
        let mut decoder = StreamDecoder::default();
        if let Some(plain) = packets::open_stream(host.ring.as_ref(), &mut bytes) {
            decoder.push(plain);
        }
        let (Ok(message), Some(node)) = (decoder.message(), host.node.as_mut()) else {
            host.counters.unreadable += 1;
            return self.send_reply(id, from, life, exchange, Err("EOF".to_owned()));
        };
        let input = Input::Stream {
            from: source,
            id: stream,
            message: &message,
        };
        node.handle(now, input);
        self.open_stream = Some((stream, from, life, exchange));
        self.settle(id);
        // Whoever does not reply at once never does: the driver closes the stream.
        if let Some((_, from, life, exchange)) = self.open_stream.take() {
            self.send_reply(id, from, life, exchange, Err("EOF".to_owned()));
        }
    }

    /// Sends the end of an exchange back to the dialler, unless the way back is cut: then the
    /// dialler's own deadline ends it.
    fn send_reply(
        &mut self,
        from: HostId,
        to: HostId,
        life: u32,
        exchange: ExchangeId,
        result: Result<Vec<u8>, String>,
    ) {
        if self.links.is_cut(from, to) {
            return;
        }
        let latency = self.links.between(from, to).latency(&mut self.rng);
        let reply = Arrival::Replied {
            life,
            exchange,
            result,
        };
        self.schedule(self.now + latency, Happening::Arrive(to, reply));
    }

    fn receive_reply(
        &mut self,
        id: HostId,
        life: u32,
        exchange: ExchangeId,
        result: Result<Vec<u8>, String>,
    ) {
        let host = &mut self.hosts[id.0];
        // Late for its deadline, or meant for an earlier life of this host.
        if host.life != life || !host.exchanges.remove(&exchange) {
            return;
        }
        let noted: &[u8] = result
            .as_ref()
            .map_or_else(|error| error.as_bytes(), Vec::as_slice);
        self.trace.note(self.now, "reply", id.0, noted);
        let mut decoder = StreamDecoder::default();
        let opened = result.and_then(|mut bytes| {
            let plain =
                packets::open_stream(host.ring.as_ref(), &mut bytes).ok_or("no key opens the reply")?;
            decoder.push(plain);
            Ok(())
        });
        let result = match opened {
            Ok(()) => decoder.message().map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        if let Some(node) = host.node.as_mut() {
            let result = result.as_ref().map(Some).map_err(Clone::clone);
            node.handle(self.now, Input::Exchange { id: exchange, result });
            self.settle(id);
        }
    }

    fn input(&mut self, id: HostId, input: Input<'_>) {
        if let Some(node) = self.hosts[id.0].node.as_mut() {
            node.handle(self.now, input);
            self.settle(id);
        }
    }

    /// Carries out what a node wants done, and notes when it wants to be called again.
    fn settle(&mut self, id: HostId) {
        while let Some(effect) = self.hosts[id.0].node.as_mut().and_then(Node::poll_effect) {
            self.carry_out(id, effect);
        }
        let host = &mut self.hosts[id.0];
        let deadline = host.node.as_ref().and_then(Node::next_deadline);
        if let Some(deadline) = deadline
            && host.wake_at.is_none_or(|wake_at| deadline < wake_at)
        {
            // A deadline that has passed already is served at once, but never in the past.
            let at = deadline.max(self.now);
            host.wake_at = Some(at);
            self.schedule(at, Happening::Wake(id));
        }
    }

    fn carry_out(&mut self, id: HostId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, plain, crc } => self.send(id, to, plain, crc),
            Effect::Exchange {
                id: exchange,
                to,
                plain,
                timeout,
                ..
            } => self.dial(id, exchange, to, plain, timeout),
            Effect::Reply { id: stream, plain } => self.reply(id, stream, plain),
            Effect::Event(event) => {
                self.trace
                    .note(now, "event", id.0, format!("{event:?}").as_bytes());
                let host = &mut self.hosts[id.0];
                if let (Event::Query { ltime, id: query, .. }, Some(payload)) =
                    (&event, host.responder.clone())
                {
                    let respond = Command::Respond {
                        ltime: *ltime,
                        id: *query,
                        payload,
                    };
                    host.events.push((now, event));
                    self.command(id, respond);
                } else {
                    host.events.push((now, event));
                }
            }
            Effect::QueryUpdate(update) => self.hosts[id.0].updates.push((now, update)),
            Effect::Answer { id: command, answer } => {
                let earlier = self.hosts[id.0].answers.insert(command, (now, answer));
                assert!(earlier.is_none(), "{command:?} was answered twice");
            }
            Effect::Keyring { id: change, op, key } => {
                let result = keys::apply(self.hosts[id.0].ring.as_mut(), op, &key);
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    node.handle(now, Input::Keyring { id: change, result });
                }
            }
            Effect::LostName => {
                self.hosts[id.0].lost_name.get_or_insert(now);
            }
        }
    }

    fn send(&mut self, from: HostId, to: SocketAddr, plain: Vec<u8>, crc: bool) {
        let ring = self.hosts[from.0].ring.as_ref();
        let kept = self.tap.is_some().then(|| plain.clone());
        let bytes = packets::seal_datagram(ring, &mut self.rng, plain, self.config.compress, crc);
        let counters = &mut self.hosts[from.0].counters;
        counters.datagrams_sent += 1;
        counters.bytes_sent += bytes.len() as u64;
        counters.datagram_max = counters.datagram_max.max(bytes.len());
        self.note_tapped(from, to, true, kept, &bytes);
        let Some(&target) = self.by_addr.get(&to) else {
            return;
        };
        let source = self.hosts[from.0].addr();
        let copies = self.links.datagram(&mut self.rng, from, target);
        for latency in copies.into_iter().flatten() {
            let arrival = Arrival::Datagram {
                from: source,
                bytes: bytes.clone(),
            };
            self.schedule(self.now + latency, Happening::Arrive(target, arrival));
        }
    }

    fn dial(
        &mut self,
        from: HostId,
        exchange: ExchangeId,
        to: SocketAddr,
        plain: Vec<u8>,
        timeout: Duration,
    ) {
        let ring = self.hosts[from.0].ring.as_ref();
        let kept = self.tap.is_some().then(|| plain.clone());
        let bytes = packets::seal_stream(ring, &mut self.rng, plain, self.config.compress);
        let host = &mut self.hosts[from.0];
        host.counters.streams_dialled += 1;
        host.counters.stream_bytes_sent += bytes.len() as u64;
        host.exchanges.insert(exchange);
        let life = host.life;
        self.note_tapped(from, to, false, kept, &bytes);
        let given_up = Arrival::Replied {
            life,
            exchange,
            result: Err(format!("dial tcp {to}: i/o timeout")),
        };
        self.schedule(self.now + timeout, Happening::Arrive(from, given_up));
        let Some(&target) = self.by_addr.get(&to) else {
            return;
        };
        // A connection needs both directions.
        if self.links.is_cut(from, target) || self.links.is_cut(target, from) {
            return;
        }
        // The handshake takes one round trip before the request sets out.
        let link = self.links.between(from, target);
        let latency = (0..3).map(|_| link.latency(&mut self.rng)).sum::<Duration>();
        let dial = Arrival::Dial {
            from,
            life,
            exchange,
            bytes,
        };
        self.schedule(self.now + latency, Happening::Arrive(target, dial));
    }

    fn reply(&mut self, from: HostId, stream: StreamId, plain: Vec<u8>) {
        let Some((_, to, life, exchange)) = self.open_stream.take_if(|open| open.0 == stream) else {
            return;
        };
        let ring = self.hosts[from.0].ring.as_ref();
        let kept = self.tap.is_some().then(|| plain.clone());
        let bytes = packets::seal_stream(ring, &mut self.rng, plain, self.config.compress);
        self.hosts[from.0].counters.stream_bytes_sent += bytes.len() as u64;
        self.note_tapped(from, self.hosts[to.0].addr(), false, kept, &bytes);
        self.send_reply(from, to, life, exchange, Ok(bytes));
    }

    fn note_tapped(
        &mut self,
        from: HostId,
        to: SocketAddr,
        is_datagram: bool,
        plain: Option<Vec<u8>>,
        bytes: &[u8],
    ) {
        if let (Some(tap), Some(plain)) = (self.tap.as_mut(), plain) {
            tap.push(Tapped {
                at: self.now,
                from,
                to,
                is_datagram,
                plain,
                bytes: bytes.to_vec(),
            });
        }
    }
}
