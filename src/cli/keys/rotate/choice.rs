//! Which keys a rotation is about: what the user wants, held against what the members hold.

use std::time::Duration;

use fyrd_keys::{Cipher, Key};
use rand::TryRng;
use zeroize::Zeroizing;

use super::super::super::Failure;
use super::super::super::flags::Flags;
use super::super::survey::{Survey, name};

/// How long to wait for members unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the user wants.
pub struct Wishes {
    /// The new key or its fingerprint.
    pub new: Option<Zeroizing<String>>,
    /// The old keys, or their fingerprints, where there is a choice.
    pub old: Vec<Zeroizing<String>>,
    /// The cipher of a key to be made.
    pub cipher: Option<Cipher>,
    /// Whether to show the new key at the end.
    pub print: bool,
    pub timeout: Duration,
}

impl Wishes {
    pub fn of(flags: &Flags, new: Option<Zeroizing<String>>) -> Result<Wishes, Failure> {
        let cipher = match flags.string("cipher") {
            None => None,
            Some("aes256gcm") => Some(Cipher::Aes256Gcm),
            Some("chacha20poly1305") => Some(Cipher::ChaCha20Poly1305),
            Some(other) => {
                return Err(Failure::Error(format!(
                    "Error: Unknown cipher '{other}'; it can be aes256gcm or chacha20poly1305"
                )));
            }
        };
        if cipher.is_some() && new.is_some() {
            return Err(Failure::Error(
                "Error: -cipher is for a key to be made; leave it out, or the key".to_owned(),
            ));
        }
        let timeout = match flags.duration("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => Duration::from_nanos(u64::try_from(timeout.nanos).unwrap_or_default()),
        };
        Ok(Wishes {
            new,
            old: flags.list("old").into_iter().map(Zeroizing::new).collect(),
            cipher,
            print: flags.is_set("print"),
            timeout,
        })
    }
}

/// What is to be done, once the keys are known.
pub(super) struct Choice {
    pub new: Key,
    /// What is removed at the end.
    pub old: Vec<Key>,
    /// What the cluster can go back to: known only if there is one key besides the new one.
    pub fallback: Option<Key>,
}

/// Decides on the keys, from what all members hold.
pub(super) fn choose(survey: &Survey, wishes: &Wishes) -> Result<Choice, String> {
    let known: Vec<&Key> = survey
        .keys
        .iter()
        .filter_map(|listed| listed.key.as_ref())
        .collect();
    if known.len() != survey.keys.len() {
        return Err(
            "members hold a key of a kind unknown here; use a newer version of this program".to_owned(),
        );
    }
    let new = match (&wishes.new, known.as_slice()) {
        (Some(word), _) => survey.find(word)?,
        (None, [only]) => generate(wishes.cipher, only.cipher())?,
        (None, several) => {
            let names: Vec<String> = several.iter().map(|key| name(key)).collect();
            return Err(format!(
                "members hold {} keys, {}, maybe from a rotation that did not end: say which one is to stay \
                 (its fingerprint will do), or remove the others first",
                names.len(),
                names.join(" and ")
            ));
        }
    };
    let others: Vec<Key> = known.into_iter().filter(|key| **key != new).cloned().collect();
    let old = if wishes.old.is_empty() {
        if others.len() > 1 {
            let names: Vec<String> = others.iter().map(name).collect();
            return Err(format!(
                "members hold {} other keys, {}: name those to be removed with -old",
                names.len(),
                names.join(" and ")
            ));
        }
        others.clone()
    } else {
        let found: Result<Vec<Key>, String> = wishes.old.iter().map(|word| survey.find(word)).collect();
        found?
    };
    if old.contains(&new) {
        return Err(format!(
            "{} cannot be both the new key and an old one",
            name(&new)
        ));
    }
    let fallback = match others.as_slice() {
        [only] if survey.all_hold(only) => Some(only.clone()),
        _ => None,
    };
    Ok(Choice { new, old, fallback })
}

/// A new key: of the cipher asked for, or as strong a one as Serf's agents understand, unless the cluster
/// has left those behind already.
fn generate(wanted: Option<Cipher>, present: Cipher) -> Result<Key, String> {
    let cipher = wanted.unwrap_or(match present {
        Cipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
        _ => Cipher::Aes256Gcm,
    });
    Key::generate(cipher, |bytes| rand::rngs::SysRng.try_fill_bytes(bytes))
        .map_err(|error| format!("reading random data: {error}"))
}

#[cfg(test)]
pub mod tests {
    use super::super::super::survey::tests::{K1, K2, K3, survey};
    use super::*;

    pub fn wishes(new: Option<&str>, old: &[&str]) -> Wishes {
        let owned = |text: &&str| Zeroizing::new((*text).to_owned());
        Wishes {
            new: new.as_ref().map(owned),
            old: old.iter().map(owned).collect(),
            cipher: None,
            print: false,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    pub fn keys(texts: &[&str]) -> Vec<Key> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_new_and_what_is_old() {
        let one = [(K1, 3)];
        let two = [(K1, 3), (K2, 3)];
        let three = [(K1, 3), (K2, 3), (K3, 3)];
        #[rustfmt::skip]
        let table = [
            (&one[..], wishes(Some(K2), &[]), Ok((&[K1][..], Some(K1)))),
            (&two, wishes(Some(K2), &[]), Ok((&[K1], Some(K1)))),
            (&[(K2, 3)], wishes(Some(K2), &[]), Ok((&[], None))),
            (&[(K1, 2), (K2, 3)], wishes(Some(K2), &[]), Ok((&[K1], None))),
            (&three, wishes(Some(K2), &[K1, K3]), Ok((&[K1, K3], None))),
            (&two, wishes(None, &[]), Err("say which one is to stay")),
            (&three, wishes(Some(K2), &[]), Err("name those to be removed with -old")),
            (&two, wishes(Some(K2), &[K2]), Err("cannot be both")),
            (&[("rot13:AAAA", 3)], wishes(Some(K2), &[]), Err("of a kind unknown")),
        ];
        for (held, wishes, expected) in table {
            match (choose(&survey(held, 3, &[]), &wishes), expected) {
                (Ok(choice), Ok((old, fallback))) => {
                    assert_eq!(choice.new, K2.parse().unwrap());
                    assert_eq!(choice.old, keys(old));
                    assert_eq!(choice.fallback, fallback.map(|key| key.parse().unwrap()));
                }
                (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
                (found, expected) => panic!("{:?} instead of {expected:?}", found.err()),
            }
        }
    }

    #[test]
    fn a_key_is_made_when_none_is_given() {
        for (held, cipher, expected) in [
            (K2, None, Cipher::Aes256Gcm),
            (K3, None, Cipher::ChaCha20Poly1305),
            (K1, Some(Cipher::ChaCha20Poly1305), Cipher::ChaCha20Poly1305),
            (K3, Some(Cipher::Aes256Gcm), Cipher::Aes256Gcm),
        ] {
            let wishes = Wishes {
                cipher,
                ..wishes(None, &[])
            };
            let choice =
                choose(&survey(&[(held, 3)], 3, &[]), &wishes).unwrap_or_else(|text| panic!("{text}"));
            assert_eq!((choice.new.cipher(), choice.old), (expected, keys(&[held])));
        }
    }
}
