//! Every queue, map and table stays within its bound, and what should be short-lived is.

use std::time::Duration;

use super::lasting::Lasting;
use super::{Checker, Sight, Standing};
use crate::HostId;
use fyrd_core::bounds::{
    EVENT_RING_BYTES_MAX, HELD_OUTPUT, MAX_LOOKS, MAX_OWN_QUERIES, MAX_RECENT_INTENTS, MAX_RELAYS,
    REPEATS_MAX,
};

/// Every table and queue of a node stays within its bound, and none that should be empty at times is
/// never so in a calm network.
#[derive(Debug, Default)]
pub struct WithinBounds {
    filled: Lasting<(HostId, &'static str)>,
}

/// What is only held while something is under way. In a calm network each of these is empty now and then,
/// unless entries are left behind.
const PASSING: [&str; 14] = [
    "effects held back",
    "waits for broadcasts",
    "joins under way",
    "swim broadcasts",
    "suspicions",
    "relayed pings",
    "looks at addresses",
    "exchanges",
    "running joins",
    "own queries",
    "open queries",
    "open key queries",
    "intent broadcasts",
    "event broadcasts",
];

/// For how long something may be under way all the time: longer than any time-out of a stream or query
/// in the profiles, and than a burst of broadcasts takes.
const UNDER_WAY_MAX: Duration = Duration::from_secs(300);

/// The most a table may hold, from the bounds of the core and the number of names in this world.
fn bound(table: &str, sight: &Sight<'_>) -> usize {
    let names = sight.world.hosts().count();
    let serf = &sight.world.config.profile.serf;
    // Above these the queues are cut at each check, which comes a while later.
    let queue = serf.max_queue_depth * 2;
    match table {
        // What goes out is drained before anybody can look.
        "effects" | "wishes to swim" => 0,
        "effects held back" => HELD_OUTPUT,
        // One for each node there is, and a refutation beside it.
        "swim members" | "suspicions" | "members" | "coordinates" => names,
        "swim broadcasts" => names + 1,
        "relayed pings" => MAX_RELAYS,
        "looks at addresses" | "moved members" => MAX_LOOKS,
        "troubles" | "conflicts" => REPEATS_MAX,
        "recent intents" => MAX_RECENT_INTENTS.min(names),
        "bytes of remembered events" => EVENT_RING_BYTES_MAX,
        "remembered events" => serf.event_buffer * names,
        "remembered queries" => serf.query_buffer * names,
        "own queries" => MAX_OWN_QUERIES,
        "intent broadcasts" | "query broadcasts" | "event broadcasts" => queue,
        // One regular exchange and one fallback ping, and what joins, reconnects and large answers add.
        "exchanges" => 32 + names,
        // Timers are not cancelled: those of some probes, relays and suspicions are still set.
        "swim timers" => 64 + 16 * names + MAX_RELAYS + MAX_LOOKS,
        "serf timers" => 64 + MAX_OWN_QUERIES,
        // What users of this world may have under way at a time.
        _ => 256,
    }
}

impl Checker for WithinBounds {
    fn promise(&self) -> &'static str {
        "every queue, map and table stays within its bound"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        // While hosts come and go, one suspicion may follow the other.
        let patience = sight.patience.detect;
        let is_settled = |standing: &Standing| sight.now.since(standing.since) > patience;
        let settled = sight.standings.iter().all(is_settled);
        for id in sight.world.hosts() {
            let Some(node) = sight.world.host(id).node() else {
                continue;
            };
            let stats = node.stats();
            let is_alone = stats.members - stats.failed - stats.left <= 1;
            for (table, len) in node.lengths() {
                let bound = bound(table, sight);
                if len > bound {
                    report.push(format!(
                        "{} holds {len} {table}, at most {bound} may be",
                        sight.name(id)
                    ));
                }
                // A node that is alone keeps its broadcasts for the first who comes.
                let waits_for_company = is_alone && table.ends_with("broadcasts");
                let has_cause = waits_for_company || (table == "suspicions" && !settled);
                if len > 0 && PASSING.contains(&table) && !has_cause {
                    self.filled.note((id, table));
                }
            }
        }
        if sight.calm_since.is_none() {
            return self.filled.clear();
        }
        for (id, table) in self.filled.end_glance(sight.now, UNDER_WAY_MAX) {
            report.push(format!(
                "{}: {table} were never empty for {UNDER_WAY_MAX:?}",
                sight.name(id)
            ));
        }
    }
}
