//! Encrypted means encrypted: nothing leaves a host that the cluster's keys do not open.

use fyrd_keys::Keyring;

use super::{Checker, Sight};
use crate::packets;

/// Every packet is sealed with one of the cluster's keys, and shows none of the marks that stand in names,
/// tags and payloads.
///
/// Needs a world that is tapped.
#[derive(Debug)]
pub struct Sealed {
    ring: Keyring,
    marks: Vec<Vec<u8>>,
}

impl Sealed {
    /// `ring` holds every key that the cluster ever uses.
    pub fn new(ring: Keyring, marks: Vec<Vec<u8>>) -> Self {
        Sealed { ring, marks }
    }
}

impl Checker for Sealed {
    fn promise(&self) -> &'static str {
        "encrypted means encrypted"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for packet in sight.packets {
            let kind = if packet.is_datagram {
                "datagram"
            } else {
                "stream message"
            };
            let mut bytes = packet.bytes.clone();
            let opened = if packet.is_datagram {
                packets::open_datagram(Some(&self.ring), &mut bytes).is_some()
            } else {
                packets::open_stream(Some(&self.ring), &mut bytes).is_some()
            };
            let from = sight.name(packet.from);
            if !opened {
                report.push(format!("{from} sent a {kind} that no key opens"));
            }
            let shows = |mark: &&Vec<u8>| {
                packet
                    .bytes
                    .windows(mark.len())
                    .any(|window| window == mark.as_slice())
            };
            if let Some(mark) = self.marks.iter().find(shows) {
                let mark = String::from_utf8_lossy(mark);
                report.push(format!("{from} sent a {kind} that shows '{mark}'"));
            }
        }
    }
}
