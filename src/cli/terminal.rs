//! Where a command writes. Writing never panics: a reader that went away is noticed at the end, and by
//! commands that would otherwise write for ever.

use std::io::Write;

/// The two output channels, and the name the program goes by.
pub struct Terminal<'a> {
    program: String,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    broken: bool,
}

impl std::fmt::Debug for Terminal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl<'a> Terminal<'a> {
    /// Writes results to `out` and help to `err`.
    pub fn new(program: String, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Terminal<'a> {
        Terminal {
            program,
            out,
            err,
            broken: false,
        }
    }

    /// The name the program goes by.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Writes a line of results, and flushes: a reader may wait for it.
    pub fn line(&mut self, line: impl AsRef<[u8]>) {
        let written = self
            .out
            .write_all(line.as_ref())
            .and_then(|()| self.out.write_all(b"\n"))
            .and_then(|()| self.out.flush());
        self.broken |= written.is_err();
    }

    /// Writes text to the help channel. Nobody is the worse for it when that fails.
    pub fn help(&mut self, text: &str) {
        let _ = self
            .err
            .write_all(text.as_bytes())
            .and_then(|()| self.err.flush());
    }

    /// Whether results could no longer be written.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Flushes; whether all results were written.
    pub fn finish(&mut self) -> bool {
        self.broken |= self.out.flush().is_err();
        !self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_noticed_and_no_more() {
        let (mut out, mut err) = (Closed, Closed);
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
        terminal.help("lost");
        assert!(terminal.finish());
        terminal.line("lost");
        assert!(terminal.is_broken());
        assert!(!terminal.finish());
    }
}
