//! The key commands. Their answer has a body even when there is an error, because clients read it and
//! show which member failed.

use base64::Engine;
use fyrd_keys::{Key, KeyError};
use zeroize::Zeroizing;

use super::Backend;
use super::client::Client;
use crate::rpc::types::KeyResponse;
use fyrd_core::serf::KeyReport;
use fyrd_core::serf::keyring::{KeyBytes, KeyOp, key_verdict};

impl<B: Backend> Client<B> {
    /// Installs, uses or removes the key that is written so.
    pub(super) async fn change_key(&mut self, op: KeyOp, text: &str) -> Result<(), String> {
        let report = match wire_form(text) {
            Ok(key) => self.backend.keys(op, key).await,
            Err(reason) => Err(reason),
        };
        self.answer_keys(report, false).await
    }

    pub(super) async fn list_keys(&mut self) -> Result<(), String> {
        let report = self.backend.keys(KeyOp::List, KeyBytes::default()).await;
        self.answer_keys(report, true).await
    }

    async fn answer_keys(&self, report: Result<KeyReport, String>, listing: bool) -> Result<(), String> {
        let (error, report) = match report {
            Ok(report) => (key_verdict(&report).err().unwrap_or_default(), report),
            Err(reason) => (reason, KeyReport::default()),
        };
        self.send(&error, Some(&key_response(report, listing))).await
    }
}

/// The bytes that travel. As with Serf, bytes of a length that no key has are not refused here: each
/// member says what it makes of them.
fn wire_form(text: &str) -> Result<KeyBytes, String> {
    match Key::parse(text) {
        Ok(key) => Ok(KeyBytes(key.to_wire())),
        Err(KeyError::AesSize) => {
            let engine = base64::engine::general_purpose::STANDARD;
            let text = Zeroizing::new(text.replace(['\r', '\n'], ""));
            let bytes = engine.decode(text.as_bytes());
            bytes
                .map(|bytes| KeyBytes(Zeroizing::new(bytes)))
                .map_err(|_| KeyError::AesSize.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn key_response(report: KeyReport, listing: bool) -> KeyResponse {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let keys = report.keys.into_iter();
    KeyResponse {
        keys: listing.then(|| keys.map(|(key, count)| (key.0, number(count))).collect()),
        messages: report.messages,
        num_err: number(report.errors),
        num_nodes: number(report.nodes),
        num_resp: number(report.responses),
    }
}
