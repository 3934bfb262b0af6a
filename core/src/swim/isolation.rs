//! Tells this node's operator that it may be one of a few that are cut off.
//!
//! A node from which all others seem to be gone at once keeps that to itself for a while, because the fault may be
//! its own. The operator of its host should not have to wait for so long. Told is when several members have not
//! answered a direct ping and nobody was heard meanwhile, or fewer others than did not answer. Each ping that is in
//! vain asks three other members for help, so a node that loses packets, or whose cluster has lost a rack, hears
//! enough of them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Swim;
use super::delegate::Delegate;
use super::members::NodeId;
use crate::time::Time;

/// So many members do not answer a direct ping before this node is taken to be cut off.
const MEMBERS: usize = 3;

/// So many of those that were silent last, and of those that were heard last, are weighed against each other.
const WEIGHED: usize = 8;

/// What speaks for this node being cut off, and what against it.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Who has not answered a direct ping, nor was heard since.
    silent: Latest,
    /// Who was heard since the first of them did not answer.
    heard: Latest,
    told: bool,
}

/// A few addresses, each with the time that counts last; the latest is last.
#[derive(Debug, Default)]
struct Latest(VecDeque<(SocketAddr, Time)>);

impl Latest {
    /// Says whether it is a new one.
    fn note(&mut self, addr: SocketAddr, now: Time) -> bool {
        let new = !self.forget(addr);
        if self.0.len() == WEIGHED {
            self.0.pop_front();
        }
        self.0.push_back((addr, now));
        new
    }

    /// Says whether it was there.
    fn forget(&mut self, addr: SocketAddr) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| *known != addr);
        self.0.len() < before
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// How many have been noted after this time.
    fn since(&self, at: Time) -> usize {
        self.0.iter().filter(|(_, noted)| *noted > at).count()
    }
}

impl Isolation {
    /// A time since when more members were silent than were heard. Where nobody was heard at all, `enough` silent ones
    /// will do.
    fn cut_off_since(&self, enough: usize) -> Option<Time> {
        let latest_first = self.silent.0.iter().rev();
        let weighed = |(silent, since)| {
            let heard = self.heard.since(since);
            let least = if heard == 0 { enough } else { MEMBERS };
            (silent >= least && silent > heard).then_some(since)
        };
        (1..).zip(latest_first.map(|(_, since)| *since)).find_map(weighed)
    }

    /// Keeps what counts for its end.
    fn begin(&mut self, since: Time) {
        self.told = true;
        let Isolation { silent, heard, .. } = self;
        silent.0.retain(|(_, at)| *at >= since);
        heard
            .0
            .retain(|(addr, at)| *at > since && !silent.0.iter().any(|(silent, _)| silent == addr));
    }
}

impl Swim {
    /// Whether this node seems to be cut off, alone or with a few others.
    pub fn is_isolated(&self) -> bool {
        self.isolation.told
    }

    /// A direct ping to a member there brought no ack in time.
    pub(super) fn note_silence(&mut self, now: Time, target: NodeId, delegate: &mut impl Delegate) {
        // Others may have told meanwhile that it is gone.
        let target = self.members.get(target).filter(|record| !record.state.is_gone());
        let Some(addr) = target.map(|record| record.facts.socket()) else {
            return;
        };
        self.isolation.silent.note(addr, now);
        if self.isolation.told {
            return;
        }
        let others = self.members.iter().filter(|member| !member.state.is_gone());
        // Where only one other member is left, its silence says nothing about this node.
        let enough = MEMBERS.min(others.count().saturating_sub(1)).max(2);
        if let Some(since) = self.isolation.cut_off_since(enough) {
            self.isolation.begin(since);
            delegate.isolation_changed(now, true);
        }
    }

    /// A member at this address was heard, or somebody has heard it.
    pub(super) fn note_heard(&mut self, now: Time, from: SocketAddr, delegate: &mut impl Delegate) {
        let isolation = &mut self.isolation;
        if isolation.silent.len() == 0 && !isolation.told {
            return;
        }
        let answers = isolation.silent.forget(from);
        let news = isolation.heard.note(from, now) || answers;
        let enough = isolation.heard.len() >= isolation.silent.len();
        if isolation.told {
            // Those that were heard all the time speak for no change, unless all verdicts are in.
            let over = isolation.silent.len() == 0 && self.suspicions.is_empty();
            if over || (news && enough) {
                self.end_isolation(now, delegate);
            }
        } else if isolation.silent.len() == 0 {
            isolation.heard = Latest::default();
        }
    }

    /// The member at this address is listed as gone, so its silence is no secret any more. As long as nobody is heard,
    /// that ends nothing: the verdict may be wrong.
    pub(super) fn note_gone(&mut self, addr: SocketAddr) {
        self.isolation.silent.forget(addr);
    }

    fn end_isolation(&mut self, now: Time, delegate: &mut impl Delegate) {
        if std::mem::take(&mut self.isolation).told {
            delegate.isolation_changed(now, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::{alive, start};

    /// Says of hosts, by the last number of their address, in which second they are silent, heard or gone, and whether
    /// this node then takes itself for cut off.
    enum Say {
        Silent(u8, u64, bool),
        Heard(u8, u64, bool),
        Gone(u8, u64, bool),
    }

    /// A node with so many others, and after each step whether it is isolated.
    fn check(others: u8, steps: &[Say]) {
        let (mut swim, mut delegate) = start(1);
        let names: Vec<String> = (2..2 + others).map(|host| format!("n{host}")).collect();
        for (host, name) in (2..).zip(&names) {
            swim.handle_alive(Time::ZERO, &alive(name, host, 1), &mut delegate);
        }
        let mut told = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let place = |host: u8, at: u64| {
                let addr = SocketAddr::from(([10, 0, 0, host], 7946));
                (addr, Time::ZERO + std::time::Duration::from_secs(at))
            };
            let isolated = match *step {
                Say::Silent(host, at, isolated) => {
                    let (_, now) = place(host, at);
                    let id = swim.members.find(&format!("n{host}")).expect("a member");
                    swim.note_silence(now, id, &mut delegate);
                    isolated
                }
                Say::Heard(host, at, isolated) => {
                    let (addr, now) = place(host, at);
                    swim.note_heard(now, addr, &mut delegate);
                    isolated
                }
                Say::Gone(host, at, isolated) => {
                    let (_, now) = place(host, at);
                    swim.dead(now, &format!("n{host}"), 1, "x", &mut delegate);
                    isolated
                }
            };
            assert_eq!(swim.is_isolated(), isolated, "{others} others, step {number}");
            if told.last().copied().unwrap_or(false) != isolated {
                told.push(isolated);
            }
            assert_eq!(delegate.isolation, told, "{others} others, step {number}");
        }
    }

    use Say::{Gone, Heard, Silent};

    #[test]
    fn several_silent_members_are_told_once_while_nobody_is_heard() {
        check(
            1,
            &[Silent(2, 1, false), Silent(2, 2, false), Silent(2, 3, false)],
        );
        check(2, &[Silent(2, 1, false), Silent(3, 2, true), Silent(2, 3, true)]);
        let long = [
            Silent(2, 1, false),
            Silent(3, 2, false),
            Silent(2, 3, false),
            Silent(4, 4, true),
            Silent(5, 5, true),
        ];
        check(5, &long);
    }

    #[test]
    fn who_hears_fewer_than_are_silent_is_cut_off_with_them() {
        let two_of_ten = [
            Silent(2, 1, false),
            Heard(9, 1, false),
            Silent(3, 2, false),
            Heard(9, 3, false),
            Silent(4, 4, true),
            // It is heard all the time.
            Heard(9, 5, true),
            Gone(2, 6, true),
            Gone(3, 7, true),
            Gone(4, 8, true),
            Heard(9, 9, false),
        ];
        check(9, &two_of_ten);
        let with_help_of_others = [
            Silent(2, 1, false),
            Heard(7, 2, false),
            Heard(8, 2, false),
            Heard(9, 2, false),
            Silent(3, 3, false),
            Heard(6, 4, false),
            Silent(4, 5, false),
            // What was heard before the last three counts no more.
            Silent(5, 6, true),
        ];
        check(9, &with_help_of_others);
        // Both were silent, but not at the same time.
        check(2, &[Silent(2, 1, false), Heard(3, 2, false), Silent(3, 3, false)]);
        // With two of five nobody is told.
        check(4, &[Silent(2, 1, false), Heard(4, 2, false), Silent(3, 3, false)]);
    }

    #[test]
    fn while_a_suspicion_runs_who_was_heard_all_the_time_ends_nothing() {
        let (mut swim, mut delegate) = start(1);
        for host in 2..11 {
            swim.handle_alive(Time::ZERO, &alive(&format!("n{host}"), host, 1), &mut delegate);
        }
        let at = |secs| Time::ZERO + std::time::Duration::from_secs(secs);
        let constant = SocketAddr::from(([10, 0, 0, 10], 7946));
        swim.note_heard(at(1), constant, &mut delegate);
        for host in 2..5 {
            let id = swim.members.find(&format!("n{host}")).expect("a member");
            swim.note_silence(at(host), id, &mut delegate);
            swim.note_heard(at(host), constant, &mut delegate);
        }
        assert!(swim.is_isolated());
        swim.suspect(at(5), "n6", 1, "n10");
        for host in 2..5 {
            swim.dead(at(6), &format!("n{host}"), 1, "x", &mut delegate);
        }
        swim.note_heard(at(7), constant, &mut delegate);
        assert!(swim.is_isolated(), "a verdict is still to come");
        swim.dead(at(8), "n6", 1, "x", &mut delegate);
        swim.note_heard(at(9), constant, &mut delegate);
        assert!(!swim.is_isolated());
    }

    #[test]
    fn it_ends_once_as_many_are_heard_as_are_silent() {
        let alone = || vec![Silent(2, 1, false), Silent(3, 2, false), Silent(4, 3, true)];
        let heals = [Heard(9, 5, true), Heard(3, 5, false), Silent(2, 6, false)];
        check(9, &alone().into_iter().chain(heals).collect::<Vec<_>>());
        // While nobody is heard, the verdicts may be wrong.
        let verdicts = [
            Gone(2, 4, true),
            Gone(3, 5, true),
            Gone(4, 6, true),
            Heard(9, 7, false),
        ];
        check(9, &alone().into_iter().chain(verdicts).collect::<Vec<_>>());
        // A probe that ends after the verdict says nothing.
        check(2, &[Gone(2, 1, false), Silent(3, 2, false), Silent(2, 3, false)]);
    }

    #[test]
    fn only_the_latest_are_weighed() {
        let (mut swim, mut delegate) = start(1);
        for host in 2..200 {
            let name = format!("n{host}");
            swim.handle_alive(Time::ZERO, &alive(&name, host, 1), &mut delegate);
            let id = swim.members.find(&name).expect("a member");
            swim.note_silence(Time::ZERO, id, &mut delegate);
            let other = SocketAddr::from(([10, 0, 1, host], 7946));
            swim.note_heard(Time::ZERO, other, &mut delegate);
        }
        let isolation = &swim.isolation;
        assert!(isolation.silent.len() <= WEIGHED && isolation.heard.len() <= WEIGHED);
    }
}
