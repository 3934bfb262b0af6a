//! Serf's part of a push/pull, and the member of a conflict answer
//! (docs/protocol.md#b4-state-in-a-pushpull).

use super::forms::{Address, Name};
use super::kind::serf as kind;
use crate::bounds::{EVENT_RING_MAX, PEER_NAME_MAX, PUSH_PULL_NODES_MAX, RING_EVENTS_MAX, TAGS_MAX};
use crate::msgpack::{Fault, Filled, Form, List, Nested, OrNil, Pairs, Plain, Reader, Table, Writer, table};

table! {
    /// Serf's part of a push/pull. Empty lists are written as empty, not as nil.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct PushPullState<'a>, "serf push/pull", kind::PUSH_PULL {
        /// Event clock.
        3 EventLTime: Plain => pub event_ltime: u64,
        /// The sender's ring of recent events; nil slots are kept so that it re-encodes byte for byte.
        4 Events: Ring => pub events: Vec<Option<UserEvents<'a>>>,
        /// Member clock.
        0 LTime: Plain => pub ltime: u64,
        /// Names in status left.
        2 LeftMembers: Listed => pub left_members: Vec<&'a str>,
        /// Query clock.
        5 QueryLTime: Plain => pub query_ltime: u64,
        /// Each member's last intent time.
        1 StatusLTimes: Listed => pub status_ltimes: Vec<(&'a str, u64)>,
    }
}

table! {
    /// The user events of one Lamport time, as they stand in a push/pull's ring.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct UserEvents<'a>, "user events" {
        /// The events, in the order in which they were heard.
        1 Events: List<Nested, RING_EVENTS_MAX> => pub events: Vec<RingEvent<'a>>,
        /// Their common Lamport time.
        0 LTime: Plain => pub ltime: u64,
    }
}

table! {
    /// A user event in the ring.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RingEvent<'a>, "user event" {
        /// The event's name.
        0 Name: Plain => pub name: &'a str,
        /// Opaque; empty stands for nil as well.
        1 Payload: OrNil<Plain> => pub payload: &'a [u8],
    }
}

/// A ring of slots, which may be empty.
struct Ring;

impl<'a> Form<'a, Vec<Option<UserEvents<'a>>>> for Ring {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<Option<UserEvents<'a>>>, Fault> {
        let mut ring = Vec::new();
        let mut total = 0;
        reader.array(EVENT_RING_MAX, |reader| {
            if reader.nil() {
                ring.push(None);
                return Ok(());
            }
            let slot: UserEvents<'a> = Nested::read(reader)?;
            total += slot.events.len();
            Fault::bound(total, RING_EVENTS_MAX)?;
            ring.push(Some(slot));
            Ok(())
        })?;
        Ok(ring)
    }

    fn write(ring: &Vec<Option<UserEvents<'a>>>, writer: &mut Writer<'_>) {
        writer.array(ring.len());
        for slot in ring {
            match slot {
                None => {
                    writer.nil();
                }
                Some(events) => events.write(writer),
            }
        }
    }
}

/// Names in a list about members. One that no member held here can have is left out.
struct Listed;

impl Listed {
    fn name<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, Fault> {
        let name = std::str::from_utf8(reader.bytes()?).ok();
        Ok(name.filter(|name| (1..=PEER_NAME_MAX).contains(&name.len())))
    }
}

impl<'a> Form<'a, Vec<&'a str>> for Listed {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<&'a str>, Fault> {
        let mut names = Vec::new();
        reader.array(PUSH_PULL_NODES_MAX, |reader| {
            names.extend(Listed::name(reader)?);
            Ok(())
        })?;
        Ok(names)
    }

    fn write(names: &Vec<&'a str>, writer: &mut Writer<'_>) {
        List::<Plain, PUSH_PULL_NODES_MAX>::write(names, writer);
    }
}

impl<'a> Form<'a, Vec<(&'a str, u64)>> for Listed {
    fn read(reader: &mut Reader<'a>) -> Result<Vec<(&'a str, u64)>, Fault> {
        let mut times = Vec::new();
        reader.map(PUSH_PULL_NODES_MAX, |reader| {
            let (name, time) = (Listed::name(reader)?, reader.u64()?);
            times.extend(name.map(|name| (name, time)));
            Ok(())
        })?;
        Ok(times)
    }

    fn write(times: &Vec<(&'a str, u64)>, writer: &mut Writer<'_>) {
        Pairs::<Plain, Plain, PUSH_PULL_NODES_MAX>::write(times, writer);
    }
}

table! {
    /// A member as told in a `_serf_conflict` answer.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct WireMember<'a>, "conflict answer", kind::CONFLICT_RESPONSE {
        /// 4 or 16 raw bytes.
        1 Addr: Address => pub addr: &'a [u8],
        /// Serf protocol in use.
        10 DelegateCur: Plain => pub delegate_cur: u8,
        /// Highest Serf protocol understood.
        9 DelegateMax: Plain => pub delegate_max: u8,
        /// Lowest Serf protocol understood.
        8 DelegateMin: Plain => pub delegate_min: u8,
        /// The member's name.
        0 Name: Filled<Name> => pub name: &'a str,
        /// Gossip port.
        2 Port: Plain => pub port: u16,
        /// memberlist protocol in use.
        7 ProtocolCur: Plain => pub protocol_cur: u8,
        /// Highest memberlist protocol understood.
        6 ProtocolMax: Plain => pub protocol_max: u8,
        /// Lowest memberlist protocol understood.
        5 ProtocolMin: Plain => pub protocol_min: u8,
        /// 0 none, 1 alive, 2 leaving, 3 left, 4 failed.
        4 Status: Plain => pub status: u8,
        /// Tags.
        3 Tags: Pairs<Plain, Plain, TAGS_MAX> => pub tags: Vec<(&'a str, &'a str)>,
    }
}

#[cfg(test)]
mod tests {
    use super::super::serf::SerfMessage;
    use super::*;
    use crate::wire::{self, DecodeError};

    fn state(bytes: &[u8]) -> Result<PushPullState<'_>, Fault> {
        match SerfMessage::decode(bytes) {
            Ok(SerfMessage::PushPull(state)) => Ok(state),
            Ok(other) => panic!("{other:?}"),
            Err(DecodeError {
                fault: wire::Fault::Value(fault),
                ..
            }) => Err(fault),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ring_keeps_its_nil_slots_and_any_length() {
        let ring = [
            None,
            Some(UserEvents {
                ltime: 1,
                events: [("a", &b"x"[..]), ("b", b"")]
                    .map(|(name, payload)| RingEvent { name, payload })
                    .to_vec(),
            }),
            None,
        ];
        for len in 0..ring.len() {
            let sent = PushPullState {
                events: ring[..len].to_vec(),
                ..PushPullState::default()
            };
            let mut bytes = Vec::new();
            sent.encode(&mut bytes);
            assert_eq!(state(&bytes), Ok(sent));
        }
        assert_eq!(state(b"\x02\x81\xa6Events\xc0"), Ok(PushPullState::default()));
        assert_eq!(state(b"\x02\x81\xa6Events\x90"), Ok(PushPullState::default()));
    }

    #[test]
    fn an_empty_state_is_written_with_empty_lists() {
        let mut bytes = Vec::new();
        PushPullState::default().encode(&mut bytes);
        let expected: &[u8] =
            b"\x02\x86\xaaEventLTime\0\xa6Events\x90\xa5LTime\0\xabLeftMembers\x90\xaaQueryLTime\0\xacStatusLTimes\x80";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn names_that_no_member_here_can_have_are_left_out_of_the_lists() {
        let (long, longest) = ("n".repeat(PEER_NAME_MAX + 1), "n".repeat(PEER_NAME_MAX));
        let state = PushPullState {
            ltime: 5,
            status_ltimes: vec![(&long, 3), ("a", 4), ("", 5), (&longest, 6)],
            left_members: vec![&long, "a", ""],
            event_ltime: 7,
            ..PushPullState::default()
        };
        let mut out = Vec::new();
        state.encode(&mut out);
        let read: PushPullState<'_> = Reader::new(&out[1..]).table().unwrap();
        assert_eq!(read.status_ltimes, [("a", 4), (longest.as_str(), 6)]);
        assert_eq!(read.left_members, ["a"]);
        assert_eq!((read.ltime, read.event_ltime), (5, 7));
    }

    #[test]
    fn the_ring_and_its_events_are_bounded() {
        let mut bytes = b"\x02\x81\xa6Events\xdd\x00\x01\x00\x01".to_vec();
        bytes.resize(bytes.len() + EVENT_RING_MAX + 1, 0xc0);
        assert_eq!(
            state(&bytes),
            Err(Fault::TooMany {
                len: 65537,
                max: 65536
            })
        );

        // Nil stands for an event with neither name nor payload: one byte that becomes 32.
        let mut bytes = b"\x02\x81\xa6Events\x92".to_vec();
        for _ in 0..2 {
            bytes.extend_from_slice(b"\x81\xa6Events\xdd\x00\x01\x00\x01");
            bytes.resize(bytes.len() + (1 << 16) + 1, 0xc0);
        }
        assert_eq!(
            state(&bytes),
            Err(Fault::TooMany {
                len: (1 << 17) + 2,
                max: 1 << 17
            })
        );
    }
}
