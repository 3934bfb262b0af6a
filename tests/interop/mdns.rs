//! Discovery by mDNS: agents of both kinds find each other, in a network of the test's own.
//!
//! Without network namespaces these tests fail: discovery would go unchecked.

use std::process::Command;
use std::time::Duration;

use crate::support::network::{Network, PRIVATE_ADDRESS, Switched};
use crate::support::{self, Agent, Kind, Plan, all_alive, eventually};

/// A network whose addresses can be used: an IPv6 address is checked for a second after it was made, and
/// Serf, which cannot send to its group until then, does not ask again for a minute.
fn network() -> Network {
    let network =
        Network::new().unwrap_or_else(|error| panic!("a network namespace is needed for this test: {error}"));
    let launcher = network.launcher();
    eventually("the network's addresses can be used", support::PATIENCE, || {
        let ip = |args: &[&str]| {
            let output = Command::new(&launcher[0])
                .args(&launcher[1..])
                .args(["ip", "-6", "addr", "show", "scope", "link"])
                .args(args)
                .output();
            String::from_utf8_lossy(&output.expect("`ip` runs").stdout).into_owned()
        };
        let (all, unusable) = (ip(&[]), ip(&["tentative"]));
        if all.matches("inet6 fe80:").count() == 2 && unusable.is_empty() {
            Ok(())
        } else {
            Err(all)
        }
    });
    network
}

/// An agent that discovers the others of a cluster.
fn plan(network: &Network, kind: Kind, name: &str, cluster: &str) -> Plan {
    Plan::new(kind, name)
        .host(PRIVATE_ADDRESS)
        .launcher(&network.launcher())
        .arg(format!("-discover={cluster}"))
}

/// The second agent asks at its start, so it is the one that finds the first.
fn finds(second: Kind, first: Kind) {
    let network = network();
    let one = plan(&network, first, "one", "testc").start();
    let two = plan(&network, second, "two", "testc").start();
    all_alive(&[&one, &two]);
    two.says("[INFO] agent.mdns: Joined ");
    // It was the second that found the first, not the other way round a minute later.
    let log = two.log();
    let joining = log.lines().find(|line| line.contains("agent: joining: ["));
    let joining = joining.expect("a line that says whom it joins");
    assert!(joining.contains(&one.address()), "{joining}");
    assert!(!one.log().contains("agent.mdns: Joined 2 hosts"), "{}", one.log());
    assert!(
        two.log().contains("                   mDNS cluster: testc\n"),
        "{}",
        two.log()
    );
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn fyrd_finds_serf() {
    finds(Kind::Fyrd, Kind::Serf);
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn serf_finds_fyrd() {
    finds(Kind::Serf, Kind::Fyrd);
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn fyrd_finds_fyrd_and_not_another_cluster() {
    let network = network();
    let one = plan(&network, Kind::Fyrd, "one.with dots", "Testc").start();
    let other = plan(&network, Kind::Fyrd, "other", "otherc").start();
    let two = plan(&network, Kind::Fyrd, "two", "testC").start();
    all_alive(&[&one, &two]);
    assert_eq!(other.members().unwrap().len(), 1);
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn many_are_joined_at_once() {
    let network = network();
    let kinds = [Kind::Fyrd, Kind::Serf, Kind::Fyrd];
    let first: Vec<Agent> = kinds
        .iter()
        .enumerate()
        .map(|(number, kind)| plan(&network, *kind, &format!("n{number}"), "c").start())
        .collect();
    let last = plan(&network, Kind::Fyrd, "last", "c").start();
    let all: Vec<&Agent> = first.iter().chain([&last]).collect();
    all_alive(&all);
    last.says("[INFO] agent.mdns: Joined 3 hosts");
    assert_eq!(
        last.log().matches("agent: joining: [").count(),
        1,
        "{}",
        last.log()
    );
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn ipv6_alone_is_enough() {
    let network = network();
    let only_v6 = |name: &str| {
        plan(&network, Kind::Fyrd, name, "c")
            .arg("-mdns-disable-ipv4")
            .start()
    };
    let one = only_v6("one");
    let two = only_v6("two");
    all_alive(&[&one, &two]);
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn a_chosen_interface_is_used_alone() {
    let network = network();
    let here = plan(&network, Kind::Fyrd, "here", "c")
        .arg("-mdns-iface=here")
        .start();
    // Multicast over the loopback reaches nobody who listens elsewhere.
    let away = plan(&network, Kind::Fyrd, "away", "c")
        .args(["-mdns-iface=lo", "-mdns-disable-ipv6"])
        .start();
    let two = plan(&network, Kind::Fyrd, "two", "c")
        .arg("-mdns-iface=here")
        .start();
    all_alive(&[&here, &two]);
    assert_eq!(away.members().unwrap().len(), 1);
}

/// The answer to a question by another program, to the byte where it can be known.
#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn any_asker_is_answered() {
    let network = network();
    let agent = plan(&network, Kind::Fyrd, "n1", "c").start();
    let ask = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.sendto(bytes.fromhex('1234' '0000' '0001' '0000' '0000' '0000' '07') + b'_serf_c' + b'\\x04_tcp\\x05local\\0'
    + bytes.fromhex('000c8001'), ('224.0.0.251', 5353))
answer, source = s.recvfrom(9000)
print(source[1], answer.hex())";
    let launcher = network.launcher();
    let output = Command::new(&launcher[0])
        .args(&launcher[1..])
        .args(["python3", "-c", ask])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (port, answer) = text.trim().split_once(' ').expect("an answer");
    assert_eq!(port, "5353");
    // The asked ID is kept, for this asker wanted the answer for itself alone.
    assert!(answer.starts_with("123484000000000400000000"), "{answer}");
    let srv_data = format!("000a0001{:04x}", agent.gossip_port());
    let txt_data: String = "\u{10}Serf 'c' cluster"
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for part in [&srv_data, &txt_data, "000100010000007800040a4d0001"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
}

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn what_is_wrong_is_said() {
    let network = network();
    let table: [(&[&str], &str); 3] = [
        (
            &["-mdns-disable-ipv4", "-mdns-disable-ipv6"],
            "==> Error starting mDNS listener: No multicast listeners could be started: both IPv4 and IPv6 are disabled\n",
        ),
        (
            &["-mdns-iface=nosuch"],
            "==> Invalid mDNS network interface: route ip+net: no such network interface\n",
        ),
        (
            &["-discover=ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"],
            "==> Error starting mDNS listener: the cluster's name 'ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc' is too long, at most 57 bytes fit\n",
        ),
    ];
    for (flags, expected) in table {
        let ended = plan(&network, Kind::Fyrd, "n1", "c")
            .args(flags.iter().copied())
            .try_start()
            .unwrap_err();
        assert_eq!(ended.code, Some(1));
        assert!(ended.output.ends_with(expected), "{}", ended.output);
    }
}

/// A host that cannot be joined is named, and does not keep the others from being joined later.
#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn a_failed_join_is_logged() {
    let network = network();
    let serf = plan(&network, Kind::Fyrd, "plain", "c").start();
    let key = format!("-encrypt={}", support::KEY_16);
    let two = plan(&network, Kind::Fyrd, "sealed", "c").arg(key).start();
    two.says(&format!(
        "[ERR] agent.mdns: Failed to join: 1 error occurred:\n\t* Failed to join {}: ",
        serf.address()
    ));
}

/// Cloned images, and hosts that nobody has named: each answer gives its own address under the same host name. Of two
/// clusters, told apart by a label, the second has to be found among the answers of the first.
#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn hosts_of_one_name_are_told_apart() {
    let network = Switched::new(6).unwrap_or_else(|error| panic!("network namespaces are needed: {error}"));
    let start = |host: usize, kind: Kind, label: &str| {
        let named = [
            "unshare",
            "-u",
            "sh",
            "-c",
            "hostname localhost && exec \"$0\" \"$@\"",
        ];
        let launcher = [network.launcher(host), named.map(str::to_owned).into()].concat();
        Plan::new(kind, &format!("n{host}"))
            .host(&network.address(host))
            .launcher(&launcher)
            .arg("-discover=c")
            .args((!label.is_empty()).then(|| format!("-label={label}")))
            .start()
    };
    let kinds = [Kind::Serf, Kind::Fyrd, Kind::Fyrd, Kind::Fyrd];
    let first: Vec<Agent> = (0..kinds.len())
        .map(|host| start(host, kinds[host], ""))
        .collect();
    let second = [4, 5].map(|host| start(host, Kind::Fyrd, "green"));
    // Nobody asks again before a minute is over.
    eventually("the last has found the other", Duration::from_secs(30), || {
        let seen = second[1].statuses()?;
        (seen.len() == 2)
            .then_some(())
            .ok_or_else(|| format!("{seen:?}\n{}", second[1].log()))
    });
    all_alive(&first.iter().collect::<Vec<_>>());
    all_alive(&second.iter().collect::<Vec<_>>());
}
