//! One template, as flag and configuration define it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use fyrd_core::addr::is_windows_path;
use fyrd_core::duration;

/// A template, where its output goes, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The template.
    pub src: PathBuf,
    /// The file that is kept.
    pub dst: PathBuf,
    /// Runs once the file has changed.
    pub command: Option<String>,
    /// Has to succeed before the file goes live; `{}` stands for the new one.
    pub check: Option<String>,
    /// The least number of living members that the output has to be written from.
    pub min: usize,
    /// How long members have to be quiet before it is rendered.
    pub wait: Duration,
    /// The file's permissions; those it has, or 0644, if not given.
    pub mode: Option<u32>,
    /// How long check and command may take, each.
    pub timeout: Duration,
}

/// A quiet time in which a change of several members is one.
const WAIT: Duration = Duration::from_millis(500);

/// What reloads a server takes no longer.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    src: String,
    dst: String,
    command: Option<String>,
    check: Option<String>,
    min: Option<usize>,
    wait: Option<String>,
    mode: Option<String>,
    timeout: Option<String>,
}

impl Spec {
    /// Reads `SRC:DST[:COMMAND]`, or the object that stands in a configuration file.
    pub fn parse(text: &str) -> Result<Spec, String> {
        let wrong = |what: String| format!("Invalid template '{text}': {what}");
        let fields = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?
        } else {
            split(text).ok_or_else(|| wrong("it must be SRC:DST or SRC:DST:COMMAND".to_owned()))?
        };
        fields.check().map_err(wrong)
    }

    /// How logs and figures call it.
    pub fn name(&self) -> String {
        self.dst.display().to_string()
    }
}

impl Fields {
    fn check(self) -> Result<Spec, String> {
        let path = |name: &str, text: String| match text.as_str() {
            "" => Err(format!("{name} is empty, it must be a path")),
            _ => Ok(PathBuf::from(text)),
        };
        let time = |name: &str, text: Option<String>, usual: Duration| {
            let Some(text) = text else {
                return Ok(usual);
            };
            let nanos = duration::parse(&text)
                .ok()
                .and_then(|nanos| u64::try_from(nanos).ok());
            nanos
                .map(Duration::from_nanos)
                .ok_or_else(|| format!("{name} is '{text}', it must be a time such as 2s"))
        };
        let mode = |text: String| {
            let octal = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
            octal.ok_or_else(|| format!("mode is '{text}', it must be three octal digits such as 0644"))
        };
        let full = |text: &String| !text.is_empty();
        let check = self.check.filter(full);
        if check.as_ref().is_some_and(|check| !check.contains("{}")) {
            return Err("check does not say {}, which stands for the new file".to_owned());
        }
        Ok(Spec {
            src: path("src", self.src)?,
            dst: path("dst", self.dst)?,
            command: self.command.filter(full),
            check,
            min: self.min.unwrap_or(1),
            wait: time("wait", self.wait, WAIT)?,
            mode: self.mode.map(mode).transpose()?,
            timeout: time("timeout", self.timeout, TIMEOUT)?,
        })
    }
}

fn split(text: &str) -> Option<Fields> {
    let (src, rest) = path(text)?;
    let (dst, command) = match path(rest?) {
        Some((dst, command)) => (dst, command),
        None => return None,
    };
    Some(Fields {
        src: src.to_owned(),
        dst: dst.to_owned(),
        command: command.map(str::to_owned),
        check: None,
        min: None,
        wait: None,
        mode: None,
        timeout: None,
    })
}

/// A path up to the next colon, and what follows that. The colon of a Windows drive is part of the path.
fn path(text: &str) -> Option<(&str, Option<&str>)> {
    let from = if is_windows_path(text) { 2 } else { 0 };
    let (path, rest) = match text[from..].find(':') {
        Some(colon) => (&text[..from + colon], Some(&text[from + colon + 1..])),
        None => (text, None),
    };
    (!path.is_empty()).then_some((path, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_paths_and_a_command() {
        let of = |text: &str| {
            let Spec {
                src, dst, command, ..
            } = Spec::parse(text).unwrap();
            (src.display().to_string(), dst.display().to_string(), command)
        };
        let (a, b) = ("a.j2".to_owned(), "/etc/b".to_owned());
        assert_eq!(of("a.j2:/etc/b"), (a.clone(), b.clone(), None));
        assert_eq!(
            of("a.j2:/etc/b:x y:z"),
            (a.clone(), b.clone(), Some("x y:z".to_owned()))
        );
        assert_eq!(of("a.j2:/etc/b:"), (a, b, None));
        assert_eq!(
            of(r"C:\a.j2:D:\b:net stop x"),
            (
                r"C:\a.j2".to_owned(),
                r"D:\b".to_owned(),
                Some("net stop x".to_owned())
            )
        );
        for text in ["", "a", "a:", ":b", "::c"] {
            let error = Spec::parse(text).unwrap_err();
            assert!(error.contains("must be SRC:DST"), "{text}: {error}");
        }
    }

    #[test]
    fn objects_say_more() {
        let full = r#"{"src": "a", "dst": "b", "command": "c", "check": "nginx -t -c {}", "min": 0, "wait": "2s",
            "mode": "0600", "timeout": "1m"}"#;
        let expected = Spec {
            src: "a".into(),
            dst: "b".into(),
            command: Some("c".to_owned()),
            check: Some("nginx -t -c {}".to_owned()),
            min: 0,
            wait: Duration::from_secs(2),
            mode: Some(0o600),
            timeout: Duration::from_secs(60),
        };
        assert_eq!(Spec::parse(full), Ok(expected));
        let short = Spec::parse(r#"{"src": "a", "dst": "b"}"#).unwrap();
        assert_eq!((short.min, short.wait, short.timeout), (1, WAIT, TIMEOUT));
        for (text, expected) in [
            (r#"{"src": "a"}"#, "missing field `dst`"),
            (r#"{"src": "a", "dst": "b", "cmd": "c"}"#, "unknown field `cmd`"),
            (r#"{"src": "", "dst": "b"}"#, "src is empty"),
            (
                r#"{"src": "a", "dst": "b", "wait": "5"}"#,
                "wait is '5', it must be a time such as 2s",
            ),
            (r#"{"src": "a", "dst": "b", "mode": "0999"}"#, "mode is '0999'"),
            (r#"{"src": "a", "dst": "b", "min": -1}"#, "min"),
            (
                r#"{"src": "a", "dst": "b", "check": "nginx -t"}"#,
                "check does not say {}",
            ),
        ] {
            let error = Spec::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
