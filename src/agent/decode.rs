//! Reads options from the content of a configuration file, by Serf's rules and with its words.

use serde_json::{Map, Value};

use super::options::{Entry, Kind, Options, TABLE, parse_time};
use super::secret::Secret;
use super::text;
use crate::go;
use fyrd_core::serf::Tags;

/// The one key whose value is an object of further keys.
const GROUP: &str = "mdns";

impl Options {
    /// Reads one configuration file's content. The error has several lines when several keys are wrong.
    pub fn decode(content: &[u8]) -> Result<Options, String> {
        let object = match go::parse_first(text::of_file(content)?)? {
            Value::Null => return Ok(Options::default()),
            Value::Object(object) => object,
            other => return Err(format!("'' expected a map, got '{}'", go::kind(&other))),
        };
        let mut decoder = Decoder::default();
        decoder.object("", object);
        decoder.finish()
    }
}

/// What is read so far, and what is wrong with it.
#[derive(Default)]
struct Decoder {
    options: Options,
    errors: Vec<String>,
    /// Durations come last: a file with other mistakes is refused for those.
    times: Vec<(&'static Entry, String)>,
}

impl Decoder {
    /// Reads the keys of one object, top level or group; takes from it what it knows.
    fn object(&mut self, group: &str, mut object: Map<String, Value>) {
        for entry in TABLE.iter().filter(|entry| !entry.key.is_empty()) {
            let (of, key) = place(entry);
            if of != group {
                continue;
            }
            if let Some(value) = take(&mut object, key) {
                let path = if group.is_empty() {
                    key.to_owned()
                } else {
                    format!("{group}.{key}")
                };
                self.value(entry, &path, value);
            }
        }
        if group.is_empty() {
            match take(&mut object, GROUP) {
                None => {}
                Some(Value::Object(inner)) => self.object(GROUP, inner),
                Some(other) => self.errors.push(no_map(GROUP, &other)),
            }
        }
        if !object.is_empty() {
            let mut unknown: Vec<String> = object.into_iter().map(|(key, _)| key).collect();
            unknown.sort();
            self.errors
                .push(format!("'{group}' has invalid keys: {}", unknown.join(", ")));
        }
    }

    fn value(&mut self, entry: &'static Entry, path: &str, value: Value) {
        let options = &mut self.options;
        match (&entry.kind, value) {
            (Kind::Text(place), Value::String(text)) => *place(options) = text,
            (Kind::Secret(place), Value::String(text)) => *place(options) = Secret::new(text),
            (Kind::Time(_), Value::String(text)) => self.times.push((entry, text)),
            (Kind::Switch(place), Value::Bool(flag)) => *place(options) = flag,
            (Kind::Choice(place), Value::Bool(flag)) => *place(options) = Some(flag),
            (Kind::Number(place) | Kind::Bytes(place), Value::Number(number)) => {
                *place(options) = truncate(&number);
            }
            (Kind::Count(place), Value::Number(number)) => *place(options) = truncate(&number).max(0),
            (Kind::List(place), Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                let texts = items.filter_map(|(index, item)| self.text(path, &index.to_string(), item));
                let texts: Vec<String> = texts.collect();
                *place(&mut self.options) = texts;
            }
            (Kind::Definitions(place), Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                let texts = items.filter_map(|(index, item)| match item {
                    Value::Object(_) => Some(item.to_string()),
                    other => self.text(path, &index.to_string(), other),
                });
                let texts: Vec<String> = texts.collect();
                *place(&mut self.options) = texts;
            }
            (Kind::Tags(place), Value::Object(object)) => {
                let tags = object.into_iter();
                let tags = tags.filter_map(|(name, value)| Some((self.text(path, &name, value)?, name)));
                let tags: Tags = tags.map(|(value, name)| (name, value)).collect();
                *place(&mut self.options) = tags;
            }
            (Kind::Source | Kind::Ignored, _) => {}
            (kind, other) => self.errors.push(mismatch(path, kind, &other)),
        }
    }

    /// A text in a list or an object.
    fn text(&mut self, path: &str, item: &str, value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            Value::Null => Some(String::new()),
            other => {
                let path = format!("{path}[{item}]");
                self.errors
                    .push(wrong_type(&path, "string", &other, &go::show(&other)));
                None
            }
        }
    }

    fn finish(mut self) -> Result<Options, String> {
        if !self.errors.is_empty() {
            self.errors.sort();
            let list: Vec<String> = self.errors.iter().map(|error| format!("\n* {error}")).collect();
            return Err(format!("{} error(s) decoding:\n{}", list.len(), list.concat()));
        }
        for (entry, text) in self.times {
            if let Kind::Time(place) = entry.kind
                && !text.is_empty()
            {
                *place(&mut self.options) = parse_time(&text, || format!("{} = \"{text}\"", entry.key))?;
            }
        }
        Ok(self.options)
    }
}

/// The object in which an option stands, and its key there.
fn place(entry: &Entry) -> (&'static str, &'static str) {
    match entry.key.split_once('_') {
        Some((GROUP, key)) => (GROUP, key),
        _ => ("", entry.key),
    }
}

/// Takes a key's value, matching the key exactly or else without regard to case. Null is nothing.
fn take(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    let value = object.remove(key).or_else(|| {
        let spelled = object
            .keys()
            .find(|candidate| candidate.to_lowercase() == key)?
            .clone();
        object.remove(&spelled)
    });
    value.filter(|value| !value.is_null())
}

fn mismatch(path: &str, kind: &Kind, value: &Value) -> String {
    let expected = match kind {
        Kind::List(_) | Kind::Definitions(_) => {
            let got = go::kind(value);
            return format!("'{path}': source data must be an array or slice, got {got}");
        }
        Kind::Tags(_) => return no_map(path, value),
        Kind::Secret(_) => return wrong_type(path, "string", value, "***"),
        Kind::Switch(_) | Kind::Choice(_) => "bool",
        Kind::Number(_) | Kind::Count(_) | Kind::Bytes(_) => "int",
        Kind::Text(_) | Kind::Time(_) | Kind::Source | Kind::Ignored => "string",
    };
    wrong_type(path, expected, value, &go::show(value))
}

fn no_map(path: &str, value: &Value) -> String {
    format!("'{path}' expected a map, got '{}'", go::kind(value))
}

fn wrong_type(path: &str, expected: &str, value: &Value, shown: &str) -> String {
    let got = match value {
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        other => go::kind(other),
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
    use std::time::Duration;

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
        assert_eq!(first.retry_interval, Duration::from_secs(10));
        assert_eq!(first.enable_compression, Some(false));
        assert_eq!(first.rpc_auth.expose(), "two");
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?}",
            decode(r#"{"encrypt_key":"c2VjcmV0","rpc_auth":"hidden"}"#).unwrap()
        );
        assert!(
            !shown.contains("c2VjcmV0") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
