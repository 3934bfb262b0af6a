//! `validate`: says what is wrong with a configuration, before an agent is started with it.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, agent, flags};
use crate::agent::schema::schema;
use crate::agent::validate;

pub(super) fn define() -> Command {
    Command::new("validate")
        .about("Says what is wrong with an agent's configuration")
        .long_about(
            "Takes the options of the command agent, and those in its environment, and checks all that an agent \
             would: every mistake in every file, not only the first one; and that addresses, keys, profiles, event \
             handlers, templates and folders are there, for the user who asks. Nothing is started or written.\n\n\
             Prints a line for each mistake and each warning. With a mistake the exit code is 1.",
        )
        .override_usage("validate [options]")
        .arg(flags::boolean(
            SCHEMA,
            "Print the JSON schema of configuration files instead, for editors.",
        ))
        .args(agent::arguments())
}

/// The flag that is none of an agent.
const SCHEMA: &str = "schema";

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    if flags.is_set(SCHEMA) {
        let text = serde_json::to_string_pretty(&schema()).map_err(|e| Failure::Error(e.to_string()))?;
        terminal.line(text);
        return Ok(());
    }
    if let Some(word) = flags.words().first() {
        return Err(Failure::Error(format!(
            "error: '{}' is no flag, and an agent would ignore it and all that follows",
            word.to_string_lossy()
        )));
    }
    let environment = validate::environment();
    let paths = agent::paths(&flags, |wanted| {
        let given = environment.iter().find(|(name, _)| name == wanted);
        given.map(|(_, value)| value.clone())
    });
    let options = agent::options(&flags).map_err(|mistake| Failure::Error(format!("error: {mistake}")))?;
    let found = validate::validate(&paths, &environment, &options);
    for mistake in &found.mistakes {
        terminal.line(format!("error: {mistake}"));
    }
    for warning in &found.warnings {
        terminal.line(format!("warning: {warning}"));
    }
    if !found.mistakes.is_empty() {
        return Err(Failure::Exit(1));
    }
    terminal.line("The configuration is valid");
    Ok(())
}
