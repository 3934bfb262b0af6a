//! How much swim holds, for whoever checks that nothing grows without bound.

use super::Swim;

impl Swim {
    /// Every table and queue by name, with its length.
    pub fn lengths(&self) -> impl Iterator<Item = (&'static str, usize)> {
        [
            ("swim members", self.members.len()),
            ("swim broadcasts", self.queue.len()),
            ("suspicions", self.suspicions.len()),
            ("looks at addresses", self.looks.len()),
            ("moved members", self.moved.len()),
            ("relayed pings", self.relays.len()),
            ("exchanges", self.exchanges.len()),
            ("running joins", self.joins.len()),
            ("troubles", self.repeats.remembered()),
            ("swim timers", self.timers.len()),
        ]
        .into_iter()
    }
}
