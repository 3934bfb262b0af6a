//! Keys, keyring and packet encryption, wire compatible with memberlist.
//!
//! This crate holds everything of Fyrd that touches key bytes, and nothing else: no sockets, no clock and
//! no source of randomness. Nonces and fresh key bytes come from the caller.
//!
//! - [`Key`] is typed by its [`Cipher`]: AES-GCM, written as plain base64 as Serf does, or
//!   ChaCha20-Poly1305, written `chacha20poly1305:BASE64`.
//! - [`Keyring`] holds the keys of a cluster, the primary first. The primary seals, all can open. It seals
//!   and opens datagrams in place and streams as one block.
//! - [`PeerKeys`] remembers which key last opened a packet of a peer, so that it is tried first.
//! - [`mod@file`] loads and saves the keyring file.
//!
//! The form of a packet on the wire is described in [`packet`].
//!
//! Key bytes are kept on the heap and overwritten when dropped, as is the expanded state of the ciphers.
//! `Debug`, errors and logs name a key by its [`Fingerprint`], never by its bytes.
//!
//! # Example
//!
//! ```
//! use fyrd_keys::{Key, Keyring};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut ring = Keyring::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse()?);
//!
//! // A nonce must never be used twice with one key: draw it from the random generator of the system.
//! let nonce = [7; 12];
//! let mut packet = b"hello".to_vec();
//! ring.seal_datagram(&nonce, b"", &mut packet);
//! assert_eq!(packet.len(), 5 + ring.overhead());
//!
//! // A rotation: the new key is installed everywhere before anybody seals with it.
//! let new: Key = "chacha20poly1305:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse()?;
//! ring.install(new.clone())?;
//! ring.use_key(&new)?;
//!
//! // What was sealed with the old key still opens.
//! let (plain, opened_by) = ring.open_datagram(b"", &mut packet, None)?;
//! assert_eq!(plain, b"hello");
//! assert_ne!(opened_by, ring.primary().fingerprint());
//! # Ok(())
//! # }
//! ```

#[cfg(windows)]
pub mod access;
mod cipher;
pub mod file;
mod key;
pub mod packet;
mod peers;
pub mod replace;
mod ring;

pub use cipher::{Cipher, NONCE_LEN, TAG_LEN};
pub use key::{Fingerprint, Key, KeyError};
pub use packet::{HEADROOM, MAX_STREAM_BLOCK, OVERHEAD, OpenError, STREAM_HEADER_LEN, SealError};
pub use peers::{MAX_PEERS, PeerKeys};
pub use ring::{Keyring, MAX_KEYS, RingError};

#[cfg(test)]
mod testing;
