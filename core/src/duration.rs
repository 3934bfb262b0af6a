//! Durations in Go's notation: `300ms`, `1.5h`, `2h45m`.

use std::fmt;

const NANOSECOND: u64 = 1;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A signed span of time in nanoseconds, read and written as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    /// Nanoseconds; may be negative.
    pub nanos: i64,
}

/// Why a text is no duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form `[-+](NUMBER UNIT)...`, or too large.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number without a unit after it.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A unit Go does not have.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl std::str::FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<GoDuration, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        if unsigned == "0" {
            return Ok(GoDuration::default());
        }
        if unsigned.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        let mut rest = unsigned;
        while !rest.is_empty() {
            let (nanos, after) = parse_term(rest, text)?;
            total = total
                .checked_add(nanos)
                .filter(|sum| *sum <= 1 << 63)
                .ok_or_else(invalid)?;
            rest = after;
        }
        let signed = if text.starts_with('-') {
            -i128::from(total)
        } else {
            i128::from(total)
        };
        i64::try_from(signed)
            .map(|nanos| GoDuration { nanos })
            .map_err(|_| invalid())
    }
}

/// Reads one number with its unit; gives its nanoseconds and what follows.
fn parse_term<'a>(term: &'a str, text: &str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (whole, rest) = split_where(term, |byte| !byte.is_ascii_digit());
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_where(rest, |byte| !byte.is_ascii_digit()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let (unit, rest) = split_where(rest, |byte| byte == b'.' || byte.is_ascii_digit());
    let scale = match unit {
        "" => return Err(DurationError::MissingUnit(text.to_owned())),
        "ns" => NANOSECOND,
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => {
            return Err(DurationError::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            });
        }
    };
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| invalid())?
    };
    let nanos = whole
        .checked_mul(scale)
        .filter(|nanos| *nanos <= 1 << 63)
        .ok_or_else(invalid)?;
    nanos
        .checked_add(fraction_nanos(fraction, scale))
        .map(|nanos| (nanos, rest))
        .ok_or_else(invalid)
}

/// `0.FRACTION` of `scale`, in the floating-point steps Go takes, so that both cut the same way. Digits
/// that an integer cannot hold are too small to matter.
fn fraction_nanos(fraction: &str, scale: u64) -> u64 {
    let (mut number, mut divisor) = (0u64, 1f64);
    for digit in fraction.bytes().map(|byte| u64::from(byte.saturating_sub(b'0'))) {
        let longer = number.checked_mul(10).and_then(|ten| ten.checked_add(digit));
        let Some(longer) = longer.filter(|longer| *longer <= 1 << 63) else {
            break;
        };
        number = longer;
        divisor *= 10.0;
    }
    (number as f64 * (scale as f64 / divisor)) as u64
}

fn split_where(text: &str, ends: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(ends).unwrap_or(text.len()))
}

/// Go's time package quotes all that is not printable ASCII byte by byte.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' | 0x7f => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for GoDuration {
    /// Hours, minutes and seconds from a second up; below, the largest fitting unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos.unsigned_abs();
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{nanos}ns"),
            MICROSECOND..MILLISECOND => write_decimal(f, nanos, MICROSECOND, "\u{b5}s"),
            MILLISECOND..SECOND => write_decimal(f, nanos, MILLISECOND, "ms"),
            _ => {
                let (hours, minutes) = (nanos / HOUR, nanos / MINUTE % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if nanos >= MINUTE {
                    write!(f, "{minutes}m")?;
                }
                write_decimal(f, nanos % MINUTE, SECOND, "s")
            }
        }
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: u64, scale: u64, unit: &str) -> fmt::Result {
    let digits = scale.ilog10() as usize;
    let fraction = format!("{:0digits$}", nanos % scale);
    match fraction.trim_end_matches('0') {
        "" => write!(f, "{}{unit}", nanos / scale),
        fraction => write!(f, "{}.{fraction}{unit}", nanos / scale),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_as_go_does() {
        let cases: &[(&str, i64)] = &[
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            ("2h45m", 9_900_000_000_000),
            ("-1m", -60_000_000_000),
            ("+1m", 60_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("7us", 7_000),
            ("7\u{b5}s", 7_000),
            ("7\u{3bc}s", 7_000),
            ("1h1h", 7_200_000_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("9007199254.740993ms", 9_007_199_254_740_993),
            ("9223372036854775.807us", i64::MAX),
            ("52763797000ns", 52_763_797_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, nanos) in cases {
            assert_eq!(text.parse(), Ok(GoDuration { nanos: *nanos }), "{text}");
        }
    }

    #[test]
    fn errors_read_as_go_writes_them() {
        let cases = [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1h5", "time: missing unit in duration \"1h5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1 s", "time: unknown unit \" s\" in duration \"1 s\""),
            ("\"1\"", "time: invalid duration \"\\\"1\\\"\""),
            ("\u{e4}", "time: invalid duration \"\\xc3\\xa4\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
            ("3000000h", "time: invalid duration \"3000000h\""),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<GoDuration>().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn formats_as_go_does() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (300_000_000, "300ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (305_000_000_000, "5m5s"),
            (5_405_001_000_000, "1h30m5.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(GoDuration { nanos }.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nanos: i64) {
            let duration = GoDuration { nanos };
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<GoDuration>();
        }
    }
}
