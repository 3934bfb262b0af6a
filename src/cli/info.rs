//! `info`: the agent's figures, for operators.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, Command};
use serde::Serialize;

use super::flags::Flags;
use super::{Failure, Terminal, flags, rpc};
use crate::go;
use crate::go::printable::word;

type Stats = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn define() -> Command {
    Command::new("info")
        .about("Shows the agent's inner figures")
        .long_about("Shows the agent's inner figures in groups: its name, tags, handlers, clocks and queues.")
        .override_usage("info [options]")
        .arg(Format::argument())
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let stats = client
            .stats()
            .await
            .map_err(rpc::failed("Error querying agent"))?;
        Format::of(&flags)?.print(terminal, &stats, || text(&stats))
    })
}

fn text(stats: &Stats) -> String {
    let mut text = String::new();
    for (group, figures) in stats {
        text.push_str(&format!("{}:\n", word(group)));
        for (key, value) in figures {
            text.push_str(&format!("\t{} = {}\n", word(key), word(value)));
        }
    }
    text.trim().to_owned()
}

/// The value of `-format` where it is only looked at once the answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    pub(super) fn argument() -> Arg {
        flags::string("format", "text", "How to print the result: 'text' or 'json'.")
    }

    pub(super) fn of(flags: &Flags) -> Result<Format, Failure> {
        match flags.string("format") {
            None | Some("text") => Ok(Format::Text),
            Some("json") => Ok(Format::Json),
            Some(other) => Err(Failure::Error(format!(
                "Encoding error: Invalid output format {}",
                go::quote(other)
            ))),
        }
    }

    pub(super) fn print<T: Serialize>(
        self,
        terminal: &mut Terminal<'_>,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self {
            Format::Text => terminal.line(text()),
            Format::Json => terminal
                .raw(go::json(value).map_err(|error| Failure::Error(format!("Encoding error: {error}")))?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line() {
        let tags = BTreeMap::from([("a\n".into(), "\u{1b}[2J\nserf:".into())]);
        let stats = Stats::from([("tags".into(), tags)]);
        assert_eq!(text(&stats), "tags:\n\ta\\n = \\x1b[2J\\nserf:");
    }

    #[test]
    fn groups_and_keys_are_sorted_and_empty_groups_stay() {
        let stats = Stats::from([
            (
                "tags".into(),
                BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
            ),
            ("agent".into(), BTreeMap::from([("name".into(), "n1".into())])),
            ("event_handlers".into(), BTreeMap::new()),
        ]);
        assert_eq!(
            text(&stats),
            "agent:\n\tname = n1\nevent_handlers:\ntags:\n\ta = 1\n\tb = 2"
        );
    }
}
