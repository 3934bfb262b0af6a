//! Who guesses tokens waits before each answer, whether the guess is right or wrong: else giving up early would tell
//! one from the other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fyrd_core::bounds;

/// The wrong tokens of late, by where they came from. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Guesses(Rc<RefCell<HashMap<String, Wrong>>>);

/// The wrong tokens of one source.
#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Instant,
}

impl Guesses {
    /// How long a client from there waits before it is told about a token.
    pub(super) fn pause(&self, source: &str) -> Duration {
        self.pause_at(Instant::now(), source)
    }

    fn pause_at(&self, now: Instant, source: &str) -> Duration {
        let guesses = |wrong: &Wrong| wrong.count >= bounds::RPC_WRONG_TOKENS && !wrong.is_old(now);
        match self.0.borrow().get(source) {
            Some(wrong) if guesses(wrong) => bounds::RPC_TOKEN_PAUSE,
            _ => Duration::ZERO,
        }
    }

    /// Counts a wrong token; how many have come from there of late.
    pub(super) fn note_wrong(&self, source: &str) -> u32 {
        self.note_wrong_at(Instant::now(), source)
    }

    fn note_wrong_at(&self, now: Instant, source: &str) -> u32 {
        let mut wrong = self.0.borrow_mut();
        wrong.retain(|_, wrong| !wrong.is_old(now));
        if wrong.len() >= bounds::RPC_GUESSERS_MAX && !wrong.contains_key(source) {
            // From so many sources at once: whose is forgotten makes no difference.
            wrong.clear();
        }
        let of_source = wrong
            .entry(source.to_owned())
            .or_insert(Wrong { count: 0, last: now });
        of_source.count = of_source.count.saturating_add(1);
        of_source.last = now;
        of_source.count
    }

    /// A right token from there makes its mistakes forgotten.
    pub(super) fn forgive(&self, source: &str) {
        self.0.borrow_mut().remove(source);
    }
}

impl Wrong {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= bounds::RPC_TOKEN_MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_and_nobody_else() {
        let guesses = Guesses::default();
        let now = Instant::now();
        for count in 1..=bounds::RPC_WRONG_TOKENS {
            assert_eq!(guesses.pause_at(now, "1"), Duration::ZERO);
            assert_eq!(guesses.note_wrong_at(now, "1"), count);
        }
        assert_eq!(guesses.pause_at(now, "1"), bounds::RPC_TOKEN_PAUSE);
        assert_eq!(guesses.pause_at(now, "2"), Duration::ZERO);
        let later = now + bounds::RPC_TOKEN_MEMORY;
        assert_eq!(guesses.pause_at(later, "1"), Duration::ZERO);
        assert_eq!(guesses.note_wrong_at(later, "1"), 1);
        for n in 0..2 * bounds::RPC_GUESSERS_MAX {
            guesses.note_wrong_at(later, &n.to_string());
        }
        assert!(guesses.0.borrow().len() <= bounds::RPC_GUESSERS_MAX);
    }
}
