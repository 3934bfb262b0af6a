//! Bugs planted on purpose, to prove that the checkers of [`super::check`] bite.
//!
//! A fault bends what goes into a node or comes out of it, as a bug inside would; the core itself holds
//! no code for it. A world without faults pays one comparison an effect.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::happening::{Arrival, Happening, Power};
use super::traffic::open_stream;
use super::{HostId, World};
use fyrd_core::envelope::Envelope;
use fyrd_core::node::memory::Record;
use fyrd_core::node::{Effect, Input, Node, StoreNews};
use fyrd_core::serf::Event;
use fyrd_core::serf::keyring::{KeyList, KeyOp};
use fyrd_core::wire::{
    Ack, Alive, Message, PushNodeState, Scratch, StreamDecoder, StreamMessage, decode_datagram,
    encode_compound,
};

/// Takes a packet without what it says of some nodes, by name and incarnation; `None` when nothing is left.
type Strip = fn(Vec<u8>, &dyn Fn(&str, u32) -> bool) -> Option<Vec<u8>>;

/// A bug of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next user event is handled, but told to nobody.
    SwallowEvent(HostId),
    /// The next user event is told twice.
    RepeatEvent(HostId),
    /// Its refutations never leave it, by gossip or by push/pull.
    DropRefutations(HostId),
    /// Its pings are answered even after it has crashed.
    AnswerWhenDead(HostId),
    /// It misses all updates of members that it knows.
    MissUpdates(HostId),
    /// At once, and unnoticed by itself, it forgets all it knew: its clocks and its incarnation start anew.
    Forget(HostId),
    /// At once, all that it has recorded is lost.
    LoseMemory(HostId),
    /// Its disk says of all that it is told that it is stored, and stores it as slowly as ever.
    SayStored(HostId),
    /// What it has handled is not recorded.
    SkipRecords(HostId),
    /// It never closes what it has recorded.
    SkipCommits(HostId),
    /// The results of its exchanges get lost on their way back to it, failures and time-outs included.
    SwallowResults(HostId),
    /// Its next datagram is not sealed.
    SendPlain(HostId),
    /// Its next request on a stream is not sealed.
    DialPlain(HostId),
    /// It says that it has installed a key, and has not.
    SkipInstall(HostId),
}

impl World {
    /// Plants a bug. It stays, unless it is about the next of something.
    pub fn plant(&mut self, fault: Fault) {
        match fault {
            Fault::Forget(id) => self.forget(id),
            Fault::LoseMemory(id) => self.hosts[id.0].store.lose_memory(),
            lasting => self.faults.push(lasting),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether a fault that strikes once does so now.
    fn strikes(&mut self, fault: Fault) -> bool {
        let place = self.faults.iter().position(|planted| *planted == fault);
        place.is_some_and(|place| {
            self.faults.remove(place);
            true
        })
    }

    fn forget(&mut self, id: HostId) {
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        if host.node.is_some() {
            host.node = Some(Node::new(host.config.clone(), now).expect("the configuration is right"));
            host.wake_at = None;
            self.settle(id);
        }
    }

    /// What is left of an effect once the host's bugs have had it.
    pub(super) fn bend_effect(&mut self, id: HostId, effect: Effect) -> Option<Effect> {
        if self.faults.is_empty() {
            return Some(effect);
        }
        match effect {
            Effect::Event(event) if matches!(*event, Event::User { .. }) => {
                if self.strikes(Fault::SwallowEvent(id)) {
                    return None;
                }
                if self.strikes(Fault::RepeatEvent(id)) {
                    self.carry_out(id, Effect::Event(Arc::clone(&event)));
                }
                Some(Effect::Event(event))
            }
            Effect::Send { .. } if self.strikes(Fault::SendPlain(id)) => self.carry_out_plain(id, effect),
            Effect::Exchange { .. } if self.strikes(Fault::DialPlain(id)) => self.carry_out_plain(id, effect),
            Effect::Send { to, plain, crc } if self.has(Fault::DropRefutations(id)) => {
                let plain = self.without_defence(id, plain, strip_datagram)?;
                Some(Effect::Send { to, plain, crc })
            }
            Effect::Exchange {
                id: exchange,
                to,
                plain,
                expect_reply,
                timeout,
            } if self.has(Fault::DropRefutations(id)) => Some(Effect::Exchange {
                id: exchange,
                to,
                plain: self.without_defence(id, plain, strip_stream)?,
                expect_reply,
                timeout,
            }),
            Effect::Reply { id: stream, plain } if self.has(Fault::DropRefutations(id)) => {
                let plain = self.without_defence(id, plain, strip_stream)?;
                Some(Effect::Reply { id: stream, plain })
            }
            Effect::Record(Record::Event(_) | Record::Query(_)) if self.has(Fault::SkipRecords(id)) => None,
            Effect::Commit(_) if self.has(Fault::SkipCommits(id)) => None,
            Effect::Commit(commit) if self.has(Fault::SayStored(id)) => {
                self.carry_out(id, effect);
                let now = self.local_time(id);
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    node.handle(now, Input::Store(StoreNews::Stored(commit.number)));
                }
                None
            }
            Effect::Keyring {
                id: change,
                op: KeyOp::Install,
                ..
            } if self.has(Fault::SkipInstall(id)) => {
                let now = self.local_time(id);
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    let result = Ok(KeyList::default());
                    node.handle(now, Input::Keyring { id: change, result });
                }
                None
            }
            effect => Some(effect),
        }
    }

    /// Carries an effect out as if the host had no keys.
    fn carry_out_plain(&mut self, id: HostId, effect: Effect) -> Option<Effect> {
        let ring = self.hosts[id.0].envelope.keyring_mut().take();
        self.carry_out(id, effect);
        *self.hosts[id.0].envelope.keyring_mut() = ring;
        None
    }

    fn without_defence(&self, id: HostId, plain: Vec<u8>, strip: Strip) -> Option<Vec<u8>> {
        let own = self.hosts[id.0].name();
        strip(plain, &|name, incarnation| name == own && incarnation > 1)
    }

    /// What is left of an arrival once the host's bugs have had it.
    pub(super) fn bend_arrival(&mut self, id: HostId, arrival: Arrival) -> Option<Arrival> {
        if self.faults.is_empty() {
            return Some(arrival);
        }
        let is_down = self.hosts[id.0].power == Power::Down;
        match arrival {
            Arrival::Datagram { bytes, .. } if is_down && self.has(Fault::AnswerWhenDead(id)) => {
                self.answer_from_the_grave(id, bytes);
                None
            }
            Arrival::Replied { .. } | Arrival::TimedOut { .. } if self.has(Fault::SwallowResults(id)) => None,
            arrival if self.has(Fault::MissUpdates(id)) => self.without_updates(id, arrival),
            arrival => Some(arrival),
        }
    }

    fn answer_from_the_grave(&mut self, id: HostId, mut bytes: Vec<u8>) {
        let from = self.hosts[id.0].addr();
        let (mut envelope, mut sealer) = (self.envelope_of(id), self.envelope_of(id));
        let Ok(plain) = envelope.open_datagram(from, &mut bytes) else {
            return;
        };
        let mut scratch = Scratch::default();
        let Ok(datagram) = decode_datagram(plain, &mut scratch) else {
            return;
        };
        for message in &datagram.messages {
            let Message::Ping(ping) = message else { continue };
            let asker = self
                .hosts()
                .find(|&host| self.host(host).name() == ping.source_node);
            let Some(asker) = asker else { continue };
            let mut plain = Vec::new();
            let ack = Ack {
                seq_no: ping.seq_no,
                ..Ack::default()
            };
            ack.encode(&mut plain);
            let closed = sealer.close_datagram(|| Ok(self.rng.random()), plain, false);
            let Ok(bytes) = closed.map(<[u8]>::to_vec) else {
                continue;
            };
            let at = self.now + Duration::from_millis(1);
            self.agenda
                .set(at, Happening::Arrive(asker, Arrival::Datagram { from, bytes }));
        }
    }

    /// One like the host's, to look into what the host has not received yet.
    fn envelope_of(&self, id: HostId) -> Envelope {
        let envelope = &self.hosts[id.0].envelope;
        Envelope::new(envelope.keyring().cloned(), envelope.label().to_vec(), false)
    }

    fn without_updates(&mut self, id: HostId, arrival: Arrival) -> Option<Arrival> {
        let own = self.hosts[id.0].addr();
        let mut envelope = self.envelope_of(id);
        let is_update = |_: &str, incarnation| incarnation > 1;
        let strip_sealed = |envelope: &Envelope, label, bytes: Vec<u8>| {
            let mut opened = open_stream(envelope, own, label, bytes).ok()?;
            Some(strip_message(opened.message().ok()?, &is_update))
        };
        match arrival {
            Arrival::Dial {
                from,
                life,
                exchange,
                bytes,
            } => Some(Arrival::Dial {
                from,
                life,
                exchange,
                bytes: {
                    let plain = strip_sealed(&envelope, Some(envelope.label()), bytes)?;
                    envelope.close_request(|| Ok(self.rng.random()), plain).ok()?
                },
            }),
            Arrival::Replied {
                life,
                exchange,
                result: Ok(bytes),
            } => Some(Arrival::Replied {
                life,
                exchange,
                result: {
                    let plain = strip_sealed(&envelope, None, bytes)?;
                    Ok(envelope.close_reply(|| Ok(self.rng.random()), plain).ok()?)
                },
            }),
            Arrival::Datagram { from, mut bytes } => {
                let plain = envelope.open_datagram(from, &mut bytes).ok()?.to_vec();
                let plain = strip_datagram(plain, &is_update)?;
                let bytes = envelope.close_datagram(|| Ok(self.rng.random()), plain, false);
                let bytes = bytes.ok()?.to_vec();
                Some(Arrival::Datagram { from, bytes })
            }
            arrival => Some(arrival),
        }
    }
}

/// A datagram without the alive messages that `unwanted` names by node and incarnation; `None` when
/// nothing is left.
fn strip_datagram(plain: Vec<u8>, unwanted: &dyn Fn(&str, u32) -> bool) -> Option<Vec<u8>> {
    let mut scratch = Scratch::default();
    let Ok(datagram) = decode_datagram(&plain, &mut scratch) else {
        return Some(plain);
    };
    let goes = |message: &&Message<'_>| match message {
        Message::Alive(Alive {
            node, incarnation, ..
        }) => !unwanted(node, *incarnation),
        _ => true,
    };
    let kept: Vec<Vec<u8>> = datagram.messages.iter().filter(goes).map(encoded).collect();
    match kept.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => {
            let mut out = Vec::new();
            encode_compound(several, &mut out);
            Some(out)
        }
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// A stream message; a push/pull goes without the nodes that `unwanted` names.
fn strip_stream(plain: Vec<u8>, unwanted: &dyn Fn(&str, u32) -> bool) -> Option<Vec<u8>> {
    let mut decoder = StreamDecoder::default();
    decoder.push(&plain);
    match decoder.message() {
        Ok(message) => Some(strip_message(message, unwanted)),
        Err(_) => Some(plain),
    }
}

fn strip_message(mut message: StreamMessage<'_>, unwanted: &dyn Fn(&str, u32) -> bool) -> Vec<u8> {
    if let StreamMessage::PushPull(state) = &mut message {
        let stays = |node: &PushNodeState<'_>| !unwanted(node.name, node.incarnation);
        state.nodes.retain(stays);
    }
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}
