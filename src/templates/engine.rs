//! Templates in the language of Jinja, as Ansible and Salt have it. What is not there is an error, never an empty
//! text.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::view::{Entry, View};
use fyrd_core::bounds::{TEMPLATE_OUTPUT_MAX, TEMPLATE_STEPS};

/// What became of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// How many living members it was written from: those whose name or address was asked for to be shown.
    pub named: usize,
}

/// Whether a template can be read at all. The error names file, line and what is wrong.
pub fn check(file: &str, source: &str) -> Result<(), String> {
    let environment = environment(file)?;
    let parsed = environment.template_from_named_str(file, source);
    parsed.map(drop).map_err(|error| describe(file, &error))
}

/// What templates can use, but for the members.
fn environment(file: &str) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A block on a line of its own leaves no empty line.
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| describe(file, &error))?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(TEMPLATE_STEPS));
    environment.add_filter("role", |list: &Value, role: &str| {
        keep(list, |m| m.role() == role)
    });
    environment.add_filter("status", |list: &Value, status: &str| {
        keep(list, |member| member.status == status)
    });
    environment.add_filter("tag", |list: &Value, key: &str, value: Option<&str>| {
        keep(list, |member| {
            let has = member.tags.get(key);
            has.is_some_and(|has| value.is_none_or(|value| has == value))
        })
    });
    Ok(environment)
}

/// Renders a template. The error names file, line and what is wrong. It takes as long as the template has it, so not
/// on the agent's own thread.
pub fn render(file: &str, source: &str, view: &View) -> Result<Rendered, String> {
    let environment = environment(file)?;
    let members: Vec<Arc<Member>> = view.members.iter().map(Member::new).collect();
    let of = |wanted: fn(&Entry) -> bool| {
        let wanted = members.iter().filter(|member| wanted(&member.entry));
        Value::from(
            wanted
                .map(|m| Value::from_dyn_object(Arc::clone(m)))
                .collect::<Vec<_>>(),
        )
    };
    let me = view.node.as_ref().and_then(|name| {
        let found = view.members.iter().find(|member| member.name == *name)?;
        // Showing oneself does not make a list of others any less empty.
        Some((Value::from_dyn_object(Member::new(found)), view.position(name)))
    });
    let (this, position) = me.unwrap_or_default();
    let context = minijinja::context! {
        members => of(|_| true),
        alive => of(Entry::is_alive),
        self => this,
        position => position,
    };
    let failed = |error: Error| describe(file, &error);
    let template = environment
        .template_from_named_str(file, source)
        .map_err(failed)?;
    let mut output = Limited(Vec::new());
    template
        .render_captured_to(context, &mut output)
        .map_err(failed)?;
    let shown = |member: &&Arc<Member>| member.shown.load(Ordering::Relaxed);
    Ok(Rendered {
        named: members
            .iter()
            .filter(|m| m.entry.is_alive())
            .filter(shown)
            .count(),
        text: String::from_utf8(output.0).map_err(|error| format!("{file}: {error}"))?,
    })
}

fn describe(file: &str, error: &Error) -> String {
    let place = error
        .line()
        .map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    let detail = error
        .detail()
        .map_or(String::new(), |detail| format!(": {detail}"));
    format!("{place}: {}{detail}{cause}", error.kind())
}

fn keep(list: &Value, wanted: impl Fn(&Entry) -> bool) -> Result<Value, Error> {
    let mut kept = Vec::new();
    for value in list.try_iter()? {
        let member = value.downcast_object_ref::<Member>().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidOperation,
                "this filter takes members, as in `alive | role(\"web\")`",
            )
        })?;
        if wanted(&member.entry) {
            kept.push(value);
        }
    }
    Ok(Value::from(kept))
}

/// A member in a template.
#[derive(Debug)]
struct Member {
    entry: Entry,
    /// Whether it was asked for what can be shown of it: not only for what it is chosen by.
    shown: AtomicBool,
}

const FIELDS: &[&str] = &["name", "address", "host", "port", "status", "role", "tags", "rtt"];

impl Member {
    fn new(entry: &Entry) -> Arc<Member> {
        Arc::new(Member {
            entry: entry.clone(),
            shown: AtomicBool::new(false),
        })
    }
}

impl Object for Member {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let entry = &self.entry;
        let key = key.as_str()?;
        if ["name", "address", "host"].contains(&key) {
            self.shown.store(true, Ordering::Relaxed);
        }
        Some(match key {
            "name" => Value::from(&entry.name),
            "address" => Value::from(entry.ip.to_string()),
            "host" if entry.ip.is_ipv6() => Value::from(format!("[{}]", entry.ip)),
            "host" => Value::from(entry.ip.to_string()),
            "port" => Value::from(entry.port),
            "status" => Value::from(&entry.status),
            "role" => Value::from(entry.role()),
            "tags" => Value::from_pairs(
                entry
                    .tags
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            ),
            "rtt" => entry
                .rtt
                .map_or(Value::from(()), |rtt| Value::from(rtt.as_secs_f64())),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(FIELDS)
    }
}

/// Takes so much and no more.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEMPLATE_OUTPUT_MAX {
            return Err(io::Error::other(format!(
                "the output is longer than {TEMPLATE_OUTPUT_MAX} bytes"
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(name: &str, ip: &str, status: &str, tags: &[(&str, &str)]) -> Entry {
        Entry {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
            port: 7946,
            status: status.to_owned(),
            tags: tags
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            rtt: (name == "w2").then(|| Duration::from_micros(1500)),
        }
    }

    fn view() -> View {
        let members = vec![
            entry("w2", "fe80::2", "alive", &[("role", "web"), ("http", "8082")]),
            entry("w1", "10.0.0.1", "alive", &[("role", "web"), ("http", "8081")]),
            entry("w3", "10.0.0.3", "failed", &[("role", "web"), ("http", "8083")]),
            entry("lb", "10.0.0.9", "alive", &[("role", "lb")]),
        ];
        View::new(members, Some("lb".to_owned()))
    }

    fn text(source: &str) -> Result<(String, usize), String> {
        render("t.conf", source, &view()).map(|done| (done.text, done.named))
    }

    #[test]
    fn members_are_chosen_and_shown() {
        let servers =
            "{% for m in alive | role('web') %}\nserver {{ m.host }}:{{ m.tags.http }};\n{% endfor %}\nend\n";
        assert_eq!(
            text(servers).unwrap(),
            (
                "server 10.0.0.1:8081;\nserver [fe80::2]:8082;\nend\n".to_owned(),
                2
            )
        );
        for (source, expected, named) in [
            ("{{ members | length }} {{ alive | length }}", "4 3", 0),
            (
                "{{ members | status('failed') | map(attribute='name') | join(',') }}",
                "w3",
                0,
            ),
            (
                "{{ alive | tag('http') | map(attribute='address') | join(' ') }}",
                "10.0.0.1 fe80::2",
                2,
            ),
            (
                "{{ alive | tag('http', '8082') | map(attribute='name') | join(' ') }}",
                "w2",
                1,
            ),
            ("{{ self.name }} {{ position }} {{ self.role }}", "lb 0 lb", 0),
            (
                "{% for m in alive if m.rtt %}{{ m.port }}/{{ m.rtt }}{% endfor %}",
                "7946/0.0015",
                0,
            ),
            ("<{{ alive | role('db') | length }}>", "<0>", 0),
        ] {
            assert_eq!(text(source), Ok((expected.to_owned(), named)), "{source}");
        }
        let json = text("{{ alive | role('lb') | tojson }}").unwrap();
        assert!(
            json.0.contains(r#""address": "10.0.0.9""#) && json.1 == 1,
            "{json:?}"
        );
    }

    #[test]
    fn mistakes_name_file_and_line() {
        for (source, expected) in [
            ("a\nb {{ nobody }}", "t.conf:2: undefined value"),
            (
                "{% for m in alive %}\n{{ m.tags.http }}{% endfor %}",
                "t.conf:2: undefined value",
            ),
            ("{{ alive[0].adress }}", "t.conf:1: undefined value"),
            ("\n\n{% for m in alive %}", "t.conf:3: syntax error"),
            ("{{ alive | roles('web') }}", "t.conf:1: unknown filter"),
            ("{{ [1] | role('web') }}", "this filter takes members"),
            ("{{ 'x' | role('web') }}", "t.conf:1: "),
        ] {
            let error = text(source).unwrap_err();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }

    #[test]
    fn templates_without_end_have_one() {
        let endless =
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}";
        let error = text(endless).unwrap_err();
        assert!(
            error.contains("ran out of fuel") || error.contains("longer than"),
            "{error}"
        );
        let long = format!("{{% for a in range(20) %}}{}{{% endfor %}}", "x".repeat(1 << 20));
        let error = text(&long).unwrap_err();
        assert!(error.contains("the output is longer than"), "{error}");
    }
}
