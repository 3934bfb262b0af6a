//! What stands against a configuration: all that an agent would refuse at its start, and what it names that is not
//! there. Nothing is started or written, and nothing but the names of seeds is asked of the network.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use fyrd_keys::Key;

use super::address::{self, DEFAULT_PORT};
#[cfg(feature = "http")]
use super::exposure::Exposure;
use super::files::{self, Sources};
use super::logging::Level;
use super::options::{Options, TABLE};
use super::seeds::{self, resolve_seed};
use super::setup::{self, REJOIN_WITHOUT_SNAPSHOT, TAGS_AND_TAGS_FILE};
use super::{program, syslog};
use crate::events::filter::HandlerSpec;
use crate::events::shell::Shell;
use crate::go;
use crate::rpc::dial::UNIX_PREFIX;
#[cfg(feature = "templates")]
use crate::templates;

/// How long a name of a seed is looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// What was found, a line each and sometimes more.
#[derive(Debug, Default)]
pub struct Findings {
    /// With these, an agent does not start or does not do what it is told.
    pub mistakes: Vec<String>,
    /// These are worth a thought.
    pub warnings: Vec<String>,
}

/// Looks at the files at `paths`, overlaid by variables of the environment and by what `flags` say.
pub fn validate(paths: &[String], environment: &[(String, String)], flags: &Options) -> Findings {
    let mut found = Findings::default();
    let mut options = Options::default();
    if let Some(defaults) = found.take(Options::defaults()) {
        options.merge(defaults);
    }
    let mut sources = Sources::default();
    for path in paths {
        match sources.read(path) {
            Ok(said) => options.merge(said),
            Err(mut mistakes) => found.mistakes.append(&mut mistakes),
        }
    }
    found.warnings.append(&mut sources.remarks);
    found.exposed(sources.with_secrets.iter().map(String::as_str));
    let variable = |wanted: &str| {
        let given = environment.iter().find(|(name, _)| name == wanted);
        given.map(|(_, value)| value.clone())
    };
    let said = found
        .take(Options::from_environment(variable))
        .unwrap_or_default();
    found.unknown_variables(environment);
    options.merge_last(said, flags);
    found.look_at(&mut options);
    found
}

impl Findings {
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    /// What a program finds in its environment is often somebody else's, so this is no mistake.
    fn unknown_variables(&mut self, environment: &[(String, String)]) {
        let known: Vec<String> = TABLE.iter().filter_map(|entry| entry.variable()).collect();
        for (name, _) in environment {
            if name.starts_with("FYRD_") && !known.contains(name) {
                self.warnings
                    .push(format!("{name} in the environment is no option"));
            }
        }
    }

    fn look_at(&mut self, options: &mut Options) {
        setup::name_by_host(options);
        self.mistakes.extend(options.mistakes());
        self.take(Level::parse(&options.log_level));
        if options.enable_syslog {
            self.take(syslog::parse_facility(&options.syslog_facility));
        }
        self.take(setup::profile(options));
        self.gossip(options);
        self.keys(options);
        self.memory(options);
        self.handlers(options);
        #[cfg(feature = "templates")]
        self.templates(options);
        self.clients(options);
        self.seeds(options);
    }

    /// Where other members reach this one.
    fn gossip(&mut self, options: &Options) {
        self.take(setup::check_mdns(options));
        self.take(setup::advertise(options));
        let interface = &options.interface;
        let parsed = address::parse(&options.bind, Some(DEFAULT_PORT))
            .and_then(|bind| address::with_scope(bind, interface))
            .map_err(|e| format!("Invalid bind address: {e}"));
        let Some(mut bind) = self.take(parsed) else { return };
        if !interface.is_empty() {
            let bound = address::interface_addresses(interface)
                .and_then(|own| address::bind_to_interface(bind, interface, &own));
            match self.take(bound) {
                Some((chosen, _)) => bind = chosen,
                None => return,
            }
        }
        if options.advertise.is_empty() {
            self.take(address::announced(bind.ip()));
        }
        self.can_listen("bind", bind, UdpSocket::bind(bind).map(drop));
        if options.encrypt_key.is_empty()
            && options.encrypt_key_file.is_empty()
            && options.keyring_file.is_empty()
        {
            self.warnings.push(
                "gossip is not encrypted: whoever reaches this host can join, read and forge; keygen makes a key for \
                 encrypt_key_file or keyring_file"
                    .to_owned(),
            );
        }
    }

    fn can_listen(&mut self, key: &str, addr: SocketAddr, bound: io::Result<()>) {
        match bound {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.warnings.push(format!(
                "{key}: somebody listens at {addr} already; if that is not this agent, it will not start"
            )),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                self.mistakes
                    .push(format!("{key}: {} is no address of this host", addr.ip()));
            }
            Err(error) => self
                .mistakes
                .push(format!("{key}: {addr}: {}", go::os_error(&error))),
        }
    }

    fn keys(&mut self, options: &Options) {
        let (file, ring) = (&options.encrypt_key_file, &options.keyring_file);
        self.exposed([file.as_str(), ring.as_str()].into_iter());
        let mut has_key = !options.encrypt_key.is_empty();
        if has_key && !file.is_empty() {
            self.mistakes
                .push("Encryption key not allowed while using an encryption key file".to_owned());
        }
        if has_key {
            let parsed = Key::parse(options.encrypt_key.expose());
            self.take(parsed.map_err(|e| format!("Invalid encryption key: {e}")));
        }
        if !file.is_empty() {
            has_key = true;
            if let Some(text) = self.take(files::read_secret(file)) {
                let parsed = Key::parse(text.expose());
                self.take(parsed.map_err(|e| format!("Invalid encryption key in '{file}': {e}")));
            }
        }
        if !ring.is_empty() {
            if has_key {
                self.mistakes
                    .push("Encryption key not allowed while using a keyring".to_owned());
            }
            self.take(fyrd_keys::file::load(Path::new(ring)).map_err(|e| e.to_string()));
            self.can_write("keyring_file", ring);
        }
        if !options.replay_window.is_zero() && !has_key && ring.is_empty() {
            self.mistakes
                .push("replay_window needs encryption: give a key as well, or leave it out".to_owned());
        }
    }

    /// What is kept over a restart.
    fn memory(&mut self, options: &Options) {
        if !options.tags_file.is_empty() {
            if !options.tags.is_empty() || !options.role.is_empty() {
                self.mistakes.push(TAGS_AND_TAGS_FILE.to_owned());
            }
            self.take(files::read_tags(&options.tags_file));
            self.can_write("tags_file", &options.tags_file);
        }
        if !options.log_file.is_empty() {
            self.can_write("log_file", &options.log_file);
        }
        match options.snapshot_path.as_str() {
            "" if options.rejoin_after_leave => self
                .warnings
                .push(REJOIN_WITHOUT_SNAPSHOT.trim_start_matches("Warning: ").to_owned()),
            "" => {}
            path => self.can_write("snapshot_path", path),
        }
    }

    /// A file that is replaced needs a folder that can be written to; one that stands may be written in place.
    fn can_write(&mut self, key: &str, path: &str) {
        let path = Path::new(path);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            self.mistakes
                .push(format!("{key}: there is no folder '{}'", folder.display()));
        } else if !is_writable(folder) && !is_writable(path) {
            self.mistakes.push(format!(
                "{key}: this user cannot write to '{}', where {} is kept",
                folder.display(),
                path.display()
            ));
        }
    }

    fn handlers(&mut self, options: &Options) {
        self.take(setup::handler_order(options));
        let Some(shell) = self.take(Shell::parse(&options.handler_shell)) else {
            return;
        };
        for text in &options.event_handlers {
            if let Some(spec) = self.take(HandlerSpec::parse(text, shell)) {
                self.has_program(&format!("event handler '{text}'"), &spec.script, shell);
            }
        }
    }

    fn has_program(&mut self, what: &str, line: &str, shell: Shell) {
        if let Some(trouble) = program::trouble(line, shell) {
            self.mistakes.push(format!("{what}: {trouble}"));
        }
    }

    #[cfg(feature = "templates")]
    fn templates(&mut self, options: &Options) {
        self.take(setup::templates(options));
        for spec in options
            .templates
            .iter()
            .filter_map(|text| templates::Spec::parse(text).ok())
        {
            let (source, name) = (spec.src.display().to_string(), spec.name());
            let text = std::fs::read_to_string(&spec.src)
                .map_err(|e| format!("template {name}: {}", go::open_error(&source, &e)));
            if let Some(text) = self.take(text) {
                self.take(templates::check(&source, &text).map_err(|e| format!("template {name}: {e}")));
            }
            self.can_write(&format!("template {name}"), &name);
            for (what, line) in [("check", &spec.check), ("command", &spec.command)] {
                if let Some(line) = line {
                    self.has_program(&format!("{what} of the template {name}"), line, Shell::System);
                }
            }
        }
    }

    /// Who may ask this agent, and where.
    fn clients(&mut self, options: &Options) {
        let rpc = self.listener("rpc_addr", &options.rpc_addr);
        if rpc.is_some_and(|ip| !ip.is_loopback()) && options.rpc_auth.is_empty() {
            self.warnings.push(format!(
                "whoever reaches {} can command this agent, and with it the cluster; rpc_auth asks for a token",
                options.rpc_addr
            ));
        }
        #[cfg(not(feature = "http"))]
        if !options.http_addr.is_empty() {
            self.mistakes
                .push("this program was built without HTTP, so it cannot take -http-addr".to_owned());
        }
        #[cfg(feature = "http")]
        if !options.http_addr.is_empty() {
            self.listener("http_addr", &options.http_addr);
            self.exposed([options.http_token_file.as_str()].into_iter());
            let exposure = self.take(Exposure::of(options)).flatten();
            let warning = exposure.and_then(|exposure| exposure.warning());
            self.warnings
                .extend(warning.map(|text| text.trim_start_matches("Warning: ").to_owned()));
        }
    }

    /// The address at which is listened; none for a path.
    fn listener(&mut self, key: &str, text: &str) -> Option<IpAddr> {
        if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
            self.can_write(key, path);
            return None;
        }
        let addr = self.take(address::parse(text, None).map_err(|e| format!("{key}: {e}")))?;
        self.can_listen(key, addr, TcpListener::bind(addr).map(drop));
        Some(addr.ip())
    }

    /// Names may be known elsewhere, or later, so that one is not known is no mistake.
    fn seeds(&mut self, options: &Options) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        for seed in options.start_join.iter().chain(&options.retry_join) {
            if let Some(line) = seeds::program(seed) {
                self.has_program(&format!("seed '{seed}'"), line, Shell::System);
                continue;
            }
            let look_up = async { tokio::time::timeout(LOOK_UP, resolve_seed(seed, DEFAULT_PORT)).await };
            match runtime.block_on(look_up) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.warnings.push(format!("seed '{seed}': {error}")),
                Err(_) => self.warnings.push(format!(
                    "seed '{seed}': no answer of the name servers within {}s",
                    LOOK_UP.as_secs()
                )),
            }
        }
        runtime.shutdown_background();
    }

    fn exposed<'a>(&mut self, paths: impl Iterator<Item = &'a str>) {
        let paths = paths.filter(|path| !path.is_empty());
        self.warnings.extend(paths.filter_map(files::exposed));
    }
}

#[cfg(unix)]
fn is_writable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Access lists of this system are not looked at.
#[cfg(not(unix))]
fn is_writable(path: &Path) -> bool {
    path.exists()
}

/// The variables of this process.
pub fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}
