//! The label header (docs/protocol.md#a9-label), and the first bytes of a stream.

use super::error::{DecodeError, Fault};
use super::kind;
use crate::bounds::{ENCRYPTED_FRAME_MAX, LABEL_MAX};
use crate::msgpack;

/// Splits a datagram into its label, empty if it carries none, and the rest.
pub fn split_label(packet: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let Some((&kind::LABEL, header)) = packet.split_first() else {
        return Ok((&[], packet));
    };
    let fail = |fault| DecodeError::new("label", 0, fault);
    let (&len, rest) = header
        .split_first()
        .ok_or_else(|| fail(Fault::Value(msgpack::Fault::Truncated)))?;
    if len == 0 {
        return Err(fail(Fault::Value(msgpack::Fault::Empty)));
    }
    rest.split_at_checked(usize::from(len))
        .ok_or_else(|| fail(Fault::Value(msgpack::Fault::Truncated)))
}

/// Appends the header of a label; nothing for the empty one.
///
/// # Panics
/// When the label is longer than 255 bytes: the configuration has refused it.
pub fn put_label(label: &[u8], out: &mut Vec<u8>) {
    assert!(label.len() <= LABEL_MAX, "a label has at most 255 bytes");
    if !label.is_empty() {
        out.push(kind::LABEL);
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
}

/// What the first bytes of a stream say. A label may come first, and only once; what follows it is
/// looked at anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPrefix<'a> {
    /// Too few bytes to tell.
    NeedMore,
    /// A label.
    Label {
        /// The label itself, never empty.
        label: &'a [u8],
        /// How many bytes its header takes, itself included.
        len: usize,
    },
    /// An encrypted frame.
    Encrypted {
        /// Length of the ciphertext block that follows the header.
        len: usize,
        /// The header, which the encryption authenticates.
        header: [u8; 5],
    },
    /// Anything else: a message in plain form, from this very byte on.
    Plain,
}

impl<'a> StreamPrefix<'a> {
    /// Looks at the bytes that have arrived so far. Fails on an empty label and on a frame longer than
    /// [`ENCRYPTED_FRAME_MAX`].
    pub fn parse(bytes: &'a [u8]) -> Result<StreamPrefix<'a>, DecodeError> {
        match bytes {
            [] => Ok(StreamPrefix::NeedMore),
            [kind::LABEL, ..] => match split_label(bytes) {
                Ok((label, _)) => Ok(StreamPrefix::Label {
                    label,
                    len: 2 + label.len(),
                }),
                Err(DecodeError {
                    fault: Fault::Value(msgpack::Fault::Truncated),
                    ..
                }) => Ok(StreamPrefix::NeedMore),
                Err(error) => Err(error),
            },
            [kind::ENCRYPT, ..] => match bytes.first_chunk() {
                None => Ok(StreamPrefix::NeedMore),
                Some(&header) => encrypted(header),
            },
            _ => Ok(StreamPrefix::Plain),
        }
    }
}

fn encrypted(header: [u8; 5]) -> Result<StreamPrefix<'static>, DecodeError> {
    let [_, len @ ..] = header;
    let len = u32::from_be_bytes(len) as usize;
    if len > ENCRYPTED_FRAME_MAX {
        let fault = Fault::Value(msgpack::Fault::TooMany {
            len: len as u64,
            max: ENCRYPTED_FRAME_MAX as u64,
        });
        return Err(DecodeError::new("encrypted frame", 0, fault));
    }
    Ok(StreamPrefix::Encrypted { len, header })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Fault::{Empty, Truncated};

    #[test]
    fn a_label_round_trips_and_its_absence_is_the_empty_one() {
        for label in [&b""[..], b"a", &[0xf4; 255]] {
            let mut packet = Vec::new();
            put_label(label, &mut packet);
            packet.extend_from_slice(b"\x00rest");
            assert_eq!(split_label(&packet), Ok((label, &b"\x00rest"[..])));
        }
    }

    #[test]
    fn broken_labels_are_refused() {
        for (packet, fault) in [
            (&b"\xf4"[..], Fault::Value(Truncated)),
            (b"\xf4\x00", Fault::Value(Empty)),
            (b"\xf4\x00abc", Fault::Value(Empty)),
            (b"\xf4\x04abc", Fault::Value(Truncated)),
        ] {
            assert_eq!(split_label(packet).map_err(|error| error.fault), Err(fault));
        }
        assert_eq!(split_label(b""), Ok((&b""[..], &b""[..])));
    }

    #[test]
    fn a_stream_tells_by_its_first_bytes_what_it_is() {
        use StreamPrefix::*;
        for (bytes, prefix) in [
            (&b""[..], NeedMore),
            (b"\xf4", NeedMore),
            (b"\xf4\x03la", NeedMore),
            (
                b"\xf4\x03lab",
                Label {
                    label: b"lab",
                    len: 5,
                },
            ),
            (
                b"\xf4\x03lab\x0a",
                Label {
                    label: b"lab",
                    len: 5,
                },
            ),
            (b"\x0a\x00\x00\x01", NeedMore),
            (
                b"\x0a\x00\x00\x01\x02",
                Encrypted {
                    len: 258,
                    header: [10, 0, 0, 1, 2],
                },
            ),
            (
                b"\x0a\x01\x40\x00\x00",
                Encrypted {
                    len: 20 << 20,
                    header: [10, 1, 0x40, 0, 0],
                },
            ),
            (b"\x06", Plain),
            (b"\xff", Plain),
        ] {
            assert_eq!(StreamPrefix::parse(bytes), Ok(prefix), "{bytes:x?}");
        }
        assert!(StreamPrefix::parse(b"\x0a\x01\x40\x00\x01").is_err());
        assert!(StreamPrefix::parse(b"\xf4\x00").is_err());
    }
}
