//! Finding the end of a value without reading it.

use super::fault::Fault;
use crate::bounds::MSGPACK_DEPTH_MAX;

/// Finds the end of one msgpack value in bytes that may still be arriving, without recursion and
/// without looking at any byte twice.
#[derive(Clone, Debug)]
pub struct ValueScan {
    start: usize,
    /// The next header to look at; may lie beyond what has arrived.
    next: usize,
    max_bytes: usize,
    max_depth: usize,
    /// How many values each open level still lacks; level 0 is the value itself.
    pending: [u64; MSGPACK_DEPTH_MAX + 1],
    level: usize,
}

impl ValueScan {
    /// The value starts at `start`, nests at most `max_depth` containers, takes at most `max_bytes`.
    pub fn new(start: usize, max_depth: usize, max_bytes: usize) -> ValueScan {
        let mut pending = [0; MSGPACK_DEPTH_MAX + 1];
        pending[0] = 1;
        let max_depth = max_depth.min(MSGPACK_DEPTH_MAX);
        ValueScan {
            start,
            next: start,
            max_bytes,
            max_depth,
            pending,
            level: 0,
        }
    }

    /// How far it has got.
    pub(crate) fn offset(&self) -> usize {
        self.next
    }

    /// Goes on with all bytes there are by now, the value's start at the same place as before. `Some`:
    /// the value is complete and ends there.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        loop {
            while self.pending.get(self.level) == Some(&0) {
                match self.level.checked_sub(1) {
                    Some(outer) => self.level = outer,
                    None => return Ok(Some(self.next).filter(|end| *end <= bytes.len())),
                }
            }
            let Some(header) = bytes.get(self.next..).and_then(Header::read).transpose()? else {
                return Ok(None);
            };
            if let Some(left) = self.pending.get_mut(self.level) {
                *left -= 1;
            }
            self.step(header)?;
        }
    }

    fn step(&mut self, header: Header) -> Result<(), Fault> {
        let used = (self.next - self.start) as u64 + header.bytes;
        let mut least = used;
        if header.items > 0 {
            self.level += 1;
            if self.level > self.max_depth {
                return Err(Fault::Depth);
            }
            if let Some(level) = self.pending.get_mut(self.level) {
                *level = header.items;
            }
            // Each value takes at least one byte, so counts beyond the bound cannot come true.
            least += self.pending.iter().take(self.level + 1).sum::<u64>();
        }
        if least > self.max_bytes as u64 {
            return Err(Fault::TooMany {
                len: least,
                max: self.max_bytes as u64,
            });
        }
        self.next = self.start + used as usize;
        Ok(())
    }
}

/// What the first bytes of a value say: how many bytes it takes itself, how many values follow in it.
struct Header {
    bytes: u64,
    items: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Result<Header, Fault>> {
        let (&code, rest) = bytes.split_first()?;
        let length = |width: usize| {
            rest.get(..width)
                .map(|digits| digits.iter().fold(0, |sum, digit| sum << 8 | u64::from(*digit)))
        };
        let (bytes, items) = match code {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, 0),
            0x80..=0x8f => (1, 2 * u64::from(code & 0x0f)),
            0x90..=0x9f => (1, u64::from(code & 0x0f)),
            0xa0..=0xbf => (1 + u64::from(code & 0x1f), 0),
            0xcc | 0xd0 => (2, 0),
            0xcd | 0xd1 => (3, 0),
            0xca | 0xce | 0xd2 => (5, 0),
            0xcb | 0xcf | 0xd3 => (9, 0),
            // Extension types carry one more byte, their kind.
            0xd4..=0xd8 => (2 + (1 << (code - 0xd4)), 0),
            0xc7 => (3 + length(1)?, 0),
            0xc8 => (4 + length(2)?, 0),
            0xc9 => (6 + length(4)?, 0),
            0xc4 | 0xd9 => (2 + length(1)?, 0),
            0xc5 | 0xda => (3 + length(2)?, 0),
            0xc6 | 0xdb => (5 + length(4)?, 0),
            0xdc => (3, length(2)?),
            0xdd => (5, length(4)?),
            0xde => (3, 2 * length(2)?),
            0xdf => (5, 2 * length(4)?),
            0xc1 => {
                return Some(Err(Fault::Kind {
                    expected: "a value",
                    found: code,
                }));
            }
        };
        Some(Ok(Header { bytes, items }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_needs_each_byte_once_however_they_arrive() {
        let value = b"\x83\xa1a\x92\x01\xcd\x01\x02\xa1b\xda\0\x03xyz\xa1c\xdc\0\x01\xc7\x02\x05ab";
        let mut scan = ValueScan::new(0, MSGPACK_DEPTH_MAX, 100);
        for len in 0..value.len() {
            assert_eq!(scan.advance(&value[..len]), Ok(None), "{len}");
        }
        assert_eq!(scan.advance(value), Ok(Some(value.len())));
        let mut scan = ValueScan::new(0, MSGPACK_DEPTH_MAX, value.len() - 1);
        assert!(matches!(scan.advance(value), Err(Fault::TooMany { .. })));
    }
}
