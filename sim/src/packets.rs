//! The bytes on the simulated wire are the real ones: the same codec, the same seal.

use fyrd_keys::{Keyring, STREAM_HEADER_LEN};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use fyrd_core::wire::{finish_datagram, finish_stream};

/// Puts all layers around a datagram's plain message.
pub(super) fn seal_datagram(
    ring: Option<&Keyring>,
    rng: &mut Xoshiro256PlusPlus,
    plain: Vec<u8>,
    compress: bool,
    crc: bool,
) -> Vec<u8> {
    let mut bytes = finish_datagram(plain, compress, crc);
    if let Some(ring) = ring {
        ring.seal_datagram(&rng.random(), b"", &mut bytes);
    }
    bytes
}

/// Opens a datagram; `None` if it cannot be.
pub(super) fn open_datagram<'a>(ring: Option<&Keyring>, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    match ring {
        Some(ring) => ring.open_datagram(b"", bytes, None).ok().map(|(plain, _)| plain),
        None => Some(bytes),
    }
}

/// Puts all layers around a stream message.
pub(super) fn seal_stream(
    ring: Option<&Keyring>,
    rng: &mut Xoshiro256PlusPlus,
    plain: Vec<u8>,
    compress: bool,
) -> Vec<u8> {
    let bytes = finish_stream(plain, compress);
    match ring {
        Some(ring) => ring
            .seal_stream(&rng.random(), b"", &bytes)
            .expect("a node's state fits a stream"),
        None => bytes,
    }
}

/// Opens a stream message; `None` if it cannot be.
pub(super) fn open_stream<'a>(ring: Option<&Keyring>, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let Some(ring) = ring else {
        return Some(bytes);
    };
    let (header, block) = bytes.split_at_mut_checked(STREAM_HEADER_LEN)?;
    let header: [u8; STREAM_HEADER_LEN] = (&*header).try_into().ok()?;
    ring.open_stream(&header, b"", block, None)
        .ok()
        .map(|(plain, _)| plain)
}
