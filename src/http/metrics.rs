//! The figures as Prometheus reads them: OpenMetrics text. There are no series of single members, for every agent
//! would have one of every other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text::encode_eof};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::figures::{Figures, MemberChanges, Totals};
use super::members;
use crate::snapshot::State;
use fyrd_core::serf::Member;
use fyrd_core::serf::measures::RoundTrips;
use fyrd_core::swim::measures::Tally;

/// What [`text`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as text.
pub(super) fn text(figures: Figures, members: &[Arc<Member>]) -> Result<String, fmt::Error> {
    let mut statuses = BTreeMap::from(["alive", "leaving", "left", "failed"].map(|status| (status, 0)));
    for member in members {
        *statuses.entry(member.status.as_str()).or_insert(0) += 1;
    }
    let position = members::position(members, &figures.name);
    let mut own = Registry::with_prefix("fyrd");
    own.register_collector(Box::new(Own {
        statuses,
        position,
        figures: figures.clone(),
    }));
    let mut process = Registry::with_prefix("process");
    process.register_collector(Box::new(Process(figures)));
    let mut text = String::new();
    encode_registry(&mut text, &own)?;
    encode_registry(&mut text, &process)?;
    encode_eof(&mut text)?;
    Ok(text)
}

#[derive(Debug)]
struct Own {
    statuses: BTreeMap<&'static str, i64>,
    position: Option<usize>,
    figures: Figures,
}

#[derive(Debug)]
struct Process(Figures);

/// Where metrics are written.
struct Page<'a>(DescriptorEncoder<'a>);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(&[] as Labels<'_>, value)])
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge_in(&mut self, unit: Unit, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        let none: Labels<'_> = &[];
        ConstGauge::new(value).encode(metric.encode_family(&none)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(&[] as Labels<'_>, value)])
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Buckets are those between the bounds; the last is the one above all.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        seconds: f64,
        count: u64,
        buckets: impl IntoIterator<Item = (f64, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let buckets: Vec<_> = buckets.into_iter().collect();
        metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }

    fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        // The type "info" of OpenMetrics is new to many; a gauge of 1 does the same for all.
        self.gauges(&format!("{name}_info"), help, [(labels, 1.0)])
    }
}

impl Collector for Own {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        self.about(page)?;
        self.membership(page)?;
        network(page, &self.figures)?;
        messages(page, &self.figures.totals)?;
        self.handlers(page)?;
        self.templates(page)?;
        self.snapshot(page)
    }
}

impl Own {
    fn about(&self, page: &mut Page<'_>) -> fmt::Result {
        let Figures { profile, keys, .. } = &self.figures;
        page.info(
            "build",
            "What runs here, and with which timing profile",
            &[("version", env!("CARGO_PKG_VERSION")), ("profile", profile)],
        )?;
        if let Some(keys) = keys {
            page.gauge("keyring_keys", "Keys that open packets", keys.count as f64)?;
            page.info(
                "primary_key",
                "The key that seals packets; more than one fingerprint in a cluster is a rotation that has stopped half-way",
                &[
                    ("fingerprint", &keys.fingerprint.to_string()),
                    ("cipher", &keys.cipher.to_string()),
                ],
            )?;
        }
        Ok(())
    }

    fn membership(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.figures.stats;
        let labels: Vec<_> = self
            .statuses
            .iter()
            .map(|(status, count)| ([("status", *status)], *count as f64))
            .collect();
        page.gauges(
            "members",
            "Members by status, this one included",
            labels.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        page.gauge(
            "health_score",
            "Local health score (Lifeguard); 0 is healthy",
            f64::from(stats.health_score),
        )?;
        page.gauge(
            "isolated",
            "Whether nobody is heard although somebody should be there",
            f64::from(u8::from(stats.isolated)),
        )?;
        page.gauge(
            "accused",
            "How often others have said in the last 3 minutes that this host does not answer, if often enough to count",
            stats.accused as f64,
        )?;
        page.gauge(
            "ready",
            "Whether /readyz says that work may be sent here",
            f64::from(u8::from(self.figures.unready.is_empty())),
        )?;
        if let Some(position) = self.position {
            page.gauge(
                "peer_position",
                "Place among the living members of the same role, by name, from 0",
                position as f64,
            )?;
        }
        let MemberChanges {
            join,
            leave,
            failed,
            update,
            reap,
            flap,
        } = self.figures.totals.members;
        page.counters(
            "member_events",
            "Changes of members; flap is a join soon after a failure",
            [
                (&[("event", "join")][..], join),
                (&[("event", "leave")], leave),
                (&[("event", "failed")], failed),
                (&[("event", "update")], update),
                (&[("event", "reap")], reap),
                (&[("event", "flap")], flap),
            ],
        )?;
        page.counter(
            "isolations",
            "Times at which nobody was heard any more",
            self.figures.totals.isolations,
        )
    }

    fn handlers(&self, page: &mut Page<'_>) -> fmt::Result {
        let handlers = &self.figures.handlers;
        if handlers.is_empty() {
            return Ok(());
        }
        let mut runs = Vec::new();
        for (name, figures) in handlers {
            for (result, count) in [
                ("done", figures.done),
                ("failed", figures.failed),
                ("ended", figures.ended),
                ("dropped", figures.dropped),
                ("unsent", figures.unsent),
            ] {
                runs.push(([("handler", name.as_str()), ("result", result)], count));
            }
        }
        page.counters(
            "handler_runs",
            "Events by handler: done, failed, ended at the time limit, dropped because too many waited, \
             or with an answer that could not be sent",
            runs.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let waiting: Vec<_> = handlers
            .iter()
            .map(|(name, figures)| ([("handler", name.as_str())], figures.queued as f64))
            .collect();
        page.gauges(
            "handler_queue_length",
            "Events that wait for a handler",
            waiting.iter().map(|(labels, count)| (&labels[..], *count)),
        )
    }

    fn templates(&self, page: &mut Page<'_>) -> fmt::Result {
        let templates = &self.figures.templates;
        if templates.is_empty() {
            return Ok(());
        }
        let mut renders = Vec::new();
        for (file, figures) in templates {
            renders.push(([("file", file.as_str()), ("result", "written")], figures.written));
            renders.push(([("file", file.as_str()), ("result", "failed")], figures.failures));
        }
        page.counters(
            "template_renders",
            "Files of templates: written, and failures of template, check, writing or command",
            renders.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let current: Vec<_> = templates
            .iter()
            .map(|(file, figures)| ([("file", file.as_str())], f64::from(u8::from(figures.is_current))))
            .collect();
        page.gauges(
            "template_current",
            "Whether a template's file is as the cluster is; 0 if it is held back or something fails",
            current.iter().map(|(labels, is)| (&labels[..], *is)),
        )
    }

    fn snapshot(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(status) = &self.figures.snapshot else {
            return Ok(());
        };
        let degraded = matches!(status.state, State::Degraded { .. });
        page.gauge(
            "snapshot_degraded",
            "Whether the snapshot does not record at present",
            f64::from(u8::from(degraded)),
        )?;
        page.counter("snapshot_flushes", "Flushes that have succeeded", status.flushes)?;
        page.counter(
            "snapshot_failures",
            "Times the recording has been interrupted",
            status.failures,
        )?;
        page.gauge_in(
            Unit::Bytes,
            "snapshot_size",
            "Size on the disk",
            status.bytes as f64,
        )?;
        let at = status.last_flush.map_or(0.0, seconds_since_1970);
        page.gauge_in(
            Unit::Seconds,
            "snapshot_last_flush_timestamp",
            "When the last flush succeeded, since 1970; 0 is never",
            at,
        )
    }
}

fn network(page: &mut Page<'_>, figures: &Figures) -> fmt::Result {
    let (counters, traffic) = (&figures.counters, &figures.totals.traffic);
    page.counters(
        "packets",
        "Datagrams, good and bad",
        [
            (&[("direction", "in")][..], counters.datagrams_received),
            (&[("direction", "out")], counters.datagrams_sent),
        ],
    )?;
    page.counters(
        "packet_bytes",
        "Bytes of datagrams",
        [
            (&[("direction", "in")][..], bytes(&traffic.udp_received)),
            (&[("direction", "out")], bytes(&traffic.udp_sent)),
        ],
    )?;
    page.counters(
        "packets_rejected",
        "Datagrams that were not taken: unreadable or of another label, or opened by no key",
        [
            (&[("reason", "unreadable")][..], counters.datagrams_refused),
            (&[("reason", "no_key")], counters.datagrams_undecryptable),
        ],
    )?;
    page.counter(
        "packets_unsent",
        "Datagrams that this host could not send",
        counters.datagrams_unsent,
    )?;
    page.counters(
        "streams",
        "Streams by who opened them and what became of them",
        [
            (
                &[("direction", "in"), ("result", "accepted")][..],
                counters.streams_accepted,
            ),
            (
                &[("direction", "in"), ("result", "unreadable")],
                counters.streams_refused,
            ),
            (
                &[("direction", "in"), ("result", "too_many")],
                counters.streams_over_cap,
            ),
            (
                &[("direction", "out"), ("result", "connected")],
                traffic.tcp_connected,
            ),
        ],
    )?;
    page.counter(
        "stream_bytes_sent",
        "Bytes of messages sent over streams",
        bytes(&traffic.tcp_sent),
    )?;
    page.counter(
        "messages_rejected",
        "Messages of members that were refused for what they claim",
        figures.stats.refused_messages,
    )
}

fn messages(page: &mut Page<'_>, totals: &Totals) -> fmt::Result {
    let (swim, serf) = (&totals.swim, &totals.serf);
    page.counters(
        "gossip_messages",
        "Messages that changed something",
        [
            (&[("kind", "alive")][..], swim.alive),
            (&[("kind", "suspect")], swim.suspect),
            (&[("kind", "dead")], swim.dead),
        ],
    )?;
    page.counter(
        "degraded_probes",
        "Probes that took longer because this node is not healthy",
        swim.degraded_probes,
    )?;
    let trips = &serf.round_trips;
    page.histogram(
        "probe_rtt",
        "Round trips of direct pings",
        trips.seconds,
        trips.count,
        RoundTrips::BOUNDS
            .iter()
            .copied()
            .chain([f64::INFINITY])
            .zip(trips.buckets),
    )?;
    page.counter("user_events", "User events that were handled", totals.user_events)?;
    page.counter("queries", "Queries heard of", serf.queries)?;
    page.counters(
        "query_responses",
        "What came back for queries of this node",
        [
            (&[("result", "ack")][..], serf.acks),
            (&[("result", "response")], serf.responses),
            (&[("result", "duplicate_ack")], serf.duplicate_acks),
            (&[("result", "duplicate_response")], serf.duplicate_responses),
        ],
    )
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        page.gauge_in(
            Unit::Seconds,
            "start_time",
            "When the agent started, since 1970",
            seconds_since_1970(self.0.started),
        )?;
        let Some((all, resident)) = self.0.memory else {
            return Ok(());
        };
        page.gauge_in(Unit::Bytes, "resident_memory", "Memory that is in use", resident)?;
        page.gauge_in(Unit::Bytes, "virtual_memory", "Address space", all)
    }
}

fn bytes(tally: &Tally) -> u64 {
    // Sizes of packets are whole, so their sum is.
    tally.sum as u64
}

fn seconds_since_1970(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}
