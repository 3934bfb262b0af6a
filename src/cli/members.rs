//! `members`: who is in the cluster.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use clap::Command;
use serde::Serialize;

use super::info::Format;
use super::{Failure, Terminal, flags, rpc, table};
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
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let members = client.members_filtered(filter).await;
        let mut members = members.map_err(rpc::failed("Error retrieving members"))?;
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let text = || text(&members, flags.is_set("detailed"));
        Format::of(&flags)?.print(terminal, &json(&members), text)
    })
}

fn text(members: &[Member], detailed: bool) -> String {
    let rows: Vec<String> = members.iter().map(|member| row(member, detailed)).collect();
    table::columns(&rows)
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
    let ip = <[u8; 4]>::try_from(bytes.as_slice())
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from));
    match ip.map(|ip| ip.to_canonical()) {
        Ok(ip) => std::net::SocketAddr::new(ip, member.port).to_string(),
        Err(_) if bytes.is_empty() => format!(":{}", member.port),
        Err(_) => {
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

#[derive(Serialize)]
struct JsonMember<'a> {
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

fn json(members: &[Member]) -> JsonMembers<'_> {
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
