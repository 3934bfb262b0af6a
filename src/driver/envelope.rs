//! The outer layers of what this node sends and receives: label, encryption, and the choice of
//! compression.

use std::net::SocketAddr;

use fyrd_keys::{HEADROOM, Keyring, NONCE_LEN, OpenError, PeerKeys};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use fyrd_core::bounds;
use fyrd_core::wire::{self, DecodeError, StreamDecoder, StreamMessage};

/// Seals and opens for one node.
pub(super) struct Envelope {
    keyring: Option<Keyring>,
    peers: PeerKeys,
    label: Vec<u8>,
    compress: bool,
    nonces: StdRng,
    datagram: Vec<u8>,
}

/// Why a datagram was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unopened {
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("discarding packet with unacceptable label")]
    Label,
    #[error("Decrypt packet failed: {0}")]
    Sealed(#[from] OpenError),
}

/// One stream message as it arrived, its label taken off.
#[derive(Debug)]
pub(super) enum Received {
    /// An encrypted frame.
    Sealed { header: [u8; 5], block: Vec<u8> },
    /// A message in plain form, complete.
    Plain(Box<StreamDecoder>),
}

/// A stream message without encryption, ready to be decoded.
#[derive(Debug)]
pub(super) enum Opened {
    Sealed { plain: Vec<u8>, inflated: Vec<u8> },
    Plain(Box<StreamDecoder>),
}

impl Opened {
    pub(super) fn message(&mut self) -> Result<StreamMessage<'_>, DecodeError> {
        match self {
            Opened::Sealed { plain, inflated } => {
                wire::decode_stream(plain, inflated, bounds::STREAM_MESSAGE_MAX)
            }
            Opened::Plain(decoder) => decoder.message(),
        }
    }
}

impl Envelope {
    /// Fails only when the operating system gives no randomness.
    pub(super) fn new(keyring: Option<Keyring>, label: Vec<u8>, compress: bool) -> Result<Envelope, String> {
        let nonces = StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| format!("the operating system gives no random numbers: {error}"))?;
        Ok(Envelope {
            keyring,
            peers: PeerKeys::new(),
            label,
            compress,
            nonces,
            datagram: Vec::new(),
        })
    }

    pub(super) fn label(&self) -> &[u8] {
        &self.label
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.keyring.is_some()
    }

    pub(super) fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    /// Seals and opens with other keys from now on.
    pub(super) fn set_keyring(&mut self, ring: Keyring) {
        self.keyring = Some(ring);
    }

    /// Takes label and encryption off a datagram, in place.
    pub(super) fn open_datagram<'b>(
        &mut self,
        from: SocketAddr,
        packet: &'b mut [u8],
    ) -> Result<&'b [u8], Unopened> {
        let (label, body) = wire::split_label(packet)?;
        if label != self.label {
            return Err(Unopened::Label);
        }
        let skip = packet.len() - body.len();
        let body = packet.get_mut(skip..).unwrap_or_default();
        let Some(keyring) = &self.keyring else {
            return Ok(body);
        };
        let (plain, key) = keyring.open_datagram(&self.label, body, self.peers.hint(&from))?;
        self.peers.remember(keyring, from, key);
        Ok(plain)
    }

    /// Puts all outer layers around a datagram. The result is good until the next call.
    pub(super) fn close_datagram(&mut self, plain: Vec<u8>, crc: bool) -> &[u8] {
        let plain = wire::finish_datagram(plain, self.compress, crc);
        let out = &mut self.datagram;
        out.clear();
        wire::put_label(&self.label, out);
        match &self.keyring {
            Some(keyring) => {
                let start = out.len();
                out.resize(start + HEADROOM, 0);
                out.extend_from_slice(&plain);
                keyring.seal_datagram_in(&next_nonce(&mut self.nonces), &self.label, out, start);
            }
            None => out.extend_from_slice(&plain),
        }
        out
    }

    /// Puts compression and encryption around a stream message. The dialler writes the label first.
    pub(super) fn close_stream(&mut self, plain: Vec<u8>) -> Result<Vec<u8>, String> {
        let plain = wire::finish_stream(plain, self.compress);
        match &self.keyring {
            Some(keyring) => keyring
                .seal_stream(&next_nonce(&mut self.nonces), &self.label, &plain)
                .map_err(|error| error.to_string()),
            None => Ok(plain),
        }
    }

    /// Takes encryption off a stream message; the answer to a peer that got it wrong is the error.
    pub(super) fn open_stream(&mut self, from: SocketAddr, received: Received) -> Result<Opened, String> {
        match (&self.keyring, received) {
            (None, Received::Plain(decoder)) => Ok(Opened::Plain(decoder)),
            (None, Received::Sealed { .. }) => Err(REMOTE_IS_ENCRYPTED.to_owned()),
            (Some(_), Received::Plain(_)) => Err(REMOTE_IS_PLAIN.to_owned()),
            (Some(keyring), Received::Sealed { header, mut block }) => {
                // The peer's datagrams come from another port, so their hint is of no use here.
                let opened = keyring.open_stream(&header, &self.label, &mut block, self.peers.hint(&from));
                let (plain, _) = opened.map_err(|error| error.to_string())?;
                Ok(Opened::Sealed {
                    plain: plain.to_vec(),
                    inflated: Vec::new(),
                })
            }
        }
    }
}

/// A peer without encryption talks to us, who have it.
pub(super) const REMOTE_IS_PLAIN: &str = "Encryption is configured but remote state is not encrypted";
/// A peer with encryption talks to us, who have none.
pub(super) const REMOTE_IS_ENCRYPTED: &str = "Remote state is encrypted and encryption is not configured";

/// Twelve fresh random bytes. A repeated nonce would break the key, so they come from a
/// cryptographic generator seeded by the operating system, never from the node's own randomness.
fn next_nonce(nonces: &mut StdRng) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonces.fill_bytes(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "EBESExQVFhcYGRobHB0eHw==";

    fn envelope(key: Option<&str>, label: &str) -> Envelope {
        let ring = key.map(|key| Keyring::new(key.parse().unwrap()));
        Envelope::new(ring, label.as_bytes().to_vec(), true).unwrap()
    }

    fn from() -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    #[test]
    fn datagrams_cross_only_between_equals() {
        let kinds = [
            (None, ""),
            (None, "lab"),
            (Some(KEY), ""),
            (Some(KEY), "lab"),
            (Some(OTHER), "lab"),
        ];
        for sender in kinds {
            for receiver in kinds {
                let mut packet = envelope(sender.0, sender.1)
                    .close_datagram(b"\x08hello".to_vec(), false)
                    .to_vec();
                let mut opener = envelope(receiver.0, receiver.1);
                let opened = opener.open_datagram(from(), &mut packet);
                // Ciphertext looks like a message to a node without keys; decoding refuses it later.
                let crosses = sender == receiver || (receiver.0.is_none() && sender.1 == receiver.1);
                assert_eq!(opened.is_ok(), crosses, "{sender:?} -> {receiver:?}");
                if sender == receiver {
                    assert_eq!(opened.unwrap(), b"\x08hello");
                }
            }
        }
    }

    #[test]
    fn nonces_never_repeat() {
        let mut envelope = envelope(Some(KEY), "");
        let seen: std::collections::HashSet<Vec<u8>> = (0..1000)
            .map(|_| envelope.close_datagram(b"\x08x".to_vec(), false)[1..13].to_vec())
            .collect();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn streams_tell_a_wrong_setup_by_serfs_words() {
        let sealed = |key| {
            let mut message = Vec::new();
            StreamMessage::Err("x").encode(&mut message);
            let stream = envelope(Some(key), "").close_stream(message).unwrap();
            let (header, block) = stream.split_first_chunk().unwrap();
            Received::Sealed {
                header: *header,
                block: block.to_vec(),
            }
        };
        let plain = || Received::Plain(Box::default());
        let mut ours = envelope(Some(KEY), "");
        let mut opened = ours.open_stream(from(), sealed(KEY)).unwrap();
        assert_eq!(opened.message(), Ok(StreamMessage::Err("x")));
        for (refused, text) in [
            (
                ours.open_stream(from(), sealed(OTHER)),
                "No installed keys could decrypt the message",
            ),
            (
                ours.open_stream(from(), plain()),
                "Encryption is configured but remote state is not encrypted",
            ),
            (
                envelope(None, "").open_stream(from(), sealed(KEY)),
                "Remote state is encrypted and encryption is not configured",
            ),
        ] {
            assert_eq!(refused.unwrap_err(), text);
        }
    }
}
