//! Just enough of an HTTP client, over the socket file that an agent answers at.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Agent, PATIENCE};

/// The flag that makes an agent answer, at a file in its folder.
pub const FLAG: &str = "-http-addr=unix:http.sock";

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The lines of the head.
    pub head: String,
    /// What follows it.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A connection to an agent.
pub fn connect(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.file("http.sock")).expect("the agent's socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Asks for a path, as a client on this host does.
#[track_caller]
pub fn get(agent: &Agent, path: &str) -> Answer {
    ask(agent, "GET", path, &["Host: localhost"])
}

/// Asks with headers of one's own.
#[track_caller]
pub fn ask(agent: &Agent, method: &str, path: &str, headers: &[&str]) -> Answer {
    let mut stream = connect(agent);
    send(&mut stream, method, path, headers);
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer");
    parse(&all)
}

/// Sends a request, after which the agent is to close the connection.
pub fn send(stream: &mut UnixStream, method: &str, path: &str, headers: &[&str]) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    stream
        .write_all((request + "\r\n").as_bytes())
        .expect("a request is taken");
}

#[track_caller]
fn parse(all: &str) -> Answer {
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((all, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no answer: {all:?}")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// A stream of events that is being read.
pub struct Events(BufReader<UnixStream>);

/// One event of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its place.
    pub id: String,
    /// Its kind.
    pub event: String,
    /// What it says.
    pub data: String,
}

impl Events {
    /// Listens with these headers beside the usual one.
    pub fn listen(agent: &Agent, path: &str, headers: &[&str]) -> Events {
        let mut stream = connect(agent);
        let mut all = vec!["Host: localhost"];
        all.extend(headers);
        send(&mut stream, "GET", path, &all);
        let mut events = Events(BufReader::new(stream));
        // The first words come before any event, so whatever happens from now on is told.
        while !events.line().starts_with("retry:") {}
        events
    }

    /// The next event.
    pub fn next(&mut self) -> Told {
        let mut told = Told::default();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", text)) => told.id = text.to_owned(),
                Some(("event", text)) => told.event = text.to_owned(),
                Some(("data", text)) => told.data = text.to_owned(),
                _ if line.is_empty() && !told.event.is_empty() => return told,
                // Sizes of chunks, and signs of life.
                _ => {}
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("the stream goes on");
        assert!(read > 0, "the stream has ended");
        line.trim_end().to_owned()
    }
}

/// Whether the other side closes this connection within that time.
pub fn closes_within(stream: &mut UnixStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).expect("a timeout");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}
