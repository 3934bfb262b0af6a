//! One UDP socket and one TCP listener on the same address and port.
//!
//! One UDP socket both listens and sends, because old peers answer to the source port. An IPv6
//! wildcard takes IPv4 as well; peers then appear in v4-mapped form, which stops at this file:
//! everything behind it sees plain IPv4 addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::go;
use fyrd_core::bounds;

/// The sockets of one agent.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) home: HomeLink,
    addr: SocketAddr,
}

/// The link that link-local addresses of members are on. A message has no room for a scope, so those of this link
/// have none behind this file, and get it where the system is handed an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeLink(u32);

impl HomeLink {
    /// The link of the first of these that names one.
    pub fn of(addrs: impl IntoIterator<Item = SocketAddr>) -> HomeLink {
        let scopes = addrs.into_iter().map(|addr| match addr {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
            _ => 0,
        });
        HomeLink(scopes.into_iter().find(|scope| *scope != 0).unwrap_or_default())
    }

    /// An address as members know it.
    pub fn enter(self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V6(v6) if !v6.ip().is_unicast_link_local() || v6.scope_id() == self.0 => {
                SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port())
            }
            _ => addr,
        }
    }

    /// An address as the system needs it.
    pub(super) fn leave(self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, self.0).into()
            }
            _ => addr,
        }
    }

    /// What to add to the system's error about an address that it was handed.
    pub(super) fn advice(self, addr: SocketAddr) -> &'static str {
        match self.leave(addr) {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
                ": on which link is it? Give -bind with a scope, as in [fe80::1%eth0], or -iface"
            }
            _ => "",
        }
    }
}

/// Why the sockets could not be had, in Serf's words.
#[derive(Debug, thiserror::Error)]
#[error(
    "Could not set up network transport: failed to obtain an address: Failed to start {} listener on \
     \"{}\" port {}: listen {} {addr}: {step}: {reason}",
    .transport.to_uppercase(), .addr.ip(), .addr.port(), .transport
)]
pub struct BindError {
    transport: &'static str,
    addr: SocketAddr,
    step: &'static str,
    reason: String,
    in_use: bool,
}

impl Sockets {
    /// Binds both on one address. Port 0 picks one free port for both.
    pub async fn bind(addr: SocketAddr) -> Result<Sockets, BindError> {
        let tries = if addr.port() == 0 {
            bounds::FREE_PORT_TRIES
        } else {
            1
        };
        let mut tried = 0;
        loop {
            tried += 1;
            match Self::bind_once(addr) {
                // The free TCP port may be taken for UDP; another draw will do.
                Err(error) if error.in_use && tried < tries => {}
                result => return result,
            }
        }
    }

    /// Has link-local addresses of members be on this link.
    pub fn at(self, home: HomeLink) -> Sockets {
        Sockets { home, ..self }
    }

    /// The bound address, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn bind_once(addr: SocketAddr) -> Result<Sockets, BindError> {
        let tcp = bind_tcp(addr)?;
        let local = tcp
            .local_addr()
            .map_err(|error| BindError::new("tcp", addr, "bind", &error))?;
        // With its scope, if it has one.
        let mut addr = addr;
        addr.set_port(local.port());
        let udp = bind_udp(addr)?;
        Ok(Sockets {
            udp,
            tcp,
            home: HomeLink::of([addr]),
            addr: local,
        })
    }
}

impl BindError {
    fn new(transport: &'static str, addr: SocketAddr, step: &'static str, error: &io::Error) -> BindError {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        BindError {
            transport,
            addr,
            step,
            reason: go::os_error(error),
            in_use,
        }
    }
}

/// The form in which an address must be given to a socket of this family; `None` when the socket
/// cannot reach it at all.
pub(super) fn to_socket_family(to: SocketAddr, socket_is_v6: bool) -> Option<SocketAddr> {
    match (socket_is_v6, plain(to)) {
        (false, SocketAddr::V6(_)) => None,
        (true, SocketAddr::V4(v4)) => Some(SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())),
        (_, addr) => Some(addr),
    }
}

/// An address without v4-mapped form.
pub(super) fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// Whether a receive that failed so has taken one datagram off the queue. Only Windows has such errors, and
/// both are as frequent as peers like: a send to a closed port (a member that was killed) makes a later
/// receive fail, and so does a datagram larger than the buffer.
pub(super) fn is_of_one_datagram(error: &io::Error) -> bool {
    /// No other system has so high a number.
    const WSAEMSGSIZE: i32 = 10040;
    error.kind() == io::ErrorKind::ConnectionReset || error.raw_os_error() == Some(WSAEMSGSIZE)
}

fn open(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        // Said in both cases, for systems differ: Windows means IPv6 alone by default.
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_tcp(addr: SocketAddr) -> Result<TcpListener, BindError> {
    let fail = |step| move |error: io::Error| BindError::new("tcp", addr, step, &error);
    let socket = open(addr, Type::STREAM, Protocol::TCP).map_err(fail("socket"))?;
    // On Unix this lets a restarted agent have its port back while old connections linger. On Windows it is
    // to be had back without, and the option would let two agents share a port. What forbids others to use
    // it against us there, SO_EXCLUSIVEADDRUSE, no safe library offers; without it, Windows refuses them
    // unless they run as the same user.
    #[cfg(unix)]
    socket.set_reuse_address(true).map_err(fail("setsockopt"))?;
    socket.bind(&addr.into()).map_err(fail("bind"))?;
    socket.listen(bounds::LISTEN_BACKLOG).map_err(fail("listen"))?;
    TcpListener::from_std(socket.into()).map_err(fail("listen"))
}

fn bind_udp(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    let fail = |step| move |error: io::Error| BindError::new("udp", addr, step, &error);
    let socket = open(addr, Type::DGRAM, Protocol::UDP).map_err(fail("socket"))?;
    socket.bind(&addr.into()).map_err(fail("bind"))?;
    widen_receive_buffer(&socket);
    UdpSocket::from_std(socket.into()).map_err(fail("bind"))
}

/// Asks for a large kernel buffer, so that a burst outlasts a busy moment of this process.
fn widen_receive_buffer(socket: &Socket) {
    let mut size = bounds::UDP_KERNEL_BUFFER;
    while size > bounds::UDP_RECEIVE_BUFFER && socket.set_recv_buffer_size(size).is_err() {
        size /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn port_zero_gives_one_port_for_both() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = sockets.local_addr().port();
        assert_ne!(port, 0);
        assert_eq!(sockets.udp.local_addr().unwrap().port(), port);
        assert_eq!(sockets.tcp.local_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_taken_port_is_told_in_serfs_words() {
        let held = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = held.local_addr().port();
        let error = Sockets::bind(held.local_addr()).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "Could not set up network transport: failed to obtain an address: Failed to start TCP \
                 listener on \"127.0.0.1\" port {port}: listen tcp 127.0.0.1:{port}: bind: address already \
                 in use"
            )
        );
        drop(held);
        let udp = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let error = Sockets::bind(udp.local_addr().unwrap())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Failed to start UDP listener on \"127.0.0.1\""),
            "{error}"
        );
        assert!(error.contains(&format!(
            "listen udp 127.0.0.1:{port}: bind: address already in use"
        )));
    }

    #[test]
    fn the_scope_of_the_own_link_stays_outside() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let home = HomeLink::of([
            addr("[2001:db8::1]:5"),
            addr("[fe80::1%3]:5"),
            addr("[fe80::1%4]:5"),
        ]);
        for (outside, inside) in [
            ("[fe80::2%3]:5", "[fe80::2]:5"),
            ("[fe80::2%4]:5", "[fe80::2%4]:5"),
            ("[2001:db8::2]:5", "[2001:db8::2]:5"),
            ("10.0.0.1:5", "10.0.0.1:5"),
        ] {
            assert_eq!(home.enter(addr(outside)), addr(inside));
            assert_eq!(home.leave(addr(inside)), addr(outside));
            assert_eq!(home.advice(addr(inside)), "");
        }
        let nowhere = HomeLink::default();
        assert_eq!(nowhere.enter(addr("[2001:db8::2%3]:5")), addr("[2001:db8::2]:5"));
        assert_eq!(nowhere.leave(addr("[fe80::2]:5")), addr("[fe80::2]:5"));
        assert!(!nowhere.advice(addr("[fe80::2]:5")).is_empty());
        assert_eq!(nowhere.advice(addr("[fe80::2%3]:5")), "");
    }

    #[test]
    fn addresses_change_family_only_at_the_socket() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let cases = [
            ("10.0.0.1:5", false, Some("10.0.0.1:5")),
            ("10.0.0.1:5", true, Some("[::ffff:10.0.0.1]:5")),
            ("[::ffff:10.0.0.1]:5", false, Some("10.0.0.1:5")),
            ("[::ffff:10.0.0.1]:5", true, Some("[::ffff:10.0.0.1]:5")),
            ("[2001:db8::1]:5", true, Some("[2001:db8::1]:5")),
            ("[2001:db8::1]:5", false, None),
        ];
        for (to, v6, expected) in cases {
            assert_eq!(
                to_socket_family(addr(to), v6),
                expected.map(addr),
                "{to} on v6={v6}"
            );
        }
        assert_eq!(plain(addr("[::ffff:10.0.0.1]:5")), addr("10.0.0.1:5"));
        assert_eq!(plain(addr("[fe80::1%3]:5")), addr("[fe80::1%3]:5"));
    }
}
