//! Reading values from the front of a slice.

use super::fault::Fault;
use super::scan::ValueScan;
use crate::bounds::MSGPACK_DEPTH_MAX;

/// Reads values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    depth: usize,
}

/// How a struct comes, and how many fields it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// By name.
    Map(u32),
    /// In the order of Go's declaration.
    Array(u32),
}

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    pub fn new(input: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: input,
            total: input.len(),
            depth: 0,
        }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes have been read.
    pub(crate) fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Enters a struct, to be left by [`Reader::close`]; nil is a map without entries.
    pub fn open_struct(&mut self) -> Result<Shape, Fault> {
        let code = self.byte()?;
        let shape = match code {
            0x80..=0x8f | 0xde | 0xdf | 0xc0 => Shape::Map(self.count(code)?),
            0x90..=0x9f | 0xdc | 0xdd => Shape::Array(self.count(code)?),
            found => {
                return Err(Fault::Kind {
                    expected: "a map",
                    found,
                });
            }
        };
        self.depth += 1;
        Ok(shape)
    }

    /// Enters an array, to be left by [`Reader::close`], and says how many items it has; nil is an
    /// empty one. More than `max` are refused.
    pub fn open_array(&mut self, max: usize) -> Result<u32, Fault> {
        match self.byte()? {
            code @ (0x90..=0x9f | 0xdc | 0xdd | 0xc0) => self.open(code, max),
            found => Err(Fault::Kind {
                expected: "an array",
                found,
            }),
        }
    }

    /// Enters a map as [`Reader::open_array`] does an array.
    pub fn open_map(&mut self, max: usize) -> Result<u32, Fault> {
        match self.byte()? {
            code @ (0x80..=0x8f | 0xde | 0xdf | 0xc0) => self.open(code, max),
            found => Err(Fault::Kind {
                expected: "a map",
                found,
            }),
        }
    }

    /// Leaves a container, all of whose items have been read.
    pub fn close(&mut self) {
        self.depth -= 1;
    }

    fn open(&mut self, code: u8, max: usize) -> Result<u32, Fault> {
        let len = self.count(code)?;
        Fault::bound(len as usize, max)?;
        self.depth += 1;
        Ok(len)
    }

    /// How many items the container of this code has.
    #[inline]
    fn count(&mut self, code: u8) -> Result<u32, Fault> {
        Ok(match code {
            0x80..=0x9f => u32::from(code & 0x0f),
            0xdc | 0xde => u32::from(self.be16()?),
            0xdd | 0xdf => self.be32()?,
            _ => 0,
        })
    }

    /// Reads an array item by item; nil is an empty one. More than `max` entries are refused.
    pub(crate) fn array(
        &mut self,
        max: usize,
        item: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let len = self.open_array(max)?;
        self.items(len, item)
    }

    /// Reads a map entry by entry; nil is an empty one. More than `max` entries are refused.
    pub(crate) fn map(
        &mut self,
        max: usize,
        entry: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let len = self.open_map(max)?;
        self.items(len, entry)
    }

    fn items(
        &mut self,
        len: u32,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for _ in 0..len {
            item(self)?;
        }
        self.close();
        Ok(())
    }

    /// Reads bytes in any of their forms; nil is empty.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
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
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Utf8)
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

    /// Reads an unsigned integer of this width.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.unsigned("0..=255")
    }

    /// Reads an unsigned integer of this width.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.unsigned("0..=65535")
    }

    /// Reads an unsigned integer of this width.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.unsigned("0..=4294967295")
    }

    /// Reads an unsigned integer of this width.
    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.unsigned("0..=18446744073709551615")
    }

    /// Reads a signed integer.
    pub fn i64(&mut self) -> Result<i64, Fault> {
        match self.integer()? {
            Integer::Unsigned(number) => {
                i64::try_from(number).map_err(|_| Fault::Range("a signed 64-bit integer"))
            }
            Integer::Signed(number) => Ok(number),
        }
    }

    /// Reads true or false, also written as 1 or 0, or nil for false.
    pub fn bool(&mut self) -> Result<bool, Fault> {
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
    pub fn float(&mut self) -> Result<f64, Fault> {
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
    pub fn nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((0xc0, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips one value of any kind.
    pub fn skip(&mut self) -> Result<(), Fault> {
        let mut scan = ValueScan::new(0, MSGPACK_DEPTH_MAX.saturating_sub(self.depth), self.rest.len());
        match scan.advance(self.rest) {
            Ok(Some(end)) => self.take(end).map(drop),
            // The bound of this scan is the end of the input.
            Ok(None) | Err(Fault::TooMany { .. }) => Err(Fault::Truncated),
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
