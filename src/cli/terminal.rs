//! Where a command writes. Writing never panics: a reader that went away is noticed at the end, and by
//! commands that would otherwise write for ever.

use std::io::Write;

use crate::go::printable;

/// The two output channels, and the name the program goes by.
pub struct Terminal<'a> {
    program: String,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    is_screen: bool,
    takes_hints: bool,
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
            is_screen: false,
            takes_hints: false,
            broken: false,
        }
    }

    /// Says whether people see the results, on a terminal, and not another program.
    pub fn with_screen(mut self, is_screen: bool) -> Terminal<'a> {
        self.is_screen = is_screen;
        self
    }

    /// Says whether people see the help channel, on a terminal. Only then are there hints: where a program reads, the
    /// output is Serf's.
    pub fn with_hints(mut self, takes_hints: bool) -> Terminal<'a> {
        self.takes_hints = takes_hints;
        self
    }

    /// Whether people see the results.
    pub fn is_screen(&self) -> bool {
        self.is_screen
    }

    /// How many characters a line of their screen has, if they see the results on one.
    pub fn width(&self) -> Option<usize> {
        let width = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        self.is_screen.then(width).flatten()
    }

    /// Whether they want colours (no-color.org).
    pub fn has_colours(&self) -> bool {
        let says = |name: &str, text: &str| std::env::var_os(name).is_some_and(|value| value == text);
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.is_screen && !is_refused && !says("TERM", "dumb")
    }

    /// Whether people see what goes to the help channel.
    pub fn takes_hints(&self) -> bool {
        self.takes_hints
    }

    /// Tells people, and nobody else, what may help them. Comes last, so that it does not scroll away.
    pub fn hint(&mut self, text: &str) {
        if self.takes_hints {
            self.help(&format!("{}\n", printable::lines(text)));
        }
    }

    /// The name the program goes by.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Writes a line of results, and flushes: a reader may wait for it. What stands in it may come from anybody,
    /// so nothing in it acts on the terminal that shows it; ends of lines and tabs stay.
    pub fn line(&mut self, line: impl AsRef<str>) {
        self.raw(printable::lines(line.as_ref()).as_bytes());
    }

    /// Writes what somebody has answered, behind a line's beginning of our own: byte for byte where a program
    /// reads it, harmless where it is shown.
    pub fn payload(&mut self, beginning: &str, payload: &[u8]) {
        if self.is_screen {
            let payload = String::from_utf8_lossy(payload);
            self.line(format!("{beginning}{payload}"));
        } else {
            let beginning = printable::lines(beginning);
            self.raw([beginning.as_bytes(), payload].concat());
        }
    }

    /// Writes a line as it is: what has a form of its own, such as JSON.
    pub fn raw(&mut self, line: impl AsRef<[u8]>) {
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
    fn nothing_that_others_say_acts_on_a_screen() {
        let shown = |is_screen: bool| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err).with_screen(is_screen);
            terminal.line("a\tb\n\u{1b}[2J");
            terminal.payload("from '\u{7}': ", b"\x1b[2J\xff\n");
            String::from_utf8_lossy(&out).into_owned()
        };
        let escaped = "a\tb\n\\x1b[2J\nfrom '\\x07': ";
        assert_eq!(shown(true), format!("{escaped}\\x1b[2J\u{fffd}\n\n"));
        assert_eq!(shown(false), format!("{escaped}\u{1b}[2J\u{fffd}\n\n"));
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
