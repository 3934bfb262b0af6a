//! The forms of fields that several messages share: names, addresses, metadata, versions.

use crate::bounds::{META_MAX, PEER_NAME_MAX, VSN_LEN};
use crate::msgpack::{AtMost, Fault, Form, Reader, Writer};

/// The name of a member, possibly empty.
pub(super) type Name = AtMost<PEER_NAME_MAX>;

/// Metadata of a member.
pub(super) type Meta = AtMost<META_MAX>;

/// The name of whoever says something, possibly empty. It need not be a member that can be held here:
/// what it says counts all the same, and [`PEER_NAME_MAX`] bytes are enough to tell it from others.
pub(super) struct Speaker;

impl<'a> Form<'a, &'a str> for Speaker {
    fn read(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
        let name = reader.text()?;
        Ok(name
            .get(..name.floor_char_boundary(PEER_NAME_MAX))
            .unwrap_or(name))
    }

    fn write(value: &&'a str, writer: &mut Writer<'_>) {
        writer.raw(value);
    }
}

/// An IP address, raw. It is kept and passed on exactly as it came.
pub(super) struct Address;

impl<'a> Form<'a, &'a [u8]> for Address {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
        reader.bytes()
    }

    fn write(value: &&'a [u8], writer: &mut Writer<'_>) {
        writer.raw(value);
    }

    fn check(value: &&'a [u8]) -> Result<(), Fault> {
        match value.len() {
            4 | 16 => Ok(()),
            found => Err(Fault::Length {
                found,
                expected: "4 or 16",
            }),
        }
    }
}

/// A version vector: six bytes, or none. Another length would poison every later push/pull of whoever
/// stores it (docs/protocol.md#a13-merging-a-pushpull).
pub(super) struct Versions;

impl<'a> Form<'a, &'a [u8]> for Versions {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
        let versions = reader.bytes()?;
        match versions.len() {
            0 | VSN_LEN => Ok(versions),
            found => Err(Fault::Length {
                found,
                expected: "0 or 6",
            }),
        }
    }

    fn write(value: &&'a [u8], writer: &mut Writer<'_>) {
        writer.raw(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::table;

    table! {
        struct Named<'a>, "named" {
            0 Node: Name => node: &'a str,
        }
    }

    #[test]
    fn names_are_bounded_and_utf8() {
        let named = |name: &[u8]| {
            let mut body = b"\x81\xa4Node".to_vec();
            Writer::new(&mut body).raw(name);
            let read = Reader::new(&body).table::<Named<'_>>();
            read.map(|read| read.node.len()).map_err(|error| error.fault)
        };
        assert_eq!(named(&[b'a'; 1400]), Ok(1400));
        assert_eq!(named(&[b'a'; 1401]), Err(Fault::TooMany { len: 1401, max: 1400 }));
        assert_eq!(named(b"\xff"), Err(Fault::Utf8));
    }
}
