//! MessagePack as Serf's RPC speaks it.
//!
//! Encoding is exact: string keys in alphabetical order, byte strings as bin, the smallest integer
//! form with everything non-negative unsigned, and nil where Go has a nil slice or map. Decoding is
//! as lenient as Serf's agent, for clients of many languages: nil and missing fields are zero values,
//! unknown fields are skipped, an array is read by position, of a repeated field the last one counts,
//! strings and byte strings stand for each other.

use std::fmt;

use fyrd_core::msgpack::{Fault, Reader, Shape};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer, forward_to_deserialize_any};

/// Why bytes are no object of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// An object, or a length field in it, beyond the reader's bound.
    #[error("object exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// Not one complete MessagePack object.
    #[error("malformed MessagePack: {0}")]
    Malformed(String),
    /// A field of another type than the protocol says, or a number that it cannot hold.
    #[error("{field}: {fault}")]
    Field {
        /// The field's name, its place if it came by position, or `body`.
        field: &'static str,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A field whose text is not among the known ones.
    #[error("{field}: unknown value {value:?}")]
    UnknownValue {
        /// The field's name.
        field: &'static str,
        /// What was sent.
        value: String,
    },
}

/// What a scan found.
impl From<Fault> for CodecError {
    fn from(fault: Fault) -> CodecError {
        match fault {
            Fault::TooMany { max, .. } => CodecError::TooLarge { limit: max },
            other => CodecError::Malformed(other.to_string()),
        }
    }
}

impl de::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> CodecError {
        CodecError::Malformed(message.to_string())
    }
}

/// Appends `value` to `out` in the form Serf sends it.
///
/// The protocol's own types never fail to encode; an error would be a type serde cannot express.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
    value
        .serialize(&mut serializer)
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Reads one object, which a scan has found complete and bounded.
pub fn decode<T: DeserializeOwned>(object: &[u8]) -> Result<T, CodecError> {
    let reader = &mut Reader::new(object);
    T::deserialize(Lenient {
        reader,
        field: "body",
    })
}

/// One value, and the field that it stands in.
struct Lenient<'r, 'de> {
    reader: &'r mut Reader<'de>,
    field: &'static str,
}

impl<'de> Lenient<'_, 'de> {
    fn read<T>(self, read: impl FnOnce(&mut Reader<'de>) -> Result<T, Fault>) -> Result<T, CodecError> {
        let field = self.field;
        read(self.reader).map_err(|fault| CodecError::Field { field, fault })
    }
}

macro_rules! numbers {
    ($($deserialize:ident, $read:expr, $visit:ident;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(self.read($read)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Lenient<'_, 'de> {
    type Error = CodecError;

    numbers! {
        deserialize_bool, Reader::bool, visit_bool;
        deserialize_u8, Reader::u8, visit_u8;
        deserialize_u16, Reader::u16, visit_u16;
        deserialize_u32, Reader::u32, visit_u32;
        deserialize_u64, Reader::u64, visit_u64;
        deserialize_i32, signed_32, visit_i32;
        deserialize_i64, Reader::i64, visit_i64;
        deserialize_f64, Reader::float, visit_f64;
    }

    /// Text that is no UTF-8 is repaired, never refused.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let bytes = self.read(Reader::bytes)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => visitor.visit_string(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.read(Reader::bytes)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.reader.nil() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let Lenient { reader, field } = self;
        let left = reader
            .open_array(usize::MAX)
            .map_err(|fault| CodecError::Field { field, fault })?;
        let list = visitor.visit_seq(Items { reader, field, left })?;
        reader.close();
        Ok(list)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let Lenient { reader, field } = self;
        let left = reader
            .open_map(usize::MAX)
            .map_err(|fault| CodecError::Field { field, fault })?;
        let map = visitor.visit_map(Items { reader, field, left })?;
        reader.close();
        Ok(map)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let found = self.read(|reader| named(reader, names))?;
        visitor.visit_map(Named {
            fields: found.into_iter(),
            value: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let field = self.field;
        let value = String::from_utf8_lossy(self.read(Reader::bytes)?);
        match names.iter().find(|name| **name == value) {
            Some(name) => visitor.visit_enum(StrDeserializer::new(name)),
            None => Err(CodecError::UnknownValue {
                field,
                value: value.into_owned(),
            }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.read(Reader::skip)?;
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(de::Error::custom("the type of a field must be known"))
    }

    forward_to_deserialize_any! { i8 i16 i128 u128 f32 char unit unit_struct tuple tuple_struct }
}

fn signed_32(reader: &mut Reader<'_>) -> Result<i32, Fault> {
    i32::try_from(reader.i64()?).map_err(|_| Fault::Range("a signed 32-bit integer"))
}

/// Finds the fields of a struct, each by its name or its place. A place is a name of digits, which no
/// field in a map has.
fn named<'de>(
    reader: &mut Reader<'de>,
    names: &'static [&'static str],
) -> Result<Vec<(&'static str, Reader<'de>)>, Fault> {
    let mut found: Vec<(&'static str, Reader<'de>)> = Vec::new();
    let (len, by_name) = match reader.open_struct()? {
        Shape::Map(len) => (len, true),
        Shape::Array(len) => (len, false),
    };
    for place in 0..len {
        let name = if by_name {
            // Not every key is a text.
            let key = reader.clone().bytes().unwrap_or_default();
            reader.skip()?;
            names
                .iter()
                .find(|name| name.as_bytes() == key && !is_place(name))
        } else {
            names.iter().find(|name| name.parse() == Ok(place))
        };
        if let Some(name) = name {
            found.retain(|(earlier, _)| earlier != name);
            found.push((name, reader.clone()));
        }
        reader.skip()?;
    }
    reader.close();
    Ok(found)
}

fn is_place(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit())
}

/// The fields of a struct.
struct Named<'de> {
    fields: std::vec::IntoIter<(&'static str, Reader<'de>)>,
    value: Option<(&'static str, Reader<'de>)>,
}

impl<'de> MapAccess<'de> for Named<'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        self.value = self.fields.next();
        match &self.value {
            Some((name, _)) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        let (field, mut reader) = self.value.take().unwrap_or(("body", Reader::new(&[])));
        seed.deserialize(Lenient {
            reader: &mut reader,
            field,
        })
    }
}

/// The items of an array, or the keys and values of a map.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    field: &'static str,
    left: u32,
}

impl<'de> Items<'_, 'de> {
    fn item(&mut self) -> Lenient<'_, 'de> {
        Lenient {
            reader: self.reader,
            field: self.field,
        }
    }

    fn next_item<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                seed.deserialize(self.item()).map(Some)
            }
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        self.next_item(seed)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        self.next_item(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        seed.deserialize(self.item())
    }
}

/// Bytes in a field, written as bin, none as nil: `#[serde(with = "payload")]`.
pub(super) mod payload {
    use std::fmt;

    use serde::de::{Deserializer, Visitor};
    use serde::ser::Serializer;

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if bytes.is_empty() {
            serializer.serialize_none()
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_bytes(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}

/// Writes an empty list as nil.
pub(super) fn list_or_nil<T: Serialize, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() {
        serializer.serialize_none()
    } else {
        list.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct One<T> {
        #[serde(alias = "1")]
        a: T,
        #[serde(alias = "0")]
        b: String,
    }

    /// The field A of an object, which also has a text B.
    fn read<T: Default + DeserializeOwned>(object: &[u8]) -> Result<T, CodecError> {
        decode::<One<T>>(object).map(|one| one.a)
    }

    fn a<T: Default + DeserializeOwned>(value: &[u8]) -> Result<T, CodecError> {
        read(&[&[0x81, 0xa1, b'A'], value].concat())
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(transparent)]
    struct Payload(#[serde(with = "payload")] Vec<u8>);

    #[test]
    fn nil_missing_and_unknown_fields() {
        for object in [
            &[0xc0][..],
            &[0x80],
            &[0x90],
            &[0x81, 0xa1, b'A', 0xc0],
            &[0x81, 0xa1, b'a', 0x05],
            &[0x81, 0xa1, b'1', 0x05],
            &[0x81, 0xa1, b'z', 0xd4, 1, 1],
            &[0x82, 0x07, 0x05, 0xa1, b'z', 0x81, 0x01, 0x02],
        ] {
            assert_eq!(read(object), Ok(String::new()), "{object:02x?}");
            assert_eq!(read(object), Ok(Payload(Vec::new())));
            assert_eq!(read(object), Ok(0u64));
            assert_eq!(read(object), Ok(false));
            assert_eq!(read(object), Ok(0.0));
            assert_eq!(read(object), Ok(Vec::<String>::new()));
            assert_eq!(read(object), Ok(BTreeMap::<String, String>::new()));
            assert_eq!(read(object), Ok(None::<i64>));
        }
    }

    #[test]
    fn strings_and_bytes_stand_for_each_other() {
        assert_eq!(a(&[0xa1, b'x']), Ok(Payload(b"x".to_vec())));
        assert_eq!(a(&[0xc4, 1, b'x']), Ok("x".to_owned()));
        assert_eq!(
            read(&[0x81, 0xc4, 1, b'A', 0xa1, b'x']),
            Ok("x".to_owned()),
            "key as bin"
        );
        assert_eq!(a(&[0xa1, 0xff]), Ok("\u{fffd}".to_owned()));
        assert_eq!(a(&[0xa1, 0xff]), Ok(Payload(vec![0xff])));
    }

    #[test]
    fn arrays_are_read_by_position() {
        let expected = One {
            a: 7u8,
            b: "x".to_owned(),
        };
        assert_eq!(decode(&[0x93, 0xa1, b'x', 0x07, 0x09]), Ok(expected));
    }

    #[test]
    fn of_a_repeated_field_the_last_one_counts() {
        assert_eq!(read(&[0x82, 0xa1, b'A', 0xa1, b'x', 0xa1, b'A', 7]), Ok(7u8));
    }

    #[test]
    fn booleans_numbers_and_floats() {
        assert_eq!(a(&[1]), Ok(true));
        assert_eq!(a(&[0xc3]), Ok(true));
        assert!(a::<bool>(&[2]).is_err());
        assert_eq!(a(&[0xd0, 5]), Ok(5u8), "a signed form of a positive number");
        assert_eq!(a(&[0xff]), Ok(-1i32));
        let out_of_range = |range| CodecError::Field {
            field: "A",
            fault: Fault::Range(range),
        };
        assert_eq!(a::<u64>(&[0xff]), Err(out_of_range("0..=18446744073709551615")));
        assert_eq!(a::<u8>(&[0xcd, 1, 44]), Err(out_of_range("0..=255")));
        assert_eq!(
            a::<i32>(&[0xce, 0x80, 0, 0, 0]),
            Err(out_of_range("a signed 32-bit integer"))
        );
        assert!(
            a::<u8>(&[0xca, 0x3f, 0x80, 0, 0]).is_err(),
            "a float for an integer"
        );
        assert!(a::<u8>(&[0xc3]).is_err());
        assert_eq!(a(&[0xca, 0x3f, 0x80, 0, 0]), Ok(1.0));
        assert_eq!(a(&[3]), Ok(3.0));
    }

    #[test]
    fn errors_name_the_field_and_not_its_content() {
        let error = a::<String>(&[0x05]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "A: expected text or bytes, found msgpack code 0x05"
        );
        let error = a::<Vec<u64>>(&[0x91, 0xa6, b's', b'e', b'c', b'r', b'e', b't']).unwrap_err();
        assert_eq!(
            error.to_string(),
            "A: expected an integer, found msgpack code 0xa6"
        );
        let error = decode::<One<u8>>(&[0xa6, b's', b'e', b'c', b'r', b'e', b't']).unwrap_err();
        assert_eq!(error.to_string(), "body: expected a map, found msgpack code 0xa6");
    }

    #[test]
    fn refuses_extensions_truncation_and_depth() {
        assert!(a::<String>(&[0xd4, 1, 1]).is_err());
        assert!(read::<String>(&[0x92, 1]).is_err());
        assert!(read::<String>(&[]).is_err());
        assert!(read::<String>(&[0x91; 100_000]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            let _ = decode::<One<BTreeMap<String, Vec<String>>>>(&bytes);
        }
    }
}
