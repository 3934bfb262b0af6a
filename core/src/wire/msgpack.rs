//! The msgpack dialect of Go's codec (docs/protocol.md#a3-msgpack-dialect), by hand.
//!
//! What is emitted is what the oldest peers understand: "raw" for text and bytes alike, shortest
//! unsigned integers, structs as maps with sorted keys. What is accepted covers both generations of
//! the codec: every integer code for every integer field, str and bin for both text and bytes, nil as
//! the zero value, structs as arrays in declaration order, unknown keys. An array of small integers
//! in place of bytes is refused: no known peer sends it, and it cannot be borrowed.

mod scan;
mod write;

pub(super) use scan::ValueScan;
pub(super) use write::Writer;

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

    /// Reads a struct as [`Reader::fields`] does. Where its content is at fault, but not its msgpack,
    /// it is stepped over, and the inner result says what is wrong with it.
    pub(super) fn fields_or_skip<T: Fields<'a>>(&mut self) -> Result<Result<T, DecodeError>, DecodeError> {
        let (rest, depth) = (self.rest, self.depth);
        let result = self.fields();
        if result.is_err() {
            (self.rest, self.depth) = (rest, depth);
            self.skip()
                .map_err(|fault| DecodeError::new(T::NAME, self.offset(), fault))?;
        }
        Ok(result)
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

    /// Reads the name of whoever says something, possibly empty. It need not be a member that can be
    /// held here: what it says counts all the same, and [`NAME_MAX`] bytes are enough to tell it from
    /// others.
    pub(super) fn speaker(&mut self) -> Result<&'a str, Fault> {
        let name = self.text()?;
        Ok(name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or(name))
    }

    /// Reads a name in a list about members; `None` for one that no member held here can have.
    pub(super) fn listed_name(&mut self) -> Result<Option<&'a str>, Fault> {
        let name = std::str::from_utf8(self.bytes()?).ok();
        Ok(name.filter(|name| (1..=NAME_MAX).contains(&name.len())))
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

#[cfg(test)]
mod tests {
    use super::super::message::{Ack, Alive, IndirectPing, Ping};
    use super::*;

    fn ping(body: &[u8]) -> Result<Ping<'_>, Fault> {
        Reader::new(body)
            .fields()
            .map_err(|error: DecodeError| error.fault)
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// The acceptance table of docs/protocol.md#a3-msgpack-dialect, the newer column where they differ, with
    /// the ping as the carrier.
    #[test]
    fn what_either_generation_sends_is_accepted() {
        let expected = Ping {
            seq_no: 7,
            node: "alpha",
            ..Ping::default()
        };
        let unknown_nested: &[u8] =
            b"\xa1x\x82\xa1a\x93\x01\xc4\x02\xff\xfe\xd6\x00\x01\x02\x03\x04\xa1b\x81\xc0\xc7\x03\x05abc";
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("sorted", joined(&[b"\x82\xa4Node\xa5alpha\xa5SeqNo\x07"])),
            ("another order", joined(&[b"\x82\xa5SeqNo\x07\xa4Node\xa5alpha"])),
            (
                "unknown key",
                joined(&[b"\x83", unknown_nested, b"\xa5SeqNo\x07\xa4Node\xa5alpha"]),
            ),
            (
                "unknown key of another kind",
                joined(&[b"\x83\xa5seqno\x63\xa5SeqNo\x07\xa4Node\xa5alpha"]),
            ),
            (
                "nil for a field",
                joined(&[b"\x83\xaaSourceNode\xc0\xa5SeqNo\x07\xa4Node\xa5alpha"]),
            ),
            (
                "str8 key and value",
                joined(&[b"\x82\xd9\x05SeqNo\x07\xa4Node\xd9\x05alpha"]),
            ),
            (
                "str16",
                joined(&[b"\x82\xda\0\x05SeqNo\x07\xa4Node\xda\0\x05alpha"]),
            ),
            (
                "str32",
                joined(&[b"\x82\xdb\0\0\0\x05SeqNo\x07\xa4Node\xdb\0\0\0\x05alpha"]),
            ),
            ("bin8 text", joined(&[b"\x82\xa5SeqNo\x07\xa4Node\xc4\x05alpha"])),
            (
                "bin16 text",
                joined(&[b"\x82\xa5SeqNo\x07\xa4Node\xc5\0\x05alpha"]),
            ),
            (
                "bin32 text",
                joined(&[b"\x82\xa5SeqNo\x07\xa4Node\xc6\0\0\0\x05alpha"]),
            ),
            ("an array in declaration order", joined(&[b"\x92\x07\xa5alpha"])),
            ("array16", joined(&[b"\xdc\0\x02\x07\xa5alpha"])),
            ("array32", joined(&[b"\xdd\0\0\0\x02\x07\xa5alpha"])),
            (
                "a longer array",
                joined(&[b"\x97\x07\xa5alpha\xc0\xc0\xc0\x81\xa1x\x01\x02"]),
            ),
            ("map16", joined(&[b"\xde\0\x02\xa4Node\xa5alpha\xa5SeqNo\x07"])),
            (
                "map32",
                joined(&[b"\xdf\0\0\0\x02\xa4Node\xa5alpha\xa5SeqNo\x07"]),
            ),
            (
                "bytes after it",
                joined(&[b"\x82\xa4Node\xa5alpha\xa5SeqNo\x07rest"]),
            ),
        ];
        for (what, body) in cases {
            assert_eq!(ping(&body), Ok(expected), "{what}");
        }
        assert_eq!(ping(b"\x80"), Ok(Ping::default()), "missing keys");
        assert_eq!(ping(b"\xc0"), Ok(Ping::default()), "nil for the struct");
        assert_eq!(
            ping(b"\x81\xa5seqno\x07"),
            Ok(Ping::default()),
            "a key in other case"
        );
    }

    #[test]
    fn every_integer_code_is_accepted_for_every_integer_field() {
        for code in [
            &b"\x07"[..],
            b"\xcc\x07",
            b"\xcd\0\x07",
            b"\xce\0\0\0\x07",
            b"\xcf\0\0\0\0\0\0\0\x07",
            b"\xd0\x07",
            b"\xd1\0\x07",
            b"\xd2\0\0\0\x07",
            b"\xd3\0\0\0\0\0\0\0\x07",
        ] {
            let body = joined(&[b"\x82\xa5SeqNo", code, b"\xaaSourcePort", code]);
            let ping = ping(&body).expect("an integer");
            assert_eq!((ping.seq_no, ping.source_port), (7, 7), "{code:x?}");
            assert_eq!(Reader::new(code).i64(), Ok(7));
            assert_eq!(Reader::new(code).u64(), Ok(7));
            assert_eq!(Reader::new(code).u8(), Ok(7));
        }
        assert_eq!(Reader::new(b"\xce\xff\xff\xff\xff").u32(), Ok(u32::MAX));
        assert_eq!(
            Reader::new(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff").u64(),
            Ok(u64::MAX)
        );
        assert_eq!(Reader::new(b"\xd3\x80\0\0\0\0\0\0\0").i64(), Ok(i64::MIN));
        for (code, value) in [
            (&b"\xff"[..], -1),
            (b"\xe0", -32),
            (b"\xd0\x80", -128),
            (b"\xd1\xff\0", -256),
        ] {
            assert_eq!(Reader::new(code).i64(), Ok(value));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let seq_no = |code: &[u8]| ping(&joined(&[b"\x81\xa5SeqNo", code])).map(|ping| ping.seq_no);
        let range = Err(Fault::Range("0..=4294967295"));
        assert_eq!(seq_no(b"\xcf\0\0\0\x01\0\0\0\x01"), range);
        assert_eq!(seq_no(b"\xff"), range);
        assert_eq!(seq_no(b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff"), range);
        let kind = |found| {
            Err(Fault::Kind {
                expected: "an integer",
                found,
            })
        };
        assert_eq!(seq_no(b"\xcb\x40\x1c\0\0\0\0\0\0"), kind(0xcb));
        assert_eq!(seq_no(b"\xca\x40\xe0\0\0"), kind(0xca));
        assert_eq!(seq_no(b"\xa1\x31"), kind(0xa1));
        assert_eq!(Reader::new(b"\xcd\x01\0").u8(), Err(Fault::Range("0..=255")));
        assert_eq!(
            Reader::new(b"\xce\0\x01\0\0").u16(),
            Err(Fault::Range("0..=65535"))
        );
        assert!(Reader::new(b"\xcf\x80\0\0\0\0\0\0\0").i64().is_err());
    }

    #[test]
    fn booleans_may_be_numbers_or_nil() {
        for (code, nack) in [(0xc3, true), (0xc2, false), (1, true), (0, false), (0xc0, false)] {
            let body = joined(&[b"\x82\xa4Nack", &[code], b"\xa6Target\xa4abcd"]);
            let ping: IndirectPing<'_> = Reader::new(&body).fields().expect("a boolean");
            assert_eq!(ping.nack, nack);
        }
        assert!(Reader::new(b"\x02").bool().is_err());
    }

    #[test]
    fn bytes_may_be_str_bin_or_nil_but_not_an_array() {
        for body in [
            &b"\x81\xa7Payload\xa2ab"[..],
            b"\x81\xa7Payload\xc4\x02ab",
            b"\x81\xa7Payload\xd9\x02ab",
        ] {
            assert_eq!(
                Reader::new(body).fields(),
                Ok(Ack {
                    seq_no: 0,
                    payload: b"ab"
                })
            );
        }
        for body in [&b"\x81\xa7Payload\xc0"[..], b"\x81\xa7Payload\xa0"] {
            assert_eq!(Reader::new(body).fields(), Ok(Ack::default()));
        }
        let error = Reader::new(b"\x81\xa7Payload\x92\x01\x02")
            .fields::<Ack<'_>>()
            .expect_err("an array");
        assert_eq!(
            error.fault,
            Fault::Kind {
                expected: "text or bytes",
                found: 0x92
            }
        );
    }

    #[test]
    fn an_error_names_message_field_and_place() {
        let error = Reader::new(b"\x82\xa5SeqNo\x07\xa4Node\x05")
            .fields::<Ping<'_>>()
            .expect_err("no text");
        assert_eq!(
            error.to_string(),
            "ping Node at byte 14: expected text or bytes, found msgpack code 0x05"
        );
        let error = Reader::new(b"\x81\xa4Node\xa1a")
            .fields::<Alive<'_>>()
            .expect_err("no address");
        assert_eq!(
            error.to_string(),
            "alive Addr at byte 8: 0 bytes or entries, it must be 4 or 16"
        );
    }

    #[test]
    fn unknown_values_may_nest_eight_levels_and_no_deeper() {
        let nested = |levels: usize| {
            // The struct itself is the first level.
            let mut body = b"\x81\xa1x".to_vec();
            body.extend(std::iter::repeat_n(0x91, levels - 1));
            body.push(0);
            body
        };
        assert_eq!(ping(&nested(8)), Ok(Ping::default()));
        assert_eq!(ping(&nested(9)), Err(Fault::Depth));
        assert_eq!(ping(&nested(100_000)), Err(Fault::Depth));
    }

    #[test]
    fn counts_and_lengths_beyond_the_input_are_refused_at_once() {
        for body in [
            &b"\xdf\xff\xff\xff\xff"[..],
            b"\xdd\xff\xff\xff\xff",
            b"\x81\xa1x\xdf\xff\xff\xff\xff",
            b"\x81\xa1x\xdd\xff\xff\xff\xff",
            b"\x81\xa1x\xdb\xff\xff\xff\xff",
            b"\x81\xa1x\xc9\xff\xff\xff\xff",
            b"\x81\xa4Node\xdb\xff\xff\xff\xffabc",
            b"\x81\xdb\xff\xff\xff\xffabc",
            b"",
        ] {
            assert_eq!(ping(body), Err(Fault::Truncated), "{body:x?}");
        }
        assert_eq!(
            ping(b"\x81\xa1x\xc1"),
            Err(Fault::Kind {
                expected: "a value",
                found: 0xc1
            })
        );
    }

    #[test]
    fn names_are_bounded_and_utf8() {
        let named = |name: &[u8]| {
            let mut body = b"\x81\xa4Node".to_vec();
            Writer::new(&mut body).raw(name);
            ping(&body).map(|ping| ping.node.len())
        };
        assert_eq!(named(&[b'a'; 128]), Ok(128));
        assert_eq!(named(&[b'a'; 129]), Err(Fault::TooMany { len: 129, max: 128 }));
        assert_eq!(named(b"\xff"), Err(Fault::Utf8));
    }
}
