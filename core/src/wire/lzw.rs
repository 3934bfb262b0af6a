//! The compress layer (docs/protocol.md#a7-compression): a msgpack struct around LZW data.

use super::error::{DecodeError, Fault};
use super::kind;
use super::lzw_decode::{Place, lzw_decode};
use super::lzw_encode::lzw_encode;
use crate::msgpack::{Plain, Reader, Table, table};

table! {
    struct Compressed<'a>, "compress", kind::COMPRESS {
        0 Algo: Plain => algorithm: u8,
        1 Buf: Plain => data: &'a [u8],
    }
}

/// Decompresses the body of a compress message (what follows the type byte) into `out`, replacing its
/// contents. `max` gives the bound on the output for the length of the compressed data; `places` is room for the table.
pub(super) fn inflate(
    body: &[u8],
    max: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
    places: &mut Vec<Place>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    let Compressed { algorithm, data } = reader.table()?;
    let fail = |field, fault: Fault| DecodeError::in_field(Compressed::NAME, field, reader.offset(), fault);
    if algorithm != 0 {
        return Err(fail("Algo", Fault::Algorithm(algorithm)));
    }
    lzw_decode(data, max(data.len()), out, places).map_err(|fault| fail("Buf", fault))
}

/// The compress message around `plain`, type byte included.
pub(crate) fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(plain.len() / 2 + 16);
    lzw_encode(plain, &mut data);
    let mut out = Vec::with_capacity(data.len() + 20);
    Compressed {
        algorithm: 0,
        data: &data,
    }
    .encode(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Writer;

    fn compressed(data: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        Compressed { algorithm: 0, data }.write(&mut Writer::new(&mut body));
        body
    }

    fn inflated(body: &[u8], max: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        inflate(body, |_| max, &mut out, &mut Vec::new())
            .map(|()| out)
            .map_err(|error| error.fault)
    }

    /// Known answers, which Go's encoder gives as well.
    #[test]
    fn known_answers_both_ways() {
        for (plain, lzw) in [(&b""[..], &b"\x00\x03\x02"[..]), (b"a", b"\x00\xc3\x04\x04")] {
            let mut expected = vec![kind::COMPRESS];
            expected.extend(compressed(lzw));
            assert_eq!(deflate(plain), expected);
            assert_eq!(inflated(&compressed(lzw), 100), Ok(plain.to_vec()));
        }
    }

    #[test]
    fn bytes_after_the_end_code_are_ignored_and_its_absence_is_an_error() {
        assert_eq!(
            inflated(&compressed(b"\x00\xc3\x04\x04junk"), 100),
            Ok(b"a".to_vec())
        );
        assert_eq!(inflated(&compressed(b"\x00\xc3\x04"), 100), Err(Fault::Lzw));
        assert_eq!(inflated(&compressed(b""), 100), Err(Fault::Lzw));
        assert_eq!(inflated(&compressed(&[0xff; 64]), 100), Err(Fault::Lzw));
    }

    /// Found by fuzzing: the error said where the input ended, which may be anywhere after the message.
    #[test]
    fn bytes_after_the_message_do_not_change_its_error() {
        let error =
            |body: &[u8]| inflate(body, |_| 100, &mut Vec::new(), &mut Vec::new()).expect_err("no end code");
        let body = compressed(b"\x00\xc3\x04");
        let longer = [&body[..], b"junk"].concat();
        assert_eq!(error(&longer), error(&body));
        assert_eq!(error(&longer).offset, body.len());
    }

    #[test]
    fn another_algorithm_is_refused() {
        assert_eq!(
            inflated(b"\x82\xa4Algo\x01\xa3Buf\xa3\x00\x03\x02", 100),
            Err(Fault::Algorithm(1))
        );
    }

    #[test]
    fn the_bound_on_the_output_is_exact() {
        for len in [1, 1000, 4096, 4097, 100_000] {
            let body = deflate(&vec![b'x'; len]);
            assert_eq!(inflated(&body[1..], len).map(|out| out.len()), Ok(len));
            assert_eq!(inflated(&body[1..], len - 1), Err(Fault::Inflates(len - 1)));
        }
    }

    #[test]
    fn a_bomb_costs_no_more_memory_than_the_bound() {
        let bomb = deflate(&vec![0; 64 << 20]);
        assert!(
            bomb.len() < 64 * 1024,
            "a bomb that deserves the name: {}",
            bomb.len()
        );
        let mut out = Vec::new();
        let error = inflate(&bomb[1..], |_| 64 * 1024, &mut out, &mut Vec::new()).expect_err("a bomb");
        assert_eq!(error.fault, Fault::Inflates(64 * 1024));
        assert!(out.capacity() <= 2 * 64 * 1024, "{}", out.capacity());
    }
}
