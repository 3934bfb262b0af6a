//! Asking the cluster on a client's behalf, and answering what the cluster asks.

use std::time::Duration;

use super::Backend;
use super::client::Client;
use super::outbox::Records;
use crate::queue;
use crate::rpc::types::{QueryRecord, QueryRecordKind, QueryRequest, RespondRequest};
use fyrd_core::serf::{QueryParams, QueryUpdateKind};

/// Names that begin so belong to the protocol itself.
const INTERNAL_PREFIX: &str = "_serf_";

/// The one of them that clients may ask: every node acknowledges it, and does nothing else.
const PING: &str = "_serf_ping";

const NOT_PENDING: &str = "No pending queries matching ID";

/// Acknowledgements and answers that come in for a query. It ends when the query is over.
pub type QueryAnswers = queue::Receiver<QueryUpdateKind>;

/// Why an answer to a query was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RespondError {
    /// Nobody waits for answers any more.
    Over,
    /// For this reason, as users shall read it.
    Refused(String),
}

impl<B: Backend> Client<B> {
    /// The answer comes first, then the records, the last of which says that the query is over.
    pub(super) async fn start_query(&mut self, request: QueryRequest) -> Result<(), String> {
        if request.name.starts_with(INTERNAL_PREFIX) && (request.name != PING || !request.payload.is_empty())
        {
            let refusal = format!("Queries cannot contain the '{INTERNAL_PREFIX}' prefix");
            return self.refuse(&refusal).await;
        }
        if let Err(reason) = self.has_room() {
            return self.refuse(&reason).await;
        }
        let mut answers = match self.backend.query(params(request)).await {
            Ok(answers) => answers,
            Err(reason) => return self.refuse(&reason).await,
        };
        self.acknowledge(Ok(())).await?;
        let seq = self.header.seq;
        let (outbox, loss) = (self.outbox.clone(), self.losses.answers.clone());
        self.tasks.spawn_local(async move {
            let mut last = false;
            while !last {
                let update = answers.recv().await.unwrap_or(QueryUpdateKind::Done);
                let record = |update| {
                    last |= update == QueryUpdateKind::Done;
                    record(update)
                };
                let Ok(records) = Records::gather(seq, update, || answers.try_recv().ok(), record) else {
                    return;
                };
                let sent = outbox.send(records, || answers.take_lost(), &loss).await;
                last |= sent.is_err();
            }
        });
        Ok(())
    }

    /// Each query takes one answer from this node, whoever gives it first.
    pub(super) async fn respond(&mut self, request: RespondRequest) -> Result<(), String> {
        let Some(query) = self.pending.query(request.id) else {
            return self.refuse(NOT_PENDING).await;
        };
        match self.backend.respond(query, request.payload).await {
            Ok(()) => self.acknowledge(Ok(())).await,
            Err(RespondError::Refused(reason)) => self.refuse(&reason).await,
            Err(RespondError::Over) => {
                self.pending.forget(request.id);
                self.refuse(NOT_PENDING).await
            }
        }
    }
}

/// A timeout of zero is the default of the cluster's size, and so is a negative one, for which Serf
/// would end the query at once and send records without a sender.
fn params(request: QueryRequest) -> QueryParams {
    let timeout = u64::try_from(request.timeout).unwrap_or(0);
    QueryParams {
        name: request.name,
        payload: request.payload,
        filter_nodes: request.filter_nodes,
        filter_tags: request.filter_tags,
        request_ack: request.request_ack,
        relay_factor: request.relay_factor,
        timeout: (timeout > 0).then(|| Duration::from_nanos(timeout)),
    }
}

fn record(update: QueryUpdateKind) -> QueryRecord {
    let (kind, from, payload) = match update {
        QueryUpdateKind::Ack { from } => (QueryRecordKind::Ack, from, Vec::new()),
        QueryUpdateKind::Response { from, payload } => (QueryRecordKind::Response, from, payload),
        QueryUpdateKind::Done => (QueryRecordKind::Done, String::new(), Vec::new()),
    };
    QueryRecord {
        from,
        payload,
        r#type: kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_that_say_nothing_are_the_default() {
        for (timeout, expected) in [
            (0, None),
            (-1, None),
            (i64::MIN, None),
            (1, Some(Duration::from_nanos(1))),
            (700_000_000, Some(Duration::from_millis(700))),
        ] {
            let request = QueryRequest {
                timeout,
                ..QueryRequest::default()
            };
            assert_eq!(params(request).timeout, expected, "{timeout}");
        }
    }
}
