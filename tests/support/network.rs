//! Networks of a test's own: one private IPv4 address and no way out, or several hosts and a router.

use std::io::{BufRead, BufReader, Write};
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
        Network::set_up(SET_UP)
    }

    /// Makes one by a script of its own.
    fn set_up(script: &str) -> Result<Network, String> {
        let uid = Command::new("id")
            .arg("-u")
            .output()
            .map_err(|error| error.to_string())?;
        let as_root = uid.stdout == b"0\n";
        let flags: &[&str] = if as_root { &["-n"] } else { &["-n", "-r"] };
        let keeper = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut network = Network { keeper, as_root };
        network.ready()?;
        Ok(network)
    }

    /// Waits until it is set up.
    fn ready(&mut self) -> Result<(), String> {
        let mut line = String::new();
        let stdout = self.keeper.stdout.take().ok_or("no output")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_ok() && line == "ready\n" {
            return Ok(());
        }
        let stderr = self.keeper.stderr.take().ok_or("no output")?;
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

/// Some hosts, each in a network of its own, with a router between them that can refuse to carry packets.
#[derive(Debug)]
pub struct Routed {
    hosts: Vec<Network>,
    router: Network,
    cuts: Vec<String>,
}

/// What the router does before there are hosts, and afterwards when it is told a batch of commands.
const ROUTER: &str = "set -e
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready
exec cat";

/// A host waits for its link, which the router makes.
const HOST: &str = "ip link set lo up; echo ready; exec cat";

impl Routed {
    /// Makes so many hosts, or says why this machine does not allow it.
    pub fn new(count: usize) -> Result<Routed, String> {
        let router = Network::set_up(ROUTER)?;
        let mut routed = Routed {
            hosts: Vec::new(),
            router,
            cuts: Vec::new(),
        };
        for index in 0..count {
            let host = routed.router.inner()?;
            let (pid, number) = (host.keeper.id(), index + 1);
            let link = format!(
                "link add to{number} type veth peer name eth0 netns {pid}
                addr add 10.78.{number}.1/24 dev to{number}
                link set to{number} up"
            );
            routed.router.ip(&link)?;
            let address = routed.address(index);
            host.ip(&format!(
                "addr add {address}/24 dev eth0
                link set eth0 up
                route add default via 10.78.{number}.1"
            ))?;
            routed.hosts.push(host);
        }
        Ok(routed)
    }

    /// The address of a host, counted from 0.
    pub fn address(&self, host: usize) -> String {
        format!("10.78.{}.2", host + 1)
    }

    /// What to put before a command line so that it runs on that host.
    pub fn launcher(&self, host: usize) -> Vec<String> {
        self.hosts[host].launcher()
    }

    /// Carries nothing more from any of the first hosts to any of the others; the other way round as before.
    pub fn cut(&mut self, from: &[usize], to: &[usize]) {
        let mut rules = String::new();
        for &from in from {
            for &to in to {
                let rule = format!("from {} to {} blackhole", self.address(from), self.address(to));
                rules += &format!("rule add {rule}\n");
                self.cuts.push(rule);
            }
        }
        self.router.ip(&rules).expect("a rule of the router");
    }

    /// Lets the system of one host send nothing to another: `unreachable`, `prohibit` or `blackhole`.
    pub fn forbid(&self, host: usize, to: usize, kind: &str) {
        let rule = format!("route add {kind} {}", self.address(to));
        self.hosts[host].ip(&rule).expect("a route of the host");
    }

    /// Ends that.
    pub fn allow(&self, host: usize, to: usize) {
        let rule = format!("route del {}", self.address(to));
        self.hosts[host].ip(&rule).expect("a route of the host");
    }

    /// Leads what any of the first hosts sends to any of the others astray, to the host `box_`, which takes it for its
    /// own and refuses it, as a firewall does, or the end of a cut link: all of it, or only TCP. The box must be another one
    /// for each direction.
    pub fn refuse(&mut self, from: &[usize], to: &[usize], box_: usize, only_tcp: bool) {
        let table = 100 + box_;
        let way = self.address(box_);
        self.router
            .ip(&format!("route replace default via {way} table {table}"))
            .expect("a route of the router");
        let taken: String = to
            .iter()
            .map(|&to| format!("addr replace {}/32 dev lo\n", self.address(to)))
            .collect();
        self.hosts[box_].ip(&taken).expect("addresses of the box");
        let mut rules = String::new();
        for &from in from {
            for &to in to {
                let what = if only_tcp { "ipproto tcp " } else { "" };
                // What the box answers comes from another link, and passes.
                let (link, from, to) = (from + 1, self.address(from), self.address(to));
                let rule = format!("iif to{link} from {from} to {to} {what}lookup {table}");
                rules += &format!("rule add {rule}\n");
                self.cuts.push(rule);
            }
        }
        self.router.ip(&rules).expect("a rule of the router");
    }

    /// Carries everything again.
    pub fn heal(&mut self) {
        let rules: Vec<String> = self
            .cuts
            .drain(..)
            .map(|rule| format!("rule del {rule}\n"))
            .collect();
        self.router.ip(&rules.concat()).expect("a rule of the router");
    }
}

/// Some hosts on one wire, so that they reach each other by multicast and by link-local addresses.
#[derive(Debug)]
pub struct Switched {
    hosts: Vec<Network>,
    switch: Network,
}

/// Carries what comes from one host to all others.
const SWITCH: &str = "set -e
ip link add wire type bridge mcast_snooping 0
ip link set wire up
echo ready
exec cat";

impl Switched {
    /// Makes so many hosts, or says why this machine does not allow it.
    pub fn new(count: usize) -> Result<Switched, String> {
        let switch = Network::set_up(SWITCH)?;
        let mut hosts = Vec::new();
        for number in 1..=count {
            let host = switch.inner()?;
            let pid = host.keeper.id();
            switch.ip(&format!(
                "link add to{number} type veth peer name eth0 netns {pid}
                link set to{number} addrgenmode none master wire up"
            ))?;
            // The system's own link-local address could be used only a second later.
            host.ip(&format!(
                "link set eth0 addrgenmode none up
                addr add 10.79.0.{number}/24 dev eth0
                addr add fe80::{number}/64 dev eth0 nodad
                route add default via 10.79.0.254"
            ))?;
            hosts.push(host);
        }
        Ok(Switched { hosts, switch })
    }

    /// The IPv4 address of a host, counted from 0.
    pub fn address(&self, host: usize) -> String {
        format!("10.79.0.{}", host + 1)
    }

    /// Its link-local address, at eth0.
    pub fn link_local(&self, host: usize) -> String {
        format!("fe80::{}", host + 1)
    }

    /// What to put before a command line so that it runs on that host.
    pub fn launcher(&self, host: usize) -> Vec<String> {
        self.hosts[host].launcher()
    }

    /// Takes a host off the wire, or puts it back.
    pub fn connect(&self, host: usize, connected: bool) {
        let master = if connected { "master wire" } else { "nomaster" };
        let link = format!("link set to{} {master}", host + 1);
        self.switch.ip(&link).expect("a link of the switch");
    }
}

impl Network {
    /// Another network, owned by the same user.
    fn inner(&self) -> Result<Network, String> {
        let words = self.launcher();
        let keeper = Command::new(&words[0])
            .args(&words[1..])
            .args(["unshare", "-n", "sh", "-c", HOST])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut network = Network {
            keeper,
            as_root: self.as_root,
        };
        network.ready()?;
        Ok(network)
    }

    /// Runs commands of `ip` in it, one a line.
    fn ip(&self, batch: &str) -> Result<(), String> {
        let words = self.launcher();
        let mut ip = Command::new(&words[0])
            .args(&words[1..])
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("ip: {error}"))?;
        let mut stdin = ip.stdin.take().ok_or("no input")?;
        stdin
            .write_all(batch.as_bytes())
            .map_err(|error| error.to_string())?;
        drop(stdin);
        let output = ip.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{batch}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
