//! Fyrd.
