//! The network coordinate in the payload of an ack (docs/protocol.md#b13-network-coordinates).

use super::error::{DecodeError, Fault};
use super::msgpack::{Fields, Reader, Writer};
use super::serf::WireCoordinate;

/// The only version of the payload that is known.
const VERSION: u8 = 1;

/// How many dimensions a coordinate has, everywhere in Serf.
const DIMENSIONS: usize = 8;

impl WireCoordinate {
    /// Reads the payload of an ack. `None`: it carries no coordinate, or one of another version. A
    /// coordinate of another dimension, or with a number that is not finite, is an error.
    pub fn decode_payload(payload: &[u8]) -> Result<Option<WireCoordinate>, DecodeError> {
        match payload.split_first() {
            Some((&VERSION, body)) => {
                let Parts {
                    vec,
                    error,
                    adjustment,
                    height,
                    ..
                } = Reader::new(body).fields()?;
                Ok(Some(WireCoordinate {
                    vec,
                    error,
                    adjustment,
                    height,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Appends the payload of an ack.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let mut writer = Writer::new(out);
        writer
            .map(4)
            .raw("Adjustment")
            .float(self.adjustment)
            .raw("Error")
            .float(self.error);
        writer
            .raw("Height")
            .float(self.height)
            .raw("Vec")
            .array(DIMENSIONS);
        for component in self.vec {
            writer.float(component);
        }
    }
}

#[derive(Default)]
struct Parts {
    vec: [f64; DIMENSIONS],
    dimensions: usize,
    error: f64,
    adjustment: f64,
    height: f64,
}

impl<'a> Fields<'a> for Parts {
    const NAME: &'static str = "coordinate";
    const ORDER: &'static [&'static str] = &["Vec", "Error", "Adjustment", "Height"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Vec" => {
                let mut components = self.vec.iter_mut();
                let mut dimensions = 0;
                reader.array(DIMENSIONS, |reader| {
                    if let Some(component) = components.next() {
                        *component = reader.float()?;
                        dimensions += 1;
                    }
                    Ok(())
                })?;
                self.dimensions = dimensions;
            }
            b"Error" => self.error = reader.float()?,
            b"Adjustment" => self.adjustment = reader.float()?,
            b"Height" => self.height = reader.float()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        match self.dimensions {
            DIMENSIONS => Ok(()),
            found => Err(("Vec", Fault::Length { found, expected: "8" })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: WireCoordinate = WireCoordinate {
        vec: [1.0, -2.0, 0.5, 0.0, 4e-5, 6.0, 7.0, 8.0],
        error: 1.5,
        adjustment: -0.25,
        height: 1e-5,
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
            Fault::Length {
                found: 0,
                expected: "8"
            }
        );
        assert_eq!(
            fault(b"\x01\x81\xa3Vec\x97\0\0\0\0\0\0\0"),
            Fault::Length {
                found: 7,
                expected: "8"
            }
        );
        assert_eq!(
            fault(b"\x01\x81\xa3Vec\x99\0\0\0\0\0\0\0\0\0"),
            Fault::TooMany { len: 9, max: 8 }
        );
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut payload = Vec::new();
            WireCoordinate {
                height: bad,
                ..SAMPLE
            }
            .encode_payload(&mut payload);
            assert_eq!(fault(&payload), Fault::NotFinite);
            payload.clear();
            WireCoordinate {
                vec: [0.0, 0.0, bad, 0.0, 0.0, 0.0, 0.0, 0.0],
                ..SAMPLE
            }
            .encode_payload(&mut payload);
            assert_eq!(fault(&payload), Fault::NotFinite);
        }
    }
}
