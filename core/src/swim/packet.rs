//! Builds one datagram from several messages within an exact budget.

/// What a compound adds: its type byte and its count.
const COMPOUND_HEADER: usize = 2;
/// What a compound adds for each message: its length.
const COMPOUND_ENTRY: usize = 2;
/// The CRC frame that some paths put around the packet (docs/protocol.md#a6-crc).
const CRC_FRAME: usize = 5;
/// The count of a compound is one byte.
const COMPOUND_MAX: usize = 255;
/// Room for the lengths of so many messages is there from the beginning.
const LENGTHS: usize = 32;
/// The type byte of a compound.
const COMPOUND: u8 = 7;

/// A datagram under construction. It knows what is left after label, encryption, CRC and the
/// compound's own framing, so that no packet of ours exceeds the configured size.
#[derive(Debug)]
pub struct PacketBuilder {
    bodies: Vec<u8>,
    lengths: Vec<u16>,
    /// What a packet holds that is sent as it is.
    budget: usize,
    /// What this one holds: more, if it will be compressed.
    room: usize,
}

impl PacketBuilder {
    /// A packet of at most `size` bytes on the wire, of which `overhead` go to label and encryption.
    pub fn new(size: usize, overhead: usize) -> Self {
        let budget = size.saturating_sub(overhead + CRC_FRAME + COMPOUND_HEADER);
        PacketBuilder {
            bodies: Vec::with_capacity(budget),
            lengths: Vec::with_capacity(LENGTHS),
            budget,
            room: budget,
        }
    }

    /// The same packet with room for messages of so many bytes in all, each of which still fits a packet as it is.
    pub fn with_room(self, room: usize) -> Self {
        PacketBuilder {
            room: room.max(self.budget),
            ..self
        }
    }

    /// The longest message that still fits.
    pub fn remaining(&self) -> usize {
        if self.lengths.len() >= COMPOUND_MAX {
            return 0;
        }
        self.room
            .saturating_sub(self.used() + COMPOUND_ENTRY)
            .min(self.whole())
    }

    /// What its messages take, with the lengths that a compound has of them.
    pub fn used(&self) -> usize {
        self.bodies.len() + COMPOUND_ENTRY * self.lengths.len()
    }

    /// How many packets its messages would take if they were sent as they are, roughly.
    pub fn worth(&self) -> usize {
        self.used().div_ceil(self.budget.max(1))
    }

    /// The longest message that fits when it is the only one.
    pub fn whole(&self) -> usize {
        self.budget.saturating_sub(COMPOUND_ENTRY)
    }

    /// Adds the message the packet is built for, whether or not it fits the budget.
    pub fn push_base(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bodies.len();
        write(&mut self.bodies);
        self.lengths
            .push(u16::try_from(self.bodies.len() - start).unwrap_or(u16::MAX));
    }

    /// Adds a message if it fits; says whether it did.
    pub fn push(&mut self, message: &[u8]) -> bool {
        if message.len() > self.remaining() {
            return false;
        }
        self.push_base(|out| out.extend_from_slice(message));
        true
    }

    /// The lengths of the messages so far.
    pub fn lengths(&self) -> &[u16] {
        &self.lengths
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The longest datagram's content, after compression if there is any.
    pub fn limit(&self) -> usize {
        self.budget + COMPOUND_HEADER
    }

    /// The first half of its messages, and the others.
    pub fn split(mut self) -> (PacketBuilder, PacketBuilder) {
        let lengths = self.lengths.split_off(self.lengths.len() / 2);
        let first: usize = self.lengths.iter().map(|&length| usize::from(length)).sum();
        let bodies = self.bodies.split_off(first);
        let second = PacketBuilder {
            bodies,
            lengths,
            ..self
        };
        (self, second)
    }

    /// The packet: the bare message when there is one, a compound of several.
    pub fn finish(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(COMPOUND_HEADER + self.used());
        if self.lengths.len() > 1 {
            packet.extend([COMPOUND, self.lengths.len() as u8]);
            packet.extend(self.lengths.iter().flat_map(|length| length.to_be_bytes()));
        }
        packet.extend_from_slice(&self.bodies);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_packet_is_exactly_as_large_as_allowed() {
        for (overhead, first) in [(0, 10), (29, 100), (29 + 7, 1)] {
            let mut packet = PacketBuilder::new(1400, overhead);
            assert!(packet.push(&vec![1; first]));
            let rest = packet.remaining();
            assert!(!packet.push(&vec![2; rest + 1]));
            assert!(packet.push(&vec![2; rest]));
            assert!(!packet.push(&[3]));
            assert_eq!(packet.finish().len() + overhead + CRC_FRAME, 1400);
        }
    }

    #[test]
    fn a_single_message_travels_bare_and_several_as_a_compound() {
        let mut packet = PacketBuilder::new(1400, 0);
        assert!(packet.is_empty());
        packet.push(b"ab");
        assert_eq!(packet.finish(), b"ab");
        let mut packet = PacketBuilder::new(1400, 0);
        packet.push(b"ab");
        packet.push(b"c");
        assert_eq!(packet.finish(), [7, 2, 0, 2, 0, 1, b'a', b'b', b'c']);
    }

    #[test]
    fn a_compound_never_counts_beyond_its_byte() {
        let mut packet = PacketBuilder::new(65_000, 0);
        for _ in 0..300 {
            packet.push(b"x");
        }
        assert_eq!(packet.finish()[1], 255);
    }
}
