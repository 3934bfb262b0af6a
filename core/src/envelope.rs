//! The outer layers of what a node sends and receives: label, encryption, and the choice of compression.
//!
//! ```text
//! datagram = label header | sealed( CRC | compressed message )
//! stream   = label header | sealed( compressed message )        the answer carries no label header
//! ```
//!
//! A nonce that repeats would break the key, so whoever owns the randomness hands each one in: the driver
//! from the operating system, the simulator from its seed.

mod assembly;
mod replay;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use fyrd_keys::{HEADROOM, Keyring, NONCE_LEN, OpenError, PeerKeys};

use crate::bounds;
use crate::wire::{self, DecodeError, StreamDecoder, StreamMessage};

use crate::time::Time;
pub use assembly::{Assembly, Received, Unreadable};
pub use replay::Stale;
use replay::Window;

/// Twelve bytes that no other packet of the same key has.
pub type Nonce = [u8; NONCE_LEN];

/// A nonce, or why there is none: then nothing is sealed.
pub type Drawn = Result<Nonce, String>;

/// Seals and opens for one node.
#[derive(Debug)]
pub struct Envelope {
    keyring: Option<Keyring>,
    peers: PeerKeys,
    label: Vec<u8>,
    compress: bool,
    /// Whether nonces carry the time, and it counts.
    window: Option<Window>,
    datagram: Vec<u8>,
}

/// Why a datagram was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// Its label is broken.
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    /// It is of another cluster.
    #[error("discarding packet with {0}")]
    Label(OtherLabel),
    /// No key opens it.
    #[error("Decrypt packet failed: {0}")]
    Sealed(#[from] OpenError),
    /// It is too old.
    #[error("{0}")]
    Stale(Stale),
}

/// A label met that is not this cluster's. Either is empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherLabel {
    /// The one met.
    pub met: Vec<u8>,
    /// This cluster's.
    pub own: Vec<u8>,
}

impl fmt::Display for OtherLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |label| String::from_utf8_lossy(label).into_owned();
        write!(
            f,
            "unacceptable label {:?}: members of this cluster have ",
            shown(&self.met)
        )?;
        if self.own.is_empty() {
            f.write_str("none (-label)")
        } else {
            write!(f, "{:?} (-label)", shown(&self.own))
        }
    }
}

/// A stream message without encryption, ready to be decoded.
#[derive(Debug)]
pub enum Opened {
    /// It was sealed.
    Sealed {
        /// The block, opened in place.
        block: Vec<u8>,
        /// Where the message stands in it.
        plain: Range<usize>,
        /// The message once it is decompressed.
        inflated: Vec<u8>,
    },
    /// It was not.
    Plain(Box<StreamDecoder>),
}

impl Opened {
    /// Decodes it.
    pub fn message(&mut self) -> Result<StreamMessage<'_>, DecodeError> {
        match self {
            Opened::Sealed {
                block,
                plain,
                inflated,
            } => {
                let plain = block.get(plain.clone()).unwrap_or_default();
                wire::decode_stream(plain, inflated, bounds::STREAM_MESSAGE_MAX)
            }
            Opened::Plain(decoder) => decoder.message(),
        }
    }
}

impl Envelope {
    /// Without a keyring nothing is encrypted; the empty label is none.
    pub fn new(keyring: Option<Keyring>, label: Vec<u8>, compress: bool) -> Envelope {
        Envelope {
            keyring,
            peers: PeerKeys::new(),
            label,
            compress,
            window: None,
            datagram: Vec::new(),
        }
    }

    /// The same, but what it seals carries the time, and what others have sealed longer ago than `width`, or will
    /// so much later, is not opened. Then tell it the time by [`Envelope::set_time`].
    pub fn with_replay_window(mut self, width: Option<Duration>) -> Envelope {
        self.window = width.map(Window::new);
        self
    }

    /// The time of day, before each packet that goes or comes; without a replay window it does not matter.
    pub fn set_time(&mut self, now: Time) {
        if let Some(window) = &mut self.window {
            window.set_time(now);
        }
    }

    /// The cluster's label.
    pub fn label(&self) -> &[u8] {
        &self.label
    }

    /// By how many bytes its label lengthens a packet.
    pub fn label_overhead(&self) -> usize {
        if self.label.is_empty() {
            0
        } else {
            2 + self.label.len()
        }
    }

    /// By how many bytes encryption lengthens a datagram.
    pub fn seal_overhead(&self) -> usize {
        self.keyring.as_ref().map_or(0, Keyring::overhead)
    }

    /// The keys, if there is encryption.
    pub fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    /// The keys, to be changed: what comes and goes from now on is sealed with the changed ones.
    pub fn keyring_mut(&mut self) -> &mut Option<Keyring> {
        &mut self.keyring
    }

    /// Takes label and encryption off a datagram, in place.
    pub fn open_datagram<'b>(
        &mut self,
        from: SocketAddr,
        packet: &'b mut [u8],
    ) -> Result<&'b [u8], Unopened> {
        let (label, body) = wire::split_label(packet)?;
        if label != self.label {
            return Err(Unopened::Label(OtherLabel {
                met: label.to_vec(),
                own: self.label.clone(),
            }));
        }
        let skip = packet.len() - body.len();
        let body = packet.get_mut(skip..).unwrap_or_default();
        let Some(keyring) = &self.keyring else {
            return Ok(body);
        };
        let head: [u8; HEADROOM] = body.first_chunk().copied().unwrap_or_default();
        let (plain, key) = keyring.open_datagram(&self.label, body, self.peers.hint(&from))?;
        self.peers.remember(keyring, from, key);
        if let Some(window) = &self.window {
            window.check(&head).map_err(Unopened::Stale)?;
        }
        Ok(plain)
    }

    /// Puts all layers around a datagram. The result is good until the next call. No nonce is drawn
    /// without encryption.
    pub fn close_datagram(
        &mut self,
        nonce: impl FnOnce() -> Drawn,
        plain: Vec<u8>,
        crc: bool,
    ) -> Result<&[u8], String> {
        let plain = wire::finish_datagram(plain, self.compress, crc);
        let out = &mut self.datagram;
        out.clear();
        wire::put_label(&self.label, out);
        match &self.keyring {
            Some(keyring) => {
                let start = out.len();
                out.resize(start + HEADROOM, 0);
                out.extend_from_slice(&plain);
                let nonce = stamped(self.window.as_ref(), nonce)?;
                keyring.seal_datagram_in(&nonce, &self.label, out, start);
            }
            None => out.extend_from_slice(&plain),
        }
        Ok(out)
    }

    /// Puts all layers around a message that opens a stream.
    pub fn close_request(&self, nonce: impl FnOnce() -> Drawn, plain: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        wire::put_label(&self.label, &mut out);
        let sealed = self.close_reply(nonce, plain)?;
        if out.is_empty() {
            return Ok(sealed);
        }
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Puts all layers around the answer on a stream: its encryption covers the label, which is not sent.
    pub fn close_reply(&self, nonce: impl FnOnce() -> Drawn, plain: Vec<u8>) -> Result<Vec<u8>, String> {
        let plain = wire::finish_stream(plain, self.compress);
        match &self.keyring {
            Some(keyring) => keyring
                .seal_stream(&stamped(self.window.as_ref(), nonce)?, &self.label, &plain)
                .map_err(|error| error.to_string()),
            None => Ok(plain),
        }
    }

    /// Takes encryption off a stream message; the answer to a peer that got it wrong is the error.
    pub fn open_stream(&self, from: SocketAddr, received: Received) -> Result<Opened, String> {
        match (&self.keyring, received) {
            (None, Received::Plain(decoder)) => Ok(Opened::Plain(decoder)),
            (None, Received::Sealed { .. }) => Err(REMOTE_IS_ENCRYPTED.to_owned()),
            (Some(_), Received::Plain(_)) => Err(REMOTE_IS_PLAIN.to_owned()),
            (Some(keyring), Received::Sealed { header, mut block }) => {
                // The peer's datagrams come from another port, so their hint is of no use here.
                let opened = keyring.open_stream(&header, &self.label, &mut block, self.peers.hint(&from));
                let (plain, _) = opened.map_err(|error| error.to_string())?;
                let plain = HEADROOM..HEADROOM + plain.len();
                if let Some(window) = &self.window {
                    window.check(&block).map_err(|stale| stale.to_string())?;
                }
                Ok(Opened::Sealed {
                    block,
                    plain,
                    inflated: Vec::new(),
                })
            }
        }
    }
}

/// A nonce, with the time in it where there is a window.
fn stamped(window: Option<&Window>, nonce: impl FnOnce() -> Drawn) -> Drawn {
    let nonce = nonce()?;
    Ok(window.map_or(nonce, |window| window.stamp(nonce)))
}

/// A peer without encryption talks to us, who have it.
const REMOTE_IS_PLAIN: &str = "Encryption is configured but remote state is not encrypted";
/// A peer with encryption talks to us, who have none.
const REMOTE_IS_ENCRYPTED: &str = "Remote state is encrypted and encryption is not configured";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "EBESExQVFhcYGRobHB0eHw==";

    fn envelope(key: Option<&str>, label: &str) -> Envelope {
        let ring = key.map(|key| Keyring::new(key.parse().unwrap()));
        Envelope::new(ring, label.as_bytes().to_vec(), true)
    }

    fn nonce() -> Drawn {
        Ok([1; NONCE_LEN])
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
                    .close_datagram(nonce, b"\x08hello".to_vec(), false)
                    .unwrap()
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
    fn each_packet_has_the_nonce_it_was_given() {
        let mut sealer = envelope(Some(KEY), "lab");
        let datagram = sealer
            .close_datagram(|| Ok([7; NONCE_LEN]), b"\x08x".to_vec(), false)
            .unwrap();
        let (label, block) = wire::split_label(datagram).unwrap();
        assert_eq!((label, &block[1..HEADROOM]), (&b"lab"[..], &[7; NONCE_LEN][..]));
        let reply = sealer
            .close_reply(|| Ok([8; NONCE_LEN]), b"\x08x".to_vec())
            .unwrap();
        assert_eq!(reply[6..5 + HEADROOM], [8; NONCE_LEN]);
        let request = sealer
            .close_request(|| Ok([8; NONCE_LEN]), b"\x08x".to_vec())
            .unwrap();
        assert_eq!(request, [b"\xf4\x03lab", &reply[..]].concat());
        let none = || Err("no randomness".to_owned());
        let refused = sealer.close_datagram(none, b"\x08x".to_vec(), false);
        assert_eq!(refused, Err("no randomness".to_owned()));
        let plain = envelope(None, "")
            .close_datagram(none, b"\x08x".to_vec(), false)
            .map(<[u8]>::to_vec);
        assert_eq!(plain, Ok(b"\x08x".to_vec()), "nothing is sealed");
    }

    #[test]
    fn streams_tell_a_wrong_setup_by_serfs_words() {
        let sealed = |key| {
            let mut message = Vec::new();
            StreamMessage::Err("x").encode(&mut message);
            let stream = envelope(Some(key), "").close_reply(nonce, message).unwrap();
            let (header, block) = stream.split_first_chunk().unwrap();
            Received::Sealed {
                header: *header,
                block: block.to_vec(),
            }
        };
        let plain = || Received::Plain(Box::default());
        let ours = envelope(Some(KEY), "");
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
