//! What swim asks of the layer above it, tells it and sends through it, as memberlist does with its delegates.
//! Serf implements it; swim knows no more of Serf.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::RawAddr;
use crate::swim::failure::Failure;
use crate::swim::members::{Facts, State};
use crate::swim::packet::PacketBuilder;
use crate::swim::queue::Pace;
use crate::time::Time;

/// Names an exchange over a stream that this node asked for, until its result comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// Names an inbound stream while it waits for a reply; chosen by whoever reads the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Whom a join contacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Where to dial.
    pub addr: SocketAddr,
    /// Who has to be there for states to be exchanged, where not anybody will do: an address that was a member's
    /// may belong to another cluster by now.
    pub name: Option<Arc<str>>,
}

/// Names a join until it ends; chosen by the delegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinId(pub u64);

/// The layer above swim.
pub trait Delegate {
    /// Send a datagram: a message or compound, with a CRC around it or without.
    fn send(&mut self, to: SocketAddr, plain: Vec<u8>, crc: bool);
    /// Dial a stream, send one encoded message, and bring the reply, if one is expected, to
    /// [`Swim::handle_exchange`](super::Swim::handle_exchange) within `timeout`.
    fn exchange(
        &mut self,
        id: ExchangeId,
        to: SocketAddr,
        plain: Vec<u8>,
        expect_reply: bool,
        timeout: Duration,
    );
    /// Answer an inbound stream with one encoded message.
    fn reply(&mut self, stream: StreamId, plain: Vec<u8>);
    /// All targets of a join have answered or failed: how many have, and why the others have not.
    fn join_ended(&mut self, now: Time, id: JoinId, contacted: usize, errors: Vec<(SocketAddr, Failure)>);
    /// A node is there that was not, or was dead or left. Says whether its word alone is not enough: then
    /// [`Delegate::member_answered`] follows once it has answered, unless it is gone before.
    fn member_joined(&mut self, now: Time, facts: &Arc<Facts>) -> bool;
    /// A node whose word was not enough has answered, or was there for long enough.
    fn member_answered(&mut self, now: Time, facts: &Arc<Facts>);
    /// A node was declared dead, or left; one that was declared dead may be found to have left.
    fn member_gone(&mut self, now: Time, facts: &Arc<Facts>, gone: State);
    /// A node that is there changed its metadata.
    fn member_updated(&mut self, now: Time, facts: &Arc<Facts>);
    /// Somebody claims the name of `known` at another address.
    fn name_conflict(&mut self, now: Time, known: &Facts, addr: RawAddr, port: u16);
    /// This node seems to be cut off, alone or with a few others, or is no more.
    fn isolation_changed(&mut self, now: Time, isolated: bool);
    /// Somebody has pinged this node by its name: the pinger's name, and where it says it can be reached.
    fn pinged(&mut self, now: Time, by: &str, at: SocketAddr);
    /// Bytes for the user payload of an ack.
    fn ack_payload(&self) -> Vec<u8>;
    /// Appends what this layer knows to the digest of an ack.
    fn write_digest(&self, out: &mut Vec<u8>);
    /// Whether a peer with this digest knows what this node knows, as far as that can be told.
    fn agrees(&self, digest: &[u8]) -> bool;
    /// A direct ping was answered within its time.
    fn ping_answered(&mut self, now: Time, facts: &Facts, rtt: Duration, payload: &[u8]);
    /// How long a round trip to a node should take, if that is known.
    fn round_trip(&self, node: &str) -> Option<Duration>;
    /// A user message came.
    fn user_message(&mut self, now: Time, bytes: &[u8]);
    /// Whether no broadcast is queued.
    fn is_quiet(&self) -> bool;
    /// Whether a broadcast is queued that may be sent at this pace.
    fn has_due(&self, pace: Pace) -> bool;
    /// Fill the rest of a packet with queued broadcasts. Says whether something did not fit.
    fn fill(&mut self, packet: &mut PacketBuilder, pace: Pace) -> bool;
    /// The layer's own part of a push/pull.
    fn local_state(&self) -> Vec<u8>;
    /// The peer's part of a push/pull. `ignore_old`: this exchange is a join of ours that does not
    /// care for events from before it.
    fn merge_state(&mut self, now: Time, state: &[u8], ignore_old: bool);
}

/// A delegate that takes everything and says nothing, for tests of swim alone.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Silent {
    pub joined: Vec<String>,
    /// Whether the word of a node is not enough.
    pub doubts: bool,
    pub answered: Vec<String>,
    pub gone: Vec<String>,
    pub updated: Vec<String>,
    pub conflicts: Vec<String>,
    /// Where datagrams went.
    pub sent: Vec<SocketAddr>,
    /// What they were.
    pub packets: Vec<Vec<u8>>,
    /// How long every round trip should take.
    pub round_trip: Option<Duration>,
    /// What was said of isolation.
    pub isolation: Vec<bool>,
}

#[cfg(test)]
impl Delegate for Silent {
    fn send(&mut self, to: SocketAddr, plain: Vec<u8>, _: bool) {
        self.sent.push(to);
        self.packets.push(plain);
    }
    fn exchange(&mut self, _: ExchangeId, _: SocketAddr, _: Vec<u8>, _: bool, _: Duration) {}
    fn reply(&mut self, _: StreamId, _: Vec<u8>) {}
    fn join_ended(&mut self, _: Time, _: JoinId, _: usize, _: Vec<(SocketAddr, Failure)>) {}
    fn member_joined(&mut self, _: Time, facts: &Arc<Facts>) -> bool {
        self.joined.push(facts.name.to_string());
        self.doubts
    }
    fn member_answered(&mut self, _: Time, facts: &Arc<Facts>) {
        self.answered.push(facts.name.to_string());
    }
    fn member_gone(&mut self, _: Time, facts: &Arc<Facts>, _: State) {
        self.gone.push(facts.name.to_string());
    }
    fn member_updated(&mut self, _: Time, facts: &Arc<Facts>) {
        self.updated.push(facts.name.to_string());
    }
    fn name_conflict(&mut self, _: Time, known: &Facts, _: RawAddr, _: u16) {
        self.conflicts.push(known.name.to_string());
    }
    fn isolation_changed(&mut self, _: Time, isolated: bool) {
        self.isolation.push(isolated);
    }
    fn pinged(&mut self, _: Time, _: &str, _: SocketAddr) {}
    fn ack_payload(&self) -> Vec<u8> {
        Vec::new()
    }
    fn write_digest(&self, _: &mut Vec<u8>) {}
    fn agrees(&self, _: &[u8]) -> bool {
        true
    }
    fn ping_answered(&mut self, _: Time, _: &Facts, _: Duration, _: &[u8]) {}
    fn round_trip(&self, _: &str) -> Option<Duration> {
        self.round_trip
    }
    fn user_message(&mut self, _: Time, _: &[u8]) {}
    fn is_quiet(&self) -> bool {
        true
    }
    fn has_due(&self, _: Pace) -> bool {
        false
    }
    fn fill(&mut self, _: &mut PacketBuilder, _: Pace) -> bool {
        false
    }
    fn local_state(&self) -> Vec<u8> {
        Vec::new()
    }
    fn merge_state(&mut self, _: Time, _: &[u8], _: bool) {}
}
