//! A member's address in the very bytes its owner announces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether a text is a path of Windows, perhaps in quotes: it begins with `C:\`, `C:/` or `\\`. No address, URL
/// or event filter begins so.
pub fn is_windows_path(text: &str) -> bool {
    match text.strip_prefix('"').unwrap_or(text).as_bytes() {
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        [b'\\', b'\\', ..] => true,
        _ => false,
    }
}

/// 4 or 16 raw bytes, never normalised, because peers compare the bytes (docs/protocol.md#a23-addresses).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RawAddr {
    /// Four bytes.
    V4([u8; 4]),
    /// Sixteen bytes; an IPv4 address in v4-mapped form too.
    V16([u8; 16]),
}

impl RawAddr {
    /// Reads the wire form; `None` unless it has 4 or 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            4 => Some(RawAddr::V4(bytes.try_into().ok()?)),
            16 => Some(RawAddr::V16(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// The 16-byte form, in which a node on the default bind announces its IPv4 address.
    pub fn mapped(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => RawAddr::V16(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => RawAddr::V16(ip.octets()),
        }
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RawAddr::V4(bytes) => bytes,
            RawAddr::V16(bytes) => bytes,
        }
    }

    /// The address to send to; both forms of an IPv4 address give the same.
    pub fn ip(&self) -> IpAddr {
        match self {
            RawAddr::V4(bytes) => IpAddr::V4(Ipv4Addr::from(*bytes)),
            RawAddr::V16(bytes) => {
                let ip = Ipv6Addr::from(*bytes);
                ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
            }
        }
    }

    /// Where to send, together with the port.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}

impl From<IpAddr> for RawAddr {
    /// The short form: 4 bytes for IPv4.
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => RawAddr::V4(ip.octets()),
            IpAddr::V6(ip) => RawAddr::V16(ip.octets()),
        }
    }
}

impl std::fmt::Debug for RawAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip(), self.as_bytes().len())
    }
}

impl std::fmt::Display for RawAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ipv4_address_send_alike_and_stay_distinct() {
        let ip: IpAddr = "10.1.2.3".parse().expect("address");
        let short = RawAddr::from(ip);
        let long = RawAddr::mapped(ip);
        assert_eq!(short.as_bytes().len(), 4);
        assert_eq!(long.as_bytes().len(), 16);
        assert_ne!(short, long);
        assert_eq!(short.ip(), long.ip());
        assert_eq!(RawAddr::from_bytes(long.as_bytes()), Some(long));
        assert_eq!(RawAddr::from_bytes(&[1, 2, 3]), None);
    }
}
