//! The system's log beside standard output (docs/compatibility.md#syslog), local only: records go to the socket of the
//! log daemon, on Windows to the event log.

#[cfg(windows)]
use super::event_log;
#[cfg(unix)]
use super::logging;
use super::logging::{Level, LogLine, Sink};

/// The socket is looked for at these places.
#[cfg(unix)]
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// The name under which records appear. It is Serf's, because people's filters look for it.
#[cfg_attr(windows, allow(dead_code, reason = "the event log has its own"))]
const TAG: &str = "serf";

/// The facility when none is named.
pub const DEFAULT_FACILITY: &str = "LOCAL0";

/// The facilities and their numbers.
const FACILITIES: [(&str, u8); 20] = [
    ("KERN", 0),
    ("USER", 1),
    ("MAIL", 2),
    ("DAEMON", 3),
    ("AUTH", 4),
    ("SYSLOG", 5),
    ("LPR", 6),
    ("NEWS", 7),
    ("UUCP", 8),
    ("CRON", 9),
    ("AUTHPRIV", 10),
    ("FTP", 11),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];

/// Connects to the log daemon: what lines of the log are to be given to. The error is the reason, in
/// Serf's words.
#[cfg(unix)]
pub fn connect(facility: &str) -> Result<Sink, String> {
    let facility = parse_facility(facility)?;
    let socket = unix::Socket::connect(&SOCKETS).ok_or("Unix syslog delivery error")?;
    let mut deliver = unix::deliver(socket);
    logging::sink(move |line| {
        let time = line.at.format("%b %e %H:%M:%S").to_string();
        deliver(record(&line, facility, &time));
    })
}

/// The event log of Windows, which knows no facilities; one that is none is a mistake here too.
#[cfg(windows)]
pub fn connect(facility: &str) -> Result<Sink, String> {
    parse_facility(facility)?;
    event_log::connect()
}

/// The number of a facility.
pub fn parse_facility(name: &str) -> Result<u8, String> {
    let upper = name.to_uppercase();
    FACILITIES
        .iter()
        .find(|(known, _)| *known == upper)
        .map(|(_, number)| *number)
        .ok_or_else(|| format!("invalid syslog facility: {name}"))
}

#[cfg_attr(windows, allow(dead_code, reason = "the event log has its own"))]
fn severity(level: Level) -> u8 {
    match level {
        Level::Trace => 7,
        Level::Debug => 6,
        Level::Info => 5,
        Level::Warn => 4,
        Level::Err => 3,
    }
}

/// A line as a record: `<PRI>Mon _D hh:mm:ss serf[PID]: component: text`. The daemon has time and
/// severity from elsewhere, so the line's own are cut off; a line break would begin a forged record.
#[cfg_attr(windows, allow(dead_code, reason = "the event log has its own"))]
fn record(line: &LogLine, facility: u8, time: &str) -> String {
    let text = line.message().trim_end().replace(['\n', '\r'], " ");
    let priority = facility * 8 + severity(line.level);
    format!("<{priority}>{time} {TAG}[{}]: {text}\n", std::process::id())
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::path::Path;
    use std::time::Duration;

    /// A daemon that takes no records for so long has lost this one.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// A connection to the daemon.
    pub enum Socket {
        Datagram(UnixDatagram),
        Stream(UnixStream),
    }

    impl Socket {
        /// Of each place in turn as datagrams, then of each as a stream.
        pub fn connect<P: AsRef<Path>>(places: &[P]) -> Option<Socket> {
            let datagram = |place: &P| {
                let socket = UnixDatagram::unbound().ok()?;
                socket.connect(place).ok()?;
                socket.set_write_timeout(Some(PATIENCE)).ok()?;
                Some(Socket::Datagram(socket))
            };
            let stream = |place: &P| {
                let socket = UnixStream::connect(place).ok()?;
                socket.set_write_timeout(Some(PATIENCE)).ok()?;
                Some(Socket::Stream(socket))
            };
            let found = places.iter().find_map(datagram);
            found.or_else(|| places.iter().find_map(stream))
        }

        pub fn send(&mut self, record: &[u8]) -> io::Result<()> {
            match self {
                Socket::Datagram(socket) => socket.send(record).map(drop),
                Socket::Stream(socket) => socket.write_all(record),
            }
        }
    }

    /// Takes records to the daemon. One that was restarted has a new socket; a record that finds the old one
    /// is sent again over the new one, once.
    pub fn deliver(socket: Socket) -> impl FnMut(String) {
        let mut socket = Some(socket);
        move |record| {
            let sent = socket
                .as_mut()
                .is_some_and(|socket| socket.send(record.as_bytes()).is_ok());
            if !sent {
                socket = Socket::connect(&super::SOCKETS);
                if let Some(socket) = &mut socket {
                    let _ = socket.send(record.as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, text: &str) -> LogLine {
        let at = chrono::Local::now();
        let text = format!("2026/11/20 17:47:07 [{}] {text}", level.as_str()).into();
        LogLine { at, level, text }
    }

    #[test]
    fn facilities() {
        #[rustfmt::skip]
        let table = [
            ("KERN", Ok(0)), ("daemon", Ok(3)), ("FTP", Ok(11)), ("LOCAL0", Ok(16)), ("Local7", Ok(23)),
            ("LOCAL8", Err("invalid syslog facility: LOCAL8")), ("", Err("invalid syslog facility: ")),
        ];
        for (name, expected) in table {
            assert_eq!(parse_facility(name), expected.map_err(str::to_string), "{name}");
        }
        assert_eq!(parse_facility(DEFAULT_FACILITY), Ok(16));
    }

    #[test]
    fn records_have_serfs_form() {
        let pid = std::process::id();
        let table = [
            (
                Level::Info,
                3,
                "agent: Serf agent starting",
                "<29>T serf[PID]: agent: Serf agent starting\n",
            ),
            (
                Level::Err,
                16,
                "agent: a [x] b",
                "<131>T serf[PID]: agent: a [x] b\n",
            ),
            (Level::Trace, 0, "serf: x", "<7>T serf[PID]: serf: x\n"),
            (Level::Debug, 0, "serf: x", "<6>T serf[PID]: serf: x\n"),
            (
                Level::Warn,
                23,
                "serf: one\n<0>two\n",
                "<188>T serf[PID]: serf: one <0>two\n",
            ),
        ];
        for (level, facility, text, expected) in table {
            let expected = expected.replace("PID", &pid.to_string());
            assert_eq!(record(&line(level, text), facility, "T"), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn datagrams_go_before_streams() {
        use std::io::Read;
        use std::os::unix::net::{UnixDatagram, UnixListener};

        let directory = tempfile::tempdir().unwrap();
        let places = ["none", "stream", "datagram"].map(|name| directory.path().join(name));
        assert!(unix::Socket::connect(&places).is_none());
        let listener = UnixListener::bind(&places[1]).unwrap();
        let mut socket = unix::Socket::connect(&places).unwrap();
        socket.send(b"by stream\n").unwrap();
        drop(socket);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by stream\n");
        let receiver = UnixDatagram::bind(&places[2]).unwrap();
        unix::Socket::connect(&places)
            .unwrap()
            .send(b"by datagram")
            .unwrap();
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"by datagram");
    }
}
