//! The fyrd program.
fn main() {}
