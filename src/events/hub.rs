//! Hands every event to every listener: handlers, RPC streams, stores.
//!
//! A listener that does not keep up loses events, with a count of them; it never slows the others, nor
//! the node behind them all.

use std::cell::RefCell;
use std::sync::Arc;

use crate::queue;
use fyrd_core::serf::Event;

/// One listener's end. Dropping it ends the subscription.
pub type Subscription = queue::Receiver<Arc<Event>>;

/// Where events are published.
#[derive(Debug, Default)]
pub struct Hub(RefCell<Vec<queue::Sender<Arc<Event>>>>);

impl Hub {
    /// Listens from now on; up to `capacity` events wait.
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        let (listener, events) = queue::bounded(capacity);
        self.0.borrow_mut().push(listener);
        events
    }

    /// Gives an event to everybody who listens.
    pub fn publish(&self, event: &Arc<Event>) {
        queue::publish(&mut self.0.borrow_mut(), event);
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
        assert_eq!(slow.recv().await, Some(event(1)));
        for ltime in 1..=3 {
            assert_eq!(quick.recv().await, Some(event(ltime)));
        }
        drop(slow);
        hub.publish(&event(4));
        assert_eq!(hub.0.borrow().len(), 1);
        drop(hub);
        assert_eq!(quick.recv().await, Some(event(4)));
        assert_eq!(quick.recv().await, None);
    }
}
