//! Finding the other members on the same network by multicast DNS, as Serf does, so that both kinds find each
//! other (docs/compatibility.md#mdns-discovery).
//!
//! An agent asks at its start and each minute who else is there, from a socket of its own, and tells its node,
//! which joins whom it does not know. Others' questions arrive at a socket of the multicast group and are answered to
//! the asker alone.

mod records;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error};

use super::Agent;
use crate::go;
use fyrd_core::node::Input;
use records::{PACKET_MAX, Reply, Round, Service};

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 5353;

/// How often to ask.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Half of the time after which to ask again when that was not possible at the start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long to listen for answers.
const LISTEN_TIME: Duration = Duration::from_secs(1);

/// Pause after a socket could not be read.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers that wait to be looked at.
const REPLIES_MAX: usize = 64;

/// Answers a second that are given; more questions than that are no honest ones.
const ANSWERS_PER_SECOND: u32 = 200;

/// Links asked by IPv6.
const LINKS_MAX: usize = 32;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// The one interface to use.
    pub interface: Option<String>,
    /// Whether to use IPv4.
    pub ipv4: bool,
    /// Whether to use IPv6.
    pub ipv6: bool,
}

/// Discovery, ready to run.
#[derive(Debug)]
pub struct Discovery {
    service: Rc<Service>,
    /// Members of the group, where questions come in.
    group: Vec<UdpSocket>,
    /// Where we ask from, and whom.
    askers: Vec<(UdpSocket, Vec<SocketAddr>)>,
}

impl Discovery {
    /// Opens the sockets. The node is announced at `addr`. The error is the reason in the user's line.
    pub fn open(settings: &Settings, node: &str, addr: SocketAddr) -> Result<Discovery, String> {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let service = Service::new(&settings.cluster, node, &host, addr.ip(), addr.port())?;
        let links = Links::find(settings.interface.as_deref())?;
        let mut discovery = Discovery {
            service: Rc::new(service),
            group: Vec::new(),
            askers: Vec::new(),
        };
        let mut reasons = Vec::new();
        for (wanted, open) in [
            (settings.ipv4, Links::open_v4 as fn(&Links) -> io::Result<_>),
            (settings.ipv6, Links::open_v6),
        ] {
            match wanted.then(|| open(&links)) {
                None => {}
                Some(Ok((group, asker, targets))) => {
                    discovery.group.push(group);
                    discovery.askers.push((asker, targets));
                }
                Some(Err(error)) => reasons.push(go::os_error(&error)),
            }
        }
        for reason in &reasons {
            debug!(target: "agent.mdns", "a family of addresses cannot be used: {reason}");
        }
        if discovery.group.is_empty() {
            let reasons = if reasons.is_empty() {
                "both IPv4 and IPv6 are disabled".to_string()
            } else {
                reasons.join("; ")
            };
            return Err(format!("No multicast listeners could be started: {reasons}"));
        }
        Ok(discovery)
    }

    /// Answers, asks and joins for as long as the agent lives.
    pub(super) async fn run(self, agent: Agent) {
        let (replies, mut heard) = mpsc::channel(REPLIES_MAX);
        let mut askers = Vec::new();
        for (socket, targets) in self.askers {
            let socket = Rc::new(socket);
            spawn_local(listen(
                Rc::clone(&socket),
                Rc::clone(&self.service),
                replies.clone(),
            ));
            askers.push((socket, targets));
        }
        for socket in self.group {
            spawn_local(listen(Rc::new(socket), Rc::clone(&self.service), replies.clone()));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let begin = Instant::now();
            let asked = poll(&self.service, &askers, &mut heard, &agent).await;
            // While the network is still coming up, a minute would be long.
            pause = if asked {
                POLL_INTERVAL
            } else {
                (2 * pause).min(POLL_INTERVAL)
            };
            sleep_until(begin + pause).await;
        }
    }
}

/// One round: asks, listens, and tells the node who answers. False when nobody could be asked.
async fn poll(
    service: &Service,
    askers: &[(Rc<UdpSocket>, Vec<SocketAddr>)],
    heard: &mut mpsc::Receiver<Reply>,
    agent: &Agent,
) -> bool {
    // Answers are told apart by their content, so any ID will do.
    let id = SysRng.try_next_u32().unwrap_or_default() as u16;
    let Some(query) = service.query(id) else {
        return false;
    };
    let asked = send_all(askers, &query).await;
    let end = Instant::now() + LISTEN_TIME;
    let mut round = Round::default();
    loop {
        tokio::select! {
            Some(reply) = heard.recv() => {
                let (found, questions) = round.learn(reply);
                let found = found.into_iter().map(|addr| agent.0.home.enter(addr)).collect();
                // A node that is gone joins nobody.
                let _ = agent.0.driver.tell(Input::Discovered(found)).await;
                for question in questions {
                    let _ = send_all(askers, &question).await;
                }
            }
            () = sleep_until(end) => return asked,
        }
    }
}

/// Sends a question to all there is. That one family of addresses has no way out is usual and no news
/// to anybody; that none has is, and gives false.
async fn send_all(askers: &[(Rc<UdpSocket>, Vec<SocketAddr>)], packet: &[u8]) -> bool {
    let (mut sent, mut reasons) = (0, Vec::new());
    for (socket, targets) in askers {
        for target in targets {
            match socket.send_to(packet, target).await {
                Ok(_) => sent += 1,
                Err(error) => reasons.push(format!("write udp {target}: {}", go::os_error(&error))),
            }
        }
    }
    let reasons = reasons.join("; ");
    if sent == 0 {
        error!(target: "agent.mdns", "Failed to poll for new hosts: {reasons}");
    } else if !reasons.is_empty() {
        debug!(target: "agent.mdns", "Failed to poll for new hosts: {reasons}");
    }
    sent > 0
}

/// Receives for as long as the discovery runs: questions are answered, answers handed on.
async fn listen(socket: Rc<UdpSocket>, service: Rc<Service>, replies: mpsc::Sender<Reply>) {
    let mut packet = vec![0; PACKET_MAX];
    let (mut second, mut answered) = (Instant::now(), 0);
    while !replies.is_closed() {
        let (len, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                debug!(target: "agent.mdns", "cannot receive: {}", go::os_error(&error));
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let packet = packet.get(..len).unwrap_or_default();
        if let Some(answer) = service.answer(packet) {
            if second.elapsed() >= Duration::from_secs(1) {
                (second, answered) = (Instant::now(), 0);
            }
            answered += 1;
            if answered <= ANSWERS_PER_SECOND {
                // A lost answer is given again in a minute.
                let _ = socket.try_send_to(&answer, from);
            }
        } else if let Some(reply) = service.read_reply(from, packet) {
            // What does not fit is said again in a minute.
            let _ = replies.try_send(reply);
        }
    }
}

/// The network's links as far as multicast needs to know them.
struct Links {
    /// The one link that the user wants, for IPv4.
    v4: Option<Ipv4Addr>,
    /// Whether IPv4 is possible there.
    has_v4: bool,
    /// All links to use for IPv6.
    v6: Vec<u32>,
}

/// A group's socket, a socket to ask from, and whom to ask.
type Opened = (UdpSocket, UdpSocket, Vec<SocketAddr>);

impl Links {
    fn find(interface: Option<&str>) -> Result<Links, String> {
        let all = if_addrs::get_if_addrs().map_err(|e| go::os_error(&e))?;
        let mut links = Links {
            v4: None,
            has_v4: interface.is_none(),
            v6: Vec::new(),
        };
        for one in all
            .iter()
            .filter(|one| interface.is_none_or(|name| one.name == name))
        {
            match (one.ip(), one.index) {
                (IpAddr::V4(ip), _) if interface.is_some() => {
                    links.v4.get_or_insert(ip);
                    links.has_v4 = true;
                }
                (IpAddr::V6(ip), Some(index))
                    if (ip.is_unicast_link_local() || interface.is_some())
                        && !links.v6.contains(&index)
                        && links.v6.len() < LINKS_MAX =>
                {
                    links.v6.push(index);
                }
                _ => {}
            }
        }
        Ok(links)
    }

    fn open_v4(&self) -> io::Result<Opened> {
        if !self.has_v4 {
            return Err(io::Error::other("the interface has no IPv4 address"));
        }
        let group = shared_socket(Domain::IPV4)?;
        // Bound to the group, a socket gets what is sent there and nothing else; Windows does not know that.
        let bind = if cfg!(windows) {
            Ipv4Addr::UNSPECIFIED
        } else {
            GROUP_V4
        };
        group.bind(&SocketAddr::from((bind, PORT)).into())?;
        // Linux gives a group's packets to all its sockets, whichever link each of them joined it at.
        #[cfg(target_os = "linux")]
        group.set_multicast_all_v4(self.v4.is_none())?;
        group.join_multicast_v4(&GROUP_V4, &self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
        let asker = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(ip) = &self.v4 {
            asker.set_multicast_if_v4(ip)?;
        }
        asker.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        let targets = vec![SocketAddr::from((GROUP_V4, PORT))];
        Ok((into_tokio(group)?, into_tokio(asker)?, targets))
    }

    fn open_v6(&self) -> io::Result<Opened> {
        let group = shared_socket(Domain::IPV6)?;
        group.set_only_v6(true)?;
        group.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
        #[cfg(target_os = "linux")]
        group.set_multicast_all_v6(false)?;
        let mut targets = Vec::new();
        let mut last = io::Error::other("no interface has an IPv6 link-local address");
        for index in &self.v6 {
            match group.join_multicast_v6(&GROUP_V6, *index) {
                Ok(()) => targets.push(SocketAddrV6::new(GROUP_V6, PORT, 0, *index).into()),
                Err(error) => last = error,
            }
        }
        if targets.is_empty() {
            return Err(last);
        }
        let asker = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        asker.set_only_v6(true)?;
        asker.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        Ok((into_tokio(group)?, into_tokio(asker)?, targets))
    }
}

/// A socket for the group's port, which all mDNS programs of a host share.
fn shared_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn into_tokio(socket: Socket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn without_any_family_there_is_no_discovery() {
        let mut settings = Settings {
            cluster: "c".to_string(),
            interface: None,
            ipv4: false,
            ipv6: false,
        };
        let addr = "10.0.0.1:7946".parse().unwrap();
        assert_eq!(
            Discovery::open(&settings, "n", addr).unwrap_err(),
            "No multicast listeners could be started: both IPv4 and IPv6 are disabled"
        );
        settings.ipv4 = true;
        settings.interface = Some("nosuch".to_string());
        assert_eq!(
            Discovery::open(&settings, "n", addr).unwrap_err(),
            "No multicast listeners could be started: the interface has no IPv4 address"
        );
    }
}
