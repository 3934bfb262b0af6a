//! The codes of LZW as Go writes them (docs/protocol.md#a7-compression), and how they stand in bytes: 9 to 12 bits each, the
//! lowest bit first.

/// Forgets all strings.
pub(super) const CLEAR: u32 = 256;
/// Ends the data.
pub(super) const END: u32 = 257;
/// The code of the first string longer than one byte.
pub(super) const FIRST: u32 = 258;
pub(super) const WIDTH_MIN: u32 = 9;
pub(super) const WIDTH_MAX: u32 = 12;

/// Appends codes to bytes.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    bits: u64,
    /// How many bits wait, less than 32.
    filled: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        BitWriter {
            out,
            bits: 0,
            filled: 0,
        }
    }

    pub(super) fn put(&mut self, code: u32, width: u32) {
        self.bits |= u64::from(code) << self.filled;
        self.filled += width;
        if self.filled >= 32 {
            self.out.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.filled -= 32;
        }
    }

    /// The last byte is filled up with zeros.
    pub(super) fn finish(self) {
        let bytes = self.filled.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.bits.to_le_bytes()[..bytes]);
    }
}

/// Takes codes from bytes.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    bits: u64,
    filled: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        BitReader {
            data,
            bits: 0,
            filled: 0,
        }
    }

    /// The next code; nothing if the data ends before the code does.
    pub(super) fn take(&mut self, width: u32) -> Option<u32> {
        while self.filled < width {
            if let Some((four, rest)) = self.data.split_first_chunk() {
                self.fill(u32::from_le_bytes(*four), 32);
                self.data = rest;
            } else {
                let (&byte, rest) = self.data.split_first()?;
                self.fill(u32::from(byte), 8);
                self.data = rest;
            }
        }
        let code = self.bits & ((1 << width) - 1);
        self.bits >>= width;
        self.filled -= width;
        Some(code as u32)
    }

    fn fill(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.filled;
        self.filled += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_all_widths_come_back_until_the_data_ends() {
        // What stands first is in the lowest bits.
        let mut out = vec![7];
        let mut writer = BitWriter::new(&mut out);
        writer.put(CLEAR, 9);
        writer.put(0b11, 9);
        writer.finish();
        assert_eq!(out, [7, 0x00, 0b0000_0111, 0b0000_0000]);

        let code = |at: u32| (at.wrapping_mul(2_654_435_761) >> 23, 9 + at % 4);
        for codes in 0..40 {
            let mut out = Vec::new();
            let mut writer = BitWriter::new(&mut out);
            (0..codes).for_each(|at| writer.put(code(at).0, code(at).1));
            writer.finish();
            let bits: u32 = (0..codes).map(|at| code(at).1).sum();
            assert_eq!(out.len(), bits.div_ceil(8) as usize);
            let mut reader = BitReader::new(&out);
            for at in 0..codes {
                assert_eq!(reader.take(code(at).1), Some(code(at).0));
            }
            assert_eq!(reader.take(9), None, "what fills the last byte up is no code");
        }
    }
}
