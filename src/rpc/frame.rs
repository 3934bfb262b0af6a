//! Cuts a stream into MessagePack objects.
//!
//! The protocol has no length prefix, so a reader has to follow the structure of an object to know
//! where it ends. Every byte is looked at once, however small the pieces are in which it arrives, and
//! nothing is allocated on the word of a length field.

use std::io;

use fyrd_core::bounds::MSGPACK_DEPTH_MAX;
use fyrd_core::msgpack::{Fault, ValueScan};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use super::codec::CodecError;

/// The largest object a server reads. The largest sensible request is an event payload (9 KiB) or a
/// list of join addresses; a mebibyte is far beyond both.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The largest object a client reads. A member takes less than 1.5 KiB (name, tags, fixed part), so
/// this is a member list of more than 40,000 nodes.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// How much is asked of the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// Reads whole objects from a stream.
pub struct FrameReader<R> {
    inner: R,
    limit: usize,
    /// Follows the object at the front of what was not handed out yet.
    scan: ValueScan,
    /// Requests and answers may hold keys, so nothing is left of them in memory.
    buffer: Zeroizing<Vec<u8>>,
    /// How many bytes at the front of the buffer were already handed out.
    consumed: usize,
    /// The length of the next object, once all of it is there, or what is wrong with it.
    found: Option<Result<usize, Fault>>,
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
            limit,
            scan: scan(limit),
            buffer: Zeroizing::new(Vec::new()),
            consumed: 0,
            found: None,
        }
    }

    /// Takes objects of at most `limit` bytes from the next one on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.scan = scan(limit);
        self.found = None;
    }

    /// Whether [`FrameReader::next`] has its answer already, and reads nothing.
    pub fn has_next(&mut self) -> bool {
        if self.found.is_none() {
            let unread = self.buffer.get(self.consumed..).unwrap_or_default();
            self.found = self.scan.advance(unread).transpose();
        }
        self.found.is_some()
    }

    /// The next object's bytes, or `None` when the stream ended before a first byte of it.
    ///
    /// A call that is dropped half-way loses nothing. A malformed object is an error of kind
    /// `InvalidData`, an object cut off by the end of the stream one of kind `UnexpectedEof`; after
    /// either the stream is of no more use.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.has_next();
            if let Some(found) = self.found.take() {
                let length = found
                    .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, CodecError::from(fault)))?;
                self.scan = scan(self.limit);
                let start = self.consumed;
                self.consumed += length;
                return Ok(self.buffer.get(start..self.consumed));
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

/// Looks for the end of one object, of at most `limit` bytes.
pub fn scan(limit: usize) -> ValueScan {
    ValueScan::new(0, MSGPACK_DEPTH_MAX, limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 16;

    fn end(bytes: &[u8]) -> Result<Option<usize>, CodecError> {
        Ok(scan(LIMIT).advance(bytes)?)
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
            assert_eq!(end(bytes), Ok(Some(*length)), "{bytes:02x?}");
            for cut in 0..*length {
                assert_eq!(end(&bytes[..cut]), Ok(None), "{bytes:02x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn refuses_huge_lengths_before_the_bytes_arrive() {
        let too_large = Err(CodecError::TooLarge { limit: LIMIT as u64 });
        for bytes in [
            &[0xc6, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdb, 0x00, 0x01, 0x00, 0x00],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0x00, 0x00, 0x80, 0x00],
            &[0x92, 0xdc, 0xff, 0xff, 0xdc, 0xff, 0xff],
        ] {
            assert_eq!(end(bytes), too_large, "{bytes:02x?}");
        }
        assert_eq!(end(&[0xdc, 0xff, 0x00]), Ok(None));
    }

    #[test]
    fn refuses_depth_bombs_and_the_reserved_marker() {
        assert_eq!(end(&[0x91; MSGPACK_DEPTH_MAX]), Ok(None));
        assert_eq!(end(&[0x91; MSGPACK_DEPTH_MAX + 1]), Err(Fault::Depth.into()));
        assert_eq!(end(&[0x81; 64]), Err(Fault::Depth.into()));
        assert!(matches!(end(&[0x92, 0x01, 0xc1]), Err(CodecError::Malformed(_))));
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
            if let Ok(Some(length)) = end(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn pieces_give_the_same_as_the_whole(bytes: Vec<u8>, step in 1usize..7) {
            let whole = end(&bytes);
            let mut scan = scan(LIMIT);
            let mut pieces = Ok(None);
            for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
                pieces = scan.advance(&bytes[..end]).map_err(CodecError::from);
                if pieces != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
