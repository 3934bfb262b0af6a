//! Hands every event to every listener: the agent's handlers, and RPC streams.
//!
//! A listener that does not keep up loses events, with a count of them, and slows neither the others nor the
//! node.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use fyrd_core::serf::Event;

/// Where events are published.
#[derive(Debug, Default)]
pub struct Hub {
    listeners: RefCell<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    events: mpsc::Sender<Arc<Event>>,
    lost: Rc<Cell<u64>>,
}

/// One listener's end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<Arc<Event>>,
    lost: Rc<Cell<u64>>,
}

impl Hub {
    /// Listens from now on; up to `capacity` events wait.
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        let (sender, events) = mpsc::channel(capacity);
        let lost = Rc::new(Cell::new(0));
        self.listeners.borrow_mut().push(Listener {
            events: sender,
            lost: Rc::clone(&lost),
        });
        Subscription { events, lost }
    }

    /// Gives an event to everybody who listens.
    pub fn publish(&self, event: &Arc<Event>) {
        self.listeners
            .borrow_mut()
            .retain(|listener| match listener.events.try_send(Arc::clone(event)) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    listener.lost.set(listener.lost.get() + 1);
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            });
    }
}

impl Subscription {
    /// The next event; `None` once the hub is gone.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        self.events.recv().await
    }

    /// How many events were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ltime: u64) -> Arc<Event> {
        Arc::new(Event::User {
            ltime,
            name: "e".to_owned(),
            payload: Vec::new(),
            coalesce: false,
        })
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_listener_loses_events_and_nobody_else_does() {
        let hub = Hub::default();
        let (mut slow, mut quick) = (hub.subscribe(1), hub.subscribe(3));
        for ltime in 1..=3 {
            hub.publish(&event(ltime));
        }
        assert_eq!((slow.take_lost(), slow.take_lost(), quick.take_lost()), (2, 0, 0));
        assert_eq!(slow.next().await, Some(event(1)));
        for ltime in 1..=3 {
            assert_eq!(quick.next().await, Some(event(ltime)));
        }
        drop(slow);
        hub.publish(&event(4));
        assert_eq!(hub.listeners.borrow().len(), 1);
        drop(hub);
        assert_eq!(quick.next().await, Some(event(4)));
        assert_eq!(quick.next().await, None);
    }
}
