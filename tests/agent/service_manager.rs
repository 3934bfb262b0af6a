//! What a service manager hears of an agent, as systemd listens for it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually};
use tempfile::TempDir;

/// Takes what services tell.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Manager { socket, folder }
    }

    /// A plan for an agent whose manager this is.
    fn service(&self, name: &str, more: &[&str]) -> Plan {
        let path = self.folder.path().join("notify");
        let mut launcher = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", path.display())];
        launcher.extend(more.iter().map(|word| (*word).to_owned()));
        Plan::new(Kind::Fyrd, name).launcher(&launcher)
    }

    /// Waits until it is told something that has this line.
    #[track_caller]
    fn hears(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{line}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|own| own.starts_with(line)) {
                return text;
            }
        }
    }
}

#[test]
fn it_hears_of_start_reload_and_end() {
    let manager = Manager::new();
    let mut agent = manager
        .service("managed", &[])
        .with_file("c/a.json", "{}")
        .arg("-config-dir=c")
        .start();
    manager.hears("READY=1");
    agent.write("c/a.json", r#"{"log_level": "debug"}"#);
    agent.signal("HUP");
    assert!(manager.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(manager.hears("READY=1").contains("STATUS=Serving"));
    agent.write("c/a.json", "{");
    agent.signal("HUP");
    manager.hears("RELOADING=1");
    assert!(manager.hears("READY=1").contains("the reload failed"));
    agent.signal("INT");
    manager.hears("STOPPING=1");
    assert_eq!(agent.ended(), Some(0));
}

/// Else the first agent of a cluster could never be started.
#[test]
fn an_agent_that_has_nobody_to_join_yet_is_ready() {
    let manager = Manager::new();
    let agent = manager
        .service("first", &[])
        .arg("-retry-join=127.0.0.1:1")
        .start();
    manager.hears("READY=1");
    drop(agent);
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_agent_turns() {
    let manager = Manager::new();
    let agent: Agent = manager.service("watched", &["WATCHDOG_USEC=200000"]).start();
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    agent.signal("STOP");
    let silence = Duration::from_secs(1);
    manager.socket.set_read_timeout(Some(silence)).expect("a timeout");
    eventually("it falls silent", PATIENCE, || {
        match manager.socket.recv(&mut [0; 64]) {
            Err(_) => Ok(()),
            Ok(_) => Err("it still feeds it".to_owned()),
        }
    });
    agent.signal("CONT");
    manager
        .socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    manager.hears("WATCHDOG=1");
    let other = Plan::new(Kind::Fyrd, "other").join(&agent).start();
    all_alive(&[&agent, &other]);
}
