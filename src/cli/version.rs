//! `version`: what this is, and which protocol versions it speaks.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal};

/// The command's name, which `-v` and `--version` stand for.
pub(super) const NAME: &str = "version";

/// The Serf whose place this takes.
const SERF: &str = "0.9.4";

/// Serf's delegate protocol: the version spoken, and the lowest one understood.
const PROTOCOL: (u8, u8) = (5, 2);

pub(super) fn define() -> Command {
    Command::new(NAME)
        .about("Tells the version of this program")
        .override_usage(NAME)
}

/// Takes no flags and ignores all words, as scripts for Serf may rely on.
pub(super) fn run(terminal: &mut Terminal<'_>, _: &[OsString]) -> Result<(), Failure> {
    let (current, lowest) = PROTOCOL;
    let version = env!("CARGO_PKG_VERSION");
    // Tools ask the program of this name which Serf it is.
    if terminal.program() == "serf" {
        terminal.line(format!("Serf v{SERF} (Fyrd {version})"));
    } else {
        terminal.line(version);
    }
    terminal.line(format!(
        "Agent Protocol: {current} (Understands back to: {lowest})"
    ));
    // What programs read is as Serf prints it.
    if terminal.is_screen() {
        let commit = option_env!("FYRD_COMMIT").unwrap_or("built from sources");
        let (arch, system) = (std::env::consts::ARCH, std::env::consts::OS);
        terminal.line(format!("Fyrd {version} ({commit}) for {arch} {system}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_that_ask_serf_hear_of_serf() {
        let said = |program: &str| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut terminal = Terminal::new(program.to_owned(), &mut out, &mut err);
            run(&mut terminal, &[]).unwrap();
            String::from_utf8(out).unwrap()
        };
        let version = env!("CARGO_PKG_VERSION");
        let protocol = "Agent Protocol: 5 (Understands back to: 2)";
        assert_eq!(
            said("serf"),
            format!("Serf v0.9.4 (Fyrd {version})\n{protocol}\n")
        );
        assert_eq!(said("fyrd"), format!("{version}\n{protocol}\n"));
    }
}
