//! What the manual quotes is what the program says, and its commands are run (tests/interop/manual.rs) or say why not.
//!
//! A block after `<!-- said -->` holds lines of the log or of a command: each is a text of the sources. Words in capitals
//! stand for what the program fills in; instead of them, another text of the sources may stand there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use regex::Regex;

#[test]
fn what_is_quoted_is_said() {
    let texts = Texts::of_the_program();
    let mut unsaid = Vec::new();
    let mut quoted = 0;
    for name in documents() {
        for line in blocks(&read(&name), "said")
            .iter()
            .flat_map(|block| block.lines())
        {
            quoted += 1;
            if !texts.say(line.trim()) {
                unsaid.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(quoted > 12, "only {quoted} lines were found");
    assert!(unsaid.is_empty(), "\n{}", unsaid.join("\n"));
}

#[test]
fn every_command_of_the_manual_is_run_or_says_why_not() {
    let runner = read("tests/interop/manual.rs");
    let mut run = 0;
    for name in documents() {
        let text = read(&name);
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| **line == "```sh") {
            let before = number.checked_sub(1).map_or("", |before| lines[before]);
            let is_marked = [
                "<!-- on ",
                "<!-- until ",
                "<!-- fails ",
                "<!-- file ",
                "<!-- not run: ",
            ];
            assert!(
                is_marked.iter().any(|mark| before.starts_with(mark)),
                "{name}:{}: say before the block where it runs, or why it does not",
                number + 1
            );
        }
        if lines.iter().any(|line| line.starts_with("<!-- on ")) {
            let file = name.trim_start_matches("docs/");
            let call = format!("run(\"{file}\")");
            assert!(
                runner.contains(&call),
                "{name} is not run: tests/interop/manual.rs has no {call}"
            );
            run += 1;
        }
    }
    assert!(run > 0, "no document is run");
}

#[test]
fn the_index_names_every_document() {
    let index = read("docs/README.md");
    for name in documents() {
        let link = format!("]({})", name.trim_start_matches("docs/"));
        assert!(
            name == "docs/README.md" || index.contains(&link),
            "docs/README.md does not name {name}"
        );
    }
}

#[test]
fn what_nobody_says_is_noticed() {
    let texts = Texts::of(
        r#"fn f() {
            warn!(target: "agent", "Script '{name}' failed: {reason}");
            error!(target: "memberlist", "{text} from={from}");
            let _ = "no key opens it"; let _ = format!("exit status {}", 1);
        }"#,
    );
    for said in [
        "[WARN] agent: Script 'NAME' failed: REASON",
        "[WARN] agent: Script '/x/Y' failed: exit status 127",
        "[ERR] memberlist: no key opens it from=ADDRESS",
        "no key opens it",
    ] {
        assert!(texts.say(said), "{said}");
    }
    for unsaid in [
        "[ERR] agent: Script 'NAME' failed: REASON",
        "[WARN] serf: Script 'NAME' failed: REASON",
        "[WARN] agent: Script 'NAME' fails: REASON",
        "[WARN] agent: Script 'NAME' failed: for no reason",
        "[WARN] agent: no key opens it",
        "no key",
    ] {
        assert!(!texts.say(unsaid), "{unsaid}");
    }
}

/// The texts of a program, as patterns.
#[derive(Default)]
struct Texts {
    all: BTreeSet<String>,
    /// Those of its log: `[LEVEL] target: text`.
    logged: BTreeSet<String>,
}

impl Texts {
    fn of_the_program() -> Texts {
        let mut texts = Texts::default();
        for folder in ["src", "core/src", "keys/src"] {
            let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
            while let Some(path) = waiting.pop() {
                if path.is_dir() {
                    let entries = fs::read_dir(&path).expect("a folder of the sources");
                    waiting.extend(entries.map(|entry| entry.expect("its entry").path()));
                } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs")
                {
                    let source = fs::read_to_string(&path).expect("a source");
                    // Tests come last in a file, and what they say is not said by the program.
                    let source = source.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
                    texts.add_source(source);
                }
            }
        }
        texts
    }

    fn of(source: &str) -> Texts {
        let mut texts = Texts::default();
        texts.add_source(source);
        texts
    }

    fn add_source(&mut self, source: &str) {
        self.add(source.parse().expect("a source in Rust"));
    }

    fn add(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (number, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let is_macro = number > 1 && tokens[number - 1].to_string() == "!";
                    if is_macro {
                        self.add_logged(&tokens[number - 2].to_string(), group.stream());
                    }
                    self.add(group.stream());
                }
                token => {
                    if let Some(text) = text_of(token) {
                        self.all.insert(pattern(&text));
                    }
                }
            }
        }
    }

    /// A line of the log: `warn!(target: "agent", "text", ...)`.
    fn add_logged(&mut self, name: &str, tokens: TokenStream) {
        let level = match name {
            "error" => "ERR",
            "warn" => "WARN",
            "info" => "INFO",
            "debug" => "DEBUG",
            _ => return,
        };
        let mut texts = tokens.into_iter().filter_map(|token| text_of(&token));
        if let (Some(target), Some(text)) = (texts.next(), texts.next()) {
            let start = regex::escape(&format!("[{level}] {target}: "));
            self.logged.insert(format!("{start}{}", pattern(&text)));
        }
    }

    /// Whether the program says this.
    fn say(&self, line: &str) -> bool {
        let patterns = if line.starts_with('[') {
            &self.logged
        } else {
            &self.all
        };
        patterns.iter().any(|pattern| {
            let fixed = pattern.replace("(.+)", "");
            if fixed.chars().filter(|c| c.is_alphabetic()).count() < 4 {
                return false;
            }
            let Ok(pattern) = Regex::new(&format!("^{pattern}$")) else {
                return false;
            };
            pattern.captures(line).is_some_and(|found| {
                let filled = found.iter().skip(1).flatten().map(|filled| filled.as_str());
                filled
                    .into_iter()
                    .all(|filled| stands_for_something(filled) || self.say(filled))
            })
        })
    }
}

/// Whether this is what a program fills in: a word in capitals, a number, an address, a path, a time.
fn stands_for_something(text: &str) -> bool {
    let plain = text.starts_with('/') && !text.contains(' ');
    let time = Regex::new(r"^[0-9.]+(ns|us|µs|ms|s|m)$").is_ok_and(|time| time.is_match(text));
    plain || time || !text.chars().any(char::is_lowercase)
}

fn text_of(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else {
        return None;
    };
    syn::parse_str::<syn::LitStr>(&literal.to_string())
        .ok()
        .map(|text| text.value())
}

/// The text as a pattern: what a format fills in may be anything.
fn pattern(text: &str) -> String {
    let holes = Regex::new(r"\{[^{}]*\}").expect("a pattern");
    let parts: Vec<String> = holes.split(text).map(regex::escape).collect();
    parts.join("(.+)")
}

/// The blocks after a comment.
fn blocks(text: &str, mark: &str) -> Vec<String> {
    let start = format!("<!-- {mark} -->\n```text\n");
    let after = text.split(&start).skip(1);
    let blocks = after.filter_map(|after| after.split_once("\n```"));
    blocks.map(|(block, _)| block.to_owned()).collect()
}

fn documents() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let entries = fs::read_dir(folder).expect("the documents");
    let names = entries.map(|entry| {
        entry
            .expect("a document")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names
        .filter(|name| name.ends_with(".md"))
        .map(|name| name_of(&name))
        .collect()
}

fn name_of(document: &str) -> String {
    format!("docs/{document}")
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}
