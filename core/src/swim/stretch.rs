//! How much more than its size a gossip packet may hold, because compression makes it smaller
//! (docs/protocol.md#a19-gossip).
//!
//! memberlist fills packets by their size before compression, and sends a quarter of what the network would carry. How
//! well the next packet compresses is known only once it is full, so it is guessed from those before; one that turns
//! out too long is sent in parts.

use super::packet::PacketBuilder;
use crate::bounds::DATAGRAM_PLAIN_MAX;
use crate::wire::deflate;

/// The guess is kept as the plain bytes of which so many are left.
const UNIT: usize = 64;

/// Packets hold at most so many times what fits without compression: what compresses better would gain little.
const MOST: usize = 4;

/// The newest packet counts as one of so many where it is better than the guess.
const PACKETS: usize = 2;

/// So much of what the guess promises is used, in percent.
const CAUTION: usize = 90;

/// While compression gains nothing, one packet of so many is tried.
const TRY_EVERY: u32 = 16;

/// The guess, and what comes of it.
#[derive(Debug)]
pub(super) struct Stretch {
    compress: bool,
    /// How many plain bytes become [`UNIT`] bytes.
    ratio: usize,
    /// Packets since the last that was compressed.
    untried: u32,
}

impl Stretch {
    /// Nothing is known yet, and without compression nothing ever will be.
    pub fn new(compress: bool) -> Stretch {
        Stretch {
            compress,
            ratio: UNIT,
            untried: TRY_EVERY,
        }
    }

    /// An empty packet of at most `size` bytes on the wire, with as much room as is likely to fit.
    pub fn packet(&self, size: usize, overhead: usize) -> PacketBuilder {
        let packet = PacketBuilder::new(size, overhead);
        let room = packet.limit() * self.ratio * CAUTION / (100 * UNIT);
        packet.with_room(room.min(DATAGRAM_PLAIN_MAX - size))
    }

    /// The datagrams of a packet: one, or several if that would be too long. Those that are compressed already begin with
    /// the type byte that says so.
    pub fn finish(&mut self, packet: PacketBuilder) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::with_capacity(1);
        self.finish_into(packet, &mut datagrams);
        datagrams
    }

    fn finish_into(&mut self, packet: PacketBuilder, datagrams: &mut Vec<Vec<u8>>) {
        let fits = packet.worth() <= 1;
        if fits && !self.is_worth_trying(&packet) {
            return datagrams.push(packet.finish());
        }
        let limit = packet.limit();
        let plain = packet.finish();
        let smaller = deflate(&plain);
        self.note(plain.len(), smaller.len());
        if smaller.len() <= limit && smaller.len() < plain.len() {
            datagrams.push(smaller);
        } else if fits {
            datagrams.push(plain);
        } else {
            let (first, second) = packet.split();
            self.finish_into(first, datagrams);
            self.finish_into(second, datagrams);
        }
    }

    /// A packet that is not even half full says little about full ones, and needs no more room.
    fn is_worth_trying(&mut self, packet: &PacketBuilder) -> bool {
        if !self.compress || 2 * packet.used() < packet.limit() {
            return false;
        }
        self.untried += 1;
        self.ratio > UNIT || self.untried >= TRY_EVERY
    }

    /// A packet that compresses worse than the guess is believed at once, a better one slowly: a packet in parts costs more
    /// than one that is not full.
    fn note(&mut self, plain: usize, compressed: usize) {
        self.untried = 0;
        let now = (plain * UNIT / compressed.max(1)).clamp(UNIT, MOST * UNIT);
        self.ratio = match now.checked_sub(self.ratio) {
            Some(better) => self.ratio + better.div_ceil(PACKETS),
            None => now,
        };
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::wire::{Datagram, Message, Scratch, decode_datagram, finish_datagram};

    const SIZE: usize = 1400;
    const OVERHEAD: usize = 29;

    /// Fills a packet with what `next` gives, finishes it, and gives the datagrams with the user messages they hold.
    fn round(stretch: &mut Stretch, mut next: impl FnMut() -> Vec<u8>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut packet = stretch.packet(SIZE, OVERHEAD);
        let mut put = Vec::new();
        loop {
            let message = [vec![8], next()].concat();
            if !packet.push(&message) {
                break;
            }
            put.push(message);
        }
        let datagrams = stretch.finish(packet);
        let mut held = Vec::new();
        for datagram in &datagrams {
            let wire = finish_datagram(datagram.clone(), false, true);
            assert!(wire.len() + OVERHEAD <= SIZE, "{} bytes", wire.len());
            let mut scratch = Scratch::default();
            let Datagram {
                messages, refused, ..
            } = decode_datagram(&wire, &mut scratch).unwrap();
            assert_eq!(refused, 0);
            held.extend(messages.iter().map(|message| match message {
                Message::User(body) => [&[8], *body].concat(),
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(held, put, "every message once, in order");
        (datagrams, put)
    }

    fn news(number: u32) -> Vec<u8> {
        [
            b"a node with a name, tags and versions, number ".to_vec(),
            number.to_string().into(),
            vec![0; 60],
        ]
        .concat()
    }

    fn noise(rng: &mut Xoshiro256PlusPlus) -> Vec<u8> {
        let mut bytes = vec![0; 110];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn packets_of_what_compresses_hold_several_times_as_much() {
        let mut stretch = Stretch::new(true);
        let mut number = 0;
        let mut next = || {
            number += 1;
            news(number)
        };
        let first = round(&mut stretch, &mut next).1.len();
        let last = (0..10).map(|_| round(&mut stretch, &mut next)).last().unwrap();
        assert_eq!(last.0.len(), 1);
        assert!(last.1.len() > 3 * first, "{} after {first}", last.1.len());
        assert!(last.1.len() <= MOST * first + 1);
    }

    #[test]
    fn what_turns_out_too_long_leaves_in_parts_and_makes_the_guess_small_at_once() {
        let mut stretch = Stretch::new(true);
        for number in 0..100 {
            round(&mut stretch, || news(number));
        }
        let rng = &mut Xoshiro256PlusPlus::seed_from_u64(1);
        let (datagrams, put) = round(&mut stretch, || noise(rng));
        assert!(
            datagrams.len() > 1 && put.len() > 20,
            "{} in {}",
            put.len(),
            datagrams.len()
        );
        assert_eq!(round(&mut stretch, || noise(rng)).0.len(), 1);
    }

    #[test]
    fn what_compresses_less_than_before_leaves_in_parts_as_well() {
        let mut stretch = Stretch::new(true);
        for number in 0..100 {
            round(&mut stretch, || news(number));
        }
        let rng = &mut Xoshiro256PlusPlus::seed_from_u64(3);
        let half = || [noise(rng).split_off(50), vec![0; 50]].concat();
        let (datagrams, _) = round(&mut stretch, half);
        assert!(datagrams.len() > 1);
        assert!(
            datagrams.iter().all(|datagram| datagram[0] == 9),
            "all are compressed"
        );
    }

    #[test]
    fn what_does_not_compress_is_tried_now_and_then_and_found_again() {
        let mut stretch = Stretch::new(true);
        let rng = &mut Xoshiro256PlusPlus::seed_from_u64(2);
        let mut tried = 0;
        for _ in 0..64 {
            round(&mut stretch, || noise(rng));
            tried += u32::from(stretch.untried == 0);
        }
        assert_eq!(tried, 64 / TRY_EVERY);
        for number in 0..2 * TRY_EVERY {
            round(&mut stretch, || news(number));
        }
        assert!(stretch.ratio > 2 * UNIT);
    }

    #[test]
    fn without_compression_packets_are_as_they_were() {
        let mut stretch = Stretch::new(false);
        for number in 0..100 {
            let (datagrams, _) = round(&mut stretch, || news(number));
            assert_eq!((datagrams.len(), datagrams[0][0]), (1, 7));
        }
    }

    #[test]
    fn the_largest_packets_are_no_larger_than_a_peer_reads() {
        let mut stretch = Stretch::new(true);
        stretch.ratio = MOST * UNIT;
        let mut packet = stretch.packet(65_507, OVERHEAD);
        while packet.push(&[8; 1000]) {}
        assert!(packet.finish().len() <= DATAGRAM_PLAIN_MAX);
    }
}
