//! Whether the program that a command line begins with is there.

#[cfg(unix)]
use std::path::Path;

#[cfg(unix)]
use crate::events::shell;
use crate::events::shell::Shell;

/// What is wrong with the program of a command line, if that can be said without running it.
#[cfg(unix)]
pub fn trouble(line: &str, shell: Shell) -> Option<String> {
    let program = match shell {
        Shell::None => shell::split(line).ok()?.0,
        Shell::System => first_word(line)?,
    };
    if program.contains('/') {
        return match is_program(Path::new(&program)) {
            Ok(()) => None,
            Err(why) => Some(format!("{program}: {why}")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| is_program(&folder.join(&program)).is_ok());
    let is_known = is_there || (shell == Shell::System && is_of_the_shell(&program));
    (!is_known).then(|| format!("{program}: there is no such program on the PATH of this user"))
}

/// Where a program is looked for on this system depends on more than can be looked at.
#[cfg(not(unix))]
pub fn trouble(_line: &str, _shell: Shell) -> Option<String> {
    None
}

/// The word that a shell takes for the program, where nothing in it means anything to the shell.
#[cfg(unix)]
fn first_word(line: &str) -> Option<String> {
    let is_assignment = |word: &&String| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    let words = shell_words::split(line).ok()?;
    let word = words.iter().find(|word| !is_assignment(word))?;
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,:".contains(c);
    (!word.is_empty() && word.chars().all(is_plain)).then(|| word.clone())
}

#[cfg(unix)]
fn is_program(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let found = std::fs::metadata(path).map_err(|e| crate::go::os_error(&e))?;
    if found.is_dir() {
        return Err("it is a folder".to_owned());
    }
    match found.permissions().mode() & 0o111 {
        0 => Err(format!("it cannot be executed: chmod +x {}", path.display())),
        _ => Ok(()),
    }
}

/// Whether the shell itself knows it, as `exit`, `if` or `{`.
#[cfg(unix)]
fn is_of_the_shell(word: &str) -> bool {
    let asked = std::process::Command::new("/bin/sh")
        .args(["-c", "command -v -- \"$0\"", word])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("a.sh");
        std::fs::write(&script, "").unwrap();
        let script = script.to_str().unwrap();
        let here = folder.path().to_str().unwrap();
        for (line, expected) in [
            ("sh -c x", None),
            ("  cat >>heard", None),
            ("if true; then :; fi", None),
            ("A=1 B= cat", None),
            ("$HOME/x", None),
            ("(cd /; ls)", None),
            (
                "nosuch-program a",
                Some("nosuch-program: there is no such program on the PATH of this user".to_owned()),
            ),
            (
                "A=1 /no/such",
                Some("/no/such: no such file or directory".to_owned()),
            ),
            (
                script,
                Some(format!("{script}: it cannot be executed: chmod +x {script}")),
            ),
            (here, Some(format!("{here}: it is a folder"))),
        ] {
            assert_eq!(trouble(line, Shell::System), expected, "{line}");
        }
        assert_eq!(trouble("cat a", Shell::None), None);
        assert!(
            trouble("cd /", Shell::None).is_some_and(|text| text.starts_with("cd: "))
                || Path::new("/usr/bin/cd").exists()
        );
        assert!(trouble("'no such'/x y", Shell::None).is_some());
    }
}
