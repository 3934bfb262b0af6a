//! The figures that `info` shows. All values are text, and clients rely on every key
//! (docs/compatibility.md#commands).

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use super::Agent;
use crate::driver::{DriverCounters, ROTATE};
use crate::snapshot::{State, Status};
use fyrd_core::bounds::SEALED_BY_ONE_KEY;
use fyrd_core::serf::Stats;

impl Agent {
    /// All groups of figures.
    pub(super) async fn collect_stats(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let read = self
            .0
            .driver
            .read(|node| (node.stats(), node.tags().clone()))
            .await;
        if self.0.snapshot.is_some() {
            // Clocks that are shown must not run backwards over a crash.
            let _ = self.0.driver.settled().await;
        }
        let (stats, tags) = read.unwrap_or_default();
        let agent = BTreeMap::from([("name".to_string(), self.0.name.clone())]);
        let mut groups = BTreeMap::from([
            ("agent".to_string(), agent),
            ("runtime".to_string(), runtime()),
            ("serf".to_string(), serf(&stats, self.0.encrypted)),
            ("tags".to_string(), tags),
            ("event_handlers".to_string(), self.0.handlers.scripts()),
        ]);
        // Serf has no such group, so it is only there when it says something.
        let handlers = self.0.handlers.figures();
        if !handlers.is_empty() {
            let texts = handlers.into_iter().map(|(name, done)| (name, done.to_string()));
            groups.insert("handlers".to_string(), texts.collect());
        }
        groups.insert("fyrd".to_string(), self.fyrd());
        if self.0.encrypted {
            let mut group = encryption(self.0.driver.sealed_by_primary());
            if let Ok(Some(keys)) = self.0.driver.keys().await {
                group.insert("cipher".to_string(), keys.cipher.to_string());
                group.insert("primary_key".to_string(), keys.fingerprint.to_string());
            }
            groups.insert("encryption".to_string(), group);
        }
        let refused = refused(&self.0.driver.counters(), &stats);
        if !refused.is_empty() {
            groups.insert("refused".to_string(), refused);
        }
        let counters = self.0.driver.counters();
        let others = [counters.datagrams_mislabelled, counters.streams_mislabelled];
        if !self.0.label.is_empty() || others != [0, 0] {
            groups.insert("label".to_string(), label(&self.0.label, others));
        }
        #[cfg(feature = "templates")]
        {
            let reports = self.0.templates.reports().into_iter();
            let texts: BTreeMap<String, String> = reports.map(|(name, r)| (name, r.to_string())).collect();
            if !texts.is_empty() {
                groups.insert("templates".to_string(), texts);
            }
        }
        if stats.isolated {
            let warning = "several members do not answer, and nobody or few others are heard: this host may be cut off, and its list of members out of date";
            groups.insert(
                "isolation".to_string(),
                strings([("warning", warning.to_string())]),
            );
        }
        if stats.accused > 0 {
            let warning = format!(
                "other members get no answers from this host ({} times in the last 3 minutes): they may be unable \
                 to reach its address, or it is overloaded",
                stats.accused
            );
            groups.insert("accused".to_string(), strings([("warning", warning)]));
        }
        if let Some(watch) = &self.0.snapshot {
            groups.insert("snapshot".to_string(), snapshot(&watch.status()));
        }
        groups
    }
}

impl Agent {
    /// What an operator asks first, and Serf does not tell.
    fn fyrd(&self) -> BTreeMap<String, String> {
        let (beginning, places) = (&self.0.beginning, &self.0.places);
        let mut group = strings([
            ("started", time_of_day(beginning.at)),
            ("uptime", uptime(beginning.uptime())),
            ("profile", beginning.profile.clone()),
            ("gossip_addr", places.gossip.clone()),
            ("rpc_addr", places.rpc.clone()),
        ]);
        if !places.http.is_empty() {
            group.insert("http_addr".to_string(), places.http.clone());
        }
        group
    }
}

/// What others have sent and this agent did not take, as far as there was any.
fn refused(counters: &DriverCounters, stats: &Stats) -> BTreeMap<String, String> {
    let figures = [
        ("datagrams_malformed", counters.datagrams_refused),
        ("datagrams_stale", counters.datagrams_stale),
        ("datagrams_undecryptable", counters.datagrams_undecryptable),
        ("messages", stats.refused_messages),
        ("streams_over_cap", counters.streams_over_cap),
        ("streams_refused", counters.streams_refused),
        ("streams_yielded", counters.streams_yielded),
    ];
    let there = figures.into_iter().filter(|(_, count)| *count > 0);
    there
        .map(|(name, count)| (name.to_string(), count.to_string()))
        .collect()
}

/// How much the primary key has sealed.
fn encryption(sealed: u64) -> BTreeMap<String, String> {
    let mut group = strings([("sealed_by_primary", sealed.to_string())]);
    if sealed >= SEALED_BY_ONE_KEY {
        let warning = format!("the primary key has sealed a lot, {ROTATE}");
        group.insert("warning".to_string(), warning);
    }
    group
}

/// The cluster's label, and what came with another one.
fn label(own: &str, [packets, streams]: [u64; 2]) -> BTreeMap<String, String> {
    strings([
        ("name", own.to_string()),
        ("discarded_packets", packets.to_string()),
        ("discarded_streams", streams.to_string()),
    ])
}

/// How the snapshot fares.
fn snapshot(status: &Status) -> BTreeMap<String, String> {
    let mut group = strings([
        ("path", status.path.display().to_string()),
        ("bytes", status.bytes.to_string()),
        ("records", status.records.to_string()),
        ("flushes", status.flushes.to_string()),
        ("failures", status.failures.to_string()),
        // Behind those of the node while the disk is slow or fails.
        ("event_time", status.durable.event.to_string()),
        ("member_time", status.durable.member.to_string()),
        ("query_time", status.durable.query.to_string()),
    ]);
    if let Some(at) = status.last_flush {
        group.insert("last_flush".to_string(), time_of_day(at));
    }
    let state = match &status.state {
        State::Recording => "recording",
        State::Degraded { since, reason } => {
            group.insert("degraded_since".to_string(), time_of_day(*since));
            group.insert("reason".to_string(), reason.clone());
            "degraded"
        }
    };
    group.insert("state".to_string(), state.to_string());
    group
}

/// To the second, with days, as people count.
fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h{minutes}m"),
    }
}

/// In UTC, to the second.
fn time_of_day(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What runs here. The names are Go's, because that is what clients know.
fn runtime() -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    let os = if std::env::consts::OS == "macos" {
        "darwin"
    } else {
        std::env::consts::OS
    };
    // To find out, files of the system are read.
    static CPUS: OnceLock<usize> = OnceLock::new();
    let cpus = CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    let tasks = tokio::runtime::Handle::try_current().map_or(0, |handle| handle.metrics().num_alive_tasks());
    strings([
        ("arch", arch.to_string()),
        ("cpu_count", cpus.to_string()),
        ("goroutines", tasks.to_string()),
        ("max_procs", cpus.to_string()),
        ("os", os.to_string()),
        ("version", format!("fyrd{}", env!("CARGO_PKG_VERSION"))),
    ])
}

fn serf(stats: &Stats, encrypted: bool) -> BTreeMap<String, String> {
    strings([
        ("coordinate_resets", stats.coordinate_resets.to_string()),
        ("encrypted", encrypted.to_string()),
        ("event_queue", stats.event_queue.to_string()),
        ("event_time", stats.event_time.to_string()),
        ("failed", stats.failed.to_string()),
        ("health_score", stats.health_score.to_string()),
        ("intent_queue", stats.intent_queue.to_string()),
        ("left", stats.left.to_string()),
        ("member_time", stats.member_time.to_string()),
        ("members", stats.members.to_string()),
        ("query_queue", stats.query_queue.to_string()),
        ("query_time", stats.query_time.to_string()),
    ])
}

fn strings<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fyrd_core::serf::memory::Marks;

    #[test]
    fn a_snapshot_in_trouble_says_since_when_and_why() {
        let status = Status {
            path: "/var/lib/fyrd".into(),
            state: State::Degraded {
                since: SystemTime::UNIX_EPOCH,
                reason: "no space left on device".to_owned(),
            },
            durable: Marks {
                event: 5,
                ..Marks::default()
            },
            bytes: 7,
            records: 3,
            flushes: 2,
            failures: 1,
            last_flush: None,
        };
        let shown: Vec<String> = snapshot(&status)
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            shown.join(" "),
            "bytes=7 degraded_since=1970-01-01T00:00:00Z event_time=5 failures=1 flushes=2 member_time=0 \
             path=/var/lib/fyrd query_time=0 reason=no space left on device records=3 state=degraded"
        );
        let well = Status {
            state: State::Recording,
            ..status
        };
        assert_eq!(
            snapshot(&well).get("state").map(String::as_str),
            Some("recording")
        );
        assert!(!snapshot(&well).contains_key("reason"));
    }

    #[test]
    fn a_key_that_has_sealed_a_lot_is_to_be_replaced() {
        let fresh = encryption(SEALED_BY_ONE_KEY - 1);
        assert_eq!(fresh["sealed_by_primary"], "2147483647");
        assert!(!fresh.contains_key("warning"));
        let worn = encryption(SEALED_BY_ONE_KEY);
        assert!(worn["warning"].ends_with("with `fyrd keys rotate`"), "{worn:?}");
    }

    #[test]
    fn an_uptime_is_short() {
        for (seconds, expected) in [
            (0, "0s"),
            (61, "1m1s"),
            (3600, "1h0m"),
            (86_399, "23h59m"),
            (90_061, "1d1h1m"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn every_key_that_clients_know_is_there() {
        let keys = |map: BTreeMap<String, String>| map.into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(runtime()), "arch cpu_count goroutines max_procs os version");
        let stats = Stats {
            members: 3,
            health_score: 1,
            ..Stats::default()
        };
        let map = serf(&stats, true);
        assert_eq!(
            (
                map["members"].as_str(),
                map["health_score"].as_str(),
                map["encrypted"].as_str()
            ),
            ("3", "1", "true")
        );
        assert_eq!(
            keys(map),
            "coordinate_resets encrypted event_queue event_time failed health_score intent_queue left member_time \
             members query_queue query_time"
        );
    }
}
