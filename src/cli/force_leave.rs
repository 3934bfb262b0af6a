//! `force-leave`: makes a failed member a left one.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, flags, rpc};

pub(super) fn define() -> Command {
    Command::new("force-leave")
        .about("Makes a failed member count as \"left\"")
        .long_about(
            "Makes a failed member count as one that has left, so that the cluster stops trying to reach it. \
             For hosts that will not come back. A member that is alive after all shows itself again.",
        )
        .override_usage("force-leave [options] name")
        .arg(flags::boolean(
            "prune",
            "Take the member off the list altogether.",
        ))
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let [name] = flags.words() else {
        return Err(Failure::Usage(Some(
            "A node name must be specified to force leave.",
        )));
    };
    let name = rpc::text_word(name)?;
    rpc::with_agent(&flags, terminal, async |_, mut client| {
        client
            .force_leave(name, flags.is_set("prune"))
            .await
            .map_err(rpc::failed("Error force leaving"))
    })
}
