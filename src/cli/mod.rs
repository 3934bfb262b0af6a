//! The command line: finds the command that is meant and runs it. One file a command holds its flags,
//! help, action and output.
//!
//! Results and a command's own errors go to the standard output; only help that was asked for and the
//! flag parser's one-line errors go to the standard error (docs/compatibility.md#the-dispatcher).

pub mod flags;

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
mod nearest;
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
    /// Wrong flags; the usage, exit code 1.
    Flags(FlagError),
    /// All was said; this exit code.
    Exit(u8),
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
    let subcommand = line.name.and_then(|name| {
        SUBCOMMANDS
            .iter()
            .find(|subcommand| OsStr::new((subcommand.define)().get_name()) == name)
    });
    let Some(subcommand) = subcommand else {
        // Programs get what Serf says.
        if let Some(definition) = help_for(&line).filter(|_| terminal.has_reader()) {
            let usage = help::command_help(terminal.program(), definition);
            terminal.help(&format!("{usage}\n"));
            return 0;
        }
        terminal.help(&help::general_help(terminal.program(), &commands()));
        if let Some(name) = line.name.and_then(OsStr::to_str).filter(|name| *name != HELP) {
            let commands = commands();
            let meant = nearest::did_you_mean(name, commands.iter().map(Command::get_name));
            terminal.hint(&format!("'{name}' is no command. {}", meant.unwrap_or_default()));
        }
        return if line.help && line.name.is_none() {
            0
        } else {
            NO_COMMAND
        };
    };
    let definition = (subcommand.define)();
    if line.help {
        terminal.help(&format!("{}\n", usage(definition, terminal)));
        return 0;
    }
    if line.flag_before_name {
        terminal.help(&format!(
            "Invalid flags before the subcommand. If these flags are for\n\
             the subcommand, please put them after the subcommand.\n\n{}\n",
            usage(definition, terminal)
        ));
        return FAILED;
    }
    let result = (subcommand.run)(terminal, line.rest);
    end(result, definition, terminal)
}

/// The word before a command's name that asks for its help.
const HELP: &str = "help";

/// The command whose help is asked for as `help COMMAND`.
fn help_for(line: &CommandLine<'_>) -> Option<Command> {
    line.name.filter(|name| *name == HELP)?;
    let wanted = line.rest.first()?;
    commands()
        .into_iter()
        .find(|command| OsStr::new(command.get_name()) == wanted)
}

/// Tells of a failure; the exit code.
fn end(result: Result<(), Failure>, definition: Command, terminal: &mut Terminal<'_>) -> u8 {
    match result {
        Ok(()) => return 0,
        Err(Failure::Exit(code)) => return code,
        Err(Failure::Error(text)) => terminal.line(text),
        Err(Failure::Usage(problem)) => {
            let usage = usage(definition, terminal);
            if let Some(problem) = problem {
                terminal.line(format!("{problem}\n"));
            }
            terminal.line(usage);
        }
        Err(Failure::Flags(error)) => {
            let meant = meant_flag(&error, &definition);
            if let FlagError::Bad(text) = &error {
                terminal.help(&format!("{text}\n"));
            }
            let usage = usage(definition, terminal);
            terminal.line(usage);
            // Behind the help, where the error has scrolled away.
            if let FlagError::Bad(text) = error {
                terminal.hint(&format!("{text}. {}", meant.unwrap_or_default()));
            }
        }
    }
    FAILED
}

/// The flag that was probably meant by one that is not there.
fn meant_flag(error: &FlagError, definition: &Command) -> Option<String> {
    let FlagError::Bad(text) = error else { return None };
    let (_, name) = text.split_once("flag provided but not defined: -")?;
    let flags = definition.get_arguments().filter_map(clap::Arg::get_long);
    nearest::nearest(name, flags).map(|flag| format!("Did you mean -{flag}?"))
}

/// The command's help. `version` has none, and no more than an empty line stands for it.
fn usage(definition: Command, terminal: &Terminal<'_>) -> String {
    if definition.get_name() == version::NAME {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> (u8, String, String) {
        let arguments: Vec<OsString> = ["/usr/bin/serf"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new(program_name(&arguments), &mut out, &mut err);
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
    fn people_hear_what_was_probably_meant_and_programs_do_not() {
        for (words, hint) in [
            (
                ["membres"].as_slice(),
                "'membres' is no command. Did you mean 'members'?\n",
            ),
            (
                &["members", "-statsu=alive"],
                "flag provided but not defined: -statsu. Did you mean -status?\n",
            ),
        ] {
            for has_reader in [true, false] {
                let arguments: Vec<OsString> = ["fyrd"].iter().chain(words).map(OsString::from).collect();
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err).with_reader(has_reader);
                run(&arguments, &mut terminal);
                let err = String::from_utf8(err).unwrap();
                assert_eq!(err.ends_with(hint), has_reader, "{err}");
            }
        }
        for (has_reader, expected) in [
            (true, "Usage: serf members [options]\n"),
            (false, "Usage: serf [--version]"),
        ] {
            let arguments = ["serf", "help", "members"].map(OsString::from);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut terminal = Terminal::new("serf".into(), &mut out, &mut err).with_reader(has_reader);
            assert_eq!(
                run(&arguments, &mut terminal),
                if has_reader { 0 } else { NO_COMMAND }
            );
            assert!(String::from_utf8(err).unwrap().starts_with(expected));
        }
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
