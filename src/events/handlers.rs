//! Event handlers: scripts, and when each of them runs.
//!
//! Member and user events run one script after the other: in the order of the events and, for one event, of the
//! configuration, as with Serf, because scripts that share a file rely on it. Who wants it otherwise has a line
//! for each handler ([`Order::Independent`]).
//!
//! A query waits for no event. It goes through the handlers that want it in the order of the configuration, and the
//! first output is the answer. Different queries run side by side, but each handler takes one query at a time.
//!
//! A slow script delays neither gossip nor streams: events wait, up to a bound for each handler, and more of them are
//! dropped, counted and logged.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::environment;
use super::filter::{HandlerSpec, kind};
use super::script::{self, Failure, Keep, Outcome, Script};
use crate::driver::Handle;
use crate::pace::Pace;
use fyrd_core::bounds::{HANDLER_OUTPUT, HANDLER_QUEUE, STREAM_ANSWER_MAX};
use fyrd_core::serf::{Answer, Command, Event, Member, MemberEventKind, Tags};

/// How often at most one handler's drops are logged.
const DROP_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What decides when the script of a member or user event runs (`handler_order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// All scripts, of all handlers, one after the other.
    #[default]
    Sequential,
    /// One after the other for each handler alone.
    Independent,
}

impl Order {
    /// Reads the setting. The error is a line for the user.
    pub fn parse(text: &str) -> Result<Order, String> {
        match text {
            "" | "sequential" => Ok(Order::Sequential),
            "independent" => Ok(Order::Independent),
            _ => Err(format!(
                "Invalid handler order: '{text}'. It must be sequential (one script after the other, in the order of \
                 events) or independent (each handler in a queue of its own)"
            )),
        }
    }
}

/// All handlers of an agent.
#[derive(Debug)]
pub struct Handlers {
    surroundings: Rc<Surroundings>,
    active: RefCell<Active>,
    /// What runs scripts: a task for each line, and one for each query.
    workers: RefCell<JoinSet<()>>,
}

/// The handlers of the present configuration, in its order.
#[derive(Debug, Default)]
struct Active {
    order: Order,
    /// The line of all handlers, if there is one. It stays over reloads, so that the order does.
    common: Option<Line>,
    handlers: Vec<(Rc<Handler>, Line)>,
}

/// Where events go in that run one after the other. What waits is bounded by each handler's counts.
type Line = mpsc::UnboundedSender<(Rc<Handler>, Arc<Event>)>;

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

/// One handler, and what it has done.
#[derive(Debug)]
struct Handler {
    spec: HandlerSpec,
    /// Held while it runs for a query.
    query_turn: Mutex<()>,
    events_waiting: Cell<usize>,
    queries_waiting: Cell<usize>,
    running: Cell<u64>,
    done: Cell<u64>,
    failed: Cell<u64>,
    ended: Cell<u64>,
    dropped: Cell<u64>,
    unsent: Cell<u64>,
    drops_told: Pace,
}

/// What one handler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandlerFigures {
    /// Events that wait for it.
    pub queued: u64,
    /// Scripts that run.
    pub running: u64,
    /// Runs that ended well.
    pub done: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Runs that were ended, at the time limit or with the agent.
    pub ended: u64,
    /// Events that found no room to wait.
    pub dropped: u64,
    /// Answers that could not be sent.
    pub unsent: u64,
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
            unsent,
        } = self;
        write!(
            f,
            "queued={queued} running={running} done={done} failed={failed} ended={ended} dropped={dropped} unsent={unsent}"
        )
    }
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

    /// Makes these the handlers, from the next event on; to be called within a `LocalRuntime`. One that was
    /// there before goes on, with what waits for it; one that is gone still handles what it was given.
    pub fn replace(&self, specs: Vec<HandlerSpec>, order: Order, time_limit: Option<Duration>) {
        self.surroundings.time_limit.set(time_limit);
        let mut old = self.active.take();
        let keeps_lines = old.order == order;
        let common = match order {
            Order::Sequential => Some(old.common.take().unwrap_or_else(|| self.open_line())),
            Order::Independent => None,
        };
        let mut handlers = Vec::with_capacity(specs.len());
        for spec in specs {
            let place = old.handlers.iter().position(|(handler, _)| handler.spec == spec);
            let (handler, line) = match place.map(|place| old.handlers.remove(place)) {
                Some((handler, line)) => (handler, keeps_lines.then_some(line)),
                None => (Rc::new(Handler::new(spec)), None),
            };
            let line = line
                .or_else(|| common.clone())
                .unwrap_or_else(|| self.open_line());
            handlers.push((handler, line));
        }
        self.active.replace(Active {
            order,
            common,
            handlers,
        });
    }

    /// A line, which is worked off until all its senders are gone.
    fn open_line(&self) -> Line {
        let (line, mut waiting) = mpsc::unbounded_channel::<(Rc<Handler>, Arc<Event>)>();
        let surroundings = Rc::clone(&self.surroundings);
        self.spawn(async move {
            while let Some((handler, event)) = waiting.recv().await {
                handler.events_waiting.update(|waiting| waiting - 1);
                handler.run(&surroundings, &event).await;
            }
        });
        line
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut workers = self.workers.borrow_mut();
        while workers.try_join_next().is_some() {}
        workers.spawn_local(task);
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
        let active = self.active.borrow();
        // A handler of which two filters match runs twice.
        let wanting = active.handlers.iter().flat_map(|(handler, line)| {
            let matching = handler.spec.filters.iter().filter(|filter| filter.matches(event));
            matching.map(move |_| (handler, line))
        });
        if matches!(**event, Event::Query { .. }) {
            let chain = wanting.filter(|(handler, _)| handler.has_room_for(&handler.queries_waiting));
            self.handle_query(chain.map(|(handler, _)| Rc::clone(handler)).collect(), event);
            return;
        }
        for (handler, line) in wanting {
            if handler.has_room_for(&handler.events_waiting) {
                // The line's worker is there as long as the line is.
                let _ = line.send((Rc::clone(handler), Arc::clone(event)));
            }
        }
    }

    fn handle_query(&self, chain: Vec<Rc<Handler>>, query: &Arc<Event>) {
        if chain.is_empty() {
            return;
        }
        let (surroundings, query) = (Rc::clone(&self.surroundings), Arc::clone(query));
        self.spawn(async move {
            for handler in chain {
                let _turn = handler.query_turn.lock().await;
                handler.queries_waiting.update(|waiting| waiting - 1);
                handler.run(&surroundings, &query).await;
            }
        });
    }

    /// Takes no more events, and waits until all have been handled or `patience` is over; what runs
    /// then is ended, and what waits is dropped.
    pub async fn finish(&self, patience: impl Future<Output = ()>) {
        let waiting: Vec<Rc<Handler>> = self.active.take().handlers.into_iter().map(|(h, _)| h).collect();
        let mut workers = self.workers.take();
        let done = async { while workers.join_next().await.is_some() {} };
        tokio::select! {
            () = done => return,
            () = patience => {}
        }
        let sum = |count: fn(&Handler) -> u64| waiting.iter().map(|handler| count(handler)).sum::<u64>();
        let (running, dropped) = (sum(|h| h.running.get()), sum(Handler::waiting));
        warn!(target: "agent", "Ending {running} event handlers that still run; {dropped} events that wait for them are dropped");
        self.surroundings.stop.send_replace(true);
        while workers.join_next().await.is_some() {}
    }

    /// Filters and scripts, as clients know them (docs/compatibility.md#commands).
    pub fn scripts(&self) -> BTreeMap<String, String> {
        let mut scripts = BTreeMap::new();
        for (handler, _) in &self.active.borrow().handlers {
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
        for (handler, _) in &self.active.borrow().handlers {
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
    fn new(spec: HandlerSpec) -> Handler {
        Handler {
            spec,
            query_turn: Mutex::default(),
            events_waiting: Cell::default(),
            queries_waiting: Cell::default(),
            running: Cell::default(),
            done: Cell::default(),
            failed: Cell::default(),
            ended: Cell::default(),
            dropped: Cell::default(),
            unsent: Cell::default(),
            drops_told: Pace::new(DROP_LOG_INTERVAL),
        }
    }

    /// Lets one more wait, if there is room.
    fn has_room_for(&self, waiting: &Cell<usize>) -> bool {
        if waiting.get() < HANDLER_QUEUE {
            waiting.update(|waiting| waiting + 1);
            return true;
        }
        count(&self.dropped);
        if self.drops_told.allows(Instant::now()) {
            warn!(
                target: "agent",
                "Script '{}' lags behind: {HANDLER_QUEUE} events wait for it, {} were dropped so far",
                self.spec.script, self.dropped.get()
            );
        }
        false
    }

    fn waiting(&self) -> u64 {
        (self.events_waiting.get() + self.queries_waiting.get()) as u64
    }

    fn figures(&self) -> HandlerFigures {
        HandlerFigures {
            queued: self.waiting(),
            running: self.running.get(),
            done: self.done.get(),
            failed: self.failed.get(),
            ended: self.ended.get(),
            dropped: self.dropped.get(),
            unsent: self.unsent.get(),
        }
    }

    async fn run(&self, surroundings: &Surroundings, event: &Event) {
        if *surroundings.stop.borrow() {
            return;
        }
        self.running.update(|running| running + 1);
        self.invoke(surroundings, event).await;
        self.running.update(|running| running - 1);
    }

    async fn invoke(&self, surroundings: &Surroundings, event: &Event) {
        let command = self.spec.script.as_str();
        let script = Script {
            command,
            shell: self.spec.shell,
            // The tags may have changed while the event waited.
            variables: environment::variables(event, &surroundings.name, &surroundings.tags.borrow()),
            input: environment::input(event),
            time_limit: surroundings.time_limit.get(),
            keep: match event {
                Event::Query { .. } => Keep::Whole(STREAM_ANSWER_MAX),
                _ => Keep::Last(HANDLER_OUTPUT),
            },
            complaints_apart: false,
        };
        let mut stop = surroundings.stop.subscribe();
        let stopped = async move {
            // The sender lives as long as the agent's handlers.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let outcome = script::run(&script, stopped).await;
        self.log_output(event, &outcome);
        match &outcome.result {
            Ok(()) => {
                count(&self.done);
                self.respond(&surroundings.node, event, outcome).await;
            }
            Err(failure) => {
                count(match failure {
                    Failure::TimeLimit(_) | Failure::Stopped => &self.ended,
                    _ => &self.failed,
                });
                let said = outcome.last_words();
                error!(target: "agent", "Error invoking script '{command}': {failure}{said}");
            }
        }
    }

    fn log_output(&self, event: &Event, outcome: &Outcome) {
        let start = outcome.output.len().saturating_sub(HANDLER_OUTPUT);
        let shown = String::from_utf8_lossy(outcome.output.get(start..).unwrap_or_default());
        debug!(target: "agent", "Event '{}' script output: {shown}", kind(event));
        // The output of a query is its answer, of which nothing is cut.
        if !matches!(event, Event::Query { .. }) && outcome.written > HANDLER_OUTPUT as u64 {
            warn!(
                target: "agent",
                "Script '{}' generated {} bytes of output, truncated to {HANDLER_OUTPUT}",
                self.spec.script, outcome.written
            );
        }
    }

    /// Answers a query with what the script put out, if anything.
    async fn respond(&self, node: &Handle, event: &Event, outcome: Outcome) {
        let Event::Query { ltime, id, name, .. } = event else {
            return;
        };
        if outcome.written == 0 {
            return;
        }
        let refused = if outcome.written > STREAM_ANSWER_MAX as u64 {
            Some(format!(
                "script '{}' generated {} bytes of output, an answer is limited to {STREAM_ANSWER_MAX}",
                self.spec.script, outcome.written
            ))
        } else {
            let (ltime, id, payload) = (*ltime, *id, outcome.output);
            match node.command(Command::Respond { ltime, id, payload }).await {
                Ok(Answer::Failed(reason)) => Some(reason),
                _ => None,
            }
        };
        if let Some(reason) = refused {
            count(&self.unsent);
            warn!(target: "agent", "Failed to respond to query 'query: {name}': {reason}");
        }
    }
}

fn count(counter: &Cell<u64>) {
    counter.update(|count| count + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        assert_eq!(Order::parse(""), Ok(Order::Sequential));
        assert_eq!(Order::parse("sequential"), Ok(Order::Sequential));
        assert_eq!(Order::parse("independent"), Ok(Order::Independent));
        let error = Order::parse("Independent").unwrap_err();
        assert!(
            error.contains("'Independent'") && error.contains("or independent"),
            "{error}"
        );
    }
}
