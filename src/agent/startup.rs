//! Start-up: settings, sockets, node, RPC, first join; each step only when the one before succeeded.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tracing::{info, warn};

use super::beginning::Beginning;
use super::event_loop::EventLoop;
#[cfg(feature = "http")]
use super::exposure::Exposed;
use super::log_form::Form;
use super::logging::Console;
use super::mdns::Discovery;
use super::options::Options;
use super::past::Past;
use super::reload::Reload;
use super::service_manager::{self, News};
use super::setup::{self, Setup};
use super::shutdown::{self, FAILED, Running};
use super::signals::{Signal, Signals, Source};
use super::{
    Agent, Places, Shared, address, advice, descriptors, event_loop, files, query_router, telemetry,
};
use crate::driver::{BindError, Driver, DriverConfig, Handle, Sockets};
use crate::events::handlers::Handlers;
#[cfg(target_os = "linux")]
use crate::events::orphans;
use crate::go;
use crate::rpc::dial::UNIX_PREFIX;
use crate::rpc::server::{self, Listener};
use crate::snapshot::Watch;
use fyrd_core::node::{Input, NodeConfig};
use fyrd_core::serf::{RetryJoin, Seeds};

/// How long work on other threads may go on when all else has ended.
const THREAD_PATIENCE: Duration = Duration::from_secs(1);

/// What the service manager shows.
const SERVING: &str = "Serving";

/// Runs an agent: the files at `paths`, overlaid by what `flags` say. Comes back with the exit code.
pub fn run(paths: &[String], flags: Options) -> u8 {
    let code = run_on(Console::stdout(), Source::Process, paths, flags);
    code.unwrap_or(FAILED)
}

/// Runs an agent that speaks to this console and listens to these signals. The error is why it did not
/// start, and was said on the console as well.
pub fn run_on(console: Console, signals: Source, paths: &[String], flags: Options) -> Result<u8, String> {
    console.receive_log();
    let ended = start(paths, flags, signals, &console);
    if let Err(line) = &ended {
        console.headline(line);
        advice::on(line).iter().for_each(|advice| console.hint(advice));
    }
    console.finish();
    ended
}

fn start(paths: &[String], flags: Options, signals: Source, console: &Console) -> Result<u8, String> {
    let (mut options, sources) = files::read_options(paths, &flags)?;
    console.set_form(Form::parse(&options.log_format)?);
    sources.remarks.iter().for_each(|remark| console.headline(remark));
    setup::check(&mut options, console)?;
    let in_force = options.clone();
    let setup = Setup::make(options, console)?;
    let reload = Reload::new(paths, sources, flags, in_force, setup.protocol);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Not a `LocalSet`: each wake of one of its tasks costs two system calls.
        .build_local(LocalOptions::default())
        .map_err(|e| format!("Failed to start the Serf agent: {}", go::os_error(&e)))?;
    let ended = runtime.block_on(async {
        // What a start needs is much, and given back before the agent begins its long life.
        let started = Box::pin(begin(setup, reload, signals, console)).await?;
        match started {
            Started::Runs(running) => Ok(shutdown::watch(*running, console).await),
            Started::Ended(code) => Ok(code),
        }
    });
    // A name that is still looked up would hold up the end for as long as its servers are silent. A file
    // that is being written is whole either way.
    runtime.shutdown_timeout(THREAD_PATIENCE);
    ended
}

/// What a start has come to.
enum Started {
    Runs(Box<Running>),
    /// It has ended already, with this exit code.
    Ended(u8),
}

/// Starts everything.
async fn begin(
    mut setup: Setup,
    reload: Reload,
    signals: Source,
    console: &Console,
) -> Result<Started, String> {
    let signals =
        Signals::new(signals).map_err(|e| format!("Failed to start the Serf agent: {}", go::os_error(&e)))?;
    info!(target: "agent", "Serf agent starting");
    let past = Past::load(&setup)?;
    let watch = past.watch.clone();
    let remembers = past.remembers_living();
    let gossip = create(&mut setup, past)
        .await
        .map_err(|e| format!("Failed to start the Serf agent: Error creating Serf: {e}"))?;
    let bound = gossip.bound;
    let discovery = discover(&setup, bound).map_err(|e| format!("Error starting mDNS listener: {e}"))?;
    let rpc = listen_for_rpc(&setup.rpc_addr)
        .await
        .map_err(|e| format!("Error starting RPC listener: {e}"))?;
    #[cfg(feature = "http")]
    let exposed = listen_for_http(&mut setup, console).await?;
    let agent = make_agent(&mut setup, &gossip, watch, remembers, console);
    let (events, finish_events) = start_listeners(&agent, &setup).await?;
    #[cfg(target_os = "linux")]
    spawn_local(orphans::reap());
    let driver = spawn_local(gossip.driver.run());
    console.headline("Starting Serf agent RPC...");
    if setup.rpc_auth.is_empty()
        && address::parse(&setup.rpc_addr, None).is_ok_and(|addr| !addr.ip().is_loopback())
    {
        warn!(
            target: "agent.ipc",
            "Who reaches {} can command this agent, and with it the cluster: rpc_auth asks for a token",
            setup.rpc_addr
        );
    }
    let rpc = spawn_local(server::serve(rpc, agent.clone()));
    #[cfg(feature = "http")]
    if let Some(exposed) = exposed {
        exposed.serve(&agent);
    }
    if let Some(discovery) = discovery {
        spawn_local(discovery.run(agent.clone()));
    }
    banner(&setup, agent.0.encrypted, console);
    let joining = format!("Serving; joining {}", setup.start_join.join(", "));
    service_manager::tell(News::Ready(match setup.start_join.len() {
        0 => SERVING,
        _ => &joining,
    }));
    #[cfg(feature = "templates")]
    agent
        .0
        .templates
        .replace(std::mem::take(&mut setup.templates), &agent);
    service_manager::feed_watchdog(agent.0.driver.clone());
    let mut running = Running {
        agent,
        driver,
        rpc,
        signals,
        reload: Rc::new(reload),
        events,
        finish_events,
    };
    if let Some(ended) = first_join(&setup, &mut running, console).await {
        shutdown::close(running).await;
        return ended.map(Started::Ended);
    }
    console.plain("");
    console.headline("Log data will now stream in as it occurs:\n");
    console.open_gate();
    service_manager::tell(News::Status(SERVING));
    // Without a node, the end is near.
    let _ = running.agent.0.driver.tell(Input::Seeds(seeds(&setup))).await;
    spawn_local(Rc::clone(&running.reload).serve(running.agent.clone(), console.clone()));
    spawn_local(settle_log(console.clone()));
    Ok(Started::Runs(Box::new(running)))
}

/// Has the log tell of what it held back, for as long as the agent runs.
async fn settle_log(console: Console) {
    let held_back = console.held_back();
    loop {
        held_back.notified().await;
        while console.settle() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A node that does not run yet, behind its sockets.
struct Gossip {
    driver: Driver,
    handle: Handle,
    /// Where it gossips.
    bound: SocketAddr,
    /// Where others are told that it does.
    announced: SocketAddr,
    encrypted: bool,
}

/// Opens the gossip sockets and makes the node behind them.
async fn create(setup: &mut Setup, past: Past) -> Result<Gossip, String> {
    // Without an address to announce, nothing is bound.
    setup.announced(setup.bind)?;
    let sockets = open_sockets(setup.bind)
        .await
        .map_err(|e| format!("Failed to create memberlist: {e}"))?
        .at(setup.home);
    let bound = SocketAddr::new(setup.bind.ip(), sockets.local_addr().port());
    let (addr, port) = setup.announced(bound)?;
    let announced = SocketAddr::new(addr.ip(), port);
    let seed = SysRng.try_next_u64().map_err(|e| e.to_string())?;
    let node = NodeConfig {
        addr,
        port,
        tags: setup.tags.clone(),
        protocol: setup.protocol,
        user_event_size_limit: setup.user_event_size_limit,
        query_size_limit: setup.query_size_limit,
        query_response_size_limit: setup.query_response_size_limit,
        resolve_name_conflicts: setup.resolve_name_conflicts,
        disable_coordinates: setup.disable_coordinates,
        memory: past.memory,
        left: past.left,
        rejoin_after_leave: setup.rejoin_after_leave,
        replay: setup.replay,
        ..NodeConfig::new(&setup.name, bound, setup.profile.clone(), seed)
    };
    let encrypted = setup.keyring.is_some();
    if encrypted {
        forbid_core_dumps();
    } else {
        if address::is_public(addr.ip()) {
            warn!(target: "memberlist", "Binding to public address without encryption!");
        }
        warn!(target: "agent", "Gossip is not encrypted: who reaches this host can join, read and forge (-encrypt, -keyring-file)");
    }
    let config = DriverConfig {
        node,
        keyring: setup.keyring.take(),
        keyring_file: setup.keyring_file.take(),
        label: setup.label.clone().into_bytes(),
        replay_window: setup.replay_window,
        compress: setup.compress,
        recorder: past.recorder,
    };
    let (driver, handle) = Driver::new(sockets, config)?;
    Ok(Gossip {
        driver,
        handle,
        bound,
        announced,
        encrypted,
    })
}

/// Keeps the keys out of the files that a crash leaves behind. Scripts can raise their own limit again.
#[cfg(unix)]
fn forbid_core_dumps() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let forbidden =
        getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    if let Err(error) = forbidden {
        warn!(target: "agent", "Could not switch core dumps off, one would hold the keys: {}", error.desc());
    }
}

/// This system keeps none by itself.
#[cfg(not(unix))]
fn forbid_core_dumps() {}

fn make_agent(
    setup: &mut Setup,
    gossip: &Gossip,
    watch: Option<Watch>,
    remembers: bool,
    console: &Console,
) -> Agent {
    let named = !setup.start_join.is_empty() || !setup.retry_join.is_empty();
    let seeks = named || setup.discover.is_some() || remembers;
    let handlers = Handlers::new(gossip.handle.clone(), setup.name.clone());
    handlers.replace(
        std::mem::take(&mut setup.handlers),
        setup.handler_order,
        setup.handler_timeout,
    );
    Agent(Rc::new(Shared {
        driver: gossip.handle.clone(),
        hub: Rc::default(),
        queries: Rc::default(),
        console: console.clone(),
        handlers: Rc::new(handlers),
        telemetry: telemetry::Metrics::new(&setup.telemetry),
        name: setup.name.clone(),
        rpc_auth: setup.rpc_auth.clone(),
        beginning: Beginning::now(seeks, setup.profile.name.clone()),
        places: Places {
            gossip: gossip.announced.to_string(),
            rpc: setup.rpc_addr.clone(),
            http: setup.http_addr.clone(),
        },
        #[cfg(feature = "templates")]
        templates: Default::default(),
        rpc_limits: descriptors::share(setup.rpc_limits),
        tags_file: setup.tags_file.clone(),
        tags_change: tokio::sync::Mutex::new(()),
        encrypted: gossip.encrypted,
        label: setup.label.clone(),
        bind_port: gossip.bound.port(),
        home: setup.home,
        left: Cell::new(false),
        snapshot: watch,
    }))
}

/// Starts all that listens to the node. Its first event is its own join, so this comes before the driver runs.
/// Gives the event loop, and what makes it end.
async fn start_listeners(
    agent: &Agent,
    setup: &Setup,
) -> Result<(JoinHandle<()>, oneshot::Sender<()>), String> {
    let shared = &agent.0;
    let node = &shared.driver;
    if let Ok(events) = node.subscribe(telemetry::EVENT_QUEUE).await {
        spawn_local(telemetry::run(shared.telemetry.clone(), node.clone(), events));
    }
    let (finish_events, finish) = oneshot::channel();
    let event_loop = EventLoop::new(
        &setup.profile.serf,
        Rc::clone(&shared.handlers),
        Rc::clone(&shared.hub),
    );
    let events = node
        .subscribe(event_loop::EVENT_QUEUE)
        .await
        .map_err(|stopped| format!("Failed to start the Serf agent: {stopped}"))?;
    let events = spawn_local(event_loop.run(events, finish));
    if let Ok(asked) = node.subscribe_look_ups().await {
        spawn_local(agent.clone().look_up_for_node(asked));
    }
    if let Ok(updates) = node.subscribe_queries(query_router::UPDATE_QUEUE).await {
        spawn_local(Rc::clone(&shared.queries).run(updates));
    }
    Ok((events, finish_events))
}

/// Discovery, if it is wanted, announces what the gossip announces.
fn discover(setup: &Setup, bound: SocketAddr) -> Result<Option<Discovery>, String> {
    let Some(settings) = &setup.discover else {
        return Ok(None);
    };
    let (addr, port) = setup.announced(bound)?;
    Discovery::open(settings, &setup.name, addr.socket(port)).map(Some)
}

/// Whom the node looks after from the end of the start on.
fn seeds(setup: &Setup) -> Seeds {
    Seeds {
        joined: setup.start_join.clone(),
        retry: (!setup.retry_join.is_empty()).then(|| RetryJoin {
            names: setup.retry_join.clone(),
            every: setup.retry_interval,
            max: setup.retry_max,
        }),
    }
}

/// Bound to all of IPv4, an agent also takes and reaches IPv6 where there is any, as Serf does: the
/// address that it announces may be one.
async fn open_sockets(bind: SocketAddr) -> Result<Sockets, BindError> {
    if bind.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), bind.port());
        if let Ok(sockets) = Sockets::bind(both).await {
            return Ok(sockets);
        }
    }
    Sockets::bind(bind).await
}

async fn listen_for_rpc(text: &str) -> Result<Listener, String> {
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        return Listener::unix(path);
    }
    let addr = address::parse(text, None).map_err(|e| format!("listen tcp: {e}"))?;
    Listener::tcp(addr).await
}

#[cfg(feature = "http")]
async fn listen_for_http(setup: &mut Setup, console: &Console) -> Result<Option<Exposed>, String> {
    let Some(exposure) = setup.exposure.take() else {
        return Ok(None);
    };
    if let Some(warning) = exposure.warning() {
        console.headline(&warning);
    }
    let listening = exposure.listen().await;
    listening
        .map(Some)
        .map_err(|e| format!("Error starting HTTP listener: {e}"))
}

fn banner(setup: &Setup, encrypted: bool, console: &Console) {
    console.headline("Serf agent running!");
    console.detail(&format!("                  Node name: '{}'", setup.name));
    console.detail(&format!("                  Bind addr: '{}'", setup.bind));
    if let Some(addr) = setup.advertise {
        console.detail(&format!("Advertise addr: '{addr}'"));
    }
    console.detail(&format!("                   RPC addr: '{}'", setup.rpc_addr));
    console.detail(&format!("                  Encrypted: {encrypted}"));
    if !setup.label.is_empty() {
        console.detail(&format!("                      Label: '{}'", setup.label));
    }
    console.detail(&format!(
        "                   Snapshot: {}",
        setup.snapshot.is_some()
    ));
    console.detail(&format!("                    Profile: {}", setup.profile.name));
    console.detail(&format!("Message Compression Enabled: {}", setup.compress));
    if let Some(settings) = &setup.discover {
        console.detail(&format!("               mDNS cluster: {}", settings.cluster));
    }
}

/// The join that must succeed. A result when the agent ends here.
async fn first_join(setup: &Setup, running: &mut Running, console: &Console) -> Option<Result<u8, String>> {
    if setup.start_join.is_empty() {
        return None;
    }
    console.headline(&format!("Joining cluster...(replay: {})", setup.replay));
    let agent = running.agent.clone();
    let joining = agent.join_seeds(&setup.start_join, setup.replay);
    tokio::pin!(joining);
    loop {
        tokio::select! {
            joined = &mut joining => match joined {
                Ok(joined) => {
                    let contacted = joined.contacted;
                    console.detail(&format!("Join completed. Synced with {contacted} initial agents"));
                    return None;
                }
                Err(reason) => return Some(Err(reason)),
            },
            signal = running.signals.next() => {
                console.headline(&format!("Caught signal: {}", signal.as_str()));
                if signal != Signal::Hangup {
                    return Some(Ok(FAILED));
                }
                // Its turn comes when the start is over.
                running.reload.request();
            }
        }
    }
}
