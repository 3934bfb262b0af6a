//! One table for each struct that travels: from it follow reading, writing and the names in errors.

use std::marker::PhantomData;

use super::fault::{DecodeError, Fault};
use super::read::{Reader, Shape};
use super::write::Writer;

/// A struct with named fields, as [`table!`](table) makes it.
pub(crate) trait Table<'a>: Sized {
    /// How errors name it.
    const NAME: &'static str;
    /// The fields by name, sorted as they are written, each with its place in Go's declaration, which
    /// counts when a struct comes as an array.
    const FIELDS: &'static [(&'static str, u32)];
    /// Does not compile when a table is out of order.
    const IS_SOUND: () = assert!(
        is_sound(Self::FIELDS),
        "fields stand in the order of their names, each with a place of its own"
    );

    /// What it is when none of its fields come.
    fn absent() -> Self;

    /// Reads the value of one field, which may come in any order. `false`: no such field, nothing was
    /// read.
    fn read_field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault>;

    /// What must hold once all fields are read; the error names the field.
    fn check(&self) -> Result<(), (&'static str, Fault)>;

    /// Writes the struct as a map.
    fn write(&self, writer: &mut Writer<'_>);
}

/// How a field of the type `T` is read and written.
pub(crate) trait Form<'a, T> {
    fn read(reader: &mut Reader<'a>) -> Result<T, Fault>;

    fn write(value: &T, writer: &mut Writer<'_>);

    /// The value of a field that does not come.
    fn absent() -> T
    where
        T: Default,
    {
        T::default()
    }

    /// Whether the field is not written at all.
    fn is_left_out(_: &T) -> bool {
        false
    }

    /// What must hold of the field in the end, whether it came or not.
    fn check(_: &T) -> Result<(), Fault> {
        Ok(())
    }
}

/// Defines a struct and how it travels. Each field is a line of its place in Go's declaration, its name
/// on the wire, its [`Form`], and the field in Rust; the lines stand in the order of the names. A struct
/// that is a message of its own names its type byte as well, and can be encoded.
macro_rules! table {
    ($(#[$attr:meta])* $vis:vis struct $name:ident<$life:lifetime>, $title:literal $(, $byte:path)? {
        $($(#[$doc:meta])* $place:literal $key:ident: $form:ty => $fvis:vis $field:ident: $ty:ty,)*
    }) => {
        $(#[$attr])* $vis struct $name<$life> { $($(#[$doc])* $fvis $field: $ty,)* }
        $crate::msgpack::table!(@impl $life ($name<$life>), $title { $($place $key: $form => $field: $ty,)* });
        $(impl $name<'_> { $crate::msgpack::table!(@encode $byte); })?
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident, $title:literal $(, $byte:path)? {
        $($(#[$doc:meta])* $place:literal $key:ident: $form:ty => $fvis:vis $field:ident: $ty:ty,)*
    }) => {
        $(#[$attr])* $vis struct $name { $($(#[$doc])* $fvis $field: $ty,)* }
        $crate::msgpack::table!(@impl 'a ($name), $title { $($place $key: $form => $field: $ty,)* });
        $(impl $name { $crate::msgpack::table!(@encode $byte); })?
    };
    (@encode $byte:path) => {
        /// Appends type byte and struct.
        pub fn encode(&self, out: &mut Vec<u8>) {
            out.push($byte);
            $crate::msgpack::Table::write(self, &mut $crate::msgpack::Writer::new(out));
        }
    };
    (@impl $life:lifetime ($($target:tt)*), $title:literal {
        $($place:literal $key:ident: $form:ty => $field:ident: $ty:ty,)*
    }) => {
        impl<$life> $crate::msgpack::Table<$life> for $($target)* {
            const NAME: &'static str = $title;
            const FIELDS: &'static [(&'static str, u32)] = &[$((stringify!($key), $place)),*];

            fn absent() -> Self {
                Self { $($field: <$form as $crate::msgpack::Form<$life, $ty>>::absent(),)* }
            }

            #[inline]
            fn read_field(
                &mut self,
                key: &[u8],
                reader: &mut $crate::msgpack::Reader<$life>,
            ) -> Result<bool, $crate::msgpack::Fault> {
                $(if key == stringify!($key).as_bytes() {
                    self.$field = <$form as $crate::msgpack::Form<$life, $ty>>::read(reader)?;
                    return Ok(true);
                })*
                Ok(false)
            }

            fn check(&self) -> Result<(), (&'static str, $crate::msgpack::Fault)> {
                $(<$form as $crate::msgpack::Form<$life, $ty>>::check(&self.$field)
                    .map_err(|fault| (stringify!($key), fault))?;)*
                Ok(())
            }

            fn write(&self, writer: &mut $crate::msgpack::Writer<'_>) {
                let left_out = [$(<$form as $crate::msgpack::Form<$life, $ty>>::is_left_out(&self.$field)),*];
                writer.map(left_out.iter().filter(|is_left_out| !**is_left_out).count());
                $(if !<$form as $crate::msgpack::Form<$life, $ty>>::is_left_out(&self.$field) {
                    writer.raw(stringify!($key));
                    <$form as $crate::msgpack::Form<$life, $ty>>::write(&self.$field, writer);
                })*
            }
        }
    };
}
pub(crate) use table;

impl<'a> Reader<'a> {
    /// Reads a struct as [`Reader::table`] does. Where its content is at fault, but not its msgpack,
    /// it is stepped over, and the inner result says what is wrong with it.
    pub(crate) fn table_or_skip<T: Table<'a>>(
        &mut self,
    ) -> Result<Result<T, DecodeError<Fault>>, DecodeError<Fault>> {
        let start = self.clone();
        let result = self.table();
        if result.is_err() {
            *self = start;
            self.skip()
                .map_err(|fault| DecodeError::new(T::NAME, self.offset(), fault))?;
        }
        Ok(result)
    }

    /// Reads a struct: a map, or an array in declaration order, or nil for all zero.
    #[inline]
    pub(crate) fn table<T: Table<'a>>(&mut self) -> Result<T, DecodeError<Fault>> {
        let () = T::IS_SOUND;
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

/// A number, truth value, text or bytes, as it is.
pub(crate) struct Plain;

macro_rules! plain {
    ($($ty:ty: $read:ident, $write:ident;)*) => {
        $(impl<'a> Form<'a, $ty> for Plain {
            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<$ty, Fault> {
                reader.$read()
            }

            fn write(value: &$ty, writer: &mut Writer<'_>) {
                writer.$write(*value);
            }
        })*
    };
}

plain! {
    bool: bool, bool;
    u8: u8, uint;
    u16: u16, uint;
    u32: u32, uint;
    u64: u64, uint;
    i64: i64, int;
    f64: float, float;
    &'a str: text, raw;
    &'a [u8]: bytes, raw;
}

/// Written as nil when it is empty, as Go does it with a nil slice. The two mean the same to every
/// receiver.
pub(crate) struct OrNil<K>(PhantomData<K>);

impl<'a, K: Form<'a, &'a [u8]>> Form<'a, &'a [u8]> for OrNil<K> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
        K::read(reader)
    }

    fn write(value: &&'a [u8], writer: &mut Writer<'_>) {
        if value.is_empty() {
            writer.nil();
        } else {
            K::write(value, writer);
        }
    }
}

impl<'a, T, K: Form<'a, Vec<T>>> Form<'a, Vec<T>> for OrNil<K> {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<T>, Fault> {
        K::read(reader)
    }

    fn write(value: &Vec<T>, writer: &mut Writer<'_>) {
        if value.is_empty() {
            writer.nil();
        } else {
            K::write(value, writer);
        }
    }
}

/// Left out when it is zero or empty.
pub(crate) struct Omit<K>(PhantomData<K>);

impl<'a, T: Default + PartialEq, K: Form<'a, T>> Form<'a, T> for Omit<K> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<T, Fault> {
        K::read(reader)
    }

    fn write(value: &T, writer: &mut Writer<'_>) {
        K::write(value, writer);
    }

    fn is_left_out(value: &T) -> bool {
        *value == T::default()
    }

    fn check(value: &T) -> Result<(), Fault> {
        if Self::is_left_out(value) {
            Ok(())
        } else {
            K::check(value)
        }
    }
}

/// Text or bytes, of at most `MAX` bytes.
pub(crate) struct AtMost<const MAX: usize>;

impl<'a, T: AsRef<[u8]>, const MAX: usize> Form<'a, T> for AtMost<MAX>
where
    Plain: Form<'a, T>,
{
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<T, Fault> {
        let value = Plain::read(reader)?;
        Fault::bound(value.as_ref().len(), MAX)?;
        Ok(value)
    }

    fn write(value: &T, writer: &mut Writer<'_>) {
        Plain::write(value, writer);
    }
}

/// Text that must be there.
pub(crate) struct Filled<K>(PhantomData<K>);

impl<'a, K: Form<'a, &'a str>> Form<'a, &'a str> for Filled<K> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
        K::read(reader)
    }

    fn write(value: &&'a str, writer: &mut Writer<'_>) {
        K::write(value, writer);
    }

    fn check(value: &&'a str) -> Result<(), Fault> {
        if value.is_empty() {
            Err(Fault::Empty)
        } else {
            Ok(())
        }
    }
}

/// A struct within a struct.
pub(crate) struct Nested;

impl<'a, T: Table<'a>> Form<'a, T> for Nested {
    fn read(reader: &mut Reader<'a>) -> Result<T, Fault> {
        reader.table().map_err(|error| error.fault)
    }

    fn write(value: &T, writer: &mut Writer<'_>) {
        value.write(writer);
    }

    fn absent() -> T {
        T::absent()
    }

    fn check(value: &T) -> Result<(), Fault> {
        value.check().map_err(|(_, fault)| fault)
    }
}

/// An array of at most `MAX` entries.
pub(crate) struct List<K, const MAX: usize>(PhantomData<K>);

impl<'a, T, K: Form<'a, T>, const MAX: usize> Form<'a, Vec<T>> for List<K, MAX> {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<T>, Fault> {
        let mut list = Vec::new();
        reader.array(MAX, |reader| {
            list.push(K::read(reader)?);
            Ok(())
        })?;
        Ok(list)
    }

    fn write(value: &Vec<T>, writer: &mut Writer<'_>) {
        writer.array(value.len());
        for item in value {
            K::write(item, writer);
        }
    }
}

/// A map of at most `MAX` entries, in the order in which they come.
pub(crate) struct Pairs<K, V, const MAX: usize>(PhantomData<(K, V)>);

impl<'a, A, B, K: Form<'a, A>, V: Form<'a, B>, const MAX: usize> Form<'a, Vec<(A, B)>> for Pairs<K, V, MAX> {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<(A, B)>, Fault> {
        let mut pairs = Vec::new();
        reader.map(MAX, |reader| {
            pairs.push((K::read(reader)?, V::read(reader)?));
            Ok(())
        })?;
        Ok(pairs)
    }

    fn write(value: &Vec<(A, B)>, writer: &mut Writer<'_>) {
        writer.map(value.len());
        for (key, value) in value {
            K::write(key, writer);
            V::write(value, writer);
        }
    }
}

/// Whether names ascend, byte by byte, and no place is taken twice.
const fn is_sound(mut fields: &[(&str, u32)]) -> bool {
    let mut taken = 0u64;
    while let [(first, place), rest @ ..] = fields {
        if let [(second, _), ..] = rest
            && !is_before(first.as_bytes(), second.as_bytes())
        {
            return false;
        }
        if taken & 1 << *place != 0 {
            return false;
        }
        taken |= 1 << *place;
        fields = rest;
    }
    true
}

const fn is_before(mut left: &[u8], mut right: &[u8]) -> bool {
    loop {
        match (left, right) {
            ([first, left_rest @ ..], [second, right_rest @ ..]) => {
                if *first != *second {
                    return *first < *second;
                }
                (left, right) = (left_rest, right_rest);
            }
            (_, right) => return !right.is_empty() && left.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn a_table_out_of_order_is_noticed() {
        assert!(is_sound(&[("A", 1), ("AB", 0), ("B", 2)]));
        assert!(!is_sound(&[("B", 0), ("A", 1)]));
        assert!(!is_sound(&[("AB", 0), ("A", 1)]));
        assert!(!is_sound(&[("A", 0), ("A", 1)]));
        assert!(!is_sound(&[("A", 1), ("B", 1)]));
    }

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
                    payload: b"ab",
                    ..Ack::default()
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
