//! Hosts behind one name whose parts know nothing of each other, because the network or the name's addresses kept
//! them apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::network::Routed;
use crate::support::{Agent, Kind, Plan, all_alive, eventually, side_by_side};

/// What the name stands for.
const NAME: &str = "cluster.test";

/// Within this time of the heal there is one cluster; twice of what is promised, for the machine may be busy.
const HEALING: Duration = Duration::from_secs(60);

/// A file that stands for `/etc/hosts` on some of the hosts.
struct HostsFile(PathBuf);

impl HostsFile {
    fn new(folder: &Path, name: &str) -> HostsFile {
        HostsFile(folder.join(name))
    }

    /// From now on the name has these addresses. The file stays the same one, for it is mounted.
    fn set(&self, addresses: &[String]) {
        let lines = addresses.iter().map(|address| format!("{address} {NAME}\n"));
        std::fs::write(&self.0, lines.collect::<String>()).expect("a hosts file");
    }

    /// Has a program see it, after what else launches it.
    fn launcher(&self, outer: Vec<String>) -> Vec<String> {
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let file = self.0.to_string_lossy().into_owned();
        let words = ["unshare", "-m", "sh", "-c", script, &file].map(str::to_owned);
        [outer, words.into()].concat()
    }
}

/// Waits until all of them list all of them as alive.
fn one_cluster(agents: &[Agent]) {
    for agent in agents {
        eventually(&format!("{} sees all", agent.name()), HEALING, || {
            let statuses = agent.statuses()?;
            let alive = statuses.values().filter(|status| *status == "alive").count();
            if alive == agents.len() && statuses.len() == alive {
                Ok(())
            } else {
                Err(format!("{statuses:?}"))
            }
        });
    }
}

/// Four hosts that join through one name, the first two told one list of addresses, the others another. All of them
/// gossip at one port, which a name in `-join` stands for.
fn start(
    network: &Routed,
    folder: &Path,
    flag: &str,
    addresses: [&[usize]; 2],
) -> (Vec<Agent>, Vec<HostsFile>) {
    let files: Vec<HostsFile> = ["one", "other"].map(|name| HostsFile::new(folder, name)).into();
    for (file, hosts) in files.iter().zip(addresses) {
        file.set(
            &hosts
                .iter()
                .map(|&host| network.address(host))
                .collect::<Vec<_>>(),
        );
    }
    let mut agents: Vec<Agent> = Vec::new();
    for host in 0..4 {
        let mut plan = Plan::new(Kind::Fyrd, &format!("n{host}"))
            .host(&network.address(host))
            .launcher(&files[host / 2].launcher(network.launcher(host)))
            .arg(format!("-{flag}={NAME}"));
        if let Some(first) = agents.first() {
            plan = plan.port_of(first);
        }
        agents.push(plan.start());
    }
    (agents, files)
}

#[test]
#[ignore = "needs network and mount namespaces (tests/run)"]
fn hosts_behind_one_name_that_were_cut_in_two_at_the_start_become_one_cluster() {
    side_by_side(&["join", "retry-join"], |flag| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut network =
            Routed::new(4).unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
        network.cut(&[0, 1], &[2, 3]);
        network.cut(&[2, 3], &[0, 1]);
        let all: &[usize] = &[0, 1, 2, 3];
        let (agents, _files) = start(&network, folder.path(), flag, [all, all]);
        for side in agents.chunks(2) {
            all_alive(&side.iter().collect::<Vec<_>>());
        }
        network.heal();
        one_cluster(&agents);
    });
}

#[test]
#[ignore = "needs network and mount namespaces (tests/run)"]
fn a_name_that_stands_for_other_hosts_by_now_is_resolved_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let network =
        Routed::new(4).unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
    let (agents, files) = start(&network, folder.path(), "join", [&[0, 1], &[2, 3]]);
    for side in agents.chunks(2) {
        all_alive(&side.iter().collect::<Vec<_>>());
    }
    // One of two sides that hears of one host of the other is enough.
    files[0].set(&[network.address(3)]);
    one_cluster(&agents);
}
