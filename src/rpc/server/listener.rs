//! Where clients come in: a TCP port, or a socket file that only its owner can use.

use std::io;
use std::net::SocketAddr;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;

use super::connection::Connection;
use crate::go;
use fyrd_core::bounds;

/// A bound and listening socket.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(super::unix::Listener),
}

impl Listener {
    /// Listens on a TCP address. The error is the whole text for the user.
    pub async fn tcp(addr: SocketAddr) -> Result<Listener, String> {
        let bound = TcpListener::bind(addr).await;
        bound
            .map(Listener::from)
            .map_err(|error| format!("listen tcp {addr}: bind: {}", go::os_error(&error)))
    }

    /// Listens on a socket file, with rights for nobody but the owner. A file that a dead agent left
    /// behind is replaced; the own one is removed when the listener is dropped.
    #[cfg(unix)]
    pub fn unix(path: &str) -> Result<Listener, String> {
        let bound = super::unix::Listener::bind(path.as_ref());
        bound
            .map(|listener| Listener(Kind::Unix(listener)))
            .map_err(|error| format!("listen unix {path}: bind: {}", go::os_error(&error)))
    }

    /// Socket files are not to be had here.
    #[cfg(not(unix))]
    pub fn unix(path: &str) -> Result<Listener, String> {
        Err(format!(
            "listen unix {path}: Unix sockets are not available on this system"
        ))
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<Connection> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let keepalive = TcpKeepalive::new().with_time(bounds::RPC_KEEPALIVE);
                // Without these two a client is merely served a little worse.
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                let _ = stream.set_nodelay(true);
                let (reader, writer) = stream.into_split();
                Ok(Connection {
                    reader: Box::new(reader),
                    writer: Box::new(writer),
                    peer: peer.to_string(),
                    source: peer.ip().to_canonical().to_string(),
                })
            }
            #[cfg(unix)]
            Kind::Unix(listener) => listener.accept().await,
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener(Kind::Tcp(listener))
    }
}
