//! Which events a handler or a stream wants: `[FILTERS=]SCRIPT`
//! (docs/compatibility.md#handler-specifications).

use super::shell::Shell;
use fyrd_core::addr::is_windows_path;
use fyrd_core::serf::Event;

/// One event filter: a kind of event, for user events and queries also a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// The kind, or `*`.
    pub event: String,
    /// The name of the user event or query; empty for all.
    pub name: String,
}

/// What one `-event-handler` says: a script, and at which events it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpec {
    /// The text it was read from.
    pub text: String,
    /// When to run it; an event that matches two of them runs it twice.
    pub filters: Vec<EventFilter>,
    /// The command line.
    pub script: String,
    /// What runs it.
    pub shell: Shell,
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
            "isolated",
            "isolation-over",
        ];
        kinds.contains(&self.event.as_str()) || ["user", "query", "*"].contains(&self.event.as_str())
    }

    /// Whether this event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        // Serf has no such events, so who asks for all does not reckon with them.
        if self.event == "*" {
            return !matches!(event, Event::Isolation { .. });
        }
        let name = match event {
            Event::Member { .. } | Event::Isolation { .. } => "",
            Event::User { name, .. } | Event::Query { name, .. } => name,
        };
        self.event == kind(event) && (self.name.is_empty() || self.name == name)
    }
}

impl HandlerSpec {
    /// Reads `[FILTERS=]SCRIPT`, of which the shell is to run the script. The error is a line for the user.
    pub fn parse(text: &str, shell: Shell) -> Result<HandlerSpec, String> {
        // A path of Windows has no filters in front of it, so an equals sign belongs to the script.
        let (filters, script) = if is_windows_path(text) {
            ("", text)
        } else {
            text.split_once('=').unwrap_or(("", text))
        };
        let filters = EventFilter::parse_list(filters);
        match filters.iter().find(|filter| !filter.is_valid()) {
            Some(bad) => Err(format!(
                "Invalid event script: Event '{}' invoking '{script}'",
                bad.event
            )),
            None => {
                shell
                    .check(script)
                    .map_err(|reason| format!("Invalid event script: '{script}': {reason}"))?;
                Ok(HandlerSpec {
                    text: text.to_string(),
                    filters,
                    script: script.to_string(),
                    shell,
                })
            }
        }
    }
}

/// An event's kind, as filters and scripts know it.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Member { kind, .. } => kind.as_str(),
        Event::User { .. } => "user",
        Event::Query { .. } => "query",
        Event::Isolation { isolated: true } => "isolated",
        Event::Isolation { isolated: false } => "isolation-over",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        type Entry = (&'static str, &'static str, &'static str);
        let table: [(&str, &[Entry]); 12] = [
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
            (r"C:\x y\h.cmd a=b", &[("*", "", r"C:\x y\h.cmd a=b")]),
            (r#""c:/h.exe" a=b"#, &[("*", "", r#""c:/h.exe" a=b"#)]),
            (r"\\host\share\h a=b", &[("*", "", r"\\host\share\h a=b")]),
            (r"query:C:\q=C:\h.cmd a=b", &[("query", r"C:\q", r"C:\h.cmd a=b")]),
            (r"user=D:\h.cmd", &[("user", "", r"D:\h.cmd")]),
        ];
        for (text, expected) in table {
            let spec = HandlerSpec::parse(text, Shell::System).unwrap();
            let parsed: Vec<_> = spec
                .filters
                .iter()
                .map(|filter| (filter.event.as_str(), filter.name.as_str(), spec.script.as_str()))
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
            assert_eq!(HandlerSpec::parse(text, Shell::System).unwrap_err(), expected);
        }
        assert!(HandlerSpec::parse("user=\"x", Shell::System).is_ok());
        assert_eq!(
            HandlerSpec::parse("user=\"x", Shell::None).unwrap_err(),
            "Invalid event script: '\"x': missing closing quote"
        );
    }

    #[test]
    fn matches() {
        let user = |name: &str| Event::User {
            ltime: 1,
            name: name.to_string(),
            payload: Vec::new(),
            coalesce: false,
        };
        let query = |name: &str| Event::Query {
            ltime: 1,
            id: 1,
            name: name.to_string(),
            payload: Vec::new(),
            source: "n1".to_string(),
        };
        let join = Event::Member {
            kind: fyrd_core::serf::MemberEventKind::Join,
            members: Vec::new(),
        };
        let table: [(&str, [bool; 5]); 8] = [
            ("*", [true; 5]),
            ("", [true; 5]),
            ("user", [true, true, false, false, false]),
            ("user:", [true, true, false, false, false]),
            ("user:a", [true, false, false, false, false]),
            ("query:a", [false, false, true, false, false]),
            ("query", [false, false, true, true, false]),
            ("member-join", [false, false, false, false, true]),
        ];
        for (text, expected) in table {
            let filter = &EventFilter::parse_list(text)[0];
            let events = [user("a"), user("b"), query("a"), query("b"), join.clone()];
            assert_eq!(events.each_ref().map(|e| filter.matches(e)), expected, "{text}");
        }
        assert!(!EventFilter::parse_list("member-leave")[0].matches(&join));
        // Scripts written for Serf's events get no others.
        let isolated = Event::Isolation { isolated: true };
        for (text, expected) in [("*", false), ("isolated", true), ("isolation-over", false)] {
            let filter = &EventFilter::parse_list(text)[0];
            assert!(filter.is_valid());
            assert_eq!(filter.matches(&isolated), expected, "{text}");
        }
    }
}
