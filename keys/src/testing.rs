//! What the tests of several modules share.

use crate::{Cipher, Key};

pub(crate) const CIPHERS: [Cipher; 4] = [
    Cipher::Aes128Gcm,
    Cipher::Aes192Gcm,
    Cipher::Aes256Gcm,
    Cipher::ChaCha20Poly1305,
];

/// The bytes 00 to 1f, the AES-256 key of most vectors.
pub(crate) const K1: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The bytes f0 to ff, an AES-128 key.
pub(crate) const K2: &str = "8PHy8/T19vf4+fr7/P3+/w==";

/// A key whose bytes are all the same.
pub(crate) fn key(cipher: Cipher, byte: u8) -> Key {
    Key::from_bytes(cipher, &vec![byte; cipher.key_len()]).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
