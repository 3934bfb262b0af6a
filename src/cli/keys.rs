//! `keys`: changes or lists the encryption keys of all members.

use std::ffi::OsString;

use clap::Command;
use zeroize::Zeroizing;

use super::flags::Flags;
use super::{Failure, Terminal, flags, rpc, table};
use crate::rpc::client::KeyOperation;
use crate::rpc::types::KeyResponse;

pub(super) fn define() -> Command {
    Command::new("keys")
        .about("Changes or lists the cluster's encryption keys")
        .long_about(
            "Changes or lists the encryption keys of all members at once. A ring can hold several keys: all \
             of them open what others have sealed, the primary one seals. Each form can be repeated without \
             harm.\n\n\
             Succeeds only if every member has answered without an error.",
        )
        .override_usage("keys [options]...")
        .args([
            flags::string("install", "<key>", "Add a key to every member's ring."),
            flags::string(
                "use",
                "<key>",
                "Make an installed key the primary one. All members must have it.",
            ),
            flags::string(
                "remove",
                "<key>",
                "Remove a key, which must not be the primary one.",
            ),
            flags::boolean("list", "List all keys, and how many members have each."),
        ])
        .args(rpc::arguments())
}

/// The texts around an operation.
struct Wording {
    start: &'static str,
    success: &'static str,
    failure: &'static str,
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let (operation, wording) = operation(&flags)?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        terminal.line(format!("==> {}", wording.start));
        let (response, error) = match client.keys(operation).await {
            Ok(answer) => answer,
            Err(error) => (KeyResponse::default(), error.to_string()),
        };
        if !error.is_empty() {
            let failures: Vec<String> = response
                .messages
                .iter()
                .map(|(node, text)| format!("failed: |{node}|{text}"))
                .collect();
            if !failures.is_empty() {
                terminal.line(table::columns(&failures));
            }
            terminal.line("");
            return Err(Failure::Error(format!("{}: {error}", wording.failure)));
        }
        terminal.line(format!("==> {}", wording.success));
        if let Some(keys) = response.keys {
            let nodes = response.num_nodes;
            let rows: Vec<Zeroizing<String>> = keys
                .iter()
                .map(|(key, count)| Zeroizing::new(format!("{} | [{count}/{nodes}]", key.as_str())))
                .collect();
            let rows: Vec<&str> = rows.iter().map(|row| row.as_str()).collect();
            terminal.line("");
            terminal.line(Zeroizing::new(table::columns(&rows)).as_bytes());
        }
        Ok(())
    })
}

/// Exactly one of the four; empty values count as not given.
fn operation(flags: &Flags) -> Result<(KeyOperation, Wording), Failure> {
    let key = |name| {
        flags
            .string(name)
            .filter(|key| !key.is_empty())
            .map(|key| Zeroizing::new(key.to_owned()))
    };
    let mut chosen = Vec::new();
    if let Some(key) = key("install") {
        chosen.push((
            KeyOperation::Install(key),
            Wording {
                start: "Installing key on all members...",
                success: "Successfully installed key!",
                failure: "Error installing key",
            },
        ));
    }
    if let Some(key) = key("use") {
        chosen.push((
            KeyOperation::Use(key),
            Wording {
                start: "Changing primary key on all members...",
                success: "Successfully changed primary key!",
                failure: "Error changing primary key",
            },
        ));
    }
    if let Some(key) = key("remove") {
        chosen.push((
            KeyOperation::Remove(key),
            Wording {
                start: "Removing key on all members...",
                success: "Successfully removed key!",
                failure: "Error removing key",
            },
        ));
    }
    if flags.is_set("list") {
        chosen.push((
            KeyOperation::List,
            Wording {
                start: "Asking all members for installed keys...",
                success: "Keys gathered, listing cluster keys...",
                failure: "Failed to gather member keys",
            },
        ));
    }
    match (chosen.pop(), chosen.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(Failure::Error(
            "Only one of -install, -use, -remove, or -list allowed".to_owned(),
        )),
        (None, _) => Err(Failure::Usage(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(words: &[&str]) -> Result<String, Failure> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        operation(&flags::parse(define(), &words).unwrap()).map(|(operation, _)| format!("{operation:?}"))
    }

    #[test]
    fn exactly_one_operation() {
        assert_eq!(choose(&["-list"]), Ok("List".into()));
        assert_eq!(choose(&["-use=abc", "-install="]), Ok("Use([hidden])".into()));
        for words in [[].as_slice(), &["-install="], &["-list=false"]] {
            assert_eq!(choose(words), Err(Failure::Usage(None)));
        }
        let problem = "Only one of -install, -use, -remove, or -list allowed";
        assert_eq!(
            choose(&["-list", "-remove=x"]),
            Err(Failure::Error(problem.into()))
        );
    }
}
