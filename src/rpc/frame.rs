//! Finds the end of one MessagePack object in a growing buffer.
//!
//! The protocol has no length prefix, so a reader has to follow the structure of an object to know
//! where it ends. The [`Scanner`] does so without recursion and remembers where it stopped: every
//! byte is looked at once, however small the pieces are in which it arrives. Nothing is allocated on
//! the word of a length field.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use super::codec::CodecError;

/// How deep containers may nest. The deepest object of the protocol is a member's tags in a list of
/// members (map, list, map, map), so this leaves room to skip unknown fields as deep again.
pub const MAX_DEPTH: usize = 8;

/// The largest object a server reads. The largest sensible request is an event payload (9 KiB) or a
/// list of join addresses; a mebibyte is far beyond both.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The largest object a client reads. A member takes less than 1.5 KiB (name, tags, fixed part), so
/// this is a member list of more than 40,000 nodes.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// How much is asked of the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// What a look at the buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The object is well formed so far; more bytes are needed.
    Incomplete,
    /// The object is the first so many bytes of the buffer.
    Complete(usize),
}

/// Follows one object through a buffer that grows between calls.
///
/// The buffer must begin with the object, and must keep what was already scanned. After
/// [`Progress::Complete`] the scanner is ready for the next object.
#[derive(Clone, Debug)]
pub struct Scanner {
    limit: usize,
    /// Where the next item's first byte is.
    position: usize,
    /// For each open container, how many items are still to come in it.
    open: Vec<u64>,
}

impl Scanner {
    /// A scanner that refuses objects of more than `limit` bytes.
    pub fn new(limit: usize) -> Scanner {
        Scanner {
            limit,
            position: 0,
            open: Vec::with_capacity(MAX_DEPTH),
        }
    }

    /// Looks on from where the previous call stopped.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Progress, CodecError> {
        while let Some(item) = Item::read(buffer.get(self.position..).unwrap_or_default())? {
            let end = (self.position as u64).saturating_add(item.skip);
            if end > self.limit as u64 {
                return Err(CodecError::TooLarge { limit: self.limit });
            }
            if end > buffer.len() as u64 {
                return Ok(Progress::Incomplete);
            }
            self.position = end as usize;
            if item.children > 0 {
                self.open_container(item.children)?;
            } else if self.close_item() {
                let length = self.position;
                self.position = 0;
                return Ok(Progress::Complete(length));
            }
        }
        Ok(Progress::Incomplete)
    }

    /// Counts a container's items as still to come. Each takes a byte at least, so a container that
    /// cannot fit any more is refused before its items arrive.
    fn open_container(&mut self, children: u64) -> Result<(), CodecError> {
        if self.open.len() == MAX_DEPTH {
            return Err(CodecError::TooDeep);
        }
        self.open.push(children);
        let least = self
            .open
            .iter()
            .fold(self.position as u64, |sum, left| sum.saturating_add(*left));
        if least > self.limit as u64 {
            return Err(CodecError::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Ticks an item off its container, and each container that is thereby full off its own. True
    /// when nothing is left open.
    fn close_item(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// One item's own extent: its marker, length field and raw bytes, without contained items.
struct Item {
    skip: u64,
    children: u64,
}

impl Item {
    /// `None` when not even marker and length field are there yet.
    fn read(bytes: &[u8]) -> Result<Option<Item>, CodecError> {
        let Some((&marker, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let leaf = |skip: u64| Some(Item { skip, children: 0 });
        // A length field of `width` bytes, and `extra` fixed bytes (an extension's type) after it.
        let raw = |width: usize, extra: u64| {
            let length = big_endian(rest, width)?;
            leaf(1 + width as u64 + extra + length)
        };
        let container = |width: usize, items: u64| {
            let count = big_endian(rest, width)?;
            Some(Item {
                skip: 1 + width as u64,
                children: count * items,
            })
        };
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => leaf(1),
            0x80..=0x8f => Some(Item {
                skip: 1,
                children: u64::from(marker & 0x0f) * 2,
            }),
            0x90..=0x9f => Some(Item {
                skip: 1,
                children: u64::from(marker & 0x0f),
            }),
            0xa0..=0xbf => leaf(1 + u64::from(marker & 0x1f)),
            0xc1 => return Err(CodecError::Reserved),
            0xc4..=0xc6 => raw(1 << (marker - 0xc4), 0),
            0xc7..=0xc9 => raw(1 << (marker - 0xc7), 1),
            0xca => leaf(5),
            0xcb => leaf(9),
            0xcc..=0xcf => leaf(1 + (1 << (marker - 0xcc))),
            0xd0..=0xd3 => leaf(1 + (1 << (marker - 0xd0))),
            0xd4..=0xd8 => leaf(2 + (1 << (marker - 0xd4))),
            0xd9..=0xdb => raw(1 << (marker - 0xd9), 0),
            0xdc | 0xdd => container(2 << (marker - 0xdc), 1),
            0xde | 0xdf => container(2 << (marker - 0xde), 2),
        })
    }
}

/// The first `width` (at most 4) bytes as a number, or `None` when they are not all there.
fn big_endian(bytes: &[u8], width: usize) -> Option<u64> {
    Some(
        bytes
            .get(..width)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// Reads whole objects from a stream.
pub struct FrameReader<R> {
    inner: R,
    scanner: Scanner,
    /// Requests and answers may hold keys, so nothing is left of them in memory.
    buffer: Zeroizing<Vec<u8>>,
    /// How many bytes at the front of the buffer were already handed out.
    consumed: usize,
}

impl<R> std::fmt::Debug for FrameReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads objects of at most `limit` bytes from `inner`.
    pub fn new(inner: R, limit: usize) -> FrameReader<R> {
        FrameReader {
            inner,
            scanner: Scanner::new(limit),
            buffer: Zeroizing::new(Vec::new()),
            consumed: 0,
        }
    }

    /// The next object's bytes, or `None` when the stream ended before a first byte of it.
    ///
    /// A call that is dropped half-way loses nothing. A malformed object is an error of kind
    /// `InvalidData`, an object cut off by the end of the stream one of kind `UnexpectedEof`; after
    /// either the stream is of no more use.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let unread = self.buffer.get(self.consumed..).unwrap_or_default();
            match self.scanner.scan(unread) {
                Ok(Progress::Complete(length)) => {
                    let start = self.consumed;
                    self.consumed += length;
                    return Ok(self.buffer.get(start..self.consumed));
                }
                Ok(Progress::Incomplete) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            self.buffer.reserve(READ_BYTES);
            if self.inner.read_buf(&mut *self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<Progress, CodecError> {
        Scanner::new(1 << 16).scan(bytes)
    }

    #[test]
    fn finds_the_end_of_every_kind() {
        let cases: &[(&[u8], usize)] = &[
            (&[0x05, 0xff], 1),
            (&[0xe0], 1),
            (&[0xc0], 1),
            (&[0xc3], 1),
            (&[0xa2, b'h', b'i', 0x00], 3),
            (&[0xd9, 1, b'x'], 3),
            (&[0xda, 0, 1, b'x'], 4),
            (&[0xdb, 0, 0, 0, 1, b'x'], 6),
            (&[0xc4, 0], 2),
            (&[0xc5, 0, 1, 9], 4),
            (&[0xc6, 0, 0, 0, 1, 9], 6),
            (&[0xc7, 1, 5, 9], 4),
            (&[0xc8, 0, 1, 5, 9], 5),
            (&[0xc9, 0, 0, 0, 1, 5, 9], 7),
            (&[0xca, 0, 0, 0, 0], 5),
            (&[0xcb, 0, 0, 0, 0, 0, 0, 0, 0], 9),
            (&[0xcc, 1], 2),
            (&[0xcd, 1, 1], 3),
            (&[0xce, 1, 1, 1, 1], 5),
            (&[0xcf, 1, 1, 1, 1, 1, 1, 1, 1], 9),
            (&[0xd0, 1], 2),
            (&[0xd3, 1, 1, 1, 1, 1, 1, 1, 1], 9),
            (&[0xd4, 1, 1], 3),
            (&[0xd6, 1, 1, 1, 1, 1], 6),
            (&[0x80], 1),
            (&[0x90], 1),
            (&[0x81, 0x01, 0x92, 0x01, 0x90, 0x07], 5),
            (&[0xdc, 0, 2, 1, 2], 5),
            (&[0xdd, 0, 0, 0, 1, 1], 6),
            (&[0xde, 0, 1, 1, 2], 5),
            (&[0xdf, 0, 0, 0, 1, 1, 2], 7),
        ];
        for (bytes, length) in cases {
            assert_eq!(scan(bytes), Ok(Progress::Complete(*length)), "{bytes:02x?}");
            for cut in 0..*length {
                assert_eq!(
                    scan(&bytes[..cut]),
                    Ok(Progress::Incomplete),
                    "{bytes:02x?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn refuses_huge_lengths_before_the_bytes_arrive() {
        let too_large = Err(CodecError::TooLarge { limit: 1 << 16 });
        for bytes in [
            &[0xc6, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdb, 0x00, 0x01, 0x00, 0x00],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0x00, 0x00, 0x80, 0x00],
            &[0x92, 0xdc, 0xff, 0xff, 0xdc, 0xff, 0xff],
        ] {
            assert_eq!(scan(bytes), too_large, "{bytes:02x?}");
        }
        assert_eq!(scan(&[0xdc, 0xff, 0x00]), Ok(Progress::Incomplete));
    }

    #[test]
    fn refuses_depth_bombs_and_the_reserved_marker() {
        assert_eq!(scan(&[0x91; MAX_DEPTH]), Ok(Progress::Incomplete));
        assert_eq!(scan(&[0x91; MAX_DEPTH + 1]), Err(CodecError::TooDeep));
        assert_eq!(scan(&[0x81; 64]), Err(CodecError::TooDeep));
        assert_eq!(scan(&[0x92, 0x01, 0xc1]), Err(CodecError::Reserved));
    }

    #[test]
    fn is_ready_for_the_next_object() {
        let mut scanner = Scanner::new(100);
        assert_eq!(scanner.scan(&[0x92, 1]), Ok(Progress::Incomplete));
        assert_eq!(scanner.scan(&[0x92, 1, 2, 0x91]), Ok(Progress::Complete(3)));
        assert_eq!(scanner.scan(&[0x91]), Ok(Progress::Incomplete));
        assert_eq!(scanner.scan(&[0x91, 5]), Ok(Progress::Complete(2)));
    }

    #[tokio::test]
    async fn reads_objects_from_small_pieces() {
        let (ours, mut theirs) = tokio::io::duplex(3);
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            theirs
                .write_all(&[0x81, 0xa1, b'a', 0x01, 0xc0, 0x92, 0x01])
                .await
        });
        let mut reader = FrameReader::new(ours, 100);
        assert_eq!(reader.next().await.unwrap(), Some(&[0x81, 0xa1, b'a', 0x01][..]));
        assert_eq!(reader.next().await.unwrap(), Some(&[0xc0][..]));
        assert_eq!(
            reader.next().await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        writer.await.unwrap().unwrap();
    }

    proptest! {
        #[test]
        fn never_panics_and_never_claims_more_than_there_is(bytes: Vec<u8>) {
            if let Ok(Progress::Complete(length)) = scan(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn pieces_give_the_same_as_the_whole(bytes: Vec<u8>, step in 1usize..7) {
            let whole = scan(&bytes);
            let mut scanner = Scanner::new(1 << 16);
            let mut pieces = Ok(Progress::Incomplete);
            for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
                pieces = scanner.scan(&bytes[..end]);
                if pieces != Ok(Progress::Incomplete) {
                    break;
                }
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
