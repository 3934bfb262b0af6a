//! The wire format: packets of the real thing, and what holds for all packets.

mod envelope;
mod properties;
mod vectors;
