//! The bodies that come after an answer's header.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::codec::{list_or_nil, payload};

/// Answer to `join`; sent with an error too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinResponse {
    /// What went wrong with the others, if the request wants to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// How many addresses answered.
    #[serde(alias = "0")]
    pub num: i32,
}

/// A member, as answers and records tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Member {
    /// 4 or 16 raw bytes.
    #[serde(alias = "1", with = "payload")]
    pub addr: Vec<u8>,
    /// Serf protocol in use.
    #[serde(alias = "10")]
    pub delegate_cur: u8,
    /// Highest Serf protocol understood.
    #[serde(alias = "9")]
    pub delegate_max: u8,
    /// Lowest Serf protocol understood.
    #[serde(alias = "8")]
    pub delegate_min: u8,
    /// The member's name.
    #[serde(alias = "0")]
    pub name: String,
    /// Gossip port.
    #[serde(alias = "2")]
    pub port: u16,
    /// memberlist protocol in use.
    #[serde(alias = "7")]
    pub protocol_cur: u8,
    /// Highest memberlist protocol understood.
    #[serde(alias = "6")]
    pub protocol_max: u8,
    /// Lowest memberlist protocol understood.
    #[serde(alias = "5")]
    pub protocol_min: u8,
    /// `none`, `alive`, `leaving`, `left` or `failed`.
    #[serde(alias = "4")]
    pub status: String,
    /// Tags.
    #[serde(alias = "3")]
    pub tags: BTreeMap<String, String>,
}

/// Answer to `members` and `members-filtered`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MembersResponse {
    /// The members; an empty list is sent as such, not as nil.
    #[serde(alias = "0")]
    pub members: Vec<Member>,
}

/// Answer to all key commands; sent with an error too.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct KeyResponse {
    /// Of a listing: each key in base64, and how many members hold it. Not shown by Debug.
    #[serde(alias = "1", with = "key_counts")]
    pub keys: Option<SecretCounts>,
    /// What members remarked, by name.
    #[serde(alias = "0")]
    pub messages: BTreeMap<String, String>,
    /// How many members reported a failure.
    #[serde(alias = "3")]
    pub num_err: i64,
    /// How many members there are.
    #[serde(alias = "2")]
    pub num_nodes: i64,
    /// How many members answered.
    #[serde(alias = "4")]
    pub num_resp: i64,
}

impl fmt::Debug for KeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyResponse")
            .field("keys", &self.keys.as_ref().map(Vec::len))
            .field("messages", &self.messages)
            .field("num_err", &self.num_err)
            .field("num_nodes", &self.num_nodes)
            .field("num_resp", &self.num_resp)
            .finish()
    }
}

/// Answer to `stats`: groups of figures, all of them strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatsResponse(pub BTreeMap<String, BTreeMap<String, String>>);

/// A network coordinate, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Coordinate {
    /// Offset learnt over the last samples.
    #[serde(alias = "2")]
    pub adjustment: f64,
    /// Estimated relative error.
    #[serde(alias = "1")]
    pub error: f64,
    /// Access-link delay.
    #[serde(alias = "3")]
    pub height: f64,
    /// Euclidean part; empty when there is none.
    #[serde(alias = "0", serialize_with = "list_or_nil")]
    pub vec: Vec<f64>,
}

/// Answer to `get-coordinate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CoordinateResponse {
    /// The coordinate; all zero when unknown.
    #[serde(alias = "0")]
    pub coord: Coordinate,
    /// Whether the node's coordinate is known.
    #[serde(alias = "1")]
    pub ok: bool,
}

/// Secret strings with a count each, sorted; erased from memory on drop.
pub type SecretCounts = Vec<(Zeroizing<String>, i64)>;

mod key_counts {
    use std::fmt;

    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde::ser::Serializer;

    use super::SecretCounts;

    pub(super) fn serialize<S: Serializer>(
        keys: &Option<SecretCounts>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match keys {
            None => serializer.serialize_none(),
            Some(keys) => serializer.collect_map(keys.iter().map(|(key, count)| (key.as_str(), count))),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretCounts>, D::Error> {
        from.deserialize_option(Keys)
    }

    struct Keys;

    impl<'de> Visitor<'de> for Keys {
        type Value = Option<SecretCounts>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of keys to counts")
        }

        fn visit_none<E>(self) -> Result<Option<SecretCounts>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<SecretCounts>, D::Error> {
            from.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<SecretCounts>, A::Error> {
            let mut counts = SecretCounts::new();
            while let Some(entry) = entries.next_entry()? {
                counts.push(entry);
            }
            counts.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            Ok(Some(counts))
        }
    }
}
