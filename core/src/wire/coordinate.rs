//! The network coordinate in the payload of an ack (docs/protocol.md#b13-network-coordinates).

use super::error::DecodeError;
use crate::msgpack::{Fault, Form, Plain, Reader, Table, Writer, table};

/// The only version of the payload that is known.
const VERSION: u8 = 1;

/// How many dimensions a coordinate has, everywhere in Serf.
const DIMENSIONS: usize = 8;

table! {
    /// Serf's network coordinate (Vivaldi), in seconds; the payload of acks.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct WireCoordinate, "coordinate" {
        /// Offset learnt over the last samples.
        2 Adjustment: Plain => pub adjustment: f64,
        /// Estimated relative error.
        1 Error: Plain => pub error: f64,
        /// Access-link delay.
        3 Height: Plain => pub height: f64,
        /// Euclidean part.
        0 Vec: Components => pub vec: [f64; 8],
    }
}

impl WireCoordinate {
    /// Reads the payload of an ack. `None`: it carries no coordinate, or one of another version. A
    /// coordinate of another dimension, or with a number that is not finite, is an error.
    pub fn decode_payload(payload: &[u8]) -> Result<Option<WireCoordinate>, DecodeError> {
        match payload.split_first() {
            Some((&VERSION, body)) => Ok(Some(Reader::new(body).table()?)),
            _ => Ok(None),
        }
    }

    /// Appends the payload of an ack.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.write(&mut Writer::new(out));
    }
}

/// One number for each dimension.
struct Components;

impl<'a> Form<'a, [f64; DIMENSIONS]> for Components {
    fn read(reader: &mut Reader<'a>) -> Result<[f64; DIMENSIONS], Fault> {
        let mut vec = [0.0; DIMENSIONS];
        let mut components = vec.iter_mut();
        reader.array(DIMENSIONS, |reader| {
            if let Some(component) = components.next() {
                *component = reader.float()?;
            }
            Ok(())
        })?;
        match components.len() {
            0 => Ok(vec),
            missing => Err(dimensions(DIMENSIONS - missing)),
        }
    }

    fn write(vec: &[f64; DIMENSIONS], writer: &mut Writer<'_>) {
        writer.array(DIMENSIONS);
        for component in vec {
            writer.float(*component);
        }
    }

    /// What comes is finite, so this is what did not come.
    fn absent() -> [f64; DIMENSIONS] {
        [f64::NAN; DIMENSIONS]
    }

    fn check(vec: &[f64; DIMENSIONS]) -> Result<(), Fault> {
        if vec.iter().any(|component| component.is_nan()) {
            Err(dimensions(0))
        } else {
            Ok(())
        }
    }
}

fn dimensions(found: usize) -> Fault {
    Fault::Length { found, expected: "8" }
}

#[cfg(test)]
mod tests {
    use super::WireCoordinate;
    use crate::msgpack::Fault::{Length, NotFinite, TooMany};
    use crate::wire::Fault;

    const SAMPLE: WireCoordinate = WireCoordinate {
        vec: [1.0, -2.0, 0.5, 0.0, 0.0625, 6.0, 7.0, 8.0],
        error: 1.5,
        adjustment: -0.25,
        height: 0.125,
    };

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        SAMPLE.encode_payload(&mut out);
        out
    }

    #[test]
    fn a_payload_round_trips() {
        assert_eq!(WireCoordinate::decode_payload(&encoded()), Ok(Some(SAMPLE)));
    }

    #[test]
    fn numbers_lose_less_than_any_clock_tells_and_none_becomes_infinite() {
        for number in [1e-5, -0.123_456_789, 3e38, -1e300] {
            let mut payload = Vec::new();
            WireCoordinate {
                height: number,
                ..SAMPLE
            }
            .encode_payload(&mut payload);
            let read = WireCoordinate::decode_payload(&payload).unwrap().unwrap();
            assert!(
                (read.height / number - 1.0).abs() < 1e-7,
                "{number}: {}",
                read.height
            );
        }
        // Eleven numbers, and their names.
        assert_eq!(encoded().len(), 11 * 5 + 31);
    }

    #[test]
    fn no_payload_and_other_versions_carry_no_coordinate() {
        for payload in [&b""[..], b"\x00", b"\x02\x84", b"\xc0"] {
            assert_eq!(WireCoordinate::decode_payload(payload), Ok(None), "{payload:x?}");
        }
    }

    #[test]
    fn wrong_dimensions_and_numbers_that_are_not_finite_are_refused() {
        let fault = |body: &[u8]| WireCoordinate::decode_payload(body).expect_err("refused").fault;
        assert_eq!(
            fault(b"\x01\x80"),
            Fault::Value(Length {
                found: 0,
                expected: "8"
            })
        );
        assert_eq!(
            fault(b"\x01\x81\xa3Vec\x97\0\0\0\0\0\0\0"),
            Fault::Value(Length {
                found: 7,
                expected: "8"
            })
        );
        assert_eq!(
            fault(b"\x01\x81\xa3Vec\x99\0\0\0\0\0\0\0\0\0"),
            Fault::Value(TooMany { len: 9, max: 8 })
        );
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut payload = Vec::new();
            WireCoordinate {
                height: bad,
                ..SAMPLE
            }
            .encode_payload(&mut payload);
            assert_eq!(fault(&payload), Fault::Value(NotFinite));
            payload.clear();
            WireCoordinate {
                vec: [0.0, 0.0, bad, 0.0, 0.0, 0.0, 0.0, 0.0],
                ..SAMPLE
            }
            .encode_payload(&mut payload);
            assert_eq!(fault(&payload), Fault::Value(NotFinite));
        }
    }
}
