//! JSON as the agent's users know it: the words of every error are those that Serf shows.

use serde_json::Value;

use super::text;

/// How deep the search for an error descends; serde_json itself stops at 128.
const MAX_DEPTH: usize = 200;

/// The first JSON value of a text; what follows it is ignored, as Serf does in configuration files.
pub fn parse_first(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(text::of_file(bytes)?);
    match serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .next()
    {
        None => Err("EOF".to_string()),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(match syntax_error(&text, false) {
            Some(Fault::End) => "unexpected EOF".to_string(),
            Some(fault) => fault.to_string(),
            None => error.to_string(),
        }),
    }
}

/// The only JSON value of a text.
pub fn parse_whole(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(text::of_file(bytes)?);
    serde_json::from_str(&text).map_err(|error| match syntax_error(&text, true) {
        Some(fault) => fault.to_string(),
        None => error.to_string(),
    })
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

/// Where a text stops being JSON.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("unexpected end of JSON input")]
    End,
    #[error("invalid character {} {context}", quote(*.byte))]
    Byte { byte: u8, context: String },
}

fn syntax_error(text: &str, whole: bool) -> Option<Fault> {
    let mut scan = Scan {
        rest: text.as_bytes(),
    };
    match scan.value(0) {
        Err(fault) => fault,
        Ok(()) if whole => {
            scan.space();
            scan.rest.first().map(|byte| Fault::Byte {
                byte: *byte,
                context: "after top-level value".to_string(),
            })
        }
        Ok(()) => None,
    }
}

/// Finds the first error; `None` as the error means that the search was given up.
struct Scan<'a> {
    rest: &'a [u8],
}

type Step = Result<(), Option<Fault>>;

impl Scan<'_> {
    fn peek(&self) -> Result<u8, Option<Fault>> {
        self.rest.first().copied().ok_or(Some(Fault::End))
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn space(&mut self) {
        while matches!(self.rest.first(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.skip();
        }
    }

    fn fault<T>(byte: u8, context: &str) -> Result<T, Option<Fault>> {
        Err(Some(Fault::Byte {
            byte,
            context: context.to_string(),
        }))
    }

    fn value(&mut self, depth: usize) -> Step {
        if depth > MAX_DEPTH {
            return Err(None);
        }
        self.space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number(),
            other => Self::fault(other, "looking for beginning of value"),
        }
    }

    fn object(&mut self, depth: usize) -> Step {
        self.skip();
        self.space();
        if self.peek()? == b'}' {
            self.skip();
            return Ok(());
        }
        loop {
            self.space();
            match self.peek()? {
                b'"' => self.string()?,
                other => return Self::fault(other, "looking for beginning of object key string"),
            }
            self.space();
            match self.peek()? {
                b':' => self.skip(),
                other => return Self::fault(other, "after object key"),
            }
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.skip(),
                b'}' => break self.skip(),
                other => return Self::fault(other, "after object key:value pair"),
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Step {
        self.skip();
        self.space();
        if self.peek()? == b']' {
            self.skip();
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.skip(),
                b']' => break self.skip(),
                other => return Self::fault(other, "after array element"),
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Step {
        self.skip();
        loop {
            match self.peek()? {
                b'"' => break self.skip(),
                b'\\' => {
                    self.skip();
                    self.escape()?;
                }
                byte if byte < 0x20 => return Self::fault(byte, "in string literal"),
                _ => self.skip(),
            }
        }
        Ok(())
    }

    fn escape(&mut self) -> Step {
        let byte = self.peek()?;
        self.skip();
        match byte {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    let digit = self.peek()?;
                    if !digit.is_ascii_hexdigit() {
                        return Self::fault(digit, "in \\u hexadecimal character escape");
                    }
                    self.skip();
                }
                Ok(())
            }
            other => Self::fault(other, "in string escape code"),
        }
    }

    fn literal(&mut self, word: &str) -> Step {
        for expected in word.bytes() {
            let byte = self.peek()?;
            if byte != expected {
                return Self::fault(
                    byte,
                    &format!("in literal {word} (expecting '{}')", char::from(expected)),
                );
            }
            self.skip();
        }
        Ok(())
    }

    fn number(&mut self) -> Step {
        if self.peek()? == b'-' {
            self.skip();
        }
        match self.peek()? {
            b'0' => self.skip(),
            _ => self.digits("in numeric literal")?,
        }
        if self.rest.first() == Some(&b'.') {
            self.skip();
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.skip();
            if matches!(self.peek()?, b'+' | b'-') {
                self.skip();
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Step {
        match self.peek()? {
            b'0'..=b'9' => {}
            other => return Self::fault(other, context),
        }
        while matches!(self.rest.first(), Some(b'0'..=b'9')) {
            self.skip();
        }
        Ok(())
    }
}

/// A byte between single quotes, as Go shows it.
fn quote(byte: u8) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_string(),
        b'\\' => "\\\\".to_string(),
        0x07 => "\\a".to_string(),
        0x08 => "\\b".to_string(),
        0x0b => "\\v".to_string(),
        0x0c => "\\f".to_string(),
        b'\n' => "\\n".to_string(),
        b'\r' => "\\r".to_string(),
        b'\t' => "\\t".to_string(),
        0..=0x1f | 0x7f => format!("\\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    format!("'{shown}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_have_the_words_of_serf() {
        #[rustfmt::skip]
        let table = [
            ("", "EOF"), (" \n", "EOF"), ("{", "unexpected EOF"), ("{\"a\":1", "unexpected EOF"), ("nul", "unexpected EOF"),
            ("{/", "invalid character '/' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("nulx", "invalid character 'x' in literal null (expecting 'l')"),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            ("{\"a\":01}", "invalid character '1' after object key:value pair"),
            ("{\"a\":1.}", "invalid character '}' after decimal point in numeric literal"),
            ("{\"a\":1ex}", "invalid character 'x' in exponent of numeric literal"),
            ("{\"a\":\"\\q\"}", "invalid character 'q' in string escape code"),
            ("{\"a\":\"\\u12x4\"}", "invalid character 'x' in \\u hexadecimal character escape"),
            ("{\"a\":\"\u{1}\"}", "invalid character '\\x01' in string literal"),
            ("{\"a\":\"x\ny\"}", "invalid character '\\n' in string literal"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_first(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert!(parse_first(b"{}{\"foo\":1}").is_ok());
        assert!(parse_first(&[b'['; 100_000]).is_err());
        assert_eq!(parse_whole(b"").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(
            parse_whole(b"{}x").unwrap_err(),
            "invalid character 'x' after top-level value"
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
