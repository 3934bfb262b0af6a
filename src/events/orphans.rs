//! Processes that become the agent's children without being its scripts: what scripts leave behind comes to the agent
//! when it is the first process of a container, or a subreaper, and what was there before the agent took over its
//! process (`helper & exec fyrd agent`) is its own from the start. Nobody waits for them, so once they have ended they
//! are reaped here.
//!
//! Scripts are reaped by whoever runs them, who must learn how they ended.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// The process of a script, until somebody has learnt how it ended.
#[derive(Debug)]
pub struct Own(Option<i32>);

thread_local! {
    static OWN: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

impl Own {
    /// To be called before anything else can run on the agent's thread.
    pub fn new(id: Option<u32>) -> Own {
        let id = id.and_then(|id| i32::try_from(id).ok());
        OWN.with_borrow_mut(|own| own.extend(id));
        Own(id)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            OWN.with_borrow_mut(|own| own.remove(&id));
        }
    }
}

#[cfg(target_os = "linux")]
pub use linux::reap;

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::time::timeout;
    use tracing::{debug, warn};

    use super::OWN;

    /// When to look again if a script's process was in front, which is reaped by others in a moment.
    const AGAIN: Duration = Duration::from_millis(200);

    /// Reaps whenever something has ended; never comes back, unless there are no signals.
    pub async fn reap() {
        let mut ended = match signal(SignalKind::child()) {
            Ok(ended) => ended,
            Err(error) => {
                warn!(target: "agent", "What scripts leave behind is not reaped: {error}");
                return;
            }
        };
        loop {
            if all() {
                ended.recv().await;
            } else {
                // Whether there was a signal in between or not.
                let _ = timeout(AGAIN, ended.recv()).await;
            }
        }
    }

    /// Reaps what has ended and is no script; false if a script's process hides what may be behind it.
    fn all() -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        // The kind of end does not matter, nor does a number that no script has any more: it stays taken until it
        // is reaped here.
        while let Ok(status) = waitid(Id::All, flags | WaitPidFlag::WNOWAIT) {
            let Some(process) = status.pid() else { return true };
            if OWN.with_borrow(|own| own.contains(&process.as_raw())) {
                return false;
            }
            if waitid(Id::Pid(process), flags).is_err() {
                return true;
            }
            debug!(target: "agent", "Reaped process {process}, which a script had left behind");
        }
        true
    }
}
