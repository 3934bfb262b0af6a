//! Which of the words that there are is meant by one that there is not.

/// The word of `known` that is nearest to `word`, if one is near enough to be what was meant: a few letters are
/// other ones, missing or exchanged, or the rest was not typed. Case does not count.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    let distance = |known: &str| match known.to_lowercase() {
        known if length >= SHORTEST_START && known.starts_with(&word) => 0,
        known => strsim::osa_distance(&word, &known),
    };
    let distances = known.into_iter().map(|known| (distance(known), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (length / LETTERS_PER_MISTAKE).clamp(1, MISTAKES) && length > 1).then_some(known)
}

/// So many letters at least are the start of a word.
const SHORTEST_START: usize = 3;

/// One mistake in so many letters.
const LETTERS_PER_MISTAKE: usize = 3;

/// With more mistakes, it is another word.
const MISTAKES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = [
            "members",
            "monitor",
            "keys",
            "keygen",
            "leave",
            "node_name",
            "rtt",
            "alive",
        ];
        let table = [
            ("mebers", Some("members")),
            ("memebrs", Some("members")),
            ("mem", Some("members")),
            ("Members", Some("members")),
            ("kyes", Some("keys")),
            ("nodename", Some("node_name")),
            ("alice", Some("alive")),
            ("rt", Some("rtt")),
            ("restart", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest("members", []), None);
    }
}
