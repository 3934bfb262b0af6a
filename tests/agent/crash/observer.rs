//! Somebody on the wire who asks a node for its state, as a peer does, and tells nothing of its own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fyrd_core::bounds::STREAM_MESSAGE_MAX;
use fyrd_core::wire::{PushPull, PushPullState, SerfMessage, StreamMessage, decode_stream, finish_stream};
use fyrd_keys::{Keyring, NONCE_LEN, STREAM_HEADER_LEN};

use super::history::Clocks;

/// Nothing that is sealed here is a secret, so that one nonce does for all.
const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];

/// A node that has not answered by then is in trouble.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks with one key.
pub struct Observer {
    ring: Keyring,
    question: Vec<u8>,
}

/// What a node says of itself and of others.
#[derive(Clone, Debug)]
pub struct Sight {
    clocks: Clocks,
    incarnations: BTreeMap<String, u32>,
}

impl Sight {
    /// The clocks of the node that was asked, which is of this name.
    pub fn clocks(&self, name: &str) -> Clocks {
        Clocks {
            incarnation: self.incarnation(name),
            ..self.clocks
        }
    }

    /// The incarnation that it knows of a node; 0 if it knows none.
    pub fn incarnation(&self, name: &str) -> u64 {
        self.incarnations.get(name).copied().unwrap_or_default().into()
    }
}

impl Observer {
    /// An observer in the cluster of this key.
    pub fn new(key: &str) -> Observer {
        let mut state = Vec::new();
        SerfMessage::PushPull(PushPullState::default()).encode(&mut state);
        let mut plain = Vec::new();
        StreamMessage::PushPull(PushPull {
            user_state: &state,
            ..PushPull::default()
        })
        .encode(&mut plain);
        let ring = Keyring::new(key.parse().expect("a key"));
        let question = ring
            .seal_stream(&NONCE, b"", &finish_stream(plain, true))
            .expect("a short message");
        Observer { ring, question }
    }

    /// Asks the node there. Comes back with the last byte of its answer.
    pub fn look(&self, addr: SocketAddr) -> Result<Sight, String> {
        let (header, mut block) = self.ask(addr).map_err(|error| error.to_string())?;
        let (plain, _) = self
            .ring
            .open_stream(&header, b"", &mut block, None)
            .map_err(|error| error.to_string())?;
        let mut scratch = Vec::new();
        match decode_stream(plain, &mut scratch, STREAM_MESSAGE_MAX).map_err(|error| error.to_string())? {
            StreamMessage::PushPull(answer) => understand(&answer),
            other => Err(format!("an unexpected answer: {other:?}")),
        }
    }

    fn ask(&self, addr: SocketAddr) -> std::io::Result<([u8; STREAM_HEADER_LEN], Vec<u8>)> {
        let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(&self.question)?;
        let mut header = [0; STREAM_HEADER_LEN];
        stream.read_exact(&mut header)?;
        // The agent is our own; its word on the length is good enough here.
        let [_, len @ ..] = header;
        let mut block = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut block)?;
        Ok((header, block))
    }
}

fn understand(answer: &PushPull<'_>) -> Result<Sight, String> {
    let state = match SerfMessage::decode(answer.user_state).map_err(|error| error.to_string())? {
        SerfMessage::PushPull(state) => state,
        other => return Err(format!("an unexpected user state: {other:?}")),
    };
    Ok(Sight {
        clocks: Clocks {
            incarnation: 0,
            member: state.ltime,
            event: state.event_ltime,
            query: state.query_ltime,
        },
        incarnations: answer
            .nodes
            .iter()
            .map(|node| (node.name.to_owned(), node.incarnation))
            .collect(),
    })
}
