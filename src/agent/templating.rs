//! What templates learn of the agent.

use std::sync::Arc;
use std::time::Duration;

use super::{Agent, event_loop};
use crate::events::hub::Subscription;
use crate::templates::{Entry, Source, View};
use fyrd_core::serf::{Member, MemberStatus, Stats, coordinate};

impl Source for Agent {
    async fn look(&self) -> Option<(View, Option<&'static str>)> {
        let me = self.0.name.clone();
        let looked = self.0.driver.read(move |node| {
            let own = node.coordinate(&me);
            let entry = |member: &Arc<Member>| {
                let other = own.and_then(|own| Some((own, node.coordinate(&member.name)?)));
                let rtt = other.map(|(own, other)| coordinate::distance(&own, &other));
                entry(member, rtt.and_then(|rtt| Duration::try_from_secs_f64(rtt).ok()))
            };
            let members = node.members().iter().map(entry).collect();
            (
                node.stats(),
                node.status_of(&me),
                View::new(members, Some(me.clone())),
            )
        });
        let (stats, status, view) = looked.await.ok()?;
        Some((view, self.doubt(&stats, status)))
    }

    async fn events(&self) -> Option<Subscription> {
        self.0.driver.subscribe(event_loop::EVENT_QUEUE).await.ok()
    }
}

impl Agent {
    /// Why this node may know less than there is.
    fn doubt(&self, stats: &Stats, status: Option<MemberStatus>) -> Option<&'static str> {
        if self.0.beginning.is_lonely(stats) {
            return Some("nobody of those to join has answered yet");
        }
        if stats.isolated {
            return Some("nobody is heard, this host may be cut off");
        }
        (status != Some(MemberStatus::Alive)).then_some("this agent has left or is leaving")
    }
}

fn entry(member: &Member, rtt: Option<Duration>) -> Entry {
    Entry {
        name: member.name.to_string(),
        ip: member.addr.ip(),
        port: member.port,
        status: member.status.as_str().to_owned(),
        tags: member.tags.clone(),
        rtt,
    }
}
