//! Signals (surface.md 2.8).

use std::io;

/// A signal that means something to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, or Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Hangup,
}

impl Signal {
    /// The name that the agent prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Interrupt => "interrupt",
            Signal::Terminate => "terminated",
            Signal::Hangup => "hangup",
        }
    }
}

/// Waits for signals. From its creation on they do not end the process by themselves.
#[cfg(unix)]
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Nothing happens at these, above all not the end of the process.
    ignored: [tokio::signal::unix::Signal; 3],
}

#[cfg(unix)]
impl Signals {
    /// Takes over the process's signals.
    pub fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            ignored: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
                signal(SignalKind::pipe())?,
            ],
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        let [usr1, usr2, pipe] = &mut self.ignored;
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Signal::Interrupt,
                _ = self.terminate.recv() => return Signal::Terminate,
                _ = self.hangup.recv() => return Signal::Hangup,
                // Telemetry listens to this one by itself.
                _ = usr1.recv() => {}
                _ = usr2.recv() => {}
                _ = pipe.recv() => {}
            }
        }
    }
}

/// Waits for Ctrl-C, the one signal this system has.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Takes over the process's signals.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals)
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            // Without a console there is no Ctrl-C.
            Err(_) => std::future::pending().await,
        }
    }
}
