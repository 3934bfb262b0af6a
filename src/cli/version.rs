//! `version`: what this is, and which protocol versions it speaks.

use std::ffi::OsString;

use clap::Command;
use serde::Serialize;

use super::info::Format;
use super::{Failure, Terminal, flags};

/// The command's name, which `-v` and `--version` stand for.
pub(super) const NAME: &str = "version";

/// The Serf whose place this takes.
const SERF: &str = "0.9.4";

/// Serf's delegate protocol: the version spoken, and the lowest one understood.
const PROTOCOL: (u8, u8) = (5, 2);

/// From which commit this is built; only releases know.
const COMMIT: Option<&str> = option_env!("COMMIT_OF_BUILD");

/// For which system.
const TARGET: Option<&str> = option_env!("TARGET_OF_BUILD");

pub(super) fn define() -> Command {
    Command::new(NAME)
        .about("Tells the version of this program")
        .long_about(
            "Tells the version of this program and of the protocol that it speaks. At a terminal and as JSON, also from \
             which commit it is built, and for which system.",
        )
        .override_usage(format!("{NAME} [options]"))
        .arg(Format::argument())
}

/// All that there is to tell, as JSON.
#[derive(Serialize)]
struct Version {
    program: &'static str,
    version: &'static str,
    commit: Option<&'static str>,
    target: Option<&'static str>,
    protocol: u8,
    protocol_min: u8,
}

/// Ignores all words that it does not know, as scripts for Serf may rely on.
pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let (protocol, protocol_min) = PROTOCOL;
    let version = env!("CARGO_PKG_VERSION");
    let flags = flags::parse(define(), words).ok();
    if flags.is_some_and(|flags| flags.string("format") == Some("json")) {
        let version = Version {
            program: "fyrd",
            version,
            commit: COMMIT,
            target: TARGET,
            protocol,
            protocol_min,
        };
        return Format::Json.print(terminal, &version, String::new);
    }
    let about = || {
        let commit = COMMIT.map_or("not built from a commit".to_owned(), |commit| {
            format!("commit {commit}")
        });
        format!("{commit}, {}", TARGET.unwrap_or("unknown system"))
    };
    // Tools ask the program of this name which Serf it is.
    terminal.line(match (terminal.program() == "serf", terminal.is_screen()) {
        (true, false) => format!("Serf v{SERF} (Fyrd {version})"),
        (true, true) => format!("Serf v{SERF} (Fyrd {version}, {})", about()),
        (false, false) => version.to_owned(),
        (false, true) => format!("fyrd {version} ({})", about()),
    });
    terminal.line(format!(
        "Agent Protocol: {protocol} (Understands back to: {protocol_min})"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_that_ask_serf_hear_of_serf() {
        let said = |program: &str| say(false, program, &[]);
        let version = env!("CARGO_PKG_VERSION");
        let protocol = "Agent Protocol: 5 (Understands back to: 2)";
        assert_eq!(
            said("serf"),
            format!("Serf v0.9.4 (Fyrd {version})\n{protocol}\n")
        );
        assert_eq!(said("fyrd"), format!("{version}\n{protocol}\n"));
    }

    fn say(is_screen: bool, program: &str, words: &[OsString]) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let terminal = Terminal::new(program.to_owned(), &mut out, &mut err);
        run(&mut terminal.with_screen(is_screen), words).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn people_and_json_hear_of_commit_and_system() {
        let (version, target) = (env!("CARGO_PKG_VERSION"), TARGET.unwrap());
        let seen = say(true, "fyrd", &[]);
        assert!(seen.starts_with(&format!("fyrd {version} (")), "{seen}");
        assert_eq!(seen.lines().count(), 2, "{seen}");
        assert!(
            seen.lines().next().unwrap().ends_with(&format!(", {target})")),
            "{seen}"
        );
        let seen = say(true, "serf", &["junk".into()]);
        assert!(
            seen.starts_with(&format!("Serf v0.9.4 (Fyrd {version}, ")),
            "{seen}"
        );
        let json = say(false, "serf", &["-format=json".into()]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["program"], &json["target"]),
            (&"fyrd".into(), &target.into())
        );
        assert_eq!(json["version"], version);
    }
}
