//! Sending metrics on: lines `name:value|kind` to a statsd by UDP, or to a statsite by TCP.
//!
//! Each place has a task of its own behind a bounded queue. A place that cannot be reached is tried
//! again for ever, which is logged when it begins and when it is over; meanwhile metrics are lost.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Kind;
use crate::go;
use crate::queue;
use fyrd_core::swim::measures::Tally;

/// Most bytes of lines sent at once; they fit any usual network's datagram.
const PACKET_MAX: usize = 1400;

/// Packets that wait for a place.
const WAITING_MAX: usize = 256;

/// How long to wait before a place is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a place may take to accept a connection, or a packet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lines for one name at a time. The core sums its samples up; the least, the greatest, and the mean of
/// the others as often as they were tell a statsd the same, up to this many.
const LINES_MAX: u64 = 100;

/// Collects lines and hands them to the task of a place.
#[derive(Debug)]
pub struct Outlet {
    lines: String,
    packets: queue::Sender<String>,
}

impl Outlet {
    /// A statsd.
    pub fn statsd(addr: &str) -> Outlet {
        Outlet::start(Place {
            what: "statsd",
            addr: addr.to_string(),
            connection: None,
        })
    }

    /// A statsite.
    pub fn statsite(addr: &str) -> Outlet {
        Outlet::start(Place {
            what: "statsite",
            addr: addr.to_string(),
            connection: None,
        })
    }

    fn start(place: Place) -> Outlet {
        let (packets, waiting) = queue::bounded(WAITING_MAX);
        spawn_local(place.serve(waiting));
        Outlet {
            lines: String::new(),
            packets,
        }
    }

    /// Adds the lines of a metric.
    pub fn record(&mut self, kind: Kind, name: &str, tally: &Tally) {
        for line in lines(kind, name, tally) {
            if self.lines.len() + line.len() > PACKET_MAX {
                self.flush();
            }
            self.lines.push_str(&line);
        }
    }

    /// Sends what has come together.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            // Without room, the place cannot be reached or is too slow, which its task has logged.
            self.packets.offer(std::mem::take(&mut self.lines));
        }
    }
}

fn lines(kind: Kind, name: &str, tally: &Tally) -> Vec<String> {
    let name = name.replace([':', '|', ' ', '@'], "_");
    let line = |value: f64, suffix: &str| {
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(line, "{name}:{value:.6}|{suffix}");
        line
    };
    match kind {
        Kind::Counter => vec![line(tally.sum, "c")],
        Kind::Gauge => vec![line(tally.sum, "g")],
        Kind::Sample if tally.count < 2 => vec![line(tally.sum, "ms")],
        Kind::Sample => {
            let others = tally.count - 2;
            let mean = (tally.sum - tally.min - tally.max) / others.max(1) as f64;
            let mut all = vec![line(tally.min, "ms"), line(tally.max, "ms")];
            all.extend((0..others.min(LINES_MAX - 2)).map(|_| line(mean, "ms")));
            all
        }
    }
}

/// A statsd or statsite, and the way to it.
struct Place {
    what: &'static str,
    addr: String,
    connection: Option<Connection>,
}

enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Place {
    async fn serve(mut self, mut packets: queue::Receiver<String>) {
        let mut reached = true;
        let mut try_at = Instant::now();
        while let Some(packet) = packets.recv().await {
            if self.connection.is_none() && Instant::now() < try_at {
                continue;
            }
            match self.send(&packet).await {
                Ok(()) if reached => {}
                Ok(()) => info!(target: "agent", "telemetry: {} at {} is there again", self.what, self.addr),
                Err(error) => {
                    self.connection = None;
                    try_at = Instant::now() + RETRY;
                    if reached {
                        let (what, addr, reason) = (self.what, &self.addr, go::os_error(&error));
                        warn!(target: "agent", "telemetry: cannot reach {what} at {addr}: {reason}; trying again every 5s");
                    }
                    reached = false;
                    continue;
                }
            }
            reached = true;
        }
    }

    async fn send(&mut self, packet: &str) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.what, &self.addr).await?),
        };
        let sent = async {
            match connection {
                Connection::Udp(socket) => socket.send(packet.as_bytes()).await.map(drop),
                Connection::Tcp(stream) => stream.write_all(packet.as_bytes()).await,
            }
        };
        timeout(PATIENCE, sent).await.map_err(|_| timed_out())?
    }
}

async fn connect(what: &str, addr: &str) -> io::Result<Connection> {
    let connecting = async {
        let found = lookup_host(addr).await?.next();
        let addr = found.ok_or_else(|| io::Error::other("no such host"))?;
        if what == "statsite" {
            return Ok(Connection::Tcp(TcpStream::connect(addr).await?));
        }
        let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        Ok(Connection::Udp(socket))
    };
    timeout(PATIENCE, connecting).await.map_err(|_| timed_out())?
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_form_that_statsd_reads() {
        let tally = |values: &[f64]| {
            let mut tally = Tally::default();
            values.iter().for_each(|value| tally.add(*value));
            tally
        };
        #[rustfmt::skip]
        let table = [
            (Kind::Counter, tally(&[1.0, 1.0]), vec!["a_b_c:2.000000|c\n"]),
            (Kind::Gauge, tally(&[0.5]), vec!["a_b_c:0.500000|g\n"]),
            (Kind::Sample, tally(&[3.0]), vec!["a_b_c:3.000000|ms\n"]),
            (Kind::Sample, tally(&[3.0, 1.0]), vec!["a_b_c:1.000000|ms\n", "a_b_c:3.000000|ms\n"]),
            (Kind::Sample, tally(&[3.0, 1.0, 7.0, 2.0]),
                vec!["a_b_c:1.000000|ms\n", "a_b_c:7.000000|ms\n", "a_b_c:2.500000|ms\n", "a_b_c:2.500000|ms\n"]),
        ];
        for (kind, tally, expected) in table {
            assert_eq!(lines(kind, "a:b|c", &tally), expected);
        }
        let many = Tally::ones(1_000_000);
        assert_eq!(lines(Kind::Sample, "x", &many).len() as u64, LINES_MAX);
    }

    #[test]
    fn packets_fit_a_datagram() {
        let (packets, mut waiting) = queue::bounded(WAITING_MAX);
        let mut outlet = Outlet {
            lines: String::new(),
            packets,
        };
        for number in 0..200 {
            outlet.record(
                Kind::Counter,
                &format!("serf-agent.serf.events.{number}"),
                &Tally::ones(1),
            );
        }
        outlet.flush();
        let mut lines = 0;
        while let Ok(packet) = waiting.try_recv() {
            assert!(packet.len() <= PACKET_MAX && packet.ends_with('\n'));
            lines += packet.lines().count();
        }
        assert_eq!(lines, 200);
    }
}
