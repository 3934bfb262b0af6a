//! The msgpack dialect of Go's codec (docs/protocol.md#a3-msgpack-dialect).
//!
//! What is emitted is what the oldest peers understand: "raw" for text and bytes alike, shortest
//! unsigned integers, structs as maps with sorted keys. What is accepted covers both generations of
//! the codec: every integer code for every integer field, str and bin for both text and bytes, nil as
//! the zero value, structs as arrays in declaration order, unknown keys. An array of small integers
//! in place of bytes is refused: no known peer sends it, and it cannot be borrowed.

mod fault;
mod read;
mod scan;
mod table;
mod write;

pub use fault::{DecodeError, Fault};
pub use read::{Reader, Shape};
pub use scan::ValueScan;
pub(crate) use table::{AtMost, Filled, Form, List, Nested, Omit, OrNil, Pairs, Plain, Table, table};
pub(crate) use write::Writer;
