//! swim and serf behind one door: [`Input`] in, [`Effect`] out.
//!
//! A node performs no I/O, asks no clock and draws no randomness but from its seed. Whoever drives
//! it (the tokio driver, the simulator) feeds [`Node::handle`], drains [`Node::poll_effect`] until
//! it is empty, and calls again with [`Input::Tick`] at [`Node::next_deadline`].

mod leave;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tracing::debug;

use crate::addr::RawAddr;
use crate::bounds::{NAME_MAX, USER_EVENT_HARD_LIMIT};
use crate::node::leave::Leave;
use crate::serf::keys::{KeyBytes, KeyOp, KeyringResult};
use crate::serf::{
    self, Answer, Command, Event, JoinTarget, Member, QueryKey, QueryUpdate, Serf, SerfConfig, Stats, Tags,
    tags,
};
use crate::swim::members::Facts;
use crate::swim::profile::Profile;
use crate::swim::queue::Token;
use crate::swim::{self, Swim, SwimConfig};
use crate::time::Time;
use crate::wire::WireCoordinate;
use crate::wire::message::{Message, StreamMessage};

/// The memberlist versions this node speaks: minimum, maximum, current.
const PROTOCOL: [u8; 3] = [1, 5, 2];
/// The Serf versions this node understands.
const DELEGATE: std::ops::RangeInclusive<u8> = 2..=5;

/// The Serf version that brought queries.
const QUERY_PROTOCOL: u8 = 4;

/// Everything a node has to be told before it can start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's name: not empty, at most 128 bytes.
    pub name: String,
    /// The address it announces, in the form it is announced.
    pub addr: RawAddr,
    /// The port it announces.
    pub port: u16,
    /// The port the sockets are bound to: what a peer's port 0 means.
    pub bind_port: u16,
    /// Its tags at start.
    pub tags: Tags,
    /// The Serf protocol version it speaks, 2 to 5.
    pub protocol: u8,
    /// Timing.
    pub profile: Profile,
    /// Bytes that encryption adds to a datagram; 0 without encryption.
    pub seal_overhead: usize,
    /// Bytes that the label adds to a datagram; 0 without label.
    pub label_overhead: usize,
    /// Limit of an encoded user event.
    pub user_event_size_limit: usize,
    /// Limit of an encoded query.
    pub query_size_limit: usize,
    /// Limit of an encoded query response.
    pub query_response_size_limit: usize,
    /// Whether to give way when another node holds our name by majority (B11).
    pub resolve_name_conflicts: bool,
    /// Whether network coordinates are off.
    pub disable_coordinates: bool,
    /// The seed of all randomness.
    pub seed: u64,
}

/// Names a command until it is answered; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Names an exchange that this node asked for, until its result comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// Names an inbound stream while it waits for a reply; chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Names a change of the keyring until its result comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyringId(QueryKey);

/// What can happen to a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// A deadline may have passed.
    Tick,
    /// A datagram came, opened and decoded.
    Datagram {
        /// The UDP source; never used to identify a peer.
        from: SocketAddr,
        /// Its messages.
        messages: &'a [Message<'a>],
    },
    /// An inbound stream delivered its message. The node replies at once with [`Effect::Reply`],
    /// or never: when no reply stands among the effects, the driver closes the stream.
    Stream {
        /// Who dialled.
        from: SocketAddr,
        /// Names the stream in the reply.
        id: StreamId,
        /// What it said.
        message: &'a StreamMessage<'a>,
    },
    /// An exchange that the node asked for is over. `Ok(None)` when no reply was expected.
    Exchange {
        /// Which.
        id: ExchangeId,
        /// The reply, or why there is none, as a user should read it (for example
        /// `dial tcp 127.0.0.1:1: connect: connection refused`).
        result: Result<Option<&'a StreamMessage<'a>>, String>,
    },
    /// The operating system refused to send a datagram to this address.
    SendFailed {
        /// Where it should have gone.
        to: SocketAddr,
    },
    /// The keyring was changed or listed, as [`Effect::Keyring`] asked, or refused.
    Keyring {
        /// Names the change.
        id: KeyringId,
        /// How it went.
        result: KeyringResult,
    },
    /// A user asks for something.
    Command {
        /// Names the command in the answer.
        id: CommandId,
        /// What is asked.
        command: Command,
    },
}

/// What a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a datagram. `plain` is a single message or a compound; the driver compresses it if
    /// that is on and makes it smaller, adds the CRC if asked, seals and labels it.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What.
        plain: Vec<u8>,
        /// Whether the receiver understands a CRC frame, and the path uses one (A6).
        crc: bool,
    },
    /// Dial a stream, send `plain` (compressed and sealed by the driver), read the reply if one is
    /// expected, and hand the result back as [`Input::Exchange`].
    Exchange {
        /// Names the exchange in its result.
        id: ExchangeId,
        /// Whom to dial.
        to: SocketAddr,
        /// One encoded stream message.
        plain: Vec<u8>,
        /// Whether the peer answers.
        expect_reply: bool,
        /// Deadline of the whole exchange.
        timeout: Duration,
    },
    /// Send this on an inbound stream, then close it.
    Reply {
        /// Which stream.
        id: StreamId,
        /// One encoded stream message.
        plain: Vec<u8>,
    },
    /// Tell the listeners.
    Event(Event),
    /// Something came in for a query of ours.
    QueryUpdate(QueryUpdate),
    /// A command is over.
    Answer {
        /// Which.
        id: CommandId,
        /// How it ended.
        answer: Answer,
    },
    /// Change or list the keyring; the result comes back as [`Input::Keyring`].
    Keyring {
        /// Names the change in its result.
        id: KeyringId,
        /// What to do.
        op: KeyOp,
        /// With which key; empty for a listing.
        key: KeyBytes,
    },
    /// The node lost its name to another (B11) and must end without leaving.
    LostName,
}

/// What shall be answered when a broadcast has been sent, or is not within its time.
#[derive(Debug)]
struct Wait {
    token: Token,
    deadline: Time,
    command: CommandId,
    timed_out: &'static str,
}

/// One member of the cluster: the protocol, and nothing else.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    swim: Swim,
    serf: Serf,
    effects: VecDeque<Effect>,
    waits: Vec<Wait>,
    tokens: u64,
    joins: BTreeMap<u64, (CommandId, bool)>,
    key_commands: BTreeMap<QueryKey, CommandId>,
    next_join: u64,
    leave: Option<Leave>,
}

impl Node {
    /// A node that is alive and alone.
    ///
    /// # Errors
    /// When the configuration cannot work; the texts are Serf's where Serf has them.
    pub fn new(config: NodeConfig, now: Time) -> Result<Node, String> {
        let facts = check(&config)?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(config.seed);
        let mut serf = Serf::new(
            SerfConfig {
                facts: facts.clone(),
                profile: config.profile.clone(),
                user_event_size_limit: config.user_event_size_limit,
                query_size_limit: config.query_size_limit,
                query_response_size_limit: config.query_response_size_limit,
                resolve_name_conflicts: config.resolve_name_conflicts,
                disable_coordinates: config.disable_coordinates,
                seed: rng.random(),
            },
            now,
        );
        let swim = Swim::new(
            SwimConfig {
                facts,
                bind_port: config.bind_port,
                profile: config.profile.clone(),
                overhead: config.seal_overhead + config.label_overhead,
                seed: rng.random(),
            },
            now,
            &mut serf,
        );
        let mut node = Node {
            config,
            swim,
            serf,
            effects: VecDeque::new(),
            waits: Vec::new(),
            tokens: 0,
            joins: BTreeMap::new(),
            key_commands: BTreeMap::new(),
            next_join: 0,
            leave: None,
        };
        node.collect(now);
        Ok(node)
    }

    /// Takes what has happened. Drain [`Node::poll_effect`] afterwards.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        let (swim, serf) = (&mut self.swim, &mut self.serf);
        match input {
            Input::Tick => {
                swim.handle_tick(now, serf);
                serf.handle_tick(now);
            }
            Input::Datagram { from, messages } => {
                for message in messages {
                    swim.handle_message(now, from, message, serf);
                }
            }
            Input::Stream { from, id, message } => swim.handle_stream(now, from, id.0, message, serf),
            Input::Exchange { id, result } => swim.handle_exchange(now, id.0, result, serf),
            Input::SendFailed { to } => swim.handle_send_failed(to, serf),
            Input::Keyring { id, result } => serf.handle_keyring(id.0, &result),
            Input::Command { id, command } => self.handle_command(now, id, command),
        }
        self.collect(now);
    }

    /// What shall be done next; `None` once all is done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = self.waits.iter().map(|wait| wait.deadline).min();
        let leave = self.leave.as_ref().and_then(Leave::deadline);
        [self.swim.next_deadline(), self.serf.next_deadline(), waits, leave]
            .into_iter()
            .flatten()
            .min()
    }

    /// This node's name.
    pub fn local_name(&self) -> &str {
        &self.config.name
    }

    /// This node's tags.
    pub fn tags(&self) -> &Tags {
        &self.config.tags
    }

    /// All members, by name.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.serf.members()
    }

    /// Figures for operators.
    pub fn stats(&self) -> Stats {
        let stats = self.serf.stats();
        Stats {
            health_score: self.swim.health_score(),
            refused_messages: stats.refused_messages + self.swim.refused(),
            ..stats
        }
    }

    /// The last known network coordinate of a member.
    pub fn coordinate(&self, name: &str) -> Option<WireCoordinate> {
        self.serf.coordinate(name)
    }

    /// This node's incarnation.
    pub fn incarnation(&self) -> u32 {
        self.swim.incarnation()
    }

    fn handle_command(&mut self, now: Time, id: CommandId, command: Command) {
        match command {
            Command::Join {
                targets,
                ignore_old,
                announce,
            } => self.join(id, targets, ignore_old, announce),
            Command::Leave => self.begin_leave(now, id),
            Command::ForceLeave { name, prune } => {
                let token = self.token();
                let heard = self.serf.force_leave(now, &name, prune, token);
                self.wait(
                    now,
                    id,
                    heard.then_some(token),
                    "timed out broadcasting node removal",
                );
            }
            Command::SetTags(tags) => self.set_tags(now, id, tags),
            Command::UserEvent {
                name,
                payload,
                coalesce,
            } => {
                let sent = self.serf.user_event(&name, &payload, coalesce);
                self.answer(id, sent.map_or_else(Answer::Failed, |()| Answer::Done));
            }
            Command::Query(_) | Command::Keys { .. } if self.config.protocol < QUERY_PROTOCOL => {
                self.answer(id, Answer::Failed("Feature not supported".to_owned()));
            }
            Command::Query(params) => {
                let started = self.serf.query(now, &params);
                self.answer(
                    id,
                    started.map_or_else(Answer::Failed, |(ltime, id)| Answer::QueryStarted { ltime, id }),
                );
            }
            Command::Keys { op, key } => match self.serf.key_query(now, op, &key) {
                Ok(query) => drop(self.key_commands.insert(query, id)),
                Err(reason) => self.answer(id, Answer::Failed(reason)),
            },
            Command::Respond {
                ltime,
                id: query,
                payload,
            } => {
                let sent = self.serf.respond((ltime, query), &payload);
                self.answer(id, sent.map_or_else(Answer::Failed, |()| Answer::Done));
            }
        }
    }

    fn join(&mut self, id: CommandId, targets: Vec<JoinTarget>, ignore_old: bool, announce: bool) {
        if self.serf.is_leaving() {
            self.answer(
                id,
                Answer::Failed("Serf can't Join after Leave or Shutdown".to_owned()),
            );
            return;
        }
        self.next_join += 1;
        self.joins.insert(self.next_join, (id, announce));
        let targets = targets.into_iter().map(|target| target.addr).collect();
        self.swim
            .join(self.next_join, targets, ignore_old, &mut self.serf);
    }

    fn set_tags(&mut self, now: Time, id: CommandId, new: Tags) {
        match tags::write(&new, self.config.protocol) {
            Ok(meta) => {
                let token = self.token();
                self.config.tags = new;
                self.swim.set_meta(now, meta, token, &mut self.serf);
                let heard = self.swim.has_peers();
                self.wait(
                    now,
                    id,
                    heard.then_some(token),
                    "timeout waiting for update broadcast",
                );
            }
            Err(reason) => self.answer(id, Answer::Failed(reason)),
        }
    }

    /// Answers a command once a broadcast has been sent; at once when nobody is there to hear it.
    fn wait(&mut self, now: Time, command: CommandId, token: Option<Token>, timed_out: &'static str) {
        let deadline = now + self.config.profile.serf.broadcast_timeout;
        match token {
            Some(token) => self.waits.push(Wait {
                token,
                deadline,
                command,
                timed_out,
            }),
            None => self.answer(command, Answer::Done),
        }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn answer(&mut self, id: CommandId, answer: Answer) {
        self.effects.push_back(Effect::Answer { id, answer });
    }

    /// Turns what the layers put out into effects, and acts on what has ended.
    fn collect(&mut self, now: Time) {
        let mut finished = self.swim.take_finished();
        finished.extend(self.serf.take_finished());
        self.end_waits(now, &finished);
        self.continue_leave(now, &finished);
        loop {
            if let Some(output) = self.swim.poll_output() {
                self.collect_swim(now, output);
            } else if let Some(output) = self.serf.poll_output() {
                self.collect_serf(output);
            } else {
                return;
            }
        }
    }

    fn collect_swim(&mut self, now: Time, output: swim::Output) {
        match output {
            swim::Output::Send { to, plain, crc } => self.effects.push_back(Effect::Send { to, plain, crc }),
            swim::Output::Exchange {
                id,
                to,
                plain,
                timeout,
            } => {
                let id = ExchangeId(id);
                self.effects.push_back(Effect::Exchange {
                    id,
                    to,
                    plain,
                    expect_reply: true,
                    timeout,
                });
            }
            swim::Output::Reply { stream, plain } => {
                self.effects.push_back(Effect::Reply {
                    id: StreamId(stream),
                    plain,
                });
            }
            swim::Output::Joined {
                id,
                contacted,
                errors,
            } => {
                let Some((command, announce)) = self.joins.remove(&id) else {
                    debug!(target: "serf", "reconnected to {contacted} nodes, {} errors", errors.len());
                    return;
                };
                if announce && contacted > 0 {
                    self.serf.announce_join(now);
                }
                self.answer(command, Answer::Joined { contacted, errors });
            }
        }
    }

    fn collect_serf(&mut self, output: serf::Output) {
        match output {
            serf::Output::Event(event) => self.effects.push_back(Effect::Event(event)),
            serf::Output::QueryUpdate(update) => self.effects.push_back(Effect::QueryUpdate(update)),
            serf::Output::Send { to, plain } => self.effects.push_back(Effect::Send {
                to,
                plain,
                crc: false,
            }),
            serf::Output::Reconnect { to } => {
                self.next_join += 1;
                self.swim.join(self.next_join, vec![to], false, &mut self.serf);
            }
            serf::Output::Keyring { query, op, key } => {
                self.effects.push_back(Effect::Keyring {
                    id: KeyringId(query),
                    op,
                    key,
                });
            }
            serf::Output::KeysDone { query, report } => {
                if let Some(command) = self.key_commands.remove(&query) {
                    self.answer(command, Answer::Keys(report));
                }
            }
            serf::Output::LostName => self.effects.push_back(Effect::LostName),
        }
    }

    fn end_waits(&mut self, now: Time, finished: &[Token]) {
        let mut answers = Vec::new();
        self.waits.retain(|wait| {
            let answer = if finished.contains(&wait.token) {
                Answer::Done
            } else if wait.deadline <= now {
                Answer::Failed(wait.timed_out.to_owned())
            } else {
                return true;
            };
            answers.push((wait.command, answer));
            false
        });
        for (command, answer) in answers {
            self.answer(command, answer);
        }
    }
}

/// Checks what would otherwise fail later or at somebody else.
fn check(config: &NodeConfig) -> Result<Facts, String> {
    if config.name.is_empty() || config.name.len() > NAME_MAX {
        return Err(format!(
            "Node name '{}' has {} bytes, must have 1 to {NAME_MAX}",
            config.name,
            config.name.len()
        ));
    }
    let (low, high) = (DELEGATE.start(), DELEGATE.end());
    if config.protocol < *low {
        return Err(format!(
            "Protocol version '{}' too low. Must be in range: [{low}, {high}]",
            config.protocol
        ));
    }
    if config.protocol > *high {
        return Err(format!(
            "Protocol version '{}' too high. Must be in range: [{low}, {high}]",
            config.protocol
        ));
    }
    if config.user_event_size_limit > USER_EVENT_HARD_LIMIT {
        return Err(format!(
            "user event size limit exceeds limit of {USER_EVENT_HARD_LIMIT} bytes"
        ));
    }
    let meta = tags::write(&config.tags, config.protocol)?;
    let [pmin, pmax, pcur] = PROTOCOL;
    Ok(Facts {
        name: config.name.as_str().into(),
        addr: config.addr,
        port: config.port,
        meta: meta.into(),
        vsn: [pmin, pmax, pcur, *low, *high, config.protocol],
    })
}
