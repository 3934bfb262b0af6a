//! Ports that nobody else uses: free for TCP and UDP, and held against all other tests of this machine.
#![allow(dead_code)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux picks the source ports of outgoing connections, so that no
/// connection of any test can take a port between its being found and its being bound.
const FIRST: u16 = 18_000;
const COUNT: u16 = 8_000;

/// The ports named in the test vectors. Agents fed with those, even with one bit flipped, will talk to
/// what they read there, and must not find the agent of another test.
const IN_VECTORS: [u16; 6] = [7_946, 17_946, 27_946, 37_946, 47_946, 47_947];

/// A port number that stays reserved as long as this lives.
///
/// The reservation is an abstract Unix socket named after the number: it works across the processes of
/// different test binaries, disappears with its owner whatever ends it, and leaves the port itself free
/// to be bound and, when an agent is restarted, bound again.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixDatagram,
}

impl Port {
    /// Finds and reserves one.
    pub fn reserve() -> Port {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Different processes start at different places, which only saves them collisions.
        let offset = std::process::id().wrapping_mul(61) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % COUNT;
            if let Some(port) = Port::try_reserve(FIRST + step) {
                return port;
            }
        }
        panic!("no free port from {FIRST} to {}", FIRST + COUNT);
    }

    /// Finds a port and reserves it until this process ends.
    pub fn for_good() -> u16 {
        let port = Port::reserve();
        let number = port.number();
        std::mem::forget(port);
        number
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Port> {
        if IN_VECTORS.iter().any(|named| (named ^ number).count_ones() <= 1) {
            return None;
        }
        let name = unix::SocketAddr::from_abstract_name(format!("fyrd-test-port-{number}")).ok()?;
        let reservation = UnixDatagram::bind_addr(&name).ok()?;
        // The wildcard address collides with a user of the port on any address.
        let free = |address: IpAddr| {
            let socket = SocketAddr::new(address, number);
            let bound = TcpListener::bind(socket)
                .map(drop)
                .and(UdpSocket::bind(socket).map(drop));
            // A machine without IPv6 has no users of its ports there either.
            bound
                .err()
                .is_none_or(|error| error.kind() == ErrorKind::AddrNotAvailable)
        };
        if !free(Ipv4Addr::UNSPECIFIED.into()) || !free(Ipv6Addr::LOCALHOST.into()) {
            return None;
        }
        Some(Port {
            number,
            _reservation: reservation,
        })
    }
}
