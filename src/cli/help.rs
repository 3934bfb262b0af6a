//! Help texts, laid out from the commands' definitions.

use clap::{Arg, Command};

/// Where a flag's explanation starts.
const EXPLANATION_COLUMN: usize = 28;
/// Where lines are broken.
const LINE_WIDTH: usize = 80;

/// The help of one command: usage, what it does, its flags. No newline at the end.
pub fn command_help(program: &str, command: Command) -> String {
    let mut command = command.disable_help_flag(true);
    let usage = command.render_usage().to_string();
    let usage = usage.trim().strip_prefix("Usage: ").unwrap_or_default();
    let mut help = format!("Usage: {program} {usage}\n");
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string);
    for paragraph in about.unwrap_or_default().split("\n\n") {
        help.push_str(&format!("\n{}\n", wrap(paragraph, 2)));
    }
    let flags: Vec<String> = command.get_arguments().map(flag_help).collect();
    if !flags.is_empty() {
        help.push_str(&format!("\nOptions:\n\n{}", flags.join("\n")));
    }
    help.trim_end().to_owned()
}

/// The help that lists the commands. Ends with an empty line.
pub fn general_help(program: &str, commands: &[Command]) -> String {
    let width = commands
        .iter()
        .map(|command| command.get_name().len())
        .max()
        .unwrap_or_default();
    let mut help =
        format!("Usage: {program} [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n");
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        help.push_str(&format!("    {:width$}    {about}\n", command.get_name()));
    }
    help.push('\n');
    help
}

fn flag_help(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    let value = arg
        .get_value_names()
        .and_then(|names| names.first())
        .filter(|_| takes_value(arg));
    let head = match value {
        Some(value) => format!("  -{name}={value}"),
        None => format!("  -{name}"),
    };
    let explanation = wrap(
        &arg.get_help().map(ToString::to_string).unwrap_or_default(),
        EXPLANATION_COLUMN,
    );
    // A head that is too long gets a line of its own.
    if head.len() < EXPLANATION_COLUMN {
        format!("{head:EXPLANATION_COLUMN$}{}\n", explanation.trim_start())
    } else {
        format!("{head}\n{explanation}\n")
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() != std::any::TypeId::of::<bool>()
}

fn wrap(text: &str, indent: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
        .iter()
        .map(|line| format!("{:indent$}{line}", ""))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn lays_out_a_command() {
        let command = Command::new("try")
            .about("Tries")
            .long_about("First paragraph.\n\nSecond one, which is so long that it has to be broken somewhere near to its end.")
            .override_usage("try [options] name")
            .args([
                flags::boolean("now", "At once."),
                flags::string("a-rather-long-name", "<pattern>", "Explained below."),
            ]);
        let expected = "Usage: fyrd try [options] name\n\n  First paragraph.\n\n  \
            Second one, which is so long that it has to be broken somewhere near to its\n  end.\n\n\
            Options:\n\n  -now                      At once.\n\n  -a-rather-long-name=<pattern>\n                            \
            Explained below.";
        assert_eq!(command_help("fyrd", command), expected);
    }

    #[test]
    fn lists_the_commands() {
        let commands = [
            Command::new("a").about("Does a"),
            Command::new("long").about("Does more"),
        ];
        assert_eq!(
            general_help("serf", &commands),
            "Usage: serf [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n    \
             a       Does a\n    long    Does more\n\n"
        );
    }
}
