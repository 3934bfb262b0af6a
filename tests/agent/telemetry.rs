//! Metrics as operators see them: on SIGUSR1, at a statsd, at a statsite.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::{self, Agent, Kind, PATIENCE, Plan, all_alive, eventually};

/// Every line of a dump.
const LINE: &str = r"(?m)^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d0 [+-]\d{4} \S+\]\[(?:G\] '([^']+)': -?[\d.]+|[CS]\] '([^']+)': Count: (\d+) (?:Min: [\d.]+ Mean: [\d.]+ Max: [\d.]+ Stddev: [\d.]+ )?Sum: -?[\d.]+ LastUpdated: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[\d.]* [+-]\d{4} \S+ m=\+\d+\.\d+)$";

/// Asks for the metrics until the text `last` is among them a second time: what was read may have ended in the
/// middle of the first.
fn dump(agent: &Agent, last: &str) -> String {
    eventually(&format!("{} counts {last}", agent.name()), PATIENCE, || {
        agent.signal("USR1");
        let log = agent.log();
        match log.matches(last).count() {
            0 | 1 => Err(log),
            _ => Ok(log),
        }
    })
}

/// What counters and samples add up to over all windows, each window once; gauges count nothing.
fn counts(dump: &str) -> BTreeMap<String, u64> {
    let form = regex::Regex::new(LINE).unwrap();
    let lines: BTreeSet<&str> = dump.lines().filter(|line| form.is_match(line)).collect();
    let mut all = BTreeMap::new();
    for found in lines.into_iter().filter_map(|line| form.captures(line)) {
        let name = found.get(1).or(found.get(2)).expect("a name").as_str();
        let count: u64 = found.get(3).map_or(0, |count| count.as_str().parse().unwrap());
        *all.entry(name.to_string()).or_default() += count;
    }
    all
}

/// Two agents: the first is to be looked at, the second tells it something.
fn pair(one: Plan) -> (Agent, Agent) {
    let one = one.start();
    let two = Plan::new(Kind::Serf, "two").join(&one).start();
    all_alive(&[&one, &two]);
    (one, two)
}

/// The same story told to both kinds gives the same counts.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn usr1_shows_what_serf_shows() {
    let tell = |kind: Kind| {
        let (one, two) = pair(Plan::new(kind, "one"));
        for name in ["deploy", "a b", "deploy"] {
            two.cli(&["event", "-coalesce=false", name]).success();
        }
        two.cli(&["query", "-timeout=1s", "load"]).success();
        two.cli(&["leave"]).success();
        let log = dump(&one, "'serf-agent.serf.member.left': Count: 1");
        assert!(
            log.lines()
                .any(|line| line.contains("[G] 'serf-agent.runtime.alloc_bytes': ")),
            "{log}"
        );
        counts(&log)
    };
    let (ours, theirs) = (tell(Kind::Fyrd), tell(Kind::Serf));
    for name in [
        "serf.events",
        "serf.events.deploy",
        "serf.events.a_b",
        "serf.queries",
        "serf.queries.load",
        "serf.member.join",
        "serf.member.left",
        "memberlist.msg.dead",
    ] {
        let name = format!("serf-agent.{name}");
        assert_eq!(
            ours.get(&name),
            theirs.get(&name),
            "{name}: ours {ours:?}, theirs {theirs:?}"
        );
        assert!(ours.contains_key(&name), "{name} in {ours:?}");
    }
    // How often these count depends on chance and on how long each story took.
    for name in [
        "memberlist.udp.sent",
        "memberlist.udp.received",
        "memberlist.msg.alive",
        "memberlist.tcp.accept",
        "agent.ipc.accept",
        "agent.ipc.command",
        "serf.msgs.sent",
        "serf.msgs.received",
        "serf.coordinate.adjustment-ms",
        "runtime.num_goroutines",
        "runtime.alloc_bytes",
        "runtime.sys_bytes",
    ] {
        let name = format!("serf-agent.{name}");
        assert!(theirs.contains_key(&name), "{name} is none of {theirs:?}");
        assert!(ours.contains_key(&name), "{name} is none of {ours:?}");
    }
}

#[test]
fn queues_are_measured_every_half_minute() {
    let agent = Plan::new(Kind::Fyrd, "one").start();
    let log = dump(&agent, "'serf-agent.serf.queue.Event': Count: 1 Sum: 0.000");
    for queue in ["Intent", "Query"] {
        assert!(
            counts(&log).contains_key(&format!("serf-agent.serf.queue.{queue}")),
            "{log}"
        );
    }
}

/// An agent with this configuration file.
fn configured(json: &str) -> Plan {
    Plan::new(Kind::Fyrd, "one")
        .with_file("c.json", json)
        .arg("-config-file=c.json")
}

/// Every line, and the host's name in gauges alone.
fn check_lines(text: &str) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    let form = regex::Regex::new(r"^serf-agent\.[^:|\s]+:-?\d+\.\d{6}\|(c|g|ms)$").unwrap();
    for line in text.lines() {
        assert!(form.is_match(line), "{line:?}");
        let has_host = line.starts_with(&format!("serf-agent.{host}."));
        assert_eq!(has_host, line.ends_with("|g"), "{line}");
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_statsd_gets_lines() {
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    statsd.set_read_timeout(Some(PATIENCE)).unwrap();
    let addr = statsd.local_addr().unwrap();
    let (_one, two) = pair(configured(&format!(r#"{{"statsd_addr":"{addr}"}}"#)));
    two.cli(&["event", "a:b c|d\n@e"]).success();
    let deadline = Instant::now() + PATIENCE;
    let (mut text, mut packet) = (String::new(), [0; 2000]);
    while !(text.contains("serf.events.a_b_c_d__e:1.000000|c\n") && text.contains(".runtime.alloc_bytes:")) {
        assert!(Instant::now() < deadline, "{text}");
        let len = statsd.recv(&mut packet).unwrap();
        assert!(len <= 1400);
        text.push_str(std::str::from_utf8(&packet[..len]).unwrap());
    }
    check_lines(&text);
    assert!(text.contains("serf-agent.serf.events:1.000000|c\n"), "{text}");
}

/// A statsite that is not there at first, and comes.
#[test]
fn a_statsite_is_tried_until_it_is_there() {
    let port = support::port::Port::reserve();
    let addr = format!("127.0.0.1:{}", port.number());
    let agent = configured(&format!(r#"{{"statsite_addr":"{addr}"}}"#)).start();
    let refused = format!("[WARN] agent: telemetry: cannot reach statsite at {addr}: ");
    agent.says(&refused);
    let statsite = TcpListener::bind(&addr).unwrap();
    let (mut stream, _) = statsite.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !(text.contains(".runtime.num_goroutines:") && text.ends_with('\n')) {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
    }
    check_lines(&text);
    agent.says("is there again");
    assert_eq!(agent.times_said(&refused), 1);
}

#[test]
fn a_bad_address_keeps_nobody_from_starting() {
    let agent = configured(r#"{"statsd_addr":"nonsense","statsite_addr":"127.0.0.1:x"}"#).start();
    for what in ["statsd at nonsense", "statsite at 127.0.0.1:x"] {
        agent.says(&format!("[WARN] agent: telemetry: cannot reach {what}: "));
    }
}

/// Times that the threads of a process have gone to sleep of themselves, each of which ends in a wake-up.
fn sleeps(agent: &Agent) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let status =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
    let count = |status: String| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    tasks.map(|task| count(status(task.unwrap()))).sum()
}

#[test]
fn an_agent_alone_sleeps() {
    let agent = Plan::new(Kind::Fyrd, "n1").start();
    std::thread::sleep(Duration::from_secs(3));
    let before = sleeps(&agent);
    std::thread::sleep(Duration::from_secs(10));
    let slept = sleeps(&agent) - before;
    assert!(slept <= 10, "{slept} times in ten seconds");
}
