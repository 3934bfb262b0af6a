//! A fingerprint of everything that happened, to tell whether two runs were the same.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use fyrd_core::time::Time;

/// Sums up a run: each step counts, with its time, its place and its bytes, and so does their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    sum: u64,
    steps: u64,
}

impl Trace {
    /// The fingerprint so far.
    pub fn sum(self) -> u64 {
        self.sum
    }

    /// How many steps there were.
    pub fn steps(self) -> u64 {
        self.steps
    }

    pub(super) fn note(&mut self, at: Time, what: &str, host: usize, bytes: &[u8]) {
        let mut hasher = FixedState::with_seed(self.sum).build_hasher();
        hasher.write_u64(at.as_nanos());
        hasher.write(what.as_bytes());
        hasher.write_u64(host as u64);
        hasher.write(bytes);
        self.sum = hasher.finish();
        self.steps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_step_counts() {
        let trace = |at, what, host, bytes: &[u8]| {
            let mut trace = Trace::default();
            trace.note(Time::from_nanos(1), "first", 0, b"x");
            trace.note(Time::from_nanos(at), what, host, bytes);
            trace.sum()
        };
        let base = trace(2, "send", 1, b"ab");
        assert_eq!(base, trace(2, "send", 1, b"ab"));
        for other in [
            trace(3, "send", 1, b"ab"),
            trace(2, "recv", 1, b"ab"),
            trace(2, "send", 2, b"ab"),
            trace(2, "send", 1, b"ac"),
        ] {
            assert_ne!(base, other);
        }
    }
}
