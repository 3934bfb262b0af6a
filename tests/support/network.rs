//! A network of a test's own: one private IPv4 address, and no way out.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The only address of the network beside its loopback; private, as RFC 6890 means it.
pub const PRIVATE_ADDRESS: &str = "10.77.0.1";

/// The kernel forwards nothing here, but an agent looking for its address follows the default route.
const SET_UP: &str = "set -e
ip link set lo up
ip link add here type veth peer name there
ip addr add 10.77.0.1/24 dev here
ip link set here up
ip link set there up
ip route add default via 10.77.0.254
echo ready
exec cat";

/// A network namespace, kept by a process that does nothing else.
#[derive(Debug)]
pub struct Network {
    keeper: Child,
    as_root: bool,
}

impl Network {
    /// Makes one, or says why this machine does not allow it.
    pub fn new() -> Result<Network, String> {
        let uid = Command::new("id")
            .arg("-u")
            .output()
            .map_err(|error| error.to_string())?;
        let as_root = uid.stdout == b"0\n";
        let flags: &[&str] = if as_root { &["-n"] } else { &["-n", "-r"] };
        let keeper = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", SET_UP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut network = Network { keeper, as_root };
        let mut line = String::new();
        let stdout = network.keeper.stdout.take().ok_or("no output")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_ok() && line == "ready\n" {
            return Ok(network);
        }
        let stderr = network.keeper.stderr.take().ok_or("no output")?;
        Err(std::io::read_to_string(stderr).unwrap_or_else(|error| error.to_string()))
    }

    /// What to put before a command line so that it runs in this network.
    pub fn launcher(&self) -> Vec<String> {
        let pid = self.keeper.id().to_string();
        let mut words = vec!["nsenter", "-t", &pid, "-n"];
        if !self.as_root {
            words.extend(["-U", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
