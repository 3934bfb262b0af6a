//! docs/configuration.md is what the table of options gives. FYRD_WRITE_DOCS=1 writes it anew.

use std::fmt::Write;
use std::path::Path;

use fyrd::agent::options::{Entry, Fallback, Kind, TABLE};

/// What stands before the table.
const INTRODUCTION: &str = "\
# Configuration

All options of `fyrd agent`. This file is made from the program's own table: after a change of that, `FYRD_WRITE_DOCS=1
cargo test --test house configuration` writes it anew.

An option is given by a flag, by a key in a configuration file, or by a variable of the environment, as far as it has
them: the variable is `FYRD_` and the flag in capitals, or the key where there is no flag. Several values stand in it
with commas between them, or one a line; event handlers and templates, which have commas of their own, one a line. Files are JSON: `-config-file=PATH` names one, `-config-dir=PATH` a folder, of which all files that end in `.json`
are read in the order of their names.

- The order is defaults, files, environment, flags: a later source overrides an earlier one. Lists and tags of all
  sources are added up.
- Empty texts, zeros and `false` count as not said, so a later source cannot take back what an earlier one has switched
  on. `enable_compression` is the exception: the last word counts.
- A time is a number with a unit: `300ms`, `30s`, `1h30m`. The units are `ns`, `us`, `ms`, `s`, `m` and `h`.
- A key that is not known, or a value of the wrong type, is an error, and the agent does not start.
- SIGHUP reads the files again. What is marked \"yes\" under \"reload\" takes effect at once. The log says what else has
  changed, and waits for a restart. After a mistake in a file all stays as it was.

`fyrd validate`, with the flags of the agent, says all that is wrong with a configuration before it is rolled out: every
mistake in every file, and addresses, keys, handlers, templates and folders that are not there. `fyrd validate -schema`
prints a JSON schema for editors, and packages have it as `/usr/share/fyrd/fyrd.schema.json`; a file that names it under
`$schema` is completed and checked while it is written.

A whole file, with what most clusters need:

```json
{
    \"node_name\": \"web-1\",
    \"interface\": \"eth0\",
    \"keyring_file\": \"/var/lib/fyrd/keyring\",
    \"retry_join\": [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"],
    \"tags\": {\"role\": \"web\", \"http\": \"8080\"},
    \"event_handlers\": [\"user:deploy=/etc/fyrd/deploy\"],
    \"handler_timeout\": \"1m\",
    \"http_addr\": \"127.0.0.1:7380\"
}
```
";

#[test]
fn the_configuration_reference_is_what_the_table_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let wanted = reference();
    if std::env::var_os("FYRD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/configuration.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().zip(found.lines().chain(std::iter::repeat("")));
    let first = differs.into_iter().find(|(wanted, found)| wanted != found);
    assert!(
        wanted == found,
        "docs/configuration.md is out of date: FYRD_WRITE_DOCS=1 cargo test --test house configuration\n{first:#?}"
    );
}

fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## All options\n");
    for entry in TABLE.iter().filter(|entry| !matches!(entry.kind, Kind::Ignored)) {
        section(&mut text, entry);
    }
    text.push_str(
        "\n## Taken without effect\n\nSerf knows these keys, and they do nothing in either program: ",
    );
    let ignored = TABLE.iter().filter(|entry| matches!(entry.kind, Kind::Ignored));
    let ignored: Vec<String> = ignored.map(|entry| format!("`{}`", entry.key)).collect();
    text + &ignored.join(", ") + ".\n"
}

/// The chapter of an option.
fn section(text: &mut String, entry: &Entry) {
    let key = key(entry);
    let title = if key.is_empty() {
        format!("-{}", entry.flag)
    } else {
        key.clone()
    };
    let help = sentence(entry.help);
    write!(text, "\n### {title}\n\n{help}\n\n").expect("a text");
    text.push_str(
        "| flag | key | environment | type | default | reload |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let code = |name: &str| {
        if name.is_empty() {
            "none".to_owned()
        } else {
            format!("`{name}`")
        }
    };
    let flag = match (entry.flag, takes_value(&entry.kind)) {
        ("", _) => String::new(),
        (flag, true) => format!("-{flag}={}", placeholder(entry)),
        (flag, false) => format!("-{flag}"),
    };
    let reload = if entry.reloads { "yes" } else { "no" };
    let (kind, default) = (kind(entry), default(entry));
    let variable = entry.variable().unwrap_or_default();
    let row = [&code(&flag), &code(&key), &code(&variable), &kind, &default];
    let row = row.map(|cell| cell.replace('|', "\\|"));
    writeln!(text, "| {} | {reload} |", row.join(" | ")).expect("a text");
}

/// The key as files have it: that of an object inside is shown with a dot.
fn key(entry: &Entry) -> String {
    match entry.key.strip_prefix("mdns_") {
        Some(inner) => format!("mdns.{inner}"),
        None => entry.key.to_owned(),
    }
}

fn takes_value(kind: &Kind) -> bool {
    !matches!(kind, Kind::Switch(_) | Kind::Choice(_))
}

/// What stands for a value: the default says little of its form where it is a number alone.
fn placeholder(entry: &Entry) -> String {
    match entry.placeholder() {
        "" => "<value>".to_owned(),
        text => text.to_owned(),
    }
}

fn kind(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::Text(_) => "text",
        Kind::Secret(_) => "text, never shown",
        Kind::Number(_) => "number",
        Kind::Count(_) => "number, from 1",
        Kind::Bytes(_) => "number of bytes",
        Kind::Switch(_) => "`true` or `false`",
        Kind::Choice(_) if entry.flag.is_empty() => "`true` or `false`",
        Kind::Choice(_) => "`true` or `false`; the flag means `false`",
        Kind::Time(_) => "time",
        Kind::List(_) => "list of texts",
        Kind::Definitions(_) => "list of texts or objects",
        Kind::Tags(_) => "object of texts",
        Kind::Source | Kind::Ignored => "path",
    };
    match entry.least.as_secs() {
        0 => kind.to_owned(),
        least => format!("{kind}, at least {least}s"),
    }
}

fn default(entry: &Entry) -> String {
    match (entry.default, &entry.kind) {
        (Fallback::Is(text), _) => format!("`{text}`"),
        (Fallback::Limit(bytes), _) => format!("`{bytes}`"),
        (Fallback::Profile(text), _) => format!("of the profile; lan: `{text}`"),
        (Fallback::Nothing, Kind::Switch(_)) => "`false`".to_owned(),
        (Fallback::Nothing, Kind::Choice(_)) => "`true`".to_owned(),
        (Fallback::Nothing, _) => "none".to_owned(),
    }
}

/// The help in lines of a document's width; what looks like markup is no markup.
fn sentence(help: &str) -> String {
    let mut lines = vec![String::new()];
    for word in help.split_whitespace() {
        let word = word.replace('<', "\\<");
        let line = lines.last_mut().expect("a line");
        if line.chars().count() + 1 + word.chars().count() > 118 && !line.is_empty() {
            lines.push(word);
        } else {
            *line = [line.as_str(), &word].join(" ").trim_start().to_owned();
        }
    }
    lines.join("\n")
}
