//! How much a node holds, for whoever checks that nothing grows without bound.

use super::Node;

impl Node {
    /// Every table and queue by name, with its length.
    pub fn lengths(&self) -> Vec<(&'static str, usize)> {
        let own = [
            ("effects held back", self.hold.waiting()),
            ("waits for broadcasts", self.waits.len()),
        ];
        own.into_iter()
            .chain(self.swim.lengths())
            .chain(self.serf.lengths())
            .collect()
    }
}
