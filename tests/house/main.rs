//! What keeps the repository readable: its pointers lead somewhere, and its rooms stand in one order.

mod circles;
mod configuration;
mod docs;
mod interfaces;
mod manual;
mod picture;
mod sources;
