//! Incarnation and Lamport times never run back.

use std::collections::BTreeMap;

use super::{Checker, Sight};
use crate::HostId;

/// Incarnation and Lamport times of a node never run back.
///
/// A node that remembers is held over its restarts to what was on its disk; one without memory begins anew.
#[derive(Debug, Default)]
pub struct NeverBack {
    /// By host: its life, its times, and those on its disk.
    known: BTreeMap<HostId, (u32, [u64; 4], [u64; 4])>,
}

const CLOCKS: [&str; 4] = ["incarnation", "member time", "event time", "query time"];

impl Checker for NeverBack {
    fn promise(&self) -> &'static str {
        "incarnation and Lamport times never run back"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for id in sight.world.hosts() {
            let Some(node) = sight.world.host(id).node() else {
                continue;
            };
            let stats = node.stats();
            let times = [
                u64::from(node.incarnation()),
                stats.member_time,
                stats.event_time,
                stats.query_time,
            ];
            let life = sight.standing(id).life;
            let marks = sight.world.host(id).store.flushed();
            let stored = [
                u64::from(marks.incarnation),
                marks.member,
                marks.event,
                marks.query,
            ];
            let before = match self.known.insert(id, (life, times, stored)) {
                Some((known_life, times, _)) if known_life == life => times,
                Some((_, _, stored)) if sight.world.host(id).config.records => stored,
                _ => continue,
            };
            for ((what, before), time) in CLOCKS.iter().zip(before).zip(times) {
                if time < before {
                    report.push(format!(
                        "the {what} of {} went from {before} to {time}",
                        sight.name(id)
                    ));
                }
            }
        }
    }
}
