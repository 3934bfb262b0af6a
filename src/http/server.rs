//! Connections: so many at once, each with its deadlines.

use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, error};

use super::Backend;
use super::feed::Feed;
use super::gate::Gate;
use super::places::Places;
use super::route::{self, Shared};
use crate::rpc::server::{Connection, Listener, Loss};
use crate::seats::{Seat, Seats};
use fyrd_core::bounds;

/// What somebody hears for whom there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 49\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    too many clients are connected; try again later.\n";

/// Serves clients; to end it, drop the future, which closes all connections. Within a `LocalRuntime`.
pub async fn serve<B: Backend>(listener: Listener, backend: B, gate: Gate) {
    let feed = Rc::new(Feed::new());
    if let Some(events) = backend.events().await {
        spawn_local(Rc::clone(&feed).run(events));
    }
    let shared = Rc::new(Shared {
        backend,
        gate,
        feed,
        places: Places::new(bounds::HTTP_WAITING_MAX),
    });
    let mut connections = JoinSet::new();
    let seats = Seats::new(bounds::HTTP_CONNECTIONS_MAX);
    let max = seats.max();
    let refused = Loss::new(format!(
        "Refused HTTP client: all {max} places are taken and in use"
    ));
    let yielded = Rc::new(Loss::new(format!(
        "Closed the HTTP client that was idle for longest: all {max} places are taken"
    )));
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(connection) => match seats.take().await {
                Some(seat) => {
                    connections.spawn_local(converse(
                        connection,
                        seat,
                        Rc::clone(&shared),
                        Rc::clone(&yielded),
                    ));
                }
                None => {
                    refused.add(1);
                    refuse(connection).await;
                }
            },
            Err(error) => {
                error!(target: "agent.http", "Failed to accept client: {error}");
                sleep(bounds::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A new connection has room for this text, so nobody is waited for.
async fn refuse(mut connection: Connection) {
    debug!(target: "agent.http", "Refused client: {}", connection.peer);
    let _ = timeout(bounds::ACCEPT_PAUSE, connection.writer.write_all(FULL)).await;
}

/// Serves one client. While it waits for none of its requests, it gives way to others.
async fn converse<B: Backend>(connection: Connection, seat: Seat, shared: Rc<Shared<B>>, yielded: Rc<Loss>) {
    let peer = connection.peer;
    let mut stream = TimeoutStream::new(tokio::io::join(connection.reader, connection.writer));
    stream.set_write_timeout(Some(bounds::HTTP_WRITE));
    seat.set_idle(true);
    let service = service_fn(|request| async {
        seat.set_idle(false);
        let response = route::answer(request, Rc::clone(&shared)).await;
        // A stream lasts as long as its connection.
        let goes_on = matches!(&response, Ok(response) if response.body().is_stream());
        seat.set_idle(!goes_on);
        response
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds::HTTP_HEADERS_TIME)
        .max_headers(bounds::HTTP_HEADERS_MAX)
        .max_buf_size(bounds::HTTP_HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                debug!(target: "agent.http", "Client {peer}: {error}");
            }
        }
        () = seat.wanted() => yielded.add(1),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_tells_its_length() {
        let text = std::str::from_utf8(super::FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
