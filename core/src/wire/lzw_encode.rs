//! LZW as Go writes it (docs/protocol.md#a7-compression).
//!
//! The library's encoder, which is the reference in the tests below, keeps a tree of tables of 256 codes. A
//! small hash table stays in the nearest cache and takes half of the time, and compressing is most of
//! what sending a packet costs.

use super::lzw_codes::{BitWriter, CLEAR, END, FIRST, WIDTH_MIN};

/// Codes up to here are given to strings; then the table is full, and all are forgotten.
const LAST: u32 = 4094;

/// The slots for a full table, of which less than half are ever taken.
const SLOTS_MAX: usize = 8192;
/// What a datagram needs, and what a single message.
const SLOTS_OF_DATAGRAM: usize = 4096;
const SLOTS_OF_MESSAGE: usize = 256;
/// Spreads bytes over the table: of 2^32, the golden ratio.
const SPREAD: u32 = 0x9E37_79B9;
/// From a slot that is taken to the next that may be free. An odd number, so that all are looked at.
const STEP: usize = 0x6D5;

/// Appends the LZW form of `plain`.
pub(super) fn lzw_encode(plain: &[u8], out: &mut Vec<u8>) {
    // Each byte adds one string at most.
    let slots = (2 * plain.len().min(SLOTS_MAX)).next_power_of_two();
    // Memory that is asked for and given back with each packet costs more than clearing it.
    if slots <= SLOTS_OF_MESSAGE {
        let slots = &mut [0; SLOTS_OF_MESSAGE];
        encode(plain, Strings { slots }, out);
    } else if slots <= SLOTS_OF_DATAGRAM {
        let slots = &mut [0; SLOTS_OF_DATAGRAM];
        encode(plain, Strings { slots }, out);
    } else {
        let slots = &mut vec![0; SLOTS_MAX];
        encode(plain, Strings { slots }, out);
    }
}

fn encode(plain: &[u8], mut strings: Strings<'_>, out: &mut Vec<u8>) {
    let mut codes = Codes::new(out);
    codes.put(CLEAR);
    let mut bytes = plain.iter().map(|&byte| u32::from(byte));
    if let Some(mut prefix) = bytes.next() {
        for byte in bytes {
            match strings.find(prefix, byte) {
                Ok(longer) => prefix = longer,
                Err(slot) => {
                    codes.put(prefix);
                    if codes.next() {
                        strings.set(slot, prefix, byte, codes.newest);
                    } else {
                        strings.clear();
                    }
                    prefix = byte;
                }
            }
        }
        codes.put(prefix);
        codes.next();
    }
    codes.put(END);
    codes.bits.finish();
}

/// The strings that have codes: each is a shorter one, by its code, and a byte.
///
/// An entry holds the shorter one's code, the byte and its own code in 12, 8 and 12 bits. None is 0,
/// because no string has the code 0.
struct Strings<'a> {
    /// A power of two of them.
    slots: &'a mut [u32],
}

impl Strings<'_> {
    /// The code of a string, or the slot where it belongs.
    fn find(&self, prefix: u32, byte: u32) -> Result<u32, usize> {
        let string = prefix << 8 | byte;
        let mask = self.slots.len() - 1;
        // Strings that end alike begin differently, and so have different slots. The prefix is known last, when the string
        // before is found, so that it enters by the cheapest step.
        let mut slot = (byte.wrapping_mul(SPREAD) >> 19 ^ prefix) as usize;
        loop {
            let entry = self.slots[slot & mask];
            if entry >> 12 == string && entry != 0 {
                return Ok(entry & 0xfff);
            }
            if entry == 0 {
                return Err(slot & mask);
            }
            slot = slot.wrapping_add(STEP);
        }
    }

    fn set(&mut self, slot: usize, prefix: u32, byte: u32, code: u32) {
        self.slots[slot] = prefix << 20 | byte << 12 | code;
    }

    fn clear(&mut self) {
        self.slots.fill(0);
    }
}

/// The codes that have been given.
struct Codes<'a> {
    bits: BitWriter<'a>,
    width: u32,
    newest: u32,
}

impl<'a> Codes<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Codes {
            bits: BitWriter::new(out),
            width: WIDTH_MIN,
            newest: FIRST - 1,
        }
    }

    fn put(&mut self, code: u32) {
        self.bits.put(code, self.width);
    }

    /// Gives the next code, which the reader gives as well. When none is left, says so, and all begins anew.
    fn next(&mut self) -> bool {
        self.newest += 1;
        if self.newest == 1 << self.width {
            self.width += 1;
        }
        if self.newest <= LAST {
            return true;
        }
        self.put(CLEAR);
        self.width = WIDTH_MIN;
        self.newest = FIRST - 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weezl::{BitOrder, decode::Decoder, encode::Encoder};

    use super::super::lzw_codes::BitReader;
    use super::*;

    /// Below this many codes the library does the same; then it clears one code later than Go does.
    const SAME: usize = 3800;

    fn check(plain: &[u8]) {
        let mut ours = Vec::new();
        lzw_encode(plain, &mut ours);
        if plain.len() < SAME {
            let theirs = Encoder::new(BitOrder::Lsb, 8)
                .encode(plain)
                .expect("bytes of 8 bits");
            assert!(ours == theirs, "{} bytes differ from the library's", plain.len());
        }
        let back = Decoder::new(BitOrder::Lsb, 8).decode(&ours).expect("LZW");
        assert!(back == plain, "{} bytes do not come back", plain.len());
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn the_codes_widen_and_are_cleared_where_the_reader_expects_it() {
        let noise = noise(40_000);
        // Every length around each change of width and each clearing, where the end code may fall.
        for len in (0..4).chain(250..260).chain(500..520).chain(1000..1030) {
            check(&noise[..len]);
            check(&vec![0; len]);
        }
        for len in (2000..2060).chain(3700..4120).chain(7600..7900) {
            check(&noise[..len]);
        }
        check(&noise);
        check(&vec![0; 4 << 20]);
        check(&noise.iter().map(|byte| byte % 3).collect::<Vec<u8>>());
    }

    #[test]
    fn the_clear_code_comes_when_code_4095_would_be_next_as_with_go() {
        let mut data = Vec::new();
        lzw_encode(&noise(40_000), &mut data);
        let mut codes = BitReader::new(&data);
        assert_eq!(codes.take(9), Some(CLEAR));
        for newest in FIRST..4096 {
            let width = (newest - 1).ilog2() + 1;
            assert_ne!(codes.take(width), Some(CLEAR), "before code {newest}");
        }
        assert_eq!(codes.take(12), Some(CLEAR));
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_as_from_the_library(
            words in proptest::collection::vec(proptest::collection::vec(0..6_u8, 1..40), 1..20),
            picks in proptest::collection::vec(0..20_usize, 0..600),
        ) {
            let plain: Vec<u8> = picks.iter().flat_map(|pick| words[pick % words.len()].clone()).collect();
            check(&plain);
        }
    }
}
