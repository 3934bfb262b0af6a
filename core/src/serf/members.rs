//! The members as users see them, which outlive their place in the node list of swim.

use std::sync::Arc;

use crate::names::{Id, NameTable, Named};
use crate::serf::tags;
use crate::serf::types::{Member, MemberStatus};
use crate::swim::members::Facts;

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub facts: Arc<Facts>,
    pub status: MemberStatus,
    /// The Lamport time of the last intent that counted.
    pub status_ltime: u64,
}

impl Named for Entry {
    fn name(&self) -> &str {
        &self.facts.name
    }
}

impl Entry {
    /// The member as it is at this moment.
    pub fn snapshot(&self) -> Member {
        let vsn = self.facts.vsn;
        Member {
            name: Arc::clone(&self.facts.name),
            addr: self.facts.addr,
            port: self.facts.port,
            tags: tags::read(&self.facts.meta),
            status: self.status,
            protocol: [vsn[0], vsn[1], vsn[2]],
            delegate: [vsn[3], vsn[4], vsn[5]],
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.status, MemberStatus::Left | MemberStatus::Failed)
    }
}

pub(super) type Members = NameTable<Entry>;

/// Names a member.
pub(super) type MemberId = Id<Entry>;

/// How many members are in this status.
pub(super) fn count(members: &Members, status: MemberStatus) -> usize {
    members.values().filter(|entry| entry.status == status).count()
}
