//! A thread between the agent and an output that may not take what is written: a pipe whose reader sleeps,
//! a terminal that was stopped. The agent's own thread, on which gossip runs, never waits for it.
//!
//! What is written waits in a bounded buffer. A line that finds it full is lost, and once there is room
//! again, a line says how many were. At the end the agent waits a moment for the rest.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that wait: more than all lines that a start holds back, little beside the rest of an agent.
const WAITING_MAX: usize = 2 * 1024 * 1024;

/// Hands what is written to a thread of its own. Clones write to the same output.
#[derive(Clone, Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was written, or all of it has gone out.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Writes refused since the last that found room.
    lost: u64,
    /// Whether the thread is writing something that it took.
    writing: bool,
}

impl LogWriter {
    /// Starts the thread. The error says that the system has none to give.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let shared = Arc::new(Shared::default());
        let writer = LogWriter {
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("log".to_string())
            .spawn(move || shared.carry(out))?;
        Ok(writer)
    }

    /// Waits until all that was written has gone out, but not longer than `patience`.
    pub fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Write for LogWriter {
    /// Takes all or, when there is no room, nothing; it is for whole lines. What is lost counts as written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if state.waiting.len() + bytes.len() > WAITING_MAX {
            state.lost += 1;
            return Ok(bytes.len());
        }
        if state.lost > 0 {
            let time = chrono::Local::now().format("%Y/%m/%d %H:%M:%S");
            let lost = mem::take(&mut state.lost);
            let line = format!("    {time} [WARN] agent: {lost} lines were not shown, nobody was reading\n");
            state.waiting.extend_from_slice(line.as_bytes());
        }
        state.waiting.extend_from_slice(bytes);
        self.shared.changed.notify_all();
        Ok(bytes.len())
    }

    /// Everything is on its way already; see [`LogWriter::drain`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// The thread: takes what waits and writes it out, for as long as the process lives.
    fn carry(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            state.writing = false;
            self.changed.notify_all();
            while state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            taken.clear();
            mem::swap(&mut taken, &mut state.waiting);
            state.writing = true;
            drop(state);
            // What cannot be written is lost; there is nowhere to say so.
            let _ = out.write_all(&taken);
            let _ = out.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it, and the bytes would still be good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that writes only when it is told to.
    struct Stalled {
        go: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_output_costs_lines_and_holds_nobody_up() {
        let (go, wait) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut writer = LogWriter::start(Stalled {
            go: wait,
            written: Arc::clone(&written),
        })
        .unwrap();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        // What fits, what the thread may have taken meanwhile, and a hundred lines more.
        for _ in 0..2 * WAITING_MAX / line.len() + 100 {
            writer.write_all(&line).unwrap();
        }
        let before = Instant::now();
        writer.drain(Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(10));
        assert!(written.lock().unwrap().is_empty());
        drop(go);
        writer.drain(Duration::from_secs(60));
        writer.write_all(b"the end\n").unwrap();
        writer.drain(Duration::from_secs(60));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(last[0], "the end");
        let lost = regex::Regex::new(r"\[WARN\] agent: (\d+) lines were not shown").unwrap();
        let lost: usize = lost.captures(last[1]).unwrap()[1].parse().unwrap();
        let shown = text.lines().count() - 2;
        assert_eq!(shown + lost, 2 * WAITING_MAX / line.len() + 100);
        assert!(lost >= 100, "{lost}");
    }
}
