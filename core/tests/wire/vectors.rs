//! Every captured packet is read to its stated meaning, and written again byte for byte where its
//! encoding is determined.
//!
//! `vectors.json` holds packets captured from real agents on loopback, with their decoding by a
//! second implementation. Encrypted ones are opened here with the cipher itself, so that this test
//! depends on nothing but the codec.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use base64::Engine;
use fyrd_core::bounds::STREAM_MESSAGE_MAX;
use fyrd_core::wire::{self, Filter, Message, SerfMessage, StreamDecoder, StreamMessage, StreamPrefix};
use serde_json::{Map, Value, json};

/// Captured from the newer codec, which writes signed integers in another way than we do.
const SIGNED: [&str; 5] = [
    "tcp_pushpull_msgpack_v2_signed_ints",
    "udp_msgpack_v2_query_event",
    "tcp_label_pushpull_request",
    "tcp_label_enc_pushpull_request",
    "tcp_label_enc_pushpull_response",
];

/// One captured packet.
pub struct Vector {
    /// What it is called.
    pub name: String,
    /// Whether it is a datagram.
    pub udp: bool,
    key: Option<Vec<u8>>,
    /// Its cluster's label, empty for none.
    pub label: String,
    /// All of it.
    pub bytes: Vec<u8>,
    decoded: Value,
}

impl Vector {
    /// The key that seals it, as text.
    pub fn key_text(&self) -> Option<String> {
        let encode = |key| base64::engine::general_purpose::STANDARD.encode(key);
        self.key.as_ref().map(encode)
    }
}

/// All of them.
pub fn vectors() -> Vec<Vector> {
    let all: Value = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.as_array()
        .expect("a list")
        .iter()
        .map(|vector| Vector {
            name: text(&vector["name"]),
            udp: vector["transport"] == "udp",
            key: vector["key"].as_str().map(|key| {
                base64::engine::general_purpose::STANDARD
                    .decode(key)
                    .expect("base64")
            }),
            label: text(&vector["label"]),
            bytes: from_hex(vector["hex"].as_str().expect("hex")),
            decoded: vector["decoded"].clone(),
        })
        .collect()
}

#[test]
fn every_vector_is_read_to_its_meaning_and_written_again() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 58);
    for vector in &vectors {
        if vector.udp {
            check_datagram(vector);
        } else {
            check_stream(vector);
        }
    }
}

#[test]
fn a_stream_may_arrive_in_any_pieces() {
    for vector in vectors().iter().filter(|vector| !vector.udp) {
        let plain = stream_plain(vector);
        let mut scratch = Vec::new();
        let whole = wire::decode_stream(&plain, &mut scratch, STREAM_MESSAGE_MAX).expect("readable");
        for size in [1, 7, 100] {
            let mut decoder = StreamDecoder::default();
            for chunk in plain.chunks(size) {
                assert_eq!(decoder.is_complete(), Ok(false), "{}", vector.name);
                decoder.push(chunk);
            }
            assert_eq!(decoder.message().as_ref(), Ok(&whole), "{}", vector.name);
        }
    }
}

fn check_datagram(vector: &Vector) {
    let name = &vector.name;
    let (label, packet) = wire::split_label(&vector.bytes).expect("a label");
    assert_eq!(label, vector.label.as_bytes(), "{name}");
    let plain = match &vector.key {
        Some(key) => open(key, packet, label),
        None => packet.to_vec(),
    };
    let mut scratch = wire::Scratch::default();
    let datagram = wire::decode_datagram(&plain, &mut scratch).expect(name);
    assert_eq!((datagram.refused, datagram.first_refusal), (0, None), "{name}");

    // The JSON nests as the layers do; walk down to the leaves and note which layers there are.
    let mut layer = &vector.decoded["message"];
    let (mut crc, mut compress) = (false, false);
    loop {
        match layer["name"].as_str() {
            Some("hasCrc") => crc = true,
            Some("compress") => compress = true,
            _ => break,
        }
        layer = &layer["inner"];
    }
    let leaves = match layer["parts"].as_array() {
        Some(parts) => parts.clone(),
        None => vec![layer.clone()],
    };
    assert_eq!(datagram.messages.len(), leaves.len(), "{name}");
    for (message, leaf) in datagram.messages.iter().zip(&leaves) {
        check_leaf(name, message, leaf);
    }

    let bodies: Vec<Vec<u8>> = datagram
        .messages
        .iter()
        .map(|message| encoded(|out| message.encode(out)))
        .collect();
    let inner = match bodies.as_slice() {
        [single] => single.clone(),
        several => encoded(|out| wire::encode_compound(several, out)),
    };
    assert_eq!(wire::finish_datagram(inner, compress, crc), plain, "{name}");
    let labelled = encoded(|out| {
        wire::put_label(label, out);
        out.extend_from_slice(packet);
    });
    assert_eq!(labelled, vector.bytes, "{name}");
}

fn check_leaf(name: &str, message: &Message<'_>, leaf: &Value) {
    let (kind, body) = match message {
        Message::User(bytes) => {
            assert_eq!(leaf["name"], "user", "{name}");
            return check_serf(name, bytes, &leaf["inner"]);
        }
        Message::Ping(ping) => ("ping", ping_json(ping)),
        Message::IndirectPing(ping) => {
            let mut body = json!({ "SeqNo": ping.seq_no, "Target": bytes(ping.target), "Port": ping.port,
                "Node": ping.node, "Nack": ping.nack });
            source(&mut body, ping.source_addr, ping.source_port, ping.source_node);
            ("indirectPing", body)
        }
        Message::Ack(ack) => {
            if let Some(expected) = leaf["payload_decoded"].get("coordinate") {
                check_coordinate(name, ack.payload, expected);
            }
            (
                "ack",
                json!({ "SeqNo": ack.seq_no, "Payload": bytes(ack.payload) }),
            )
        }
        Message::Nack(nack) => ("nack", json!({ "SeqNo": nack.seq_no })),
        Message::Suspect(s) => (
            "suspect",
            json!({ "Incarnation": s.incarnation, "Node": s.node, "From": s.from }),
        ),
        Message::Dead(d) => (
            "dead",
            json!({ "Incarnation": d.incarnation, "Node": d.node, "From": d.from }),
        ),
        Message::Alive(alive) => {
            check_tags(name, alive.meta, &leaf["tags"]);
            let body = json!({ "Incarnation": alive.incarnation, "Node": alive.node,
                "Addr": bytes(alive.addr), "Port": alive.port, "Meta": bytes(alive.meta),
                "Vsn": bytes(alive.vsn) });
            ("alive", body)
        }
    };
    assert_eq!(leaf["name"], kind, "{name}");
    same(name, &leaf["body"], &body);
}

fn check_stream(vector: &Vector) {
    let name = &vector.name;
    let plain = stream_plain(vector);
    let mut scratch = Vec::new();
    let message = wire::decode_stream(&plain, &mut scratch, STREAM_MESSAGE_MAX).expect(name);
    let outer = &vector.decoded["message"];
    let compress = outer["name"] == "compress";
    let expected = if compress { &outer["inner"] } else { outer };
    let kind = match &message {
        StreamMessage::PushPull(state) => {
            let header = json!({ "Join": state.join, "Nodes": state.nodes.len(),
                "UserStateLen": state.user_state.len() });
            same(name, &expected["header"], &header);
            for (node, expected) in state
                .nodes
                .iter()
                .zip(expected["nodes"].as_array().expect("nodes"))
            {
                let body = json!({ "Name": node.name, "Addr": bytes(node.addr), "Port": node.port,
                    "Meta": bytes(node.meta), "Incarnation": node.incarnation, "State": node.state,
                    "Vsn": bytes(node.vsn) });
                same(name, expected, &body);
            }
            check_serf(name, state.user_state, &expected["user_state"]);
            "pushPull"
        }
        StreamMessage::User(bytes) => {
            same(name, &expected["header"], &json!({ "UserMsgLen": bytes.len() }));
            check_serf(name, bytes, &expected["inner"]);
            "userStream"
        }
        StreamMessage::Ping(ping) => {
            same(name, &expected["body"], &ping_json(ping));
            "ping"
        }
        StreamMessage::Ack(ack) => {
            let body = json!({ "SeqNo": ack.seq_no, "Payload": bytes(ack.payload) });
            same(name, &expected["body"], &body);
            "ack"
        }
        StreamMessage::Err(text) => {
            same(name, &expected["body"], &json!({ "Error": text }));
            "err"
        }
    };
    assert_eq!(expected["name"], kind, "{name}");

    let again = wire::finish_stream(encoded(|out| message.encode(out)), compress);
    if SIGNED.contains(&name.as_str()) {
        let mut scratch = Vec::new();
        assert_eq!(
            wire::decode_stream(&again, &mut scratch, STREAM_MESSAGE_MAX),
            Ok(message),
            "{name}"
        );
    } else {
        assert_eq!(again, plain, "{name}");
    }
}

/// Takes label and encryption off a stream.
fn stream_plain(vector: &Vector) -> Vec<u8> {
    let mut rest = vector.bytes.as_slice();
    let mut label: &[u8] = if vector.decoded.get("label").is_none() {
        vector.label.as_bytes()
    } else {
        b""
    };
    if let Ok(StreamPrefix::Label { label: found, len }) = StreamPrefix::parse(rest) {
        assert_eq!(found, vector.label.as_bytes());
        label = found;
        rest = &rest[len..];
    }
    match (StreamPrefix::parse(rest).expect("a prefix"), &vector.key) {
        (StreamPrefix::Encrypted { len, header }, Some(key)) => {
            let block = &rest[5..];
            assert_eq!(len, block.len(), "{}", vector.name);
            open(key, block, &[&header, label].concat())
        }
        (StreamPrefix::Plain, None) => rest.to_vec(),
        (other, _) => panic!("{}: {other:?}", vector.name),
    }
}

fn check_serf(name: &str, encoded_message: &[u8], expected: &Value) {
    let message = SerfMessage::decode(encoded_message).expect(name);
    let (kind, body) = serf_json(name, &message, expected);
    assert_eq!(expected["serf_name"], kind, "{name}");
    assert_eq!(expected["serf_type"], encoded_message[0], "{name}");
    let expected_body = if kind == "relay" {
        &expected["header"]
    } else {
        &expected["body"]
    };
    same(name, expected_body, &body);
    let again = encoded(|out| message.encode(out));
    if SIGNED.contains(&name) {
        assert_eq!(SerfMessage::decode(&again), Ok(message), "{name}");
    } else {
        assert_eq!(again, encoded_message, "{name}");
    }
}

fn serf_json(name: &str, message: &SerfMessage<'_>, expected: &Value) -> (&'static str, Value) {
    match message {
        SerfMessage::Leave(leave) => (
            "leave",
            json!({ "LTime": leave.ltime, "Node": leave.node, "Prune": leave.prune }),
        ),
        SerfMessage::Join(join) => ("join", json!({ "LTime": join.ltime, "Node": join.node })),
        SerfMessage::UserEvent(event) => {
            let body = json!({ "LTime": event.ltime, "Name": event.name, "Payload": bytes(event.payload),
                "CC": event.coalesce });
            ("userEvent", body)
        }
        SerfMessage::Query(query) => {
            if let Some(filters) = expected["filters_decoded"].as_array() {
                assert_eq!(filters.len(), query.filters.len(), "{name}");
                for (filter, expected) in query.filters.iter().zip(filters) {
                    check_filter(name, filter, expected);
                }
            }
            check_payload(name, query.payload, expected);
            let filters = match query.filters.as_slice() {
                [] => Value::Null,
                filters => filters.iter().map(|filter| bytes(filter)).collect(),
            };
            let body = json!({ "LTime": query.ltime, "ID": query.id, "Addr": bytes(query.addr),
                "Port": query.port, "SourceNode": query.source_node, "Filters": filters,
                "Flags": query.flags, "RelayFactor": query.relay_factor, "Timeout": query.timeout_ns,
                "Name": query.name, "Payload": bytes(query.payload) });
            ("query", body)
        }
        SerfMessage::QueryResponse(response) => {
            check_payload(name, response.payload, expected);
            let body = json!({ "LTime": response.ltime, "ID": response.id, "From": response.from,
                "Flags": response.flags, "Payload": bytes(response.payload) });
            ("queryResponse", body)
        }
        SerfMessage::ConflictResponse(member) => {
            let member = member.as_ref().expect("a known member");
            let tags: Map<String, Value> = member
                .tags
                .iter()
                .map(|(key, value)| (key.to_string(), json!(value)))
                .collect();
            let body = json!({ "Name": member.name, "Addr": bytes(member.addr), "Port": member.port,
                "Tags": tags, "Status": member.status, "ProtocolMin": member.protocol_min,
                "ProtocolMax": member.protocol_max, "ProtocolCur": member.protocol_cur,
                "DelegateMin": member.delegate_min, "DelegateMax": member.delegate_max,
                "DelegateCur": member.delegate_cur });
            ("conflictResponse", body)
        }
        SerfMessage::KeyRequest(request) => ("keyRequest", json!({ "Key": bytes(request.key) })),
        SerfMessage::KeyResponse(response) => {
            let keys = if response.keys.is_empty() {
                Value::Null
            } else {
                json!(response.keys)
            };
            let body = json!({ "Keys": keys, "Message": response.message,
                "PrimaryKey": response.primary_key, "Result": response.result });
            ("keyResponse", body)
        }
        SerfMessage::Relay(relay) => {
            check_serf(name, relay.inner, &expected["inner"]);
            let dest = json!({ "IP": bytes(relay.dest_addr), "Port": relay.dest_port, "Zone": "" });
            ("relay", json!({ "DestAddr": dest, "DestName": relay.dest_name }))
        }
        SerfMessage::PushPull(state) => ("pushPull", serf_state_json(state)),
    }
}

fn serf_state_json(state: &wire::PushPullState<'_>) -> Value {
    let mut slots = Map::new();
    for (index, slot) in state.events.iter().enumerate() {
        if let Some(slot) = slot {
            let events: Vec<Value> = slot
                .events
                .iter()
                .map(|event| json!({ "Name": event.name, "Payload": bytes(event.payload) }))
                .collect();
            slots.insert(
                index.to_string(),
                json!({ "Events": events, "LTime": slot.ltime }),
            );
        }
    }
    let status: Map<String, Value> = state
        .status_ltimes
        .iter()
        .map(|(name, ltime)| (name.to_string(), json!(ltime)))
        .collect();
    json!({ "LTime": state.ltime, "StatusLTimes": status, "LeftMembers": state.left_members,
        "EventLTime": state.event_ltime, "QueryLTime": state.query_ltime,
        "Events": { "len": state.events.len(), "others_nil": true, "items": slots } })
}

/// The payloads of internal queries are Serf messages themselves.
fn check_payload(name: &str, payload: &[u8], expected: &Value) {
    if let Some(inner) = expected.get("payload_decoded") {
        check_serf(name, payload, inner);
    }
}

fn check_filter(name: &str, entry: &[u8], expected: &Value) {
    let filter = Filter::decode(entry).expect(name);
    let (kind, value) = match &filter {
        Filter::Nodes(names) => (0, json!(names)),
        Filter::Tag { tag, expr } => (1, json!({ "Tag": tag, "Expr": expr })),
    };
    assert_eq!(*expected, json!({ "type": kind, "value": value }), "{name}");
    assert_eq!(encoded(|out| filter.encode(out)), entry, "{name}");
}

fn check_coordinate(name: &str, payload: &[u8], expected: &Value) {
    let read = |payload: &[u8]| {
        let coordinate = wire::WireCoordinate::decode_payload(payload);
        coordinate.expect(name).expect("a coordinate")
    };
    // The JSON reader may be off by a last digit, and what is written has 32 bits for each of eleven numbers, not 64.
    let written = encoded(|out| read(payload).encode_payload(out));
    assert_eq!(written.len() + 11 * 4, payload.len(), "{name}");
    for (coordinate, precision) in [(read(payload), 1e-15), (read(&written), 1e-7)] {
        let close = |expected: &Value, found: f64| {
            let expected = expected.as_f64().expect("a number");
            assert!(
                (expected - found).abs() <= precision * found.abs(),
                "{name}: {expected} {found}"
            );
        };
        close(&expected["Error"], coordinate.error);
        close(&expected["Adjustment"], coordinate.adjustment);
        close(&expected["Height"], coordinate.height);
        for (index, component) in coordinate.vec.into_iter().enumerate() {
            close(&expected["Vec"][index], component);
        }
    }
}

fn check_tags(name: &str, meta: &[u8], expected: &Value) {
    let tags = wire::decode_tags(meta);
    let read: Map<String, Value> = tags
        .iter()
        .map(|(key, value)| (key.clone().into_owned(), json!(value)))
        .collect();
    assert_eq!(*expected, Value::Object(read), "{name}");
    // The order of several tags is Go's random map order; it is kept while decoding.
    assert_eq!(encoded(|out| wire::encode_tags(tags, out)), meta, "{name}");
}

fn ping_json(ping: &wire::Ping<'_>) -> Value {
    let mut body = json!({ "SeqNo": ping.seq_no, "Node": ping.node });
    source(&mut body, ping.source_addr, ping.source_port, ping.source_node);
    body
}

fn source(body: &mut Value, addr: &[u8], port: u16, node: &str) {
    if !addr.is_empty() {
        body["SourceAddr"] = bytes(addr);
    }
    if port != 0 {
        body["SourcePort"] = json!(port);
    }
    if !node.is_empty() {
        body["SourceNode"] = json!(node);
    }
}

/// Compares as `==` does, but bytes may be stated as hex, as text, or, when empty, as null.
fn same(name: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) if right.contains_key("hex") => {
            assert_eq!(left.get("hex"), right.get("hex"), "{name}");
        }
        (Value::Object(left), Value::Object(right)) => {
            assert_eq!(
                left.keys().collect::<Vec<_>>(),
                right.keys().collect::<Vec<_>>(),
                "{name}"
            );
            for (key, value) in left {
                same(&format!("{name} {key}"), value, &right[key]);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            assert_eq!(left.len(), right.len(), "{name}");
            left.iter()
                .zip(right)
                .for_each(|(left, right)| same(name, left, right));
        }
        (Value::String(text), Value::Object(_)) => assert_eq!(bytes(text.as_bytes()), *found, "{name}"),
        (Value::Null, Value::Object(_)) => assert_eq!(bytes(b""), *found, "{name}"),
        _ => assert_eq!(expected, found, "{name}"),
    }
}

fn bytes(bytes: &[u8]) -> Value {
    json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
}

fn from_hex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

/// Opens a ciphertext block: version, nonce, ciphertext with tag; version 0 is padded.
fn open(key: &[u8], block: &[u8], aad: &[u8]) -> Vec<u8> {
    let (version, rest) = block.split_first().expect("a version");
    let (nonce, msg) = rest.split_first_chunk::<12>().expect("a nonce");
    let payload = Payload { msg, aad };
    let opened = match key.len() {
        16 => Aes128Gcm::new_from_slice(key)
            .expect("a key")
            .decrypt(nonce.into(), payload),
        _ => Aes256Gcm::new_from_slice(key)
            .expect("a key")
            .decrypt(nonce.into(), payload),
    };
    let mut plain = opened.expect("authentic");
    if *version == 0 {
        let padding = usize::from(*plain.last().expect("padding"));
        plain.truncate(plain.len() - padding);
    }
    plain
}
