//! Push/pull, the anti-entropy of whole states over a stream, and joining, which is a push/pull with
//! addresses of which no member is known (docs/protocol.md#a13-merging-a-pushpull).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, warn};

use super::delegate::{Contact, Delegate, ExchangeId, JoinId, StreamId};
use super::failure::{Cause, Failure};
use super::members::{Facts, NodeId, State};
use super::version::{self, Speaker};
use super::{Swim, Trouble};
use crate::bounds::MAX_PARALLEL_JOINS;
use crate::swim::state::encoded;
use crate::time::Time;
use crate::wire::message::{Alive, PushNodeState, PushPull, RefusedNodes, StreamMessage};

/// What an exchange under way is for.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The ping of a probe over a stream.
    StreamPing {
        /// The probe's sequence number.
        seq_no: u32,
    },
    /// The stream of a look at a suspect.
    Glance {
        /// The suspect.
        id: NodeId,
        /// The sequence number of the look.
        seq_no: u32,
    },
    /// Asks whether a neighbour of a suspect can be reached.
    Neighbour {
        /// The suspect.
        id: NodeId,
        /// How often its neighbours have been asked.
        round: u32,
    },
    /// Asks whether somebody answers to a name that is claimed at another address.
    LookPing {
        /// The sequence number of the look.
        seq_no: u32,
    },
    /// The regular push/pull with a random member.
    PushPull {
        /// Whom with.
        peer: Arc<Facts>,
    },
    /// A message of the delegate, which has no answer.
    UserMessage {
        /// Whom for.
        to: SocketAddr,
    },
    /// Asks whether the member that a join expects is there.
    JoinPing {
        /// The join.
        id: JoinId,
        /// The target.
        to: SocketAddr,
        /// Who is expected.
        name: Arc<str>,
        /// The sequence number of the ping.
        seq_no: u32,
    },
    /// One target of a join.
    Join {
        /// The join.
        id: JoinId,
        /// The target.
        to: SocketAddr,
    },
}

/// A join under way.
#[derive(Debug)]
pub(super) struct Join {
    waiting: VecDeque<Contact>,
    running: usize,
    ignore_old: bool,
    contacted: usize,
    errors: Vec<(SocketAddr, Failure)>,
}

impl Swim {
    /// Starts a push/pull with every target, several at a time; ends with [`Delegate::join_ended`].
    pub fn join(
        &mut self,
        now: Time,
        id: JoinId,
        targets: Vec<Contact>,
        ignore_old: bool,
        delegate: &mut impl Delegate,
    ) {
        let join = Join {
            waiting: targets.into(),
            running: 0,
            ignore_old,
            contacted: 0,
            errors: Vec::new(),
        };
        self.joins.insert(id, join);
        self.continue_join(now, id, delegate);
    }

    fn continue_join(&mut self, now: Time, id: JoinId, delegate: &mut impl Delegate) {
        loop {
            let timeout = self.config.profile.tcp_timeout;
            let Some(join) = self.joins.get_mut(&id) else {
                return;
            };
            if join.running >= MAX_PARALLEL_JOINS {
                return;
            }
            let Some(Contact { addr: to, name }) = join.waiting.pop_front() else {
                break;
            };
            join.running += 1;
            let Some(name) = name else {
                self.start_join(id, to, delegate);
                continue;
            };
            let (seq_no, source) = (self.next_seq_no(), self.config.facts.clone());
            let plain = encoded(|out| source.ping(&name, seq_no).encode(out));
            let ping = Exchange::JoinPing { id, to, name, seq_no };
            self.start_exchange(ping, to, plain, timeout, delegate);
        }
        if self.joins.get(&id).is_some_and(|join| join.running == 0)
            && let Some(join) = self.joins.remove(&id)
        {
            delegate.join_ended(now, id, join.contacted, join.errors);
        }
    }

    fn start_join(&mut self, id: JoinId, to: SocketAddr, delegate: &mut impl Delegate) {
        let timeout = self.config.profile.tcp_timeout;
        let plain = self.encode_state(true, delegate);
        self.start_exchange(Exchange::Join { id, to }, to, plain, timeout, delegate);
    }

    /// One target of a join has been contacted, or has not.
    fn end_target(
        &mut self,
        now: Time,
        id: JoinId,
        to: SocketAddr,
        outcome: Result<(), Failure>,
        delegate: &mut impl Delegate,
    ) {
        if let Err(reason) = &outcome {
            debug!(target: "memberlist", "Failed to join {}: {reason}", to.ip());
        }
        if let Some(join) = self.joins.get_mut(&id) {
            join.running -= 1;
            match outcome {
                Ok(()) => join.contacted += 1,
                Err(reason) => join.errors.push((to, reason)),
            }
        }
        self.continue_join(now, id, delegate);
    }

    pub(super) fn push_pull_with(&mut self, peer: &Arc<Facts>, delegate: &mut impl Delegate) {
        debug!(target: "memberlist", "Initiating push/pull sync with: {} {}", peer.name, peer.socket());
        let plain = self.encode_state(false, delegate);
        let timeout = self.config.profile.tcp_timeout;
        self.start_exchange(
            Exchange::PushPull {
                peer: Arc::clone(peer),
            },
            peer.socket(),
            plain,
            timeout,
            delegate,
        );
    }

    pub(super) fn start_exchange(
        &mut self,
        exchange: Exchange,
        to: SocketAddr,
        plain: Vec<u8>,
        timeout: Duration,
        delegate: &mut impl Delegate,
    ) {
        self.last_exchange += 1;
        let id = ExchangeId(self.last_exchange);
        let expect_reply = !matches!(exchange, Exchange::UserMessage { .. });
        self.exchanges.insert(id, exchange);
        delegate.exchange(id, to, plain, expect_reply, timeout);
    }

    /// Sends the delegate's bytes over a stream of their own.
    pub fn send_stream(&mut self, to: SocketAddr, bytes: &[u8], delegate: &mut impl Delegate) {
        let plain = encoded(|out| StreamMessage::User(bytes).encode(out));
        let timeout = self.config.profile.tcp_timeout;
        self.start_exchange(Exchange::UserMessage { to }, to, plain, timeout, delegate);
    }

    /// Takes the result of an exchange.
    pub fn handle_exchange(
        &mut self,
        now: Time,
        id: ExchangeId,
        result: Result<Option<&StreamMessage<'_>>, Failure>,
        delegate: &mut impl Delegate,
    ) {
        if let Ok(Some(_)) = result {
            self.hear(now, None, delegate);
        }
        match self.exchanges.remove(&id) {
            Some(Exchange::StreamPing { seq_no }) => {
                self.stream_ping_answered(now, seq_no, &result, delegate)
            }
            Some(Exchange::Glance { id, seq_no }) => self.glance_ended(now, id, seq_no, &result),
            Some(Exchange::Neighbour { id, round }) => {
                self.neighbour_ended(now, id, round, result.as_ref().err(), delegate);
            }
            Some(Exchange::LookPing { seq_no }) => {
                if let Ok(Some(StreamMessage::Ack(ack))) = result
                    && ack.seq_no == seq_no
                {
                    self.look_answered(now, seq_no, delegate);
                }
            }
            Some(Exchange::PushPull { peer }) => match self.merge_reply(now, result, false, delegate) {
                Ok(()) => {
                    self.repeats.over(Trouble::PushPull, &peer.name);
                    self.answered_at(now, peer.socket(), delegate);
                }
                Err(reason) if self.repeats.again(Trouble::PushPull, &peer.name) => {
                    error!(target: "memberlist", "Push/Pull with {} failed: {reason}", peer.name);
                }
                Err(_) => {}
            },
            Some(Exchange::JoinPing { id, to, name, seq_no }) => match result {
                Ok(Some(StreamMessage::Ack(ack))) if ack.seq_no == seq_no => {
                    self.start_join(id, to, delegate);
                }
                Err(reason) if reason.reached_nobody() => {
                    self.end_target(now, id, to, Err(reason), delegate);
                }
                _ => {
                    if self.repeats.again(Trouble::Stranger, &name) {
                        warn!(target: "memberlist", "Whoever is at {to} does not answer to the name {name}; not joining it");
                    }
                    let reason = format!("whoever is there does not answer to the name {name}");
                    self.end_target(now, id, to, Err(Failure::protocol(reason)), delegate);
                }
            },
            Some(Exchange::Join { id, to }) => {
                let ignore_old = self.joins.get(&id).is_some_and(|join| join.ignore_old);
                let merged = self.merge_reply(now, result, ignore_old, delegate);
                if merged.is_ok() {
                    self.answered_at(now, to, delegate);
                }
                self.end_target(now, id, to, merged, delegate);
            }
            Some(Exchange::UserMessage { to }) => {
                if let Err(reason) = result {
                    error!(target: "memberlist", "Failed to send a message to {to} over a stream: {reason}");
                }
            }
            None => {}
        }
    }

    fn merge_reply(
        &mut self,
        now: Time,
        result: Result<Option<&StreamMessage<'_>>, Failure>,
        ignore_old: bool,
        delegate: &mut impl Delegate,
    ) -> Result<(), Failure> {
        match result? {
            Some(StreamMessage::PushPull(remote)) => self
                .merge(now, remote, ignore_old, delegate)
                .map_err(Failure::protocol),
            Some(StreamMessage::Err(text)) => Err(Failure::protocol(format!("remote error: {text}"))),
            Some(_) => Err(Failure::protocol(
                "the peer answered a push/pull with something else",
            )),
            None => Err(Failure::new(
                Cause::Closed,
                "the peer closed the stream without an answer",
            )),
        }
    }

    pub(super) fn accept_push_pull(
        &mut self,
        now: Time,
        from: SocketAddr,
        stream: StreamId,
        remote: &PushPull<'_>,
        delegate: &mut impl Delegate,
    ) {
        let plain = self.encode_state(remote.join, delegate);
        delegate.reply(stream, plain);
        let peer = from.ip().to_string();
        match self.merge(now, remote, false, delegate) {
            Ok(()) => self.repeats.over(Trouble::PushPull, &peer),
            Err(reason) if self.repeats.again(Trouble::PushPull, &peer) => {
                error!(target: "memberlist", "Failed push/pull merge: {reason} from={from}");
            }
            Err(_) => {}
        }
    }

    /// Everything this node holds, itself included.
    fn encode_state(&self, join: bool, delegate: &impl Delegate) -> Vec<u8> {
        let user_state = delegate.local_state();
        let nodes = self.members.iter().map(|record| PushNodeState {
            name: &record.facts.name,
            addr: record.facts.addr.as_bytes(),
            port: record.facts.port,
            meta: &record.facts.meta,
            incarnation: record.incarnation,
            state: record.state.code(),
            vsn: &record.facts.vsn,
        });
        let message = PushPull {
            join,
            nodes: nodes.collect(),
            user_state: &user_state,
            refused: RefusedNodes::default(),
        };
        encoded(|out| message.encode(out))
    }

    /// Merges a peer's state: all of it, or nothing if versions do not fit.
    fn merge(
        &mut self,
        now: Time,
        remote: &PushPull<'_>,
        ignore_old: bool,
        delegate: &mut impl Delegate,
    ) -> Result<(), String> {
        let theirs = remote.nodes.iter().map(|node| Speaker {
            name: node.name,
            vsn: node.vsn.first_chunk().copied(),
            alive: node.state == State::Alive.code(),
        });
        let ours = self.members.iter().map(|record| Speaker {
            name: &record.facts.name,
            vsn: Some(record.facts.vsn),
            alive: record.state == State::Alive,
        });
        version::check(theirs.chain(ours))?;
        self.note_refused_nodes(&remote.refused);
        for node in &remote.nodes {
            self.merge_node(now, node, delegate);
        }
        if !remote.user_state.is_empty() {
            delegate.merge_state(now, remote.user_state, ignore_old);
        }
        Ok(())
    }

    /// Logs which member cannot be listed here. Every push/pull repeats it, so it is logged ever less often.
    fn note_refused_nodes(&mut self, nodes: &RefusedNodes<'_>) {
        let Some((name, reason)) = &nodes.first else {
            return;
        };
        self.refused += nodes.count;
        self.unheld += 1;
        if self.unheld.is_power_of_two() {
            let others = nodes.count.saturating_sub(1);
            warn!(target: "memberlist", "Cannot hold member '{}' of a peer's list, nor {others} others: {reason}", name.escape_debug());
        }
    }

    fn merge_node(&mut self, now: Time, node: &PushNodeState<'_>, delegate: &mut impl Delegate) {
        let me = Arc::clone(&self.config.facts.name);
        match node.state {
            0 => {
                let alive = Alive {
                    incarnation: node.incarnation,
                    node: node.name,
                    addr: node.addr,
                    port: node.port,
                    meta: node.meta,
                    vsn: node.vsn,
                };
                self.handle_alive(now, &alive, delegate);
            }
            3 => self.dead(now, node.name, node.incarnation, node.name, delegate),
            // Suspect, or dead: never taken over as dead, so that the node has time to refute.
            _ => self.suspect(now, node.name, node.incarnation, &me),
        }
    }
}
