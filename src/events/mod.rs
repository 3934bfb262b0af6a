//! Fan-out behind the node: coalescing and filters.

pub mod coalesce;
pub mod filter;
