//! `render`: what a template gives, without putting it anywhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use clap::Command;
use serde::Deserialize;
use similar::TextDiff;

use super::flags::Flags;
use super::{Failure, Terminal, flags, members, rpc, snapshot};
use crate::go;
use crate::rpc::types::Member;
use crate::templates::{Entry, View, render};
use fyrd_core::node::memory::MemberRecord;
use fyrd_core::serf::tags;

pub(super) fn define() -> Command {
    Command::new("render")
        .about("Shows what a template gives")
        .long_about(
            "Renders a template as `agent -template` does, and prints the result instead of writing a file.\n\n\
             The members are those that the agent knows, those of a file, or those of a snapshot, where the agent \
             does not run. What an agent alone knows, such as the time to a member and back, is none here.",
        )
        .override_usage("render [options] template")
        .args([
            flags::string(
                "members",
                "<file>",
                "Take the members from what `members -format=json` has printed; '-' is the standard input.",
            ),
            flags::string(
                "snapshot",
                "<path>",
                "Take the members from a snapshot of an agent or of Serf, in which the node itself is not.",
            ),
            flags::string(
                "node",
                "<name>",
                "The node that the template is rendered for; without it, the agent that is asked.",
            ),
            flags::string(
                "dry-run",
                "<file>",
                "Print how this file would change, instead of what it would be.",
            ),
        ])
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let [template] = flags.words() else {
        return Err(Failure::Usage(Some("One template must be specified")));
    };
    let template = template.clone();
    let node = flags.string("node").map(str::to_owned);
    if flags.string("members").is_some() && flags.string("snapshot").is_some() {
        return Err(Failure::Usage(Some(
            "Only one of -members and -snapshot is possible",
        )));
    }
    if let Some(file) = flags.string("members") {
        let view = View::new(members_of(file)?, node);
        return show(terminal, &flags, Path::new(&template), &view);
    }
    if let Some(path) = flags.string("snapshot") {
        let (own, members) = snapshot::members(Path::new(path))?;
        let view = View::new(members.iter().map(remembered).collect(), node.or(own));
        return show(terminal, &flags, Path::new(&template), &view);
    }
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let members = client.members().await;
        let members = members.map_err(rpc::failed("Error retrieving members"))?;
        let stats = client.stats().await;
        let mut stats = stats.map_err(rpc::failed("Error querying agent"))?;
        let own = stats.remove("agent").and_then(|mut agent| agent.remove("name"));
        let members = members.into_iter().filter_map(known).collect();
        let view = View::new(members, node.or(own));
        show(terminal, &flags, Path::new(&template), &view)
    })
}

fn show(terminal: &mut Terminal<'_>, flags: &Flags, template: &Path, view: &View) -> Result<(), Failure> {
    let name = template.display().to_string();
    let source = read(&name)?;
    let text = render(&name, &source, view).map_err(Failure::Error)?.text;
    let Some(target) = flags.string("dry-run") else {
        // The terminal ends the last line.
        terminal.line(text.strip_suffix('\n').unwrap_or(&text));
        return Ok(());
    };
    let old = match std::fs::read_to_string(target) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unread(target, &error)),
    };
    let diff = TextDiff::from_lines(&old, &text);
    let diff = diff.unified_diff().header(target, &name).to_string();
    if !diff.is_empty() {
        terminal.line(diff.strip_suffix('\n').unwrap_or(&diff));
    }
    Ok(())
}

fn read(path: &str) -> Result<String, Failure> {
    if path != "-" {
        return std::fs::read_to_string(path).map_err(|error| unread(path, &error));
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map(|_| text)
        .map_err(|error| unread("the standard input", &error))
}

fn unread(path: &str, error: &std::io::Error) -> Failure {
    Failure::Error(format!("Error reading {path}: {}", go::os_error(error)))
}

/// A member as an agent tells of it; none without an address.
fn known(member: Member) -> Option<Entry> {
    let ip = members::ip(&member)?;
    Some(Entry {
        name: member.name,
        ip,
        port: member.port,
        status: member.status,
        tags: member.tags,
        rtt: None,
    })
}

/// A member as a snapshot tells of it.
fn remembered(member: &MemberRecord) -> Entry {
    let facts = &member.facts;
    let socket = facts.socket();
    Entry {
        name: facts.name.to_string(),
        ip: socket.ip().to_canonical(),
        port: socket.port(),
        status: member.status.as_str().to_owned(),
        tags: tags::read(&facts.meta).into_iter().collect(),
        rtt: None,
    }
}

#[derive(Deserialize)]
struct Listing {
    /// No members are null.
    members: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    addr: SocketAddr,
    status: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

fn members_of(file: &str) -> Result<Vec<Entry>, Failure> {
    let text = read(file)?;
    let listing: Listing = serde_json::from_str(&text).map_err(|error| {
        Failure::Error(format!(
            "Error reading {file}: {error}; it must be what `members -format=json` prints"
        ))
    })?;
    let entry = |listed: Listed| Entry {
        name: listed.name,
        ip: listed.addr.ip(),
        port: listed.addr.port(),
        status: listed.status,
        tags: listed.tags,
        rtt: None,
    };
    Ok(listing
        .members
        .unwrap_or_default()
        .into_iter()
        .map(entry)
        .collect())
}
