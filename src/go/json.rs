//! JSON laid out as Go's encoder does it, which scripts compare byte for byte.

use serde::Serialize;

/// Two-space indent, and `<`, `>`, `&` and a few more characters escaped so that the text can stand
/// in HTML. No newline at the end.
pub fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(escape_as_go(&serde_json::to_string_pretty(value)?))
}

/// All characters treated here can only occur inside strings.
fn escape_as_go(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut characters = json.chars();
    while let Some(character) = characters.next() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            // Stands for what was not UTF-8.
            '\u{fffd}' => escaped.push_str("\\ufffd"),
            '\\' => match characters.next() {
                Some('b') => escaped.push_str("\\u0008"),
                Some('f') => escaped.push_str("\\u000c"),
                other => escaped.extend(['\\'].into_iter().chain(other)),
            },
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn escapes_as_go_does() {
        let cases = [
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("\u{2028}\u{fffd}", r#""\u2028\ufffd""#),
            ("\u{8}\u{c}\n\t\u{1}", r#""\u0008\u000c\n\t\u0001""#),
            ("\\b \"q\" \u{e4}/", "\"\\\\b \\\"q\\\" \u{e4}/\""),
        ];
        for (text, expected) in cases {
            assert_eq!(json(&text).unwrap(), expected);
        }
    }

    #[test]
    fn indents_by_two_and_keeps_empty_ones_together() {
        let map = BTreeMap::from([("b", BTreeMap::new()), ("a", BTreeMap::from([("x", 1)]))]);
        assert_eq!(
            json(&map).unwrap(),
            "{\n  \"a\": {\n    \"x\": 1\n  },\n  \"b\": {}\n}"
        );
    }
}
