//! What can be learnt about members and their keys through one agent.
//!
//! RPC tells how many members hold a key, not which, and nothing of members that did not answer. So the
//! survey asks for the members as well: who is neither alive nor gone for good is in doubt.

use std::collections::{BTreeMap, BTreeSet};

use fyrd_keys::Key;
use zeroize::Zeroizing;

use crate::rpc::client::{Client, ClientError, KeyOperation, Record};
use crate::rpc::types::QueryRecordKind;
use crate::rpc::types::{KeyResponse, Member, QueryRequest};

/// The query every agent acknowledges by itself.
const PING: &str = "_serf_ping";

/// How a key operation went, and who of the cluster it may not have reached.
#[derive(Default)]
pub(super) struct Survey {
    /// What the agent says about the whole; empty when all that were asked agreed.
    pub error: String,
    /// How many members were asked.
    pub asked: i64,
    /// How many of them answered.
    pub answered: i64,
    /// Who refused, and why.
    pub refusals: BTreeMap<String, String>,
    /// Members that count as alive.
    pub alive: BTreeSet<String>,
    /// Members that are known and may be back, but are not alive, with their status.
    pub absent: BTreeMap<String, String>,
    /// The keys, if they were asked for.
    pub keys: Vec<ListedKey>,
    /// Whether a member has more keys than fit into its answer.
    pub is_cut: bool,
}

/// A key that members hold.
pub(super) struct ListedKey {
    /// `None` for a kind of key that this program does not know.
    pub key: Option<Key>,
    /// How many members hold it.
    pub holders: i64,
}

impl ListedKey {
    /// What to call it without showing it.
    pub fn name(&self) -> String {
        self.key
            .as_ref()
            .map_or_else(|| "of a kind unknown here".to_owned(), name)
    }
}

/// What to call a key without showing it.
pub(super) fn name(key: &Key) -> String {
    format!("{} ({})", key.fingerprint(), key.cipher())
}

impl Survey {
    /// Performs a key operation, then looks who is there: so whoever joined or failed meanwhile shows.
    pub async fn take(client: &mut Client, operation: KeyOperation) -> Result<Survey, ClientError> {
        let (response, error) = client.keys(operation).await?;
        let members = client.members().await?;
        Ok(Survey::new(response, error, &members))
    }

    fn new(response: KeyResponse, error: String, members: &[Member]) -> Survey {
        let Presence { alive, absent } = Presence::new(members);
        let refused = response.num_err > 0;
        let remarked = !response.messages.is_empty();
        let listed = |(text, holders): (Zeroizing<String>, i64)| ListedKey {
            key: Key::parse(&text).ok(),
            holders,
        };
        Survey {
            error,
            asked: response.num_nodes,
            answered: response.num_resp,
            // Without a failure, messages only say that a list was cut.
            refusals: if refused {
                response.messages
            } else {
                BTreeMap::new()
            },
            is_cut: remarked && !refused,
            alive,
            absent,
            keys: response
                .keys
                .unwrap_or_default()
                .into_iter()
                .map(listed)
                .collect(),
        }
    }

    /// Whether the agent's list still shows what the survey saw. Nobody else is asked.
    pub async fn still_holds(&self, client: &mut Client) -> Result<bool, ClientError> {
        let now = Presence::new(&client.members().await?);
        Ok(now.alive == self.alive && now.absent == self.absent)
    }

    /// Whether every known member was asked, answered and agreed.
    pub fn is_unanimous(&self) -> bool {
        self.error.is_empty()
            && self.refusals.is_empty()
            && self.absent.is_empty()
            && self.answered == self.asked
            && i64::try_from(self.alive.len()) == Ok(self.asked)
    }

    /// Whether the operation failed because of what members said, not of who was missing.
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// How many members hold the key.
    pub fn holders(&self, key: &Key) -> i64 {
        let listed = |listed: &&ListedKey| listed.key.as_ref() == Some(key);
        self.keys.iter().find(listed).map_or(0, |listed| listed.holders)
    }

    /// Whether all that were asked hold the key.
    pub fn all_hold(&self, key: &Key) -> bool {
        self.holders(key) == self.asked
    }

    /// The key that a word means: its text, or the fingerprint of one that a member holds.
    pub fn find(&self, word: &str) -> Result<Key, String> {
        let is_meant = |key: &&Key| key.fingerprint().to_string() == word.to_ascii_lowercase();
        let known = || self.keys.iter().filter_map(|listed| listed.key.as_ref());
        let mut found = known().filter(is_meant);
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(key.clone()),
            (Some(_), Some(_)) => Err(format!(
                "two keys have the fingerprint {word}; give the key itself"
            )),
            (None, _) if is_fingerprint(word) => {
                Err(format!("no member holds a key with fingerprint {word}"))
            }
            (None, _) => Key::parse(word).map_err(|error| error.to_string()),
        }
    }

    /// One row for each member in doubt; `silent` are those that a ping did not reach either.
    pub fn doubts(&self, silent: &BTreeSet<String>) -> Vec<String> {
        let row = |name: &String, why: &String| format!("in doubt: |{name}|{why}");
        let mut rows: Vec<String> = self.refusals.iter().map(|(name, why)| row(name, why)).collect();
        rows.extend(self.absent.iter().map(|(name, status)| row(name, status)));
        let no_answer = "no answer".to_owned();
        rows.extend(silent.iter().map(|name| row(name, &no_answer)));
        if rows.is_empty() {
            rows.push(format!(
                "in doubt: |{} of {} members answered, {} are alive|who did not is not known",
                self.answered,
                self.asked,
                self.alive.len()
            ));
        }
        rows
    }

    /// If answers are missing: the live members that a ping does not reach.
    pub async fn silent(&self, client: &mut Client) -> BTreeSet<String> {
        if self.answered >= self.asked {
            return BTreeSet::new();
        }
        let ping = QueryRequest {
            name: PING.to_owned(),
            request_ack: true,
            ..QueryRequest::default()
        };
        let mut silent = self.alive.clone();
        if client.query(ping).await.is_err() {
            return BTreeSet::new();
        }
        while let Ok((_, Record::Query(answer))) = client.next_record().await {
            if answer.r#type == QueryRecordKind::Done {
                break;
            }
            silent.remove(&answer.from);
        }
        silent
    }
}

/// Who is there, and who may be back.
struct Presence {
    alive: BTreeSet<String>,
    absent: BTreeMap<String, String>,
}

impl Presence {
    fn new(members: &[Member]) -> Presence {
        let named = |wanted: &'static [&'static str]| {
            members
                .iter()
                .filter(move |member| wanted.contains(&member.status.as_str()))
                .map(|member| (member.name.clone(), member.status.clone()))
        };
        Presence {
            alive: named(&["alive"]).map(|(name, _)| name).collect(),
            absent: named(&["failed", "leaving", "none"]).collect(),
        }
    }
}

/// Eight hexadecimal digits, which no key is.
fn is_fingerprint(word: &str) -> bool {
    word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const K1: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    pub const K2: &str = "EBESExQVFhcYGRobHB0eHw==";
    pub const K3: &str = "chacha20poly1305:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    /// What three live members answer, of whom so many hold each key, and who else there is.
    pub fn survey(keys: &[(&str, i64)], answered: i64, others: &[(&str, &str)]) -> Survey {
        let live = ["n1", "n2", "n3"].map(|name| (name, "alive"));
        let members: Vec<Member> = live
            .iter()
            .chain(others)
            .map(|(name, status)| Member {
                name: (*name).to_owned(),
                status: (*status).to_owned(),
                ..Member::default()
            })
            .collect();
        let keys = keys
            .iter()
            .map(|(text, holders)| (Zeroizing::new((*text).to_owned()), *holders));
        let response = KeyResponse {
            keys: Some(keys.collect()),
            num_nodes: 3,
            num_resp: answered,
            ..KeyResponse::default()
        };
        let error = match answered {
            3 => String::new(),
            _ => format!("{answered}/3 nodes reported success"),
        };
        Survey::new(response, error, &members)
    }

    #[test]
    fn who_is_in_doubt() {
        assert!(survey(&[(K1, 3)], 3, &[]).is_unanimous());
        assert!(survey(&[(K1, 3)], 3, &[("gone", "left")]).is_unanimous());
        let table = [
            (survey(&[], 2, &[]), "n2", "no answer"),
            (survey(&[], 3, &[("n4", "failed")]), "n4", "failed"),
            (survey(&[], 3, &[("n4", "leaving")]), "n4", "leaving"),
        ];
        for (survey, name, why) in table {
            assert!(!survey.is_unanimous(), "{name} {why}");
            let silent = match why {
                "no answer" => BTreeSet::from([name.to_owned()]),
                _ => BTreeSet::new(),
            };
            assert_eq!(survey.doubts(&silent), [format!("in doubt: |{name}|{why}")]);
        }
        let newcomer = survey(&[], 3, &[("n4", "alive")]);
        assert!(!newcomer.is_unanimous());
        let rows = newcomer.doubts(&BTreeSet::new());
        assert!(
            rows[0].contains("3 of 3 members answered, 4 are alive"),
            "{rows:?}"
        );
    }

    #[test]
    fn a_key_is_found_by_text_and_by_fingerprint() {
        let survey = survey(&[(K1, 3), (K3, 1)], 3, &[]);
        for text in [K1, K3] {
            let key: Key = text.parse().unwrap();
            assert_eq!(survey.find(text).as_ref(), Ok(&key));
            assert_eq!(survey.find(&key.fingerprint().to_string()), Ok(key));
        }
        let of_nobody: Key = K2.parse().unwrap();
        assert_eq!(survey.find(K2), Ok(of_nobody.clone()));
        let print = of_nobody.fingerprint().to_string();
        assert_eq!(
            survey.find(&print),
            Err(format!("no member holds a key with fingerprint {print}"))
        );
        assert_eq!(
            survey.find("abc"),
            Err("illegal base64 data at input byte 0".to_owned())
        );
        assert!(survey.all_hold(&K1.parse().unwrap()) && !survey.all_hold(&K3.parse().unwrap()));
    }
}
