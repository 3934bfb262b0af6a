//! The log in a file of its own, which is opened anew at SIGHUP, so that it can be moved away.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::log_form::Form;
use super::log_line::{self, LogLine, Sink};
use super::printer::Printer;
use crate::go;

/// Asks for the file to be opened anew before the next line.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A taker of lines that appends them to this file.
pub fn open(path: &str, form: Form) -> Result<(Sink, Reopen), String> {
    let failed = |error: &io::Error| format!("Error opening log file: {}", go::open_error(path, error));
    let mut out = Printer::new(append_to(Path::new(path)).map_err(|error| failed(&error))?);
    let (reopen, path) = (Reopen::default(), PathBuf::from(path));
    let asked = reopen.clone();
    let sink = log_line::sink(move |line: LogLine| {
        if asked.0.swap(false, Ordering::Relaxed) {
            match append_to(&path) {
                Ok(file) => out.replace(file),
                Err(error) => warn!(
                    target: "agent",
                    "The log file could not be opened anew, the old one is gone on with: {}",
                    go::open_error(&path.display().to_string(), &error)
                ),
            }
        }
        if let Some(error) = out.print(&format!("{}\n", form.line(&line).trim_start())) {
            let reason = go::os_error(&error);
            warn!(target: "agent", "Lines of the log cannot be written to {}, and are lost: {reason}", path.display());
        }
    })?;
    Ok((sink, reopen))
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // Names, tags and payloads are not for everybody on the host.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}
