//! `members`: who is in the cluster.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use clap::Command;
use serde::Serialize;

use super::flags::Flags;
use super::info::Format;
use super::{FAILED, Failure, Terminal, flags, nearest, rpc, table};
use crate::rpc::client::Client;
use crate::rpc::types::{Member, MembersFilteredRequest};

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
            flags::string("status", "<regexp>", "Only members whose status matches."),
            flags::list(
                "tag",
                "<key>=<regexp>",
                "Only members whose tag matches. Can be given several times; all have to match.",
            ),
            flags::string("sort", "name", "What to sort by: name, address, status or role."),
            flags::boolean(
                "watch",
                "Go on until interrupted, and list the members anew whenever one has changed.",
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
    let sort = Sort::of(&flags)?;
    let status = filter.status.clone();
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let listing = Listing {
            filter,
            sort,
            detailed: flags.is_set("detailed"),
            format: &flags,
        };
        if !flags.is_set("watch") {
            let found = listing.show(terminal, &mut client).await?;
            if found == 0 && is_no_status(&status) {
                let meant = nearest::did_you_mean(&status, STATUSES).unwrap_or_default();
                terminal.hint(&format!(
                    "No status matches '{status}'; there are {}. {meant}",
                    STATUSES.join(", ")
                ));
            }
            return Ok(());
        }
        tokio::select! {
            result = listing.watch(terminal, &mut client) => result,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

/// All that a member's status can be.
const STATUSES: [&str; 5] = ["alive", "failed", "leaving", "left", "none"];

/// Whether this can match no status, as far as it is a plain word.
fn is_no_status(filter: &str) -> bool {
    !filter.is_empty() && filter.chars().all(char::is_alphanumeric) && !STATUSES.contains(&filter)
}

/// What members are sorted by, before their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Address,
    Status,
    Role,
}

impl Sort {
    fn of(flags: &Flags) -> Result<Sort, Failure> {
        match flags.string("sort").unwrap_or("name") {
            "name" => Ok(Sort::Name),
            "address" => Ok(Sort::Address),
            "status" => Ok(Sort::Status),
            "role" => Ok(Sort::Role),
            other => Err(Failure::Error(format!(
                "-sort={other} must be name, address, status or role"
            ))),
        }
    }

    fn sort(self, members: &mut [Member]) {
        let ip = |member: &Member| ip(member).map(|ip| ip.to_canonical());
        let role = |member: &Member| member.tags.get("role").cloned();
        members.sort_by(|a, b| {
            let first = match self {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::Address => (ip(a), a.port).cmp(&(ip(b), b.port)),
                Sort::Status => a.status.cmp(&b.status),
                Sort::Role => role(a).cmp(&role(b)),
            };
            first.then_with(|| a.name.cmp(&b.name))
        });
    }
}

/// What is listed, and how.
struct Listing<'a> {
    filter: MembersFilteredRequest,
    sort: Sort,
    detailed: bool,
    format: &'a Flags,
}

impl Listing<'_> {
    /// Lists the members as they are now; how many there are.
    async fn show(&self, terminal: &mut Terminal<'_>, client: &mut Client) -> Result<usize, Failure> {
        let members = client.members_filtered(self.filter.clone()).await;
        let mut members = members.map_err(rpc::failed("Error retrieving members"))?;
        self.sort.sort(&mut members);
        if terminal.is_screen() && Format::of(self.format)? == Format::Text {
            if let Some(table) = screen(&members, self.detailed, colours()) {
                terminal.raw(table);
            }
            return Ok(members.len());
        }
        let text = || text(&members, self.detailed);
        Format::of(self.format)?.print(terminal, &json(&members), text)?;
        Ok(members.len())
    }

    /// Lists them whenever one has changed.
    async fn watch(&self, terminal: &mut Terminal<'_>, client: &mut Client) -> Result<(), Failure> {
        const CHANGES: &str = "member-join,member-leave,member-failed,member-update,member-reap";
        let started = client.stream(CHANGES.to_owned()).await;
        started.map_err(rpc::failed("Error starting stream"))?;
        loop {
            if terminal.is_screen() {
                // To the upper left corner of an empty screen.
                terminal.raw("\x1b[H\x1b[2J");
            }
            self.show(terminal, client).await?;
            if terminal.is_broken() {
                return Err(Failure::Exit(FAILED));
            }
            let changed = client.next_record().await;
            changed.map_err(rpc::failed("Error watching members"))?;
        }
    }
}

fn text(members: &[Member], detailed: bool) -> String {
    let rows: Vec<String> = members.iter().map(|member| row(member, detailed)).collect();
    table::columns(&rows)
}

/// Whether people want colours (no-color.org).
fn colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The table as people see it: with a headline, and the status in colour. Nothing if there is nobody.
fn screen(members: &[Member], detailed: bool, colours: bool) -> Option<String> {
    if members.is_empty() {
        return None;
    }
    let mut rows = vec!["NAME|ADDRESS|STATUS|TAGS".to_owned()];
    rows.extend(members.iter().map(|member| row(member, detailed)));
    let table = table::columns(&rows);
    let mut lines = table.lines();
    let heading = lines.next()?;
    if !colours {
        return Some(table);
    }
    // The columns are where the headline has them.
    let column = heading.find("STATUS")?;
    let mut coloured = format!("\x1b[1m{heading}\x1b[0m");
    for (line, member) in lines.zip(members) {
        let colour = match member.status.as_str() {
            "alive" => "32",
            "failed" => "31",
            _ => "33",
        };
        let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        let (before, rest) = line.split_at(at);
        let (status, after) = rest.split_at(member.status.len().min(rest.len()));
        coloured.push_str(&format!("\n{before}\x1b[{colour}m{status}\x1b[0m{after}"));
    }
    Some(coloured)
}

fn row(member: &Member, detailed: bool) -> String {
    let tags: Vec<String> = member
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
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

/// `IP:PORT`, with brackets around IPv6. An IPv4 address may come in 16 bytes.
fn address(member: &Member) -> String {
    let bytes = &member.addr;
    match ip(member).map(|ip| ip.to_canonical()) {
        Some(ip) => std::net::SocketAddr::new(ip, member.port).to_string(),
        None if bytes.is_empty() => format!(":{}", member.port),
        None => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("?{hex}:{}", member.port)
        }
    }
}

fn ip(member: &Member) -> Option<IpAddr> {
    let bytes = member.addr.as_slice();
    let short = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    short
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[derive(Serialize)]
pub(super) struct JsonMembers<'a> {
    /// No members are null.
    pub members: Option<Vec<JsonMember<'a>>>,
}

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

pub(super) fn json(members: &[Member]) -> JsonMembers<'_> {
    let members: Vec<JsonMember<'_>> = members
        .iter()
        .map(|member| JsonMember {
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
        })
        .collect();
    JsonMembers {
        members: Some(members).filter(|members| !members.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go;

    fn member(name: &str, tags: &[(&str, &str)]) -> Member {
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
    fn people_see_a_headline_and_colours() {
        let mut members = [member("n1", &[("role", "web")]), member("\u{e4}", &[])];
        members[1].status = "failed".to_owned();
        assert_eq!(
            screen(&members, false, false).unwrap(),
            "NAME  ADDRESS         STATUS  TAGS\n\
             n1    127.0.0.1:7946  alive   role=web\n\
             \u{e4}     127.0.0.1:7946  failed"
        );
        assert_eq!(
            screen(&members, false, true).unwrap(),
            "\x1b[1mNAME  ADDRESS         STATUS  TAGS\x1b[0m\n\
             n1    127.0.0.1:7946  \x1b[32malive\x1b[0m   role=web\n\
             \u{e4}     127.0.0.1:7946  \x1b[31mfailed\x1b[0m"
        );
        assert_eq!(screen(&[], false, true), None);
    }

    #[test]
    fn members_are_sorted_as_asked() {
        let mut members = [
            member("a", &[("role", "web")]),
            member("b", &[("role", "db")]),
            member("c", &[]),
        ];
        members[0].addr = vec![10, 0, 0, 10];
        members[1].addr = vec![10, 0, 0, 9];
        members[2].status = "failed".to_owned();
        let mut by = |sort: Sort| {
            sort.sort(&mut members);
            members
                .iter()
                .map(|member| member.name.as_str())
                .collect::<String>()
        };
        assert_eq!(by(Sort::Address), "bac");
        assert_eq!(by(Sort::Status), "abc");
        assert_eq!(by(Sort::Role), "cba");
        assert_eq!(by(Sort::Name), "abc");
        assert!(is_no_status("alice") && !is_no_status("alive") && !is_no_status("a.*"));
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
