//! One key: its text, its bytes and the fingerprint that stands for it wherever people look.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cipher::{Cipher, MAX_KEY_LEN, Prepared};

/// A secret key and the cipher it is for.
///
/// The bytes stay in one place on the heap and are overwritten when the key is dropped. Comparison takes
/// the same time wherever two keys differ, and `Debug` shows the cipher and the fingerprint only.
#[derive(Clone)]
pub struct Key {
    cipher: Cipher,
    /// The key, filled up with zeros to the longest length.
    bytes: Box<Zeroizing<[u8; MAX_KEY_LEN]>>,
    fingerprint: Fingerprint,
}

impl Key {
    /// Reads a key from its text: base64 of 16, 24 or 32 bytes for AES-GCM, or `chacha20poly1305:` and
    /// base64 of 32 bytes. The base64 is the standard one with padding; line breaks in it are ignored.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let Some((prefix, base64)) = text.split_once(':') else {
            let bytes = decode_base64(text, 0)?;
            let cipher = Cipher::aes_of_len(bytes.len()).ok_or(KeyError::AesSize)?;
            return Self::from_bytes(cipher, &bytes);
        };
        if prefix != CHACHA_PREFIX {
            return Err(KeyError::UnknownPrefix);
        }
        let bytes = decode_base64(base64, CHACHA_PREFIX.len() + 1)?;
        Self::from_bytes(Cipher::ChaCha20Poly1305, &bytes)
    }

    /// Makes a key of bytes, which must be as many as the cipher asks for.
    pub fn from_bytes(cipher: Cipher, bytes: &[u8]) -> Result<Self, KeyError> {
        let mut key = Box::new(Zeroizing::new([0; MAX_KEY_LEN]));
        match key.get_mut(..cipher.key_len()) {
            Some(place) if place.len() == bytes.len() => place.copy_from_slice(bytes),
            _ => return Err(KeyError::CipherSize { cipher }),
        }
        Ok(Self {
            cipher,
            bytes: key,
            fingerprint: Fingerprint::of(cipher, bytes),
        })
    }

    /// Makes a fresh key, letting `fill` write random bytes straight into it.
    ///
    /// ```
    /// # use fyrd_keys::{Cipher, Key};
    /// # fn random(bytes: &mut [u8]) -> std::io::Result<()> { bytes.fill(4); Ok(()) }
    /// let key = Key::generate(Cipher::Aes256Gcm, |bytes| random(bytes))?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn generate<E>(cipher: Cipher, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Box::new(Zeroizing::new([0; MAX_KEY_LEN]));
        let bytes = &mut key[..cipher.key_len()];
        fill(bytes)?;
        let fingerprint = Fingerprint::of(cipher, bytes);
        Ok(Self {
            cipher,
            bytes: key,
            fingerprint,
        })
    }

    /// Reads a key as a key query carries it: the bare 16, 24 or 32 bytes of an AES key as Serf sends
    /// them, or the text of a ChaCha20-Poly1305 key.
    pub fn from_wire(wire: &[u8]) -> Result<Self, KeyError> {
        if let Some(cipher) = Cipher::aes_of_len(wire.len()) {
            return Self::from_bytes(cipher, wire);
        }
        match std::str::from_utf8(wire) {
            // Without the colon the text might be read as base64, and Serf sends no keys as base64.
            Ok(text)
                if text
                    .split_once(':')
                    .is_some_and(|(prefix, _)| prefix == CHACHA_PREFIX) =>
            {
                Self::parse(text)
            }
            _ => Err(KeyError::AesSize),
        }
    }

    /// The key as a key query carries it; see [`Key::from_wire`].
    ///
    /// A ChaCha20-Poly1305 key goes as text because its bare 32 bytes would be taken for an AES-256 key;
    /// a Serf peer refuses the text for its length, and so never ends up with the wrong cipher.
    pub fn to_wire(&self) -> Zeroizing<Vec<u8>> {
        match self.cipher {
            Cipher::ChaCha20Poly1305 => Zeroizing::new(std::mem::take(&mut *self.to_text()).into_bytes()),
            _ => Zeroizing::new(self.bytes().to_vec()),
        }
    }

    /// The key as text, as [`Key::parse`] reads it. This is the secret itself.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for the longest form, so that the text never moves and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT_LEN));
        if self.cipher == Cipher::ChaCha20Poly1305 {
            text.push_str(CHACHA_PREFIX);
            text.push(':');
        }
        BASE64.encode_string(self.bytes(), &mut text);
        text
    }

    /// The cipher that the key is for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The short name of the key, safe to show.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn prepare(&self) -> Prepared {
        Prepared::new(self.cipher, self.bytes()).expect("a key has the length that its cipher asks for")
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.cipher.key_len()]
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cipher == other.cipher && bool::from(self.bytes.ct_eq(&**other.bytes))
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.cipher, self.fingerprint)
    }
}

/// A short name of a key that says nothing about its bytes, shown as eight hexadecimal digits.
///
/// It is the first four bytes of a SHA-256 over a fixed prefix, the cipher and the key. Two keys of one ring
/// share a fingerprint by chance about once in four thousand million pairs; only the order in which keys are
/// tried depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    fn of(cipher: Cipher, bytes: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"fyrd key fingerprint\0")
            .chain_update([cipher.version()])
            .chain_update(bytes)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Self([a, b, c, d])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why something is not a key. Says nothing of what it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not padded standard base64.
    #[error("illegal base64 data at input byte {at}")]
    IllegalBase64 {
        /// Where in the text it goes wrong, counted as Go counts it.
        at: usize,
    },
    /// No AES cipher takes keys of this length.
    #[error("key size must be 16, 24 or 32 bytes")]
    AesSize,
    /// The cipher takes keys of another length.
    #[error("key size must be {} bytes for {cipher}", cipher.key_len())]
    CipherSize {
        /// The cipher asked for.
        cipher: Cipher,
    },
    /// The text has a colon, but not the one prefix there is.
    #[error(
        "unknown kind of key before the colon: a key is base64 of 16, 24 or 32 bytes (AES-GCM), \
         or chacha20poly1305: followed by base64 of 32 bytes"
    )]
    UnknownPrefix,
}

const CHACHA_PREFIX: &str = "chacha20poly1305";

/// The prefix, the colon and the base64 of 32 bytes.
pub(crate) const MAX_TEXT_LEN: usize = CHACHA_PREFIX.len() + 1 + 44;

/// Go does not look at the bits that the last symbol has to spare, so a key with some set is a key.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Decodes base64; errors count from the start of the whole text, which lies `offset` bytes before.
fn decode_base64(text: &str, offset: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if let Some(at) = illegal_base64(text.as_bytes()) {
        return Err(KeyError::IllegalBase64 {
            at: offset.saturating_add(at),
        });
    }
    let mut symbols = Zeroizing::new(Vec::with_capacity(text.len()));
    symbols.extend(text.bytes().filter(|byte| !is_line_break(*byte)));
    let bytes = BASE64
        .decode(&*symbols)
        .map_err(|_| KeyError::IllegalBase64 { at: offset })?;
    Ok(Zeroizing::new(bytes))
}

/// Finds where text stops being padded base64, at the byte that Go names: the first byte out of place, the
/// start of a group of four that is cut short, or the end if the second padding character is missing.
fn illegal_base64(text: &[u8]) -> Option<usize> {
    let mut bytes = text
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, byte)| !is_line_break(*byte));
    let mut in_group = 0;
    while let Some((at, byte)) = bytes.next() {
        if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' {
            in_group = (in_group + 1) % 4;
            continue;
        }
        if byte != b'=' || in_group < 2 {
            return Some(at);
        }
        if in_group == 2 {
            match bytes.next() {
                Some((_, b'=')) => {}
                Some((other, _)) => return Some(other.saturating_sub(1)),
                None => return Some(text.len()),
            }
        }
        return bytes.next().map(|(trailing, _)| trailing);
    }
    (in_group != 0).then(|| text.len().saturating_sub(in_group))
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{CIPHERS, K1, K2, key};

    #[test]
    fn text_names_the_cipher() {
        let k1: Vec<u8> = (0..32).collect();
        assert_eq!(
            Key::parse(K1).unwrap(),
            Key::from_bytes(Cipher::Aes256Gcm, &k1).unwrap()
        );
        assert_eq!(Key::parse(K2).unwrap().cipher(), Cipher::Aes128Gcm);
        assert_eq!(Key::parse(&K1[..32]).unwrap().cipher(), Cipher::Aes192Gcm);
        let chacha = Key::parse(&format!("chacha20poly1305:{K1}")).unwrap();
        assert_eq!(chacha, Key::from_bytes(Cipher::ChaCha20Poly1305, &k1).unwrap());
    }

    /// Every row was seen with a real agent, except those with the prefix.
    #[test]
    fn errors_are_those_of_go() {
        let rows = [
            ("abc", "illegal base64 data at input byte 0"),
            ("!AAA", "illegal base64 data at input byte 0"),
            ("A", "illegal base64 data at input byte 0"),
            ("=", "illegal base64 data at input byte 0"),
            ("A=AA", "illegal base64 data at input byte 1"),
            ("AAA\n", "illegal base64 data at input byte 1"),
            ("AA=\nA", "illegal base64 data at input byte 3"),
            ("AA=\n", "illegal base64 data at input byte 4"),
            ("AAA==", "illegal base64 data at input byte 4"),
            ("AAA=\n=", "illegal base64 data at input byte 5"),
            ("AAAA AAAA", "illegal base64 data at input byte 4"),
            ("AAAAAAAAAAAAAAAAAAAAAA=", "illegal base64 data at input byte 23"),
            ("AAAAAAAAAAAAAAAAAAAAAA", "illegal base64 data at input byte 20"),
            ("AAAAAAAAAAAAAAAAAAAAAA=A", "illegal base64 data at input byte 22"),
            (
                "AAAAAAAAAAAAAAAAAAAAAA==A",
                "illegal base64 data at input byte 24",
            ),
            ("AAAAAAAAAAAAAAAAAAAAA===", "illegal base64 data at input byte 21"),
            ("AAAAAAAAAAAAAAAAAAAAA-==", "illegal base64 data at input byte 21"),
            (
                "AA\r\nAAAAAAAAAAAAAAAAAAAAAAAA=!",
                "illegal base64 data at input byte 28",
            ),
            ("AAAA", "key size must be 16, 24 or 32 bytes"),
            ("", "key size must be 16, 24 or 32 bytes"),
            ("chacha20poly1305:AA!A", "illegal base64 data at input byte 19"),
            (
                "chacha20poly1305:8PHy8/T19vf4+fr7/P3+/w==",
                "key size must be 32 bytes for ChaCha20-Poly1305",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(Key::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        let unknown = Key::parse("foo:AAAA").unwrap_err();
        assert_eq!(unknown, KeyError::UnknownPrefix);
        assert!(unknown.to_string().contains("chacha20poly1305:"));
    }

    #[test]
    fn spare_bits_and_line_breaks_are_taken_as_go_takes_them() {
        let zero = key(Cipher::Aes128Gcm, 0);
        for text in ["AAAAAAAAAAAAAAAAAAAAAB==", "AAAA\r\nAAAAAAAAAAAAAAAAAA=\n=\n"] {
            assert_eq!(Key::parse(text).unwrap(), zero, "{text:?}");
        }
    }

    #[test]
    fn only_the_right_length_makes_a_key() {
        for cipher in CIPHERS {
            for len in 0..40 {
                let made = Key::from_bytes(cipher, &vec![1; len]);
                assert_eq!(made.is_ok(), len == cipher.key_len(), "{cipher}, {len} bytes");
            }
        }
    }

    #[test]
    fn generated_keys_hold_what_was_filled_in() {
        for cipher in CIPHERS {
            let made = Key::generate(cipher, |bytes| {
                bytes.fill(9);
                Ok::<(), ()>(())
            });
            assert_eq!(made.unwrap(), key(cipher, 9));
        }
        assert_eq!(
            Key::generate(Cipher::Aes128Gcm, |_| Err("no entropy")).unwrap_err(),
            "no entropy"
        );
    }

    #[test]
    fn keys_of_two_ciphers_differ_though_their_bytes_agree() {
        let (aes, chacha) = (key(Cipher::Aes256Gcm, 1), key(Cipher::ChaCha20Poly1305, 1));
        assert_ne!(aes, chacha);
        assert_ne!(aes.fingerprint(), chacha.fingerprint());
        // Filling up with zeros must not make a short key equal to a long one.
        assert_ne!(key(Cipher::Aes128Gcm, 0), key(Cipher::Aes256Gcm, 0));
        assert_ne!(
            key(Cipher::Aes128Gcm, 0).fingerprint(),
            key(Cipher::Aes256Gcm, 0).fingerprint()
        );
    }

    #[test]
    fn a_difference_in_any_byte_makes_another_key() {
        for at in 0..32 {
            let mut bytes = [5; 32];
            bytes[at] ^= 1;
            assert_ne!(
                Key::from_bytes(Cipher::Aes256Gcm, &bytes).unwrap(),
                key(Cipher::Aes256Gcm, 5),
                "{at}"
            );
        }
    }

    #[test]
    fn debug_and_errors_tell_nothing_of_the_key() {
        let key = Key::parse(K1).unwrap();
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("Key(AES-256-GCM {})", key.fingerprint()));
        assert_eq!(key.fingerprint().to_string().len(), 8);
        for secret in [&K1[..8], "00010203", "0, 1, 2, 3"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // A key with a stray colon, one too long, one with a stray character.
        for text in [
            format!("{K1}:x"),
            format!("foo:{K1}"),
            K1.replace('=', "AAAA"),
            format!("{K1}!"),
        ] {
            let error = Key::parse(&text).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains(&K1[..8]), "{shown}");
            }
        }
    }

    #[test]
    fn the_wire_form_tells_the_ciphers_apart() {
        assert_eq!(
            &**Key::parse(K2).unwrap().to_wire(),
            &(0xf0..=0xff).collect::<Vec<u8>>()
        );
        for cipher in CIPHERS {
            let key = key(cipher, 3);
            assert_eq!(Key::from_wire(&key.to_wire()).unwrap(), key);
        }
        let base64 = b"chacha20poly1305AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for wire in [
            &b""[..],
            b"short",
            &[0xff; 33],
            base64,
            b"chacha20poly1305:",
            &[0; 61],
        ] {
            assert!(Key::from_wire(wire).is_err(), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn text_reads_back(which in 0..4_usize, bytes: [u8; 32]) {
            let cipher = CIPHERS[which];
            let key = Key::from_bytes(cipher, &bytes[..cipher.key_len()]).unwrap();
            let text = key.to_text();
            prop_assert!(text.len() <= MAX_TEXT_LEN);
            prop_assert_eq!(Key::parse(&text).unwrap(), key);
        }

        #[test]
        fn any_text_is_judged_as_the_decoder_judges_it(text in "[AB+/=\r\n!]{0,12}") {
            let symbols = text.replace(['\r', '\n'], "");
            let verdict = illegal_base64(text.as_bytes());
            prop_assert_eq!(verdict.is_none(), BASE64.decode(symbols).is_ok());
            prop_assert!(verdict.is_none_or(|at| at <= text.len()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = Key::parse(&text);
            let _ = Key::from_wire(text.as_bytes());
        }
    }
}
