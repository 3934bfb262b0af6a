//! Log monitors: what the agent has logged lately, then what it logs from now on.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Backend;
use super::client::Client;
use super::outbox::Records;
use crate::queue;
use crate::rpc::types::LogRecord;
use fyrd_core::bounds;

/// Lines of the agent's log.
#[derive(Debug)]
pub struct LogTap {
    /// The lines of before, oldest first.
    pub backlog: Vec<Arc<str>>,
    /// The lines since then.
    pub live: queue::Receiver<Arc<str>>,
}

impl<B: Backend> Client<B> {
    /// There is one for each connection. Its level is independent of the agent's own.
    pub(super) async fn open_monitor(&mut self, level: &str) -> Result<(), String> {
        if self.monitor.is_some() {
            return self.refuse("Monitor already exists").await;
        }
        let tap = match self.backend.log(level, bounds::RPC_RECORDS_WAITING) {
            Ok(tap) => tap,
            Err(reason) => return self.refuse(&reason).await,
        };
        self.acknowledge(Ok(())).await?;
        let (stop, stopped) = oneshot::channel();
        let seq = self.header.seq;
        let (outbox, loss) = (self.outbox.clone(), self.losses.lines.clone());
        self.tasks.spawn_local(async move {
            let mut lines = Lines { tap, stopped };
            lines.tap.backlog.reverse();
            while let Some(line) = lines.next().await {
                let record = |line: Arc<str>| LogRecord {
                    log: line.to_string(),
                };
                let Ok(records) = Records::gather(seq, line, || lines.tap.waiting(), record) else {
                    return;
                };
                let lost = || lines.tap.live.take_lost();
                if outbox.send(records, lost, &loss).await.is_err() {
                    return;
                }
            }
        });
        self.monitor = Some((seq, stop));
        Ok(())
    }
}

impl LogTap {
    /// The next line, if one is there already. The backlog stands turned round.
    fn waiting(&mut self) -> Option<Arc<str>> {
        self.backlog.pop().or_else(|| self.live.try_recv().ok())
    }
}

struct Lines {
    /// With its backlog turned round, the oldest line at the end.
    tap: LogTap,
    stopped: oneshot::Receiver<()>,
}

impl Lines {
    /// The next line, until the client stops the monitor.
    async fn next(&mut self) -> Option<Arc<str>> {
        let tap = &mut self.tap;
        tokio::select! {
            biased;
            _ = &mut self.stopped => None,
            line = async {
                match tap.waiting() {
                    Some(line) => Some(line),
                    None => tap.live.recv().await,
                }
            } => line,
        }
    }
}
