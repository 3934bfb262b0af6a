//! Event handlers: each runs its script once an event, in order, from a queue of its own.
//!
//! A slow script delays neither gossip nor another handler: its events wait, up to a bound, and more of them
//! are dropped, counted and logged.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::environment;
use super::filter::{HandlerSpec, kind};
use super::script::{self, Failure, Script};
use crate::driver::Handle;
use crate::pace::Pace;
use crate::queue::{self, Offered};
use fyrd_core::bounds::HANDLER_QUEUE;
use fyrd_core::serf::{Answer, Command, Event, Member, MemberEventKind, Tags};

/// How often at most one handler's drops are logged.
const DROP_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All handlers of an agent.
#[derive(Debug)]
pub struct Handlers {
    surroundings: Rc<Surroundings>,
    active: RefCell<Vec<Handler>>,
    workers: RefCell<JoinSet<()>>,
}

/// What scripts share.
#[derive(Debug)]
struct Surroundings {
    node: Handle,
    name: String,
    /// This node's tags, as the last event about itself showed them.
    tags: RefCell<Tags>,
    time_limit: Cell<Option<Duration>>,
    /// Turns to `true` when scripts have to end.
    stop: watch::Sender<bool>,
}

/// One handler, for the agent: its queue, and what it has done.
#[derive(Debug)]
struct Handler {
    spec: Rc<HandlerSpec>,
    queue: queue::Sender<Arc<Event>>,
    figures: Rc<Figures>,
    drops_told: Pace,
}

#[derive(Debug, Default)]
struct Figures {
    running: Cell<bool>,
    done: Cell<u64>,
    failed: Cell<u64>,
    ended: Cell<u64>,
}

/// What one handler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandlerFigures {
    /// Events that wait for it.
    pub queued: usize,
    /// Whether its script runs.
    pub running: bool,
    /// Runs that ended well.
    pub done: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Runs that were ended, at the time limit or with the agent.
    pub ended: u64,
    /// Events that found no room to wait.
    pub dropped: u64,
}

impl std::fmt::Display for HandlerFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HandlerFigures {
            queued,
            running,
            done,
            failed,
            ended,
            dropped,
        } = self;
        let running = u8::from(*running);
        write!(
            f,
            "queued={queued} running={running} done={done} failed={failed} ended={ended} dropped={dropped}"
        )
    }
}

/// One handler's task, which runs the script.
struct Worker {
    surroundings: Rc<Surroundings>,
    spec: Rc<HandlerSpec>,
    queue: queue::Receiver<Arc<Event>>,
    figures: Rc<Figures>,
}

impl Handlers {
    /// No handlers yet, for the node behind `node` with this name.
    pub fn new(node: Handle, name: String) -> Handlers {
        Handlers {
            surroundings: Rc::new(Surroundings {
                node,
                name,
                tags: RefCell::default(),
                time_limit: Cell::new(None),
                stop: watch::Sender::new(false),
            }),
            active: RefCell::default(),
            workers: RefCell::default(),
        }
    }

    /// Makes these the handlers, from the next event on; to be called within a `LocalSet`. One that was
    /// there before goes on, with its queue; one that is gone still handles what it was given.
    pub fn replace(&self, specs: Vec<HandlerSpec>, time_limit: Option<Duration>) {
        self.surroundings.time_limit.set(time_limit);
        let mut workers = self.workers.borrow_mut();
        while workers.try_join_next().is_some() {}
        let mut old = self.active.take();
        let mut new = Vec::with_capacity(specs.len());
        for spec in specs {
            new.push(match old.iter().position(|handler| *handler.spec == spec) {
                Some(place) => old.swap_remove(place),
                None => {
                    let (handler, worker) = Handler::new(spec, &self.surroundings);
                    workers.spawn_local(worker.run());
                    handler
                }
            });
        }
        self.active.replace(new);
    }

    /// Takes this node's own tags from what is told of members: scripts that start from now on see these.
    pub fn learn_tags(&self, kind: MemberEventKind, members: &[Arc<Member>]) {
        let me = |member: &&Arc<Member>| *member.name == *self.surroundings.name;
        if let (MemberEventKind::Join | MemberEventKind::Update, Some(member)) =
            (kind, members.iter().find(me))
        {
            self.surroundings.tags.replace(member.tags.clone());
        }
    }

    /// Gives an event to every handler that wants it.
    pub fn handle(&self, event: &Arc<Event>) {
        for handler in self.active.borrow().iter() {
            for filter in &handler.spec.filters {
                if filter.matches(event) {
                    handler.push(event);
                }
            }
        }
    }

    /// Takes no more events, and waits until all have been handled or `patience` is over; what runs
    /// then is ended, and what waits is dropped.
    pub async fn finish(&self, patience: impl Future<Output = ()>) {
        self.active.take();
        let mut workers = self.workers.take();
        let done = async { while workers.join_next().await.is_some() {} };
        tokio::select! {
            () = done => return,
            () = patience => {}
        }
        warn!(target: "agent", "Ending {} event handlers that still run", workers.len());
        self.surroundings.stop.send_replace(true);
        while workers.join_next().await.is_some() {}
    }

    /// Filters and scripts, as clients know them (docs/compatibility.md#commands).
    pub fn scripts(&self) -> BTreeMap<String, String> {
        let mut scripts = BTreeMap::new();
        for handler in self.active.borrow().iter() {
            for filter in &handler.spec.filters {
                scripts.insert(
                    format!("{}:{}", filter.event, filter.name),
                    handler.spec.script.clone(),
                );
            }
        }
        scripts
    }

    /// What each handler has done, under the text that defines it; empty without handlers.
    pub fn figures(&self) -> BTreeMap<String, HandlerFigures> {
        let mut figures = BTreeMap::new();
        for handler in self.active.borrow().iter() {
            let mut key = handler.spec.text.clone();
            while figures.contains_key(&key) {
                key.push_str(" (again)");
            }
            figures.insert(key, handler.figures());
        }
        figures
    }
}

impl Handler {
    fn new(spec: HandlerSpec, surroundings: &Rc<Surroundings>) -> (Handler, Worker) {
        let (sender, queue) = queue::bounded(HANDLER_QUEUE);
        let (spec, figures) = (Rc::new(spec), Rc::new(Figures::default()));
        let worker = Worker {
            surroundings: Rc::clone(surroundings),
            spec: Rc::clone(&spec),
            queue,
            figures: Rc::clone(&figures),
        };
        let handler = Handler {
            spec,
            queue: sender,
            figures,
            drops_told: Pace::new(DROP_LOG_INTERVAL),
        };
        (handler, worker)
    }

    fn push(&self, event: &Arc<Event>) {
        let offered = self.queue.offer(Arc::clone(event));
        if offered == Offered::Lost && self.drops_told.allows(Instant::now()) {
            warn!(
                target: "agent",
                "Script '{}' is too slow: {HANDLER_QUEUE} events wait for it, {} were dropped so far",
                self.spec.script, self.queue.lost()
            );
        }
    }

    fn figures(&self) -> HandlerFigures {
        let Figures {
            running,
            done,
            failed,
            ended,
        } = &*self.figures;
        HandlerFigures {
            queued: self.queue.waiting(),
            running: running.get(),
            done: done.get(),
            failed: failed.get(),
            ended: ended.get(),
            dropped: self.queue.lost(),
        }
    }
}

impl Worker {
    async fn run(mut self) {
        while let Some(event) = self.queue.recv().await {
            if *self.surroundings.stop.borrow() {
                return;
            }
            self.figures.running.set(true);
            self.invoke(&event).await;
            self.figures.running.set(false);
        }
    }

    async fn invoke(&self, event: &Event) {
        let Surroundings {
            node,
            name,
            tags,
            time_limit,
            stop,
        } = &*self.surroundings;
        let command = self.spec.script.as_str();
        let script = Script {
            command,
            shell: self.spec.shell,
            // The tags may have changed while the event waited.
            variables: environment::variables(event, name, &tags.borrow()),
            input: environment::input(event),
            time_limit: time_limit.get(),
        };
        let mut stop = stop.subscribe();
        let stopped = async move {
            // The sender lives as long as this worker.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let outcome = script::run(&script, stopped).await;
        let output = String::from_utf8_lossy(&outcome.output);
        debug!(target: "agent", "Event '{}' script output: {output}", kind(event));
        match outcome.result {
            Ok(()) => {
                count(&self.figures.done);
                respond(node, event, outcome.output).await;
            }
            Err(failure) => {
                count(match failure {
                    Failure::TimeLimit(_) | Failure::Stopped => &self.figures.ended,
                    _ => &self.figures.failed,
                });
                error!(target: "agent", "Error invoking script '{command}': {failure}");
            }
        }
    }
}

/// Answers a query with what the script put out, if anything.
async fn respond(node: &Handle, event: &Event, payload: Vec<u8>) {
    let Event::Query { ltime, id, name, .. } = event else {
        return;
    };
    if payload.is_empty() {
        return;
    }
    let (ltime, id) = (*ltime, *id);
    let answer = node.command(Command::Respond { ltime, id, payload }).await;
    if let Ok(Answer::Failed(reason)) = answer {
        warn!(target: "agent", "Failed to respond to query 'query: {name}': {reason}");
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
