//! What may be answered to addresses at which no member is known: no more than has come from there.
//!
//! Anybody can write any address into a ping, or in front of a datagram. An answer that is longer than the
//! question would make this node a weapon against whoever lives there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bounds::MAX_STRANGERS;
use crate::time::Time;

/// For so long what came counts, and what went.
const WINDOW: Duration = Duration::from_secs(1);

/// Accounts of addresses.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// The datagram that is looked at: where it came from, and its length, until that is noted.
    arrived: Option<(IpAddr, usize)>,
    accounts: BTreeMap<IpAddr, Account>,
}

/// What came from an address since a moment, less what went there.
#[derive(Clone, Copy, Debug)]
struct Account {
    since: Time,
    left: usize,
}

impl Strangers {
    /// A datagram of this length has come.
    pub fn note_arrival(&mut self, from: SocketAddr, len: usize) {
        self.arrived = Some((from.ip(), len));
    }

    /// Whether as many bytes may go there, which are counted then.
    pub fn may_send(&mut self, now: Time, to: SocketAddr, len: usize) -> bool {
        if let Some((from, len)) = self.arrived.take() {
            self.credit(now, from, len);
        }
        let Some(account) = self.accounts.get_mut(&to.ip()) else {
            return false;
        };
        if now.since(account.since) >= WINDOW || account.left < len {
            return false;
        }
        account.left -= len;
        true
    }

    fn credit(&mut self, now: Time, from: IpAddr, len: usize) {
        if self.accounts.len() >= MAX_STRANGERS && !self.accounts.contains_key(&from) {
            self.accounts
                .retain(|_, account| now.since(account.since) < WINDOW);
            if self.accounts.len() >= MAX_STRANGERS {
                // Forgotten credit is an answer less, and no more than that.
                self.accounts.clear();
            }
        }
        let account = self
            .accounts
            .entry(from)
            .or_insert(Account { since: now, left: 0 });
        if now.since(account.since) >= WINDOW {
            *account = Account { since: now, left: 0 };
        }
        account.left = account.left.saturating_add(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn nobody_gets_more_than_came_from_there_within_a_second() {
        let mut strangers = Strangers::default();
        let (a, b) = (addr("10.0.0.1:1"), addr("10.0.0.2:1"));
        let second = Time::ZERO + WINDOW;
        strangers.note_arrival(a, 100);
        assert!(!strangers.may_send(Time::ZERO, b, 1), "another named it");
        assert!(strangers.may_send(Time::ZERO, addr("10.0.0.1:9"), 60));
        assert!(!strangers.may_send(Time::ZERO, a, 41));
        assert!(strangers.may_send(Time::ZERO, a, 40));
        strangers.note_arrival(a, 50);
        strangers.note_arrival(a, 50);
        assert!(
            strangers.may_send(Time::ZERO, a, 50),
            "only what is answered counts"
        );
        assert!(!strangers.may_send(Time::ZERO, a, 1));
        strangers.note_arrival(a, 10);
        assert!(!strangers.may_send(Time::ZERO, a, 11));
        assert!(!strangers.may_send(second, a, 10), "that was long ago");
    }

    #[test]
    fn invented_addresses_fill_no_memory() {
        let mut strangers = Strangers::default();
        for n in 0..3 * MAX_STRANGERS as u32 {
            let from = SocketAddr::from((n.to_be_bytes(), 1));
            strangers.note_arrival(from, 9);
            assert!(strangers.may_send(Time::ZERO, from, 9));
        }
        assert!(strangers.accounts.len() <= MAX_STRANGERS);
    }

    #[test]
    fn what_is_over_gives_way_before_what_still_counts() {
        let mut strangers = Strangers::default();
        let recent = addr("192.0.2.1:1");
        let at = |from: SocketAddr, now, strangers: &mut Strangers| {
            strangers.note_arrival(from, 9);
            strangers.may_send(now, from, 1)
        };
        for n in 1..MAX_STRANGERS as u32 {
            assert!(at(
                SocketAddr::from((n.to_be_bytes(), 1)),
                Time::ZERO,
                &mut strangers
            ));
        }
        let later = Time::ZERO + WINDOW;
        assert!(at(recent, later, &mut strangers));
        assert!(at(addr("192.0.2.2:1"), later, &mut strangers));
        assert!(strangers.may_send(later, recent, 8));
    }
}
