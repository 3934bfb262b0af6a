//! `monitor`: the agent's log lines and events, as they come.

use std::ffi::OsString;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Command;
use serde_json::{Value, json};

use super::info::Format;
use super::{FAILED, Failure, Terminal, flags, members, rpc};
use crate::go;
use crate::rpc::client::{Client, Record};
use crate::rpc::types::EventRecord;
use crate::rpc::types::Member;

pub(super) fn define() -> Command {
    Command::new("monitor")
        .about("Shows the agent's log as it is written")
        .long_about(
            "Shows the agent's recent log lines and then, until interrupted, each new one as well as all \
             events. The level is independent of the one the agent itself logs at.",
        )
        .override_usage("monitor [options]")
        .args([
            flags::string(
                "log-level",
                "info",
                "The lowest level to show: trace, debug, info, warn or err.",
            ),
            flags::string(
                "format",
                "text",
                "How to print it: 'text' or 'json', an object a line: a 'log' line, or an 'event' with its members, or \
                 with name, Lamport time and payload (in 'payload_base64' where it is no UTF-8).",
            ),
        ])
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let level = flags.string("log-level").unwrap_or("INFO").to_uppercase();
    let format = Format::of(&flags)?;
    rpc::with_agent(&flags, terminal, async |terminal, client| {
        tokio::select! {
            result = watch(terminal, client, level, format) => result,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn watch(
    terminal: &mut Terminal<'_>,
    mut client: Client,
    level: String,
    format: Format,
) -> Result<(), Failure> {
    client
        .stream("*".to_owned())
        .await
        .map_err(rpc::failed("Error starting stream"))?;
    client
        .monitor(level)
        .await
        .map_err(rpc::failed("Error starting monitor"))?;
    while let Ok((_, record)) = client.next_record().await {
        match record {
            Record::Log(line) if format == Format::Json => terminal.raw(json!({ "log": line }).to_string()),
            Record::Event(event) if format == Format::Json => terminal.raw(object(event).to_string()),
            // Of an agent of Serf it may hold anything.
            Record::Log(line) => terminal.line(go::printable::entry(&line)),
            Record::Event(event) => terminal.line(describe(&event)),
            Record::Query(_) => {}
        }
        if terminal.is_broken() {
            return Err(Failure::Exit(FAILED));
        }
    }
    if format == Format::Json {
        return Err(Failure::Exit(FAILED));
    }
    terminal.line("");
    terminal.line("Remote side ended the monitor! This usually means that the");
    terminal.line("remote side has exited or crashed.");
    Err(Failure::Exit(FAILED))
}

/// An event as JSON, in the words of `members -format=json`.
fn object(event: EventRecord) -> Value {
    match event {
        EventRecord::Member(event) => json!({
            "event": event.event,
            "members": members::json(&event.members).members.unwrap_or_default(),
        }),
        EventRecord::User(event) => json!({
            "event": event.event,
            "name": event.name,
            "ltime": event.l_time,
            "coalesce": event.coalesce,
        })
        .with_payload(event.payload),
        EventRecord::Query(event) => json!({
            "event": event.event,
            "name": event.name,
            "ltime": event.l_time,
            "id": event.id,
        })
        .with_payload(event.payload),
    }
}

/// An object to which a payload is added.
trait WithPayload {
    fn with_payload(self, payload: Vec<u8>) -> Value;
}

impl WithPayload for Value {
    fn with_payload(mut self, payload: Vec<u8>) -> Value {
        match String::from_utf8(payload) {
            Ok(text) => self["payload"] = text.into(),
            Err(error) => self["payload_base64"] = BASE64_STANDARD.encode(error.as_bytes()).into(),
        }
        self
    }
}

/// An event's fields, each on a line, its value in Go's notation.
fn describe(event: &EventRecord) -> String {
    let fields: Vec<(&str, String)> = match event {
        EventRecord::Member(event) => {
            vec![
                ("Event", go::quote(&event.event)),
                ("Members", members_in_go(&event.members)),
            ]
        }
        EventRecord::User(event) => vec![
            ("Coalesce", event.coalesce.to_string()),
            ("Event", go::quote(&event.event)),
            ("LTime", number(event.l_time)),
            ("Name", go::quote(&event.name)),
            ("Payload", go::bytes("[]byte", &event.payload)),
        ],
        EventRecord::Query(event) => vec![
            ("Event", go::quote(&event.event)),
            ("ID", number(event.id)),
            ("LTime", number(event.l_time)),
            ("Name", go::quote(&event.name)),
            ("Payload", go::bytes("[]byte", &event.payload)),
        ],
    };
    let lines: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("\t{key}: {value}"))
        .collect();
    format!("Event Info:\n{}", lines.join("\n"))
}

/// Numbers that fit seven bits reach Serf's client as signed, larger ones as unsigned integers, which
/// Go writes in hexadecimal.
fn number(number: u64) -> String {
    if number < 128 {
        number.to_string()
    } else {
        format!("{number:#x}")
    }
}

fn members_in_go(members: &[Member]) -> String {
    let members: Vec<String> = members.iter().map(member).collect();
    format!("[]interface {{}}{{{}}}", members.join(", "))
}

fn member(member: &Member) -> String {
    let tags: Vec<String> = member
        .tags
        .iter()
        .map(|(key, value)| format!("{}:{}", go::quote(key), go::quote(value)))
        .collect();
    let fields = [
        ("Addr", go::bytes("[]uint8", &member.addr)),
        ("DelegateCur", number(member.delegate_cur.into())),
        ("DelegateMax", number(member.delegate_max.into())),
        ("DelegateMin", number(member.delegate_min.into())),
        ("Name", go::quote(&member.name)),
        ("Port", number(member.port.into())),
        ("ProtocolCur", number(member.protocol_cur.into())),
        ("ProtocolMax", number(member.protocol_max.into())),
        ("ProtocolMin", number(member.protocol_min.into())),
        ("Status", go::quote(&member.status)),
        (
            "Tags",
            format!("map[interface {{}}]interface {{}}{{{}}}", tags.join(", ")),
        ),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{}:{value}", go::quote(key)))
        .collect();
    format!("map[interface {{}}]interface {{}}{{{}}}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::types::{MemberEventRecord, QueryEventRecord};

    #[test]
    fn describes_a_query() {
        let event = EventRecord::Query(QueryEventRecord {
            event: "query".into(),
            id: 1,
            l_time: 200,
            name: "qq".into(),
            payload: b"pp".to_vec(),
        });
        assert_eq!(
            describe(&event),
            "Event Info:\n\tEvent: \"query\"\n\tID: 1\n\tLTime: 0xc8\n\tName: \"qq\"\n\tPayload: []byte{0x70, 0x70}"
        );
    }

    #[test]
    fn an_event_is_one_object() {
        use crate::rpc::types::UserEventRecord;
        let event = |payload: &[u8]| {
            object(EventRecord::User(UserEventRecord {
                event: "user".into(),
                name: "deploy".into(),
                l_time: 7,
                coalesce: true,
                payload: payload.to_vec(),
            }))
            .to_string()
        };
        assert_eq!(
            event(b"a\nb"),
            r#"{"coalesce":true,"event":"user","ltime":7,"name":"deploy","payload":"a\nb"}"#
        );
        assert_eq!(
            event(b"\xff"),
            r#"{"coalesce":true,"event":"user","ltime":7,"name":"deploy","payload_base64":"/w=="}"#
        );
        let left = MemberEventRecord {
            event: "member-leave".into(),
            members: vec![Member {
                name: "n".into(),
                addr: vec![127, 0, 0, 1],
                port: 1,
                status: "left".into(),
                ..Member::default()
            }],
        };
        let left = object(EventRecord::Member(left));
        assert_eq!(left["members"][0]["addr"], "127.0.0.1:1");
        assert_eq!(left["members"][0]["status"], "left");
    }

    #[test]
    fn describes_members() {
        let member = Member {
            addr: vec![127, 0, 0, 1],
            name: "n".into(),
            port: 7946,
            ..Member::default()
        };
        let event = MemberEventRecord {
            event: "member-join".into(),
            members: vec![member],
        };
        let text = describe(&EventRecord::Member(event));
        let start = "Event Info:\n\tEvent: \"member-join\"\n\tMembers: []interface {}{map[interface {}]interface {}{\
            \"Addr\":[]uint8{0x7f, 0x0, 0x0, 0x1}, \"DelegateCur\":0, ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\"Port\":0x1f0a"), "{text}");
    }
}
