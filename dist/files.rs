//! Writes what a package holds beside the program: a manual page for each command, completions for the shells, and the
//! schema of configuration files.
//!
//! `cargo run --example dist-files -- FOLDER`

use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, Command};
use clap_complete::Shell;
use roff::{Roff, bold, italic, roman};

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("dist-files: name the folder to write into");
        std::process::exit(2);
    };
    let commands = fyrd::cli::commands();
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    fs::write(man.join("fyrd.1"), overview(&commands))?;
    for command in &commands {
        fs::write(man.join(format!("fyrd-{}.1", command.get_name())), page(command))?;
    }
    let schema = serde_json::to_string_pretty(&fyrd::agent::schema::schema())?;
    fs::write(folder.join("fyrd.schema.json"), schema + "\n")?;
    completions(commands, &folder.join("completions"))
}

/// Completions offer flags with two dashes, which the program takes like one.
fn completions(commands: Vec<Command>, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let commands = commands.into_iter().map(|command| {
        // The value names are examples and defaults; what can be completed are files at most.
        command.mut_args(|arg| arg.value_name("VALUE").value_parser(ValueParser::string()))
    });
    let mut program = Command::new("fyrd")
        .subcommands(commands)
        .disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
        clap_complete::generate_to(shell, &mut program, "fyrd", folder)?;
    }
    Ok(())
}

fn title(name: &str) -> Roff {
    let mut roff = Roff::default();
    let (name, version) = (name.to_uppercase(), format!("fyrd {}", env!("CARGO_PKG_VERSION")));
    roff.control("TH", [name.as_str(), "1", "", version.as_str(), "User Commands"]);
    roff
}

fn paragraphs(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
}

fn overview(commands: &[Command]) -> String {
    let mut roff = title("fyrd");
    roff.control("SH", ["NAME"]);
    roff.text([roman("fyrd - encrypted cluster membership, in the place of Serf")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([
        bold("fyrd"),
        roman(" "),
        italic("command"),
        roman(" [options] [arguments]"),
    ]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(
        &mut roff,
        "An agent runs on each host of a cluster. The agents know each other, notice who comes, leaves and fails, \
         and carry events and queries between them. They are full members of a cluster of HashiCorp's Serf.\n\n\
         All commands but agent, keygen, simulate, snapshot and validate talk to the agent of this host.",
    );
    roff.control("SH", ["COMMANDS"]);
    for command in commands {
        roff.control("TP", []);
        roff.text([bold(format!("fyrd-{}", command.get_name())), roman("(1)")]);
        roff.text([roman(
            command.get_about().map(ToString::to_string).unwrap_or_default(),
        )]);
    }
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        (
            "/etc/fyrd",
            "configuration of the packaged unit, JSON files in the order of their names",
        ),
        ("/var/lib/fyrd", "its snapshot, and its keyring"),
    ] {
        roff.control("TP", []);
        roff.text([italic(file)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("/usr/share/doc/fyrd")]);
    roff.render()
}

fn page(command: &Command) -> String {
    let name = format!("fyrd-{}", command.get_name());
    let mut roff = title(&name);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    roff.control("SH", ["NAME"]);
    let (first, rest) = about.split_at(about.len().min(1));
    roff.text([roman(format!("{name} - {}{rest}", first.to_lowercase()))]);
    roff.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().disable_help_flag(true).render_usage().to_string();
    let usage = usage.trim().strip_prefix("Usage: ").unwrap_or_default();
    for (number, line) in usage.lines().enumerate() {
        if number > 0 {
            roff.control("br", []);
        }
        roff.text([bold("fyrd "), roman(line.trim())]);
    }
    roff.control("SH", ["DESCRIPTION"]);
    let long = command.get_long_about().map_or(about, ToString::to_string);
    paragraphs(&mut roff, &long);
    let mut arguments = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some())
        .peekable();
    if arguments.peek().is_some() {
        roff.control("SH", ["OPTIONS"]);
    }
    for arg in arguments {
        option(&mut roff, arg);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("fyrd"), roman("(1)")]);
    roff.render()
}

fn option(roff: &mut Roff, arg: &Arg) {
    let name = format!("-{}", arg.get_long().unwrap_or_default());
    let value = arg.get_value_names().and_then(|names| names.first());
    let takes_value = arg.get_value_parser().type_id() != std::any::TypeId::of::<bool>();
    roff.control("TP", []);
    match value.filter(|_| takes_value) {
        Some(value) => roff.text([bold(name), roman("="), italic(value.as_str())]),
        None => roff.text([bold(name)]),
    };
    roff.text([roman(arg.get_help().map(ToString::to_string).unwrap_or_default())]);
}
