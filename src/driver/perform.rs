//! Carrying out what the node wants, and handing it what streams and users bring.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, warn};

use super::gate::Claim;
use super::handle::Request;
use super::ledger::count;
use super::sockets::{plain, to_socket_family};
use super::streams::{Exchange, StreamEvent, exchange};
use super::{Driver, Ended};
use crate::go;
use crate::queue;
use fyrd_core::bounds;
use fyrd_core::envelope::{Drawn, Nonce, Received};
use fyrd_core::node::{Cause, CommandId, Effect, ExchangeId, Failure, Input, StreamId};
use fyrd_core::serf::{Answer, Command, Event, MemberEventKind, QueryUpdate};
use fyrd_core::wire::{Fault, StreamMessage};

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, plain, crc } => self.send(to, plain, crc),
            Effect::Exchange {
                id,
                to,
                plain,
                expect_reply,
                timeout,
            } => {
                self.start_exchange(id, to, plain, expect_reply, timeout);
            }
            Effect::Reply { id, plain } => self.reply(id, plain),
            Effect::Event(event) => {
                self.note_members(&event);
                self.publish(event);
            }
            Effect::QueryUpdate(update) => self.publish_update(update),
            Effect::Answer { id, answer } => {
                if let Some(waiting) = self.answers.remove(&id) {
                    // Who asked may have gone.
                    let _ = waiting.send(answer);
                }
            }
            Effect::Keyring { id, op, key } => self.change_keyring(id, op, key),
            Effect::LookUp(names) => {
                if let Some(look_ups) = &self.look_ups {
                    // The node asks again only when it was told, so there is room unless the agent ends.
                    let _ = look_ups.try_send(names);
                }
            }
            Effect::JoinFailed { reason, again } => self.join_failed(&reason, again),
            Effect::Record(record) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.note(record);
                }
            }
            Effect::Commit(commit) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.commit(commit);
                }
            }
            Effect::LostName => self.ended = Some(Ended::LostName),
        }
    }

    fn send(&mut self, to: SocketAddr, message: Vec<u8>, crc: bool) {
        let Some(target) = to_socket_family(to, self.udp_is_v6) else {
            return self.send_failed(to, "the socket's address family cannot reach it");
        };
        let packet = match self.envelope.close_datagram(self.nonces, message, crc) {
            Ok(packet) => packet,
            Err(reason) => return self.send_failed(to, &reason),
        };
        if !self.unsent.is_empty() {
            // Behind those that wait already, to keep the order.
            let packet = packet.to_vec();
            return self.postpone(target, packet);
        }
        match self.udp.try_send_to(packet, self.home.leave(target)) {
            Ok(len) => self.ledger.sent(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let packet = packet.to_vec();
                self.postpone(target, packet);
            }
            Err(error) => self.send_failed(to, &go::os_error(&error)),
        }
    }

    fn postpone(&mut self, to: SocketAddr, packet: Vec<u8>) {
        if self.unsent.len() < bounds::UNSENT_DATAGRAMS {
            self.unsent.push_back((to, packet));
        } else {
            count(&self.ledger.counters.datagrams_unsent);
            self.ledger.warning(format_args!(
                "the network is congested, dropped a datagram to {}",
                plain(to)
            ));
        }
    }

    /// The socket has room again.
    pub(super) fn send_waiting(&mut self) {
        while let Some((to, packet)) = self.unsent.front() {
            let to = *to;
            match self.udp.try_send_to(packet, self.home.leave(to)) {
                Ok(len) => self.ledger.sent(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.send_failed(plain(to), &go::os_error(&error)),
            }
            self.unsent.pop_front();
        }
    }

    fn send_failed(&mut self, to: SocketAddr, reason: &str) {
        count(&self.ledger.counters.datagrams_unsent);
        let advice = self.home.advice(to);
        self.ledger.peer_error(format_args!(
            "Failed to send UDP packet to {to}: {reason}{advice}"
        ));
        if self.failed_sends.len() < bounds::UNSENT_DATAGRAMS {
            self.failed_sends.push((to, reason.to_owned()));
        }
    }

    fn start_exchange(
        &mut self,
        id: ExchangeId,
        to: SocketAddr,
        message: Vec<u8>,
        expect_reply: bool,
        timeout: Duration,
    ) {
        let to = plain(to);
        let deadline = Instant::now() + timeout;
        match self.envelope.close_request(self.nonces, message) {
            Ok(bytes) => {
                let job = Exchange {
                    id,
                    to,
                    bytes,
                    expect_reply,
                    deadline,
                };
                self.tasks.spawn(exchange(job, self.shared.clone()));
            }
            Err(reason) => {
                // The result must not come before the node is done with asking.
                let events = self.shared.events.clone();
                self.tasks.spawn(async move {
                    let _ = events
                        .send(StreamEvent::Exchanged {
                            id,
                            to,
                            result: Err(Failure::new(Cause::Local, reason)),
                            pass: None,
                        })
                        .await;
                });
            }
        }
    }

    fn reply(&mut self, id: StreamId, message: Vec<u8>) {
        let Some(waiting) = self.replies.remove(&id) else {
            return;
        };
        match self.envelope.close_reply(self.nonces, message) {
            // The stream's deadline may have passed.
            Ok(sealed) => drop(waiting.send(sealed)),
            Err(reason) => self
                .ledger
                .peer_error(format_args!("Failed to push local state: {reason}")),
        }
    }

    pub(super) fn stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Arrived {
                from,
                message,
                claim,
                reply,
            } => self.arrived(from, message, claim, reply),
            StreamEvent::Refused { reason, reply } => self.refuse(&reason, reply),
            StreamEvent::Exchanged {
                id,
                to,
                result,
                pass: _pass,
            } => self.exchanged(id, to, result),
        }
    }

    fn arrived(
        &mut self,
        from: SocketAddr,
        received: Received,
        claim: Claim,
        reply: oneshot::Sender<Vec<u8>>,
    ) {
        let mut opened = match self.envelope.open_stream(from, received) {
            Ok(opened) => opened,
            Err(reason) => {
                self.note_refused_stream(from, &reason);
                return self.refuse(&reason, reply);
            }
        };
        let message = match opened.message() {
            Ok(message) => message,
            Err(error) => {
                let reason = error.to_string();
                self.note_refused_stream(from, &reason);
                // As with memberlist, a peer is told of a bad wrapping, not of a bad message.
                if let Fault::Algorithm(_) | Fault::Lzw | Fault::Inflates(_) = error.fault {
                    self.refuse(&reason, reply);
                }
                return;
            }
        };
        claim.grant();
        self.last_stream += 1;
        let id = StreamId(self.last_stream);
        self.replies.insert(id, reply);
        self.feed(Input::Stream {
            from,
            id,
            message: &message,
        });
        // Without a reply the sender is dropped, and with it the stream.
        if !self.node.holds_reply(id) {
            self.replies.remove(&id);
        }
    }

    fn note_refused_stream(&self, from: SocketAddr, reason: &str) {
        count(&self.ledger.counters.streams_refused);
        self.ledger
            .peer_error(format_args!("failed to receive: {reason} from={from}"));
    }

    /// Tells a peer what was wrong with its stream.
    fn refuse(&mut self, reason: &str, reply: oneshot::Sender<Vec<u8>>) {
        let mut message = Vec::new();
        StreamMessage::Err(reason).encode(&mut message);
        if let Ok(sealed) = self.envelope.close_reply(self.nonces, message) {
            let _ = reply.send(sealed);
        }
    }

    fn exchanged(&mut self, id: ExchangeId, to: SocketAddr, result: Result<Option<Received>, Failure>) {
        let mut opened = match result {
            Ok(Some(received)) => match self.envelope.open_stream(to, received) {
                Ok(opened) => opened,
                Err(reason) => {
                    let result = Err(Failure::protocol(reason));
                    return self.feed(Input::Exchange { id, result });
                }
            },
            Ok(None) => return self.feed(Input::Exchange { id, result: Ok(None) }),
            Err(failure) => {
                let result = Err(failure);
                return self.feed(Input::Exchange { id, result });
            }
        };
        let message = match opened.message() {
            Ok(StreamMessage::Err(text)) => Err(Failure::protocol(format!("remote error: {text}"))),
            Ok(message) => Ok(message),
            Err(error) => Err(Failure::protocol(format!("{error} from={to}"))),
        };
        let result = message.as_ref().map(Some).map_err(Failure::clone);
        self.feed(Input::Exchange { id, result });
    }

    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Command(command, answer) => self.command(command, answer),
            Request::Read(look) => look(&self.node),
            Request::Subscribe(subscriber) => self.event_subscribers.push(subscriber),
            Request::SubscribeLookUps(look_ups) => self.look_ups = Some(look_ups),
            Request::Tell(input) => self.feed(input),
            Request::SubscribeQueries(subscriber) => self.query_subscribers.push(subscriber),
            Request::Keys(asker) => drop(asker.send(self.key_summary())),
            Request::TakeMeasures(taker) => drop(taker.send(self.node.take_measures())),
            Request::Stop => self.ended = Some(Ended::Stopped),
        }
    }

    fn command(&mut self, command: Command, answer: oneshot::Sender<Answer>) {
        if self.answers.len() >= bounds::COMMANDS_IN_FLIGHT {
            let _ = answer.send(Answer::Failed(
                "too many commands are waiting for their answer".to_owned(),
            ));
            return;
        }
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.answers.insert(id, answer);
        self.feed(Input::Command { id, command });
    }

    fn join_failed(&mut self, reason: &str, again: Option<Duration>) {
        let Some(again) = again else {
            error!(target: "agent", "maximum retry join attempts made, exiting");
            self.ended = Some(Ended::NotJoined);
            return;
        };
        let nanos = i64::try_from(again.as_nanos()).unwrap_or(i64::MAX);
        // Whoever joins has logged what went wrong with each address.
        let reason = reason.lines().next().unwrap_or_default().trim_end_matches(':');
        warn!(target: "agent", "Join failed: {reason}, retrying in {}", go::Duration { nanos });
    }

    /// Tells the gate who are members. An address that one has left counts until all are looked at again.
    fn note_members(&self, event: &Event) {
        let Event::Member { kind, members } = event else {
            return;
        };
        let known = self.node.known();
        let added = self
            .shared
            .gate
            .add_members(members.iter().map(|member| member.addr.ip()));
        if *kind == MemberEventKind::Reap || added > 2 * known + bounds::STREAMS_MAX {
            self.tell_members();
        }
    }

    /// Tells the gate who are members, all of them.
    pub(super) fn tell_members(&self) {
        let members = self.node.members();
        self.shared
            .gate
            .set_members(members.iter().map(|member| member.addr.ip()));
    }

    fn publish(&mut self, event: Arc<Event>) {
        let lost = queue::publish(&mut self.event_subscribers, &event);
        for _ in 0..lost {
            count(&self.ledger.counters.events_dropped);
            self.ledger
                .warning(format_args!("a listener is too slow, it lost an event"));
        }
    }

    fn publish_update(&mut self, update: QueryUpdate) {
        let lost = queue::publish(&mut self.query_subscribers, &update);
        for _ in 0..lost {
            count(&self.ledger.counters.query_updates_dropped);
            self.ledger
                .warning(format_args!("a listener is too slow, it lost a query's answer"));
        }
    }
}

/// Twelve random bytes, each time from the operating system: a generator in this process would be copied
/// with it, when a virtual machine is cloned or a process image restored twice, and both copies would seal
/// with the same nonces. The kernel's is seeded anew when that happens.
pub(super) fn system_nonce() -> Drawn {
    let mut nonce = Nonce::default();
    SysRng
        .try_fill_bytes(&mut nonce)
        .map_err(|error| format!("the operating system gives no random numbers: {error}"))?;
    Ok(nonce)
}
