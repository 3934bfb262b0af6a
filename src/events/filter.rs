//! Which events a handler or a stream wants: `[FILTERS=]SCRIPT` (surface.md 3.1).

/// One event filter: a kind of event, for user events and queries also a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// The kind, or `*`.
    pub event: String,
    /// The name of the user event or query; empty for all.
    pub name: String,
}

/// A script and one filter for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventScript {
    /// When to run it.
    pub filter: EventFilter,
    /// The command line.
    pub script: String,
}

impl EventFilter {
    /// Reads a comma list of filters; nothing at all means every event.
    pub fn parse_list(text: &str) -> Vec<EventFilter> {
        let text = if text.is_empty() { "*" } else { text };
        text.split(',').map(EventFilter::parse).collect()
    }

    fn parse(text: &str) -> EventFilter {
        for event in ["user", "query"] {
            if let Some(name) = text.strip_prefix(event).and_then(|rest| rest.strip_prefix(':')) {
                return EventFilter {
                    event: event.to_string(),
                    name: name.to_string(),
                };
            }
        }
        EventFilter {
            event: text.to_string(),
            name: String::new(),
        }
    }

    /// Whether the kind exists.
    pub fn is_valid(&self) -> bool {
        let kinds = [
            "member-join",
            "member-leave",
            "member-failed",
            "member-update",
            "member-reap",
        ];
        kinds.contains(&self.event.as_str()) || ["user", "query", "*"].contains(&self.event.as_str())
    }
}

impl EventScript {
    /// Reads `[FILTERS=]SCRIPT` into one entry a filter. The error is a line for the user.
    pub fn parse(text: &str) -> Result<Vec<EventScript>, String> {
        let (filters, script) = text.split_once('=').unwrap_or(("", text));
        let scripts: Vec<EventScript> = EventFilter::parse_list(filters)
            .into_iter()
            .map(|filter| EventScript {
                filter,
                script: script.to_string(),
            })
            .collect();
        match scripts.iter().find(|entry| !entry.filter.is_valid()) {
            Some(bad) => Err(format!(
                "Invalid event script: Event '{}' invoking '{}'",
                bad.filter.event, bad.script
            )),
            None => Ok(scripts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        type Entry = (&'static str, &'static str, &'static str);
        let table: [(&str, &[Entry]); 7] = [
            ("script.sh", &[("*", "", "script.sh")]),
            ("=script.sh", &[("*", "", "script.sh")]),
            ("member-join=a=b", &[("member-join", "", "a=b")]),
            (
                "member-join,member-leave=x",
                &[("member-join", "", "x"), ("member-leave", "", "x")],
            ),
            ("user:deploy=x", &[("user", "deploy", "x")]),
            ("query:=x", &[("query", "", "x")]),
            ("user:a:b,query=x", &[("user", "a:b", "x"), ("query", "", "x")]),
        ];
        for (text, expected) in table {
            let parsed = EventScript::parse(text).unwrap();
            let parsed: Vec<_> = parsed
                .iter()
                .map(|entry| {
                    (
                        entry.filter.event.as_str(),
                        entry.filter.name.as_str(),
                        entry.script.as_str(),
                    )
                })
                .collect();
            assert_eq!(parsed, expected, "{text}");
        }
        let bad = [
            ("foo=bar", "Invalid event script: Event 'foo' invoking 'bar'"),
            ("FOO=1 ./x", "Invalid event script: Event 'FOO' invoking '1 ./x'"),
            (
                "member-join, user=x",
                "Invalid event script: Event ' user' invoking 'x'",
            ),
        ];
        for (text, expected) in bad {
            assert_eq!(EventScript::parse(text).unwrap_err(), expected);
        }
    }
}
