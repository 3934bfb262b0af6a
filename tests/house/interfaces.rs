//! The manual's table of RPC commands is that of the program.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::manual::read;

/// The fields of each command's body.
type Commands = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_commands_of_rpc_and_their_bodies_are_those_of_the_program() {
    let of_the_program = commands(&read("src/rpc/requests.rs"));
    assert!(of_the_program.len() > 15, "{of_the_program:?}");
    assert_eq!(table(&read("docs/interfaces.md")), of_the_program);
}

/// `"join" => Join(JoinRequest),` or `"members" => Members,`, and the structs that are named there.
fn commands(source: &str) -> Commands {
    let row = Regex::new(r#"(?m)^ +"([a-z-]+)" => \w+(?:\((\w+)\))?,$"#).expect("a pattern");
    row.captures_iter(source)
        .map(|row| {
            let fields = row.get(2).map(|body| fields(source, body.as_str()));
            (row[1].to_owned(), fields.unwrap_or_default())
        })
        .collect()
}

fn fields(source: &str, name: &str) -> BTreeSet<String> {
    let start = format!("pub struct {name} {{");
    let (_, body) = source.split_once(&start).unwrap_or_else(|| panic!("{start}"));
    let (body, _) = body.split_once("\n}").expect("its end");
    let field = Regex::new(r"(?m)^    pub (?:r#)?(\w+):").expect("a pattern");
    field
        .captures_iter(body)
        .map(|field| as_sent(&field[1]))
        .collect()
}

/// `filter_nodes` is sent as `FilterNodes`.
fn as_sent(field: &str) -> String {
    if field == "id" {
        return "ID".to_owned();
    }
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    field.split('_').map(capital).collect()
}

/// The rows under the heading RPC: | `COMMAND` | `FIELD`, ... | answer | command line |
fn table(text: &str) -> Commands {
    let (_, rpc) = text.split_once("\n## RPC\n").expect("the heading");
    let (rpc, _) = rpc.split_once("\nRecords of ").expect("what follows the table");
    let row = Regex::new(r"(?m)^\| `([a-z-]+)` \|([^|]*)\|").expect("a pattern");
    let field = Regex::new(r"`([A-Z]\w*)`").expect("a pattern");
    row.captures_iter(rpc)
        .map(|row| {
            let fields = field.captures_iter(&row[2]).map(|field| field[1].to_owned());
            (row[1].to_owned(), fields.collect())
        })
        .collect()
}
