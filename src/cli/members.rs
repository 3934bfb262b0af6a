//! `members`: who is in the cluster.

mod screen;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use clap::Command;
use regex::Regex;
use serde::Serialize;

use super::flags::Flags;
use super::info::Format;
use super::{FAILED, Failure, Terminal, flags, rpc, table};
use crate::go;
use crate::nearest::nearest;
use crate::rpc::client::Client;
use crate::rpc::types::{Member, MembersFilteredRequest};
use screen::Screen;

pub(super) fn define() -> Command {
    Command::new("members")
        .about("Lists the members of the cluster")
        .long_about(
            "Lists the members that the agent knows: name, address, status and tags.\n\n\
             The filters are regular expressions that have to match from start to end.",
        )
        .override_usage("members [options]")
        .args([
            flags::boolean("detailed", "Show protocol versions as well (text only)."),
            Format::argument(),
            flags::string("name", "<regexp>", "Only members whose name matches."),
            flags::string(
                "role",
                "<regexp>",
                "Only members whose tag 'role' matches. Use -tag instead.",
            ),
            flags::string(
                "sort",
                "name",
                "By what to sort: name, address, status, or tag:KEY for the value of a tag.",
            ),
            flags::string("status", "<regexp>", "Only members whose status matches."),
            flags::list(
                "tag",
                "<key>=<regexp>",
                "Only members whose tag matches. Can be given several times; all have to match.",
            ),
            flags::boolean(
                "watch",
                "Show the members again whenever something has changed, until interrupted; as JSON, a line each \
                 time.",
            ),
        ])
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let mut tags = flags.list("tag");
    if let Some(role) = flags.string("role").filter(|role| !role.is_empty()) {
        terminal.line("Deprecation warning: 'Role' has been replaced with 'Tags'");
        tags.push(format!("role={role}"));
    }
    let filter = MembersFilteredRequest {
        name: flags.string("name").unwrap_or_default().to_owned(),
        status: flags.string("status").unwrap_or_default().to_owned(),
        tags: rpc::key_values(&tags)?,
    };
    let order = Order::parse(flags.string("sort").unwrap_or_default())?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        if flags.is_set("watch") {
            return tokio::select! {
                result = watch(terminal, &mut client, &filter, &order, &flags) => result,
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
        }
        let members = fetch(&mut client, &filter, &order).await?;
        match Format::of(&flags)? {
            Format::Text => show(terminal, &members, flags.is_set("detailed")),
            json_form => json_form.print(terminal, &json(&members), String::new)?,
        }
        if members.is_empty()
            && let Some(hint) = hint_at_status(&filter.status)
        {
            terminal.hint(&hint);
        }
        Ok(())
    })
}

async fn fetch(
    client: &mut Client,
    filter: &MembersFilteredRequest,
    order: &Order,
) -> Result<Vec<Member>, Failure> {
    let members = client.members_filtered(filter.clone()).await;
    let mut members = members.map_err(rpc::failed("Error retrieving members"))?;
    members.sort_by_cached_key(|member| (order.key(member), member.name.clone()));
    Ok(members)
}

/// Shows the members whenever they are others; never comes back by itself.
async fn watch(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    filter: &MembersFilteredRequest,
    order: &Order,
    flags: &Flags,
) -> Result<(), Failure> {
    const CHANGES: &str = "member-join,member-leave,member-failed,member-update,member-reap";
    let format = Format::of(flags)?;
    let started = client.stream(CHANGES.to_owned()).await;
    started.map_err(rpc::failed("Error starting stream"))?;
    let mut shown = None;
    loop {
        let members = fetch(client, filter, order).await?;
        if shown.as_ref() != Some(&members) {
            match format {
                Format::Json => rpc::json_line(terminal, &json(&members))?,
                Format::Text => {
                    if terminal.is_screen() {
                        terminal.raw(CLEAR);
                    } else if shown.is_some() {
                        terminal.line("");
                    }
                    show(terminal, &members, flags.is_set("detailed"));
                }
            }
            shown = Some(members);
        }
        if terminal.is_broken() {
            return Err(Failure::Exit(FAILED));
        }
        let changed = client.next_record().await;
        changed.map_err(rpc::failed("Error watching members"))?;
    }
}

/// Empties a screen, and goes to its top.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// By what members are sorted.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Name,
    Address,
    Status,
    Tag(String),
}

impl Order {
    fn parse(text: &str) -> Result<Order, Failure> {
        Ok(match text {
            "" | "name" => Order::Name,
            "address" => Order::Address,
            "status" => Order::Status,
            other => match other.strip_prefix("tag:").filter(|key| !key.is_empty()) {
                Some(key) => Order::Tag(key.to_owned()),
                None => {
                    return Err(Failure::Error(format!(
                        "Error: -sort={other}: it must be name, address, status or tag:KEY"
                    )));
                }
            },
        })
    }

    /// What is compared.
    fn key(&self, member: &Member) -> (Option<IpAddr>, u16, String) {
        match self {
            Order::Name => (None, 0, member.name.clone()),
            Order::Address => (ip(member), member.port, String::new()),
            Order::Status => (None, 0, member.status.clone()),
            Order::Tag(key) => (None, 0, member.tags.get(key).cloned().unwrap_or_default()),
        }
    }
}

/// What members can be, as far as people name it.
const STATUSES: [&str; 4] = ["alive", "leaving", "left", "failed"];

/// Of a pattern that fits no status, which one may be meant.
fn hint_at_status(pattern: &str) -> Option<String> {
    let fits = Regex::new(&format!("^(?:{pattern})$")).ok()?;
    if pattern.is_empty()
        || STATUSES
            .iter()
            .chain(&["none"])
            .any(|status| fits.is_match(status))
    {
        return None;
    }
    let meant = nearest(pattern, STATUSES).map(|status| format!("; did you mean {}?", go::quote(status)));
    Some(format!(
        "no status matches {}, there are {}{}",
        go::quote(pattern),
        STATUSES.join(", "),
        meant.unwrap_or_default()
    ))
}

/// Text for who reads it: a person or a program.
fn show(terminal: &mut Terminal<'_>, members: &[Member], detailed: bool) {
    if terminal.is_screen() {
        let screen = Screen {
            width: terminal.width(),
            colours: terminal.has_colours(),
            detailed,
        };
        terminal.raw(screen.table(members));
    } else {
        terminal.line(text(members, detailed));
    }
}

fn text(members: &[Member], detailed: bool) -> String {
    let rows: Vec<String> = members.iter().map(|member| row(member, detailed)).collect();
    table::columns(&rows)
}

fn row(member: &Member, detailed: bool) -> String {
    let tags = tags(member);
    let mut row = format!(
        "{}|{}|{}|{}",
        member.name,
        address(member),
        member.status,
        tags.join(",")
    );
    if detailed {
        row.push_str(&format!(
            "|Protocol Version: {}|Available Protocol Range: [{}, {}]",
            member.delegate_cur, member.delegate_min, member.delegate_max
        ));
    }
    row
}

fn tags(member: &Member) -> Vec<String> {
    let tags = member.tags.iter();
    tags.map(|(key, value)| format!("{key}={value}")).collect()
}

/// An IPv4 address may come in 16 bytes.
pub(super) fn ip(member: &Member) -> Option<IpAddr> {
    let bytes = member.addr.as_slice();
    let ip = <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    ip.ok().map(|ip| ip.to_canonical())
}

/// `IP:PORT`, with brackets around IPv6.
fn address(member: &Member) -> String {
    let bytes = &member.addr;
    match ip(member) {
        Some(ip) => std::net::SocketAddr::new(ip, member.port).to_string(),
        None if bytes.is_empty() => format!(":{}", member.port),
        None => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("?{hex}:{}", member.port)
        }
    }
}

#[derive(Serialize)]
struct JsonMembers<'a> {
    /// No members are null.
    members: Option<Vec<JsonMember<'a>>>,
}

/// A member as JSON shows it.
#[derive(Serialize)]
pub(super) struct JsonMember<'a> {
    name: &'a str,
    addr: String,
    port: u16,
    tags: &'a BTreeMap<String, String>,
    status: &'a str,
    protocol: JsonProtocol,
}

#[derive(Serialize)]
struct JsonProtocol {
    max: u8,
    min: u8,
    version: u8,
}

pub(super) fn json_member(member: &Member) -> JsonMember<'_> {
    JsonMember {
        name: &member.name,
        addr: address(member),
        port: member.port,
        tags: &member.tags,
        status: &member.status,
        protocol: JsonProtocol {
            max: member.delegate_max,
            min: member.delegate_min,
            version: member.delegate_cur,
        },
    }
}

fn json(members: &[Member]) -> JsonMembers<'_> {
    let members: Vec<JsonMember<'_>> = members.iter().map(json_member).collect();
    JsonMembers {
        members: Some(members).filter(|members| !members.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let mut members = [
            member("b", &[("role", "a")]),
            member("a", &[("role", "b")]),
            member("c", &[]),
        ];
        members[0].addr = vec![10, 0, 0, 10];
        members[1].addr = vec![10, 0, 0, 9];
        members[2].status = "failed".to_owned();
        let sorted = |text: &str| {
            let order = Order::parse(text).unwrap();
            let mut members = members.to_vec();
            members.sort_by_cached_key(|member| (order.key(member), member.name.clone()));
            members
                .iter()
                .map(|member| member.name.as_str())
                .collect::<String>()
        };
        assert_eq!(sorted(""), "abc");
        assert_eq!(sorted("address"), "abc");
        assert_eq!(sorted("status"), "abc");
        assert_eq!(sorted("tag:role"), "cba");
        for wrong in ["tag:", "role"] {
            assert!(matches!(Order::parse(wrong), Err(Failure::Error(_))), "{wrong}");
        }
    }

    #[test]
    fn a_status_that_there_is_not_is_named() {
        for fits in ["", "alive", "a.*", "failed|left", "(", "none"] {
            assert_eq!(hint_at_status(fits), None, "{fits}");
        }
        assert_eq!(
            hint_at_status("alice").unwrap(),
            "no status matches \"alice\", there are alive, leaving, left, failed; did you mean \"alive\"?"
        );
        assert!(hint_at_status("gone").unwrap().ends_with("left, failed"));
    }

    pub(super) fn member(name: &str, tags: &[(&str, &str)]) -> Member {
        Member {
            name: name.to_owned(),
            addr: vec![127, 0, 0, 1],
            port: 7946,
            status: "alive".to_owned(),
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            delegate_cur: 5,
            delegate_max: 5,
            delegate_min: 2,
            ..Member::default()
        }
    }

    #[test]
    fn table_of_members() {
        let members = [
            member("n1", &[("role", "web"), ("dc", "east")]),
            member("node2", &[]),
        ];
        assert_eq!(
            text(&members, false),
            "n1     127.0.0.1:7946  alive  dc=east,role=web\nnode2  127.0.0.1:7946  alive"
        );
        assert_eq!(
            text(&members[1..], true),
            "node2  127.0.0.1:7946  alive    Protocol Version: 5  Available Protocol Range: [2, 5]"
        );
        assert_eq!(text(&[], false), "");
    }

    #[test]
    fn addresses_of_all_lengths() {
        let with = |addr: &[u8]| {
            address(&Member {
                addr: addr.to_vec(),
                port: 1,
                ..Member::default()
            })
        };
        assert_eq!(with(&[10, 0, 0, 1]), "10.0.0.1:1");
        assert_eq!(
            with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]),
            "10.0.0.1:1"
        );
        assert_eq!(with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "[::1]:1");
        assert_eq!(with(&[]), ":1");
        assert_eq!(with(&[1, 255]), "?01ff:1");
    }

    #[test]
    fn json_of_members() {
        assert_eq!(go::json(&json(&[])).unwrap(), "{\n  \"members\": null\n}");
        let text = go::json(&json(&[member("a<b", &[])])).unwrap();
        assert!(
            text.starts_with("{\n  \"members\": [\n    {\n      \"name\": \"a\\u003cb\",\n"),
            "{text}"
        );
        assert!(text.contains("      \"tags\": {},\n"), "{text}");
    }
}
