//! Carries the log's lines to a log of the system, from a thread of its own, so that a stuck daemon holds
//! nobody up. What comes while too many wait is lost, counted, and told of once there is room again.

use std::sync::mpsc;
use std::time::Duration;

use super::logging::{Level, LogLine, Sink};

/// Records that wait for the system's log; those that come on top are lost.
const WAITING_MAX: usize = 4096;

/// Gives records, made from lines, to the thread that delivers them.
pub struct Delivery<R> {
    record: Box<dyn Fn(&LogLine) -> R + Send>,
    /// Gone after the end.
    records: Option<mpsc::SyncSender<R>>,
    /// Closed by the thread when it has delivered all records.
    delivered: mpsc::Receiver<()>,
    lost: u64,
}

impl<R: Send + 'static> Delivery<R> {
    /// Starts the thread, which calls `deliver` for what `record` makes of each line, in turn.
    pub fn start(
        record: impl Fn(&LogLine) -> R + Send + 'static,
        mut deliver: impl FnMut(R) + Send + 'static,
    ) -> Delivery<R> {
        let (records, waiting) = mpsc::sync_channel(WAITING_MAX);
        let (done, delivered) = mpsc::channel();
        // Without a thread nobody receives, and every record counts as lost.
        let _ = std::thread::Builder::new()
            .name("system-log".to_string())
            .spawn(move || {
                waiting.into_iter().for_each(&mut deliver);
                drop(done);
            });
        Delivery {
            record: Box::new(record),
            records: Some(records),
            delivered,
            lost: 0,
        }
    }

    fn send(&self, line: &LogLine) -> bool {
        let record = (self.record)(line);
        self.records
            .as_ref()
            .is_some_and(|records| records.try_send(record).is_ok())
    }
}

impl<R: Send + 'static> Sink for Delivery<R> {
    fn line(&mut self, line: &LogLine) {
        if self.lost > 0 {
            let text = format!(
                "[WARN] agent: {} records were lost, the log took no more",
                self.lost
            );
            let notice = LogLine {
                level: Level::Warn,
                text: text.into(),
            };
            if self.send(&notice) {
                self.lost = 0;
            }
        }
        if !self.send(line) {
            self.lost += 1;
        }
    }

    fn finish(&mut self, patience: Duration) {
        self.records = None;
        let _ = self.delivered.recv_timeout(patience);
    }
}
