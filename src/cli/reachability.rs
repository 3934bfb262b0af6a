//! `reachability`: whether every live member can be reached, and answers once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::Command;
use serde::Serialize;

use super::info::Format;
use super::progress::Progress;
use super::rpc::Wait;
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
        .arg(Format::argument())
        .args(rpc::arguments())
        .args([
            flags::boolean("verbose", "Show each acknowledgement as it comes."),
            Wait::argument(
                "End before the query's time is over, when all live members have answered, or this many have. Second \
                 answers in the name of one member are then not seen.",
            ),
        ])
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let wait = Wait::of(&flags)?;
    let format = Format::of(&flags)?;
    rpc::with_agent(&flags, terminal, async |terminal, client| {
        let verbose = flags.is_set("verbose");
        tokio::select! {
            result = test(terminal, client, wait, format, verbose) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::Error("Test interrupted".to_owned())),
        }
    })
}

async fn test(
    terminal: &mut Terminal<'_>,
    mut client: Client,
    wait: Wait,
    format: Format,
    verbose: bool,
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
    let is_text = format == Format::Text;
    if is_text {
        terminal.line(format!(
            "Total members: {}, live members: {}",
            members.len(),
            alive.len()
        ));
        terminal.line("Starting reachability test...");
    }
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
    let progress = Progress::start();
    loop {
        let so_far = format!(
            "{} of {} live members have answered",
            tally.from.len(),
            alive.len()
        );
        let record = progress.wait(terminal, &so_far, client.next_record()).await;
        let Ok((_, Record::Query(answer))) = record else {
            break;
        };
        match answer.r#type {
            QueryRecordKind::Done => break,
            QueryRecordKind::Response => {}
            QueryRecordKind::Ack => {
                if is_text && verbose {
                    terminal.line(format!("\tAck from '{}'", word(&answer.from)));
                }
                last = Instant::now();
                if !tally.count(&answer.from) && is_text {
                    tell_duplicate(terminal, &answer.from);
                }
            }
        }
        if wait.is_over(&tally.from, &alive) {
            break;
        }
    }
    let times = (start.elapsed(), last.duration_since(start));
    if !is_text {
        return tally.print(terminal, wait, members.len(), &alive, times);
    }
    if verbose {
        terminal.line(format!(
            "Query time: {:.2} sec, time to last response: {:.2} sec",
            times.0.as_secs_f64(),
            times.1.as_secs_f64()
        ));
    }
    tally.judge(terminal, wait, &alive)
}

fn tell_duplicate(terminal: &mut Terminal<'_>, from: &str) {
    terminal.line(format!("Duplicate response from '{}'", word(from)));
    terminal.line("Two members may go by this name; names have to be unique in a cluster.");
}

/// The result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    reachable: bool,
    members: usize,
    live: usize,
    acks: &'a BTreeSet<String>,
    missing: Vec<&'a String>,
    /// Those who answer though they do not count as alive.
    unexpected: Vec<&'a String>,
    duplicates: &'a BTreeSet<String>,
    query_seconds: f64,
    last_ack_seconds: f64,
}

/// Who has answered.
#[derive(Default)]
struct Tally {
    acks: usize,
    from: BTreeSet<String>,
    duplicates: BTreeSet<String>,
}

impl Tally {
    /// Counts an answer; whether it is the first of this name.
    fn count(&mut self, from: &str) -> bool {
        self.acks += 1;
        let is_first = self.from.insert(from.to_owned());
        if !is_first {
            self.duplicates.insert(from.to_owned());
        }
        is_first
    }

    /// Whether all is well: all live members have answered once, or as many as were asked for.
    fn is_well(&self, wait: Wait, alive: &BTreeSet<String>) -> bool {
        let enough = match wait {
            Wait::Some(number) => self.from.len() >= number.min(alive.len()),
            Wait::All => alive.is_subset(&self.from),
            Wait::Time => self.acks == alive.len(),
        };
        enough && self.duplicates.is_empty()
    }

    fn print(
        &self,
        terminal: &mut Terminal<'_>,
        wait: Wait,
        members: usize,
        alive: &BTreeSet<String>,
        (query, last): (Duration, Duration),
    ) -> Result<(), Failure> {
        let reachable = self.is_well(wait, alive);
        let report = Report {
            reachable,
            members,
            live: alive.len(),
            acks: &self.from,
            missing: alive.difference(&self.from).collect(),
            unexpected: self.from.difference(alive).collect(),
            duplicates: &self.duplicates,
            query_seconds: query.as_secs_f64(),
            last_ack_seconds: last.as_secs_f64(),
        };
        Format::Json.print(terminal, &report, String::new)?;
        if reachable {
            Ok(())
        } else {
            Err(Failure::Exit(FAILED))
        }
    }

    fn judge(self, terminal: &mut Terminal<'_>, wait: Wait, alive: &BTreeSet<String>) -> Result<(), Failure> {
        if self.is_well(wait, alive) {
            let (answered, alive) = (self.from.len(), alive.len());
            match wait {
                Wait::Some(_) if answered < alive => {
                    terminal.line(format!("Successfully contacted {answered} of {alive} live nodes"));
                }
                _ => terminal.line("Successfully contacted all live nodes"),
            }
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
        judge_after(Wait::Time, acks, alive)
    }

    #[test]
    fn as_many_as_were_asked_for_are_enough() {
        let (result, text) = judge_after(Wait::Some(1), &["a"], &["a", "b"]);
        assert_eq!(
            (result, text.as_str()),
            (Ok(()), "Successfully contacted 1 of 2 live nodes\n")
        );
        assert!(judge_after(Wait::Some(2), &["a"], &["a", "b"]).0.is_err());
        assert!(judge_after(Wait::Some(9), &["a", "b"], &["a", "b"]).0.is_ok());
        // Somebody who has left in between may answer first.
        assert!(judge_after(Wait::All, &["gone", "a"], &["a"]).0.is_ok());
    }

    fn judge_after(wait: Wait, acks: &[&str], alive: &[&str]) -> (Result<(), Failure>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
        let mut tally = Tally::default();
        for name in acks {
            if !tally.count(name) {
                tell_duplicate(&mut terminal, name);
            }
        }
        let result = tally.judge(
            &mut terminal,
            wait,
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
