//! Changes of the keyring that the cluster asks for, one after another.
//!
//! Where there is a keyring file, the changed ring goes to disk first and takes effect, and is answered,
//! only when it is safe there: ring and file agree at all times, and a change that cannot be kept is not
//! made. The file is written on a thread of its own, since a sync to disk would hold up gossip.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use fyrd_keys::{Key, Keyring, file};
use tokio::task::JoinHandle;
use tracing::info;

use super::Driver;
use super::handle::KeySummary;
use fyrd_core::node::{Input, KeyringId};
use fyrd_core::serf::keyring::{self, KeyBytes, KeyList, KeyOp, KeyringResult};

/// The changes under way.
pub(super) struct KeyringDesk {
    /// Where the ring is kept, if anywhere.
    file: Option<PathBuf>,
    /// Those that wait for the one being saved; the node bounds how many it asks for.
    waiting: VecDeque<Wish>,
    saving: Option<Saving>,
}

/// What the node wants.
struct Wish {
    id: KeyringId,
    op: KeyOp,
    key: KeyBytes,
}

/// A change on its way to disk.
struct Saving {
    id: KeyringId,
    changed: Changed,
    saved: JoinHandle<Result<(), String>>,
}

/// A ring as it shall be.
struct Changed {
    ring: Keyring,
    /// What is done to it, for the log.
    what: String,
}

impl KeyringDesk {
    pub(super) fn new(file: Option<PathBuf>) -> KeyringDesk {
        KeyringDesk {
            file,
            waiting: VecDeque::new(),
            saving: None,
        }
    }

    /// Waits until the change under way is on disk, or is not; for ever if there is none.
    pub(super) async fn saved(&mut self) -> Result<(), String> {
        match &mut self.saving {
            Some(saving) => match (&mut saving.saved).await {
                Ok(result) => result,
                Err(error) => Err(format!("writing the keyring file: {error}")),
            },
            None => std::future::pending().await,
        }
    }
}

impl Driver {
    /// Changes or lists the keyring once all changes before are done.
    pub(super) fn change_keyring(&mut self, id: KeyringId, op: KeyOp, key: KeyBytes) {
        self.desk.waiting.push_back(Wish { id, op, key });
        self.next_keyring_wish();
    }

    /// The change under way has been saved, or could not be.
    pub(super) fn keyring_saved(&mut self, result: Result<(), String>) {
        let Some(Saving { id, changed, .. }) = self.desk.saving.take() else {
            return;
        };
        let result = match result {
            Ok(()) => Ok(self.adopt(changed)),
            Err(reason) => Err(format!(
                "The keyring is unchanged, it could not be saved: {reason}"
            )),
        };
        self.feed(Input::Keyring { id, result });
        self.next_keyring_wish();
    }

    /// What can be told of the keys.
    pub(super) fn key_summary(&self) -> Option<KeySummary> {
        self.envelope.keyring().map(|ring| KeySummary {
            count: ring.len(),
            fingerprint: ring.primary().fingerprint(),
            cipher: ring.primary().cipher(),
        })
    }

    fn next_keyring_wish(&mut self) {
        while self.desk.saving.is_none()
            && let Some(Wish { id, op, key }) = self.desk.waiting.pop_front()
        {
            if let Some(result) = self.start_keyring_wish(id, op, &key) {
                self.feed(Input::Keyring { id, result });
            }
        }
    }

    /// The result, or `None` when the change has to be saved first.
    fn start_keyring_wish(&mut self, id: KeyringId, op: KeyOp, key: &KeyBytes) -> Option<KeyringResult> {
        let Some(old) = self.envelope.keyring() else {
            return Some(keyring::apply(None, op, key));
        };
        let mut new = old.clone();
        let result = keyring::apply(Some(&mut new), op, key);
        if op == KeyOp::List || result.is_err() {
            return Some(result);
        }
        let changed = Changed {
            what: what(op, key),
            ring: new.clone(),
        };
        let Some(file) = self.desk.file.clone() else {
            return Some(Ok(self.adopt(changed)));
        };
        let old = old.clone();
        let saved = tokio::task::spawn_blocking(move || save(&file, &old, &new));
        self.desk.saving = Some(Saving { id, changed, saved });
        None
    }

    fn adopt(&mut self, changed: Changed) -> KeyList {
        let Changed { ring, what } = changed;
        let kept = match &self.desk.file {
            Some(file) => format!("saved to {}", file.display()),
            None => "kept in memory only".to_owned(),
        };
        let (keys, primary) = (ring.len(), ring.primary().fingerprint());
        info!(target: "serf", "{what}: the keyring has {keys} keys, primary {primary}, {kept}");
        *self.envelope.keyring_mut() = Some(ring);
        KeyList::default()
    }
}

/// What is done with a key, for the log.
fn what(op: KeyOp, key: &KeyBytes) -> String {
    let done = match op {
        KeyOp::Install => "Installed",
        KeyOp::Use => "Sealing with",
        KeyOp::Remove => "Removed",
        KeyOp::List => "Listed",
    };
    match Key::from_wire(&key.0) {
        Ok(key) => format!("{done} key {}", key.fingerprint()),
        Err(_) => format!("{done} no key"),
    }
}

/// Saves a ring. A ring that may be in the file, but not for good, does not stay there: after an error
/// the file holds the old one, or the error says that it does not.
fn save(path: &Path, old: &Keyring, new: &Keyring) -> Result<(), String> {
    let Err(error) = file::save(path, new) else {
        return Ok(());
    };
    let replaced = file::load(path).is_ok_and(|found| found.keys().eq(new.keys()));
    if replaced && let Err(again) = file::save(path, old) {
        return Err(format!(
            "{error}; the file holds the changed keyring, and the old one could not be put back: {again}"
        ));
    }
    Err(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{DriverConfig, Handle, Sockets};
    use super::*;
    use fyrd_core::node::NodeConfig;
    use fyrd_core::serf::{Answer, Command, KeyReport};
    use fyrd_core::swim::profile::Profile;

    const K1: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const K2: &str = "EBESExQVFhcYGRobHB0eHw==";
    const CHACHA: &str = "chacha20poly1305:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn wire(text: &str) -> KeyBytes {
        KeyBytes(key(text).to_wire())
    }

    fn ring(keys: &[&str]) -> Keyring {
        Keyring::from_keys(keys.iter().map(|text| key(text)).collect()).unwrap()
    }

    #[test]
    fn a_ring_that_cannot_be_saved_is_not_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.json");
        save(&path, &ring(&[K1]), &ring(&[K1, K2])).unwrap();
        assert!(file::load(&path).unwrap().keys().eq(ring(&[K1, K2]).keys()));
        let nowhere = dir.path().join("none/keyring.json");
        let error = save(&nowhere, &ring(&[K1]), &ring(&[K1, K2])).unwrap_err();
        assert!(error.contains("none"), "{error}");
    }

    async fn agent(keyring: Option<Keyring>, file: Option<PathBuf>) -> Handle {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let profile = Profile::builtin("local").unwrap();
        let node = NodeConfig::new("n1", sockets.local_addr(), profile, 1);
        let config = DriverConfig {
            node,
            keyring,
            keyring_file: file,
            label: Vec::new(),
            replay_window: None,
            compress: true,
            recorder: None,
        };
        let (driver, handle) = Driver::new(sockets, config).unwrap();
        tokio::spawn(driver.run());
        handle
    }

    async fn ask(agent: &Handle, op: KeyOp, key: KeyBytes) -> KeyReport {
        let asking = agent.command(Command::Keys { op, key });
        match tokio::time::timeout(Duration::from_secs(20), asking).await {
            Ok(Ok(Answer::Keys(report))) => report,
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn primary(agent: &Handle) -> (usize, Vec<String>) {
        let report = ask(agent, KeyOp::List, KeyBytes::default()).await;
        let primaries = report.primary_keys.into_keys();
        (
            report.keys.len(),
            primaries.map(|key| key.0.to_string()).collect(),
        )
    }

    #[tokio::test]
    async fn an_answer_means_that_the_file_holds_the_ring() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.json");
        let agent = agent(Some(ring(&[K1])), Some(path.clone())).await;
        let steps = [
            (KeyOp::Install, K2, &[K1, K2][..]),
            (KeyOp::Install, CHACHA, &[K1, K2, CHACHA]),
            (KeyOp::Use, CHACHA, &[CHACHA, K1, K2]),
            (KeyOp::Remove, K1, &[CHACHA, K2]),
        ];
        for (op, key, keys) in steps {
            let report = ask(&agent, op, wire(key)).await;
            assert_eq!((report.responses, report.errors), (1, 0), "{report:?}");
            assert!(file::load(&path).unwrap().keys().eq(ring(keys).keys()), "{op:?}");
        }
        assert_eq!(primary(&agent).await, (2, vec![CHACHA.to_owned()]));
    }

    #[tokio::test]
    async fn changes_asked_for_at_once_are_all_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.json");
        let agent = agent(Some(ring(&[K1])), Some(path.clone())).await;
        let reports = tokio::join!(
            ask(&agent, KeyOp::Install, wire(K2)),
            ask(&agent, KeyOp::Install, wire(CHACHA)),
            ask(&agent, KeyOp::Remove, wire(K1)),
        );
        assert_eq!((reports.0.errors, reports.1.errors, reports.2.errors), (0, 0, 1));
        assert_eq!(file::load(&path).unwrap().len(), 3);
        assert_eq!(primary(&agent).await.0, 3);
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_saved_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/keyring.json");
        let agent = agent(Some(ring(&[K1])), Some(path.clone())).await;
        let report = ask(&agent, KeyOp::Install, wire(K2)).await;
        let message = report.messages.get("n1").unwrap();
        assert!(
            message.starts_with("The keyring is unchanged, it could not be saved: "),
            "{message}"
        );
        assert_eq!((report.errors, primary(&agent).await.0), (1, 1));
        // Once the place is there, so is the change.
        std::fs::create_dir(dir.path().join("none")).unwrap();
        assert_eq!(ask(&agent, KeyOp::Install, wire(K2)).await.errors, 0);
        assert_eq!(
            (file::load(&path).unwrap().len(), primary(&agent).await.0),
            (2, 2)
        );
    }

    #[tokio::test]
    async fn an_agent_without_keys_takes_none() {
        let agent = agent(None, None).await;
        for (op, text) in [
            (KeyOp::Install, "No keyring to modify (encryption not enabled)"),
            (KeyOp::Use, "No keyring to modify (encryption not enabled)"),
            (KeyOp::Remove, "No keyring to modify (encryption not enabled)"),
            (KeyOp::List, "Keyring is empty (encryption not enabled)"),
        ] {
            let report = ask(&agent, op, wire(K1)).await;
            assert_eq!(report.messages.get("n1").map(String::as_str), Some(text));
        }
    }
}
