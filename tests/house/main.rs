//! What keeps the repository readable: its pointers lead somewhere, and its rooms stand in one order.

mod circles;
mod docs;
mod picture;
mod sources;
