//! What an agent tells nobody, and what it warns about.

use std::os::unix::fs::PermissionsExt;

use crate::support::{self, Kind, Plan, all_alive};

/// A script sees neither key nor token, and no core file of the agent would hold them.
#[test]
fn secrets_of_the_environment_stay_with_the_agent() {
    let launcher = [
        "env".to_owned(),
        format!("FYRD_ENCRYPT_KEY={}", support::KEY_32),
        "SERF_RPC_AUTH=the token".to_owned(),
        "ORDINARY=kept".to_owned(),
        "prlimit".to_owned(),
        "--core=4096:8192".to_owned(),
    ];
    let agent = Plan::new(Kind::Fyrd, "n1")
        .launcher(&launcher)
        // The commands present the token that they find in their environment.
        .with_file("auth.json", "{\"rpc_auth\": \"the token\"}")
        .arg("-config-file=auth.json")
        .arg("-event-handler=member-join=env >env.new; mv env.new env.txt")
        .start();
    assert_eq!(agent.info()["serf"]["encrypted"], "true");
    support::until("the handler has run", || !agent.read("env.txt").is_empty());
    let environment = agent.read("env.txt");
    for wanted in ["ORDINARY=kept", "SERF_EVENT=member-join"] {
        assert!(environment.lines().any(|line| line == wanted), "{environment}");
    }
    for secret in ["FYRD_ENCRYPT_KEY", "SERF_RPC_AUTH", support::KEY_32, "the token"] {
        assert!(!environment.contains(secret), "{secret} in {environment}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("its limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    let figures: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(figures, ["0", "8192"], "scripts may raise it again");
}

/// Files that hold keys or tokens, and that every user of the host can read.
#[test]
fn files_that_show_secrets_to_everybody_are_warned_about() {
    let keyring = format!("[\"{}\"]", support::KEY_32);
    let config = "{\"rpc_auth\": \"the token\"}";
    let exposed = |mode| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = Vec::new();
        for (name, text, flag) in [
            ("keys.json", keyring.as_str(), "-keyring-file"),
            ("secret.json", config, "-config-file"),
            ("plain.json", "{\"disable_coordinates\": true}", "-config-file"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
            args.push(format!("{flag}={}", path.display()));
        }
        let agent = Plan::new(Kind::Fyrd, "n1").args(args).token("the token").start();
        all_alive(&[&agent]);
        let log = agent.log();
        assert!(
            !log.contains(support::KEY_32) && !log.contains("the token"),
            "{log}"
        );
        let warned = |name: &str| {
            let path = folder.path().join(name).display().to_string();
            log.contains(&format!(
                "[WARN] agent: {path} holds secrets and every user of this host can read it"
            ))
        };
        ["keys.json", "secret.json", "plain.json"].map(warned)
    };
    assert_eq!(exposed(0o644), [true, true, false]);
    assert_eq!(exposed(0o640), [false; 3]);
}

/// What is left of a variable that is not set must not switch encryption off.
#[test]
fn an_empty_key_is_no_key_left_out() {
    let ended = Plan::new(Kind::Fyrd, "n1")
        .arg("-encrypt=")
        .try_start()
        .expect_err("it must not run");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.output.contains("-encrypt is empty, it must be <key>"),
        "{ended:?}"
    );
}
