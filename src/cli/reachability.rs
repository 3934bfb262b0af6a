//! `reachability`: whether every live member can be reached, and answers once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Instant;

use clap::Command;

use super::{FAILED, Failure, Terminal, flags, rpc};
use crate::go::printable::word;
use crate::rpc::client::{Client, Record};
use crate::rpc::types::QueryRecordKind;
use crate::rpc::types::QueryRequest;

/// The query every agent acknowledges by itself.
const PING: &str = "_serf_ping";

const TROUBLESHOOTING: &str = "Things to look at:
* Does the host's firewall let the gossip port through, for both UDP and TCP?
* Do two members share a name or an address?
* Did a member fail or leave just now? Then try again in a minute.
* Is the network or a host overloaded, so that answers come too late?
* Do all members share the key in use?";

pub(super) fn define() -> Command {
    Command::new("reachability")
        .about("Tests whether all live members can be reached")
        .long_about("Pings all members through the cluster and tells which of the live ones do not answer.")
        .override_usage("reachability [options]")
        .args(rpc::arguments())
        .arg(flags::string(
            "wait",
            "<all>",
            "With 'all': end as soon as all live members have answered. Two of one name are then found only if both \
             were quick.",
        ))
        .arg(flags::boolean(
            "verbose",
            "Show each acknowledgement as it comes.",
        ))
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let patient = match flags.string("wait") {
        None => true,
        Some("all") => false,
        Some(other) => return Err(Failure::Error(format!("-wait={other} must be 'all'"))),
    };
    rpc::with_agent(&flags, terminal, async |terminal, client| {
        tokio::select! {
            result = test(terminal, client, flags.is_set("verbose"), patient) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::Error("Test interrupted".to_owned())),
        }
    })
}

async fn test(
    terminal: &mut Terminal<'_>,
    mut client: Client,
    verbose: bool,
    patient: bool,
) -> Result<(), Failure> {
    let members = client
        .members()
        .await
        .map_err(rpc::failed("Error getting members"))?;
    let alive: BTreeSet<String> = members
        .iter()
        .filter(|member| member.status == "alive")
        .map(|member| member.name.clone())
        .collect();
    terminal.line(format!(
        "Total members: {}, live members: {}",
        members.len(),
        alive.len()
    ));
    terminal.line("Starting reachability test...");
    let start = Instant::now();
    let mut last = start;
    let ping = QueryRequest {
        name: PING.to_owned(),
        request_ack: true,
        ..QueryRequest::default()
    };
    client
        .query(ping)
        .await
        .map_err(rpc::failed("Error sending query"))?;
    let mut tally = Tally::default();
    while let Ok((_, record)) = client.next_record().await {
        let Record::Query(answer) = record else { continue };
        match answer.r#type {
            QueryRecordKind::Done => break,
            QueryRecordKind::Response => {}
            QueryRecordKind::Ack => {
                if verbose {
                    terminal.line(format!("\tAck from '{}'", word(&answer.from)));
                }
                last = Instant::now();
                tally.count(terminal, answer.from);
                if !patient && tally.acks == alive.len() {
                    break;
                }
            }
        }
    }
    if verbose {
        terminal.line(format!(
            "Query time: {:.2} sec, time to last response: {:.2} sec",
            start.elapsed().as_secs_f64(),
            last.duration_since(start).as_secs_f64()
        ));
    }
    tally.judge(terminal, &alive)
}

/// Who has answered.
#[derive(Default)]
struct Tally {
    acks: usize,
    from: BTreeSet<String>,
    duplicates: bool,
}

impl Tally {
    fn count(&mut self, terminal: &mut Terminal<'_>, from: String) {
        self.acks += 1;
        if self.from.contains(&from) {
            self.duplicates = true;
            terminal.line(format!("Duplicate response from '{}'", word(&from)));
            terminal.line("Two members may go by this name; names have to be unique in a cluster.");
        } else {
            self.from.insert(from);
        }
    }

    fn judge(self, terminal: &mut Terminal<'_>, alive: &BTreeSet<String>) -> Result<(), Failure> {
        if self.acks == alive.len() && !self.duplicates {
            terminal.line("Successfully contacted all live nodes");
            return Ok(());
        }
        if self.acks > alive.len() {
            terminal.line("Received more acks than live nodes! Acks from non-live nodes:");
            self.from
                .difference(alive)
                .for_each(|name| terminal.line(format!("\t{}", word(name))));
            terminal.line("Members that count as failed or left do answer, so views of the cluster differ.");
        } else if self.acks < alive.len() {
            terminal.line("Received less acks than live nodes! Missing acks from:");
            alive
                .difference(&self.from)
                .for_each(|name| terminal.line(format!("\t{}", word(name))));
            terminal.line("These members count as alive, but could not be reached or could not answer.");
        }
        terminal.line(TROUBLESHOOTING);
        Err(Failure::Exit(FAILED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(acks: &[&str], alive: &[&str]) -> (Result<(), Failure>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
        let mut tally = Tally::default();
        for name in acks {
            tally.count(&mut terminal, (*name).to_owned());
        }
        let result = tally.judge(
            &mut terminal,
            &alive.iter().map(|name| (*name).to_owned()).collect(),
        );
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn all_and_only_the_live_ones_have_to_answer_once() {
        let failed = Err(Failure::Exit(FAILED));
        let all = judge(&["a", "b"], &["a", "b"]);
        assert_eq!(all, (Ok(()), "Successfully contacted all live nodes\n".into()));
        let (result, text) = judge(&["a"], &["a", "b"]);
        assert_eq!(result, failed);
        assert!(
            text.starts_with("Received less acks than live nodes! Missing acks from:\n\tb\n"),
            "{text}"
        );
        let (result, text) = judge(&["a", "b"], &["a"]);
        assert_eq!(result, failed);
        assert!(
            text.starts_with("Received more acks than live nodes! Acks from non-live nodes:\n\tb\n"),
            "{text}"
        );
        let (result, text) = judge(&["a", "a"], &["a", "b"]);
        assert_eq!(result, failed);
        assert!(text.starts_with("Duplicate response from 'a'\n"), "{text}");
    }
}
