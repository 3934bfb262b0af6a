//! What this node knows of troubles of its own host, and tells its operator once a minute at most.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::warn;

use super::Swim;
use crate::bounds::MAX_ACCUSATIONS;
use crate::time::Time;

/// How often at most a trouble that lasts is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A trouble that may come again and again, told now and then.
#[derive(Debug, Default)]
pub(super) struct Reminder {
    told: Option<Time>,
    /// How often it came since then.
    untold: u32,
}

impl Reminder {
    /// It has come again: whether to tell it, and how often it came since it was told last.
    pub fn came(&mut self, now: Time) -> Option<u32> {
        if self.told.is_some_and(|at| now.since(at) < TELL_INTERVAL) {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// What others say of this host: for so long, ...
const ACCUSED_FOR: Duration = Duration::from_secs(180);

/// ... and if it is said so often by several, the fault may well be here.
const ENOUGH: usize = 3;

/// How often others have said that this host does not answer.
#[derive(Debug, Default)]
pub(super) struct Accusations {
    /// When, and who; nobody stands for a push/pull, which does not say whose word it repeats.
    heard: VecDeque<(Time, Option<Box<str>>)>,
    trouble: Reminder,
}

impl Accusations {
    fn add(&mut self, now: Time, from: Option<&str>) {
        while self.heard.len() >= MAX_ACCUSATIONS
            || self.heard.front().is_some_and(|(at, _)| is_over(*at, now))
        {
            self.heard.pop_front();
        }
        self.heard.push_back((now, from.map(Box::from)));
    }

    /// How many count; none if they come from a single member of several, whose fault it may be.
    fn count(&self, now: Time, others: usize) -> usize {
        let recent = self.heard.iter().filter(|(at, _)| !is_over(*at, now));
        let accusers: Vec<Option<&str>> = recent.map(|(_, from)| from.as_deref()).collect();
        let names: BTreeSet<&str> = accusers.iter().copied().flatten().collect();
        let nameless = accusers.iter().filter(|from| from.is_none()).count();
        let several = names.len() > 1 || nameless >= ENOUGH || others == 1;
        match accusers.len() {
            count if count >= ENOUGH && several => count,
            _ => 0,
        }
    }
}

fn is_over(at: Time, now: Time) -> bool {
    now.since(at) >= ACCUSED_FOR
}

impl Swim {
    /// Somebody says that this node does not answer. It hears that, so it may be the way to it that is wrong.
    pub(super) fn note_accusation(&mut self, now: Time, from: &str) {
        let from = Some(from).filter(|from| !self.is_me(from));
        self.accusations.add(now, from);
        let count = self.accusations.count(now, self.members.len() - 1);
        if count > 0 && self.accusations.trouble.came(now).is_some() {
            let addr = self.config.facts.socket();
            warn!(target: "memberlist", "Other members get no answers from this host at {addr} ({count} times in the \
                last 3 minutes), though it hears them. Is that its address, can they reach it there by UDP and TCP \
                (NAT, firewall), or is this host overloaded?");
        }
    }

    /// How often others have said lately that this node does not answer; 0 if not often enough to count.
    pub fn accused(&self) -> usize {
        self.accusations.count(self.heard, self.members.len() - 1)
    }

    /// The system of this host has refused to send a ping.
    pub(super) fn note_refused_send(&mut self, now: Time, name: &str, to: SocketAddr, reason: &str) {
        if let Some(more) = self.refused_sends.came(now) {
            warn!(target: "memberlist", "This host cannot send to {name} at {to}: {reason}. That says nothing about \
                {name}: look at this host's routes and firewall ({more} more such pings since the last warning)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accusations_count_when_several_make_them_or_nobody_else_could() {
        // How many others there are, when somebody accuses, and how many count after 100 s.
        type Said = &'static [(u64, &'static str)];
        let table: [(usize, Said, usize); 7] = [
            (5, &[(1, "a"), (2, "b")], 0),
            (5, &[(1, "a"), (2, "b"), (3, "a")], 3),
            (5, &[(1, "a"), (2, "a"), (3, "a"), (4, "a")], 0),
            (1, &[(1, "a"), (2, "a"), (3, "a")], 3),
            (5, &[(1, ""), (30, ""), (60, "")], 3),
            (5, &[(1, ""), (2, "a"), (3, "a")], 0),
            (5, &[(1, "a"), (2, "b"), (3, ""), (99, "c")], 4),
        ];
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        for (others, said, expected) in table {
            let mut accusations = Accusations::default();
            for (second, from) in said {
                accusations.add(at(*second), Some(*from).filter(|from| !from.is_empty()));
            }
            assert_eq!(accusations.count(at(100), others), expected, "{said:?}");
            assert_eq!(accusations.count(at(281), others), 0, "{said:?}");
        }
        let mut accusations = Accusations::default();
        for _ in 0..1000 {
            accusations.add(at(1), Some("a"));
        }
        assert_eq!(accusations.heard.len(), MAX_ACCUSATIONS);
    }

    #[test]
    fn a_trouble_that_lasts_is_told_once_a_minute_with_a_count() {
        let mut trouble = Reminder::default();
        let told: Vec<(u64, u32)> = (0..130)
            .filter_map(|second| {
                let now = Time::ZERO + Duration::from_secs(second);
                trouble.came(now).map(|untold| (second, untold))
            })
            .collect();
        assert_eq!(told, [(0, 0), (60, 59), (120, 59)]);
    }
}
