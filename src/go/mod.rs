//! What is worded or written as Go does it, for scripts and people know it so from Serf.

mod error;
mod json;
mod number;
pub mod printable;
mod quote;
mod repeated;
mod time;
mod value;

pub use error::{
    dial_error, dial_timeout, lookup_error, open_error, os_error, os_error_kind, transfer_error,
    transfer_timeout,
};
pub use json::json;
pub use number::{NumberError, parse_boolean, parse_integer};
pub use quote::{bytes, quote};
pub use repeated::repeated_keys;
pub use time::{Duration, time};
pub use value::{json_kind, kind, parse_first, parse_whole, show};
