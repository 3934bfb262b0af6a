//! The word that was probably meant.

/// Mistakes that a word of so many letters may have, each a letter that is wrong, missing, too many, or exchanged with
/// its neighbour.
const LETTERS_FOR_A_MISTAKE: usize = 3;

/// Of some words the one that is nearest to another, if it is near at all.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &other.to_lowercase());
    let found = words.into_iter().map(|other| (distance(other), other)).min()?;
    (found.0 <= (word.chars().count() / LETTERS_FOR_A_MISTAKE).max(1)).then_some(found.1)
}

/// A question that follows a word that is none, or nothing.
pub fn did_you_mean<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, words).map(|found| format!("Did you mean '{found}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_found_and_what_is_not_is_not() {
        let words = ["agent", "members", "monitor", "join", "leave"];
        for (word, expected) in [
            ("membres", Some("members")),
            ("member", Some("members")),
            ("Leav", Some("leave")),
            ("jion", Some("join")),
            ("x", None),
            ("status", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }
}
