//! `agent`: runs an agent until it is told to end.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::flags::{self, Flags};
use super::{Failure, Terminal, help};
use crate::agent;
use crate::agent::options::{self, Entry, Kind, Options};

pub(super) fn define() -> Command {
    Command::new("agent")
        .about("Runs an agent")
        .long_about(
            "Runs an agent, one node of a cluster, until it is interrupted.\n\nFlags override configuration \
             files, lists are appended. The files are JSON; their keys can set all that flags can, and more. \
             Each option can also be given in the environment, over the files and below the flags: FYRD_ and its \
             flag or key, as FYRD_NODE and FYRD_RETRY_JOIN, with commas or line breaks between several values. The \
             encryption key is FYRD_ENCRYPT_KEY, where other users of the host cannot see it.\n\nSIGHUP reads the files again. Log level, event handlers, \
             their shell, order and time limit (key handler_timeout), tags, leave_on_terminate and skip_leave_on_interrupt take \
             effect at once, all else after a restart. Of the tags, those change that changed in the files; \
             tags set by the command tags stay. After a mistake in a file, all is as before.\n\nEvent \
             handlers run one script after the other: in the order of the events and, for one event, of the \
             handlers (see -handler-order). A query waits for none of them; it goes through its handlers in their \
             order, and the first output is the answer.",
        )
        .override_usage("agent [options]")
        .args(arguments())
}

/// The flags of an agent.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    options::TABLE
        .iter()
        .filter(|entry| !entry.flag.is_empty())
        .map(flag)
}

fn flag(entry: &'static Entry) -> Arg {
    let (name, value, help) = (entry.flag, entry.placeholder(), entry.help);
    match entry.kind {
        Kind::Switch(_) | Kind::Choice(_) => flags::boolean(name, help),
        Kind::Number(_) | Kind::Count(_) | Kind::Bytes(_) => flags::integer(name, value, help),
        Kind::List(_) | Kind::Definitions(_) | Kind::Tags(_) | Kind::Source => flags::list(name, value, help),
        Kind::Text(_) | Kind::Secret(_) | Kind::Time(_) | Kind::Ignored => flags::string(name, value, help),
    }
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = match flags::parse(define(), words) {
        Ok(flags) => flags,
        Err(error) => {
            let hint = error.hint(&define()).filter(|_| terminal.takes_hints());
            if let Some(line) = error.line().filter(|_| hint.is_none()) {
                terminal.help(&format!("{line}\n"));
            }
            let usage = help::command_help(terminal.program(), define());
            terminal.line(format!("==> {usage}"));
            if let Some(hint) = hint {
                terminal.hint(&format!("\n{hint}"));
            }
            return Err(Failure::Exit(1));
        }
    };
    if let Some(word) = flags.words().first() {
        let word = word.to_string_lossy();
        terminal.help(&format!(
            "Warning: '{word}' is no flag, so it and all that follows is ignored\n"
        ));
    }
    let paths = paths(&flags, |name| std::env::var(name).ok());
    let options = options(&flags).map_err(|line| Failure::Error(format!("==> Error: {line}")))?;
    // An agent lives long, and needs them no more.
    drop(flags);
    match agent::run(&paths, options) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// The configuration files: those of the environment, then those of the flags. Several flags name them, and the order
/// on the line counts.
pub(super) fn paths(flags: &Flags, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let is_source = |entry: &&Entry| matches!(entry.kind, Kind::Source);
    let sources = options::TABLE.iter().filter(is_source);
    let mut paths = Vec::new();
    for entry in sources.clone() {
        let text = entry
            .variable()
            .and_then(|name| variable(&name))
            .unwrap_or_default();
        paths.extend(entry.texts(&text).into_iter().map(str::to_owned));
    }
    let names: Vec<&str> = sources.map(|entry| entry.flag).collect();
    paths.extend(flags.lists_in_order(&names));
    paths
}

/// What the flags say. As in files, durations come last: another mistake is named first.
pub(super) fn options(flags: &Flags) -> Result<Options, String> {
    let mut options = Options::default();
    let given = options::TABLE.iter().filter(|entry| !entry.flag.is_empty());
    let (times, others): (Vec<_>, Vec<_>) = given.partition(|entry| matches!(entry.kind, Kind::Time(_)));
    for entry in others.into_iter().chain(times) {
        for text in flags.texts(entry.flag) {
            let name = format!("-{}", entry.flag);
            entry.refuse_empty(&name, text)?;
            entry.read(&mut options, &name, text)?;
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fyrd_core::serf::Tags;

    use super::*;
    use crate::agent::secret::Secret;

    fn parse(words: &[&str]) -> Flags {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        flags::parse(define(), &words).unwrap()
    }

    #[test]
    fn without_flags_nothing_is_said() {
        assert_eq!(options(&parse(&[])), Ok(Options::default()));
    }

    #[test]
    fn a_key_that_is_given_and_empty_is_no_agent_without_encryption() {
        for flag in ["-encrypt=", "-encrypt= ", "-encrypt-file=", "-keyring-file="] {
            let error = options(&parse(&[flag])).unwrap_err();
            let name = flag.split('=').next().unwrap();
            assert!(
                error.starts_with(&format!("{name} is empty, it must be <")),
                "{error}"
            );
        }
        assert_eq!(
            options(&parse(&["-node=", "-advertise="])),
            Ok(Options::default())
        );
        let empty = |name: &str| (name == "FYRD_ENCRYPT_KEY").then(String::new);
        let error = Options::from_environment(empty).unwrap_err();
        assert!(
            error.starts_with("FYRD_ENCRYPT_KEY is empty, it must be <key>"),
            "{error}"
        );
    }

    #[test]
    fn every_flag_has_its_setting() {
        #[rustfmt::skip]
        let flags = parse(&[
            "-node=n", "-role=r", "-tags-file=tf", "-bind=b", "-advertise=a", "-iface=i", "-discover=d", "-mdns-iface=mi",
            "-mdns-disable-ipv4", "-mdns-disable-ipv6", "-replay-window=60s", "-encrypt=e", "-encrypt-file=ef", "-keyring-file=k", "-log-level=l", "-log-format=lf", "-log-file=lp", "-profile=p",
            "-protocol=3", "-rpc-addr=ra", "-join=j1", "-join=j2", "-retry-join=rj", "-retry-interval=2s", "-retry-max=4",
            "-replay", "-event-handler=eh", "-handler-shell=hs", "-handler-order=ho", "-snapshot=s", "-rejoin", "-syslog", "-broadcast-timeout=3s",
            "-disable-compression", "-tag=x=1", "-tag=y=a=b", "-tag", "x=2",
        ]);
        let text = str::to_string;
        let expected = Options {
            node_name: text("n"),
            role: text("r"),
            tags: Tags::from([(text("x"), text("2")), (text("y"), text("a=b"))]),
            tags_file: text("tf"),
            bind: text("b"),
            advertise: text("a"),
            interface: text("i"),
            discover: text("d"),
            mdns_interface: text("mi"),
            mdns_disable_ipv4: true,
            mdns_disable_ipv6: true,
            replay_window: Duration::from_secs(60),
            encrypt_key: Secret::new(text("e")),
            encrypt_key_file: text("ef"),
            keyring_file: text("k"),
            log_level: text("l"),
            log_format: text("lf"),
            log_file: text("lp"),
            profile: text("p"),
            protocol: 3,
            rpc_addr: text("ra"),
            start_join: vec![text("j1"), text("j2")],
            retry_join: vec![text("rj")],
            retry_interval: Duration::from_secs(2),
            retry_max_attempts: 4,
            replay_on_join: true,
            event_handlers: vec![text("eh")],
            handler_shell: text("hs"),
            handler_order: text("ho"),
            snapshot_path: text("s"),
            rejoin_after_leave: true,
            enable_syslog: true,
            broadcast_timeout: Duration::from_secs(3),
            enable_compression: Some(false),
            ..Options::default()
        };
        assert_eq!(options(&flags), Ok(expected));
    }

    #[test]
    fn both_path_flags_keep_their_order() {
        let flags = parse(&["-config-dir=a", "-config-file=b", "-config-dir", "c"]);
        assert_eq!(paths(&flags, |_| None), ["a", "b", "c"]);
        let variable = |name: &str| match name {
            "FYRD_CONFIG_FILE" => Some("x,y".to_owned()),
            "FYRD_CONFIG_DIR" => Some("z".to_owned()),
            _ => None,
        };
        assert_eq!(paths(&flags, variable), ["x", "y", "z", "a", "b", "c"]);
    }

    #[test]
    fn a_protocol_below_one_is_not_said() {
        assert_eq!(options(&parse(&["-protocol=-1"])), Ok(Options::default()));
    }

    #[test]
    fn of_a_flag_given_twice_the_last_word_counts() {
        let flags = parse(&[
            "-node=a",
            "-syslog",
            "-retry-max=1",
            "-node",
            "b",
            "-syslog=false",
            "-retry-max=0x10",
        ]);
        let expected = Options {
            node_name: "b".to_string(),
            retry_max_attempts: 16,
            ..Options::default()
        };
        assert_eq!(options(&flags), Ok(expected));
    }

    #[test]
    fn help_shows_every_flag_of_the_table_and_nothing_else() {
        let help = help::command_help("fyrd", define());
        let shown = help.lines().filter_map(|line| line.strip_prefix("  -"));
        let shown: Vec<&str> = shown.filter_map(|line| line.split(['=', ' ']).next()).collect();
        let flags = options::TABLE.iter().map(|entry| entry.flag);
        assert_eq!(shown, flags.filter(|flag| !flag.is_empty()).collect::<Vec<_>>());
        let before = help.split("all else after a restart").next().unwrap();
        let by_name = ["handler_timeout", "leave_on_terminate", "skip_leave_on_interrupt"];
        assert!(by_name.iter().all(|key| before.contains(key)), "{before}");
    }
}
