//! Seats of clients, of RPC and of HTTP, and who gives up his when all are taken.
//!
//! Who comes then waits, and those behind him wait in the backlog of the socket. The client that has been idle for
//! longest and has no subscription gives way: it can come again. When nobody can give way for a while, who comes is
//! refused, and told so.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use fyrd_core::bounds::{SEAT_WAIT, SEAT_YIELD_AFTER};

/// All seats.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    /// How long a client must have been idle to give way.
    yield_after: Duration,
    /// How long who comes waits for that.
    wait: Duration,
    taken: RefCell<Vec<Rc<Sitter>>>,
    freed: Notify,
    /// Since when nobody gives way.
    full_since: Cell<Option<Instant>>,
}

/// One client's seat; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    sitter: Rc<Sitter>,
    seats: Rc<Seats>,
}

#[derive(Debug)]
struct Sitter {
    /// Since when its client only waits for itself; `None` while it is served, or has a subscription.
    idle_since: Cell<Option<Instant>>,
    gives_way: Cell<bool>,
    /// Whether its client has introduced itself.
    is_known: Cell<bool>,
    wanted: Notify,
}

impl Seats {
    pub(crate) fn new(max: usize) -> Rc<Seats> {
        Seats::with_times(max, SEAT_YIELD_AFTER, SEAT_WAIT)
    }

    fn with_times(max: usize, yield_after: Duration, wait: Duration) -> Rc<Seats> {
        Rc::new(Seats {
            max,
            yield_after,
            wait,
            taken: RefCell::default(),
            freed: Notify::new(),
            full_since: Cell::new(None),
        })
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// The next seat that is free; none when nobody gives way for long enough.
    pub(crate) async fn take(self: &Rc<Seats>) -> Option<Seat> {
        loop {
            if self.taken.borrow().len() < self.max {
                self.full_since.set(None);
                return Some(self.sit());
            }
            let now = Instant::now();
            let full_since = self.full_since.get().unwrap_or(now);
            self.full_since.set(Some(full_since));
            let refused_at = full_since + self.wait;
            if now >= refused_at {
                return None;
            }
            let next = match self.longest_idle() {
                Some((sitter, at)) if at <= now => {
                    sitter.gives_way.set(true);
                    sitter.wanted.notify_one();
                    refused_at
                }
                Some((_, at)) => at.min(refused_at),
                None => refused_at,
            };
            // Whether in time or not, the next round finds out.
            let _ = timeout_at(next, self.freed.notified()).await;
        }
    }

    fn sit(self: &Rc<Seats>) -> Seat {
        let sitter = Rc::new(Sitter {
            idle_since: Cell::new(None),
            gives_way: Cell::new(false),
            is_known: Cell::new(false),
            wanted: Notify::new(),
        });
        self.taken.borrow_mut().push(Rc::clone(&sitter));
        Seat {
            sitter,
            seats: Rc::clone(self),
        }
    }

    /// Who has been idle for longest, and from when on that is long enough to give way: at once for one that nobody
    /// knows yet, which goes before all others, whatever it has begun to send.
    fn longest_idle(&self) -> Option<(Rc<Sitter>, Instant)> {
        let taken = self.taken.borrow();
        let idle = taken.iter().filter(|sitter| !sitter.gives_way.get());
        let idle = idle.filter_map(|sitter| Some((sitter, sitter.idle_since.get()?)));
        let (sitter, since) = idle.min_by_key(|(sitter, since)| (sitter.is_known.get(), *since))?;
        let enough = if sitter.is_known.get() {
            self.yield_after
        } else {
            Duration::ZERO
        };
        Some((Rc::clone(sitter), since + enough))
    }
}

impl Seat {
    /// Its client has introduced itself; whether that is news.
    pub(crate) fn admit(&self) -> bool {
        !self.sitter.is_known.replace(true)
    }

    /// The client is idle from now on, or is not.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.sitter.idle_since.set(idle.then(Instant::now));
    }

    /// Waits until this client has to give way.
    pub(crate) async fn wanted(&self) {
        self.sitter.wanted.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.borrow_mut();
        taken.retain(|sitter| !Rc::ptr_eq(sitter, &self.sitter));
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YIELD_AFTER: Duration = Duration::from_millis(50);
    const WAIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn the_longest_idle_gives_way_and_without_one_the_next_is_refused() {
        let seats = Seats::with_times(3, YIELD_AFTER, WAIT);
        let mut taken = Vec::new();
        for _ in 0..3 {
            let seat = seats.take().await.unwrap();
            assert!(seat.admit() && !seat.admit());
            taken.push(seat);
            taken.iter().for_each(|seat| seat.set_idle(true));
        }
        let start = Instant::now();
        taken[1].set_idle(true);
        // The first is served again, so the third has been idle for longest.
        taken[0].set_idle(false);
        let third = taken.pop().unwrap();
        let giving = async {
            third.wanted().await;
            drop(third);
            start.elapsed()
        };
        let (next, after) = tokio::join!(seats.take(), giving);
        assert!(
            next.is_some() && after + Duration::from_millis(5) >= YIELD_AFTER,
            "{after:?}"
        );
        // Now nobody is idle.
        taken[1].set_idle(false);
        let start = Instant::now();
        assert!(seats.take().await.is_none());
        assert!(start.elapsed() >= WAIT);
        let start = Instant::now();
        for _ in 0..100 {
            assert!(seats.take().await.is_none());
        }
        assert!(start.elapsed() < 50 * WAIT, "each has waited");
        drop(next);
        assert!(seats.take().await.is_some());
    }

    #[tokio::test]
    async fn whom_nobody_knows_gives_way_before_all_others_and_at_once() {
        let seats = Seats::with_times(2, 100 * WAIT, WAIT);
        let known = seats.take().await.unwrap();
        known.admit();
        known.set_idle(true);
        let stranger = seats.take().await.unwrap();
        stranger.set_idle(true);
        let giving = async {
            stranger.wanted().await;
            drop(stranger);
        };
        let (next, ()) = tokio::join!(seats.take(), giving);
        assert!(next.is_some());
    }
}
