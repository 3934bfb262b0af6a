//! What a user writes or brings along: configuration, profiles, keyrings, snapshots of Serf.

use std::path::Path;

use fyrd::agent::options::Options;
use fyrd::snapshot;
use fyrd::snapshot::serf_text::{self, Imported, Reading, Warnings};
use fyrd_core::bounds::{MAX_LTIME, MAX_MEMBERS, SNAPSHOT_LINE_SHOWN, SNAPSHOT_WARNINGS};
use fyrd_core::node::{Input, Node};
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;
use fyrd_keys::{MAX_KEYS, file};

use super::node::config_of;

/// Timers of a profile that are followed: enough for each of them to come twice.
const TICKS: usize = 64;

/// A configuration file.
pub fn config(input: &[u8]) {
    let options = match Options::decode(input) {
        Ok(options) => options,
        Err(reason) => {
            assert!(!reason.is_empty());
            return;
        }
    };
    // Laid over nothing, it is what it was; laid over itself, its lists are there twice and no more.
    let mut merged = Options::default();
    merged.merge(options.clone());
    assert_eq!(merged, options);
    merged.merge(options.clone());
    assert_eq!(merged.start_join.len(), 2 * options.start_join.len());
    assert_eq!(merged.tags, options.tags);
    for secret in [&options.encrypt_key, &options.rpc_auth] {
        assert!(["none", "***"].contains(&format!("{secret:?}").as_str()));
    }
}

/// A profile: whatever is taken must make a node that runs.
pub fn profile(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let profile = match Profile::parse("fuzzed.toml", text) {
        Ok(profile) => profile,
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("profile 'fuzzed.toml': "), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
            return;
        }
    };
    let mut now = Time::ZERO;
    let Ok(mut node) = Node::new(config_of(profile, 1), now) else {
        return;
    };
    for _ in 0..TICKS {
        while node.poll_effect().is_some() {}
        let Some(next) = node.next_deadline() else { return };
        now = now.max(next);
        node.handle(now, Input::Tick);
        let next = node.next_deadline();
        assert!(
            next.is_none_or(|next| next > now),
            "a timer of {now:?} is due again at {next:?}"
        );
    }
}

/// A keyring file.
pub fn keyring(input: &[u8]) {
    let path = Path::new("keyring.json");
    let Ok(ring) = file::parse(input, path) else {
        return;
    };
    assert!((1..=MAX_KEYS).contains(&ring.len()));
    let json = file::to_json(&ring);
    let again = file::parse(json.as_bytes(), path).expect("what we write can be read");
    assert!(again.keys().eq(ring.keys()));
    assert!(json.len() as u64 <= file::MAX_FILE_LEN);
    let shown = format!("{ring:?}");
    for key in ring.keys() {
        assert!(!shown.contains(key.to_text().as_str()), "a key is shown");
    }
}

/// Serf's text snapshot: what is read can be written, and is the same when it is read again.
pub fn snapshot(input: &[u8]) {
    for rejoin_after_leave in [false, true] {
        let reading = Reading {
            node: Some("self"),
            rejoin_after_leave,
            now: Time::from_nanos(1 << 60),
        };
        let imported = serf_text::parse(input, reading);
        check_imported(&imported, input);
        // A leave that is overlooked now must not forget the members next time either.
        let exported = serf_text::write(&imported.memory, false);
        assert!(exported.left_out.is_empty(), "{:?}", exported.left_out);
        let again = serf_text::parse(exported.text.as_bytes(), reading);
        assert_eq!(again.warnings, Warnings::default());
        assert_eq!(again.memory.marks, imported.memory.marks);
        assert_eq!(places(&again), places(&imported));
    }
}

/// The essence of a snapshot: the first two bytes say where the first copy ends and the second begins. Checksums are
/// put right first, or nothing would get past them.
pub fn essence(input: &[u8]) {
    let Some(([high, low], rest)) = input.split_first_chunk() else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (rest.len() + 1);
    let (one, other) = rest.split_at(cut);
    let now = Time::from_nanos(1 << 60);
    let copies = [with_checksums(one), with_checksums(other)];
    let Some(contents) = snapshot::read_essence(&copies, now) else {
        return;
    };
    let memory = &contents.memory;
    assert!(memory.members.len() <= MAX_MEMBERS.min(rest.len()));
    assert!(memory.events.len() + memory.queries.len() <= rest.len());
    let marks = memory.marks;
    assert!(
        memory
            .members
            .iter()
            .all(|member| member.status_ltime > MAX_LTIME || member.status_ltime < marks.member)
    );
    assert!(
        memory
            .events
            .iter()
            .all(|event| event.ltime > MAX_LTIME || event.ltime < marks.event)
    );
    assert!(
        memory
            .queries
            .iter()
            .all(|query| query.0 > MAX_LTIME || query.0 < marks.query)
    );
    let [one, other] = copies;
    assert!(
        snapshot::read_essence(&[other, one], now).is_some(),
        "it was read the other way round"
    );
}

/// Each frame with the checksum that its bytes have.
fn with_checksums(copy: &[u8]) -> Vec<u8> {
    let mut copy = copy.to_vec();
    let mut at = 0;
    while let Some(frame) = copy.get_mut(at..)
        && let Some((head, body)) = frame.split_at_mut_checked(12)
    {
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if !head.starts_with(b"Fyrd") || len > body.len() {
            break;
        }
        head[8..].copy_from_slice(&crc32fast::hash(&body[..len]).to_be_bytes());
        at += 12 + len;
    }
    copy
}

fn check_imported(imported: &Imported, input: &[u8]) {
    let lines = input.split_inclusive(|byte| *byte == b'\n').count();
    assert!(imported.known_lines + imported.warnings.texts.len() <= 2 * lines);
    assert!(imported.warnings.texts.len() <= SNAPSHOT_WARNINGS);
    for text in &imported.warnings.texts {
        assert!(
            !text.contains('\n') && text.len() <= 16 * SNAPSHOT_LINE_SHOWN,
            "{text}"
        );
    }
    let marks = &imported.memory.marks;
    for clock in [marks.member, marks.event, marks.query] {
        assert!((1..=MAX_LTIME + 1).contains(&clock));
    }
    let members = &imported.memory.members;
    assert!(members.len() <= lines.min(MAX_MEMBERS));
    assert!(members.is_sorted_by(|a, b| a.since > b.since), "newest first");
    assert!(members.iter().all(|member| &*member.facts.name != "self"));
}

fn places(imported: &Imported) -> Vec<(String, std::net::SocketAddr)> {
    let members = imported.memory.members.iter();
    members
        .map(|member| (member.facts.name.to_string(), member.facts.socket()))
        .collect()
}
