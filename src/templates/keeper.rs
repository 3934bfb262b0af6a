//! Keeps files in step with the cluster: when members change, after a quiet time, and only if that is safe.
//!
//! A file is left as it is while this node may know too little (it has met nobody yet, it hears nobody, it leaves),
//! when the output would name fewer members than it must, and when a check does not like it. So a balancer never ends
//! up empty by mistake.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::engine::{self, Rendered};
use super::file::{self, Staged};
use super::spec::Spec;
use super::view::View;
use crate::events::hub::Subscription;
use crate::events::script::{self, Keep, Script};
use crate::events::shell::Shell;
use crate::pace::Pace;
use fyrd_core::bounds::HANDLER_OUTPUT;
use fyrd_core::serf::Event;

/// How long until what has failed is tried again, if no member changes before.
const RETRY: Duration = Duration::from_secs(30);

/// Members that come and go without a pause hold a file up for at most this many times its quiet time.
const IMPATIENCE: u32 = 10;

/// How often the same trouble is logged.
const REPEAT: Duration = Duration::from_secs(300);

/// Where a keeper learns of the cluster.
#[expect(async_fn_in_trait, reason = "all is done on the agent's own thread")]
pub trait Source: Clone + 'static {
    /// The cluster as it is, and what speaks against relying on it. Nothing from an agent that ends.
    async fn look(&self) -> Option<(View, Option<&'static str>)>;
    /// All events from now on, as the node tells them.
    async fn events(&self) -> Option<Subscription>;
}

/// All templates of an agent.
#[derive(Debug)]
pub struct Keeper {
    active: RefCell<Vec<Active>>,
    /// Counts changes of the cluster.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Active {
    spec: Rc<Spec>,
    report: Rc<RefCell<Report>>,
    /// Has it rendered though nothing is known to have changed.
    again: Rc<Notify>,
    /// Its task ends when this is gone.
    _alive: watch::Sender<()>,
}

/// How a template fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What stands against the file, if it is not as the cluster is.
    pub trouble: Option<String>,
    /// Whether that is a mistake, and not prudence.
    pub failed: bool,
    /// How often the file was written.
    pub written: u64,
    /// How often rendering, check, writing or command failed.
    pub failures: u64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match (&self.trouble, self.failed) {
            (None, _) => "current",
            (Some(_), false) => "held",
            (Some(_), true) => "failed",
        };
        write!(f, "{state} written={} failures={}", self.written, self.failures)?;
        match &self.trouble {
            Some(trouble) => write!(f, " ({trouble})"),
            None => Ok(()),
        }
    }
}

impl Default for Keeper {
    fn default() -> Keeper {
        Keeper {
            active: RefCell::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Keeper {
    /// Makes these the templates. One that was there before is rendered again, for its source may have changed.
    /// Within a `LocalRuntime`.
    pub fn replace(&self, specs: Vec<Spec>, source: &impl Source) {
        let mut old = self.active.take();
        let listens = !old.is_empty();
        let mut new = Vec::with_capacity(specs.len());
        for spec in specs {
            new.push(match old.iter().position(|active| *active.spec == spec) {
                Some(place) => {
                    let active = old.swap_remove(place);
                    active.again.notify_one();
                    active
                }
                None => self.start(spec, source.clone()),
            });
        }
        if !listens && !new.is_empty() {
            spawn_local(listen(source.clone(), self.changes.clone()));
        }
        self.active.replace(new);
    }

    /// How each template fares, by its file.
    pub fn reports(&self) -> BTreeMap<String, Report> {
        let active = self.active.borrow();
        let reports = active.iter().map(|a| (a.spec.name(), a.report.borrow().clone()));
        reports.collect()
    }

    fn start(&self, spec: Spec, source: impl Source) -> Active {
        let (alive, ended) = watch::channel(());
        let active = Active {
            spec: Rc::new(spec),
            report: Rc::default(),
            again: Rc::default(),
            _alive: alive,
        };
        let task = Task {
            spec: Rc::clone(&active.spec),
            report: Rc::clone(&active.report),
            again: Rc::clone(&active.again),
            source,
            command_due: false,
            repeats: Pace::new(REPEAT),
        };
        spawn_local(task.run(self.changes.subscribe(), ended));
        active
    }
}

/// Counts what may change a file, until nobody keeps one or the node is gone.
async fn listen(source: impl Source, changes: watch::Sender<u64>) {
    let Some(mut events) = source.events().await else {
        return;
    };
    // Whoever came before this is in no event.
    changes.send_modify(|count| *count += 1);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = changes.closed() => return,
        };
        match event.as_deref() {
            None => return,
            Some(Event::Member { .. } | Event::Isolation { .. }) => changes.send_modify(|count| *count += 1),
            Some(_) => {}
        }
    }
}

/// What keeps one file.
struct Task<S> {
    spec: Rc<Spec>,
    report: Rc<RefCell<Report>>,
    again: Rc<Notify>,
    source: S,
    /// The file has changed, and the command has not succeeded since.
    command_due: bool,
    repeats: Pace,
}

/// Why a file is not as the cluster is.
enum Trouble {
    /// It would not be safe.
    Held(String),
    /// Something does not work.
    Failed(String),
}

impl<S: Source> Task<S> {
    async fn run(mut self, mut changes: watch::Receiver<u64>, mut ended: watch::Receiver<()>) {
        loop {
            changes.mark_unchanged();
            let Some((view, doubt)) = self.source.look().await else {
                return;
            };
            let result = self.refresh(view, doubt).await;
            let failed = matches!(result, Err(Trouble::Failed(_)));
            self.note(result);
            let retry = async {
                if failed {
                    sleep(RETRY).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.be_quiet(&mut changes).await,
                    Err(_) => return,
                },
                () = self.again.notified() => {}
                () = retry => {}
                _ = ended.changed() => return,
            }
        }
    }

    /// Waits until members have been quiet for a while.
    async fn be_quiet(&self, changes: &mut watch::Receiver<u64>) {
        let start = Instant::now();
        while start.elapsed() < self.spec.wait * IMPATIENCE {
            tokio::select! {
                () = sleep(self.spec.wait) => return,
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    async fn refresh(&mut self, view: View, doubt: Option<&str>) -> Result<(), Trouble> {
        if let Some(doubt) = doubt {
            return Err(Trouble::Held(doubt.to_owned()));
        }
        let spec = Rc::clone(&self.spec);
        let rendered = render(&spec, view).await.map_err(Trouble::Failed)?;
        if rendered.named < spec.min {
            return Err(Trouble::Held(format!(
                "it would be written from {} living members, less than {}",
                rendered.named, spec.min
            )));
        }
        let named = rendered.named;
        let (path, mode) = (spec.dst.clone(), spec.mode);
        let staged = blocking(move || file::stage(&path, &rendered.text, mode)).await;
        if let Some(staged) = staged.map_err(Trouble::Failed)? {
            self.check(staged.path()).await.map_err(Trouble::Failed)?;
            let committed = blocking(move || Staged::commit(staged)).await;
            committed.map_err(Trouble::Failed)?;
            self.report.borrow_mut().written += 1;
            self.command_due = spec.command.is_some();
            info!(target: "agent", "Template {}: written from {named} members", spec.name());
        }
        if let Some(command) = spec.command.as_deref().filter(|_| self.command_due) {
            self.execute("command", command).await.map_err(Trouble::Failed)?;
            self.command_due = false;
        }
        Ok(())
    }

    async fn check(&self, staged: &Path) -> Result<(), String> {
        let Some(check) = &self.spec.check else {
            return Ok(());
        };
        let command = check.replace("{}", &quoted(&staged.to_string_lossy()));
        self.execute("check", &command).await
    }

    async fn execute(&self, what: &str, command: &str) -> Result<(), String> {
        let script = Script {
            command,
            shell: Shell::System,
            variables: vec![
                (
                    "FYRD_TEMPLATE_SRC".to_owned(),
                    self.spec.src.display().to_string(),
                ),
                (
                    "FYRD_TEMPLATE_DST".to_owned(),
                    self.spec.dst.display().to_string(),
                ),
            ],
            input: Vec::new(),
            time_limit: Some(self.spec.timeout),
            keep: Keep::Last(HANDLER_OUTPUT),
            complaints_apart: false,
        };
        let outcome = script::run(&script, std::future::pending()).await;
        let said = outcome.last_words();
        outcome
            .result
            .map_err(|failure| format!("{what} '{command}': {failure}{said}"))
    }

    fn note(&mut self, result: Result<(), Trouble>) {
        let name = self.spec.name();
        let mut report = self.report.borrow_mut();
        let (trouble, failed) = match result {
            Ok(()) => {
                if report.trouble.take().is_some() {
                    info!(target: "agent", "Template {name}: as the cluster is again");
                }
                report.failed = false;
                return;
            }
            Err(Trouble::Held(trouble)) => (trouble, false),
            Err(Trouble::Failed(trouble)) => (trouble, true),
        };
        report.failures += u64::from(failed);
        let is_new = report.trouble.as_ref() != Some(&trouble);
        if self.repeats.allows(Instant::now()) || is_new {
            if failed {
                error!(target: "agent", "Template {name}: {trouble}");
            } else {
                warn!(target: "agent", "Template {name} is left as it is: {trouble}");
            }
        }
        (report.trouble, report.failed) = (Some(trouble), failed);
    }
}

async fn render(spec: &Spec, view: View) -> Result<Rendered, String> {
    let src = spec.src.clone();
    blocking(move || {
        let name = src.display().to_string();
        let source = std::fs::read_to_string(&src).map_err(|error| format!("cannot read {name}: {error}"))?;
        engine::render(&name, &source, &view)
    })
    .await
}

/// Disks and templates take their time, which is not gossip's.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(unix)]
fn quoted(path: &str) -> String {
    shell_words::quote(path).into_owned()
}

#[cfg(not(unix))]
fn quoted(path: &str) -> String {
    format!("\"{path}\"")
}
