//! A change of a keyring: what is asked for, how one keyring takes it, and the tally over the cluster.

use std::collections::BTreeMap;

use fyrd_keys::{Key, Keyring, RingError};
use zeroize::Zeroizing;

/// What to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyOp {
    /// Add it, so that it can open.
    Install,
    /// Seal with it from now on.
    Use,
    /// Forget it.
    Remove,
    /// Tell which keys there are.
    List,
}

impl KeyOp {
    /// The internal query's name, without its prefix.
    pub(super) fn query_name(self) -> &'static str {
        match self {
            KeyOp::Install => "install-key",
            KeyOp::Use => "use-key",
            KeyOp::Remove => "remove-key",
            KeyOp::List => "list-keys",
        }
    }

    /// The operation in words, for the log.
    pub(super) fn doing(self) -> &'static str {
        match self {
            KeyOp::Install => "install key",
            KeyOp::Use => "change primary key",
            KeyOp::Remove => "remove key",
            KeyOp::List => "list keys",
        }
    }

    pub(super) fn from_query_name(name: &str) -> Option<Self> {
        [KeyOp::Install, KeyOp::Use, KeyOp::Remove, KeyOp::List]
            .into_iter()
            .find(|op| op.query_name() == name)
    }
}

/// A key in the form in which it travels; zeroized when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KeyBytes(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyBytes([hidden])")
    }
}

/// A key as text; zeroized when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(pub Zeroizing<String>);

impl KeyText {
    pub(super) fn of(text: &str) -> KeyText {
        KeyText(Zeroizing::new(text.to_owned()))
    }
}

impl Ord for KeyText {
    fn cmp(&self, other: &KeyText) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl PartialOrd for KeyText {
    fn partial_cmp(&self, other: &KeyText) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText([hidden])")
    }
}

/// The keys of a ring as text, the primary first; never shown by Debug.
#[derive(Clone, Default)]
pub struct KeyList(pub Vec<Zeroizing<String>>);

impl std::fmt::Debug for KeyList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyList({} keys)", self.0.len())
    }
}

/// How the driver's keyring took a change: the keys for a listing, nothing for the others, or the
/// reason of a refusal.
pub type KeyringResult = Result<KeyList, String>;

/// The tally of a key operation over the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyReport {
    /// Members that were there when it began.
    pub nodes: usize,
    /// Members that answered.
    pub responses: usize,
    /// Members that answered with a failure.
    pub errors: usize,
    /// What members had to say, by name.
    pub messages: BTreeMap<String, String>,
    /// How many members hold each key (listing only), by its text.
    pub keys: BTreeMap<KeyText, usize>,
    /// How many members seal with each key (listing only), by its text.
    pub primary_keys: BTreeMap<KeyText, usize>,
}

/// Changes or lists a keyring; the refusals are in Serf's words.
pub fn apply(ring: Option<&mut Keyring>, op: KeyOp, key: &KeyBytes) -> KeyringResult {
    let Some(ring) = ring else {
        return Err(match op {
            KeyOp::List => "Keyring is empty (encryption not enabled)",
            _ => "No keyring to modify (encryption not enabled)",
        }
        .to_owned());
    };
    if op == KeyOp::List {
        return Ok(KeyList(ring.keys().map(Key::to_text).collect()));
    }
    let changed = match (op, Key::from_wire(&key.0)) {
        (KeyOp::Install, Ok(key)) => ring.install(key).map(drop),
        (KeyOp::Use, Ok(key)) => ring.use_key(&key),
        (KeyOp::Remove, Ok(key)) => ring.remove(&key).map(drop),
        // What is no key is in no ring: Serf refuses only to install it, and to use it.
        (KeyOp::Install, Err(error)) => return Err(error.to_string()),
        (KeyOp::Use, Err(_)) => Err(RingError::NotInRing),
        (KeyOp::Remove, Err(_)) | (KeyOp::List, _) => Ok(()),
    };
    changed
        .map(|()| KeyList::default())
        .map_err(|error| error.to_string())
}

/// The verdict of a key query, in Serf's words.
pub fn key_verdict(report: &KeyReport) -> Result<(), String> {
    let KeyReport {
        nodes,
        responses,
        errors,
        ..
    } = report;
    if *errors != 0 {
        return Err(format!("{errors}/{nodes} nodes reported failure"));
    }
    if responses != nodes {
        return Err(format!("{responses}/{nodes} nodes reported success"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const K1: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const K2: &str = "EBESExQVFhcYGRobHB0eHw==";
    const CHACHA: &str = "chacha20poly1305:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn wire(text: &str) -> KeyBytes {
        KeyBytes(Key::parse(text).unwrap().to_wire())
    }

    fn ring(keys: &[&str]) -> Keyring {
        Keyring::from_keys(keys.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn changes_and_refusals_are_serfs() {
        let junk = || KeyBytes(Zeroizing::new(b"short".to_vec()));
        let not_there = "Requested key is not in the keyring";
        #[rustfmt::skip]
        let table = [
            (&[K1][..], KeyOp::Install, wire(K2), Ok(&[K1, K2][..])),
            (&[K1], KeyOp::Install, wire(K1), Ok(&[K1])),
            (&[K1], KeyOp::Install, wire(CHACHA), Ok(&[K1, CHACHA])),
            (&[K1], KeyOp::Install, junk(), Err("key size must be 16, 24 or 32 bytes")),
            (&[K1, K2], KeyOp::Use, wire(K2), Ok(&[K2, K1])),
            (&[K1], KeyOp::Use, wire(K2), Err(not_there)),
            (&[K1], KeyOp::Use, junk(), Err(not_there)),
            (&[K1, K2], KeyOp::Remove, wire(K2), Ok(&[K1])),
            (&[K1], KeyOp::Remove, wire(K2), Ok(&[K1])),
            (&[K1], KeyOp::Remove, junk(), Ok(&[K1])),
            (&[K1, K2], KeyOp::Remove, wire(K1), Err("Removing the primary key is not allowed")),
        ];
        for (before, op, wish, after) in table {
            let mut found = ring(before);
            match (apply(Some(&mut found), op, &wish), after) {
                (Ok(_), Ok(keys)) => assert!(found.keys().eq(ring(keys).keys()), "{before:?} {op:?}"),
                (found, after) => assert_eq!(found.err().as_deref(), after.err(), "{before:?} {op:?}"),
            }
        }
    }
}
