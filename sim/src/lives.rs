//! How hosts come into the world, stop, go on and end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fyrd_keys::{Key, Keyring};
use rand::RngExt;

use super::happening::Power;
use super::host::Host;
use super::traffic::closed;
use super::{HostId, PORT, World};
use fyrd_core::addr::RawAddr;
use fyrd_core::node::{Input, Node, NodeConfig};
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;

impl World {
    /// Adds a host with a name and starts its node.
    pub fn add(&mut self, name: &str) -> HostId {
        self.add_with(name, |_| {})
    }

    /// Adds a host whose configuration is changed before its node starts.
    pub fn add_with(&mut self, name: &str, change: impl FnOnce(&mut NodeConfig)) -> HostId {
        let id = HostId(self.hosts.len());
        let ip = Ipv4Addr::from(0x0a00_0001 + id.0 as u32);
        let envelope = self.config.envelope();
        let mut config = NodeConfig {
            seal_overhead: envelope.seal_overhead(),
            label_overhead: envelope.label_overhead(),
            compress: self.config.compress,
            ..NodeConfig::new(name, (ip, PORT).into(), self.config.profile.clone(), 0)
        };
        change(&mut config);
        let host = Host::new(config, envelope);
        self.by_addr.insert(host.addr(), id);
        self.hosts.push(host);
        self.start(id);
        id
    }

    /// Adds a host of another cluster than the world's, which has the same key and this label.
    pub fn add_labelled(&mut self, name: &str, label: &[u8], change: impl FnOnce(&mut NodeConfig)) -> HostId {
        let usual = std::mem::replace(&mut self.config.label, label.to_vec());
        let id = self.add_with(name, change);
        self.config.label = usual;
        id
    }

    /// Adds hosts named `n0`, `n1` and so on.
    pub fn add_many(&mut self, count: usize) -> Vec<HostId> {
        (0..count).map(|i| self.add(&format!("n{i}"))).collect()
    }

    /// Adds that many hosts, joins all to the first, and waits until all see all alive.
    ///
    /// # Panics
    /// When that does not come about within two minutes.
    pub fn cluster(&mut self, count: usize) -> Vec<HostId> {
        let hosts = self.add_many(count);
        for &host in &hosts[1..] {
            self.join(host, hosts[0]);
        }
        let joined = self.run_until(Duration::from_secs(120), |world| world.all_alive(&hosts));
        assert!(joined, "the cluster did not come together");
        hosts
    }

    /// Adds that many hosts that know each other from the start, as if they had met long ago: for worlds too
    /// large to come together by joining. They have said nothing yet but that they are there, and nobody was told of
    /// the others.
    pub fn acquainted(&mut self, count: usize) -> Vec<HostId> {
        let hosts = self.add_many(count);
        let others: Vec<Arc<Facts>> = hosts
            .iter()
            .filter_map(|&host| Some(Arc::clone(self.node(host).facts()?)))
            .collect();
        for &host in &hosts {
            let Some(node) = self.hosts[host.0].node.as_mut() else {
                continue;
            };
            node.acquaint(self.now, &others);
            while node.poll_effect().is_some() {}
        }
        hosts
    }

    /// Gives a host another key than the rest, or none.
    pub fn set_key(&mut self, id: HostId, key: Option<Key>) {
        *self.hosts[id.0].envelope.keyring_mut() = key.map(Keyring::new);
    }

    /// As [`World::crash`], and the machine is gone as well: where a process has crashed, its host refuses connections
    /// at once, and here nothing answers at all.
    pub fn vanish(&mut self, id: HostId) {
        self.hosts[id.0].is_silent = true;
        self.crash(id);
    }

    /// Ends a host's node without a word; what it knew and its disk has not is gone. Connections to it are refused.
    pub fn crash(&mut self, id: HostId) {
        self.lose_unflushed(id);
        let host = &mut self.hosts[id.0];
        host.vouched = host.node.as_ref().is_none_or(Node::vouches);
        host.node = None;
        host.power = Power::Down;
        host.inbox.clear();
        host.sockets.clear();
        host.exchanges.clear();
        host.refused_sends.clear();
        host.wake_at = None;
        let is_silent = host.is_silent;
        // The system ends the streams whose reply was still to come.
        let replies = std::mem::take(&mut self.replies);
        let (ended, others): (BTreeMap<_, _>, _) =
            replies.into_iter().partition(|(_, reply)| reply.host == id);
        self.replies = others;
        for (_, reply) in ended.into_iter().filter(|_| !is_silent) {
            self.send_reply(reply, Err(closed()));
        }
        self.trace.note(self.now, "crash", id.0, &[]);
    }

    /// Starts a node on a host that is down, with the same name, and with the memory that it has kept if its
    /// configuration says that it keeps any: then it looks for those whom it knew, unless it had left.
    pub fn start(&mut self, id: HostId) {
        self.start_with(id, |_| {});
    }

    /// The same, with a configuration that is changed for this start.
    pub fn start_with(&mut self, id: HostId, change: impl FnOnce(&mut NodeConfig)) {
        let seed = self.rng.random();
        let now = self.local_time(id);
        let host = &mut self.hosts[id.0];
        host.config.seed = seed;
        host.config.memory = host.store.memory();
        host.config.left = host.store.take_leave();
        let mut config = host.config.clone();
        change(&mut config);
        host.life += 1;
        host.power = Power::Up;
        host.is_silent = false;
        let node = Node::sharing(config, now, self.pool.clone()).expect("the configuration is right");
        host.born = node.marks();
        host.node = Some(node);
        self.trace
            .note(self.now, "start", id.0, host.config.name.as_bytes());
        self.settle(id);
        self.tell_news(id);
    }

    /// Gives a host that is down an address that no other has had; nothing answers at its old one any more.
    pub fn move_away(&mut self, id: HostId) {
        assert_eq!(
            self.hosts[id.0].power,
            Power::Down,
            "only a host that is down can move"
        );
        let last = self.by_addr.keys().next_back().map(SocketAddr::ip);
        let ip = match last {
            Some(IpAddr::V4(last)) => Ipv4Addr::from(u32::from(last) + 1),
            _ => unreachable!("all simulated hosts have IPv4 addresses"),
        };
        let host = &mut self.hosts[id.0];
        self.by_addr.remove(&host.addr());
        host.config.addr = RawAddr::V4(ip.octets());
        self.by_addr.insert(host.addr(), id);
    }

    /// Moves a host's clock ahead, as when its machine was suspended and nothing came in meanwhile. It cannot
    /// be moved back: nodes are told the time of a monotonic clock, which no setting of the date moves.
    pub fn jump_clock(&mut self, id: HostId, by: Duration) {
        self.hosts[id.0].clock_ahead += by;
        if self.hosts[id.0].power == Power::Up {
            self.input(id, Input::Tick);
        }
    }

    /// What a host's clock shows.
    pub(super) fn local_time(&self, id: HostId) -> Time {
        self.now + self.hosts[id.0].clock_ahead
    }

    /// Stops a host's process; packets for it wait.
    pub fn freeze(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        if host.power == Power::Up {
            host.power = Power::Frozen;
        }
    }

    /// Lets a frozen host go on: it takes what has waited and does what has become due, in either
    /// order, as a real one may.
    pub fn thaw(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        if host.power != Power::Frozen {
            return;
        }
        host.power = Power::Up;
        self.tell_news(id);
        self.work_disk(id);
        let host = &mut self.hosts[id.0];
        let waited = std::mem::take(&mut host.inbox);
        if self.rng.random() {
            self.input(id, Input::Tick);
        }
        for arrival in waited {
            self.arrive(id, arrival);
        }
        self.read(id);
        self.input(id, Input::Tick);
    }
}
