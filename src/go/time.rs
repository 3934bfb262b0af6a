//! Spans of time and times of day as Go's package `time` writes them.

use std::fmt;

use chrono::{DateTime, Local};
use fyrd_core::duration::{self, DurationError};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A signed span of time in nanoseconds, read and written as `1h2m3.5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    /// Nanoseconds; may be negative.
    pub nanos: i64,
}

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Duration, String> {
        let nanos = duration::parse(text).map_err(|error| match error {
            DurationError::Invalid => format!("time: invalid duration {}", quote(text)),
            DurationError::MissingUnit => format!("time: missing unit in duration {}", quote(text)),
            DurationError::UnknownUnit(unit) => {
                format!("time: unknown unit {} in duration {}", quote(unit), quote(text))
            }
        })?;
        Ok(Duration { nanos })
    }
}

impl fmt::Display for Duration {
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

/// A time as Go shows it. Names of zones are unknown here, but for that of UTC.
pub fn time(time: &DateTime<Local>) -> String {
    let fraction = match time.timestamp_subsec_nanos() {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_string(),
    };
    let offset = time.format("%z").to_string();
    let zone = if offset == "+0000" { "UTC" } else { &offset };
    format!("{}{fraction} {offset} {zone}", time.format("%Y-%m-%d %H:%M:%S"))
}

/// This package quotes all that is not printable ASCII byte by byte.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            assert_eq!(text.parse::<Duration>(), Err(expected.to_owned()));
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
            assert_eq!(Duration { nanos }.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nanos: i64) {
            let duration = Duration { nanos };
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
