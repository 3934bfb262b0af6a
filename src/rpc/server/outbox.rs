//! The sending side of a connection, shared by its requests and its subscriptions.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::connection::Writer;
use super::loss::Loss;
use crate::rpc::codec::encode_into;
use crate::rpc::types::ResponseHeader;
use fyrd_core::bounds;

/// Clones write to the same connection, in the order in which they ask to.
#[derive(Clone)]
pub(super) struct Outbox {
    sending: Rc<Mutex<Sending>>,
}

struct Sending {
    writer: Writer,
    /// Answers that leave with the next.
    held: Zeroizing<Vec<u8>>,
}

impl Outbox {
    pub(super) fn new(writer: Writer) -> Outbox {
        Outbox {
            sending: Rc::new(Mutex::new(Sending {
                writer,
                held: Zeroizing::default(),
            })),
        }
    }

    /// Keeps an answer without a body until something else is sent, or until [`Outbox::flush`]: to who asks many things at
    /// once, a packet for each answer costs more than all the rest.
    pub(super) async fn hold(&self, seq: u64, error: &str) -> Result<(), String> {
        let bytes = encode(seq, error, None::<&()>)?;
        let mut sending = self.sending.lock().await;
        sending.held.extend_from_slice(&bytes);
        if sending.held.len() >= bounds::RPC_ANSWERS_HELD {
            sending.write(Zeroizing::default()).await?;
        }
        Ok(())
    }

    /// Whether an answer is held.
    pub(super) fn holds(&self) -> bool {
        // Whoever has the lock is about to send it.
        self.sending
            .try_lock()
            .is_ok_and(|sending| !sending.held.is_empty())
    }

    /// Waits for what the next answer will say; sends what is held if that takes long.
    pub(super) async fn flush_if_slow<T>(&self, next: impl Future<Output = T>) -> Result<T, String> {
        if !self.holds() {
            return Ok(next.await);
        }
        let mut next = pin!(next);
        if let Ok(next) = timeout(bounds::RPC_ANSWER_HOLD, &mut next).await {
            return Ok(next);
        }
        self.flush().await?;
        Ok(next.await)
    }

    /// Sends what is held.
    pub(super) async fn flush(&self) -> Result<(), String> {
        if self.holds() {
            self.write(Zeroizing::default()).await?;
        }
        Ok(())
    }

    /// Sends an answer, header and body as one. A client that asks and does not read is given up after
    /// a while.
    pub(super) async fn answer(
        &self,
        seq: u64,
        error: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), String> {
        self.write(encode(seq, error, body)?).await
    }

    /// Sends a reply whose body is in bytes already.
    pub(super) async fn answer_with(&self, seq: u64, body: &[u8]) -> Result<(), String> {
        let mut bytes = encode(seq, "", None::<&()>)?;
        bytes.extend_from_slice(body);
        self.write(bytes).await
    }

    async fn write(&self, bytes: Zeroizing<Vec<u8>>) -> Result<(), String> {
        self.sending.lock().await.write(bytes).await
    }

    /// Sends records. It waits for as long as the client does not read: only its own subscriptions wait with it. What they
    /// lose meanwhile, as `lost` tells, is added to `loss`.
    ///
    /// Must not be dropped half-way, unless the connection ends: what follows would not be understood.
    pub(super) async fn send(
        &self,
        records: Records,
        lost: impl Fn() -> u64,
        loss: &Loss,
    ) -> Result<(), String> {
        let mut sending = pin!(async {
            let mut sending = self.sending.lock().await;
            let bytes = sending.behind_held(records.bytes);
            let written = sending.writer.write_all(&bytes).await;
            written.map_err(|error| error.to_string())
        });
        loop {
            tokio::select! {
                sent = &mut sending => {
                    loss.add(lost());
                    return sent;
                }
                () = sleep(bounds::RPC_LOSS_CHECK) => loss.add(lost()),
            }
        }
    }

    pub(super) async fn close(&self) {
        // The client may have closed already.
        let _ = self.flush().await;
        let _ = self.sending.lock().await.writer.shutdown().await;
    }
}

/// Records of one subscription that leave together.
pub(super) struct Records {
    bytes: Zeroizing<Vec<u8>>,
}

impl Records {
    /// The record of this item, and those of the items behind it that wait already, as far as they may leave together: in a
    /// burst, sending each by itself costs both sides more than all the rest.
    pub(super) fn gather<T, R: Serialize>(
        seq: u64,
        first: T,
        mut more: impl FnMut() -> Option<T>,
        mut record: impl FnMut(T) -> R,
    ) -> Result<Records, String> {
        let mut bytes = encode(seq, "", Some(&record(first)))?;
        while bytes.len() < bounds::RPC_RECORDS_TOGETHER
            && let Some(item) = more()
        {
            append(seq, "", Some(&record(item)), &mut bytes)?;
        }
        Ok(Records { bytes })
    }
}

impl Sending {
    async fn write(&mut self, bytes: Zeroizing<Vec<u8>>) -> Result<(), String> {
        let bytes = self.behind_held(bytes);
        write_in_time(&mut self.writer, &bytes, bounds::RPC_WRITE).await
    }

    /// What is held, and these bytes behind it. Nothing is held any more.
    fn behind_held(&mut self, bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        if self.held.is_empty() {
            return bytes;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(&bytes);
        all
    }
}

/// A body alone, without secrets.
pub(super) fn encode_body(body: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    encode_into(body, &mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The bytes may hold keys, so they are erased after use.
fn encode(seq: u64, error: &str, body: Option<&impl Serialize>) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    append(seq, error, body, &mut bytes)?;
    Ok(bytes)
}

fn append(seq: u64, error: &str, body: Option<&impl Serialize>, bytes: &mut Vec<u8>) -> Result<(), String> {
    let header = ResponseHeader {
        error: error.to_owned(),
        seq,
    };
    encode_into(&header, bytes).map_err(|error| error.to_string())?;
    if let Some(body) = body {
        encode_into(body, bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

pub(super) async fn write_in_time(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    limit: Duration,
) -> Result<(), String> {
    match timeout(limit, writer.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("failed to answer: {error}")),
        Err(_) => Err(format!(
            "failed to answer: the client read nothing for {} s",
            limit.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// Keeps what each write has sent.
    #[derive(Clone, Default)]
    struct Writes(Rc<RefCell<Vec<Vec<u8>>>>);

    impl AsyncWrite for Writes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.borrow_mut().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn records_that_wait_leave_together_in_order_as_far_as_they_may() {
        let writes = Writes::default();
        let outbox = Outbox::new(Box::new(writes.clone()));
        let loss = Loss::new("lost".to_owned());
        let record = |number: u32| number;
        let expected = |numbers: std::ops::Range<u32>| {
            let each = numbers.map(|number| encode(7, "", Some(&number)).unwrap().to_vec());
            each.collect::<Vec<_>>().concat()
        };
        let mut waiting = 1..3;
        outbox.hold(6, "").await.unwrap();
        let records = Records::gather(7, 0, || waiting.next(), record).unwrap();
        outbox.send(records, || 0, &loss).await.unwrap();
        let held = encode(6, "", None::<&()>).unwrap().to_vec();
        assert_eq!(writes.0.take(), [[held, expected(0..3)].concat()]);

        let mut waiting = 1_u32..;
        let records = Records::gather(7, 0, || waiting.next(), record).unwrap();
        outbox.send(records, || 0, &loss).await.unwrap();
        assert_eq!(
            writes.0.take(),
            [expected(0..waiting.start)],
            "what was taken is sent"
        );
        let one = expected(1..2).len();
        let together = expected(0..waiting.start).len();
        let most = bounds::RPC_RECORDS_TOGETHER + one + 4;
        assert!(
            (bounds::RPC_RECORDS_TOGETHER..most).contains(&together),
            "{together}"
        );
    }

    #[tokio::test]
    async fn what_is_held_leaves_with_what_follows_in_order_and_never_grows_large() {
        let writes = Writes::default();
        let outbox = Outbox::new(Box::new(writes.clone()));
        let answer = |seq| encode(seq, "", None::<&()>).unwrap().to_vec();
        let body = b"\x80".to_vec();
        for seq in 1..=3 {
            outbox.hold(seq, "").await.unwrap();
        }
        assert!(outbox.holds() && writes.0.borrow().is_empty());
        outbox.answer_with(4, &body).await.unwrap();
        let together = [answer(1), answer(2), answer(3), answer(4), body].concat();
        assert_eq!(writes.0.take(), [together]);
        outbox.flush().await.unwrap();
        assert!(!outbox.holds() && writes.0.borrow().is_empty());
        outbox.hold(5, "").await.unwrap();
        outbox.close().await;
        assert_eq!(writes.0.take(), [answer(5)]);
        for _ in 0..10_000 {
            outbox.hold(6, "").await.unwrap();
        }
        let longest = writes.0.borrow().iter().map(Vec::len).max();
        let limit = bounds::RPC_ANSWERS_HELD + answer(6).len();
        assert!(longest.is_some_and(|longest| longest < limit), "{longest:?}");
    }
}
