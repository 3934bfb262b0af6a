//! The forms in which lines of the log are printed.

use chrono::SecondsFormat;
use serde_json::json;

use super::log_line::{Level, LogLine};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As Serf's: `2026/11/20 17:47:07 [INFO] serf: text`.
    #[default]
    Text,
    /// An object a line: `time` (RFC 3339), `level`, `component`, `message`.
    Json,
    /// For journald, which knows the time itself, and takes the level as `<N>` (sd-daemon(3)).
    Journal,
}

impl Form {
    /// Reads the setting; empty is text.
    pub fn parse(name: &str) -> Result<Form, String> {
        match name {
            "" | "text" => Ok(Form::Text),
            "json" => Ok(Form::Json),
            _ => Err(format!("Invalid log format: '{name}'. It must be text or json")),
        }
    }

    /// A line of the log, without its end.
    pub fn line(self, line: &LogLine) -> String {
        let (component, message) = line
            .message()
            .split_once(": ")
            .unwrap_or(("agent", line.message()));
        match self {
            Form::Text => format!("    {}", line.text),
            Form::Json => json!({
                "time": line.at.to_rfc3339_opts(SecondsFormat::Millis, false),
                "level": line.level.as_str().to_lowercase(),
                "component": component,
                "message": message,
            })
            .to_string(),
            // A record of several lines has its level in front of each.
            Form::Journal => {
                let level = priority(line.level);
                let lines = line.message().lines().map(|line| format!("<{level}>{line}"));
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// What the agent says besides its log; nothing where this form has no place for an empty line.
    pub fn saying(self, prefix: &str, text: &str) -> Option<String> {
        match self {
            Form::Text | Form::Journal => Some(format!("{prefix}{text}")),
            Form::Json if text.trim().is_empty() => None,
            Form::Json => Some(
                json!({
                    "time": chrono::Local::now().to_rfc3339_opts(SecondsFormat::Millis, false),
                    "level": "info",
                    "component": "agent",
                    "message": text.trim(),
                })
                .to_string(),
            ),
        }
    }
}

/// The level's number in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Trace | Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Err => 3,
    }
}

/// The form for what this process prints: journald's if the variable names the very file (systemd.exec(5)).
#[cfg(unix)]
pub fn of_output(out: &std::fs::File) -> Form {
    use std::os::unix::fs::MetadataExt;
    let file = out
        .metadata()
        .map(|file| format!("{}:{}", file.dev(), file.ino()));
    let named = std::env::var_os("JOURNAL_STREAM");
    match (file, named) {
        (Ok(file), Some(named)) if named == *file => Form::Journal,
        _ => Form::Text,
    }
}

/// There is no journald on this system.
#[cfg(not(unix))]
pub fn of_output(_: &std::io::Stdout) -> Form {
    Form::Text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{Local, TimeZone};

    use super::*;

    fn line(level: Level, text: &str) -> LogLine {
        LogLine {
            at: Local.timestamp_opt(1_700_000_000, 5_000_000).unwrap(),
            level,
            text: Arc::from(text),
        }
    }

    #[test]
    fn a_line_in_each_form() {
        let said = line(Level::Warn, "2026/11/20 17:47:07 [WARN] serf: a: \"b\"\nc");
        assert_eq!(
            Form::Text.line(&said),
            "    2026/11/20 17:47:07 [WARN] serf: a: \"b\"\nc"
        );
        let object: serde_json::Value = serde_json::from_str(&Form::Json.line(&said)).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["component"], "serf");
        assert_eq!(object["message"], "a: \"b\"\nc");
        let time = object["time"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap();
        assert_eq!(time.timestamp_millis(), 1_700_000_000_005);
        assert_eq!(Form::Journal.line(&said), "<4>serf: a: \"b\"\n<4>c");
    }

    #[test]
    fn what_is_said_besides_is_an_object_too() {
        assert_eq!(Form::Text.saying("==> ", "x").as_deref(), Some("==> x"));
        assert_eq!(Form::Json.saying("", "\n"), None);
        let said = Form::Json
            .saying("==> ", "Log data will now stream in:\n")
            .unwrap();
        let object: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(object["message"], "Log data will now stream in:");
    }

    #[test]
    fn the_setting() {
        assert_eq!(Form::parse(""), Ok(Form::Text));
        assert_eq!(Form::parse("json"), Ok(Form::Json));
        assert!(Form::parse("yaml").unwrap_err().contains("text or json"));
    }
}
