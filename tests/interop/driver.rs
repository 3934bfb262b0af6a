//! The driver with the real node in it, beside a real Serf agent.

use std::net::SocketAddr;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use fyrd::driver::{Driver, DriverConfig, Ended, Handle, Sockets};
use fyrd_core::node::NodeConfig;
use fyrd_core::serf::{Answer, Command, Event, JoinTarget, MemberStatus, Tags};
use fyrd_core::swim::profile::Profile;
use fyrd_keys::Keyring;

use crate::support::PATIENCE;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A Serf agent that ends with the test.
struct Serf {
    agent: Child,
    gossip: SocketAddr,
    rpc: SocketAddr,
}

impl Serf {
    fn start(name: &str, more: &[&str]) -> Serf {
        let (gossip, rpc) = (free_addr(), free_addr());
        let agent = Program::new("serf")
            .args(["agent", "-profile=local", &format!("-node={name}")])
            .args([format!("-bind={gossip}"), format!("-rpc-addr={rpc}")])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("the real serf is needed: run tests/run, or apt-get install serf");
        let serf = Serf { agent, gossip, rpc };
        until("the Serf agent answers", || serf.run(&["members"]).contains(name));
        serf
    }

    fn run(&self, args: &[&str]) -> String {
        let (command, rest) = args.split_first().unwrap();
        let output = Program::new("serf")
            .arg(command)
            .arg(format!("-rpc-addr={}", self.rpc))
            .args(rest)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Serf {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn free_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::support::port::Port::for_good()))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn profile() -> Profile {
    Profile::builtin("local").expect("a profile that is compiled in")
}

async fn driver(name: &str, key: Option<&str>) -> (Driver, Handle) {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let node = NodeConfig {
        tags: Tags::from([("role".to_owned(), "test".to_owned())]),
        ..NodeConfig::new(name, sockets.local_addr(), profile(), 7)
    };
    let keyring = key.map(|key| Keyring::new(key.parse().unwrap()));
    Driver::new(
        sockets,
        DriverConfig {
            node,
            keyring,
            keyring_file: None,
            label: Vec::new(),
            replay_window: None,
            recorder: None,
            compress: true,
        },
    )
    .unwrap()
}

/// Runs a driver on a thread of its own, as the test's other half blocks on real programs.
fn run_in_thread(key: Option<&'static str>) -> (Handle, std::thread::JoinHandle<Ended>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let (driver, handle) = driver("fyrd", key).await;
            sender.send(handle).unwrap();
            driver.run().await
        })
    });
    (receiver.recv().unwrap(), thread)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn join(to: SocketAddr) -> Command {
    let targets = vec![JoinTarget { name: None, addr: to }];
    Command::Join {
        targets,
        ignore_old: false,
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_node_is_an_equal_member_beside_real_serf() {
    for key in [None, Some(KEY)] {
        let encrypt = key.map(|key| format!("-encrypt={key}"));
        let more: Vec<&str> = encrypt.iter().map(String::as_str).collect();
        let serf = Serf::start("serf", &more);
        let (handle, thread) = run_in_thread(key);
        let ask = runtime();
        let mut events = ask.block_on(handle.subscribe(1000)).unwrap();

        let joined = ask.block_on(handle.command(join(serf.gossip))).unwrap();
        assert_eq!(
            joined,
            Answer::Joined {
                contacted: 1,
                errors: Vec::new()
            }
        );
        until("Serf sees us", || {
            let members = serf.run(&["members", "-status=alive"]);
            members
                .lines()
                .any(|line| line.starts_with("fyrd ") && line.ends_with("role=test"))
        });
        let members = ask.block_on(handle.read(|node| node.members())).unwrap();
        let alive = members
            .iter()
            .filter(|member| member.status == MemberStatus::Alive)
            .count();
        assert_eq!(alive, 2, "{members:?}");

        serf.run(&["event", "-coalesce=false", "deploy", "v1"]);
        until("the event comes", || {
            loop {
                match events.try_recv() {
                    Ok(event) => {
                        if let Event::User { name, payload, .. } = &*event
                            && name == "deploy"
                        {
                            return payload == b"v1";
                        }
                    }
                    Err(_) => return false,
                }
            }
        });

        // A few probes each way, then a leave that Serf notices as such.
        let before = handle.counters().datagrams_received;
        until("probes go on", || {
            handle.counters().datagrams_received >= before + 6
        });
        // A busy machine may be late with an answer, but if none came, this would never be so again.
        until("probes are answered", || {
            let stats = ask.block_on(handle.read(|node| node.stats())).unwrap();
            assert_eq!(stats.failed, 0, "probes go unanswered");
            stats.health_score == 0
        });
        assert_eq!(ask.block_on(handle.command(Command::Leave)), Ok(Answer::Done));
        until("Serf sees us leave", || {
            serf.run(&["members", "-status=left"]).starts_with("fyrd ")
        });
        ask.block_on(handle.stop());
        assert_eq!(thread.join().unwrap(), Ended::Stopped);
        let counters = handle.counters();
        assert_eq!(
            counters.datagrams_refused + counters.datagrams_undecryptable,
            0,
            "{counters:?}"
        );
        assert_eq!(
            counters.streams_refused + counters.datagrams_unsent,
            0,
            "{counters:?}"
        );
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_missing_or_wrong_key_is_told_when_joining_real_serf() {
    let encrypt = format!("-encrypt={KEY}");
    let (keyed, plain) = (Serf::start("keyed", &[&encrypt]), Serf::start("plain", &[]));
    let cases = [
        (
            None,
            &keyed,
            "Remote state is encrypted and encryption is not configured",
        ),
        (
            Some(KEY),
            &plain,
            "Encryption is configured but remote state is not encrypted",
        ),
        (
            Some("EBESExQVFhcYGRobHB0eHw=="),
            &keyed,
            "No installed keys could decrypt the message",
        ),
    ];
    for (key, serf, reason) in cases {
        let (handle, thread) = run_in_thread(key);
        let ask = runtime();
        let answer = ask.block_on(handle.command(join(serf.gossip))).unwrap();
        let errors = vec![(serf.gossip, reason.to_owned())];
        assert_eq!(answer, Answer::Joined { contacted: 0, errors });
        // The other way round Serf tells its own user in the same words.
        let sockets = ask.block_on(handle.read(|node| node.members())).unwrap();
        let told = serf.run(&["join", &format!("127.0.0.1:{}", sockets[0].port)]);
        assert!(told.contains("encrypt") || told.contains("decrypt"), "{told}");
        ask.block_on(handle.stop());
        thread.join().unwrap();
    }
}
