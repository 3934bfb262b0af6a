//! Which address to bind to and which to announce (docs/compatibility.md#addresses).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs, UdpSocket};

use if_addrs::Interface;

use crate::go;
use fyrd_core::addr::is_windows_path;
use fyrd_core::serf::RawAddr;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 7946;

/// Reads `host`, `host:port`, `v6`, `[v6]`, `[v6]:port`; a name is looked up. An empty host is every
/// address, in IPv6's notation as in Serf. Errors have Serf's words.
pub fn parse(text: &str, default_port: Option<u16>) -> Result<SocketAddr, String> {
    let (host, port) = split(text, default_port)?;
    if host.is_empty() {
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    if let Some((bare, zone)) = host.split_once('%')
        && let Ok(ip) = bare.parse::<Ipv6Addr>()
    {
        let scope = scope_id(zone).ok_or_else(|| format!("address {text}: no network interface '{zone}'"))?;
        return Ok(SocketAddrV6::new(ip, port, 0, scope).into());
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => look_up(&host, port),
    }
}

/// Splits into host and port, as [`parse`] does, without looking anything up.
pub fn split(text: &str, default_port: Option<u16>) -> Result<(String, u16), String> {
    if is_windows_path(text) {
        return Err(format!("address {text}: it is a path, not a host and a port"));
    }
    let is_v6 = |host: &str| {
        host.split('%')
            .next()
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
    };
    let missing = || default_port.ok_or_else(|| format!("address {text}: missing port in address"));
    if is_v6(text) && default_port.is_some() {
        return Ok((text.to_string(), missing()?));
    }
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner
            .split_once(']')
            .ok_or_else(|| format!("address {text}: missing ']' in address"))?;
        match rest.strip_prefix(':') {
            _ if rest.is_empty() => return Ok((host.to_string(), missing()?)),
            Some(port) if !port.contains(':') => (host, port),
            Some(_) => return Err(format!("address {text}: too many colons in address")),
            None => {
                return Err(format!(
                    "address {text}: after ']' only a port may follow, as in [::1]:7946"
                ));
            }
        }
    } else {
        match text.split_once(':') {
            None => return Ok((text.to_string(), missing()?)),
            Some((_, port)) if port.contains(':') => {
                return Err(format!("address {text}: too many colons in address"));
            }
            Some(parts) => parts,
        }
    };
    Ok((host.to_string(), parse_port(port)?))
}

fn parse_port(port: &str) -> Result<u16, String> {
    if port.is_empty() {
        return Ok(0);
    }
    match port.parse::<i64>() {
        Ok(number) => u16::try_from(number).map_err(|_| format!("address {port}: invalid port")),
        Err(_) if port.bytes().all(|b| b.is_ascii_digit()) => Err(format!("address {port}: invalid port")),
        Err(_) => Err(format!("address tcp/{port}: unknown port")),
    }
}

/// The first address of a name, IPv4 before IPv6.
fn look_up(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|e| go::lookup_error(host, &e))?
        .collect();
    let best = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
    best.copied()
        .ok_or_else(|| format!("lookup {host}: no such host"))
}

/// A name before a number, as Go has it.
fn scope_id(zone: &str) -> Option<u32> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let named = interfaces.iter().find(|interface| interface.name == zone);
    let scope = named.and_then(|interface| interface.index);
    scope
        .or_else(|| zone.parse().ok())
        .filter(|scope: &u32| *scope != 0)
}

/// A link-local address of this host with its scope, from the interface named or from the only one that has it. The
/// system can use none without.
pub fn with_scope(addr: SocketAddr, interface: &str) -> Result<SocketAddr, String> {
    let SocketAddr::V6(mut v6) = addr else {
        return Ok(addr);
    };
    if !v6.ip().is_unicast_link_local() || v6.scope_id() != 0 {
        return Ok(addr);
    }
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let its = all
        .iter()
        .filter(|one| one.ip() == addr.ip() && (interface.is_empty() || one.name == interface));
    match its.filter_map(|one| one.index).collect::<Vec<u32>>()[..] {
        [scope] => {
            v6.set_scope_id(scope);
            Ok(v6.into())
        }
        _ => Err(format!(
            "address {}: which interface has it? Say so, as in [{}%eth0]",
            v6.ip(),
            v6.ip()
        )),
    }
}

/// The addresses of an interface; the error is a line for the user.
pub fn interface_addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    let all =
        if_addrs::get_if_addrs().map_err(|e| format!("Invalid network interface: {}", go::os_error(&e)))?;
    let addresses: Vec<IpAddr> = all.iter().filter(|i| i.name == name).map(Interface::ip).collect();
    match addresses.is_empty() {
        // An interface without any address is not in the list.
        true if std::path::Path::new("/sys/class/net").join(name).exists() && !name.contains('/') => {
            Err(format!("Interface '{name}' has no addresses"))
        }
        true => Err("Invalid network interface: route ip+net: no such network interface".to_string()),
        false => Ok(addresses),
    }
}

/// Whether an address can be reached from everywhere: it is in none of the blocks of RFC 6890, by which Serf
/// judges as well.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|(block, bits)| {
            let differing = u32::from(ip) ^ u32::from(Ipv4Addr::from(*block));
            differing.leading_zeros() >= *bits
        }),
        IpAddr::V6(ip) => !SPECIAL_V6.iter().any(|(block, bits)| {
            let differing = u128::from(ip) ^ u128::from(Ipv6Addr::from(*block));
            differing.leading_zeros() >= *bits
        }),
    }
}

const SPECIAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Serf takes all of 2001::/16 to be special, where public addresses are handed out.
const SPECIAL_V6: [([u16; 8], u32); 9] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// A link-local address of an interface, with its scope.
pub fn link_of(interface: &str) -> Option<SocketAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut its = all.iter().filter(|one| one.name == interface);
    its.find_map(|one| match one.ip() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(SocketAddrV6::new(ip, 0, 0, one.index?).into()),
        _ => None,
    })
}

/// What `-iface` makes of the bind address: a wildcard becomes the interface's address, anything else
/// must be on the interface. `true` when the address was taken from the interface.
pub fn bind_to_interface(
    bind: SocketAddr,
    name: &str,
    on_it: &[IpAddr],
) -> Result<(SocketAddr, bool), String> {
    if bind.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return match on_it.contains(&bind.ip()) {
            true => Ok((bind, false)),
            false => Err(format!("Interface '{name}' has no '{}' address", bind.ip())),
        };
    }
    let usable = on_it.iter().find(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    });
    match usable {
        Some(ip) => Ok((SocketAddr::new(*ip, bind.port()), true)),
        None => Err(format!("Failed to find usable address for interface '{name}'")),
    }
}

/// The address to announce when bound to `bound` and nothing else was said. Bound to all addresses, that is
/// a private one of this host, in the 16-byte form that Serf then uses, because peers compare bytes.
pub fn announced(bound: IpAddr) -> Result<RawAddr, String> {
    if !bound.to_canonical().is_unspecified() {
        return Ok(RawAddr::from(bound));
    }
    let interfaces = if_addrs::get_if_addrs().map_err(|e| go::os_error(&e))?;
    let routed = source_of_the_default_route();
    let is_routed = |name: &str| {
        interfaces
            .iter()
            .any(|one| one.name == name && Some(one.ip()) == routed)
    };
    let addresses: Vec<(IpAddr, bool)> = interfaces
        .iter()
        .map(|one| (one.ip(), is_routed(&one.name)))
        .collect();
    let private = pick_private(&addresses)
        .ok_or("No private IP address found, and explicit IP not provided; give -bind or -advertise")?;
    Ok(long_form(private))
}

/// The address from which this host would send to the world; nothing is sent.
fn source_of_the_default_route() -> Option<IpAddr> {
    // Addresses for documentation, of which no route but the default one knows.
    let source = |own: &str, far: &str| {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(far).ok()?;
        socket.local_addr().ok()
    };
    let found = source("0.0.0.0:0", "192.0.2.1:9").or_else(|| source("[::]:0", "[2001:db8::1]:9"));
    found.map(|addr| addr.ip())
}

/// 16 bytes, for IPv4 too.
fn long_form(ip: IpAddr) -> RawAddr {
    RawAddr::V16(match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

/// The first private address, where those of the interface of the default route come before the bridges of containers,
/// which have the same address on every host; and then IPv4 before IPv6.
fn pick_private(addresses: &[(IpAddr, bool)]) -> Option<IpAddr> {
    let private = addresses.iter().filter(|(ip, _)| match ip {
        IpAddr::V4(ip) => ip.is_private() || is_shared(*ip) || is_benchmarking(*ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    });
    let best = private.min_by_key(|(ip, routed)| (!routed, ip.is_ipv6()));
    best.map(|(ip, _)| *ip)
}

/// 100.64.0.0/10, behind a carrier's address translation; forwardable by RFC 6890.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

/// 198.18.0.0/15, forwardable by RFC 6890.
fn is_benchmarking(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 198 && (18..20).contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a real Serf 0.9.4 warned about, and what it did not, at `-advertise`.
    #[test]
    fn public_addresses_are_those_that_serf_warns_about() {
        let public = "8.8.8.8 172.32.0.1 192.0.1.1 198.20.0.1 224.0.0.1 239.255.0.1 2606:4700::1 \
                      ::ffff:8.8.8.8 fec0::1 ff02::1 100:0:0:1::1 2003::1 64:ff9b:1::1 64:ff9b::1:0:1 ::2 \
                      ::8.8.8.8";
        let special = "0.1.2.3 10.1.1.1 100.64.0.1 127.0.0.1 169.254.1.1 172.16.1.1 192.0.0.1 192.0.0.255 \
                       192.0.2.1 192.168.1.1 192.88.99.1 198.18.0.1 198.19.255.1 198.51.100.1 203.0.113.1 \
                       240.0.0.1 255.255.255.255 100::1 100::1:0:0:1 2001:10::1 2001:2::1 2001::1 \
                       2001:db8::1 2002::1 64:ff9b::1 fc00::1 fd00::2 fe80::1 fe90::1 ::1";
        for (addresses, expected) in [(public, true), (special, false)] {
            for address in addresses.split_whitespace() {
                assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
            }
        }
        // Serf says nothing here, and yet anybody can reach it.
        assert!(is_public("2001:4860::8888".parse().unwrap()));
    }

    #[test]
    fn addresses_in_every_form() {
        #[rustfmt::skip]
        let table = [
            ("127.0.0.1", Ok("127.0.0.1:7946")), ("127.0.0.1:99", Ok("127.0.0.1:99")), ("127.0.0.1:", Ok("127.0.0.1:0")),
            ("[::1]", Ok("[::1]:7946")), ("[::1]:99", Ok("[::1]:99")), ("::1", Ok("[::1]:7946")), ("::", Ok("[::]:7946")),
            (":99", Ok("[::]:99")), ("fe80::1%7", Ok("[fe80::1%7]:7946")), ("[fe80::1%7]:5", Ok("[fe80::1%7]:5")),
            ("127.0.0.1:bar", Err("address tcp/bar: unknown port")),
            ("127.0.0.1:99999", Err("address 99999: invalid port")),
            ("127.0.0.1:-1", Err("address -1: invalid port")),
            ("127.0.0.1:99999999999999999999", Err("address 99999999999999999999: invalid port")),
            ("[::1", Err("address [::1: missing ']' in address")),
            ("[::1]:1:2", Err("address [::1]:1:2: too many colons in address")),
            ("[::1]x", Err("address [::1]x: after ']' only a port may follow, as in [::1]:7946")),
            ("1.2.3.4:5:6", Err("address 1.2.3.4:5:6: too many colons in address")),
            ("fe80::1%0", Err("address fe80::1%0: no network interface '0'")),
            ("fe80::1%nosuch", Err("address fe80::1%nosuch: no network interface 'nosuch'")),
        ];
        for (text, expected) in table {
            let parsed = parse(text, Some(DEFAULT_PORT)).map(|addr| addr.to_string());
            assert_eq!(
                parsed,
                expected.map(str::to_string).map_err(str::to_string),
                "{text}"
            );
        }
        assert_eq!(
            parse("127.0.0.1", None).unwrap_err(),
            "address 127.0.0.1: missing port in address"
        );
        assert_eq!(
            parse("::1", None).unwrap_err(),
            "address ::1: too many colons in address"
        );
    }

    #[test]
    fn the_announced_address_has_the_form_that_serf_gives_it() {
        assert_eq!(
            announced("10.0.0.1".parse().unwrap()),
            Ok(RawAddr::V4([10, 0, 0, 1]))
        );
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        assert_eq!(long_form("10.0.0.1".parse().unwrap()), RawAddr::V16(mapped));
        // Whether this host has a private address or not, the short form never appears, and no wildcard does.
        for wildcard in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            let announced = announced(wildcard.parse().unwrap());
            assert!(!matches!(announced, Ok(RawAddr::V4(_))), "{wildcard}");
            assert!(
                !announced.is_ok_and(|addr| addr.ip().is_unspecified()),
                "{wildcard}"
            );
        }
    }

    #[test]
    fn a_private_address_is_picked() {
        // An address of the default route's interface is marked.
        let ips = |list: &[&str]| {
            let marked = |text: &&str| (text.trim_end_matches('*').parse().unwrap(), text.ends_with('*'));
            list.iter().map(marked).collect::<Vec<(IpAddr, bool)>>()
        };
        #[rustfmt::skip]
        let table = [
            (vec!["127.0.0.1", "192.0.2.2", "fd00::2", "fe80::1"], Some("fd00::2")),
            (vec!["fd00::2", "8.8.8.8", "192.168.1.1", "10.0.0.1"], Some("192.168.1.1")),
            (vec!["172.17.0.1", "10.0.0.1*"], Some("10.0.0.1")), (vec!["172.17.0.1", "fd00::2*"], Some("fd00::2")),
            (vec!["172.17.0.1", "8.8.8.8*", "fe80::1*"], Some("172.17.0.1")),
            (vec!["100.64.0.1"], Some("100.64.0.1")), (vec!["100.128.0.1"], None),
            (vec!["172.16.0.1"], Some("172.16.0.1")), (vec!["172.32.0.1"], None),
            (vec!["169.254.0.1", "::1", "2001:4860::1"], None),
        ];
        for (list, expected) in table {
            assert_eq!(
                pick_private(&ips(&list)),
                expected.map(|ip| ip.parse().unwrap()),
                "{list:?}"
            );
        }
    }

    #[test]
    fn interfaces() {
        let on_it: Vec<IpAddr> = ["fe80::1", "10.0.0.1", "fd00::1"]
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect();
        let bind = |text: &str| bind_to_interface(text.parse().unwrap(), "eth7", &on_it);
        assert_eq!(bind("0.0.0.0:5"), Ok(("10.0.0.1:5".parse().unwrap(), true)));
        assert_eq!(bind("10.0.0.1:5"), Ok(("10.0.0.1:5".parse().unwrap(), false)));
        assert_eq!(
            bind("10.9.9.9:5"),
            Err("Interface 'eth7' has no '10.9.9.9' address".into())
        );
        let only_local: Vec<IpAddr> = vec!["fe80::1".parse().unwrap(), "169.254.1.1".parse().unwrap()];
        assert_eq!(
            bind_to_interface("0.0.0.0:5".parse().unwrap(), "eth7", &only_local),
            Err("Failed to find usable address for interface 'eth7'".into())
        );
        assert_eq!(
            interface_addresses("nosuch"),
            Err("Invalid network interface: route ip+net: no such network interface".into())
        );
        assert_eq!(
            interface_addresses("lo").map(|list| list.contains(&Ipv4Addr::LOCALHOST.into())),
            Ok(true)
        );
    }
}
