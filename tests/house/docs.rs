//! Whatever the documentation and the comments point to is there: files, and headings in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where sources and documents stand.
const PLACES: [&str; 13] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Cargo.toml",
    "docs",
    "core",
    "keys",
    "sim",
    "src",
    "tests",
    "examples",
    "benches",
    "profiles",
];

/// The endings of files in which pointers to documents are looked for.
const SOURCES: [&str; 6] = ["rs", "toml", "py", "sh", "md", "txt"];

#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents = Documents::default();
    let mut dead = Vec::new();
    let mut links = 0;
    for path in files().into_iter().filter(|path| ends(path, "md")) {
        let text = without_code(&read(&path));
        for target in links_of(&text)
            .into_iter()
            .filter(|target| !target.contains("://"))
        {
            links += 1;
            if let Some(why) = documents.missing(&path, target) {
                dead.push(format!("{}: {target}: {why}", path.display()));
            }
        }
        // Files in the text are named from the top of the repository.
        for target in quoted(&text).into_iter().flat_map(pointers_of) {
            if target.contains('/')
                && let Some(why) = documents.missing(Path::new("top"), target)
            {
                dead.push(format!("{}: `{target}`: {why}", path.display()));
            }
        }
    }
    assert!(links > 20, "only {links} links were found");
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

/// A pointer in a comment names the document from the top of the repository, and a heading in it.
#[test]
fn pointers_in_comments_lead_somewhere() {
    let mut documents = Documents::default();
    let mut dead = Vec::new();
    let mut pointers = 0;
    for path in files().into_iter().filter(|path| !ends(path, "md")) {
        for (number, line) in read(&path).lines().enumerate() {
            let comment = comment_of(&path, line);
            let found = pointers_of(comment);
            pointers += found.len();
            let mut complain = |what: String| dead.push(format!("{}:{}: {what}", path.display(), number + 1));
            for target in found {
                if let Some(why) = documents.missing(Path::new("top"), target) {
                    complain(format!("{target}: {why}"));
                }
            }
            for label in labels_of(comment) {
                complain(format!("{label}: say docs/protocol.md#HEADING, or what is meant"));
            }
        }
    }
    assert!(pointers > 20, "only {pointers} pointers were found");
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn what_leads_nowhere_is_noticed() {
    let mut documents = Documents::default();
    let mut missing = |target: &str| documents.missing(Path::new("docs/design.md"), target).is_some();
    assert!(!missing("#bounds"));
    assert!(missing("#no-such-heading"));
    assert!(!missing("protocol.md#a17-state-machine"));
    assert!(!missing("../core/src/bounds.rs"));
    assert!(missing("protocol.md#a17-no-such-heading"));
    assert!(missing("no-such-file.md"));
    assert!(missing("../../fyrd-outside/README.md"));
    assert_eq!(
        pointers_of("as in docs/design.md#bounds, (protocol.md A5)."),
        ["docs/design.md#bounds", "protocol.md"]
    );
    assert_eq!(
        pointers_of("`core/src/bounds.rs`, src/driver, src/*.rs and tests/interop_*.rs"),
        ["core/src/bounds.rs"]
    );
    assert_eq!(quoted("as `a` and `b c` do"), ["a", "b c"]);
    assert_eq!(labels_of("the table (A15, B7) of SHA256"), ["A15", "B7"]);
    assert_eq!(
        slug("A12. Push/pull: the `Join` flag"),
        "a12-pushpull-the-join-flag"
    );
    assert_eq!(
        links_of("[a](b.md#c) and ![d](e.png), not [f] (g)"),
        ["b.md#c", "e.png"]
    );
}

/// The headings of all documents that were asked for so far.
#[derive(Default)]
struct Documents(BTreeMap<PathBuf, BTreeSet<String>>);

impl Documents {
    /// Why this target of a link in the document `from` does not exist; `None` if it does.
    fn missing(&mut self, from: &Path, target: &str) -> Option<String> {
        let (file, anchor) = match target.split_once('#') {
            Some((file, anchor)) => (file, Some(anchor)),
            None => (target, None),
        };
        let path = if file.is_empty() {
            from.to_owned()
        } else {
            from.with_file_name(file)
        };
        let Some(path) = resolve(&path) else {
            return Some("outside of the repository".to_string());
        };
        let Some(anchor) = anchor else {
            return (!top().join(&path).exists()).then(|| "no such file".to_string());
        };
        if !top().join(&path).is_file() {
            return Some("no such file".to_string());
        }
        let headings = self
            .0
            .entry(path.clone())
            .or_insert_with(|| headings(&read(&path)));
        (!headings.contains(anchor)).then(|| "no such heading".to_string())
    }
}

/// The anchors that forges give to the headings of a document.
fn headings(text: &str) -> BTreeSet<String> {
    without_code(text)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect()
}

fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

/// The text without its blocks of code.
fn without_code(text: &str) -> String {
    let mut code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of `[text](target)`.
fn links_of(text: &str) -> Vec<&str> {
    let ends = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    ends.filter(|target| !target.contains(char::is_whitespace))
        .collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What a line says to people: in Rust what follows `//`, elsewhere all of it.
fn comment_of<'a>(path: &Path, line: &'a str) -> &'a str {
    if ends(path, "rs") {
        line.split_once("//").map_or("", |(_, comment)| comment)
    } else {
        line
    }
}

/// Every mention of one of our documents, with its path and anchor, and of files by their path.
fn pointers_of(comment: &str) -> Vec<&str> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '#');
    let words = comment.split(|c| !part(c)).map(|word| word.trim_end_matches('.'));
    let ours = words.filter(|word| {
        let file = word.split('#').next().unwrap_or_default();
        let named = word.split_once('/').is_some_and(|(top, _)| PLACES.contains(&top));
        !file.starts_with("//") && has_ending(file) && (named || file.ends_with(".md"))
    });
    ours.collect()
}

/// Bare labels of sections of the protocol, which nobody can follow.
fn labels_of(comment: &str) -> Vec<&str> {
    let words = comment.split(|c: char| !c.is_alphanumeric());
    let labels = words.filter(|word| {
        let number = word.strip_prefix(['A', 'B']).unwrap_or_default();
        (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit())
    });
    labels.collect()
}

/// Whether this is the name of a file, and not of one out of many, or of a folder.
fn has_ending(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    name.split_once('.')
        .is_some_and(|(stem, ending)| !stem.is_empty() && !ending.is_empty())
}

fn ends(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

/// The path without `..`, or `None` if it leaves the repository.
fn resolve(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    Some(plain)
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All sources and documents, from the top of the repository.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    while let Some(path) = waiting.pop() {
        if top().join(&path).is_dir() {
            if path.ends_with("target") || path.ends_with("corpus") {
                continue;
            }
            let entries = fs::read_dir(top().join(&path)).expect("a directory of the repository");
            waiting.extend(entries.map(|entry| path.join(entry.expect("its entry").file_name())));
        } else if SOURCES.iter().any(|ending| ends(&path, ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}
