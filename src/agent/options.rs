//! The options of an agent, in one table. From it come the flags and their help, the keys of the
//! configuration files, the defaults, and what a reload can change.
//!
//! A source (the defaults, the environment, a file, the flags) gives [`Options`]; [`Options::merge`] lays one
//! over another by Serf's rules. Empty, zero and `false` mean "not said", so a later source cannot take them
//! back.

use std::hash::BuildHasher;
use std::mem::{swap, take};
use std::time::Duration;

use fyrd_core::node::limits;
use fyrd_core::serf::Tags;

use super::log_form::Form;
use super::secret::Secret;
use super::syslog;
use crate::go;

use Fallback::{Is, Limit, Profile};

/// One option: a row of [`TABLE`].
#[derive(Debug)]
pub struct Entry {
    /// Its key in configuration files, if it has one: `mdns_NAME` is the key NAME of the object `mdns`.
    pub key: &'static str,
    /// Its flag, if it has one.
    pub flag: &'static str,
    /// The environment variable that gives it, where that is not named like its flag ([`Entry::variable`]).
    pub env: &'static str,
    /// How it is read and merged, and where it goes.
    pub kind: Kind,
    /// What it is when nobody says it.
    pub default: Fallback,
    /// What help shows in place of a value, unless it is the default.
    pub value: &'static str,
    /// What stands between several values in its environment variable.
    pub separator: char,
    /// The shortest time that makes sense; what is shorter becomes this, with a warning.
    pub least: Duration,
    /// Whether a reload changes it.
    pub reloads: bool,
    /// What stands against its value, if anything, in words for the user.
    pub check: fn(&Options) -> Result<(), String>,
    /// What it is for.
    pub help: &'static str,
}

/// What an option's value is, and its place.
#[derive(Debug)]
pub enum Kind {
    /// A text.
    Text(fn(&mut Options) -> &mut String),
    /// A text that is never shown.
    Secret(fn(&mut Options) -> &mut Secret),
    /// A number; zero is "not said".
    Number(fn(&mut Options) -> &mut i64),
    /// A number from 1 on.
    Count(fn(&mut Options) -> &mut i64),
    /// A number of bytes.
    Bytes(fn(&mut Options) -> &mut i64),
    /// Off unless somebody says otherwise.
    Switch(fn(&mut Options) -> &mut bool),
    /// On unless said otherwise, and the last word counts. Its flag turns it off.
    Choice(fn(&mut Options) -> &mut Option<bool>),
    /// A duration in Go's notation; zero is "not said".
    Time(fn(&mut Options) -> &mut Duration),
    /// Texts; all sources add to it.
    List(fn(&mut Options) -> &mut Vec<String>),
    /// Definitions: each a text, or in files an object, which is kept as JSON. All sources add to them.
    Definitions(fn(&mut Options) -> &mut Vec<String>),
    /// Texts with names; all sources add to them.
    Tags(fn(&mut Options) -> &mut Tags),
    /// Names a configuration file, or a directory of them. It is no option of a file.
    Source,
    /// Known to Serf, without function there and here.
    Ignored,
}

/// What an option is when nobody says it.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// Empty, zero, off.
    Nothing,
    /// This, written as its flag takes it.
    Is(&'static str),
    /// A number of bytes.
    Limit(usize),
    /// What the timing profile says; the text is what `lan` does.
    Profile(&'static str),
}

/// What a row has where it says nothing.
const ROW: Entry = Entry {
    key: "",
    flag: "",
    env: "",
    kind: Kind::Ignored,
    default: Fallback::Nothing,
    value: "",
    separator: ',',
    least: Duration::ZERO,
    reloads: false,
    check: |_| Ok(()),
    help: "",
};

/// Where a value of a kind is kept.
macro_rules! place {
    (Text) => { String };
    (Secret) => { Secret };
    (Number) => { i64 };
    (Count) => { i64 };
    (Bytes) => { i64 };
    (Switch) => { bool };
    (Choice) => { Option<bool> };
    (Time) => { Duration };
    (List) => { Vec<String> };
    (Definitions) => { Vec<String> };
    (Tags) => { Tags };
}

/// Makes [`Options`] and [`TABLE`] from rows of the form `KIND KEY: "HELP" { COLUMN: VALUE, ... }`.
macro_rules! options {
    ($($kind:ident $($key:ident)?: $help:literal { $($column:ident: $cell:expr),* })*) => {
        /// What one source says, or all of them together.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Options {
            $($(#[doc = $help] pub $key: place!($kind),)?)*
        }

        /// Every option, in the order of the help. Errors of durations are looked for in this order too.
        pub const TABLE: &[Entry] = &[$(Entry {
            $(key: stringify!($key),)?
            kind: Kind::$kind $((|options| &mut options.$key))?,
            help: $help,
            $($column: $cell,)*
            ..ROW
        }),*];
    };
}

options! {
    Text bind: "Address to listen at for other members. IPv6 as ::1, [::1] or [::1]:7946."
        { flag: "bind", default: Is("0.0.0.0:7946") }
    Text interface: "Network interface to listen at. Takes the place of -bind when the name is known but not the
        address; with both, the interface must have the address."
        { flag: "iface", value: "<interface>" }
    Text advertise: "Address to announce to other members, if not the one of -bind. Its port is 7946 unless given."
        { flag: "advertise", value: "<address>" }
    Source: "JSON file, or directory of files, to read settings from. Repeatable."
        { flag: "config-file", value: "<path>" }
    Source: "The same. Of a directory, all files ending in .json are read, by name."
        { flag: "config-dir", value: "<path>" }
    Text discover: "Name under which members on this network find each other by mDNS."
        { flag: "discover", value: "<cluster>" }
    Text mdns_interface: "Network interface for mDNS, if not that of -iface."
        { flag: "mdns-iface", value: "<interface>" }
    Switch mdns_disable_ipv4: "No mDNS over IPv4."
        { flag: "mdns-disable-ipv4" }
    Switch mdns_disable_ipv6: "No mDNS over IPv6."
        { flag: "mdns-disable-ipv6" }
    Time replay_window: "Refuse packets that are older than this, or ahead by more: recordings. Needs encryption,
        clocks that agree, and the same on all members; none of them can be an agent of Serf."
        { flag: "replay-window", value: "<duration>", least: SHORTEST_WINDOW }
    Secret encrypt_key: "Key that encrypts all traffic between members: base64 of 16, 24 or 32 bytes, as keygen
        makes it."
        { flag: "encrypt", env: "FYRD_ENCRYPT_KEY", value: "<key>" }
    Text label: "Name of the cluster in front of all that members send. What carries another, or none, is discarded, so
        clusters that share keys stay apart."
        { flag: "label", value: "<name>", check: |o| limits::check_label(&o.label) }
    Text encrypt_key_file: "File that holds this key alone, so that other users of the host cannot see it."
        { flag: "encrypt-file", value: "<path>" }
    Text keyring_file: "File that holds the keys, and is kept up to date as they change."
        { flag: "keyring-file", value: "<path>" }
    List event_handlers: "Script to run at events: SCRIPT, or FILTERS=SCRIPT. Repeatable."
        { flag: "event-handler", value: "<handler>", separator: '\n', reloads: true }
    Text handler_shell: "What runs handlers: system (sh -c, on Windows cmd /C), or none. Then the script is split
        into words, of which the first is the program, and nothing is expanded: on Unix by the rules for quotes of
        a POSIX shell; on Windows the program ends at a blank or its closing quote, and gets the rest as it is."
        { flag: "handler-shell", default: Is("system"), reloads: true }
    Text handler_order: "When handlers of member and user events run: sequential (one script after the other, in the
        order of events and of -event-handler), or independent (each handler in a queue of its own, so that a slow one
        delays no other; two that share a file then need a lock). Queries wait for neither."
        { flag: "handler-order", default: Is("sequential"), reloads: true }
    Definitions templates: "File to keep in step with the members: template, file, and a command to run when the
        file has changed. Repeatable; in configuration files, objects with src, dst, command, check, min, wait, mode
        and timeout."
        { flag: "template", value: "<src>:<dst>[:<command>]", separator: '\n', reloads: true }
    List start_join: "Member to join at the start. Repeatable; one that answers is enough, else the agent ends.
        exec=COMMAND takes the addresses that a command prints."
        { flag: "join", value: "<address>" }
    List retry_join: "The same, but tried until it works; names and commands are asked anew at each try."
        { flag: "retry-join", value: "<address>" }
    Time reconnect_interval: "How often a failed member is tried again."
        { default: Profile("30s") }
    Time reconnect_timeout: "How long a failed member is kept."
        { default: Profile("24h") }
    Time tombstone_timeout: "How long a member that has left is kept."
        { default: Profile("24h") }
    Time retry_interval: "How long to wait between these tries."
        { flag: "retry-interval", default: Is("30s"), least: SHORTEST_INTERVAL }
    Number retry_max_attempts: "How many tries follow the first one. 0 is no limit."
        { flag: "retry-max", default: Is("0") }
    Switch replay_on_join: "See the user events from before the join, as far as members remember them."
        { flag: "replay" }
    Text log_level: "Least level of messages to show: trace, debug, info, warn or err."
        { flag: "log-level", default: Is("info"), reloads: true }
    Text log_format: "Form of the log: text as Serf's, or json, an object a line. What goes to journald has levels that it
        knows, and no second time, unless this says json."
        { flag: "log-format", default: Is("text"), check: |o| Form::parse(&o.log_format).map(drop) }
    Text log_file: "File to write the log to as well. It is opened anew at SIGHUP."
        { flag: "log-file", value: "<path>" }
    Text node_name: "Name of this node, unique in the cluster."
        { flag: "node", value: "<hostname>", check: |o| limits::check_name(&o.node_name) }
    Text profile: "Timing: lan, wan, local, or a TOML file of your own."
        { flag: "profile", default: Is("lan") }
    Count protocol: "Serf protocol version to speak, 2 to 5; for upgrades."
        { flag: "protocol", default: Is("5"), check: |o| limits::check_protocol(o.protocol).map(drop) }
    Text snapshot_path: "Where to remember members and events, so that a restart rejoins and repeats nothing."
        { flag: "snapshot", value: "<path>" }
    Switch rejoin_after_leave: "Rejoin from the snapshot even after a leave."
        { flag: "rejoin" }
    Choice enable_compression: "Send nothing compressed."
        { flag: "disable-compression" }
    Text role: "Old form of -tag role=<role>."
        { flag: "role", value: "<role>", reloads: true }
    Text rpc_addr: "Where to listen for commands."
        { flag: "rpc-addr", default: Is("127.0.0.1:7373") }
    Count rpc_max_clients: "Clients of -rpc-addr at once, as far as the system allows so many open files."
        { default: Is("4096") }
    Count rpc_max_subscriptions: "Event streams and queries at once of one of them."
        { default: Is("128") }
    Secret rpc_auth: "Token that clients of -rpc-addr must know." {}
    Text http_addr: "Where to answer HTTP: metrics, health, members and events, for reading only. IP:PORT, or
        unix:PATH."
        { flag: "http-addr", value: "<address>" }
    Text http_token_file: "File that holds the token which HTTP clients have to show."
        { flag: "http-token-file", value: "<path>" }
    List http_hosts: "Host name by which HTTP clients may call this agent, where there is no token. Repeatable.
        Addresses and names without a dot always may."
        { flag: "http-host", value: "<name>" }
    Tags tags: "Tag of this node, for members and handlers to see. Repeatable."
        { flag: "tag", value: "<key>=<value>", reloads: true }
    Text tags_file: "File that holds the tags, and is kept up to date as they change. Excludes -tag."
        { flag: "tags-file", value: "<path>" }
    Switch enable_syslog: "Send log messages to the system's log as well."
        { flag: "syslog" }
    Text syslog_facility: "Facility of these messages."
        { default: Is(syslog::DEFAULT_FACILITY) }
    Time broadcast_timeout: "How long a leave, or the forced leave of another, may take to spread."
        { flag: "broadcast-timeout", default: Profile("5s"), least: SHORTEST_INTERVAL }
    Time handler_timeout: "How long a handler's script may run. 0 is no limit."
        { reloads: true }
    Switch leave_on_terminate: "Leave the cluster at SIGTERM."
        { reloads: true }
    Switch skip_leave_on_interrupt: "Do not leave the cluster at SIGINT."
        { reloads: true }
    Switch disable_coordinates: "Keep no network coordinates." {}
    Switch disable_name_resolution: "Do not give way when another node has this node's name by majority." {}
    Text statsite_addr: "Where to send metrics over TCP, as statsite takes them." {}
    Text statsd_addr: "Where to send metrics over UDP, as statsd takes them." {}
    Bytes user_event_size_limit: "Largest user event, encoded."
        { default: Limit(limits::USER_EVENT_SIZE), check: |o| {
            limits::check_user_event_size(bytes(o.user_event_size_limit))
        } }
    Bytes query_size_limit: "Largest query, encoded."
        { default: Limit(limits::QUERY_SIZE) }
    Bytes query_response_size_limit: "Largest answer to a query, encoded."
        { default: Limit(limits::QUERY_RESPONSE_SIZE) }
    Ignored: "Nothing; editors find the schema of the file by it." { key: "$schema" }
    Ignored: "Nothing; Serf has it." { key: "validate_node_names" }
    Ignored: "Nothing; Serf has it." { key: "msgpackusenewtimeformat" }
}

/// Clocks that are kept by NTP agree, and packets arrive, within a fraction of this.
const SHORTEST_WINDOW: Duration = Duration::from_secs(5);

/// Shorter intervals would make an agent that does nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

impl Options {
    /// What holds when nobody says anything else.
    pub fn defaults() -> Result<Options, String> {
        let mut options = Options::default();
        for entry in TABLE {
            match (entry.default, &entry.kind) {
                (Is(text), _) => entry.read(&mut options, "default", text)?,
                (Limit(bytes), Kind::Bytes(place)) => {
                    *place(&mut options) = i64::try_from(bytes).unwrap_or(i64::MAX);
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// What the environment says, which gives the values of variables. An empty one is not said, unless it were to
    /// hold a key.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Options, String> {
        let mut options = Options::default();
        for entry in TABLE {
            let Some((name, text)) = entry
                .variable()
                .and_then(|name| Some((name.clone(), variable(&name)?)))
            else {
                continue;
            };
            entry.refuse_empty(&name, &text)?;
            for text in entry.texts(&text) {
                // A flag's error stands beside the flag; nobody sees which variable is meant.
                let named = |e: String| {
                    if e.starts_with(&name) {
                        e
                    } else {
                        format!("{name}: {e}")
                    }
                };
                entry.read(&mut options, &name, text).map_err(named)?;
            }
        }
        Ok(options)
    }

    /// Lays `over` over these options.
    pub fn merge(&mut self, mut over: Options) {
        let over = &mut over;
        for entry in TABLE {
            let is_said = match &entry.kind {
                Kind::Text(place) => !place(over).is_empty(),
                Kind::Secret(place) => !place(over).is_empty(),
                Kind::Number(place) | Kind::Count(place) | Kind::Bytes(place) => *place(over) != 0,
                Kind::Switch(place) => *place(over),
                Kind::Choice(place) => place(over).is_some(),
                Kind::Time(place) => !place(over).is_zero(),
                Kind::List(place) | Kind::Definitions(place) => {
                    place(self).append(place(over));
                    false
                }
                Kind::Tags(place) => {
                    place(self).append(place(over));
                    false
                }
                Kind::Source | Kind::Ignored => false,
            };
            if is_said {
                entry.kind.swap(self, over);
            }
        }
    }

    /// Lays the environment and the flags over what files say. What debugs or lists the agent's process sees its
    /// environment, so a key in a file that is named counts more than one that stands there.
    pub fn merge_last(&mut self, mut environment: Options, flags: &Options) {
        let named = [&*self, &environment, flags];
        if named.iter().any(|said| !said.encrypt_key_file.is_empty()) {
            environment.encrypt_key = Secret::default();
        }
        self.merge(environment);
        self.merge(flags.clone());
    }

    /// Takes over from `new` what a reload can change.
    pub fn reload(&mut self, mut new: Options) {
        for entry in TABLE.iter().filter(|entry| entry.reloads) {
            entry.kind.swap(self, &mut new);
        }
    }

    /// The keys of what `new` says otherwise and a reload does not change. Both are without secrets.
    pub fn only_at_a_start(&self, new: &Options) -> Vec<&'static str> {
        self.differs(new, |entry| !entry.reloads)
    }

    /// The keys of what `new` says otherwise and a reload changes.
    pub fn changed_by_reload(&self, new: &Options) -> Vec<&'static str> {
        self.differs(new, |entry| entry.reloads)
    }

    fn differs(&self, new: &Options, concerns: impl Fn(&&Entry) -> bool) -> Vec<&'static str> {
        let differs = TABLE.iter().filter(concerns).filter(|entry| {
            let (mut changed, mut new) = (self.clone(), new.clone());
            entry.kind.swap(&mut changed, &mut new);
            changed != *self
        });
        differs.map(|entry| entry.key).collect()
    }

    /// A number for each secret, by which it is known again.
    pub fn secret_marks(&self, hasher: &impl BuildHasher) -> Vec<(&'static str, u64)> {
        let mut options = self.clone();
        let secrets = TABLE.iter().filter_map(|entry| match entry.kind {
            Kind::Secret(place) => Some((entry.key, hasher.hash_one(place(&mut options).expose()))),
            _ => None,
        });
        secrets.collect()
    }

    /// The same, for those who need no secrets.
    pub fn without_secrets(mut self) -> Options {
        for entry in TABLE {
            if let Kind::Secret(place) = entry.kind {
                take(place(&mut self));
            }
        }
        self
    }

    /// Whether there are any.
    pub fn has_secrets(&self) -> bool {
        *self != self.clone().without_secrets()
    }

    /// Checks each option for itself. The error is the first mistake, for the user.
    pub fn check(&mut self) -> Result<(), String> {
        self.mistakes().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that stands against options, each for itself.
    pub fn mistakes(&mut self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for entry in TABLE {
            if let Kind::Bytes(place) = entry.kind {
                let (key, limit) = (entry.key, *place(self));
                if limit < 0 {
                    mistakes.push(format!(
                        "{key} is {limit}, must be a number of bytes, or 0 for the default"
                    ));
                    continue;
                }
            }
            mistakes.extend((entry.check)(self).err());
        }
        mistakes
    }

    /// Makes times that are too short as long as they must be, and tells of each.
    pub fn lengthen(&mut self, tell: impl Fn(&str, Duration)) {
        for entry in TABLE {
            if let Kind::Time(place) = entry.kind
                && (1..entry.least.as_nanos()).contains(&place(self).as_nanos())
            {
                *place(self) = entry.least;
                tell(&entry.name_in_warnings(), entry.least);
            }
        }
    }
}

impl Entry {
    /// Puts in its place what a text says, in the notation of its flag. `name` is what the user gave the text
    /// to, as errors show it.
    pub fn read(&self, options: &mut Options, name: &str, text: &str) -> Result<(), String> {
        let number = || go::parse_integer(text).map_err(|e| format!("{name}={text}: {e}"));
        let boolean = || go::parse_boolean(text).map_err(|e| format!("{name}={text}: {e}"));
        match &self.kind {
            Kind::Text(place) => *place(options) = text.to_owned(),
            Kind::Secret(place) => *place(options) = Secret::new(text.to_owned()),
            Kind::Number(place) | Kind::Bytes(place) => *place(options) = number()?,
            Kind::Count(place) => *place(options) = number()?.max(0),
            Kind::Switch(place) => *place(options) = boolean()?,
            Kind::Choice(place) => *place(options) = boolean()?.then_some(false),
            Kind::Time(_) if text.is_empty() => {}
            Kind::Time(place) => *place(options) = parse_time(text, || format!("{name}={text}"))?,
            Kind::List(place) | Kind::Definitions(place) => place(options).push(text.to_owned()),
            Kind::Tags(place) => {
                let tag = text.split_once('=').filter(|(name, _)| !name.is_empty());
                let (name, value) = tag.ok_or_else(|| format!("Invalid tag: '{text}'"))?;
                place(options).insert(name.to_owned(), value.to_owned());
            }
            Kind::Source | Kind::Ignored => {}
        }
        Ok(())
    }

    /// The environment variable that gives it: `FYRD_` and its flag, or its key where there is no flag.
    pub fn variable(&self) -> Option<String> {
        if matches!(self.kind, Kind::Ignored) {
            return None;
        }
        if !self.env.is_empty() {
            return Some(self.env.to_owned());
        }
        let name = if self.flag.is_empty() { self.key } else { self.flag };
        Some(format!("FYRD_{}", name.to_uppercase().replace('-', "_")))
    }

    /// The values in the text of its environment variable, each in the notation of its flag. Where there are
    /// several, one a line, a line can hold any character; else commas may stand between them.
    pub fn texts<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let texts: Vec<&str> = if !self.is_repeatable() {
            vec![text]
        } else if text.contains('\n') {
            text.lines().map(str::trim).collect()
        } else {
            text.split(self.separator).map(str::trim).collect()
        };
        texts.into_iter().filter(|text| !text.is_empty()).collect()
    }

    /// Whether it takes several values.
    pub fn is_repeatable(&self) -> bool {
        matches!(
            self.kind,
            Kind::List(_) | Kind::Definitions(_) | Kind::Tags(_) | Kind::Source
        )
    }

    /// Refuses to be given an empty text where that would switch encryption off without a word: it is what is left
    /// of a variable that is not set, or of a secret that could not be fetched.
    pub fn refuse_empty(&self, name: &str, text: &str) -> Result<(), String> {
        let gives_keys = matches!(self.key, "encrypt_key" | "encrypt_key_file" | "keyring_file");
        if gives_keys && text.trim().is_empty() {
            return Err(format!(
                "{name} is empty, it must be {}; leave it out to run without encryption",
                self.value
            ));
        }
        Ok(())
    }

    /// What help shows in place of a value.
    pub fn placeholder(&self) -> &'static str {
        match self.default {
            Is(text) | Profile(text) => text,
            Fallback::Nothing | Limit(_) => self.value,
        }
    }

    /// Its name in Serf's warnings, which is Go's: `RetryInterval`.
    pub fn name_in_warnings(&self) -> String {
        let words = self.key.split('_');
        let capital =
            |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
        words.map(capital).collect()
    }
}

impl Kind {
    /// Exchanges the values that two have in this place.
    fn swap(&self, a: &mut Options, b: &mut Options) {
        match self {
            Kind::Text(place) => swap(place(a), place(b)),
            Kind::Secret(place) => swap(place(a), place(b)),
            Kind::Number(place) | Kind::Count(place) | Kind::Bytes(place) => swap(place(a), place(b)),
            Kind::Switch(place) => swap(place(a), place(b)),
            Kind::Choice(place) => swap(place(a), place(b)),
            Kind::Time(place) => swap(place(a), place(b)),
            Kind::List(place) | Kind::Definitions(place) => swap(place(a), place(b)),
            Kind::Tags(place) => swap(place(a), place(b)),
            Kind::Source | Kind::Ignored => {}
        }
    }
}

/// A limit that [`Options::check`] has let pass.
pub(super) fn bytes(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or_default()
}

/// Reads a duration. Serf takes a negative one, and then waits for ever or not at all; `said` is how the user
/// wrote it.
pub(super) fn parse_time(text: &str, said: impl FnOnce() -> String) -> Result<Duration, String> {
    let time: go::Duration = text.parse()?;
    match u64::try_from(time.nanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => Err(format!("{} must not be negative", said())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::events::environment::SECRET_VARIABLES;

    #[test]
    fn every_option_can_be_given_and_no_name_stands_twice() {
        let columns: [fn(&Entry) -> String; 3] = [
            |row| row.key.to_owned(),
            |row| row.flag.to_owned(),
            |row| row.variable().unwrap_or_default(),
        ];
        for name in columns {
            let names: Vec<String> = TABLE.iter().map(name).filter(|name| !name.is_empty()).collect();
            assert_eq!(
                names.iter().collect::<BTreeSet<_>>().len(),
                names.len(),
                "{names:?}"
            );
        }
        for entry in TABLE {
            assert!(!entry.key.is_empty() || !entry.flag.is_empty(), "{entry:?}");
            assert!(entry.help.ends_with('.') && entry.help.len() > 10, "{entry:?}");
            let takes_a_value = !matches!(entry.kind, Kind::Switch(_) | Kind::Choice(_) | Kind::Ignored);
            if !entry.flag.is_empty() {
                assert_eq!(!entry.placeholder().is_empty(), takes_a_value, "{entry:?}");
            }
            let has_time = matches!(entry.kind, Kind::Time(_));
            assert!(has_time || entry.least.is_zero(), "{entry:?}");
            let has_bytes = matches!(entry.kind, Kind::Bytes(_));
            assert_eq!(has_bytes, matches!(entry.default, Limit(_)), "{entry:?}");
        }
    }

    #[test]
    fn no_secret_of_the_environment_is_handed_to_scripts() {
        let secret = TABLE.iter().filter(|entry| matches!(entry.kind, Kind::Secret(_)));
        for variable in secret.filter_map(Entry::variable) {
            assert!(SECRET_VARIABLES.contains(&variable.as_str()), "{variable}");
        }
    }

    /// The rows of Serf's table in docs/compatibility.md: flags, keys, and the default.
    fn rows_of_serf() -> Vec<(Vec<&'static str>, Vec<&'static str>, &'static str)> {
        let (_, table) = include_str!("../../docs/compatibility.md")
            .split_once("### Flags and config keys\n")
            .unwrap();
        let names = |cell: &'static str| -> Vec<&str> {
            let quoted = cell.split('`').skip(1).step_by(2);
            quoted.filter_map(|text| text.split_whitespace().next()).collect()
        };
        let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        rows.take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let default = cells[4]
                    .trim_matches('`')
                    .split_whitespace()
                    .next()
                    .unwrap_or_default();
                (names(cells[1]), names(cells[2]), default)
            })
            .collect()
    }

    /// What Serf's table does not have: our own options, the key for IPv6 that it writes shorter, and the two
    /// without function.
    const NOT_SERFS: [&str; 18] = [
        "mdns_disable_ipv6",
        "replay_window",
        "label",
        "encrypt_key_file",
        "handler_shell",
        "handler_order",
        "templates",
        "log_format",
        "log_file",
        "rpc_max_clients",
        "rpc_max_subscriptions",
        "http_addr",
        "http_token_file",
        "http_hosts",
        "handler_timeout",
        "$schema",
        "validate_node_names",
        "msgpackusenewtimeformat",
    ];

    #[test]
    fn serfs_options_are_there_with_serfs_defaults() {
        let mut seen = std::collections::BTreeSet::new();
        for (flags, keys, default) in rows_of_serf() {
            for flag in flags.iter().filter_map(|flag| flag.strip_prefix('-')) {
                let entry = TABLE.iter().find(|entry| entry.flag == flag).expect(flag);
                let key = entry.key.replacen("mdns_", "mdns.", 1);
                assert!(keys.is_empty() || keys.contains(&key.as_str()), "-{flag}: {key}");
            }
            for key in keys.iter().filter(|key| !key.starts_with("disable_ipv")) {
                let key = key.replacen("mdns.", "mdns_", 1);
                let entry = TABLE.iter().find(|entry| entry.key == key).expect(&key);
                let has = match entry.default {
                    Fallback::Nothing => String::new(),
                    Is(text) | Profile(text) => text.to_owned(),
                    Limit(bytes) => bytes.to_string(),
                };
                // What is off, what is on, and what other parts of the agent find out.
                let serfs = match default {
                    "false" | "on" | "{}" | "hostname" | "-iface" => "",
                    "0.0.0.0" => "0.0.0.0:7946",
                    other => other,
                };
                assert!(
                    has.eq_ignore_ascii_case(serfs),
                    "{key}: {has}, but in Serf {default}"
                );
                seen.insert(key);
            }
        }
        let rest = TABLE
            .iter()
            .map(|entry| entry.key)
            .filter(|key| !seen.contains(*key));
        let rest: Vec<&str> = rest.filter(|key| !key.is_empty()).collect();
        assert_eq!(rest, NOT_SERFS);
    }

    /// A value for its flag that is not its default.
    fn text_for(entry: &Entry) -> &'static str {
        match entry.kind {
            Kind::Switch(_) | Kind::Choice(_) => "true",
            Kind::Number(_) | Kind::Count(_) | Kind::Bytes(_) => "4",
            Kind::Time(_) => "7s",
            Kind::Tags(_) => "a=b",
            _ => "x",
        }
    }

    /// An option that is set by its flag's text alone, to something other than its default.
    fn with(entry: &Entry) -> Options {
        let text = text_for(entry);
        let mut options = Options::default();
        entry.read(&mut options, "", text).unwrap();
        options
    }

    #[test]
    fn every_option_is_read_merged_and_reloaded_as_its_row_says() {
        let mut reloaded = Vec::new();
        for entry in TABLE {
            let said = with(entry);
            let has_value = !matches!(entry.kind, Kind::Source | Kind::Ignored);
            assert_eq!(said != Options::default(), has_value, "{entry:?}");
            let mut merged = Options::default();
            merged.merge(said.clone());
            assert_eq!(merged, said, "{entry:?}");
            merged.merge(Options::default());
            assert_eq!(merged, said, "{entry:?}");
            let mut running = Options::default();
            running.reload(said.clone());
            assert_eq!(running == said, entry.reloads || !has_value, "{entry:?}");
            if entry.reloads {
                reloaded.push(entry.key);
            }
            let is_secret = matches!(entry.kind, Kind::Secret(_));
            assert_eq!(said.clone().without_secrets() == said, !is_secret, "{entry:?}");
        }
        let expected = [
            "event_handlers",
            "handler_shell",
            "handler_order",
            "templates",
            "log_level",
            "role",
            "tags",
            "handler_timeout",
            "leave_on_terminate",
            "skip_leave_on_interrupt",
        ];
        assert_eq!(reloaded, expected);
    }

    #[test]
    fn every_option_can_come_from_the_environment() {
        for entry in TABLE
            .iter()
            .filter(|entry| !matches!(entry.kind, Kind::Source | Kind::Ignored))
        {
            let name = entry.variable().unwrap();
            let text = text_for(entry);
            let found = Options::from_environment(|asked| (asked == name).then(|| text.to_owned()));
            assert_eq!(found, Ok(with(entry)), "{name}");
            if !matches!(entry.key, "encrypt_key" | "encrypt_key_file" | "keyring_file") {
                let found = Options::from_environment(|asked| (asked == name).then(String::new));
                assert_eq!(found, Ok(Options::default()), "{name}");
            }
        }
        assert_eq!(Options::from_environment(|_| None), Ok(Options::default()));
    }

    #[test]
    fn a_variable_holds_several_values_and_its_name_is_in_errors() {
        let read = |name: &str, text: &str| {
            Options::from_environment(|asked| (asked == name).then(|| text.to_owned()))
        };
        let text = str::to_string;
        let expected = Options {
            retry_join: vec![text("10.0.0.1"), text("seeds:7946")],
            ..Options::default()
        };
        assert_eq!(read("FYRD_RETRY_JOIN", "10.0.0.1, seeds:7946,"), Ok(expected));
        let expected = Options {
            event_handlers: vec![text("member-join,member-leave=a.sh"), text("b.sh; c.sh")],
            ..Options::default()
        };
        assert_eq!(
            read(
                "FYRD_EVENT_HANDLER",
                "member-join,member-leave=a.sh\nb.sh; c.sh\n"
            ),
            Ok(expected)
        );
        let expected = Options {
            tags: Tags::from([(text("role"), text("web")), (text("dc"), text("eu=1"))]),
            ..Options::default()
        };
        assert_eq!(read("FYRD_TAG", "role=web,dc=eu=1"), Ok(expected));
        for (name, bad, error) in [
            ("FYRD_TAG", "role=web,eu", "FYRD_TAG: Invalid tag: 'eu'"),
            ("FYRD_REPLAY", "perhaps", "FYRD_REPLAY=perhaps: parse error"),
            (
                "FYRD_RETRY_INTERVAL",
                "5",
                "FYRD_RETRY_INTERVAL: time: missing unit in duration \"5\"",
            ),
            (
                "FYRD_HANDLER_TIMEOUT",
                "-5s",
                "FYRD_HANDLER_TIMEOUT=-5s must not be negative",
            ),
        ] {
            assert_eq!(read(name, bad), Err(text(error)));
        }
    }

    #[test]
    fn texts_that_mean_nothing_are_named() {
        let read = |key: &str, text: &str| {
            let entry = TABLE.iter().find(|entry| entry.key == key).unwrap();
            entry.read(&mut Options::default(), "-it", text).unwrap_err()
        };
        assert_eq!(read("retry_interval", "-5s"), "-it=-5s must not be negative");
        assert_eq!(
            read("retry_interval", "5"),
            "time: missing unit in duration \"5\""
        );
        assert_eq!(read("protocol", "x"), "-it=x: parse error");
        assert_eq!(read("enable_syslog", "maybe"), "-it=maybe: parse error");
        assert_eq!(read("tags", "=x"), "Invalid tag: '=x'");
    }
}
