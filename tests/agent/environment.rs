//! Options from the environment, as containers give them, and seeds that a program prints.

use crate::support::{Agent, KEY_32, Kind, Plan, all_alive, until};

fn with_environment(name: &str, variables: &[&str]) -> Plan {
    let launcher: Vec<String> = ["env"]
        .iter()
        .chain(variables)
        .map(|word| (*word).to_owned())
        .collect();
    Plan::new(Kind::Fyrd, name).launcher(&launcher)
}

fn tags_of(agent: &Agent, name: &str) -> Vec<String> {
    let members = agent.members().expect("members");
    let member = members
        .into_iter()
        .find(|member| member.name == name)
        .expect("the member");
    member
        .tags
        .iter()
        .map(|(tag, value)| format!("{tag}={value}"))
        .collect()
}

#[test]
fn options_come_from_the_environment_and_flags_override_them() {
    let key = format!("FYRD_ENCRYPT_KEY={KEY_32}");
    let agent = with_environment(
        "flag",
        &[
            &key,
            "FYRD_NODE=variable",
            "FYRD_PROFILE=local",
            "FYRD_TAG=role=web,dc=eu",
            "FYRD_CONFIG_FILE=a.json",
            "FYRD_EVENT_HANDLER=member-join,member-leave=echo $SERF_EVENT >>heard",
            "FYRD_RPC_ADDR=127.0.0.1:1",
            "FYRD_REPLAY=",
        ],
    )
    .with_file(
        "a.json",
        r#"{"tags": {"dc": "us", "rack": "7"}, "profile": "wan"}"#,
    )
    .start();
    assert_eq!(tags_of(&agent, "flag"), ["dc=eu", "rack=7", "role=web"]);
    let info = agent.info();
    assert_eq!(info["serf"]["encrypted"], "true");
    assert!(agent.log().contains("Profile: local"), "{}", agent.log());
    until("the handler of the environment has run", || {
        agent.read("heard") == "member-join\n"
    });
}

#[test]
fn what_a_variable_gets_wrong_is_named() {
    for (variable, error) in [
        ("FYRD_REPLAY=perhaps", "FYRD_REPLAY=perhaps: parse error"),
        ("FYRD_TAG=web", "FYRD_TAG: Invalid tag: 'web'"),
        ("FYRD_ENCRYPT_KEY=", "FYRD_ENCRYPT_KEY is empty, it must be <key>"),
        ("FYRD_CONFIG_FILE=none.json", "Error reading 'none.json'"),
    ] {
        let ended = with_environment("n", &[variable]).try_start().unwrap_err();
        assert!(ended.output.contains(error), "{variable}: {ended:?}");
        assert_eq!(ended.code, Some(1));
    }
}

#[test]
fn a_program_names_the_seeds_at_each_try_but_never_for_a_client() {
    let seed = Plan::new(Kind::Fyrd, "seed").arg("-profile=local").start();
    let agent = with_environment(
        "asks",
        &["FYRD_RETRY_JOIN=exec=cat seeds", "FYRD_RETRY_INTERVAL=1s"],
    )
    .arg("-profile=local")
    .start();
    agent.says("exec=cat seeds: exit status 1");
    agent.write("seeds", &format!("{}\n", seed.address()));
    all_alive(&[&seed, &agent]);
    let eager = Plan::new(Kind::Fyrd, "eager")
        .args([
            "-profile=local".to_owned(),
            format!("-join=exec=echo {}", seed.address()),
        ])
        .start();
    all_alive(&[&seed, &agent, &eager]);
    let joined = agent.cli(&["join", "exec=touch ran"]);
    assert_eq!(joined.code, Some(1), "{joined:?}");
    assert!(!agent.file("ran").exists(), "{joined:?}");
}
