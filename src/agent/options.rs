//! The agent's options: every key of the configuration files, in one table.
//!
//! A source (a file, or the flags) gives [`Options`]; [`Options::merge`] lays one over another by
//! Serf's rules. Empty, zero and `false` mean "not said", so a later source cannot take them back.

use std::time::Duration;

use serde_json::{Map, Value};

use super::json;
use super::secret::Secret;
use crate::go;
use fyrd_core::serf::Tags;

/// What one source says, or all of them together.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    missing_docs,
    reason = "the names are those of the keys; docs/compatibility.md#flags-and-config-keys explains them"
)]
pub struct Options {
    pub node_name: String,
    pub role: String,
    pub tags: Tags,
    pub tags_file: String,
    pub bind: String,
    pub advertise: String,
    pub interface: String,
    pub discover: String,
    pub mdns_interface: String,
    pub mdns_disable_ipv4: bool,
    pub mdns_disable_ipv6: bool,
    pub encrypt_key: Secret,
    pub encrypt_key_file: String,
    pub keyring_file: String,
    pub log_level: String,
    pub profile: String,
    pub protocol: i64,
    pub rpc_addr: String,
    pub rpc_auth: Secret,
    pub start_join: Vec<String>,
    pub retry_join: Vec<String>,
    pub retry_interval: Option<Duration>,
    pub retry_max_attempts: i64,
    pub replay_on_join: bool,
    pub event_handlers: Vec<String>,
    pub handler_shell: String,
    pub handler_timeout: Option<Duration>,
    pub snapshot_path: String,
    pub rejoin_after_leave: bool,
    pub enable_syslog: bool,
    pub syslog_facility: String,
    pub broadcast_timeout: Option<Duration>,
    pub enable_compression: Option<bool>,
    pub disable_coordinates: bool,
    pub disable_name_resolution: bool,
    pub leave_on_terminate: bool,
    pub skip_leave_on_interrupt: bool,
    pub reconnect_interval: Option<Duration>,
    pub reconnect_timeout: Option<Duration>,
    pub tombstone_timeout: Option<Duration>,
    pub statsite_addr: String,
    pub statsd_addr: String,
    pub query_response_size_limit: i64,
    pub query_size_limit: i64,
    pub user_event_size_limit: i64,
}

/// Where a key's value goes; the kind says how it is read and merged.
enum Slot {
    Text(fn(&mut Options) -> &mut String),
    Secret(fn(&mut Options) -> &mut Secret),
    Number(fn(&mut Options) -> &mut i64),
    Switch(fn(&mut Options) -> &mut bool),
    /// On unless said otherwise; the last word counts.
    Choice(fn(&mut Options) -> &mut Option<bool>),
    Time(fn(&mut Options) -> &mut Option<Duration>),
    List(fn(&mut Options) -> &mut Vec<String>),
    Tags(fn(&mut Options) -> &mut Tags),
    /// Known to Serf, without function there and here.
    Ignored,
}

/// Every key. Durations stand in the order in which their errors are looked for.
const KEYS: [(&str, Slot); 47] = [
    ("node_name", Slot::Text(|s| &mut s.node_name)),
    ("role", Slot::Text(|s| &mut s.role)),
    ("tags", Slot::Tags(|s| &mut s.tags)),
    ("tags_file", Slot::Text(|s| &mut s.tags_file)),
    ("bind", Slot::Text(|s| &mut s.bind)),
    ("advertise", Slot::Text(|s| &mut s.advertise)),
    ("interface", Slot::Text(|s| &mut s.interface)),
    ("discover", Slot::Text(|s| &mut s.discover)),
    ("mdns.interface", Slot::Text(|s| &mut s.mdns_interface)),
    ("mdns.disable_ipv4", Slot::Switch(|s| &mut s.mdns_disable_ipv4)),
    ("mdns.disable_ipv6", Slot::Switch(|s| &mut s.mdns_disable_ipv6)),
    ("encrypt_key", Slot::Secret(|s| &mut s.encrypt_key)),
    ("encrypt_key_file", Slot::Text(|s| &mut s.encrypt_key_file)),
    ("keyring_file", Slot::Text(|s| &mut s.keyring_file)),
    ("log_level", Slot::Text(|s| &mut s.log_level)),
    ("profile", Slot::Text(|s| &mut s.profile)),
    ("protocol", Slot::Number(|s| &mut s.protocol)),
    ("rpc_addr", Slot::Text(|s| &mut s.rpc_addr)),
    ("rpc_auth", Slot::Secret(|s| &mut s.rpc_auth)),
    ("start_join", Slot::List(|s| &mut s.start_join)),
    ("retry_join", Slot::List(|s| &mut s.retry_join)),
    ("retry_max_attempts", Slot::Number(|s| &mut s.retry_max_attempts)),
    ("replay_on_join", Slot::Switch(|s| &mut s.replay_on_join)),
    ("event_handlers", Slot::List(|s| &mut s.event_handlers)),
    ("handler_shell", Slot::Text(|s| &mut s.handler_shell)),
    ("snapshot_path", Slot::Text(|s| &mut s.snapshot_path)),
    ("rejoin_after_leave", Slot::Switch(|s| &mut s.rejoin_after_leave)),
    ("enable_syslog", Slot::Switch(|s| &mut s.enable_syslog)),
    ("syslog_facility", Slot::Text(|s| &mut s.syslog_facility)),
    ("enable_compression", Slot::Choice(|s| &mut s.enable_compression)),
    (
        "disable_coordinates",
        Slot::Switch(|s| &mut s.disable_coordinates),
    ),
    (
        "disable_name_resolution",
        Slot::Switch(|s| &mut s.disable_name_resolution),
    ),
    ("leave_on_terminate", Slot::Switch(|s| &mut s.leave_on_terminate)),
    (
        "skip_leave_on_interrupt",
        Slot::Switch(|s| &mut s.skip_leave_on_interrupt),
    ),
    ("reconnect_interval", Slot::Time(|s| &mut s.reconnect_interval)),
    ("reconnect_timeout", Slot::Time(|s| &mut s.reconnect_timeout)),
    ("tombstone_timeout", Slot::Time(|s| &mut s.tombstone_timeout)),
    ("retry_interval", Slot::Time(|s| &mut s.retry_interval)),
    ("broadcast_timeout", Slot::Time(|s| &mut s.broadcast_timeout)),
    ("handler_timeout", Slot::Time(|s| &mut s.handler_timeout)),
    ("statsite_addr", Slot::Text(|s| &mut s.statsite_addr)),
    ("statsd_addr", Slot::Text(|s| &mut s.statsd_addr)),
    (
        "query_response_size_limit",
        Slot::Number(|s| &mut s.query_response_size_limit),
    ),
    ("query_size_limit", Slot::Number(|s| &mut s.query_size_limit)),
    (
        "user_event_size_limit",
        Slot::Number(|s| &mut s.user_event_size_limit),
    ),
    ("validate_node_names", Slot::Ignored),
    ("msgpackusenewtimeformat", Slot::Ignored),
];

/// The one key whose value is an object of further keys.
const GROUP: &str = "mdns";

impl Options {
    /// Reads one configuration file's content. The error has several lines when several keys are wrong.
    pub fn decode(content: &[u8]) -> Result<Options, String> {
        let mut options = Options::default();
        let object = match json::parse_first(content)? {
            Value::Null => return Ok(options),
            Value::Object(object) => object,
            other => return Err(format!("'' expected a map, got '{}'", json::kind(&other))),
        };
        let mut errors = Vec::new();
        let mut times = Vec::new();
        options.decode_object("", object, &mut errors, &mut times);
        if !errors.is_empty() {
            errors.sort();
            let list: Vec<String> = errors.iter().map(|error| format!("\n* {error}")).collect();
            return Err(format!("{} error(s) decoding:\n{}", errors.len(), list.concat()));
        }
        for (key, slot) in &KEYS {
            if let (Slot::Time(place), Some((_, text))) = (slot, times.iter().find(|(name, _)| name == key)) {
                *place(&mut options) = parse_time(text).map_err(|e| match e {
                    TimeError::Syntax(e) => e,
                    TimeError::Negative => format!("{key} = \"{text}\" must not be negative"),
                })?;
            }
        }
        Ok(options)
    }

    /// Reads the keys of one object, top level or group; takes from it what it knows.
    fn decode_object(
        &mut self,
        group: &str,
        mut object: Map<String, Value>,
        errors: &mut Vec<String>,
        times: &mut Vec<(String, String)>,
    ) {
        let prefix = if group.is_empty() {
            String::new()
        } else {
            format!("{group}.")
        };
        for (path, slot) in &KEYS {
            let Some(key) = path
                .strip_prefix(prefix.as_str())
                .filter(|key| !key.contains('.'))
            else {
                continue;
            };
            match take(&mut object, key) {
                None | Some(Value::Null) => {}
                Some(value) => self.decode_value(path, slot, value, errors, times),
            }
        }
        if group.is_empty() {
            match take(&mut object, GROUP) {
                None | Some(Value::Null) => {}
                Some(Value::Object(inner)) => self.decode_object(GROUP, inner, errors, times),
                Some(other) => errors.push(format!("'{GROUP}' expected a map, got '{}'", json::kind(&other))),
            }
        }
        if !object.is_empty() {
            let mut unknown: Vec<String> = object.into_iter().map(|(key, _)| key).collect();
            unknown.sort();
            errors.push(format!("'{group}' has invalid keys: {}", unknown.join(", ")));
        }
    }

    fn decode_value(
        &mut self,
        path: &str,
        slot: &Slot,
        value: Value,
        errors: &mut Vec<String>,
        times: &mut Vec<(String, String)>,
    ) {
        match (slot, value) {
            (Slot::Ignored, _) => {}
            (Slot::Text(place), Value::String(text)) => *place(self) = text,
            (Slot::Secret(place), Value::String(text)) => *place(self) = Secret::new(text),
            (Slot::Secret(_), other) => errors.push(wrong_type(path, "string", &other, "***")),
            (Slot::Time(_), Value::String(text)) if text.is_empty() => {}
            (Slot::Time(_), Value::String(text)) => times.push((path.to_string(), text)),
            (Slot::Switch(place), Value::Bool(flag)) => *place(self) = flag,
            (Slot::Choice(place), Value::Bool(flag)) => *place(self) = Some(flag),
            (Slot::Number(place), Value::Number(number)) => *place(self) = truncate(&number),
            (Slot::List(place), Value::Array(items)) => {
                *place(self) = decode_list(path, items, errors);
            }
            (Slot::List(_), other) => {
                let kind = json::kind(&other);
                errors.push(format!(
                    "'{path}': source data must be an array or slice, got {kind}"
                ));
            }
            (Slot::Tags(place), Value::Object(object)) => *place(self) = decode_tags(path, object, errors),
            (Slot::Tags(_), other) => {
                errors.push(format!("'{path}' expected a map, got '{}'", json::kind(&other)))
            }
            (Slot::Text(_) | Slot::Time(_), other) => {
                errors.push(wrong_type(path, "string", &other, &json::show(&other)));
            }
            (Slot::Switch(_) | Slot::Choice(_), other) => {
                errors.push(wrong_type(path, "bool", &other, &json::show(&other)));
            }
            (Slot::Number(_), other) => errors.push(wrong_type(path, "int", &other, &json::show(&other))),
        }
    }

    /// Lays `over` over these options.
    pub fn merge(&mut self, mut over: Options) {
        for (_, slot) in &KEYS {
            match slot {
                Slot::Text(place) if !place(&mut over).is_empty() => {
                    *place(self) = std::mem::take(place(&mut over))
                }
                Slot::Secret(place) if !place(&mut over).is_empty() => {
                    *place(self) = std::mem::take(place(&mut over));
                }
                Slot::Number(place) if *place(&mut over) != 0 => *place(self) = *place(&mut over),
                Slot::Switch(place) => *place(self) |= *place(&mut over),
                Slot::Choice(place) => *place(self) = place(&mut over).or(*place(self)),
                Slot::Time(place) => *place(self) = place(&mut over).or(*place(self)),
                Slot::List(place) => place(self).append(place(&mut over)),
                Slot::Tags(place) => place(self).append(place(&mut over)),
                Slot::Text(_) | Slot::Secret(_) | Slot::Number(_) | Slot::Ignored => {}
            }
        }
    }
}

/// Why a text is no duration of a setting.
pub enum TimeError {
    /// Serf's words.
    Syntax(String),
    /// Serf takes it, and then waits for ever or not at all.
    Negative,
}

/// Reads a duration; zero is "not said".
pub fn parse_time(text: &str) -> Result<Option<Duration>, TimeError> {
    let time: go::Duration = text.parse().map_err(TimeError::Syntax)?;
    match u64::try_from(time.nanos) {
        Err(_) => Err(TimeError::Negative),
        Ok(0) => Ok(None),
        Ok(nanos) => Ok(Some(Duration::from_nanos(nanos))),
    }
}

/// Takes a key's value, matching the key exactly or else without regard to case.
fn take(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    object.remove(key).or_else(|| {
        let spelled = object
            .keys()
            .find(|candidate| candidate.to_lowercase() == key)?
            .clone();
        object.remove(&spelled)
    })
}

fn decode_list(path: &str, items: Vec<Value>, errors: &mut Vec<String>) -> Vec<String> {
    let mut list = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Value::String(text) => list.push(text),
            Value::Null => list.push(String::new()),
            other => errors.push(wrong_type(
                &format!("{path}[{index}]"),
                "string",
                &other,
                &json::show(&other),
            )),
        }
    }
    list
}

fn decode_tags(path: &str, object: Map<String, Value>, errors: &mut Vec<String>) -> Tags {
    let mut tags = Tags::new();
    for (name, value) in object {
        match value {
            Value::String(text) => drop(tags.insert(name, text)),
            Value::Null => drop(tags.insert(name, String::new())),
            other => errors.push(wrong_type(
                &format!("{path}[{name}]"),
                "string",
                &other,
                &json::show(&other),
            )),
        }
    }
    tags
}

fn wrong_type(path: &str, expected: &str, value: &Value, shown: &str) -> String {
    let got = match value {
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        other => json::kind(other),
    };
    format!("'{path}' expected type '{expected}', got unconvertible type '{got}', value: '{shown}'")
}

/// Numbers lose their fraction; what does not fit is as large as can be, and refused where it is used.
fn truncate(number: &serde_json::Number) -> i64 {
    number
        .as_i64()
        .unwrap_or_else(|| number.as_f64().unwrap_or(0.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Options, String> {
        Options::decode(text.as_bytes())
    }

    #[test]
    fn bad_files_are_refused_in_serfs_words() {
        #[rustfmt::skip]
        let table = [
            ("[]", "'' expected a map, got 'slice'"),
            ("\"x\"", "'' expected a map, got 'string'"),
            ("5", "'' expected a map, got 'float64'"),
            (r#"{"foo":1,"Bar":2,"bind":true,"node_name":5}"#,
             "3 error(s) decoding:\n\n* '' has invalid keys: Bar, foo\n* 'bind' expected type 'string', got unconvertible type 'bool', value: 'true'\n* 'node_name' expected type 'string', got unconvertible type 'float64', value: '5'"),
            (r#"{"bind":[1,"a"]}"#, "1 error(s) decoding:\n\n* 'bind' expected type 'string', got unconvertible type '[]interface {}', value: '[1 a]'"),
            (r#"{"enable_syslog":"yes"}"#, "1 error(s) decoding:\n\n* 'enable_syslog' expected type 'bool', got unconvertible type 'string', value: 'yes'"),
            (r#"{"protocol":"5"}"#, "1 error(s) decoding:\n\n* 'protocol' expected type 'int', got unconvertible type 'string', value: '5'"),
            (r#"{"start_join":"a"}"#, "1 error(s) decoding:\n\n* 'start_join': source data must be an array or slice, got string"),
            (r#"{"event_handlers":[1]}"#, "1 error(s) decoding:\n\n* 'event_handlers[0]' expected type 'string', got unconvertible type 'float64', value: '1'"),
            (r#"{"tags":[]}"#, "1 error(s) decoding:\n\n* 'tags' expected a map, got 'slice'"),
            (r#"{"tags":{"a":1}}"#, "1 error(s) decoding:\n\n* 'tags[a]' expected type 'string', got unconvertible type 'float64', value: '1'"),
            (r#"{"retry_interval":"5"}"#, "time: missing unit in duration \"5\""),
            (r#"{"reconnect_timeout":"1d","tombstone_timeout":"z"}"#, "time: unknown unit \"d\" in duration \"1d\""),
            (r#"{"mdns":5}"#, "1 error(s) decoding:\n\n* 'mdns' expected a map, got 'float64'"),
            (r#"{"mdns":{"x":5}}"#, "1 error(s) decoding:\n\n* 'mdns' has invalid keys: x"),
            (r#"{"mdns.interface":"x"}"#, "1 error(s) decoding:\n\n* '' has invalid keys: mdns.interface"),
            (r#"{"leave_on_interrupt":true}"#, "1 error(s) decoding:\n\n* '' has invalid keys: leave_on_interrupt"),
            (r#"{"nodename":"x"}"#, "1 error(s) decoding:\n\n* '' has invalid keys: nodename"),
            (r#"{"encrypt_key":["c2VjcmV0"]}"#, "1 error(s) decoding:\n\n* 'encrypt_key' expected type 'string', got unconvertible type '[]interface {}', value: '***'"),
        ];
        for (text, expected) in table {
            assert_eq!(decode(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn keys_match_without_regard_to_case_and_null_is_nothing() {
        let options = decode(
            r#"{"NODE_NAME":"a","Protocol":4.5,"tags":{"x":null},"bind":null,"validate_node_names":true,
                "MsgpackUseNewTimeFormat":1,"mdns":{"INTERFACE":"eth0"},"retry_interval":""} trailing"#,
        )
        .unwrap();
        let expected = Options {
            node_name: "a".into(),
            protocol: 4,
            tags: Tags::from([("x".into(), String::new())]),
            mdns_interface: "eth0".into(),
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(decode("null").unwrap(), Options::default());
    }

    #[test]
    fn later_sources_override_switch_on_and_append() {
        let mut first = decode(
            r#"{"bind":"a","protocol":4,"enable_syslog":true,"tags":{"a":"1","b":"1"},"start_join":["x"],
                "retry_interval":"10s","enable_compression":true,"rpc_auth":"one"}"#,
        )
        .unwrap();
        let second = decode(
            r#"{"bind":"","protocol":0,"enable_syslog":false,"tags":{"b":"2"},"start_join":["y"],
                "enable_compression":false,"rpc_auth":"two"}"#,
        )
        .unwrap();
        first.merge(second);
        assert_eq!(
            (first.bind.as_str(), first.protocol, first.enable_syslog),
            ("a", 4, true)
        );
        assert_eq!(
            first.tags,
            Tags::from([("a".into(), "1".into()), ("b".into(), "2".into())])
        );
        assert_eq!(first.start_join, ["x", "y"]);
        assert_eq!(first.retry_interval, Some(Duration::from_secs(10)));
        assert_eq!(first.enable_compression, Some(false));
        assert_eq!(first.rpc_auth.expose(), "two");
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?}",
            decode(r#"{"encrypt_key":"c2VjcmV0","rpc_auth":"token"}"#).unwrap()
        );
        assert!(!shown.contains("c2VjcmV0") && !shown.contains("token"), "{shown}");
    }
}
