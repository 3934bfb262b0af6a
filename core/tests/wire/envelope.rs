//! What stands around captured packets of a cluster with a label: taken off, and put on again byte for byte.

use std::net::SocketAddr;

use fyrd_core::envelope::{Assembly, Envelope, Nonce, Opened, Unopened, Unreadable};
use fyrd_keys::Keyring;

use crate::vectors::{Vector, vectors};

fn envelope(vector: &Vector, label: &str) -> Envelope {
    let ring = vector
        .key_text()
        .map(|key| Keyring::new(key.parse().expect("a key")));
    Envelope::new(ring, label.as_bytes().to_vec(), false)
}

/// The nonce of a sealed packet, of which so many bytes are neither ciphertext nor nonce.
fn nonce(sealed: &[u8], skip: usize) -> Nonce {
    sealed[skip..].first_chunk().copied().unwrap_or_default()
}

fn from() -> SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

#[test]
fn packets_of_a_labelled_cluster_are_opened_and_closed_to_the_byte() {
    let labelled: Vec<Vector> = vectors()
        .into_iter()
        .filter(|one| !one.label.is_empty())
        .collect();
    assert_eq!(labelled.len(), 5);
    for vector in &labelled {
        if vector.udp {
            check_datagram(vector);
        } else {
            check_stream(vector);
        }
    }
}

fn check_datagram(vector: &Vector) {
    let name = &vector.name;
    let mut envelope = envelope(vector, &vector.label);
    let plain = envelope
        .open_datagram(from(), &mut vector.bytes.clone())
        .expect(name)
        .to_vec();
    // A label's header, then the version of the encryption.
    let nonce = nonce(&vector.bytes, 2 + vector.label.len() + 1);
    assert_eq!(
        envelope.close_datagram(|| Ok(nonce), plain, false),
        Ok(&*vector.bytes),
        "{name}"
    );
    for label in ["", "lab2", "lab"] {
        let mut other = self::envelope(vector, label);
        let mut packet = vector.bytes.clone();
        let refused = other.open_datagram(from(), &mut packet);
        let Err(Unopened::Label(met)) = refused else {
            panic!("{name} in a cluster {label:?}: {refused:?}");
        };
        assert_eq!(
            (&*met.met, &*met.own),
            (vector.label.as_bytes(), label.as_bytes())
        );
    }
}

fn check_stream(vector: &Vector) {
    let name = &vector.name;
    let envelope = envelope(vector, &vector.label);
    let label = vector.label.as_bytes();
    let is_request = vector.bytes[0] == 0xf4;
    let header = if is_request { 2 + label.len() } else { 0 };
    let advance = |label, bytes: &[u8]| {
        let mut assembly = Assembly::new(label, vector.key_text().is_some());
        assembly.bytes = bytes.to_vec();
        assembly.advance()
    };
    let received = advance(is_request.then_some(label), &vector.bytes);
    let received = received.expect(name).expect("all of it");
    let plain = match envelope.open_stream(from(), received).expect(name) {
        Opened::Sealed { block, plain, .. } => block[plain].to_vec(),
        Opened::Plain(mut decoder) => {
            decoder.message().expect(name);
            vector.bytes[header..].to_vec()
        }
    };
    // The frame's header, then the version of the encryption.
    let nonce = nonce(&vector.bytes, header + 5 + 1);
    let again = if is_request {
        envelope.close_request(|| Ok(nonce), plain)
    } else {
        envelope.close_reply(|| Ok(nonce), plain)
    };
    assert_eq!(again.as_ref(), Ok(&vector.bytes), "{name}");
    if !is_request {
        return;
    }
    for (own, bytes) in [
        ("", &vector.bytes[..]),
        ("lab2", &vector.bytes),
        ("lab1", &vector.bytes[header..]),
    ] {
        let refused = advance(Some(own.as_bytes()), bytes);
        assert!(
            matches!(refused, Err(Unreadable::OtherLabel(_))),
            "{name}: {refused:?}"
        );
    }
}
