//! Booleans and integers in the notation of Go.

use std::num::IntErrorKind;

/// Why a text is no boolean or number, in the words of Go's flag package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not in Go's notation.
    #[error("parse error")]
    Syntax,
    /// Too large.
    #[error("value out of range")]
    Range,
}

/// Reads a boolean as Go's `strconv.ParseBool`.
pub fn parse_boolean(text: &str) -> Result<bool, NumberError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(NumberError::Syntax),
    }
}

/// Reads an integer as Go's `strconv.ParseInt` with base 0: `0x`, `0o`, `0b` or a leading `0` name the
/// base, and underscores may divide digits.
pub fn parse_integer(text: &str) -> Result<i64, NumberError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)),
        [b'0', b'o', ..] => (8, lower.get(2..)),
        [b'0', b'b', ..] => (2, lower.get(2..)),
        [b'0', _, ..] => (8, lower.get(1..)),
        _ => (10, Some(lower.as_str())),
    };
    let digits = digits.unwrap_or_default();
    let after_prefix = base != 10;
    let misplaced =
        digits.ends_with('_') || digits.contains("__") || (!after_prefix && digits.starts_with('_'));
    if misplaced || digits.starts_with(['-', '+']) {
        return Err(NumberError::Syntax);
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    let plain = format!("{sign}{}", digits.replace('_', ""));
    i64::from_str_radix(&plain, base).map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => NumberError::Range,
        _ => NumberError::Syntax,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_go_notation() {
        let cases = [
            ("0", Ok(0)),
            ("-7", Ok(-7)),
            ("+7", Ok(7)),
            ("017", Ok(15)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("0XfF", Ok(255)),
            ("1_000", Ok(1000)),
            ("0x_ff", Ok(255)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(NumberError::Range)),
            ("", Err(NumberError::Syntax)),
            ("-", Err(NumberError::Syntax)),
            ("--1", Err(NumberError::Syntax)),
            ("08", Err(NumberError::Syntax)),
            ("0x", Err(NumberError::Syntax)),
            ("1__0", Err(NumberError::Syntax)),
            ("_1", Err(NumberError::Syntax)),
            ("1.0", Err(NumberError::Syntax)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_integer(text), expected, "{text}");
        }
    }
}
