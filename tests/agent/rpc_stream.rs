//! Events, queries, streams, monitors and keys by RPC: the real Serf's command line and a third-party
//! client must find in an agent of ours what they know, down to the bytes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{
    self, Agent, Finished, KEY_16, KEY_32, Kind, PATIENCE, Plan, all_alive, eventually, until,
};
use fyrd::rpc::frame::scan;

const BOTH: [Kind; 2] = [Kind::Fyrd, Kind::Serf];

/// Commands whose outcome must depend neither on whose agent nor on whose command line it is.
const COMMANDS: &[&[&str]] = &[
    &["event", "deploy", "v1"],
    &["event", "-coalesce=false", "deploy"],
    &["event", ""],
    &["query", "-timeout=2s", "load"],
    &["query", "-timeout=2s", "-format=json", "load", "payload"],
    &["query", "-timeout=2s", "-no-ack", "load"],
    &["query", "-timeout=2s", "-node=a", "load"],
    &["query", "-timeout=2s", "-node=nobody", "load"],
    &["query", "-timeout=2s", "-tag=role=^w", "load"],
    &["query", "-timeout=2s", "-tag=role=(", "load"],
    &["query", "-timeout=2s", "-relay-factor=2", "load"],
    &["query", "-timeout=2s", "_serf_ping"],
    &["query", "_serf_ping", "payload"],
    &["query", "_serf_list-keys"],
    &["query", "_serf_"],
    &["query", "-relay-factor=256", "load"],
    &["reachability"],
    &["monitor", "-log-level=FOO"],
    &["monitor", "-log-level="],
    &["keys", "-list"],
    &["keys", "-install=!!"],
    &["keys", "-use=kW9qBzL3yXv0T2mN8sRdGg=="],
    &["keys", "-remove=kW9qBzL3yXv0T2mN8sRdGg=="],
];

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn both_command_lines_find_both_agents_alike() {
    for key in [None, Some(KEY_32)] {
        let large = "x".repeat(600);
        let long = "x".repeat(490);
        let huge = "x".repeat(1024);
        let sizes: [&[&str]; 3] = [
            &["event", "-coalesce=false", "e", &large],
            &["event", "-coalesce=false", "e", &long],
            &["query", "q", &huge],
        ];
        let start = |kind| Plan::new(kind, "a").arg("-tag=role=web").key(key).start();
        let agents = BOTH.map(start);
        let commands = COMMANDS.iter().chain(&sizes);
        support::side_by_side(&commands.collect::<Vec<_>>(), |command| {
            let at = |agent: &Agent| BOTH.map(|asking| normal(agent.cli_of(asking, command)));
            let [fyrd, serf] = &agents;
            let outcomes = at(fyrd);
            assert_eq!(outcomes[0], outcomes[1], "{command:?} at Fyrd");
            // A real Serf may give two queries that come at the same moment one Lamport time, and then loses what
            // is answered to one of them.
            eventually(&format!("{command:?} at Serf is as at Fyrd"), PATIENCE, || {
                let theirs = at(serf);
                (theirs == outcomes)
                    .then_some(())
                    .ok_or_else(|| format!("{theirs:#?}, not {:#?}", outcomes[0]))
            });
        });
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_protocol_without_queries_says_so() {
    let agents = BOTH.map(|kind| Plan::new(kind, "a").arg("-protocol=3").start());
    for command in [
        &["query", "load"][..],
        &["keys", "-list"],
        &["event", "-coalesce=false", "deploy"],
    ] {
        let outcomes = agents
            .each_ref()
            .map(|agent| normal(agent.cli_of(Kind::Serf, command)));
        assert_eq!(outcomes[0], outcomes[1], "{command:?}");
    }
}

/// The order of lines that come when they come is left out.
fn normal(mut finished: Finished) -> Finished {
    let mut lines: Vec<&str> = finished.stdout.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    finished.stdout = lines.join("\n").replace("Fyrd", "Serf");
    finished
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn keys_rotate_from_either_command_line() {
    let first = Plan::new(Kind::Fyrd, "first").key(Some(KEY_16)).start();
    let second = Plan::new(Kind::Serf, "second")
        .key(Some(KEY_16))
        .join(&first)
        .start();
    all_alive(&[&first, &second]);
    let keys = |asking, flag: &str| first.cli_of(asking, &["keys", flag]);
    for (asking, old, new) in [(Kind::Serf, KEY_16, KEY_32), (Kind::Fyrd, KEY_32, KEY_16)] {
        let done = |flag: &str, key: &str, text: &str| {
            let said = keys(asking, &format!("-{flag}={key}")).success();
            assert!(said.ends_with(text), "{said}");
        };
        done("install", new, "Successfully installed key!\n");
        let listing = keys(asking, "-list").success();
        for key in [old, new] {
            let row = listing.lines().find(|line| line.starts_with(key));
            assert!(row.is_some_and(|row| row.ends_with("  [2/2]")), "{listing}");
        }
        done("use", new, "Successfully changed primary key!\n");
        let refused = keys(asking, &format!("-remove={new}"));
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stdout.contains("Removing the primary key is not allowed")
                && refused
                    .stdout
                    .ends_with("Error removing key: 2/2 nodes reported failure\n"),
            "{refused:?}"
        );
        done("remove", old, "Successfully removed key!\n");
        assert!(!keys(asking, "-list").success().contains(old));
    }
    let log = first.log();
    assert!(!log.contains(KEY_16) && !log.contains(KEY_32), "{log}");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_stream_has_the_recorded_bytes_and_queries_take_one_answer() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut client = Raw::greeted(&agent);
    client.ask("82a7436f6d6d616e64a673747265616da35365713281a454797065bd6d656d6265722d6a6f696e2c757365723a6465706c6f792c7175657279");
    client.expect("82a54572726f72a0a353657132");
    // The agent's own join may come or be past by now, and this one's comes before what is wanted.
    let serf = Plan::new(Kind::Serf, "s")
        .arg("-profile=local")
        .join(&agent)
        .start();
    let peer = Plan::new(Kind::Fyrd, "n2")
        .arg("-profile=local")
        .arg("-tag=role=web")
        .join(&agent)
        .start();
    let joined = format!(
        "8ba441646472c4047f000001ab44656c65676174654375720\
         5ab44656c65676174654d617805ab44656c65676174654d696e02a44e616d65a26e32a4506f7274cd{:04x}\
         ab50726f746f636f6c43757202ab50726f746f636f6c4d617805ab50726f746f636f6c4d696e01\
         a6537461747573a5616c697665a45461677381a4726f6c65a3776562",
        peer.gossip_port()
    );
    let record = client.record(|record| contains(record, &unhex(&joined)));
    let header = unhex("82a54572726f72a0a35365713282a54576656e74ab6d656d6265722d6a6f696ea74d656d62657273");
    assert!(record.starts_with(&header), "{}", record.escape_ascii());

    for (name, payload) in [("other", "x"), ("deploy", "9c45b87")] {
        agent
            .cli_of(Kind::Serf, &["event", "-coalesce=false", name, payload])
            .success();
    }
    client.expect(
        "82a54572726f72a0a35365713285a8436f616c65736365c2a54576656e74a475736572a54c54696d6502\
         a44e616d65a66465706c6f79a75061796c6f6164c40739633435623837",
    );
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            serf.cli(&["query", "-timeout=3s", "-node=n1", "ask", "15m"])
                .success()
        });
        client.expect(
            "82a54572726f72a0a35365713285a54576656e74a57175657279a2494401a54c54696d6501\
             a44e616d65a361736ba75061796c6f6164c40331356d",
        );
        // Serf as the asker takes no more than a datagram's worth.
        let large = [unhex("82a2494401a75061796c6f6164c50800"), vec![b'x'; 0x800]].concat();
        client.send(&[request("respond", 50), large].concat());
        client.expect_error(
            50,
            "failed to respond to key query: response exceeds limit of 1024 bytes",
        );
        client.ask("82a7436f6d6d616e64a7726573706f6e64a35365713382a2494401a75061796c6f6164c40b6d7920726573706f6e7365");
        client.expect("82a54572726f72a0a353657133");
        client.send(&[request("respond", 51), unhex("82a2494401a75061796c6f6164c0")].concat());
        client.expect_error(51, "failed to respond to key query: response already sent");
        asking.join().expect("the query")
    });
    assert!(
        answered.contains("Response from 'n1': my response\n"),
        "{answered}"
    );
    assert!(
        answered.ends_with("Total Acks: 1\nTotal Responses: 1\n"),
        "{answered}"
    );
    client.send(&[request("respond", 52), unhex("81a2494407")].concat());
    client.expect_error(52, "No pending queries matching ID");
    // The query reached this node after its asker, and so its time here is up a little later.
    eventually("the query is over", PATIENCE, || {
        client.send(&[request("respond", 53), unhex("81a2494401")].concat());
        let answer = client.frame();
        match contains(&answer, b"No pending queries matching ID") {
            true => Ok(()),
            false => Err(answer.escape_ascii().to_string()),
        }
    });
    client.ask("82a7436f6d6d616e64a473746f70a35365713481a453746f7032");
    client.expect("82a54572726f72a0a353657134");
    agent.cli(&["event", "-coalesce=false", "deploy"]).success();
    client.send(&request("members", 53));
    assert!(
        client.frame().starts_with(&unhex("82a54572726f72a0a353657135")),
        "nothing of the stream"
    );
}

#[test]
fn two_streams_get_a_copy_each_and_their_query_takes_one_answer() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut client = Raw::greeted(&agent);
    for seq in [2, 3] {
        client.send(&[request("stream", seq), unhex("81a454797065a3666f6f")].concat());
        client.expect_error(seq, "Invalid event filter");
        client.send(&[request("stream", seq), unhex("81a454797065a57175657279")].concat());
        client.expect_error(seq, "");
        client.send(&[request("stream", seq), unhex("80")].concat());
        client.expect_error(seq, "Stream with given sequence exists");
    }
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| agent.cli(&["query", "-timeout=3s", "q"]).success());
        let mut records = [client.pair(), client.pair()];
        records.sort();
        for (record, number) in records.iter().zip([1, 2]) {
            let (seq, id) = (number + 1, number);
            let expected = format!(
                "82a54572726f72a0a3536571{seq:02x}85a54576656e74a57175657279a24944{id:02x}\
                 a54c54696d6501a44e616d65a171a75061796c6f6164c0"
            );
            assert_eq!(record[..], unhex(&expected)[..]);
        }
        let respond = |id: u8| {
            [
                request("respond", 9),
                unhex("82a24944"),
                vec![id],
                unhex("a75061796c6f6164a131"),
            ]
            .concat()
        };
        client.send(&respond(2));
        client.expect_error(9, "");
        client.send(&respond(1));
        client.expect_error(9, "failed to respond to key query: response already sent");
        let said = asking.join().expect("the query");
        assert!(said.contains("Response from 'n1': 1\n"), "{said}");
    });
}

#[test]
fn a_query_has_acks_answers_and_an_end_and_nothing_else() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    let mut client = Raw::greeted(&agent);
    // 700 ms, as recorded from the real client.
    client.ask(
        "82a7436f6d6d616e64a57175657279a35365710287ab46696c7465724e6f646573c0aa46696c7465725461677380a44e616d65a46c6f6164\
         a75061796c6f6164c0ab52656c6179466163746f7200aa5265717565737441636bc3a754696d656f7574ce29b92700",
    );
    client.expect("82a54572726f72a0a353657102");
    client.expect("82a54572726f72a0a35365710283a446726f6da26e31a75061796c6f6164c0a454797065a361636b");
    client.expect("82a54572726f72a0a35365710283a446726f6da0a75061796c6f6164c0a454797065a4646f6e65");
    // A negative timeout is the default: the ack comes, then one end, and no record without a sender.
    client.send(
        &[
            request("query", 3),
            unhex("83a44e616d65a171aa5265717565737441636bc3a754696d656f7574ff"),
        ]
        .concat(),
    );
    client.expect("82a54572726f72a0a353657103");
    client.expect("82a54572726f72a0a35365710383a446726f6da26e31a75061796c6f6164c0a454797065a361636b");
    client.expect("82a54572726f72a0a35365710383a446726f6da0a75061796c6f6164c0a454797065a4646f6e65");
}

#[test]
fn a_monitor_has_the_backlog_then_live_lines_of_its_own_level() {
    let agent = Plan::new(Kind::Fyrd, "n1")
        .args(["-profile=local", "-log-level=err"])
        .start();
    let mut client = Raw::greeted(&agent);
    client.ask("82a7436f6d6d616e64a76d6f6e69746f72a35365710381a84c6f674c6576656ca4494e464f");
    client.expect("82a54572726f72a0a353657103");
    let first = client.line(3);
    assert!(first.ends_with(" [INFO] agent: Serf agent starting"), "{first}");
    agent.cli(&["event", "-coalesce=false", "deploy"]).success();
    loop {
        let line = client.line(3);
        assert!(!line.contains("[DEBUG]"), "{line}");
        if line.ends_with("[INFO] agent: Received event: user-event: deploy") {
            break;
        }
    }
    assert!(
        !agent.log().contains("[INFO]"),
        "the agent's own level is another"
    );
    let again = |level: &str| [request("monitor", 4), unhex("81a84c6f674c6576656c"), unhex(level)].concat();
    client.send(&again("a3464f4f"));
    client.expect_error(4, "Monitor already exists");
    client.send(&[request("stop", 5), unhex("81a453746f7003")].concat());
    client.expect_error(5, "");
    client.send(&again("a3666f6f"));
    client.expect_error(4, "Unknown log level: FOO");
    client.send(&again("c0"));
    client.expect_error(4, "Unknown log level: ");
    client.send(&again("a56465627567"));
    client.expect_error(4, "");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn the_real_monitor_shows_events_and_lines_until_the_agent_ends() {
    let agent = Plan::new(Kind::Fyrd, "n1").arg("-profile=local").start();
    for program in BOTH.map(Kind::program) {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("monitor");
        let mut monitor = Command::new(program)
            .args([
                "monitor",
                "-log-level=debug",
                &format!("-rpc-addr=127.0.0.1:{}", agent.rpc_port()),
            ])
            .stdout(fs::File::create(&output).expect("a file"))
            .spawn()
            .expect("the monitor starts");
        let said = || fs::read_to_string(&output).unwrap_or_default();
        let says = |text: &str| {
            eventually(text, PATIENCE, || {
                said().contains(text).then_some(()).ok_or_else(said)
            });
        };
        says("[INFO] agent: Serf agent starting\n");
        // Only what comes after the stream is open is shown as an event, and nothing tells when it is.
        until("an event is shown", || {
            agent.cli(&["event", "-coalesce=false", "deploy", "v1"]).success();
            said().contains("\n\tPayload: []byte{0x76, 0x31}\n")
        });
        says("Received event: user-event: deploy\n");
        support::signal(monitor.id(), "INT");
        assert_eq!(monitor.wait().expect("its end").code(), Some(0));
    }
}

#[test]
fn a_unix_socket_serves_its_owner_and_goes_with_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fyrd.sock");
    // A socket of a process that is no more, and a generous umask.
    drop(UnixListener::bind(&path).expect("a socket"));
    let address = format!("unix:{}", path.display());
    let flag = format!("-rpc-addr={address}");
    let plan = |name: &str| {
        let umask = ["sh", "-c", "umask 0; exec \"$@\"", "sh"].map(str::to_owned);
        Plan::new(Kind::Fyrd, name)
            .launcher(&umask)
            .arg("-profile=local")
            .arg(&flag)
    };
    let mut agent = plan("n1").start();
    let meta = fs::symlink_metadata(&path).expect("the socket");
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(
        agent
            .log()
            .contains(&format!("                   RPC addr: '{address}'\n"))
    );

    assert!(
        Kind::Fyrd
            .run(&["members", &flag])
            .success()
            .starts_with("n1  127.0.0.1:")
    );
    let by_variable = Kind::Fyrd.run_with(&["event", "deploy"], &[], &[("SERF_RPC_ADDR", &address)]);
    assert_eq!(
        by_variable.success(),
        "Event 'deploy' dispatched! Coalescing enabled: true\n"
    );
    let mut client = Raw::new(UnixStream::connect(&path).expect("a connection"));
    client.greet();

    let Err(second) = plan("n2").try_start() else {
        panic!("the socket is in use")
    };
    let text = format!(
        "==> Error starting RPC listener: listen unix {}: bind: address already in use\n",
        path.display()
    );
    assert_eq!(
        (second.code, second.output.ends_with(&text)),
        (Some(1), true),
        "{}",
        second.output
    );

    agent.kill();
    assert!(path.exists(), "a killed agent leaves its socket");
    agent.restart();
    assert_eq!(
        Kind::Fyrd.run(&["leave", &flag]).success(),
        "Graceful leave complete\n"
    );
    assert_eq!(agent.ended(), Some(0));
    assert!(!path.exists());
    let gone = Kind::Fyrd.run(&["members", &flag]);
    let text = format!(
        "Error connecting to Serf agent: dial unix {}: connect: no such file or directory\n",
        path.display()
    );
    assert_eq!((gone.code, gone.stdout), (Some(1), text));
}

/// The third-party client `serfclient` 1.2.0 from PyPI, driven by `serfclient_test.py`.
#[test]
#[ignore = "needs Python with venv (tests/run)"]
fn a_third_party_client_works() {
    let python = python_with_serfclient();
    let agent = Plan::new(Kind::Fyrd, "n1")
        .args(["-profile=local", "-tag=role=web"])
        .start();
    let peer = Plan::new(Kind::Fyrd, "n2").arg("-profile=local").start();
    let gone = Plan::new(Kind::Fyrd, "n3")
        .arg("-profile=local")
        .join(&peer)
        .start();
    all_alive(&[&peer, &gone]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/serfclient_test.py");
    let output = Command::new("timeout")
        .arg("120")
        .arg(python)
        .arg(script)
        .args([
            agent.rpc_port().to_string(),
            peer.address(),
            gone.pid().to_string(),
        ])
        .output()
        .expect("python starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        said(&output.stdout),
        said(&output.stderr)
    );
    assert_eq!(said(&output.stdout), "all is well\n");
}

/// A Python that has the client, made once and kept beside the build.
fn python_with_serfclient() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serfclient-1.2.0");
    let python = venv.join("bin/python");
    let works = || run_quietly(Command::new(&python).args(["-c", "import serfclient.client"])).is_ok();
    if !works() {
        let made = run_quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        made.expect("this test needs python3 with venv and pip; on Debian: apt-get install python3-venv");
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "serfclient==1.2.0",
        ];
        run_quietly(Command::new(&python).args(pip)).expect("this test needs serfclient 1.2.0 from PyPI");
        assert!(works(), "serfclient is installed and cannot be imported");
    }
    python
}

fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Where bytes go to and come from.
trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// A client that knows nothing but bytes, and where an object ends.
struct Raw {
    socket: Box<dyn Socket>,
    buffer: Vec<u8>,
}

impl Raw {
    fn new(socket: impl Socket + 'static) -> Raw {
        Raw {
            socket: Box::new(socket),
            buffer: Vec::new(),
        }
    }

    fn greeted(agent: &Agent) -> Raw {
        let socket = TcpStream::connect(("127.0.0.1", agent.rpc_port())).expect("a connection");
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a deadline");
        let mut client = Raw::new(socket);
        client.greet();
        client
    }

    fn greet(&mut self) {
        self.ask("82a7436f6d6d616e64a968616e647368616b65a35365710181a756657273696f6e01");
        self.expect("82a54572726f72a0a353657101");
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the request is taken");
    }

    fn ask(&mut self, hex: &str) {
        self.send(&unhex(hex));
    }

    /// The next object's bytes.
    fn frame(&mut self) -> Vec<u8> {
        let mut scan = scan(1 << 20);
        loop {
            if let Some(length) = scan.advance(&self.buffer).expect("well-formed") {
                return self.buffer.drain(..length).collect();
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).expect("an answer");
            assert!(count > 0, "the agent has closed the connection");
            self.buffer.extend(&bytes[..count]);
        }
    }

    /// The next record, header and body.
    fn pair(&mut self) -> Vec<u8> {
        [self.frame(), self.frame()].concat()
    }

    /// Reads records up to one that is wanted.
    fn record(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            let record = self.pair();
            if wanted(&record) {
                return record;
            }
        }
    }

    /// Expects exactly these bytes next.
    #[track_caller]
    fn expect(&mut self, hex: &str) {
        let expected = unhex(hex);
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(self.frame());
        }
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[track_caller]
    fn expect_error(&mut self, seq: u8, error: &str) {
        let mut header = unhex("82a54572726f72");
        match u8::try_from(error.len()).expect("a short text") {
            length @ 0..32 => header.push(0xa0 | length),
            length => header.extend([0xd9, length]),
        }
        header.extend(error.as_bytes());
        header.extend(unhex("a3536571"));
        header.push(seq);
        // Log lines may come in between.
        let got = loop {
            let got = self.frame();
            if got.starts_with(&unhex("82a54572726f72a0a353657103")) && seq != 3 {
                self.frame();
                continue;
            }
            break got;
        };
        assert_eq!(got.escape_ascii().to_string(), header.escape_ascii().to_string());
    }

    /// The next log line.
    #[track_caller]
    fn line(&mut self, seq: u8) -> String {
        let record = self.pair();
        let header = [unhex("82a54572726f72a0a3536571"), vec![seq], unhex("81a34c6f67")].concat();
        let text = record.strip_prefix(header.as_slice()).expect("a log record");
        // The text follows a length of one or two bytes.
        let start = text
            .iter()
            .position(|byte| byte.is_ascii_digit())
            .expect("a time");
        String::from_utf8(text[start..].to_vec()).expect("text")
    }
}

/// A request's header.
fn request(command: &str, seq: u8) -> Vec<u8> {
    let length = 0xa0 | u8::try_from(command.len()).expect("a short name");
    [
        unhex("82a7436f6d6d616e64"),
        vec![length],
        command.into(),
        unhex("a3536571"),
        vec![seq],
    ]
    .concat()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}
