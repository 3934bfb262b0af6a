//! The records that come after the answer to `stream`, `monitor` and `query`, each after a header with
//! the number of that request.

use serde::Serialize;

use super::codec::{CodecError, Fields, Value, bytes_or_nil};
use super::types::{Body, Member};

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

impl Body for EventRecord {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let names = ["Event", "Members", "ID", "LTime", "Name", "Payload", "Coalesce"];
        let mut fields = Fields::new(value, &names)?;
        let event = fields.text("Event")?;
        Ok(match event.as_str() {
            "user" => EventRecord::User(UserEventRecord {
                coalesce: fields.boolean("Coalesce")?,
                event,
                l_time: fields.integer("LTime")?,
                name: fields.text("Name")?,
                payload: fields.bytes("Payload")?,
            }),
            "query" => EventRecord::Query(QueryEventRecord {
                event,
                id: fields.integer("ID")?,
                l_time: fields.integer("LTime")?,
                name: fields.text("Name")?,
                payload: fields.bytes("Payload")?,
            }),
            _ => {
                let members = fields.list("Members", Member::from_value)?;
                EventRecord::Member(MemberEventRecord { event, members })
            }
        })
    }
}

/// Members joined, left, failed, changed or were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MemberEventRecord {
    /// `member-join`, `member-leave`, `member-failed`, `member-update` or `member-reap`.
    pub event: String,
    /// The members, with their status at the time of the event.
    pub members: Vec<Member>,
}

/// A user event arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UserEventRecord {
    /// As in the request.
    pub coalesce: bool,
    /// Always `user`.
    pub event: String,
    /// Lamport time of the event clock.
    pub l_time: u64,
    /// The event's name.
    pub name: String,
    /// Opaque bytes.
    #[serde(serialize_with = "bytes_or_nil")]
    pub payload: Vec<u8>,
}

/// A query arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct QueryEventRecord {
    /// Always `query`.
    pub event: String,
    /// To be named in `respond`; counts from 1 on each connection.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Lamport time of the query clock.
    pub l_time: u64,
    /// The query's name.
    pub name: String,
    /// Opaque bytes.
    #[serde(serialize_with = "bytes_or_nil")]
    pub payload: Vec<u8>,
}

/// A record of a log monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogRecord {
    /// One line, without its newline.
    pub log: String,
}

impl Body for LogRecord {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        Ok(LogRecord {
            log: Fields::new(value, &["Log"])?.text("Log")?,
        })
    }
}

/// What a [`QueryRecord`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct QueryRecord {
    /// The node's name.
    pub from: String,
    /// The answer.
    #[serde(serialize_with = "bytes_or_nil")]
    pub payload: Vec<u8>,
    /// What this is.
    pub r#type: QueryRecordKind,
}

impl Body for QueryRecord {
    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value, &["Type", "From", "Payload"])?;
        let kind = match fields.text("Type")?.as_str() {
            "ack" => QueryRecordKind::Ack,
            "response" => QueryRecordKind::Response,
            "done" => QueryRecordKind::Done,
            other => {
                return Err(CodecError::UnknownValue {
                    field: "Type",
                    value: other.to_owned(),
                });
            }
        };
        Ok(QueryRecord {
            from: fields.text("From")?,
            payload: fields.bytes("Payload")?,
            r#type: kind,
        })
    }
}
