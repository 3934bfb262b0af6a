//! `event`: fires a user event.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, flags, rpc};
use crate::rpc::types::EventRequest;

pub(super) fn define() -> Command {
    Command::new("event")
        .about("Sends a user event through the cluster")
        .long_about("Sends a user event, with a payload if one is given, to all members of the cluster.")
        .override_usage("event [options] name payload")
        .arg(flags::boolean(
            "coalesce",
            "Whether receivers may drop all but the last of several events of this name that come shortly \
             after each other. True unless given as -coalesce=false.",
        ))
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let (name, payload) = match flags.words() {
        [] => return Err(Failure::Usage(Some("An event name must be specified."))),
        [name] => (rpc::text_word(name)?, None),
        [name, payload] => (rpc::text_word(name)?, Some(payload)),
        _ => {
            let problem = "Too many command line arguments. Only a name and payload must be specified.";
            return Err(Failure::Usage(Some(problem)));
        }
    };
    let coalesce = flags.boolean("coalesce").unwrap_or(true);
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let event = EventRequest {
            coalesce,
            name: name.clone(),
            payload: rpc::payload(payload),
        };
        client
            .event(event)
            .await
            .map_err(rpc::failed("Error sending event"))?;
        terminal.line(format!(
            "Event '{name}' dispatched! Coalescing enabled: {coalesce}"
        ));
        Ok(())
    })
}
