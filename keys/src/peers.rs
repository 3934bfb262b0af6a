//! Which key to try first for a packet of a peer.
//!
//! While keys are being rotated, some peers still seal with a key that is not our primary. Trying the key
//! that opened the last packet of a peer first spares a failed attempt for each of its packets.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use crate::{Fingerprint, Keyring};

/// How many peers can be remembered: more than any cluster has in the midst of a rotation, and about
/// 160 KiB at most.
pub const MAX_PEERS: usize = 4096;

/// The keys that last opened packets of peers, where those are not the primary.
///
/// A peer's address leads to one slot of a fixed table, and the newest peer of a slot takes it; two peers
/// that share a slot cost each other one failed attempt, never a packet. The table is allocated only once a
/// peer seals with another key than the primary. It holds no randomness, so a run can be repeated exactly.
#[derive(Clone, Debug, Default)]
pub struct PeerKeys {
    slots: Vec<Option<(SocketAddr, Fingerprint)>>,
}

impl PeerKeys {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key to try first for a packet from `peer`, or `None` if the order of the ring will do.
    pub fn hint(&self, peer: &SocketAddr) -> Option<Fingerprint> {
        if self.slots.is_empty() {
            return None;
        }
        match self.slots.get(slot_of(peer)) {
            Some(Some((owner, key))) if owner == peer => Some(*key),
            _ => None,
        }
    }

    /// Notes that `key` has opened a packet from `peer`.
    ///
    /// Only call this for packets that did open: so nobody without a key can push out an entry.
    pub fn remember(&mut self, ring: &Keyring, peer: SocketAddr, key: Fingerprint) {
        let is_primary = ring.primary().fingerprint() == key;
        if self.slots.is_empty() {
            if is_primary {
                return;
            }
            self.slots.resize(MAX_PEERS, None);
        }
        let Some(slot) = self.slots.get_mut(slot_of(&peer)) else {
            return;
        };
        if !is_primary {
            *slot = Some((peer, key));
        } else if slot.is_some_and(|(owner, _)| owner == peer) {
            *slot = None;
        }
    }
}

fn slot_of(peer: &SocketAddr) -> usize {
    // This hasher has fixed keys, unlike that of the standard maps: the same peers share a slot in each run.
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    (hasher.finish() % MAX_PEERS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cipher;
    use crate::testing::key;

    fn peer(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 7946))
    }

    fn ring() -> (Keyring, Fingerprint, Fingerprint) {
        let (primary, other) = (key(Cipher::Aes256Gcm, 1), key(Cipher::Aes256Gcm, 2));
        let prints = (primary.fingerprint(), other.fingerprint());
        (
            Keyring::from_keys(vec![primary, other]).unwrap(),
            prints.0,
            prints.1,
        )
    }

    #[test]
    fn a_peer_with_another_key_is_remembered_until_it_uses_the_primary() {
        let (ring, primary, other) = ring();
        let mut peers = PeerKeys::new();
        peers.remember(&ring, peer(1), other);
        assert_eq!(peers.hint(&peer(1)), Some(other));
        assert_eq!(peers.hint(&peer(2)), None);
        peers.remember(&ring, peer(1), primary);
        assert_eq!(peers.hint(&peer(1)), None);
    }

    #[test]
    fn a_cluster_with_one_key_takes_no_memory() {
        let (ring, primary, _) = ring();
        let mut peers = PeerKeys::new();
        for n in 0..10_000 {
            peers.remember(&ring, peer(n), primary);
        }
        assert_eq!(peers.slots.capacity(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_newest_of_a_slot() {
        let (ring, primary, other) = ring();
        let mut peers = PeerKeys::new();
        for n in 0..20_000 {
            peers.remember(&ring, peer(n), other);
            assert_eq!(peers.hint(&peer(n)), Some(other), "the newest is always there");
        }
        assert_eq!(peers.slots.len(), MAX_PEERS);
        let shared = (0..20_000)
            .filter(|n| slot_of(&peer(*n)) == slot_of(&peer(7)))
            .collect::<Vec<_>>();
        assert!(shared.len() > 1, "many peers share a slot");
        let (older, newest) = (peer(shared[0]), peer(*shared.last().unwrap()));
        assert_eq!(peers.hint(&older), None);
        // A peer that lost its slot does not take the owner's hint away.
        peers.remember(&ring, older, primary);
        assert_eq!(peers.hint(&newest), Some(other));
    }
}
