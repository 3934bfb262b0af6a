//! Whether a key may be removed or used: a member that has no other one, or does not have this one,
//! could never talk to the rest again.

use std::collections::BTreeSet;

use fyrd_keys::Key;

use super::survey::{ListedKey, Survey, name};

/// Why a key had better not become the primary one, with a row for each reason; nothing if it may.
pub(super) fn objections_to_use(key: &Key, survey: &Survey, silent: &BTreeSet<String>) -> Vec<String> {
    let nobody_has_it = survey.holders(key) == 0 && !survey.is_cut;
    if nobody_has_it || (survey.is_unanimous() && survey.all_hold(key)) {
        return Vec::new();
    }
    if !survey.is_unanimous() {
        return survey.doubts(silent);
    }
    vec![lacking(
        survey.asked - survey.holders(key),
        survey.asked,
        &name(key),
    )]
}

/// Why a key is better not removed, with a row for each reason; nothing if it may be.
///
/// Where Serf itself refuses, or there is nothing to remove, nothing is said: its answer is the better one.
pub(super) fn objections_to_removal(key: &Key, survey: &Survey, silent: &BTreeSet<String>) -> Vec<String> {
    let encrypted = !survey.keys.is_empty();
    let others: Vec<&ListedKey> = survey
        .keys
        .iter()
        .filter(|listed| listed.key.as_ref() != Some(key))
        .collect();
    let last_one = encrypted && others.is_empty();
    let not_there = survey.is_unanimous() && !survey.is_cut && survey.holders(key) == 0;
    let nobody_has_keys = survey.is_refused() && !encrypted;
    if last_one || not_there || nobody_has_keys {
        return Vec::new();
    }
    if !survey.is_unanimous() {
        return survey.doubts(silent);
    }
    if others.iter().any(|listed| listed.holders == survey.asked) {
        return Vec::new();
    }
    others
        .iter()
        .map(|listed| lacking(survey.asked - listed.holders, survey.asked, &listed.name()))
        .collect()
}

/// What to do about objections to a removal.
pub(super) fn removal_advice(key: &Key) -> String {
    format!(
        "not every known member is known to have another key than {}, and one without could never talk to \
         the others again. {ADVICE}; -force removes the key all the same",
        name(key)
    )
}

/// What to do about objections to a use.
pub(super) fn use_advice(key: &Key) -> String {
    format!(
        "not every known member is known to have {}, and one without could not talk to the others any more. \
         {ADVICE}; -force uses the key all the same",
        name(key)
    )
}

const ADVICE: &str = "Bring the members back and install the key on all of them, or make those leave that \
    will not be back (force-leave)";

fn lacking(lacking: i64, asked: i64, key: &str) -> String {
    format!("in doubt: |{lacking} of {asked} members lack key|{key}")
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{K1, K2, K3, survey};
    use super::*;

    #[test]
    fn a_key_goes_only_when_everybody_has_another() {
        let failed = &[("n4", "failed")][..];
        #[rustfmt::skip]
        let table = [
            (survey(&[(K1, 3), (K2, 3)], 3, &[]), None),
            (survey(&[(K1, 3), (K2, 3)], 3, &[("n4", "left")]), None),
            (survey(&[(K1, 3), (K2, 2)], 3, &[]), Some("1 of 3 members lack key")),
            (survey(&[(K1, 3), (K2, 2), (K3, 1)], 3, &[]), Some("2 of 3 members lack key")),
            (survey(&[(K1, 3), (K2, 3)], 3, failed), Some("n4|failed")),
            (survey(&[(K1, 2), (K2, 2)], 2, &[]), Some("2 of 3 members answered")),
            // Serf refuses to remove the only key, and has nothing to do for a key that is not there.
            (survey(&[(K1, 3)], 3, &[]), None),
            (survey(&[(K1, 3)], 3, failed), None),
            (survey(&[(K2, 3), (K3, 2)], 3, &[]), None),
        ];
        for (number, (survey, expected)) in table.into_iter().enumerate() {
            let found = objections_to_removal(&K1.parse().unwrap(), &survey, &BTreeSet::new());
            match expected {
                None => assert!(found.is_empty(), "row {number}: {found:?}"),
                Some(text) => assert!(found.concat().contains(text), "row {number}: {found:?}"),
            }
        }
    }
    #[test]
    fn a_key_is_used_only_when_everybody_has_it() {
        #[rustfmt::skip]
        let table = [
            (survey(&[(K1, 3), (K2, 3)], 3, &[]), None),
            (survey(&[(K1, 2), (K2, 3)], 3, &[]), Some("1 of 3 members lack key")),
            (survey(&[(K1, 3), (K2, 3)], 3, &[("n4", "failed")]), Some("n4|failed")),
            // Every member refuses by itself.
            (survey(&[(K2, 3)], 3, &[]), None),
        ];
        for (number, (survey, expected)) in table.into_iter().enumerate() {
            let found = objections_to_use(&K1.parse().unwrap(), &survey, &BTreeSet::new());
            match expected {
                None => assert!(found.is_empty(), "row {number}: {found:?}"),
                Some(text) => assert!(found.concat().contains(text), "row {number}: {found:?}"),
            }
        }
    }
}
