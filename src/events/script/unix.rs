//! Scripts on Unix: a process group each, ended by signals to the group.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{ChildStdin, Command};

use super::{Keep, Kept};
use crate::events::orphans::Own;
use crate::events::shell::{Shell, split};

/// The reading end of a script's output, and what was read.
pub struct Output {
    pipe: Receiver,
    pub kept: Kept,
    pub over: bool,
}

impl Output {
    pub fn new(pipe: io::PipeReader, keep: Keep) -> io::Result<Output> {
        Ok(Output {
            pipe: Receiver::from_owned_fd(OwnedFd::from(pipe))?,
            kept: Kept::new(keep),
            over: false,
        })
    }

    /// Nothing that was read is lost if this is dropped half-way.
    pub async fn read_to_end(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while !self.over {
            match self.pipe.read(&mut buffer).await? {
                0 => self.over = true,
                len => self.kept.push(buffer.get(..len).unwrap_or_default()),
            }
        }
        Ok(())
    }
}

/// The command that a line stands for.
pub fn command(line: &str, shell: Shell) -> io::Result<Command> {
    match shell {
        Shell::System => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(line);
            Ok(command)
        }
        Shell::None => {
            let (program, arguments) = split(line).map_err(io::Error::other)?;
            let mut command = Command::new(program);
            command.args(arguments);
            Ok(command)
        }
    }
}

/// A process with a group of its own.
pub struct Child {
    process: tokio::process::Child,
    /// Until it has been waited for.
    own: Option<Own>,
}

impl Child {
    pub fn spawn(mut command: Command) -> io::Result<Child> {
        let process = command.process_group(0).spawn()?;
        let own = Some(Own::new(process.id()));
        Ok(Child { process, own })
    }

    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await;
        self.own = None;
        status
    }

    /// Asks the group to end.
    pub fn ask_to_end(&mut self) {
        self.signal_group(Signal::SIGTERM);
    }

    /// Ends the group.
    pub fn end(&mut self) {
        self.signal_group(Signal::SIGKILL);
    }

    /// Sends a signal to the group, unless its leader has been reaped.
    fn signal_group(&mut self, signal: Signal) {
        if let Some(id) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            // A group that is gone already is as good.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

pub fn signal_of(status: ExitStatus) -> i32 {
    status.signal().unwrap_or_default()
}

/// Go's names of the usual signals.
pub fn signal_name(number: i32) -> String {
    let name = match Signal::try_from(number) {
        Ok(Signal::SIGHUP) => "hangup",
        Ok(Signal::SIGINT) => "interrupt",
        Ok(Signal::SIGQUIT) => "quit",
        Ok(Signal::SIGABRT) => "aborted",
        Ok(Signal::SIGKILL) => "killed",
        Ok(Signal::SIGSEGV) => "segmentation fault",
        Ok(Signal::SIGPIPE) => "broken pipe",
        Ok(Signal::SIGALRM) => "alarm clock",
        Ok(Signal::SIGTERM) => "terminated",
        Ok(other) => other.as_str(),
        Err(_) => return number.to_string(),
    };
    name.to_string()
}

/// Text is what was written.
pub fn as_text(output: Vec<u8>) -> Vec<u8> {
    output
}
