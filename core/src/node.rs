//! swim and serf behind one door: [`Input`] in, [`Effect`] out.
//!
//! A node performs no I/O, asks no clock and draws no randomness but from its seed. Whoever drives
//! it (the tokio driver, the simulator) feeds [`Node::handle`], drains [`Node::poll_effect`] until
//! it is empty, and calls again with [`Input::Tick`] at [`Node::next_deadline`].

mod door;
mod hold;
mod leave;
mod lengths;
pub mod limits;

use std::sync::Arc;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::node::hold::Hold;
use crate::node::leave::Leave;
use crate::serf::measures::SerfMeasures;
use crate::serf::memory::{Marks, MemberRecord, Record};
use crate::serf::{Answer, Ask, Command, Member, MemberStatus, Serf, SerfConfig, Stats, Tags, tags};
use crate::swim::measures::SwimMeasures;
use crate::swim::members::{Facts, State};
use crate::swim::pool::FactsPool;
use crate::swim::queue::Token;
use crate::swim::{self, Swim, SwimConfig};
use crate::time::Time;
use crate::wire::WireCoordinate;
use crate::wire::message::Message;

pub use crate::serf::memory;
pub use crate::serf::{CommandId, Effect, KeyringId};
pub use crate::swim::delegate::{ExchangeId, StreamId};
pub use crate::swim::failure::{Cause, Failure};
pub use door::{Input, NodeConfig, StoreNews};

/// The memberlist versions this node speaks: minimum, maximum, current.
const PROTOCOL: [u8; 3] = [1, 5, 2];

/// The Serf version that brought queries.
const QUERY_PROTOCOL: u8 = 4;

/// The messages of a datagram, of equal pings only the first: one answer says it all.
fn without_repeated_pings<'m, 'b>(messages: &'m [Message<'b>]) -> impl Iterator<Item = &'m Message<'b>> {
    let ping = |message: &'m Message<'b>| match message {
        Message::Ping(ping) => Some((ping.seq_no, ping.source_addr, ping.source_port)),
        _ => None,
    };
    messages.iter().enumerate().filter_map(move |(index, message)| {
        // A datagram has 255 messages at most, and hardly ever two pings.
        let before = || messages[..index].iter().filter_map(ping);
        let repeats = ping(message).is_some_and(|ping| before().any(|earlier| earlier == ping));
        (!repeats).then_some(message)
    })
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
    hold: Hold,
    waits: Vec<Wait>,
    tokens: u64,
    leave: Option<Leave>,
}

impl Node {
    /// A node that is alive and alone, but may remember others from before.
    ///
    /// # Errors
    /// When the configuration cannot work; the texts are Serf's where Serf has them.
    pub fn new(config: NodeConfig, now: Time) -> Result<Node, String> {
        Node::sharing(config, now, FactsPool::default())
    }

    /// As [`Node::new`], for one of many nodes in a process: they hold what members announce only once, in
    /// the pool.
    ///
    /// # Errors
    /// As [`Node::new`].
    pub fn sharing(mut config: NodeConfig, now: Time, pool: FactsPool) -> Result<Node, String> {
        let facts = check(&config)?;
        let memory = std::mem::take(&mut config.memory);
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
                left: config.left,
                rejoin_after_leave: config.rejoin_after_leave,
                replay: config.replay,
                records: config.records,
                seed: rng.random(),
            },
            &memory,
            now,
        );
        let swim = Swim::new(
            SwimConfig {
                facts,
                bind_port: config.bind_port,
                profile: config.profile.clone(),
                overhead: config.seal_overhead + config.label_overhead,
                compress: config.compress,
                // Peers remember the incarnation of before the restart, and believe only a higher one.
                incarnation: memory.marks.incarnation.saturating_add(1),
                gone: memory.members.iter().filter_map(gone).collect(),
                pool,
                seed: rng.random(),
            },
            now,
            &mut serf,
        );
        let hold = Hold::new(config.records, memory.marks, now);
        let mut node = Node {
            config,
            swim,
            serf,
            hold,
            waits: Vec::new(),
            tokens: 0,
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
                self.collect(now);
                // News that comes of it leaves at once, without another wake-up.
                self.swim.handle_tick(now, &mut self.serf);
            }
            Input::Datagram { from, len, messages } => {
                swim.note_arrival(from, len);
                for message in without_repeated_pings(messages) {
                    swim.handle_message(now, from, message, serf);
                }
            }
            Input::Stream { from, id, message } => swim.handle_stream(now, from, id, message, serf),
            Input::Exchange { id, result } => swim.handle_exchange(now, id, result, serf),
            Input::SendFailed { to, reason } => swim.handle_send_failed(now, to, reason, serf),
            Input::Keyring { id, result } => serf.handle_keyring(id, &result),
            Input::Seeds(seeds) => serf.handle_seeds(now, seeds),
            Input::LookedUp(seeds) => serf.handle_looked_up(now, seeds),
            Input::Discovered(addrs) => serf.handle_discovered(now, &addrs),
            Input::Store(news) => {
                self.hold.hear(news);
                if news == StoreNews::WantsEverything {
                    serf.record_everything();
                }
            }
            Input::Command { id, command } => self.handle_command(now, id, command),
        }
        self.collect(now);
    }

    /// Makes other nodes known as alive without a word to anybody, as if they had been met long ago: for
    /// simulated clusters that are too large to form by joining. There are events as for a join.
    pub fn acquaint(&mut self, now: Time, others: &[Arc<Facts>]) {
        self.serf.reserve_members(others.len());
        self.swim.acquaint(now, others, &mut self.serf);
        self.collect(now);
    }

    /// What this node announces about itself.
    pub fn facts(&self) -> Option<&Arc<Facts>> {
        self.swim.facts()
    }

    /// What shall be done next; `None` once all is done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.hold.poll_free() {
                return Some(effect);
            }
            let Some(effect) = self.serf.poll_effect() else {
                return self.hold.poll_commit();
            };
            if let Some(effect) = self.hold.pass(effect) {
                return Some(effect);
            }
        }
    }

    /// Whether all that this node has sent is stored, so that it holds after a restart as well. Not so without a
    /// store, nor after one was too slow or failed, until that has caught up.
    pub fn vouches(&self) -> bool {
        self.hold.vouches()
    }

    /// Whether the reply on this stream waits until what it shows is stored.
    pub fn holds_reply(&self, stream: StreamId) -> bool {
        self.hold.holds_reply(stream)
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = self.waits.iter().map(|wait| wait.deadline).min();
        let leave = self.leave.as_ref().and_then(Leave::deadline);
        let (swim, serf) = (self.swim.next_deadline(), self.serf.next_deadline());
        [swim, serf, waits, leave, self.hold.deadline()]
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

    /// All members, by name, as listeners know them: who was failed and has not answered yet is listed as failed.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.serf.members()
    }

    /// Grows with each change of [`Node::members`], and with what might have been one.
    pub fn members_version(&self) -> u64 {
        self.serf.members_version()
    }

    /// How a member stands among the members, whether listeners know it already or not; `None` if it is not known.
    pub fn status_of(&self, name: &str) -> Option<MemberStatus> {
        self.serf.status_of(name)
    }

    /// How many members this node knows, itself and those that are gone included.
    pub fn known(&self) -> usize {
        self.serf.known()
    }

    /// Figures for operators.
    pub fn stats(&self) -> Stats {
        let stats = self.serf.stats();
        Stats {
            health_score: self.swim.health_score(),
            isolated: self.swim.is_isolated(),
            accused: self.swim.accused(),
            refused_messages: stats.refused_messages + self.swim.refused(),
            ..stats
        }
    }

    /// What was counted and measured since the last call, for telemetry.
    pub fn take_measures(&mut self) -> (SwimMeasures, SerfMeasures) {
        (self.swim.take_measures(), self.serf.take_measures())
    }

    /// The last known network coordinate of a member.
    pub fn coordinate(&self, name: &str) -> Option<WireCoordinate> {
        self.serf.coordinate(name)
    }

    /// The clocks as they are.
    pub fn marks(&self) -> Marks {
        Marks {
            incarnation: self.swim.incarnation(),
            ..self.serf.marks()
        }
    }

    /// The clocks that must be found after a restart, at least, so that none shows what it has shown before.
    /// Below [`Node::marks`] as long as only others were heard.
    pub fn announced(&self) -> Marks {
        Marks {
            incarnation: self.swim.incarnation(),
            ..self.serf.announced()
        }
    }

    /// This node's incarnation.
    pub fn incarnation(&self) -> u32 {
        self.swim.incarnation()
    }

    fn handle_command(&mut self, now: Time, id: CommandId, command: Command) {
        match command {
            Command::Join { targets, ignore_old } => self.serf.join(id, targets, ignore_old),
            Command::Leave => self.begin_leave(now, id),
            Command::Settle => self.hold.give_word(id),
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
            Command::Keys { op, key } => self.serf.key_query(now, id, op, &key),
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

    fn set_tags(&mut self, now: Time, id: CommandId, new: Tags) {
        let timed_out = "timeout waiting for update broadcast";
        // An alive message with new tags would bring back a node that has said it is gone.
        if self.serf.is_leaving() {
            return self.answer(id, Answer::Failed(timed_out.to_owned()));
        }
        match tags::write(&new, self.config.protocol) {
            Ok(meta) => {
                self.config.tags = new;
                // A change that changes nothing is nobody's business.
                if self.swim.facts().is_some_and(|facts| *facts.meta == *meta) {
                    return self.answer(id, Answer::Done);
                }
                let token = self.token();
                self.swim.set_meta(now, meta, token, &mut self.serf);
                let heard = self.swim.has_peers();
                self.wait(now, id, heard.then_some(token), timed_out);
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
        self.serf.answer(id, answer);
    }

    /// Acts on broadcasts that have ended, and passes on to swim what the Serf layer asks of it.
    fn collect(&mut self, now: Time) {
        let mut finished = self.swim.take_finished();
        finished.extend(self.serf.take_finished());
        self.end_waits(now, &finished);
        self.continue_leave(now, &finished);
        while let Some(ask) = self.serf.poll_ask() {
            match ask {
                Ask::Join {
                    id,
                    targets,
                    ignore_old,
                } => self.swim.join(now, id, targets, ignore_old, &mut self.serf),
                Ask::Stream { to, message } => self.swim.send_stream(to, &message, &mut self.serf),
                Ask::Record(name) => {
                    if let Some(record) = self.member_record(now, &name) {
                        self.serf.record(|| record);
                    }
                }
            }
        }
        self.swim.spread(now, &self.serf);
        if self.config.records {
            let (marks, announced) = (self.marks(), self.announced());
            self.hold.look(now, marks, announced);
        }
    }

    /// What is to be remembered of a member: swim knows the incarnation, the Serf layer the rest.
    fn member_record(&self, now: Time, name: &str) -> Option<Record> {
        let record = self.serf.member_record(now, name)?;
        let incarnation = self
            .swim
            .members()
            .by_name(name)
            .map_or(0, |known| known.incarnation);
        Some(Record::Member(MemberRecord {
            incarnation,
            ..record
        }))
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

/// What swim is told of a member that was gone when it was remembered.
fn gone(member: &MemberRecord) -> Option<swim::members::Record> {
    let state = match member.status {
        MemberStatus::Failed => State::Dead,
        MemberStatus::Left => State::Left,
        MemberStatus::Alive | MemberStatus::Leaving => return None,
    };
    (member.incarnation > 0).then(|| swim::members::Record {
        facts: Arc::clone(&member.facts),
        incarnation: member.incarnation,
        state,
        changed: member.since,
    })
}

/// Checks what would otherwise fail later or at somebody else.
fn check(config: &NodeConfig) -> Result<Facts, String> {
    limits::check_name(&config.name)?;
    limits::check_protocol(config.protocol.into())?;
    limits::check_user_event_size(config.user_event_size_limit)?;
    config.profile.check_label(config.label_overhead)?;
    let serf = &config.profile.serf;
    for (interval, name) in [
        (serf.reap_interval, "reap_interval"),
        (serf.reconnect_interval, "reconnect_interval"),
        (serf.queue_check_interval, "queue_check_interval"),
    ] {
        // A timer that is due again at once would never let the node go.
        if interval.is_zero() {
            return Err(format!("{name} is 0, must be longer"));
        }
    }
    let meta = tags::write(&config.tags, config.protocol)?;
    let [pmin, pmax, pcur] = PROTOCOL;
    let (low, high) = limits::SERF_PROTOCOLS.into_inner();
    Ok(Facts {
        name: config.name.as_str().into(),
        addr: config.addr,
        port: config.port,
        meta: meta.into(),
        vsn: [pmin, pmax, pcur, low, high, config.protocol],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::RawAddr;
    use crate::swim::profile::Profile;
    use crate::swim::testing::record;

    fn config() -> NodeConfig {
        let bound = ([10, 0, 0, 1], 7946).into();
        NodeConfig::new("n", bound, Profile::builtin("lan").unwrap(), 1)
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_at_start() {
        type Change = fn(&mut NodeConfig);
        let table: [(Change, &str); 7] = [
            (|c| c.name.clear(), "node name is empty"),
            (
                |c| c.protocol = 1,
                "Protocol version '1' too low. Must be in range: [2, 5]",
            ),
            (
                |c| c.protocol = 6,
                "Protocol version '6' too high. Must be in range: [2, 5]",
            ),
            (
                |c| c.user_event_size_limit = 9217,
                "user event size limit exceeds limit of 9216 bytes",
            ),
            (
                |c| drop(c.tags.insert("k".to_owned(), "v".repeat(512))),
                "Encoded length of tags exceeds limit of 512 bytes",
            ),
            (
                |c| c.profile.serf.reap_interval = Duration::ZERO,
                "reap_interval is 0, must be longer",
            ),
            (
                |c| c.profile.serf.reconnect_interval = Duration::ZERO,
                "reconnect_interval is 0, must be longer",
            ),
        ];
        assert!(Node::new(config(), Time::ZERO).is_ok());
        for (change, text) in table {
            let mut config = config();
            change(&mut config);
            let refused = Node::new(config, Time::ZERO).err();
            assert_eq!(refused.as_deref(), Some(text));
        }
    }

    /// A store that fails at the start and works later is told everything. Without those that have not been met
    /// again, the run after the next restart would look for nobody.
    #[test]
    fn everything_that_must_be_remembered_includes_who_has_not_been_met_again() {
        let member = |name: &str, status| MemberRecord {
            facts: Arc::new(Facts {
                name: name.into(),
                addr: RawAddr::V4([10, 0, 0, 2]),
                port: 7946,
                meta: Default::default(),
                vsn: [1, 5, 2, 2, 5, 5],
            }),
            incarnation: 7,
            status,
            status_ltime: 3,
            since: Time::from_nanos(5),
        };
        let members = vec![
            member("alive", MemberStatus::Alive),
            member("failed", MemberStatus::Failed),
            member("leaving", MemberStatus::Leaving),
            member("left", MemberStatus::Left),
        ];
        let mut config = config();
        config.records = true;
        config.memory.members = members.clone();
        let now = Time::from_nanos(9);
        let mut node = Node::new(config, now).expect("the configuration is right");
        while node.poll_effect().is_some() {}
        node.handle(now, Input::Store(StoreNews::WantsEverything));
        let mut keeper = memory::Keeper::default();
        while let Some(effect) = node.poll_effect() {
            if let Effect::Record(record) = effect {
                keeper.apply(record);
            }
        }
        assert_eq!(keeper.memory().members, members);
    }

    /// Runs a node by its own deadlines until it answers `command`, and says when that was.
    fn answered(node: &mut Node, mut now: Time, command: CommandId) -> (Time, Answer) {
        for _ in 0..100_000 {
            while let Some(effect) = node.poll_effect() {
                match effect {
                    Effect::Answer { id, answer } if id == command => return (now, answer),
                    _ => {}
                }
            }
            now = node
                .next_deadline()
                .expect("a node always waits for something")
                .max(now);
            node.handle(now, Input::Tick);
        }
        panic!("no answer");
    }

    #[test]
    fn news_that_a_tick_brings_leaves_with_it() {
        let mut node = Node::new(config(), Time::ZERO).expect("the configuration is right");
        let others: Vec<_> = (1..9).map(|number| record(number).facts).collect();
        node.acquaint(Time::ZERO, &others);
        let mut sent = 0;
        while let Some(now) = node
            .next_deadline()
            .filter(|due| due.since(Time::ZERO).as_secs() < 20)
        {
            node.handle(now, Input::Tick);
            assert!(
                node.next_deadline().is_none_or(|next| next > now),
                "due again at once"
            );
            while let Some(effect) = node.poll_effect() {
                // Pings have 0 there.
                sent += usize::from(matches!(effect, Effect::Send { plain, .. } if plain[0] != 0));
            }
        }
        assert!(sent > 0, "nobody was suspected");
    }

    #[test]
    fn every_command_is_answered_and_a_lone_leave_takes_the_time_to_spread_alone() {
        let mut node = Node::new(config(), Time::ZERO).expect("the configuration is right");
        let start = Time::ZERO + Duration::from_secs(7);
        let done = Answer::Done;
        let nobody = Answer::Joined {
            contacted: 0,
            errors: Vec::new(),
        };
        let gone = Answer::Failed("Serf can't Join after Leave or Shutdown".to_owned());
        let join = || Command::Join {
            targets: Vec::new(),
            ignore_old: false,
        };
        let force = Command::ForceLeave {
            name: "nobody".to_owned(),
            prune: true,
        };
        for (i, (command, expected, seconds)) in [
            (join(), nobody, 0),
            (Command::SetTags(Tags::new()), done.clone(), 0),
            (force, done.clone(), 0),
            (Command::Leave, done.clone(), 1),
            (Command::Leave, done, 0),
            (join(), gone, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let id = CommandId(i as u64);
            node.handle(start, Input::Command { id, command });
            let (at, answer) = answered(&mut node, start, id);
            assert_eq!(
                (answer, at.since(start)),
                (expected, Duration::from_secs(seconds)),
                "{id:?}"
            );
        }
    }
}
