//! The figures that `info` shows. All values are text, and clients rely on every key (surface.md 1.4).

use std::collections::BTreeMap;

use super::Agent;
use crate::serf::Stats;

impl Agent {
    /// All groups of figures.
    pub(super) async fn collect_stats(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let read = self
            .0
            .driver
            .read(|node| (node.stats(), node.tags().clone()))
            .await;
        // Clocks that are shown must not run backwards over a crash.
        let _ = self.0.driver.settled().await;
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
            groups.insert("handlers".to_string(), handlers);
        }
        groups
    }
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
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
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
