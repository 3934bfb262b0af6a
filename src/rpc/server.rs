//! The agent's side of the Serf RPC protocol.
//!
//! Each client is a task that reads a request, performs it through the [`Backend`], answers, and
//! only then looks at the next. Records of a subscription may come in between; an outbox writes
//! header and body in one piece, so that nothing is ever torn.
//!
//! Where Serf closes a connection without a word, this server does so too, with one exception that
//! is kinder to users: a bad pattern in `members-filtered` is answered with what is wrong with it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde::Serialize;
use socket2::{SockRef, TcpKeepalive};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::answers::{Coordinate, CoordinateResponse, JoinResponse, Member, MembersResponse, StatsResponse};
use super::codec::encode_into;
use super::frame::{FrameReader, MAX_REQUEST_BYTES};
use super::types::{
    AuthRequest, HandshakeRequest, IPC_VERSION, MembersFilteredRequest, Request, RequestHeader,
    ResponseHeader,
};
use crate::bounds;
use crate::re2;
use crate::serf::{self, Tags};
use crate::wire::WireCoordinate;

/// What the server asks of the agent.
#[expect(
    async_fn_in_trait,
    reason = "all clients are served on the agent's own thread"
)]
pub trait Backend: Clone + 'static {
    /// The token that clients must present, if any.
    fn rpc_auth(&self) -> Option<&str>;
    /// All known members.
    async fn members(&self) -> Vec<Arc<serf::Member>>;
    /// Contacts these addresses; how many answered, or why none did, as users shall read it.
    async fn join(&self, existing: Vec<String>, replay: bool) -> Result<usize, String>;
    /// Leaves the cluster; comes back when the leave is over. The agent must not end before
    /// [`serve`] does, or the client will not be told.
    async fn leave(&self) -> Result<(), String>;
    /// Makes a failed member a left one, or erases it.
    async fn force_leave(&self, name: String, prune: bool) -> Result<(), String>;
    /// Deletes tags, then sets others.
    async fn set_tags(&self, set: Tags, delete: Vec<String>) -> Result<(), String>;
    /// The agent's figures, in groups.
    async fn stats(&self) -> BTreeMap<String, BTreeMap<String, String>>;
    /// A node's network coordinate, if known.
    async fn coordinate(&self, name: String) -> Option<WireCoordinate>;
    /// A client has connected.
    fn note_client(&self) {}
    /// A client has sent a request.
    fn note_request(&self) {}
}

/// Serves clients until one of them has made the agent leave and has been told so. To end earlier,
/// drop the future: that closes all connections.
pub async fn serve<B: Backend>(listener: TcpListener, backend: B) {
    let clients = LocalSet::new();
    let left = Rc::new(Notify::new());
    let accepting = accept(listener, backend, left.clone());
    clients
        .run_until(async {
            tokio::select! {
                () = left.notified() => {}
                () = accepting => {}
            }
        })
        .await;
}

async fn accept<B: Backend>(listener: TcpListener, backend: B, left: Rc<Notify>) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) if clients.len() < bounds::RPC_CLIENTS_MAX => {
                info!(target: "agent.ipc", "Accepted client: {peer}");
                backend.note_client();
                clients.spawn_local(Client::run(stream, peer, backend.clone(), left.clone()));
            }
            Ok((_, peer)) => {
                let max = bounds::RPC_CLIENTS_MAX;
                warn!(target: "agent.ipc", "Refused client: {peer}: {max} clients are connected already");
                // A client that tries again at once shall neither spin us nor fill the log.
                sleep(bounds::ACCEPT_PAUSE).await;
            }
            Err(error) => {
                error!(target: "agent.ipc", "Failed to accept client: {error}");
                sleep(bounds::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What follows a request.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Continue,
    /// The connection ends, for this reason.
    Close(String),
    /// The agent has left, and the client knows it.
    Left,
}

/// One connection.
struct Client<B> {
    backend: B,
    requests: FrameReader<tcp::OwnedReadHalf>,
    outbox: Outbox,
    /// The previous request's header, which fills in for what the next one omits.
    header: RequestHeader,
    greeted: bool,
    authenticated: bool,
    /// When both must be done, for those who need both.
    introduced_by: Instant,
}

impl<B: Backend> Client<B> {
    async fn run(stream: TcpStream, peer: SocketAddr, backend: B, left: Rc<Notify>) {
        let keepalive = TcpKeepalive::new().with_time(bounds::RPC_KEEPALIVE);
        // Without these two a client is merely served a little worse.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let mut client = Client {
            backend,
            requests: FrameReader::new(reader, MAX_REQUEST_BYTES),
            outbox: Outbox::new(writer),
            header: RequestHeader::default(),
            greeted: false,
            authenticated: false,
            introduced_by: Instant::now() + bounds::RPC_INTRODUCTION,
        };
        match client.converse().await {
            Ok(true) => left.notify_one(),
            Ok(false) => {}
            Err(reason) => error!(target: "agent.ipc", "{reason} client={peer}"),
        }
        client.linger().await;
    }

    /// Serves requests to the end; whether the agent has left. The error is what the log shall say.
    async fn converse(&mut self) -> Result<bool, String> {
        loop {
            let Some(header) = self.next_header().await? else {
                return Ok(false);
            };
            self.header = header;
            self.backend.note_request();
            let handling = self.handle().await;
            match handling.map_err(|reason| format!("Failed to evaluate request: {reason}"))? {
                Next::Continue => {}
                Next::Left => return Ok(true),
                Next::Close(reason) => return Err(format!("Failed to evaluate request: {reason}")),
            }
        }
    }

    async fn next_header(&mut self) -> Result<Option<RequestHeader>, String> {
        let fail = |reason: String| format!("failed to decode request header: {reason}");
        match self.next_frame().await {
            Ok(Some(frame)) => {
                let header = RequestHeader::decode_after(&self.header, &frame);
                header.map(Some).map_err(|error| fail(error.to_string()))
            }
            Ok(None) => Ok(None),
            // On Windows most clients end like this.
            Err(error) if cfg!(windows) && error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// Who has not introduced himself may not hold a place for ever; all others may idle.
    async fn next_frame(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let limit = if self.is_admitted() {
            None
        } else {
            Some(self.introduced_by)
        };
        let next = self.requests.next();
        let frame = match limit {
            None => next.await,
            Some(limit) => match timeout_at(limit, next).await {
                Ok(frame) => frame,
                Err(_) => return Err(io::Error::other("no handshake or authentication in time")),
            },
        };
        // A frame may hold a token or a key.
        Ok(frame?.map(|frame| Zeroizing::new(frame.to_vec())))
    }

    fn is_admitted(&self) -> bool {
        self.greeted && (self.authenticated || self.backend.rpc_auth().is_none())
    }

    /// Handles the request whose header has just been read.
    async fn handle(&mut self) -> Result<Next, String> {
        let command = self.header.command.clone();
        if !self.greeted && command != "handshake" {
            self.read_body(&command).await?;
            self.refuse("Handshake required").await?;
            return Ok(Next::Close("Handshake required".to_owned()));
        }
        let needs_auth = self.backend.rpc_auth().is_some() && !self.authenticated;
        if needs_auth && command != "handshake" && command != "auth" {
            self.read_body(&command).await?;
            warn!(target: "agent.ipc", "Client sending commands before auth");
            self.refuse("Authentication required").await?;
            return Ok(Next::Continue);
        }
        let body = self.read_body(&command).await?;
        let request = Request::decode(&command, &body).map_err(|error| format!("decode failed: {error}"))?;
        self.perform(request).await
    }

    /// The body's bytes, none for a command that has no body.
    async fn read_body(&mut self, command: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        if Request::has_body(command) != Some(true) {
            return Ok(Zeroizing::default());
        }
        match self.next_frame().await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err("decode failed: EOF".to_owned()),
            Err(error) => Err(format!("decode failed: {error}")),
        }
    }

    async fn perform(&mut self, request: Option<Request>) -> Result<Next, String> {
        match request {
            Some(Request::Handshake(body)) => self.handshake(&body).await?,
            Some(Request::Auth(body)) => self.auth(&body).await?,
            Some(Request::Members) => {
                let members = self.backend.members().await;
                self.answer(&members_response(members.iter())).await?;
            }
            Some(Request::MembersFiltered(body)) => self.members_filtered(&body).await?,
            Some(Request::Join(body)) => self.join(body.existing, body.replay).await?,
            Some(Request::Leave) => return self.leave().await,
            Some(Request::ForceLeave(body)) => {
                let done = self.backend.force_leave(body.node, body.prune).await;
                self.acknowledge(done).await?;
            }
            Some(Request::Tags(body)) => {
                let done = self.backend.set_tags(body.tags, body.delete_tags).await;
                self.acknowledge(done).await?;
            }
            Some(Request::Stats) => {
                let stats = self.backend.stats().await;
                self.answer(&StatsResponse(stats)).await?;
            }
            Some(Request::GetCoordinate(body)) => {
                let coordinate = self.backend.coordinate(body.node).await;
                self.answer(&coordinate_response(coordinate)).await?;
            }
            // Events, queries, subscriptions and keys: known by name, and not served.
            None | Some(_) => {
                self.refuse("Unsupported command").await?;
                return Ok(Next::Close(format!(
                    "command '{}' not recognized",
                    self.header.command
                )));
            }
        }
        Ok(Next::Continue)
    }

    async fn handshake(&mut self, body: &HandshakeRequest) -> Result<(), String> {
        if body.version != IPC_VERSION {
            return self.refuse("Unsupported IPC version").await;
        }
        if self.greeted {
            return self.refuse("Handshake already performed").await;
        }
        self.greeted = true;
        self.acknowledge(Ok(())).await
    }

    /// An agent without a token compares with the empty one, as Serf does.
    async fn auth(&mut self, body: &AuthRequest) -> Result<(), String> {
        let expected = self.backend.rpc_auth().unwrap_or_default();
        if !bool::from(expected.as_bytes().ct_eq(body.auth_key.as_bytes())) {
            return self.refuse("Invalid authentication token").await;
        }
        self.authenticated = true;
        self.acknowledge(Ok(())).await
    }

    async fn members_filtered(&mut self, filter: &MembersFilteredRequest) -> Result<(), String> {
        match MemberFilter::new(filter) {
            Ok(filter) => {
                let members = self.backend.members().await;
                self.answer(&members_response(
                    members.iter().filter(|member| filter.matches(member)),
                ))
                .await
            }
            Err(reason) => self.send(&reason, Some(&MembersResponse::default())).await,
        }
    }

    /// Clients read the body of this answer even when there is an error.
    async fn join(&mut self, existing: Vec<String>, replay: bool) -> Result<(), String> {
        let (error, contacted) = match self.backend.join(existing, replay).await {
            Ok(contacted) => (String::new(), contacted),
            Err(reason) => (reason, 0),
        };
        let num = i32::try_from(contacted).unwrap_or(i32::MAX);
        self.send(&error, Some(&JoinResponse { num })).await
    }

    async fn leave(&mut self) -> Result<Next, String> {
        let done = self.backend.leave().await;
        let left = done.is_ok();
        let told = self.acknowledge(done).await;
        if left {
            // The agent ends, whether the client has waited for it or not.
            return Ok(Next::Left);
        }
        told.map(|()| Next::Continue)
    }

    async fn acknowledge(&self, done: Result<(), String>) -> Result<(), String> {
        self.send(&done.err().unwrap_or_default(), None::<&()>).await
    }

    async fn refuse(&self, reason: &str) -> Result<(), String> {
        self.send(reason, None::<&()>).await
    }

    async fn answer(&self, body: &impl Serialize) -> Result<(), String> {
        self.send("", Some(body)).await
    }

    async fn send(&self, error: &str, body: Option<&impl Serialize>) -> Result<(), String> {
        let header = ResponseHeader {
            error: error.to_owned(),
            seq: self.header.seq,
        };
        self.outbox.send(&header, body).await
    }

    /// Closes the sending side, then reads what the client had under way, for a moment: closing over
    /// unread bytes would reset the connection and could take our last answer along.
    async fn linger(&mut self) {
        self.outbox.close().await;
        let drain = async { while let Ok(Some(_)) = self.requests.next().await {} };
        let _ = timeout(bounds::RPC_LINGER, drain).await;
    }
}

/// The sending side of a connection. Clones write to the same one.
#[derive(Clone)]
struct Outbox {
    writer: Rc<Mutex<tcp::OwnedWriteHalf>>,
}

impl Outbox {
    fn new(writer: tcp::OwnedWriteHalf) -> Outbox {
        Outbox {
            writer: Rc::new(Mutex::new(writer)),
        }
    }

    /// Sends header and body as one. A client that does not read is given up after a while.
    async fn send(&self, header: &ResponseHeader, body: Option<&impl Serialize>) -> Result<(), String> {
        let mut bytes = Vec::new();
        encode_into(header, &mut bytes).map_err(|error| error.to_string())?;
        if let Some(body) = body {
            encode_into(body, &mut bytes).map_err(|error| error.to_string())?;
        }
        let mut writer = self.writer.lock().await;
        write_in_time(&mut *writer, &bytes, bounds::RPC_WRITE).await
    }

    async fn close(&self) {
        // The client may have closed already.
        let _ = self.writer.lock().await.shutdown().await;
    }
}

async fn write_in_time(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    limit: Duration,
) -> Result<(), String> {
    match timeout(limit, writer.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("failed to answer: {error}")),
        Err(_) => Err(format!(
            "failed to answer: the client read nothing for {} s",
            limit.as_secs()
        )),
    }
}

/// A compiled `members-filtered` request.
struct MemberFilter {
    name: Option<Regex>,
    status: Option<Regex>,
    tags: Vec<(String, Regex)>,
}

impl MemberFilter {
    fn new(request: &MembersFilteredRequest) -> Result<MemberFilter, String> {
        if request.tags.len() > bounds::TAGS_MAX {
            return Err(format!(
                "Too many tag patterns: at most {} are allowed",
                bounds::TAGS_MAX
            ));
        }
        let optional = |pattern: &String| match pattern.as_str() {
            "" => Ok(None),
            pattern => whole(pattern).map(Some),
        };
        let tags = request
            .tags
            .iter()
            .map(|(tag, pattern)| Ok((tag.clone(), whole(pattern)?)));
        Ok(MemberFilter {
            name: optional(&request.name)?,
            status: optional(&request.status)?,
            tags: tags.collect::<Result<_, String>>()?,
        })
    }

    fn matches(&self, member: &serf::Member) -> bool {
        let matches = |pattern: &Option<Regex>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
        };
        let tag = |name: &String| member.tags.get(name).map_or("", String::as_str);
        matches(&self.name, &member.name)
            && matches(&self.status, member.status.as_str())
            && self
                .tags
                .iter()
                .all(|(name, pattern)| pattern.is_match(tag(name)))
    }
}

/// Anchored as Serf does it: without a group, so that `a|b` is "starts with a, or ends with b".
fn whole(pattern: &str) -> Result<Regex, String> {
    re2::compile(&format!("^{pattern}$")).map_err(|error| format!("Failed to compile regex: {error}"))
}

fn members_response<'a>(members: impl Iterator<Item = &'a Arc<serf::Member>>) -> MembersResponse {
    MembersResponse {
        members: members.map(|member| rpc_member(member)).collect(),
    }
}

fn rpc_member(member: &serf::Member) -> Member {
    let [protocol_min, protocol_max, protocol_cur] = member.protocol;
    let [delegate_min, delegate_max, delegate_cur] = member.delegate;
    Member {
        addr: member.addr.as_bytes().to_vec(),
        delegate_cur,
        delegate_max,
        delegate_min,
        name: member.name.to_string(),
        port: member.port,
        protocol_cur,
        protocol_max,
        protocol_min,
        status: member.status.as_str().to_owned(),
        tags: member.tags.clone(),
    }
}

fn coordinate_response(coordinate: Option<WireCoordinate>) -> CoordinateResponse {
    let Some(known) = coordinate else {
        return CoordinateResponse::default();
    };
    let WireCoordinate {
        vec,
        error,
        adjustment,
        height,
    } = known;
    CoordinateResponse {
        coord: Coordinate {
            adjustment,
            error,
            height,
            vec: vec.to_vec(),
        },
        ok: true,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::Future;
    use std::process::Output;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::serf::{MemberStatus, RawAddr};

    const PATIENCE: Duration = Duration::from_secs(20);
    const GREETING: &str = "82a7436f6d6d616e64a968616e647368616b65a3536571 01 81a756657273696f6e01";
    const GREETED: &str = "82a54572726f72a0a353657101";

    #[derive(Clone)]
    struct Fake {
        token: Option<String>,
        /// What was asked, in order.
        asked: Rc<RefCell<Vec<String>>>,
    }

    impl Fake {
        fn note(&self, what: String) {
            self.asked.borrow_mut().push(what);
        }
    }

    fn member(name: &str, addr: RawAddr, status: MemberStatus, tags: &[(&str, &str)]) -> Arc<serf::Member> {
        Arc::new(serf::Member {
            name: name.into(),
            addr,
            port: 17901,
            tags: tags
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            status,
            protocol: [1, 5, 2],
            delegate: [2, 5, 5],
        })
    }

    impl Backend for Fake {
        fn rpc_auth(&self) -> Option<&str> {
            self.token.as_deref()
        }

        async fn members(&self) -> Vec<Arc<serf::Member>> {
            let mut mapped = [0; 16];
            mapped[10..].copy_from_slice(&[255, 255, 10, 77, 0, 1]);
            vec![
                member(
                    "n1",
                    RawAddr::V4([127, 0, 0, 1]),
                    MemberStatus::Alive,
                    &[("role", "web")],
                ),
                member("n2", RawAddr::V16(mapped), MemberStatus::Failed, &[]),
            ]
        }

        async fn join(&self, existing: Vec<String>, replay: bool) -> Result<usize, String> {
            self.note(format!("join {existing:?} {replay}"));
            match existing.iter().any(|address| address.ends_with(":1")) {
                true => Err(
                    "1 error occurred:\n\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: \
                             connection refused\n\n"
                        .to_owned(),
                ),
                false => Ok(existing.len()),
            }
        }

        async fn leave(&self) -> Result<(), String> {
            self.note("leave".to_owned());
            Ok(())
        }

        async fn force_leave(&self, name: String, prune: bool) -> Result<(), String> {
            self.note(format!("force-leave {name} {prune}"));
            match name.as_str() {
                "stuck" => Err("timed out broadcasting node removal".to_owned()),
                _ => Ok(()),
            }
        }

        async fn set_tags(&self, set: Tags, delete: Vec<String>) -> Result<(), String> {
            self.note(format!("tags {set:?} {delete:?}"));
            Ok(())
        }

        async fn stats(&self) -> BTreeMap<String, BTreeMap<String, String>> {
            let agent = BTreeMap::from([("name".to_owned(), "n1".to_owned())]);
            BTreeMap::from([("agent".to_owned(), agent), ("tags".to_owned(), BTreeMap::new())])
        }

        async fn coordinate(&self, name: String) -> Option<WireCoordinate> {
            let known = name.starts_with('n') && name.len() == 2;
            known.then_some(WireCoordinate {
                vec: [0.0; 8],
                error: 1.5,
                adjustment: 0.0,
                height: 1e-5,
            })
        }
    }

    struct Server {
        addr: SocketAddr,
        asked: Rc<RefCell<Vec<String>>>,
    }

    /// Runs `test` beside a server; true if the server has ended by itself meanwhile.
    async fn with_server<F: Future<Output = ()>>(
        token: Option<&str>,
        test: impl FnOnce(Server) -> F,
    ) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Rc::new(RefCell::new(Vec::new()));
        let backend = Fake {
            token: token.map(str::to_owned),
            asked: asked.clone(),
        };
        let test = timeout(PATIENCE, test(Server { addr, asked }));
        tokio::pin!(test);
        let ended = tokio::select! {
            () = serve(listener, backend) => true,
            done = &mut test => {
                done.expect("the test takes too long");
                return false;
            }
        };
        test.await.expect("the test takes too long");
        ended
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn request(command: &str, seq: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = hex("82a7436f6d6d616e64");
        encode_into(command, &mut bytes).unwrap();
        bytes.extend(b"\xa3Seq");
        bytes.push(seq);
        bytes.extend(body);
        bytes
    }

    fn response(error: &str, seq: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x82\xa5Error".to_vec();
        encode_into(error, &mut bytes).unwrap();
        bytes.extend(b"\xa3Seq");
        bytes.push(seq);
        bytes.extend(body);
        bytes
    }

    async fn greet(addr: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        exchange(&mut stream, &hex(GREETING), &hex(GREETED)).await;
        stream
    }

    /// Sends a request and expects exactly these bytes.
    async fn exchange(stream: &mut TcpStream, request: &[u8], expected: &[u8]) {
        stream.write_all(request).await.unwrap();
        let mut got = vec![0; expected.len()];
        timeout(PATIENCE, stream.read_exact(&mut got))
            .await
            .expect("an answer")
            .unwrap();
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(text(&got), text(expected), "to {}", text(request));
    }

    async fn expect_end(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("the connection must be closed")
            .unwrap();
        assert_eq!(rest, b"");
    }

    const MEMBERS: &str = "a74d656d62657273 92
        8b a441646472 c4047f000001 ab44656c6567617465437572 05 ab44656c65676174654d6178 05
           ab44656c65676174654d696e 02 a44e616d65 a26e31 a4506f7274 cd45ed ab50726f746f636f6c437572 02
           ab50726f746f636f6c4d6178 05 ab50726f746f636f6c4d696e 01 a6537461747573 a5616c697665
           a454616773 81 a4726f6c65 a3776562
        8b a441646472 c41000000000000000000000ffff0a4d0001 ab44656c6567617465437572 05
           ab44656c65676174654d6178 05 ab44656c65676174654d696e 02 a44e616d65 a26e32 a4506f7274 cd45ed
           ab50726f746f636f6c437572 02 ab50726f746f636f6c4d6178 05 ab50726f746f636f6c4d696e 01
           a6537461747573 a66661696c6564 a454616773 80";

    #[tokio::test]
    async fn golden_exchanges() {
        with_server(None, async |server: Server| {
            let mut stream = greet(server.addr).await;
            let members = hex(&format!("82a54572726f72a0a353657104 81 {MEMBERS}"));
            exchange(&mut stream, &hex("82a7436f6d6d616e64a76d656d62657273a353657104"), &members).await;
            // An empty header repeats the previous request.
            exchange(&mut stream, b"\x80", &members).await;
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64b06d656d626572732d66696c7465726564a353657102
                      83a44e616d65a26e31a6537461747573a5616c697665a45461677381a4726f6c65a3787878"),
                &response("", 2, b"\x81\xa7Members\x90"),
            )
            .await;
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64a474616773a353657102
                      82aa44656c6574655461677391a163a45461677381a161a162"),
                &response("", 2, b""),
            )
            .await;
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64a46a6f696ea353657102
                      82a84578697374696e6791ab3132372e302e302e313a31a65265706c6179c2"),
                &response(
                    "1 error occurred:\n\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection \
                     refused\n\n",
                    2,
                    b"\x81\xa3Num\x00",
                ),
            )
            .await;
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64ae6765742d636f6f7264696e617465a353657103 81a44e6f6465a66e6f73756368"),
                &hex("82a54572726f72a0a353657103 82a5436f6f7264 84aa41646a7573746d656e74cb0000000000000000
                      a54572726f72cb0000000000000000 a6486569676874cb0000000000000000 a3566563c0 a24f6bc2"),
            )
            .await;
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64ab666f7263652d6c65617665a353657102 82a44e6f6465a27878a55072756e65c2"),
                &response("", 2, b""),
            )
            .await;
            assert_eq!(
                *server.asked.borrow(),
                [r#"tags {"a": "b"} ["c"]"#, r#"join ["127.0.0.1:1"] false"#, "force-leave xx false"]
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_introduces_itself_first() {
        with_server(None, async |server: Server| {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            exchange(
                &mut stream,
                &hex("82a7436f6d6d616e64a76d656d62657273a353657107"),
                &hex("82a54572726f72b248616e647368616b65207265717569726564a353657107"),
            )
            .await;
            expect_end(&mut stream).await;

            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            let version =
                |version: u8, seq| request("handshake", seq, &[b"\x81\xa7Version", &[version][..]].concat());
            exchange(
                &mut stream,
                &version(2, 1),
                &response("Unsupported IPC version", 1, b""),
            )
            .await;
            exchange(&mut stream, &version(1, 2), &response("", 2, b"")).await;
            exchange(
                &mut stream,
                &version(1, 3),
                &response("Handshake already performed", 3, b""),
            )
            .await;
            let auth = |token: &str, seq| {
                let mut body = b"\x81\xa7AuthKey".to_vec();
                encode_into(token, &mut body).unwrap();
                request("auth", seq, &body)
            };
            // Without a token of its own, the agent compares with the empty one.
            exchange(
                &mut stream,
                &auth("tok", 4),
                &response("Invalid authentication token", 4, b""),
            )
            .await;
            exchange(&mut stream, &auth("", 5), &response("", 5, b"")).await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_token_guards_every_command() {
        with_server(Some("tok"), async |server: Server| {
            let mut stream = greet(server.addr).await;
            let required = |seq| response("Authentication required", seq, b"");
            exchange(&mut stream, &request("leave", 2, b""), &required(2)).await;
            exchange(&mut stream, &request("bogus", 3, b""), &required(3)).await;
            let join = b"\x81\xa8Existing\x91\xa1x";
            exchange(&mut stream, &request("join", 4, join), &required(4)).await;
            let auth = |token: &[u8]| [b"\x81\xa7AuthKey", token].concat();
            let invalid = |seq| response("Invalid authentication token", seq, b"");
            exchange(&mut stream, &request("auth", 5, &auth(b"\xa3tox")), &invalid(5)).await;
            exchange(
                &mut stream,
                &request("auth", 6, &auth(b"\xa3tok")),
                &response("", 6, b""),
            )
            .await;
            exchange(&mut stream, &request("auth", 7, &auth(b"\xc0")), &invalid(7)).await;
            let joined = response("", 8, b"\x81\xa3Num\x01");
            exchange(&mut stream, &request("join", 8, join), &joined).await;
            assert_eq!(*server.asked.borrow(), [r#"join ["x"] false"#]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_understood_ends_the_connection() {
        with_server(None, async |server: Server| {
            for (command, body) in [("bogus", &b""[..]), ("event", b"\x81\xa4Name\xa1x")] {
                let mut stream = greet(server.addr).await;
                let unsupported = response("Unsupported command", 2, b"");
                exchange(&mut stream, &request(command, 2, body), &unsupported).await;
                expect_end(&mut stream).await;
            }
            let nil_header = response("Unsupported command", 0, b"");
            exchange(&mut greet(server.addr).await, b"\xc0", &nil_header).await;
            for garbage in [
                &b"\x81\xc1"[..],
                b"\xdd\xff\xff\xff\xff",
                &[0x91; 100],
                &request("join", 3, b"\x81\xa8Existing\x05"),
                &request("members-filtered", 3, b"\x81\xa4Tags\x91\xa1x"),
            ] {
                let mut stream = greet(server.addr).await;
                stream.write_all(garbage).await.unwrap();
                expect_end(&mut stream).await;
            }
            // A client that goes in the middle of a request.
            let mut stream = greet(server.addr).await;
            stream
                .write_all(&request("join", 3, b"\x81\xa8Exis"))
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
            expect_end(&mut stream).await;
            assert!(server.asked.borrow().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn filters_are_anchored_without_a_group() {
        let members = [
            member(
                "n1",
                RawAddr::V4([127, 0, 0, 1]),
                MemberStatus::Alive,
                &[("role", "web")],
            ),
            member("zz9", RawAddr::V4([127, 0, 0, 1]), MemberStatus::Failed, &[]),
        ];
        let matching = |name: &str, status: &str, tags: &[(&str, &str)]| {
            let tags = tags
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            let request = MembersFilteredRequest {
                name: name.to_owned(),
                status: status.to_owned(),
                tags,
            };
            let filter = MemberFilter::new(&request).unwrap();
            members
                .iter()
                .map(|member| u8::from(filter.matches(member)))
                .collect::<Vec<_>>()
        };
        assert_eq!(matching("", "", &[]), [1, 1]);
        assert_eq!(matching("n", "", &[]), [0, 0]);
        assert_eq!(matching("n.", "", &[]), [1, 0]);
        assert_eq!(matching("zz|1", "", &[]), [1, 1]);
        assert_eq!(matching("", "alive", &[]), [1, 0]);
        assert_eq!(matching("", "ALIVE", &[]), [0, 0]);
        assert_eq!(matching("", "", &[("role", "w.b")]), [1, 0]);
        assert_eq!(
            matching("", "", &[("role", "")]),
            [0, 1],
            "an absent tag is empty"
        );
        assert_eq!(matching("", "", &[("none", "")]), [1, 1]);
    }

    #[tokio::test]
    async fn a_bad_pattern_is_told_to_the_client() {
        with_server(None, async |server: Server| {
            let mut stream = greet(server.addr).await;
            let refused = response(
                "Failed to compile regex: error parsing regexp: unclosed group: `^($`",
                2,
                b"\x81\xa7Members\x90",
            );
            let bad = request("members-filtered", 2, b"\x81\xa4Name\xa1(");
            exchange(&mut stream, &bad, &refused).await;
            let stats = response("", 3, b"\x82\xa5agent\x81\xa4name\xa2n1\xa4tags\x80");
            exchange(&mut stream, &request("stats", 3, b""), &stats).await;
        })
        .await;
    }

    #[tokio::test]
    async fn requests_are_answered_in_order_however_they_arrive() {
        with_server(None, async |server: Server| {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            let mut batch = hex(GREETING);
            let mut expected = hex(GREETED);
            for seq in 2..100 {
                batch.extend(request("force-leave", seq, b"\x81\xa4Node\xa5stuck"));
                expected.extend(response("timed out broadcasting node removal", seq, b""));
            }
            let (mut reader, mut writer) = stream.split();
            let write = async {
                for piece in batch.chunks(7) {
                    writer.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let mut got = vec![0; expected.len()];
            let (read, ()) = tokio::join!(reader.read_exact(&mut got), write);
            read.unwrap();
            assert!(got == expected);
        })
        .await;
    }

    #[tokio::test]
    async fn an_answered_leave_ends_the_server() {
        let ended = with_server(None, async |server: Server| {
            let mut idle = greet(server.addr).await;
            let mut stream = greet(server.addr).await;
            exchange(&mut stream, &request("leave", 2, b""), &response("", 2, b"")).await;
            expect_end(&mut stream).await;
            expect_end(&mut idle).await;
            assert_eq!(*server.asked.borrow(), ["leave"]);
        })
        .await;
        assert!(ended);
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        let error = write_in_time(&mut ours, &[0; 1000], Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(error.contains("read nothing"), "{error}");
    }

    #[tokio::test]
    async fn clients_over_the_cap_are_refused_and_the_others_served() {
        with_server(None, async |server: Server| {
            let mut first = greet(server.addr).await;
            let mut idle = Vec::new();
            for _ in 1..bounds::RPC_CLIENTS_MAX {
                idle.push(TcpStream::connect(server.addr).await.unwrap());
            }
            expect_end(&mut TcpStream::connect(server.addr).await.unwrap()).await;
            let stats = response("", 3, b"\x82\xa5agent\x81\xa4name\xa2n1\xa4tags\x80");
            exchange(&mut first, &request("stats", 3, b""), &stats).await;
            drop(idle);
            // Places are free once the server has noticed.
            let mut stream = loop {
                let mut stream = TcpStream::connect(server.addr).await.unwrap();
                stream.write_all(&hex(GREETING)).await.unwrap();
                if stream.read_u8().await.is_ok() {
                    break stream;
                }
            };
            assert_eq!(stream.read_u8().await.unwrap(), 0xa5);
        })
        .await;
    }

    async fn real_serf(addr: SocketAddr, args: &[&str]) -> Option<(Option<i32>, String)> {
        let rpc = format!("-rpc-addr={addr}");
        let (command, rest) = args.split_first().unwrap();
        let output = tokio::process::Command::new("serf")
            .arg(command)
            .arg(rpc)
            .args(rest)
            .output()
            .await;
        let Output { status, stdout, .. } = output.ok()?;
        Some((status.code(), String::from_utf8(stdout).unwrap()))
    }

    #[tokio::test]
    async fn the_real_command_line_understands_this_server() {
        with_server(None, async |server: Server| {
            let run = async |args: &[&str]| real_serf(server.addr, args).await;
            // Where Serf is not installed there is nothing to compare with.
            let Some(members) = run(&["members"]).await else { return };
            assert_eq!(members, (Some(0), MEMBERS_TABLE.to_owned()));
            let ok = |text: &str| Some((Some(0), text.to_owned()));
            let failed = |text: &str| Some((Some(1), text.to_owned()));
            assert_eq!(run(&["members", "-status=failed"]).await, ok("n2  10.77.0.1:17901  failed\n"));
            assert_eq!(
                run(&["members", "-name=("]).await,
                failed("Error retrieving members: Failed to compile regex: error parsing regexp: unclosed group: `^($`\n")
            );
            assert_eq!(run(&["info"]).await, ok("agent:\n\tname = n1\ntags:\n"));
            assert_eq!(run(&["join", "a", "b"]).await, ok("Successfully joined cluster by contacting 2 nodes.\n"));
            assert_eq!(
                run(&["join", "127.0.0.1:1"]).await,
                failed("Error joining the cluster: 1 error occurred:\n\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused\n\n\n")
            );
            assert_eq!(run(&["force-leave", "-prune", "n2"]).await, ok(""));
            assert_eq!(
                run(&["force-leave", "stuck"]).await,
                failed("Error force leaving: timed out broadcasting node removal\n")
            );
            assert_eq!(run(&["tags", "-set", "a=b=c", "-delete", "d"]).await, ok("Successfully updated agent tags\n"));
            assert_eq!(run(&["rtt", "n2", "n1"]).await, ok("Estimated n2 <-> n1 rtt: 0.020 ms\n"));
            assert_eq!(run(&["rtt", "nosuch", "n1"]).await, failed("Could not find a coordinate for node \"nosuch\"\n"));
            assert_eq!(
                run(&["members", "-rpc-auth=x"]).await,
                failed("Error connecting to Serf agent: Invalid authentication token\n")
            );
            assert_eq!(run(&["leave"]).await, ok("Graceful leave complete\n"));
            assert!(server.asked.borrow().contains(&r#"tags {"a": "b=c"} ["d"]"#.to_owned()));
        })
        .await;
    }

    const MEMBERS_TABLE: &str = "n1  127.0.0.1:17901  alive   role=web\nn2  10.77.0.1:17901  failed\n";
}
