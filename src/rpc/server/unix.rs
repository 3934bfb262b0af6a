//! Socket files: made so that at no moment anybody but their owner can connect, and removed at the end.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::connection::Connection;
use fyrd_core::bounds;

/// A listening socket and its file.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    /// Declared last, to be removed when the socket is closed already.
    _file: SocketFile,
}

impl Listener {
    /// Before `listen`, a bound socket refuses everybody, so there is no moment at which the rights that
    /// the umask gives it would matter.
    pub(super) fn bind(path: &Path) -> io::Result<Listener> {
        remove_if_dead(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::remember(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(bounds::LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
        Ok(Listener {
            socket: UnixListener::from_std(socket)?,
            _file: file,
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.socket.accept().await?;
        let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
        let (reader, writer) = stream.into_split();
        Ok(Connection {
            reader: Box::new(reader),
            writer: Box::new(writer),
            peer: pid.map_or_else(
                || "local process".to_owned(),
                |pid| format!("local process {pid}"),
            ),
            source: "local".to_owned(),
        })
    }
}

/// Makes room where a dead agent has left its socket. What else is there stays, and is an error.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Err(in_use()),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live agent that is too busy to accept must not hold up this one.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(in_use()),
    }
}

/// Removes the file when dropped, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn remember(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            // The working directory may be another one by then.
            path: std::path::absolute(path)?,
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Who starts next replaces it, if this fails.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_is_the_owners_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let (accepted, client) = tokio::join!(listener.accept(), tokio::net::UnixStream::connect(&path));
        client.unwrap();
        let expected = format!("local process {}", std::process::id());
        assert_eq!(accepted.unwrap().peer, expected);
        assert_eq!(
            Listener::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse,
            "a live one stays"
        );
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc.sock");
        // Dropping the plain socket leaves the file, as a killed agent does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the file is the second one's by now");
        drop(second);
        fs::write(&path, "precious").unwrap();
        assert_eq!(
            Listener::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let missing = folder.path().join("no").join("rpc.sock");
        assert_eq!(
            Listener::bind(&missing).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let long = folder.path().join("x".repeat(200));
        assert!(Listener::bind(&long).is_err());
    }
}
