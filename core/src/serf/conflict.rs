//! Two nodes with one name: the cluster votes who may keep it (docs/protocol.md#b11-name-conflict).

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::effect::Effect;
use super::queries::{CONFLICT_QUERY, OwnQueryKind};
use super::types::{QueryKey, QueryParams};
use super::{Phase, Serf};
use crate::addr::RawAddr;
use crate::swim::members::Facts;
use crate::time::Time;
use crate::wire::{SerfMessage, WireMember};

/// The vote about our own name that is under way.
#[derive(Debug)]
pub(super) struct Vote {
    query: QueryKey,
    /// Where the other of this name is.
    rival: SocketAddr,
    responses: u32,
    matching: u32,
}

impl Serf {
    pub(super) fn handle_name_conflict(&mut self, now: Time, known: &Facts, addr: RawAddr, port: u16) {
        if !self.is_me(&known.name) {
            warn!(target: "serf", "Name conflict for '{}' both {}:{} and {addr}:{port} are claiming",
                known.name, known.addr, known.port);
            return;
        }
        let resolve = self.config.resolve_name_conflicts;
        error!(target: "serf", "Node name conflicts with another node at {addr}:{port}. Names must be unique! (Resolution enabled: {resolve})");
        if !resolve || self.vote.is_some() || self.phase == Phase::Leaving {
            return;
        }
        let params = QueryParams {
            name: CONFLICT_QUERY.to_owned(),
            payload: known.name.as_bytes().to_vec(),
            ..QueryParams::default()
        };
        match self.start_query(now, &params, OwnQueryKind::Vote) {
            Ok(query) => {
                self.vote = Some(Vote {
                    query,
                    rival: addr.socket(port),
                    responses: 0,
                    matching: 0,
                })
            }
            Err(reason) => error!(target: "serf", "Failed to start name resolution query: {reason}"),
        }
    }

    /// Who we know under that name; the one that is asked about stays out of it.
    pub(super) fn conflict_answer(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = std::str::from_utf8(name).ok().filter(|name| !self.is_me(name))?;
        let member = self.members.by_name(name).map(|entry| entry.snapshot());
        let wire = member.as_ref().map(|member| {
            let [protocol_min, protocol_max, protocol_cur] = member.protocol;
            let [delegate_min, delegate_max, delegate_cur] = member.delegate;
            WireMember {
                name: &member.name,
                addr: member.addr.as_bytes(),
                port: member.port,
                tags: member
                    .tags
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect(),
                status: member.status.code(),
                protocol_min,
                protocol_max,
                protocol_cur,
                delegate_min,
                delegate_max,
                delegate_cur,
            }
        });
        let mut answer = Vec::new();
        SerfMessage::ConflictResponse(wire).encode(&mut answer);
        Some(answer)
    }

    pub(super) fn count_vote(&mut self, query: QueryKey, payload: &[u8]) {
        let Some(vote) = self.vote.as_mut().filter(|vote| vote.query == query) else {
            return;
        };
        let Ok(SerfMessage::ConflictResponse(member)) = SerfMessage::decode(payload) else {
            return;
        };
        vote.responses += 1;
        let facts = &self.config.facts;
        let ours = member.is_some_and(|member| {
            member.port == facts.port
                && RawAddr::from_bytes(member.addr).is_some_and(|addr| addr.ip() == facts.addr.ip())
        });
        vote.matching += u32::from(ours);
    }

    pub(super) fn end_vote(&mut self, query: QueryKey) {
        let Some(Vote {
            rival,
            responses,
            matching,
            ..
        }) = self.vote.take_if(|vote| vote.query == query)
        else {
            return;
        };
        // With no vote at all, memberlist's rule would let one forged message end a node, and both of
        // two nodes that share a name. Staying harms nobody.
        if may_stay(self.config.facts.socket(), rival, matching, responses) {
            info!(target: "serf", "majority in name conflict resolution [{matching} / {responses}]");
            return;
        }
        let name = Arc::clone(&self.config.facts.name);
        warn!(target: "serf", "minority in name conflict resolution, quitting [{matching} / {responses}] ({name})");
        self.effects.push_back(Effect::LostName);
    }
}

/// Whether the node at `ours` keeps its name, for which so many of those that answered know it.
fn may_stay(ours: SocketAddr, rival: SocketAddr, matching: u32, responses: u32) -> bool {
    match (2 * matching).cmp(&responses) {
        _ if responses == 0 => true,
        Ordering::Greater => true,
        Ordering::Less => false,
        // With Serf both end. Both know both addresses, so the lower one can stay.
        Ordering::Equal => ours < rival,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_with_one_name_at_most_one_ends_and_a_tie_has_one_winner() {
        let (low, high) = ("10.0.0.1:7946".parse().unwrap(), "10.0.0.2:7946".parse().unwrap());
        for (matching, responses, low_stays, high_stays) in [
            (0, 0, true, true),
            (2, 3, true, true),
            (1, 3, false, false),
            (1, 2, true, false),
            (2, 4, true, false),
            (0, 1, false, false),
        ] {
            assert_eq!(may_stay(low, high, matching, responses), low_stays);
            assert_eq!(may_stay(high, low, matching, responses), high_stays);
        }
    }
}
