//! Key rotation over the cluster: four internal queries, and the tally of their answers
//! (docs/protocol.md#b10-internal-queries).
//!
//! The keyring itself belongs to the driver. This layer asks it to change ([`super::Output::Keyring`])
//! and tells the cluster how that went.

use fyrd_keys::{Key, Keyring, RingError};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::queries::{OpenQuery, OwnQueryKind, QueryKey};
use super::types::{KeyReport, MemberStatus, QueryParams};
use super::{Output, Serf};
use crate::bounds::MAX_OPEN_QUERIES;
use crate::time::Time;
use crate::wire::{KeyRequest, KeyResponse, SerfMessage};

/// The fewest bytes a listed key takes; bounds how many are tried at first.
const MIN_LISTED_KEY: usize = 25;

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
    fn query_name(self) -> &'static str {
        match self {
            KeyOp::Install => "install-key",
            KeyOp::Use => "use-key",
            KeyOp::Remove => "remove-key",
            KeyOp::List => "list-keys",
        }
    }

    /// The operation in words, for the log.
    fn doing(self) -> &'static str {
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
    fn of(text: &str) -> KeyText {
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

impl Serf {
    /// Asks every member to do this with that key. Ends with [`Output::KeysDone`] once all members
    /// have answered, or the time is up.
    ///
    /// # Errors
    /// When the query cannot be sent.
    pub fn key_query(&mut self, now: Time, op: KeyOp, key: &KeyBytes) -> Result<QueryKey, String> {
        let mut payload = Zeroizing::new(Vec::with_capacity(96));
        SerfMessage::KeyRequest(KeyRequest { key: &key.0 }).encode(&mut payload);
        let params = QueryParams {
            name: format!("{}{}", super::queries::INTERNAL_PREFIX, op.query_name()),
            payload: payload.to_vec(),
            ..QueryParams::default()
        };
        let nodes = self
            .members
            .values()
            .filter(|entry| matches!(entry.status, MemberStatus::Alive | MemberStatus::Leaving))
            .count();
        let report = KeyReport {
            nodes,
            ..KeyReport::default()
        };
        self.start_query(now, &params, OwnQueryKind::Keys(report))
    }

    /// Takes a member's answer to a key query; says whether all have answered now.
    pub(super) fn count_key_response(report: &mut KeyReport, from: &str, payload: &[u8]) -> bool {
        report.responses += 1;
        match SerfMessage::decode(payload) {
            Ok(SerfMessage::KeyResponse(response)) => {
                if !response.result {
                    report.errors += 1;
                }
                if !response.message.is_empty() || !response.result {
                    report
                        .messages
                        .insert(from.to_owned(), response.message.to_owned());
                }
                for key in &response.keys {
                    *report.keys.entry(KeyText::of(key)).or_default() += 1;
                }
                if !response.primary_key.is_empty() {
                    *report
                        .primary_keys
                        .entry(KeyText::of(response.primary_key))
                        .or_default() += 1;
                }
            }
            _ => {
                report.errors += 1;
                let message = "Invalid key query response type".to_owned();
                report.messages.insert(from.to_owned(), message);
            }
        }
        report.responses >= report.nodes
    }

    /// A peer, or we ourselves, want our keyring changed.
    pub(super) fn handle_key_query(&mut self, key: QueryKey, op: KeyOp, payload: &[u8], open: OpenQuery) {
        if self.key_queries.len() >= MAX_OPEN_QUERIES {
            return self.refuse(format_args!("a key query: {MAX_OPEN_QUERIES} are open"));
        }
        match KeyRequest::decode_payload(payload) {
            Ok(request) => {
                let bytes = KeyBytes(Zeroizing::new(request.key.to_vec()));
                self.key_queries.insert(key, (op, open));
                self.out.push_back(Output::Keyring {
                    query: key,
                    op,
                    key: bytes,
                });
            }
            Err(error) => self.refuse(format_args!("a key query: {error}")),
        }
    }

    /// Tells the asker how our keyring took the change.
    pub fn handle_keyring(&mut self, query: QueryKey, result: &KeyringResult) {
        let Some((op, open)) = self.key_queries.remove(&query) else {
            return;
        };
        info!(target: "serf", "Received {} query", op.query_name());
        if let Err(reason) = result {
            error!(target: "serf", "Failed to {}: {reason}", op.doing());
        }
        let list: &[Zeroizing<String>] = result.as_ref().map_or(&[], |list| &list.0);
        let room = if open.takes_streams {
            list.len()
        } else {
            self.config.query_response_size_limit / MIN_LISTED_KEY
        };
        let mut shown = list.len().min(room);
        loop {
            let truncated = format!(
                "truncated key list response, showing first {shown} of {} keys",
                list.len()
            );
            let message = match result {
                Err(reason) => reason.as_str(),
                Ok(_) if shown < list.len() => &truncated,
                Ok(_) => "",
            };
            let response = KeyResponse {
                result: result.is_ok(),
                message,
                keys: list.iter().take(shown).map(|key| key.as_str()).collect(),
                primary_key: list.first().map_or("", |key| key.as_str()),
            };
            let mut answer = Zeroizing::new(Vec::new());
            SerfMessage::KeyResponse(response).encode(&mut answer);
            match self.send_response(query, &open, 0, &answer) {
                Ok(()) => return,
                // Keys are left out from the end until the answer fits, and the message says so.
                Err(_) if shown > 1 => shown -= 1,
                Err(reason) => return warn!(target: "serf", "{reason}"),
            }
        }
    }
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
    use std::collections::BTreeMap;

    use super::*;

    fn answer(report: &mut KeyReport, from: &str, response: KeyResponse<'_>) -> bool {
        let mut payload = Vec::new();
        SerfMessage::KeyResponse(response).encode(&mut payload);
        Serf::count_key_response(report, from, &payload)
    }

    #[test]
    fn a_report_counts_answers_errors_and_keys() {
        let mut report = KeyReport {
            nodes: 3,
            ..KeyReport::default()
        };
        let keys = vec!["a", "b"];
        let fine = KeyResponse {
            result: true,
            keys,
            primary_key: "a",
            ..KeyResponse::default()
        };
        assert!(!answer(&mut report, "n1", fine.clone()));
        assert!(!answer(
            &mut report,
            "n2",
            KeyResponse {
                message: "no",
                ..KeyResponse::default()
            }
        ));
        assert_eq!(key_verdict(&report), Err("1/3 nodes reported failure".to_owned()));
        report.errors = 0;
        assert_eq!(key_verdict(&report), Err("2/3 nodes reported success".to_owned()));
        assert!(answer(&mut report, "n3", fine));
        assert_eq!(key_verdict(&report), Ok(()));
        assert_eq!(
            report.keys,
            BTreeMap::from([(KeyText::of("a"), 2), (KeyText::of("b"), 2)])
        );
        assert_eq!(report.primary_keys, BTreeMap::from([(KeyText::of("a"), 2)]));
        assert_eq!(
            report.messages,
            BTreeMap::from([("n2".to_owned(), "no".to_owned())])
        );
        assert!(Serf::count_key_response(&mut report, "n4", b"	junk"));
        assert_eq!(report.errors, 1);
    }

    #[test]
    fn keys_are_not_shown() {
        let bytes = KeyBytes(Zeroizing::new(b"secretsecret".to_vec()));
        let list = KeyList(vec![Zeroizing::new("secret".to_owned())]);
        let mut report = KeyReport::default();
        let response = KeyResponse {
            keys: vec!["secret"],
            primary_key: "secret",
            ..KeyResponse::default()
        };
        answer(&mut report, "n1", response);
        assert_eq!((report.keys.len(), report.primary_keys.len()), (1, 1));
        assert!(!format!("{bytes:?}{list:?}{report:?}").contains("secret"));
    }

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
