//! What stands between a host's process and the network: a host whose packets wait while its clock and timers
//! go on, and one that takes time for each packet it reads.
//!
//! This is how, as far as we know, the Lifeguard paper (arXiv 1707.00788) makes members slow: what they send and
//! receive is held up, so answers, refutations and accusations come late, while timeouts pass unheard. A
//! frozen host ([`World::freeze`]) is another matter: its timers stand still too, and it can notice.

use std::collections::VecDeque;
use std::time::Duration;

use super::happening::{Arrival, Departure, Happening, Power};
use super::{HostId, World};
use fyrd_core::bounds::UNSENT_DATAGRAMS;

/// Most packets that wait for a host that does not read them, as in a socket's receive buffer; later ones
/// are lost.
pub(super) const INBOX_MAX: usize = 4096;

/// A host's sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    blocked: bool,
    /// How long the host is busy with each datagram.
    pace: Duration,
    /// Whether it is busy with one; the end of that is on the agenda.
    busy: bool,
    /// What has come in and is not yet read, oldest first.
    unread: VecDeque<Arrival>,
    /// What is to go out once it can, oldest first.
    unsent: VecDeque<Departure>,
}

impl Sockets {
    /// Loses all that waits, as when the process ends.
    pub(super) fn clear(&mut self) {
        self.unread.clear();
        self.unsent.clear();
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether this arrival has to wait. Only datagrams wait for each other: a stream has a reader of its own.
    fn holds_up(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Datagram { .. } => self.blocked || self.busy || !self.unread.is_empty(),
            Arrival::Dial { .. } | Arrival::Replied { .. } => self.blocked,
            // Nobody sent this: it is the dialler's own timer.
            Arrival::TimedOut { .. } => false,
        }
    }
}

impl World {
    /// Holds up all that a host sends and all that reaches it, while its clock and timers go on, until
    /// [`World::unblock_io`]. At most 4,096 packets wait to be read, as in a socket's buffer, and at most 256 to
    /// be sent, as many as the agent keeps for a socket that takes no more; later ones are lost.
    pub fn block_io(&mut self, id: HostId) {
        self.hosts[id.0].sockets.blocked = true;
    }

    /// Lets a blocked host's packets go on. What has waited to be sent leaves at once, and streams are served
    /// at once; datagrams are read in the order in which they came, each in the host's time
    /// ([`World::set_pace`]).
    pub fn unblock_io(&mut self, id: HostId) {
        let sockets = &mut self.hosts[id.0].sockets;
        if !std::mem::take(&mut sockets.blocked) {
            return;
        }
        let unsent = std::mem::take(&mut sockets.unsent);
        let waited = std::mem::take(&mut sockets.unread);
        let is_datagram = |arrival: &Arrival| matches!(arrival, Arrival::Datagram { .. });
        let (datagrams, streams): (VecDeque<_>, VecDeque<_>) = waited.into_iter().partition(is_datagram);
        sockets.unread = datagrams;
        for departure in unsent {
            self.transmit(id, departure);
        }
        for stream in streams {
            self.receive(id, stream);
        }
        self.read(id);
    }

    /// Makes a host busy for so long with each datagram it reads; zero, the usual value, is no time at all.
    /// The datagrams that come meanwhile wait in the same buffer as those of a blocked host.
    pub fn set_pace(&mut self, id: HostId, a_datagram: Duration) {
        self.hosts[id.0].sockets.pace = a_datagram;
    }

    /// Takes an arrival in, or lets it wait.
    pub(super) fn take_in(&mut self, id: HostId, arrival: Arrival) {
        let sockets = &mut self.hosts[id.0].sockets;
        if !sockets.holds_up(&arrival) {
            if matches!(arrival, Arrival::Datagram { .. }) {
                self.be_busy(id);
            }
            self.receive(id, arrival);
        } else if sockets.unread.len() < INBOX_MAX {
            sockets.unread.push_back(arrival);
        }
    }

    /// The time for one datagram is over.
    pub(super) fn finish_reading(&mut self, id: HostId) {
        self.hosts[id.0].sockets.busy = false;
        self.read(id);
    }

    /// Reads what waits until there is no more, or the host is busy with it.
    pub(super) fn read(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.0];
            if host.power != Power::Up || host.sockets.blocked || host.sockets.busy {
                return;
            }
            let Some(arrival) = host.sockets.unread.pop_front() else {
                return;
            };
            self.be_busy(id);
            self.receive(id, arrival);
        }
    }

    fn be_busy(&mut self, id: HostId) {
        let sockets = &mut self.hosts[id.0].sockets;
        if !sockets.pace.is_zero() {
            sockets.busy = true;
            self.agenda.set(self.now + sockets.pace, Happening::Finished(id));
        }
    }

    /// Lets something leave a host, or wait.
    pub(super) fn depart(&mut self, id: HostId, departure: Departure) {
        let sockets = &mut self.hosts[id.0].sockets;
        if !sockets.blocked {
            self.transmit(id, departure);
        } else if sockets.unsent.len() < UNSENT_DATAGRAMS {
            sockets.unsent.push_back(departure);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::WorldConfig;
    use fyrd_core::serf::{MemberEventKind, MemberStatus};
    use fyrd_core::wire::Ack;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends a host datagrams that say nothing.
    fn flood(world: &mut World, to: HostId, datagrams: usize) {
        let mut plain = Vec::new();
        Ack::default().encode(&mut plain);
        let from = SocketAddr::from(([10, 9, 9, 9], 7946));
        for _ in 0..datagrams {
            world.forge(from, to, plain.clone());
        }
        world.run_for(Duration::ZERO);
    }

    #[test]
    fn nothing_gets_in_or_out_of_a_blocked_host_while_its_timers_go_on() {
        let mut world = World::new(WorldConfig::new(3));
        let hosts = world.cluster(2);
        let [slow, other] = hosts[..] else {
            panic!("two hosts");
        };
        world.run_for(ms(10_000));
        world.block_io(slow);
        // What was under way still reaches the other.
        world.run_for(ms(100));
        let (sent, heard) = (world.host(slow).counters, world.host(other).counters);
        world.run_for(ms(60_000));
        assert!(world.host(slow).counters.datagrams_sent > sent.datagrams_sent + 5);
        assert_eq!(
            world.host(other).counters.datagrams_received,
            heard.datagrams_received
        );
        assert_eq!(
            world.host(slow).counters.datagrams_received,
            sent.datagrams_received
        );
        for (at, about) in [(slow, other), (other, slow)] {
            let name = world.host(about).name();
            assert_eq!(world.host(at).status_of(name), Some(MemberStatus::Failed));
            assert_eq!(
                world.host(at).member_events(MemberEventKind::Failed, name).len(),
                1
            );
        }
        world.unblock_io(slow);
        assert!(world.run_until(ms(60_000), |world| world.all_alive(&hosts)));
    }

    #[test]
    fn what_waits_is_bounded_and_read_at_the_hosts_pace() {
        let mut world = World::new(WorldConfig::new(4));
        let host = world.add("n0");
        let read = |world: &World| world.host(host).counters.datagrams_received;
        world.block_io(host);
        flood(&mut world, host, 5000);
        world.run_for(ms(1000));
        assert_eq!(read(&world), 0);
        world.set_pace(host, ms(1));
        world.unblock_io(host);
        world.run_for(ms(100));
        assert_eq!(read(&world), 101, "the first at once, one more each millisecond");
        world.block_io(host);
        world.run_for(ms(1000));
        assert_eq!(read(&world), 101);
        // A process that stops reads no more either, and goes on where it was.
        world.unblock_io(host);
        world.freeze(host);
        world.run_for(ms(1000));
        world.thaw(host);
        assert!((102..=103).contains(&read(&world)));
        world.run_for(ms(5000));
        assert_eq!(read(&world), 4096);
        // Without a pace everything is read at once.
        world.block_io(host);
        flood(&mut world, host, 500);
        world.set_pace(host, Duration::ZERO);
        world.unblock_io(host);
        assert_eq!(read(&world), 4596);
    }

    #[test]
    fn at_most_256_packets_wait_to_be_sent_and_all_of_them_leave() {
        let mut world = World::new(WorldConfig::new(5));
        let (from, to) = (world.add("n0"), world.add("n1"));
        let target = world.host(to).addr();
        world.block_io(from);
        for _ in 0..1000 {
            world.send(from, target, vec![0], false);
        }
        world.run_for(ms(100));
        let arrived = |world: &World| world.host(to).counters.unreadable;
        assert_eq!(arrived(&world), 0);
        world.unblock_io(from);
        world.run_for(ms(100));
        assert_eq!(arrived(&world), UNSENT_DATAGRAMS as u64);
    }

    #[test]
    fn a_dial_times_out_in_a_blocked_host_and_does_not_set_out_afterwards() {
        let mut world = World::new(WorldConfig::new(6));
        let (from, to) = (world.add("n0"), world.add("n1"));
        world.block_io(from);
        let join = world.join(from, to);
        let answered = |world: &World| world.host(from).answers.contains_key(&join);
        assert!(world.run_until(ms(11_000), answered));
        world.unblock_io(from);
        world.run_for(ms(1000));
        assert_eq!(world.host(to).status_of("n0"), None);
    }

    #[test]
    fn a_stream_does_not_wait_behind_datagrams() {
        let mut world = World::new(WorldConfig::new(7));
        let (early, late, to) = (world.add("n0"), world.add("n1"), world.add("n2"));
        world.set_pace(to, ms(1));
        world.block_io(to);
        flood(&mut world, to, 1000);
        let join = world.join(early, to);
        let answered = |world: &World| world.host(early).answers.contains_key(&join);
        assert!(!world.run_until(ms(2000), answered));
        world.unblock_io(to);
        assert!(world.run_until(ms(50), answered), "it waited with the datagrams");
        let join = world.join(late, to);
        let answered = |world: &World| world.host(late).answers.contains_key(&join);
        assert!(
            world.run_until(ms(50), answered),
            "it came while datagrams waited"
        );
        assert!(world.host(to).counters.datagrams_received < 200);
    }
}
