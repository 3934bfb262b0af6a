//! Runs one script: the system's shell, or the program itself, with input, environment, and one pipe for all
//! output.
//!
//! A script is over when its process has ended. What it leaves behind, such as a daemon, may keep the output open,
//! and holds up nobody: its output is read on, and thrown away.
//!
//! The process is reaped last: until then no other process group can get its number, so ending the group ends
//! nobody else. On Windows a job object takes the place of the group.

#[cfg(unix)]
#[path = "script/unix.rs"]
mod system;
#[cfg(windows)]
#[path = "script/windows.rs"]
mod system;

use std::cell::Cell;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::environment::SECRET_VARIABLES;
use super::shell::Shell;
use crate::go;
use fyrd_core::bounds::{HANDLER_OUTPUT_GRACE, HANDLER_OUTPUTS_OPEN};
use system::{Child, Output, as_text, command, signal_name, signal_of};

/// A script that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// Characters that a line of the log shows of a script's last line.
const LAST_LINE: usize = 300;

/// How long a script that has to end may take to do so by itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A script and all it is given.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    /// The command line.
    pub command: &'a str,
    /// What runs it.
    pub shell: Shell,
    /// Set on top of the agent's own environment, from which secrets are taken out.
    pub variables: Vec<(String, String)>,
    /// Its standard input.
    pub input: Vec<u8>,
    /// How long it may take.
    pub time_limit: Option<Duration>,
    /// What is kept of its output.
    pub keep: Keep,
    /// Whether its standard error is the agent's own, and no output.
    pub complaints_apart: bool,
}

/// What is kept of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of it, or nothing if it is more than so many bytes.
    Whole(usize),
    /// The last bytes.
    Last(usize),
}

/// What came of a script.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What was kept of standard output and standard error, mixed as they came.
    pub output: Vec<u8>,
    /// How many bytes both had.
    pub written: u64,
    /// Whether it succeeded.
    pub result: Result<(), Failure>,
}

impl Outcome {
    /// What stands behind a failure in the log: the last thing that was said, which is mostly the reason.
    pub fn last_words(&self) -> String {
        let output = String::from_utf8_lossy(&self.output);
        let last = output.lines().rev().map(str::trim).find(|line| !line.is_empty());
        last.map_or(String::new(), |line| {
            let line: String = line.chars().take(LAST_LINE).collect();
            format!(", saying: {line}")
        })
    }
}

/// Why a script did not succeed. The texts are those that Go has, where it has any.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    NotStarted(String),
    #[error("exit status {0}{meaning}", meaning = meaning_of(*.0))]
    Status(i32),
    #[error("signal: {}", signal_name(*.0))]
    Signal(i32),
    #[error("ended after the time limit of {0:?}")]
    TimeLimit(Duration),
    #[error("ended because the agent ends")]
    Stopped,
}

/// What shells say by these numbers.
fn meaning_of(status: i32) -> &'static str {
    match status {
        126 => " (not executable)",
        127 => " (not found)",
        _ => "",
    }
}

/// Why a program could not be started.
fn not_started(error: &io::Error) -> Failure {
    let meaning = match error.kind() {
        io::ErrorKind::NotFound => " (not found)",
        io::ErrorKind::PermissionDenied => " (not executable)",
        _ => "",
    };
    Failure::NotStarted(format!("{}{meaning}", go::os_error(error)))
}

/// Runs a script to its end, or until its time is up or `stop` is over; then it is ended, together with
/// all processes of its group.
pub(crate) async fn run(script: &Script<'_>, stop: impl Future<Output = ()>) -> Outcome {
    let mut process = match Process::start(script) {
        Ok(process) => process,
        Err(error) => {
            return Outcome {
                output: Vec::new(),
                written: 0,
                result: Err(not_started(&error)),
            };
        }
    };
    let time_is_up = async {
        match script.time_limit {
            Some(limit) => {
                sleep(limit).await;
                Failure::TimeLimit(limit)
            }
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        status = process.finish(&script.input) => judge(status),
        failure = time_is_up => Err(failure),
        () = stop => Err(Failure::Stopped),
        () = warn_when_slow(script.command) => Ok(()),
    };
    if matches!(result, Err(Failure::TimeLimit(_) | Failure::Stopped)) {
        process.end().await;
    }
    let Kept { bytes, written, .. } = process.output.take_kept();
    if !process.output.over {
        read_on(process.output);
    }
    Outcome {
        output: as_text(bytes),
        written,
        result,
    }
}

/// Reads what somebody still writes whom a script has left behind: without a reader, writing would end him. Of very
/// many, the output is closed.
fn read_on(mut output: Output) {
    thread_local! {
        static OPEN: Cell<usize> = const { Cell::new(0) };
    }
    if OPEN.get() >= HANDLER_OUTPUTS_OPEN {
        warn!(
            target: "agent",
            "Closing the output of what a script left running: {HANDLER_OUTPUTS_OPEN} others are open"
        );
        return;
    }
    OPEN.set(OPEN.get() + 1);
    tokio::spawn(async move {
        // It is over, or cannot be read any more.
        let _ = output.read_to_end().await;
        OPEN.set(OPEN.get() - 1);
    });
}

/// Never comes back.
async fn warn_when_slow(command: &str) {
    sleep(SLOW).await;
    warn!(target: "agent", "Script '{command}' slow, execution exceeding {SLOW:?}");
    std::future::pending().await
}

fn judge(status: io::Result<ExitStatus>) -> Result<(), Failure> {
    let status = status.map_err(|e| not_started(&e))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Status(code)),
        None => Err(Failure::Signal(signal_of(status))),
    }
}

/// A script that runs.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Output,
}

impl Process {
    fn start(script: &Script<'_>) -> io::Result<Process> {
        let (output, writer) = io::pipe()?;
        let mut command = command(script.command, script.shell)?;
        for secret in SECRET_VARIABLES {
            command.env_remove(secret);
        }
        command
            .envs(script.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?);
        if script.complaints_apart {
            drop(writer);
            command.stderr(Stdio::inherit());
        } else {
            command.stderr(writer);
        }
        let mut child = Child::spawn(command)?;
        let stdin = child.take_stdin();
        Ok(Process {
            child,
            stdin,
            output: Output::new(output, script.keep)?,
        })
    }

    /// Waits until it is over, feeding it meanwhile. A script need not read its input.
    async fn finish(&mut self, input: &[u8]) -> io::Result<ExitStatus> {
        let stdin = self.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input).await;
            }
            std::future::pending::<()>().await
        };
        let read = async {
            // An output that cannot be read is no reason to give up the script.
            let _ = self.output.read_to_end().await;
            std::future::pending::<()>().await
        };
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = feed => Err(io::ErrorKind::Other.into()),
            () = read => Err(io::ErrorKind::Other.into()),
        };
        // What it has written by its end is there already; a filter behind it, such as bash's `exec > >(tee log)`,
        // may need a moment more.
        let _ = timeout(HANDLER_OUTPUT_GRACE, self.output.read_to_end()).await;
        status
    }

    /// Asks the group to end, and then sees to it.
    async fn end(&mut self) {
        self.child.ask_to_end();
        // Whoever still holds the output after this has left the group.
        let _ = timeout(LAST_WORDS, self.output.read_to_end()).await;
        self.child.end();
        let _ = self.child.wait().await;
    }
}

impl Output {
    /// What was read so far; from now on nothing is kept.
    fn take_kept(&mut self) -> Kept {
        std::mem::replace(&mut self.kept, Kept::new(Keep::Last(0))).finished()
    }
}

/// What was read of an output, as far as it is kept.
#[derive(Debug)]
struct Kept {
    keep: Keep,
    bytes: Vec<u8>,
    written: u64,
}

impl Kept {
    fn new(keep: Keep) -> Kept {
        Kept {
            keep,
            bytes: Vec::new(),
            written: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.written = self.written.saturating_add(bytes.len() as u64);
        match self.keep {
            Keep::Whole(max) if self.written > max as u64 => self.bytes = Vec::new(),
            Keep::Whole(_) => self.bytes.extend_from_slice(bytes),
            Keep::Last(max) => {
                self.bytes.extend_from_slice(bytes);
                // Not at each piece, for it moves all that is kept.
                if self.bytes.len() > 2 * max {
                    self.shorten(max);
                }
            }
        }
    }

    fn shorten(&mut self, max: usize) {
        let surplus = self.bytes.len().saturating_sub(max);
        self.bytes.drain(..surplus);
    }

    fn finished(mut self) -> Kept {
        if let Keep::Last(max) = self.keep {
            self.shorten(max);
        }
        self
    }
}

/// Makes each CR LF one LF, if all lines end so; other output is no text of Windows, and stays as it is. The
/// first line can be the rest of one that was cut off, with only the LF left.
#[cfg(any(windows, test))]
fn unix_line_ends(output: Vec<u8>) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = output.split(|byte| *byte == b'\n').collect();
    // What follows the last line's end is no line, or one without an end.
    let rest = lines.pop().unwrap_or_default();
    let mut first = true;
    let lines: Option<Vec<&[u8]>> = lines
        .into_iter()
        .map(|line| {
            let cut_off = std::mem::take(&mut first) && line.is_empty();
            if cut_off {
                Some(line)
            } else {
                line.strip_suffix(b"\r")
            }
        })
        .collect();
    match lines {
        None => output,
        Some(mut lines) => {
            lines.push(rest);
            lines.join(&b'\n')
        }
    }
}

#[cfg(test)]
mod line_ends {
    use super::unix_line_ends;

    #[test]
    fn text_of_windows_loses_its_carriage_returns() {
        let table = [
            ("", ""),
            ("a", "a"),
            ("a\r\n", "a\n"),
            ("a\r\n\r\nb", "a\n\nb"),
            ("a\rb\r\n", "a\rb\n"),
            // Cut off between the two.
            ("\na\r\n", "\na\n"),
            // Not all lines end so.
            ("a\r\nb\n", "a\r\nb\n"),
            ("a\n\r\n", "a\n\r\n"),
            ("a\r", "a\r"),
        ];
        for (output, expected) in table {
            let text = unix_line_ends(output.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&text), expected, "{output:?}");
        }
    }
}

#[cfg(all(test, windows))]
#[path = "script/windows_tests.rs"]
mod windows_tests;

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    const KEPT: usize = 8 * 1024;

    async fn run_for(command: &str, input: &[u8], time_limit: Option<Duration>) -> Outcome {
        let script = Script {
            command,
            shell: Shell::System,
            variables: vec![("SERF_EVENT".to_string(), "user".to_string())],
            input: input.to_vec(),
            time_limit,
            keep: Keep::Last(KEPT),
            complaints_apart: false,
        };
        run(&script, std::future::pending()).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn outcomes() {
        #[rustfmt::skip]
        let table: [(&str, &str, Result<(), Failure>); 9] = [
            ("true", "", Ok(())),
            ("echo a; echo b >&2; echo c", "a\nb\nc\n", Ok(())),
            ("cat", "in\n", Ok(())),
            ("echo $SERF_EVENT $0 $#", "user /bin/sh 0\n", Ok(())),
            ("echo x; exit 3", "x\n", Err(Failure::Status(3))),
            ("exec /nonexistent/command 2>/dev/null", "", Err(Failure::Status(127))),
            ("kill -9 $$", "", Err(Failure::Signal(9))),
            // What was started in the background is no part of it.
            ("(sleep 5; echo late) & echo early", "early\n", Ok(())),
            // One that closes its output has still to end.
            ("exec >/dev/null 2>&1; sleep 0.2; exit 4", "", Err(Failure::Status(4))),
        ];
        for (command, output, result) in table {
            let outcome = run_for(command, b"in\n", None).await;
            assert_eq!(String::from_utf8_lossy(&outcome.output), output, "{command}");
            assert_eq!(outcome.result, result, "{command}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_shell_nothing_is_expanded() {
        let run_without = async |command| {
            let script = Script {
                command,
                shell: Shell::None,
                variables: vec![("SERF_EVENT".to_string(), "user".to_string())],
                input: b"in\n".to_vec(),
                time_limit: None,
                keep: Keep::Last(KEPT),
                complaints_apart: false,
            };
            run(&script, std::future::pending()).await
        };
        let outcome = run_without("printf '%s,' \"a  b\" $SERF_EVENT * ';' true").await;
        assert_eq!(
            String::from_utf8_lossy(&outcome.output),
            "a  b,$SERF_EVENT,*,;,true,"
        );
        assert_eq!(run_without("printenv SERF_EVENT").await.output, b"user\n");
        assert_eq!(run_without("cat").await.output, b"in\n");
        let cases = [
            ("nosuchprogram x", "no such file or directory (not found)"),
            ("/ x", "permission denied (not executable)"),
            ("'x", "missing closing quote"),
            ("", "it names no program"),
        ];
        for (bad, reason) in cases {
            let outcome = run_without(bad).await;
            assert_eq!(
                outcome.result,
                Err(Failure::NotStarted(reason.to_string())),
                "{bad}"
            );
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_failure_says_what_the_script_said_last_and_what_its_status_means() {
        let long = format!("echo {}; exit 1", "x".repeat(LAST_LINE + 1));
        let cut = format!("exit status 1, saying: {}", "x".repeat(LAST_LINE));
        let table = [
            (
                "echo a; echo 'b c' >&2; echo; exit 3",
                "exit status 3, saying: b c",
            ),
            ("exit 3", "exit status 3"),
            ("/nonexistent/x 2>/dev/null", "exit status 127 (not found)"),
            ("/ 2>/dev/null", "exit status 126 (not executable)"),
            (long.as_str(), cut.as_str()),
        ];
        for (command, expected) in table {
            let outcome = run_for(command, b"", None).await;
            let failure = outcome.result.as_ref().unwrap_err();
            assert_eq!(
                format!("{failure}{}", outcome.last_words()),
                expected,
                "{command}"
            );
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_end_of_a_long_output_is_kept_while_input_waits() {
        // Far more than pipes hold, both ways: neither side may wait for the other.
        let input = vec![b'x'; 1 << 20];
        let outcome = run_for("seq 200000; cat >/dev/null; echo end", &input, None).await;
        assert_eq!((outcome.output.len(), outcome.written), (KEPT, 1_288_899));
        assert_eq!(outcome.result, Ok(()));
        assert!(outcome.output.ends_with(b"199999\n200000\nend\n"));
        let outcome = run_for("exec <&-; sleep 0.1; echo unread", &input, None).await;
        assert_eq!(
            (outcome.output.as_slice(), outcome.result),
            (&b"unread\n"[..], Ok(()))
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_cannot_start_is_a_failure() {
        let script = Script {
            command: "true",
            shell: Shell::System,
            variables: vec![("SERF_USER_EVENT".to_string(), "a\0b".to_string())],
            input: Vec::new(),
            time_limit: None,
            keep: Keep::Last(KEPT),
            complaints_apart: false,
        };
        let outcome = run(&script, std::future::pending()).await;
        assert!(
            matches!(outcome.result, Err(Failure::NotStarted(_))),
            "{outcome:?}"
        );
    }

    fn is_running(pid: &str) -> bool {
        // A zombie that nobody has reaped yet has no command line.
        std::fs::read(Path::new("/proc").join(pid.trim()).join("cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_time_limit_ends_the_whole_group() {
        let limit = Duration::from_millis(300);
        // Each shows a process that lives on unless it is ended too: one in the background, one that
        // ignores SIGTERM.
        let table = [
            "sleep 60 & echo $!; wait",
            "trap '' TERM; sleep 60 & echo $!; wait; wait",
        ];
        for command in table {
            let start = Instant::now();
            let outcome = run_for(command, b"", Some(limit)).await;
            assert_eq!(outcome.result, Err(Failure::TimeLimit(limit)), "{command}");
            assert!(start.elapsed() < Duration::from_secs(20), "{command}");
            let pid = String::from_utf8(outcome.output).unwrap();
            assert!(!pid.is_empty());
            let deadline = Instant::now() + Duration::from_secs(10);
            while is_running(&pid) {
                assert!(Instant::now() < deadline, "{command}: {pid} still runs");
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_script_is_over_with_its_process_and_what_it_leaves_behind_lives_on() {
        // The daemon keeps the output open, and writes to it more than a pipe holds.
        let daemon = "{ while ! test -e \"$D/go\"; do sleep 0.01; done; seq 100000; echo >\"$D/lived\"; exec sleep 60; } &";
        let folder = tempfile::tempdir().unwrap();
        let command = format!("D={}; {daemon} echo $!; echo 'at once'", folder.path().display());
        let outcome = run_for(&command, b"", Some(Duration::from_secs(30))).await;
        assert_eq!(outcome.result, Ok(()), "the time limit would have ended it");
        let text = String::from_utf8(outcome.output).unwrap();
        let (pid, rest) = text.split_once('\n').unwrap();
        assert_eq!(rest, "at once\n");
        std::fs::write(folder.path().join("go"), "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !folder.path().join("lived").exists() {
            assert!(
                is_running(pid) && Instant::now() < deadline,
                "writing has ended it"
            );
            sleep(Duration::from_millis(5)).await;
        }
        let ended = std::process::Command::new("kill").args(["-KILL", pid]).status();
        assert!(ended.unwrap().success());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_output_is_kept_whole_or_not_at_all() {
        for (bytes, kept) in [(1_000, 1_000), (1_001, 0)] {
            let command = format!("head -c {bytes} /dev/zero");
            let script = Script {
                command: &command,
                shell: Shell::System,
                variables: Vec::new(),
                input: Vec::new(),
                time_limit: None,
                keep: Keep::Whole(1_000),
                complaints_apart: false,
            };
            let outcome = run(&script, std::future::pending()).await;
            assert_eq!((outcome.output.len(), outcome.written), (kept, bytes));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_time_limit_holds_against_one_that_left_the_group() {
        let limit = Duration::from_millis(200);
        let outcome = run_for("setsid sleep 5 & echo $!; wait", b"", Some(limit)).await;
        assert_eq!(outcome.result, Err(Failure::TimeLimit(limit)));
    }

    #[test]
    fn failures_have_gos_words() {
        let table = [
            (Failure::Status(127), "exit status 127 (not found)"),
            (Failure::Signal(9), "signal: killed"),
            (Failure::Signal(15), "signal: terminated"),
            (Failure::Signal(40), "signal: 40"),
            (
                Failure::TimeLimit(Duration::from_secs(2)),
                "ended after the time limit of 2s",
            ),
        ];
        for (failure, expected) in table {
            assert_eq!(failure.to_string(), expected);
        }
    }
}
