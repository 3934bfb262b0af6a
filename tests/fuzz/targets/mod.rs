//! What is fuzzed: one function an entry, from the bytes of a stranger or of a user's file to a verdict.
//!
//! A target panics when a promise is broken: not only that nothing panics, but that what was read can be
//! written and read again, that pieces give the same as the whole, and that nothing grows beyond its
//! bound. The fuzzers in `fuzz_targets/` call these functions, and so does the test `fuzz_corpus`, which
//! replays the corpus.

#![forbid(unsafe_code)]

mod files;
mod node;
mod rpc;
mod wire;

/// One target: input in, panic out.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("datagram", wire::datagram),
    ("stream", wire::stream),
    ("rpc_server", rpc::server),
    ("rpc_client", rpc::client),
    ("config", files::config),
    ("profile", files::profile),
    ("keyring", files::keyring),
    ("snapshot", files::snapshot),
    ("essence", files::essence),
    ("node", node::node),
];

/// Runs one target by name.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target of that name");
    target(input);
}

/// Ends of pieces in which the input may arrive: always the same for the same input, 1 to 64 bytes each.
pub(crate) fn cuts(input: &[u8]) -> Vec<usize> {
    let mut state = input.iter().fold(0x9e37_79b9_u32, |sum, byte| {
        sum.rotate_left(5).wrapping_mul(0x0100_0193) ^ u32::from(*byte)
    });
    let mut ends = Vec::new();
    let mut end = 0;
    while end < input.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let step = 1 + (state >> 16) as usize % if state & 0x100 == 0 { 4 } else { 64 };
        end = (end + step).min(input.len());
        ends.push(end);
    }
    ends
}

/// What `encode` appends to an empty buffer.
pub(crate) fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
