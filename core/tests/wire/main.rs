//! The wire format: packets of the real thing, and what holds for all packets.

mod properties;
mod vectors;
