//! `query`: asks the cluster a question and shows the answers as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::Command;
use serde::Serialize;

use super::flags::Flags;
use super::progress::Progress;
use super::rpc::Wait;
use super::{FAILED, Failure, Terminal, flags, rpc};
use crate::go;
use crate::go::printable::word;
use crate::rpc::client::{Client, Record};
use crate::rpc::types::{MembersFilteredRequest, QueryRequest};
use crate::rpc::types::{QueryRecord, QueryRecordKind};

pub(super) fn define() -> Command {
    Command::new("query")
        .about("Asks the cluster a question")
        .long_about(
            "Sends a query, with a payload if one is given, and prints acknowledgements and responses until \
             its time is over.",
        )
        .override_usage("query [options] name payload")
        .args([
            flags::string("format", "text", "How to print the result: 'text' or 'json'."),
            flags::list(
                "node",
                "<name>",
                "Only this node shall answer. Can be given several times.",
            ),
            flags::list(
                "tag",
                "<key>=<regexp>",
                "Only nodes whose tag matches shall answer. Can be given several times.",
            ),
            flags::duration(
                "timeout",
                "<duration>",
                "How long to wait for answers, such as 15s or 300ms.",
            ),
            rpc::Wait::argument(
                "End before that time, when all living members that it is for have responded, or this many have.",
            ),
            flags::boolean("no-ack", "Do not ask for acknowledgements."),
            flags::integer(
                "relay-factor",
                "<n>",
                "Send answers through this many further nodes as well.",
            ),
        ])
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let query = request(&flags)?;
    let wait = Wait::of(&flags)?;
    rpc::with_agent(&flags, terminal, async |terminal, client| {
        tokio::select! {
            result = ask(terminal, client, query, wait, flags.string("format").unwrap_or("text")) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::Exit(FAILED)),
        }
    })
}

fn request(flags: &Flags) -> Result<QueryRequest, Failure> {
    let (name, payload) = match flags.words() {
        [] => return Err(Failure::Usage(Some("A query name must be specified."))),
        [name] => (name, None),
        [name, payload] => (name, Some(payload)),
        _ => {
            let problem = "Too many command line arguments. Only a name and payload must be specified.";
            return Err(Failure::Usage(Some(problem)));
        }
    };
    let relay_factor = u8::try_from(flags.integer("relay-factor").unwrap_or_default())
        .map_err(|_| Failure::Error("Relay factor must be between 0 and 255".to_owned()))?;
    Ok(QueryRequest {
        filter_nodes: flags.list("node"),
        filter_tags: rpc::key_values(&flags.list("tag"))?,
        name: rpc::text_word(name)?,
        payload: rpc::payload(payload),
        relay_factor,
        request_ack: !flags.is_set("no-ack"),
        timeout: flags.duration("timeout").unwrap_or_default().nanos,
    })
}

async fn ask(
    terminal: &mut Terminal<'_>,
    mut client: Client,
    query: QueryRequest,
    wait: Wait,
    format: &str,
) -> Result<(), Failure> {
    let mut printer = Printer::new(format, query.request_ack)?;
    let awaited = match wait {
        Wait::All => living(&mut client, &query).await?,
        Wait::Time | Wait::Some(_) => BTreeSet::new(),
    };
    let mut responded = BTreeSet::new();
    let dispatched = format!("Query '{}' dispatched", word(&query.name));
    client
        .query(query)
        .await
        .map_err(rpc::failed("Error sending query"))?;
    if printer.json.is_none() {
        terminal.line(dispatched);
    }
    // An agent that dies midway ends the query; what came until then is the result.
    let progress = Progress::start();
    loop {
        let so_far = format!("{} members have responded", responded.len());
        let record = progress.wait(terminal, &so_far, client.next_record()).await;
        let Ok((_, record)) = record else { break };
        match record {
            Record::Query(answer) if answer.r#type == QueryRecordKind::Done => break,
            Record::Query(answer) => {
                if answer.r#type == QueryRecordKind::Response {
                    responded.insert(answer.from.clone());
                }
                printer.show(terminal, answer);
            }
            _ => {}
        }
        if wait.is_over(&responded, &awaited) {
            break;
        }
        if terminal.is_broken() {
            return Err(Failure::Exit(FAILED));
        }
    }
    printer.finish(terminal)
}

/// The names of living members that a query is for.
async fn living(client: &mut Client, query: &QueryRequest) -> Result<BTreeSet<String>, Failure> {
    // A query's pattern has to fit a part of a tag, that of a list of members all of it.
    let tags = query.filter_tags.iter();
    let tags = tags.map(|(key, pattern)| (key.clone(), format!("(?s:.*)(?:{pattern})(?s:.*)")));
    let filter = MembersFilteredRequest {
        status: "alive".to_owned(),
        tags: tags.collect(),
        ..MembersFilteredRequest::default()
    };
    let members = client.members_filtered(filter).await;
    let members = members.map_err(rpc::failed("Error getting members"))?;
    let names = members.into_iter().map(|member| member.name);
    let is_meant = |name: &String| query.filter_nodes.is_empty() || query.filter_nodes.contains(name);
    Ok(names.filter(is_meant).collect())
}

/// Shows answers at once as text, or all together as JSON.
struct Printer {
    acks: usize,
    responses: usize,
    acks_wanted: bool,
    json: Option<JsonAnswers>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JsonAnswers {
    /// No acks are null.
    acks: Option<Vec<String>>,
    responses: BTreeMap<String, String>,
}

impl Printer {
    fn new(format: &str, acks_wanted: bool) -> Result<Printer, Failure> {
        let json = match format {
            "text" => None,
            "json" => Some(JsonAnswers::default()),
            other => return Err(Failure::Error(format!("Invalid format: {other}"))),
        };
        Ok(Printer {
            acks: 0,
            responses: 0,
            acks_wanted,
            json,
        })
    }

    fn show(&mut self, terminal: &mut Terminal<'_>, answer: QueryRecord) {
        let QueryRecord {
            from,
            mut payload,
            r#type: kind,
        } = answer;
        match (kind, &mut self.json) {
            (QueryRecordKind::Ack, Some(json)) => json.acks.get_or_insert_default().push(from),
            (QueryRecordKind::Ack, None) => {
                self.acks += 1;
                terminal.line(format!("Ack from '{}'", word(&from)));
            }
            (QueryRecordKind::Response, Some(json)) => {
                json.responses
                    .insert(from, String::from_utf8_lossy(&payload).into_owned());
            }
            (QueryRecordKind::Response, None) => {
                self.responses += 1;
                payload.pop_if(|last| *last == b'\n');
                if terminal.is_screen() && payload.contains(&b'\n') {
                    // People see at once where the next answer begins.
                    payload = [b"\n", payload.as_slice()].concat();
                    payload = String::from_utf8_lossy(&payload)
                        .replace('\n', "\n    ")
                        .into_bytes();
                }
                terminal.payload(&format!("Response from '{}': ", word(&from)), &payload);
            }
            (QueryRecordKind::Done, _) => {}
        }
    }

    fn finish(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if let Some(json) = self.json {
            terminal
                .raw(go::json(&json).map_err(|error| Failure::Error(format!("Encoding error: {error}")))?);
            return Ok(());
        }
        if self.acks_wanted {
            terminal.line(format!("Total Acks: {}", self.acks));
        }
        terminal.line(format!("Total Responses: {}", self.responses));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: &str, acks_wanted: bool, answers: &[QueryRecord]) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
        let mut printer = Printer::new(format, acks_wanted).unwrap();
        for answer in answers {
            printer.show(&mut terminal, answer.clone());
        }
        printer.finish(&mut terminal).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    fn answer(kind: QueryRecordKind, from: &str, payload: &[u8]) -> QueryRecord {
        QueryRecord {
            from: from.to_owned(),
            payload: payload.to_vec(),
            r#type: kind,
        }
    }

    #[test]
    fn text_cuts_one_newline() {
        let answers = [
            answer(QueryRecordKind::Ack, "n1", b""),
            answer(QueryRecordKind::Response, "n1", b"up\n\n"),
        ];
        let expected = "Ack from 'n1'\nResponse from 'n1': up\n\nTotal Acks: 1\nTotal Responses: 1\n";
        assert_eq!(print("text", true, &answers), expected);
        assert_eq!(print("text", false, &[]), "Total Responses: 0\n");
    }

    #[test]
    fn people_see_where_an_answer_of_several_lines_ends() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err).with_screen(true);
        let mut printer = Printer::new("text", false).unwrap();
        for payload in [&b"a\nb\n"[..], b"one\n"] {
            printer.show(&mut terminal, answer(QueryRecordKind::Response, "n1", payload));
        }
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Response from 'n1': \n    a\n    b\nResponse from 'n1': one\n"
        );
    }

    #[test]
    fn json_keeps_payloads_whole() {
        let answers = [answer(QueryRecordKind::Response, "n1", b"<up>\n\xff")];
        let expected =
            "{\n  \"Acks\": null,\n  \"Responses\": {\n    \"n1\": \"\\u003cup\\u003e\\n\\ufffd\"\n  }\n}\n";
        assert_eq!(print("json", true, &answers), expected);
    }
}
