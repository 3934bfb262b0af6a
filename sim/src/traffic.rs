//! Packets and streams between hosts: out through all layers of the wire, over a link, and in again.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;

use super::happening::{Arrival, Departure, Happening, Power};
use super::sockets::INBOX_MAX;
use super::{HostId, World};
use fyrd_core::envelope::{Assembly, Envelope, Opened};
use fyrd_core::node::{Cause, ExchangeId, Failure, Input, StreamId};
use fyrd_core::time::Time;
use fyrd_core::wire::{Scratch, decode_datagram};

/// A packet that a tap has seen, as it left its sender.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// When it was sent.
    pub at: Time,
    /// Who sent it.
    pub from: HostId,
    /// In which life, counted from 1.
    pub life: u32,
    /// Where to.
    pub to: SocketAddr,
    /// Whether it is a datagram; else a message on a stream.
    pub is_datagram: bool,
    /// The message before any layer was put around it.
    pub plain: Vec<u8>,
    /// The bytes on the wire.
    pub bytes: Vec<u8>,
}

/// The way back to whoever dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyPath {
    /// The host that was dialled.
    pub host: HostId,
    pub dialler: HostId,
    /// Of the dialler.
    pub life: u32,
    pub exchange: ExchangeId,
}

impl World {
    pub(super) fn arrive(&mut self, id: HostId, arrival: Arrival) {
        #[cfg(feature = "campaign")]
        let Some(arrival) = self.bend_arrival(id, arrival) else {
            return;
        };
        let power = self.hosts[id.0].power;
        if let (
            Arrival::Dial {
                from, life, exchange, ..
            },
            Power::Up | Power::Frozen,
        ) = (&arrival, power)
        {
            // The system takes the connection, whatever its process does.
            let dialler = &mut self.hosts[from.0];
            if dialler.life == *life
                && let Some(connected) = dialler.exchanges.get_mut(exchange)
            {
                *connected = true;
            }
        }
        let host = &mut self.hosts[id.0];
        match (power, arrival) {
            (Power::Up, arrival) => self.take_in(id, arrival),
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
                if !host.is_silent {
                    let path = ReplyPath {
                        host: id,
                        dialler: from,
                        life,
                        exchange,
                    };
                    self.send_reply(path, Err(refused(self.host(id).addr())));
                }
            }
            (Power::Down, _) => {}
        }
    }

    /// Hands an arrival to the node of a host that is up.
    pub(super) fn receive(&mut self, id: HostId, arrival: Arrival) {
        match arrival {
            Arrival::Datagram { from, bytes } => self.receive_datagram(id, from, bytes),
            Arrival::Dial {
                from,
                life,
                exchange,
                bytes,
            } => self.receive_dial(id, from, life, exchange, bytes),
            Arrival::Replied {
                life,
                exchange,
                result,
            } => self.receive_reply(id, life, exchange, result),
            Arrival::TimedOut { life, exchange, to } => {
                let connected = self.hosts[id.0].exchanges.get(&exchange) == Some(&true);
                let (cause, what) = match connected {
                    true => (Cause::Stalled, "read"),
                    false => (Cause::Unanswered, "dial"),
                };
                let failure = Failure::new(cause, format!("{what} tcp {to}: i/o timeout"));
                self.receive_reply(id, life, exchange, Err(failure));
            }
        }
    }

    fn receive_datagram(&mut self, id: HostId, from: SocketAddr, mut bytes: Vec<u8>) {
        self.trace.note(self.now, "datagram", id.0, &bytes);
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        let mut scratch = Scratch::default();
        let len = bytes.len();
        host.envelope.set_time(now);
        let datagram = host
            .envelope
            .open_datagram(from, &mut bytes)
            .ok()
            .and_then(|plain| decode_datagram(plain, &mut scratch).ok());
        let (Some(datagram), Some(node)) = (datagram, host.node.as_mut()) else {
            host.counters.unreadable += 1;
            return;
        };
        host.counters.datagrams_received += 1;
        let messages = &datagram.messages;
        node.handle(now, Input::Datagram { from, len, messages });
        self.settle(id);
    }

    fn receive_dial(&mut self, id: HostId, from: HostId, life: u32, exchange: ExchangeId, bytes: Vec<u8>) {
        self.trace.note(self.now, "dial", id.0, &bytes);
        self.streams += 1;
        let stream = StreamId(self.streams);
        let source = self.links.source(from, self.hosts[from.0].addr());
        let path = ReplyPath {
            host: id,
            dialler: from,
            life,
            exchange,
        };
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        host.envelope.set_time(now);
        let mut opened = open_stream(&host.envelope, source, Some(host.envelope.label()), bytes).ok();
        let message = opened.as_mut().and_then(|opened| opened.message().ok());
        let (Some(message), Some(node)) = (message, host.node.as_mut()) else {
            host.counters.unreadable += 1;
            return self.send_reply(path, Err(closed()));
        };
        let input = Input::Stream {
            from: source,
            id: stream,
            message: &message,
        };
        node.handle(now, input);
        self.replies.insert(stream, path);
        self.settle(id);
        // Whoever neither replies at once nor holds its reply never does: the driver closes the stream.
        let is_held = self.hosts[id.0]
            .node
            .as_ref()
            .is_some_and(|node| node.holds_reply(stream));
        if !is_held && self.replies.remove(&stream).is_some() {
            self.send_reply(path, Err(closed()));
        }
    }

    /// Sends the end of an exchange back to the dialler, unless the way back is cut: then the
    /// dialler's own deadline ends it.
    pub(super) fn send_reply(&mut self, path: ReplyPath, result: Result<Vec<u8>, Failure>) {
        let (from, to) = (path.host, path.dialler);
        if self.links.is_cut(from, to) {
            return;
        }
        let latency = self.links.between(from, to).latency(&mut self.rng);
        let reply = Arrival::Replied {
            life: path.life,
            exchange: path.exchange,
            result,
        };
        self.agenda.set(self.now + latency, Happening::Arrive(to, reply));
    }

    fn receive_reply(
        &mut self,
        id: HostId,
        life: u32,
        exchange: ExchangeId,
        result: Result<Vec<u8>, Failure>,
    ) {
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        // After its deadline, or from before a restart of this host.
        if host.life != life || host.exchanges.remove(&exchange).is_none() {
            return;
        }
        let noted: &[u8] = result
            .as_ref()
            .map_or_else(|failure| failure.text.as_bytes(), Vec::as_slice);
        self.trace.note(self.now, "reply", id.0, noted);
        let from = host.addr();
        host.envelope.set_time(now);
        let mut opened = result
            .and_then(|reply| open_stream(&host.envelope, from, None, reply).map_err(Failure::protocol));
        let result = match &mut opened {
            Ok(opened) => opened
                .message()
                .map_err(|error| Failure::protocol(error.to_string())),
            Err(reason) => Err(reason.clone()),
        };
        if let Some(node) = host.node.as_mut() {
            let result = result.as_ref().map(Some).map_err(Clone::clone);
            node.handle(now, Input::Exchange { id: exchange, result });
            self.settle(id);
        }
    }

    pub(super) fn send(&mut self, from: HostId, to: SocketAddr, plain: Vec<u8>, crc: bool) {
        let kept = self.tap.is_some().then(|| plain.clone());
        let now = self.local_time(from);
        let host = &mut self.hosts[from.0];
        host.envelope.set_time(now);
        let closed = host.envelope.close_datagram(|| Ok(self.rng.random()), plain, crc);
        let bytes = closed.expect("a simulator has nonces").to_vec();
        let counters = &mut host.counters;
        counters.datagrams_sent += 1;
        counters.bytes_sent += bytes.len() as u64;
        counters.datagram_max = counters.datagram_max.max(bytes.len());
        self.note_tapped(from, to, true, kept, &bytes);
        self.depart(from, Departure::Datagram { to, bytes });
    }

    /// Puts on its way what leaves a host.
    pub(super) fn transmit(&mut self, from: HostId, departure: Departure) {
        match departure {
            Departure::Datagram { to, bytes } => self.transmit_datagram(from, to, &bytes),
            Departure::Dial {
                to,
                life,
                exchange,
                bytes,
            } => self.transmit_dial(from, to, life, exchange, bytes),
        }
    }

    fn transmit_datagram(&mut self, from: HostId, to: SocketAddr, bytes: &[u8]) {
        let Some(&target) = self.by_addr.get(&to) else {
            return;
        };
        if self.links.is_forbidden(from, target) {
            self.hosts[from.0].refused_sends.push(to);
            return;
        }
        let source = self.links.source(from, self.hosts[from.0].addr());
        let copies = self.links.datagram(&mut self.rng, from, target, bytes.len());
        for latency in copies.into_iter().flatten() {
            let mut bytes = bytes.to_vec();
            self.links.damage(&mut self.rng, from, target, &mut bytes);
            let arrival = Arrival::Datagram { from: source, bytes };
            self.agenda
                .set(self.now + latency, Happening::Arrive(target, arrival));
        }
    }

    pub(super) fn dial(
        &mut self,
        from: HostId,
        exchange: ExchangeId,
        to: SocketAddr,
        plain: Vec<u8>,
        timeout: Duration,
    ) {
        let kept = self.tap.is_some().then(|| plain.clone());
        let now = self.local_time(from);
        let host = &mut self.hosts[from.0];
        host.envelope.set_time(now);
        let bytes = host
            .envelope
            .close_request(|| Ok(self.rng.random()), plain)
            .expect("a node's state fits a stream");
        host.counters.streams_dialled += 1;
        host.counters.stream_bytes_sent += bytes.len() as u64;
        host.exchanges.insert(exchange, false);
        let life = host.life;
        self.note_tapped(from, to, false, kept, &bytes);
        let timed_out = Arrival::TimedOut { life, exchange, to };
        self.agenda
            .set(self.now + timeout, Happening::Arrive(from, timed_out));
        let dial = Departure::Dial {
            to,
            life,
            exchange,
            bytes,
        };
        self.depart(from, dial);
    }

    fn transmit_dial(
        &mut self,
        from: HostId,
        to: SocketAddr,
        life: u32,
        exchange: ExchangeId,
        bytes: Vec<u8>,
    ) {
        let Some(&target) = self.by_addr.get(&to) else {
            return;
        };
        // It has waited for too long to set out.
        if !self.hosts[from.0].exchanges.contains_key(&exchange) {
            return;
        }
        if self.links.is_forbidden(from, target) {
            let text = format!("dial tcp {to}: connect: no route to host");
            let result = Err(Failure::new(Cause::Unreachable, text));
            let reply = Arrival::Replied {
                life,
                exchange,
                result,
            };
            return self.agenda.set(self.now, Happening::Arrive(from, reply));
        }
        if self.links.refuses(from, target) {
            // Whatever refuses stands somewhere on the way.
            let latency = self.links.between(from, target).latency(&mut self.rng);
            let reply = Arrival::Replied {
                life,
                exchange,
                result: Err(refused(to)),
            };
            return self
                .agenda
                .set(self.now + latency * 2, Happening::Arrive(from, reply));
        }
        // A connection needs both directions.
        if !self.links.has_streams(from, target) {
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
        self.agenda
            .set(self.now + latency, Happening::Arrive(target, dial));
    }

    pub(super) fn reply(&mut self, from: HostId, stream: StreamId, plain: Vec<u8>) {
        let Some(path) = self.replies.remove(&stream) else {
            return;
        };
        let kept = self.tap.is_some().then(|| plain.clone());
        let now = self.local_time(from);
        let envelope = &mut self.hosts[from.0].envelope;
        envelope.set_time(now);
        let bytes = envelope
            .close_reply(|| Ok(self.rng.random()), plain)
            .expect("a node's state fits a stream");
        self.hosts[from.0].counters.stream_bytes_sent += bytes.len() as u64;
        self.note_tapped(from, self.hosts[path.dialler.0].addr(), false, kept, &bytes);
        self.send_reply(path, Ok(bytes));
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
                life: self.hosts[from.0].life,
                to,
                is_datagram,
                plain,
                bytes: bytes.to_vec(),
            });
        }
    }
}

/// A dial that was refused.
fn refused(to: SocketAddr) -> Failure {
    Failure::new(
        Cause::Refused,
        format!("dial tcp {to}: connect: connection refused"),
    )
}

/// The end of a stream that brought nothing.
pub(super) fn closed() -> Failure {
    Failure::new(Cause::Closed, "EOF")
}

/// Takes all layers off the one message of a stream; `label` is what must stand in front of it.
pub(super) fn open_stream(
    envelope: &Envelope,
    from: SocketAddr,
    label: Option<&[u8]>,
    bytes: Vec<u8>,
) -> Result<Opened, String> {
    let mut assembly = Assembly::new(label, envelope.keyring().is_some());
    assembly.bytes = bytes;
    match assembly.advance() {
        Ok(Some(received)) => envelope.open_stream(from, received),
        Ok(None) => Err("unexpected EOF".to_owned()),
        Err(reason) => Err(reason.to_string()),
    }
}
