//! Scripts on Windows: a job object each, so that its end is the end of all processes that it started.

use std::io::{self, Read};
use std::process::ExitStatus;

use process_wrap::tokio::{ChildWrapper, CommandWrap, CreationFlags, JobObject};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;
use windows::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;

use super::{Keep, Kept};
use crate::events::shell::{Shell, split};

/// What a thread reads from a script's output.
pub struct Output {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    pub kept: Kept,
    pub over: bool,
}

impl Output {
    /// The pipe cannot be waited for, so a thread reads it; it ends with the last writer.
    pub fn new(mut pipe: io::PipeReader, keep: Keep) -> io::Result<Output> {
        let (sender, chunks) = mpsc::channel(1);
        let read = move || {
            let mut buffer = [0; 4096];
            loop {
                let chunk = match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => Ok(buffer.get(..len).unwrap_or_default().to_vec()),
                    Err(e) => Err(e),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("handler-output".to_string())
            .spawn(read)?;
        Ok(Output {
            chunks,
            kept: Kept::new(keep),
            over: false,
        })
    }

    /// Nothing that was read is lost if this is dropped half-way.
    pub async fn read_to_end(&mut self) -> io::Result<()> {
        while let Some(chunk) = self.chunks.recv().await {
            self.kept.push(&chunk?);
        }
        self.over = true;
        Ok(())
    }
}

/// The command that a line stands for.
pub fn command(line: &str, shell: Shell) -> io::Result<Command> {
    match shell {
        Shell::System => {
            let mut command = Command::new("cmd");
            // Without /S, whether cmd takes away the outer quotes depends on what is between them; without
            // /D, it first runs what some other program has put into the registry.
            command.args(["/D", "/S", "/C"]).raw_arg(format!("\"{line}\""));
            Ok(command)
        }
        Shell::None => {
            let (program, rest) = split(line).map_err(io::Error::other)?;
            let mut command = Command::new(program);
            if !rest.is_empty() {
                command.raw_arg(rest);
            }
            Ok(command)
        }
    }
}

/// A process in a job of its own.
pub struct Child(Box<dyn ChildWrapper>);

impl Child {
    /// A Ctrl-C at the agent's console is none for its scripts, as on Unix, because of the process group.
    /// The process belongs to the job before its first instruction.
    pub fn spawn(command: Command) -> io::Result<Child> {
        let mut command = CommandWrap::from(command);
        command
            .wrap(CreationFlags(CREATE_NEW_PROCESS_GROUP))
            .wrap(JobObject);
        command.spawn().map(Child)
    }

    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.0.stdin().take()
    }

    /// Waits for the process itself, not for what it started.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.inner_mut().wait().await
    }

    /// There is no way to ask a process here that most programs understand.
    pub fn ask_to_end(&mut self) {
        self.end();
    }

    /// Ends the job.
    pub fn end(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.start_kill();
    }
}

/// An exit here always has a code.
pub fn signal_of(_: ExitStatus) -> i32 {
    0
}

pub fn signal_name(number: i32) -> String {
    number.to_string()
}

/// Lines end here with CR LF; whoever reads an answer elsewhere expects LF.
pub fn as_text(output: Vec<u8>) -> Vec<u8> {
    super::unix_line_ends(output)
}
