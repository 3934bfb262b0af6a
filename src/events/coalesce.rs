//! Member events that follow each other closely are delivered as one (docs/protocol.md#b12-coalescing).
//!
//! Of the events of one member the last one is delivered, unless it is of the kind that was delivered last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::window::Window;
use fyrd_core::serf::{Event, Member, MemberEventKind};
use fyrd_core::time::Time;

/// Holds member events back for a while.
#[derive(Debug)]
pub struct MemberCoalescer {
    window: Window,
    /// What is held back, in order of arrival.
    pending: Vec<(MemberEventKind, Arc<Member>)>,
    /// What was delivered last about a member, until it is reaped.
    delivered: HashMap<Arc<str>, MemberEventKind>,
}

impl MemberCoalescer {
    /// A coalescer; without a period it delivers at once.
    pub fn new(period: Duration, quiet: Duration) -> Self {
        MemberCoalescer {
            window: Window::new(period, quiet),
            pending: Vec::new(),
            delivered: HashMap::new(),
        }
    }

    /// Takes in what happened to members.
    pub fn handle(&mut self, now: Time, kind: MemberEventKind, members: &[Arc<Member>]) {
        for member in members {
            self.pending.retain(|(_, held)| held.name != member.name);
            self.pending.push((kind, Arc::clone(member)));
        }
        self.window.extend(now);
    }

    /// When to call [`MemberCoalescer::poll_events`] next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.window.deadline()
    }

    /// What is due: at most one event of a kind, with all its members.
    pub fn poll_events(&mut self, now: Time) -> Vec<Event> {
        if !self.window.close_if_due(now) {
            return Vec::new();
        }
        let mut groups: Vec<(MemberEventKind, Vec<Arc<Member>>)> = Vec::new();
        for (kind, member) in std::mem::take(&mut self.pending) {
            let repeats = self.delivered.get(&member.name) == Some(&kind);
            if repeats && kind != MemberEventKind::Update {
                continue;
            }
            if kind == MemberEventKind::Reap {
                self.delivered.remove(&member.name);
            } else {
                self.delivered.insert(member.name.clone(), kind);
            }
            match groups.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, members)) => members.push(member),
                None => groups.push((kind, vec![member])),
            }
        }
        groups
            .into_iter()
            .map(|(kind, members)| Event::Member { kind, members })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemberEventKind::{Failed, Join, Leave, Reap, Update};
    use fyrd_core::serf::{MemberStatus, RawAddr, Tags};

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn member(name: &str) -> Arc<Member> {
        Arc::new(Member {
            name: name.into(),
            addr: RawAddr::V4([127, 0, 0, 1]),
            port: 7946,
            tags: Tags::new(),
            status: MemberStatus::Alive,
            protocol: [1, 5, 2],
            delegate: [2, 5, 5],
        })
    }

    /// Feeds `(ms, kind, name)` and returns what came out, as `(ms, kind, names)`.
    fn run(script: &[(u64, MemberEventKind, &str)]) -> Vec<(u64, MemberEventKind, Vec<String>)> {
        let mut coalescer = MemberCoalescer::new(Duration::from_secs(3), Duration::from_secs(1));
        let mut out = Vec::new();
        let mut flush = |coalescer: &mut MemberCoalescer, until: u64| {
            while let Some(deadline) = coalescer
                .next_deadline()
                .filter(|deadline| *deadline <= at(until))
            {
                for event in coalescer.poll_events(deadline) {
                    let Event::Member { kind, members } = event else {
                        panic!("only member events")
                    };
                    let names = members.iter().map(|m| m.name.to_string()).collect();
                    out.push((deadline.as_nanos() / 1_000_000, kind, names));
                }
            }
        };
        for (ms, kind, name) in script {
            flush(&mut coalescer, *ms);
            coalescer.handle(at(*ms), *kind, &[member(name)]);
        }
        flush(&mut coalescer, u64::MAX / 2_000_000);
        out
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn quiet_ends_a_burst_and_the_period_ends_a_stream() {
        assert_eq!(
            run(&[(0, Join, "a"), (500, Join, "b"), (1000, Leave, "c")]),
            [(2000, Join, names(&["a", "b"])), (2000, Leave, names(&["c"]))]
        );
        let stream: Vec<_> = (0..8)
            .map(|i| {
                (
                    i * 500,
                    Join,
                    ["a", "b", "c", "d", "e", "f", "g", "h"][i as usize],
                )
            })
            .collect();
        assert_eq!(
            run(&stream),
            [
                (3000, Join, names(&["a", "b", "c", "d", "e", "f"])),
                (4500, Join, names(&["g", "h"]))
            ]
        );
    }

    #[test]
    fn the_last_word_about_a_member_counts_and_repetitions_are_suppressed() {
        assert_eq!(
            run(&[(0, Join, "a"), (100, Failed, "a"), (200, Join, "a")]),
            [(1200, Join, names(&["a"]))]
        );
        // Failing and coming back within a period changes nothing that was delivered.
        assert_eq!(
            run(&[(0, Join, "a"), (5000, Failed, "a"), (5100, Join, "a")]),
            [(1000, Join, names(&["a"]))]
        );
        assert_eq!(
            run(&[(0, Join, "a"), (5000, Failed, "a"), (9000, Failed, "a")]),
            [(1000, Join, names(&["a"])), (6000, Failed, names(&["a"]))]
        );
    }

    #[test]
    fn updates_repeat_but_are_not_delivered_again_with_others() {
        assert_eq!(
            run(&[(0, Update, "a"), (5000, Update, "a"), (9000, Join, "b")]),
            [
                (1000, Update, names(&["a"])),
                (6000, Update, names(&["a"])),
                (10_000, Join, names(&["b"]))
            ]
        );
    }

    #[test]
    fn a_reaped_member_is_forgotten() {
        assert_eq!(
            run(&[(0, Failed, "a"), (5000, Reap, "a"), (9000, Failed, "a")]),
            [
                (1000, Failed, names(&["a"])),
                (6000, Reap, names(&["a"])),
                (10_000, Failed, names(&["a"]))
            ]
        );
    }

    #[test]
    fn without_a_period_events_are_due_at_once() {
        let mut coalescer = MemberCoalescer::new(Duration::ZERO, Duration::from_secs(1));
        coalescer.handle(at(7), Join, &[member("a")]);
        assert_eq!(coalescer.next_deadline(), Some(at(7)));
        assert_eq!(coalescer.poll_events(at(7)).len(), 1);
        assert_eq!(coalescer.next_deadline(), None);
    }
}
