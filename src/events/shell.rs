//! What runs a handler's command line (`handler_shell`).

/// How a command line becomes a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shell {
    /// The system's shell has it: `/bin/sh -c LINE`, on Windows `cmd /D /S /C "LINE"`.
    #[default]
    System,
    /// No shell: the line is split into words, and the first one names the program. Nothing in it is
    /// expanded, and nothing means anything but quotes and blanks.
    ///
    /// On Unix, words are split as a POSIX shell splits them: at blanks outside of quotes; `'...'` is taken
    /// as it is, in `"..."` a backslash makes `$`, `` ` ``, `"`, `\` and a line's end ordinary, outside of
    /// quotes it makes the next character ordinary; `#` at the start of a word begins a comment.
    ///
    /// On Windows, as for any program there: the first word ends at a blank, or when it begins with `"` at
    /// the next one. All that follows reaches the program untouched, which splits it by its own rules,
    /// usually those of `CommandLineToArgvW`.
    None,
}

impl Shell {
    /// Reads the setting; empty is the system's shell. The error is a line for the user.
    pub fn parse(text: &str) -> Result<Shell, String> {
        match text {
            "" | "system" => Ok(Shell::System),
            "none" => Ok(Shell::None),
            _ => Err(format!(
                "Invalid handler shell: '{text}'. It must be system (sh -c, on Windows cmd /C) or none"
            )),
        }
    }

    /// Whether the line can become a process at all; the error says what is wrong with it.
    pub fn check(self, line: &str) -> Result<(), String> {
        match self {
            Shell::System => Ok(()),
            Shell::None => words::split(line).map(drop),
        }
    }
}

#[cfg(unix)]
mod words {
    /// The program, and what it is given.
    pub fn split(line: &str) -> Result<(String, Vec<String>), String> {
        let mut words = shell_words::split(line).map_err(|e| e.to_string())?.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        Ok((program.ok_or("it names no program")?, words.collect()))
    }
}

#[cfg(windows)]
mod words {
    /// The program, and the rest of the line.
    pub fn split(line: &str) -> Result<(&str, &str), String> {
        let line = line.trim_matches([' ', '\t']);
        let (program, rest) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("missing closing quote")?,
            None => line.split_at(line.find([' ', '\t']).unwrap_or(line.len())),
        };
        if program.is_empty() {
            return Err("it names no program".to_string());
        }
        Ok((program, rest.trim_start_matches([' ', '\t'])))
    }
}

pub(crate) use words::split;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        assert_eq!(Shell::parse(""), Ok(Shell::System));
        assert_eq!(Shell::parse("system"), Ok(Shell::System));
        assert_eq!(Shell::parse("none"), Ok(Shell::None));
        for text in ["None", "sh", "cmd", "/bin/sh"] {
            let error = Shell::parse(text).unwrap_err();
            assert!(
                error.contains(&format!("'{text}'")) && error.contains("or none"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_line_without_a_program_is_no_command_for_no_shell() {
        for line in ["", "  ", "\"\" x"] {
            assert_eq!(
                Shell::None.check(line),
                Err("it names no program".to_string()),
                "{line}"
            );
            assert_eq!(Shell::System.check(line), Ok(()));
        }
        assert_eq!(
            Shell::None.check("\"x y"),
            Err("missing closing quote".to_string())
        );
    }

    #[cfg(unix)]
    #[test]
    fn lines_are_split_as_a_shell_does() {
        let table: [(&str, &str, &[&str]); 5] = [
            ("prog", "prog", &[]),
            ("  prog  a\tb ", "prog", &["a", "b"]),
            (
                r#""/a b/c" 'x  y' "z\"q" w\ v $HOME *"#,
                "/a b/c",
                &["x  y", "z\"q", "w v", "$HOME", "*"],
            ),
            ("a '' \"\"", "a", &["", ""]),
            ("a b|c>d;e&f", "a", &["b|c>d;e&f"]),
        ];
        for (line, program, arguments) in table {
            let expected = (
                program.to_string(),
                arguments.iter().map(|a| a.to_string()).collect(),
            );
            assert_eq!(split(line), Ok(expected), "{line}");
        }
    }

    #[cfg(windows)]
    #[test]
    fn lines_are_split_as_windows_does() {
        let table = [
            ("prog", "prog", ""),
            (" prog  a\tb ", "prog", "a\tb"),
            (r#""C:\a b\c.exe" "x  y" z"#, r"C:\a b\c.exe", r#""x  y" z"#),
            (r#"C:\c.exe --k="x y" C:\q\"#, r"C:\c.exe", r#"--k="x y" C:\q\"#),
        ];
        for (line, program, rest) in table {
            assert_eq!(split(line), Ok((program, rest)), "{line}");
        }
    }
}
