//! Text of others on a terminal: what would act there instead of being shown is written as Go's `%q` writes it.
//! All other text stays as it is.

use std::borrow::Cow;

use super::quote::push_escape;

/// A name, a tag, or whatever else stands within a line.
pub fn word(text: &str) -> Cow<'_, str> {
    escape(text, |_, _| false)
}

/// A text of a log. It keeps its tabs, and the ends of lines after which nothing comes that could pass for a line
/// of the log: a tab or a star, as before each of several errors, another end of line, or nothing.
pub fn entry(text: &str) -> Cow<'_, str> {
    escape(text, |character, next| match character {
        '\t' => true,
        '\n' => matches!(next, None | Some('\n' | '\t' | '*')),
        _ => false,
    })
}

/// Lines and columns of our own, in which others' words have been made harmless.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |character, _| matches!(character, '\t' | '\n'))
}

/// Whether a terminal does something at this character: the control characters, and those that turn the
/// direction of the text after them.
fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what acts, except what `stays` lets be, which is asked with the character behind it.
fn escape(text: &str, stays: impl Fn(char, Option<char>) -> bool) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if !acts(character) || stays(character, rest.clone().next()) {
            shown.push(character);
            continue;
        }
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            other => push_escape(&mut shown, u32::from(other)),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        let table = [
            ("web-1 \u{e4}\u{4e16} C:\\new", "web-1 \u{e4}\u{4e16} C:\\new"),
            ("\u{1b}[2Jx\u{7}\0", "\\x1b[2Jx\\x07\\x00"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\u{7f}\u{9b}31m", "\\x7f\\u009b31m"),
            ("a\u{202e}b\u{2066}", "a\\u202eb\\u2066"),
        ];
        for (text, shown) in table {
            assert_eq!(word(text), shown);
        }
    }

    #[test]
    fn a_text_of_the_log_cannot_begin_a_line_of_its_own() {
        let errors = "2 errors occurred:\n\t* one\n\t* two\n\n";
        assert_eq!(entry(errors), errors);
        let mistakes = "2 error(s) decoding:\n\n* one\n* two";
        assert_eq!(entry(mistakes), mistakes);
        assert_eq!(
            entry("n\n    2026/11/20 17:47:07 [INFO] agent: fine"),
            "n\\n    2026/11/20 17:47:07 [INFO] agent: fine"
        );
        assert_eq!(entry("n\r\u{1b}[1Ax"), "n\\r\\x1b[1Ax");
    }

    #[test]
    fn lines_of_our_own_keep_their_form() {
        assert_eq!(lines("a:\n\tb = \u{1b}c\n"), "a:\n\tb = \\x1bc\n");
    }
}
