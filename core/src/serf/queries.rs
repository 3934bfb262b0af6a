//! Queries: asking, being asked, and collecting the answers (docs/protocol.md#b9-queries).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use tracing::{debug, warn};

use super::effect::{CommandId, Effect};
use super::keyring::{KeyOp, KeyReport};
use super::types::{Answer, Event, MemberStatus, QueryKey, QueryParams, QueryUpdate, QueryUpdateKind};
use super::{Ask, Serf, Timer, tags, user_message, verbatim};
use crate::addr::RawAddr;
use crate::bounds::{
    CONFLICT_ANSWER, MAX_OPEN_QUERIES, MAX_OWN_QUERIES, MAX_QUERIES_PER_LTIME, QUERY_TIMEOUT_MAX,
    STREAM_ANSWER_MAX,
};
use crate::re2::{Budget, Filters, Refusal};
use crate::serf::memory::Record;
use crate::swim::members::Facts;
use crate::time::Time;
use crate::wire::{
    FLAG_ACK, FLAG_NO_BROADCAST, FLAG_STREAM_ANSWERS, Filter, Query, QueryResponse, Relay, SerfMessage,
};

/// Asks whose a name is.
pub(super) const CONFLICT_QUERY: &str = "_serf_conflict";

/// Names that begin so are the cluster's own affairs and are never shown to users.
pub const INTERNAL_PREFIX: &str = "_serf_";

/// The oldest memberlist protocol whose nodes understand a relayed response.
const PMAX_RELAY: u8 = 5;

/// An answer that comes when nobody waits for it any more; Serf's text.
pub const PAST_DEADLINE: &str = "failed to respond to key query: response is past the deadline";

/// A second answer to a query; Serf's text.
const ALREADY_SENT: &str = "failed to respond to key query: response already sent";

/// A query of ours that collects answers.
#[derive(Debug)]
pub(super) struct OwnQuery {
    acks: BTreeSet<Box<str>>,
    responses: BTreeSet<Box<str>>,
    /// More answers than members there were at the start are not counted.
    capacity: usize,
    kind: OwnQueryKind,
}

/// Who wants the answers to a query of ours.
#[derive(Debug)]
pub(super) enum OwnQueryKind {
    /// The user who asked.
    User,
    /// The vote about our name.
    Vote,
    /// A key operation that a user asked for.
    Keys {
        /// What is answered at the end.
        command: CommandId,
        /// What members have said so far.
        report: KeyReport,
    },
}

/// A query of somebody else that we may still answer.
#[derive(Clone, Debug)]
pub(super) struct OpenQuery {
    addr: RawAddr,
    port: u16,
    source: Box<str>,
    /// So long may an answer be to an address at which the asker is no known member: about as many bytes as the query
    /// had itself. Whoever asks about a conflict over its own name is known elsewhere, and waits for the answers.
    len: usize,
    relay_factor: u8,
    /// Whether the asker takes large answers by stream.
    pub takes_streams: bool,
    /// Whether our answer has been sent. The query stays open for the sake of a clear error.
    answered: bool,
}

/// The default time to collect answers, which grows with the cluster as gossip does.
pub fn default_timeout(gossip_interval: Duration, mult: u32, members: usize) -> Duration {
    let digits = (members as f64 + 1.0).log10().ceil() as u32;
    gossip_interval.saturating_mul(mult).saturating_mul(digits.max(1))
}

impl Serf {
    /// Asks the cluster. Answers come as [`Effect::QueryUpdate`]s, the last of which is `Done`.
    ///
    /// # Errors
    /// When the encoded query is too large (Serf's text), or too many are under way.
    pub fn query(&mut self, now: Time, params: &QueryParams) -> Result<QueryKey, String> {
        self.start_query(now, params, OwnQueryKind::User)
    }

    pub(super) fn start_query(
        &mut self,
        now: Time,
        params: &QueryParams,
        kind: OwnQueryKind,
    ) -> Result<QueryKey, String> {
        if self.own_queries.len() >= MAX_OWN_QUERIES {
            return Err(format!(
                "{MAX_OWN_QUERIES} queries are under way already; wait until some are over"
            ));
        }
        let timeout = params
            .timeout
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or_else(|| self.query_timeout());
        let filters = encode_filters(params);
        let facts = self.config.facts.clone();
        let query = Query {
            ltime: self.query_clock.time(),
            id: self.rng.random_range(0..1 << 31),
            addr: facts.addr.as_bytes(),
            port: facts.port,
            source_node: &facts.name,
            filters: filters.iter().map(Vec::as_slice).collect(),
            flags: FLAG_STREAM_ANSWERS | if params.request_ack { FLAG_ACK } else { 0 },
            relay_factor: params.relay_factor,
            timeout_ns: i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
            name: &params.name,
            payload: &params.payload,
        };
        let key = (query.ltime, query.id);
        let message = user_message(&SerfMessage::Query(query.clone()));
        let limit = self.config.query_size_limit;
        if message.len() - 1 > limit {
            return Err(format!("query exceeds limit of {limit} bytes"));
        }
        is_addressed(&facts, &mut self.filters, &query.filters)?;
        self.own_queries.insert(
            key,
            OwnQuery {
                acks: BTreeSet::new(),
                responses: BTreeSet::new(),
                capacity: self.members.len(),
                kind,
            },
        );
        self.timers.set(now + timeout, Timer::OwnQuery(key));
        self.handle_query(now, &query);
        self.announced.query = self.query_clock.time();
        self.queues.queries.push(None, message, None);
        Ok(key)
    }

    fn query_timeout(&self) -> Duration {
        let here = self.members.values().filter(|entry| !entry.is_gone()).count();
        let profile = &self.config.profile;
        default_timeout(profile.gossip_interval, profile.serf.query_timeout_mult, here)
    }

    pub(super) fn end_own_query(&mut self, key: QueryKey) {
        match self.own_queries.remove(&key).map(|query| query.kind) {
            Some(OwnQueryKind::User) => self.update(key, QueryUpdateKind::Done),
            Some(OwnQueryKind::Vote) => self.end_vote(key),
            Some(OwnQueryKind::Keys { command, report }) => self.answer(command, Answer::Keys(report)),
            None => {}
        }
    }

    fn update(&mut self, (ltime, id): QueryKey, kind: QueryUpdateKind) {
        self.effects
            .push_back(Effect::QueryUpdate(QueryUpdate { ltime, id, kind }));
    }

    pub(super) fn handle_query_response(&mut self, response: &QueryResponse<'_>) {
        let key = (response.ltime, response.id);
        let Some(query) = self.own_queries.get_mut(&key) else {
            debug!(target: "serf", "reply for non-running query (LTime: {}, ID: {})", key.0, key.1);
            return;
        };
        let ack = response.flags & FLAG_ACK != 0;
        let measures = &mut self.measures;
        let (seen, new, duplicate) = if ack {
            (&mut query.acks, &mut measures.acks, &mut measures.duplicate_acks)
        } else {
            (
                &mut query.responses,
                &mut measures.responses,
                &mut measures.duplicate_responses,
            )
        };
        // Relays bring the same answer more than once.
        if seen.len() >= query.capacity || !seen.insert(response.from.into()) {
            *duplicate += 1;
            return;
        }
        *new += 1;
        let from = response.from.to_owned();
        match (&mut query.kind, ack) {
            (OwnQueryKind::User, true) => self.update(key, QueryUpdateKind::Ack { from }),
            (OwnQueryKind::User, false) => {
                self.update(
                    key,
                    QueryUpdateKind::Response {
                        from,
                        payload: response.payload.to_vec(),
                    },
                );
            }
            (OwnQueryKind::Vote, false) => self.count_vote(key, response.payload),
            (OwnQueryKind::Keys { report, .. }, false) => {
                if Serf::count_key_response(report, &from, response.payload) {
                    self.end_own_query(key);
                }
            }
            (OwnQueryKind::Vote | OwnQueryKind::Keys { .. }, true) => {}
        }
    }

    /// Takes a query; says whether it was new, and is to be passed on.
    pub(super) fn handle_query(&mut self, now: Time, query: &Query<'_>) -> bool {
        if !self.query_clock.accepts(query.ltime) {
            self.refuse(format_args!(
                "query '{}' at Lamport time {}: too far ahead",
                query.name, query.ltime
            ));
            return false;
        }
        self.query_clock.witness(query.ltime);
        if query.ltime < self.query_min_time || !self.remember_query(query) {
            return false;
        }
        self.measures.queries += 1;
        let pass_on = query.flags & FLAG_NO_BROADCAST == 0;
        match is_addressed(&self.config.facts, &mut self.filters, &query.filters) {
            Ok(true) => {}
            Ok(false) => return pass_on,
            Err(reason) => {
                self.refuse(format_args!("to answer query '{}': {reason}", query.name));
                return pass_on;
            }
        }
        let Some(addr) = RawAddr::from_bytes(query.addr) else {
            return pass_on;
        };
        let open = OpenQuery {
            addr,
            port: query.port,
            source: query.source_node.into(),
            len: length(query).max(if query.name == CONFLICT_QUERY {
                CONFLICT_ANSWER
            } else {
                0
            }),
            relay_factor: query.relay_factor,
            takes_streams: query.flags & FLAG_STREAM_ANSWERS != 0,
            answered: false,
        };
        let key = (query.ltime, query.id);
        if query.flags & FLAG_ACK != 0 {
            self.acknowledge(key, &open);
        }
        self.deliver_query(now, key, query, open);
        pass_on
    }

    fn remember_query(&mut self, query: &Query<'_>) -> bool {
        let size = self.queries.len() as u64;
        let now = self.query_clock.time();
        if now > size && query.ltime < now - size {
            debug!(target: "serf", "received old query {} from time {} (current: {now})", query.name, query.ltime);
            return false;
        }
        let place = (query.ltime % size) as usize;
        let Some((ltime, ids)) = self.queries.get_mut(place) else {
            return false;
        };
        let old = (*ltime != query.ltime).then(|| std::mem::replace(ltime, query.ltime));
        if old.is_some() {
            ids.clear();
        }
        if ids.contains(&query.id) {
            return false;
        }
        let has_room = ids.len() < MAX_QUERIES_PER_LTIME;
        if has_room {
            ids.push(query.id);
            if let Some(old) = old {
                self.record(|| Record::ForgetQueries(old));
            }
            self.record(|| Record::Query((query.ltime, query.id)));
        } else {
            self.refuse(format_args!(
                "query '{}': {MAX_QUERIES_PER_LTIME} others have its Lamport time",
                query.name
            ));
        }
        has_room
    }

    fn deliver_query(&mut self, now: Time, key: QueryKey, query: &Query<'_>, open: OpenQuery) {
        if let Some(internal) = query.name.strip_prefix(INTERNAL_PREFIX) {
            self.answer_internal(internal, key, query, open);
            return;
        }
        let timeout =
            Duration::from_nanos(u64::try_from(query.timeout_ns).unwrap_or(0)).min(QUERY_TIMEOUT_MAX);
        if self.open_queries.len() >= MAX_OPEN_QUERIES {
            // The oldest goes: it is the least likely to be answered still.
            self.open_queries.pop_first();
            self.refuse(format_args!(
                "an old query, as {MAX_OPEN_QUERIES} newer ones are open"
            ));
        }
        self.open_queries.insert(key, open);
        self.timers.set(now + timeout, Timer::OpenQuery(key));
        self.tell(Event::Query {
            ltime: query.ltime,
            id: query.id,
            name: query.name.to_owned(),
            payload: query.payload.to_vec(),
            source: query.source_node.to_owned(),
        });
    }

    fn answer_internal(&mut self, name: &str, key: QueryKey, query: &Query<'_>, open: OpenQuery) {
        if let Some(op) = KeyOp::from_query_name(name) {
            return self.handle_key_query(key, op, query.payload, open);
        }
        match name {
            // The ack, if asked for, was the whole answer.
            "ping" => {}
            "conflict" => {
                if let Some(answer) = self.conflict_answer(query.payload) {
                    self.send_answer(key, &open, &answer);
                }
            }
            _ => warn!(target: "serf", "Unhandled internal query '{}'", query.name),
        }
    }

    fn send_answer(&mut self, key: QueryKey, open: &OpenQuery, payload: &[u8]) {
        if let Err(reason) = self.send_response(key, open, 0, payload) {
            warn!(target: "serf", "{reason}");
        }
    }

    /// Answers a query that was delivered as an event; each query takes one answer.
    ///
    /// # Errors
    /// When it is over, was answered already, or the answer is too large; the texts are Serf's.
    pub fn respond(&mut self, key: QueryKey, payload: &[u8]) -> Result<(), String> {
        let Some(mut open) = self.open_queries.remove(&key) else {
            return Err(PAST_DEADLINE.to_owned());
        };
        let sent = if open.answered {
            Err(ALREADY_SENT.to_owned())
        } else {
            self.send_response(key, &open, 0, payload)
        };
        open.answered |= sent.is_ok();
        self.open_queries.insert(key, open);
        sent
    }

    fn acknowledge(&mut self, key: QueryKey, open: &OpenQuery) {
        if let Err(reason) = self.send_response(key, open, FLAG_ACK, &[]) {
            warn!(target: "serf", "failed to send ack: {reason}");
        }
    }

    pub(super) fn send_response(
        &mut self,
        key: QueryKey,
        open: &OpenQuery,
        flags: u32,
        payload: &[u8],
    ) -> Result<(), String> {
        let name = Arc::clone(&self.config.facts.name);
        let response = QueryResponse {
            ltime: key.0,
            id: key.1,
            from: &name,
            flags,
            payload,
        };
        let message = user_message(&SerfMessage::QueryResponse(response));
        let to = open.addr.socket(open.port);
        let limit = self.config.query_response_size_limit;
        // A query can name any address, and an answer comes from every node.
        let is_member = self
            .members
            .by_name(&open.source)
            .is_some_and(|entry| entry.facts.addr.ip() == to.ip());
        if !is_member && message.len() > open.len {
            self.refused += 1;
            return Err(format!(
                "failed to respond to key query: no member '{}' is known at {to}, and the answer is longer than \
                 the query",
                open.source
            ));
        }
        if message.len() - 1 > limit {
            if open.takes_streams && is_member && message.len() - 1 <= STREAM_ANSWER_MAX {
                let message = message[1..].to_vec();
                self.asks.push_back(Ask::Stream { to, message });
                return Ok(());
            }
            let limit = if open.takes_streams {
                STREAM_ANSWER_MAX
            } else {
                limit
            };
            return Err(format!(
                "failed to respond to key query: response exceeds limit of {limit} bytes"
            ));
        }
        let relayed = self.relays(open, &message[1..]);
        self.effects.push_back(send(to, message));
        self.effects.extend(relayed?);
        Ok(())
    }

    /// The same answer, wrapped for some other members to pass on.
    fn relays(&mut self, open: &OpenQuery, inner: &[u8]) -> Result<Vec<Effect>, String> {
        let wanted = usize::from(open.relay_factor);
        if wanted == 0 || self.members.len() < wanted + 1 {
            return Ok(Vec::new());
        }
        let relay = Relay {
            dest_addr: open.addr.as_bytes(),
            dest_port: open.port,
            dest_name: &open.source,
            inner,
        };
        let message = user_message(&SerfMessage::Relay(relay));
        let limit = self.config.query_response_size_limit;
        if message.len() - 1 > limit {
            return Err(format!("relayed response exceeds limit of {limit} bytes"));
        }
        let able: Vec<SocketAddr> = self
            .members
            .values()
            .filter(|entry| entry.status == MemberStatus::Alive && entry.facts.pmax() >= PMAX_RELAY)
            .filter(|entry| !self.is_me(&entry.facts.name))
            .map(|entry| entry.facts.socket())
            .collect();
        let chosen: Vec<SocketAddr> = able.sample(&mut self.rng, wanted).copied().collect();
        Ok(chosen.into_iter().map(|to| send(to, message.clone())).collect())
    }

    /// Passes a response on. Only to members: this node does not send packets to whatever address a
    /// stranger names.
    pub(super) fn handle_relay(&mut self, relay: &Relay<'_>) {
        let Some(to) = RawAddr::from_bytes(relay.dest_addr).map(|addr| addr.socket(relay.dest_port)) else {
            return self.refuse(format_args!("a relay without a destination"));
        };
        if self.members.values().any(|entry| entry.facts.socket() == to) {
            self.effects.push_back(send(to, verbatim(relay.inner)));
        } else {
            self.refuse(format_args!("a relay to {to}, which is no member"));
        }
    }
}

/// Whether all filters let a node with these facts answer. One that cannot be read matches nobody. The error says
/// that they take too much work.
fn is_addressed(facts: &Facts, compiled: &mut Filters, filters: &[&[u8]]) -> Result<bool, String> {
    let own = tags::read(&facts.meta);
    let mut budget = Budget::default();
    // What comes first does not spare the others: whether a query is refused depends on the query alone.
    let mut addressed = true;
    for filter in filters {
        match Filter::decode(filter) {
            Ok(Filter::Nodes(names)) => addressed &= names.contains(&&*facts.name),
            Ok(Filter::Tag { tag, expr }) => {
                let value = own.get(tag).map_or("", String::as_str);
                match compiled.compile(expr, &mut budget) {
                    Ok(regex) => addressed &= regex.is_match(value),
                    Err(Refusal::TooMuch) => return Err(TOO_MUCH_WORK.to_owned()),
                    Err(Refusal::Malformed(error)) => {
                        warn!(target: "serf", "failed to evaluate tag filter '{expr}': {error}");
                        addressed = false;
                    }
                }
            }
            Err(error) => {
                warn!(target: "serf", "failed to read a query filter: {error}");
                addressed = false;
            }
        }
    }
    Ok(addressed)
}

/// Filters that no member would evaluate.
const TOO_MUCH_WORK: &str = "its tag filters take too much work: ask with fewer, or with smaller repetitions";

/// How many bytes a query has at least: what differs, and the names of all fields.
fn length(query: &Query<'_>) -> usize {
    const NAMES: usize = 90;
    let filters: usize = query.filters.iter().map(|filter| filter.len()).sum();
    NAMES + query.name.len() + query.payload.len() + query.source_node.len() + filters
}

/// A user message by datagram. No CRC: memberlist sends one only with gossip.
fn send(to: SocketAddr, plain: Vec<u8>) -> Effect {
    Effect::Send {
        to,
        plain,
        crc: false,
    }
}

fn encode_filters(params: &QueryParams) -> Vec<Vec<u8>> {
    let mut filters = Vec::new();
    if !params.filter_nodes.is_empty() {
        filters.push(Filter::Nodes(
            params.filter_nodes.iter().map(String::as_str).collect(),
        ));
    }
    filters.extend(
        params
            .filter_tags
            .iter()
            .map(|(tag, expr)| Filter::Tag { tag, expr }),
    );
    filters
        .iter()
        .map(|filter| {
            let mut out = Vec::new();
            filter.encode(&mut out);
            out
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timeout_matches_the_table() {
        let lan = Duration::from_millis(200);
        for (members, millis) in [
            (0, 3200),
            (1, 3200),
            (9, 3200),
            (10, 6400),
            (99, 6400),
            (100, 9600),
        ] {
            assert_eq!(
                default_timeout(lan, 16, members),
                Duration::from_millis(millis),
                "{members} members"
            );
        }
        assert_eq!(
            default_timeout(Duration::from_millis(500), 16, 5),
            Duration::from_secs(8)
        );
        assert_eq!(
            default_timeout(Duration::from_millis(100), 16, 5),
            Duration::from_millis(1600)
        );
    }
}
