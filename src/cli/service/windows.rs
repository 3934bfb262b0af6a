//! The service as Windows runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use fyrd_keys::access;
use tokio::sync::mpsc;
use windows_service::service::{
    Service, ServiceAccess, ServiceControl, ServiceControlAccept, ServiceErrorControl, ServiceExitCode,
    ServiceInfo, ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use crate::agent::logging::{Console, Level};
use crate::agent::options::Options;
use crate::agent::signals::{Signal, Source};
use crate::agent::{event_log, run_on};

/// What the list of services shows.
const DISPLAY_NAME: &str = "Fyrd cluster agent";
const DESCRIPTION: &str = "Keeps the list of living members of a cluster, and runs handlers at its events.";

/// The service manager's numbers for what goes wrong most.
const ERROR_SERVICE_DOES_NOT_EXIST: i32 = 1060;
/// It is stopping already.
const ERROR_SERVICE_CANNOT_ACCEPT_CTRL: i32 = 1061;
const ERROR_SERVICE_NOT_ACTIVE: i32 = 1062;
const ERROR_FAILED_SERVICE_CONTROLLER_CONNECT: i32 = 1063;

/// How long the manager gives an agent that stops: longer than the agent gives itself.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How often the state of a service that stops is asked for.
const STOP_POLL: Duration = Duration::from_millis(100);

/// Registers service and event source; a line for the user.
pub fn install(name: &str, config: Option<&str>) -> Result<String, String> {
    let program = env::current_exe().map_err(|e| format!("This program's own path is unknown: {e}"))?;
    let config = config_path(config)?;
    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
    prepare(&config)?;
    let info = ServiceInfo {
        name: name.into(),
        display_name: if name == super::NAME {
            DISPLAY_NAME.into()
        } else {
            format!("{DISPLAY_NAME} ({name})").into()
        },
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: launch_arguments(name, &config),
        dependencies: Vec::new(),
        account_name: None,
        account_password: None,
    };
    let service = manager
        .create_service(&info, ServiceAccess::CHANGE_CONFIG | ServiceAccess::DELETE)
        .map_err(|e| format!("Service '{name}' was not installed: {}", reason(&e)))?;
    // A service without these two is none the worse for it otherwise.
    let described = service.set_description(DESCRIPTION).map_err(|e| reason(&e));
    let registered = event_log::register();
    let mut line = format!(
        "Service '{name}' is installed. It reads {}. Start it with: sc start {name}",
        config.display()
    );
    if let Err(e) = described.and(registered) {
        line.push_str(&format!(
            "\nIts entries in the event log will lack a description: {e}"
        ));
    }
    Ok(line)
}

/// Stops the service, and removes it and its event source; a line for the user.
pub fn uninstall(name: &str) -> Result<String, String> {
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let failed = |e: windows_service::Error| match os_code(&e) {
        Some(ERROR_SERVICE_DOES_NOT_EXIST) => format!("There is no service '{name}'"),
        _ => format!("Service '{name}' was not uninstalled: {}", reason(&e)),
    };
    let service = manager.open_service(name, access).map_err(failed)?;
    stop(&service).map_err(failed)?;
    service.delete().map_err(failed)?;
    // A service that never wrote an entry, or one of several, may have left none.
    let _ = event_log::deregister();
    Ok(format!(
        "Service '{name}' is uninstalled. Its configuration stays."
    ))
}

/// Waits until the service has stopped; one that takes too long ends when the system does.
fn stop(service: &Service) -> windows_service::Result<()> {
    let needless = [ERROR_SERVICE_CANNOT_ACCEPT_CTRL, ERROR_SERVICE_NOT_ACTIVE];
    if let Err(e) = service.stop()
        && !os_code(&e).is_some_and(|code| needless.contains(&code))
    {
        return Err(e);
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    while service.query_status()?.current_state != ServiceState::Stopped && Instant::now() < deadline {
        std::thread::sleep(STOP_POLL);
    }
    Ok(())
}

fn manager(access: ServiceManagerAccess) -> Result<ServiceManager, String> {
    ServiceManager::local_computer(None::<&str>, access).map_err(|e| {
        format!(
            "The service manager refuses: {}. Only administrators can do this",
            reason(&e)
        )
    })
}

fn launch_arguments(name: &str, config: &Path) -> Vec<OsString> {
    let mut config_flag = OsString::from("-config-dir=");
    config_flag.push(config);
    vec![
        "service".into(),
        "run".into(),
        format!("-name={name}").into(),
        config_flag,
    ]
}

/// Where the configuration is, whatever the directory in which a service starts.
fn config_path(given: Option<&str>) -> Result<PathBuf, String> {
    match given {
        Some(path) => std::path::absolute(path).map_err(|e| format!("-config-dir={path}: {e}")),
        None => env::var_os("ProgramData")
            .map(|data| Path::new(&data).join("Fyrd"))
            .ok_or_else(|| "The variable ProgramData is not set, so -config-dir must be given".to_owned()),
    }
}

/// Makes the directory for the configuration, or sees to it that nobody without rights made the one that is
/// there: any user can make directories where the one of all programs' data is.
fn prepare(config: &Path) -> Result<(), String> {
    let failed = |what: &str, e: io::Error| format!("{what} {}: {e}", config.display());
    if config.try_exists().map_err(|e| failed("look for", e))? {
        return match access::is_trusted(config).map_err(|e| failed("find the owner of", e))? {
            true => Ok(()),
            false => Err(format!(
                "{} belongs neither to you nor to the administrators, so its owner could run programs as the \
                 system. Give it to the administrators: icacls \"{0}\" /setowner *S-1-5-32-544 /T",
                config.display()
            )),
        };
    }
    fs::create_dir_all(config).map_err(|e| failed("create", e))?;
    access::administrators_only(config).map_err(|e| failed("restrict access to", e))
}

/// What the service manager's call to [`service_main`] needs to know.
static CALL: OnceLock<(String, PathBuf)> = OnceLock::new();

define_windows_service!(raw_service_main, service_main);

/// Connects to the service manager that started this process, and runs the agent until it is stopped.
pub fn run(name: &str, config: Option<&str>) -> Result<String, String> {
    let config = config_path(config)?;
    CALL.get_or_init(|| (name.to_owned(), config));
    match service_dispatcher::start(name, raw_service_main) {
        Ok(()) => Ok(String::new()),
        Err(e) if os_code(&e) == Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) => Err(format!(
            "Only the service manager runs this, for example after: sc start {name}. To run an agent here and \
             now, use the command agent"
        )),
        Err(e) => Err(format!("The service manager refuses: {}", reason(&e))),
    }
}

/// The service's own thread. There is nobody to tell of an error but the event log.
fn service_main(_arguments: Vec<OsString>) {
    if let Some((name, config)) = CALL.get()
        && let Err(line) = serve(name, config)
    {
        let _ = event_log::report(Level::Err, &line);
    }
    // The manager knows that the service has stopped, and there is no other in this process. Not every
    // system (wine) lets go of the main thread by itself.
    std::process::exit(0);
}

fn serve(name: &str, config: &Path) -> Result<(), String> {
    let (manager, signals) = mpsc::unbounded_channel();
    let stopping = Arc::new(AtomicBool::new(false));
    let handle: Arc<OnceLock<ServiceStatusHandle>> = Arc::default();
    let (of_control, was_stopped) = (Arc::clone(&handle), Arc::clone(&stopping));
    let control = move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            stopping.store(true, Ordering::Release);
            if let Some(handle) = of_control.get() {
                // A manager that does not hear this only shows an older state.
                let _ =
                    handle.set_service_status(status(ServiceState::StopPending, ServiceExitCode::NO_ERROR));
            }
            let _ = manager.send(Signal::Terminate);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::ParamChange => {
            let _ = manager.send(Signal::Hangup);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let failed = |e: windows_service::Error| format!("The service manager refuses: {}", reason(&e));
    let registered = service_control_handler::register(name, control).map_err(failed)?;
    let handle = *handle.get_or_init(|| registered);
    let tell = |state, code| handle.set_service_status(status(state, code)).map_err(failed);
    tell(ServiceState::Running, ServiceExitCode::NO_ERROR)?;
    let ended = run_agent(config, Source::Manager(signals));
    let code = match ended {
        Ok(0) => ServiceExitCode::NO_ERROR,
        // An agent that is not to leave ends with the code of a failure; that of its service is none.
        _ if was_stopped.load(Ordering::Acquire) => ServiceExitCode::NO_ERROR,
        Ok(code) => ServiceExitCode::ServiceSpecific(code.into()),
        Err(_) => ServiceExitCode::ServiceSpecific(1),
    };
    tell(ServiceState::Stopped, code)?;
    ended.map(drop)
}

/// Runs the agent in the directory of its configuration, with the event log for a console.
fn run_agent(config: &Path, signals: Source) -> Result<u8, String> {
    let directory = if config.is_dir() {
        Some(config)
    } else {
        config.parent()
    };
    if let Some(directory) = directory {
        // Relative paths are then relative to where the service started.
        let _ = env::set_current_dir(directory);
    }
    let flags = Options {
        enable_syslog: true,
        ..Options::default()
    };
    let paths = [config.to_string_lossy().into_owned()];
    run_on(Console::new(Box::new(io::sink())), signals, &paths, flags)
}

fn status(current_state: ServiceState, exit_code: ServiceExitCode) -> ServiceStatus {
    let running = current_state == ServiceState::Running;
    ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state,
        controls_accepted: if running {
            ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN | ServiceControlAccept::PARAM_CHANGE
        } else {
            ServiceControlAccept::empty()
        },
        exit_code,
        checkpoint: 0,
        wait_hint: if current_state == ServiceState::StopPending {
            STOP_PATIENCE
        } else {
            Duration::ZERO
        },
        process_id: None,
    }
}

/// The system's own words, which the library keeps one level below.
fn reason(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn os_code(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}
