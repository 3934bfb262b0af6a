//! The core is kept pure by this test, not by a promise: it reads the sources.
//!
//! Everything up to and including the node takes time and randomness as arguments and answers with
//! effects. So nothing there may name a runtime, a socket, a file, a thread, a clock, the randomness of
//! the operating system or a collection of random order; and no module may import one above it.

use std::path::{Path, PathBuf};

/// The modules and files of the core.
const CORE: [&str; 6] = [
    "src/wire",
    "src/swim",
    "src/serf",
    "src/node.rs",
    "src/time.rs",
    "src/bounds.rs",
];

/// Paths that reach outside, or whose order or value is random. All below them is banned as well.
const BANNED_PATHS: [&str; 20] = [
    "tokio",
    "mio",
    "socket2",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "rand::rng",
    "rand::random",
    "getrandom",
];

/// Words banned wherever they stand, however they were imported.
const BANNED_WORDS: [&str; 13] = [
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "Instant",
    "SystemTime",
    "RandomState",
    "ThreadRng",
    "thread_rng",
    "OsRng",
    "SysRng",
    "println",
    "eprintln",
    "dbg",
];

/// The order of the crate: each part may know those before it, whatever is not named stands above all.
/// Those of one row do not know each other.
const ORDER: [&[&str]; 6] = [
    &["bounds", "time"],
    &["addr", "deadline", "duration", "names", "outbox", "re2"],
    &["wire"],
    &["swim"],
    &["serf"],
    &["node"],
];

#[test]
fn the_core_is_pure_and_imports_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for part in CORE {
        collect(&root.join(part), &mut files);
    }
    assert!(
        files.len() > CORE.len(),
        "only {files:?} found: has the core moved?"
    );
    let mut findings = Vec::new();
    for file in &files {
        let source = std::fs::read_to_string(file).expect("a source file");
        let name = file
            .strip_prefix(root)
            .expect("inside the package")
            .display()
            .to_string();
        findings.extend(check(&name, &source));
    }
    assert!(
        findings.is_empty(),
        "the core reaches outside or upwards:\n{}",
        findings.join("\n")
    );
}

/// Rust files below a path, without those that hold only tests.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    assert!(
        path.exists(),
        "{} is missing: has the core moved?",
        path.display()
    );
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a source folder");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().for_each(|path| collect(path, files));
    } else if path.extension().is_some_and(|extension| extension == "rs")
        && path.file_stem().is_none_or(|stem| stem != "tests")
    {
        files.push(path.to_owned());
    }
}

/// All that is wrong with one file, as `file:line: what`.
fn check(name: &str, source: &str) -> Vec<String> {
    let code = without_comments_and_tests(source);
    let mut findings = Vec::new();
    for (line, words) in code.lines().enumerate() {
        for word in words.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if BANNED_WORDS.contains(&word) {
                findings.push(format!("{name}:{}: names `{word}`", line + 1));
            }
        }
    }
    let module = module_of(name);
    for (line, path) in paths(&code) {
        if let Some(banned) = BANNED_PATHS.iter().find(|banned| reaches(&path, banned)) {
            findings.push(format!("{name}:{line}: names `{banned}` by `{path}`"));
        }
        let Some(target) = target_in_crate(&path, &module) else {
            continue;
        };
        if !may_know(&module[0], &target) {
            findings.push(format!(
                "{name}:{line}: `{}` must not know `{target}` (`{path}`)",
                module[0]
            ));
        }
    }
    findings
}

/// Whether the order lets a part of the core know another part of the crate.
fn may_know(part: &str, target: &str) -> bool {
    let row = |name: &str| {
        ORDER
            .iter()
            .position(|row| row.contains(&name))
            .unwrap_or(ORDER.len())
    };
    part == target || row(target) < row(part)
}

/// The source with comments blanked, line by line so that line numbers stay, and without what follows
/// the start of the unit tests, which stand last in every file.
fn without_comments_and_tests(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let starts_tests =
            line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.contains("mod "));
        if starts_tests && !lines.peek().is_some_and(|next| next.trim_end().ends_with(';')) {
            break;
        }
        let end = line.find("//").unwrap_or(line.len());
        code.push_str(&line[..end]);
        code.push('\n');
    }
    code
}

/// All paths of the code with the line they begin on, those inside the braces of a `use` spelled out.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
        let at = code.len() - rest.len() + start;
        let line = code[..at].matches('\n').count() + 1;
        let length = path_length(&code[at..]);
        let path = &code[at..at + length];
        let mut next = at + length.max(1);
        if let Some(prefix) = path.strip_suffix("::") {
            if code[next..].starts_with('{') {
                let group = group(&code[next..]);
                found.extend(spelled_out(prefix, group).into_iter().map(|path| (line, path)));
                next += group.len();
            }
        } else {
            found.push((line, path.to_owned()));
        }
        rest = &code[next..];
    }
    found
}

/// How far a path goes: identifiers joined by `::`, perhaps with a `*` or an open `::` at the end.
fn path_length(text: &str) -> usize {
    let mut length = 0;
    loop {
        let rest = &text[length..];
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        length += word;
        let rest = &text[length..];
        if word == 0 {
            return if rest.starts_with('*') { length + 1 } else { length };
        }
        if !rest.starts_with("::") {
            return length;
        }
        length += 2;
    }
}

/// The text from an opening brace to the one that closes it.
fn group(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

/// The single paths of `prefix::{...}`.
fn spelled_out(prefix: &str, group: &str) -> Vec<String> {
    let inside = group.trim_start_matches('{');
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    for character in inside.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    let parts = parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty());
    parts
        .flat_map(|part| match part.split_once("::{") {
            Some((more, _)) => spelled_out(&format!("{prefix}::{more}"), &part[more.len() + 2..]),
            None => {
                let name = part.split_whitespace().next().unwrap_or(part);
                vec![if name == "self" {
                    prefix.to_owned()
                } else {
                    format!("{prefix}::{name}")
                }]
            }
        })
        .collect()
}

/// Whether a path is the banned one, lies below it, or takes it in with a `*`.
fn reaches(path: &str, banned: &str) -> bool {
    let below = path
        .strip_prefix(banned)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let glob = path
        .strip_suffix('*')
        .is_some_and(|parent| banned.starts_with(parent));
    below || glob
}

/// The crate's module that a path leads to, if it leads into the crate: by `crate::`, or by as many
/// `super::` as the module is deep.
fn target_in_crate(path: &str, module: &[String]) -> Option<String> {
    let mut segments = path.split("::").peekable();
    if segments.peek() == Some(&"crate") {
        segments.next();
    } else {
        let mut depth = module.len();
        while segments.peek() == Some(&"super") {
            segments.next();
            depth = depth.checked_sub(1)?;
        }
        if depth != 0 {
            return None;
        }
    }
    segments.next().map(str::to_owned)
}

/// `src/wire/serf.rs` is the module `wire::serf`, `src/wire/mod.rs` is `wire`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/')
        .filter(|segment| *segment != "mod")
        .map(str::to_owned)
        .collect()
}

mod the_checker_bites {
    use super::check;

    fn finds(name: &str, source: &str, expected: &[&str]) {
        let findings = check(name, source);
        assert_eq!(findings.len(), expected.len(), "{source}: {findings:?}");
        for (finding, expected) in findings.iter().zip(expected) {
            assert!(
                finding.contains(expected),
                "{source}: {findings:?} lacks {expected}"
            );
        }
    }

    #[test]
    fn on_everything_that_reaches_outside() {
        for planted in [
            "use tokio::sync::mpsc;",
            "use std::fs;",
            "use std::{cmp, fs};",
            "use std::{\n    cmp,\n    io::{Read, stdin},\n};",
            "let content = std::fs::read(path);",
            "std::thread::spawn(f);",
            "let home = std::env::var(name);",
            "std::process::exit(1);",
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::time::*;",
            "use std::net::UdpSocket;",
            "use std::net::{IpAddr, TcpStream};",
            "use std::net::TcpListener as Listener;",
            "let mut rng = rand::rng();",
            "let x: u8 = rand::random();",
            "use rand::rngs::OsRng;",
            "use rand::rngs::SysRng;",
            "let mut rng = rand::thread_rng();",
            "getrandom::fill(&mut seed);",
            "use std::collections::HashMap;",
            "use std::collections::{BTreeMap, HashSet};",
            "use std::collections::hash_map::Entry;",
            "use std::collections::*;",
            "println!(\"{x}\");",
            "    eprintln!(\"{x}\");",
            "dbg!(x);",
        ] {
            let findings = check("src/swim/probe.rs", planted);
            assert!(!findings.is_empty(), "nothing found in {planted:?}");
        }
    }

    #[test]
    fn on_imports_upwards() {
        finds(
            "src/wire/codec.rs",
            "use crate::swim::Member;",
            &["codec.rs:1: `wire` must not know `swim`"],
        );
        finds(
            "src/wire/codec.rs",
            "use crate::{bounds, serf::types};",
            &["must not know `serf`"],
        );
        finds(
            "src/wire/codec.rs",
            "\n\nlet x = crate::node::X;",
            &["codec.rs:3: `wire` must not know `node`"],
        );
        finds(
            "src/wire/codec.rs",
            "use super::super::agent::Agent;",
            &["must not know `agent`"],
        );
        finds(
            "src/swim/mod.rs",
            "use super::serf::Clock;",
            &["`swim` must not know `serf`"],
        );
        finds(
            "src/serf/clock.rs",
            "use crate::rpc;",
            &["`serf` must not know `rpc`"],
        );
        finds(
            "src/node.rs",
            "use crate::driver::Driver;",
            &["`node` must not know `driver`"],
        );
        finds(
            "src/time.rs",
            "use crate::wire::Tags;",
            &["`time` must not know `wire`"],
        );
        finds(
            "src/bounds.rs",
            "use crate::time::Time;",
            &["`bounds` must not know `time`"],
        );
    }

    #[test]
    fn with_the_right_line() {
        let source =
            "//! tokio is far away.\nuse std::time::Duration;\n\nfn f() {\n    std::fs::read(p);\n}\n";
        finds("src/node.rs", source, &["src/node.rs:5: names `std::fs`"]);
    }

    #[test]
    fn but_not_on_what_is_allowed() {
        let source = "//! tokio, std::fs, Instant\n\
                      use std::collections::{BTreeMap, VecDeque};\n\
                      use std::net::{IpAddr, SocketAddr};\n\
                      use std::time::Duration;\n\
                      use hashbrown::HashMap;\n\
                      use rand::{RngExt, SeedableRng, rngs::StdRng};\n\
                      use super::member::Member;\n\
                      use super::super::wire::serf::Filter; // HashMap of std\n\
                      use crate::{bounds, time::Time, wire};\n\
                      /// println is for others.\n\
                      fn random_instant(process: u8, thread: u8) {}\n\
                      #[cfg(test)]\nmod tests {\n    use std::fs;\n    use crate::agent;\n}\n";
        finds("src/swim/probe.rs", source, &[]);
        finds(
            "src/serf/clock.rs",
            "use crate::swim::Member;\nuse crate::wire::serf;",
            &[],
        );
        finds("src/node.rs", "use crate::{serf, swim, wire};", &[]);
    }
}
