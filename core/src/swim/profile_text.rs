//! Reads profiles from TOML, by the table of their keys.

use std::time::Duration;

use toml::{Table, Value};

use super::profile::{FIELDS, Profile, ProfileError, Slot};
use crate::duration;

/// The profiles that are compiled in.
const BUILTIN: [(&str, &str); 3] = [
    ("lan", include_str!("../../../profiles/lan.toml")),
    ("wan", include_str!("../../../profiles/wan.toml")),
    ("local", include_str!("../../../profiles/local.toml")),
];

/// No duration of a profile is longer, so that deadlines cannot overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Profile {
    /// A profile that is compiled in: `lan`, `wan` or `local`.
    pub fn builtin(name: &str) -> Option<Profile> {
        let (name, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        // A test reads all of them, so a mistake in one does not get as far as a user.
        Profile::parse(name, text).ok()
    }

    /// Reads a profile; `label` is what errors and the banner call it, usually the file's name.
    pub fn parse(label: &str, text: &str) -> Result<Profile, ProfileError> {
        let fault = |text: String| ProfileError {
            label: label.to_string(),
            text: one_line(&text),
        };
        let mut table: Table = text.parse().map_err(|e| fault(syntax_error(text, &e)))?;
        let base =
            match table.remove("base") {
                None => None,
                Some(Value::String(name)) => Some(Profile::builtin(&name).ok_or_else(|| {
                    fault(format!("base = \"{name}\" must be \"lan\", \"wan\" or \"local\""))
                })?),
                Some(other) => {
                    return Err(fault(format!(
                        "base = {other} must be \"lan\", \"wan\" or \"local\""
                    )));
                }
            };
        let complete = base.is_none();
        let mut profile = base.unwrap_or_else(Profile::blank);
        profile.name = label.to_string();
        let values = flatten(table).map_err(fault)?;
        for (key, value) in &values {
            let (_, slot) = FIELDS
                .iter()
                .find(|(known, _)| known == key)
                .ok_or_else(|| fault(format!("unknown key: {key}")))?;
            slot.fill(&mut profile, value)
                .map_err(|want| fault(format!("{key} = {value} must be {want}")))?;
        }
        let missing = FIELDS
            .iter()
            .map(|(key, _)| *key)
            .find(|key| !values.iter().any(|(given, _)| given == key));
        if let (true, Some(key)) = (complete, missing) {
            let hint = "give it, or name a profile to take it from: base = \"lan\"";
            return Err(fault(format!("{key} is missing; {hint}")));
        }
        profile.check_combinations().map_err(fault)?;
        Ok(profile)
    }

    /// What no single key shows: values that exclude each other.
    fn check_combinations(&self) -> Result<(), String> {
        let serf = &self.serf;
        if !self.probe_interval.is_zero() && self.probe_timeout >= self.probe_interval {
            return Err(excess(
                "probe_timeout",
                self.probe_timeout,
                "less than probe_interval",
                self.probe_interval,
            ));
        }
        if self.late_ack_min > self.late_ack_max && !self.late_ack_max.is_zero() {
            return Err(excess(
                "late_ack_min",
                self.late_ack_min,
                "at most late_ack_max",
                self.late_ack_max,
            ));
        }
        for (key, quiet, period_key, period) in [
            (
                "serf.quiescent_period",
                serf.quiescent_period,
                "coalesce_period",
                serf.coalesce_period,
            ),
            (
                "serf.user_quiescent_period",
                serf.user_quiescent_period,
                "user_coalesce_period",
                serf.user_coalesce_period,
            ),
        ] {
            if !period.is_zero() && quiet > period {
                return Err(excess(key, quiet, &format!("at most {period_key}"), period));
            }
        }
        if serf.queue_depth_warning > serf.max_queue_depth {
            return Err(format!(
                "serf.queue_depth_warning = {} must be at most max_queue_depth ({})",
                serf.queue_depth_warning, serf.max_queue_depth
            ));
        }
        Ok(())
    }
}

/// No factor of a profile is larger, so that no product overflows.
const LARGEST_FACTOR: u32 = 1000;

impl Slot {
    /// Puts the value in its place; the error says what it must be.
    fn fill(&self, profile: &mut Profile, value: &Value) -> Result<(), String> {
        match self {
            Slot::Time(place, least) => {
                let text = value.as_str().ok_or("a duration in quotes, such as \"500ms\"")?;
                let time = parse_duration(text).ok_or("a duration such as \"500ms\", \"1.5s\" or \"24h\"")?;
                if time < *least || time > LONGEST {
                    return Err(format!("from {least:?} to {}h", LONGEST.as_secs() / 3600));
                }
                *place(profile) = time;
            }
            Slot::Count(place, least, largest) => {
                let number = value.as_integer().ok_or("a whole number, without quotes")?;
                let number = usize::try_from(number)
                    .ok()
                    .filter(|n| (least..=largest).contains(&n));
                *place(profile) = number.ok_or_else(|| match *largest {
                    usize::MAX => format!("at least {least}"),
                    _ => format!("from {least} to {largest}"),
                })?;
            }
            Slot::Factor(place) => {
                let number = value.as_integer().ok_or("a whole number, without quotes")?;
                let number = u32::try_from(number)
                    .ok()
                    .filter(|n| (1..=LARGEST_FACTOR).contains(n));
                *place(profile) = number.ok_or_else(|| format!("from 1 to {LARGEST_FACTOR}"))?;
            }
            Slot::Switch(place) => *place(profile) = value.as_bool().ok_or("true or false")?,
        }
        Ok(())
    }
}

/// The table's entries, those of `[serf]` under `serf.KEY`.
fn flatten(table: Table) -> Result<Vec<(String, Value)>, String> {
    let mut values = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if key == "serf" => {
                values.extend(
                    inner
                        .into_iter()
                        .map(|(name, value)| (format!("serf.{name}"), value)),
                );
            }
            Value::Table(_) => return Err(format!("unknown table: [{key}]")),
            value => values.push((key, value)),
        }
    }
    Ok(values)
}

/// One line, with the place, of what the TOML parser shows as a picture.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', "; "))
}

/// Keys and values of a file can hold ends of lines and worse; an error is one line.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_debug());
        } else {
            line.push(letter);
        }
    }
    line
}

fn excess(key: &str, value: Duration, bound: &str, limit: Duration) -> String {
    format!("{key} = \"{value:?}\" must be {bound} ({limit:?})")
}

/// A duration in the notation of Go, without sign: numbers with units, as in `1m30.5s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = duration::parse(text)
        .ok()
        .filter(|_| !text.starts_with(['-', '+']))?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::super::profile::SerfProfile;
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The values that differ between the profiles (docs/protocol.md#a24-configuration).
    #[test]
    fn builtin_profiles_have_the_values_of_the_reference() {
        #[rustfmt::skip]
        let table = [
            ("lan",   10_000, 3, 4, 4, 30_000, 1_000,   500, 200, 3, 30_000),
            ("wan",   30_000, 3, 4, 6, 60_000, 5_000, 3_000, 500, 4, 60_000),
            ("local",  1_000, 1, 2, 3, 15_000, 1_000,   200, 100, 3, 15_000),
        ];
        for (name, tcp, indirect, retransmit, suspicion, push_pull, probe, timeout, gossip, nodes, dead) in
            table
        {
            let p = Profile::builtin(name).unwrap();
            assert_eq!(p.name, name);
            assert_eq!(p.tcp_timeout, ms(tcp), "{name}");
            assert_eq!(p.indirect_checks, indirect, "{name}");
            assert_eq!(p.retransmit_mult, retransmit, "{name}");
            assert_eq!(p.suspicion_mult, suspicion, "{name}");
            assert_eq!(p.push_pull_interval, ms(push_pull), "{name}");
            assert_eq!(p.probe_interval, ms(probe), "{name}");
            assert_eq!(p.probe_timeout, ms(timeout), "{name}");
            assert_eq!(p.gossip_interval, ms(gossip), "{name}");
            assert_eq!(p.gossip_nodes, nodes, "{name}");
            assert_eq!(p.gossip_to_the_dead_time, ms(dead), "{name}");
        }
    }

    /// What Serf does not have: when a stream is tried early, and when refusals count.
    #[test]
    fn builtin_profiles_say_when_an_ack_is_late_and_what_refusals_weigh() {
        for (name, min, max) in [("lan", 100, 250), ("wan", 200, 1_000), ("local", 50, 100)] {
            let p = Profile::builtin(name).unwrap();
            assert_eq!((p.late_ack_min, p.late_ack_max), (ms(min), ms(max)), "{name}");
            assert!(p.late_ack_max < p.probe_timeout, "{name}");
            assert_eq!(
                (
                    p.late_ack_mult,
                    p.evidence_pause,
                    p.evidence_looks,
                    p.evidence_confirmations
                ),
                (4, ms(2_000), 5, 2),
                "{name}"
            );
        }
    }

    /// The values that all profiles share (docs/protocol.md#a24-configuration).
    #[test]
    fn builtin_profiles_share_the_rest() {
        for name in ["lan", "wan", "local"] {
            let p = Profile::builtin(name).unwrap();
            assert_eq!((p.suspicion_max_timeout_mult, p.awareness_max_multiplier), (6, 8));
            assert_eq!(
                (p.udp_buffer_size, p.dead_node_reclaim_time, p.disable_tcp_pings),
                (1400, ZERO, false)
            );
            assert_eq!((p.eager_share, p.eager_rate, p.eager_burst), (75, 60, 200));
            assert_eq!(
                (p.eager_delay, p.eager_pause, p.eager_repeat),
                (ms(0), ms(5), ms(20))
            );
            assert_eq!((p.gossip_ring, p.gossip_least), (4, 8));
            assert_eq!((p.repair_interval, p.push_pull_thinning), (ms(1_000), 4));
            assert!(p.probe_turns);
            let expected = SerfProfile {
                coalesce_period: ms(3_000),
                quiescent_period: ms(1_000),
                user_coalesce_period: ms(3_000),
                user_quiescent_period: ms(1_000),
                broadcast_timeout: ms(5_000),
                leave_propagate_delay: ms(1_000),
                event_buffer: 512,
                query_buffer: 512,
                query_timeout_mult: 16,
                reap_interval: ms(15_000),
                reconnect_interval: ms(30_000),
                reconnect_timeout: ms(24 * 3_600_000),
                tombstone_timeout: ms(24 * 3_600_000),
                recent_intent_timeout: ms(300_000),
                queue_check_interval: ms(30_000),
                queue_depth_warning: 128,
                max_queue_depth: 4096,
                min_queue_depth: 0,
            };
            assert_eq!(p.serf, expected);
        }
        assert_eq!(Profile::builtin("LAN"), None);
    }

    #[test]
    fn a_profile_of_ones_own_takes_the_rest_from_its_base() {
        let own = Profile::parse(
            "own.toml",
            "base = 'wan'\ngossip_nodes = 7\n[serf]\nreap_interval = '1m'",
        )
        .unwrap();
        let mut expected = Profile::builtin("wan").unwrap();
        expected.name = "own.toml".into();
        expected.gossip_nodes = 7;
        expected.serf.reap_interval = ms(60_000);
        assert_eq!(own, expected);
    }

    #[test]
    fn every_key_without_base_must_be_there() {
        let lan = BUILTIN[0].1;
        for (key, _) in FIELDS {
            let bare = key.rsplit('.').next().unwrap();
            let cut: String = lan
                .lines()
                .filter(|line| !line.starts_with(&format!("{bare} =")))
                .map(|line| format!("{line}\n"))
                .collect();
            let error = Profile::parse("x.toml", &cut).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("profile 'x.toml': {key} is missing; ")),
                "{error}"
            );
        }
    }

    #[test]
    fn bad_profiles_are_refused_with_key_value_and_bound() {
        #[rustfmt::skip]
        let table = [
            ("probe_timeout = \"3s\"", "probe_timeout = \"3s\" must be less than probe_interval (1s)"),
            ("probe_timeout = \"1s\"", "probe_timeout = \"1s\" must be less than probe_interval (1s)"),
            ("probe_timeout = \"0s\"", "probe_timeout = \"0s\" must be from 1ms to 87600h"),
            ("probe_interval = 5", "probe_interval = 5 must be a duration in quotes, such as \"500ms\""),
            ("probe_interval = \"5\"", "probe_interval = \"5\" must be a duration such as \"500ms\", \"1.5s\" or \"24h\""),
            ("probe_interval = \"-5s\"", "probe_interval = \"-5s\" must be a duration such as \"500ms\", \"1.5s\" or \"24h\""),
            ("probe_interval = \"999999h\"", "probe_interval = \"999999h\" must be from 0ns to 87600h"),
            ("gossip_nodes = 0", "gossip_nodes = 0 must be from 1 to 1000"),
            ("gossip_nodes = -1", "gossip_nodes = -1 must be from 1 to 1000"),
            ("gossip_nodes = \"3\"", "gossip_nodes = \"3\" must be a whole number, without quotes"),
            ("gossip_nodes = 1.5", "gossip_nodes = 1.5 must be a whole number, without quotes"),
            ("gossip_interval = \"0s\"", "gossip_interval = \"0s\" must be from 1ms to 87600h"),
            ("udp_buffer_size = 100", "udp_buffer_size = 100 must be from 1024 to 65507"),
            ("udp_buffer_size = 65508", "udp_buffer_size = 65508 must be from 1024 to 65507"),
            ("retransmit_mult = 0", "retransmit_mult = 0 must be from 1 to 1000"),
            ("suspicion_mult = 99999999999", "suspicion_mult = 99999999999 must be from 1 to 1000"),
            ("disable_tcp_pings = 1", "disable_tcp_pings = 1 must be true or false"),
            ("probe_intervall = \"1s\"", "unknown key: probe_intervall"),
            ("\"a\\nb\\u001b\" = 1", "unknown key: a\\nb\\u{1b}"),
            ("gossip_nodes = \"1\\n2\"", "gossip_nodes = \"\"\"\\n1\\n2\"\"\" must be a whole number, without quotes"),
            ("[serf]\nfoo = 1", "unknown key: serf.foo"),
            ("[swim]\nfoo = 1", "unknown table: [swim]"),
            ("serf = 1", "unknown key: serf"),
            ("late_ack_min = \"1s\"", "late_ack_min = \"1s\" must be at most late_ack_max (250ms)"),
            ("evidence_confirmations = 4", "evidence_confirmations = 4 must be from 0 to 3"),
            ("[serf]\nquiescent_period = \"4s\"", "serf.quiescent_period = \"4s\" must be at most coalesce_period (3s)"),
            ("[serf]\nuser_coalesce_period = \"1ms\"", "serf.user_quiescent_period = \"1s\" must be at most user_coalesce_period (1ms)"),
            ("[serf]\nbroadcast_timeout = \"1ms\"", "serf.broadcast_timeout = \"1ms\" must be from 1s to 87600h"),
            ("[serf]\nevent_buffer = 0", "serf.event_buffer = 0 must be from 1 to 65536"),
            ("[serf]\nmax_queue_depth = 10", "serf.queue_depth_warning = 128 must be at most max_queue_depth (10)"),
        ];
        for (text, expected) in table {
            let error = Profile::parse("x.toml", &format!("base = \"lan\"\n{text}")).unwrap_err();
            assert_eq!(error.to_string(), format!("profile 'x.toml': {expected}"));
        }
        let base = Profile::parse("x.toml", "base = \"LAN\"")
            .unwrap_err()
            .to_string();
        assert_eq!(
            base,
            "profile 'x.toml': base = \"LAN\" must be \"lan\", \"wan\" or \"local\""
        );
        let syntax = Profile::parse("x.toml", "base = \"lan\"\n\ngossip_nodes =")
            .unwrap_err()
            .to_string();
        assert!(syntax.starts_with("profile 'x.toml': line 3: "), "{syntax}");
        assert!(!syntax.contains('\n'));
    }

    #[test]
    fn durations() {
        #[rustfmt::skip]
        let table = [
            ("0", Some(0)), ("0s", Some(0)), ("1ns", Some(1)), ("1us", Some(1_000)), ("1µs", Some(1_000)),
            ("500ms", Some(500_000_000)), ("1.5s", Some(1_500_000_000)), (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)), ("1m30s", Some(90_000_000_000)), ("24h", Some(86_400_000_000_000)),
            ("", None), ("5", None), ("s", None), (".s", None), ("1d", None), ("-1s", None), ("1 s", None),
            ("1.2.3s", None), ("99999999999h", None), ("1s5", None),
        ];
        for (text, nanos) in table {
            assert_eq!(parse_duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }
}
