//! Answers to the probes of others: acks of their pings, and pings of a third member for them, with an ack or a nack
//! (docs/protocol.md#a15-probe-cycle).

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{error, warn};

use super::delegate::{Delegate, StreamId};
use super::{Swim, Timer, Trouble, reply_address};
use crate::addr::RawAddr;
use crate::bounds::MAX_RELAYS;
use crate::swim::state::encoded;
use crate::time::Time;
use crate::wire::message::{Ack, IndirectPing, Nack, Ping};

/// An indirect ping that a peer has asked for.
#[derive(Debug)]
pub(super) struct Relay {
    /// Whether it is a member, known at that address.
    is_member: bool,
    /// Where the peer wants its ack or nack.
    reply_to: SocketAddr,
    /// The peer's own sequence number.
    seq_no: u32,
    nack: bool,
}

/// Bytes of the longest answer to an indirect ping: an ack without payload.
const LONGEST_RELAYED: usize = 22;

impl Swim {
    pub(super) fn handle_ping(
        &mut self,
        now: Time,
        from: SocketAddr,
        ping: &Ping<'_>,
        delegate: &mut impl Delegate,
    ) {
        if !self.is_for_me(from, ping) {
            return;
        }
        self.note_life_of(ping.source_node);
        let to = reply_address(ping.source_addr, ping.source_port, from);
        self.note_pinger(now, to, ping, delegate);
        let (payload, digest) = (delegate.ack_payload(), self.digest(delegate));
        let seq_no = ping.seq_no;
        let ack = Ack {
            seq_no,
            payload: &payload,
            digest: &digest,
            turn: self.turn(),
        };
        let bare = Ack {
            seq_no,
            ..Ack::default()
        };
        let (whole, bare) = (
            |out: &mut Vec<u8>| ack.encode(out),
            |out: &mut Vec<u8>| bare.encode(out),
        );
        self.answer(now, ping.source_node, to, delegate, whole, bare);
    }

    /// Refuses a ping for another name: whoever sent it has an address that is this node's now.
    fn is_for_me(&mut self, from: SocketAddr, ping: &Ping<'_>) -> bool {
        let is_mine = ping.node.is_empty() || self.is_me(ping.node);
        if !is_mine {
            self.refused += 1;
            if self.is_news(Trouble::Ping, ping.node) {
                warn!(target: "memberlist", "Got ping for unexpected node '{}' from={from}", ping.node);
            }
        }
        is_mine
    }

    /// Whoever pings this node by its name lists it, and may be the one through whom it finds the others.
    fn note_pinger(&self, now: Time, to: SocketAddr, ping: &Ping<'_>, delegate: &mut impl Delegate) {
        let pinger = ping.source_node;
        if self.is_me(ping.node) && !pinger.is_empty() && !self.is_me(pinger) {
            delegate.pinged(now, pinger, to);
        }
    }

    pub(super) fn accept_stream_ping(
        &mut self,
        now: Time,
        from: SocketAddr,
        stream: StreamId,
        ping: &Ping<'_>,
        delegate: &mut impl Delegate,
    ) {
        if !self.is_for_me(from, ping) {
            return;
        }
        let to = reply_address(ping.source_addr, ping.source_port, from);
        self.note_pinger(now, to, ping, delegate);
        let plain = encoded(|out| {
            Ack {
                seq_no: ping.seq_no,
                ..Ack::default()
            }
            .encode(out)
        });
        delegate.reply(stream, plain);
    }

    pub(super) fn handle_indirect_ping(
        &mut self,
        now: Time,
        from: SocketAddr,
        ping: &IndirectPing<'_>,
        delegate: &mut impl Delegate,
    ) {
        if self.relays.len() >= MAX_RELAYS {
            self.refuse(format_args!(
                "an indirect ping from={from}: {MAX_RELAYS} are under way"
            ));
            return;
        }
        let reply_to = reply_address(ping.source_addr, ping.source_port, from);
        let is_member = self.is_at(ping.source_node, reply_to);
        if !is_member && !self.may_answer_stranger(now, reply_to, LONGEST_RELAYED) {
            return;
        }
        let seq_no = self.next_seq_no();
        self.relays.insert(
            seq_no,
            Relay {
                is_member,
                reply_to,
                seq_no: ping.seq_no,
                nack: ping.nack,
            },
        );
        self.timers
            .set(now + self.config.profile.probe_timeout, Timer::Relay(seq_no));
        // Only a known member is pinged for others, at the address known here: otherwise anybody could
        // make this node send packets to any address. For others the nack is the whole answer.
        let known = self
            .members
            .by_name(ping.node)
            .map(|record| Arc::clone(&record.facts));
        let wanted = RawAddr::from_bytes(ping.target);
        let port = if ping.port == 0 {
            self.config.bind_port
        } else {
            ping.port
        };
        if let (Some(facts), Some(wanted)) = (known, wanted)
            && facts.addr.ip() == wanted.ip()
            && facts.port == port
        {
            let source = self.config.facts.clone();
            self.send_with_gossip(facts.socket(), delegate, |out| {
                source.ping(ping.node, seq_no).encode(out)
            });
        } else if self.is_news(Trouble::Relay, ping.node) {
            error!(target: "memberlist", "Did not ping '{}' for {from}: no such member at that address", ping.node);
        }
    }

    pub(super) fn end_relay(&mut self, seq_no: u32, delegate: &mut impl Delegate) {
        if let Some(relay) = self.relays.remove(&seq_no).filter(|relay| relay.nack) {
            let nack = |out: &mut Vec<u8>| Nack { seq_no: relay.seq_no }.encode(out);
            self.answer_relayed(&relay, delegate, nack);
        }
    }

    /// Passes an ack on, if it is that of somebody pinged for a peer.
    pub(super) fn relay_answered(&mut self, seq_no: u32, delegate: &mut impl Delegate) -> bool {
        let Some(relay) = self.relays.remove(&seq_no) else {
            return false;
        };
        let ack = Ack {
            seq_no: relay.seq_no,
            ..Ack::default()
        };
        self.answer_relayed(&relay, delegate, |out| ack.encode(out));
        true
    }

    fn answer_relayed(
        &mut self,
        relay: &Relay,
        delegate: &mut impl Delegate,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if relay.is_member {
            self.send_with_gossip(relay.reply_to, delegate, write);
        } else {
            delegate.send(relay.reply_to, encoded(write), false);
        }
    }
}
