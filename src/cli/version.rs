//! `version`: what this is, and which protocol versions it speaks.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal};

/// The command's name, which `-v` and `--version` stand for.
pub(super) const NAME: &str = "version";

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
    terminal.line(env!("CARGO_PKG_VERSION"));
    terminal.line(format!(
        "Agent Protocol: {current} (Understands back to: {lowest})"
    ));
    Ok(())
}
