//! Signals (docs/compatibility.md#signals), and what stands for them on Windows: there they are events of the
//! console, or what the service manager asks for. The mapping of console events is that of the Go runtime, and so Serf's.
//!
//! | Windows | means |
//! | --- | --- |
//! | Ctrl-C, Ctrl-Break | SIGINT: a graceful leave, unless `skip_leave_on_interrupt` |
//! | the console is closed, the user logs off, the system shuts down | SIGTERM: the end, with a leave if `leave_on_terminate` |
//! | the service is stopped, the system shuts down | the same |
//! | the service is told that its parameters changed (`sc control NAME paramchange`) | SIGHUP: reload |
//!
//! Windows ends a process about 5 s after its console was closed, whatever it does; our patience with a
//! leave is shorter.

use std::io;

use tokio::sync::mpsc;

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

/// Where signals come from.
#[derive(Debug)]
pub enum Source {
    /// The process: its signals, or the events of its console.
    Process,
    /// Somebody who watches over the process, such as the service manager of Windows.
    Manager(mpsc::UnboundedReceiver<Signal>),
}

/// Waits for signals. From its creation on they do not end the process by themselves.
#[derive(Debug)]
pub struct Signals(Waiting);

#[derive(Debug)]
enum Waiting {
    Process(system::Signals),
    Manager(mpsc::UnboundedReceiver<Signal>),
}

impl Signals {
    /// Takes over the source; to be called within a runtime.
    pub fn new(source: Source) -> io::Result<Signals> {
        Ok(Signals(match source {
            Source::Process => Waiting::Process(system::Signals::new()?),
            Source::Manager(signals) => Waiting::Manager(signals),
        }))
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match &mut self.0 {
            Waiting::Process(signals) => signals.next().await,
            Waiting::Manager(signals) => match signals.recv().await {
                Some(signal) => signal,
                // A manager that is gone asks for nothing any more.
                None => std::future::pending().await,
            },
        }
    }
}

#[cfg(unix)]
mod system {
    use std::io;

    use tokio::signal::unix::{self, SignalKind, signal};

    use super::Signal;

    #[derive(Debug)]
    pub struct Signals {
        interrupt: unix::Signal,
        terminate: unix::Signal,
        hangup: unix::Signal,
        /// Nothing happens at these, above all not the end of the process.
        ignored: [unix::Signal; 3],
    }

    impl Signals {
        pub fn new() -> io::Result<Signals> {
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
}

#[cfg(windows)]
mod system {
    use std::io;

    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff,
        ctrl_shutdown,
    };

    use super::Signal;

    /// The process lives on after the last three events only as long as somebody waits for them.
    #[derive(Debug)]
    pub struct Signals {
        c: CtrlC,
        brk: CtrlBreak,
        close: CtrlClose,
        logoff: CtrlLogoff,
        shutdown: CtrlShutdown,
    }

    impl Signals {
        pub fn new() -> io::Result<Signals> {
            Ok(Signals {
                c: ctrl_c()?,
                brk: ctrl_break()?,
                close: ctrl_close()?,
                logoff: ctrl_logoff()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        pub async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.c.recv() => Signal::Interrupt,
                _ = self.brk.recv() => Signal::Interrupt,
                _ = self.close.recv() => Signal::Terminate,
                _ = self.logoff.recv() => Signal::Terminate,
                _ = self.shutdown.recv() => Signal::Terminate,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_managers_signals_come_in_order_and_none_after_its_end() {
        let (manager, receiver) = mpsc::unbounded_channel();
        let mut signals = Signals::new(Source::Manager(receiver)).unwrap();
        for signal in [Signal::Hangup, Signal::Terminate] {
            manager.send(signal).unwrap();
        }
        assert_eq!(signals.next().await, Signal::Hangup);
        assert_eq!(signals.next().await, Signal::Terminate);
        drop(manager);
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), signals.next());
        assert!(next.await.is_err(), "the end of the manager is no signal");
    }
}
