//! The joins that swim carries out for this layer, and what they end in.

use std::net::SocketAddr;

use super::effect::CommandId;
use super::targets::Dial;
use super::types::{Answer, JoinTarget, LookedUp};
use super::{Ask, Serf};
use crate::swim::delegate::{Contact, JoinId};
use crate::swim::failure::Failure;
use crate::time::Time;

/// What a join under way is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A command.
    Command(CommandId),
    /// The dialer wants to reach somebody.
    Dial(Dial),
    /// To join through the seeds, until one answers; how their names were looked up.
    RetryJoin(Vec<LookedUp>),
}

/// Whoever is at this address.
pub(super) fn anybody(addr: SocketAddr) -> Contact {
    Contact { addr, name: None }
}

impl Serf {
    /// Contacts these nodes; the command is answered once all have answered or failed.
    pub fn join(&mut self, id: CommandId, targets: Vec<JoinTarget>, ignore_old: bool) {
        if self.is_leaving() {
            let reason = "Serf can't Join after Leave or Shutdown".to_owned();
            return self.answer(id, Answer::Failed(reason));
        }
        let targets = targets.into_iter().map(|target| anybody(target.addr)).collect();
        let ignore_old = self.ignores_old(ignore_old);
        self.ask_for_join(Purpose::Command(id), targets, ignore_old);
    }

    pub(super) fn ask_for_join(&mut self, purpose: Purpose, targets: Vec<Contact>, ignore_old: bool) {
        self.last_join += 1;
        let id = JoinId(self.last_join);
        self.joins.insert(id, purpose);
        self.asks.push_back(Ask::Join {
            id,
            targets,
            ignore_old,
        });
    }

    pub(super) fn end_join(
        &mut self,
        now: Time,
        id: JoinId,
        contacted: usize,
        errors: Vec<(SocketAddr, Failure)>,
    ) {
        let purpose = self.joins.remove(&id);
        if contacted > 0 && purpose.as_ref().is_none_or(|purpose| self.hears_news(purpose)) {
            self.end_catching_up();
        }
        match purpose {
            Some(Purpose::Command(id)) => {
                if contacted > 0 {
                    self.note_joined(now);
                }
                let errors = errors
                    .into_iter()
                    .map(|(addr, failure)| (addr, failure.text))
                    .collect();
                self.answer(id, Answer::Joined { contacted, errors });
            }
            Some(Purpose::Dial(dial)) => self.end_dial(now, &dial, contacted, &errors),
            Some(Purpose::RetryJoin(looked_up)) => self.end_retry(now, &looked_up, contacted, &errors),
            None => {}
        }
    }
}
