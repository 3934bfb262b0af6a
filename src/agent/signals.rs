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
    use std::ffi::c_int;
    use std::io;
    use std::ops::RangeInclusive;

    use nix::sys::signal::Signal;
    use tokio::signal::unix::{self, SignalKind, signal};

    #[derive(Debug)]
    pub struct Signals {
        interrupt: unix::Signal,
        terminate: unix::Signal,
        hangup: unix::Signal,
        /// Nothing happens at these, above all not the end of the process, which would be the system's answer. As
        /// nothing is set for the process itself, scripts find them as they are used to.
        _ignored: Vec<unix::Signal>,
    }

    /// What Go's runtime lets pass unheard, and Serf with it. Telemetry listens to SIGUSR1 by itself.
    fn ignored() -> Vec<c_int> {
        use Signal as S;
        #[rustfmt::skip]
        let mut ignored = vec![
            S::SIGUSR1, S::SIGUSR2, S::SIGPIPE, S::SIGALRM, S::SIGVTALRM, S::SIGPROF, S::SIGIO, S::SIGXCPU, S::SIGXFSZ,
        ];
        #[cfg(target_os = "linux")]
        ignored.push(S::SIGPWR);
        let ignored = ignored.into_iter().map(|signal| signal as c_int);
        ignored.chain(REAL_TIME).collect()
    }

    /// The real-time signals that no C library keeps to itself.
    #[cfg(target_os = "linux")]
    const REAL_TIME: RangeInclusive<c_int> = 35..=64;
    #[cfg(not(target_os = "linux"))]
    const REAL_TIME: [c_int; 0] = [];

    impl Signals {
        pub fn new() -> io::Result<Signals> {
            let ignored = ignored().into_iter().map(SignalKind::from_raw).map(signal);
            Ok(Signals {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                _ignored: ignored.collect::<io::Result<_>>()?,
            })
        }

        pub async fn next(&mut self) -> super::Signal {
            tokio::select! {
                _ = self.interrupt.recv() => super::Signal::Interrupt,
                _ = self.terminate.recv() => super::Signal::Terminate,
                _ = self.hangup.recv() => super::Signal::Hangup,
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
