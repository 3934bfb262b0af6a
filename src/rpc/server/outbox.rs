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
    writer: Rc<Mutex<Writer>>,
}

impl Outbox {
    pub(super) fn new(writer: Writer) -> Outbox {
        Outbox {
            writer: Rc::new(Mutex::new(writer)),
        }
    }

    /// Sends an answer, header and body as one. A client that asks and does not read is given up after
    /// a while.
    pub(super) async fn answer(
        &self,
        seq: u64,
        error: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), String> {
        self.write(&encode(seq, error, body)?).await
    }

    /// Sends a reply whose body is in bytes already.
    pub(super) async fn answer_with(&self, seq: u64, body: &[u8]) -> Result<(), String> {
        let mut bytes = encode(seq, "", None::<&()>)?;
        bytes.extend_from_slice(body);
        self.write(&bytes).await
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), String> {
        let mut writer = self.writer.lock().await;
        write_in_time(&mut *writer, bytes, bounds::RPC_WRITE).await
    }

    /// Sends a record, header and body as one. It waits for as long as the client does not read: only
    /// its own subscriptions wait with it. What they lose meanwhile, as `lost` tells, is added to `loss`.
    ///
    /// Must not be dropped half-way, unless the connection ends: what follows would not be understood.
    pub(super) async fn record(
        &self,
        seq: u64,
        record: &impl Serialize,
        lost: impl Fn() -> u64,
        loss: &Loss,
    ) -> Result<(), String> {
        let bytes = encode(seq, "", Some(record))?;
        let mut sending = pin!(async {
            let mut writer = self.writer.lock().await;
            let written = writer.write_all(&bytes).await;
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
        let _ = self.writer.lock().await.shutdown().await;
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
    let header = ResponseHeader {
        error: error.to_owned(),
        seq,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    encode_into(&header, &mut bytes).map_err(|error| error.to_string())?;
    if let Some(body) = body {
        encode_into(body, &mut bytes).map_err(|error| error.to_string())?;
    }
    Ok(bytes)
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
