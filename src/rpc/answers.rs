//! The bodies that come after an answer's header.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::codec::{CodecError, Fields, SecretCounts, Value, bytes_or_nil, list_or_nil};
use super::types::Body;

/// Answer to `join`; sent with an error too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinResponse {
    /// How many addresses answered.
    pub num: i32,
}

impl Body for JoinResponse {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        Ok(JoinResponse {
            num: Fields::new(value, &["Num"])?.integer("Num")?,
        })
    }
}

/// A member, as answers and records tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// 4 or 16 raw bytes.
    #[serde(serialize_with = "bytes_or_nil")]
    pub addr: Vec<u8>,
    /// Serf protocol in use.
    pub delegate_cur: u8,
    /// Highest Serf protocol understood.
    pub delegate_max: u8,
    /// Lowest Serf protocol understood.
    pub delegate_min: u8,
    /// The member's name.
    pub name: String,
    /// Gossip port.
    pub port: u16,
    /// memberlist protocol in use.
    pub protocol_cur: u8,
    /// Highest memberlist protocol understood.
    pub protocol_max: u8,
    /// Lowest memberlist protocol understood.
    pub protocol_min: u8,
    /// `none`, `alive`, `leaving`, `left` or `failed`.
    pub status: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Body for Member {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let names = [
            "Name",
            "Addr",
            "Port",
            "Tags",
            "Status",
            "ProtocolMin",
            "ProtocolMax",
            "ProtocolCur",
            "DelegateMin",
            "DelegateMax",
            "DelegateCur",
        ];
        let mut fields = Fields::new(value, &names)?;
        Ok(Member {
            addr: fields.bytes("Addr")?,
            delegate_cur: fields.integer("DelegateCur")?,
            delegate_max: fields.integer("DelegateMax")?,
            delegate_min: fields.integer("DelegateMin")?,
            name: fields.text("Name")?,
            port: fields.integer("Port")?,
            protocol_cur: fields.integer("ProtocolCur")?,
            protocol_max: fields.integer("ProtocolMax")?,
            protocol_min: fields.integer("ProtocolMin")?,
            status: fields.text("Status")?,
            tags: fields.strings("Tags")?,
        })
    }
}

/// Answer to `members` and `members-filtered`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MembersResponse {
    /// The members; an empty list is sent as such, not as nil.
    pub members: Vec<Member>,
}

impl Body for MembersResponse {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value, &["Members"])?;
        Ok(MembersResponse {
            members: fields.list("Members", Member::from_value)?,
        })
    }
}

fn key_counts<S: Serializer>(keys: &Option<SecretCounts>, serializer: S) -> Result<S::Ok, S::Error> {
    match keys {
        None => serializer.serialize_none(),
        Some(keys) => serializer.collect_map(keys.iter().map(|(key, count)| (key.as_str(), count))),
    }
}

/// Answer to all key commands; sent with an error too.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyResponse {
    /// Of a listing: each key in base64, and how many members hold it. Not shown by Debug.
    #[serde(serialize_with = "key_counts")]
    pub keys: Option<SecretCounts>,
    /// What members remarked, by name.
    pub messages: BTreeMap<String, String>,
    /// How many members reported a failure.
    pub num_err: i64,
    /// How many members there are.
    pub num_nodes: i64,
    /// How many members answered.
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

impl Body for KeyResponse {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value, &["Messages", "Keys", "NumNodes", "NumErr", "NumResp"])?;
        Ok(KeyResponse {
            keys: fields.secret_counts("Keys")?,
            messages: fields.strings("Messages")?,
            num_err: fields.integer("NumErr")?,
            num_nodes: fields.integer("NumNodes")?,
            num_resp: fields.integer("NumResp")?,
        })
    }
}

/// Answer to `stats`: groups of figures, all of them strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StatsResponse(pub BTreeMap<String, BTreeMap<String, String>>);

impl Body for StatsResponse {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        Ok(StatsResponse(value.into_text_map("stats", Value::into_strings)?))
    }
}

/// A network coordinate, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Coordinate {
    /// Offset learnt over the last samples.
    pub adjustment: f64,
    /// Estimated relative error.
    pub error: f64,
    /// Access-link delay.
    pub height: f64,
    /// Euclidean part; empty when there is none.
    #[serde(serialize_with = "list_or_nil")]
    pub vec: Vec<f64>,
}

impl Body for Coordinate {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value, &["Vec", "Error", "Adjustment", "Height"])?;
        Ok(Coordinate {
            adjustment: fields.float("Adjustment")?,
            error: fields.float("Error")?,
            height: fields.float("Height")?,
            vec: fields.floats("Vec")?,
        })
    }
}

/// Answer to `get-coordinate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CoordinateResponse {
    /// The coordinate; all zero when unknown.
    pub coord: Coordinate,
    /// Whether the node's coordinate is known.
    pub ok: bool,
}

impl Body for CoordinateResponse {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value, &["Coord", "Ok"])?;
        let coord = fields.take("Coord").unwrap_or(Value::Nil);
        Ok(CoordinateResponse {
            coord: Coordinate::from_value(coord)?,
            ok: fields.boolean("Ok")?,
        })
    }
}
