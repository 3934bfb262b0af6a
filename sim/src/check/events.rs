//! User events: each reaches every connected node exactly once.

use std::collections::{BTreeMap, BTreeSet};

use super::lasting::Lasting;
use super::{Checker, Sight};
use crate::HostId;
use fyrd_core::serf::Event;
use fyrd_core::time::Time;

/// Lamport time, name and payload: together they name an event.
type Key = (u64, String, Vec<u8>);

/// Every event reaches every node that is there exactly once.
///
/// An event exists once any node has told of it, its sender as a rule. A node without memory that starts
/// anew may hear it again, and one that remembers what it had not stored.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    /// All events by number, with the time when each was first told of.
    events: Vec<(Key, Time)>,
    numbers: BTreeMap<Key, usize>,
    /// By host: its life, and how many of its events have been read.
    read: Vec<(u32, usize)>,
    /// By host: what it has heard in this life, or in all of them if it remembers.
    heard: Vec<BTreeSet<usize>>,
    /// By host: the places of these among its events.
    places: Vec<BTreeMap<usize, usize>>,
    missing: Lasting<(usize, HostId)>,
}

impl ExactlyOnce {
    fn read_host(&mut self, sight: &Sight<'_>, id: HostId, report: &mut Vec<String>) {
        if self.read.len() <= id.0 {
            self.read.resize(id.0 + 1, (0, 0));
            self.heard.resize(id.0 + 1, BTreeSet::new());
            self.places.resize(id.0 + 1, BTreeMap::new());
        }
        let (life, seen) = self.read[id.0];
        let host = sight.world.host(id);
        let heard = &mut self.heard[id.0];
        if life != sight.standing(id).life {
            if !host.config.records {
                heard.clear();
                self.places[id.0].clear();
            }
            self.places[id.0].retain(|place, number| {
                let is_forgotten = host.has_forgotten(*place);
                if is_forgotten {
                    heard.remove(number);
                }
                !is_forgotten
            });
        }
        for (place, (at, event)) in host.events.iter().enumerate().skip(seen) {
            let Event::User {
                ltime, name, payload, ..
            } = &**event
            else {
                continue;
            };
            let key = (*ltime, name.clone(), payload.clone());
            let number = *self.numbers.entry(key.clone()).or_insert_with(|| {
                self.events.push((key, *at));
                self.events.len() - 1
            });
            if host.has_forgotten(place) {
                continue;
            }
            self.places[id.0].insert(place, number);
            if !self.heard[id.0].insert(number) {
                report.push(format!("{} heard of event '{name}' ({ltime}) twice", host.name()));
            }
        }
        self.read[id.0] = (sight.standing(id).life, host.events.len());
    }
}

impl Checker for ExactlyOnce {
    fn promise(&self) -> &'static str {
        "every event reaches every connected node exactly once"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        for id in sight.world.hosts() {
            self.read_host(sight, id, report);
        }
        if sight.calm_since.is_none() {
            return self.missing.clear();
        }
        let citizens: Vec<HostId> = sight.citizens().collect();
        for (number, (_, told)) in self.events.iter().enumerate() {
            // If all who knew of it are gone, nobody can pass it on.
            if !citizens.iter().any(|host| self.heard[host.0].contains(&number)) {
                continue;
            }
            for &host in &citizens {
                if sight.standing(host).born < *told && !self.heard[host.0].contains(&number) {
                    self.missing.note((number, host));
                }
            }
        }
        // Views heal first where the network was torn apart, so that there is somebody to hear it from.
        let bound = sight.patience.recover + sight.patience.spread;
        for (number, host) in self.missing.end_glance(sight.now, bound) {
            let ((ltime, name, _), told) = &self.events[number];
            report.push(format!(
                "{} has not heard of event '{name}' ({ltime}), {:?} after others had",
                sight.name(host),
                sight.now.since(*told)
            ));
        }
    }

    fn is_waiting(&self) -> bool {
        self.missing.is_waiting()
    }
}
