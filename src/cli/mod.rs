//! The command line: finds the command that is meant and runs it. One file a command holds its flags,
//! help, action and output.
//!
//! Results and a command's own errors go to the standard output; only help that was asked for and the
//! flag parser's one-line errors go to the standard error (docs/compatibility.md#the-dispatcher).

pub mod flags;

mod advice;
mod agent;
mod event;
mod force_leave;
mod help;
mod info;
mod join;
mod keygen;
mod keys;
mod leave;
mod members;
mod monitor;
mod progress;
mod query;
mod reachability;
#[cfg(feature = "templates")]
mod render;
mod rpc;
mod rtt;
mod service;
mod simulate;
mod snapshot;
mod table;
mod tags;
mod terminal;
mod validate;
mod version;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

use crate::go;
use crate::nearest::nearest;
use flags::FlagError;
pub use terminal::Terminal;

/// The exit code of every failure of a known command.
const FAILED: u8 = 1;
/// The exit code when no known command was named.
const NO_COMMAND: u8 = 127;

/// A command's row in the table of commands.
struct Subcommand {
    /// Name, texts and flags.
    define: fn() -> Command,
    /// Takes the words after the name.
    run: fn(&mut Terminal<'_>, &[OsString]) -> Result<(), Failure>,
}

/// All commands, in the order in which help lists them.
const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        define: agent::define,
        run: agent::run,
    },
    Subcommand {
        define: event::define,
        run: event::run,
    },
    Subcommand {
        define: force_leave::define,
        run: force_leave::run,
    },
    Subcommand {
        define: info::define,
        run: info::run,
    },
    Subcommand {
        define: join::define,
        run: join::run,
    },
    Subcommand {
        define: keygen::define,
        run: keygen::run,
    },
    Subcommand {
        define: keys::define,
        run: keys::run,
    },
    Subcommand {
        define: leave::define,
        run: leave::run,
    },
    Subcommand {
        define: members::define,
        run: members::run,
    },
    Subcommand {
        define: monitor::define,
        run: monitor::run,
    },
    Subcommand {
        define: query::define,
        run: query::run,
    },
    Subcommand {
        define: reachability::define,
        run: reachability::run,
    },
    #[cfg(feature = "templates")]
    Subcommand {
        define: render::define,
        run: render::run,
    },
    Subcommand {
        define: rtt::define,
        run: rtt::run,
    },
    Subcommand {
        define: service::define,
        run: service::run,
    },
    Subcommand {
        define: simulate::define,
        run: simulate::run,
    },
    Subcommand {
        define: snapshot::define,
        run: snapshot::run,
    },
    Subcommand {
        define: tags::define,
        run: tags::run,
    },
    Subcommand {
        define: validate::define,
        run: validate::run,
    },
    Subcommand {
        define: version::define,
        run: version::run,
    },
];

/// How a command ended when it did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// A line for the user; exit code 1.
    Error(String),
    /// Wrong words: a line about them, if any, and the usage; exit code 1.
    Usage(Option<&'static str>),
    /// A word that is none of those that there are: the usage, exit code 1, and for people the nearest one.
    Word(WrongWord),
    /// Wrong flags; the usage, exit code 1.
    Flags(FlagError),
    /// All was said; this exit code.
    Exit(u8),
}

/// A word that is none of those that can stand in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongWord {
    word: String,
    known: &'static [&'static str],
}

impl WrongWord {
    /// The failure of a command whose first word has to be one of these; without a word, it is the usage alone.
    fn of(word: Option<&OsString>, known: &'static [&'static str]) -> Failure {
        match word {
            None => Failure::Usage(None),
            Some(word) => Failure::Word(WrongWord {
                word: word.to_string_lossy().into_owned(),
                known,
            }),
        }
    }

    fn hint(&self) -> String {
        let word = go::quote(&self.word);
        match nearest(&self.word, self.known.iter().copied()) {
            Some(meant) => format!("unknown word {word}; did you mean {}?", go::quote(meant)),
            None => format!("unknown word {word}; there are {}", self.known.join(", ")),
        }
    }
}

impl From<FlagError> for Failure {
    fn from(error: FlagError) -> Failure {
        Failure::Flags(error)
    }
}

/// Runs the command line `arguments`, program name first, and gives the exit code.
pub fn run(arguments: &[OsString], terminal: &mut Terminal<'_>) -> u8 {
    let code = dispatch(arguments.get(1..).unwrap_or_default(), terminal);
    // Results that nobody received are no success.
    if terminal.finish() { code } else { code.max(FAILED) }
}

/// What all commands are, for those that explain or complete them.
pub fn commands() -> Vec<Command> {
    let define = |subcommand: &Subcommand| (subcommand.define)();
    SUBCOMMANDS.iter().map(define).collect()
}

/// The name by which the program was called; a link named `serf` makes it `serf`.
pub fn program_name(arguments: &[OsString]) -> String {
    let path = arguments.first().map(Path::new);
    let stem = path.and_then(|path| {
        if cfg!(windows) {
            path.file_stem()
        } else {
            path.file_name()
        }
    });
    stem.filter(|name| !name.is_empty())
        .unwrap_or(OsStr::new("fyrd"))
        .to_string_lossy()
        .into_owned()
}

fn dispatch(words: &[OsString], terminal: &mut Terminal<'_>) -> u8 {
    let mut line = CommandLine::read(words);
    // Serf looks for these everywhere, even after `--` and among payloads.
    if words.iter().any(|word| word == "-v" || word == "--version") {
        line = CommandLine {
            name: Some(version::NAME.as_ref()),
            flag_before_name: false,
            ..line
        };
    }
    if terminal.takes_hints() {
        line = line.meant_by_people(words);
    }
    let Some(subcommand) = line.name.and_then(find) else {
        terminal.help(&help::general_help(terminal.program(), &commands()));
        if line.help && line.name.is_none() {
            return 0;
        }
        if let Some(name) = line.name.or(words.first().map(OsString::as_os_str)) {
            terminal.hint(&unknown(&name.to_string_lossy()));
        }
        return NO_COMMAND;
    };
    let define = subcommand.define;
    if line.help {
        terminal.help(&format!("{}\n", usage(define(), terminal)));
        return 0;
    }
    if line.flag_before_name {
        terminal.help(&format!(
            "Invalid flags before the subcommand. If these flags are for\n\
             the subcommand, please put them after the subcommand.\n\n{}\n",
            usage(define(), terminal)
        ));
        return FAILED;
    }
    let result = (subcommand.run)(terminal, line.rest);
    end(result, define, terminal)
}

fn find(name: &OsStr) -> Option<&'static Subcommand> {
    let mut subcommands = SUBCOMMANDS.iter();
    subcommands.find(|subcommand| OsStr::new((subcommand.define)().get_name()) == name)
}

/// What people are told of a command that there is not.
fn unknown(name: &str) -> String {
    let definitions = commands();
    let meant = nearest(
        name.trim_start_matches('-'),
        definitions.iter().map(Command::get_name),
    );
    let name = go::quote(name);
    match meant {
        Some(meant) => format!("unknown command {name}; did you mean {}?", go::quote(meant)),
        None => format!("unknown command {name}"),
    }
}

/// Tells of a failure; the exit code. The definition is made only now: an agent would keep it as long as it runs.
fn end(result: Result<(), Failure>, define: fn() -> Command, terminal: &mut Terminal<'_>) -> u8 {
    match result {
        Ok(()) => return 0,
        Err(Failure::Exit(code)) => return code,
        Err(Failure::Error(text)) => {
            let advice = advice::on(&text);
            terminal.line(text);
            if let Some(advice) = advice {
                terminal.hint(advice);
            }
        }
        Err(Failure::Word(wrong)) => {
            let usage = usage(define(), terminal);
            terminal.line(usage);
            terminal.hint(&wrong.hint());
        }
        Err(Failure::Usage(problem)) => {
            let usage = usage(define(), terminal);
            if let Some(problem) = problem {
                terminal.line(format!("{problem}\n"));
            }
            terminal.line(usage);
            if let Some(problem) = problem {
                terminal.hint(problem);
            }
        }
        Err(Failure::Flags(error)) => {
            // For people it comes last, where it does not scroll away.
            match error.hint(&define()) {
                Some(hint) if terminal.takes_hints() => {
                    let usage = usage(define(), terminal);
                    terminal.line(usage);
                    terminal.hint(&format!("\n{hint}"));
                }
                _ => {
                    if let Some(line) = error.line() {
                        terminal.help(&format!("{line}\n"));
                    }
                    let usage = usage(define(), terminal);
                    terminal.line(usage);
                }
            }
        }
    }
    FAILED
}

/// The command's help. Where a program reads, `version` has none, and no more than an empty line stands for it.
fn usage(definition: Command, terminal: &Terminal<'_>) -> String {
    if definition.get_name() == version::NAME && !terminal.takes_hints() {
        return String::new();
    }
    help::command_help(terminal.program(), definition)
}

/// The words sorted into what stands before, in and after the command's name.
struct CommandLine<'a> {
    name: Option<&'a OsStr>,
    rest: &'a [OsString],
    help: bool,
    flag_before_name: bool,
}

impl<'a> CommandLine<'a> {
    fn read(words: &'a [OsString]) -> CommandLine<'a> {
        let mut line = CommandLine {
            name: None,
            rest: &[],
            help: false,
            flag_before_name: false,
        };
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            let is_flag = word.as_encoded_bytes().starts_with(b"-");
            if word == "--" {
                break;
            } else if ["-h", "-help", "--help"].iter().any(|help| word == help) {
                line.help = true;
            } else if line.name.is_none() && is_flag {
                line.flag_before_name = true;
            } else if line.name.is_none() && !word.is_empty() {
                line.name = Some(word);
                line.rest = after;
            }
        }
        line
    }

    /// People who ask `help COMMAND` or for `-version` get an answer. Serf has neither.
    fn meant_by_people(mut self, words: &'a [OsString]) -> CommandLine<'a> {
        if self.name == Some(OsStr::new("help")) {
            self.help = true;
            self.name = self.rest.first().map(OsString::as_os_str);
        } else if words.first().is_some_and(|word| word == "-version") && self.name.is_none() {
            self.name = Some(version::NAME.as_ref());
            self.flag_before_name = false;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> (u8, String, String) {
        run_before(false, words)
    }

    /// What people see on the help channel of a terminal.
    fn hints_at(words: &[&str]) -> (u8, String) {
        let (code, _, err) = run_before(true, words);
        (code, err)
    }

    fn run_before(people: bool, words: &[&str]) -> (u8, String, String) {
        let arguments: Vec<OsString> = ["/usr/bin/serf"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new(program_name(&arguments), &mut out, &mut err).with_hints(people);
        let code = run(&arguments, &mut terminal);
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn every_definition_is_sound() {
        for subcommand in SUBCOMMANDS {
            (subcommand.define)().debug_assert();
        }
        let names: Vec<String> = SUBCOMMANDS
            .iter()
            .map(|subcommand| (subcommand.define)().get_name().to_owned())
            .collect();
        assert!(names.is_sorted(), "help lists commands by name: {names:?}");
    }

    #[test]
    fn no_or_unknown_command_gives_general_help_and_127() {
        for words in [
            [].as_slice(),
            &["bogus"],
            &["help"],
            &[""],
            &["-x"],
            &["--", "members"],
            &["-h", "bogus"],
        ] {
            let (code, out, err) = run_words(words);
            assert_eq!((code, out.as_str()), (NO_COMMAND, ""), "{words:?}");
            assert!(
                err.starts_with("Usage: serf [--version] [--help] <command> [<args>]\n"),
                "{err}"
            );
            assert!(err.ends_with("\n\n"));
        }
    }

    #[test]
    fn people_are_told_which_word_is_wrong_and_which_is_meant() {
        #[rustfmt::skip]
        let table: [(&[&str], u8, &str); 12] = [
            (&["mebers"], 127, "\nunknown command \"mebers\"; did you mean \"members\"?\n"),
            (&["restart"], 127, "\nunknown command \"restart\"\n"),
            (&["-h", "bogus"], 127, "\nunknown command \"bogus\"\n"),
            (&["-verbose"], 127, "\nunknown command \"-verbose\"\n"),
            (&["help", "mebers"], 127, "\nunknown command \"mebers\"; did you mean \"members\"?\n"),
            (&["members", "-stauts=alive"], 1, "unknown flag -stauts; did you mean -status?\n"),
            (&["members", "-nosuch"], 1, "unknown flag -nosuch\n"),
            (&["agent", "-bnid=::1"], 1, "unknown flag -bnid; did you mean -bind?\n"),
            (&["query", "-timeout=5", "x"], 1, "invalid value \"5\" for flag -timeout: parse error\n"),
            (&["keys", "rotat"], 1, "unknown word \"rotat\"; did you mean \"rotate\"?\n"),
            (&["keys", "x"], 1, "unknown word \"x\"; there are install, use, remove, list, rotate\n"),
            (&["snapshot", "inspekt", "x"], 1, "unknown word \"inspekt\"; did you mean \"inspect\"?\n"),
        ];
        for (words, code, end) in table {
            let (got, err) = hints_at(words);
            assert!(got == code && err.ends_with(end), "{words:?}: {got} {err}");
        }
        for words in [["help", "members"], ["members", "-h"]] {
            let (code, err) = hints_at(&words);
            assert!(
                code == 0 && err.starts_with("Usage: serf members [options]"),
                "{words:?}: {err}"
            );
        }
        let (code, err) = hints_at(&["help"]);
        assert!(code == 0 && err.starts_with("Usage: serf [--version]"), "{err}");
        let (code, err) = hints_at(&["version", "-h"]);
        assert!(code == 0 && err.starts_with("Usage: serf version"), "{err}");
        assert_eq!(run_before(true, &["-version"]), run_before(true, &["version"]));
    }

    #[test]
    fn help_is_found_before_two_dashes() {
        assert_eq!(run_words(&["-h"]).0, 0);
        for words in [
            ["members", "-h"].as_slice(),
            &["members", "x", "--help"],
            &["-help", "-x", "members"],
        ] {
            let (code, out, err) = run_words(words);
            assert_eq!((code, out.as_str()), (0, ""), "{words:?}");
            assert!(err.starts_with("Usage: serf members [options]\n\n"), "{err}");
        }
        assert_eq!(run_words(&["version", "-h"]), (0, String::new(), "\n".to_owned()));
    }

    #[test]
    fn flags_before_the_command_are_refused() {
        let (code, out, err) = run_words(&["-x", "members"]);
        assert_eq!((code, out.as_str()), (FAILED, ""));
        assert!(err.starts_with("Invalid flags before the subcommand."), "{err}");
        assert!(err.contains("\n\nUsage: serf members [options]\n"), "{err}");
    }

    #[test]
    fn version_wins_from_anywhere() {
        let plain = run_words(&["version", "junk", "-x"]);
        assert_eq!(plain.0, 0);
        for words in [
            ["-v"].as_slice(),
            &["--version"],
            &["event", "x", "-v"],
            &["members", "--", "-v", "-h"],
        ] {
            assert_eq!(run_words(words), plain, "{words:?}");
        }
    }

    #[test]
    fn flag_errors_go_to_stderr_and_usage_to_stdout() {
        let (code, out, err) = run_words(&["members", "-nosuch"]);
        assert_eq!(
            (code, err.as_str()),
            (FAILED, "flag provided but not defined: -nosuch\n")
        );
        assert!(out.starts_with("Usage: serf members [options]\n"), "{out}");
        let (code, out, err) = run_words(&["members", "--h"]);
        assert_eq!((code, err.as_str()), (FAILED, ""));
        assert!(out.starts_with("Usage: serf members [options]\n"), "{out}");
    }
}
