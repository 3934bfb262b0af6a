//! Link-local addresses: they mean something only together with a link, and what members announce names none.

use std::process::Command;

use crate::support::network::Switched;
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, eventually};

/// The number of a host's interface.
fn number_of_eth0(network: &Switched, host: usize) -> u32 {
    let launcher = network.launcher(host);
    let output = Command::new(&launcher[0])
        .args(&launcher[1..])
        .args(["ip", "-o", "link", "show", "eth0"])
        .output()
        .expect("`ip` runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split(':').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {text:?}"))
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn members_reach_each_other_by_link_local_addresses() {
    let network = Switched::new(3).unwrap_or_else(|error| panic!("network namespaces are needed: {error}"));
    let plan = |host: usize, bind: String| {
        Plan::new(Kind::Fyrd, &format!("n{host}"))
            .host(&bind)
            .launcher(&network.launcher(host))
            .key(Some(KEY_32))
            .args(["-profile=local", "-log-level=debug"])
    };
    let by_name = plan(0, format!("[{}%eth0]", network.link_local(0))).start();
    let number = number_of_eth0(&network, 1);
    let by_number = plan(1, format!("[{}%{number}]", network.link_local(1)))
        .join(&by_name)
        .start();
    let by_interface = plan(2, format!("[{}]", network.link_local(2)))
        .arg("-iface=eth0")
        .arg(format!("-advertise=[{}%eth0]:{{port}}", network.link_local(2)))
        .join(&by_number)
        .start();
    let all = [&by_name, &by_number, &by_interface];
    all_alive(&all);
    // A measured time needs an answered ping; a stream's answer has none.
    for from in all {
        for to in all.iter().filter(|to| to.name() != from.name()) {
            eventually(
                &format!("{} has probed {}", from.name(), to.name()),
                PATIENCE,
                || {
                    let rtt = from.cli(&["rtt", to.name()]);
                    (rtt.code == Some(0))
                        .then_some(())
                        .ok_or_else(|| format!("{rtt:?}"))
                },
            );
        }
    }
    all_alive(&all);
    for agent in all {
        for (host, member) in agent.members().expect("members").iter().enumerate() {
            let addr = format!("[{}]:{}", network.link_local(host), all[host].gossip_port());
            assert_eq!(member.addr, addr);
        }
        for complaint in ["Failed to send", "over TCP but UDP", "onflict", "has failed"] {
            assert!(!agent.log().contains(complaint), "{}", agent.log());
        }
    }
    takes_orders_at_its_link(&network, &by_name);
}

fn takes_orders_at_its_link(network: &Switched, seed: &Agent) {
    let rpc = format!("[{}%eth0]", network.link_local(2));
    let agent = Plan::new(Kind::Fyrd, "rpc")
        .host("127.0.0.1")
        .launcher(&network.launcher(2))
        .arg(format!("-rpc-addr={rpc}:{{rpc}}"))
        .key(Some(KEY_32))
        .start();
    let at = format!("-rpc-addr={rpc}:{}", agent.rpc_port());
    // The agent's own network has no link-local address.
    let joined = Kind::Fyrd.run_with(&["join", &at, &seed.address()], &network.launcher(2), &[]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let scopeless = seed.address().replace("%eth0", "");
    let joined = Kind::Fyrd.run_with(&["join", &at, &scopeless], &network.launcher(2), &[]);
    assert_eq!(joined.code, Some(1));
    assert!(
        joined.stdout.contains(
            "connect: invalid argument: on which link is it? Give -bind with a scope, as in [fe80::1%eth0], or -iface"
        ),
        "{joined:?}"
    );
}
