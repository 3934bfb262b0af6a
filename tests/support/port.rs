//! Ports that nobody else uses: free for TCP and UDP, and held against all other tests of this machine.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
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

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Port> {
        if IN_VECTORS.iter().any(|named| (named ^ number).count_ones() <= 1) {
            return None;
        }
        let name = SocketAddr::from_abstract_name(format!("fyrd-test-port-{number}")).ok()?;
        let reservation = UnixDatagram::bind_addr(&name).ok()?;
        // The wildcard address collides with a user of the port on any address.
        let v4 = (Ipv4Addr::UNSPECIFIED, number);
        let v6 = (Ipv6Addr::LOCALHOST, number);
        TcpListener::bind(v4).and(UdpSocket::bind(v4)).ok()?;
        TcpListener::bind(v6).and(UdpSocket::bind(v6)).ok()?;
        Some(Port {
            number,
            _reservation: reservation,
        })
    }
}
