//! Fyrd on Windows, run under wine, alone and in one cluster with Fyrd and the real Serf on Linux.
//!
//! `tests/run` (its part `tests/windows.sh`) builds the program and makes the wine prefix; without them these
//! tests fail.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use support::{Agent, Finished, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually};

/// Debian's `wine` asks for its 32-bit half at each start; the program behind it does not.
const WINE: &str = "/usr/lib/wine/wine64";

/// What starts a Windows program: wine, in the prefix that `tests/windows.sh` has made.
fn wine() -> Vec<String> {
    let prefix = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/wine/prefix");
    let ready = prefix
        .join("drive_c/windows/system32/bcryptprimitives.dll")
        .exists()
        && Path::new(Kind::Windows.program()).exists();
    let wine = Command::new(WINE).arg("--version").stdout(Stdio::null()).status();
    assert!(
        ready && wine.is_ok_and(|status| status.success()),
        "these tests need wine, a wine prefix at {} and the program {}: run tests/run, or tests/windows.sh once \
         what tests/run installs is there",
        prefix.display(),
        Kind::Windows.program(),
    );
    let variable = |name: &str, value: &str| format!("{name}={value}");
    vec![
        "env".to_owned(),
        "--unset=DISPLAY".to_owned(),
        variable("WINEPREFIX", &prefix.to_string_lossy()),
        variable("WINEDEBUG", "-all"),
        variable("WINEDLLOVERRIDES", "mscoree,mshtml="),
        WINE.to_owned(),
    ]
}

/// A file's name as Windows knows it: wine shows the whole system as drive Z.
fn windows_path(path: &Path) -> String {
    format!("Z:{}", path.to_string_lossy().replace('/', "\\"))
}

fn windows(name: &str) -> Plan {
    Plan::new(Kind::Windows, name).launcher(&wine())
}

/// Runs the Windows program to its end.
fn run_windows(args: &[&str]) -> Finished {
    Kind::Windows.run_with(args, &wine(), &[])
}

/// Writes a file as an editor of Windows does: with a mark in front and CR LF.
fn write_like_windows(path: &Path, text: &str) {
    let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    std::fs::write(path, text).unwrap();
}

/// Lines that handlers have written so far, sorted.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

/// A member of the mixed cluster, and the file in which its handlers note user events.
struct Mixed {
    _folder: tempfile::TempDir,
    events: PathBuf,
    keyring: PathBuf,
    agent: Agent,
}

/// An agent with a keyring file, handlers for user events and for the query `who`; all paths have blanks.
fn mixed(kind: Kind, name: &str, seed: Option<&Agent>) -> Mixed {
    let folder = tempfile::Builder::new().prefix("a b ").tempdir().unwrap();
    let keyring = folder.path().join("key ring.json");
    let events = folder.path().join("events of this.txt");
    let snapshot = folder.path().join("snap shot");
    let key_list = format!("[\n  \"{KEY_32}\"\n]\n");
    let plan = if kind == Kind::Windows {
        write_like_windows(&keyring, &key_list);
        let script = folder.path().join("note it.cmd");
        // `set /p` reads the payload, which is one line.
        let note = "@echo off\nset /p payload=\necho %~1 %SERF_USER_EVENT% %payload% %SERF_TAG_OS%>>\"%~dp0events of this.txt\"\n";
        std::fs::write(&script, note.replace('\n', "\r\n")).unwrap();
        windows(name).args([
            format!("-keyring-file={}", windows_path(&keyring)),
            format!("-snapshot={}", windows_path(&snapshot)),
            format!("-event-handler=user=\"{}\" \"{name}\"", windows_path(&script)),
            "-event-handler=query:who=echo I am %SERF_SELF_NAME%".to_owned(),
        ])
    } else {
        std::fs::write(&keyring, &key_list).unwrap();
        let note = format!(
            "read -r payload; echo \"{name} $SERF_USER_EVENT $payload $SERF_TAG_OS\" >>\"{}\"",
            events.display()
        );
        Plan::new(kind, name).args([
            format!("-keyring-file={}", keyring.display()),
            format!("-event-handler=user={note}"),
            "-event-handler=query:who=echo \"I am $SERF_SELF_NAME\"".to_owned(),
        ])
    };
    let os = if kind == Kind::Windows { "windows" } else { "linux" };
    let plan = plan.args(["-profile=wan".to_owned(), format!("-tag=os={os}")]);
    let plan = match seed {
        // It joins by command, so that after its restart only the snapshot knows whom to join.
        _ if kind == Kind::Windows => plan,
        Some(seed) => plan
            .arg(format!("-retry-join={}", seed.address()))
            .arg("-retry-interval=1s"),
        None => plan,
    };
    let agent = plan.start();
    if let (Kind::Windows, Some(seed)) = (kind, seed) {
        agent.cli(&["join", &seed.address()]).success();
    }
    Mixed {
        _folder: folder,
        events,
        keyring,
        agent,
    }
}

/// What each member answers to the query `who`, asked at this agent.
fn who(at: &Agent, cluster: usize) {
    let answers = eventually(&format!("all answer {}", at.name()), PATIENCE, || {
        // With the profile wan, the time that a query has by default is some seconds.
        let output = at.cli(&["query", "-format=json", "who"]);
        let json: serde_json::Value =
            serde_json::from_str(&output.stdout).map_err(|e| format!("{e}: {output:?}"))?;
        let answers = json["Responses"].as_object().cloned().unwrap_or_default();
        if answers.len() == cluster {
            Ok(answers)
        } else {
            Err(format!("{output:?}"))
        }
    });
    for (name, answer) in answers {
        assert_eq!(
            answer.as_str(),
            Some(format!("I am {name}\n").as_str()),
            "asked at {}",
            at.name()
        );
    }
}

/// A user event from each member is handled once by each.
fn events_from_all(members: &[&Mixed], name: &str) {
    for member in members {
        let payload = format!("from {}", member.agent.name());
        member
            .agent
            .cli(&["event", "-coalesce=false", name, &payload])
            .success();
    }
    for member in members {
        let os = if member.agent.kind() == Kind::Windows {
            "windows"
        } else {
            "linux"
        };
        let mut want: Vec<String> = members
            .iter()
            .map(|sender| format!("{} {name} from {} {os}", member.agent.name(), sender.agent.name()))
            .collect();
        want.sort();
        let of_this = |lines: Vec<String>| -> Vec<String> {
            lines
                .into_iter()
                .filter(|line| line.contains(&format!(" {name} ")))
                .collect()
        };
        eventually(&format!("events at {}", member.agent.name()), PATIENCE, || {
            let got = of_this(lines(&member.events));
            // On a busy machine wine now and then cannot start a process, and says so by this number.
            let not_started = member.agent.times_said("(os error 1359)");
            if got == want
                || got.len() + not_started == want.len() && got.iter().all(|line| want.contains(line))
            {
                Ok(())
            } else {
                Err(format!("{got:?}, not {want:?}"))
            }
        });
    }
}

/// Two hosts with Linux and one with Windows, all with Fyrd, and one more with Serf: encrypted, wan.
#[test]
#[ignore = "needs wine and the real Serf (tests/run)"]
fn a_mixed_cluster_of_two_systems_and_two_programs() {
    let _session = Session::begin();
    let mut l1 = mixed(Kind::Fyrd, "l1", None);
    let mut w1 = mixed(Kind::Windows, "w1", Some(&l1.agent));
    let s1 = mixed(Kind::Serf, "s1", Some(&w1.agent));
    let l2 = mixed(Kind::Fyrd, "l2", Some(&w1.agent));
    let all = [&l1, &w1, &s1, &l2];
    all_alive(&all.map(|member| &member.agent));

    events_from_all(&all, "first");
    for member in all {
        who(&member.agent, all.len());
    }

    // The Windows command line rotates the cluster's key; every keyring file, the Windows one too, holds the
    // new key and not the old one.
    w1.agent.cli(&["keys", "rotate"]).success();
    let key = std::fs::read_to_string(&l1.keyring).unwrap();
    for member in all {
        let stored = std::fs::read_to_string(&member.keyring).unwrap();
        let keys: Vec<String> = serde_json::from_str(&stored).unwrap();
        assert_eq!(
            keys,
            serde_json::from_str::<Vec<String>>(&key).unwrap(),
            "{}",
            member.agent.name()
        );
        assert!(
            keys.len() == 1 && !stored.contains(KEY_32),
            "{}",
            member.agent.name()
        );
    }
    events_from_all(&all, "second");

    // Killed and started again, with the keyring as it was left; whom to join, it has from its snapshot.
    // It tells how it is once all it has handled is stored.
    w1.agent.info();
    w1.agent.kill();
    all_see(
        &[&l1.agent],
        &[
            ("l1", "alive"),
            ("l2", "alive"),
            ("s1", "alive"),
            ("w1", "failed"),
        ],
    );
    w1.agent.restart();
    let all = [&l1, &w1, &s1, &l2];
    all_alive(&all.map(|member| &member.agent));
    let rejoined = "Attempting re-join to previously known node: ";
    assert!(w1.agent.log().contains(rejoined), "{}", w1.agent.log());
    events_from_all(&all, "third");

    // Ctrl-C.
    w1.agent.signal("INT");
    assert_eq!(w1.agent.ended(), Some(0), "{}", w1.agent.log());
    assert!(w1.agent.log().contains("==> Caught signal: interrupt"));
    let others = [&l1.agent, &s1.agent, &l2.agent];
    all_see(
        &others,
        &[("l1", "alive"), ("l2", "alive"), ("s1", "alive"), ("w1", "left")],
    );
    l1.agent.assert_running();
}

/// Files as Windows has them, a handler without a shell, tags kept in a file.
#[test]
#[ignore = "needs wine and the real Serf (tests/run)"]
fn files_and_handlers_of_windows() {
    let _session = Session::begin();
    let folder = tempfile::Builder::new().prefix("c d ").tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let of_windows = |name: &str| windows_path(&file(name));
    let conf = file("conf d");
    std::fs::create_dir(&conf).unwrap();
    let script = file("show args.cmd");
    std::fs::write(&script, "@echo off\r\necho [%~1] [%~2] %SERF_QUERY_NAME%\r\n").unwrap();
    let config = serde_json::json!({
        "profile": "local",
        "handler_shell": "none",
        "handler_timeout": "20s",
        "tags_file": of_windows("tags of it.json"),
        "event_handlers": [
            format!("query:args=\"{}\" \"one two\" a=b", of_windows("show args.cmd")),
            r"C:\windows\system32\cmd.exe /C exit a=b",
        ],
    });
    write_like_windows(
        &conf.join("10.json"),
        &serde_json::to_string_pretty(&config).unwrap(),
    );
    write_like_windows(&file("tags of it.json"), "{\n  \"role\": \"web\"\n}\n");
    write_like_windows(&file("key file"), &format!("{KEY_32}\n"));
    let agent = windows("w")
        .args([
            format!("-config-dir={}", of_windows("conf d")),
            format!("-encrypt-file={}", of_windows("key file")),
        ])
        .start();
    assert_eq!(agent.info()["agent"]["name"], "w");
    assert_eq!(agent.info()["serf"]["encrypted"], "true");
    assert_eq!(agent.members().unwrap()[0].tags["role"], "web");
    let answer = agent.cli(&["query", "args"]).success();
    assert!(
        answer.contains("Response from 'w': [one two] [a] args\n"),
        "{answer:?}"
    );
    agent.cli(&["tags", "-set=dc=x y"]).success();
    let tags = std::fs::read_to_string(file("tags of it.json")).unwrap();
    assert!(tags.contains("\"x y\"") && tags.contains("\"web\""), "{tags}");
}

/// What Windows has not is refused in so many words.
#[test]
#[ignore = "needs wine and the real Serf (tests/run)"]
fn what_windows_has_not_is_said() {
    let _session = Session::begin();
    let unix = run_windows(&["members", "-rpc-addr=unix:/run/fyrd.sock"]);
    let text = "Unix sockets are not available on this system";
    assert!(unix.code == Some(1) && unix.stdout.contains(text), "{unix:?}");
    let agent = run_windows(&["agent", "-bind=127.0.0.1:0", "-rpc-addr=unix:/run/fyrd.sock"]);
    assert!(agent.code == Some(1) && agent.stdout.contains(text), "{agent:?}");
    let drive = run_windows(&["members", r"-rpc-addr=C:\fyrd.sock"]);
    assert!(
        drive.code == Some(1) && drive.stdout.contains(r"C:\fyrd.sock"),
        "{drive:?}"
    );
    let service = run_windows(&["service", "run"]);
    let text = "Only the service manager runs this";
    assert!(
        service.code == Some(1) && service.stdout.contains(text),
        "{service:?}"
    );
}

/// Keeps wine up for as long as a test lasts: without a program it goes down, and when it comes up again, it
/// starts the services that start with the system. Whoever starts wine's server leaves it his output for good, so
/// that must be nobody whose output is waited for.
struct Session(std::process::Child);

impl Session {
    fn begin() -> Session {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let quiet = |words: &[&str]| {
            let line = wine();
            let (launcher, arguments) = line.split_first().unwrap();
            let mut program = Command::new(launcher);
            program.args(arguments).args(words);
            program
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            program.spawn().unwrap()
        };
        let session = Session(quiet(&["ping", "-n", "600", "127.0.0.1"]));
        // The server is up when a second program has run.
        quiet(&["cmd", "/c", "exit"]).wait().unwrap();
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The service manager starts the agent and stops it, which is a leave if the configuration says so; twice.
#[test]
#[ignore = "needs wine and the real Serf (tests/run)"]
fn a_service_is_installed_started_stopped_and_removed() {
    let _session = Session::begin();
    let folder = tempfile::Builder::new().prefix("e f ").tempdir().unwrap();
    let (gossip, rpc) = (support::port::Port::reserve(), support::port::Port::reserve());
    let (gossip, rpc) = (
        format!("127.0.0.1:{gossip}", gossip = gossip.number()),
        format!("127.0.0.1:{}", rpc.number()),
    );
    let name = format!("fyrd-{}", std::process::id());
    let config = serde_json::json!({
        "node_name": "svc", "profile": "local", "bind": gossip, "rpc_addr": rpc, "leave_on_terminate": true,
        // Relative: the service works in the directory of its configuration.
        "keyring_file": "ring",
        "event_handlers": ["member-leave=echo %SERF_EVENT%>>left.txt"],
    });
    std::fs::write(folder.path().join("10.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("ring"), format!("[\"{KEY_32}\"]")).unwrap();
    let service = |verb: &str| {
        let config = windows_path(folder.path());
        run_windows(&[
            "service",
            verb,
            &format!("-name={name}"),
            &format!("-config-dir={config}"),
        ])
    };
    let manager = |program: &str, words: &[&str]| -> Result<String, String> {
        let line = wine();
        let (launcher, arguments) = line.split_first().unwrap();
        let run = Command::new("timeout")
            .args(["60", launcher])
            .args(arguments)
            .arg(program)
            .args(words)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        if run.status.success() { Ok(text) } else { Err(text) }
    };
    let runs = || {
        eventually("the service answers", PATIENCE, || {
            let listing = run_windows(&["members", &format!("-rpc-addr={rpc}"), "-format=json"]);
            let members = support::parse_members(&listing.stdout).map_err(|e| format!("{e}: {listing:?}"))?;
            let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            if names == ["svc"] {
                Ok(())
            } else {
                Err(format!("{names:?}"))
            }
        });
    };
    let installed = service("install").success();
    assert!(
        installed.contains(&format!("Start it with: sc start {name}")),
        "{installed}"
    );
    let again = service("install");
    assert!(
        again.code == Some(1) && again.stdout.contains("was not installed"),
        "{again:?}"
    );
    for times in 1..=2 {
        manager("net", &["start", &name]).unwrap();
        runs();
        manager("net", &["stop", &name]).unwrap();
        eventually("the service has stopped", PATIENCE, || {
            let state = manager("sc", &["query", &name])?;
            if state.contains("STOPPED") {
                Ok(())
            } else {
                Err(state)
            }
        });
        // The agent has left, and its handler has seen that.
        eventually("the handler of the leave", PATIENCE, || {
            let seen = lines(&folder.path().join("left.txt"));
            if seen == vec!["member-leave"; times] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
    }
    service("uninstall").success();
    let gone = service("uninstall");
    assert!(
        gone.code == Some(1) && gone.stdout.contains("There is no service"),
        "{gone:?}"
    );
}
