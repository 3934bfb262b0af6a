//! Encrypted means encrypted: nothing leaves a host that the cluster's keys do not open.

use fyrd_keys::Keyring;

use super::{Checker, Sight};
use crate::traffic::open_stream;
use fyrd_core::envelope::Envelope;

/// Every packet is sealed with one of the cluster's keys, and shows none of the marks that stand in names,
/// tags and payloads.
///
/// Needs a world that is tapped.
#[derive(Debug)]
pub struct Sealed {
    envelope: Envelope,
    marks: Vec<Vec<u8>>,
}

impl Sealed {
    /// `ring` holds every key that the cluster ever uses, `label` is the cluster's.
    pub fn new(ring: Keyring, label: Vec<u8>, marks: Vec<Vec<u8>>) -> Self {
        Sealed {
            envelope: Envelope::new(Some(ring), label, false),
            marks,
        }
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
            let source = sight.world.host(packet.from).addr();
            let opened = if packet.is_datagram {
                self.envelope
                    .open_datagram(source, &mut packet.bytes.clone())
                    .is_ok()
            } else {
                // Only what opens a stream carries a label.
                let labels = [Some(self.envelope.label()), None];
                labels
                    .into_iter()
                    .any(|label| open_stream(&self.envelope, source, label, packet.bytes.clone()).is_ok())
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
