//! LZW as Go reads it (docs/protocol.md#a7-compression).
//!
//! Each string that has a code stands in the output already, where it was written first. So the table holds places in the
//! output instead of a tree of bytes, and takes no more memory than there are codes in the data.

use super::error::Fault;
use super::lzw_codes::{BitReader, CLEAR, END, FIRST, WIDTH_MAX, WIDTH_MIN};

/// A string in the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: usize,
    len: usize,
}

/// Decompresses into `out`, replacing its contents: at most `max` bytes. What follows the end code is ignored. `places` is
/// room for the table.
pub(super) fn lzw_decode(
    data: &[u8],
    max: usize,
    out: &mut Vec<u8>,
    places: &mut Vec<Place>,
) -> Result<(), Fault> {
    out.clear();
    places.clear();
    let (mut codes, mut width) = (BitReader::new(data), WIDTH_MIN);
    // A code has nine bits at least, and there are no more strings than codes.
    let most = (8 * data.len() / WIDTH_MIN as usize).min(1 << WIDTH_MAX);
    places.reserve(most);
    // The string before, if the next one completes a new entry; and the code of that entry.
    let (mut last, mut newest): (Option<Place>, u32) = (None, FIRST - 1);
    loop {
        let code = codes.take(width).ok_or(Fault::Lzw)?;
        let start = out.len();
        if code == CLEAR {
            places.clear();
            (last, newest, width) = (None, FIRST - 1, WIDTH_MIN);
            continue;
        } else if code == END {
            return Ok(());
        } else if let Ok(byte) = u8::try_from(code) {
            if start == max {
                return Err(Fault::Inflates(max));
            }
            out.push(byte);
        } else {
            // An entry may be used before its last byte is known: it is the same as its first.
            let repeat = last.filter(|_| code == newest).map(Place::and_one);
            let known = || places.get((code - FIRST) as usize).copied();
            let Place { start: from, len } = repeat.or_else(known).ok_or(Fault::Lzw)?;
            if len > max - start {
                return Err(Fault::Inflates(max));
            }
            out.extend_from_within(from..start.min(from + len));
            if repeat.is_some() {
                out.extend_from_within(from..=from);
            }
        }
        places.extend(last.map(Place::and_one));
        let len = out.len() - start;
        last = Some(Place { start, len });
        newest += 1;
        if newest == 1 << width {
            if width < WIDTH_MAX {
                width += 1;
            } else {
                // The table is full, and stays as it is until it is cleared.
                (last, newest) = (None, newest - 1);
            }
        }
    }
}

impl Place {
    /// With the byte behind it.
    fn and_one(self) -> Place {
        Place {
            len: self.len + 1,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weezl::{BitOrder, LzwStatus, decode::Decoder, encode::Encoder};

    use super::super::lzw_codes::BitWriter;
    use super::*;

    /// What the library makes of it, which is right where it reads the data to its end code.
    fn theirs(data: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; 1 << 20];
        let result = Decoder::new(BitOrder::Lsb, 8).decode_bytes(data, &mut out);
        out.truncate(result.consumed_out);
        matches!(result.status, Ok(LzwStatus::Done)).then_some(out)
    }

    fn ours(data: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"what was there before".to_vec();
        let mut places = vec![Place { start: 7, len: 9 }];
        lzw_decode(data, 1 << 20, &mut out, &mut places)
            .ok()
            .map(|()| out)
    }

    /// Codes of nine bits.
    fn written(codes: &[u32]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut bits = BitWriter::new(&mut data);
        codes.iter().for_each(|&code| bits.put(code, 9));
        bits.finish();
        data
    }

    #[test]
    fn codes_are_read_as_go_reads_them() {
        let (a, b) = (u32::from(b'a'), u32::from(b'b'));
        for (codes, plain) in [
            // Without a clear code at the beginning as well.
            (&[a, b, 258, END][..], Some("abab")),
            (&[CLEAR, a, 258, 259, END], Some("aaaaaa")),
            (
                &[CLEAR, CLEAR, a, b, 258, 259, CLEAR, b, 258, END],
                Some("ababbabbb"),
            ),
            (&[CLEAR, END], Some("")),
            // There is no such string yet, or no longer.
            (&[258, END], None),
            (&[CLEAR, a, 259, END], None),
            (&[CLEAR, a, b, 258, CLEAR, 258, END], None),
            // No end.
            (&[CLEAR, a, b], None),
            (&[], None),
        ] {
            let found = ours(&written(codes)).map(|out| String::from_utf8_lossy(&out).into_owned());
            assert_eq!(found.as_deref(), plain, "{codes:?}");
        }
    }

    #[test]
    fn a_full_table_is_used_on_until_it_is_cleared() {
        // The library clears one code later than Go does, after the table was full.
        let noise: Vec<u8> = (0..60_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8)
            .collect();
        for len in (3700..4300).step_by(7).chain([noise.len()]) {
            let data = Encoder::new(BitOrder::Lsb, 8).encode(&noise[..len]).unwrap();
            assert!(ours(&data).is_some_and(|out| out == noise[..len]), "{len} bytes");
        }
        // Nobody clears: after all codes of 12 bits, strings and literals are still understood.
        let mut data = Vec::new();
        let mut bits = BitWriter::new(&mut data);
        let mut expected = Vec::new();
        // The width that the reader expects rises with the entries that it has made.
        let width = |written: u32| (FIRST - 1 + written).min(4095).ilog2() + 1;
        for written in 0..5000 {
            let byte = (written % 251) as u8;
            expected.push(byte);
            bits.put(u32::from(byte), width(written));
        }
        expected.extend([0, 1]);
        bits.put(258, 12);
        bits.put(END, 12);
        bits.finish();
        assert_eq!(ours(&data), Some(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(
            words in proptest::collection::vec(proptest::collection::vec(0..6_u8, 1..40), 1..20),
            picks in proptest::collection::vec(0..20_usize, 0..600),
        ) {
            let plain: Vec<u8> = picks.iter().flat_map(|pick| words[pick % words.len()].clone()).collect();
            let data = Encoder::new(BitOrder::Lsb, 8).encode(&plain).expect("bytes of 8 bits");
            prop_assert!(ours(&data).is_some_and(|out| out == plain));
        }

        #[test]
        fn any_data_is_read_as_the_library_reads_it(
            codes in proptest::collection::vec(prop_oneof![0..259_u32, 256..300_u32, 0..512_u32], 0..200),
        ) {
            let data = written(&codes);
            if let Some(theirs) = theirs(&data) {
                prop_assert_eq!(ours(&data), Some(theirs));
            }
        }

        #[test]
        fn the_bound_holds(data: Vec<u8>, max in 0..200_usize) {
            let mut out = Vec::new();
            match lzw_decode(&data, max, &mut out, &mut Vec::new()) {
                Ok(()) => prop_assert!(out.len() <= max),
                Err(Fault::Inflates(bound)) => prop_assert!(bound == max && out.len() <= max),
                Err(fault) => prop_assert_eq!(fault, Fault::Lzw),
            }
        }
    }
}
