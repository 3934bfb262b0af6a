//! The fuzz targets as ordinary tests: all seeds and the whole corpus go through them, on the stable
//! compiler. `tests/fuzz/run` fuzzes them, and tells how the corpus grows.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fyrd::rpc::codec::encode_into;
use fyrd::rpc::types::*;
use fyrd_core::node::memory::{Commit, Marks, Record};
use fyrd_core::time::Time;
use fyrd_core::wire::{StreamPrefix, split_label};
use serde::Serialize;
use serde_json::Value;
use targets::TARGETS;

/// Enough of each kind that a corpus that was lost is noticed.
const LEAST_INPUTS: usize = 20;

/// What the whole corpus may weigh in a clone.
const CORPUS_BYTES: u64 = 300 * 1024;

#[test]
fn every_input_of_the_corpus_keeps_the_promises() {
    let mut weight = 0;
    for (name, _) in TARGETS {
        let mut files: Vec<PathBuf> = std::fs::read_dir(corpus().join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(files.len() >= LEAST_INPUTS, "{name}: {} inputs", files.len());
        for file in files {
            let input = std::fs::read(&file).expect("an input");
            weight += input.len() as u64;
            let passed = std::panic::catch_unwind(|| targets::run(name, &input));
            assert!(
                passed.is_ok(),
                "{name} fails with {}; its reason is above",
                file.display()
            );
        }
    }
    assert!(weight <= CORPUS_BYTES, "{weight} bytes");
}

#[test]
fn every_seed_keeps_the_promises() {
    for (name, _) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 5, "{name}");
        for seed in seeds {
            let passed = std::panic::catch_unwind(|| targets::run(name, &seed));
            assert!(
                passed.is_ok(),
                "{name} fails with {seed:02x?}; its reason is above"
            );
        }
    }
}

#[test]
fn every_target_has_its_fuzzer_and_is_run() {
    let folder = corpus().with_file_name("");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the fuzzers");
    let (manifest, script) = (read("Cargo.toml"), read("run"));
    let run = script
        .lines()
        .find_map(|line| line.strip_prefix("targets=("))
        .expect("the list of targets");
    let run: Vec<&str> = run.trim_end_matches(')').split(' ').collect();
    assert_eq!(run, TARGETS.map(|(name, _)| name));
    for name in run {
        assert!(
            manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")),
            "{name}"
        );
        assert!(
            read(&format!("fuzz_targets/{name}.rs")).contains(&format!("run(\"{name}\", input)")),
            "{name}"
        );
    }
}

/// `tests/fuzz/run` begins with it.
#[test]
#[ignore = "writes the seeds for the fuzzers"]
fn write_seeds() {
    for (name, _) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/fuzz/seeds")
            .join(name);
        std::fs::create_dir_all(&folder).expect("the folder of the seeds");
        for (index, seed) in seeds(name).into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed).expect("a seed");
        }
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "datagram" => datagrams(),
        "stream" => streams(),
        "rpc_server" => requests(),
        "rpc_client" => conversations(),
        "config" => configs(),
        "profile" => profiles(),
        "keyring" => keyrings(),
        "snapshot" => snapshots(),
        "essence" => essences(),
        "node" => lives(),
        other => panic!("no seeds for {other}"),
    }
}

/// The packets captured from real agents, opened: whether it is a datagram, and its bytes.
fn packets() -> Vec<(bool, Vec<u8>)> {
    let all: Value = serde_json::from_str(include_str!("../core/tests/wire/vectors.json")).expect("JSON");
    let of_hex = |hex: &Value| -> Option<Vec<u8>> {
        let digits = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
        Some(hex.as_str()?.as_bytes().chunks(2).map(digits).collect())
    };
    let vectors = all.as_array().expect("a list").iter();
    vectors
        .map(|vector| {
            let bytes = of_hex(&vector["decoded"]["plain_hex"]).or_else(|| of_hex(&vector["hex"]));
            (vector["transport"] == "udp", bytes.expect("hex"))
        })
        .collect()
}

/// As captured, and without the checksum, which would hide what is inside from a fuzzer.
fn datagrams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (_, packet) in packets().into_iter().filter(|(udp, _)| *udp) {
        let (_, plain) = split_label(&packet).expect("a label");
        if let [12, _, _, _, _, inside @ ..] = plain {
            seeds.push(inside.to_vec());
            // And what a user message carries, which is a message of the layer above.
            if let [8, message @ ..] = inside {
                seeds.push(message.to_vec());
            }
        }
        seeds.push(packet);
    }
    seeds
}

fn streams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (_, packet) in packets().into_iter().filter(|(udp, _)| !*udp) {
        if let Ok(StreamPrefix::Label { len, .. }) = StreamPrefix::parse(&packet) {
            seeds.push(packet[len..].to_vec());
        }
        seeds.push(packet);
    }
    seeds
}

fn requests() -> Vec<Vec<u8>> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let tags = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
    let key = || KeyRequest {
        key: "AAECAwQFBgcICQoLDA0ODw==".to_owned().into(),
    };
    let requests = [
        Request::Handshake(HandshakeRequest { version: 1 }),
        Request::Auth(AuthRequest {
            auth_key: "token".to_owned().into(),
        }),
        Request::Event(EventRequest {
            name: "deploy".to_owned(),
            payload: b"v2".to_vec(),
            coalesce: true,
        }),
        Request::ForceLeave(ForceLeaveRequest {
            node: "n".to_owned(),
            prune: true,
        }),
        Request::Join(JoinRequest {
            existing: names(&["127.0.0.1:7946", "b"]),
            ..JoinRequest::default()
        }),
        Request::Members,
        Request::MembersFiltered(MembersFilteredRequest {
            tags: tags.clone(),
            status: "alive".to_owned(),
            name: "n.*".to_owned(),
        }),
        Request::Tags(TagsRequest {
            delete_tags: names(&["old"]),
            tags: tags.clone(),
        }),
        Request::Stream(StreamRequest {
            r#type: "user:deploy,query".to_owned(),
        }),
        Request::Monitor(MonitorRequest {
            log_level: "DEBUG".to_owned(),
        }),
        Request::Stop(StopRequest { stop: 3 }),
        Request::Leave,
        Request::Query(QueryRequest {
            filter_nodes: names(&["n"]),
            filter_tags: tags,
            name: "load".to_owned(),
            request_ack: true,
            timeout: 1_000_000_000,
            ..QueryRequest::default()
        }),
        Request::Respond(RespondRequest {
            id: 1,
            payload: b"0.5".to_vec(),
        }),
        Request::InstallKey(key()),
        Request::UseKey(key()),
        Request::RemoveKey(key()),
        Request::ListKeys,
        Request::Stats,
        Request::GetCoordinate(CoordinateRequest { node: "n".to_owned() }),
    ];
    let bytes: Vec<Vec<u8>> = (1..)
        .zip(&requests)
        .map(|(seq, request)| request.encode(seq).expect("bytes").to_vec())
        .collect();
    let greeting = bytes[0].clone();
    bytes
        .into_iter()
        .map(|request| [greeting.clone(), request].concat())
        .collect()
}

/// What an agent says: the header of an answer or a record, and its body.
fn say(out: &mut Vec<u8>, seq: u64, error: &str, body: Option<&dyn erased::Body>) {
    let header = ResponseHeader {
        error: error.to_owned(),
        seq,
    };
    encode_into(&header, out).expect("a header");
    if let Some(body) = body {
        body.append(out);
    }
}

/// Bodies of several types in one list.
mod erased {
    pub trait Body {
        fn append(&self, out: &mut Vec<u8>);
    }

    impl<T: super::Serialize> Body for T {
        fn append(&self, out: &mut Vec<u8>) {
            super::encode_into(self, out).expect("a body");
        }
    }
}

fn conversations() -> Vec<Vec<u8>> {
    let member = Member {
        addr: vec![10, 0, 0, 1],
        name: "n".to_owned(),
        port: 7946,
        status: "alive".to_owned(),
        tags: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        ..Member::default()
    };
    let members = MembersResponse {
        members: vec![member.clone()],
    };
    let group = BTreeMap::from([("health_score".to_owned(), "0".to_owned())]);
    let stats = StatsResponse(BTreeMap::from([("serf".to_owned(), group)]));
    let coordinate = CoordinateResponse {
        ok: true,
        ..CoordinateResponse::default()
    };
    let keys = KeyResponse {
        num_nodes: 3,
        num_resp: 3,
        ..KeyResponse::default()
    };
    let event = EventRecord::User(UserEventRecord {
        name: "deploy".to_owned(),
        ..UserEventRecord::default()
    });
    let joined = EventRecord::Member(MemberEventRecord {
        event: "member-join".to_owned(),
        members: vec![member],
    });
    let line = LogRecord {
        log: "a line".to_owned(),
    };
    let answer = QueryRecord {
        from: "n".to_owned(),
        payload: b"0.5".to_vec(),
        ..QueryRecord::default()
    };
    /// The request, the error and the body of its answer, and the records that follow.
    type Exchange<'a> = (
        u8,
        &'a str,
        Option<&'a dyn erased::Body>,
        Vec<&'a dyn erased::Body>,
    );
    let asked: [Exchange<'_>; 9] = [
        (0, "", Some(&members), vec![]),
        (1, "", Some(&stats), vec![]),
        (2, "", Some(&coordinate), vec![]),
        (3, "1/3 nodes reported failure", Some(&keys), vec![]),
        (
            4,
            "",
            Some(&JoinResponse {
                num: 1,
                failed: vec!["Failed to join b: no such host".to_owned()],
            }),
            vec![],
        ),
        (5, "", None, vec![&event, &joined]),
        (6, "", None, vec![&line]),
        (7, "", None, vec![&answer]),
        (0, "Authentication required", None, vec![]),
    ];
    let mut seeds = Vec::new();
    for (choice, error, body, records) in asked {
        let mut seed = vec![choice];
        say(&mut seed, 1, "", None);
        say(&mut seed, 2, error, body);
        say(&mut seed, 3, "", None);
        for record in records {
            say(&mut seed, 2, "", Some(record));
        }
        seeds.push(seed);
    }
    seeds
}

fn configs() -> Vec<Vec<u8>> {
    [
        r#"{"node_name":"n","bind":"[::1]:7946","tags":{"role":"web","dc":"a"},"protocol":5}"#,
        r#"{"encrypt_key":"AAECAwQFBgcICQoLDA0ODw==","rpc_auth":"t","log_level":"DEBUG","profile":"wan"}"#,
        r#"{"start_join":["a","b:1"],"retry_join":["c"],"retry_interval":"1m30s","retry_max_attempts":3}"#,
        r#"{"mdns":{"interface":"eth0","disable_ipv4":true},"discover":"cluster","replay_on_join":true}"#,
        r#"{"event_handlers":["user:deploy=./run","*=cat"],"handler_timeout":"1.5h","enable_compression":false}"#,
        r#"{"reconnect_interval":"-1s","tombstone_timeout":"1ns"} trailing"#,
        r#"{"Node_Name":1,"unknown":[{}],"tags":[],"query_size_limit":1e30,"leave_on_terminate":"yes"}"#,
        "null",
        "{\"role\":\"\\ud83d\\ude00\\u0000\"}",
        "[1,2.5e-3,true,{\"a\":null}]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn profiles() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "base = \"lan\"\n",
        "base = \"wan\"\ngossip_nodes = 1\n[serf]\nreap_interval = \"1ms\"\n",
        "base = \"local\"\nprobe_interval = \"1us\"\nprobe_timeout = \"1ns\"\nsuspicion_mult = 4000000000\n",
        "base = \"lan\"\nudp_buffer_size = 1024\nretransmit_mult = 0\nawareness_max_multiplier = 1\n",
        "base = \"lan\"\ngossip_interval = \"0s\"\npush_pull_interval = \"0s\"\nprobe_interval = \"0s\"\n",
        "base = \"lan\"\n[serf]\nmax_queue_depth = 1\nevent_buffer = 1\nquery_timeout_mult = 4000000000\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    seeds.extend(["lan", "wan", "local"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("profiles/{name}.toml"));
        let text = std::fs::read_to_string(path).expect("a profile");
        // Without its comments it is a tenth as long.
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.collect::<Vec<_>>().join("\n").into_bytes()
    }));
    seeds
}

fn keyrings() -> Vec<Vec<u8>> {
    let [short, middle, long] = [
        "kW9qBzL3yXv0T2mN8sRdGg==",
        "b0Zr4yQmW1Xh7uKpTgD2sVn9LcJeA6Rf",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ];
    [
        format!("[\"{short}\"]"),
        format!("[\n  \"{long}\",\n  \"{middle}\",\n  \"{long}\"\n]"),
        format!("[\"chacha20poly1305:{long}\",\"{short}\"]"),
        format!("[\"chacha20poly1305:{short}\"]"),
        format!("[\"aes:{short}\"]"),
        "[null,\"\"]".to_owned(),
        "null".to_owned(),
        "[\"AA==\\n\"]".to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}

fn snapshots() -> Vec<Vec<u8>> {
    [
        "alive: b 127.0.0.9:17913\nalive: a b 127.0.0.9:17911\nclock: 1\nevent-clock: 2\nquery-clock: 1\nleave\nclock: 2\n",
        "alive: self 10.0.0.1:7946\nalive: n [fe80::1]:7946\nnot-alive: n\nalive: n [::ffff:10.0.0.2]:7946\n",
        "clock: 4611686018427387904\nclock: 18446744073709551616\nclock: +1\nevent-clock: -1\n",
        "coordinate: {\"Vec\":[0,0]}\n# a comment\nnonsense\nalive: \nalive: x y\nalive:  1.2.3.4:0\n",
        "alive: a 1.2.3.4:5\r\nleave\nalive: \u{e9} 1.2.3.4:6\nalive: a 1.2.3.4:7\nalive: cut off",
        "leave",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// What a recorder writes, after no, one and more flushes, and with the copies in either order.
fn essences() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    let config = || fyrd::snapshot::SnapshotConfig {
        path: path.clone(),
        node: "a".to_owned(),
        forget_left_members: true,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut seeds = Vec::new();
    for step in 0..4_u64 {
        runtime.block_on(async {
            let (_, mut recorder) = fyrd::snapshot::open(config(), Time::ZERO).expect("a snapshot");
            for query in 0..4_u32.min(step as u32) {
                recorder.note(Record::Query((step, query)));
            }
            recorder.note(Record::ForgetQueries(step / 2));
            recorder.commit(Commit {
                number: 1,
                marks: Marks {
                    event: step,
                    ..Marks::default()
                },
                ..Commit::default()
            });
            recorder.finish(Duration::from_secs(60)).await;
        });
        let copy = |name: &str| std::fs::read(path.join(name)).expect("a copy");
        let copies = [copy("essence-1"), copy("essence-2")];
        for [one, other] in [[0, 1], [1, 0]].map(|order| order.map(|number: usize| &copies[number])) {
            let cut = (one.len() as u16).to_be_bytes();
            seeds.push([&cut[..], one, other].concat());
        }
    }
    seeds
}

/// Lives of a node: a captured packet each, with time and commands around it.
fn lives() -> Vec<Vec<u8>> {
    let step = |opcode: u8, content: &[u8]| {
        let length = (content.len() as u16).to_be_bytes();
        [&[opcode][..], &length, content].concat()
    };
    let mut seeds = Vec::new();
    for (udp, packet) in packets() {
        let (_, plain) = split_label(&packet).unwrap_or((b"", &packet));
        let opcode = if udp { 0 } else { 2 };
        seeds.push([step(opcode, plain), step(4, b"")].concat());
    }
    for command in 0..7 {
        let order = [&[command][..], b"abcdefghijklmnop"].concat();
        seeds.push([step(7, &order), step(4, b""), step(3, b""), step(4, &[2, 0])].concat());
    }
    let all: Vec<Vec<u8>> = seeds.iter().filter(|seed| seed.len() < 400).cloned().collect();
    seeds.push(all.concat());
    seeds
}
