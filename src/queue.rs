//! A queue with a bound whose sending end never waits: what finds no room is lost, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::{self, error::TryRecvError};

/// A queue in which up to `capacity` items wait.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    weighed(capacity, |_| 1)
}

/// A queue in which items of up to `capacity` in all wait, by what `weigh` says of each.
pub fn weighed<T>(capacity: usize, weigh: fn(&T) -> usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts {
        capacity,
        weigh,
        waiting: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
    });
    let sender = Sender {
        items: sender,
        counts: Arc::clone(&counts),
    };
    let items = receiver;
    (sender, Receiver { items, counts })
}

/// Gives an item to all queues, forgets those whose receiver is gone, and says in how many it was lost.
pub fn publish<T: Clone>(queues: &mut Vec<Sender<T>>, item: &T) -> usize {
    let mut lost = 0;
    queues.retain(|queue| {
        let offered = queue.offer(item.clone());
        lost += usize::from(offered == Offered::Lost);
        offered != Offered::Closed
    });
    lost
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits.
    Taken,
    /// There was no room for it.
    Lost,
    /// The receiver is gone.
    Closed,
}

/// Where items go in.
#[derive(Debug)]
pub struct Sender<T> {
    items: mpsc::UnboundedSender<T>,
    counts: Arc<Counts<T>>,
}

/// Where items come out.
#[derive(Debug)]
pub struct Receiver<T> {
    items: mpsc::UnboundedReceiver<T>,
    counts: Arc<Counts<T>>,
}

#[derive(Debug)]
struct Counts<T> {
    capacity: usize,
    weigh: fn(&T) -> usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl<T> Sender<T> {
    /// Puts an item in, if there is room.
    pub fn offer(&self, item: T) -> Offered {
        if self.items.is_closed() {
            return Offered::Closed;
        }
        let counts = &*self.counts;
        let weight = (counts.weigh)(&item);
        let fits = |waiting: usize| waiting.checked_add(weight).filter(|sum| *sum <= counts.capacity);
        if counts.waiting.fetch_update(Relaxed, Relaxed, fits).is_err() {
            counts.lost.fetch_add(1, Relaxed);
            return Offered::Lost;
        }
        match self.items.send(item) {
            Ok(()) => Offered::Taken,
            Err(_) => Offered::Closed,
        }
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.counts.waiting.load(Relaxed)
    }

    /// How many items were lost since that was last taken.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Relaxed)
    }

    /// Takes the number of items that were lost.
    pub fn take_lost(&self) -> u64 {
        self.counts.lost.swap(0, Relaxed)
    }

    /// Counts items that were lost on their way to this queue.
    pub fn add_lost(&self, count: u64) {
        self.counts.lost.fetch_add(count, Relaxed);
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Waits until the receiver is gone.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` once all senders are gone.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.items.recv().await;
        self.taken(item)
    }

    /// As [`recv`](Receiver::recv), for a thread of its own.
    pub fn blocking_recv(&mut self) -> Option<T> {
        let item = self.items.blocking_recv();
        self.taken(item)
    }

    /// An item, if one waits.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let item = self.items.try_recv()?;
        self.taken(Some(item)).ok_or(TryRecvError::Empty)
    }

    /// Takes nothing more from now on; what waits still comes.
    pub fn close(&mut self) {
        self.items.close();
    }

    /// Takes the number of items that were lost.
    pub fn take_lost(&self) -> u64 {
        self.counts.lost.swap(0, Relaxed)
    }

    fn taken(&self, item: Option<T>) -> Option<T> {
        let weight = item.as_ref().map_or(0, self.counts.weigh);
        self.counts.waiting.fetch_sub(weight, Relaxed);
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_lost_and_counted() {
        let (sender, mut receiver) = bounded(2);
        let offered = [1, 2, 3, 4].map(|item| sender.offer(item));
        use Offered::*;
        assert_eq!(offered, [Taken, Taken, Lost, Lost]);
        assert_eq!((sender.waiting(), sender.lost()), (2, 2));
        assert_eq!((receiver.take_lost(), sender.take_lost()), (2, 0));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(sender.offer(5), Taken);
        receiver.close();
        assert_eq!(sender.offer(6), Closed);
        assert_eq!([receiver.try_recv(), receiver.try_recv()], [Ok(2), Ok(5)]);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(sender.lost(), 0, "what nobody waits for is not lost");
    }

    #[test]
    fn heavy_items_need_more_room() {
        let (sender, mut receiver) = weighed(10, String::len);
        let item = |len: usize| "x".repeat(len);
        assert_eq!(sender.offer(item(6)), Offered::Taken);
        assert_eq!(sender.offer(item(5)), Offered::Lost);
        assert_eq!(sender.offer(item(4)), Offered::Taken);
        assert_eq!(receiver.blocking_recv(), Some(item(6)));
        assert_eq!(sender.offer(item(6)), Offered::Taken);
        assert_eq!(sender.waiting(), 10);
        drop(sender);
        assert_eq!(receiver.blocking_recv(), Some(item(4)));
        assert_eq!(receiver.blocking_recv(), Some(item(6)));
        assert_eq!(receiver.blocking_recv(), None);
    }

    #[test]
    fn a_slow_queue_costs_the_others_nothing_and_one_that_is_gone_is_forgotten() {
        let (slow, slow_end) = bounded(1);
        let (quick, mut quick_end) = bounded(3);
        let mut queues = vec![slow, quick];
        assert_eq!([1, 2, 3].map(|item| publish(&mut queues, &item)), [0, 1, 1]);
        assert_eq!((slow_end.take_lost(), quick_end.take_lost()), (2, 0));
        drop(slow_end);
        assert_eq!((publish(&mut queues, &4), queues.len()), (1, 1));
        for item in 1..=3 {
            assert_eq!(quick_end.try_recv(), Ok(item));
        }
    }
}
