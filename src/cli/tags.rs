//! `tags`: changes the agent's tags while it runs.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, flags, rpc};

pub(super) fn define() -> Command {
    Command::new("tags")
        .about("Changes the agent's tags")
        .long_about(
            "Changes the tags of the running agent, and tells the cluster. Deletions come first; both flags \
             can be given several times.",
        )
        .override_usage("tags [options] ...")
        .args(rpc::arguments())
        .arg(flags::list("set", "<key>=<value>", "Set a tag."))
        .arg(flags::list("delete", "<key>", "Remove a tag, if it is there."))
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let (set, delete) = (flags.list("set"), flags.list("delete"));
    if set.is_empty() && delete.is_empty() {
        return Err(Failure::Usage(None));
    }
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let set = rpc::key_values(&set)?;
        client
            .tags(set, delete)
            .await
            .map_err(rpc::failed("Error setting tags"))?;
        terminal.line("Successfully updated agent tags");
        Ok(())
    })
}
