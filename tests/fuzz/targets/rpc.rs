//! What comes in over RPC: requests to the agent, and answers to a client.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fyrd::rpc::client::{Client, ClientError, KeyOperation};
use fyrd::rpc::codec::{decode, encode_into};
use fyrd::rpc::frame::{FrameReader, scan};
use fyrd::rpc::types::{
    EventRecord, EventRequest, KeyResponse, Member, MembersResponse, QueryRequest, Request, RequestHeader,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cuts;

/// Small enough for inputs of a few kilobytes to reach it.
const LIMIT: usize = 2048;

/// A client's side of a connection, as the agent reads it.
pub fn server(input: &[u8]) {
    let frames = frames(input);
    assert_eq!(frames, frames_of_the_whole(input), "the pieces matter");

    let mut header = RequestHeader::default();
    let mut frames = frames.iter();
    while let Some(frame) = frames.next() {
        let Ok(next) = RequestHeader::decode_after(&header, frame) else {
            return;
        };
        header = next;
        let body: &[u8] = match Request::has_body(&header.command) {
            Some(true) => match frames.next() {
                Some(body) => body,
                None => return,
            },
            Some(false) | None => &[],
        };
        match Request::decode(&header.command, body) {
            Ok(Some(request)) => check_sent_again(&request, header.seq),
            Ok(None) => assert_eq!(Request::has_body(&header.command), None),
            Err(_) => return,
        }
    }
}

/// What was read is sent, and read again.
fn check_sent_again(request: &Request, seq: u64) {
    let bytes = request.encode(seq).expect("a request can be encoded");
    let Ok(Some(end)) = scan(bytes.len()).advance(&bytes) else {
        panic!("no header in {request:?}");
    };
    let (header, body) = bytes.split_at(end);
    let header = RequestHeader::decode_after(&RequestHeader::default(), header).expect("a header");
    assert_eq!((header.command.as_str(), header.seq), (request.command(), seq));
    assert_eq!(Request::has_body(request.command()), Some(!body.is_empty()));
    assert_eq!(
        Request::decode(request.command(), body).as_ref(),
        Ok(&Some(request.clone()))
    );
}

/// The objects in the input, read as from a socket that gives it in pieces.
fn frames(input: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = FrameReader::new(Pieces::new(input), LIMIT);
    let mut frames = Vec::new();
    block_on(async {
        while let Ok(Some(frame)) = reader.next().await {
            assert!(frame.len() <= LIMIT);
            frames.push(frame.to_vec());
        }
    });
    frames
}

fn frames_of_the_whole(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Ok(Some(end)) = scan(LIMIT).advance(input) {
        let (frame, rest) = input.split_at(end);
        frames.push(frame.to_vec());
        // It is of any shape, and reading it must come to an end.
        let _ = decode::<MembersResponse>(frame);
        let _ = EventRecord::decode(frame);
        input = rest;
    }
    frames
}

/// An agent's side of a connection, as the client reads it: the first byte chooses what the client asks,
/// the rest is what it gets to hear, the answer to its handshake first.
pub fn client(input: &[u8]) {
    let Some((&choice, heard)) = input.split_first() else {
        return;
    };
    block_on(async {
        let Ok(mut client) = Client::over(Box::new(Pieces::new(heard)), None).await else {
            return;
        };
        let _ = converse(&mut client, choice).await;
    });
}

async fn converse(client: &mut Client, choice: u8) -> Result<(), ClientError> {
    match choice % 8 {
        0 => check_members(&client.members().await?),
        1 => drop(client.stats().await?),
        2 => drop(client.get_coordinate("n".to_owned()).await?),
        3 => {
            let (report, _) = client.keys(KeyOperation::List).await?;
            // Whatever an agent says is a key may be one.
            let (keys, shown) = (
                &report.keys,
                format!(
                    "{:?}",
                    KeyResponse {
                        messages: BTreeMap::new(),
                        ..report.clone()
                    }
                ),
            );
            let mut keys = keys.iter().flatten().map(|(key, _)| key.as_str());
            assert!(keys.all(|key| key.len() < 16 || !shown.contains(key)));
        }
        4 => drop(client.join(vec!["a".to_owned()], false).await?),
        5 => drop(client.stream("*".to_owned()).await?),
        6 => drop(client.monitor("DEBUG".to_owned()).await?),
        _ => drop(client.query(QueryRequest::default()).await?),
    }
    client.event(EventRequest::default()).await?;
    // Each record takes some bytes, so this ends with the input.
    loop {
        client.next_record().await?;
    }
}

fn check_members(members: &[Member]) {
    for member in members {
        let mut bytes = Vec::new();
        encode_into(member, &mut bytes).expect("a member can be encoded");
        assert_eq!(
            decode::<Member>(&bytes).expect("what we write can be read"),
            *member
        );
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(future);
}

/// A peer that says something piece by piece, and takes whatever it is sent.
struct Pieces {
    bytes: Vec<u8>,
    start: usize,
    ends: Vec<usize>,
}

impl Pieces {
    fn new(input: &[u8]) -> Pieces {
        let mut ends = cuts(input);
        ends.reverse();
        Pieces {
            bytes: input.to_vec(),
            start: 0,
            ends,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(end) = self.ends.last().copied() else {
            return Poll::Ready(Ok(()));
        };
        let taken = (self.start + buf.remaining()).min(end);
        buf.put_slice(&self.bytes[self.start..taken]);
        self.start = taken;
        if taken == end {
            self.ends.pop();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
