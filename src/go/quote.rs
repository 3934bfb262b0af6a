//! Go's notations for values: `%q` and `%#v`.

use std::fmt::Write;

/// A string in double quotes, escaped as Go's `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            _ if is_printable(character) => quoted.push(character),
            _ => push_escape(&mut quoted, u32::from(character)),
        }
    }
    quoted.push('"');
    quoted
}

/// A byte slice in `%#v`, under the type name that Go shows at that place. Serf sends empty payloads
/// as nil, so an empty slice is written as nil.
pub fn bytes(type_name: &str, bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "<nil>".to_owned();
    }
    let mut shown = format!("{type_name}{{");
    for (place, byte) in bytes.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(shown, "{comma}{byte:#x}");
    }
    shown.push('}');
    shown
}

pub(super) fn push_escape(quoted: &mut String, code: u32) {
    // Writing to a String cannot fail.
    let _ = match code {
        0..=0x7f => write!(quoted, "\\x{code:02x}"),
        0x80..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
}

/// Rust's own Debug escapes the same classes, once combining marks are not at the start.
fn is_printable(character: char) -> bool {
    let after_a_letter: String = ['a', character].iter().collect();
    matches!(character, '\'') || after_a_letter.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let cases = [
            ("", r#""""#),
            ("plain 'text'", r#""plain 'text'""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("\u{e4}\u{4e16}", "\"\u{e4}\u{4e16}\""),
            ("\u{a0}\u{200b}", r#""\u00a0\u200b""#),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{10ffff}", r#""\U0010ffff""#),
        ];
        for (text, expected) in cases {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn writes_bytes_as_go_does() {
        assert_eq!(bytes("[]byte", b"p\0"), "[]byte{0x70, 0x0}");
        assert_eq!(bytes("[]byte", b""), "<nil>");
    }
}
