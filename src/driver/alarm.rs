//! When the loop wakes up by itself.
//!
//! The runtime keeps its timers in wheels of slots, so one of a second wakes the process twice: when the slot comes, and when
//! the timer is due. An agent at rest does little else, and each time a host with much to do has to fetch it into its
//! caches. On Linux the kernel's own timer wakes it once.

use std::time::Instant;

/// One timer, which is set anew again and again.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Option<Instant>,
    #[cfg(target_os = "linux")]
    kernel: Option<kernel::Timer>,
}

impl Alarm {
    /// One that is not set. Within a runtime.
    pub(super) fn new() -> Alarm {
        Alarm {
            at: None,
            // Where there is none, no descriptor for it, or it fails, the runtime's timers do as well.
            #[cfg(target_os = "linux")]
            kernel: kernel::Timer::new().ok(),
        }
    }

    /// Has it ring at this time and at no other; `None`: not at all.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        if self.at == at {
            return;
        }
        self.at = at;
        #[cfg(target_os = "linux")]
        if let Some(kernel) = &self.kernel
            && kernel.set(at).is_err()
        {
            self.kernel = None;
        }
    }

    /// Waits until it rings; then it is not set any more.
    pub(super) async fn ring(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(kernel) = &mut self.kernel {
            if kernel.ring().await.is_ok() {
                self.at = None;
                return;
            }
            self.kernel = None;
        }
        match self.at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
        self.at = None;
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    #[derive(Debug)]
    pub(super) struct Timer {
        timer: TimerFd,
        /// The same timer. For the runtime it is something to read from, as a pipe is.
        expirations: pipe::Receiver,
    }

    impl Timer {
        pub(super) fn new() -> io::Result<Timer> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let same = timer.as_fd().try_clone_to_owned()?;
            let expirations = pipe::Receiver::from_owned_fd_unchecked(same)?;
            Ok(Timer { timer, expirations })
        }

        /// What has expired before is forgotten.
        pub(super) fn set(&self, at: Option<Instant>) -> io::Result<()> {
            let Some(at) = at else {
                return Ok(self.timer.unset()?);
            };
            // None at all would stop the timer.
            let left = at.saturating_duration_since(Instant::now());
            let left = Expiration::OneShot(left.max(Duration::from_nanos(1)).into());
            Ok(self.timer.set(left, TimerSetTimeFlags::empty())?)
        }

        pub(super) async fn ring(&mut self) -> io::Result<()> {
            // A count of 8 bytes. That there is room for more, and no more comes, tells the runtime that nothing is left.
            self.expirations.read(&mut [0; 16]).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Both kinds, where there are two.
    fn alarms() -> Vec<Alarm> {
        vec![Alarm::new(), Alarm::default()]
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn it_rings_when_it_is_due_and_not_before() {
        for mut alarm in alarms() {
            for wait in [ms(20), ms(0), ms(3)] {
                let due = Instant::now() + wait;
                alarm.set(Some(due));
                alarm.set(Some(due));
                timeout(ms(30_000), alarm.ring()).await.expect("it rings");
                assert!(Instant::now() >= due);
            }
            // In the past is now.
            let past = Instant::now();
            tokio::time::sleep(ms(2)).await;
            alarm.set(Some(past));
            timeout(ms(30_000), alarm.ring()).await.expect("it rings");
        }
    }

    #[tokio::test]
    async fn only_the_last_time_counts() {
        for mut alarm in alarms() {
            let start = Instant::now();
            alarm.set(Some(start + ms(1)));
            // It has rung already, but nobody has listened.
            tokio::time::sleep(ms(5)).await;
            alarm.set(Some(start + ms(60)));
            timeout(ms(30_000), alarm.ring()).await.expect("it rings");
            assert!(start.elapsed() >= ms(60));
            alarm.set(Some(Instant::now() + ms(1)));
            alarm.set(None);
            assert!(timeout(ms(50), alarm.ring()).await.is_err(), "it is not set");
        }
    }

    #[tokio::test]
    async fn who_stops_listening_misses_nothing() {
        for mut alarm in alarms() {
            alarm.set(Some(Instant::now() + ms(30)));
            assert!(timeout(ms(1), alarm.ring()).await.is_err());
            timeout(ms(30_000), alarm.ring()).await.expect("it rings");
            assert!(timeout(ms(50), alarm.ring()).await.is_err(), "it rings once");
        }
    }
}
