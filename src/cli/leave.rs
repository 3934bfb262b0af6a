//! `leave`: makes the agent leave its cluster and end.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, flags, rpc};

pub(super) fn define() -> Command {
    Command::new("leave")
        .about("Makes the agent leave the cluster and end")
        .long_about("Makes the agent tell the cluster that it leaves, and end once that is done.")
        .override_usage("leave")
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        client.leave().await.map_err(rpc::failed("Error leaving"))?;
        terminal.line("Graceful leave complete");
        Ok(())
    })
}
