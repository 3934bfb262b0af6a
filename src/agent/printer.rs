//! Writes lines, and keeps count of those that could not be written.

use std::io::{self, Write};

use super::log_form::SharedForm;

/// Writes lines. One that cannot be written (nobody reads the pipe any more, the disk is full) is lost and counted;
/// the count is written once that works again.
pub(super) struct Printer<W> {
    pub out: W,
    form: SharedForm,
    lost: u64,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, form: SharedForm) -> Printer<W> {
        Printer { out, form, lost: 0 }
    }

    /// The error, if this is the first line that is lost.
    pub fn print(&mut self, line: &str) -> Option<io::Error> {
        if self.lost > 0 {
            let text = format!("{} lines were not shown, they could not be written", self.lost);
            let notice = self.form.warning(&text);
            if self.write(&notice).is_ok() {
                self.lost = 0;
            }
        }
        let error = self.write(line).err()?;
        self.lost += 1;
        (self.lost == 1).then_some(error)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}
