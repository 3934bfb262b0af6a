//! The ciphers, and a key made ready to seal and open with one of them.

use std::fmt;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, aes};
use chacha20poly1305::ChaCha20Poly1305;

/// The length of a nonce in bytes, the same for every cipher.
pub const NONCE_LEN: usize = 12;

/// The length of an authentication tag in bytes, the same for every cipher.
pub const TAG_LEN: usize = 16;

/// The longest key of any cipher.
pub(crate) const MAX_KEY_LEN: usize = 32;

type Aes192Gcm = AesGcm<aes::Aes192, U12>;

/// What a key encrypts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-128-GCM, a key of 16 bytes.
    Aes128Gcm,
    /// AES-192-GCM, a key of 24 bytes.
    Aes192Gcm,
    /// AES-256-GCM, a key of 32 bytes.
    Aes256Gcm,
    /// ChaCha20-Poly1305, a key of 32 bytes. No Serf or memberlist peer knows it.
    ChaCha20Poly1305,
}

impl Cipher {
    /// The encryption version that a packet sealed with this cipher carries as its first byte.
    ///
    /// AES-GCM has two: 1, and the padded 0, which is opened but never sent.
    pub const fn version(self) -> u8 {
        match self {
            Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The length of a key in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes192Gcm => 24,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The AES cipher that takes keys of this length.
    pub(crate) fn aes_of_len(len: usize) -> Option<Self> {
        [Self::Aes128Gcm, Self::Aes192Gcm, Self::Aes256Gcm]
            .into_iter()
            .find(|cipher| cipher.key_len() == len)
    }

    /// Whether packets of this encryption version can have been sealed with this cipher.
    pub(crate) const fn opens(self, version: u8) -> bool {
        version == self.version() || (version == 0 && self.version() == 1)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes192Gcm => "AES-192-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// A key with its schedule computed, ready for the hot path.
///
/// The states are boxed so that moving a ring about leaves no copies of them behind; the libraries
/// overwrite them when dropped.
#[derive(Clone)]
pub(crate) enum Prepared {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<Aes192Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Prepared {
    /// Expands a key, or gives `None` if it does not have the length that the cipher asks for.
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        fn expand<A: KeyInit>(key: &[u8]) -> Option<Box<A>> {
            A::new_from_slice(key).ok().map(Box::new)
        }
        match cipher {
            Cipher::Aes128Gcm => expand(key).map(Self::Aes128),
            Cipher::Aes192Gcm => expand(key).map(Self::Aes192),
            Cipher::Aes256Gcm => expand(key).map(Self::Aes256),
            Cipher::ChaCha20Poly1305 => expand(key).map(Self::ChaCha),
        }
    }

    /// Encrypts `body` in place and returns its tag.
    ///
    /// # Panics
    ///
    /// If `body` is longer than the cipher allows, which is 64 GiB for AES-GCM.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            Self::Aes128(aead) => seal(&**aead, nonce, aad, body),
            Self::Aes192(aead) => seal(&**aead, nonce, aad, body),
            Self::Aes256(aead) => seal(&**aead, nonce, aad, body),
            Self::ChaCha(aead) => seal(&**aead, nonce, aad, body),
        }
    }

    /// Decrypts `body` in place if the tag is right; otherwise leaves it as it was and returns false.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        match self {
            Self::Aes128(aead) => open(&**aead, nonce, aad, body, tag),
            Self::Aes192(aead) => open(&**aead, nonce, aad, body, tag),
            Self::Aes256(aead) => open(&**aead, nonce, aad, body, tag),
            Self::ChaCha(aead) => open(&**aead, nonce, aad, body, tag),
        }
    }
}

fn seal<A>(aead: &A, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN]
where
    A: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    aead.encrypt_inout_detached(nonce.into(), aad, body.into())
        .expect("a message is far shorter than the 64 GiB that AES-GCM allows")
        .into()
}

fn open<A>(aead: &A, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8], tag: &[u8; TAG_LEN]) -> bool
where
    A: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    aead.decrypt_inout_detached(nonce.into(), aad, body.into(), tag.into())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CIPHERS;

    #[test]
    fn each_cipher_has_its_version_and_key_length() {
        let facts = CIPHERS.map(|cipher| (cipher.version(), cipher.key_len()));
        assert_eq!(facts, [(1, 16), (1, 24), (1, 32), (2, 32)]);
    }

    #[test]
    fn aes_opens_both_its_versions_and_chacha_its_one() {
        for cipher in CIPHERS {
            let opened: Vec<u8> = (0..=255).filter(|&version| cipher.opens(version)).collect();
            let expected: &[u8] = if cipher == Cipher::ChaCha20Poly1305 {
                &[2]
            } else {
                &[0, 1]
            };
            assert_eq!(opened, expected, "{cipher}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_not_expanded() {
        for cipher in CIPHERS {
            for len in 0..=MAX_KEY_LEN + 1 {
                let prepared = Prepared::new(cipher, &vec![1; len]);
                assert_eq!(
                    prepared.is_some(),
                    len == cipher.key_len(),
                    "{cipher}, {len} bytes"
                );
            }
        }
    }

    /// The first vector of RFC 8439, section 2.8.2, because no other program speaks this cipher with us.
    #[test]
    fn chacha_agrees_with_rfc_8439() {
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let mut body =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
            future, sunscreen would be it."
                .to_vec();
        let aead = Prepared::new(Cipher::ChaCha20Poly1305, &key).unwrap();
        let tag = aead.seal(&nonce, &aad, &mut body);
        assert_eq!(crate::testing::hex(&tag), "1ae10b594f09e26a7e902ecbd0600691");
        assert_eq!(
            crate::testing::hex(&body[..16]),
            "d31a8d34648e60db7b86afbc53ef7ec2"
        );
    }
}
