//! First bytes that tell what follows (docs/protocol.md#a2-message-types).

pub(super) const PING: u8 = 0;
pub(super) const INDIRECT_PING: u8 = 1;
pub(super) const ACK: u8 = 2;
pub(super) const SUSPECT: u8 = 3;
pub(super) const ALIVE: u8 = 4;
pub(super) const DEAD: u8 = 5;
pub(super) const PUSH_PULL: u8 = 6;
pub(super) const COMPOUND: u8 = 7;
pub(super) const USER: u8 = 8;
pub(super) const COMPRESS: u8 = 9;
pub(super) const ENCRYPT: u8 = 10;
pub(super) const NACK: u8 = 11;
pub(super) const CRC: u8 = 12;
pub(super) const ERR: u8 = 13;
pub(super) const LABEL: u8 = 244;

/// First bytes of Serf messages (docs/protocol.md#b1-serf-messages).
pub(super) mod serf {
    pub(in super::super) const LEAVE: u8 = 0;
    pub(in super::super) const JOIN: u8 = 1;
    pub(in super::super) const PUSH_PULL: u8 = 2;
    pub(in super::super) const USER_EVENT: u8 = 3;
    pub(in super::super) const QUERY: u8 = 4;
    pub(in super::super) const QUERY_RESPONSE: u8 = 5;
    pub(in super::super) const CONFLICT_RESPONSE: u8 = 6;
    pub(in super::super) const KEY_REQUEST: u8 = 7;
    pub(in super::super) const KEY_RESPONSE: u8 = 8;
    pub(in super::super) const RELAY: u8 = 9;
}
