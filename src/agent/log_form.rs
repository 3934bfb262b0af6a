//! How the lines look that an agent prints and writes: as Serf's, as the journal of systemd wants them, or as JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Local, SecondsFormat};
use serde::Serialize;

use super::log_line::{Level, LogLine, TIME};
use crate::go::printable;

/// The form of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As Serf has them.
    Text,
    /// For the journal, which has the time by itself and reads the level from the start: `<4>agent: text`.
    Journal,
    /// An object for each.
    Json,
}

/// Whether `log_format` asks for JSON. The error is a line for the user.
pub fn is_json(text: &str) -> Result<bool, String> {
    match text {
        "" | "text" => Ok(false),
        "json" => Ok(true),
        _ => Err(format!(
            "Invalid log format: '{text}'. It must be text (lines as Serf has them) or json (an object a line)"
        )),
    }
}

impl Form {
    /// A line of the log, with its end.
    pub fn log_line(self, line: &LogLine) -> String {
        let message = line.message().trim_end();
        match self {
            Form::Text => format!("    {}\n", printable::entry(&line.text)),
            Form::Journal => {
                // An entry ends at the end of a line.
                let parts: Vec<&str> = message
                    .lines()
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .collect();
                format!("<{}>{}\n", priority(line.level), parts.join(" "))
            }
            Form::Json => {
                let (component, message) = message.split_once(": ").unwrap_or(("agent", message));
                object(line.at, line.level, component, message)
            }
        }
    }

    /// What is no line of the log: headlines and details.
    pub fn saying(self, prefix: &str, text: &str) -> String {
        match self {
            Form::Text | Form::Journal => format!("{prefix}{}\n", printable::entry(text)),
            Form::Json if text.trim().is_empty() => String::new(),
            Form::Json => object(Local::now(), Level::Info, "agent", printable::entry(text).trim()),
        }
    }
}

/// The journal's numbers for levels are those of the system's log.
fn priority(level: Level) -> u8 {
    match level {
        Level::Trace | Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Err => 3,
    }
}

fn object(at: DateTime<Local>, level: Level, component: &str, message: &str) -> String {
    #[derive(Serialize)]
    struct Entry<'a> {
        time: String,
        level: &'a str,
        component: &'a str,
        message: &'a str,
    }
    let entry = Entry {
        time: at.to_rfc3339_opts(SecondsFormat::Millis, false),
        level: level.as_str(),
        component,
        message,
    };
    // Texts always have a form in JSON.
    serde_json::to_string(&entry).map_or(String::new(), |text| text + "\n")
}

/// The form that an output has, which those who write it share.
#[derive(Clone, Debug)]
pub struct SharedForm {
    text: Form,
    is_json: Arc<AtomicBool>,
}

impl SharedForm {
    /// This one, until JSON is asked for.
    pub fn new(text: Form) -> SharedForm {
        SharedForm {
            text,
            is_json: Arc::default(),
        }
    }

    /// From now on it is JSON.
    pub fn use_json(&self) {
        self.is_json.store(true, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> Form {
        match self.is_json.load(Ordering::Relaxed) {
            true => Form::Json,
            false => self.text,
        }
    }

    /// A warning of the agent's about the output itself.
    pub fn warning(&self, text: &str) -> String {
        let at = Local::now();
        let text = format!("{} [WARN] agent: {text}", at.format(TIME)).into();
        let level = Level::Warn;
        self.get().log_line(&LogLine { at, level, text })
    }
}

/// Whether what is written to this file goes to the journal of systemd, which names it by device and number.
#[cfg(unix)]
pub fn is_journal(file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is = |named: String| {
        file.metadata()
            .is_ok_and(|of| named == format!("{}:{}", of.dev(), of.ino()))
    };
    std::env::var("JOURNAL_STREAM").is_ok_and(is)
}

/// This system has no journal.
#[cfg(not(unix))]
pub fn is_journal(_: &std::io::Stdout) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_all_forms() {
        let line = LogLine {
            at: Local::now(),
            level: Level::Warn,
            text: "2026/11/20 17:47:07 [WARN] agent: error joining: 1 error occurred:\n\t* Failed to join \"x\"\n\n".into(),
        };
        assert_eq!(Form::Text.log_line(&line), format!("    {}\n", line.text));
        assert_eq!(
            Form::Journal.log_line(&line),
            "<4>agent: error joining: 1 error occurred: * Failed to join \"x\"\n"
        );
        let json: serde_json::Value = serde_json::from_str(&Form::Json.log_line(&line)).unwrap();
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["component"], "agent");
        assert_eq!(
            json["message"],
            "error joining: 1 error occurred:\n\t* Failed to join \"x\""
        );
        let time = json["time"].as_str().unwrap();
        assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn headlines_are_objects_too_and_empty_ones_are_none() {
        assert_eq!(Form::Text.saying("==> ", "x"), "==> x\n");
        assert_eq!(Form::Text.saying("", ""), "\n");
        assert_eq!(Form::Json.saying("", " "), "");
        assert!(
            Form::Json
                .saying("    ", "  a: \"b\"")
                .contains(r#""component":"agent","message":"a: \"b\"""#)
        );
    }

    #[test]
    fn formats() {
        assert_eq!(
            (is_json(""), is_json("text"), is_json("json")),
            (Ok(false), Ok(false), Ok(true))
        );
        assert!(
            is_json("JSON")
                .unwrap_err()
                .starts_with("Invalid log format: 'JSON'. It must be text")
        );
    }
}
