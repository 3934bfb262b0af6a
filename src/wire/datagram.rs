//! Datagrams: the layers around leaf messages, in their fixed order (protocol.md A5, A6, A10).

use super::error::{DecodeError, Fault};
use super::kind;
use super::lzw;
use super::message::Message;
use crate::bounds::{COMPOUND_BODIES_MAX, DATAGRAM_PLAIN_MAX};

/// What a datagram held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The messages that could be read, in the order in which they came.
    pub messages: Vec<Message<'a>>,
    /// How many bodies of a compound could not be read, or were cut off.
    pub refused: usize,
    /// Why the first of them could not.
    pub first_refusal: Option<DecodeError>,
}

impl Datagram<'_> {
    fn refuse(&mut self, bodies: usize, error: DecodeError) {
        self.refused += bodies;
        self.first_refusal.get_or_insert(error);
    }
}

/// Reads a decrypted datagram, its label already taken off.
///
/// `scratch` receives the decompressed bytes, if the datagram was compressed, and may be used again for
/// the next one. An error means that nothing of the datagram is usable; a single bad body in a compound
/// is only counted.
pub fn decode_datagram<'a>(plain: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Datagram<'a>, DecodeError> {
    let plain = match plain.split_first() {
        Some((&kind::CRC, body)) => verify_checksum(body)?,
        _ => plain,
    };
    let plain = match plain.split_first() {
        Some((&kind::COMPRESS, body)) => {
            lzw::inflate(body, |_| DATAGRAM_PLAIN_MAX, scratch)?;
            scratch.as_slice()
        }
        _ => plain,
    };
    match plain.split_first() {
        Some((&kind::COMPOUND, body)) => decode_compound(body),
        _ => Ok(Datagram {
            messages: vec![Message::decode(plain)?],
            ..Datagram::default()
        }),
    }
}

fn verify_checksum(body: &[u8]) -> Result<&[u8], DecodeError> {
    let fail = |fault| DecodeError::new("checksum", 0, fault);
    let (sum, message) = body.split_first_chunk().ok_or_else(|| fail(Fault::Truncated))?;
    let (found, computed) = (u32::from_be_bytes(*sum), crc32fast::hash(message));
    if found == computed {
        Ok(message)
    } else {
        Err(fail(Fault::Checksum { found, computed }))
    }
}

fn decode_compound(body: &[u8]) -> Result<Datagram<'_>, DecodeError> {
    let truncated = |offset| DecodeError::new("compound", offset, Fault::Truncated);
    let (&count, rest) = body.split_first().ok_or_else(|| truncated(0))?;
    let count = usize::from(count);
    let (lengths, mut bodies) = rest.split_at_checked(2 * count).ok_or_else(|| truncated(1))?;
    let mut datagram = Datagram {
        messages: Vec::with_capacity(count),
        ..Datagram::default()
    };
    for (index, length) in lengths.as_chunks().0.iter().enumerate() {
        let Some((message, rest)) = bodies.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            datagram.refuse(count - index, truncated(body.len()));
            break;
        };
        bodies = rest;
        match Message::decode(message) {
            Ok(message) => datagram.messages.push(message),
            Err(error) => datagram.refuse(1, error),
        }
    }
    Ok(datagram)
}

/// Appends a compound of encoded messages.
///
/// # Panics
/// When there are none or more than 255 of them, or one is longer than 65,535 bytes: no packer whose
/// budget is a datagram makes such a thing.
pub fn encode_compound(bodies: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    assert!(
        (1..=COMPOUND_BODIES_MAX).contains(&bodies.len()),
        "a compound holds 1 to 255 messages"
    );
    out.push(kind::COMPOUND);
    out.push(bodies.len() as u8);
    for body in bodies {
        let len = u16::try_from(body.as_ref().len()).expect("a message of a compound fits a datagram");
        out.extend_from_slice(&len.to_be_bytes());
    }
    for body in bodies {
        out.extend_from_slice(body.as_ref());
    }
}

/// Puts the outer layers around a message or compound: compression if asked for and if it makes it
/// smaller, then the checksum if asked for. Encryption and label come after this.
pub fn finish_datagram(plain: Vec<u8>, compress: bool, crc: bool) -> Vec<u8> {
    let mut body = match compress.then(|| lzw::deflate(&plain)) {
        Some(smaller) if smaller.len() < plain.len() => smaller,
        _ => plain,
    };
    if crc {
        let [a, b, c, d] = crc32fast::hash(&body).to_be_bytes();
        body.splice(..0, [kind::CRC, a, b, c, d]);
    }
    body
}
