//! From options to a setup: everything that can be checked before a socket is opened, in the order in
//! which Serf checks it, so that the same mistake gives the same error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fyrd_keys::{Key, KeyError, Keyring};

use super::address::{self, DEFAULT_PORT};
#[cfg(feature = "http")]
use super::exposure::Exposure;
use super::files;
use super::log_file::LogFile;
use super::log_form;
use super::logging::{Console, Level};
use super::options::{Options, bytes};
use super::secret::Secret;
use super::{mdns, syslog, telemetry};
use crate::driver::HomeLink;
use crate::events::filter::HandlerSpec;
use crate::events::handlers::Order;
use crate::events::shell::Shell;
use crate::rpc::server::Limits;
#[cfg(feature = "templates")]
use crate::templates::Spec;
use fyrd_core::node::limits;
use fyrd_core::serf::{RawAddr, Tags};
use fyrd_core::swim::profile::Profile;

/// Tags have one source.
pub(super) const TAGS_AND_TAGS_FILE: &str = "Tags config not allowed while using tag files";

/// What an agent is going to do, checked.
#[derive(Debug)]
pub struct Setup {
    /// This node's name.
    pub name: String,
    /// Its tags at the start.
    pub tags: Tags,
    /// Where tags are kept, if anywhere.
    pub tags_file: Option<String>,
    /// Where to bind to.
    pub bind: SocketAddr,
    /// What to announce instead of the bound address and port.
    pub advertise: Option<SocketAddr>,
    /// Where link-local addresses of members are.
    pub home: HomeLink,
    /// The keys, if encryption is on.
    pub keyring: Option<Keyring>,
    /// Where the keys are kept, if anywhere.
    pub keyring_file: Option<PathBuf>,
    /// How old a packet may be, if that counts.
    pub replay_window: Option<Duration>,
    /// The cluster's label, empty for none.
    pub label: String,
    /// Timing, with what the options override.
    pub profile: Profile,
    /// The Serf protocol version.
    pub protocol: u8,
    /// Where RPC listens, as given.
    pub rpc_addr: String,
    /// What RPC clients have to know.
    pub rpc_auth: Secret,
    /// How much RPC clients may take.
    pub rpc_limits: Limits,
    /// Whom to join; failure ends the agent.
    pub start_join: Vec<String>,
    /// Whom to join, again and again until it works.
    pub retry_join: Vec<String>,
    /// How long to wait between tries.
    pub retry_interval: Duration,
    /// How many tries follow the first one; `None` is no limit.
    pub retry_max: Option<u64>,
    /// Whether events from before a join are wanted.
    pub replay: bool,
    /// Whether messages are compressed.
    pub compress: bool,
    /// Whether network coordinates are off.
    pub disable_coordinates: bool,
    /// Whether to end when another node holds our name by majority.
    pub resolve_name_conflicts: bool,
    /// Where the snapshot is kept, if anywhere.
    pub snapshot: Option<PathBuf>,
    /// Whether a leave does not keep the agent from rejoining at its next start.
    pub rejoin_after_leave: bool,
    /// Which scripts run at which events.
    pub handlers: Vec<HandlerSpec>,
    /// What decides when they run.
    pub handler_order: Order,
    /// How long a script may take; `None` is no limit.
    pub handler_timeout: Option<Duration>,
    /// Which files follow the cluster.
    #[cfg(feature = "templates")]
    pub templates: Vec<Spec>,
    /// Discovery by mDNS, if wanted.
    pub discover: Option<mdns::Settings>,
    /// Where and to whom HTTP is spoken, if anywhere.
    #[cfg(feature = "http")]
    pub exposure: Option<Exposure>,
    /// Where metrics go.
    pub telemetry: telemetry::Sinks,
    /// Limit of an encoded user event.
    pub user_event_size_limit: usize,
    /// Limit of an encoded query.
    pub query_size_limit: usize,
    /// Limit of an encoded query response.
    pub query_response_size_limit: usize,
}

impl Setup {
    /// Loads what checked options name. Warnings and "Starting" go to the console; the error is the line for
    /// the user.
    pub fn make(mut options: Options, console: &Console) -> Result<Setup, String> {
        console.set_level(Level::parse(&options.log_level)?);
        if !options.log_file.is_empty() {
            let is_json = log_form::is_json(&options.log_format)?;
            console.keep_in(LogFile::open(&options.log_file, is_json)?);
        }
        if options.enable_syslog {
            let sink =
                syslog::connect(&options.syslog_facility).map_err(|e| format!("Syslog setup failed: {e}"))?;
            console.add_sink(sink);
        }
        let bind = address::parse(&options.bind, Some(DEFAULT_PORT))
            .map_err(|e| format!("Invalid bind address: {e}"))?;
        let advertise = advertise(&options)?;
        if !options.encrypt_key_file.is_empty() {
            if !options.encrypt_key.is_empty() {
                return Err("Encryption key not allowed while using an encryption key file".to_string());
            }
            options.encrypt_key = files::read_secret(&options.encrypt_key_file)?;
        }
        let key = encryption_key(&options)?;
        #[cfg(not(feature = "templates"))]
        if !options.templates.is_empty() {
            return Err("this program was built without templates, so it cannot take -template".to_string());
        }
        #[cfg(not(feature = "http"))]
        if !options.http_addr.is_empty() {
            return Err("this program was built without HTTP, so it cannot take -http-addr".to_string());
        }
        let bind = address::with_scope(bind, &options.interface)
            .map_err(|e| format!("Invalid bind address: {e}"))?;
        let bind = bind_to_interface(bind, &options, console)?;
        let profile = profile(&options)?;
        console.headline("Starting Serf agent...");
        Setup::assemble(options, bind, advertise, key, profile)
    }

    /// The checks whose errors Serf shows after "Starting".
    fn assemble(
        mut options: Options,
        bind: SocketAddr,
        advertise: Option<SocketAddr>,
        key: Option<Result<Key, KeyError>>,
        profile: Profile,
    ) -> Result<Setup, String> {
        let setup = |e: String| format!("Failed to setup the Serf agent: {e}");
        let create = |e: String| format!("Failed to start the Serf agent: Error creating Serf: {e}");
        let path = |text: String| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
        let tags = starting_tags(&options).map_err(setup)?;
        let stored = stored_keyring(&options, key.is_some()).map_err(setup)?;
        options.check().map_err(create)?;
        let key = key
            .transpose()
            .map_err(|e| create(format!("Failed to create memberlist: {e}")))?;
        let keyring = stored.or_else(|| key.map(Keyring::new));
        let replay_window = Some(options.replay_window).filter(|window| !window.is_zero());
        if replay_window.is_some() && keyring.is_none() {
            return Err(create(
                "replay_window needs encryption: give a key as well, or leave it out".to_string(),
            ));
        }
        Ok(Setup {
            tags,
            replay_window,
            bind,
            home: HomeLink::of(
                std::iter::once(bind)
                    .chain(advertise)
                    .chain(address::link_of(&options.interface)),
            ),
            advertise,
            keyring,
            profile,
            protocol: limits::check_protocol(options.protocol).map_err(create)?,
            retry_max: u64::try_from(options.retry_max_attempts)
                .ok()
                .filter(|max| *max > 0),
            compress: options.enable_compression != Some(false),
            resolve_name_conflicts: !options.disable_name_resolution,
            handlers: handlers(&options)?,
            handler_order: handler_order(&options)?,
            handler_timeout: handler_timeout(&options),
            #[cfg(feature = "templates")]
            templates: templates(&options)?,
            discover: discovery(&options),
            user_event_size_limit: bytes(options.user_event_size_limit),
            query_size_limit: bytes(options.query_size_limit),
            query_response_size_limit: bytes(options.query_response_size_limit),
            #[cfg(feature = "http")]
            exposure: Exposure::of(&options)?,
            telemetry: telemetry::Sinks {
                statsd: options.statsd_addr,
                statsite: options.statsite_addr,
            },
            snapshot: path(options.snapshot_path),
            keyring_file: path(options.keyring_file),
            label: options.label,
            tags_file: Some(options.tags_file).filter(|path| !path.is_empty()),
            name: options.node_name,
            rpc_addr: options.rpc_addr,
            rpc_auth: options.rpc_auth,
            rpc_limits: Limits {
                clients: bytes(options.rpc_max_clients),
                subscriptions: bytes(options.rpc_max_subscriptions),
            },
            start_join: options.start_join,
            retry_join: options.retry_join,
            retry_interval: options.retry_interval,
            replay: options.replay_on_join,
            disable_coordinates: options.disable_coordinates,
            rejoin_after_leave: options.rejoin_after_leave,
        })
    }

    /// The address and port to announce when bound to `bound`.
    pub fn announced(&self, bound: SocketAddr) -> Result<(RawAddr, u16), String> {
        match self.advertise {
            Some(addr) => Ok((RawAddr::from(addr.ip()), addr.port())),
            None => Ok((address::announced(bound.ip())?, bound.port())),
        }
    }
}

/// Completes the options and checks them, in the order in which Serf does it, as far as it does so at each
/// reload too. The old form of the role becomes a tag.
pub(super) fn check(options: &mut Options, console: &Console) -> Result<(), String> {
    if options.node_name.is_empty() {
        options.node_name = gethostname::gethostname().to_string_lossy().into_owned();
    }
    log_form::is_json(&options.log_format)?;
    handlers(options)?;
    handler_order(options)?;
    if !options.interface.is_empty() {
        address::interface_addresses(&options.interface)?;
    }
    check_mdns(options)?;
    if !options.role.is_empty() {
        console.headline("Deprecation warning: 'Role' has been replaced with 'Tags'");
        let role = std::mem::take(&mut options.role);
        options.tags.insert("role".to_string(), role);
    }
    options.lengthen(|name, least| {
        console.headline(&format!(
            "Warning: '{name}' is too low. Setting to {}s",
            least.as_secs()
        ));
    });
    if options.rejoin_after_leave && options.snapshot_path.is_empty() {
        console.headline("Warning: 'RejoinAfterLeave' enabled without snapshot file");
    }
    Ok(())
}

/// Which scripts run at which events.
pub(super) fn handlers(options: &Options) -> Result<Vec<HandlerSpec>, String> {
    let shell = Shell::parse(&options.handler_shell)?;
    let texts = options.event_handlers.iter();
    texts.map(|text| HandlerSpec::parse(text, shell)).collect()
}

/// What decides when they run.
pub(super) fn handler_order(options: &Options) -> Result<Order, String> {
    Order::parse(&options.handler_order)
}

/// Which files follow the cluster. No two templates may keep one file.
#[cfg(feature = "templates")]
pub(super) fn templates(options: &Options) -> Result<Vec<Spec>, String> {
    let mut specs: Vec<Spec> = Vec::new();
    for text in &options.templates {
        let spec = Spec::parse(text)?;
        if specs.iter().any(|other| other.dst == spec.dst) {
            return Err(format!(
                "Invalid template '{text}': another one keeps {} already",
                spec.name()
            ));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// How long a script may take; `None` is no limit.
pub(super) fn handler_timeout(options: &Options) -> Option<Duration> {
    Some(options.handler_timeout).filter(|limit| !limit.is_zero())
}

fn check_mdns(options: &Options) -> Result<(), String> {
    if options.mdns_interface.is_empty() {
        return Ok(());
    }
    if options.discover.is_empty() {
        return Err("mDNS interface specified without enabling mDNS discovery".to_string());
    }
    if options.mdns_disable_ipv4 && options.mdns_disable_ipv6 {
        return Err("Invalid mDNS configuration: both IPv4 and IPv6 are disabled".to_string());
    }
    let wording = |e: String| e.replace("Invalid network interface", "Invalid mDNS network interface");
    address::interface_addresses(&options.mdns_interface)
        .map(drop)
        .map_err(wording)
}

/// An interface for all of the agent is one for mDNS as well, unless that has its own.
fn discovery(options: &Options) -> Option<mdns::Settings> {
    let interface = match options.mdns_interface.as_str() {
        "" => &options.interface,
        own => own,
    };
    (!options.discover.is_empty()).then(|| mdns::Settings {
        cluster: options.discover.clone(),
        interface: Some(interface.to_owned()).filter(|name| !name.is_empty()),
        ipv4: !options.mdns_disable_ipv4,
        ipv6: !options.mdns_disable_ipv6,
    })
}

fn advertise(options: &Options) -> Result<Option<SocketAddr>, String> {
    if options.advertise.is_empty() {
        return Ok(None);
    }
    let invalid = |e: String| format!("Invalid advertise address: {e}");
    let addr = address::parse(&options.advertise, Some(DEFAULT_PORT)).map_err(invalid)?;
    if addr.ip().to_canonical().is_unspecified() {
        let text = &options.advertise;
        return Err(invalid(format!(
            "address {text}: peers need the address of one host, such as 10.1.2.3"
        )));
    }
    Ok(Some(addr))
}

/// The key of `-encrypt`. A text that is not base64 is an error at once, a key of the wrong size is one
/// later, as in Serf.
fn encryption_key(options: &Options) -> Result<Option<Result<Key, KeyError>>, String> {
    if options.encrypt_key.is_empty() {
        return Ok(None);
    }
    match Key::parse(options.encrypt_key.expose()) {
        Err(e @ (KeyError::IllegalBase64 { .. } | KeyError::UnknownPrefix)) => {
            Err(format!("Invalid encryption key: {e}"))
        }
        parsed => Ok(Some(parsed)),
    }
}

/// With an interface and no address, the agent listens at one of the interface's.
fn bind_to_interface(bind: SocketAddr, options: &Options, console: &Console) -> Result<SocketAddr, String> {
    let name = &options.interface;
    if name.is_empty() {
        return Ok(bind);
    }
    let (bind, chosen) = address::bind_to_interface(bind, name, &address::interface_addresses(name)?)?;
    if chosen {
        console.headline(&format!("Using interface '{name}' address '{}'", bind.ip()));
    }
    Ok(bind)
}

/// The timing profile, with what single options say instead.
fn profile(options: &Options) -> Result<Profile, String> {
    let mut profile = files::read_profile(&options.profile)?;
    let serf = &mut profile.serf;
    for (place, said) in [
        (&mut serf.reconnect_interval, options.reconnect_interval),
        (&mut serf.reconnect_timeout, options.reconnect_timeout),
        (&mut serf.tombstone_timeout, options.tombstone_timeout),
        (&mut serf.broadcast_timeout, options.broadcast_timeout),
    ] {
        if !said.is_zero() {
            *place = said;
        }
    }
    Ok(profile)
}

/// The tags of the options, or those of the tags file.
fn starting_tags(options: &Options) -> Result<Tags, String> {
    if options.tags_file.is_empty() {
        return Ok(options.tags.clone());
    }
    if !options.tags.is_empty() {
        return Err(TAGS_AND_TAGS_FILE.to_string());
    }
    fyrd_keys::replace::sweep(Path::new(&options.tags_file));
    let Some(tags) = files::read_tags(&options.tags_file)? else {
        return Ok(Tags::new());
    };
    tracing::info!(target: "agent", "Restored {} tag(s) from {}", tags.len(), options.tags_file);
    Ok(tags)
}

fn stored_keyring(options: &Options, has_key: bool) -> Result<Option<Keyring>, String> {
    let path = &options.keyring_file;
    if path.is_empty() {
        return Ok(None);
    }
    if has_key {
        return Err("Encryption key not allowed while using a keyring".to_string());
    }
    match fyrd_keys::file::tidy(Path::new(path)) {
        Ok(true) => tracing::warn!(
            target: "agent",
            "The keyring {path} could not be read after a crash, and was restored from the file beside it that was to become it"
        ),
        Ok(false) => {}
        Err(error) => tracing::warn!(target: "agent", "The keyring {path} could not be restored: {error}"),
    }
    let ring = fyrd_keys::file::load(Path::new(path)).map_err(|e| e.to_string())?;
    files::warn_if_exposed(path);
    tracing::info!(target: "agent", "Restored keyring with {} keys from {path}", ring.len());
    Ok(Some(ring))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::{Fallback, Kind, TABLE};

    fn make(json: &str) -> Result<Setup, String> {
        let console = Console::new(Box::new(std::io::sink()));
        let mut options = Options::defaults()?;
        options.merge(Options::decode(json.as_bytes()).unwrap());
        check(&mut options, &console)?;
        Setup::make(options, &console)
    }

    #[test]
    fn defaults_are_serfs() {
        let setup = make("{}").unwrap();
        assert_eq!(setup.bind.to_string(), "0.0.0.0:7946");
        assert_eq!(
            (setup.rpc_addr.as_str(), setup.protocol, setup.compress),
            ("127.0.0.1:7373", 5, true)
        );
        assert_eq!(
            (setup.retry_interval, setup.retry_max),
            (Duration::from_secs(30), None)
        );
        assert_eq!(
            (
                setup.user_event_size_limit,
                setup.query_size_limit,
                setup.query_response_size_limit
            ),
            (512, 1024, 1024)
        );
        assert_eq!(setup.profile, Profile::builtin("lan").unwrap());
        assert!(setup.resolve_name_conflicts && !setup.disable_coordinates);
        assert!(!setup.name.is_empty() && setup.keyring.is_none());
    }

    #[test]
    fn defaults_are_those_of_the_core_and_of_the_profile_lan() {
        let options = Options::defaults().unwrap();
        assert_eq!(options.protocol, i64::from(*limits::SERF_PROTOCOLS.end()));
        let (low, high) = limits::SERF_PROTOCOLS.into_inner();
        let protocol = TABLE.iter().find(|entry| entry.key == "protocol").unwrap();
        assert!(protocol.help.contains(&format!("{low} to {high}")));
        // A profile's value that is given as an option leaves the profile as it was.
        let mut given = options.clone();
        let mut of_profile = Vec::new();
        for entry in TABLE {
            if let (Fallback::Profile(text), Kind::Time(place)) = (entry.default, &entry.kind) {
                assert!(place(&mut given).is_zero(), "{entry:?}");
                entry.read(&mut given, "", text).unwrap();
                of_profile.push(entry.key);
            }
        }
        assert_eq!(
            of_profile,
            [
                "reconnect_interval",
                "reconnect_timeout",
                "tombstone_timeout",
                "broadcast_timeout"
            ]
        );
        let console = Console::new(Box::new(std::io::sink()));
        check(&mut given, &console).unwrap();
        assert_eq!(
            Setup::make(given, &console).unwrap().profile,
            Profile::builtin("lan").unwrap()
        );
    }

    #[test]
    fn settings_take_effect() {
        let setup = make(
            r#"{"profile":"wan","broadcast_timeout":"9s","reconnect_interval":"1m","reconnect_timeout":"1h",
                "tombstone_timeout":"2h","retry_interval":"1ms","retry_max_attempts":3,"role":"web",
                "tags":{"role":"db","dc":"x"},"disable_coordinates":true,"disable_name_resolution":true,
                "enable_compression":false,"encrypt_key":"AAAAAAAAAAAAAAAAAAAAAA==","advertise":"10.1.2.3"}"#,
        )
        .unwrap();
        let serf = &setup.profile.serf;
        assert_eq!(serf.broadcast_timeout, Duration::from_secs(9));
        assert_eq!(serf.reconnect_interval, Duration::from_secs(60));
        assert_eq!(serf.reconnect_timeout, Duration::from_secs(3600));
        assert_eq!(serf.tombstone_timeout, Duration::from_secs(7200));
        assert_eq!(
            (setup.retry_interval, setup.retry_max),
            (Duration::from_secs(1), Some(3))
        );
        assert_eq!(setup.tags.get("role").map(String::as_str), Some("web"));
        assert!(setup.disable_coordinates && !setup.resolve_name_conflicts && !setup.compress);
        assert_eq!(setup.keyring.as_ref().map(Keyring::len), Some(1));
        let bound = "0.0.0.0:17950".parse().unwrap();
        assert_eq!(
            setup.announced(bound),
            Ok((RawAddr::V4([10, 1, 2, 3]), DEFAULT_PORT))
        );
        let setup = make(r#"{"bind":"127.0.0.1:0"}"#).unwrap();
        assert_eq!(
            setup.announced("127.0.0.1:5".parse().unwrap()),
            Ok((RawAddr::V4([127, 0, 0, 1]), 5))
        );
    }

    #[test]
    fn bad_settings_are_refused_in_serfs_words() {
        let create = "Failed to start the Serf agent: Error creating Serf: ";
        let setup = "Failed to setup the Serf agent: ";
        #[rustfmt::skip]
        let table = [
            (r#"{"event_handlers":["foo=bar"]}"#, "Invalid event script: Event 'foo' invoking 'bar'".to_string()),
            (r#"{"interface":"nosuch"}"#, "Invalid network interface: route ip+net: no such network interface".to_string()),
            (r#"{"log_level":"foo"}"#, "Invalid log level: FOO. Valid log levels are: [TRACE DEBUG INFO WARN ERR]".to_string()),
            (r#"{"bind":"127.0.0.1:bar"}"#, "Invalid bind address: address tcp/bar: unknown port".to_string()),
            (r#"{"advertise":"1.2.3.4:x"}"#, "Invalid advertise address: address tcp/x: unknown port".to_string()),
            (r#"{"advertise":"0.0.0.0"}"#, "Invalid advertise address: address 0.0.0.0: peers need the address of one host, such as 10.1.2.3".to_string()),
            (r#"{"advertise":"[::]:99"}"#, "Invalid advertise address: address [::]:99: peers need the address of one host, such as 10.1.2.3".to_string()),
            (r#"{"bind":"[fe80::1]"}"#, "Invalid bind address: address fe80::1: which interface has it? Say so, as in [fe80::1%eth0]".to_string()),
            (r#"{"label":"a\nb"}"#, format!("{create}label \"a\\nb\" holds a control character, must be visible text")),
            (r#"{"advertise":":99"}"#, "Invalid advertise address: address :99: peers need the address of one host, such as 10.1.2.3".to_string()),
            (r#"{"encrypt_key":"abc"}"#, "Invalid encryption key: illegal base64 data at input byte 0".to_string()),
            (r#"{"encrypt_key":"YWJj"}"#, format!("{create}Failed to create memberlist: key size must be 16, 24 or 32 bytes")),
            (r#"{"profile":"foo"}"#, "Unknown profile: foo (there are lan, wan, local, and files that end in .toml)".to_string()),
            (r#"{"protocol":6}"#, format!("{create}Protocol version '6' too high. Must be in range: [2, 5]")),
            (r#"{"protocol":1}"#, format!("{create}Protocol version '1' too low. Must be in range: [2, 5]")),
            (r#"{"user_event_size_limit":10000}"#, format!("{create}user event size limit exceeds limit of 9216 bytes")),
            (r#"{"query_size_limit":-1}"#, format!("{create}query_size_limit is -1, must be a number of bytes, or 0 for the default")),
            (r#"{"tags_file":"t","tags":{"a":"b"}}"#, format!("{setup}Tags config not allowed while using tag files")),
            (r#"{"tags_file":"t","role":"b"}"#, format!("{setup}Tags config not allowed while using tag files")),
            (r#"{"keyring_file":"t","encrypt_key":"YWJj"}"#, format!("{setup}Encryption key not allowed while using a keyring")),
            (r#"{"keyring_file":"/nonexistent/k"}"#, format!("{setup}stat /nonexistent/k: no such file or directory")),
            (r#"{"mdns":{"interface":"lo"}}"#, "mDNS interface specified without enabling mDNS discovery".to_string()),
        ];
        for (json, expected) in table {
            assert_eq!(make(json).unwrap_err(), expected, "{json}");
        }
        let long = format!(r#"{{"node_name":"{}"}}"#, "n".repeat(129));
        assert!(make(&long).unwrap_err().starts_with(&format!(
            "{create}node name is 129 bytes long, must be at most 128: n"
        )));
    }
}
