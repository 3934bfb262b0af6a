//! The records that come after the answer to `stream`, `monitor` and `query`, each after a header with
//! the number of that request.

use serde::{Deserialize, Serialize};

use super::answers::Member;
use super::codec::{CodecError, decode, payload};

/// A record of an event stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EventRecord {
    /// `member-join` and its kind.
    Member(MemberEventRecord),
    /// A user event.
    User(UserEventRecord),
    /// A query.
    Query(QueryEventRecord),
}

impl EventRecord {
    /// Reads a record, whose kind only one of its fields tells.
    pub fn decode(object: &[u8]) -> Result<EventRecord, CodecError> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct AnyEvent {
            #[serde(alias = "0")]
            event: String,
        }
        Ok(match decode::<AnyEvent>(object)?.event.as_str() {
            "user" => EventRecord::User(decode(object)?),
            "query" => EventRecord::Query(decode(object)?),
            _ => EventRecord::Member(decode(object)?),
        })
    }
}

/// Members joined, left, failed, changed or were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MemberEventRecord {
    /// `member-join`, `member-leave`, `member-failed`, `member-update` or `member-reap`.
    #[serde(alias = "0")]
    pub event: String,
    /// The members, with their status at the time of the event.
    #[serde(alias = "1")]
    pub members: Vec<Member>,
}

/// A user event arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UserEventRecord {
    /// As in the request.
    #[serde(alias = "4")]
    pub coalesce: bool,
    /// Always `user`.
    #[serde(alias = "0")]
    pub event: String,
    /// Lamport time of the event clock.
    #[serde(alias = "1")]
    pub l_time: u64,
    /// The event's name.
    #[serde(alias = "2")]
    pub name: String,
    /// Opaque bytes.
    #[serde(alias = "3", with = "payload")]
    pub payload: Vec<u8>,
}

/// A query arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QueryEventRecord {
    /// Always `query`.
    #[serde(alias = "0")]
    pub event: String,
    /// To be named in `respond`; counts from 1 on each connection.
    #[serde(rename = "ID", alias = "1")]
    pub id: u64,
    /// Lamport time of the query clock.
    #[serde(alias = "2")]
    pub l_time: u64,
    /// The query's name.
    #[serde(alias = "3")]
    pub name: String,
    /// Opaque bytes.
    #[serde(alias = "4", with = "payload")]
    pub payload: Vec<u8>,
}

/// A record of a log monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogRecord {
    /// One line, without its newline.
    #[serde(alias = "0")]
    pub log: String,
}

/// What a [`QueryRecord`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryRecordKind {
    /// A node has seen the query.
    Ack,
    /// A node answers.
    Response,
    /// The deadline has passed; nothing follows.
    #[default]
    Done,
}

/// A record of a running query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct QueryRecord {
    /// The node's name.
    #[serde(default, alias = "1")]
    pub from: String,
    /// The answer.
    #[serde(default, alias = "2", with = "payload")]
    pub payload: Vec<u8>,
    /// What this is; it must be there.
    #[serde(alias = "0")]
    pub r#type: QueryRecordKind,
}
