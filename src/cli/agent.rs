//! `agent`: runs an agent until it is told to end.

use std::ffi::OsString;

use clap::Command;

use super::flags::{self, FlagError, Flags};
use super::{Failure, Terminal, help};
use crate::agent;
use crate::agent::options::{Options, TimeError, parse_time};
use crate::agent::secret::Secret;
use fyrd_core::serf::Tags;

pub(super) fn define() -> Command {
    Command::new("agent")
        .about("Runs an agent")
        .long_about(
            "Runs an agent, one node of a cluster, until it is interrupted.\n\nFlags override configuration \
             files, lists are appended. The files are JSON; their keys can set all that flags can, and more. \
             The encryption key can also be given in the environment variable FYRD_ENCRYPT_KEY, where other \
             users of the host cannot see it.\n\nSIGHUP reads the files again. Log level, event handlers, \
             their shell and time limit (key handler_timeout), tags, leave_on_terminate and skip_leave_on_interrupt take \
             effect at once, all else after a restart. Of the tags, those change that changed in the files; \
             tags set by the command tags stay. After a mistake in a file, all is as before.\n\nEach event \
             handler runs its script once an event, one after the other; different handlers run at the same \
             time.",
        )
        .override_usage("agent [options]")
        .args([
            flags::string(
                "bind",
                "0.0.0.0:7946",
                "Address to listen at for other members. IPv6 as ::1, [::1] or [::1]:7946.",
            ),
            flags::string(
                "iface",
                "<interface>",
                "Network interface to listen at. Takes the place of -bind when the name is known but not the \
                 address; with both, the interface must have the address.",
            ),
            flags::string(
                "advertise",
                "<address>",
                "Address to announce to other members, if not the one of -bind. Its port is 7946 unless given.",
            ),
            flags::list("config-file", "<path>", "JSON file, or directory of files, to read settings from. Repeatable."),
            flags::list("config-dir", "<path>", "The same. Of a directory, all files ending in .json are read, by name."),
            flags::string("discover", "<cluster>", "Name under which members on this network find each other by mDNS."),
            flags::string("mdns-iface", "<interface>", "Network interface for mDNS, if not that of -iface."),
            flags::boolean("mdns-disable-ipv4", "No mDNS over IPv4."),
            flags::boolean("mdns-disable-ipv6", "No mDNS over IPv6."),
            flags::string(
                "encrypt",
                "<key>",
                "Key that encrypts all traffic between members: base64 of 16, 24 or 32 bytes, as keygen makes it.",
            ),
            flags::string("encrypt-file", "<path>", "File that holds this key alone, so that other users of the host cannot see it."),
            flags::string("keyring-file", "<path>", "File that holds the keys, and is kept up to date as they change."),
            flags::list("event-handler", "<handler>", "Script to run at events: SCRIPT, or FILTERS=SCRIPT. Repeatable."),
            flags::string(
                "handler-shell",
                "system",
                "What runs handlers: system (sh -c, on Windows cmd /C), or none. Then the script is split into words, \
                 of which the first is the program, and nothing is expanded: on Unix by the rules for quotes of a \
                 POSIX shell; on Windows the program ends at a blank or its closing quote, and gets the rest as it \
                 is.",
            ),
            flags::list("join", "<address>", "Member to join at the start. Repeatable; one that answers is enough, else the agent ends."),
            flags::list("retry-join", "<address>", "The same, but tried until it works."),
            flags::string("retry-interval", "30s", "How long to wait between these tries."),
            flags::integer("retry-max", "0", "How many tries follow the first one. 0 is no limit."),
            flags::boolean("replay", "See the user events from before the join, as far as members remember them."),
            flags::string("log-level", "info", "Least level of messages to show: trace, debug, info, warn or err."),
            flags::string("node", "<hostname>", "Name of this node, unique in the cluster."),
            flags::string("profile", "lan", "Timing: lan, wan, local, or a TOML file of your own."),
            flags::integer("protocol", "5", "Serf protocol version to speak, 2 to 5; for upgrades."),
            flags::string("snapshot", "<path>", "Where to remember members and events, so that a restart rejoins and repeats nothing."),
            flags::boolean("rejoin", "Rejoin from the snapshot even after a leave."),
            flags::boolean("disable-compression", "Send nothing compressed."),
            flags::string("role", "<role>", "Old form of -tag role=<role>."),
            flags::string("rpc-addr", "127.0.0.1:7373", "Where to listen for commands."),
            flags::list("tag", "<key>=<value>", "Tag of this node, for members and handlers to see. Repeatable."),
            flags::string("tags-file", "<path>", "File that holds the tags, and is kept up to date as they change. Excludes -tag."),
            flags::boolean("syslog", "Send log messages to the system's log as well."),
            flags::string("broadcast-timeout", "5s", "How long a leave, or the forced leave of another, may take to spread."),
        ])
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = match flags::parse(define(), words) {
        Ok(flags) => flags,
        Err(error) => {
            if let FlagError::Bad(line) = error {
                terminal.help(&format!("{line}\n"));
            }
            let usage = help::command_help(terminal.program(), define());
            terminal.line(format!("==> {usage}"));
            return Err(Failure::Exit(1));
        }
    };
    // Both flags mean the same, and the order on the line counts.
    let paths = flags.lists_in_order(&["config-file", "config-dir"]);
    let options = options(&flags).map_err(|line| Failure::Error(format!("==> Error: {line}")))?;
    match agent::run(&paths, options) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// What the flags say, as options.
fn options(flags: &Flags) -> Result<Options, String> {
    let text = |name: &str| flags.string(name).unwrap_or_default().to_string();
    let mut tags = Tags::new();
    for tag in flags.list("tag") {
        let (name, value) = tag
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or(format!("Invalid tag: '{tag}'"))?;
        tags.insert(name.to_string(), value.to_string());
    }
    Ok(Options {
        node_name: text("node"),
        role: text("role"),
        tags_file: text("tags-file"),
        bind: text("bind"),
        advertise: text("advertise"),
        interface: text("iface"),
        discover: text("discover"),
        mdns_interface: text("mdns-iface"),
        mdns_disable_ipv4: flags.is_set("mdns-disable-ipv4"),
        mdns_disable_ipv6: flags.is_set("mdns-disable-ipv6"),
        encrypt_key: Secret::new(text("encrypt")),
        encrypt_key_file: text("encrypt-file"),
        keyring_file: text("keyring-file"),
        log_level: text("log-level"),
        profile: text("profile"),
        protocol: flags.integer("protocol").unwrap_or_default().max(0),
        rpc_addr: text("rpc-addr"),
        start_join: flags.list("join"),
        retry_join: flags.list("retry-join"),
        retry_interval: time(flags, "retry-interval")?,
        retry_max_attempts: flags.integer("retry-max").unwrap_or_default(),
        replay_on_join: flags.is_set("replay"),
        event_handlers: flags.list("event-handler"),
        handler_shell: text("handler-shell"),
        snapshot_path: text("snapshot"),
        rejoin_after_leave: flags.is_set("rejoin"),
        enable_syslog: flags.is_set("syslog"),
        broadcast_timeout: time(flags, "broadcast-timeout")?,
        enable_compression: flags.is_set("disable-compression").then_some(false),
        tags,
        ..Options::default()
    })
}

fn time(flags: &Flags, name: &str) -> Result<Option<std::time::Duration>, String> {
    let text = flags.string(name).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    parse_time(text).map_err(|error| match error {
        TimeError::Syntax(words) => words,
        TimeError::Negative => format!("-{name}={text} must not be negative"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(words: &[&str]) -> Flags {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        flags::parse(define(), &words).unwrap()
    }

    #[test]
    fn without_flags_nothing_is_said() {
        assert_eq!(options(&parse(&[])), Ok(Options::default()));
    }

    #[test]
    fn every_flag_has_its_setting() {
        #[rustfmt::skip]
        let flags = parse(&[
            "-node=n", "-role=r", "-tags-file=tf", "-bind=b", "-advertise=a", "-iface=i", "-discover=d", "-mdns-iface=mi",
            "-mdns-disable-ipv4", "-mdns-disable-ipv6", "-encrypt=e", "-encrypt-file=ef", "-keyring-file=k", "-log-level=l", "-profile=p",
            "-protocol=3", "-rpc-addr=ra", "-join=j1", "-join=j2", "-retry-join=rj", "-retry-interval=2s", "-retry-max=4",
            "-replay", "-event-handler=eh", "-handler-shell=hs", "-snapshot=s", "-rejoin", "-syslog", "-broadcast-timeout=3s",
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
            encrypt_key: Secret::new(text("e")),
            encrypt_key_file: text("ef"),
            keyring_file: text("k"),
            log_level: text("l"),
            profile: text("p"),
            protocol: 3,
            rpc_addr: text("ra"),
            start_join: vec![text("j1"), text("j2")],
            retry_join: vec![text("rj")],
            retry_interval: Some(Duration::from_secs(2)),
            retry_max_attempts: 4,
            replay_on_join: true,
            event_handlers: vec![text("eh")],
            handler_shell: text("hs"),
            snapshot_path: text("s"),
            rejoin_after_leave: true,
            enable_syslog: true,
            broadcast_timeout: Some(Duration::from_secs(3)),
            enable_compression: Some(false),
            ..Options::default()
        };
        assert_eq!(options(&flags), Ok(expected));
    }

    #[test]
    fn both_path_flags_keep_their_order() {
        let flags = parse(&["-config-dir=a", "-config-file=b", "-config-dir", "c"]);
        assert_eq!(
            flags.lists_in_order(&["config-file", "config-dir"]),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_protocol_below_one_is_not_said() {
        assert_eq!(options(&parse(&["-protocol=-1"])), Ok(Options::default()));
    }
}
