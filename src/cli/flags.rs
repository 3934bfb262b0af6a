//! Go's flag syntax, which Serf's command line has, as an adapter over clap.
//!
//! A command declares its flags as a [`clap::Command`] made of the kinds below. [`parse`] reads the
//! words by Go's rules, with Go's error texts, and hands clap a form about which there is no doubt.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::go;
use crate::nearest::nearest;

/// A flag that is true when given; a value can only be attached with `=`.
pub fn boolean(name: &'static str, help: &'static str) -> Arg {
    scalar(name, help).value_parser(go::parse_boolean)
}

/// A flag with a string; of several the last one counts.
pub fn string(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    scalar(name, help).value_name(value_name)
}

/// A flag with an integer, in Go's notation.
pub fn integer(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    scalar(name, help)
        .value_name(value_name)
        .value_parser(go::parse_integer)
}

/// A flag with a duration, in Go's notation.
pub fn duration(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    scalar(name, help)
        .value_name(value_name)
        .value_parser(str::parse::<go::Duration>)
}

/// A flag that can be given several times and keeps all its strings.
pub fn list(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    string(name, value_name, help).action(ArgAction::Append)
}

fn scalar(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::Set)
}

/// The flags and words of a command line.
#[derive(Debug)]
pub struct Flags {
    matches: ArgMatches,
    words: Vec<OsString>,
}

impl Flags {
    /// Whether a boolean flag was given, and not as false.
    pub fn is_set(&self, name: &str) -> bool {
        self.boolean(name).unwrap_or(false)
    }

    /// A boolean flag's value, if given.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.matches.get_one(name).copied()
    }

    /// A string flag's value, if given; it may be empty.
    pub fn string(&self, name: &str) -> Option<&str> {
        self.matches.get_one::<String>(name).map(String::as_str)
    }

    /// An integer flag's value, if given.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.matches.get_one(name).copied()
    }

    /// A duration flag's value, if given.
    pub fn duration(&self, name: &str) -> Option<go::Duration> {
        self.matches.get_one(name).copied()
    }

    /// A list flag's values in the order given.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.matches
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// What was given to a flag of any kind that counts, as it was written.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let given = self.matches.get_raw(name).into_iter().flatten();
        given.filter_map(OsStr::to_str)
    }

    /// The values of several list flags, in the order given on the line.
    pub fn lists_in_order(&self, names: &[&str]) -> Vec<String> {
        let mut values: Vec<(usize, &String)> = Vec::new();
        for name in names {
            let indices = self.matches.indices_of(name).into_iter().flatten();
            values.extend(indices.zip(self.matches.get_many::<String>(name).into_iter().flatten()));
        }
        values.sort();
        values.into_iter().map(|(_, value)| value.clone()).collect()
    }

    /// The words after the flags.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }
}

/// Why the words are no flags of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagError {
    /// `-h` in one of the spellings only the flag parser sees: usage, but no error line.
    Help,
    /// A flag of this name there is not.
    Unknown(String),
    /// The line Go prints.
    Bad(String),
}

impl FlagError {
    /// The line Go prints, if it prints one.
    pub fn line(&self) -> Option<String> {
        match self {
            FlagError::Help => None,
            FlagError::Unknown(name) => Some(format!("flag provided but not defined: -{name}")),
            FlagError::Bad(line) => Some(line.clone()),
        }
    }

    /// The same for people, with the flag of the command that may be meant.
    pub fn hint(&self, command: &Command) -> Option<String> {
        let FlagError::Unknown(name) = self else {
            return self.line();
        };
        let known = command.get_arguments().filter_map(Arg::get_long);
        Some(match nearest(name, known) {
            Some(meant) => format!("unknown flag -{name}; did you mean -{meant}?"),
            None => format!("unknown flag -{name}"),
        })
    }
}

/// Reads the words after the command's name. Reading stops at the first mistake, at the first word
/// that is no flag, or after `--`.
///
/// Who sits at a terminal is told of flags behind the first word: they are ordinary words, as with Serf.
pub fn parse(command: Command, words: &[OsString]) -> Result<Flags, FlagError> {
    let late = late_flags(&command, words);
    let flags = parse_front(command, words)?;
    if std::io::stderr().is_terminal() {
        for word in late {
            eprintln!("Warning: {word} stands behind a word, so it is no flag; flags come first");
        }
    }
    Ok(flags)
}

/// The words that would be flags of the command if they stood before the first word.
fn late_flags(command: &Command, words: &[OsString]) -> Vec<String> {
    let is_flag = |word: &OsString| {
        let text = flag_text(word)?;
        let (name, _) = split_flag(&text)?;
        command.get_arguments().find(|arg| arg.get_long() == Some(name))
    };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match flag_text(word) {
            None => break,
            Some(text) if text.is_empty() => return Vec::new(),
            // Its value is no word.
            Some(text) if !text.contains('=') => {
                if is_flag(word).is_some_and(|arg| !is_boolean(arg)) {
                    rest.next();
                }
            }
            Some(_) => {}
        }
    }
    rest.filter(|word| is_flag(word).is_some())
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn parse_front(command: Command, words: &[OsString]) -> Result<Flags, FlagError> {
    let command = command
        .no_binary_name(true)
        .disable_help_flag(true)
        .args_override_self(true);
    let mut normal: Vec<OsString> = Vec::new();
    let mut rest = words.iter();
    while let Some(text) = rest.as_slice().first().and_then(|word| flag_text(word)) {
        let word = rest.next().map(|word| word.to_string_lossy()).unwrap_or_default();
        if text.is_empty() {
            break;
        }
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(bad(format!("flag is not valid UTF-8: {word}")));
        }
        let (name, attached) = split_flag(&text).ok_or_else(|| bad(format!("bad flag syntax: {word}")))?;
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(name)) else {
            return Err(match name {
                "h" | "help" => FlagError::Help,
                _ => FlagError::Unknown(name.to_owned()),
            });
        };
        let value = match attached {
            Some(value) => value.to_owned(),
            None if is_boolean(arg) => "true".to_owned(),
            None => {
                let next = rest
                    .next()
                    .ok_or_else(|| bad(format!("flag needs an argument: -{name}")))?;
                utf8(next).ok_or_else(|| {
                    bad(format!(
                        "invalid value {} for flag -{name}: not valid UTF-8",
                        lossy_quote(next)
                    ))
                })?
            }
        };
        check(arg, name, &value)?;
        normal.push(format!("--{name}={value}").into());
    }
    let words = rest.cloned().collect();
    let matches = command
        .try_get_matches_from(normal)
        .map_err(|error| bad(error.to_string()))?;
    Ok(Flags { matches, words })
}

/// As [`parse`], but flags may stand between and after the words as well, up to `--`. Gives the words too.
pub fn parse_between(
    define: fn() -> Command,
    words: &[OsString],
) -> Result<(Flags, Vec<OsString>), FlagError> {
    let (mut of_flags, mut others) = (Vec::new(), Vec::new());
    let mut rest = words;
    loop {
        let after = parse_front(define(), rest)?.words().len();
        let (read, left) = rest.split_at(rest.len() - after);
        let ends = read.last().is_some_and(|word| word == "--");
        of_flags.extend(read.iter().filter(|word| *word != "--").cloned());
        match left.split_first() {
            None => break,
            Some(_) if ends => {
                others.extend_from_slice(left);
                break;
            }
            Some((word, left)) => {
                others.push(word.clone());
                rest = left;
            }
        }
    }
    Ok((parse_front(define(), &of_flags)?, others))
}

/// What follows a flag's dashes; `Some("")` for `--` alone, `None` for a word that is no flag.
fn flag_text(word: &OsStr) -> Option<String> {
    let text = word.to_string_lossy();
    let after = text.strip_prefix('-')?;
    match after.strip_prefix('-') {
        Some(after) => Some(after.to_owned()),
        None if after.is_empty() => None,
        None => Some(after.to_owned()),
    }
}

/// Name and attached value, or `None` for a name Go does not take for one.
fn split_flag(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with(['-', '=']) {
        return None;
    }
    Some(
        text.split_once('=')
            .map_or((text, None), |(name, value)| (name, Some(value))),
    )
}

fn utf8(word: &OsStr) -> Option<String> {
    word.to_str().map(str::to_owned)
}

fn lossy_quote(word: &OsStr) -> String {
    go::quote(&word.to_string_lossy())
}

fn bad(text: String) -> FlagError {
    FlagError::Bad(text)
}

fn is_boolean(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

/// Tells of a bad value in Go's words, before clap can in its own.
fn check(arg: &Arg, name: &str, value: &str) -> Result<(), FlagError> {
    let kind = arg.get_value_parser().type_id();
    let reason = if kind == TypeId::of::<bool>() {
        return match go::parse_boolean(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(bad(format!(
                "invalid boolean value {} for -{name}: {error}",
                go::quote(value)
            ))),
        };
    } else if kind == TypeId::of::<i64>() {
        go::parse_integer(value).err().map(|error| error.to_string())
    } else if kind == TypeId::of::<go::Duration>() {
        // Go's flag package hides the reason.
        value
            .parse::<go::Duration>()
            .err()
            .map(|_| go::NumberError::Syntax.to_string())
    } else {
        None
    };
    match reason {
        Some(reason) => Err(bad(format!(
            "invalid value {} for flag -{name}: {reason}",
            go::quote(value)
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command() -> Command {
        Command::new("try").args([
            boolean("detailed", ""),
            string("name", "REGEXP", ""),
            integer("factor", "N", ""),
            duration("timeout", "D", ""),
            list("tag", "K=V", ""),
        ])
    }

    fn try_words(words: &[&str]) -> Result<Flags, FlagError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        parse(command(), &words)
    }

    #[test]
    fn both_dashes_and_both_ways_of_a_value() {
        for words in [
            ["-name=x", "w"].as_slice(),
            &["--name=x", "w"],
            &["-name", "x", "w"],
            &["--name", "x", "w"],
        ] {
            let flags = try_words(words).unwrap();
            assert_eq!(flags.string("name"), Some("x"), "{words:?}");
            assert_eq!(flags.words(), ["w"]);
        }
        assert_eq!(try_words(&["-name="]).unwrap().string("name"), Some(""));
        assert_eq!(try_words(&["-name", ""]).unwrap().string("name"), Some(""));
        assert_eq!(
            try_words(&["-name", "-detailed"]).unwrap().string("name"),
            Some("-detailed")
        );
        assert_eq!(try_words(&["-name=a=b"]).unwrap().string("name"), Some("a=b"));
    }

    #[test]
    fn a_separate_word_is_no_boolean_value() {
        let flags = try_words(&["-detailed", "false", "x"]).unwrap();
        assert!(flags.is_set("detailed"));
        assert_eq!(flags.words(), ["false", "x"]);
        assert!(!try_words(&["-detailed=F"]).unwrap().is_set("detailed"));
        assert_eq!(try_words(&[]).unwrap().boolean("detailed"), None);
    }

    #[test]
    fn flags_end_at_a_word_or_two_dashes() {
        assert_eq!(
            try_words(&["a", "-detailed"]).unwrap().words(),
            ["a", "-detailed"]
        );
        assert_eq!(try_words(&["--", "-detailed"]).unwrap().words(), ["-detailed"]);
        assert_eq!(
            try_words(&["-", "-detailed"]).unwrap().words(),
            ["-", "-detailed"]
        );
        assert_eq!(try_words(&["", "-detailed"]).unwrap().words(), ["", "-detailed"]);
    }

    #[test]
    fn flags_behind_words_are_found() {
        let late = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            late_flags(&command(), &words)
        };
        assert_eq!(
            late(&["deploy", "-detailed=false", "--name"]),
            ["-detailed=false", "--name"]
        );
        assert_eq!(
            late(&["-name", "x", "-detailed", "deploy", "-tag", "y"]),
            ["-tag"]
        );
        let nothing: [&[&str]; 4] = [
            &["-name", "-detailed", "deploy", "-5", "-unknown"],
            &["--", "deploy", "-detailed"],
            &["-detailed"],
            &["deploy", "detailed", "-"],
        ];
        for words in nothing {
            assert!(late(words).is_empty(), "{words:?}");
        }
    }

    #[test]
    fn the_last_scalar_counts_and_lists_grow() {
        let flags = try_words(&["-name=a", "-tag=x,y", "-name=b", "-tag", "z"]).unwrap();
        assert_eq!(flags.string("name"), Some("b"));
        assert_eq!(flags.list("tag"), ["x,y", "z"]);
        assert!(
            try_words(&["-detailed=false", "-detailed"])
                .unwrap()
                .is_set("detailed")
        );
    }

    #[test]
    fn typed_values() {
        let flags = try_words(&["-factor=0x10", "-timeout", "1.5s"]).unwrap();
        assert_eq!(flags.integer("factor"), Some(16));
        assert_eq!(
            flags.duration("timeout"),
            Some(go::Duration { nanos: 1_500_000_000 })
        );
    }

    #[test]
    fn errors_read_as_go_writes_them() {
        let cases: &[(&[&str], &str)] = &[
            (&["-nosuch"], "flag provided but not defined: -nosuch"),
            (&["-nosuch=1"], "flag provided but not defined: -nosuch"),
            (&["-name"], "flag needs an argument: -name"),
            (&["---x"], "bad flag syntax: ---x"),
            (&["-=x"], "bad flag syntax: -=x"),
            (
                &["-detailed=maybe"],
                "invalid boolean value \"maybe\" for -detailed: parse error",
            ),
            (
                &["-detailed="],
                "invalid boolean value \"\" for -detailed: parse error",
            ),
            (
                &["-factor=abc"],
                "invalid value \"abc\" for flag -factor: parse error",
            ),
            (
                &["-factor=99999999999999999999"],
                "invalid value \"99999999999999999999\" for flag -factor: value out of range",
            ),
            (
                &["-timeout=5"],
                "invalid value \"5\" for flag -timeout: parse error",
            ),
            (
                &["-factor=x", "-nosuch"],
                "invalid value \"x\" for flag -factor: parse error",
            ),
        ];
        for (words, expected) in cases {
            assert_eq!(try_words(words).unwrap_err().line().as_deref(), Some(*expected));
        }
        for words in [["--h"], ["-h=x"], ["-help"]] {
            assert_eq!(try_words(&words).unwrap_err(), FlagError::Help);
        }
    }

    proptest! {
        #[test]
        fn never_panics(words: Vec<String>) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let _ = parse(command(), &words);
            for word in &words {
                let _ = go::parse_integer(&word.to_string_lossy());
            }
        }
    }
}
