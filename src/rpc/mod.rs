//! The Serf RPC protocol, which the command line and third-party programs use to talk to an agent:
//! a plain sequence of MessagePack objects over a stream socket, in pairs of header and body.
//!
//! [`frame`] cuts the byte stream into objects, [`codec`] turns objects into [`types`] and back,
//! [`dial`] opens the connection and [`client`] speaks the client's half of it. Both directions use
//! the same types.

pub mod answers;
pub mod client;
pub mod codec;
pub mod dial;
pub mod frame;
pub mod records;
pub mod server;
pub mod types;
