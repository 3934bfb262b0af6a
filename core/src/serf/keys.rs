//! Key rotation over the cluster: four internal queries, and the tally of their answers
//! (docs/protocol.md#b10-internal-queries).
//!
//! The keyring itself belongs to the driver. This layer asks it to change ([`Effect::Keyring`])
//! and tells the cluster how that went.

use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::Serf;
use super::effect::{CommandId, Effect, KeyringId};
use super::keyring::{KeyBytes, KeyOp, KeyReport, KeyText, KeyringResult};
use super::queries::{INTERNAL_PREFIX, OpenQuery, OwnQueryKind};
use super::types::{Answer, MemberStatus, QueryKey, QueryParams};
use crate::bounds::MAX_OPEN_QUERIES;
use crate::time::Time;
use crate::wire::{KeyRequest, KeyResponse, SerfMessage};

/// The fewest bytes a listed key takes; bounds how many are tried at first.
const MIN_LISTED_KEY: usize = 25;

impl Serf {
    /// Asks every member to do this with that key. The command is answered once all members have
    /// answered, or the time is up.
    pub fn key_query(&mut self, now: Time, command: CommandId, op: KeyOp, key: &KeyBytes) {
        let mut payload = Zeroizing::new(Vec::with_capacity(96));
        SerfMessage::KeyRequest(KeyRequest { key: &key.0 }).encode(&mut payload);
        let params = QueryParams {
            name: format!("{}{}", INTERNAL_PREFIX, op.query_name()),
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
        if let Err(reason) = self.start_query(now, &params, OwnQueryKind::Keys { command, report }) {
            self.answer(command, Answer::Failed(reason));
        }
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
                self.effects.push_back(Effect::Keyring {
                    id: KeyringId(key),
                    op,
                    key: bytes,
                });
            }
            Err(error) => self.refuse(format_args!("a key query: {error}")),
        }
    }

    /// Tells the asker how our keyring took the change.
    pub fn handle_keyring(&mut self, KeyringId(query): KeyringId, result: &KeyringResult) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::serf::keyring::{KeyList, key_verdict};

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
}
