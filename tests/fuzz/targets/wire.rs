//! What a peer sends: datagrams and streams.

use fyrd_core::bounds::{
    COMPOUND_BODIES_MAX, DATAGRAM_PLAIN_MAX, PUSH_PULL_NODES_MAX, QUERY_FILTERS_MAX, RING_EVENTS_MAX,
    STREAM_INFLATE_FLOOR, STREAM_INFLATE_RATIO_MAX, STREAM_MESSAGE_MAX, TAGS_MAX,
};
use fyrd_core::wire::{
    DecodeError, Filter, KeyRequest, Message, PushPull, Scratch, SerfMessage, StreamDecoder, StreamMessage,
    StreamPrefix, WireCoordinate, decode_datagram, decode_stream, decode_tags, encode_compound, encode_tags,
    finish_datagram, finish_stream, put_label, split_label,
};
use fyrd_keys::packet::stream_block_len;
use fyrd_keys::{Cipher, Key, Keyring, MAX_STREAM_BLOCK, NONCE_LEN, STREAM_HEADER_LEN};

use super::{cuts, encoded};

/// A small limit, so that inputs of a few kilobytes reach it.
const SMALL_LIMIT: usize = 2048;

/// A datagram as the socket gives it.
pub fn datagram(input: &[u8]) {
    sealed_datagram(input);

    let Ok((label, plain)) = split_label(input) else {
        return;
    };
    if plain.len() < input.len() {
        let again = encoded(|out| {
            put_label(label, out);
            out.extend_from_slice(plain);
        });
        assert_eq!(again, input, "a label");
    }

    let mut scratch = Scratch::default();
    let read = decode_datagram(plain, &mut scratch);
    if let Ok(datagram) = &read {
        let count = datagram.messages.len() + datagram.refused;
        assert!(count <= COMPOUND_BODIES_MAX);
        assert_eq!(datagram.refused > 0, datagram.first_refusal.is_some());
        let bodies: Vec<Vec<u8>> = datagram
            .messages
            .iter()
            .inspect(|message| check_payload(message))
            .map(|message| encoded(|out| message.encode(out)))
            .collect();
        check_written_again(&bodies, &datagram.messages);
    }
    drop(read);
    // Growing doubles at most.
    assert!(scratch.capacity() <= 2 * DATAGRAM_PLAIN_MAX);
    serf_message(input);
}

/// What was read is written, by itself and with all layers around it, and read again.
fn check_written_again(bodies: &[Vec<u8>], messages: &[Message<'_>]) {
    // A long compound could say more than fits once its numbers are written in another form.
    if bodies.is_empty() || bodies.iter().map(Vec::len).sum::<usize>() > DATAGRAM_PLAIN_MAX / 2 {
        return;
    }
    let compound = encoded(|out| encode_compound(bodies, out));
    for (compress, crc) in [(false, false), (true, true)] {
        let plain = finish_datagram(compound.clone(), compress, crc);
        let mut scratch = Scratch::default();
        let again = decode_datagram(&plain, &mut scratch).expect("what we write can be read");
        assert_eq!((again.messages.as_slice(), again.refused), (messages, 0));
    }
}

/// What a message carries for the layers above.
fn check_payload(message: &Message<'_>) {
    match message {
        Message::User(bytes) => serf_message(bytes),
        Message::Ack(ack) => coordinate(ack.payload),
        Message::Alive(alive) => tags(alive.meta),
        _ => {}
    }
}

fn coordinate(payload: &[u8]) {
    if let Ok(Some(coordinate)) = WireCoordinate::decode_payload(payload) {
        let parts = [coordinate.error, coordinate.adjustment, coordinate.height];
        assert!(parts.iter().chain(&coordinate.vec).all(|part| part.is_finite()));
        let again = encoded(|out| coordinate.encode_payload(out));
        // Numbers lose digits once, and then no more.
        let read = WireCoordinate::decode_payload(&again);
        let read = read.expect("readable").expect("a coordinate");
        assert_eq!(encoded(|out| read.encode_payload(out)), again);
    }
}

fn tags(meta: &[u8]) {
    let tags = decode_tags(meta);
    assert!(tags.len() <= TAGS_MAX);
    let again = encoded(|out| encode_tags(tags.iter().map(|(key, value)| (key, value)), out));
    assert_eq!(decode_tags(&again), tags);
}

/// The messages of the layer above, which travel in datagrams and in streams.
fn serf_message(input: &[u8]) {
    let _ = KeyRequest::decode_payload(input);
    tags(input);
    coordinate(input);
    let Ok(message) = SerfMessage::decode(input) else {
        return;
    };
    match &message {
        SerfMessage::Query(query) => {
            assert!(query.filters.len() <= QUERY_FILTERS_MAX);
            for filter in &query.filters {
                let Ok(filter) = Filter::decode(filter) else {
                    continue;
                };
                let again = encoded(|out| filter.encode(out));
                assert_eq!(Filter::decode(&again), Ok(filter));
            }
        }
        SerfMessage::PushPull(state) => {
            let events: usize = state.events.iter().flatten().map(|slot| slot.events.len()).sum();
            assert!(events <= RING_EVENTS_MAX);
            // Each takes a byte at least, so none was made on the word of a header.
            let parts = state.status_ltimes.len() + state.left_members.len() + state.events.len() + events;
            assert!(parts <= input.len());
        }
        _ => {}
    }
    let again = encoded(|out| message.encode(out));
    assert_eq!(SerfMessage::decode(&again), Ok(message));
}

/// A stream as it comes from the socket, in pieces.
pub fn stream(input: &[u8]) {
    let _ = StreamPrefix::parse(input);
    sealed_stream(input);
    for limit in [SMALL_LIMIT, STREAM_MESSAGE_MAX] {
        let (whole, whole_end) = fed(input, &[input.len()], limit);
        let (pieces, pieces_end) = fed(input, &cuts(input), limit);
        let (mut whole, mut pieces) = (whole, pieces);
        let (whole, pieces) = (whole.message(), pieces.message());
        assert_eq!(whole_end, pieces_end, "how it ends depends on the pieces");
        assert_eq!(whole, pieces, "what it says depends on the pieces");
        if let Ok(message) = &whole {
            check_stream_message(message, input, limit);
        }
    }
    let mut scratch = Vec::new();
    let _ = decode_stream(input, &mut scratch, STREAM_MESSAGE_MAX);
    let most = STREAM_INFLATE_FLOOR.max(STREAM_INFLATE_RATIO_MAX * input.len());
    assert!(scratch.capacity() <= 2 * most);
}

/// A decoder that got pieces with these ends until it had enough, and what it said last.
fn fed(input: &[u8], ends: &[usize], limit: usize) -> (StreamDecoder, Result<bool, DecodeError>) {
    let mut decoder = StreamDecoder::new(limit);
    let mut start = 0;
    let mut state = decoder.is_complete();
    for &end in ends {
        if state != Ok(false) {
            break;
        }
        decoder.push(&input[start..end]);
        assert!(decoder.received() <= end.min(limit + 1));
        state = decoder.is_complete();
        start = end;
    }
    (decoder, state)
}

fn check_stream_message(message: &StreamMessage<'_>, input: &[u8], limit: usize) {
    let mut sent = message.clone();
    if let StreamMessage::PushPull(state) = &mut sent {
        // A node takes several bytes, compressed or not.
        let most = limit.min(STREAM_INFLATE_FLOOR.max(STREAM_INFLATE_RATIO_MAX * input.len()));
        assert!(state.nodes.len() as u64 + state.refused.count <= most.min(PUSH_PULL_NODES_MAX) as u64);
        serf_message(state.user_state);
        // Nodes that were left out are not sent on.
        state.refused = PushPull::default().refused;
    }
    if let StreamMessage::User(bytes) = message {
        serf_message(bytes);
    }
    for compress in [false, true] {
        let bytes = finish_stream(encoded(|out| sent.encode(out)), compress);
        let mut scratch = Vec::new();
        let again = decode_stream(&bytes, &mut scratch, STREAM_MESSAGE_MAX);
        assert_eq!(again.as_ref(), Ok(&sent), "compressed: {compress}");
    }
}

/// A stranger's packet is not opened, and one of ours gives back what is in it. The older form, which is
/// opened but never sealed, has padding at the end of its content.
fn sealed_datagram(input: &[u8]) {
    let ring = ring();
    assert!(ring.open_datagram(b"", &mut input.to_vec(), None).is_err());
    let mut packet = input.to_vec();
    ring.seal_datagram(&[7; NONCE_LEN], b"label", &mut packet);
    let mut padded = packet.clone();
    let (opened, _) = ring.open_datagram(b"label", &mut packet, None).expect("our own");
    assert_eq!(opened, input);
    padded[0] = 0;
    if let Ok((opened, _)) = ring.open_datagram(b"label", &mut padded, None) {
        assert!(input.starts_with(opened), "padding is taken off the end");
    }
}

/// A stream that claims to be sealed: its length is bounded, and it is not opened.
fn sealed_stream(input: &[u8]) {
    let Some((header, block)) = input.split_first_chunk::<STREAM_HEADER_LEN>() else {
        return;
    };
    assert!(stream_block_len(header).unwrap_or(0) <= MAX_STREAM_BLOCK);
    assert!(
        ring()
            .open_stream(header, b"", &mut block.to_vec(), None)
            .is_err()
    );
}

fn ring() -> Keyring {
    Keyring::new(Key::from_bytes(Cipher::Aes256Gcm, &[7; 32]).expect("32 bytes"))
}
