//! Tells this node's operator that it may be the one that is cut off.
//!
//! A node from which all others seem to be gone at once keeps that to itself for a while, because the fault may be
//! its own. The operator of its host should not have to wait for so long: several direct pings in a row that bring
//! no ack, while nothing at all is heard, are said at once.

use super::Swim;
use super::delegate::Delegate;
use super::members::NodeId;
use crate::time::Time;

/// So many members in a row do not answer a direct ping before this node is taken to be isolated.
const MEMBERS: usize = 3;

/// What speaks for this node being cut off.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Who has not answered since anything was heard, each once.
    silent: Vec<NodeId>,
    told: bool,
}

impl Swim {
    /// Whether this node seems to hear nobody although several members should be there.
    pub fn is_isolated(&self) -> bool {
        self.isolation.told
    }

    /// A direct ping brought no ack in time.
    pub(super) fn note_silence(&mut self, now: Time, target: NodeId, delegate: &mut impl Delegate) {
        let isolation = &mut self.isolation;
        if isolation.told || isolation.silent.contains(&target) {
            return;
        }
        isolation.silent.push(target);
        let others = self.members.iter().filter(|member| !member.state.is_gone());
        // Where only one other member is left, its silence says nothing about this node.
        let enough = MEMBERS.min(others.count().saturating_sub(1)).max(2);
        if self.isolation.silent.len() >= enough {
            self.isolation.told = true;
            delegate.isolation_changed(now, true);
        }
    }

    /// Something was heard, so this node is not cut off.
    pub(super) fn end_isolation(&mut self, now: Time, delegate: &mut impl Delegate) {
        self.isolation.silent.clear();
        if std::mem::take(&mut self.isolation.told) {
            delegate.isolation_changed(now, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::testing::{alive, start};

    #[test]
    fn several_silent_members_in_a_row_are_told_once_and_one_word_ends_it() {
        // How many others there are, who does not answer, and whether that is isolation.
        let table: [(u8, &[&str], bool); 6] = [
            (1, &["a", "a", "a"], false),
            (2, &["a"], false),
            (2, &["a", "b"], true),
            (5, &["a", "b"], false),
            (5, &["a", "b", "a"], false),
            (5, &["a", "b", "c", "d"], true),
        ];
        for (others, silent, isolated) in table {
            let (mut swim, mut delegate) = start(1);
            for (host, name) in (2..2 + others).zip(["a", "b", "c", "d", "e"]) {
                swim.handle_alive(Time::ZERO, &alive(name, host, 1), &mut delegate);
            }
            for name in silent {
                let id = swim.members.find(name).expect("a member");
                swim.note_silence(Time::ZERO, id, &mut delegate);
            }
            assert_eq!(
                delegate.isolation,
                if isolated { vec![true] } else { vec![] },
                "{silent:?}"
            );
            assert_eq!(swim.is_isolated(), isolated);
            swim.end_isolation(Time::ZERO, &mut delegate);
            swim.end_isolation(Time::ZERO, &mut delegate);
            assert_eq!(delegate.isolation.len(), 2 * usize::from(isolated));
        }
    }
}
