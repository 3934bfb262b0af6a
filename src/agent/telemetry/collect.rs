//! Where the metrics come from: the node's and the driver's own counts, the node's events, the process.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};
use tokio::time::sleep_until;

use super::Metrics;
use super::intervals::LENGTH;
use crate::driver::{Handle, Stopped, Traffic};
use crate::events::hub::Subscription;
use fyrd_core::serf::measures::SerfMeasures;
use fyrd_core::serf::{Event, Member, MemberEventKind};
use fyrd_core::swim::measures::{SwimMeasures, Tally};

/// How often counts are fetched for those to whom they are sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long before the end of an interval counts are fetched that only stay in memory.
const AHEAD: Duration = Duration::from_millis(100);

/// Events that may wait: as many as for the event loop, lest the log speak of a listener that is too slow.
pub const EVENT_QUEUE: usize = crate::agent::event_loop::EVENT_QUEUE;

/// A member that comes back so soon after it failed is flapping.
const FLAP_TIME: Duration = Duration::from_secs(60);

/// Failures remembered for that.
const FAILURES_MAX: usize = 4096;

/// Fetches and counts until the node is gone; SIGUSR1 shows what there is.
pub async fn run(metrics: Metrics, driver: Handle, mut events: Subscription) {
    let mut next = Instant::now();
    let mut asked = Asked::new();
    let mut failures = Failures::default();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => count_event(&metrics, &event, &mut failures),
                None => return,
            },
            () = sleep_until(next.into()) => {
                if fetch(&metrics, &driver).await.is_err() {
                    return;
                }
                metrics.flush();
                next = Instant::now() + until_next(metrics.are_sent(), Local::now());
            }
            () = asked.next() => show(metrics.dump()),
        }
    }
}

/// How long until counts are fetched again. Where nobody asks for them each second, once for each interval in memory is
/// enough, and the process is not woken up for more.
fn until_next(are_sent: bool, now: DateTime<Local>) -> Duration {
    if are_sent {
        return INTERVAL;
    }
    let into = Duration::from_millis(now.timestamp_millis().rem_euclid(LENGTH.as_millis() as i64) as u64);
    let left = LENGTH.saturating_sub(into + AHEAD);
    if left.is_zero() { left + LENGTH } else { left }
}

/// Takes over what node and driver have counted since the last time.
pub async fn fetch(metrics: &Metrics, driver: &Handle) -> Result<(), Stopped> {
    let (swim, serf, traffic) = driver.take_measures().await?;
    let health = driver.read(|node| node.stats().health_score).await?;
    metrics.add(|totals| {
        totals.swim.merge(&swim);
        totals.serf.merge(&serf);
        totals.traffic.merge(&traffic);
    });
    count_swim(metrics, &swim, &traffic);
    count_serf(metrics, &serf);
    metrics.gauge("memberlist.health.score", f64::from(health));
    let sealed = driver.sealed_by_primary();
    if sealed > 0 {
        metrics.gauge("fyrd.sealed_by_primary", sealed as f64);
    }
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    metrics.gauge("runtime.num_goroutines", tasks as f64);
    if let Some((all, resident)) = memory() {
        metrics.gauge("runtime.sys_bytes", all);
        metrics.gauge("runtime.alloc_bytes", resident);
    }
    Ok(())
}

fn count_swim(metrics: &Metrics, swim: &SwimMeasures, traffic: &Traffic) {
    for (name, times) in [
        ("memberlist.msg.alive", swim.alive),
        ("memberlist.msg.suspect", swim.suspect),
        ("memberlist.msg.dead", swim.dead),
        ("memberlist.degraded.probe", swim.degraded_probes),
        ("memberlist.degraded.timeout", swim.degraded_timeouts),
        ("memberlist.tcp.accept", traffic.tcp_accepted),
        ("memberlist.tcp.connect", traffic.tcp_connected),
    ] {
        count_times(metrics, name, times);
    }
    metrics.count("memberlist.udp.sent", &traffic.udp_sent);
    metrics.count("memberlist.udp.received", &traffic.udp_received);
    metrics.count("memberlist.tcp.sent", &traffic.tcp_sent);
}

fn count_serf(metrics: &Metrics, serf: &SerfMeasures) {
    for (name, times) in [
        ("serf.queries", serf.queries),
        ("serf.query_acks", serf.acks),
        ("serf.query_responses", serf.responses),
        ("serf.query_duplicate_acks", serf.duplicate_acks),
        ("serf.query_duplicate_responses", serf.duplicate_responses),
        ("serf.coordinate.rejected", serf.rejected_coordinates),
        ("serf.coordinate.zero-rtt", serf.zero_round_trips),
    ] {
        count_times(metrics, name, times);
    }
    for (name, tally) in [
        ("serf.msgs.sent", &serf.sent),
        ("serf.msgs.received", &serf.received),
        ("serf.queue.Intent", &serf.intent_queue),
        ("serf.queue.Event", &serf.event_queue),
        ("serf.queue.Query", &serf.query_queue),
        ("serf.coordinate.adjustment-ms", &serf.adjustment_ms),
    ] {
        metrics.sample(name, tally);
    }
}

fn count_times(metrics: &Metrics, name: &str, times: u64) {
    if times > 0 {
        metrics.count(name, &Tally::ones(times));
    }
}

/// When members failed, to know those that flap.
type Failures = BTreeMap<Arc<str>, Instant>;

fn count_event(metrics: &Metrics, event: &Event, failures: &mut Failures) {
    let once = Tally::ones(1);
    match event {
        Event::Member { kind, members } => {
            for member in members {
                count_member(metrics, *kind, member, failures);
            }
        }
        Event::User { name, .. } => {
            metrics.add(|totals| totals.user_events += 1);
            metrics.count("serf.events", &once);
            metrics.count(&format!("serf.events.{name}"), &once);
        }
        Event::Isolation { isolated } => {
            metrics.add(|totals| totals.isolations += u64::from(*isolated));
            metrics.count("fyrd.isolated", &Tally::ones(u64::from(*isolated)));
        }
        // All queries are counted where those for others are known too.
        Event::Query { name, .. } => metrics.count(&format!("serf.queries.{name}"), &once),
    }
}

fn count_member(metrics: &Metrics, kind: MemberEventKind, member: &Member, failures: &mut Failures) {
    let once = Tally::ones(1);
    metrics.add(|totals| {
        let changes = &mut totals.members;
        *match kind {
            MemberEventKind::Join => &mut changes.join,
            MemberEventKind::Leave => &mut changes.leave,
            MemberEventKind::Failed => &mut changes.failed,
            MemberEventKind::Update => &mut changes.update,
            MemberEventKind::Reap => &mut changes.reap,
        } += 1;
    });
    let name = match kind {
        MemberEventKind::Join => "serf.member.join",
        MemberEventKind::Leave => "serf.member.left",
        MemberEventKind::Failed => "serf.member.failed",
        MemberEventKind::Update => "serf.member.update",
        MemberEventKind::Reap => return,
    };
    metrics.count(name, &once);
    if kind == MemberEventKind::Failed {
        failures.retain(|_, at| at.elapsed() < FLAP_TIME);
        if failures.len() < FAILURES_MAX {
            failures.insert(Arc::clone(&member.name), Instant::now());
        }
    }
    let failed = (kind == MemberEventKind::Join)
        .then(|| failures.remove(&member.name))
        .flatten();
    if failed.is_some_and(|at| at.elapsed() < FLAP_TIME) {
        metrics.add(|totals| totals.members.flap += 1);
        metrics.count("serf.member.flap", &once);
    }
}

/// Bytes of this process's address space, and of those that are in memory; where the system tells.
pub fn memory() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: f64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024.0)
    };
    Some((bytes("VmSize:")?, bytes("VmRSS:")?))
}

/// Writes to standard error, which may not be read by anybody, so not on this thread.
fn show(text: String) {
    let _ = std::thread::Builder::new()
        .name("metrics".to_string())
        .spawn(move || {
            let mut out = std::io::stderr().lock();
            // There is nowhere to say that this failed.
            let _ = out.write_all(text.as_bytes());
            let _ = out.flush();
        });
}

/// Waits for the signal that asks for the metrics.
#[cfg(unix)]
struct Asked(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Asked {
    fn new() -> Asked {
        use tokio::signal::unix::{SignalKind, signal};
        Asked(signal(SignalKind::user_defined1()).ok())
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// This system has no such signal.
#[cfg(not(unix))]
struct Asked;

#[cfg(not(unix))]
impl Asked {
    fn new() -> Asked {
        Asked
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sinks;
    use super::*;
    use fyrd_core::serf::{MemberStatus, RawAddr, Tags};

    #[test]
    fn counts_are_fetched_once_an_interval_unless_they_are_sent() {
        let at = |millis: i64| {
            DateTime::from_timestamp_millis(millis)
                .unwrap()
                .with_timezone(&Local)
        };
        let wait = |millis: i64| until_next(false, at(millis)).as_millis();
        assert_eq!(
            [0, 4_000, 9_899, 9_901, 19_950].map(wait),
            [9_900, 5_900, 1, 10_000, 10_000]
        );
        assert_eq!(until_next(true, at(4_000)), INTERVAL);
    }

    #[test]
    fn events_are_counted_and_flapping_members_noticed() {
        let metrics = Metrics::new(&Sinks::default());
        let member = Arc::new(Member {
            name: "n1".into(),
            addr: RawAddr::V4([10, 0, 0, 1]),
            port: 1,
            tags: Tags::new(),
            status: MemberStatus::Alive,
            protocol: [1, 5, 2],
            delegate: [2, 5, 5],
        });
        let mut failures = Failures::default();
        use MemberEventKind::{Failed, Join, Leave, Reap, Update};
        for kind in [Join, Update, Failed, Join, Join, Leave, Reap] {
            let members = vec![Arc::clone(&member)];
            count_event(&metrics, &Event::Member { kind, members }, &mut failures);
        }
        let user = Event::User {
            ltime: 1,
            name: "a b".to_string(),
            payload: Vec::new(),
            coalesce: false,
        };
        count_event(&metrics, &user, &mut failures);
        let now = chrono::Local::now() + Duration::from_secs(10);
        let dump = metrics.0.borrow().intervals.dump(now);
        let counts: Vec<String> = dump
            .lines()
            .filter_map(|line| line.split_once("[C] 'serf-agent.serf."))
            .map(|(_, rest)| {
                rest.split(" Sum")
                    .next()
                    .unwrap_or_default()
                    .replace("': Count:", "")
            })
            .collect();
        assert_eq!(
            counts,
            [
                "events 1",
                "events.a_b 1",
                "member.failed 1",
                "member.flap 1",
                "member.join 3",
                "member.left 1",
                "member.update 1"
            ]
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_uses_memory() {
        let (all, resident) = memory().unwrap();
        assert!(resident > 0.0 && all >= resident);
    }
}
