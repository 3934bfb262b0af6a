//! What an operator can do about a start or a reload that failed, where the error has Serf's words, which stay as they
//! are because programs look for them.

use super::options::TABLE;
use crate::nearest::nearest;

/// What helps against the error, a line each; it may have several lines itself.
pub(super) fn on(error: &str) -> Vec<String> {
    let keys = error.lines().filter_map(wrong_keys).flatten();
    let known = ADVICE.iter().filter(|(text, _)| error.contains(text));
    let known = known.map(|(_, advice)| (*advice).to_string());
    keys.chain(known.take(1)).collect()
}

/// Of a line about keys that there are not: for each the one that may be meant.
fn wrong_keys(line: &str) -> Option<Vec<String>> {
    let (group, keys) = line.strip_prefix("* '")?.split_once("' has invalid keys: ")?;
    let of_group = |key: &'static str| match group {
        "" => Some(key),
        group => key.strip_prefix(group)?.strip_prefix('_'),
    };
    let known: Vec<&str> = TABLE
        .iter()
        .map(|entry| entry.key)
        .filter(|key| !key.is_empty())
        .collect();
    let known: Vec<&str> = known.into_iter().filter_map(of_group).collect();
    let meant = |key: &str| nearest(key, known.iter().copied());
    let told = keys.split(", ").map(|key| match meant(key) {
        Some(meant) => format!("'{key}' is no key of a configuration; did you mean '{meant}'?"),
        None => format!("'{key}' is no key of a configuration; docs/configuration.md has them all."),
    });
    Some(told.collect())
}

/// Parts of errors, and what helps; the first that fits counts.
const ADVICE: &[(&str, &str)] = &[
    ("illegal base64 data", KEY),
    ("key size must be", KEY),
    (
        "Error starting RPC listener: listen tcp",
        "-rpc-addr=IP:PORT, or unix:PATH, is where commands are listened for; another agent may have this one.",
    ),
    (
        "address already in use",
        "Another program has this port, perhaps another agent; -bind=IP:PORT takes another one.",
    ),
    (
        "cannot assign requested address",
        "This host does not have that address; 'ip address' shows those that it has.",
    ),
    (
        "Event '",
        "A handler is SCRIPT, or FILTERS=SCRIPT, with filters such as member-join, user:deploy or query:load.",
    ),
];

/// What a key is.
pub const KEY: &str = "A key is base64 of 16, 24 or 32 bytes, as 'fyrd keygen' prints it.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::Options;

    #[test]
    fn wrong_keys_of_a_file_are_named_with_the_nearest_right_ones() {
        let json = br#"{"bnid":"::1","nodename":"x","colour":1,"mdns":{"interfase":"lo"},"protocol":"5"}"#;
        let error = Options::decode(json).unwrap_err();
        let expected = [
            "'bnid' is no key of a configuration; did you mean 'bind'?",
            "'colour' is no key of a configuration; docs/configuration.md has them all.",
            "'nodename' is no key of a configuration; did you mean 'node_name'?",
            "'interfase' is no key of a configuration; did you mean 'interface'?",
        ];
        assert_eq!(on(&format!("Error decoding 'c.json': {error}")), expected);
    }

    #[test]
    fn errors_that_people_meet_have_advice_and_others_have_none() {
        assert_eq!(
            on("Invalid encryption key: illegal base64 data at input byte 0"),
            [KEY]
        );
        assert!(on("Failed to start the Serf agent").is_empty());
    }
}
