//! The msgpack dialect of Go's codec (protocol.md A3), by hand.
//!
//! What is emitted is what the oldest peers understand: "raw" for text and bytes alike, shortest
//! unsigned integers, structs as maps with sorted keys. What is accepted covers both generations of
//! the codec: every integer code for every integer field, str and bin for both text and bytes, nil as
//! the zero value, structs as arrays in declaration order, unknown keys. An array of small integers
//! in place of bytes is refused: no known peer sends it, and it cannot be borrowed.

use super::error::{DecodeError, Fault};
use crate::bounds::{MSGPACK_DEPTH_MAX, NAME_MAX};

/// A struct whose fields arrive one by one, in any order.
pub(super) trait Fields<'a>: Default {
    /// How errors name it.
    const NAME: &'static str;
    /// The field names in Go's declaration order, which is the order when a struct comes as an array.
    const ORDER: &'static [&'static str];

    /// Reads the value of one field. `false`: no such field, nothing was read.
    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault>;

    /// What must hold once all fields are read; the error names the field.
    fn check(&self) -> Result<(), (&'static str, Fault)> {
        Ok(())
    }
}

/// Reads msgpack values from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: input,
            total: input.len(),
            depth: 0,
        }
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes have been read.
    pub(super) fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Reads a struct: a map, or an array in declaration order, or nil for all zero.
    #[inline]
    pub(super) fn fields<T: Fields<'a>>(&mut self) -> Result<T, DecodeError> {
        let mut value = T::default();
        let fail = |reader: &Reader<'a>, field, fault| DecodeError {
            message: T::NAME,
            field,
            offset: reader.offset(),
            fault,
        };
        let shape = self.struct_shape().map_err(|fault| fail(self, "", fault))?;
        self.depth += 1;
        match shape {
            StructShape::Map(len) => {
                for _ in 0..len {
                    let key = self.bytes().map_err(|fault| fail(self, "", fault))?;
                    self.one_field(&mut value, key)
                        .map_err(|fault| fail(self, named(T::ORDER, key), fault))?;
                }
            }
            StructShape::Array(len) => {
                for index in 0..len {
                    let key = T::ORDER.get(index as usize).copied().unwrap_or("");
                    self.one_field(&mut value, key.as_bytes())
                        .map_err(|fault| fail(self, key, fault))?;
                }
            }
        }
        self.depth -= 1;
        value.check().map_err(|(field, fault)| fail(self, field, fault))?;
        Ok(value)
    }

    #[inline]
    fn one_field<T: Fields<'a>>(&mut self, value: &mut T, key: &[u8]) -> Result<(), Fault> {
        if value.field(key, self)? {
            Ok(())
        } else {
            self.skip()
        }
    }

    fn struct_shape(&mut self) -> Result<StructShape, Fault> {
        let code = self.byte()?;
        Ok(match code {
            0x80..=0x8f => StructShape::Map(u32::from(code & 0x0f)),
            0xde => StructShape::Map(u32::from(self.be16()?)),
            0xdf => StructShape::Map(self.be32()?),
            0x90..=0x9f => StructShape::Array(u32::from(code & 0x0f)),
            0xdc => StructShape::Array(u32::from(self.be16()?)),
            0xdd => StructShape::Array(self.be32()?),
            0xc0 => StructShape::Map(0),
            found => {
                return Err(Fault::Kind {
                    expected: "a map",
                    found,
                });
            }
        })
    }

    /// Reads an array item by item; nil is an empty one. More than `max` entries are refused.
    pub(super) fn array(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let code = self.byte()?;
        let len = match code {
            0x90..=0x9f => u32::from(code & 0x0f),
            0xdc => u32::from(self.be16()?),
            0xdd => self.be32()?,
            0xc0 => 0,
            found => {
                return Err(Fault::Kind {
                    expected: "an array",
                    found,
                });
            }
        };
        self.items(len, max, &mut item)
    }

    /// Reads a map entry by entry; nil is an empty one. More than `max` entries are refused.
    pub(super) fn map(
        &mut self,
        max: usize,
        mut entry: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let code = self.byte()?;
        let len = match code {
            0x80..=0x8f => u32::from(code & 0x0f),
            0xde => u32::from(self.be16()?),
            0xdf => self.be32()?,
            0xc0 => 0,
            found => {
                return Err(Fault::Kind {
                    expected: "a map",
                    found,
                });
            }
        };
        self.items(len, max, &mut entry)
    }

    fn items(
        &mut self,
        len: u32,
        max: usize,
        item: &mut impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if len as usize > max {
            return Err(Fault::TooMany {
                len: u64::from(len),
                max: max as u64,
            });
        }
        self.depth += 1;
        for _ in 0..len {
            item(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads bytes in any of their forms; nil is empty.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        match self.short_bytes() {
            Some(bytes) => Ok(bytes),
            None => self.any_bytes(),
        }
    }

    /// Reads bytes whose length stands in the code itself, which nearly all keys and names have; reads
    /// nothing otherwise. So small that it is inlined and its result stays in registers.
    #[inline]
    fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let (&code @ 0xa0..=0xbf, rest) = self.rest.split_first()? else {
            return None;
        };
        let (bytes, rest) = rest.split_at_checked(usize::from(code & 0x1f))?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline(never)]
    fn any_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let code = self.byte()?;
        let len = match code {
            0xa0..=0xbf => usize::from(code & 0x1f),
            0xc4 | 0xd9 => usize::from(self.byte()?),
            0xc5 | 0xda => usize::from(self.be16()?),
            0xc6 | 0xdb => self.be32()? as usize,
            0xc0 => 0,
            found => {
                return Err(Fault::Kind {
                    expected: "text or bytes",
                    found,
                });
            }
        };
        self.take(len)
    }

    /// Reads text in any of its forms; nil is empty.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Utf8)
    }

    /// Reads text of at most [`NAME_MAX`] bytes, possibly empty.
    #[inline]
    pub(super) fn name(&mut self) -> Result<&'a str, Fault> {
        let name = self.text()?;
        if name.len() > NAME_MAX {
            return Err(Fault::TooMany {
                len: name.len() as u64,
                max: NAME_MAX as u64,
            });
        }
        Ok(name)
    }

    /// Reads text of 1 to [`NAME_MAX`] bytes.
    pub(super) fn nonempty_name(&mut self) -> Result<&'a str, Fault> {
        let name = self.name()?;
        if name.is_empty() {
            Err(Fault::Empty)
        } else {
            Ok(name)
        }
    }

    /// Reads an integer of any code.
    #[inline]
    fn integer(&mut self) -> Result<Integer, Fault> {
        let code = self.byte()?;
        Ok(match code {
            0x00..=0x7f => Integer::Unsigned(u64::from(code)),
            0xe0..=0xff => Integer::Signed(i64::from(code as i8)),
            0xcc => Integer::Unsigned(u64::from(self.byte()?)),
            0xcd => Integer::Unsigned(u64::from(self.be16()?)),
            0xce => Integer::Unsigned(u64::from(self.be32()?)),
            0xcf => Integer::Unsigned(self.be64()?),
            0xd0 => Integer::Signed(i64::from(self.byte()? as i8)),
            0xd1 => Integer::Signed(i64::from(self.be16()? as i16)),
            0xd2 => Integer::Signed(i64::from(self.be32()? as i32)),
            0xd3 => Integer::Signed(self.be64()? as i64),
            0xc0 => Integer::Unsigned(0),
            found => {
                return Err(Fault::Kind {
                    expected: "an integer",
                    found,
                });
            }
        })
    }

    /// Reads an integer that is not negative and fits the type; `range` names it in the error.
    #[inline]
    fn unsigned<T: TryFrom<u64>>(&mut self, range: &'static str) -> Result<T, Fault> {
        let number = match self.integer()? {
            Integer::Unsigned(number) => Some(number),
            Integer::Signed(number) => u64::try_from(number).ok(),
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or(Fault::Range(range))
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.unsigned("0..=255")
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.unsigned("0..=65535")
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.unsigned("0..=4294967295")
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.unsigned("0..=18446744073709551615")
    }

    pub(super) fn i64(&mut self) -> Result<i64, Fault> {
        match self.integer()? {
            Integer::Unsigned(number) => {
                i64::try_from(number).map_err(|_| Fault::Range("a signed 64-bit integer"))
            }
            Integer::Signed(number) => Ok(number),
        }
    }

    /// Reads true or false, also written as 1 or 0, or nil for false.
    pub(super) fn bool(&mut self) -> Result<bool, Fault> {
        match self.byte()? {
            0xc3 | 0x01 => Ok(true),
            0xc2 | 0x00 | 0xc0 => Ok(false),
            found => Err(Fault::Kind {
                expected: "true or false",
                found,
            }),
        }
    }

    /// Reads a finite number. Integers are taken as well, as Go does.
    pub(super) fn float(&mut self) -> Result<f64, Fault> {
        let number = match self.rest.first() {
            Some(0xcb) => {
                self.byte()?;
                f64::from_bits(self.be64()?)
            }
            Some(0xca) => {
                self.byte()?;
                f64::from(f32::from_bits(self.be32()?))
            }
            _ => match self.integer()? {
                Integer::Unsigned(number) => number as f64,
                Integer::Signed(number) => number as f64,
            },
        };
        if number.is_finite() {
            Ok(number)
        } else {
            Err(Fault::NotFinite)
        }
    }

    /// Consumes a nil if there is one.
    pub(super) fn nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((0xc0, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips one value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        let mut scan = ValueScan::new(0, MSGPACK_DEPTH_MAX.saturating_sub(self.depth), self.rest.len());
        match scan.advance(self.rest) {
            Ok(true) => self.take(scan.end()).map(drop),
            // The bound of this scan is the end of the input.
            Ok(false) | Err(Fault::TooMany { .. }) => Err(Fault::Truncated),
            Err(fault) => Err(fault),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Fault> {
        self.fixed().map(|[byte]| byte)
    }

    fn be16(&mut self) -> Result<u16, Fault> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn be32(&mut self) -> Result<u32, Fault> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn be64(&mut self) -> Result<u64, Fault> {
        self.fixed().map(u64::from_be_bytes)
    }
}

/// An integer by the kind of code that it came in.
enum Integer {
    Unsigned(u64),
    Signed(i64),
}

enum StructShape {
    Map(u32),
    Array(u32),
}

fn named(order: &'static [&'static str], key: &[u8]) -> &'static str {
    order
        .iter()
        .copied()
        .find(|name| name.as_bytes() == key)
        .unwrap_or("")
}

/// Finds the end of one msgpack value in bytes that may still be arriving, without recursion and
/// without looking at any byte twice.
#[derive(Clone, Debug)]
pub(super) struct ValueScan {
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
    pub(super) fn new(start: usize, max_depth: usize, max_bytes: usize) -> ValueScan {
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

    /// Where the value ends, once [`ValueScan::advance`] has said that it is complete.
    pub(super) fn end(&self) -> usize {
        self.next
    }

    /// Goes on with all bytes there are by now, the value's start at the same place as before.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        loop {
            while self.pending.get(self.level) == Some(&0) {
                match self.level.checked_sub(1) {
                    Some(outer) => self.level = outer,
                    None => return Ok(self.next <= bytes.len()),
                }
            }
            let Some(header) = bytes.get(self.next..).and_then(Header::read).transpose()? else {
                return Ok(false);
            };
            if let Some(left) = self.pending.get_mut(self.level) {
                *left -= 1;
            }
            self.step(header)?;
        }
    }

    fn step(&mut self, header: Header) -> Result<(), Fault> {
        let used = (self.next - self.start) as u64 + header.bytes;
        // Each item takes at least one byte, so a count beyond the bound cannot come true.
        if used + header.items > self.max_bytes as u64 {
            return Err(Fault::TooMany {
                len: used + header.items,
                max: self.max_bytes as u64,
            });
        }
        self.next = self.start + used as usize;
        if header.items > 0 {
            self.level += 1;
            if self.level > self.max_depth {
                return Err(Fault::Depth);
            }
            if let Some(level) = self.pending.get_mut(self.level) {
                *level = header.items;
            }
        }
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

/// Appends msgpack values to a buffer.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer { out }
    }

    pub(super) fn map(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x80, 0xde)
    }

    pub(super) fn array(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x90, 0xdc)
    }

    fn container(&mut self, len: usize, fix: u8, wide: u8) -> &mut Self {
        match len {
            0..16 => self.out.push(fix | len as u8),
            16..0x1_0000 => self.head(wide, &(len as u16).to_be_bytes()),
            _ => self.head(wide + 1, &(len as u32).to_be_bytes()),
        }
        self
    }

    /// Text, bytes or a key: all are "raw".
    pub(super) fn raw(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        match bytes.len() {
            len @ 0..32 => self.out.push(0xa0 | len as u8),
            len @ 32..0x1_0000 => self.head(0xda, &(len as u16).to_be_bytes()),
            len => self.head(0xdb, &(len as u32).to_be_bytes()),
        }
        self.out.extend_from_slice(bytes);
        self
    }

    /// Bytes that Go holds as a nil slice when there are none.
    pub(super) fn raw_or_nil(&mut self, bytes: &[u8]) -> &mut Self {
        if bytes.is_empty() {
            self.nil()
        } else {
            self.raw(bytes)
        }
    }

    pub(super) fn nil(&mut self) -> &mut Self {
        self.out.push(0xc0);
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    pub(super) fn uint(&mut self, value: impl Into<u64>) -> &mut Self {
        match value.into() {
            value @ 0..0x80 => self.out.push(value as u8),
            value @ 0x80..0x100 => self.head(0xcc, &[value as u8]),
            value @ 0x100..0x1_0000 => self.head(0xcd, &(value as u16).to_be_bytes()),
            value @ 0x1_0000..0x1_0000_0000 => self.head(0xce, &(value as u32).to_be_bytes()),
            value => self.head(0xcf, &value.to_be_bytes()),
        }
        self
    }

    /// A signed integer; the non-negative ones look as unsigned ones do, which both generations read.
    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        match value {
            0.. => {
                self.uint(value.unsigned_abs());
            }
            -32..0 => self.out.push(value as u8),
            -0x80..-32 => self.head(0xd0, &[value as u8]),
            -0x8000..-0x80 => self.head(0xd1, &(value as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.head(0xd2, &(value as i32).to_be_bytes()),
            _ => self.head(0xd3, &value.to_be_bytes()),
        }
        self
    }

    pub(super) fn float(&mut self, value: f64) -> &mut Self {
        self.head(0xcb, &value.to_be_bytes());
        self
    }

    fn head(&mut self, code: u8, bytes: &[u8]) {
        self.out.push(code);
        self.out.extend_from_slice(bytes);
    }
}
