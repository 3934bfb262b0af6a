//! JSON as Go reads it: the words for what is wrong with a text, and for the values in it.

use serde_json::Value;
use serde_json::error::Category;

use super::quote::quote;

/// The first JSON value of a text; what follows it is ignored, as Go's decoder of streams does.
pub fn parse_first(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let value = values.next().ok_or("EOF")?;
    value.map_err(|error| syntax_error(&text, &error, "unexpected EOF"))
}

/// The only JSON value of a text.
pub fn parse_whole(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text).map_err(|error| syntax_error(&text, &error, "unexpected end of JSON input"))
}

/// Go's word for the kind of a value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// The JSON word for the kind of a value.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Number(_) => "number",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        other => kind(other),
    }
}

/// A value as Go prints it.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), show_float),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", show(value)))
                .collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// The shortest notation, with an exponent from 1e6 and below 1e-4.
fn show_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// Go's words, and then serde_json's own, which say where it is and what would be right. They are the only
/// ones where Go has none.
fn syntax_error(text: &str, error: &serde_json::Error, end: &str) -> String {
    let reason = error.to_string();
    if error.classify() == Category::Eof {
        return match text.trim().is_empty() {
            true => end.to_string(),
            false => format!("{end}: {reason}"),
        };
    }
    let line_start = match error.line() {
        0 | 1 => 0,
        line => text
            .match_indices('\n')
            .nth(line - 2)
            .map_or(0, |(newline, _)| newline + 1),
    };
    // Columns count from 1; a newline itself is column 0 of the next line.
    let place = (line_start + error.column()).saturating_sub(1).min(text.len());
    let place = wrong_hex_digit(text.as_bytes(), place).unwrap_or(place);
    let (before, after) = text.as_bytes().split_at(place);
    match (context(&reason, before, after), after.first()) {
        (Some(context), Some(byte)) => format!("invalid character {} {context}: {reason}", quote_byte(*byte)),
        _ => reason,
    }
}

/// Of an escape such as `\u12x4`, serde_json names the last digit, and Go the first wrong one.
fn wrong_hex_digit(text: &[u8], last: usize) -> Option<usize> {
    let escape = text.get(last.checked_sub(5)?..=last)?;
    let digits = escape.strip_prefix(b"\\u")?;
    let wrong = digits.iter().position(|digit| !digit.is_ascii_hexdigit())?;
    Some(last - 3 + wrong)
}

/// What Go says about the byte at which `after` begins, where serde_json says this.
fn context(reason: &str, before: &[u8], after: &[u8]) -> Option<String> {
    let says = |start: &str| reason.starts_with(start);
    let words = if says("expected value") || says("trailing comma") && after.starts_with(b"]") {
        "looking for beginning of value"
    } else if says("key must be a string") || says("trailing comma") {
        "looking for beginning of object key string"
    } else if says("expected `:`") {
        "after object key"
    } else if says("expected `,` or `}`") {
        "after object key:value pair"
    } else if says("expected `,` or `]`") {
        "after array element"
    } else if says("trailing characters") {
        "after top-level value"
    } else if says("control character") {
        "in string literal"
    } else if says("invalid escape") && before.ends_with(b"\\") {
        "in string escape code"
    } else if says("invalid escape") {
        "in \\u hexadecimal character escape"
    } else if says("invalid number at") {
        match before {
            [.., b'.'] => "after decimal point in numeric literal",
            [.., b'e' | b'E'] | [.., b'e' | b'E', b'+' | b'-'] => "in exponent of numeric literal",
            _ => "in numeric literal",
        }
    } else if says("expected ident") {
        return ["true", "false", "null"].iter().find_map(|word| {
            let (_, expected) = word
                .char_indices()
                .skip(1)
                .find(|(at, _)| before.ends_with(word.get(..*at).unwrap_or_default().as_bytes()))?;
            Some(format!("in literal {word} (expecting '{expected}')"))
        });
    } else {
        return None;
    };
    Some(words.to_string())
}

/// A byte between single quotes, as Go shows it.
fn quote_byte(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_string(),
        b'"' => "'\"'".to_string(),
        _ => format!("'{}'", quote(&char::from(byte).to_string()).trim_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_have_the_words_of_serf_and_the_place() {
        #[rustfmt::skip]
        let table = [
            ("", "EOF"), (" \n", "EOF"), ("{", "unexpected EOF: EOF while parsing an object at line 1 column 1"),
            ("{\n\"a\":1", "unexpected EOF: EOF while parsing an object at line 2 column 5"),
            ("nul", "unexpected EOF: EOF while parsing a value at line 1 column 3"),
            ("{/", "invalid character '/' looking for beginning of object key string: key must be a string at line 1 column 2"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string: trailing comma at line 1 column 8"),
            ("[1,]", "invalid character ']' looking for beginning of value: trailing comma at line 1 column 4"),
            ("[\n\n ?]", "invalid character '?' looking for beginning of value: expected value at line 3 column 2"),
            ("{\"a\" 1}", "invalid character '1' after object key: expected `:` at line 1 column 6"),
            ("{\"a\":1\n \"b\"}", "invalid character '\"' after object key:value pair: expected `,` or `}` at line 2 column 2"),
            ("[1 2]", "invalid character '2' after array element: expected `,` or `]` at line 1 column 4"),
            ("nulx", "invalid character 'x' in literal null (expecting 'l'): expected ident at line 1 column 4"),
            ("[tt]", "invalid character 't' in literal true (expecting 'r'): expected ident at line 1 column 3"),
            ("{\"a\":-}", "invalid character '}' in numeric literal: invalid number at line 1 column 7"),
            ("{\"a\":01}", "invalid character '1' in numeric literal: invalid number at line 1 column 7"),
            ("{\"a\":1.}", "invalid character '}' after decimal point in numeric literal: invalid number at line 1 column 8"),
            ("{\"a\":1ex}", "invalid character 'x' in exponent of numeric literal: invalid number at line 1 column 8"),
            ("{\"a\":1e+x}", "invalid character 'x' in exponent of numeric literal: invalid number at line 1 column 9"),
            ("{\"a\":\"\\q\"}", "invalid character 'q' in string escape code: invalid escape at line 1 column 8"),
            ("{\"a\":\"\\u12x4\"}",
             "invalid character 'x' in \\u hexadecimal character escape: invalid escape at line 1 column 12"),
            ("{\"a\":\"\u{1}\"}",
             "invalid character '\\x01' in string literal: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 7"),
            ("{\"a\":\"x\ny\"}",
             "invalid character '\\n' in string literal: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_first(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert!(parse_first(b"{}{\"foo\":1}").is_ok());
        assert!(parse_first(&[b'['; 100_000]).is_err());
        assert_eq!(parse_whole(b"").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(
            parse_whole(b"{}x").unwrap_err(),
            "invalid character 'x' after top-level value: trailing characters at line 1 column 3"
        );
    }

    #[test]
    fn values_are_shown_as_go_does() {
        let table = [
            ("5", "5"),
            ("1.5", "1.5"),
            ("1e21", "1e+21"),
            ("1234567", "1.234567e+06"),
            ("100000", "100000"),
            ("1e-7", "1e-07"),
            ("0.0001", "0.0001"),
            ("-0.25", "-0.25"),
            ("[1,\"a\"]", "[1 a]"),
            ("{\"b\":null,\"a\":true}", "map[a:true b:<nil>]"),
        ];
        for (text, expected) in table {
            assert_eq!(show(&parse_whole(text.as_bytes()).unwrap()), expected);
        }
    }
}
