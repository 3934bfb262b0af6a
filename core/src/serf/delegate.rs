//! What swim tells the Serf layer, and asks of it (docs/protocol.md#b5-member-table).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::catch_up::Source;
use super::coordinate;
use super::effect::Effect;
use super::members::Entry;
use super::types::{Event, MemberEventKind, MemberStatus};
use super::{Serf, verbatim};
use crate::addr::RawAddr;
use crate::serf::members::MemberId;
use crate::swim::delegate::{Delegate, ExchangeId, JoinId, StreamId};
use crate::swim::failure::Failure;
use crate::swim::members::{Facts, State};
use crate::swim::packet::PacketBuilder;
use crate::swim::queue::Pace;
use crate::time::Time;
use crate::wire::{SerfMessage, WireCoordinate};

impl Delegate for Serf {
    fn send(&mut self, to: SocketAddr, plain: Vec<u8>, crc: bool) {
        self.effects.push_back(Effect::Send { to, plain, crc });
    }

    fn exchange(
        &mut self,
        id: ExchangeId,
        to: SocketAddr,
        plain: Vec<u8>,
        expect_reply: bool,
        timeout: Duration,
    ) {
        self.effects.push_back(Effect::Exchange {
            id,
            to,
            plain,
            expect_reply,
            timeout,
        });
    }

    fn reply(&mut self, id: StreamId, plain: Vec<u8>) {
        self.effects.push_back(Effect::Reply { id, plain });
    }

    fn join_ended(&mut self, now: Time, id: JoinId, contacted: usize, errors: Vec<(SocketAddr, Failure)>) {
        self.end_join(now, id, contacted, errors);
    }

    fn member_joined(&mut self, now: Time, facts: &Arc<Facts>) -> bool {
        let doubtful = self.status_of(&facts.name) == Some(MemberStatus::Failed);
        let id = match self.members.find(&facts.name) {
            Some(id) => {
                if let Some(entry) = self.members.get_mut(id) {
                    entry.facts = Arc::clone(facts);
                    entry.status = MemberStatus::Alive;
                }
                self.gone_since.remove(&id);
                id
            }
            None => {
                // An intent that came before the node was known counts now.
                let (status, status_ltime) = match self.intents.get(&*facts.name) {
                    Some(intent) if intent.leaves => (MemberStatus::Leaving, intent.ltime),
                    Some(intent) => (MemberStatus::Alive, intent.ltime),
                    None => (MemberStatus::Alive, 0),
                };
                self.make_room_for_member();
                self.members.insert(Entry {
                    facts: Arc::clone(facts),
                    status,
                    status_ltime,
                })
            }
        };
        self.record_member(id);
        if doubtful {
            debug!(target: "serf", "{} says that it lives; waiting for an answer of it", facts.name);
            self.unannounced.insert(id);
        } else {
            info!(target: "serf", "EventMemberJoin: {} {}", facts.name, facts.addr);
            self.emit_member(MemberEventKind::Join, id);
        }
        self.note_company(now);
        doubtful
    }

    fn member_answered(&mut self, _now: Time, facts: &Arc<Facts>) {
        let id = self.members.find(&facts.name);
        if let Some(id) = id.filter(|id| self.unannounced.remove(id)) {
            self.answered += 1;
            info!(target: "serf", "EventMemberJoin: {} {}", facts.name, facts.addr);
            self.emit_member(MemberEventKind::Join, id);
        }
    }

    /// Serf lists a member as failed whose leave intent it has missed. Here its last word counts as well.
    fn member_gone(&mut self, now: Time, facts: &Arc<Facts>, gone: State) {
        let Some(id) = self.members.find(&facts.name) else {
            return;
        };
        let Some(entry) = self.members.get_mut(id) else {
            return;
        };
        let (status, kind) = match (entry.status, gone) {
            (MemberStatus::Leaving, _) | (MemberStatus::Alive | MemberStatus::Failed, State::Left) => {
                (MemberStatus::Left, MemberEventKind::Leave)
            }
            (MemberStatus::Alive, _) => (MemberStatus::Failed, MemberEventKind::Failed),
            (MemberStatus::Left | MemberStatus::Failed, _) => return,
        };
        if !entry.is_gone() {
            self.gone_since.insert(id, now);
        }
        entry.status = status;
        self.record_member(id);
        match (kind, self.unannounced.remove(&id)) {
            // For the listeners it is failed already.
            (MemberEventKind::Failed, true) => {
                debug!(target: "serf", "{} has failed again before it answered", facts.name)
            }
            (MemberEventKind::Leave, _) => {
                info!(target: "serf", "EventMemberLeave: {} {}", facts.name, facts.addr);
                self.emit_member(kind, id);
            }
            _ => {
                info!(target: "serf", "EventMemberFailed: {} {}", facts.name, facts.addr);
                self.emit_member(kind, id);
            }
        }
        self.note_company(now);
    }

    fn member_updated(&mut self, _now: Time, facts: &Arc<Facts>) {
        let Some(id) = self.members.find(&facts.name) else {
            return;
        };
        if let Some(entry) = self.members.get_mut(id) {
            entry.facts = Arc::clone(facts);
        }
        if self.is_me(&facts.name) {
            self.config.facts = (**facts).clone();
        }
        self.record_member(id);
        // Who is not announced yet will be with what it says by then.
        if !self.unannounced.contains(&id) {
            info!(target: "serf", "EventMemberUpdate: {}", facts.name);
            self.emit_member(MemberEventKind::Update, id);
        }
    }

    fn name_conflict(&mut self, now: Time, known: &Facts, addr: RawAddr, port: u16) {
        self.handle_name_conflict(now, known, addr, port);
    }

    fn isolation_changed(&mut self, _now: Time, isolated: bool) {
        if isolated {
            warn!(target: "serf", "Heard nothing from several members in a row, and from few others or nobody: this host may be cut off, and its list of members out of date");
        } else {
            info!(target: "serf", "Heard from other members again, or all who are silent are listed as failed: this host is not cut off any more");
        }
        self.tell(Event::Isolation { isolated });
    }

    fn pinged(&mut self, now: Time, by: &str, at: SocketAddr) {
        self.note_pinger(now, by, at);
    }

    fn ack_payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if !self.config.disable_coordinates {
            self.coordinates.own().encode_payload(&mut payload);
        }
        payload
    }

    fn write_digest(&self, out: &mut Vec<u8>) {
        self.write_event_digest(out);
    }

    fn agrees(&self, digest: &[u8]) -> bool {
        self.knows_events_of(digest)
    }

    fn ping_answered(&mut self, _now: Time, facts: &Facts, rtt: Duration, payload: &[u8]) {
        if self.config.disable_coordinates {
            return;
        }
        match WireCoordinate::decode_payload(payload) {
            Ok(Some(coordinate)) => self.observe(&facts.name, &coordinate, rtt),
            Ok(None) => {}
            Err(error) => self.refuse(format_args!("the coordinate of {}: {error}", facts.name)),
        }
    }

    fn round_trip(&self, node: &str) -> Option<Duration> {
        let (own, other) = (self.coordinates.own(), self.coordinates.of(node)?);
        Duration::try_from_secs_f64(coordinate::distance(own, other)).ok()
    }

    fn user_message(&mut self, now: Time, bytes: &[u8]) {
        self.measures.received.add(bytes.len() as f64);
        let message = match SerfMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return self.refuse(format_args!("a message: {error}")),
        };
        match &message {
            SerfMessage::Leave(intent) => {
                if self.handle_leave_intent(now, intent) {
                    self.queue_intent(intent.node, intent.prune, verbatim(bytes), None);
                } else {
                    self.spare_intent(intent.node, bytes);
                }
            }
            SerfMessage::Join(intent) => {
                if self.handle_join_intent(now, intent) {
                    self.queue_intent(intent.node, false, verbatim(bytes), None);
                } else {
                    self.spare_intent(intent.node, bytes);
                }
            }
            SerfMessage::UserEvent(event) => {
                if !self.waits_for_older(event.ltime, bytes, Source::Gossip) && self.handle_user_event(event)
                {
                    self.queues.events.push(None, verbatim(bytes), None);
                }
            }
            SerfMessage::Query(query) => {
                if self.handle_query(now, query) {
                    self.queues.queries.push(None, verbatim(bytes), None);
                }
            }
            SerfMessage::QueryResponse(response) => self.handle_query_response(response),
            SerfMessage::Relay(relay) => self.handle_relay(relay),
            SerfMessage::PushPull(_)
            | SerfMessage::ConflictResponse(_)
            | SerfMessage::KeyRequest(_)
            | SerfMessage::KeyResponse(_) => {
                warn!(target: "serf", "Received message of a type that does not travel alone");
                self.refused += 1;
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let queues = &self.queues;
        queues.intents.is_empty() && queues.queries.is_empty() && queues.events.is_empty()
    }

    fn has_due(&self, pace: Pace) -> bool {
        let queues = &self.queues;
        let limit = self.retransmit_limit();
        queues.intents.has_due(pace, limit)
            || queues.queries.has_due(pace, limit)
            || queues.events.has_due(pace, limit)
    }

    fn fill(&mut self, packet: &mut PacketBuilder, pace: Pace) -> bool {
        self.fill_packet(packet, pace)
    }

    fn local_state(&self) -> Vec<u8> {
        self.encode_state()
    }

    fn merge_state(&mut self, now: Time, state: &[u8], ignore_old: bool) {
        self.merge_remote_state(now, state, ignore_old);
    }
}

impl Serf {
    /// Learns from a round trip, and measures what that did.
    fn observe(&mut self, name: &Arc<str>, other: &WireCoordinate, rtt: Duration) {
        let (before, rejected) = (*self.coordinates.own(), self.coordinates.rejected());
        self.coordinates.observe(name, other, rtt);
        self.measures.round_trips.add(rtt);
        self.measures.zero_round_trips += u64::from(rtt.is_zero());
        if self.coordinates.rejected() > rejected {
            self.measures.rejected_coordinates += 1;
        } else {
            let moved = coordinate::distance(&before, self.coordinates.own());
            self.measures.adjustment_ms.add(moved * 1e3);
        }
    }

    pub(super) fn emit_member(&mut self, kind: MemberEventKind, id: MemberId) {
        if let Some(entry) = self.members.get(id) {
            let members = vec![Arc::new(entry.snapshot())];
            self.tell(Event::Member { kind, members });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serf::memory::Memory;
    use crate::serf::restart::tests::restarted;
    use crate::swim::testing::{alive, start};
    use crate::wire::message::{Dead, Message};

    /// What becomes of a member of whom these say that it is gone, and how often that is an event.
    fn after(sayers: &[&str]) -> (Option<MemberStatus>, Vec<MemberEventKind>) {
        let mut serf = restarted(&Memory::default());
        let (now, source) = (Time::ZERO, "10.0.0.9:7946".parse().expect("an address"));
        let (mut swim, _) = start(1);
        let mut hear = |message: &Message<'_>| swim.handle_message(now, source, message, &mut serf);
        hear(&Message::Alive(alive("b", 2, 1)));
        for from in sayers {
            let incarnation = 1;
            hear(&Message::Dead(Dead {
                incarnation,
                node: "b",
                from,
            }));
        }
        let status = serf.members.by_name("b").map(|entry| entry.status);
        let effects = std::iter::from_fn(|| serf.poll_effect());
        let kinds = effects.filter_map(|effect| match effect {
            Effect::Event(event) => match &*event {
                Event::Member { kind, .. } => Some(*kind),
                _ => None,
            },
            _ => None,
        });
        (status, kinds.collect())
    }

    #[test]
    fn the_last_word_of_a_member_is_a_leave_whatever_else_was_missed_or_heard() {
        use MemberEventKind::{Failed, Join, Leave};
        assert_eq!(after(&["c"]), (Some(MemberStatus::Failed), vec![Join, Failed]));
        assert_eq!(after(&["b"]), (Some(MemberStatus::Left), vec![Join, Leave]));
        assert_eq!(
            after(&["b", "c", "b"]),
            (Some(MemberStatus::Left), vec![Join, Leave])
        );
        let late = (Some(MemberStatus::Left), vec![Join, Failed, Leave]);
        assert_eq!(after(&["c", "b", "b"]), late);
    }
}
