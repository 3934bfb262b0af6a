//! Brings what comes in for queries to whoever asked them.
//!
//! The driver tells of all queries in one place. The first answers, our own among them, may come before
//! the asker knows the query's key, so answers to unknown queries are kept while somebody is asking.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::STOPPED;
use crate::driver::{Handle, Stopped};
use crate::queue::{self, Offered};
use crate::rpc::server::QueryAnswers;
use fyrd_core::bounds;
use fyrd_core::serf::{Answer, Command, QueryKey, QueryParams, QueryUpdate, QueryUpdateKind};

/// How many updates may wait for this task: all that one batch of full datagrams can bring.
pub const UPDATE_QUEUE: usize = 64 * 255;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct QueryRouter(RefCell<Routes>);

#[derive(Debug, Default)]
struct Routes {
    open: BTreeMap<QueryKey, queue::Sender<QueryUpdateKind>>,
    /// How many queries have been given to the node whose key is not known here yet.
    starting: usize,
    /// Updates that may be for one of those.
    early: Vec<QueryUpdate>,
}

impl QueryRouter {
    /// Passes updates on until the node is gone.
    pub async fn run(self: Rc<Self>, mut updates: queue::Receiver<QueryUpdate>) {
        while let Some(update) = updates.recv().await {
            self.0.borrow_mut().take(update);
        }
        // Without their senders, all who wait learn that it is over.
        self.0.borrow_mut().open.clear();
    }

    /// Asks the cluster.
    pub async fn ask(&self, driver: &Handle, params: QueryParams) -> Result<QueryAnswers, String> {
        let _starting = Starting::new(self);
        match driver.command(Command::Query(params)).await {
            Ok(Answer::QueryStarted { ltime, id }) => Ok(self.0.borrow_mut().open((ltime, id))),
            Ok(Answer::Failed(reason)) => Err(reason),
            Ok(_) | Err(Stopped) => Err(STOPPED.to_string()),
        }
    }
}

/// Counts an asker, even one that gives up.
struct Starting<'a>(&'a QueryRouter);

impl<'a> Starting<'a> {
    fn new(router: &'a QueryRouter) -> Starting<'a> {
        router.0.borrow_mut().starting += 1;
        Starting(router)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let mut routes = self.0.0.borrow_mut();
        routes.starting -= 1;
        if routes.starting == 0 {
            routes.early = Vec::new();
        }
    }
}

impl Routes {
    fn open(&mut self, key: QueryKey) -> QueryAnswers {
        let (asker, answers) = queue::bounded(bounds::RPC_QUERY_ANSWERS_WAITING);
        self.open.insert(key, asker);
        let is_ours = |update: &mut QueryUpdate| (update.ltime, update.id) == key;
        let early: Vec<QueryUpdate> = self.early.extract_if(.., is_ours).collect();
        for update in early {
            self.take(update);
        }
        answers
    }

    fn take(&mut self, update: QueryUpdate) {
        let key = (update.ltime, update.id);
        let Some(asker) = self.open.get(&key) else {
            if self.starting > 0 && self.early.len() < UPDATE_QUEUE {
                self.early.push(update);
            }
            return;
        };
        // The end has no place in the queue, which may be full: it is the end of the queue.
        let over = update.kind == QueryUpdateKind::Done;
        if over || asker.offer(update.kind) == Offered::Closed {
            self.open.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(key: QueryKey, from: &str) -> QueryUpdate {
        let kind = QueryUpdateKind::Ack { from: from.into() };
        QueryUpdate {
            ltime: key.0,
            id: key.1,
            kind,
        }
    }

    fn done(key: QueryKey) -> QueryUpdate {
        QueryUpdate {
            ltime: key.0,
            id: key.1,
            kind: QueryUpdateKind::Done,
        }
    }

    fn all(answers: &mut QueryAnswers) -> (Vec<String>, bool) {
        let mut from = Vec::new();
        loop {
            match answers.try_recv() {
                Ok(QueryUpdateKind::Ack { from: name }) => from.push(name),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    return (
                        from,
                        error == tokio::sync::mpsc::error::TryRecvError::Disconnected,
                    );
                }
            }
        }
    }

    #[test]
    fn answers_that_come_before_the_key_is_known_are_not_lost() {
        let router = QueryRouter::default();
        let take = |update| router.0.borrow_mut().take(update);
        take(ack((1, 1), "nobody asks"));
        let first = Starting::new(&router);
        let second = Starting::new(&router);
        take(ack((5, 7), "a"));
        take(ack((5, 8), "b"));
        take(done((5, 8)));
        let mut one = router.0.borrow_mut().open((5, 7));
        drop(first);
        take(ack((5, 7), "c"));
        assert_eq!(all(&mut one), (vec!["a".into(), "c".into()], false));
        let mut other = router.0.borrow_mut().open((5, 8));
        assert_eq!(all(&mut other), (vec!["b".into()], true));
        take(ack((5, 9), "stranger"));
        drop(second);
        assert!(router.0.borrow().early.is_empty());
        take(done((5, 7)));
        assert_eq!(all(&mut one), (vec![], true));
        assert!(router.0.borrow().open.is_empty());
    }

    #[test]
    fn a_slow_asker_loses_answers_but_not_the_end() {
        let router = QueryRouter::default();
        let mut answers = router.0.borrow_mut().open((1, 1));
        let room = bounds::RPC_QUERY_ANSWERS_WAITING;
        for number in 0..room + 3 {
            router.0.borrow_mut().take(ack((1, 1), &number.to_string()));
        }
        router.0.borrow_mut().take(done((1, 1)));
        let (from, over) = all(&mut answers);
        assert_eq!((from.len(), over, answers.take_lost()), (room, true, 3));
        let gone = router.0.borrow_mut().open((2, 2));
        drop(gone);
        router.0.borrow_mut().take(ack((2, 2), "a"));
        assert!(router.0.borrow().open.is_empty());
    }
}
