//! When the names of the seeds are looked up, and when a join that is tried until it works is tried again.
//!
//! Swim and Serf forget their failed members after a while: two sides of a partition that lasts longer know
//! nothing of each other. The seeds are what is left then, so they are looked after for as long as the node
//! lives, whoever else is here.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::serf::types::{RetryJoin, Seeds};
use crate::time::Time;

/// Looks in each interval while a seed is missing.
const MISSING_LOOKS: u32 = 3;

/// What has become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedStep {
    /// Look the names of [`SeedWatch::names`] up.
    LookUp,
    /// The same, to try again to join.
    RetryJoin,
    /// Nothing before this time; `None`: nothing at all.
    Wait(Option<Time>),
}

/// The seeds, and what is being done about them.
#[derive(Debug)]
pub struct SeedWatch {
    names: Vec<Arc<str>>,
    retry: Option<Retry>,
    /// When the names are looked up next; `None` while they are, or the join is under way.
    next: Option<Time>,
    interval: Duration,
    rng: Xoshiro256PlusPlus,
}

/// The join that is tried until it works.
#[derive(Debug)]
struct Retry {
    names: Vec<Arc<str>>,
    join: RetryJoin,
    /// How many tries have failed.
    failures: u64,
}

impl SeedWatch {
    /// Without any seeds. `interval` is the profile's reconnect interval.
    pub fn new(interval: Duration, seed: u64) -> SeedWatch {
        SeedWatch {
            names: Vec::new(),
            retry: None,
            next: None,
            interval,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// Begins to look after these.
    pub fn begin(&mut self, now: Time, seeds: Seeds) {
        let shared = |names: &[String]| -> Vec<Arc<str>> {
            names.iter().map(|name| Arc::from(name.as_str())).collect()
        };
        self.names = shared(&seeds.joined);
        self.retry = seeds
            .retry
            .filter(|join| !join.names.is_empty())
            .map(|join| Retry {
                names: shared(&join.names),
                join,
                failures: 0,
            });
        match &self.retry {
            Some(retry) => {
                self.names.extend(retry.names.iter().cloned());
                self.next = Some(now);
            }
            None => self.look_again(now, true),
        }
    }

    /// Nobody is looked after any more.
    pub fn clear(&mut self) {
        self.names.clear();
        self.retry = None;
        self.next = None;
    }

    /// What is looked up now.
    pub fn names(&self) -> &[Arc<str>] {
        self.retry.as_ref().map_or(&self.names, |retry| &retry.names)
    }

    /// The join that is being tried.
    pub fn retrying(&self) -> Option<&RetryJoin> {
        self.retry.as_ref().map(|retry| &retry.join)
    }

    /// What to do now.
    pub fn poll(&mut self, now: Time) -> SeedStep {
        match self.next {
            Some(next) if next <= now => {
                self.next = None;
                match self.retry {
                    Some(_) => SeedStep::RetryJoin,
                    None => SeedStep::LookUp,
                }
            }
            next => SeedStep::Wait(next),
        }
    }

    /// The next look follows one that has come back, or a join that has worked. It comes sooner while a seed is
    /// missing, for a partition may be over.
    pub fn look_again(&mut self, now: Time, missing: bool) {
        self.retry = None;
        let pause = if missing {
            self.interval / MISSING_LOOKS
        } else {
            self.interval
        };
        // Hosts that were cut off together do not dial together.
        let pause = pause.mul_f64(self.rng.random_range(0.5..1.5));
        self.next = (!self.names.is_empty()).then_some(now + pause);
    }

    /// A try to join has failed. Gives the pause before the next one; `None` after as many as are allowed.
    pub fn retry_failed(&mut self, now: Time) -> Option<Duration> {
        let retry = self.retry.as_mut()?;
        retry.failures += 1;
        if retry.join.max.is_some_and(|max| retry.failures > max) {
            self.clear();
            return None;
        }
        let every = retry.join.every;
        self.next = Some(now + every);
        Some(every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn retry(max: Option<u64>) -> Seeds {
        Seeds {
            joined: vec!["a".to_owned()],
            retry: Some(RetryJoin {
                names: vec!["b".to_owned()],
                every: secs(7),
                max,
            }),
        }
    }

    #[test]
    fn a_join_is_retried_at_its_interval_until_it_works_or_was_tried_often_enough() {
        let mut now = Time::ZERO;
        for (max, works_at) in [(None, Some(50)), (Some(2), None), (Some(2), Some(3))] {
            let mut watch = SeedWatch::new(INTERVAL, 1);
            watch.begin(now, retry(max));
            let mut tries = 0;
            let given_up = loop {
                assert_eq!(watch.poll(now), SeedStep::RetryJoin);
                assert_eq!(watch.names(), [Arc::from("b")]);
                assert_eq!(watch.poll(now), SeedStep::Wait(None), "while it is under way");
                tries += 1;
                if works_at == Some(tries) {
                    watch.look_again(now, false);
                    break false;
                }
                match watch.retry_failed(now) {
                    None => break true,
                    Some(every) => {
                        assert_eq!(every, secs(7));
                        assert_eq!(watch.poll(now), SeedStep::Wait(Some(now + every)));
                        now += every;
                    }
                }
            };
            assert_eq!(given_up, works_at.is_none());
            assert_eq!(tries, works_at.unwrap_or(3));
            let after = watch.poll(now + 2 * INTERVAL);
            let expected = if given_up {
                SeedStep::Wait(None)
            } else {
                SeedStep::LookUp
            };
            assert_eq!(after, expected);
            assert_eq!(watch.names().len(), if given_up { 0 } else { 2 });
        }
    }

    #[test]
    fn seeds_are_looked_up_for_ever_but_not_by_all_hosts_together() {
        let looks = |seed| {
            let mut watch = SeedWatch::new(INTERVAL, seed);
            let joined = vec!["a".to_owned()];
            watch.begin(Time::ZERO, Seeds { joined, retry: None });
            let mut looks = vec![Time::ZERO];
            while looks.len() < 100 {
                let SeedStep::Wait(Some(next)) = watch.poll(looks[looks.len() - 1]) else {
                    panic!("a look too early")
                };
                assert_eq!(watch.poll(next), SeedStep::LookUp);
                watch.look_again(next, false);
                looks.push(next);
            }
            looks
        };
        let (one, other) = (looks(1), looks(2));
        for (place, pair) in one.windows(2).enumerate() {
            let pause = pair[1].since(pair[0]);
            // At first, and while a seed is missing, there are more looks.
            let interval = if place == 0 {
                INTERVAL / MISSING_LOOKS
            } else {
                INTERVAL
            };
            assert!(pause >= interval / 2 && pause <= interval * 3 / 2, "{pause:?}");
        }
        assert_ne!(one, other);
        let mut none = SeedWatch::new(INTERVAL, 1);
        none.begin(Time::ZERO, Seeds::default());
        assert_eq!(none.poll(Time::ZERO + INTERVAL * 2), SeedStep::Wait(None));
    }
}
