//! What a user can get wrong in flags and files: told in Serf's words where Serf has some, with status 1,
//! and never with a key in the text.

use std::path::Path;

use crate::support::{self, Agent, Finished, Kind, Plan, all_alive};

/// A mistake: the arguments, what both kinds say, and what Fyrd says beside it about the right way.
struct Mistake {
    args: &'static [&'static str],
    /// Part of the complaint of the real Serf as well, which every run of this test checks.
    words: &'static str,
    /// Where it is wrong and what would be right, as far as Serf's words do not say so.
    help: &'static [&'static str],
}

const fn mistake(
    args: &'static [&'static str],
    words: &'static str,
    help: &'static [&'static str],
) -> Mistake {
    Mistake { args, words, help }
}

const SIZES: &[&str] = &["16, 24 or 32"];
const PROFILES: &[&str] = &["lan, wan"];

/// Names of the files that [`write_files`] makes begin with `@`, which stands for their folder.
const MISTAKES: &[Mistake] = &[
    mistake(&["-nosuch"], "flag provided but not defined: -nosuch", &[]),
    mistake(&["-node"], "flag needs an argument: -node", &[]),
    mistake(
        &["-replay=maybe"],
        r#"invalid boolean value "maybe" for -replay: parse error"#,
        &[],
    ),
    mistake(
        &["-protocol=abc"],
        r#"invalid value "abc" for flag -protocol: parse error"#,
        &[],
    ),
    mistake(
        &["-bind=bar:foo"],
        "==> Invalid bind address: address tcp/foo: unknown port",
        &[],
    ),
    mistake(
        &["-bind=127.0.0.1:99999"],
        "==> Invalid bind address: address 99999: invalid port",
        &[],
    ),
    mistake(
        &["-bind=a:b:7946"],
        "==> Invalid bind address: address a:b:7946: too many colons in address",
        &[],
    ),
    mistake(
        &["-bind=[::1"],
        "==> Invalid bind address: address [::1: missing ']' in address",
        &[],
    ),
    mistake(
        &["-bind=nosuch.invalid"],
        "==> Invalid bind address: lookup nosuch.invalid",
        &[],
    ),
    mistake(
        &["-advertise=a:foo"],
        "==> Invalid advertise address: address tcp/foo: unknown port",
        &[],
    ),
    mistake(&["-profile=foo"], "==> Unknown profile: foo", PROFILES),
    mistake(&["-profile=LAN"], "==> Unknown profile: LAN", PROFILES),
    mistake(
        &["-log-level=foo"],
        "==> Invalid log level: FOO. Valid log levels are: [TRACE DEBUG INFO WARN ERR]",
        &[],
    ),
    mistake(&["-tag", "foo"], "==> Error: Invalid tag: 'foo'", &[]),
    mistake(
        &["-protocol=9"],
        "Protocol version '9' too high. Must be in range: [2, 5]",
        &[],
    ),
    mistake(
        &["-protocol=1"],
        "Protocol version '1' too low. Must be in range: [2, 5]",
        &[],
    ),
    mistake(
        &["-rpc-addr=127.0.0.1:abc"],
        "==> Error starting RPC listener: listen tcp: address tcp/abc: unknown port",
        &[],
    ),
    mistake(
        &["-rpc-addr=127.0.0.1"],
        "==> Error starting RPC listener: listen tcp: address 127.0.0.1: missing port in address",
        &[],
    ),
    mistake(
        &["-retry-interval=5"],
        r#"==> Error: time: missing unit in duration "5""#,
        &[],
    ),
    mistake(
        &["-broadcast-timeout=5x"],
        r#"==> Error: time: unknown unit "x" in duration "5x""#,
        &[],
    ),
    mistake(
        &["-encrypt=c2VjcmV0"],
        "key size must be 16, 24 or 32 bytes",
        SIZES,
    ),
    mistake(
        &["-encrypt=!!notbase64"],
        "==> Invalid encryption key: illegal base64 data at input byte 0",
        &[],
    ),
    mistake(
        &["-keyring-file=@nosuch.keys"],
        "==> Failed to setup the Serf agent: stat @nosuch.keys: no such file or directory",
        &[],
    ),
    mistake(
        &["-keyring-file=@text.keys"],
        "==> Failed to setup the Serf agent: Failed to decode keyring file: ",
        &["text.keys"],
    ),
    mistake(
        &["-keyring-file=@zero.keys"],
        "==> Failed to setup the Serf agent: Failed to decode keyring file: ",
        &["zero.keys"],
    ),
    mistake(
        &["-keyring-file=@object.keys"],
        "==> Failed to setup the Serf agent: Failed to decode keyring file: ",
        &["object.keys"],
    ),
    mistake(
        &["-keyring-file=@empty.keys"],
        "==> Failed to setup the Serf agent: Keyring file contains no keys",
        &["empty.keys"],
    ),
    mistake(
        &["-keyring-file=@bad.keys"],
        "==> Failed to setup the Serf agent: Failed to decode key from keyring: illegal base64 data at input byte 0",
        &["bad.keys"],
    ),
    mistake(
        &["-keyring-file=@short.keys"],
        "==> Failed to setup the Serf agent: Failed to restore keyring: key size must be 16, 24 or 32 bytes",
        &["short.keys"],
    ),
    mistake(
        &["-keyring-file=@good.keys", "-encrypt=kW9qBzL3yXv0T2mN8sRdGg=="],
        "==> Failed to setup the Serf agent: Encryption key not allowed while using a keyring",
        &[],
    ),
    mistake(
        &["-config-file=@nosuch.json"],
        "==> Error reading '@nosuch.json': open @nosuch.json: no such file or directory",
        &[],
    ),
    mistake(
        &["-config-file=@zero.json"],
        "==> Error decoding '@zero.json': EOF",
        &[],
    ),
    mistake(
        &["-config-file=@cut.json"],
        "==> Error decoding '@cut.json': unexpected EOF",
        &[],
    ),
    mistake(
        &["-config-file=@list.json"],
        "==> Error decoding '@list.json': '' expected a map, got 'slice'",
        &[],
    ),
    mistake(
        &["-config-file=@unknown.json"],
        "* '' has invalid keys: bar, foo",
        &[],
    ),
    mistake(
        &["-config-file=@unknown.json"],
        "* 'bind' expected type 'string', got unconvertible type 'bool', value: 'true'",
        &[],
    ),
    mistake(
        &["-config-file=@tag.json"],
        "* 'tags[a]' expected type 'string', got unconvertible type 'float64', value: '1'",
        &[],
    ),
    mistake(
        &["-config-file=@join.json"],
        "* 'start_join': source data must be an array or slice, got string",
        &[],
    ),
    mistake(
        &["-config-file=@interval.json"],
        r#"==> Error decoding '@interval.json': time: missing unit in duration "5""#,
        &[],
    ),
    mistake(
        &["-config-file=@profile.json"],
        "==> Unknown profile: foo",
        PROFILES,
    ),
    mistake(
        &["-config-file=@key.json"],
        "key size must be 16, 24 or 32 bytes",
        SIZES,
    ),
    mistake(
        &["-join=127.0.0.1:1"],
        "* Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused",
        &[],
    ),
];

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn every_mistake_is_told_in_serfs_words_with_status_1() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        let words = placed(mistake.words, folder.path());
        let by_serf = started(Kind::Serf, mistake, folder.path());
        assert!(
            all_text(&by_serf).contains(&words),
            "this test errs about Serf: {by_serf:?} lacks {words:?}"
        );
        let by_fyrd = started(Kind::Fyrd, mistake, folder.path());
        let help = |text: &str| mistake.help.iter().all(|help| text.contains(help));
        let text = all_text(&by_fyrd);
        if by_fyrd.code != Some(1) || by_serf.code != Some(1) {
            wrong.push(format!(
                "{:?}: status {:?}, of Serf {:?}",
                mistake.args, by_fyrd.code, by_serf.code
            ));
        }
        if !text.contains(&words) || !help(&text) {
            wrong.push(format!(
                "{:?}: says {text:?}, not {words:?} with {:?}",
                mistake.args, mistake.help
            ));
        }
        if by_fyrd.stderr.contains("panicked") {
            wrong.push(format!("{:?}: {}", mistake.args, by_fyrd.stderr));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An error is one line to grep for, except where a file has several at once or a usage follows.
#[test]
fn an_error_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for mistake in MISTAKES.iter().filter(|mistake| mistake.words.starts_with("==>")) {
        let finished = started(Kind::Fyrd, mistake, folder.path());
        let lines: Vec<&str> = finished
            .stdout
            .lines()
            .filter(|line| !line.starts_with("==> Starting "))
            .collect();
        assert_eq!(lines.len(), 1, "{:?}: {finished:?}", mistake.args);
        assert_eq!(finished.stderr, "", "{:?}", mistake.args);
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_port_in_use_is_named() {
    let holder = Plan::new(Kind::Fyrd, "holder").start();
    let (gossip, rpc) = (holder.gossip_port(), holder.rpc_port());
    let in_use = [
        (
            format!("-bind=127.0.0.1:{gossip}"),
            "-rpc-addr=127.0.0.1:0".to_owned(),
            gossip,
        ),
        (
            "-bind=127.0.0.1:0".to_owned(),
            format!("-rpc-addr=127.0.0.1:{rpc}"),
            rpc,
        ),
    ];
    for (bind, rpc_addr, port) in in_use {
        for kind in [Kind::Fyrd, Kind::Serf] {
            let finished = kind.run(&["agent", &bind, &rpc_addr]);
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stdout.contains("address already in use"), "{finished:?}");
            assert!(finished.stdout.contains(&port.to_string()), "{finished:?}");
        }
    }
}

/// Logs are shown around, keys are not: neither while all is well nor in any error.
#[test]
fn no_key_appears_in_any_output() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    let shown = |what: &str, text: &str, keys: &[&str]| {
        for key in keys {
            for form in forms(key) {
                assert!(!contains(text.as_bytes(), &form), "{what} shows a key: {text}");
            }
        }
    };
    let chacha = format!("chacha20poly1305:{}", support::KEY_32);
    for key in [support::KEY_16, support::KEY_24, support::KEY_32, &chacha] {
        for level in ["INFO", "TRACE"] {
            let ring = folder.path().join("ring.keys");
            std::fs::write(&ring, format!("[\"{key}\"]")).expect("the keyring file");
            let plan = |name: &str| Plan::new(Kind::Fyrd, name).arg(format!("-log-level={level}"));
            let first = plan("first").key(Some(key)).start();
            let from_file = format!("-keyring-file={}", ring.display());
            let second = plan("second").arg(from_file).join(&first).start();
            all_alive(&[&first, &second]);
            // Strangers make the agents log what they cannot open.
            let other = "3q2+7w3q2+7w3q2+7w3q2w==";
            let stranger = plan("stranger")
                .key(Some(other))
                .join(&first)
                .try_start()
                .expect_err("a refusal");
            let plain = plan("plain").join(&first).try_start().expect_err("a refusal");
            shown("the stranger", &stranger.output, &[key, other]);
            shown("the plain stranger", &plain.output, &[key]);
            shown("the agent with a flag", &outputs(&first), &[key, other]);
            shown("the agent with a file", &outputs(&second), &[key, other]);
        }
    }
    for mistake in MISTAKES {
        let finished = started(Kind::Fyrd, mistake, folder.path());
        let secrets = ["c2VjcmV0", "notbase64", support::KEY_16];
        shown(&format!("{:?}", mistake.args), &all_text(&finished), &secrets);
    }
}

fn outputs(agent: &Agent) -> String {
    let info = agent.cli(&["info"]).success();
    let members = agent.cli(&["members", "-detailed"]).success();
    format!("{}{info}{members}", agent.log())
}

/// The ways a key could be printed: as given, as its bytes, and as those in hex and in Rust's notation.
fn forms(key: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let text = key.rsplit(':').next().unwrap_or(key).trim_end_matches('=');
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(key.rsplit(':').next().unwrap_or(key))
    else {
        return vec![text.as_bytes().to_vec()];
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    let list = list.trim_matches(['[', ']']).to_owned();
    let debug = format!("{:?}", String::from_utf8_lossy(&bytes))
        .trim_matches('"')
        .to_owned();
    let mut forms = vec![
        text.as_bytes().to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    forms.extend([
        list.into_bytes(),
        debug.into_bytes(),
        String::from_utf8_lossy(&bytes).into_owned().into_bytes(),
        bytes,
    ]);
    forms
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn write_files(folder: &Path) {
    let files = [
        ("text.keys", "not json"),
        ("zero.keys", ""),
        ("object.keys", r#"{"keys": []}"#),
        ("empty.keys", "[]"),
        ("bad.keys", r#"["!!notbase64"]"#),
        ("short.keys", r#"["c2VjcmV0"]"#),
        ("good.keys", r#"["kW9qBzL3yXv0T2mN8sRdGg=="]"#),
        ("zero.json", ""),
        ("cut.json", "{"),
        ("list.json", "[]"),
        ("unknown.json", r#"{"foo": 1, "bar": 2, "bind": true}"#),
        ("tag.json", r#"{"tags": {"a": 1}}"#),
        ("join.json", r#"{"start_join": "x"}"#),
        ("interval.json", r#"{"retry_interval": "5"}"#),
        ("profile.json", r#"{"profile": "foo"}"#),
        ("key.json", r#"{"encrypt_key": "c2VjcmV0"}"#),
    ];
    for (name, content) in files {
        std::fs::write(folder.join(name), content).expect("a file");
    }
}

fn placed(text: &str, folder: &Path) -> String {
    text.replace('@', &format!("{}/", folder.display()))
}

/// Runs `agent` with the mistake, on ports of the system's choosing unless the mistake is about those.
fn started(kind: Kind, mistake: &Mistake, folder: &Path) -> Finished {
    let mut args = vec!["agent".to_owned()];
    for default in ["-bind=127.0.0.1:0", "-rpc-addr=127.0.0.1:0"] {
        let flag = default.split_inclusive('=').next().unwrap_or(default);
        if !mistake.args.iter().any(|arg| arg.starts_with(flag)) {
            args.push(default.to_owned());
        }
    }
    args.extend(mistake.args.iter().map(|arg| placed(arg, folder)));
    kind.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn all_text(finished: &Finished) -> String {
    format!("{}\n{}", finished.stdout, finished.stderr)
}

#[test]
fn the_search_for_keys_finds_them() {
    for key in [support::KEY_16, support::KEY_32] {
        for form in forms(key) {
            let text = [b"a log line with ".as_slice(), &form, b" in it"].concat();
            assert!(forms(key).iter().any(|form| contains(&text, form)));
        }
    }
    assert!(
        !forms(support::KEY_16)
            .iter()
            .any(|form| contains(b"an innocent line", form))
    );
}
