//! A node among peers that say anything: the input is a list of what happens to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fyrd_core::bounds::{MAX_MEMBERS, STREAM_MESSAGE_MAX};
use fyrd_core::node::{
    Cause, CommandId, Effect, ExchangeId, Failure, Input, Node, NodeConfig, StoreNews, StreamId,
};
use fyrd_core::serf::keyring::{self, KeyBytes, KeyOp};
use fyrd_core::serf::memory::{Keeper, Marks};
use fyrd_core::serf::{Command, JoinTarget, LookedUp, QueryParams, RetryJoin, Seeds};
use fyrd_core::swim::profile::Profile;
use fyrd_core::time::Time;
use fyrd_core::wire::{Scratch, decode_datagram, decode_stream};
use fyrd_keys::{Cipher, Key, Keyring};

/// Nothing makes a node do more than this at once: a full datagram of indirect pings or suspicions, each
/// with a few effects of its own.
const EFFECTS_MAX: usize = 4096;

/// How far the clock of the node may be moved by one step.
const LONGEST_STEP: Duration = Duration::from_secs(3600);

/// Why an exchange failed: a single byte names the cause, what is longer was an answer.
fn cause_of(content: &[u8]) -> Cause {
    match content {
        [0] => Cause::Refused,
        [1] => Cause::Unanswered,
        [2] => Cause::Unreachable,
        [3] => Cause::Stalled,
        [4] => Cause::Reset,
        [5] => Cause::Closed,
        [6] => Cause::Local,
        _ => Cause::Protocol,
    }
}

/// The configuration of a node with this profile.
pub(super) fn config_of(profile: Profile, seed: u64) -> NodeConfig {
    NodeConfig {
        records: true,
        ..NodeConfig::new("self", ([10, 0, 0, 1], 7946).into(), profile, seed)
    }
}

/// Reading it takes longer than most inputs do.
fn local() -> Profile {
    static PROFILE: OnceLock<Profile> = OnceLock::new();
    PROFILE
        .get_or_init(|| Profile::builtin("local").expect("a profile"))
        .clone()
}

/// A node, and the world around it that does what it wants.
struct Bench {
    node: Node,
    now: Time,
    ring: Keyring,
    exchanges: VecDeque<ExchangeId>,
    steps: u64,
    udp_limit: usize,
    /// What a restart would know.
    keeper: Keeper,
    marks: Marks,
    /// Whether the node leaves. What it hears of others from then on is how they see it go, and is not recorded.
    leaves: bool,
}

/// Each step is an opcode, a length of two bytes, and so many bytes.
pub fn node(input: &[u8]) {
    let profile = local();
    let udp_limit = profile.udp_buffer_size;
    let now = Time::from_nanos(1_000_000_000);
    let mut bench = Bench {
        node: Node::new(config_of(profile, 7), now).expect("a right configuration"),
        now,
        ring: Keyring::new(Key::from_bytes(Cipher::Aes128Gcm, &[7; 16]).expect("16 bytes")),
        exchanges: VecDeque::new(),
        steps: 0,
        udp_limit,
        keeper: Keeper::default(),
        marks: Marks::default(),
        leaves: false,
    };
    bench.drain();
    let mut rest = input;
    while let Some((&[opcode, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (content, after) = after.split_at(length);
        bench.step(opcode, content);
        bench.check();
        rest = after;
    }
    bench.restart();
}

impl Bench {
    fn step(&mut self, opcode: u8, content: &[u8]) {
        self.steps += 1;
        let from: SocketAddr = ([10, 0, 0, opcode], 7946).into();
        match opcode % 8 {
            0 | 1 => {
                let mut scratch = Scratch::default();
                let Ok(datagram) = decode_datagram(content, &mut scratch) else {
                    return;
                };
                let messages = &datagram.messages;
                self.handle(Input::Datagram {
                    from,
                    len: 1400,
                    messages,
                });
            }
            2 => {
                let mut scratch = Vec::new();
                let Ok(message) = decode_stream(content, &mut scratch, STREAM_MESSAGE_MAX) else {
                    return;
                };
                let id = StreamId(self.steps);
                self.handle(Input::Stream {
                    from,
                    id,
                    message: &message,
                });
            }
            3 => self.end_exchange(content),
            4 | 5 => self.wait(content),
            6 if content.is_empty() => self.handle(Input::SendFailed {
                to: from,
                reason: "permission denied",
            }),
            6 => self.dial(content),
            _ => self.command(content),
        }
    }

    /// Ends the oldest exchange, with what the peer has said, or without.
    fn end_exchange(&mut self, content: &[u8]) {
        let Some(id) = self.exchanges.pop_front() else {
            return;
        };
        let mut scratch = Vec::new();
        let message = decode_stream(content, &mut scratch, STREAM_MESSAGE_MAX);
        let result = match &message {
            Ok(message) => Ok(Some(message)),
            Err(_) if content.is_empty() => Ok(None),
            Err(error) => Err(Failure::new(cause_of(content), error.to_string())),
        };
        self.handle(Input::Exchange { id, result });
    }

    /// Lets time pass up to the next deadline, or beyond it.
    fn wait(&mut self, content: &[u8]) {
        let millis = content
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let jump = Duration::from_millis(millis).min(LONGEST_STEP);
        let due = self.node.next_deadline().unwrap_or(self.now);
        self.now = if content.is_empty() {
            self.now.max(due)
        } else {
            self.now + jump
        };
        self.handle(Input::Tick);
        let next = self.node.next_deadline();
        assert!(
            next.is_none_or(|next| next > self.now),
            "a timer is due again at once"
        );
    }

    /// Names seeds, or tells of addresses that discovery has found.
    fn dial(&mut self, content: &[u8]) {
        let (&kind, rest) = content.split_first().unwrap_or((&0, &[]));
        if kind % 2 == 0 {
            let found = rest.iter().map(|host| ([10, 0, 0, *host], 7946).into());
            return self.handle(Input::Discovered(found.collect()));
        }
        let names = || rest.iter().map(u8::to_string).collect();
        let retry = (kind & 0x80 != 0).then(|| RetryJoin {
            names: names(),
            every: Duration::from_secs(1),
            max: (kind & 0x40 != 0).then_some(3),
        });
        let joined = names();
        self.handle(Input::Seeds(Seeds { joined, retry }));
    }

    fn command(&mut self, content: &[u8]) {
        let (&kind, rest) = content.split_first().unwrap_or((&0, &[]));
        let text = String::from_utf8_lossy(rest).into_owned();
        let command = match kind % 7 {
            0 => Command::Join {
                targets: vec![JoinTarget {
                    name: None,
                    addr: ([10, 0, 0, kind], 7946).into(),
                }],
                ignore_old: kind & 0x80 != 0,
            },
            1 => Command::ForceLeave {
                name: text,
                prune: kind & 0x80 != 0,
            },
            2 => Command::SetTags([("tag".to_owned(), text)].into()),
            3 => Command::UserEvent {
                name: text,
                payload: rest.to_vec(),
                coalesce: kind & 0x80 != 0,
            },
            4 => Command::Query(QueryParams {
                name: text,
                payload: rest.to_vec(),
                ..QueryParams::default()
            }),
            5 => Command::Keys {
                op: KeyOp::Install,
                key: KeyBytes(rest.to_vec().into()),
            },
            _ => Command::Leave,
        };
        let id = CommandId(self.steps);
        self.handle(Input::Command { id, command });
    }

    fn handle(&mut self, input: Input<'_>) {
        self.node.handle(self.now, input);
        self.drain();
    }

    /// Does what the node wants, and looks at it: all that it sends can be read.
    fn drain(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.node.poll_effect() {
            effects += 1;
            assert!(effects <= EFFECTS_MAX, "no end of effects");
            match effect {
                Effect::Send { plain, .. } => {
                    assert!(
                        plain.len() <= self.udp_limit,
                        "{} bytes in a datagram",
                        plain.len()
                    );
                    let mut scratch = Scratch::default();
                    let read = decode_datagram(&plain, &mut scratch).expect("a readable datagram");
                    assert_eq!(read.refused, 0, "{:?}", read.first_refusal);
                }
                Effect::Exchange { id, plain, .. } => {
                    readable(&plain);
                    self.exchanges.push_back(id);
                }
                Effect::Reply { plain, .. } => readable(&plain),
                Effect::Keyring { id, op, key } => {
                    let result = keyring::apply(Some(&mut self.ring), op, &key);
                    self.node.handle(self.now, Input::Keyring { id, result });
                }
                Effect::LookUp(names) => {
                    let looked_up = names.into_iter().map(look_up).collect();
                    self.node.handle(self.now, Input::LookedUp(looked_up));
                }
                Effect::Record(record) => self.keeper.apply(record),
                Effect::Commit(commit) => {
                    self.keeper.mark(commit.marks);
                    self.leaves |= commit.left;
                    let news = StoreNews::Stored(commit.number);
                    self.node.handle(self.now, Input::Store(news));
                }
                Effect::Event(_)
                | Effect::QueryUpdate(_)
                | Effect::Answer { .. }
                | Effect::JoinFailed { .. }
                | Effect::LostName => {}
            }
        }
    }

    /// What holds at all times.
    fn check(&mut self) {
        let members = self.node.members();
        assert!(members.len() <= MAX_MEMBERS);
        assert!(
            members.iter().any(|member| &*member.name == "self"),
            "it does not know itself"
        );
        assert!(self.node.stats().health_score <= 8);

        let marks = self.node.marks();
        assert!(marks.cover(&self.marks), "{:?}, then {marks:?}", self.marks);
        self.marks = marks;
        if self.leaves {
            return;
        }
        // What is recorded is what is known.
        let recorded = self.keeper.memory().members;
        let mut recorded: Vec<_> = recorded
            .iter()
            .map(|record| (&*record.facts.name, record.status))
            .collect();
        recorded.sort();
        let known = members.iter().filter(|member| &*member.name != "self");
        let mut known: Vec<_> = known.map(|member| (&*member.name, member.status)).collect();
        known.sort();
        recorded.retain(|(name, _)| *name != "self");
        assert_eq!(recorded, known, "records and members");
    }

    /// A restart from what is recorded goes on where the node was.
    fn restart(self) {
        let config = NodeConfig {
            memory: self.keeper.memory(),
            ..config_of(local(), 8)
        };
        let again = Node::new(config, self.now).expect("a right configuration");
        assert!(again.marks().cover(&self.marks), "{:?}", again.marks());
    }
}

/// Even hosts have an address, odd ones have none.
fn look_up(name: Arc<str>) -> LookedUp {
    let host: u8 = name.parse().expect("a name that was given");
    let addr = SocketAddr::from(([10, 0, 0, host], 7946));
    let found = match host % 2 {
        0 => Ok(vec![JoinTarget { name: None, addr }]),
        _ => Err("no such host".to_owned()),
    };
    LookedUp { name, found }
}

fn readable(plain: &[u8]) {
    let mut scratch = Vec::new();
    decode_stream(plain, &mut scratch, STREAM_MESSAGE_MAX).expect("a readable stream message");
}
