//! What a node's configuration must keep to, and what it is when nobody says it.

use std::ops::RangeInclusive;

use crate::bounds::{LABEL_MAX, NAME_MAX, USER_EVENT_HARD_LIMIT};

/// The Serf protocol versions a node can speak; the highest unless told otherwise.
pub const SERF_PROTOCOLS: RangeInclusive<u8> = 2..=5;

/// Limit of an encoded user event.
pub const USER_EVENT_SIZE: usize = 512;

/// Limit of an encoded query.
pub const QUERY_SIZE: usize = 1024;

/// Limit of an encoded query response.
pub const QUERY_RESPONSE_SIZE: usize = 1024;

/// Peers refuse longer names.
pub fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("node name is empty".to_owned()),
        1..=NAME_MAX => Ok(()),
        len => Err(format!(
            "node name is {len} bytes long, must be at most {NAME_MAX}: {name}"
        )),
    }
}

/// A longer label has no header, and one with control characters nobody writes on purpose. The empty one is none.
pub fn check_label(label: &str) -> Result<(), String> {
    match label.len() {
        0..=LABEL_MAX if label.contains(char::is_control) => Err(format!(
            "label {label:?} holds a control character, must be visible text"
        )),
        0..=LABEL_MAX => Ok(()),
        len => Err(format!(
            "label is {len} bytes long, must be at most {LABEL_MAX}: {label}"
        )),
    }
}

/// The protocol version, if it can be spoken.
pub fn check_protocol(version: i64) -> Result<u8, String> {
    let (low, high) = SERF_PROTOCOLS.into_inner();
    let spoken = u8::try_from(version).ok();
    spoken
        .filter(|spoken| SERF_PROTOCOLS.contains(spoken))
        .ok_or_else(|| {
            let side = if version < i64::from(low) { "low" } else { "high" };
            format!("Protocol version '{version}' too {side}. Must be in range: [{low}, {high}]")
        })
}

/// Serf takes no larger user events, whatever it is told.
pub fn check_user_event_size(limit: usize) -> Result<(), String> {
    if limit > USER_EVENT_HARD_LIMIT {
        return Err(format!(
            "user event size limit exceeds limit of {USER_EVENT_HARD_LIMIT} bytes"
        ));
    }
    Ok(())
}
