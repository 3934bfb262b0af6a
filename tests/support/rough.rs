//! Rough ways to agents: whoever talks to an address of these talks to an agent behind it, but late, and
//! not every datagram arrives. An agent that announces such an address is reached by it alone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::sleep;

/// How rough the ways are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roughness {
    /// Which part of all datagrams is lost. A stream is delayed thrice as long instead.
    pub loss: f64,
    /// How long everything takes.
    pub delay: Duration,
}

#[derive(Debug)]
struct State {
    roughness: Roughness,
    rng: StdRng,
    lost: u64,
}

/// The ways, carried by a thread of their own until this is dropped.
#[derive(Debug)]
pub struct RoughWays {
    state: Arc<Mutex<State>>,
    ways: UnboundedSender<(SocketAddr, SocketAddr)>,
}

impl RoughWays {
    /// Without ways, and smooth.
    pub fn new(seed: u64) -> RoughWays {
        let state = Arc::new(Mutex::new(State {
            roughness: Roughness::default(),
            rng: StdRng::seed_from_u64(seed),
            lost: 0,
        }));
        let (ways, mut wanted) = mpsc::unbounded_channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                while let Some((public, agent)) = wanted.recv().await {
                    tokio::spawn(datagrams(public, agent, Arc::clone(&shared)));
                    tokio::spawn(streams(public, agent, Arc::clone(&shared)));
                }
            });
        });
        RoughWays { state, ways }
    }

    /// Carries what comes for `public` to `agent`.
    pub fn add(&self, public: SocketAddr, agent: SocketAddr) {
        self.ways.send((public, agent)).expect("the thread runs");
    }

    /// Makes all ways so rough from now on.
    pub fn set(&self, roughness: Roughness) {
        self.state.lock().expect("the state").roughness = roughness;
    }

    /// How many datagrams were lost.
    pub fn lost(&self) -> u64 {
        self.state.lock().expect("the state").lost
    }
}

/// How long the next packet takes; `None` if it is lost.
fn fate(state: &Mutex<State>) -> Option<Duration> {
    let mut state = state.lock().expect("the state");
    let Roughness { loss, delay } = state.roughness;
    if state.rng.random_bool(loss) {
        state.lost += 1;
        return None;
    }
    Some(delay)
}

async fn datagrams(public: SocketAddr, agent: SocketAddr, state: Arc<Mutex<State>>) {
    let socket = Arc::new(UdpSocket::bind(public).await.expect("the public address"));
    let mut buffer = vec![0; 65_536];
    loop {
        // An error tells of an agent that is down; the next datagram may find it up again.
        let Ok(length) = socket.recv(&mut buffer).await else {
            continue;
        };
        let Some(delay) = fate(&state) else { continue };
        let (socket, packet) = (Arc::clone(&socket), buffer[..length].to_vec());
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = socket.send_to(&packet, agent).await;
        });
    }
}

async fn streams(public: SocketAddr, agent: SocketAddr, state: Arc<Mutex<State>>) {
    let listener = TcpListener::bind(public).await.expect("the public address");
    loop {
        let Ok((outer, _)) = listener.accept().await else {
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let inner = TcpStream::connect(agent).await?;
            let ((outer_read, outer_write), (inner_read, inner_write)) =
                (outer.into_split(), inner.into_split());
            let _ = tokio::join!(
                pass_on(outer_read, inner_write, &state),
                pass_on(inner_read, outer_write, &state)
            );
            io::Result::Ok(())
        });
    }
}

/// Passes bytes on until there are no more, then says so.
async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let length = from.read(&mut buffer).await?;
        let usual = state.lock().expect("the state").roughness.delay;
        sleep(fate(state).unwrap_or(3 * usual)).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
