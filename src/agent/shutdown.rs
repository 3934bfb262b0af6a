//! The end of an agent: by signal, by RPC, by losing its name (docs/compatibility.md#signals).

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::Agent;
use super::logging::Console;
use super::reload::Reload;
use super::service_manager::{self, News};
use super::signals::{Signal, Signals};
use crate::driver::Ended;

/// The exit code of an agent that did not start, or was not allowed to leave.
pub(super) const FAILED: u8 = 1;

/// A leave that was asked for by a signal and takes longer is cut short.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// How long handlers may take when the agent has left.
const HANDLER_PATIENCE: Duration = Duration::from_secs(3);

/// A running agent and what has to be watched over.
pub(super) struct Running {
    pub agent: Agent,
    pub driver: JoinHandle<Ended>,
    /// Ends once a client has made the agent leave, and knows it.
    pub rpc: JoinHandle<()>,
    pub signals: Signals,
    pub reload: Rc<Reload>,
    pub events: JoinHandle<()>,
    /// Makes `events` end, and hold nothing back.
    pub finish_events: oneshot::Sender<()>,
}

/// Why an agent ends.
enum Cause {
    /// A signal.
    Signal(Signal),
    /// A leave by RPC is over, and who asked for it knows.
    Left,
    /// The network loop ended by itself.
    Driver(Ended),
}

/// Watches over a running agent until its end; the exit code.
pub(super) async fn watch(mut running: Running, console: &Console) -> u8 {
    let code = loop {
        let cause = tokio::select! {
            signal = running.signals.next() => Cause::Signal(signal),
            served = &mut running.rpc => match served {
                Ok(()) => Cause::Left,
                Err(_) => Cause::Driver(Ended::Stopped),
            },
            ended = &mut running.driver => Cause::Driver(ended.unwrap_or(Ended::Stopped)),
        };
        match cause {
            Cause::Signal(Signal::Hangup) => {
                console.headline("Caught signal: hangup");
                running.reload.request();
            }
            Cause::Signal(signal) => break end_by_signal(signal, &mut running, console).await,
            Cause::Left => break 0,
            // A service manager shall start an agent again that has lost its name.
            Cause::Driver(Ended::LostName | Ended::NotJoined | Ended::Stopped) => break FAILED,
        }
    };
    close(running).await;
    code
}

/// Ends what is left of the agent, sockets last.
pub(super) async fn close(running: Running) {
    service_manager::tell(News::Stopping);
    info!(target: "agent", "requesting serf shutdown");
    let node = running.agent.0.driver.clone();
    if running.agent.has_left() {
        finish_handlers(running).await;
    } else {
        // Scripts that run go on, as with Serf: one of them may be what restarts the agent.
        warn!(target: "serf", "Shutdown without a Leave");
    }
    node.stop().await;
    info!(target: "agent", "shutdown complete");
}

/// Lets handlers have all events up to this node's own leave, and time for them, unless a further signal
/// comes.
async fn finish_handlers(mut running: Running) {
    // A loop that has ended already has nothing left to deliver.
    let _ = running.finish_events.send(());
    let _ = running.events.await;
    let patience = async {
        tokio::select! {
            _ = running.signals.next() => {}
            () = tokio::time::sleep(HANDLER_PATIENCE) => {}
        }
    };
    running.agent.0.handlers.finish(patience).await;
}

/// Leaves if the signal means that; a further signal or too long a leave ends the agent at once.
async fn end_by_signal(signal: Signal, running: &mut Running, console: &Console) -> u8 {
    console.headline(&format!("Caught signal: {}", signal.as_str()));
    let graceful = match signal {
        Signal::Interrupt => !running.reload.in_force().skip_leave_on_interrupt,
        Signal::Terminate => running.reload.in_force().leave_on_terminate,
        Signal::Hangup => false,
    };
    if !graceful {
        return FAILED;
    }
    console.headline("Gracefully shutting down agent...");
    let agent = running.agent.clone();
    let leaving: JoinHandle<Result<(), String>> =
        tokio::task::spawn_local(async move { agent.leave_cluster().await });
    let left = async {
        if let Ok(Err(reason)) = leaving.await {
            console.headline(&format!("Error: {reason}"));
            // As after any leave that does not end, the patience decides.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = left => 0,
        _ = running.signals.next() => FAILED,
        () = tokio::time::sleep(LEAVE_PATIENCE) => FAILED,
    }
}
