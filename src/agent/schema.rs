//! The JSON schema of configuration files, from the table of options.

use serde_json::{Map, Value, json};

use super::options::{Entry, Fallback, Kind, TABLE};

/// A time in Go's notation, as 1h30m.
const TIME: &str = r"^(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h))*$";

/// The key of the one object of further options.
const GROUP: &str = "mdns";

/// The schema, for editors and for checks before a rollout.
pub fn schema() -> Value {
    let (mut properties, mut group) = (Map::new(), Map::new());
    for entry in TABLE.iter().filter(|entry| !entry.key.is_empty()) {
        match entry.key.strip_prefix("mdns_") {
            Some(inner) => group.insert(inner.to_owned(), property(entry)),
            None => properties.insert(entry.key.to_owned(), property(entry)),
        };
    }
    properties.insert(
        GROUP.to_owned(),
        json!({"type": "object", "properties": group, "additionalProperties": false}),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a Fyrd agent",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn property(entry: &Entry) -> Value {
    let mut property = of_kind(&entry.kind);
    if let Value::Object(property) = &mut property {
        let help: Vec<&str> = entry.help.split_whitespace().collect();
        property.insert("description".to_owned(), help.join(" ").into());
        if let Some(default) = default(entry) {
            property.insert("default".to_owned(), default);
        }
    }
    property
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(_) | Kind::Secret(_) => json!({"type": "string"}),
        Kind::Number(_) => json!({"type": "integer"}),
        Kind::Count(_) | Kind::Bytes(_) => json!({"type": "integer", "minimum": 0}),
        Kind::Switch(_) | Kind::Choice(_) => json!({"type": "boolean"}),
        Kind::Time(_) => json!({"type": "string", "pattern": TIME}),
        Kind::List(_) => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Definitions(_) => {
            json!({"type": "array", "items": {"anyOf": [{"type": "string"}, template()]}})
        }
        Kind::Tags(_) => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Source | Kind::Ignored => json!({}),
    }
}

fn template() -> Value {
    let (text, time) = (
        json!({"type": "string"}),
        json!({"type": "string", "pattern": TIME}),
    );
    json!({
        "type": "object",
        "properties": {
            "src": text, "dst": text, "command": text, "check": text, "wait": time, "timeout": time,
            "min": {"type": "integer", "minimum": 0},
            "mode": {"type": "string", "pattern": "^0?[0-7]{3}$"},
        },
        "required": ["src", "dst"],
        "additionalProperties": false,
    })
}

fn default(entry: &Entry) -> Option<Value> {
    match (entry.default, &entry.kind) {
        (Fallback::Is(text), Kind::Number(_) | Kind::Count(_)) => text.parse::<i64>().ok().map(Value::from),
        (Fallback::Is(text), _) => Some(text.into()),
        (Fallback::Limit(bytes), _) => Some(bytes.into()),
        (Fallback::Nothing, Kind::Switch(_)) => Some(false.into()),
        (Fallback::Nothing, Kind::Choice(_)) => Some(true.into()),
        (Fallback::Nothing | Fallback::Profile(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_the_schema_with_its_help() {
        let schema = schema();
        for entry in TABLE.iter().filter(|entry| !entry.key.is_empty()) {
            let pointer = match entry.key.strip_prefix("mdns_") {
                Some(inner) => format!("/properties/mdns/properties/{inner}"),
                None => format!("/properties/{}", entry.key),
            };
            assert!(
                schema
                    .pointer(&pointer)
                    .is_some_and(|found| found["description"].is_string()),
                "{pointer}"
            );
        }
    }
}
