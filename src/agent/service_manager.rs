//! What a service manager is told that asks for it (systemd, `Type=notify`): that the agent serves, that it reloads,
//! that it ends, and, where there is a watchdog, that it lives. Nothing happens without `NOTIFY_SOCKET`.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::driver::Handle;

/// What can be told.
#[cfg_attr(not(unix), expect(dead_code, reason = "nobody reads it there"))]
pub(super) enum News<'a> {
    /// The agent serves: gossip and RPC. A join may still be under way, because the first agent of a cluster would
    /// never be ready otherwise.
    Ready(&'a str),
    /// What it does, for people.
    Status(&'a str),
    /// It reads its configuration again; `Ready` is to follow.
    Reloading,
    /// It ends.
    Stopping,
}

/// Tells it. A service manager that does not listen is nothing to stop for.
#[cfg(unix)]
pub(super) fn tell(news: News<'_>) {
    use sd_notify::NotifyState;
    let _ = match news {
        News::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        News::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
        News::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
            Err(error) => Err(error),
        },
        News::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
}

/// There is no such service manager here.
#[cfg(not(unix))]
pub(super) fn tell(_: News<'_>) {}

/// Shows the watchdog, if there is one, that the network loop still turns. Within a `LocalRuntime`.
pub(super) fn feed_watchdog(driver: Handle) {
    let Some(patience) = watchdog() else {
        return;
    };
    spawn_local(async move {
        while driver.read(|_| ()).await.is_ok() {
            alive();
            sleep(patience / 2).await;
        }
    });
}

#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(unix)]
fn alive() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
}

#[cfg(not(unix))]
fn watchdog() -> Option<Duration> {
    None
}

#[cfg(not(unix))]
fn alive() {}
