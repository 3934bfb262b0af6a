//! How an essence is written: frames one after another, each with a checksum, so that a damage costs no more than
//! the frame it hits.
//!
//! A frame is `Fyrd`, the length of what follows the checksum as u32, a CRC-32 of that, and a map in msgpack:
//!
//! | key | value |
//! |---|---|
//! | `version` | 1 |
//! | `node`, `identity` | whose it is; the identity is 16 bytes |
//! | `serial` | the batch that it ends with |
//! | `after` | the batch that this copy ended with before; nil in a frame that holds everything |
//! | `part`, `more` | its place in its set, from 0, and whether another frame belongs to the set |
//! | `left` | whether the node has left |
//! | `checkpoint` | as in tree `clocks` |
//! | `changes` | for each: tree u8, key length u16, value length u32 (2^32-1 if the key goes), key, value |
//!
//! Reading is total and bounded. Keys that are not known belong to a later minor version and are skipped.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::codec::Cursor;
use fyrd_core::bounds::{ESSENCE_FALSE_STARTS, ESSENCE_FRAME_MAX};

/// The version that this program writes.
pub(super) const VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"Fyrd";
const HEAD: usize = 12;
const GONE: u32 = u32::MAX;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Frame<'a> {
    pub version: u8,
    pub node: &'a str,
    #[serde(borrow)]
    pub identity: Bytes<'a>,
    pub serial: u64,
    pub after: Option<u64>,
    pub part: u32,
    pub more: bool,
    pub left: bool,
    #[serde(borrow)]
    pub checkpoint: Bytes<'a>,
    #[serde(borrow)]
    pub changes: Bytes<'a>,
}

/// Bytes as msgpack has them, not as a list of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Bytes<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}

/// Appends a frame.
pub(super) fn write(frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
    let body = rmp_serde::to_vec_named(frame)?;
    out.extend(MAGIC);
    out.extend((body.len() as u32).to_be_bytes());
    out.extend(crc32fast::hash(&body).to_be_bytes());
    out.extend(body);
    Ok(())
}

/// Appends a change to the changes of a frame.
pub(super) fn put_change(out: &mut Vec<u8>, tree: u8, key: &[u8], value: Option<&[u8]>) {
    out.push(tree);
    out.extend((key.len() as u16).to_be_bytes());
    out.extend(value.map_or(GONE, |value| value.len() as u32).to_be_bytes());
    out.extend(key);
    out.extend(value.unwrap_or_default());
}

/// A change: tree, key, and value unless the key goes.
pub(super) type Change<'a> = (u8, &'a [u8], Option<&'a [u8]>);

/// Takes a change off the front.
pub(super) fn take_change<'a>(changes: &mut Cursor<'a>) -> Option<Change<'a>> {
    let tree = changes.u8()?;
    let key = changes.u16()?;
    let value = changes.u32()?;
    let key = changes.bytes(key.into())?;
    let value = match value {
        GONE => None,
        len => Some(changes.bytes(len as usize)?),
    };
    Some((tree, key, value))
}

/// The frames in a file, each with the place behind it, and whether each began where the one before ended.
pub(super) fn read(file: &[u8]) -> Vec<(Frame<'_>, usize, bool)> {
    let mut frames = Vec::new();
    let (mut at, mut follows, mut false_starts) = (0, true, 0);
    while let Some(rest) = file.get(at..).filter(|rest| rest.len() >= HEAD) {
        if let Some((frame, len)) = first(rest) {
            at += len;
            frames.push((frame, at, follows));
            follows = true;
            continue;
        }
        follows = false;
        false_starts += usize::from(rest.starts_with(MAGIC));
        if false_starts > ESSENCE_FALSE_STARTS {
            break;
        }
        let next = rest[1..].windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
        let Some(next) = next else { break };
        at += 1 + next;
    }
    frames
}

/// The frame at the very beginning, and its length.
fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let mut head = Cursor(bytes);
    let is_frame = head.bytes(MAGIC.len())? == MAGIC;
    let (len, sum) = (head.u32()? as usize, head.u32()?);
    if !is_frame || len > ESSENCE_FRAME_MAX {
        return None;
    }
    let body = head.bytes(len)?;
    if crc32fast::hash(body) != sum {
        return None;
    }
    Some((rmp_serde::from_slice(body).ok()?, HEAD + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(serial: u64, changes: &[u8]) -> Frame<'_> {
        Frame {
            version: VERSION,
            node: "a",
            identity: Bytes(&[7; 16]),
            serial,
            after: serial.checked_sub(1),
            part: 0,
            more: false,
            left: true,
            checkpoint: Bytes(b"now"),
            changes: Bytes(changes),
        }
    }

    #[test]
    fn frames_read_back_around_any_damage() {
        let mut changes = Vec::new();
        put_change(&mut changes, b'm', b"node", Some(b"value"));
        put_change(&mut changes, b's', b"gone", None);
        put_change(&mut changes, b's', b"", Some(b""));
        let (mut file, mut ends) = (Vec::new(), Vec::new());
        for serial in 0..3 {
            write(&frame(serial, &changes), &mut file).unwrap();
            ends.push(file.len());
        }
        let serials = |file: &[u8]| -> Vec<u64> {
            let frames = read(file);
            frames.iter().map(|(frame, ..)| frame.serial).collect()
        };
        let whole = read(&file);
        assert_eq!(whole.len(), 3);
        for (((read, end, follows), serial), expected) in whole.iter().zip(0..).zip(&ends) {
            assert_eq!((read, end, *follows), (&frame(serial, &changes), expected, true));
        }
        let mut cursor = Cursor(whole[0].0.changes.0);
        let taken: Vec<_> = std::iter::from_fn(|| take_change(&mut cursor)).collect();
        assert_eq!(
            taken,
            [
                (b'm', &b"node"[..], Some(&b"value"[..])),
                (b's', b"gone", None),
                (b's', b"", Some(b""))
            ]
        );
        for place in 0..file.len() {
            let mut spoilt = file.clone();
            spoilt[place] ^= 1;
            let hit = ends.iter().position(|end| place < *end).unwrap() as u64;
            let rest: Vec<u64> = (0..3).filter(|serial| *serial != hit).collect();
            assert_eq!(serials(&spoilt), rest, "at {place}");
            let gap = read(&spoilt).iter().any(|(.., follows)| !follows);
            assert_eq!(gap, hit < 2, "at {place}");
            let cut: Vec<u64> = (0..hit).collect();
            assert_eq!(serials(&file[..place]), cut, "cut at {place}");
        }
    }

    #[test]
    fn a_file_of_beginnings_is_given_up() {
        let file: Vec<u8> = MAGIC.iter().copied().cycle().take(1 << 20).collect();
        assert!(read(&file).is_empty());
    }
}
