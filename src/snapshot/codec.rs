//! How entries are written: numbers in big-endian order, texts behind their length.
//!
//! Reading is total and bounded, because a damaged disk may hold anything. Bytes after the known fields belong
//! to a later minor version and are skipped.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `members` | name | incarnation u32, status u8, status time u64, since u64 (ns from the Unix epoch), port u16, versions 6 bytes, address: length u8, tags: length u16 |
//! | `seen` | `e`, Lamport time u64, place u32, part u16 | part of: name length u16, name, payload |
//! | `seen` | `q`, Lamport time u64, ID u32 | nothing |
//! | `clocks` | `now` | a [`Checkpoint`] |
//! | `meta` | `schema` | u32 |
//! | `meta` | `node` | the node's name |
//! | `meta` | `left` | u8 |
//! | `meta` | `identity` | 16 bytes, made at the first start |

use std::sync::Arc;

use fyrd_core::addr::RawAddr;
use fyrd_core::bounds::{MAX_INCARNATION, MAX_LTIME, META_MAX, PEER_NAME_MAX, SNAPSHOT_PART_MAX};
use fyrd_core::node::memory::{Marks, MemberRecord, SeenEvent};
use fyrd_core::serf::{MemberStatus, QueryKey};
use fyrd_core::swim::members::Facts;
use fyrd_core::time::Time;

/// First byte of the keys of events.
pub(super) const EVENT: u8 = b'e';
/// First byte of the keys of queries.
pub(super) const QUERY: u8 = b'q';

/// The tree of members, where entries of both stand together.
pub(super) const MEMBERS: u8 = b'm';
/// The tree of what was seen, likewise.
pub(super) const SEEN: u8 = b's';

/// A change of one tree: a key, and its value unless it goes.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

/// What a batch changes in both trees.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub members: Vec<Change>,
    pub seen: Vec<Change>,
}

/// What stands in tree `clocks`: the marks, and what the other trees must hold beside them.
///
/// It is written with every batch, so a store whose trees do not sum up to it is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The marks.
    pub marks: Marks,
    /// When it was written, in nanoseconds from the Unix epoch.
    pub written: u64,
    /// What `members` holds.
    pub members: Sum,
    /// What `seen` holds.
    pub seen: Sum,
    /// Counts the batches; 0 in a store of a version that did not count them.
    pub serial: u64,
}

/// A fingerprint of a tree that does not depend on the order of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Entries.
    pub count: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Sum of the entries' checksums.
    pub checks: u64,
}

impl Sum {
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add((key.len() + value.len()) as u64);
        self.checks = self.checks.wrapping_add(check(key, value));
    }

    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub((key.len() + value.len()) as u64);
        self.checks = self.checks.wrapping_sub(check(key, value));
    }
}

fn check(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    u64::from(hasher.finalize())
}

/// Takes fields off the front of an entry.
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }
}

/// Whether a node can have accepted a Lamport time. Peers can push a clock beyond [`MAX_LTIME`] by one
/// [`MAX_LTIME_STEP`] at a time, but in no lifetime to twice its value.
///
/// [`MAX_LTIME_STEP`]: fyrd_core::bounds::MAX_LTIME_STEP
pub(super) fn believable_ltime(ltime: u64) -> bool {
    ltime <= 2 * MAX_LTIME
}

/// Whether a node can have accepted an incarnation. They can be pushed beyond [`MAX_INCARNATION`] likewise, and
/// half of the range above it is kept free for refutations after the restart.
pub(super) fn believable_incarnation(incarnation: u32) -> bool {
    incarnation <= MAX_INCARNATION + MAX_INCARNATION / 2
}

/// The value of a member; its key is its name.
pub(super) fn encode_member(member: &MemberRecord) -> Vec<u8> {
    let facts = &*member.facts;
    let addr = facts.addr.as_bytes();
    let mut out = Vec::with_capacity(32 + addr.len() + facts.meta.len());
    out.extend(member.incarnation.to_be_bytes());
    out.push(member.status.code());
    out.extend(member.status_ltime.to_be_bytes());
    out.extend(member.since.as_nanos().to_be_bytes());
    out.extend(facts.port.to_be_bytes());
    out.extend(facts.vsn);
    out.push(addr.len() as u8);
    out.extend(addr);
    // Tags beyond the bound never get this far; a cut is what reading would do to them.
    let meta = facts.meta.get(..META_MAX).unwrap_or(&facts.meta);
    out.extend((meta.len() as u16).to_be_bytes());
    out.extend(meta);
    out
}

/// A member, unless this is none. Times after `now` are taken for `now`.
pub(super) fn decode_member(key: &[u8], value: &[u8], now: Time) -> Option<MemberRecord> {
    let name = name(key).filter(|name| !name.is_empty())?;
    let mut fields = Cursor(value);
    let incarnation = fields.u32().filter(|it| believable_incarnation(*it))?;
    let status = status(fields.u8()?)?;
    let status_ltime = fields.u64().filter(|it| believable_ltime(*it))?;
    let since = Time::from_nanos(fields.u64()?).min(now);
    let port = fields.u16()?;
    let vsn = fields.array()?;
    let addr = fields.u8()?;
    let addr = RawAddr::from_bytes(fields.bytes(addr.into())?)?;
    let meta = fields.u16().map(usize::from).filter(|len| *len <= META_MAX)?;
    let meta = fields.bytes(meta)?.into();
    let name = Arc::from(name);
    Some(MemberRecord {
        facts: Arc::new(Facts {
            name,
            addr,
            port,
            meta,
            vsn,
        }),
        incarnation,
        status,
        status_ltime,
        since,
    })
}

fn name(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > PEER_NAME_MAX {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

fn status(code: u8) -> Option<MemberStatus> {
    use MemberStatus::*;
    [Alive, Leaving, Left, Failed]
        .into_iter()
        .find(|status| status.code() == code)
}

/// The key of all events, or all queries, of one Lamport time begins so.
pub(super) fn seen_prefix(kind: u8, ltime: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(ltime.to_be_bytes());
    key
}

/// The key of one query, or of the first part of an event without its number.
pub(super) fn seen_key(kind: u8, ltime: u64, id: u32) -> Vec<u8> {
    let mut key = seen_prefix(kind, ltime);
    key.extend(id.to_be_bytes());
    key
}

/// The entries of an event: parts small enough that sled keeps its pages in its log, where they are synced.
pub(super) fn encode_event(event: &SeenEvent) -> Vec<(Vec<u8>, Vec<u8>)> {
    let name = &event.name.as_bytes()[..event.name.len().min(usize::from(u16::MAX))];
    let mut whole = Vec::with_capacity(2 + name.len() + event.payload.len());
    whole.extend((name.len() as u16).to_be_bytes());
    whole.extend(name);
    whole.extend(&*event.payload);
    let parts = whole.chunks(SNAPSHOT_PART_MAX).zip(0_u16..);
    parts
        .map(|(part, number)| {
            let mut key = seen_key(EVENT, event.ltime, event.place);
            key.extend(number.to_be_bytes());
            (key, part.to_vec())
        })
        .collect()
}

/// The Lamport time, place and part an event's key names.
pub(super) fn decode_event_key(key: &[u8]) -> Option<(u64, u32, u16)> {
    let mut fields = Cursor(key);
    let kind = fields.u8()?;
    let named = (fields.u64()?, fields.u32()?, fields.u16()?);
    (kind == EVENT && believable_ltime(named.0) && fields.0.is_empty()).then_some(named)
}

/// An event from its parts put together.
pub(super) fn decode_event(ltime: u64, place: u32, whole: &[u8]) -> Option<SeenEvent> {
    let mut fields = Cursor(whole);
    let len = fields.u16()?;
    let name = std::str::from_utf8(fields.bytes(len.into())?).ok()?.into();
    Some(SeenEvent {
        ltime,
        place,
        name,
        payload: fields.0.into(),
    })
}

/// The query a key names.
pub(super) fn decode_query_key(key: &[u8]) -> Option<QueryKey> {
    let mut fields = Cursor(key);
    let kind = fields.u8()?;
    let query = (fields.u64()?, fields.u32()?);
    (kind == QUERY && believable_ltime(query.0) && fields.0.is_empty()).then_some(query)
}

/// The value of tree `clocks`.
pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let marks = &checkpoint.marks;
    let mut out = marks.incarnation.to_be_bytes().to_vec();
    let numbers = [
        marks.member,
        marks.event,
        marks.query,
        marks.event_floor,
        marks.query_floor,
        checkpoint.written,
        checkpoint.members.count,
        checkpoint.members.bytes,
        checkpoint.members.checks,
        checkpoint.seen.count,
        checkpoint.seen.bytes,
        checkpoint.seen.checks,
        checkpoint.serial,
    ];
    numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
    out
}

/// The checkpoint, unless it is none or holds times that nobody can have accepted.
pub(super) fn decode_checkpoint(value: &[u8]) -> Option<Checkpoint> {
    let mut fields = Cursor(value);
    let incarnation = fields.u32().filter(|it| believable_incarnation(*it))?;
    let mut clock = || fields.u64().filter(|it| believable_ltime(*it));
    let marks = Marks {
        incarnation,
        member: clock()?,
        event: clock()?,
        query: clock()?,
        event_floor: clock()?,
        query_floor: clock()?,
    };
    let written = fields.u64()?;
    let mut sum = || {
        Some(Sum {
            count: fields.u64()?,
            bytes: fields.u64()?,
            checks: fields.u64()?,
        })
    };
    let (members, seen) = (sum()?, sum()?);
    let serial = match fields.0 {
        [] => 0,
        _ => fields.u64()?,
    };
    Some(Checkpoint {
        marks,
        written,
        members,
        seen,
        serial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fyrd_core::bounds::USER_EVENT_HARD_LIMIT;

    fn member() -> MemberRecord {
        MemberRecord {
            facts: Arc::new(Facts {
                name: "node-1".into(),
                addr: RawAddr::V16([7; 16]),
                port: 7946,
                meta: vec![1; META_MAX].into(),
                vsn: [1, 5, 2, 2, 5, 4],
            }),
            incarnation: 9,
            status: MemberStatus::Failed,
            status_ltime: 1 << 40,
            since: Time::from_nanos(77),
        }
    }

    #[test]
    fn a_member_reads_back_with_or_without_later_fields() {
        let member = member();
        let mut value = encode_member(&member);
        let now = Time::from_nanos(100);
        assert_eq!(decode_member(b"node-1", &value, now).as_ref(), Some(&member));
        value.extend(b"a later field");
        assert_eq!(decode_member(b"node-1", &value, now).as_ref(), Some(&member));
        let clamped = decode_member(b"node-1", &value, Time::from_nanos(50)).unwrap();
        assert_eq!(clamped.since, Time::from_nanos(50));
    }

    #[test]
    fn what_is_no_member_is_refused() {
        let good = encode_member(&member());
        let now = Time::from_nanos(100);
        for len in 0..good.len() {
            assert_eq!(decode_member(b"n", &good[..len], now), None, "{len} bytes");
        }
        for name in [&b""[..], &[b'n'; PEER_NAME_MAX + 1], b"\xff"] {
            assert_eq!(decode_member(name, &good, now), None, "{name:?}");
        }
        let spoilt = |place: usize, bytes: &[u8]| {
            let mut value = good.clone();
            value[place..place + bytes.len()].copy_from_slice(bytes);
            decode_member(b"n", &value, now)
        };
        assert!(spoilt(0, &[0]).is_some());
        assert_eq!(spoilt(0, &u32::MAX.to_be_bytes()), None, "incarnation");
        assert_eq!(spoilt(4, &[5]), None, "status");
        assert_eq!(spoilt(5, &u64::MAX.to_be_bytes()), None, "status time");
        assert_eq!(spoilt(29, &[5]), None, "address length");
    }

    #[test]
    fn events_come_in_parts_and_read_back() {
        for len in [0, 1, SNAPSHOT_PART_MAX, USER_EVENT_HARD_LIMIT] {
            let event = SeenEvent {
                ltime: 5,
                place: 3,
                name: "deploy".into(),
                payload: vec![4; len].into(),
            };
            let parts = encode_event(&event);
            let mut whole = Vec::new();
            for ((key, part), number) in parts.iter().zip(0..) {
                assert!(part.len() <= SNAPSHOT_PART_MAX);
                assert_eq!(decode_event_key(key), Some((5, 3, number)));
                assert!(key.starts_with(&seen_prefix(EVENT, 5)));
                whole.extend(part);
            }
            assert_eq!(decode_event(5, 3, &whole), Some(event));
        }
        assert_eq!(decode_event(5, 3, &[]), None);
        assert_eq!(decode_event(5, 3, &[0, 9, b'x']), None);
        assert_eq!(decode_event_key(&seen_key(EVENT, 5, 3)), None);
        assert_eq!(decode_query_key(&seen_key(QUERY, 5, 3)), Some((5, 3)));
        assert_eq!(decode_query_key(&seen_key(QUERY, u64::MAX, 3)), None);
        assert_eq!(decode_query_key(&seen_key(EVENT, 5, 3)), None);
    }

    #[test]
    fn a_checkpoint_with_times_nobody_accepts_is_none() {
        let checkpoint = Checkpoint {
            marks: Marks {
                incarnation: 1,
                member: 2,
                event: 3,
                query: 4,
                event_floor: 5,
                query_floor: 6,
            },
            written: 7,
            members: Sum {
                count: 8,
                bytes: 9,
                checks: 10,
            },
            seen: Sum {
                count: 11,
                bytes: 12,
                checks: 13,
            },
            serial: 14,
        };
        let value = encode_checkpoint(&checkpoint);
        assert_eq!(decode_checkpoint(&value), Some(checkpoint));
        let without_serial = value.len() - 8;
        for len in (0..value.len()).filter(|len| *len != without_serial) {
            assert_eq!(decode_checkpoint(&value[..len]), None, "{len} bytes");
        }
        let uncounted = Checkpoint {
            serial: 0,
            ..checkpoint
        };
        assert_eq!(decode_checkpoint(&value[..without_serial]), Some(uncounted));
        for place in [0, 4, 12, 20, 28, 36] {
            let mut value = value.clone();
            value[place] = 0xff;
            assert_eq!(decode_checkpoint(&value), None, "at {place}");
        }
    }

    #[test]
    fn a_sum_knows_entries_but_not_their_order() {
        let mut sum = Sum::default();
        sum.add(b"a", b"1");
        sum.add(b"b", b"2");
        let mut other = Sum::default();
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        assert_ne!(sum, other);
        other.remove(b"c", b"3");
        assert_eq!(sum, other);
        other.remove(b"a", b"1");
        other.add(b"a1", b"");
        assert_ne!(sum, other, "where a key ends is told");
    }
}
