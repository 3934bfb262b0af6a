//! The agent's standard output: headlines, details, and log lines in Serf's form,
//! `    2026/11/20 17:47:07 [INFO] serf: text`.
//!
//! Log lines come from `tracing`, the event's target being the component. They are held back until the
//! start has succeeded, and thrown away when it fails. Every line is flushed, because people wait for
//! lines in pipes.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Local;
use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, warn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::carrier::Carrier;
use super::log_file::Reopen;
use super::log_form::{self, Form};
pub use super::log_line::{Level, LogLine, Sink, sink};
use super::printer::Printer;
use crate::go::{self, printable};
use crate::queue::{self, Offered};
use crate::rpc::server::LogTap;
use fyrd_core::bounds;

/// How many lines, of all levels, are remembered for those who come later.
pub const BACKLOG_LINES: usize = 512;

/// How many bytes wait to be printed: more than all lines that a start holds back, little beside the rest of an
/// agent.
const WAITING_MAX: usize = 2 * 1024 * 1024;

/// How many lines wait for the start to succeed; more than a start writes unless it loops.
const GATED_LINES: usize = 4096;

/// How long the end of the agent waits until what it said has gone out.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The components whose events are ours; libraries are not let through.
const COMPONENTS: [&str; 6] = [
    "agent",
    "agent.http",
    "agent.ipc",
    "agent.mdns",
    "serf",
    "memberlist",
];

/// Characters of a line that was held back which the sum of them shows.
const SAMPLE_CHARS: usize = 200;

/// The standard output of an agent; clones share it.
#[derive(Clone)]
pub struct Console(Arc<Mutex<State>>);

struct State {
    out: Out,
    level: Level,
    form: Form,
    /// Whether people see it, on a terminal.
    is_screen: bool,
    /// Lines that wait for the start to succeed; `None` once it has.
    gated: Option<VecDeque<LogLine>>,
    backlog: VecDeque<LogLine>,
    taps: Vec<Tap>,
    limiter: Limiter,
    held_back: Arc<Notify>,
    /// Where else lines go, those above the level only.
    sinks: Vec<Sink>,
    /// Has the log's own file opened anew.
    reopen: Reopen,
}

/// Where lines are printed.
enum Out {
    /// By those who say them.
    Here(Printer<Box<dyn Write + Send>>),
    /// By a thread.
    There(Carrier<String>),
}

/// Somebody who listens to the log.
struct Tap {
    level: Level,
    lines: queue::Sender<Arc<str>>,
}

impl Console {
    /// The process's standard output. When nobody reads it any more, lines are lost and counted, and the agent goes on.
    pub fn stdout() -> Console {
        let mut form = Form::Text;
        let carrier = own_stdout().and_then(|out| {
            form = log_form::of_output(&out);
            let mut out = Printer::new(out);
            Carrier::start("log", WAITING_MAX, String::len, move |line: String| {
                if let Some(error) = out.print(&line) {
                    // Monitors and the system's log have it, if nobody else.
                    let reason = go::os_error(&error);
                    warn!(target: "agent", "Lines of the log cannot be written, and are lost: {reason}");
                }
            })
        });
        let console = Console::on(match carrier {
            Ok(carrier) => Out::There(carrier),
            Err(_) => Out::Here(Printer::new(Box::new(io::stdout()))),
        });
        {
            let mut state = console.lock();
            (state.form, state.is_screen) = (form, io::stdout().is_terminal());
        }
        console
    }

    /// Prints in this form from now on, unless that is text, which is what there is.
    pub fn set_form(&self, form: Form) {
        if form != Form::Text {
            self.lock().form = form;
        }
    }

    /// The log goes to this file as well.
    pub fn add_file(&self, path: &str, form: Form) -> Result<(), String> {
        let (sink, reopen) = super::log_file::open(path, form)?;
        let mut state = self.lock();
        state.sinks.push(sink);
        state.reopen = reopen;
        Ok(())
    }

    /// Opens the log's file anew, if there is one.
    pub fn reopen_file(&self) {
        self.lock().reopen.ask();
    }

    /// Waits a moment until all that was said has gone out. The last call before the process ends.
    pub fn finish(&self) {
        let (out, sinks) = {
            let mut state = self.lock();
            let nowhere = Out::Here(Printer::new(Box::new(io::sink())));
            let out = std::mem::replace(&mut state.out, nowhere);
            (out, std::mem::take(&mut state.sinks))
        };
        if let Out::There(mut carrier) = out {
            carrier.finish(LAST_WORDS);
        }
        for mut sink in sinks {
            sink.finish(LAST_WORDS);
        }
    }

    /// Gives the lines of the log to one more taker from now on.
    pub fn add_sink(&self, sink: Sink) {
        self.lock().sinks.push(sink);
    }

    /// A console on another output.
    pub fn new(out: Box<dyn Write + Send>) -> Console {
        Console::on(Out::Here(Printer::new(out)))
    }

    fn on(out: Out) -> Console {
        Console(Arc::new(Mutex::new(State {
            out,
            level: Level::Info,
            gated: Some(VecDeque::new()),
            backlog: VecDeque::new(),
            taps: Vec::new(),
            limiter: Limiter::default(),
            held_back: Arc::default(),
            sinks: Vec::new(),
            form: Form::Text,
            is_screen: false,
            reopen: Reopen::default(),
        })))
    }

    /// Prints `==> text`.
    pub fn headline(&self, text: &str) {
        self.lock().print("==> ", text);
    }

    /// Prints an indented line.
    pub fn detail(&self, text: &str) {
        self.lock().print("    ", text);
    }

    /// Prints an indented line for people only: what reads a pipe or a file looks for Serf's words.
    pub fn hint(&self, text: &str) {
        let mut state = self.lock();
        if state.is_screen {
            state.print("    ", text);
        }
    }

    /// Prints a line as it is.
    pub fn plain(&self, text: &str) {
        self.lock().print("", text);
    }

    /// Lines below this level are not printed from now on.
    pub fn set_level(&self, level: Level) {
        self.lock().level = level;
    }

    /// The start has succeeded: prints what was held back, and holds nothing back any more.
    pub fn open_gate(&self) {
        let mut state = self.lock();
        for line in state.gated.take().into_iter().flatten() {
            state.print_line(&line);
        }
    }

    /// Tells when a line is held back, after which [`Console::settle`] has something to do.
    pub fn held_back(&self) -> Arc<Notify> {
        Arc::clone(&self.lock().held_back)
    }

    /// Says which lines were held back, once their time is over; whether there are more, whose time is not. To be
    /// called now and then.
    pub fn settle(&self) -> bool {
        let (told, more) = {
            let mut state = self.lock();
            (state.limiter.settle(Instant::now()), state.limiter.holds_back())
        };
        for text in told {
            self.log(LogLine::new(Level::Warn, "agent", &text));
        }
        more
    }

    /// The last lines of all levels, oldest first.
    pub fn backlog(&self) -> Vec<LogLine> {
        self.lock().backlog.iter().cloned().collect()
    }

    /// The last lines of this level and above, and all that follow: up to `capacity` of those wait, what
    /// comes on top is lost and counted.
    pub fn tap(&self, level: Level, capacity: usize) -> LogTap {
        let (lines, live) = queue::bounded(capacity);
        let mut state = self.lock();
        state.taps.push(Tap { level, lines });
        let passing = state.backlog.iter().filter(|line| line.level >= level);
        LogTap {
            backlog: passing.map(|line| Arc::clone(&line.text)).collect(),
            live,
        }
    }

    /// Makes this console receive the log of the whole process; only the first one does.
    pub fn receive_log(&self) {
        let subscriber = tracing_subscriber::registry().with(LogLayer {
            console: self.clone(),
        });
        // A second agent in one process logs where the first one does.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    fn log(&self, line: LogLine) {
        let mut state = self.lock();
        state.taps.retain(|tap| tap.offer(&line));
        if state.backlog.len() >= BACKLOG_LINES {
            state.backlog.pop_front();
        }
        state.backlog.push_back(line.clone());
        if line.level < state.level {
            return;
        }
        for sink in &state.sinks {
            sink.give(line.clone(), |lost| LogLine {
                at: Local::now(),
                level: Level::Warn,
                text: format!("[WARN] agent: {lost} records were lost, the log took no more").into(),
            });
        }
        match &mut state.gated {
            Some(gated) => {
                if gated.len() >= GATED_LINES {
                    gated.pop_front();
                }
                gated.push_back(line);
            }
            None => state.print_line(&line),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while printing has left nothing half done that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Tap {
    /// Whether the listener is still there.
    fn offer(&self, line: &LogLine) -> bool {
        if line.level < self.level {
            return !self.lines.is_closed();
        }
        self.lines.offer(Arc::clone(&line.text)) != Offered::Closed
    }
}

impl State {
    fn print(&mut self, prefix: &str, text: &str) {
        if let Some(line) = self.form.saying(prefix, &printable::entry(text)) {
            self.put(line);
        }
    }

    fn print_line(&mut self, line: &LogLine) {
        self.put(self.form.line(line));
    }

    fn put(&mut self, mut line: String) {
        line.push('\n');
        let form = self.form;
        match &mut self.out {
            // There is nobody to tell of an error.
            Out::Here(out) => drop(out.print(&line)),
            Out::There(carrier) => carrier.give(line, |lost| {
                let text = format!("{lost} lines were not shown, nobody was reading");
                form.line(&LogLine::new(Level::Warn, "agent", &text)) + "\n"
            }),
        }
    }
}

/// Standard output without the lock that the whole process shares, which a thread that waits for a reader
/// would keep to itself.
#[cfg(unix)]
fn own_stdout() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Standard output; only the library knows how to write text to a console of this system.
#[cfg(not(unix))]
fn own_stdout() -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

/// Turns events of our components into lines.
struct LogLayer {
    console: Console,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        COMPONENTS.contains(&metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = Level::from(metadata.level());
        let mut text = String::new();
        if is_news(metadata) {
            event.record(&mut Text(&mut text));
        } else {
            let tell = |text: &mut String| event.record(&mut Text(text));
            let mut state = self.console.lock();
            if !state.limiter.pass(metadata, Instant::now(), &mut text, tell) {
                state.held_back.notify_one();
                return;
            }
        }
        self.console.log(LogLine::new(level, metadata.target(), &text));
    }
}

/// Whether a line tells what happens in the cluster, which is all that many people read a log for: each such line
/// stands for an event, and there are as many as events.
fn is_news(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == tracing::Level::INFO && matches!(metadata.target(), "agent" | "serf")
}

/// Lets so many lines of each place in the program pass in an interval, whoever causes them: anybody can send what
/// is worth a line, and nobody may fill the disk, or push out of the backlog what others wait for.
#[derive(Default)]
struct Limiter(HashMap<Identifier, Interval>);

/// What one place has said since a moment.
struct Interval {
    start: Instant,
    passed: u32,
    held_back: u64,
    /// The first text that was held back, for the line that tells how many there were.
    sample: String,
}

impl Limiter {
    /// Whether a line passes; its text, if it is wanted, is what `tell` appends.
    fn pass(
        &mut self,
        metadata: &Metadata<'_>,
        now: Instant,
        text: &mut String,
        tell: impl Fn(&mut String),
    ) -> bool {
        let interval = self.0.entry(metadata.callsite()).or_insert_with(|| Interval {
            start: now,
            passed: 0,
            held_back: 0,
            sample: String::new(),
        });
        // What was held back is told by `settle`, and only then begins another interval.
        if interval.held_back == 0 && now.saturating_duration_since(interval.start) >= bounds::LOG_INTERVAL {
            (interval.start, interval.passed) = (now, 0);
        }
        let passes = interval.passed < lines_of(metadata);
        if passes {
            interval.passed += 1;
            tell(text);
        } else {
            interval.held_back += 1;
            if interval.held_back == 1 {
                tell(&mut interval.sample);
            }
        }
        passes
    }

    /// Whether lines of any place were held back and not told of.
    fn holds_back(&self) -> bool {
        self.0.values().any(|interval| interval.held_back > 0)
    }

    /// A text for each place of which lines were held back, in an interval that is over.
    fn settle(&mut self, now: Instant) -> Vec<String> {
        let mut told = Vec::new();
        for interval in self.0.values_mut() {
            let is_over = now.saturating_duration_since(interval.start) >= bounds::LOG_INTERVAL;
            if is_over && interval.held_back > 0 {
                let (count, sample) = (interval.held_back, std::mem::take(&mut interval.sample));
                let sample: String = sample.chars().take(SAMPLE_CHARS).collect();
                told.push(format!(
                    "{count} more lines like this one were not logged: {sample}"
                ));
                (interval.start, interval.passed, interval.held_back) = (now, 0, 0);
            }
        }
        told
    }
}

/// How many lines of a place pass in an interval. Who wants to see details gets them.
fn lines_of(metadata: &Metadata<'_>) -> u32 {
    match *metadata.level() {
        tracing::Level::ERROR | tracing::Level::WARN => bounds::LOG_LINES,
        _ => bounds::LOG_DETAIL_LINES,
    }
}

/// Appends an event's message, and its fields as `name=value`.
struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{debug, info};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone())
                .unwrap()
                .lines()
                .map(str::to_string)
                .collect()
        }
    }

    /// Runs `body` with a console that receives the log; the console and what it printed.
    fn with_console(body: impl FnOnce(&Console)) -> (Console, Vec<String>) {
        let buffer = Buffer::default();
        let console = Console::new(Box::new(buffer.clone()));
        let subscriber = tracing_subscriber::registry().with(LogLayer {
            console: console.clone(),
        });
        tracing::subscriber::with_default(subscriber, || body(&console));
        (console, buffer.lines())
    }

    #[test]
    fn lines_have_serfs_form_and_wait_for_the_gate() {
        let (_, lines) = with_console(|console| {
            info!(target: "serf", "EventMemberJoin: {} {}", "n1", "127.0.0.1");
            console.headline("Serf agent running!");
            console.detail("detail");
            console.open_gate();
            warn!(target: "agent.ipc", "later");
        });
        assert_eq!(lines[..2], ["==> Serf agent running!", "    detail"]);
        let form = regex::Regex::new(
            r"^    \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[INFO\] serf: EventMemberJoin: n1 127\.0\.0\.1$",
        );
        assert!(form.unwrap().is_match(&lines[2]), "{}", lines[2]);
        assert!(lines[3].ends_with(" [WARN] agent.ipc: later"), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_level_filters_what_is_printed_but_not_the_backlog() {
        let (console, lines) = with_console(|console| {
            console.open_gate();
            debug!(target: "serf", "hidden");
            console.set_level(Level::Debug);
            debug!(target: "serf", "shown");
            console.set_level(Level::Err);
            warn!(target: "serf", "hidden again");
            tracing::error!(target: "some_library", "not ours");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("[DEBUG] serf: shown"));
        let kept: Vec<Level> = console.backlog().iter().map(|line| line.level).collect();
        assert_eq!(kept, [Level::Debug, Level::Debug, Level::Warn]);
    }

    #[test]
    fn the_backlog_keeps_the_last_lines() {
        let (console, _) = with_console(|_| {
            for number in 0..BACKLOG_LINES + 10 {
                info!(target: "agent", "line {number}");
            }
        });
        let backlog = console.backlog();
        assert_eq!(backlog.len(), BACKLOG_LINES);
        assert!(backlog[0].text.ends_with("agent: line 10"));
    }

    #[test]
    fn a_tap_has_the_backlog_and_what_follows() {
        let (_, _) = with_console(|console| {
            info!(target: "agent", "before");
            debug!(target: "agent", "too little");
            let mut tap = console.tap(Level::Info, 2);
            for number in 1..=3 {
                console.set_level(Level::Err);
                debug!(target: "agent", "too little");
                warn!(target: "agent", "line {number}");
            }
            let ends = |line: &str, end: &str| assert!(line.ends_with(end), "{line}");
            assert_eq!(tap.backlog.len(), 1);
            ends(&tap.backlog[0], "[INFO] agent: before");
            ends(&tap.live.try_recv().unwrap(), "[WARN] agent: line 1");
            ends(&tap.live.try_recv().unwrap(), "[WARN] agent: line 2");
            assert!(tap.live.try_recv().is_err(), "there was no room for the third");
            assert_eq!(tap.live.take_lost(), 1);
            drop(tap);
            debug!(target: "agent", "too little");
            assert!(console.lock().taps.is_empty());
        });
    }

    #[test]
    fn no_text_of_others_acts_on_a_terminal_or_makes_a_line_of_its_own() {
        let forged = "n\n    2026/11/20 17:47:07 [INFO] agent: fine\u{1b}[2J";
        let (_, lines) = with_console(|console| {
            console.open_gate();
            info!(target: "serf", "EventMemberJoin: {forged} 127.0.0.1");
            warn!(target: "agent", "error joining: 1 error occurred:\n\t* {forged}\n\n");
            console.headline(forged);
        });
        let harmless = "n\\n    2026/11/20 17:47:07 [INFO] agent: fine\\x1b[2J";
        assert!(lines[0].ends_with(&format!("serf: EventMemberJoin: {harmless} 127.0.0.1")));
        assert!(
            lines[1].ends_with("error joining: 1 error occurred:"),
            "{lines:?}"
        );
        assert_eq!(
            lines[2..],
            [&format!("\t* {harmless}"), "", &format!("==> {harmless}")]
        );
    }

    #[test]
    fn a_flood_from_one_place_gives_a_few_lines_and_a_sum_and_holds_up_no_other() {
        let flood = |n: u32| warn!(target: "memberlist", "Got ping for unexpected node '{n}'");
        let (console, lines) = with_console(|console| {
            console.open_gate();
            (0..10_000).for_each(flood);
            warn!(target: "serf", "something else");
            for n in 0..1000 {
                info!(target: "serf", "EventMemberJoin: n{n}");
            }
            // Nothing is told, and nothing passes, before the interval is over.
            console.settle();
            flood(10_000);
            let later = Instant::now() + bounds::LOG_INTERVAL;
            let told = console.lock().limiter.settle(later);
            let sum = format!(
                "{} more lines like this one were not logged: Got ping for unexpected node '{}'",
                10_001 - bounds::LOG_LINES,
                bounds::LOG_LINES
            );
            assert_eq!(told, [sum]);
            flood(10_001);
        });
        let with = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(with("unexpected node"), bounds::LOG_LINES as usize + 1);
        assert_eq!((with("something else"), with("EventMemberJoin")), (1, 1000));
        assert!(!console.backlog().is_empty());
    }

    #[test]
    fn level_names() {
        assert_eq!(Level::parse("err"), Ok(Level::Err));
        assert_eq!(Level::parse("Trace"), Ok(Level::Trace));
        assert_eq!(
            Level::parse("foo"),
            Err("Invalid log level: FOO. Valid log levels are: [TRACE DEBUG INFO WARN ERR]".into())
        );
    }
}
