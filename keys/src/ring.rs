//! The keys of a cluster, the primary first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cipher::Prepared;
use crate::key::{Fingerprint, Key};

/// How many keys a ring holds at most.
///
/// A peer that holds a key can install more of them, and a packet that none of them opens costs an attempt
/// with each; a cluster in the midst of a rotation needs two or three.
pub const MAX_KEYS: usize = 256;

/// The keys of a cluster: the first, the primary, seals; every one opens.
///
/// A ring is never empty. Each key is held with its schedule computed. Sealing and opening are in
/// [`packet`](crate::packet).
#[derive(Clone)]
pub struct Keyring {
    primary: Entry,
    others: Vec<Entry>,
}

/// A key and what its cipher makes of it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) prepared: Prepared,
    /// How many blocks it has sealed. Copies of a ring count together, for what one seals is spent for all.
    pub(crate) sealed: Arc<AtomicU64>,
}

impl Keyring {
    /// A ring of one key.
    pub fn new(primary: Key) -> Self {
        Self {
            primary: Entry::new(primary),
            others: Vec::new(),
        }
    }

    /// A ring of many keys, the first of which is the primary. One that is there twice counts once.
    pub fn from_keys(keys: Vec<Key>) -> Result<Self, RingError> {
        let mut keys = keys.into_iter();
        let mut ring = Self::new(keys.next().ok_or(RingError::Empty)?);
        for key in keys {
            ring.install(key)?;
        }
        Ok(ring)
    }

    /// Appends a key, and says whether it is new. Installing a key again changes nothing.
    pub fn install(&mut self, key: Key) -> Result<bool, RingError> {
        if self.contains(&key) {
            return Ok(false);
        }
        if self.len() >= MAX_KEYS {
            return Err(RingError::Full);
        }
        self.others.push(Entry::new(key));
        Ok(true)
    }

    /// Makes a key of the ring the primary. The others keep their order behind it.
    pub fn use_key(&mut self, key: &Key) -> Result<(), RingError> {
        if self.primary.key == *key {
            return Ok(());
        }
        let at = self
            .others
            .iter()
            .position(|entry| entry.key == *key)
            .ok_or(RingError::NotInRing)?;
        let chosen = self.others.remove(at);
        self.others
            .insert(0, std::mem::replace(&mut self.primary, chosen));
        Ok(())
    }

    /// Removes a key, and says whether it was there. The primary cannot be removed.
    pub fn remove(&mut self, key: &Key) -> Result<bool, RingError> {
        if self.primary.key == *key {
            return Err(RingError::Primary);
        }
        let before = self.others.len();
        self.others.retain(|entry| entry.key != *key);
        Ok(self.others.len() < before)
    }

    /// All keys, the primary first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries().map(|entry| &entry.key)
    }

    /// The key that seals.
    pub fn primary(&self) -> &Key {
        &self.primary.key
    }

    /// Whether the key is in the ring.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys().any(|own| own == key)
    }

    /// How many keys there are, which is at least one.
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub fn len(&self) -> usize {
        self.others.len() + 1
    }

    /// How many packets the primary has sealed here. Nonces are random, so that the risk of two that are equal
    /// grows with the square of all that a key has sealed, on all hosts.
    pub fn sealed_by_primary(&self) -> u64 {
        self.primary.sealed.load(Ordering::Relaxed)
    }

    pub(crate) fn sealer(&self) -> &Entry {
        &self.primary
    }

    /// The entries in the order in which they are tried: those that the hint names, then the ring's.
    pub(crate) fn tries(&self, hint: Option<Fingerprint>) -> impl Iterator<Item = &Entry> {
        let is_hinted = move |entry: &&Entry| hint == Some(entry.key.fingerprint());
        let hinted = self
            .entries()
            .filter(move |entry| hint.is_some() && is_hinted(entry));
        hinted.chain(self.entries().filter(move |entry| !is_hinted(entry)))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::once(&self.primary).chain(&self.others)
    }
}

impl Entry {
    fn new(key: Key) -> Self {
        Self {
            prepared: key.prepare(),
            key,
            sealed: Arc::default(),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring ")?;
        f.debug_list().entries(self.keys()).finish()
    }
}

/// Why a change to a ring is refused. The ring is then as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring needs a primary.
    #[error("Keyring contains no keys")]
    Empty,
    /// The key to be used is not installed.
    #[error("Requested key is not in the keyring")]
    NotInRing,
    /// The key to be removed is the one that seals.
    #[error("Removing the primary key is not allowed")]
    Primary,
    /// There is no room for another key.
    #[error("The keyring is full ({MAX_KEYS} keys): remove one that is no longer used")]
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cipher;
    use crate::testing::{K1, K2, key};

    fn numbered(n: u8) -> Key {
        key(Cipher::Aes128Gcm, n)
    }

    fn ring(numbers: &[u8]) -> Keyring {
        Keyring::from_keys(numbers.iter().copied().map(numbered).collect()).unwrap()
    }

    fn assert_order(ring: &Keyring, numbers: &[u8]) {
        let expected: Vec<Key> = numbers.iter().copied().map(numbered).collect();
        assert_eq!(ring.keys().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(ring.len(), expected.len());
        assert_eq!(ring.primary(), &expected[0]);
    }

    #[test]
    fn keys_that_are_given_twice_count_once() {
        assert_order(&ring(&[1, 2, 1, 3, 2]), &[1, 2, 3]);
        assert_eq!(Keyring::from_keys(Vec::new()).unwrap_err(), RingError::Empty);
    }

    #[test]
    fn install_appends_and_repeats_without_harm() {
        let mut ring = ring(&[1]);
        assert_eq!(ring.install(numbered(2)), Ok(true));
        assert_eq!(ring.install(numbered(2)), Ok(false));
        assert_eq!(ring.install(numbered(1)), Ok(false));
        assert_order(&ring, &[1, 2]);
    }

    #[test]
    fn use_moves_a_key_to_the_front() {
        let mut ring = ring(&[1, 2, 3]);
        ring.use_key(&numbered(3)).unwrap();
        assert_order(&ring, &[3, 1, 2]);
        ring.use_key(&numbered(3)).unwrap();
        assert_order(&ring, &[3, 1, 2]);
        let error = ring.use_key(&numbered(9)).unwrap_err();
        assert_eq!(error.to_string(), "Requested key is not in the keyring");
        assert_order(&ring, &[3, 1, 2]);
    }

    #[test]
    fn remove_spares_the_primary() {
        let mut ring = ring(&[1, 2, 3]);
        assert_eq!(ring.remove(&numbered(2)), Ok(true));
        assert_eq!(ring.remove(&numbered(2)), Ok(false));
        let error = ring.remove(&numbered(1)).unwrap_err();
        assert_eq!(error.to_string(), "Removing the primary key is not allowed");
        assert_order(&ring, &[1, 3]);
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let mut ring = Keyring::new(numbered(0));
        for n in 1..=255 {
            assert_eq!(ring.install(numbered(n)), Ok(true));
        }
        assert_eq!(ring.len(), MAX_KEYS);
        assert_eq!(ring.install(key(Cipher::Aes256Gcm, 0)), Err(RingError::Full));
        assert_eq!(
            ring.install(numbered(7)),
            Ok(false),
            "one that is there is still no error"
        );
    }

    #[test]
    fn the_hinted_key_is_tried_first_and_each_key_once() {
        let ring = ring(&[1, 2, 3]);
        let order = |hint: Option<u8>| -> Vec<Key> {
            ring.tries(hint.map(|n| numbered(n).fingerprint()))
                .map(|entry| entry.key.clone())
                .collect()
        };
        assert_eq!(order(None), [1, 2, 3].map(numbered));
        assert_eq!(order(Some(1)), [1, 2, 3].map(numbered));
        assert_eq!(order(Some(3)), [3, 1, 2].map(numbered));
        assert_eq!(
            order(Some(9)),
            [1, 2, 3].map(numbered),
            "a hint to a removed key is no hint"
        );
    }

    #[test]
    fn each_key_counts_what_it_seals_over_copies_and_changes_of_the_ring() {
        let mut ring = ring(&[1, 2]);
        let seal = |ring: &Keyring| ring.seal_datagram(&[7; 12], b"", &mut b"hello".to_vec());
        seal(&ring);
        let copy = ring.clone();
        seal(&copy);
        assert!(copy.seal_stream(&[7; 12], b"", b"hello").is_ok());
        assert_eq!((ring.sealed_by_primary(), copy.sealed_by_primary()), (3, 3));
        ring.use_key(&numbered(2)).unwrap();
        assert_eq!(ring.sealed_by_primary(), 0);
        seal(&ring);
        ring.use_key(&numbered(1)).unwrap();
        assert_eq!((ring.sealed_by_primary(), copy.sealed_by_primary()), (3, 3));
    }

    #[test]
    fn debug_shows_fingerprints_only() {
        let ring = Keyring::from_keys(vec![K1.parse().unwrap(), K2.parse().unwrap()]).unwrap();
        let shown = format!("{ring:?}");
        let prints: Vec<String> = ring.keys().map(|key| format!("{key:?}")).collect();
        assert_eq!(shown, format!("Keyring [{}, {}]", prints[0], prints[1]));
        assert!(!shown.contains(&K1[..8]) && !shown.contains(&K2[..8]));
    }
}
