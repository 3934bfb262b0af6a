//! Datagrams: the layers around leaf messages, in their fixed order (docs/protocol.md#a10-nesting-order).

use super::error::{DecodeError, Fault};
use super::kind;
use super::lzw;
use super::lzw_decode::Place;
use super::message::Message;
use crate::bounds::{COMPOUND_BODIES_MAX, DATAGRAM_PLAIN_MAX};
use crate::msgpack;

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

/// What reading a datagram needs, kept for the next one, so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Scratch {
    inflated: Vec<u8>,
    places: Vec<Place>,
    room: Room,
}

/// Room for the messages of a datagram.
#[derive(Debug, Default)]
pub struct Room(Vec<Message<'static>>);

impl Scratch {
    /// How many decompressed bytes it has room for.
    pub fn capacity(&self) -> usize {
        self.inflated.capacity()
    }

    /// Takes back the room of a datagram that is done with.
    pub fn keep(&mut self, room: Room) {
        self.room = room;
    }
}

impl Datagram<'_> {
    /// What is left when its messages are done with: the room that they took.
    pub fn into_room(self) -> Room {
        let mut messages = self.messages;
        messages.clear();
        // A list of nothing, in the memory of the one before; borrowed from nobody.
        Room(messages.into_iter().map_while(|_| None).collect())
    }

    fn refuse(&mut self, bodies: usize, error: DecodeError) {
        self.refused += bodies;
        self.first_refusal.get_or_insert(error);
    }
}

/// Reads a decrypted datagram, its label already taken off.
///
/// `scratch` receives the decompressed bytes, if the datagram was compressed, and may be used again for the next one, best
/// together with the room of this one. An error means that nothing of the datagram is usable; a single bad body in a
/// compound is only counted.
pub fn decode_datagram<'a>(plain: &'a [u8], scratch: &'a mut Scratch) -> Result<Datagram<'a>, DecodeError> {
    let plain = match plain.split_first() {
        Some((&kind::CRC, body)) => verify_checksum(body)?,
        _ => plain,
    };
    let plain = match plain.split_first() {
        Some((&kind::COMPRESS, body)) => {
            let (out, places) = (&mut scratch.inflated, &mut scratch.places);
            lzw::inflate(body, |_| DATAGRAM_PLAIN_MAX, out, places)?;
            scratch.inflated.as_slice()
        }
        _ => plain,
    };
    let mut messages = std::mem::take(&mut scratch.room.0);
    match plain.split_first() {
        Some((&kind::COMPOUND, body)) => decode_compound(body, messages),
        _ => {
            messages.push(Message::decode(plain)?);
            Ok(Datagram {
                messages,
                ..Datagram::default()
            })
        }
    }
}

fn verify_checksum(body: &[u8]) -> Result<&[u8], DecodeError> {
    let fail = |fault| DecodeError::new("checksum", 0, fault);
    let (sum, message) = body
        .split_first_chunk()
        .ok_or_else(|| fail(Fault::Value(msgpack::Fault::Truncated)))?;
    let (found, computed) = (u32::from_be_bytes(*sum), crc32fast::hash(message));
    if found == computed {
        Ok(message)
    } else {
        Err(fail(Fault::Checksum { found, computed }))
    }
}

fn decode_compound<'a>(body: &'a [u8], mut messages: Vec<Message<'a>>) -> Result<Datagram<'a>, DecodeError> {
    let truncated = |offset| DecodeError::new("compound", offset, Fault::Value(msgpack::Fault::Truncated));
    let (&count, rest) = body.split_first().ok_or_else(|| truncated(0))?;
    let count = usize::from(count);
    let (lengths, mut bodies) = rest.split_at_checked(2 * count).ok_or_else(|| truncated(1))?;
    messages.reserve(count);
    let mut datagram = Datagram {
        messages,
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

/// Puts the outer layers around a message or compound: compression if asked for, if it makes it smaller, and if it has
/// not been done yet, then the checksum if asked for. Encryption and label come after this.
pub fn finish_datagram(plain: Vec<u8>, compress: bool, crc: bool) -> Vec<u8> {
    let is_compressed = plain.first() == Some(&kind::COMPRESS);
    let mut body = match (compress && !is_compressed).then(|| lzw::deflate(&plain)) {
        Some(smaller) if smaller.len() < plain.len() => smaller,
        _ => plain,
    };
    if crc {
        let [a, b, c, d] = crc32fast::hash(&body).to_be_bytes();
        body.splice(..0, [kind::CRC, a, b, c, d]);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::super::message::{Nack, Suspect};
    use super::*;
    use crate::msgpack::Fault::Truncated;

    const NACK: Message<'static> = Message::Nack(Nack { seq_no: 18 });
    const SUSPECT: Message<'static> = Message::Suspect(Suspect {
        refused: false,
        incarnation: 1,
        node: "gamma",
        from: "beta",
    });

    fn encoded(message: Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    fn compound(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_compound(bodies, &mut out);
        out
    }

    /// Messages, number of refusals, first fault.
    fn outcome(datagram: &[u8]) -> Result<(usize, usize, Option<Fault>), Fault> {
        let mut scratch = Scratch::default();
        decode_datagram(datagram, &mut scratch)
            .map(|read| {
                (
                    read.messages.len(),
                    read.refused,
                    read.first_refusal.map(|error| error.fault),
                )
            })
            .map_err(|error| error.fault)
    }

    #[test]
    fn all_layers_at_once() {
        let plain = compound(&[
            encoded(NACK),
            encoded(SUSPECT),
            encoded(SUSPECT),
            encoded(SUSPECT),
        ]);
        let datagram = finish_datagram(plain, true, true);
        assert_eq!((datagram[0], datagram[5]), (kind::CRC, kind::COMPRESS));
        let mut scratch = Scratch::default();
        let read = decode_datagram(&datagram, &mut scratch).expect("well-formed");
        assert_eq!(read.messages, [NACK, SUSPECT, SUSPECT, SUSPECT]);
        assert_eq!((read.refused, read.first_refusal), (0, None));
    }

    #[test]
    fn compression_is_used_only_when_it_helps() {
        let nack = encoded(NACK);
        assert_eq!(finish_datagram(nack.clone(), true, false), nack);
        let long = encoded(Message::User(&[7; 300]));
        assert!(finish_datagram(long.clone(), true, false).len() < long.len());
        assert_eq!(finish_datagram(long.clone(), false, false), long);
    }

    #[test]
    fn a_bad_body_does_not_harm_its_neighbours() {
        let bad = vec![kind::ALIVE, 0x93];
        let datagram = compound(&[encoded(NACK), bad, vec![], vec![99], encoded(SUSPECT)]);
        assert_eq!(outcome(&datagram), Ok((2, 3, Some(Fault::Value(Truncated)))));
    }

    #[test]
    fn a_compound_that_is_cut_off_keeps_what_came_before() {
        let whole = compound(&[encoded(NACK), encoded(SUSPECT), encoded(NACK)]);
        let cut = &whole[..whole.len() - 10];
        assert_eq!(outcome(cut), Ok((1, 2, Some(Fault::Value(Truncated)))));
        assert_eq!(
            outcome(&whole[..7]),
            Err(Fault::Value(Truncated)),
            "in the table of lengths"
        );
        assert_eq!(outcome(&whole[..1]), Err(Fault::Value(Truncated)));
        let mut longer = whole.clone();
        longer.extend_from_slice(b"junk");
        assert_eq!(outcome(&longer), Ok((3, 0, None)));
        assert_eq!(outcome(b"\x07\x00"), Ok((0, 0, None)));
    }

    #[test]
    fn layers_in_another_order_are_refused() {
        let nack = encoded(NACK);
        let crc = finish_datagram(nack.clone(), false, true);
        let compress = lzw::deflate(&nack);
        assert_eq!(outcome(&crc), Ok((1, 0, None)));
        assert_eq!(outcome(&compress), Ok((1, 0, None)));
        assert_eq!(
            outcome(&finish_datagram(crc.clone(), false, true)),
            Err(Fault::Type(kind::CRC))
        );
        assert_eq!(
            outcome(&lzw::deflate(&compress)),
            Err(Fault::Type(kind::COMPRESS))
        );
        assert_eq!(outcome(&lzw::deflate(&crc)), Err(Fault::Type(kind::CRC)));
        for inner in [crc, compress, compound(std::slice::from_ref(&nack))] {
            let kind = inner[0];
            let datagram = compound(&[inner, nack.clone()]);
            assert_eq!(outcome(&datagram), Ok((1, 1, Some(Fault::Type(kind)))));
        }
    }

    #[test]
    fn stream_only_and_unknown_types_are_refused() {
        for kind in [kind::PUSH_PULL, kind::ENCRYPT, kind::ERR, kind::LABEL, 14, 255] {
            assert_eq!(outcome(&[kind, 0x80]), Err(Fault::Type(kind)));
        }
        assert_eq!(outcome(b""), Err(Fault::Value(Truncated)));
    }

    #[test]
    fn a_damaged_checksum_drops_the_packet() {
        let mut datagram = finish_datagram(encoded(NACK), false, true);
        *datagram.last_mut().expect("not empty") ^= 1;
        assert!(matches!(outcome(&datagram), Err(Fault::Checksum { .. })));
        assert_eq!(outcome(&datagram[..4]), Err(Fault::Value(Truncated)));
    }

    #[test]
    fn a_datagram_inflates_to_64_kib_at_most() {
        let user = |len: usize| lzw::deflate(&encoded(Message::User(&vec![0; len])));
        assert_eq!(outcome(&user(DATAGRAM_PLAIN_MAX - 1)), Ok((1, 0, None)));
        assert_eq!(
            outcome(&user(DATAGRAM_PLAIN_MAX)),
            Err(Fault::Inflates(DATAGRAM_PLAIN_MAX))
        );
    }

    #[test]
    fn what_is_compressed_already_leaves_as_it_is() {
        let mut packet = vec![kind::COMPRESS];
        packet.resize(400, 0);
        assert_eq!(finish_datagram(packet.clone(), true, false), packet);
        packet[0] = kind::COMPOUND;
        assert!(finish_datagram(packet, true, false).len() < 100);
    }
}
