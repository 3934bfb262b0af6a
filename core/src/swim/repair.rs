//! Repair by evidence: acks say in a few bytes what their sender knows, and two nodes that do not know the same
//! exchange their states at once, instead of at the next push/pull that happens to help
//! (docs/design.md#repair-by-evidence).

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Swim;
use super::delegate::Delegate;
use super::members::Facts;
use super::profile::Profile;
use crate::swim::formulas::push_pull_interval;
use crate::time::Time;

/// How many acks in a row must agree before a push/pull is left out.
const AGREEING: u32 = 3;

/// Bytes of the members' digest; what the delegate adds follows them.
const MEMBERS_DIGEST: usize = 4;

/// What the acks of others have told about their views.
#[derive(Debug)]
pub(super) struct Repair {
    /// When this node started.
    born: Time,
    /// When its list last changed.
    changed: Time,
    /// The own digest at the last ack, where it was different from the sender's.
    differed: Option<Vec<u8>>,
    /// No exchange before, and the pause after the one that comes next.
    not_before: Time,
    pause: Duration,
    /// How many acks have agreed since the last push/pull was due, unless one has not.
    agreed: Option<u32>,
    /// How many push/pulls in a row were left out.
    left_out: usize,
}

impl Repair {
    pub fn new(now: Time) -> Self {
        Repair {
            born: now,
            changed: now,
            differed: None,
            not_before: now,
            pause: Duration::ZERO,
            agreed: Some(0),
            left_out: 0,
        }
    }

    pub fn note_change(&mut self, now: Time) {
        self.changed = now;
    }

    /// Whether a push/pull that is due may be left out: all whom this node has probed since the last one know
    /// what it knows.
    pub fn spares_push_pull(&mut self, profile: &Profile) -> bool {
        let agreed = self.agreed.replace(0).is_some_and(|acks| acks >= AGREEING);
        let spared = agreed && self.left_out + 1 < profile.push_pull_thinning;
        self.left_out = if spared { self.left_out + 1 } else { 0 };
        spared
    }
}

impl Swim {
    /// What this node knows, for an ack; empty if nobody shall repair anything.
    pub(super) fn digest(&mut self, delegate: &impl Delegate) -> Vec<u8> {
        if self.config.profile.repair_interval.is_zero() {
            return Vec::new();
        }
        let mut digest = self.members.digest().to_be_bytes().to_vec();
        delegate.write_digest(&mut digest);
        digest
    }

    /// Takes the digest of an ack. One that differs may only show news on its way, so that the next has to differ
    /// as well, with nothing learned in between; a young node, whose neighbours are often just as young, does not
    /// wait for that.
    pub(super) fn compare(
        &mut self,
        now: Time,
        peer: &Arc<Facts>,
        theirs: &[u8],
        delegate: &mut impl Delegate,
    ) {
        let Some((members, above)) = theirs.split_first_chunk::<MEMBERS_DIGEST>() else {
            // A peer that does not say what it knows, as Serf, is served by the push/pulls.
            self.repair.agreed = None;
            return;
        };
        if self.config.profile.repair_interval.is_zero() {
            return;
        }
        let is_same = u32::from_be_bytes(*members) == self.members.digest() && delegate.agrees(above);
        if is_same {
            self.repair.differed = None;
            self.repair.pause = Duration::ZERO;
            self.repair.agreed = self.repair.agreed.map(|acks| acks.saturating_add(1));
            return;
        }
        self.repair.agreed = None;
        let own = self.digest(delegate);
        let again = self.repair.differed.replace(own.clone()) == Some(own);
        let profile = &self.config.profile;
        let is_young = now.since(self.repair.born) < profile.push_pull_interval
            && now.since(self.repair.changed) >= profile.gossip_interval;
        if (again || is_young) && now >= self.repair.not_before {
            self.pause_repair(now);
            debug!(target: "memberlist", "{} knows something else than this node", peer.name);
            self.push_pull_with(peer, delegate);
        }
    }

    /// Where exchanges do not help, because the two will never agree or news comes all the time, they become as
    /// seldom as push/pulls are anyway.
    fn pause_repair(&mut self, now: Time) {
        let (profile, n) = (&self.config.profile, self.members.len());
        let least = push_pull_interval(profile.repair_interval, n);
        let most = push_pull_interval(profile.push_pull_interval, n).max(least);
        let pause = self.repair.pause.clamp(least, most);
        self.repair.not_before = now + pause;
        self.repair.pause = (pause * 2).min(most);
        self.repair.differed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::{alive, start};

    #[test]
    fn the_digest_follows_the_list_in_whatever_order_it_came_about() {
        let [(mut one, mut delegate), (mut two, mut other)] = [start(1), start(2)];
        let now = Time::ZERO;
        let empty = one.members.digest();
        assert_eq!(empty, two.members.digest());
        for (name, host) in [("a", 10), ("b", 11), ("c", 12)] {
            one.handle_alive(now, &alive(name, host, 1), &mut delegate);
        }
        for (name, host) in [("c", 12), ("a", 10), ("b", 11)] {
            assert_ne!(one.members.digest(), two.members.digest());
            two.handle_alive(now, &alive(name, host, 1), &mut other);
        }
        assert_eq!(one.members.digest(), two.members.digest());
        // A suspect is there still; a new incarnation, and a death, are news.
        one.suspect(now, "a", 1, "b");
        assert_eq!(one.members.digest(), two.members.digest());
        one.handle_alive(now, &alive("a", 10, 2), &mut delegate);
        assert_ne!(one.members.digest(), two.members.digest());
        two.handle_alive(now, &alive("a", 10, 2), &mut other);
        assert_eq!(one.members.digest(), two.members.digest());
        one.dead(now, "b", 1, "a", &mut delegate);
        assert_ne!(one.members.digest(), two.members.digest());
        for name in ["a", "c"] {
            one.dead(now, name, 2, name, &mut delegate);
        }
        assert_eq!(one.members.digest(), empty);
    }
}
