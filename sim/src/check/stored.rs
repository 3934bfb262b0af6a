//! What a restart keeps: a node's word, what it has handled, and that the disk hears of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Checker, Sight};
use crate::Power;
use crate::disk::Disk;
use crate::traffic::Tapped;
use crate::{HostId, World};
use fyrd_core::node::memory::Marks;
use fyrd_core::serf::Event;
use fyrd_core::time::Time;
use fyrd_core::wire::{Message, Scratch, SerfMessage, StreamDecoder, StreamMessage, decode_datagram};

/// Incarnation and Lamport times never run back behind anything that the node has sent, whenever it crashes.
///
/// It is held to what stands in its packets, so the world must be tapped. A node whose disk was too slow or
/// failed has gone on without it, and is excused until the disk has caught up.
#[derive(Debug, Default)]
pub struct KeepsWord {
    /// By host: its life, and the clocks that a later life must begin with, at least.
    shown: BTreeMap<HostId, (u32, Marks)>,
    /// All events that were ever seen in a packet. Whoever sends one first has said it.
    events: BTreeSet<(u64, String, Vec<u8>)>,
}

impl KeepsWord {
    /// Compares a life's beginning with what was sent before.
    fn begin(&mut self, world: &World, id: HostId, life: u32, report: &mut Vec<String>) {
        let host = world.host(id);
        let (known, shown) = self.shown.entry(id).or_default();
        if *known == life {
            return;
        }
        *known = life;
        if !host.config.records || !host.vouched {
            *shown = Marks::default();
            return;
        }
        for (what, before, born) in [
            (
                "incarnation",
                u64::from(shown.incarnation) + 1,
                u64::from(host.born.incarnation),
            ),
            ("member time", shown.member, host.born.member),
            ("event time", shown.event, host.born.event),
            ("query time", shown.query, host.born.query),
        ] {
            if born < before {
                report.push(format!(
                    "{} begins anew at {what} {born}, and must be at {before} after what it has sent",
                    host.name()
                ));
            }
        }
    }

    fn read_packet(&mut self, name: &str, packet: &Tapped) {
        let mut marks = Marks::default();
        if packet.is_datagram {
            let mut scratch = Scratch::default();
            let Ok(datagram) = decode_datagram(&packet.plain, &mut scratch) else {
                return;
            };
            for message in &datagram.messages {
                match message {
                    Message::Alive(alive) if alive.node == name => marks.incarnation = alive.incarnation,
                    Message::User(message) => self.read_serf(name, message, &mut marks),
                    _ => {}
                }
            }
        } else {
            let mut decoder = StreamDecoder::default();
            decoder.push(&packet.plain);
            match decoder.message() {
                Ok(StreamMessage::PushPull(state)) => {
                    let own = state.nodes.iter().find(|node| node.name == name);
                    marks.incarnation = own.map_or(0, |node| node.incarnation);
                    self.read_serf(name, state.user_state, &mut marks);
                }
                Ok(StreamMessage::User(message)) => self.read_serf(name, message, &mut marks),
                _ => {}
            }
        }
        let (_, shown) = self.shown.entry(packet.from).or_default();
        shown.incarnation = shown.incarnation.max(marks.incarnation);
        shown.member = shown.member.max(marks.member);
        shown.event = shown.event.max(marks.event);
        shown.query = shown.query.max(marks.query);
    }

    /// A stamp is a clock before it moves on; a whole state shows the clocks themselves.
    fn read_serf(&mut self, name: &str, message: &[u8], marks: &mut Marks) {
        match SerfMessage::decode(message) {
            Ok(SerfMessage::Join(join)) if join.node == name => {
                marks.member = marks.member.max(join.ltime + 1);
            }
            Ok(SerfMessage::Query(query)) if query.source_node == name => {
                marks.query = marks.query.max(query.ltime + 1);
            }
            Ok(SerfMessage::UserEvent(event)) => {
                let key = (event.ltime, event.name.to_owned(), event.payload.to_vec());
                if self.events.insert(key) {
                    marks.event = marks.event.max(event.ltime + 1);
                }
            }
            Ok(SerfMessage::PushPull(state)) => {
                marks.member = marks.member.max(state.ltime);
                marks.event = marks.event.max(state.event_ltime);
                marks.query = marks.query.max(state.query_ltime);
                for slot in state.events.iter().flatten() {
                    let keys = slot
                        .events
                        .iter()
                        .map(|event| (slot.ltime, event.name.to_owned(), event.payload.to_vec()));
                    self.events.extend(keys);
                }
            }
            _ => {}
        }
    }
}

impl Checker for KeepsWord {
    fn promise(&self) -> &'static str {
        "clocks never run back behind anything that was sent"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for packet in sight.packets {
            self.begin(sight.world, packet.from, packet.life, report);
            self.read_packet(sight.name(packet.from), packet);
        }
        for id in sight.world.hosts() {
            self.begin(sight.world, id, sight.standing(id).life, report);
        }
    }
}

/// An event or query that was handled before the last flush is not handled again.
#[derive(Debug, Default)]
pub struct HandledOnce {
    /// By host: how many of its events have been read.
    read: BTreeMap<HostId, usize>,
    /// The place of each among the events of its host.
    handled: BTreeMap<(HostId, What), usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Event(u64, String, Vec<u8>),
    Query(u64, u32),
}

impl Checker for HandledOnce {
    fn promise(&self) -> &'static str {
        "what was stored as handled is not handled again"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for id in sight.world.hosts() {
            let host = sight.world.host(id);
            let read = self.read.insert(id, host.events.len()).unwrap_or(0);
            if !host.config.records {
                continue;
            }
            for (place, (_, event)) in host.events.iter().enumerate().skip(read) {
                let what = match &**event {
                    Event::User {
                        ltime, name, payload, ..
                    } => What::Event(*ltime, name.clone(), payload.clone()),
                    Event::Query { ltime, id, .. } => What::Query(*ltime, *id),
                    Event::Member { .. } | Event::Isolation { .. } => continue,
                };
                let before = self.handled.insert((id, what.clone()), place);
                if before.is_some_and(|before| !host.has_forgotten(before)) {
                    let name = host.name();
                    report.push(match what {
                        What::Event(ltime, event, _) => {
                            format!("{name} handled event '{event}' ({ltime}) again")
                        }
                        What::Query(ltime, query) => format!("{name} handled query {query} ({ltime}) again"),
                    });
                }
            }
        }
    }
}

/// What a node knows reaches a disk that works, and does so again after it has failed.
#[derive(Debug, Default)]
pub struct Recorded {
    /// By host: its life, and the clocks that were seen at this time and are still to come.
    awaited: BTreeMap<HostId, (u32, Time, Marks)>,
}

/// Longer than a flush of a slow disk takes, the one before it, and the pause between them.
const UNTIL_STORED: Duration = Duration::from_secs(3);

impl Checker for Recorded {
    fn promise(&self) -> &'static str {
        "what a node knows reaches a disk that works"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for id in sight.world.hosts() {
            let (host, life) = (sight.world.host(id), sight.standing(id).life);
            let works = matches!(sight.world.disk(id), Disk::Swift | Disk::Slow(_));
            let Some(node) = host
                .node()
                .filter(|_| host.config.records && works && host.power() == Power::Up)
            else {
                self.awaited.remove(&id);
                continue;
            };
            let seen = (life, sight.now, node.marks());
            let awaited = self.awaited.entry(id).or_insert(seen);
            if awaited.0 != life || host.store.flushed().cover(&awaited.2) {
                *awaited = seen;
            } else if sight.now.since(awaited.1) > UNTIL_STORED {
                report.push(format!(
                    "{} has not stored {:?} after {UNTIL_STORED:?}",
                    host.name(),
                    awaited.2
                ));
                *awaited = seen;
            }
        }
    }
}
