//! One table for each struct that travels: from it follow reading, writing and the names in errors.

use std::marker::PhantomData;

use super::fault::Fault;
use super::read::Reader;
use super::write::Writer;

/// A struct with named fields, as [`table!`](table) makes it.
pub(crate) trait Table<'a>: Sized {
    /// How errors name it.
    const NAME: &'static str;
    /// The fields by name, sorted as they are written, each with its place in Go's declaration, which
    /// counts when a struct comes as an array.
    const FIELDS: &'static [(&'static str, u32)];
    /// Does not compile when a table is out of order.
    const IS_SORTED: () = assert!(
        is_sorted(Self::FIELDS),
        "the fields stand in the order of their names"
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

/// Whether names ascend, byte by byte.
const fn is_sorted(mut fields: &[(&str, u32)]) -> bool {
    while let [(first, _), rest @ ..] = fields {
        if let [(second, _), ..] = rest
            && !is_before(first.as_bytes(), second.as_bytes())
        {
            return false;
        }
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
