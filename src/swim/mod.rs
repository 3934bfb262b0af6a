//! Who is alive: members, probes, suspicion, the gossip queue, push/pull.

pub mod profile;
