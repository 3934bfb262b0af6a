//! What is seen of the world and noted, and what is waited for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fyrd::rpc::client::ClientError;
use fyrd::rpc::types::Member;

use super::history::{Broken, Clocks, Fact, Handled, check, is_gone};
use super::subject::{SUBJECT, read_handled};
use super::world::{World, handled_by};
use crate::support::{PATIENCE, eventually};

/// How often a state is asked for that must come.
const POLL: Duration = Duration::from_millis(5);

impl World {
    /// Makes sure that all is stored that is known now.
    pub fn settle(&mut self) {
        // What an earlier life handled may not have come to the disk before it was killed.
        let life = self.subject.life();
        let mut handled = self.subject.handled();
        handled.retain(|handled| handled.life == Some(life));
        let mut client = self.subject.client(&self.runtime);
        let (members, clocks) = self.runtime.block_on(async {
            let members = client.members().await.expect("members");
            (members, client.stats().await.expect("info"))
        });
        let serf = &clocks["serf"];
        let clock = |key: &str| serf[key].parse().expect("a Lamport time");
        let clocks = Clocks {
            incarnation: 0,
            member: clock("member_time"),
            event: clock("event_time"),
            query: clock("query_time"),
        };
        let mut members = statuses(Ok(members));
        members.remove(SUBJECT);
        self.note(Fact::Settled {
            clocks,
            members,
            handled,
        });
    }

    /// Sees the subject's state, and kills it with the last byte of that.
    pub fn look_and_kill(&mut self) {
        let sight = self.observer.look(self.subject.addr());
        self.subject.kill();
        self.client = None;
        let clocks = sight.expect("its state").clocks(SUBJECT);
        self.note(Fact::Saw {
            by: "the observer",
            clocks,
        });
        for index in 0..self.peers.len() {
            let addr: SocketAddr = self.peers[index].0.address().parse().expect("its address");
            let incarnation = self
                .observer
                .look(addr)
                .expect("a peer's state")
                .incarnation(SUBJECT);
            let clocks = Clocks {
                incarnation,
                ..Clocks::default()
            };
            self.note(Fact::Saw { by: "a peer", clocks });
        }
    }

    /// Looks at what the kill has left.
    pub fn autopsy(&mut self) {
        if self.subject.disk_was_slow() {
            self.note(Fact::DiskWasSlow);
        }
        let stored = self.subject.stored();
        self.note(Fact::Killed { stored });
    }

    /// Waits until the subject and its peers see each other, with the same tags, and notes whether they do.
    pub fn meet(&mut self, patience: Duration) {
        self.meet_if(patience, |_| Ok(()));
    }

    /// The same, but it counts only if the subject itself has looked for its peers: one of them may come upon it
    /// by chance, if it was not missed.
    pub fn rejoin(&mut self, patience: Duration) {
        self.meet_if(patience, |world| {
            let line = "Re-joined to previously known node";
            let rejoined = world.subject.log().contains(line);
            rejoined
                .then_some(())
                .ok_or_else(|| format!("{SUBJECT} has rejoined nobody"))
        });
    }

    fn meet_if(&mut self, patience: Duration, more: impl Fn(&World) -> Result<(), String>) {
        let begun = Instant::now();
        let agreed = loop {
            match self.views().and_then(|()| more(self)) {
                Ok(()) => break Ok(()),
                Err(views) if begun.elapsed() > patience => {
                    break Err(format!("not together after {patience:?}: {views}"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        self.note(Fact::Agreed(agreed));
    }

    fn views(&mut self) -> Result<(), String> {
        let World {
            runtime,
            client,
            peers,
            ..
        } = self;
        let own = runtime
            .block_on(client.as_mut().expect("it runs").members())
            .map_err(|error| error.to_string())?;
        let tags = |members: &[Member], name: &str| {
            members
                .iter()
                .find(|member| member.name == name && member.status == "alive")
                .map(|member| (member.port, member.tags.clone()))
        };
        for (peer, client) in peers {
            let theirs = runtime
                .block_on(client.members())
                .map_err(|error| error.to_string())?;
            for name in [SUBJECT, peer.name()] {
                let (own, theirs) = (tags(&own, name), tags(&theirs, name));
                if own.is_none() || own != theirs {
                    let who = peer.name();
                    return Err(format!(
                        "{name} is {own:?} for {SUBJECT} and {theirs:?} for {who}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits for what was missed, and has it stored: else a kill at this moment may have it handled again.
    pub fn hear(&mut self, anything: bool, patience: Duration) {
        let missed = self.history.facts.iter().rev().find_map(|(_, fact)| match fact {
            Fact::Missed { names } => Some(names.clone()),
            _ => None,
        });
        let Some(missed) = missed.filter(|_| anything) else {
            return;
        };
        let begun = Instant::now();
        let heard = |handled: &[Handled]| {
            missed
                .iter()
                .all(|name| handled.iter().any(|handled| handled.name == *name))
        };
        while !heard(&self.subject.handled()) && begun.elapsed() < patience {
            std::thread::sleep(POLL);
        }
        self.settle();
    }

    /// Has the whole cluster settle, and gives what is broken.
    pub fn end(mut self) -> Vec<Broken> {
        if let Some(mut agent) = self.passing.take() {
            agent.kill();
            self.gone.push(agent);
        }
        self.whole_views_agree();
        self.settle();
        self.report();
        self.verdict()
    }

    /// What is broken.
    pub fn verdict(mut self) -> Vec<Broken> {
        self.history.handled = self.subject.handled();
        self.what_peers_heard();
        let broken = check(&self.history);
        if !broken.is_empty() && std::env::var_os("FYRD_CRASH_KEEP").is_some() {
            self.subject.keep();
        }
        broken
    }

    /// In the end all say the same of all whom they know. Who came and went while the subject was down is unknown
    /// to it, as to any newcomer.
    fn whole_views_agree(&mut self) {
        let World {
            runtime,
            client,
            peers,
            ..
        } = self;
        let own = client.as_mut().expect("it runs");
        eventually("all views are the same", PATIENCE, || {
            let own = statuses(runtime.block_on(own.members()));
            for (peer, client) in peers.iter_mut() {
                let theirs = statuses(runtime.block_on(client.members()));
                let differ = |(name, status): &(&String, &String)| theirs.get(*name) != Some(*status);
                let unknown =
                    |(name, status): &(&String, &String)| !is_gone(status) && !own.contains_key(*name);
                if own.iter().any(|member| differ(&member)) || theirs.iter().any(|member| unknown(&member)) {
                    return Err(format!(
                        "{SUBJECT} sees {own:#?}, {} sees {theirs:#?}",
                        peer.name()
                    ));
                }
            }
            Ok(())
        });
    }

    /// What peers have heard of the subject's own was on the wire, so it counts as seen in the life that said it.
    fn what_peers_heard(&mut self) {
        for index in 0..self.peers.len() {
            for Handled {
                kind, name, ltime, ..
            } in read_handled(&handled_by(&self.peers[index].0), |_| None)
            {
                let Some((life, _)) = name.strip_prefix("own").and_then(|rest| rest.split_once('-')) else {
                    continue;
                };
                let clocks = match kind.as_str() {
                    "user" => Clocks {
                        event: ltime + 1,
                        ..Clocks::default()
                    },
                    _ => Clocks {
                        query: ltime + 1,
                        ..Clocks::default()
                    },
                };
                let life = life.parse().expect("a life");
                self.history.facts.push((
                    life,
                    Fact::Saw {
                        by: "a peer's handler",
                        clocks,
                    },
                ));
            }
        }
    }

    /// Figures for people: how much a run has tried.
    fn report(&self) {
        let handled = self.subject.handled();
        let count = |kind: &str| handled.iter().filter(|handled| handled.kind == kind).count();
        let facts = &self.history.facts;
        let seen = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::Saw { .. }))
            .count();
        let settled = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::Settled { .. }))
            .count();
        let slow = facts
            .iter()
            .filter(|(_, fact)| matches!(fact, Fact::DiskWasSlow))
            .count();
        let again = {
            let mut names: Vec<&str> = handled.iter().map(|handled| handled.name.as_str()).collect();
            names.sort_unstable();
            names.windows(2).filter(|pair| pair[0] == pair[1]).count()
        };
        println!(
            "{} lives, {seen} looks, {settled} settled points, {} events and {} queries handled, of which {again} again \
             because nothing was stored before the kill; {slow} lives met a slow disk",
            self.subject.life() + 1,
            count("user"),
            count("query"),
        );
    }
}

/// Name and status of each.
pub fn statuses(members: Result<Vec<Member>, ClientError>) -> BTreeMap<String, String> {
    let members = members.expect("members");
    members
        .into_iter()
        .map(|member| (member.name, member.status))
        .collect()
}
