//! `join`: makes the agent join a cluster.

use std::ffi::OsString;

use clap::Command;

use super::progress::Progress;
use super::{Failure, Terminal, flags, rpc};

pub(super) fn define() -> Command {
    Command::new("join")
        .about("Makes the agent join a cluster")
        .long_about(
            "Makes the running agent join the cluster of the members at the given addresses. One that \
             answers is enough.",
        )
        .override_usage("join [options] address ...")
        .arg(flags::boolean(
            "replay",
            "Let the agent see the cluster's recent user events.",
        ))
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    if flags.words().is_empty() {
        return Err(Failure::Usage(Some(
            "At least one address to join must be specified.",
        )));
    }
    let addresses = flags
        .words()
        .iter()
        .map(|word| rpc::text_word(word))
        .collect::<Result<_, _>>()?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let join = client.join(addresses, flags.is_set("replay"));
        let joined = Progress::start().wait(terminal, "joining", join).await;
        let joined = joined.map_err(rpc::failed("Error joining the cluster"))?;
        terminal.line(format!(
            "Successfully joined cluster by contacting {} nodes.",
            joined.num
        ));
        // Scripts read the line above alone.
        for reason in &joined.failed {
            terminal.help(&format!("{reason}\n"));
        }
        Ok(())
    })
}
