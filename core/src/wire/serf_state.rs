//! Serf's part of a push/pull, and the member of a conflict answer
//! (docs/protocol.md#b4-state-in-a-pushpull).

use super::error::{DecodeError, Fault};
use super::message_codec::{address, nonempty};
use super::msgpack::{Fields, Reader, Writer};
use super::serf::{PushPullState, UserEvents, WireMember};
use super::serf_codec::kind;
use crate::bounds::{EVENT_RING_MAX, PUSH_PULL_NODES_MAX, RING_EVENTS_MAX, TAGS_MAX};

impl PushPullState<'_> {
    /// Appends type byte and struct. Empty lists are written as empty, not as nil.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::PUSH_PULL);
        let mut writer = Writer::new(out);
        writer.map(6).raw("EventLTime").uint(self.event_ltime);
        writer.raw("Events").array(self.events.len());
        for slot in &self.events {
            match slot {
                None => {
                    writer.nil();
                }
                Some(events) => encode_slot(events, &mut writer),
            }
        }
        writer
            .raw("LTime")
            .uint(self.ltime)
            .raw("LeftMembers")
            .array(self.left_members.len());
        for name in &self.left_members {
            writer.raw(name);
        }
        writer.raw("QueryLTime").uint(self.query_ltime);
        writer.raw("StatusLTimes").map(self.status_ltimes.len());
        for (name, ltime) in &self.status_ltimes {
            writer.raw(name).uint(*ltime);
        }
    }
}

fn encode_slot(slot: &UserEvents<'_>, writer: &mut Writer<'_>) {
    writer.map(2).raw("Events").array(slot.events.len());
    for (name, payload) in &slot.events {
        writer
            .map(2)
            .raw("Name")
            .raw(name)
            .raw("Payload")
            .raw_or_nil(payload);
    }
    writer.raw("LTime").uint(slot.ltime);
}

impl<'a> Fields<'a> for PushPullState<'a> {
    const NAME: &'static str = "serf push/pull";
    const ORDER: &'static [&'static str] = &[
        "LTime",
        "StatusLTimes",
        "LeftMembers",
        "EventLTime",
        "Events",
        "QueryLTime",
    ];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"StatusLTimes" => {
                self.status_ltimes.clear();
                reader.map(PUSH_PULL_NODES_MAX, |reader| {
                    let (name, ltime) = (reader.listed_name()?, reader.u64()?);
                    self.status_ltimes.extend(name.map(|name| (name, ltime)));
                    Ok(())
                })?;
            }
            b"LeftMembers" => {
                self.left_members.clear();
                reader.array(PUSH_PULL_NODES_MAX, |reader| {
                    self.left_members.extend(reader.listed_name()?);
                    Ok(())
                })?;
            }
            b"EventLTime" => self.event_ltime = reader.u64()?,
            b"Events" => self.events = decode_ring(reader)?,
            b"QueryLTime" => self.query_ltime = reader.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn decode_ring<'a>(reader: &mut Reader<'a>) -> Result<Vec<Option<UserEvents<'a>>>, Fault> {
    let mut ring = Vec::new();
    let mut total = 0;
    reader.array(EVENT_RING_MAX, |reader| {
        if reader.nil() {
            ring.push(None);
            return Ok(());
        }
        let slot: Slot<'a> = reader.fields().map_err(|error: DecodeError| error.fault)?;
        total += slot.events.len();
        if total > RING_EVENTS_MAX {
            return Err(Fault::TooMany {
                len: total as u64,
                max: RING_EVENTS_MAX as u64,
            });
        }
        ring.push(Some(UserEvents {
            ltime: slot.ltime,
            events: slot.events,
        }));
        Ok(())
    })?;
    Ok(ring)
}

#[derive(Default)]
struct Slot<'a> {
    ltime: u64,
    events: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Fields<'a> for Slot<'a> {
    const NAME: &'static str = "user events";
    const ORDER: &'static [&'static str] = &["LTime", "Events"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"LTime" => self.ltime = reader.u64()?,
            b"Events" => {
                self.events.clear();
                reader.array(RING_EVENTS_MAX, |reader| {
                    let event: Event<'a> = reader.fields().map_err(|error: DecodeError| error.fault)?;
                    self.events.push((event.name, event.payload));
                    Ok(())
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[derive(Default)]
struct Event<'a> {
    name: &'a str,
    payload: &'a [u8],
}

impl<'a> Fields<'a> for Event<'a> {
    const NAME: &'static str = "user event";
    const ORDER: &'static [&'static str] = &["Name", "Payload"];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        match key {
            b"Name" => self.name = reader.text()?,
            b"Payload" => self.payload = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl WireMember<'_> {
    /// Appends a conflict answer that tells this member: type byte and struct.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let ([p_min, p_max, p_cur], [d_min, d_max, d_cur]) = (self.protocol, self.delegate);
        out.push(kind::CONFLICT_RESPONSE);
        let mut writer = Writer::new(out);
        writer
            .map(11)
            .raw("Addr")
            .raw(self.addr)
            .raw("DelegateCur")
            .uint(d_cur);
        writer
            .raw("DelegateMax")
            .uint(d_max)
            .raw("DelegateMin")
            .uint(d_min);
        writer
            .raw("Name")
            .raw(self.name)
            .raw("Port")
            .uint(self.port)
            .raw("ProtocolCur")
            .uint(p_cur);
        writer
            .raw("ProtocolMax")
            .uint(p_max)
            .raw("ProtocolMin")
            .uint(p_min);
        writer
            .raw("Status")
            .uint(self.status)
            .raw("Tags")
            .map(self.tags.len());
        for (key, value) in &self.tags {
            writer.raw(key).raw(value);
        }
    }
}

impl<'a> Fields<'a> for WireMember<'a> {
    const NAME: &'static str = "conflict answer";
    const ORDER: &'static [&'static str] = &[
        "Name",
        "Addr",
        "Port",
        "Tags",
        "Status",
        "ProtocolMin",
        "ProtocolMax",
        "ProtocolCur",
        "DelegateMin",
        "DelegateMax",
        "DelegateCur",
    ];

    fn field(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<bool, Fault> {
        let ([p_min, p_max, p_cur], [d_min, d_max, d_cur]) = (&mut self.protocol, &mut self.delegate);
        match key {
            b"Name" => self.name = reader.name()?,
            b"Addr" => self.addr = reader.bytes()?,
            b"Port" => self.port = reader.u16()?,
            b"Tags" => {
                self.tags.clear();
                reader.map(TAGS_MAX, |reader| {
                    let tag = (reader.text()?, reader.text()?);
                    self.tags.push(tag);
                    Ok(())
                })?;
            }
            b"Status" => self.status = reader.u8()?,
            b"ProtocolMin" => *p_min = reader.u8()?,
            b"ProtocolMax" => *p_max = reader.u8()?,
            b"ProtocolCur" => *p_cur = reader.u8()?,
            b"DelegateMin" => *d_min = reader.u8()?,
            b"DelegateMax" => *d_max = reader.u8()?,
            b"DelegateCur" => *d_cur = reader.u8()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), (&'static str, Fault)> {
        nonempty("Name", self.name)?;
        address("Addr", self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::super::serf::SerfMessage;
    use super::*;

    fn state(bytes: &[u8]) -> Result<PushPullState<'_>, Fault> {
        match SerfMessage::decode(bytes) {
            Ok(SerfMessage::PushPull(state)) => Ok(state),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.fault),
        }
    }

    #[test]
    fn the_ring_keeps_its_nil_slots_and_any_length() {
        let ring = [
            None,
            Some(UserEvents {
                ltime: 1,
                events: vec![("a", &b"x"[..]), ("b", b"")],
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
        let (long, longest) = ("n".repeat(129), "n".repeat(128));
        let state = PushPullState {
            ltime: 5,
            status_ltimes: vec![(&long, 3), ("a", 4), ("", 5), (&longest, 6)],
            left_members: vec![&long, "a", ""],
            event_ltime: 7,
            ..PushPullState::default()
        };
        let mut out = Vec::new();
        state.encode(&mut out);
        let read: PushPullState<'_> = Reader::new(&out[1..]).fields().unwrap();
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
