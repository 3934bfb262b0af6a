//! The Serf RPC protocol, which the command line and third-party programs use to talk to an agent:
//! a plain sequence of MessagePack objects over a stream socket, in pairs of header and body.
//!
//! [`frame`] cuts the byte stream into objects, [`codec`] turns objects into [`types`] and back,
//! [`dial`] opens the connection and [`client`] speaks the client's half of it. Both directions use
//! the same types.

mod answers;
pub mod client;
pub mod codec;
pub mod dial;
pub mod frame;
mod records;
mod requests;
pub mod server;

/// Everything that is said: headers and requests, answers, and the records of subscriptions.
pub mod types {
    pub use super::answers::*;
    pub use super::records::*;
    pub use super::requests::*;
}
