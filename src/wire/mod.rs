//! Bytes to messages and back.

pub mod message;
pub mod serf;
