//! Opening a connection to an agent, at `HOST:PORT` or `unix:PATH`, with the error texts of Go's net
//! package, which scripts and people know from Serf.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::go;
use fyrd_core::addr::is_windows_path;

/// Whatever bytes flow over: TCP, or another stream socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Marks the address of a Unix socket; what follows is its path.
pub const UNIX_PREFIX: &str = "unix:";

/// Connects within `limit` to `unix:PATH`, or by TCP to anything else. The error is the whole text.
pub async fn dial(address: &str, limit: Duration) -> Result<Box<dyn Stream>, String> {
    if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
        return dial_unix(path, limit).await;
    }
    let stream = dial_tcp(address, limit).await?;
    // Requests are small and waited for; a failure here costs only time.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

/// Connects within `limit`. A host name is tried at every address it resolves to, IPv4 first, since
/// an agent's default listener is 127.0.0.1.
///
/// The error is the whole text, such as `dial tcp 127.0.0.1:7373: connect: connection refused`.
pub async fn dial_tcp(address: &str, limit: Duration) -> Result<TcpStream, String> {
    let deadline = tokio::time::Instant::now() + limit;
    if address.is_empty() {
        return Err("dial tcp: missing address".to_owned());
    }
    let (host, port) = split_host_port(address)
        .map_err(|problem| format!("dial tcp: address {address}: {problem}"))
        .and_then(|(host, port)| {
            Ok((
                host,
                parse_port(port).map_err(|text| format!("dial tcp: {text}"))?,
            ))
        })?;
    if host.is_empty() {
        return dial_local(port, deadline).await;
    }
    let targets = tokio::time::timeout_at(deadline, resolve(host, port))
        .await
        .map_err(|_| format!("dial tcp: lookup {host}: i/o timeout"))?
        .map_err(|()| format!("dial tcp: lookup {host}: no such host"))?;
    dial_any(&targets, deadline)
        .await
        .map_err(|(target, problem)| format!("dial tcp {target}: {problem}"))
}

#[cfg(unix)]
async fn dial_unix(path: &str, limit: Duration) -> Result<Box<dyn Stream>, String> {
    match tokio::time::timeout(limit, tokio::net::UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(format!("dial unix {path}: connect: {}", go::os_error(&error))),
        Err(_) => Err(format!("dial unix {path}: i/o timeout")),
    }
}

#[cfg(not(unix))]
async fn dial_unix(path: &str, _: Duration) -> Result<Box<dyn Stream>, String> {
    Err(format!(
        "dial unix {path}: Unix sockets are not available on this system"
    ))
}

/// No host means this one.
async fn dial_local(port: u16, deadline: tokio::time::Instant) -> Result<TcpStream, String> {
    let targets = [
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from(([0u16, 0, 0, 0, 0, 0, 0, 1], port)),
    ];
    dial_any(&targets, deadline)
        .await
        .map_err(|(_, problem)| format!("dial tcp :{port}: {problem}"))
}

/// The first connection that succeeds, or what went wrong at the first address.
async fn dial_any(
    targets: &[SocketAddr],
    deadline: tokio::time::Instant,
) -> Result<TcpStream, (String, String)> {
    let mut first = None;
    for target in targets {
        let problem = match tokio::time::timeout_at(deadline, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => format!("connect: {}", go::os_error(&error)),
            Err(_) => "i/o timeout".to_owned(),
        };
        first.get_or_insert((target.to_string(), problem));
    }
    Err(first.unwrap_or_else(|| (String::new(), "no address".to_owned())))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ()> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    // The system's resolver takes "127.1" for an address; Go, and so Serf, does not.
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric {
        return Err(());
    }
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| ())?
        .collect();
    found.sort_by_key(|address| !address.is_ipv4());
    if found.is_empty() { Err(()) } else { Ok(found) }
}

/// Splits `host:port`, `[v6]:port` and `:port`; the brackets are not part of the host.
pub fn split_host_port(address: &str) -> Result<(&str, &str), &'static str> {
    if is_windows_path(address) {
        return Err("it is a path, not a host and a port");
    }
    const MISSING_PORT: &str = "missing port in address";
    const TOO_MANY_COLONS: &str = "too many colons in address";
    let (before, port) = address.rsplit_once(':').ok_or(MISSING_PORT)?;
    let host = match address.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or("missing ']' in address")?;
            match after.strip_prefix(':') {
                Some(after) if after.len() == port.len() => {}
                Some(_) => return Err(TOO_MANY_COLONS),
                None => return Err(MISSING_PORT),
            }
            if host.contains('[') {
                return Err("unexpected '[' in address");
            }
            host
        }
        None if before.contains(':') => return Err(TOO_MANY_COLONS),
        None => before,
    };
    let bracketed = address.starts_with('[');
    if port.contains('[') || (!bracketed && host.contains('[')) {
        return Err("unexpected '[' in address");
    }
    if port.contains(']') || host.contains(']') {
        return Err("unexpected ']' in address");
    }
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("address tcp/{text}: unknown port"));
    }
    text.parse().map_err(|_| format!("address {text}: invalid port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn splits_as_go_does() {
        let cases = [
            ("127.0.0.1:7373", Ok(("127.0.0.1", "7373"))),
            (":1", Ok(("", "1"))),
            ("[::1]:1", Ok(("::1", "1"))),
            ("host:", Ok(("host", ""))),
            ("127.0.0.1", Err("missing port in address")),
            ("[::1]", Err("missing port in address")),
            ("[::1]x:1", Err("missing port in address")),
            ("[::1", Err("missing ']' in address")),
            ("::1:1", Err("too many colons in address")),
            ("a:b:c", Err("too many colons in address")),
            ("[::1]:1:2", Err("too many colons in address")),
            ("ab[c:1", Err("unexpected '[' in address")),
            ("ab]c:1", Err("unexpected ']' in address")),
            ("[a[b]:1", Err("unexpected '[' in address")),
            (r"C:\fyrd.sock", Err("it is a path, not a host and a port")),
            ("C:1", Ok(("C", "1"))),
            ("[a]:1]", Err("unexpected ']' in address")),
        ];
        for (address, expected) in cases {
            assert_eq!(split_host_port(address), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn errors_read_as_go_writes_them() {
        // A port that was free a moment ago refuses.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let refused = format!("127.0.0.1:{port}");
        let refused_text = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let cases = [
            ("", "dial tcp: missing address"),
            (
                "127.0.0.1",
                "dial tcp: address 127.0.0.1: missing port in address",
            ),
            ("127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
            ("127.0.0.1:-1", "dial tcp: address -1: invalid port"),
            ("127.0.0.1:foo", "dial tcp: address tcp/foo: unknown port"),
            ("127.0.0.1:1x", "dial tcp: address tcp/1x: unknown port"),
            ("127.1:1", "dial tcp: lookup 127.1: no such host"),
            (refused.as_str(), refused_text.as_str()),
        ];
        for (address, expected) in cases {
            assert_eq!(dial_tcp(address, SECOND).await.unwrap_err(), expected);
        }
    }
}
