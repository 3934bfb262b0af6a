//! How long round trips take, as the probes of all members measure them.

use std::time::Duration;

/// A new round trip counts as one of so many in the average.
const AVERAGED: u32 = 8;

/// The longest is forgotten by one part in so many with each probe: halfway after some twenty probes, so that
/// the members of a far site keep it up even where they are few.
const REMEMBERED: u32 = 32;

/// What the probes have measured.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    usual: Duration,
    longest: Duration,
}

impl RoundTrips {
    pub fn note(&mut self, measured: Duration) {
        let known = self.known.unwrap_or(Known {
            usual: measured,
            longest: measured,
        });
        self.known = Some(Known {
            usual: (known.usual * (AVERAGED - 1) + measured) / AVERAGED,
            longest: measured.max(known.longest * (REMEMBERED - 1) / REMEMBERED),
        });
    }

    /// The average of the last ones; zero before the first.
    pub fn usual(&self) -> Duration {
        self.known.map_or(Duration::ZERO, |known| known.usual)
    }

    /// The longest of the last ones: what a member may take that was never probed.
    pub fn longest(&self) -> Option<Duration> {
        self.known.map(|known| known.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_one_follows_slowly_and_the_longest_is_remembered_for_some_probes() {
        let ms = Duration::from_millis;
        let mut round_trips = RoundTrips::default();
        assert_eq!((round_trips.usual(), round_trips.longest()), (ms(0), None));
        round_trips.note(ms(40));
        assert_eq!(
            (round_trips.usual(), round_trips.longest()),
            (ms(40), Some(ms(40)))
        );
        round_trips.note(ms(120));
        assert_eq!(
            (round_trips.usual(), round_trips.longest()),
            (ms(50), Some(ms(120)))
        );
        let longest_after = |probes: usize| {
            let mut round_trips = RoundTrips::default();
            round_trips.note(ms(120));
            (0..probes).for_each(|_| round_trips.note(ms(40)));
            round_trips.longest().unwrap_or_default()
        };
        assert!(
            (ms(50)..ms(70)).contains(&longest_after(22)),
            "{:?}",
            longest_after(22)
        );
        assert_eq!(longest_after(200), ms(40));
    }
}
