//! Faults that real processes meet on real networks: cuts, crashes, a process that stops for a minute, a
//! clock that is set back, loss and delay. Once a fault is over, all views agree, those of the real Serf
//! members too, and no Fyrd agent holds more than before.
//!
//! Each test waits for most of its time, so they run side by side.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::network::Routed;
use crate::support::process::Holdings;
use crate::support::rough::{RoughWays, Roughness};
use crate::support::{self, Agent, Kind, Plan, all_alive, all_see, eventually, side_by_side};

/// Real Serf tries one failed member each half minute, if it tries at all.
const HEALING: Duration = Duration::from_secs(180);

/// Descriptors come and go with probes, exchanges and commands.
const DESCRIPTOR_SLACK: usize = 8;

/// Threads of the pool for blocking work linger for some seconds.
const THREAD_SLACK: usize = 4;

/// Memory may grow to this many times of what it was, and a little for the queues that a fault fills.
const MEMORY_FACTOR: u64 = 2;
const MEMORY_SLACK: u64 = 8 << 20;

/// What each Fyrd agent holds before a fault.
struct Before(Vec<(String, Holdings)>);

impl Before {
    fn of(agents: &[&Agent]) -> Before {
        let fyrds = agents.iter().filter(|agent| agent.kind() == Kind::Fyrd);
        Before(
            fyrds
                .map(|agent| (agent.name().to_owned(), Holdings::of(agent.pid())))
                .collect(),
        )
    }

    /// Fails unless each of them comes back to about what it held.
    fn assert_nothing_leaked(&self, agents: &[&Agent]) {
        for (name, before) in &self.0 {
            let agent = agents
                .iter()
                .find(|agent| agent.name() == name)
                .expect("the agent");
            eventually(
                &format!("{name} holds no more than before"),
                support::PATIENCE,
                || {
                    let now = Holdings::of(agent.pid());
                    let kept = now.descriptors <= before.descriptors + DESCRIPTOR_SLACK
                        && now.threads <= before.threads + THREAD_SLACK
                        && now.memory <= MEMORY_FACTOR * before.memory + MEMORY_SLACK;
                    if kept {
                        Ok(())
                    } else {
                        Err(format!("{before:?} before, {now:?} now"))
                    }
                },
            );
        }
    }
}

/// Waits until all of them list all of them as alive.
#[track_caller]
fn all_agree_again(agents: &[&Agent]) {
    // One after another is enough: what one has waited for, the others need not wait for again.
    let start = Instant::now();
    for agent in agents {
        let left = HEALING.saturating_sub(start.elapsed());
        eventually(&format!("{} sees all alive", agent.name()), left, || {
            let odd: Vec<_> = agent
                .statuses()?
                .into_iter()
                .filter(|(_, status)| status != "alive")
                .collect();
            let count = agent.statuses()?.len();
            if odd.is_empty() && count == agents.len() {
                Ok(())
            } else {
                Err(format!("{count}: {odd:?}"))
            }
        });
    }
    println!("all agree after {:?}", start.elapsed());
}

/// An event from each kind reaches every Fyrd agent: the views are not only alike, they are alive.
fn heard_by_all(agents: &[&Agent], sender: &Agent, event: &str) {
    sender.cli(&["event", "-coalesce=false", event]).success();
    for agent in agents {
        eventually(
            &format!("{} hears {event}", agent.name()),
            support::PATIENCE,
            || {
                let heard = std::fs::read_to_string(agent.file("heard")).unwrap_or_default();
                if heard.lines().any(|line| line == event) {
                    Ok(())
                } else {
                    Err(format!("{heard:?}"))
                }
            },
        );
    }
}

/// An agent that writes down each user event it hears.
fn plan(kind: Kind, name: &str) -> Plan {
    Plan::new(kind, name)
        .key(Some(support::KEY_32))
        .arg("-event-handler=user=echo $SERF_USER_EVENT >>heard")
}

/// The kinds of a mixed cluster: every third one is a real Serf.
fn mixed(count: usize) -> Vec<Kind> {
    (0..count)
        .map(|index| if index % 3 == 2 { Kind::Serf } else { Kind::Fyrd })
        .collect()
}

/// A mixed cluster, each agent on a host of its own.
fn routed_cluster(kinds: &[Kind]) -> (Routed, Vec<Agent>) {
    let network = Routed::new(kinds.len())
        .unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
    let mut agents: Vec<Agent> = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let mut plan = plan(*kind, &format!("n{index}"))
            .host(&network.address(index))
            .launcher(&network.launcher(index));
        if let Some(seed) = agents.first() {
            plan = plan.join(seed);
        }
        agents.push(plan.start());
    }
    all_alive(&agents.iter().collect::<Vec<_>>());
    (network, agents)
}

#[test]
#[ignore = "needs the real Serf and network namespaces (tests/run)"]
fn a_partition_of_two_minutes_heals_and_leaves_nothing_behind() {
    let (mut network, agents) = routed_cluster(&mixed(10));
    let all: Vec<&Agent> = agents.iter().collect();
    let before = Before::of(&all);
    let start = Instant::now();
    // Both sides have both kinds.
    let (one, other): (Vec<usize>, Vec<usize>) = (0..10).partition(|index| index % 2 == 0);
    network.cut(&one, &other);
    network.cut(&other, &one);
    for (side, beyond) in [(&one, &other), (&other, &one)] {
        let side: Vec<&Agent> = side.iter().map(|&index| all[index]).collect();
        let beyond = beyond.iter().map(|&index| (all[index].name(), "failed"));
        let want: Vec<_> = side
            .iter()
            .map(|agent| (agent.name(), "alive"))
            .chain(beyond)
            .collect();
        all_see(&side, &want);
    }
    // Both sides go on by themselves.
    let fyrds = |side: &[usize]| {
        side.iter()
            .map(|&index| all[index])
            .filter(|agent| agent.kind() == Kind::Fyrd)
            .collect::<Vec<_>>()
    };
    heard_by_all(&fyrds(&one), all[one[0]], "on-one-side");
    heard_by_all(&fyrds(&other), all[other[0]], "on-the-other");
    std::thread::sleep(Duration::from_secs(120).saturating_sub(start.elapsed()));
    network.heal();
    all_agree_again(&all);
    heard_by_all(&all, all[2], "after-all");
    before.assert_nothing_leaked(&all);
}

/// Failed members are forgotten after two seconds, so that nothing but the flag `-join` knows the way.
const FORGETFUL: &str = "base = \"lan\"
tcp_timeout = \"1s\"
gossip_to_the_dead_time = \"1s\"
[serf]
reap_interval = \"1s\"
reconnect_timeout = \"2s\"
reconnect_interval = \"1s\"
";

#[test]
#[ignore = "needs a network namespace (tests/run)"]
fn two_sides_that_forgot_each_other_meet_again_through_their_seeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("forgetful.toml");
    std::fs::write(&profile, FORGETFUL).expect("a profile");
    let mut network =
        Routed::new(4).unwrap_or_else(|reason| panic!("this test needs networks of its own: {reason}"));
    let mut agents: Vec<Agent> = Vec::new();
    for index in 0..4 {
        let mut plan = plan(Kind::Fyrd, &format!("n{index}"))
            .host(&network.address(index))
            .launcher(&network.launcher(index))
            .arg(format!("-profile={}", profile.display()));
        if let Some(seed) = agents.first() {
            // One waits for the start, the others for as long as it takes.
            let flag = if index == 1 { "join" } else { "retry-join" };
            plan = plan.arg(format!("-{flag}={}", seed.address()));
        }
        agents.push(plan.start());
    }
    let all: Vec<&Agent> = agents.iter().collect();
    all_alive(&all);
    network.cut(&[0, 1], &[2, 3]);
    network.cut(&[2, 3], &[0, 1]);
    all_alive(&all[..2]);
    all_alive(&all[2..]);
    // No dial of before, and no gossip to the dead, may still be under way.
    std::thread::sleep(Duration::from_secs(8));
    network.heal();
    all_agree_again(&all);
}

/// An address that is no seed any more, but answers, costs less and less: a dial after one interval, then after two,
/// four and so on.
#[test]
fn a_seed_that_does_not_answer_is_dialled_less_and_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("forgetful.toml");
    std::fs::write(&profile, FORGETFUL).expect("a profile");
    let forgetful = |name: &str| plan(Kind::Fyrd, name).arg(format!("-profile={}", profile.display()));
    let mut seed = forgetful("seed").start();
    let agent = forgetful("agent")
        .arg(format!("-join={}", seed.address()))
        .start();
    all_alive(&[&seed, &agent]);
    seed.kill();
    let listener = TcpListener::bind(seed.address()).expect("the seed's address");
    listener.set_nonblocking(true).expect("a listener");
    all_see(&[&agent], &[("agent", "alive")]);
    // Nobody else dials it now.
    let count = |seconds: u64| {
        let mut dials = 0;
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            match listener.accept() {
                Ok(_) => dials += 1,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        dials
    };
    // What came before is taken out.
    while listener.accept().is_ok() {}
    let (first, later) = (count(10), count(10));
    assert!((1..=5).contains(&first), "{first} dials");
    assert!(later <= 2, "{first} dials, then {later}");
}

#[test]
#[ignore = "needs the real Serf and network namespaces (tests/run)"]
fn cuts_in_one_direction_fail_nobody_and_a_deaf_member_comes_back() {
    let (mut network, agents) = routed_cluster(&mixed(6));
    let all: Vec<&Agent> = agents.iter().collect();
    let before = Before::of(&all);
    // Between single members, the others help.
    network.cut(&[0], &[1]);
    network.cut(&[3], &[2]);
    network.cut(&[5], &[4]);
    std::thread::sleep(Duration::from_secs(40));
    for agent in all.iter().filter(|agent| agent.kind() == Kind::Fyrd) {
        let failed = agent.log().matches("EventMemberFailed").count();
        assert_eq!(failed, 0, "{} saw somebody fail", agent.name());
    }
    network.heal();
    // One that hears nobody, and whom all hear.
    network.cut(&[0, 1, 2, 3, 5], &[4]);
    std::thread::sleep(Duration::from_secs(45));
    network.heal();
    all_agree_again(&all);
    heard_by_all(&all, all[4], "from-the-deaf");
    before.assert_nothing_leaked(&all);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn restart_storms_end_in_agreement() {
    let first = plan(Kind::Fyrd, "n0").start();
    let mut others: Vec<Agent> = (1..7)
        .map(|index| {
            let kind = if index % 3 == 2 { Kind::Serf } else { Kind::Fyrd };
            plan(kind, &format!("n{index}")).join(&first).start()
        })
        .collect();
    let start = [&first].into_iter().chain(&others).collect::<Vec<_>>();
    all_alive(&start);
    let before = Before::of(&[&first]);
    for round in 0..8 {
        // Each is killed right after others have started, in another order each time.
        for step in 0..others.len() {
            others[(5 * step + round) % 6].kill();
            if step % 2 == 1 {
                others[(5 * step + round) % 6].restart();
                others[(5 * (step - 1) + round) % 6].restart();
            }
        }
    }
    let all: Vec<&Agent> = [&first].into_iter().chain(&others).collect();
    all_agree_again(&all);
    heard_by_all(&all, all[1], "after-the-storm");
    before.assert_nothing_leaked(&all);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_process_that_stopped_for_a_minute_returns() {
    let first = plan(Kind::Fyrd, "n0").start();
    let agents: Vec<Agent> = [Kind::Serf, Kind::Fyrd, Kind::Fyrd, Kind::Serf]
        .into_iter()
        .enumerate()
        .map(|(index, kind)| plan(kind, &format!("n{}", index + 1)).join(&first).start())
        .collect();
    let all: Vec<&Agent> = [&first].into_iter().chain(&agents).collect();
    all_alive(&all);
    let before = Before::of(&all);
    let start = Instant::now();
    // One of each kind.
    for frozen in [all[2], all[4]] {
        frozen.signal("STOP");
    }
    let want = [
        ("n0", "alive"),
        ("n1", "alive"),
        ("n2", "failed"),
        ("n3", "alive"),
        ("n4", "failed"),
    ];
    all_see(&[all[0], all[1], all[3]], &want);
    std::thread::sleep(Duration::from_secs(60).saturating_sub(start.elapsed()));
    for frozen in [all[2], all[4]] {
        frozen.signal("CONT");
    }
    all_agree_again(&all);
    heard_by_all(&all, all[2], "from-the-frozen");
    // It accuses nobody of the silence it slept through.
    assert_eq!(all[2].log().matches("EventMemberFailed: n0").count(), 0);
    before.assert_nothing_leaked(&all);
}

/// Debian's libfaketime, which shows a program another wall clock; the monotonic one stays as it is.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("a folder").flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("this test needs Debian's package libfaketime; tests/run installs it")
}

#[test]
#[ignore = "needs the real Serf and libfaketime (tests/run)"]
fn a_clock_that_is_set_back_or_forward_disturbs_nobody() {
    side_by_side(&["-2h", "+2h"], |jump| clock_jump(jump));
}

fn clock_jump(jump: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").expect("the clock");
    let faked: Vec<String> = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", faketime().display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ]
    .into();
    let first = plan(Kind::Fyrd, "n0").launcher(&faked).start();
    let second = plan(Kind::Fyrd, "n1").launcher(&faked).join(&first).start();
    let third = plan(Kind::Serf, "n2").join(&first).start();
    let mut fourth = plan(Kind::Fyrd, "n3").join(&second).start();
    all_alive(&[&first, &second, &third, &fourth]);
    let hour = |agent: &Agent, line: &str| {
        let log = agent.log();
        let line = log
            .lines()
            .find(|found| found.contains(line))
            .unwrap_or_default()
            .to_owned();
        line.split(':')
            .next()
            .and_then(|start| start.rsplit(' ').next()?.parse::<i32>().ok())
    };
    std::fs::write(&clock, jump).expect("the clock");
    heard_by_all(&[&first, &second, &third, &fourth], &second, "after-the-jump");
    // A failure is noticed in its time, and a return.
    let start = Instant::now();
    fourth.kill();
    all_see(
        &[&first, &second, &third],
        &[
            ("n0", "alive"),
            ("n1", "alive"),
            ("n2", "alive"),
            ("n3", "failed"),
        ],
    );
    println!("{jump}: noticed after {:?}", start.elapsed());
    for agent in [&first, &second] {
        let (before, after) = (
            hour(agent, "EventMemberJoin: n3"),
            hour(agent, "EventMemberFailed: n3"),
        );
        let (before, after) = (before.expect("an hour"), after.expect("an hour"));
        assert!(
            (before - after + 24) % 24 >= 1,
            "the clock of {} did not jump",
            agent.name()
        );
        assert_eq!(
            agent.log().matches("EventMemberFailed").count(),
            1,
            "{}",
            agent.name()
        );
    }
    fourth.restart();
    all_agree_again(&[&first, &second, &third, &fourth]);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn loss_and_delay_end_in_agreement() {
    let ways = RoughWays::new(7);
    let start = |kind, name: &str| {
        let agent = plan(kind, name).arg("-advertise=127.0.0.2:{port}").start();
        let public: SocketAddr = (std::net::Ipv4Addr::new(127, 0, 0, 2), agent.gossip_port()).into();
        ways.add(public, agent.address().parse().expect("an address"));
        (agent, public.to_string())
    };
    let (agents, addresses): (Vec<Agent>, Vec<String>) = mixed(6)
        .into_iter()
        .enumerate()
        .map(|(index, kind)| start(kind, &format!("n{index}")))
        .unzip();
    for agent in &agents[1..] {
        agent.cli(&["join", &addresses[0]]).success();
    }
    let all: Vec<&Agent> = agents.iter().collect();
    all_alive(&all);
    let before = Before::of(&all);
    ways.set(Roughness {
        loss: 0.1,
        delay: Duration::from_millis(200),
    });
    // What is said meanwhile arrives as well.
    for round in 0..8 {
        heard_by_all(&all, all[round % all.len()], &format!("rough-{round}"));
    }
    std::thread::sleep(Duration::from_secs(60));
    assert!(ways.lost() > 100, "{} datagrams lost", ways.lost());
    for agent in &all {
        println!(
            "{}: {} failures seen",
            agent.name(),
            agent.log().matches("EventMemberFailed").count()
        );
    }
    ways.set(Roughness::default());
    all_agree_again(&all);
    before.assert_nothing_leaked(&all);
}
