//! What people see at a terminal while a command waits.

use std::time::{Duration, Instant};

use super::Terminal;

/// What takes less is not worth a word.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the line is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// Longer texts would not fit on a line of most terminals.
const WIDTH: usize = 76;

/// A line about work that takes its time. Nobody but people sees it.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
}

impl Progress {
    /// Work that starts now.
    pub fn start() -> Progress {
        Progress {
            start: Instant::now(),
        }
    }

    /// Waits for a part of the work. Meanwhile the line says this, and how long the whole has taken; afterwards it is
    /// gone. The part is not lost when this is dropped, if that holds for itself.
    pub async fn wait<T>(&self, terminal: &mut Terminal<'_>, text: &str, part: impl Future<Output = T>) -> T {
        if !terminal.takes_hints() {
            return part.await;
        }
        tokio::pin!(part);
        let first = self.start + PATIENCE;
        let mut ticks = tokio::time::interval_at(first.max(Instant::now()).into(), REDRAW);
        let mut drawn = false;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut part => break done,
                _ = ticks.tick() => {
                    let seconds = self.start.elapsed().as_secs_f64();
                    let line: String = format!("{text}, {seconds:.1} s").chars().take(WIDTH).collect();
                    terminal.help(&format!("\r{line:WIDTH$}\r"));
                    drawn = true;
                }
            }
        };
        if drawn {
            terminal.help(&format!("\r{:WIDTH$}\r", ""));
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(people: bool) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err).with_hints(people);
        let work = tokio::time::sleep(PATIENCE + REDRAW / 2);
        Progress::start().wait(&mut terminal, "waiting", work).await;
        assert!(out.is_empty());
        String::from_utf8(err).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn people_see_that_something_goes_on_and_nobody_else_does() {
        let seen = shown(true).await;
        assert!(seen.starts_with("\rwaiting, 0."), "{seen:?}");
        assert!(seen.ends_with(&format!("\r{:WIDTH$}\r", "")), "{seen:?}");
        assert_eq!(shown(false).await, "");
    }
}
