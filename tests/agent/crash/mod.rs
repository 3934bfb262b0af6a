//! A node that is killed again and again, in a world that goes on, and the record of what was seen of it.

pub mod history;
pub mod observer;
pub mod sight;
pub mod subject;
pub mod world;
