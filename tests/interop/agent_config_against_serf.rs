//! Bad input gives the same words and the same exit code as the real `serf agent`, except where the
//! table says otherwise. They fail where no `serf` is installed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What ours must say, compared with what Serf says.
enum Ours {
    /// The same.
    Same,
    /// The same, and then more on the last line.
    More,
    /// Only this, for this reason.
    Other(
        &'static str,
        #[allow(dead_code, reason = "for the reader")] &'static str,
    ),
}

use Ours::{More, Other, Same};

/// Configuration files and what is wrong with them.
#[rustfmt::skip]
const FILES: &[(&str, Ours)] = &[
    ("", Same), ("{", More), ("{\"a\":1", More), ("{/", More), ("{a", More), ("[1,]", More), ("{\"a\":1,}", More),
    ("{\"a\" 1}", More), ("{\"a\":1 \"b\"}", More), ("[1 2]", More), ("[]", Same), ("\"x\"", Same), ("5", Same),
    ("true", Same), ("nul", More), ("nulx", More), ("{\"a\":-}", More), ("{\"a\":1.}", More),
    ("{\"a\":01}", Other(
        "==> Error decoding 'c.json': invalid character '1' in numeric literal: invalid number at line 1 column 7\n",
        "Serf takes the 0 for the whole number, and wants a comma")),
    ("{\"a\":1ex}", More), ("{\"a\":\"\\q\"}", More), ("{\"a\":\"\\u12x4\"}", More), ("{\"a\":\"\u{1}\"}", More),
    ("{\"a\":\"x\ny\"}", More), ("{\"a\":\u{fc}}", More), ("{\"a\":'x'}", More),
    (r#"{"foo":1,"Bar":2,"bind":true,"node_name":5}"#, Same),
    (r#"{"bind":[1,"a"]}"#, Same), (r#"{"bind":{"a":1}}"#, Same), (r#"{"bind":1e21}"#, Same),
    (r#"{"bind":1.5}"#, Same), (r#"{"bind":1234567890123}"#, Same), (r#"{"bind":0.00001}"#, Same),
    (r#"{"enable_syslog":"yes"}"#, Same), (r#"{"enable_syslog":1}"#, Same), (r#"{"enable_compression":0}"#, Same),
    (r#"{"protocol":"5"}"#, Same), (r#"{"protocol":true}"#, Same), (r#"{"protocol":[]}"#, Same),
    (r#"{"protocol":6}"#, Same), (r#"{"protocol":1}"#, Same),
    (r#"{"start_join":"a"}"#, Same), (r#"{"start_join":{}}"#, Same), (r#"{"start_join":5}"#, Same),
    (r#"{"start_join":[1]}"#, Same), (r#"{"start_join":[null],"retry_join":[[]]}"#, Same),
    (r#"{"event_handlers":[true]}"#, Same), (r#"{"event_handlers":["foo=bar"]}"#, Same),
    (r#"{"tags":[]}"#, Same), (r#"{"tags":5}"#, Same), (r#"{"tags":"x"}"#, Same), (r#"{"tags":{"a":1}}"#, Same),
    (r#"{"tags":{"a":true,"b":[]}}"#, Same),
    (r#"{"retry_interval":"5","reconnect_interval":"x","reconnect_timeout":"1d"}"#, Same),
    (r#"{"reconnect_timeout":"1d","tombstone_timeout":"z"}"#, Same),
    (r#"{"tombstone_timeout":"99999999999h","retry_interval":"y"}"#, Same),
    (r#"{"broadcast_timeout":".","retry_interval":"y"}"#, Same), (r#"{"broadcast_timeout":"."}"#, Same),
    (r#"{"retry_interval":5}"#, Same), (r#"{"leave_on_interrupt":true}"#, Same), (r#"{"nodename":"x"}"#, Same),
    (r#"{"bind":"127.0.0.9","BIND":"127.0.0.8"}"#, Same), (r#"{"log_level":"FOO"}"#, Same),
    (r#"{"profile":"LAN"}"#, More), (r#"{"profile":"foo"}"#, More), (r#"{"user_event_size_limit":10000}"#, Same),
    (r#"{"encrypt_key":"abc"}"#, Same), (r#"{"encrypt_key":"YWJj"}"#, Same),
    (r#"{"encrypt_key":["YWJj"]}"#, Other(
        "==> Error decoding 'c.json': 1 error(s) decoding:\n\n* 'encrypt_key' expected type 'string', got unconvertible type '[]interface {}', value: '***'\n",
        "keys are never shown")),
    (r#"{"rpc_auth":5}"#, Other(
        "==> Error decoding 'c.json': 1 error(s) decoding:\n\n* 'rpc_auth' expected type 'string', got unconvertible type 'float64', value: '***'\n",
        "tokens are never shown")),
    (r#"{"retry_interval":"-5s"}"#, Other(
        "==> Error decoding 'c.json': retry_interval = \"-5s\" must not be negative\n", "Serf starts with 1s")),
    (r#"{"query_size_limit":-1}"#, Other(
        "==> Starting Serf agent...\n==> Failed to start the Serf agent: Error creating Serf: query_size_limit is -1, must be a number of bytes, or 0 for the default\n",
        "Serf starts, and then refuses every query")),
    (r#"{"mdns":{"interface":"lo"}}"#, Other(
        "==> mDNS interface specified without enabling mDNS discovery\n", "the key is newer than Serf 0.9.4")),
    (r#"{"snapshot_path":"/nonexistent/x"}"#, Same),
];

/// Flags and what is wrong with them. `@` begins the name of a file: `@NAME=CONTENT` makes it.
#[rustfmt::skip]
const FLAGS: &[(&[&str], Ours)] = &[
    (&["-bind=foo.invalid"], Same), (&["-bind=127.0.0.1:bar"], Same), (&["-bind=127.0.0.1:99999"], Same),
    (&["-bind=127.0.0.1:-1"], Same), (&["-bind=[::1"], Same), (&["-bind=1.2.3.4:5:6"], Same),
    (&["-bind=10.99.99.99:18950"], Same),
    (&["-bind=[::1]x"], Other(
        "==> Invalid bind address: address [::1]x: after ']' only a port may follow, as in [::1]:7946\n",
        "Serf tries again for ever")),
    (&["-advertise=foo.invalid"], Same), (&["-advertise=1.2.3.4:x"], Same), (&["-advertise=1.2.3.4:1:2"], Same),
    (&["-advertise=:99"], Other(
        "==> Invalid advertise address: address :99: peers need the address of one host, such as 10.1.2.3\n",
        "Serf fails later, without saying why")),
    (&["-iface=nosuch"], Same), (&["-bind=127.0.0.2:18950", "-iface=lo"], Same),
    (&["-tag=foo"], Same), (&["-tag==x"], Same), (&["-tag=a=b", "-tag", "x"], Same),
    (&["-retry-interval=5"], Same), (&["-broadcast-timeout=x"], Same),
    (&["-tag=foo", "-retry-interval=5"], Same),
    (&["-retry-interval=5", "-config-file=/nonexistent.json"], Same), (&["-tag=foo", "-config-file=/nonexistent.json"], Same),
    (&["-event-handler=foo=bar"], Same), (&["-event-handler=member-join,user:x,foo:y=bar"], Same),
    (&["-encrypt=abc"], Same), (&["-encrypt=YWJj"], Same), (&["-profile=foo"], More),
    (&["-profile=/nonexistent.toml"], Other(
        "==> profile '/nonexistent.toml' could not be read: no such file or directory\n", "Serf has no such files")),
    (&["-log-level=foo"], Same), (&["-protocol=6"], Same), (&["-protocol=1"], Same),
    (&["-log-level=foo", "-bind=127.0.0.1:bar"], Same), (&["-bind=127.0.0.1:bar", "-encrypt=abc"], Same),
    (&["-encrypt=abc", "-profile=foo"], Same), (&["-iface=nosuch", "-log-level=foo"], Same),
    (&["-event-handler=foo=bar", "-iface=nosuch"], Same), (&["-profile=foo", "-tags-file=/"], More),
    (&["-advertise=1.2.3.4:x", "-encrypt=abc"], Same), (&["-profile=foo", "-bind=127.0.0.2:1", "-iface=lo"], More),
    (&["-role=x", "-log-level=foo"], Same), (&["-role=x", "-profile=foo"], More),
    (&["-retry-interval=1ms", "-profile=foo"], More), (&["-retry-interval=1ms", "-log-level=foo"], Same),
    (&["-role=x", "-rejoin", "-broadcast-timeout=1ms", "-iface=nosuch"], Same),
    (&["-retry-interval=1ms", "-broadcast-timeout=1ms", "-rejoin", "-protocol=6"], Same),
    (&["-config-file=/nonexistent.json"], Same), (&["-config-dir=/nonexistent"], Same),
    (&["-config-file=@.x.json={\"foo\":1}"], Same),
    (&["-config-file=@a.json={}", "-config-dir=@b.json={", "-config-file=@d.json=["], More),
    (&["-keyring-file=nofile"], Same),
    (&["-keyring-file=@k=[]"], More), (&["-keyring-file=@k=null"], More), (&["-keyring-file=@k=[\"abc\"]"], More),
    (&["-keyring-file=@k=[\"YWJj\"]"], More),
    (&["-keyring-file=@k=x"], Other(
        "==> Starting Serf agent...\n==> Failed to setup the Serf agent: Failed to decode keyring file: invalid JSON at line 1 column 1 of k\n",
        "what stands in a keyring file is never shown")),
    (&["-keyring-file=@k=[]", "-encrypt=YWJj"], Same),
    (&["-tags-file=@t=[]"], Same), (&["-tags-file=@t={\"a\":1}"], Same), (&["-tags-file=@t=x"], More),
    (&["-tags-file=@t="], Same), (&["-tags-file=@t={\"a\":\"b\"}x"], More), (&["-tags-file=/"], Same),
    (&["-tags-file=t", "-tag=a=b"], Same), (&["-tags-file=t", "-role=b"], Same),
    (&["-tags-file=@t=x", "-keyring-file=nofile"], More), (&["-keyring-file=nofile", "-protocol=6"], Same),
    (&["-rpc-addr=foo"], Same), (&["-rpc-addr=127.0.0.1:99999"], Same), (&["-rpc-addr=10.9.9.9:1"], Same),
    (&["-rpc-addr=foo.invalid:1"], Same), (&["-rpc-addr=127.0.0.1:foo"], Same), (&["-rpc-addr=::1"], Same),
    (&["-join=127.0.0.1:1"], Same), (&["-join=127.0.0.1:1", "-join=nosuch.invalid", "-replay"], Same),
    (&["-join=/127.0.0.1:1"], Same), (&["-join=n1/127.0.0.1:1"], Same), (&["-join=[::1]:1"], Same),
];

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn bad_files_give_serfs_words() {
    compare_all(
        FILES
            .iter()
            .map(|(content, ours)| (vec![format!("-config-file=@c.json={content}")], ours)),
    );
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn bad_flags_give_serfs_words() {
    compare_all(
        FLAGS
            .iter()
            .map(|(flags, ours)| (flags.iter().map(|flag| flag.to_string()).collect(), ours)),
    );
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn too_large_tags_give_serfs_words() {
    compare_all([(vec![format!("-tag=a={}", "x".repeat(600))], &Same)].into_iter());
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_port_in_use_gives_serfs_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("-bind={}", taken.local_addr().unwrap());
    let rpc = format!("-rpc-addr={}", taken.local_addr().unwrap());
    compare_all([(vec![bind], &Same), (vec![rpc], &Same)].into_iter());
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn bad_flag_values_go_to_the_error_channel() {
    need_serf();
    for flag in ["-nosuch", "-protocol=x", "-retry-max=x", "-syslog=maybe", "-node"] {
        let directory = tempfile::tempdir().unwrap();
        let theirs = run("serf", &[flag.to_string()], directory.path());
        let ours = run(env!("CARGO_BIN_EXE_fyrd"), &[flag.to_string()], directory.path());
        assert_eq!(text(&ours.stderr), text(&theirs.stderr), "{flag}");
        assert_eq!(ours.status.code(), theirs.status.code(), "{flag}");
        assert!(
            text(&ours.stdout).starts_with("==> Usage: fyrd agent [options]\n"),
            "{}",
            text(&ours.stdout)
        );
    }
}

fn need_serf() {
    let found = Command::new("serf").arg("version").output().is_ok();
    assert!(
        found,
        "this test compares with the real serf, which is not installed: run tests/run, or apt-get install serf"
    );
}

/// Runs both with each input; shows all differences before it fails.
fn compare_all<'a>(cases: impl Iterator<Item = (Vec<String>, &'a Ours)>) {
    need_serf();
    let mut differences = 0;
    for (flags, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags
            .iter()
            .map(|flag| make_file(flag, directory.path()))
            .collect();
        let ours = normal(&run(
            env!("CARGO_BIN_EXE_fyrd"),
            &with_free_ports(&flags),
            directory.path(),
        ));
        let fine = match expected {
            Other(words, _) => ours == (words.to_string(), Some(1)),
            Same => ours == normal(&run("serf", &with_free_ports(&flags), directory.path())),
            More => {
                let theirs = normal(&run("serf", &with_free_ports(&flags), directory.path()));
                ours.0.starts_with(theirs.0.trim_end()) && ours.1 == theirs.1
            }
        };
        if !fine {
            differences += 1;
            let theirs = normal(&run("serf", &with_free_ports(&flags), directory.path()));
            println!(
                "--- {flags:?}\nours   {:?}: {}\ntheirs {:?}: {}",
                ours.1, ours.0, theirs.1, theirs.0
            );
        }
    }
    assert_eq!(differences, 0, "inputs with differences");
}

/// `-flag=@NAME=CONTENT` becomes `-flag=NAME`, and the file is made.
fn make_file(flag: &str, directory: &Path) -> String {
    let Some((name, file)) = flag.split_once("=@") else {
        return flag.to_string();
    };
    let (path, content) = file.split_once('=').unwrap();
    fs::write(directory.join(path), content).unwrap();
    if name == "-config-dir" {
        format!("{name}=.")
    } else {
        format!("{name}={path}")
    }
}

/// Addresses that do not disturb anybody, unless the flags name some.
fn with_free_ports(flags: &[String]) -> Vec<String> {
    let mut all = vec![
        format!("-bind=127.0.0.1:{}", crate::support::port::Port::for_good()),
        format!("-rpc-addr=127.0.0.1:{}", crate::support::port::Port::for_good()),
    ];
    all.push("-node=n".to_string());
    all.extend_from_slice(flags);
    all
}

fn run(program: &str, flags: &[String], directory: &Path) -> Output {
    let mut child = Command::new(program)
        .arg("agent")
        .args(flags)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What it said, without what depends on ports and on the host's name server; and its exit code.
fn normal(output: &Output) -> (String, Option<i32>) {
    let address = regex::Regex::new(r"(Bind|RPC) addr: '[^']*'").unwrap();
    let server = regex::Regex::new(r" on [^ ]+:53: ").unwrap();
    let said = text(&output.stdout);
    let said = address.replace_all(&said, "$1 addr");
    (server.replace_all(&said, ": ").into_owned(), output.status.code())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
