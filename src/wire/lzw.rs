//! The compress layer (protocol.md A7): a msgpack struct around LZW data.

use weezl::{BitOrder, LzwStatus, decode::Decoder, encode::Encoder};

use super::error::{DecodeError, Fault};
use super::kind;
use super::msgpack::{Fields, Reader, Writer};

const NAME: &str = "compress";

/// Output grows by this much at a time, so memory follows what the input really holds.
const STEP: usize = 4096;

#[derive(Default)]
struct Compressed<'a> {
    algorithm: u8,
    data: &'a [u8],
}

impl<'a> Fields<'a> for Compressed<'a> {
    const NAME: &'static str = NAME;
    const ORDER: &'static [&'static str] = &["Algo", "Buf"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Algo" => self.algorithm = reader.u8()?,
            b"Buf" => self.data = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        match self.algorithm {
            0 => Ok(()),
            other => Err(("Algo", Fault::Algorithm(other))),
        }
    }
}

/// Decompresses the body of a compress message (what follows the type byte) into `out`, replacing its
/// contents. `max` gives the bound on the output for the length of the compressed data.
pub(super) fn inflate(
    body: &[u8],
    max: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let compressed: Compressed<'_> = Reader::new(body).fields()?;
    let fail = |fault| DecodeError {
        message: NAME,
        field: "Buf",
        offset: body.len(),
        fault,
    };
    lzw_decode(compressed.data, max(compressed.data.len()), out).map_err(fail)
}

fn lzw_decode(mut data: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut decoder = Decoder::new(BitOrder::Lsb, 8);
    out.clear();
    let mut filled = 0;
    loop {
        if filled > max {
            return Err(Fault::Inflates(max));
        }
        if filled == out.len() {
            // Room for one byte beyond the bound tells "exactly the bound" from "more than that".
            out.resize((filled + STEP.max(filled)).min(max + 1), 0);
        }
        let result = decoder.decode_bytes(data, out.get_mut(filled..).unwrap_or_default());
        filled += result.consumed_out;
        data = data.get(result.consumed_in..).unwrap_or_default();
        match result.status {
            Ok(LzwStatus::Done) if filled <= max => break,
            Ok(LzwStatus::Done) => return Err(Fault::Inflates(max)),
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::NoProgress) | Err(_) => return Err(Fault::Lzw),
        }
    }
    out.truncate(filled);
    Ok(())
}

/// The compress message around `plain`, type byte included.
pub(super) fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(plain.len() / 2 + 16);
    let result = Encoder::new(BitOrder::Lsb, 8)
        .into_vec(&mut data)
        .encode_all(plain);
    // The encoder's only error is a byte wider than its 8 bits, and there is none.
    debug_assert!(result.status.is_ok(), "LZW refused a byte");
    let mut out = Vec::with_capacity(data.len() + 20);
    out.push(kind::COMPRESS);
    Writer::new(&mut out)
        .map(2)
        .raw("Algo")
        .uint(0u8)
        .raw("Buf")
        .raw(&data);
    out
}
