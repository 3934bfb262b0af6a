//! The log in a file beside standard output, which is opened anew when the agent is told so, after a program such as
//! logrotate has moved it.

use std::fs::{File, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::log_form::{Form, SharedForm};
use super::log_line::{self, LogLine, Sink};
use super::printer::Printer;
use crate::go;

/// A file of the log.
pub struct LogFile {
    /// Takes its lines.
    pub sink: Sink,
    moved: Arc<AtomicBool>,
}

impl LogFile {
    /// Opens the file, in which what is there already stays. The error is a line for the user.
    pub fn open(path: &str, is_json: bool) -> Result<LogFile, String> {
        let failed = |reason: String| format!("Error opening log file: {reason}");
        let form = SharedForm::new(Form::Text);
        if is_json {
            form.use_json();
        }
        let open = |path: &str| append_to(path).map_err(|error| go::open_error(path, &error));
        let mut out = Printer::new(open(path).map_err(failed)?, form.clone());
        let moved = Arc::new(AtomicBool::new(false));
        let (path, is_moved) = (path.to_owned(), Arc::clone(&moved));
        let sink = log_line::sink(move |line: LogLine| {
            if is_moved.swap(false, Ordering::Relaxed) {
                match open(&path) {
                    Ok(file) => out.out = file,
                    Err(reason) => {
                        warn!(target: "agent", "The log file cannot be opened anew, the old one is written on: {reason}");
                    }
                }
            }
            // Without the blanks before it.
            if let Some(error) = out.print(form.get().log_line(&line).trim_start()) {
                warn!(target: "agent", "Lines of the log file cannot be written, and are lost: {}", go::os_error(&error));
            }
        });
        Ok(LogFile {
            sink: sink.map_err(failed)?,
            moved,
        })
    }

    /// Has the file opened anew before the next line.
    pub fn reopen(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }
}

/// Others on this host need not read what events and members say.
fn append_to(path: &str) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}
