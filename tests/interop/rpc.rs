//! The RPC side: the command lines of both kinds against the agents of both kinds say the same, down to the
//! bytes of a reply.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::{self, Agent, Finished, Kind, PATIENCE, Plan, all_alive, all_see, eventually};
use regex::Regex;

const BOTH: [Kind; 2] = [Kind::Fyrd, Kind::Serf];

/// Commands whose whole outcome must not depend on whose command line it is.
const COMMANDS: &[&[&str]] = &[
    &["members"],
    &["members", "-detailed"],
    &["members", "--detailed=true"],
    &["members", "-format=json"],
    &["members", "-format", "json", "-name", "f"],
    &["members", "-name", "nosuch"],
    &["members", "-format=json", "-name", "nosuch"],
    &["members", "-name", "f|s"],
    &["members", "-name", "zz|s"],
    &["members", "-status=alive"],
    &["members", "-status=failed"],
    &["members", "-tag", "role=.*f"],
    &["members", "-tag", "role=the s", "-tag", "absent="],
    &["members", "-tag", "role=the"],
    &["members", "-role", "the f"],
    &["members", "-tag", "foo"],
    &["members", "-format=yaml"],
    &["members", "surplus", "words"],
    &["info"],
    &["info", "-format=json"],
    &["info", "-format=yaml"],
    &["rtt", "f", "s"],
    &["rtt", "s", "s"],
    &["rtt", "nosuch"],
    &["rtt", "f", "nosuch"],
    &["join", "127.0.0.1:1"],
    &["join", "127.0.0.1:1", "127.0.0.2:2"],
    &["join", "-replay", "a/127.0.0.1:1"],
    &["force-leave", "nosuch"],
    &["force-leave", "-prune", "nosuch"],
    &["tags", "-delete", "absent"],
    &["tags", "-set", "foo"],
];

/// Commands used wrongly: their usage texts are each program's own, their first line and status are not.
const MISUSED: &[&[&str]] = &[
    &["rtt"],
    &["rtt", "a", "b", "c"],
    &["join"],
    &["force-leave"],
    &["force-leave", "a", "b"],
    &["tags"],
    &["members", "-nosuch"],
    &["members", "-name"],
    &["members", "-detailed=maybe"],
    &["nosuch"],
];

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn command_lines_and_agents_of_both_kinds_answer_alike() {
    let (fyrd, serf) = pair();
    for agent in [&fyrd, &serf] {
        for command in COMMANDS {
            // What is gossiped meanwhile, such as a force-leave from further down this list, moves clocks and
            // queues of the agent.
            eventually(&format!("{command:?} at {}", agent.name()), PATIENCE, || {
                let [by_fyrd, by_serf] = BOTH.map(|kind| normal(agent.cli_of(kind, command)));
                if by_fyrd == by_serf {
                    Ok(())
                } else {
                    Err(format!("fyrd {by_fyrd:#?}, serf {by_serf:#?}"))
                }
            });
        }
        for command in MISUSED {
            let [by_fyrd, by_serf] = BOTH.map(|kind| first_line(agent.cli_of(kind, command)));
            assert_eq!(by_fyrd, by_serf, "{command:?} at {}", agent.name());
        }
    }
    for command in COMMANDS.iter().filter(|command| command[0] != "info") {
        let [at_fyrd, at_serf] = [&fyrd, &serf].map(|agent| normal(agent.cli_of(Kind::Serf, command)));
        assert_eq!(at_fyrd, at_serf, "{command:?} at the agents of both kinds");
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn tags_too_large_are_refused_with_the_same_words() {
    let (fyrd, serf) = pair();
    let large = format!("large={}", "x".repeat(600));
    for agent in [&fyrd, &serf] {
        for asking in BOTH {
            let refused = agent.cli_of(asking, &["tags", "-set", &large]);
            assert_eq!(refused.code, Some(1));
            assert_eq!(
                refused.stdout,
                "Error setting tags: Encoded length of tags exceeds limit of 512 bytes\n"
            );
        }
        let own = agent.members().expect("members");
        let own = own
            .iter()
            .find(|member| member.name == agent.name())
            .expect("itself");
        assert!(
            !own.tags.contains_key("large"),
            "refused tags are not set: {own:?}"
        );
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn info_has_the_groups_keys_and_counts_of_serf() {
    let (fyrd, serf) = pair();
    let keys = |agent: &Agent| -> BTreeSet<String> {
        let groups = agent.info();
        let flat = groups
            .iter()
            .flat_map(|(group, map)| map.keys().map(move |key| format!("{group}.{key}")));
        flat.collect()
    };
    let missing: Vec<String> = keys(&serf).difference(&keys(&fyrd)).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "info of Fyrd lacks what Serf has");
    for key in [
        "encrypted",
        "failed",
        "left",
        "members",
        "event_time",
        "query_time",
        "member_time",
    ] {
        eventually(&format!("both count the same {key}"), PATIENCE, || {
            let [at_fyrd, at_serf] = [&fyrd, &serf].map(|agent| agent.info()["serf"].get(key).cloned());
            if at_fyrd == at_serf {
                Ok(())
            } else {
                Err(format!("fyrd {at_fyrd:?}, serf {at_serf:?}"))
            }
        });
    }
    assert_eq!(fyrd.info()["agent"]["name"], "f");
    assert_eq!(fyrd.info()["tags"]["role"], "the f");
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn join_tags_force_leave_and_leave_work_from_the_other_command_line() {
    for (own, other) in [(Kind::Fyrd, Kind::Serf), (Kind::Serf, Kind::Fyrd)] {
        let mut agent = Plan::new(own, "agent").start();
        let peer = Plan::new(other, "peer").start();
        let mut victim = Plan::new(own, "victim").join(&peer).start();
        let say = |agent: &Agent, line: &[&str]| agent.cli_of(other, line).success();

        let joined = say(&agent, &["join", &peer.address()]);
        assert_eq!(joined, "Successfully joined cluster by contacting 1 nodes.\n");
        all_alive(&[&agent, &peer, &victim]);

        assert_eq!(
            say(&agent, &["tags", "-set", "a=b"]),
            "Successfully updated agent tags\n"
        );
        eventually("the peer sees the tag", PATIENCE, || {
            let members = peer.members()?;
            let tagged = members
                .iter()
                .any(|m| m.name == "agent" && m.tags.get("a").is_some_and(|a| a == "b"));
            if tagged {
                Ok(())
            } else {
                Err(format!("{members:?}"))
            }
        });

        victim.kill();
        all_see(
            &[&agent, &peer],
            &[("agent", "alive"), ("peer", "alive"), ("victim", "failed")],
        );
        assert_eq!(say(&agent, &["force-leave", "victim"]), "");
        all_see(
            &[&agent, &peer],
            &[("agent", "alive"), ("peer", "alive"), ("victim", "left")],
        );

        assert_eq!(say(&agent, &["leave"]), "Graceful leave complete\n");
        assert_eq!(agent.ended(), Some(0));
        all_see(
            &[&peer],
            &[("agent", "left"), ("peer", "alive"), ("victim", "left")],
        );
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn an_rpc_token_is_asked_for_and_honoured() {
    for kind in BOTH {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("auth.json");
        std::fs::write(&config, r#"{"rpc_auth": "the token"}"#).expect("the config file");
        let guarded = Plan::new(kind, "guarded").token("the token");
        let guarded = guarded.arg(format!("-config-file={}", config.display())).start();
        let open = Plan::new(kind, "open").start();
        let [guarded_rpc, open_rpc] =
            [&guarded, &open].map(|a| format!("-rpc-addr=127.0.0.1:{}", a.rpc_port()));

        for asking in BOTH {
            let fails = |line: &[&str], env: &[(&str, &str)], text: &str| {
                let finished = asking.run_with(line, &[], env);
                assert_eq!(
                    (finished.code, finished.stdout.trim_end()),
                    (Some(1), text),
                    "{finished:?}"
                );
            };
            let denied = "Error connecting to Serf agent: Invalid authentication token";
            fails(
                &["members", &guarded_rpc],
                &[],
                "Error retrieving members: Authentication required",
            );
            fails(
                &["leave", &guarded_rpc],
                &[],
                "Error leaving: Authentication required",
            );
            fails(&["members", &guarded_rpc, "-rpc-auth=wrong"], &[], denied);
            fails(
                &["members", &guarded_rpc, "-rpc-auth=wrong"],
                &[("SERF_RPC_AUTH", "the token")],
                denied,
            );
            fails(&["members", &open_rpc, "-rpc-auth=the token"], &[], denied);

            assert_eq!(guarded.members_by(asking).expect("with the token").len(), 1);
            let address = guarded_rpc.trim_start_matches("-rpc-addr=");
            let env = [("SERF_RPC_ADDR", address), ("SERF_RPC_AUTH", "the token")];
            assert!(
                asking
                    .run_with(&["members"], &[], &env)
                    .success()
                    .starts_with("guarded")
            );
            let finished = asking.run_with(&["members", &open_rpc, "-rpc-auth="], &[], &env);
            assert!(
                finished.success().starts_with("open"),
                "flags win over the environment"
            );
        }
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn commands_without_an_agent_fail_alike() {
    for command in ["members", "info", "leave", "rtt"] {
        for address in ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:99999"] {
            let flag = format!("-rpc-addr={address}");
            let [by_fyrd, by_serf] = BOTH.map(|kind| normal(kind.run(&[command, &flag])));
            assert_eq!(by_fyrd, by_serf, "{command} {flag}");
        }
    }
}

/// Requests as a client may send them, and the replies compared byte by byte.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn replies_are_the_same_bytes() {
    let (fyrd, serf) = pair();
    let handshake = request("handshake", 1, "81a756657273696f6e01");
    let golden = unhex("82a54572726f72a0a353657101");
    for agent in [&fyrd, &serf] {
        assert_eq!(
            exchange(agent, &handshake),
            golden,
            "handshake with {}",
            agent.name()
        );
    }
    let after = |command: &str, body: &str| [handshake.clone(), request(command, 2, body)].concat();
    let one_member = "83a44e616d65a166a6537461747573a5616c697665a45461677380";
    let nobody = "83a44e616d65a27a7aa6537461747573a0a454616773c0";
    let conversations = [
        ("no handshake", request("members", 7, "")),
        ("another version", request("handshake", 9, "81a756657273696f6e02")),
        ("a second handshake", after("handshake", "81a756657273696f6e01")),
        ("an unknown command", after("bogus", "")),
        (
            "a token nobody asked for",
            after("auth", "81a7417574684b6579a3746f6b"),
        ),
        ("one member", after("members-filtered", one_member)),
        ("no member", after("members-filtered", nobody)),
        (
            "tags without change",
            after("tags", "82aa44656c6574655461677391a163a454616773c0"),
        ),
        (
            "a failed join",
            after(
                "join",
                "82a84578697374696e6791ab3132372e302e302e313a31a65265706c6179c2",
            ),
        ),
        (
            "an empty join",
            after("join", "82a84578697374696e67c0a65265706c6179c2"),
        ),
        (
            "no coordinate",
            after("get-coordinate", "81a44e6f6465a66e6f73756368"),
        ),
        (
            "an unknown force-leave",
            after("force-leave", "81a44e6f6465a27878"),
        ),
        (
            "unknown fields",
            after("force-leave", "82a6556e6b6e6f6e9192c0c3a44e6f6465a27878"),
        ),
        ("a stop of nothing", after("stop", "81a453746f7003")),
        (
            "a body of the wrong type",
            after("join", "82a84578697374696e6705a65265706c6179c2"),
        ),
        ("no msgpack at all", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    let mut wrong = Vec::new();
    for (what, bytes) in conversations {
        let [at_fyrd, at_serf] = [&fyrd, &serf].map(|agent| hex(&exchange(agent, &bytes)));
        if at_fyrd != at_serf {
            wrong.push(format!("{what}: {at_fyrd}, of Serf {at_serf}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One agent of each kind in one cluster, each with a single tag, for the order of several is random.
fn pair() -> (Agent, Agent) {
    let fyrd = Plan::new(Kind::Fyrd, "f").arg("-tag=role=the f").start();
    let serf = Plan::new(Kind::Serf, "s")
        .arg("-tag=role=the s")
        .join(&fyrd)
        .start();
    all_alive(&[&fyrd, &serf]);
    // Coordinates are there after the first probe in each direction.
    for agent in [&fyrd, &serf] {
        eventually("coordinates are known", PATIENCE, || {
            let rtt = agent.cli(&["rtt", "f", "s"]);
            if rtt.code == Some(0) {
                Ok(())
            } else {
                Err(format!("{rtt:?}"))
            }
        });
    }
    (fyrd, serf)
}

/// Takes away what differs between two calls: the order of rows, measured figures, and the program's name.
fn normal(mut finished: Finished) -> Finished {
    let measured = Regex::new(r#"(\d+\.\d+ ms)|((goroutines|coordinate_resets|health_score)("?: "| = )\d+)"#);
    let measured = measured.expect("a pattern");
    for text in [&mut finished.stdout, &mut finished.stderr] {
        let same = text.replace("fyrd", "serf").replace("Fyrd", "Serf");
        *text = measured.replace_all(&same, "MEASURED").into_owned();
    }
    if !finished.stdout.trim_start().starts_with('{') {
        let mut lines: Vec<&str> = finished.stdout.lines().map(str::trim_end).collect();
        lines.sort_unstable();
        finished.stdout = lines.join("\n");
    } else if let Ok(mut members) = support::parse_members(&finished.stdout) {
        // Rows of members come in any order; the shape of the text itself is compared row by row.
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let mut lines: Vec<&str> = finished
            .stdout
            .lines()
            .map(|line| line.trim_end_matches(','))
            .collect();
        lines.sort_unstable();
        finished.stdout = format!("{members:#?}\n{}", lines.join("\n"));
    }
    finished
}

fn first_line(finished: Finished) -> (Option<i32>, String, String) {
    let first = |text: &str| {
        text.lines()
            .next()
            .unwrap_or_default()
            .replace("fyrd", "serf")
            .replace("Fyrd", "Serf")
    };
    (finished.code, first(&finished.stdout), first(&finished.stderr))
}

/// A request: its header, and its body given in hex.
fn request(command: &str, seq: u8, body: &str) -> Vec<u8> {
    let mut bytes = unhex("82a7436f6d6d616e64");
    bytes.push(0xa0 | command.len() as u8);
    bytes.extend(command.as_bytes());
    bytes.extend(unhex("a3536571"));
    bytes.push(seq);
    bytes.extend(unhex(body));
    bytes
}

/// Sends everything, closes the sending side, and reads the replies up to the agent's own close.
fn exchange(agent: &Agent, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", agent.rpc_port())).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a deadline");
    stream.write_all(bytes).expect("the request is taken");
    // An agent that has hung up already has said all it will say.
    let _ = stream.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{}: {error}", agent.name()),
        _ => reply,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
