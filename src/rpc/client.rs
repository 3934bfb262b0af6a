//! A client of the Serf RPC, for Fyrd's agent and for Serf's alike.
//!
//! One owner drives the connection: a call sends its request and reads until the answer has come.
//! Records of subscriptions that arrive in between are kept for [`Client::next_record`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use zeroize::Zeroizing;

use super::codec::{CodecError, decode};
use super::dial::{Stream, dial};
use super::frame::{FrameReader, MAX_RESPONSE_BYTES};
use super::types::*;
use crate::go;

/// How long connecting may take, and how long the agent may refuse to take a request's bytes.
pub const DIAL_AND_WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How many records are kept while an answer is awaited. The agent itself holds at most 512 items for
/// a slow subscriber; beyond this it floods.
const MAX_KEPT_RECORDS: usize = 64 << 10;

/// Why a call failed. The texts are what Serf's command line prints.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be opened.
    #[error("{0}")]
    Dial(String),
    /// The agent refused the request, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The agent has taken a request that is answered at once, and does not answer.
    #[error("no answer from the agent within {0:?}: it is stopped, or too busy (-rpc-timeout)")]
    Silent(Duration),
    /// The connection ended while an answer or a record was awaited.
    #[error("client closed")]
    Closed,
    /// The request could not be sent.
    #[error("write: {0}")]
    Write(String),
    /// The agent sent something that is not the protocol.
    #[error("malformed answer from the agent: {0}")]
    Malformed(#[from] CodecError),
    /// The agent answered something that was not asked.
    #[error("the agent answered request {0}, which was not made")]
    Unasked(u64),
    /// More records than can be kept arrived before an answer.
    #[error("the agent sent more than {MAX_KEPT_RECORDS} records before its answer")]
    Flooded,
}

/// A record of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Of [`Client::stream`].
    Event(EventRecord),
    /// Of [`Client::monitor`].
    Log(String),
    /// Of [`Client::query`]; after one of kind `Done` nothing follows.
    Query(QueryRecord),
}

/// What the records of a request's number are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Events,
    Logs,
    Answers,
    /// Stopped or done; what still comes is dropped.
    Ended,
}

/// A connection to an agent, past the handshake.
pub struct Client {
    /// How long the agent may take to answer what it can answer at once; none for ever.
    patience: Option<Duration>,
    reader: FrameReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
    last_seq: u64,
    subscriptions: BTreeMap<u64, Subscription>,
    kept: VecDeque<(u64, Record)>,
    /// A record's header whose body has not come yet, so that a dropped call loses nothing.
    header: Option<ResponseHeader>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `HOST:PORT` or `unix:PATH` and shakes hands. What an agent can answer at once has to be answered
    /// within `patience`; a join, a leave, keys and tags take as long as they take.
    pub async fn connect(address: &str, patience: Option<Duration>) -> Result<Client, ClientError> {
        let stream = dial(address, DIAL_AND_WRITE_LIMIT)
            .await
            .map_err(ClientError::Dial)?;
        Client::over(stream, patience).await
    }

    /// Shakes hands over a connected stream.
    pub async fn over(stream: Box<dyn Stream>, patience: Option<Duration>) -> Result<Client, ClientError> {
        let (reader, writer) = tokio::io::split(stream);
        let mut client = Client {
            patience,
            reader: FrameReader::new(reader, MAX_RESPONSE_BYTES),
            writer,
            last_seq: 0,
            subscriptions: BTreeMap::new(),
            kept: VecDeque::new(),
            header: None,
        };
        client
            .order(&Request::Handshake(HandshakeRequest { version: IPC_VERSION }))
            .await?;
        Ok(client)
    }

    /// Shows the agent's token.
    pub async fn auth(&mut self, token: Zeroizing<String>) -> Result<(), ClientError> {
        self.order(&Request::Auth(AuthRequest { auth_key: token })).await
    }

    /// All members.
    pub async fn members(&mut self) -> Result<Vec<Member>, ClientError> {
        self.ask::<MembersResponse>(&Request::Members)
            .await
            .map(|answer| answer.members)
    }

    /// The members that match.
    pub async fn members_filtered(
        &mut self,
        filter: MembersFilteredRequest,
    ) -> Result<Vec<Member>, ClientError> {
        self.ask::<MembersResponse>(&Request::MembersFiltered(filter))
            .await
            .map(|answer| answer.members)
    }

    /// Joins; the number of addresses that answered, and what went wrong with the others if the agent tells.
    pub async fn join(&mut self, existing: Vec<String>, replay: bool) -> Result<JoinResponse, ClientError> {
        let request = Request::Join(JoinRequest {
            detail: true,
            existing,
            replay,
        });
        self.ask(&request).await
    }

    /// Makes the agent leave and end; returns once it has left.
    pub async fn leave(&mut self) -> Result<(), ClientError> {
        self.order(&Request::Leave).await
    }

    /// Makes a failed member a left one, or erases it.
    pub async fn force_leave(&mut self, node: String, prune: bool) -> Result<(), ClientError> {
        self.order(&Request::ForceLeave(ForceLeaveRequest { node, prune }))
            .await
    }

    /// Changes the agent's tags: removes first, then sets.
    pub async fn tags(
        &mut self,
        tags: BTreeMap<String, String>,
        delete_tags: Vec<String>,
    ) -> Result<(), ClientError> {
        self.order(&Request::Tags(TagsRequest { delete_tags, tags }))
            .await
    }

    /// The agent's figures, in groups.
    pub async fn stats(&mut self) -> Result<BTreeMap<String, BTreeMap<String, String>>, ClientError> {
        self.ask::<StatsResponse>(&Request::Stats)
            .await
            .map(|answer| answer.0)
    }

    /// A node's network coordinate, if the agent knows one.
    pub async fn get_coordinate(&mut self, node: String) -> Result<Option<Coordinate>, ClientError> {
        let request = Request::GetCoordinate(CoordinateRequest { node });
        let answer = self.ask::<CoordinateResponse>(&request).await?;
        Ok(answer.ok.then_some(answer.coord))
    }

    /// Fires a user event.
    pub async fn event(&mut self, event: EventRequest) -> Result<(), ClientError> {
        self.order(&Request::Event(event)).await
    }

    /// Installs, uses, removes or lists keys. The answer comes with the agent's error text, since it
    /// tells which members failed; the text is empty when all is well.
    pub async fn keys(&mut self, request: KeyOperation) -> Result<(KeyResponse, String), ClientError> {
        let request = match request {
            KeyOperation::Install(key) => Request::InstallKey(KeyRequest { key }),
            KeyOperation::Use(key) => Request::UseKey(KeyRequest { key }),
            KeyOperation::Remove(key) => Request::RemoveKey(KeyRequest { key }),
            KeyOperation::List => Request::ListKeys,
        };
        let seq = self.send(&request).await?;
        let error = self.answer(seq).await?;
        match self.body::<KeyResponse>(&error).await? {
            Some(response) => Ok((response, error)),
            None => Err(ClientError::Refused(error)),
        }
    }

    /// Starts a query; its records carry the returned number.
    pub async fn query(&mut self, query: QueryRequest) -> Result<u64, ClientError> {
        self.subscribe(&Request::Query(query), Subscription::Answers)
            .await
    }

    /// Subscribes to events; `filter` is a comma-separated list, or `*`.
    pub async fn stream(&mut self, filter: String) -> Result<u64, ClientError> {
        self.subscribe(
            &Request::Stream(StreamRequest { r#type: filter }),
            Subscription::Events,
        )
        .await
    }

    /// Subscribes to log lines of `log_level` and above.
    pub async fn monitor(&mut self, log_level: String) -> Result<u64, ClientError> {
        self.subscribe(
            &Request::Monitor(MonitorRequest { log_level }),
            Subscription::Logs,
        )
        .await
    }

    /// Ends a stream or monitor. Records of it that are under way are dropped.
    pub async fn stop(&mut self, subscription: u64) -> Result<(), ClientError> {
        self.end(subscription);
        self.kept.retain(|(seq, _)| *seq != subscription);
        self.order(&Request::Stop(StopRequest { stop: subscription }))
            .await
    }

    /// Answers a query that came as an event record.
    pub async fn respond(&mut self, id: u64, payload: Vec<u8>) -> Result<(), ClientError> {
        self.order(&Request::Respond(RespondRequest { id, payload }))
            .await
    }

    /// The next record of any subscription, with the subscription's number. Safe to drop half-way.
    pub async fn next_record(&mut self) -> Result<(u64, Record), ClientError> {
        loop {
            if let Some(record) = self.kept.pop_front() {
                return Ok(record);
            }
            let header = self.receive_header().await?;
            self.receive_record(header.seq).await?;
        }
    }

    /// Sends a request whose answer has no body.
    async fn order(&mut self, request: &Request) -> Result<(), ClientError> {
        let patience = self.patience_for(request);
        within(patience, self.order_patiently(request)).await
    }

    async fn order_patiently(&mut self, request: &Request) -> Result<(), ClientError> {
        let seq = self.send(request).await?;
        match self.answer(seq).await? {
            error if error.is_empty() => Ok(()),
            error => Err(ClientError::Refused(error)),
        }
    }

    /// Sends a request whose answer has a body, which comes with most errors as well.
    async fn ask<B: DeserializeOwned>(&mut self, request: &Request) -> Result<B, ClientError> {
        let patience = self.patience_for(request);
        within(patience, self.ask_patiently(request)).await
    }

    async fn ask_patiently<B: DeserializeOwned>(&mut self, request: &Request) -> Result<B, ClientError> {
        let seq = self.send(request).await?;
        let error = self.answer(seq).await?;
        match self.body(&error).await? {
            Some(body) if error.is_empty() => Ok(body),
            _ => Err(ClientError::Refused(error)),
        }
    }

    /// How long the answer to this request may take.
    fn patience_for(&self, request: &Request) -> Option<Duration> {
        match request {
            Request::Join(_) | Request::Leave | Request::ForceLeave(_) | Request::Tags(_) => None,
            _ => self.patience,
        }
    }

    async fn subscribe(&mut self, request: &Request, kind: Subscription) -> Result<u64, ClientError> {
        self.order(request).await?;
        self.subscriptions.insert(self.last_seq, kind);
        Ok(self.last_seq)
    }

    async fn send(&mut self, request: &Request) -> Result<u64, ClientError> {
        self.last_seq += 1;
        let bytes = request.encode(self.last_seq)?;
        let write = async {
            self.writer.write_all(&bytes).await?;
            self.writer.flush().await
        };
        match tokio::time::timeout(DIAL_AND_WRITE_LIMIT, write).await {
            Ok(Ok(())) => Ok(self.last_seq),
            Ok(Err(error)) => Err(ClientError::Write(go::os_error(&error))),
            Err(_) => Err(ClientError::Write("i/o timeout".to_owned())),
        }
    }

    /// Reads until the answer to request `seq`; its error text.
    async fn answer(&mut self, seq: u64) -> Result<String, ClientError> {
        loop {
            let header = self.receive_header().await?;
            if header.seq == seq {
                self.header = None;
                return Ok(header.error);
            }
            if header.seq == 0 && !header.error.is_empty() {
                // The agent says why it ends the connection.
                return Err(ClientError::Refused(header.error));
            }
            self.receive_record(header.seq).await?;
            if self.kept.len() > MAX_KEPT_RECORDS {
                return Err(ClientError::Flooded);
            }
        }
    }

    /// Reads the body that goes with an answer. `None` when there is none, as with errors that the
    /// agent gives before it looks at the command.
    async fn body<B: DeserializeOwned>(&mut self, error: &str) -> Result<Option<B>, ClientError> {
        const BODILESS: [&str; 3] = [
            "Authentication required",
            "Handshake required",
            "Unsupported command",
        ];
        if BODILESS.contains(&error) {
            return Ok(None);
        }
        match self.receive().await {
            Ok(bytes) => Ok(Some(decode(bytes)?)),
            Err(ClientError::Closed) if !error.is_empty() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn receive_header(&mut self) -> Result<ResponseHeader, ClientError> {
        if self.header.is_none() {
            self.header = Some(decode(self.receive().await?)?);
        }
        Ok(self.header.clone().unwrap_or_default())
    }

    /// Reads the record after the header of subscription `seq`, and keeps it unless that has ended.
    async fn receive_record(&mut self, seq: u64) -> Result<(), ClientError> {
        let kind = *self.subscriptions.get(&seq).ok_or(ClientError::Unasked(seq))?;
        let bytes = self.receive().await?;
        let record = match kind {
            Subscription::Ended => None,
            Subscription::Events => Some(Record::Event(EventRecord::decode(bytes)?)),
            Subscription::Logs => Some(Record::Log(decode::<LogRecord>(bytes)?.log)),
            Subscription::Answers => Some(Record::Query(decode(bytes)?)),
        };
        self.header = None;
        let Some(mut record) = record else { return Ok(()) };
        if let Record::Query(answer) = &mut record
            && answer.from.is_empty()
        {
            // Serf's agent may send empty answers right before the end; its own client stops there too.
            answer.r#type = QueryRecordKind::Done;
            self.end(seq);
        }
        self.kept.push_back((seq, record));
        Ok(())
    }

    fn end(&mut self, subscription: u64) {
        self.subscriptions.insert(subscription, Subscription::Ended);
    }

    async fn receive(&mut self) -> Result<&[u8], ClientError> {
        match self.reader.next().await {
            Ok(Some(bytes)) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ClientError::Malformed(CodecError::Malformed(error.to_string())))
            }
            Ok(None) | Err(_) => Err(ClientError::Closed),
        }
    }
}

/// Waits for an answer, but not longer than `patience`.
async fn within<T>(
    patience: Option<Duration>,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match patience {
        None => answer.await,
        Some(patience) => {
            let answered = tokio::time::timeout(patience, answer).await;
            answered.unwrap_or(Err(ClientError::Silent(patience)))
        }
    }
}

/// What to do with the cluster's keys; a key is written in base64.
#[derive(Clone)]
pub enum KeyOperation {
    /// Install it on all members.
    Install(Zeroizing<String>),
    /// Make it the primary one.
    Use(Zeroizing<String>),
    /// Remove it from all members.
    Remove(Zeroizing<String>),
    /// Gather all members' keys.
    List,
}

impl fmt::Debug for KeyOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyOperation::Install(_) => "Install([hidden])",
            KeyOperation::Use(_) => "Use([hidden])",
            KeyOperation::Remove(_) => "Remove([hidden])",
            KeyOperation::List => "List",
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::rpc::codec::encode_into;

    /// An agent that takes a number of requests and then sends what it was told.
    struct Agent(DuplexStream);

    impl Agent {
        async fn shake_hands() -> (Client, Agent) {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let mut agent = Agent(theirs);
            agent.answer(1, "").await;
            (Client::over(Box::new(ours), None).await.unwrap(), agent)
        }

        async fn send(&mut self, body: &(impl serde::Serialize + Sync)) {
            let mut bytes = Vec::new();
            encode_into(body, &mut bytes).unwrap();
            self.0.write_all(&bytes).await.unwrap();
        }

        async fn answer(&mut self, seq: u64, error: &str) {
            self.send(&ResponseHeader {
                error: error.to_owned(),
                seq,
            })
            .await;
        }
    }

    fn log(text: &str) -> LogRecord {
        LogRecord { log: text.to_owned() }
    }

    #[tokio::test]
    async fn a_call_gets_its_answer() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "").await;
        let joined = JoinResponse {
            num: 3,
            failed: vec!["b".into()],
        };
        agent.send(&joined).await;
        assert_eq!(client.join(vec!["a".into()], false).await.unwrap(), joined);
        let mut sent = [0; 200];
        let length = agent.0.read(&mut sent).await.unwrap();
        let mut expected = Request::Handshake(HandshakeRequest { version: 1 })
            .encode(1)
            .unwrap()
            .to_vec();
        let join = JoinRequest {
            detail: true,
            existing: vec!["a".into()],
            replay: false,
        };
        expected.extend_from_slice(&Request::Join(join).encode(2).unwrap());
        assert_eq!(sent[..length], expected);
    }

    #[tokio::test]
    async fn records_between_answers_are_kept() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "").await;
        assert_eq!(client.monitor("INFO".into()).await.unwrap(), 2);
        agent.answer(2, "").await;
        agent.send(&log("one")).await;
        agent.answer(3, "").await;
        client.force_leave("x".into(), false).await.unwrap();
        agent.answer(2, "").await;
        agent.send(&log("two")).await;
        assert_eq!(
            client.next_record().await.unwrap(),
            (2, Record::Log("one".into()))
        );
        assert_eq!(
            client.next_record().await.unwrap(),
            (2, Record::Log("two".into()))
        );
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "").await;
        client.monitor("INFO".into()).await.unwrap();
        agent.answer(2, "").await;
        tokio::select! {
            biased;
            record = client.next_record() => panic!("{record:?}"),
            () = tokio::task::yield_now() => {}
        }
        agent.send(&log("one")).await;
        assert_eq!(
            client.next_record().await.unwrap(),
            (2, Record::Log("one".into()))
        );
    }

    #[tokio::test]
    async fn records_of_a_stopped_stream_are_dropped() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "").await;
        client.monitor("INFO".into()).await.unwrap();
        agent.answer(2, "").await;
        agent.send(&log("late")).await;
        agent.answer(3, "").await;
        client.stop(2).await.unwrap();
        drop(agent);
        assert!(matches!(client.next_record().await, Err(ClientError::Closed)));
    }

    #[tokio::test]
    async fn an_empty_name_ends_a_query() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "").await;
        client.query(QueryRequest::default()).await.unwrap();
        let spurious = QueryRecord {
            r#type: QueryRecordKind::Ack,
            ..QueryRecord::default()
        };
        for _ in 0..2 {
            agent.answer(2, "").await;
            agent.send(&spurious).await;
        }
        assert_eq!(
            client.next_record().await.unwrap(),
            (2, Record::Query(QueryRecord::default()))
        );
        drop(agent);
        assert!(matches!(client.next_record().await, Err(ClientError::Closed)));
    }

    #[tokio::test]
    async fn errors_come_with_and_without_bodies() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(2, "cannot join").await;
        agent.send(&JoinResponse::default()).await;
        assert_eq!(
            client.join(vec![], false).await.unwrap_err().to_string(),
            "cannot join"
        );
        agent.answer(3, "Authentication required").await;
        assert_eq!(
            client.members().await.unwrap_err().to_string(),
            "Authentication required"
        );
        agent.answer(4, "1/2 nodes reported failure").await;
        agent
            .send(&KeyResponse {
                num_err: 1,
                ..KeyResponse::default()
            })
            .await;
        let (response, error) = client.keys(KeyOperation::List).await.unwrap();
        assert_eq!(
            (response.num_err, error.as_str()),
            (1, "1/2 nodes reported failure")
        );
        let last_words = async {
            agent.answer(5, "last words").await;
            drop(agent);
        };
        let (result, ()) = tokio::join!(client.stats(), last_words);
        assert_eq!(result.unwrap_err().to_string(), "last words");
    }

    #[tokio::test]
    async fn the_end_of_the_connection_and_nonsense_are_told_apart() {
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.answer(9, "").await;
        assert!(matches!(client.leave().await, Err(ClientError::Unasked(9))));
        let (mut client, mut agent) = Agent::shake_hands().await;
        agent.0.write_all(&[0xc1]).await.unwrap();
        assert!(matches!(client.leave().await, Err(ClientError::Malformed(_))));
        let (mut client, agent) = Agent::shake_hands().await;
        let waiting = client.leave();
        let close = async { drop(agent) };
        let (result, ()) = tokio::join!(waiting, close);
        assert_eq!(result.unwrap_err().to_string(), "client closed");
    }
}
