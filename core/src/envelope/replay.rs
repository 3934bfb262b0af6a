//! The replay window (docs/protocol.md#a8-encryption): nonces that carry the time, so that a packet that somebody has
//! recorded is known by its age.
//!
//! The first four bytes of the twelve count 64ths of a second since 1970, big-endian, from zero again every two
//! years; the other eight stay random. Encryption covers the nonce, so nobody can make a packet younger.

use std::time::Duration;

use super::Nonce;
use crate::time::Time;

/// How far the clocks of two hosts may be apart, and a packet's way be long, together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    width: Duration,
    /// The time of day, as of late.
    now: Time,
}

/// A packet whose time lies outside of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    width: Duration,
    apart: Duration,
    ahead: bool,
}

const UNITS_PER_SECOND: u64 = 64;

impl Window {
    pub(super) fn new(width: Duration) -> Window {
        Window {
            width,
            now: Time::ZERO,
        }
    }

    pub(super) fn set_time(&mut self, now: Time) {
        self.now = now;
    }

    /// Writes the time into a nonce.
    pub(super) fn stamp(&self, nonce: Nonce) -> Nonce {
        let [a, b, c, d] = self.units().to_be_bytes();
        let [_, _, _, _, rest @ ..] = nonce;
        let [e, f, g, h, i, j, k, l] = rest;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// Checks the time of a packet that a key has opened, given its block.
    pub(super) fn check(&self, block: &[u8]) -> Result<(), Stale> {
        let [a, b, c, d] = match block {
            [_, a, b, c, d, ..] => [*a, *b, *c, *d],
            // Nothing so short is ever opened.
            _ => [0; 4],
        };
        let apart = u32::from_be_bytes([a, b, c, d]).wrapping_sub(self.units()) as i32;
        let stale = Stale {
            width: self.width,
            apart: Duration::from_nanos(u64::from(apart.unsigned_abs()) * (1_000_000_000 / UNITS_PER_SECOND)),
            ahead: apart > 0,
        };
        if stale.apart > self.width {
            Err(stale)
        } else {
            Ok(())
        }
    }

    fn units(&self) -> u32 {
        // Cut off on purpose: the count begins anew.
        (u128::from(self.now.as_nanos()) * u128::from(UNITS_PER_SECOND) / 1_000_000_000) as u32
    }
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DAY: Duration = Duration::from_secs(86_400);
        let Stale { width, apart, ahead } = self;
        let seconds = apart.as_secs();
        write!(f, "Refused by replay_window={}s: ", width.as_secs())?;
        if *apart > DAY {
            return f.write_str(
                "the packet carries no time, or a very old one; every member needs a replay_window, and an agent \
                 of Serf has none",
            );
        }
        let what = if *ahead {
            "ahead of this host's clock"
        } else {
            "old"
        };
        write!(
            f,
            "the packet is {seconds}s {what}; either somebody sends what he has recorded, or the clocks of two hosts \
             differ"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Window {
        let mut window = Window::new(Duration::from_secs(60));
        window.set_time(Time::ZERO + Duration::from_secs(seconds));
        window
    }

    #[test]
    fn older_and_ahead_are_refused_also_where_the_count_begins_anew() {
        let wrap = (1 << 32) / UNITS_PER_SECOND;
        for base in [1_800_000_000, wrap, 7 * wrap] {
            let nonce = at(base).stamp([9; 12]);
            assert_eq!(nonce[4..], [9; 8]);
            let block = [&[1], &nonce[..]].concat();
            for (seconds, fits) in [(0, true), (60, true), (61, false), (86_400, false)] {
                assert_eq!(at(base + seconds).check(&block).is_ok(), fits, "{seconds}s later");
                assert_eq!(
                    at(base - seconds).check(&block).is_ok(),
                    fits,
                    "{seconds}s before"
                );
            }
        }
    }

    #[test]
    fn what_is_refused_is_explained() {
        let block = [&[1], &at(1000).stamp([9; 12])[..]].concat();
        let told = |seconds| at(seconds).check(&block).expect_err("it is stale").to_string();
        assert!(told(1075).starts_with("Refused by replay_window=60s: the packet is 75s old; either"));
        assert!(told(900).contains("the packet is 100s ahead of this host's clock"));
        assert!(told(200_000).contains("every member needs a replay_window, and an agent of Serf has none"));
    }

    /// So it is switched on in a cluster that runs.
    #[test]
    fn a_window_of_half_the_count_refuses_nothing() {
        let mut window = Window::new(Duration::from_secs((1 << 31) / UNITS_PER_SECOND));
        window.set_time(Time::ZERO + Duration::from_secs(1_800_000_000));
        for byte in 0..=255 {
            assert_eq!(window.check(&[byte; 13]), Ok(()));
        }
    }
}
