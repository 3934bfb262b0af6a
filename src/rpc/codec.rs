//! MessagePack as Serf's RPC speaks it.
//!
//! Encoding is exact: string keys in alphabetical order, byte strings as bin, the smallest integer
//! form with everything non-negative unsigned, and nil where Go has a nil slice or map. Decoding is
//! as lenient as Serf's agent, for clients of many languages: an object is read into a [`Value`]
//! first, and [`Fields`] then picks what it needs. Nil and missing fields are zero values, unknown
//! fields are skipped, an array is read by position, strings and byte strings stand for each other.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

/// Why bytes are no object of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// An object, or a length field in it, beyond the reader's bound.
    #[error("object exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// Containers nest too deep.
    #[error("containers nest deeper than {} levels", super::frame::MAX_DEPTH)]
    TooDeep,
    /// The byte 0xc1, which MessagePack never uses.
    #[error("byte 0xc1 is no MessagePack marker")]
    Reserved,
    /// Not one complete MessagePack object.
    #[error("malformed MessagePack: {0}")]
    Malformed(String),
    /// A field of another type than the protocol says.
    #[error("{field}: {found} where {wanted} is expected")]
    WrongType {
        /// The field's name, or `body`.
        field: &'static str,
        /// What was sent.
        found: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A number its field cannot hold.
    #[error("{field}: number out of range")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
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

/// Appends `value` to `out` in the form Serf sends it.
///
/// The protocol's own types never fail to encode; an error would be a type serde cannot express.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
    value
        .serialize(&mut serializer)
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Any MessagePack object.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nil; Go's zero value of whatever is expected.
    Nil,
    /// A boolean.
    Bool(bool),
    /// A non-negative integer.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A float of either width.
    Float(f64),
    /// A string.
    Text(String),
    /// A byte string, or a string that is not UTF-8.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<Value>),
    /// A map, in the order of arrival.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Decodes one object, which a [`Scanner`](super::frame::Scanner) has found complete and bounded.
    pub fn decode(bytes: &[u8]) -> Result<Value, CodecError> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
        deserializer.set_max_depth(super::frame::MAX_DEPTH + 1);
        Value::deserialize(&mut deserializer).map_err(|error| CodecError::Malformed(error.to_string()))
    }

    /// What this is, for error texts.
    fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "a boolean",
            Value::Unsigned(_) | Value::Negative(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::Bytes(_) => "a byte string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    fn wrong(&self, field: &'static str, wanted: &'static str) -> CodecError {
        CodecError::WrongType {
            field,
            found: self.kind(),
            wanted,
        }
    }

    /// A map key or a string field; bytes that are no UTF-8 are replaced, never refused.
    fn into_text(self, field: &'static str) -> Result<String, CodecError> {
        match self {
            Value::Nil => Ok(String::new()),
            Value::Text(text) => Ok(text),
            Value::Bytes(bytes) => Ok(String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())),
            other => Err(other.wrong(field, "a string")),
        }
    }

    fn into_list(self, field: &'static str) -> Result<Vec<Value>, CodecError> {
        match self {
            Value::Nil => Ok(Vec::new()),
            Value::List(list) => Ok(list),
            other => Err(other.wrong(field, "a list")),
        }
    }

    fn into_map(self, field: &'static str) -> Result<Vec<(Value, Value)>, CodecError> {
        match self {
            Value::Nil => Ok(Vec::new()),
            Value::Map(map) => Ok(map),
            other => Err(other.wrong(field, "a map")),
        }
    }

    /// Go's `int` as the key tables and the stats use it.
    fn into_integer(self, field: &'static str) -> Result<i128, CodecError> {
        match self {
            Value::Nil => Ok(0),
            Value::Unsigned(number) => Ok(number.into()),
            Value::Negative(number) => Ok(number.into()),
            other => Err(other.wrong(field, "an integer")),
        }
    }

    /// A map of strings to whatever `read` makes of the values. Of a repeated key the last one counts.
    pub fn into_text_map<T>(
        self,
        field: &'static str,
        read: impl Fn(Value, &'static str) -> Result<T, CodecError>,
    ) -> Result<BTreeMap<String, T>, CodecError> {
        self.into_map(field)?
            .into_iter()
            .map(|(key, value)| Ok((key.into_text(field)?, read(value, field)?)))
            .collect()
    }

    /// A map of strings to strings.
    pub fn into_strings(self, field: &'static str) -> Result<BTreeMap<String, String>, CodecError> {
        self.into_text_map(field, Value::into_text)
    }
}

impl fmt::Debug for Value {
    /// Only the kind: a value may carry a key or a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.kind())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack object without extension types")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Value, D::Error> {
        Err(de::Error::custom("extension types are not part of the protocol"))
    }
}

/// Secret strings with a count each, sorted; erased from memory on drop.
pub type SecretCounts = Vec<(Zeroizing<String>, i64)>;

/// The fields of a decoded map or array, to be taken out one by one.
#[derive(Debug)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Sorts `value` into the fields called `names`, which stand in the order in which an array is
    /// read. What has no name here is dropped; of a repeated field the last one counts.
    pub fn new(value: Value, names: &[&'static str]) -> Result<Fields, CodecError> {
        let found = match value {
            Value::Nil => Vec::new(),
            Value::List(list) => names.iter().copied().zip(list).collect(),
            Value::Map(map) => map
                .into_iter()
                .filter_map(|(key, value)| Some((named(&key, names)?, value)))
                .collect(),
            other => return Err(other.wrong("body", "a map")),
        };
        Ok(Fields(found))
    }

    /// Decodes one object into its fields.
    pub fn decode(bytes: &[u8], names: &[&'static str]) -> Result<Fields, CodecError> {
        Fields::new(Value::decode(bytes)?, names)
    }

    /// The raw field, or `None` when it is missing.
    pub fn take(&mut self, field: &'static str) -> Option<Value> {
        let found = self.0.iter_mut().rev().find(|(name, _)| *name == field);
        found.map(|(_, value)| std::mem::replace(value, Value::Nil))
    }

    fn value(&mut self, field: &'static str) -> Value {
        self.take(field).unwrap_or(Value::Nil)
    }

    /// A string.
    pub fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        self.value(field).into_text(field)
    }

    /// A byte string.
    pub fn bytes(&mut self, field: &'static str) -> Result<Vec<u8>, CodecError> {
        match self.value(field) {
            Value::Nil => Ok(Vec::new()),
            Value::Bytes(bytes) => Ok(bytes),
            Value::Text(text) => Ok(text.into_bytes()),
            other => Err(other.wrong(field, "a byte string")),
        }
    }

    /// A boolean; the integers 0 and 1 are taken for one.
    pub fn boolean(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.value(field) {
            Value::Nil | Value::Unsigned(0) => Ok(false),
            Value::Unsigned(1) => Ok(true),
            Value::Bool(value) => Ok(value),
            other => Err(other.wrong(field, "a boolean")),
        }
    }

    /// An integer of any width.
    pub fn integer<T: TryFrom<i128>>(&mut self, field: &'static str) -> Result<T, CodecError> {
        let number = self.value(field).into_integer(field)?;
        T::try_from(number).map_err(|_| CodecError::OutOfRange { field })
    }

    /// A float; integers are taken for one.
    pub fn float(&mut self, field: &'static str) -> Result<f64, CodecError> {
        as_float(self.value(field), field)
    }

    /// A list of floats.
    pub fn floats(&mut self, field: &'static str) -> Result<Vec<f64>, CodecError> {
        self.list(field, |value| as_float(value, field))
    }

    /// A list of strings.
    pub fn texts(&mut self, field: &'static str) -> Result<Vec<String>, CodecError> {
        self.list(field, |value| value.into_text(field))
    }

    /// A list of whatever `read` makes of the items.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        read: impl Fn(Value) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        self.value(field)
            .into_list(field)?
            .into_iter()
            .map(read)
            .collect()
    }

    /// A map of strings to strings.
    pub fn strings(&mut self, field: &'static str) -> Result<BTreeMap<String, String>, CodecError> {
        self.value(field).into_strings(field)
    }

    /// A map of secret strings to counts, sorted, or `None` for nil.
    pub fn secret_counts(&mut self, field: &'static str) -> Result<Option<SecretCounts>, CodecError> {
        let map = match self.value(field) {
            Value::Nil => return Ok(None),
            value => value.into_map(field)?,
        };
        let mut counts = map
            .into_iter()
            .map(|(key, count)| {
                let key = Zeroizing::new(key.into_text(field)?);
                let count = i64::try_from(count.into_integer(field)?);
                Ok((key, count.map_err(|_| CodecError::OutOfRange { field })?))
            })
            .collect::<Result<Vec<_>, CodecError>>()?;
        counts.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Ok(Some(counts))
    }
}

fn named(key: &Value, names: &[&'static str]) -> Option<&'static str> {
    let key = match key {
        Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        _ => return None,
    };
    names.iter().copied().find(|name| name.as_bytes() == key)
}

fn as_float(value: Value, field: &'static str) -> Result<f64, CodecError> {
    match value {
        Value::Nil => Ok(0.0),
        Value::Float(number) => Ok(number),
        Value::Unsigned(number) => Ok(number as f64),
        Value::Negative(number) => Ok(number as f64),
        other => Err(other.wrong(field, "a float")),
    }
}

/// Writes bytes as bin, none as nil: `#[serde(serialize_with)]` of every payload.
pub(super) fn bytes_or_nil<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.is_empty() {
        serializer.serialize_none()
    } else {
        serializer.serialize_bytes(bytes)
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
    use proptest::prelude::*;

    use super::*;

    fn fields(bytes: &[u8]) -> Fields {
        Fields::decode(bytes, &["A", "B"]).unwrap()
    }

    #[test]
    fn nil_missing_and_unknown_fields() {
        for bytes in [
            &[0xc0][..],
            &[0x80],
            &[0x90],
            &[0x81, 0xa1, b'A', 0xc0],
            &[0x81, 0xa1, b'a', 0x05],
            &[0x82, 0x07, 0x05, 0xa1, b'z', 0x81, 0x01, 0x02],
        ] {
            let mut found = fields(bytes);
            assert_eq!(found.text("A"), Ok(String::new()), "{bytes:02x?}");
            let mut found = fields(bytes);
            assert_eq!(found.bytes("A"), Ok(Vec::new()));
            assert_eq!(found.integer::<u64>("A"), Ok(0));
            assert_eq!(found.boolean("A"), Ok(false));
            assert_eq!(found.float("A"), Ok(0.0));
            assert_eq!(found.texts("A"), Ok(Vec::new()));
            assert_eq!(found.strings("A"), Ok(BTreeMap::new()));
            assert_eq!(found.secret_counts("A"), Ok(None));
        }
    }

    #[test]
    fn strings_and_bytes_stand_for_each_other() {
        assert_eq!(
            fields(&[0x81, 0xa1, b'A', 0xa1, b'x']).bytes("A"),
            Ok(b"x".to_vec())
        );
        assert_eq!(
            fields(&[0x81, 0xa1, b'A', 0xc4, 1, b'x']).text("A"),
            Ok("x".into())
        );
        assert_eq!(
            fields(&[0x81, 0xc4, 1, b'A', 0xa1, b'x']).text("A"),
            Ok("x".into()),
            "key as bin"
        );
        assert_eq!(
            fields(&[0x81, 0xa1, b'A', 0xa1, 0xff]).text("A"),
            Ok("\u{fffd}".into())
        );
        assert_eq!(fields(&[0x81, 0xa1, b'A', 0xa1, 0xff]).bytes("A"), Ok(vec![0xff]));
    }

    #[test]
    fn arrays_are_read_by_position() {
        let mut found = fields(&[0x93, 0x07, 0xa1, b'x', 0x09]);
        assert_eq!(found.integer::<u8>("A"), Ok(7));
        assert_eq!(found.text("B"), Ok("x".into()));
    }

    #[test]
    fn booleans_numbers_and_floats() {
        let a = |value: &[u8]| fields(&[&[0x81, 0xa1, b'A'], value].concat());
        assert_eq!(a(&[1]).boolean("A"), Ok(true));
        assert_eq!(a(&[0xc3]).boolean("A"), Ok(true));
        assert!(a(&[2]).boolean("A").is_err());
        assert_eq!(
            a(&[0xd0, 5]).integer::<u8>("A"),
            Ok(5),
            "a signed form of a positive number"
        );
        assert_eq!(a(&[0xff]).integer::<i32>("A"), Ok(-1));
        assert_eq!(
            a(&[0xff]).integer::<u64>("A"),
            Err(CodecError::OutOfRange { field: "A" })
        );
        assert_eq!(
            a(&[0xcd, 1, 44]).integer::<u8>("A"),
            Err(CodecError::OutOfRange { field: "A" })
        );
        assert!(
            a(&[0xca, 0x3f, 0x80, 0, 0]).integer::<u8>("A").is_err(),
            "a float for an integer"
        );
        assert!(a(&[0xc3]).integer::<u8>("A").is_err());
        assert_eq!(a(&[0xca, 0x3f, 0x80, 0, 0]).float("A"), Ok(1.0));
        assert_eq!(a(&[3]).float("A"), Ok(3.0));
    }

    #[test]
    fn errors_name_the_field_and_not_its_content() {
        let error = fields(&[0x81, 0xa1, b'A', 0x05]).text("A").unwrap_err();
        assert_eq!(error.to_string(), "A: an integer where a string is expected");
        assert_eq!(format!("{:?}", Value::Text("secret".into())), "Value(a string)");
    }

    #[test]
    fn decodes_whatever_the_scanner_lets_through() {
        use crate::rpc::frame::{MAX_DEPTH, Progress, Scanner};
        for container in [&[0x91][..], &[0x81, 0x01]] {
            let deepest = [container.repeat(MAX_DEPTH), vec![0x05]].concat();
            assert_eq!(
                Scanner::new(100).scan(&deepest),
                Ok(Progress::Complete(deepest.len()))
            );
            assert!(Value::decode(&deepest).is_ok());
        }
    }

    #[test]
    fn refuses_extensions_truncation_and_depth() {
        assert!(Value::decode(&[0xd4, 1, 1]).is_err());
        assert!(Value::decode(&[0x92, 1]).is_err());
        assert!(Value::decode(&[]).is_err());
        assert!(Value::decode(&[0x91; 100_000]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            let _ = Value::decode(&bytes);
        }
    }
}
