//! What must hold for every message and for every input: what is written is read back, and nothing a
//! peer can send makes the decoders panic, or hold more than their bounds.

use std::borrow::Cow;

use fyrd_core::bounds::{
    COMPOUND_BODIES_MAX, DATAGRAM_PLAIN_MAX, PUSH_PULL_NODES_MAX, STREAM_INFLATE_RATIO_MAX,
    STREAM_MESSAGE_MAX,
};
use fyrd_core::msgpack::Fault::{Depth, TooMany};
use fyrd_core::wire::{
    Ack, Alive, Dead, Fault, Filter, IndirectPing, JoinIntent, KeyRequest, KeyResponse, LeaveIntent, Message,
    Nack, Ping, PushNodeState, PushPull, PushPullState, Query, QueryResponse, Relay, RingEvent, Scratch,
    SerfMessage, StreamDecoder, StreamMessage, StreamPrefix, Suspect, UserEvent, UserEvents, WireCoordinate,
    WireMember, decode_datagram, decode_stream, decode_tags, encode_compound, encode_tags, finish_datagram,
    finish_stream, put_label, split_label,
};
use proptest::collection::vec;
use proptest::prelude::*;

// Messages borrow, so the strategies make leaked, static parts; a test run leaks a few megabytes.
type Text = &'static str;
type Bytes = &'static [u8];

fn leak(bytes: Vec<u8>) -> Bytes {
    bytes.leak()
}

fn name() -> impl Strategy<Value = Text> {
    "[^\\x00]{1,30}".prop_map(|name| &*name.leak())
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![Just(""), ".{0,60}".prop_map(|text| &*text.leak())]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(leak)
}

fn meta() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=512).prop_map(leak)
}

fn addr() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 4), vec(any::<u8>(), 16)].prop_map(leak)
}

fn vsn() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(vec![]), vec(any::<u8>(), 6)].prop_map(leak)
}

fn maybe<T: Clone + Default + std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = T> {
    prop_oneof![Just(T::default()), some]
}

fn ping() -> impl Strategy<Value = Ping<'static>> {
    (
        any::<u32>(),
        maybe(name()),
        maybe(addr()),
        any::<u16>(),
        maybe(name()),
    )
        .prop_map(|(seq_no, node, source_addr, source_port, source_node)| Ping {
            seq_no,
            node,
            source_addr,
            source_port,
            source_node,
        })
}

fn indirect_ping() -> impl Strategy<Value = IndirectPing<'static>> {
    (ping(), addr(), any::<u16>(), any::<bool>()).prop_map(|(ping, target, port, nack)| IndirectPing {
        seq_no: ping.seq_no,
        target,
        port,
        node: ping.node,
        nack,
        source_addr: ping.source_addr,
        source_port: ping.source_port,
        source_node: ping.source_node,
    })
}

fn ack() -> impl Strategy<Value = Ack<'static>> {
    (any::<u32>(), bytes(), bytes(), any::<u32>()).prop_map(|(seq_no, payload, digest, turn)| Ack {
        turn,
        seq_no,
        payload,
        digest,
    })
}

fn node_state() -> impl Strategy<Value = PushNodeState<'static>> {
    (name(), addr(), any::<u16>(), meta(), any::<u32>(), 0..=3u8, vsn()).prop_map(
        |(name, addr, port, meta, incarnation, state, vsn)| PushNodeState {
            name,
            addr,
            port,
            meta,
            incarnation,
            state,
            vsn,
        },
    )
}

fn message() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        ping().prop_map(Message::Ping),
        indirect_ping().prop_map(Message::IndirectPing),
        ack().prop_map(Message::Ack),
        any::<u32>().prop_map(|seq_no| Message::Nack(Nack { seq_no })),
        (any::<u32>(), name(), maybe(name()), any::<bool>()).prop_map(
            |(incarnation, node, from, refused)| Message::Suspect(Suspect {
                incarnation,
                node,
                from,
                refused
            })
        ),
        (any::<u32>(), name(), maybe(name())).prop_map(|(incarnation, node, from)| Message::Dead(Dead {
            incarnation,
            node,
            from
        })),
        node_state().prop_map(|node| Message::Alive(Alive {
            incarnation: node.incarnation,
            node: node.name,
            addr: node.addr,
            port: node.port,
            meta: node.meta,
            vsn: node.vsn,
        })),
        bytes().prop_map(Message::User),
    ]
}

fn stream_message() -> impl Strategy<Value = StreamMessage<'static>> {
    prop_oneof![
        (any::<bool>(), vec(node_state(), 0..20), bytes()).prop_map(|(join, nodes, user_state)| {
            StreamMessage::PushPull(PushPull {
                join,
                nodes,
                user_state,
                ..PushPull::default()
            })
        }),
        bytes().prop_map(StreamMessage::User),
        ping().prop_map(StreamMessage::Ping),
        ack().prop_map(StreamMessage::Ack),
        text().prop_map(StreamMessage::Err),
    ]
}

fn query() -> impl Strategy<Value = Query<'static>> {
    let facts = (
        any::<u64>(),
        any::<u32>(),
        addr(),
        any::<u16>(),
        maybe(name()),
        any::<u32>(),
    );
    (
        facts,
        vec(bytes(), 0..20),
        any::<u8>(),
        any::<i64>(),
        text(),
        bytes(),
    )
        .prop_map(|(facts, filters, relay_factor, timeout_ns, name, payload)| {
            let (ltime, id, addr, port, source_node, flags) = facts;
            Query {
                ltime,
                id,
                addr,
                port,
                source_node,
                filters,
                flags,
                relay_factor,
                timeout_ns,
                name,
                payload,
            }
        })
}

fn slot() -> impl Strategy<Value = Option<UserEvents<'static>>> {
    let event = (text(), bytes()).prop_map(|(name, payload)| RingEvent { name, payload });
    let slot = (any::<u64>(), vec(event, 0..4));
    proptest::option::of(slot.prop_map(|(ltime, events)| UserEvents { ltime, events }))
}

fn push_pull_state() -> impl Strategy<Value = PushPullState<'static>> {
    let clocks = (any::<u64>(), any::<u64>(), any::<u64>());
    (
        clocks,
        vec((name(), any::<u64>()), 0..20),
        vec(name(), 0..20),
        vec(slot(), 0..20),
    )
        .prop_map(
            |((ltime, event_ltime, query_ltime), status_ltimes, left_members, events)| PushPullState {
                ltime,
                status_ltimes,
                left_members,
                event_ltime,
                events,
                query_ltime,
            },
        )
}

fn member() -> impl Strategy<Value = WireMember<'static>> {
    let versions = any::<[u8; 6]>();
    (
        name(),
        addr(),
        any::<u16>(),
        vec((text(), text()), 0..20),
        any::<u8>(),
        versions,
    )
        .prop_map(
            |(
                name,
                addr,
                port,
                tags,
                status,
                [
                    protocol_min,
                    protocol_max,
                    protocol_cur,
                    delegate_min,
                    delegate_max,
                    delegate_cur,
                ],
            )| WireMember {
                name,
                addr,
                port,
                tags,
                status,
                protocol_min,
                protocol_max,
                protocol_cur,
                delegate_min,
                delegate_max,
                delegate_cur,
            },
        )
}

fn serf_message() -> impl Strategy<Value = SerfMessage<'static>> {
    prop_oneof![
        (any::<u64>(), name(), any::<bool>())
            .prop_map(|(ltime, node, prune)| SerfMessage::Leave(LeaveIntent { ltime, node, prune })),
        (any::<u64>(), name()).prop_map(|(ltime, node)| SerfMessage::Join(JoinIntent { ltime, node })),
        push_pull_state().prop_map(SerfMessage::PushPull),
        (any::<u64>(), text(), bytes(), any::<bool>()).prop_map(|(ltime, name, payload, coalesce)| {
            SerfMessage::UserEvent(UserEvent {
                ltime,
                name,
                payload,
                coalesce,
            })
        }),
        query().prop_map(SerfMessage::Query),
        (any::<u64>(), any::<u32>(), name(), any::<u32>(), bytes()).prop_map(
            |(ltime, id, from, flags, payload)| {
                SerfMessage::QueryResponse(QueryResponse {
                    ltime,
                    id,
                    from,
                    flags,
                    payload,
                })
            }
        ),
        proptest::option::of(member()).prop_map(SerfMessage::ConflictResponse),
        bytes().prop_map(|key| SerfMessage::KeyRequest(KeyRequest { key })),
        (any::<bool>(), text(), vec(text(), 0..20), text()).prop_map(
            |(result, message, keys, primary_key)| {
                SerfMessage::KeyResponse(KeyResponse {
                    result,
                    message,
                    keys,
                    primary_key,
                })
            }
        ),
        (
            addr(),
            any::<u16>(),
            maybe(name()),
            bytes().prop_filter("not empty", |inner| !inner.is_empty())
        )
            .prop_map(|(dest_addr, dest_port, dest_name, inner)| {
                SerfMessage::Relay(Relay {
                    dest_addr,
                    dest_port,
                    dest_name,
                    inner,
                })
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn datagrams_round_trip(
        messages in vec(message(), 1..20),
        compress in any::<bool>(),
        crc in any::<bool>(),
        label in vec(any::<u8>(), 0..=255),
    ) {
        let bodies: Vec<_> = messages.iter().map(|message| encoded(|out| message.encode(out))).collect();
        let inner = match bodies.as_slice() {
            [single] => single.clone(),
            several => encoded(|out| encode_compound(several, out)),
        };
        let plain = finish_datagram(inner, compress, crc);
        let packet = encoded(|out| {
            put_label(&label, out);
            out.extend_from_slice(&plain);
        });
        let (found, rest) = split_label(&packet).expect("a label");
        prop_assert_eq!(found, label.as_slice());
        let mut scratch = Scratch::default();
        let datagram = decode_datagram(rest, &mut scratch).expect("readable");
        prop_assert_eq!(datagram.messages, messages);
        prop_assert_eq!((datagram.refused, datagram.first_refusal), (0, None));
    }

    #[test]
    fn stream_messages_round_trip(message in stream_message(), compress in any::<bool>(), step in 1..500usize) {
        let bytes = finish_stream(encoded(|out| message.encode(out)), compress);
        let mut decoder = StreamDecoder::default();
        for chunk in bytes.chunks(step) {
            prop_assert_eq!(decoder.is_complete(), Ok(false));
            decoder.push(chunk);
        }
        prop_assert_eq!(decoder.is_complete(), Ok(true));
        prop_assert_eq!(decoder.message(), Ok(message));
    }

    #[test]
    fn serf_messages_round_trip(message in serf_message()) {
        let bytes = encoded(|out| message.encode(out));
        prop_assert_eq!(SerfMessage::decode(&bytes), Ok(message));
    }

    #[test]
    fn coordinates_round_trip(vec in any::<[i32; 8]>(), error in 0.0..1.5f32, height in any::<f32>()) {
        prop_assume!(height.is_finite());
        // They leave with 32 bits.
        let vec = vec.map(|component| f64::from(component as f32 / 1e9));
        let error = f64::from(error);
        let coordinate = WireCoordinate { vec, error, adjustment: -error, height: f64::from(height) };
        let bytes = encoded(|out| coordinate.encode_payload(out));
        prop_assert_eq!(WireCoordinate::decode_payload(&bytes), Ok(Some(coordinate)));
    }

    #[test]
    fn tags_and_filters_round_trip(tags in proptest::collection::btree_map(text(), text(), 0..20)) {
        let meta = encoded(|out| encode_tags(&tags, out));
        let expected: Vec<_> = tags.iter().map(|(k, v)| (Cow::Borrowed(*k), Cow::Borrowed(*v))).collect();
        prop_assert_eq!(decode_tags(&meta), expected);
        for (tag, expr) in &tags {
            let filter = Filter::Tag { tag, expr };
            let bytes = encoded(|out| filter.encode(out));
            prop_assert_eq!(Filter::decode(&bytes), Ok(filter));
        }
        let filter = Filter::Nodes(tags.keys().copied().collect());
        let bytes = encoded(|out| filter.encode(out));
        prop_assert_eq!(Filter::decode(&bytes), Ok(filter));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..600)) {
        feed(&noise);
    }

    /// Noise that begins as a message does gets further into the decoders.
    #[test]
    fn msgpack_like_noise_never_panics(
        kind in 0..14u8,
        parts in vec(proptest::sample::select(PIECES), 0..40),
    ) {
        let mut input = vec![kind];
        input.extend(parts.concat());
        feed(&input);
    }
}

/// Keys that some decoder knows, and values that are hard to digest.
const PIECES: &[&[u8]] = &[
    b"\x83",
    b"\xa5SeqNo",
    b"\xa4Node",
    b"\xa5Nodes",
    b"\xacUserStateLen",
    b"\xa6Events",
    b"\xa4Tags",
    b"\xa4Meta",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x91",
    b"\xc0",
    b"\x07",
    b"\xd3\x80\0\0\0\0\0\0\0",
    b"\xc1",
];

#[test]
fn truncated_vectors_never_panic() {
    for bytes in vectors() {
        for len in 0..bytes.len() {
            feed(&bytes[..len]);
        }
    }
}

#[test]
fn vectors_with_any_one_bit_flipped_never_panic() {
    for mut bytes in vectors() {
        for index in 0..bytes.len() {
            for bit in 0..8 {
                bytes[index] ^= 1 << bit;
                feed(&bytes);
                bytes[index] ^= 1 << bit;
            }
        }
    }
}

/// A bomb of about 198 KB that would become 256 MB.
#[test]
fn a_bomb_is_refused_with_bounded_memory() {
    let mut plain = b"\x08\x81\xaaUserMsgLen\xce\x10\0\0\0".to_vec();
    plain.resize(plain.len() + (256 << 20), 0);
    let bomb = finish_stream(plain, true);
    assert!(bomb.len() < 300_000, "{}", bomb.len());

    let mut decoder = StreamDecoder::default();
    decoder.push(&bomb);
    assert_eq!(
        decoder.is_complete(),
        Ok(true),
        "as a compressed message it is complete"
    );
    let error = decoder.message().expect_err("a bomb");
    assert!(
        matches!(error.fault, Fault::Inflates(max) if max <= STREAM_MESSAGE_MAX),
        "{error}"
    );

    let mut scratch = Vec::new();
    assert!(decode_stream(&bomb, &mut scratch, STREAM_MESSAGE_MAX).is_err());
    assert!(scratch.capacity() <= 2 * (bomb.len() * STREAM_INFLATE_RATIO_MAX).min(STREAM_MESSAGE_MAX));

    let mut scratch = Scratch::default();
    let error = decode_datagram(&bomb, &mut scratch).expect_err("a bomb");
    assert_eq!(error.fault, Fault::Inflates(DATAGRAM_PLAIN_MAX));
    assert!(
        scratch.capacity() <= 2 * DATAGRAM_PLAIN_MAX,
        "{}",
        scratch.capacity()
    );
}

#[test]
fn a_header_that_promises_2_to_the_31_nodes_is_refused_before_any_comes() {
    let mut decoder = StreamDecoder::default();
    decoder.push(b"\x06\x83\xa4Join\xc3\xa5Nodes\xce\x80\0\0\0\xacUserStateLen\0");
    let error = decoder.is_complete().expect_err("too many nodes");
    assert_eq!(
        error.fault,
        Fault::Value(TooMany {
            len: 1 << 31,
            max: PUSH_PULL_NODES_MAX as u64
        })
    );
    assert!(error.to_string().contains("Nodes"), "{error}");
}

#[test]
fn nests_of_layers_are_refused() {
    let nack = encoded(|out| Nack { seq_no: 1 }.encode(out));
    let mut compounds = nack.clone();
    let mut compressed = nack;
    // Fewer of the latter, for each makes it longer by a fifth.
    for _ in 0..10 {
        compressed = finish_stream(compressed, true);
    }
    for _ in 0..1000 {
        compounds = encoded(|out| encode_compound(&[&compounds], out));
    }
    let mut scratch = Scratch::default();
    let datagram = decode_datagram(&compounds, &mut scratch).expect("its outermost compound");
    assert_eq!((datagram.messages.len(), datagram.refused), (0, 1));
    let mut scratch = Scratch::default();
    let error = decode_datagram(&compressed, &mut scratch).expect_err("nested");
    assert!(matches!(error.fault, Fault::Type(9)), "{error}");
    let mut scratch = Vec::new();
    assert!(decode_stream(&compressed, &mut scratch, STREAM_MESSAGE_MAX).is_err());
}

#[test]
fn deep_msgpack_is_refused() {
    for open in [0x91, 0x81] {
        for kind in [0, 2, 4, 6, 8, 13] {
            let mut bomb = vec![kind, 0x81, 0xa1, b'x'];
            bomb.resize(60_000, open);
            let mut scratch = Scratch::default();
            if kind != 8 {
                assert!(decode_datagram(&bomb, &mut scratch).is_err());
            }
            let mut scratch = Vec::new();
            if kind != 4 {
                let error = decode_stream(&bomb, &mut scratch, STREAM_MESSAGE_MAX).expect_err("too deep");
                assert_eq!(error.fault, Fault::Value(Depth));
            }
            feed(&bomb);
        }
    }
}

#[test]
fn a_full_compound_is_read() {
    let nack = encoded(|out| Nack { seq_no: 1 }.encode(out));
    let packet = encoded(|out| encode_compound(&vec![&nack; COMPOUND_BODIES_MAX], out));
    let mut scratch = Scratch::default();
    let datagram = decode_datagram(&packet, &mut scratch).expect("readable");
    assert_eq!(datagram.messages.len(), COMPOUND_BODIES_MAX);
}

#[test]
fn the_next_datagram_is_read_without_allocations() {
    let nack = encoded(|out| Nack { seq_no: 1 }.encode(out));
    let packet = encoded(|out| encode_compound(&vec![&nack; COMPOUND_BODIES_MAX], out));
    for (plain, messages) in [(nack.clone(), 1), (packet, COMPOUND_BODIES_MAX)] {
        for compress in [false, true] {
            let datagram = finish_datagram(plain.clone(), compress, true);
            let mut scratch = Scratch::default();
            let mut read = || {
                let datagram = decode_datagram(&datagram, &mut scratch).expect("readable");
                assert_eq!(datagram.messages.len(), messages);
                let room = datagram.into_room();
                scratch.keep(room);
            };
            read();
            assert_eq!(
                allocation_counter::measure(read).count_total,
                0,
                "{messages}, {compress}"
            );
        }
    }
}

/// Shows every decoder the input; none may panic, nor hold more than its bound.
fn feed(input: &[u8]) {
    let mut scratch = Scratch::default();
    if let Ok(datagram) = decode_datagram(input, &mut scratch) {
        assert!(datagram.messages.len() + datagram.refused <= COMPOUND_BODIES_MAX);
        for message in &datagram.messages {
            match message {
                Message::User(bytes) => feed_serf(bytes),
                Message::Ack(ack) => drop(WireCoordinate::decode_payload(ack.payload)),
                Message::Alive(alive) => drop(decode_tags(alive.meta)),
                _ => {}
            }
        }
    }
    assert!(scratch.capacity() <= 2 * DATAGRAM_PLAIN_MAX);
    let _ = StreamPrefix::parse(input);
    if let Ok((_, rest)) = split_label(input)
        && rest.len() < input.len()
    {
        feed(rest);
    }
    let mut decoder = StreamDecoder::default();
    decoder.push(input);
    if let Ok(StreamMessage::PushPull(state)) = decoder.message() {
        feed_serf(state.user_state);
    }
    feed_serf(input);
}

fn feed_serf(input: &[u8]) {
    if let Ok(SerfMessage::Query(query)) = SerfMessage::decode(input) {
        for filter in query.filters {
            let _ = Filter::decode(filter);
        }
    }
    let _ = Filter::decode(input);
    let _ = KeyRequest::decode_payload(input);
    let _ = WireCoordinate::decode_payload(input);
    drop(decode_tags(input));
}

fn vectors() -> Vec<Vec<u8>> {
    let all: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    let of_hex = |hex: &serde_json::Value| -> Option<Vec<u8>> {
        let hex = hex.as_str()?.as_bytes();
        let digits = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
        Some(hex.chunks(2).map(digits).collect())
    };
    // Of the encrypted ones the plain form, where it is stated, says more.
    let vectors: Vec<Vec<u8>> = all
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|vector| of_hex(&vector["decoded"]["plain_hex"]).or_else(|| of_hex(&vector["hex"])))
        // Without the checksum around it, a flipped bit reaches what lies inside.
        .map(|bytes| {
            if bytes.first() == Some(&12) {
                bytes[5..].to_vec()
            } else {
                bytes
            }
        })
        .collect();
    assert_eq!(vectors.len(), 58);
    vectors
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
