//! The `fyrd` program: runs the command line and ends with its exit code.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use fyrd::cli;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let is_screen = std::io::stdout().is_terminal();
    let takes_hints = std::io::stderr().is_terminal();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut terminal = cli::Terminal::new(cli::program_name(&arguments), &mut out, &mut err)
        .with_screen(is_screen)
        .with_hints(takes_hints);
    ExitCode::from(cli::run(&arguments, &mut terminal))
}
