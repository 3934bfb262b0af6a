//! Who is alive: members, probes, suspicion, the gossip queue, push/pull.

pub mod profile;
mod profile_text;

pub use profile_text::ProfileError;
