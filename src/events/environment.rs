//! What a script is told about an event: environment variables and standard input
//! (docs/compatibility.md#handler-environment).

use super::filter::kind;
use fyrd_core::serf::{Event, Member, Tags};

/// Variables that hold a secret, for the agent and for commands. A script gets none of them: what it needs it can
/// be told, and what it starts, logs or uploads shall not know them.
pub const SECRET_VARIABLES: [&str; 3] = ["FYRD_ENCRYPT_KEY", "FYRD_RPC_AUTH", "SERF_RPC_AUTH"];

/// The variables of one event, given this node's name and present tags.
pub fn variables(event: &Event, name: &str, tags: &Tags) -> Vec<(String, String)> {
    let role = tags.get("role").map_or("", String::as_str);
    let mut variables = vec![
        ("SERF_EVENT".to_string(), kind(event).to_string()),
        ("SERF_SELF_NAME".to_string(), name.to_string()),
        ("SERF_SELF_ROLE".to_string(), role.to_string()),
    ];
    for (tag, value) in tags {
        variables.push((format!("SERF_TAG_{}", variable_name(tag)), value.clone()));
    }
    let (name_variable, name, ltime_variable, ltime) = match event {
        Event::Member { .. } | Event::Isolation { .. } => return variables,
        Event::User { name, ltime, .. } => ("SERF_USER_EVENT", name, "SERF_USER_LTIME", ltime),
        Event::Query { name, ltime, .. } => ("SERF_QUERY_NAME", name, "SERF_QUERY_LTIME", ltime),
    };
    variables.push((name_variable.to_string(), name.clone()));
    variables.push((ltime_variable.to_string(), ltime.to_string()));
    variables
}

/// What a script reads: a line for each member, or the payload with its last line ended.
pub fn input(event: &Event) -> Vec<u8> {
    match event {
        Event::Member { members, .. } => members.iter().map(|m| member_line(m)).collect::<String>().into(),
        Event::Isolation { .. } => Vec::new(),
        Event::User { payload, .. } | Event::Query { payload, .. } => {
            let mut input = payload.clone();
            if !input.is_empty() && !input.ends_with(b"\n") {
                input.push(b'\n');
            }
            input
        }
    }
}

/// Name, IP, role and tags; the tabs between them are the only ones.
fn member_line(member: &Member) -> String {
    let role = member.tags.get("role").map_or("", String::as_str);
    let tags: Vec<String> = member
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "{}\t{}\t{}\t{}\n",
        escape(&member.name),
        member.addr,
        escape(role),
        escape(&tags.join(","))
    )
}

fn escape(text: &str) -> String {
    text.replace('\t', "\\t").replace('\n', "\\n")
}

/// A tag's name in capitals, with an underscore for every character that a variable's name cannot have.
fn variable_name(tag: &str) -> String {
    let variable_char = |c: char| {
        // A character whose upper case is several characters stays.
        let mut capital = c.to_uppercase();
        match (capital.next(), capital.next()) {
            (Some(c @ ('A'..='Z' | '0'..='9' | '_')), None) => c,
            _ => '_',
        }
    };
    tag.chars().map(variable_char).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use fyrd_core::serf::{MemberEventKind, MemberStatus, RawAddr};

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    fn member(name: &str, addr: RawAddr, pairs: &[(&str, &str)]) -> Arc<Member> {
        Arc::new(Member {
            name: name.into(),
            addr,
            port: 7946,
            tags: tags(pairs),
            status: MemberStatus::Alive,
            protocol: [1, 5, 2],
            delegate: [2, 5, 5],
        })
    }

    fn shown(event: &Event, pairs: &[(&str, &str)]) -> String {
        let variables = variables(event, "n 1", &tags(pairs));
        let lines: Vec<String> = variables
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        lines.join(" ")
    }

    #[test]
    fn variables_of_each_kind() {
        let join = Event::Member {
            kind: MemberEventKind::Join,
            members: Vec::new(),
        };
        assert_eq!(
            shown(&join, &[]),
            "SERF_EVENT=member-join SERF_SELF_NAME=n 1 SERF_SELF_ROLE="
        );
        let user = Event::User {
            ltime: 7,
            name: "deploy".into(),
            payload: Vec::new(),
            coalesce: true,
        };
        assert_eq!(
            shown(&user, &[("role", "web"), ("my-tag.x", "1")]),
            "SERF_EVENT=user SERF_SELF_NAME=n 1 SERF_SELF_ROLE=web SERF_TAG_MY_TAG_X=1 SERF_TAG_ROLE=web \
             SERF_USER_EVENT=deploy SERF_USER_LTIME=7"
        );
        let query = Event::Query {
            ltime: 8,
            id: 1,
            name: "load".into(),
            payload: Vec::new(),
            source: "n2".into(),
        };
        assert_eq!(
            shown(&query, &[]),
            "SERF_EVENT=query SERF_SELF_NAME=n 1 SERF_SELF_ROLE= SERF_QUERY_NAME=load SERF_QUERY_LTIME=8"
        );
    }

    #[test]
    fn tag_names_become_variable_names() {
        let table = [
            ("dc", "DC"),
            ("my-tag.x", "MY_TAG_X"),
            ("ünï", "_N_"),
            ("a b=c", "A_B_C"),
            ("", ""),
            ("ßx", "_X"),
            ("x9_", "X9_"),
            ("日本", "__"),
        ];
        for (tag, expected) in table {
            assert_eq!(variable_name(tag), expected, "{tag}");
        }
    }

    #[test]
    fn members_are_lines_of_four_fields() {
        let event = Event::Member {
            kind: MemberEventKind::Join,
            members: vec![
                member("h1", RawAddr::V4([127, 0, 0, 1]), &[]),
                member(
                    "h\t2",
                    RawAddr::mapped("10.1.2.3".parse().unwrap()),
                    &[("role", "w\nb"), ("dc", "a\tb\\,c")],
                ),
                member("h3", RawAddr::mapped("fd00::2".parse().unwrap()), &[("a", "")]),
            ],
        };
        assert_eq!(
            String::from_utf8(input(&event)).unwrap(),
            "h1\t127.0.0.1\t\t\n\
             h\\t2\t10.1.2.3\tw\\nb\tdc=a\\tb\\,c,role=w\\nb\n\
             h3\tfd00::2\t\ta=\n"
        );
    }

    #[test]
    fn payloads_end_their_last_line() {
        let table: [(&[u8], &[u8]); 4] = [
            (b"", b""),
            (b"x", b"x\n"),
            (b"x\n", b"x\n"),
            (b"\xff\0", b"\xff\0\n"),
        ];
        for (payload, expected) in table {
            let event = Event::User {
                ltime: 1,
                name: "e".into(),
                payload: payload.to_vec(),
                coalesce: false,
            };
            assert_eq!(input(&event), expected);
        }
    }
}
