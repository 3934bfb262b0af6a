//! A thread between the agent and what may keep it waiting: a pipe whose reader sleeps, a terminal that was
//! stopped, a log daemon that hangs. The agent's own thread, on which gossip runs, never waits for it.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use crate::queue;

/// Gives items to the thread that carries them, in turn. What comes while too many wait is lost, and once there
/// is room again, a notice says how many were.
#[derive(Debug)]
pub struct Carrier<T> {
    /// Gone after the end.
    items: Option<queue::Sender<T>>,
    /// Closed by the thread when it has carried all items.
    done: mpsc::Receiver<()>,
}

impl<T: Send + 'static> Carrier<T> {
    /// Starts the thread. Items of up to `capacity` in all wait for it, by what `weigh` says of each. The error
    /// says that the system has no thread to give.
    pub fn start(
        name: &str,
        capacity: usize,
        weigh: fn(&T) -> usize,
        mut carry: impl FnMut(T) + Send + 'static,
    ) -> io::Result<Carrier<T>> {
        let (items, mut waiting) = queue::weighed(capacity, weigh);
        let (ended, done) = mpsc::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(item) = waiting.blocking_recv() {
                carry(item);
            }
            drop::<mpsc::Sender<()>>(ended);
        })?;
        let items = Some(items);
        Ok(Carrier { items, done })
    }

    /// Has an item carried. Of those that were lost before, so many, `notice` tells.
    pub fn give(&self, item: T, notice: impl FnOnce(u64) -> T) {
        let Some(items) = &self.items else { return };
        let lost = items.take_lost();
        if lost > 0 && items.offer(notice(lost)) == queue::Offered::Lost {
            // Of the notice itself nobody is to be told.
            items.take_lost();
            items.add_lost(lost);
        }
        items.offer(item);
    }

    /// Takes nothing more, and waits until all has been carried, but not longer than `patience`.
    pub fn finish(&mut self, patience: Duration) {
        self.items = None;
        let _ = self.done.recv_timeout(patience);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use super::*;

    const CAPACITY: usize = 64 * 1024;

    #[test]
    fn a_stalled_output_costs_lines_and_holds_nobody_up() {
        let (go, wait) = mpsc::channel::<()>();
        let carried = Arc::new(Mutex::new(Vec::new()));
        let output = Arc::clone(&carried);
        let carry = move |line| {
            let _ = wait.recv();
            output.lock().unwrap().push(line);
        };
        let mut carrier = Carrier::start("test", CAPACITY, String::len, carry).unwrap();
        let notice = |lost| format!("{lost} were lost");
        let line = "x".repeat(1024);
        // What fits, what the thread may have taken meanwhile, and a hundred lines more.
        let given = 2 * CAPACITY / line.len() + 100;
        for _ in 0..given {
            carrier.give(line.clone(), notice);
        }
        assert!(carried.lock().unwrap().is_empty());
        drop(go);
        let deadline = Instant::now() + Duration::from_secs(60);
        while carrier.items.as_ref().unwrap().waiting() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        carrier.give("the end".to_owned(), notice);
        carrier.finish(Duration::from_secs(60));
        let carried = carried.lock().unwrap();
        assert_eq!(carried.last().unwrap(), "the end");
        let (shown, others): (Vec<_>, Vec<_>) = carried.iter().partition(|it| **it == line);
        // One says it before the end; where the thread has taken some meanwhile, there was room for one before.
        let notices = &others[..others.len() - 1];
        assert!(!notices.is_empty());
        let number = |notice: &&String| notice.split(' ').next().unwrap().parse::<usize>().unwrap();
        let lost: usize = notices.iter().map(number).sum();
        assert_eq!(shown.len() + lost, given);
        assert!(lost >= 100, "{lost}");
    }

    #[test]
    fn the_end_does_not_wait_for_an_output_that_is_stalled() {
        let (go, wait) = mpsc::channel::<()>();
        let carry = move |_| {
            let _ = wait.recv();
        };
        let mut carrier = Carrier::start("test", CAPACITY, String::len, carry).unwrap();
        carrier.give("a line".to_owned(), |_| String::new());
        let before = Instant::now();
        carrier.finish(Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(10));
        drop(go);
    }
}
