//! A deterministic network of many nodes, on the same node and wire code that runs outside.
//!
//! A [`World`] holds hosts, links and one queue of what will happen. Its clock jumps from one entry
//! to the next, so hours pass in seconds. All randomness, that of the nodes included, comes from one
//! seed: the same seed and the same calls give the same run, byte for byte ([`World::trace`]).
//!
//! ```text
//! Effect::Send     -> compress, CRC, seal -> link -> open, decode -> Input::Datagram
//! Effect::Exchange -> compress, seal      -> link -> open, decode -> Input::Stream
//! Effect::Reply    -> compress, seal      -> link -> open, decode -> Input::Exchange
//! ```

mod agenda;
#[cfg(feature = "campaign")]
pub mod campaign;
#[cfg(feature = "campaign")]
pub mod check;
mod disk;
mod effects;
#[cfg(feature = "campaign")]
pub mod fault;
mod happening;
pub mod host;
pub mod link;
mod lives;
mod patience;
pub mod quantiles;
mod sockets;
pub mod trace;
mod traffic;
pub mod trial;

pub use disk::Disk;
pub use happening::Power;
pub use traffic::Tapped;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fyrd_keys::{Key, Keyring};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

#[cfg(feature = "campaign")]
use crate::fault::Fault;
use crate::happening::{Arrival, Happening};
use crate::host::Host;
use crate::link::{Link, Links};
use crate::trace::Trace;
use crate::traffic::ReplyPath;
use fyrd_core::deadline::Deadlines;
use fyrd_core::envelope::Envelope;
use fyrd_core::node::{CommandId, ExchangeId, Input, Node, StreamId};
use fyrd_core::serf::{Answer, Command, JoinTarget, MemberEventKind, MemberStatus, Seeds};
use fyrd_core::swim::pool::FactsPool;
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;

/// The port of every simulated node.
const PORT: u16 = 7946;

/// Names a host for as long as its world exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The seed of all randomness.
    pub seed: u64,
    /// How packets fare between hosts.
    pub link: Link,
    /// The timing of all nodes.
    pub profile: Profile,
    /// The key of the cluster; `None` for plain packets.
    pub key: Option<Key>,
    /// The label of the cluster, empty for none.
    pub label: Vec<u8>,
    /// Whether nodes compress.
    pub compress: bool,
    /// How old a packet may be; `None` for any age.
    pub replay_window: Option<Duration>,
}

impl WorldConfig {
    /// A plain cluster on a quiet local network.
    pub fn new(seed: u64) -> Self {
        WorldConfig {
            seed,
            link: Link::default(),
            profile: Profile::builtin("lan").expect("a profile that is compiled in"),
            key: None,
            label: Vec::new(),
            compress: true,
            replay_window: None,
        }
    }

    /// What every node of the cluster has around its packets.
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope::new(
            self.key.clone().map(Keyring::new),
            self.label.clone(),
            self.compress,
        )
        .with_replay_window(self.replay_window)
    }
}

/// The simulated network and all hosts on it.
#[derive(Debug)]
pub struct World {
    /// The links, to be cut and healed.
    pub links: Links,
    config: WorldConfig,
    now: Time,
    hosts: Vec<Host>,
    by_addr: BTreeMap<SocketAddr, HostId>,
    agenda: Deadlines<Happening>,
    /// What members announce is the same at all nodes, and held only once.
    pool: FactsPool,
    commands: u64,
    streams: u64,
    /// Inbound streams whose node may still reply.
    replies: BTreeMap<StreamId, ReplyPath>,
    rng: Xoshiro256PlusPlus,
    trace: Trace,
    tap: Option<Vec<Tapped>>,
    #[cfg(feature = "campaign")]
    faults: Vec<Fault>,
    /// Names of several hosts at once.
    names: BTreeMap<String, Vec<HostId>>,
}

impl World {
    /// An empty network.
    pub fn new(config: WorldConfig) -> Self {
        World {
            links: Links::new(config.link),
            now: Time::ZERO + Duration::from_secs(1),
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            agenda: Deadlines::default(),
            pool: FactsPool::shared(),
            commands: 0,
            streams: 0,
            replies: BTreeMap::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(config.seed),
            trace: Trace::default(),
            tap: None,
            #[cfg(feature = "campaign")]
            faults: Vec::new(),
            names: BTreeMap::new(),
            config,
        }
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The fingerprint of all that has happened.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// One host.
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }

    /// One host, to change its configuration or its responder.
    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0]
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId)
    }

    /// The node of a host that is up or frozen.
    ///
    /// # Panics
    /// When the host is down.
    pub fn node(&self, id: HostId) -> &Node {
        self.host(id).node().expect("the host is not down")
    }

    /// Starts to keep a copy of every packet.
    pub fn tap(&mut self) {
        self.tap = Some(Vec::new());
    }

    /// Takes what the tap has seen.
    pub fn tapped(&mut self) -> Vec<Tapped> {
        self.tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Gives a command to a host's node.
    ///
    /// # Panics
    /// When the host is not up.
    pub fn command(&mut self, id: HostId, command: Command) -> CommandId {
        assert_eq!(
            self.hosts[id.0].power,
            Power::Up,
            "only a running host takes commands"
        );
        self.commands += 1;
        let command_id = CommandId(self.commands);
        self.input(
            id,
            Input::Command {
                id: command_id,
                command,
            },
        );
        command_id
    }

    /// Gives a command and runs until it is answered.
    ///
    /// # Panics
    /// When it is not answered within a minute.
    pub fn ask(&mut self, id: HostId, command: Command) -> Answer {
        let text = format!("{command:?}");
        let command = self.command(id, command);
        let answered = self.run_until(Duration::from_secs(60), |world| {
            world.host(id).answers.contains_key(&command)
        });
        assert!(answered, "no answer to {text}");
        self.host(id).answers[&command].1.clone()
    }

    /// Lets one host join another, as a user would.
    pub fn join(&mut self, id: HostId, to: HostId) -> CommandId {
        let addr = self.host(to).addr();
        self.command(
            id,
            Command::Join {
                targets: vec![JoinTarget { name: None, addr }],
                ignore_old: false,
            },
        )
    }

    /// Tells a node of its seeds, once its start is over. A seed is a host's name, or one given by
    /// [`World::name_hosts`].
    ///
    /// # Panics
    /// When the host is not up.
    pub fn seeds(&mut self, id: HostId, seeds: Seeds) {
        assert_eq!(self.hosts[id.0].power, Power::Up, "only a running host has seeds");
        self.input(id, Input::Seeds(seeds));
    }

    /// Tells a node of agents that discovery has found.
    pub fn discover(&mut self, id: HostId, found: &[HostId]) {
        let addrs = found.iter().map(|found| self.host(*found).addr()).collect();
        self.input(id, Input::Discovered(addrs));
    }

    /// From now on this name means these hosts.
    pub fn name_hosts(&mut self, name: &str, hosts: &[HostId]) {
        self.names.insert(name.to_owned(), hosts.to_vec());
    }

    /// Delivers a datagram that no node has sent, sealed with the cluster's key, at once.
    pub fn forge(&mut self, from: SocketAddr, to: HostId, plain: Vec<u8>) {
        let now = self.local_time(to);
        let envelope = &mut self.hosts[to.0].envelope;
        envelope.set_time(now);
        let bytes = envelope
            .close_datagram(|| Ok(self.rng.random()), plain, false)
            .expect("a simulator has nonces")
            .to_vec();
        self.agenda
            .set(self.now, Happening::Arrive(to, Arrival::Datagram { from, bytes }));
    }

    /// Delivers once more, at once, a packet that a tap has seen.
    pub fn replay(&mut self, packet: &Tapped) {
        let from = self.hosts[packet.from.0].addr();
        let Some(&to) = self.by_addr.get(&packet.to) else {
            return;
        };
        let bytes = packet.bytes.clone();
        let arrival = if packet.is_datagram {
            Arrival::Datagram { from, bytes }
        } else {
            Arrival::Dial {
                from: packet.from,
                life: 0,
                exchange: ExchangeId(0),
                bytes,
            }
        };
        self.agenda.set(self.now, Happening::Arrive(to, arrival));
    }

    /// Delivers a stream message as if `from` had dialled, sealed with the cluster's key, at once.
    /// The reply goes nowhere.
    pub fn forge_stream(&mut self, from: HostId, to: HostId, plain: Vec<u8>) {
        let now = self.local_time(to);
        let envelope = &mut self.hosts[to.0].envelope;
        envelope.set_time(now);
        let bytes = envelope
            .close_request(|| Ok(self.rng.random()), plain)
            .expect("a forged message fits a stream");
        let arrival = Arrival::Dial {
            from,
            life: 0,
            exchange: ExchangeId(0),
            bytes,
        };
        self.agenda.set(self.now, Happening::Arrive(to, arrival));
    }

    /// Whether each of these hosts is up and sees each of them alive.
    pub fn all_alive(&self, hosts: &[HostId]) -> bool {
        // Most often somebody does not even know as many.
        let knows_enough = |&host| {
            self.host(host)
                .node()
                .is_some_and(|node| node.known() >= hosts.len())
        };
        hosts.iter().all(knows_enough)
            && hosts
                .iter()
                .all(|&subject| self.all_see(hosts, subject, MemberStatus::Alive))
    }

    /// Whether each of these hosts sees the node of `subject` in this status.
    pub fn all_see(&self, hosts: &[HostId], subject: HostId, status: MemberStatus) -> bool {
        let name = self.host(subject).name();
        hosts
            .iter()
            .all(|&host| self.host(host).status_of(name) == Some(status))
    }

    /// When any of these hosts reported the node of any of these subjects failed, host by host.
    pub fn failures(&self, hosts: &[HostId], subjects: &[HostId]) -> Vec<Time> {
        let of = |host: HostId, subject: HostId| {
            let name = self.host(subject).name();
            self.host(host).member_events(MemberEventKind::Failed, name)
        };
        hosts
            .iter()
            .flat_map(|&host| subjects.iter().flat_map(move |&subject| of(host, subject)))
            .collect()
    }
}
