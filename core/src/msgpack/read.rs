//! Reading values from the front of a slice.

use super::fault::{DecodeError, Fault};
use super::scan::ValueScan;
use super::table::Table;
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

    /// Reads a struct as [`Reader::table`] does. Where its content is at fault, but not its msgpack,
    /// it is stepped over, and the inner result says what is wrong with it.
    #[expect(clippy::type_complexity, reason = "one error inside the other")]
    pub(crate) fn table_or_skip<T: Table<'a>>(
        &mut self,
    ) -> Result<Result<T, DecodeError<Fault>>, DecodeError<Fault>> {
        let (rest, depth) = (self.rest, self.depth);
        let result = self.table();
        if result.is_err() {
            (self.rest, self.depth) = (rest, depth);
            self.skip()
                .map_err(|fault| DecodeError::new(T::NAME, self.offset(), fault))?;
        }
        Ok(result)
    }

    /// Reads a struct: a map, or an array in declaration order, or nil for all zero.
    #[inline]
    pub(crate) fn table<T: Table<'a>>(&mut self) -> Result<T, DecodeError<Fault>> {
        let () = T::IS_SORTED;
        let mut value = T::absent();
        let fail = |reader: &Reader<'a>, field, fault: Fault| {
            DecodeError::in_field(T::NAME, field, reader.offset(), fault)
        };
        let shape = self.open_struct().map_err(|fault| fail(self, "", fault))?;
        match shape {
            Shape::Map(len) => {
                for _ in 0..len {
                    let key = self.bytes().map_err(|fault| fail(self, "", fault))?;
                    self.one_field(&mut value, key)
                        .map_err(|fault| fail(self, name_of::<T>(key), fault))?;
                }
            }
            Shape::Array(len) => {
                for place in 0..len {
                    let key = name_at::<T>(place);
                    self.one_field(&mut value, key.as_bytes())
                        .map_err(|fault| fail(self, key, fault))?;
                }
            }
        }
        self.close();
        value.check().map_err(|(field, fault)| fail(self, field, fault))?;
        Ok(value)
    }

    #[inline]
    fn one_field<T: Table<'a>>(&mut self, value: &mut T, key: &[u8]) -> Result<(), Fault> {
        if value.read_field(key, self)? {
            Ok(())
        } else {
            self.skip()
        }
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

/// The name as the table has it; empty for one that it does not have.
fn name_of<'a, T: Table<'a>>(key: &[u8]) -> &'static str {
    let mut names = T::FIELDS.iter().map(|(name, _)| *name);
    names.find(|name| name.as_bytes() == key).unwrap_or("")
}

fn name_at<'a, T: Table<'a>>(place: u32) -> &'static str {
    let field = T::FIELDS.iter().find(|(_, found)| *found == place);
    field.map_or("", |(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::super::{Filled, OrNil, Plain, Writer, table};
    use super::*;

    table! {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct Ping<'a>, "ping" {
            2 Nack: Plain => nack: bool,
            1 Node: Plain => node: &'a str,
            0 SeqNo: Plain => seq_no: u32,
            3 SourceNode: Plain => source_node: &'a str,
            4 SourcePort: Plain => source_port: u16,
        }
    }

    table! {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct Ack<'a>, "ack" {
            1 Payload: OrNil<Plain> => payload: &'a [u8],
            0 SeqNo: Plain => seq_no: u32,
        }
    }

    table! {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct Alive<'a>, "alive" {
            1 Incarnation: Plain => incarnation: u32,
            0 Node: Filled<Plain> => node: &'a str,
        }
    }

    fn ping(body: &[u8]) -> Result<Ping<'_>, Fault> {
        Reader::new(body)
            .table()
            .map_err(|error: DecodeError<Fault>| error.fault)
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// What the newer generation accepts where the two differ, with the ping as the carrier.
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
            let ping: Ping<'_> = Reader::new(&body).table().expect("a boolean");
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
                Reader::new(body).table(),
                Ok(Ack {
                    seq_no: 0,
                    payload: b"ab"
                })
            );
        }
        for body in [&b"\x81\xa7Payload\xc0"[..], b"\x81\xa7Payload\xa0"] {
            assert_eq!(Reader::new(body).table(), Ok(Ack::default()));
        }
        let error = Reader::new(b"\x81\xa7Payload\x92\x01\x02")
            .table::<Ack<'_>>()
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
            .table::<Ping<'_>>()
            .expect_err("no text");
        assert_eq!(
            error.to_string(),
            "ping Node at byte 14: expected text or bytes, found msgpack code 0x05"
        );
        let error = Reader::new(b"\x81\xabIncarnation\x01")
            .table::<Alive<'_>>()
            .expect_err("no name");
        assert_eq!(error.to_string(), "alive Node at byte 14: must not be empty");
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
    fn a_struct_may_come_in_both_shapes_with_the_same_meaning() {
        let alive = Alive {
            incarnation: 7,
            node: "a",
        };
        let mut out = Vec::new();
        alive.write(&mut Writer::new(&mut out));
        assert_eq!(out, b"\x82\xabIncarnation\x07\xa4Node\xa1a");
        assert_eq!(Reader::new(&out).table(), Ok(alive));
        assert_eq!(Reader::new(b"\x92\xa1a\x07").table(), Ok(alive));
    }
}
