//! The `fyrd` program: runs the command line and ends with its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use fyrd::cli;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut terminal = cli::Terminal::new(cli::program_name(&arguments), &mut out, &mut err);
    ExitCode::from(cli::run(&arguments, &mut terminal))
}
