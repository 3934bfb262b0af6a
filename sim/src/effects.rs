//! What the nodes want done, carried out.

use std::sync::Arc;

use super::happening::Happening;
use super::host::Host;
use super::{HostId, World};
use fyrd_core::node::{Effect, Input, Node};
use fyrd_core::serf::{Command, Event, JoinTarget, LookedUp, keyring};

impl World {
    pub(super) fn input(&mut self, id: HostId, input: Input<'_>) {
        let now = self.local_time(id);
        if let Some(node) = self.hosts[id.0].node.as_mut() {
            node.handle(now, input);
            self.settle(id);
        }
    }

    /// Carries out what a node wants done, and notes when it wants to be called again. As in the driver, refused
    /// sends are told to the node once; what it sends then, and is refused again, waits for the next input.
    pub(super) fn settle(&mut self, id: HostId) {
        self.carry_out_all(id);
        let refused = std::mem::take(&mut self.hosts[id.0].refused_sends);
        if !refused.is_empty() {
            let now = self.local_time(id);
            for to in refused {
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    let reason = "no route to host";
                    node.handle(now, Input::SendFailed { to, reason });
                }
            }
            self.carry_out_all(id);
        }
        let host = &mut self.hosts[id.0];
        let deadline = host.node.as_ref().and_then(Node::next_deadline);
        if let Some(deadline) = deadline.map(|deadline| deadline - host.clock_ahead)
            && host.wake_at.is_none_or(|wake_at| deadline < wake_at)
        {
            // A deadline that has passed already is served at once, but never in the past.
            let at = deadline.max(self.now);
            host.wake_at = Some(at);
            self.agenda.set(at, Happening::Wake(id));
        }
    }

    fn carry_out_all(&mut self, id: HostId) {
        while let Some(effect) = self.hosts[id.0].node.as_mut().and_then(Node::poll_effect) {
            #[cfg(feature = "campaign")]
            let Some(effect) = self.bend_effect(id, effect) else {
                continue;
            };
            self.carry_out(id, effect);
        }
    }

    pub(super) fn carry_out(&mut self, id: HostId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, plain, crc } => self.send(id, to, plain, crc),
            Effect::Exchange {
                id: exchange,
                to,
                plain,
                timeout,
                ..
            } => self.dial(id, exchange, to, plain, timeout),
            Effect::Reply { id: stream, plain } => self.reply(id, stream, plain),
            Effect::Event(event) => {
                self.trace
                    .note(now, "event", id.0, format!("{event:?}").as_bytes());
                let host = &mut self.hosts[id.0];
                host.events.push((now, Arc::clone(&event)));
                if let (Event::Query { ltime, id: query, .. }, Some(payload)) =
                    (&*event, host.responder.clone())
                {
                    let respond = Command::Respond {
                        ltime: *ltime,
                        id: *query,
                        payload,
                    };
                    self.command(id, respond);
                }
            }
            Effect::QueryUpdate(update) => self.hosts[id.0].updates.push((now, update)),
            Effect::Answer { id: command, answer } => {
                let earlier = self.hosts[id.0].answers.insert(command, (now, answer));
                assert!(earlier.is_none(), "{command:?} was answered twice");
            }
            Effect::Keyring { id: change, op, key } => {
                let result = keyring::apply(self.hosts[id.0].envelope.keyring_mut().as_mut(), op, &key);
                let now = self.local_time(id);
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    node.handle(now, Input::Keyring { id: change, result });
                }
            }
            Effect::LookUp(names) => {
                let looked_up = names.into_iter().map(|name| self.look_up(name)).collect();
                let now = self.local_time(id);
                if let Some(node) = self.hosts[id.0].node.as_mut() {
                    node.handle(now, Input::LookedUp(looked_up));
                }
            }
            Effect::JoinFailed { again, .. } => self.hosts[id.0].failed_joins.push((now, again)),
            Effect::Record(record) => self.hosts[id.0].store.note(record),
            Effect::Commit(commit) => self.take_commit(id, commit),
            Effect::LostName => {
                self.hosts[id.0].lost_name.get_or_insert(now);
            }
        }
    }

    /// What a seed's name means now: the hosts that were given this name, or the host of this name.
    fn look_up(&self, name: Arc<str>) -> LookedUp {
        let named = self.hosts.iter().filter(|host| host.name() == &*name);
        let addrs = match self.names.get(&*name) {
            Some(hosts) => hosts.iter().map(|id| self.host(*id).addr()).collect(),
            None => named.map(Host::addr).collect::<Vec<_>>(),
        };
        let targets = addrs.into_iter().map(|addr| JoinTarget { name: None, addr });
        let targets: Vec<JoinTarget> = targets.collect();
        let found = match targets.is_empty() {
            true => Err("no such host".to_owned()),
            false => Ok(targets),
        };
        LookedUp { name, found }
    }
}
