//! Keys are changed while a cluster works: nothing is lost, nobody is suspected, nobody is cut off, and no
//! key shows in a log.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, all_see, eventually, heard};
use tempfile::TempDir;

const K1: &str = "HvY8ubRZMgafUOWvrOadwOckVa1wN3QWAo46FVKbVN8=";
const K2: &str = "cGlJ1sKQp0hCMbZrSLwKxvGhEO1tF7DEgmYzqPaVYi0=";
const K3: &str = "kW9qBzL3yXv0T2mN8sRdGg==";

/// Agents that keep their keys in files, all of them joined to the first.
struct Cluster {
    agents: Vec<Agent>,
    keyrings: TempDir,
}

impl Cluster {
    fn start(members: &[(Kind, &str)]) -> Cluster {
        let mut cluster = Cluster {
            agents: Vec::new(),
            keyrings: tempfile::tempdir().unwrap(),
        };
        for (kind, name) in members {
            let file = cluster.keyring(name);
            fs::write(&file, format!("[\n  \"{K1}\"\n]")).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            let plan = Plan::new(*kind, name)
                .arg(format!("-keyring-file={}", file.display()))
                .arg("-log-level=trace");
            let plan = match cluster.agents.first() {
                Some(seed) => plan.join(seed),
                None => plan,
            };
            cluster.agents.push(plan.start());
        }
        all_alive(&cluster.all());
        cluster
    }

    fn all(&self) -> Vec<&Agent> {
        self.agents.iter().collect()
    }

    fn keyring(&self, name: &str) -> PathBuf {
        self.keyrings.path().join(format!("{name}.json"))
    }

    fn agent(&self, name: &str) -> &Agent {
        self.agents.iter().find(|agent| agent.name() == name).unwrap()
    }

    fn agent_mut(&mut self, name: &str) -> &mut Agent {
        self.agents.iter_mut().find(|agent| agent.name() == name).unwrap()
    }

    /// The keys in the files of the members, which must all be the same to the byte, and their owner's only.
    #[track_caller]
    fn keys_in_files(&self) -> Vec<String> {
        let texts: BTreeMap<String, &str> = self
            .agents
            .iter()
            .map(|agent| {
                let file = self.keyring(agent.name());
                let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", agent.name());
                (fs::read_to_string(file).unwrap(), agent.name())
            })
            .collect();
        assert_eq!(
            texts.len(),
            1,
            "the files differ: {:?}",
            texts.values().collect::<Vec<_>>()
        );
        serde_json::from_str(texts.keys().next().unwrap()).unwrap()
    }

    /// An event from each member reaches all members, so all of them can read each other.
    #[track_caller]
    fn all_talk(&self, occasion: &str) {
        for from in &self.agents {
            let name = format!("{occasion}-{}", from.name());
            from.cli(&["event", "-coalesce=false", &name]).success();
            for to in &self.agents {
                eventually(
                    &format!("{} hears {name}", to.name()),
                    PATIENCE,
                    || match times_heard(&to.log(), &name) {
                        1 => Ok(()),
                        times => Err(format!("heard {times} times")),
                    },
                );
            }
        }
    }
}

fn times_heard(log: &str, event: &str) -> usize {
    heard(log, event).get(event).copied().unwrap_or(0)
}

#[test]
fn events_are_heard_wherever_they_are_on_a_line() {
    let log = "  [INFO] agent: Received event: user-event: a-1    2026/11/26 04:05:12 [DEBUG] serf: x a-2\n\n\
               [DEBUG] y    2026/11/26 [INFO] agent: Received event: user-event: a-10\n\
               [INFO] agent: Received event: user-event: b\n [INFO] agent: Received event: user-event: a-1\n";
    assert_eq!(
        heard(log, "a-"),
        [("a-1".to_owned(), 2), ("a-10".to_owned(), 1)].into()
    );
    assert_eq!((times_heard(log, "a-10"), times_heard(log, "a")), (1, 0));
}

/// No log shows a key, whole or in part, in any of the forms in which it might slip out.
#[track_caller]
fn assert_unseen(agents: &[&Agent], keys: &[String]) {
    for agent in agents {
        let log = agent.log();
        assert!(log.contains("Received "), "{} logs nothing", agent.name());
        for key in keys {
            let text = key.rsplit(':').next().unwrap();
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let debug = format!("{:?}", &bytes[..8]);
            for form in [&text[..12], &hex[..16], debug.trim_end_matches(']')] {
                assert!(!log.contains(form), "{} shows a key", agent.name());
            }
        }
    }
}

/// The events that are sent while a test changes keys.
struct Load {
    sent: AtomicUsize,
    ends: AtomicBool,
}

impl Load {
    /// Sends events through all agents in turn until the end.
    fn send(&self, agents: &[&Agent]) {
        while !self.ends.load(Ordering::SeqCst) {
            let number = self.sent.load(Ordering::SeqCst);
            let agent = agents[number % agents.len()];
            agent
                .cli_of(
                    Kind::Fyrd,
                    &["event", "-coalesce=false", &format!("load-{number}")],
                )
                .success();
            self.sent.store(number + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Lets some more events pass.
    fn go_on(&self) {
        let goal = self.sent.load(Ordering::SeqCst) + 20;
        eventually("more events are sent", PATIENCE, || {
            let sent = self.sent.load(Ordering::SeqCst);
            if sent >= goal {
                Ok(())
            } else {
                Err(format!("{sent} of {goal}"))
            }
        });
    }
}

/// Ends the load even when the test fails, for the threads are waited for.
struct EndLoad<'a>(&'a Load);

impl Drop for EndLoad<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::SeqCst);
    }
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn rotations_under_load_lose_nothing_and_disturb_nobody() {
    let cluster = Cluster::start(&[
        (Kind::Fyrd, "f1"),
        (Kind::Serf, "s1"),
        (Kind::Fyrd, "f2"),
        (Kind::Serf, "s2"),
    ]);
    let load = Load {
        sent: AtomicUsize::new(0),
        ends: AtomicBool::new(false),
    };
    let all = cluster.all();
    let mut used: Vec<String> = [K1, K2, K3].map(str::to_owned).into();
    std::thread::scope(|scope| {
        let _end = EndLoad(&load);
        scope.spawn(|| load.send(&all));
        let step = |agent: &str, kind: Kind, words: &[&str]| {
            let output = cluster.agent(agent).cli_of(kind, words).success();
            load.go_on();
            output
        };
        let (install, utilise, remove) = (
            |key| format!("-install={key}"),
            |key| format!("-use={key}"),
            |key| format!("-remove={key}"),
        );
        step("f1", Kind::Fyrd, &["keys", &install(K2)]);
        for (agent, kind) in [("f2", Kind::Serf), ("s2", Kind::Fyrd)] {
            let list = step(agent, kind, &["keys", "-list"]);
            assert_eq!(list.matches("[4/4]").count(), 2, "{list}");
        }
        step("s1", Kind::Serf, &["keys", &utilise(K2)]);
        step("f2", Kind::Serf, &["keys", &remove(K1)]);
        assert_eq!(cluster.keys_in_files(), [K2]);

        step("f1", Kind::Serf, &["keys", &install(K3)]);
        step("s2", Kind::Fyrd, &["keys", &utilise(K3)]);
        assert_eq!(cluster.keys_in_files(), [K3, K2]);
        step("s1", Kind::Fyrd, &["keys", &remove(K2)]);
        assert_eq!(cluster.keys_in_files(), [K3]);

        for agent in ["f2", "s2"] {
            let output = step(agent, Kind::Fyrd, &["keys", "rotate"]);
            let keys = cluster.keys_in_files();
            assert!(!output.contains(&keys[0][..8]), "the new key is shown");
            assert!(
                keys.len() == 1 && !used.contains(&keys[0]),
                "a new key took the place of the old"
            );
            used.extend(keys);
        }
    });
    let sent: BTreeMap<String, usize> = (0..load.sent.load(Ordering::SeqCst))
        .map(|number| (format!("load-{number}"), 1))
        .collect();
    for agent in &all {
        eventually(&format!("{} hears all events", agent.name()), PATIENCE, || {
            let heard = heard(&agent.log(), "load-");
            let missing: Vec<&String> = sent.keys().filter(|name| !heard.contains_key(*name)).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("missing of {}: {missing:?}", sent.len()))
            }
        });
        assert!(
            heard(&agent.log(), "load-") == sent,
            "{} hears events twice",
            agent.name()
        );
        for bad in ["Suspect", "has failed", "EventMemberFailed", "No installed keys"] {
            let log = agent.log();
            let found: Vec<&str> = log.lines().filter(|line| line.contains(bad)).collect();
            assert!(found.is_empty(), "{}: {found:?}", agent.name());
        }
    }
    all_alive(&all);
    assert_unseen(&all, &used);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_rotation_stops_for_a_member_that_is_down_and_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start(&[(Kind::Fyrd, "f1"), (Kind::Fyrd, "f2"), (Kind::Serf, "s1")]);
    for lost in ["s1", "f2"] {
        let before = cluster.keys_in_files();
        // Silent, but not noticed yet.
        cluster.agent(lost).signal("STOP");
        let stopped = cluster
            .agent("f1")
            .cli_of(Kind::Fyrd, &["keys", "rotate", "-timeout=1s"]);
        cluster.agent(lost).signal("CONT");
        assert_eq!(stopped.code, Some(1), "{stopped:?}");
        let why = stopped.stdout.contains(&format!("in doubt:  {lost}  "));
        assert!(
            why && stopped.stdout.contains("Nothing was changed."),
            "{stopped:?}"
        );
        all_alive(&cluster.all());

        cluster.agent_mut(lost).kill();
        let others: Vec<&str> = ["f1", "f2", "s1"]
            .into_iter()
            .filter(|name| *name != lost)
            .collect();
        let seen: Vec<(&str, &str)> = others
            .iter()
            .map(|name| (*name, "alive"))
            .chain([(lost, "failed")])
            .collect();
        all_see(&[cluster.agent("f1")], &seen);
        let stopped = cluster
            .agent("f1")
            .cli_of(Kind::Fyrd, &["keys", "rotate", K3, "-timeout=1s"]);
        assert_eq!(stopped.code, Some(1), "{stopped:?}");
        let why = stopped.stdout.contains(&format!("in doubt:  {lost}  failed\n"));
        assert!(
            why && stopped.stdout.contains("Nothing was changed."),
            "{stopped:?}"
        );
        assert_eq!(cluster.keys_in_files(), before);

        cluster.agent_mut(lost).restart();
        all_alive(&cluster.all());
        cluster.all_talk(&format!("after-{lost}"));
        cluster
            .agent("f1")
            .cli_of(Kind::Fyrd, &["keys", "rotate"])
            .success();
        let after = cluster.keys_in_files();
        assert!(after.len() == 1 && after != before, "the rotation is complete");
        cluster.all_talk(&format!("rotated-without-{lost}"));
    }
}

/// A member that was away when a key was installed would be cut off for good.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn keys_are_neither_used_nor_removed_behind_a_members_back() {
    let mut cluster = Cluster::start(&[(Kind::Fyrd, "f1"), (Kind::Serf, "s1"), (Kind::Fyrd, "f2")]);
    let fyrd = |cluster: &Cluster, words: &[&str]| cluster.agent("f1").cli_of(Kind::Fyrd, words);
    cluster.agent_mut("s1").kill();
    all_see(
        &[cluster.agent("f1")],
        &[("f1", "alive"), ("f2", "alive"), ("s1", "failed")],
    );
    let installed = fyrd(&cluster, &["keys", "install", K2]).success();
    assert!(installed.contains("not asked:  s1  failed\n"), "{installed}");
    let print = fyrd(&cluster, &["keys", "list"]).success();
    assert!(!print.contains(&K2[..8]), "fingerprints will do: {print}");

    let refused = fyrd(&cluster, &["keys", "use", K2]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("in doubt:  s1  failed\n"), "{refused:?}");
    for words in [
        ["keys", "remove", K2].as_slice(),
        &["keys", &format!("-remove={K2}")],
    ] {
        let refused = fyrd(&cluster, words);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stdout.contains("in doubt:  s1  failed\n"), "{refused:?}");
    }
    let listed = fyrd(&cluster, &["keys", "-list"]).success();
    assert_eq!(listed.matches("[2/2]").count(), 2, "{listed}");
    fyrd(&cluster, &["keys", "remove", K2, "-force"]).success();

    // A Serf that is back while these are still passed on carries them out in any order.
    eventually("the last of it has been sent", PATIENCE, || {
        let waiting = ["f1", "f2"].map(|name| cluster.agent(name).info()["serf"]["query_queue"].clone());
        if waiting == ["0", "0"] {
            Ok(())
        } else {
            Err(format!("{waiting:?}"))
        }
    });
    cluster.agent_mut("s1").restart();
    all_alive(&cluster.all());
    assert_eq!(cluster.keys_in_files(), [K1]);
    cluster.all_talk("whole");
}

#[test]
fn from_aes_to_chacha_and_back_from_the_file() {
    let mut cluster = Cluster::start(&[(Kind::Fyrd, "f1"), (Kind::Fyrd, "f2"), (Kind::Fyrd, "f3")]);
    let rotate = ["keys", "rotate", "-print", "-cipher=chacha20poly1305"];
    let output = cluster.agent("f2").cli(&rotate).success();
    let keys = cluster.keys_in_files();
    assert!(
        keys.len() == 1 && keys[0].starts_with("chacha20poly1305:"),
        "not the right kind of key"
    );
    assert!(output.contains(&keys[0]), "-print shows the key");
    cluster.all_talk("sealed");

    cluster.agent_mut("f3").kill();
    cluster.agent_mut("f3").restart();
    all_alive(&cluster.all());
    cluster.all_talk("restarted");

    // Without a wish, the cipher stays.
    cluster.agent("f3").cli(&["keys", "rotate"]).success();
    let again = cluster.keys_in_files();
    assert!(again.len() == 1 && again != keys && again[0].starts_with("chacha20poly1305:"));
    cluster.agent("f1").cli(&["keys", "rotate", K1]).success();
    assert_eq!(cluster.keys_in_files(), [K1]);
    cluster.all_talk("aes");
    let shown: Vec<String> = keys.into_iter().chain(again).chain([K1.to_owned()]).collect();
    assert_unseen(&cluster.all(), &shown);
}

#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_serf_member_refuses_chacha_by_name_and_nothing_breaks() {
    let cluster = Cluster::start(&[(Kind::Fyrd, "f1"), (Kind::Serf, "s1"), (Kind::Fyrd, "f2")]);
    let stopped = cluster
        .agent("f1")
        .cli(&["keys", "rotate", "-cipher=chacha20poly1305"]);
    assert_eq!(stopped.code, Some(1));
    let named = stopped
        .stdout
        .contains("in doubt:  s1  key size must be 16, 24 or 32 bytes\n");
    assert!(
        named && stopped.stdout.contains("is installed on 2 of 3 members"),
        "{stopped:?}"
    );
    cluster.all_talk("between");
    // What the output says takes the key back does so.
    let print = stopped.stdout.split("'keys remove ").nth(1).unwrap();
    let print = print.split('\'').next().unwrap();
    cluster.agent("f1").cli(&["keys", "remove", print]).success();
    cluster.all_talk("after");
    let lists: Vec<String> = ["f1", "s1"]
        .map(|name| cluster.agent(name).cli(&["keys", "-list"]).success())
        .into();
    assert!(
        lists.iter().all(|list| list.matches("[3/3]").count() == 1),
        "{lists:?}"
    );
}

/// The same commands, sent by the real `serf` to clusters of either kind, print the same.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn key_commands_read_the_same_from_both_kinds_of_agents() {
    let install = format!("-install={K2}");
    let utilise = format!("-use={K2}");
    let (remove_1, remove_2) = (format!("-remove={K1}"), format!("-remove={K2}"));
    let script: &[&str] = &[
        "-list",
        &utilise,
        &remove_2,
        &remove_1,
        &install,
        &install,
        "-list",
        &remove_1,
        &utilise,
        &utilise,
        &remove_1,
        &remove_1,
        &remove_2,
        "-install=@@@",
        "-list",
    ];
    for encrypted in [true, false] {
        let run = |kind: Kind| {
            let plan = |name: &str| {
                Plan::new(kind, name)
                    .key(encrypted.then_some(K1))
                    .arg("-profile=local")
            };
            let first = plan("n1").start();
            let second = plan("n2").join(&first).start();
            all_alive(&[&first, &second]);
            let outputs = script.iter().map(|word| {
                let finished = first.cli_of(Kind::Serf, &["keys", word]);
                let mut lines: Vec<&str> = finished.stdout.lines().map(str::trim_end).collect();
                lines.sort_unstable();
                (word.to_string(), finished.code, lines.join("\n"), finished.stderr)
            });
            outputs.collect::<Vec<_>>()
        };
        for (fyrd, serf) in run(Kind::Fyrd).into_iter().zip(run(Kind::Serf)) {
            assert_eq!(fyrd, serf, "fyrd (left) and serf (right) differ");
        }
    }
}

/// A ring whose list does not fit into a datagram reaches a Fyrd asker whole, and is cut for a Serf asker
/// where Serf cuts it, with the same remark.
#[test]
#[ignore = "needs the real Serf (tests/run)"]
fn a_long_list_is_cut_for_serf_alone() {
    let key = |n: u8| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [n; 32]);
    let ring: Vec<String> = (1..=40).map(key).collect();
    let dir = tempfile::tempdir().unwrap();
    let agent = |kind: Kind, name: &str| {
        let file = dir.path().join(name);
        fs::write(&file, serde_json::to_string(&ring).unwrap()).unwrap();
        Plan::new(kind, name).arg(format!("-keyring-file={}", file.display()))
    };
    let fyrd = agent(Kind::Fyrd, "f").start();
    let listed = fyrd.cli_of(Kind::Fyrd, &["keys", "list"]).success();
    assert_eq!(listed.matches("[1/1]").count(), 40, "{listed}");
    assert!(!listed.contains("truncated"), "{listed}");

    let serf = agent(Kind::Serf, "s").join(&fyrd).start();
    all_alive(&[&fyrd, &serf]);
    let listed = serf.cli_of(Kind::Fyrd, &["keys", "list"]).success();
    for name in ["f", "s"] {
        let remark = format!("{name}: truncated key list response, showing first 17 of 40 keys");
        assert!(listed.contains(&remark), "{listed}");
    }
    assert_eq!(listed.matches("[2/2]").count(), 17, "{listed}");
}
