//! `monitor`: the agent's log lines and events, as they come.

use std::ffi::OsString;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Command;
use serde::Serialize;

use super::info::Format;
use super::members::{JsonMember, json_member};
use super::{FAILED, Failure, Terminal, flags, rpc};
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
        .arg(flags::string(
            "log-level",
            "info",
            "The lowest level to show: trace, debug, info, warn or err.",
        ))
        .arg(flags::string(
            "format",
            "text",
            "How to print: 'text', or 'json' for an object a line. Payloads that are not UTF-8 are then base64, in \
             'payload_base64'.",
        ))
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
            Record::Log(line) if format == Format::Json => {
                rpc::json_line(
                    terminal,
                    &Line::Log {
                        line: line.trim_end(),
                    },
                )?;
            }
            Record::Event(event) if format == Format::Json => rpc::json_line(terminal, &Line::of(&event))?,
            // Of an agent of Serf it may hold anything.
            Record::Log(line) => terminal.line(go::printable::entry(&line)),
            Record::Event(event) => terminal.line(describe(&event)),
            Record::Query(_) => {}
        }
        if terminal.is_broken() {
            return Err(Failure::Exit(FAILED));
        }
    }
    let end =
        "\nRemote side ended the monitor! This usually means that the\nremote side has exited or crashed.";
    match format {
        Format::Text => terminal.line(end),
        Format::Json => terminal.help(&format!("{end}\n")),
    }
    Err(Failure::Exit(FAILED))
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Log {
        line: &'a str,
    },
    Member {
        event: &'a str,
        members: Vec<JsonMember<'a>>,
    },
    User {
        name: &'a str,
        ltime: u64,
        coalesce: bool,
        #[serde(flatten)]
        payload: Payload<'a>,
    },
    Query {
        name: &'a str,
        id: u64,
        ltime: u64,
        #[serde(flatten)]
        payload: Payload<'a>,
    },
}

/// Bytes in the form in which JSON can hold them as they are.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Payload<'a> {
    Payload(&'a str),
    PayloadBase64(String),
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a [u8]) -> Payload<'a> {
        std::str::from_utf8(bytes).map_or_else(
            |_| Payload::PayloadBase64(STANDARD.encode(bytes)),
            Payload::Payload,
        )
    }
}

impl<'a> Line<'a> {
    fn of(event: &'a EventRecord) -> Line<'a> {
        match event {
            EventRecord::Member(event) => Line::Member {
                event: &event.event,
                members: event.members.iter().map(json_member).collect(),
            },
            EventRecord::User(event) => Line::User {
                name: &event.name,
                ltime: event.l_time,
                coalesce: event.coalesce,
                payload: Payload::of(&event.payload),
            },
            EventRecord::Query(event) => Line::Query {
                name: &event.name,
                id: event.id,
                ltime: event.l_time,
                payload: Payload::of(&event.payload),
            },
        }
    }
}

/// An event's fields, each on a line, its value in Go's notation.
fn describe(event: &EventRecord) -> String {
    let fields: Vec<(&str, String)> = match event {
        EventRecord::Member(event) => {
            vec![
                ("Event", go::quote(&event.event)),
                ("Members", members(&event.members)),
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

fn members(members: &[Member]) -> String {
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
    use crate::rpc::types::{MemberEventRecord, QueryEventRecord, UserEventRecord};

    #[test]
    fn events_as_json_hold_their_payloads_as_they_are() {
        let user = |payload: &[u8]| {
            EventRecord::User(UserEventRecord {
                coalesce: true,
                event: "user".into(),
                l_time: 200,
                name: "deploy".into(),
                payload: payload.to_vec(),
            })
        };
        let json = |event: &EventRecord| serde_json::to_string(&Line::of(event)).unwrap();
        assert_eq!(
            json(&user(b"a\n\"")),
            r#"{"type":"user","name":"deploy","ltime":200,"coalesce":true,"payload":"a\n\""}"#
        );
        assert!(json(&user(b"\xff")).ends_with(r#","payload_base64":"/w=="}"#));
        let joined = EventRecord::Member(MemberEventRecord {
            event: "member-join".into(),
            members: vec![Member::default()],
        });
        let start = r#"{"type":"member","event":"member-join","members":[{"name":"","addr":":0","#;
        assert!(json(&joined).starts_with(start), "{}", json(&joined));
    }

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
