//! Durations in the notation of Go: `300ms`, `1.5h`, `2h45m`.

const NANOSECOND: u64 = 1;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError<'a> {
    /// Not of the form `[-+](NUMBER UNIT)...`, or too large.
    Invalid,
    /// A number without a unit after it.
    MissingUnit,
    /// A unit that there is not.
    UnknownUnit(&'a str),
}

/// Reads a duration: nanoseconds, which may be negative.
pub fn parse(text: &str) -> Result<i64, DurationError<'_>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Invalid);
    }
    let mut total: u64 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (nanos, after) = parse_term(rest)?;
        total = total
            .checked_add(nanos)
            .filter(|sum| *sum <= 1 << 63)
            .ok_or(DurationError::Invalid)?;
        rest = after;
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    i64::try_from(sign * i128::from(total)).map_err(|_| DurationError::Invalid)
}

/// Reads one number with its unit; gives its nanoseconds and what follows.
fn parse_term(term: &str) -> Result<(u64, &str), DurationError<'_>> {
    let (whole, rest) = split_where(term, |byte| !byte.is_ascii_digit());
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_where(rest, |byte| !byte.is_ascii_digit()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Invalid);
    }
    let (unit, rest) = split_where(rest, |byte| byte == b'.' || byte.is_ascii_digit());
    let scale = match unit {
        "" => return Err(DurationError::MissingUnit),
        "ns" => NANOSECOND,
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return Err(DurationError::UnknownUnit(unit)),
    };
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| DurationError::Invalid)?
    };
    let nanos = whole
        .checked_mul(scale)
        .filter(|nanos| *nanos <= 1 << 63)
        .ok_or(DurationError::Invalid)?;
    nanos
        .checked_add(fraction_nanos(fraction, scale))
        .map(|nanos| (nanos, rest))
        .ok_or(DurationError::Invalid)
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
            assert_eq!(parse(text), Ok(*nanos), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
