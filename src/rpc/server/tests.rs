//! The server as clients meet it, with a made-up agent behind it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::outbox::write_in_time;
use super::*;
use crate::events::hub::Hub;
use crate::queue;
use crate::rpc::codec::encode_into;
use fyrd_core::serf::{Event, MemberStatus, QueryUpdateKind, RawAddr};

const PATIENCE: Duration = Duration::from_secs(60);
const GREETING: &str = "82a7436f6d6d616e64a968616e647368616b65a3536571 01 81a756657273696f6e01";
const GREETED: &str = "82a54572726f72a0a353657101";

#[derive(Clone)]
struct Fake {
    token: Option<String>,
    /// What was asked, in order.
    asked: Rc<RefCell<Vec<String>>>,
    hub: Rc<Hub>,
    /// Where log lines go in for the monitor that was opened last.
    log: Rc<RefCell<Option<queue::Sender<Arc<str>>>>>,
    state: Rc<Members>,
}

/// The members of a fake.
#[derive(Default)]
struct Members {
    /// The number of their state; with the first change, a third one comes.
    version: Cell<u64>,
    /// How often they were listed.
    listed: Cell<u32>,
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

/// How many clients the server of a test takes.
const CLIENTS: usize = 8;

impl Backend for Fake {
    fn limits(&self) -> Limits {
        Limits {
            clients: CLIENTS,
            ..Limits::default()
        }
    }

    fn rpc_auth(&self) -> Option<&str> {
        self.token.as_deref()
    }

    async fn members_since(&self, known: Option<u64>) -> Option<(u64, Vec<Arc<serf::Member>>)> {
        let version = self.state.version.get();
        match known == Some(version) {
            true => None,
            false => Some((version, self.members().await)),
        }
    }

    async fn members(&self) -> Vec<Arc<serf::Member>> {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[255, 255, 10, 77, 0, 1]);
        self.state.listed.set(self.state.listed.get() + 1);
        let newcomer = member("n3", RawAddr::V4([127, 0, 0, 3]), MemberStatus::Alive, &[]);
        let newcomer = (self.state.version.get() > 0).then_some(newcomer);
        let mut members = vec![
            member(
                "n1",
                RawAddr::V4([127, 0, 0, 1]),
                MemberStatus::Alive,
                &[("role", "web")],
            ),
            member("n2", RawAddr::V16(mapped), MemberStatus::Failed, &[]),
        ];
        members.extend(newcomer);
        members
    }

    async fn join(&self, existing: Vec<String>, replay: bool) -> Result<Joined, String> {
        self.note(format!("join {existing:?} {replay}"));
        match existing.iter().any(|address| address.ends_with(":1")) {
            true => Err(
                "1 error occurred:\n\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: \
                         connection refused\n\n"
                    .to_owned(),
            ),
            false => Ok(Joined {
                contacted: existing.len(),
                failed: vec!["a reason".to_owned()],
            }),
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

    async fn user_event(&self, name: String, payload: Vec<u8>, coalesce: bool) -> Result<(), String> {
        self.note(format!("event {name} {} {coalesce}", payload.escape_ascii()));
        match name.as_str() {
            "large" => Err("user event exceeds configured limit of 512 bytes before encoding".to_owned()),
            "stuck" => std::future::pending().await,
            _ => Ok(()),
        }
    }

    fn events(&self, capacity: usize) -> Subscription {
        self.hub.subscribe(capacity)
    }

    fn log(&self, level: &str, capacity: usize) -> Result<LogTap, String> {
        if level != "INFO" {
            return Err(format!("Unknown log level: {level}"));
        }
        let (lines, live) = queue::bounded(capacity);
        *self.log.borrow_mut() = Some(lines);
        Ok(LogTap {
            backlog: vec!["x".into(), "y".into()],
            live,
        })
    }

    async fn query(&self, params: QueryParams) -> Result<QueryAnswers, String> {
        self.note(format!("{params:?}"));
        let (sender, updates) = queue::bounded(8);
        let from = || "n1".to_owned();
        let payload = b"hi\n".to_vec();
        sender.offer(QueryUpdateKind::Ack { from: from() });
        let response = QueryUpdateKind::Response {
            from: from(),
            payload,
        };
        sender.offer(response);
        Ok(updates)
    }

    async fn respond(&self, query: QueryKey, payload: Vec<u8>) -> Result<(), RespondError> {
        self.note(format!("respond {query:?} {}", payload.escape_ascii()));
        match payload.as_slice() {
            b"late" => Err(RespondError::Over),
            b"twice" => Err(RespondError::Refused("response already sent".to_owned())),
            _ => Ok(()),
        }
    }

    async fn keys(&self, op: KeyOp, key: KeyBytes) -> Result<KeyReport, String> {
        self.note(format!("{op:?} {}", key.0.escape_ascii()));
        let message = "Keyring is empty (encryption not enabled)".to_owned();
        Ok(KeyReport {
            nodes: 2,
            responses: 2,
            errors: 2,
            messages: BTreeMap::from([("n1".to_owned(), message)]),
            ..KeyReport::default()
        })
    }
}

struct Server {
    addr: SocketAddr,
    asked: Rc<RefCell<Vec<String>>>,
    hub: Rc<Hub>,
    log: Rc<RefCell<Option<queue::Sender<Arc<str>>>>>,
    state: Rc<Members>,
}

/// Runs `test` beside a server; true if the server has ended by itself meanwhile.
async fn with_server<F: Future<Output = ()>>(token: Option<&str>, test: impl FnOnce(Server) -> F) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let backend = Fake {
        token: token.map(str::to_owned),
        asked: asked.clone(),
        hub: Rc::default(),
        log: Rc::default(),
        state: Rc::default(),
    };
    let server = Server {
        addr,
        asked,
        hub: backend.hub.clone(),
        log: backend.log.clone(),
        state: backend.state.clone(),
    };
    let test = timeout(PATIENCE, test(server));
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

fn event(seq: u8, name: &str) -> Vec<u8> {
    let mut body = hex("83 a4 4e616d65");
    encode_into(name, &mut body).unwrap();
    body.extend(hex("a7 5061796c6f6164 c400 a8 436f616c65736365 c2"));
    request("event", seq, &body)
}

#[tokio::test(flavor = "local")]
async fn no_answer_waits_for_what_takes_long_nor_for_more_of_the_client() {
    let answers = |seqs: &[u8]| -> Vec<u8> { seqs.iter().flat_map(|seq| response("", *seq, b"")).collect() };
    with_server(None, |server| async move {
        let all = |seqs: &[u8]| -> Vec<u8> { seqs.iter().flat_map(|seq| event(*seq, "deploy")).collect() };
        let mut client = greet(server.addr).await;
        // In order, whatever is asked between them.
        let mut asked = all(&[1, 2]);
        asked.extend(request("members", 3, b""));
        asked.extend(event(4, "large"));
        let mut expected = answers(&[1, 2]);
        expected.extend(response("", 3, &hex(&format!("81 {MEMBERS}"))));
        let reason = "user event exceeds configured limit of 512 bytes before encoding";
        expected.extend(response(reason, 4, b""));
        exchange(&mut client, &asked, &expected).await;
        // The next request has come in part: of its header, and of its body.
        let next = event(7, "deploy");
        for (seq, cut) in [(5, 3), (6, next.len() - 2)] {
            let asked = [&event(seq, "deploy")[..], &next[..cut]].concat();
            exchange(&mut client, &asked, &answers(&[seq])).await;
            exchange(&mut client, &next[cut..], &answers(&[7])).await;
        }
        // The next one takes for ever.
        let asked = [all(&[8, 9]), event(10, "stuck")].concat();
        exchange(&mut client, &asked, &answers(&[8, 9])).await;
        // What cannot be read ends the connection, and not the answers before it.
        let mut client = greet(server.addr).await;
        let asked = [&all(&[1, 2])[..], b"\xc1"].concat();
        exchange(&mut client, &asked, &answers(&[1, 2])).await;
        expect_end(&mut client).await;
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn the_members_are_put_into_bytes_once_until_somebody_changes() {
    with_server(None, |server| async move {
        let answer = response("", 1, &hex(&format!("81 {MEMBERS}")));
        for mut client in [greet(server.addr).await, greet(server.addr).await] {
            exchange(&mut client, &request("members", 1, b""), &answer).await;
            exchange(&mut client, &request("members", 1, b""), &answer).await;
        }
        assert_eq!(server.state.listed.get(), 1);
        server.state.version.set(1);
        let mut three = hex(&format!("81 {}", MEMBERS.replacen("92", "93", 1)));
        three.extend(hex(
            "8b a441646472 c4047f000003 ab44656c6567617465437572 05 ab44656c65676174654d6178 05
             ab44656c65676174654d696e 02 a44e616d65 a26e33 a4506f7274 cd45ed ab50726f746f636f6c437572 02
             ab50726f746f636f6c4d6178 05 ab50726f746f636f6c4d696e 01 a6537461747573 a5616c697665
             a454616773 80",
        ));
        let mut client = greet(server.addr).await;
        exchange(&mut client, &request("members", 1, b""), &response("", 1, &three)).await;
        assert_eq!(server.state.listed.get(), 2);
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn golden_exchanges() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let members = hex(&format!("82a54572726f72a0a353657104 81 {MEMBERS}"));
        exchange(
            &mut stream,
            &hex("82a7436f6d6d616e64a76d656d62657273a353657104"),
            &members,
        )
        .await;
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
            &hex(
                "82a54572726f72a0a353657103 82a5436f6f7264 84aa41646a7573746d656e74cb0000000000000000
                  a54572726f72cb0000000000000000 a6486569676874cb0000000000000000 a3566563c0 a24f6bc2",
            ),
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
            [
                r#"tags {"a": "b"} ["c"]"#,
                r#"join ["127.0.0.1:1"] false"#,
                "force-leave xx false"
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn golden_events_and_queries() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        exchange(
            &mut stream,
            &hex("82a7436f6d6d616e64a56576656e74a353657102
                  83a8436f616c65736365c3a44e616d65a66465706c6f79a75061796c6f6164c4027631"),
            &hex("82a54572726f72a0a353657102"),
        )
        .await;
        exchange(
            &mut stream,
            &request("event", 3, b"\x81\xa4Name\xa5large"),
            &response("user event exceeds configured limit of 512 bytes before encoding", 3, b""),
        )
        .await;
        exchange(
            &mut stream,
            &hex("82a7436f6d6d616e64a57175657279a353657102 87ab46696c7465724e6f646573c0aa46696c7465725461677380
                  a44e616d65a46c6f6164a75061796c6f6164c0ab52656c6179466163746f7200aa5265717565737441636bc3
                  a754696d656f7574ce29b92700"),
            &hex("82a54572726f72a0a353657102
                  82a54572726f72a0a35365710283a446726f6da26e31a75061796c6f6164c0a454797065a361636b
                  82a54572726f72a0a35365710283a446726f6da26e31a75061796c6f6164c40368690aa454797065a8726573706f6e7365
                  82a54572726f72a0a35365710283a446726f6da0a75061796c6f6164c0a454797065a4646f6e65"),
        )
        .await;
        let prefix = response("Queries cannot contain the '_serf_' prefix", 4, b"");
        for body in [
            &b"\x82\xa4Name\xaa_serf_ping\xa7Payload\xc4\x01x"[..],
            b"\x81\xa4Name\xaf_serf_list-keys",
        ] {
            exchange(&mut stream, &request("query", 4, body), &prefix).await;
        }
        let ping = request("query", 5, b"\x82\xa4Name\xaa_serf_ping\xa7Payload\xc4\x00");
        exchange(&mut stream, &ping, &response("", 5, b"")).await;
        let asked = server.asked.borrow();
        assert_eq!(asked[..2], ["event deploy v1 true", "event large  false"]);
        assert!(asked[2].contains("timeout: Some(700ms)"), "{}", asked[2]);
        assert!(asked[3].contains("_serf_ping") && asked.len() == 4, "{asked:?}");
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn golden_streams() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let subscribe = hex("82a7436f6d6d616e64a673747265616da353657132
                             81a454797065bd6d656d6265722d6a6f696e2c757365723a6465706c6f792c7175657279");
        exchange(&mut stream, &subscribe, &hex("82a54572726f72a0a353657132")).await;
        let exists = response("Stream with given sequence exists", 0x32, b"");
        exchange(&mut stream, &subscribe, &exists).await;
        let invalid = response("Invalid event filter", 9, b"");
        exchange(
            &mut stream,
            &request("stream", 9, b"\x81\xa4Type\xa3foo"),
            &invalid,
        )
        .await;
        let user = |name: &str| {
            Arc::new(Event::User {
                ltime: 5,
                name: name.to_owned(),
                payload: b"9c45b87".to_vec(),
                coalesce: false,
            })
        };
        server.hub.publish(&user("other"));
        server.hub.publish(&user("deploy"));
        server.hub.publish(&Arc::new(Event::Query {
            ltime: 8,
            id: 77,
            name: "ask".to_owned(),
            payload: b"15m".to_vec(),
            source: "n2".to_owned(),
        }));
        let deploy = "82a54572726f72a0a353657132 85a8436f616c65736365c2a54576656e74a475736572a54c54696d6505
                      a44e616d65a66465706c6f79a75061796c6f6164c40739633435623837";
        exchange(
            &mut stream,
            b"",
            &hex(&format!(
                "{deploy} 82a54572726f72a0a35365713285a54576656e74a57175657279a2494401a54c54696d6508
                 a44e616d65a361736ba75061796c6f6164c40331356d"
            )),
        )
        .await;
        let respond = |id: u8, payload: &[u8]| {
            request(
                "respond",
                3,
                &[b"\x82\xa2ID", &[id][..], b"\xa7Payload", payload].concat(),
            )
        };
        let none = response("No pending queries matching ID", 3, b"");
        exchange(&mut stream, &respond(2, b"\xc0"), &none).await;
        exchange(&mut stream, &respond(1, b"\xc4\x02my"), &response("", 3, b"")).await;
        exchange(
            &mut stream,
            &respond(1, b"\xa5twice"),
            &response("response already sent", 3, b""),
        )
        .await;
        exchange(&mut stream, &respond(1, b"\xa4late"), &none).await;
        exchange(&mut stream, &respond(1, b"\xa4gone"), &none).await;
        let asked = [
            "respond (8, 77) my",
            "respond (8, 77) twice",
            "respond (8, 77) late",
        ];
        assert_eq!(*server.asked.borrow(), asked);
        let second = request("stream", 0x33, b"\x81\xa4Type\xc0");
        exchange(&mut stream, &second, &response("", 0x33, b"")).await;
        exchange(
            &mut stream,
            &request("stop", 4, b"\x81\xa4Stop\x33"),
            &response("", 4, b""),
        )
        .await;
        server.hub.publish(&user("deploy"));
        exchange(&mut stream, b"", &hex(deploy)).await;
        // Nothing of the stopped one comes, and its number is free again.
        exchange(&mut stream, &second, &response("", 0x33, b"")).await;
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn golden_monitor_and_keys() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let unknown = response("Unknown log level: FOO", 2, b"");
        exchange(
            &mut stream,
            &request("monitor", 2, b"\x81\xa8LogLevel\xa3FOO"),
            &unknown,
        )
        .await;
        let monitor = hex("82a7436f6d6d616e64a76d6f6e69746f72a35365710381a84c6f674c6576656ca4494e464f");
        let lines = |lines: &[&str]| {
            let record = |line: &&str| {
                [
                    &b"\x82\xa5Error\xa0\xa3Seq\x03\x81\xa3Log\xa1"[..],
                    line.as_bytes(),
                ]
                .concat()
            };
            lines.iter().flat_map(record).collect::<Vec<u8>>()
        };
        exchange(
            &mut stream,
            &monitor,
            &[response("", 3, b""), lines(&["x", "y"])].concat(),
        )
        .await;
        exchange(&mut stream, &monitor, &response("Monitor already exists", 3, b"")).await;
        let log = server.log.take().unwrap();
        log.offer("z".into());
        exchange(&mut stream, b"", &lines(&["z"])).await;
        let stop = hex("82a7436f6d6d616e64a473746f70a35365710481a453746f7003");
        exchange(&mut stream, &stop, &response("", 4, b"")).await;
        log.closed().await;

        exchange(
            &mut stream,
            &hex("82a7436f6d6d616e64a96c6973742d6b657973a353657102"),
            &[
                response(
                    "2/2 nodes reported failure",
                    2,
                    b"\x85\xa4Keys\x80\xa8Messages\x81\xa2n1\xd9\x29",
                ),
                b"Keyring is empty (encryption not enabled)\xa6NumErr\x02\xa8NumNodes\x02\xa7NumResp\x02"
                    .to_vec(),
            ]
            .concat(),
        )
        .await;
        exchange(
            &mut stream,
            &request("install-key", 2, b"\x81\xa3Key\xa3!!!"),
            &response(
                "illegal base64 data at input byte 0",
                2,
                b"\x85\xa4Keys\xc0\xa8Messages\x80\xa6NumErr\x00\xa8NumNodes\x00\xa7NumResp\x00",
            ),
        )
        .await;
        let key = request("use-key", 2, b"\x81\xa3Key\xb8AAAAAAAAAAAAAAAAAAAAAA==");
        let failed = response("2/2 nodes reported failure", 2, b"\x85\xa4Keys\xc0");
        exchange(&mut stream, &key, &failed).await;
        let asked = server.asked.borrow();
        assert_eq!(
            *asked,
            ["List ".to_owned(), format!("Use {}", "\\x00".repeat(16))]
        );
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn a_client_has_so_many_streams_and_no_more() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let max = u8::try_from(bounds::RPC_SUBSCRIPTIONS_MAX).unwrap();
        let subscribe = |seq: u8| {
            let mut bytes = b"\x82\xa7Command\xa6stream\xa3Seq\xcc".to_vec();
            bytes.push(seq);
            bytes.extend(b"\x81\xa4Type\xa4user");
            bytes
        };
        for seq in 0..max {
            let seq_bytes = if seq < 128 { vec![seq] } else { vec![0xcc, seq] };
            let accepted = [&b"\x82\xa5Error\xa0\xa3Seq"[..], &seq_bytes].concat();
            exchange(&mut stream, &subscribe(seq), &accepted).await;
        }
        let refused = b"\x82\xa5Error\xd9";
        exchange(&mut stream, &subscribe(max), refused).await;
    })
    .await;
}

#[tokio::test(flavor = "local")]
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

#[tokio::test(flavor = "local")]
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

#[tokio::test(flavor = "local")]
async fn what_cannot_be_understood_ends_the_connection() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let unsupported = response("Unsupported command", 2, b"");
        exchange(&mut stream, &request("bogus", 2, b""), &unsupported).await;
        expect_end(&mut stream).await;
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

#[tokio::test(flavor = "local")]
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

#[tokio::test(flavor = "local")]
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

#[tokio::test(flavor = "local")]
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

#[tokio::test(flavor = "local")]
async fn a_client_that_never_reads_is_given_up() {
    let (mut ours, _theirs) = tokio::io::duplex(64);
    let error = write_in_time(&mut ours, &[0; 1000], Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(error.contains("read nothing"), "{error}");
}

#[tokio::test(flavor = "local")]
async fn when_all_places_are_taken_the_longest_idle_gives_way_and_hears_why() {
    with_server(None, async |server: Server| {
        // One has a subscription, one a request under way; neither is idle.
        let mut subscribed = greet(server.addr).await;
        exchange(
            &mut subscribed,
            &request("stream", 1, b"\x81\xa4Type\xa1*"),
            &response("", 1, b""),
        )
        .await;
        let mut idle = Vec::new();
        for _ in 1..CLIENTS {
            idle.push(greet(server.addr).await);
        }
        let mut last = greet(server.addr).await;
        let stats = response("", 3, b"\x82\xa5agent\x81\xa4name\xa2n1\xa4tags\x80");
        exchange(&mut last, &request("stats", 3, b""), &stats).await;
        let reason = "Closed for being idle: all places for RPC clients (rpc_max_clients) are taken";
        exchange(&mut idle[0], b"", &response(reason, 0, b"")).await;
        expect_end(&mut idle[0]).await;
        for stays in [&mut subscribed, &mut idle[1]] {
            exchange(stays, &request("stats", 3, b""), &stats).await;
        }
    })
    .await;
}

/// Serf's clients know one field; who asks for more gets more.
#[tokio::test(flavor = "local")]
async fn the_reasons_of_those_that_failed_are_for_who_asks() {
    with_server(None, async |server: Server| {
        let mut stream = greet(server.addr).await;
        let plain = request("join", 2, b"\x82\xa8Existing\x91\xa1a\xa6Replay\xc2");
        exchange(&mut stream, &plain, &response("", 2, b"\x81\xa3Num\x01")).await;
        let asking = request(
            "join",
            3,
            b"\x83\xa6Detail\xc3\xa8Existing\x91\xa1a\xa6Replay\xc2",
        );
        let told = b"\x82\xa6Failed\x91\xa8a reason\xa3Num\x01";
        exchange(&mut stream, &asking, &response("", 3, told)).await;
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn who_finds_no_place_is_told_in_answer_to_the_first_request() {
    let (theirs, ours) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(ours);
    let connection = super::connection::Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
        peer: "p".to_owned(),
        source: "p".to_owned(),
    };
    let asking = async {
        let (mut reader, mut writer) = tokio::io::split(theirs);
        writer
            .write_all(&request("handshake", 9, b"\x81\xa7Version\x01"))
            .await
            .unwrap();
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        let reason = "Too many RPC clients: all 7 places (rpc_max_clients) are taken and in use";
        assert_eq!(answer, response(reason, 9, b""));
    };
    tokio::join!(super::client::refuse(connection, 7), asking);
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

#[tokio::test(flavor = "local")]
#[ignore = "needs the real Serf (tests/run)"]
async fn the_real_command_line_understands_this_server() {
    with_server(None, async |server: Server| {
        let run = async |args: &[&str]| real_serf(server.addr, args).await;
        let members = run(&["members"]).await.expect("the real serf, which tests/run installs");
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

/// Who has shown no token may not fill the memory, nor try tokens without end.
#[tokio::test(flavor = "local")]
async fn strangers_send_little_and_guess_slowly() {
    with_server(Some("the token"), async |server: Server| {
        let auth = |seq, token: &str| {
            let mut body = b"\x81\xa7AuthKey".to_vec();
            encode_into(token, &mut body).unwrap();
            request("auth", seq, &body)
        };
        let mut stream = greet(server.addr).await;
        let large = [b"\x81\xa7AuthKey\xc5\x20\x00".as_slice(), &[b'x'; 0x2000]].concat();
        let _ = stream.write_all(&request("auth", 2, &large)).await;
        let mut rest = Vec::new();
        // Closing over unread bytes may look like a reset.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("an end");
        assert_eq!(rest, b"");

        let mut stream = greet(server.addr).await;
        let begun = std::time::Instant::now();
        for seq in 2..=6 {
            let wrong = response("Invalid authentication token", seq, b"");
            exchange(&mut stream, &auth(seq, "guess"), &wrong).await;
        }
        let quick = begun.elapsed();
        // The right one waits as well now, from this address; then all is forgiven.
        exchange(&mut stream, &auth(7, "the token"), &response("", 7, b"")).await;
        let slow = begun.elapsed() - quick;
        assert!(
            slow >= bounds::RPC_TOKEN_PAUSE && slow > quick,
            "{slow:?} after {quick:?}"
        );
        let existing = [b"\x81\xa8Existing\x91\xc5\x20\x00".as_slice(), &[b'x'; 0x2000]].concat();
        exchange(
            &mut stream,
            &request("join", 8, &existing),
            &response("", 8, b"\x81\xa3Num\x01"),
        )
        .await;
        let begun = std::time::Instant::now();
        exchange(
            &mut greet(server.addr).await,
            &auth(2, "the token"),
            &response("", 2, b""),
        )
        .await;
        assert!(begun.elapsed() < bounds::RPC_TOKEN_PAUSE);
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn clients_without_a_token_yield_to_newcomers() {
    with_server(Some("the token"), async |server: Server| {
        let token = request("auth", 2, b"\x81\xa7AuthKey\xa9the token");
        let mut known = greet(server.addr).await;
        exchange(&mut known, &token, &response("", 2, b"")).await;
        let mut held = Vec::new();
        for _ in 0..3 * CLIENTS {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            stream.write_all(&hex("82a7436f6d6d")).await.unwrap();
            held.push(stream);
        }
        let mut other = greet(server.addr).await;
        exchange(&mut other, &token, &response("", 2, b"")).await;
        let mut told = Vec::new();
        // Closing over unread bytes may look like a reset.
        let _ = timeout(PATIENCE, held[0].read_to_end(&mut told))
            .await
            .expect("an end");
        let stop = request("stop", 3, b"\x81\xa4Stop\x09");
        exchange(&mut known, &stop, &response("", 3, b"")).await;
    })
    .await;
}
