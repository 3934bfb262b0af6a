//! Writes lines of text to what may not take them.

use std::io::{self, Write};

use chrono::Local;

use super::log_line::TIME;

/// Writes lines. One that cannot be written (nobody reads the pipe any more, the disk is full) is lost and counted;
/// the count is written once that works again.
pub struct Printer<W> {
    out: W,
    lost: u64,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W) -> Printer<W> {
        Printer { out, lost: 0 }
    }

    /// Goes on with another output.
    pub fn replace(&mut self, out: W) {
        self.out = out;
    }

    /// The error, if this is the first line that is lost.
    pub fn print(&mut self, line: &str) -> Option<io::Error> {
        if self.lost > 0 {
            let time = Local::now().format(TIME);
            let notice = format!(
                "    {time} [WARN] agent: {} lines were not shown, they could not be written\n",
                self.lost
            );
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
