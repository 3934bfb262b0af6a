//! `service`: an agent as a service of Windows.

use std::ffi::OsString;

use clap::Command;

use super::flags::Flags;
use super::{Failure, Terminal, flags};

#[cfg(not(windows))]
#[path = "service/elsewhere.rs"]
mod system;
#[cfg(windows)]
#[path = "service/windows.rs"]
mod system;

/// The name of the service unless another is given.
const NAME: &str = "fyrd";

pub(super) fn define() -> Command {
    Command::new("service")
        .about("Runs an agent as a Windows service")
        .long_about(
            "Installs, removes or runs an agent as a service of Windows.\n\n\
             'install' registers a service that starts with the system and runs this program, where it is now, \
             with the configuration at -config-dir, and registers a source for its entries in the event log. \
             A directory that is not there is made, and only administrators can read or change it: it can hold \
             keys, and the scripts that it names run as the system. 'uninstall' stops the service and removes \
             both; the configuration stays. Only administrators can do either. 'run' is what the service \
             manager calls.\n\n\
             The agent takes all settings from the configuration's files, works in that directory, and writes \
             its log to the event log (Application, source Fyrd), at the level of log_level. To stop the \
             service is what SIGTERM is elsewhere: the agent leaves if leave_on_terminate is set. A shutdown \
             of the system means the same. 'sc control fyrd paramchange' is SIGHUP: the files are read again.",
        )
        .override_usage("service install|uninstall|run [options]")
        .args([
            flags::string("name", "fyrd", "Name of the service, where one host has several."),
            flags::string(
                "config-dir",
                "<path>",
                "JSON file, or directory of files, to read settings from. Without, Fyrd in the directory of \
                 all programs' data, usually C:\\ProgramData\\Fyrd.",
            ),
        ])
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Install,
    Uninstall,
    Run,
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let (verb, name, config) = read(words)?;
    let line = match verb {
        Verb::Install => system::install(&name, config.as_deref()),
        Verb::Uninstall => system::uninstall(&name),
        Verb::Run => system::run(&name, config.as_deref()),
    };
    match line.map_err(|reason| Failure::Error(format!("Error: {reason}")))? {
        line if line.is_empty() => {}
        line => terminal.line(line),
    }
    Ok(())
}

/// The verb, the service's name and its configuration; flags can stand before or after the verb.
fn read(words: &[OsString]) -> Result<(Verb, String, Option<String>), Failure> {
    const VERBS: Failure = Failure::Usage(Some("One of install, uninstall and run must be named."));
    let before = flags::parse(define(), words)?;
    let (verb, rest) = before.words().split_first().ok_or(VERBS)?;
    let verb = match verb.to_str() {
        Some("install") => Verb::Install,
        Some("uninstall") => Verb::Uninstall,
        Some("run") => Verb::Run,
        _ => return Err(VERBS),
    };
    let after = flags::parse(define(), rest)?;
    if !after.words().is_empty() {
        return Err(Failure::Usage(Some("Too many words.")));
    }
    let either = |flag: &str| {
        let text = |flags: &Flags| flags.string(flag).map(str::to_owned);
        text(&after)
            .or_else(|| text(&before))
            .filter(|text| !text.is_empty())
    };
    let name = either("name").unwrap_or_else(|| NAME.to_owned());
    check_name(&name)?;
    Ok((verb, name, either("config-dir")))
}

/// The service manager's own rule.
fn check_name(name: &str) -> Result<(), Failure> {
    const NAME_MAX: usize = 256;
    let wrong = if name.chars().count() > NAME_MAX {
        format!("it is longer than {NAME_MAX} characters")
    } else if let Some(c) = name
        .chars()
        .find(|c| ['/', '\\', '"'].contains(c) || c.is_control())
    {
        format!("it must not contain {c:?}")
    } else {
        return Ok(());
    };
    Err(Failure::Error(format!(
        "Error: Invalid service name {name:?}: {wrong}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Result<(Verb, String, Option<String>), Failure> {
        read(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn verbs_and_flags_in_either_order() {
        let plain = (Verb::Run, NAME.to_owned(), None);
        assert_eq!(read_words(&["run"]), Ok(plain));
        let full = (Verb::Install, "two".to_owned(), Some(r"C:\a b\c".to_owned()));
        for words in [
            ["install", "-name=two", r"-config-dir=C:\a b\c"],
            ["-name=two", "install", r"-config-dir=C:\a b\c"],
            ["-name=two", r"-config-dir=C:\a b\c", "install"],
        ] {
            assert_eq!(read_words(&words), Ok(full.clone()), "{words:?}");
        }
        for words in [&[][..], &["start"], &["-name=x"], &["run", "now"]] {
            assert!(
                matches!(read_words(words), Err(Failure::Usage(Some(_)))),
                "{words:?}"
            );
        }
        assert!(matches!(read_words(&["run", "-nosuch"]), Err(Failure::Flags(_))));
    }

    #[test]
    fn names_that_no_service_has_are_refused() {
        let long = "x".repeat(257);
        for name in ["a/b", r"a\b", "a\"b", "a\nb", &long] {
            let error = read_words(&["run", &format!("-name={name}")]).unwrap_err();
            assert!(matches!(&error, Failure::Error(text) if text.contains("Invalid service name")));
        }
        assert!(read_words(&["run", "-name=Fyrd (two)"]).is_ok());
    }

    #[cfg(not(windows))]
    #[test]
    fn elsewhere_it_says_whom_it_is_for() {
        for verb in ["install", "uninstall", "run"] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
            let error = run(&mut terminal, &[verb.into()]).unwrap_err();
            assert!(
                matches!(&error, Failure::Error(text) if text.contains("Windows")),
                "{error:?}"
            );
        }
    }
}
