//! Regular expressions as Go's RE2 reads them, on the engine of the `regex` crate.
//!
//! Both are of one family; what differs in the syntax is rewritten here, so that a pattern means the
//! same on every member of a mixed cluster: `\d`, `\s`, `\w` and `\b` are ASCII, `\Q..\E` quotes, and a
//! class knows neither nesting nor set operations.

use std::collections::VecDeque;

use regex::{Regex, RegexBuilder};

use crate::bounds::{FILTER_CLASS_WORK, FILTERS_KEPT, QUERY_FILTERS_TEXT, QUERY_FILTERS_WORK, REGEX_MAX};

/// Compiles a pattern, unanchored. The error says what is wrong with it, in one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    build(pattern, REGEX_MAX).map_err(|error| explain(pattern, &error))
}

/// What may still be spent on one query's filters.
#[derive(Debug)]
pub struct Budget {
    work: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            work: QUERY_FILTERS_WORK,
            text: QUERY_FILTERS_TEXT,
        }
    }
}

/// Why an expression is not used.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is none.
    Malformed(String),
    /// It takes more work than is left of the budget.
    TooMuch,
}

/// Compiles the expressions of filters within the budget of a query, and keeps those used last: the same are
/// asked for again and again.
#[derive(Debug, Default)]
pub struct Filters {
    kept: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    pattern: Box<str>,
    work: usize,
    regex: Regex,
}

impl Filters {
    /// A pattern, compiled. One that was kept costs the budget as much as others, for it takes as long to match.
    pub fn compile(&mut self, pattern: &str, budget: &mut Budget) -> Result<&Regex, Refusal> {
        let at = self.kept.iter().position(|kept| *kept.pattern == *pattern);
        let found = match at.and_then(|at| self.kept.remove(at)) {
            Some(kept) => kept,
            None => build_within(pattern, budget)?,
        };
        let pays = pay(&mut budget.work, found.work) && pay(&mut budget.text, pattern.len());
        self.kept.push_back(found);
        while self.kept.len() > FILTERS_KEPT
            || self.kept.iter().map(|kept| kept.work).sum::<usize>() > 4 * QUERY_FILTERS_WORK
        {
            self.kept.pop_front();
        }
        match self.kept.back() {
            Some(kept) if pays => Ok(&kept.regex),
            _ => Err(Refusal::TooMuch),
        }
    }
}

fn pay(left: &mut usize, price: usize) -> bool {
    let rest = left.checked_sub(price);
    *left = rest.unwrap_or(0);
    rest.is_some()
}

/// Compiles at the smallest of some limits that suffices, which is what the expression counts: how large it has
/// become, the library does not tell.
fn build_within(pattern: &str, budget: &Budget) -> Result<Kept, Refusal> {
    let classes = pattern.matches(r"\p").count() + pattern.matches(r"\P").count();
    let least = classes.saturating_mul(FILTER_CLASS_WORK);
    if pattern.len() > budget.text || least > budget.work {
        return Err(Refusal::TooMuch);
    }
    let mut limit = SMALLEST_REGEX.max(least);
    loop {
        match build(pattern, limit.min(budget.work)) {
            Ok(regex) => {
                return Ok(Kept {
                    pattern: pattern.into(),
                    work: limit.min(budget.work),
                    regex,
                });
            }
            Err(regex::Error::CompiledTooBig(_)) if limit >= budget.work => return Err(Refusal::TooMuch),
            Err(regex::Error::CompiledTooBig(_)) => limit = limit.saturating_mul(4),
            Err(error) => return Err(Refusal::Malformed(explain(pattern, &error))),
        }
    }
}

/// What the least expression counts; an ordinary one fits.
const SMALLEST_REGEX: usize = 2 * 1024;

fn build(pattern: &str, limit: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&rewrite(pattern))
        .size_limit(limit)
        .dfa_size_limit(limit)
        .build()
}

fn explain(pattern: &str, error: &regex::Error) -> String {
    let reason = match error {
        regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes when compiled"),
        // The syntax error is drawn over several lines, and the last of them says it all.
        other => {
            let text = other.to_string();
            text.lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    };
    format!("error parsing regexp: {reason}: `{pattern}`")
}

fn rewrite(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => match rest.next() {
                Some('Q') => quote(&mut rest, &mut out),
                Some('b') => out.push_str(r"(?-u:\b)"),
                Some('B') => out.push_str(r"(?-u:\B)"),
                Some(escaped) => escape(escaped, &mut rest, &mut out),
                None => out.push('\\'),
            },
            '[' => class(&mut rest, &mut out),
            // A brace that counts nothing stands for itself.
            '{' if !is_count(rest.clone()) => out.push_str("\\{"),
            other => out.push(other),
        }
    }
    out
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Rewrites a class, its opening bracket already taken. What this engine would take for nesting or for
/// a set operation is escaped.
fn class(rest: &mut Letters<'_>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // At the start these two stand for themselves.
    if let Some(first) = rest.next_if(|letter| matches!(letter, ']' | '-')) {
        out.extend(['\\', first]);
    }
    while let Some(letter) = rest.next() {
        match letter {
            ']' => return out.push(']'),
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                copy_up_to(']', rest, out);
            }
            '-' if rest.next_if_eq(&'-').is_some() => out.push_str(r"-\-"),
            '[' | '&' | '~' => out.extend(['\\', letter]),
            '\\' => match rest.next() {
                Some(escaped) => escape(escaped, rest, out),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
}

fn copy_up_to(end: char, rest: &mut Letters<'_>, out: &mut String) {
    for letter in rest.by_ref() {
        out.push(letter);
        if letter == end {
            return;
        }
    }
}

/// Whether a repetition such as `2}`, `2,}` or `2,5}` follows.
fn is_count(mut rest: Letters<'_>) -> bool {
    if !rest.peek().is_some_and(char::is_ascii_digit) {
        return false;
    }
    let mut after_digits = rest.skip_while(char::is_ascii_digit);
    match after_digits.next() {
        Some('}') => true,
        Some(',') => after_digits.find(|letter| !letter.is_ascii_digit()) == Some('}'),
        _ => false,
    }
}

fn quote(rest: &mut Letters<'_>, out: &mut String) {
    let mut quoted = String::new();
    while let Some(letter) = rest.next() {
        if letter == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        quoted.push(letter);
    }
    out.push_str(&regex::escape(&quoted));
}

/// A class of classes is understood inside and outside of a class alike.
fn escape(escaped: char, rest: &mut Letters<'_>, out: &mut String) {
    match escaped {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'p' | 'P' | 'x' if rest.peek() == Some(&'{') => {
            out.extend(['\\', escaped]);
            copy_up_to('}', rest, out);
        }
        other => out.extend(['\\', other]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases: &[(&str, &str, bool)] = &[
            ("^zz|1$", "n1", true),
            ("^zz|1$", "zzz", true),
            ("^n$", "n\n", false),
            (r"^\d$", "5", true),
            (r"^\d$", "\u{665}", false),
            (r"^\w$", "é", false),
            (r"^[\w-]+$", "web-1_x", true),
            (r"^[^\w]$", "é", true),
            (r"^\W$", "é", true),
            (r"^.$", "é", true),
            (r"é\b", "é", false),
            (r"^\Qa.b\E.$", "a.bc", true),
            (r"^\Qa.b\E.$", "axbc", false),
            (r"^\Qa+", "a+", true),
            (r"^[[a]$", "[", true),
            (r"^[[:alpha:]]$", "x", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "]", false),
            (r"^[a&&b]$", "&", true),
            (r"^[+--]$", ",", true),
            (r"^(?P<x>a)(?i)B$", "ab", true),
            (r"^\pL$", "é", true),
            (r"^a{2}$", "aa", true),
            (r"^a{2,}b{1,2}$", "aabb", true),
            (r"^xx{$", "xx{", true),
            (r"^x{,5}$", "x{,5}", true),
            (r"^{}$", "{}", true),
            (r"^\x{e9}\p{Greek}$", "éα", true),
            (r"^[\x{61}-\x{63}]$", "b", true),
            (r"^[--a]$", "B", true),
            (r"^[^-]$", "-", false),
            (r"^[a-]$", "-", true),
            (r"^\B$", "", true),
        ];
        for (pattern, text, matches) in cases {
            assert_eq!(
                compile(pattern).unwrap().is_match(text),
                *matches,
                "{pattern} on {text:?}"
            );
        }
    }

    #[test]
    fn the_filters_of_a_query_share_a_budget() {
        let mut filters = Filters::default();
        // As one query's, with a hundred different ones and some in other alphabets.
        let mut budget = Budget::default();
        for n in 0..100 {
            let ordinary = format!("^(web|db)-[0-9]+{n}$");
            assert!(filters.compile(&ordinary, &mut budget).is_ok(), "{n}: {budget:?}");
        }
        for one in [
            r"^.{0,200}$",
            r"^\pL+ \p{Greek}\d{1,64}$",
            "(?i)^(alpha|beta|gamma|delta)[a-z]*$",
        ] {
            assert!(filters.compile(one, &mut Budget::default()).is_ok(), "{one}");
        }
        assert_eq!(
            filters.compile("a**b(", &mut Budget::default()).err(),
            Some(Refusal::Malformed(
                "error parsing regexp: unclosed group: `a**b(`".to_owned()
            ))
        );
        let bomb = "(?:.{0,50}){0,20}";
        for _ in 0..2 {
            assert_eq!(
                filters.compile(bomb, &mut Budget::default()).err(),
                Some(Refusal::TooMuch)
            );
        }
        // Those that are kept are counted as well.
        let large = "^.{0,100}$";
        let mut budget = Budget::default();
        let taken = (0..100)
            .take_while(|_| filters.compile(large, &mut budget).is_ok())
            .count();
        assert!((1..10).contains(&taken), "{taken}");
        let classes = r"\pL".repeat(1000);
        assert_eq!(
            filters.compile(&classes, &mut Budget::default()).err(),
            Some(Refusal::TooMuch)
        );
        let text = "a".repeat(QUERY_FILTERS_TEXT + 1);
        assert_eq!(
            filters.compile(&text, &mut Budget::default()).err(),
            Some(Refusal::TooMuch)
        );
        assert!(filters.kept.len() <= FILTERS_KEPT);
    }

    #[test]
    fn bad_and_greedy_patterns_are_refused_in_one_line() {
        for pattern in [
            "(",
            "[",
            "a**b(",
            r"\",
            "(?<",
            "x{1001}{1000}{1000}",
            r"(?=a)",
            r"(a)\1",
        ] {
            let error = compile(pattern).unwrap_err();
            assert!(error.starts_with("error parsing regexp: "), "{error}");
            assert!(!error.contains('\n'), "{error}");
            assert!(error.ends_with(&format!(": `{pattern}`")), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(pattern in "\\PC{0,40}") {
            let _ = compile(&pattern);
        }
    }
}
