//! What happened to a node over its lives, and whether its snapshot kept its promises
//! (docs/design.md#the-snapshot).
//!
//! The checks look at a recorded [`History`] and at nothing else, so that whoever drives the node cannot make
//! them pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The numbers of a node that never run backwards; 0 where one was not to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    pub incarnation: u64,
    pub member: u64,
    pub event: u64,
    pub query: u64,
}

impl Clocks {
    fn named(self) -> [(&'static str, u64); 4] {
        [
            ("incarnation", self.incarnation),
            ("member clock", self.member),
            ("event clock", self.event),
            ("query clock", self.query),
        ]
    }
}

/// A user event (`user`) or query (`query`) that a handler was run for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handled {
    pub kind: String,
    /// In these histories no two events have the same name.
    pub name: String,
    pub ltime: u64,
    /// The life that ran the handler; none if it was killed at that very moment.
    pub life: Option<usize>,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub clocks: Clocks,
    /// Name and status.
    pub members: BTreeMap<String, String>,
    /// Lamport time and name.
    pub events: BTreeSet<(u64, String)>,
    /// Lamport times.
    pub queries: BTreeSet<u64>,
}

/// One thing that was seen.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A new life answers for the first time.
    Began {
        clocks: Clocks,
        /// Name and status of all members.
        members: BTreeMap<String, String>,
    },
    /// Somebody saw these clocks.
    Saw { by: &'static str, clocks: Clocks },
    /// `info` was answered, and before it was asked all this was known.
    Settled {
        clocks: Clocks,
        members: BTreeMap<String, String>,
        handled: Vec<Handled>,
    },
    /// The disk took so long that the node no longer waited for it before it spoke.
    DiskWasSlow,
    /// Killed, and this is what was on the disk.
    Killed { stored: Stored },
    /// A peer fired these events, in this order, while the node was down.
    Missed { names: Vec<String> },
    /// Whether the cluster came together again by itself, and if not, what it looked like.
    Agreed(Result<(), String>),
}

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In their order, with the number of the life to which they belong.
    pub facts: Vec<(usize, Fact)>,
    /// All that the node's handler was run for, over all its lives.
    pub handled: Vec<Handled>,
}

/// The promises of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// What a flush covered is there after a crash.
    Kept,
    /// Clocks and incarnation never run backwards.
    Forward,
    /// What was handled before a flush is not handled again.
    Once,
    /// What was missed arrives once and in order.
    Delivered,
    /// The cluster comes together again by itself.
    Rejoined,
}

/// A promise that was broken, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Broken {
    pub promise: Promise,
    pub life: usize,
    pub how: String,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in life {}: {}", self.promise, self.life, self.how)
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History) -> Vec<Broken> {
    let checks = [
        check_kept,
        check_forward,
        check_once,
        check_delivered,
        check_rejoined,
    ];
    checks.iter().flat_map(|check| check(history)).collect()
}

fn broken(promise: Promise, life: usize, how: String) -> Broken {
    Broken { promise, life, how }
}

/// Whether a member of this status has left or failed.
pub fn is_gone(status: &str) -> bool {
    matches!(status, "left" | "failed")
}

/// What was known when `info` was asked is in the store, and in the list of the next life.
fn check_kept(history: &History) -> Vec<Broken> {
    let mut wrong = Vec::new();
    let (mut known, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (life, fact) in &history.facts {
        let mut kept = |how: String| wrong.push(broken(Promise::Kept, *life, how));
        match fact {
            Fact::Settled { members, handled, .. } => {
                known = members.clone();
                seen.extend(handled.iter().cloned());
            }
            Fact::Killed { stored } => {
                for (name, status) in &known {
                    match stored.members.get(name) {
                        None => kept(format!("{name}, {status}, is not stored")),
                        Some(now) if is_gone(status) && !is_gone(now) => {
                            kept(format!("{name} was {status} and is stored as {now}"));
                        }
                        Some(_) => {}
                    }
                }
                for Handled {
                    kind, name, ltime, ..
                } in &seen
                {
                    let there = match kind.as_str() {
                        "user" => stored.events.contains(&(*ltime, name.clone())),
                        _ => stored.queries.contains(ltime),
                    };
                    if !there {
                        kept(format!("{kind} {name} of time {ltime} is not stored as seen"));
                    }
                }
            }
            // Whoever was there has to be met again, so it is only the others that are listed at once.
            Fact::Began { members, .. } => {
                for (name, status) in known.iter().filter(|(_, status)| is_gone(status)) {
                    if !members.get(name).is_some_and(|now| is_gone(now)) {
                        kept(format!(
                            "{name} was {status} and is {:?} after the restart",
                            members.get(name)
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Neither the store nor the next life is below anything that was seen of an earlier one.
fn check_forward(history: &History) -> Vec<Broken> {
    let mut wrong = Vec::new();
    let mut lives: Vec<(usize, Clocks, String)> = Vec::new();
    let slow = |life: usize| {
        history
            .facts
            .iter()
            .any(|(of, fact)| *of == life && matches!(fact, Fact::DiskWasSlow))
    };
    for (life, fact) in &history.facts {
        let seen = match fact {
            Fact::Saw { by, clocks } => Some((*clocks, format!("seen by {by}"))),
            Fact::Settled { clocks, .. } => Some((*clocks, "shown by info".to_owned())),
            Fact::Began { clocks, .. } => Some((*clocks, "first seen".to_owned())),
            _ => None,
        };
        lives.extend(
            seen.filter(|_| !slow(*life))
                .map(|(clocks, how)| (*life, clocks, how)),
        );
    }
    for (life, fact) in &history.facts {
        // The store belongs to the life that has ended. A new one announces an incarnation of its own.
        let (starts, earlier, what, step) = match fact {
            Fact::Killed { stored } => (stored.clocks, *life + 1, "stored", 0),
            Fact::Began { clocks, .. } => (*clocks, *life, "after the restart", 1),
            _ => continue,
        };
        for (seen_in, clocks, how) in lives.iter().filter(|(seen_in, _, _)| *seen_in < earlier) {
            for ((name, now), (_, then)) in starts.named().into_iter().zip(clocks.named()) {
                let least = if name == "incarnation" && then > 0 {
                    then + step
                } else {
                    then
                };
                if now < least {
                    let how = format!("{name} {now} {what}, but it was {then} in life {seen_in}, {how}");
                    wrong.push(broken(Promise::Forward, *life, how));
                }
            }
        }
    }
    wrong
}

/// What was handled when `info` was asked is not handled in a later life, and nothing twice in one.
fn check_once(history: &History) -> Vec<Broken> {
    let mut wrong = Vec::new();
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for handled in &history.handled {
        by_name.entry(&handled.name).or_default().extend(handled.life);
    }
    for (name, lives) in &by_name {
        let distinct: BTreeSet<usize> = lives.iter().copied().collect();
        if distinct.len() < lives.len() {
            let how = format!("{name} was handled in the lives {lives:?}");
            wrong.push(broken(Promise::Once, lives[0], how));
        }
    }
    let mut reported = BTreeSet::new();
    for (life, fact) in &history.facts {
        let Fact::Settled { handled, .. } = fact else {
            continue;
        };
        for Handled { name, .. } in handled {
            let again = by_name[name.as_str()].iter().find(|later| *later > life);
            if let Some(again) = again.filter(|_| reported.insert(name)) {
                let how = format!("{name} was handled, all was stored, and life {again} handled it again");
                wrong.push(broken(Promise::Once, *life, how));
            }
        }
    }
    wrong
}

/// What was fired while the node was down has been handled once, in the order in which it was fired.
fn check_delivered(history: &History) -> Vec<Broken> {
    let mut wrong = Vec::new();
    for (life, fact) in &history.facts {
        let Fact::Missed { names } = fact else { continue };
        let heard: Vec<&str> = history
            .handled
            .iter()
            .map(|handled| handled.name.as_str())
            .filter(|name| names.iter().any(|missed| missed == name))
            .collect();
        if heard != *names {
            let how = format!("fired while it was down {names:?}, handled {heard:?}");
            wrong.push(broken(Promise::Delivered, *life, how));
        }
    }
    wrong
}

fn check_rejoined(history: &History) -> Vec<Broken> {
    let agreed = history.facts.iter().filter_map(|(life, fact)| match fact {
        Fact::Agreed(Err(views)) => Some(broken(Promise::Rejoined, *life, views.clone())),
        _ => None,
    });
    agreed.collect()
}
