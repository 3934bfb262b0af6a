//! How much the Serf layer holds, for whoever checks that nothing grows without bound.

use super::Serf;

impl Serf {
    /// Every table and queue by name, with its length.
    pub fn lengths(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let slots = self.events.iter().flatten();
        [
            ("members", self.members.len()),
            ("recent intents", self.intents.len()),
            ("remembered events", slots.map(|slot| slot.events.len()).sum()),
            ("bytes of remembered events", self.event_bytes),
            (
                "remembered queries",
                self.queries.iter().map(|(_, ids)| ids.len()).sum(),
            ),
            ("own queries", self.own_queries.len()),
            ("open queries", self.open_queries.len()),
            ("dial targets", self.dialer.len()),
            ("open key queries", self.key_queries.len()),
            ("intent broadcasts", self.queues.intents.len()),
            ("query broadcasts", self.queues.queries.len()),
            ("event broadcasts", self.queues.events.len()),
            ("coordinates", self.coordinates.len()),
            ("serf timers", self.timers.len()),
            ("effects", self.effects.len()),
            ("wishes to swim", self.asks.len()),
            ("joins under way", self.joins.len()),
        ]
        .into_iter()
    }
}
