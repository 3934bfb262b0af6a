//! The driver's loop over a disk that is as slow as the test wants it.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::driver::gate::Limits;
use crate::driver::{Handle, Setup, Sockets};
use crate::logged::Lines;
use fyrd_core::node::{ExchangeId, Input};
use fyrd_core::serf::{Answer, Command, JoinTarget};
use fyrd_core::time::Time;
use fyrd_core::wire::{Ack, Message, Ping, StreamDecoder, StreamMessage};

const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What must not come has not come for so long.
const SILENCE: Duration = Duration::from_millis(60);

/// A store under the hand of the test.
#[derive(Clone, Default)]
struct Disk {
    state: Arc<Mutex<DiskState>>,
    news: Arc<Notify>,
}

#[derive(Default)]
struct DiskState {
    noted: Vec<Record>,
    gathered: bool,
    pushes: u64,
    marks: Marks,
    durable: Marks,
    settled: u64,
    hurried: bool,
    fails: bool,
    begins_anew: bool,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap()
    }

    /// Something happens to it.
    fn change(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.state());
        self.news.notify_one();
    }

    /// Stores the event clock up to here.
    fn store_events(&self, event: u64) {
        self.change(|state| state.durable.event = event);
    }

    fn store_all(&self) {
        self.change(|state| (state.durable, state.settled) = (state.marks, state.pushes));
    }
}

impl Keep for Disk {
    fn note(&mut self, record: Record) {
        let mut state = self.state();
        state.noted.push(record);
        state.gathered = true;
    }

    fn mark(&mut self, marks: Marks) {
        let mut state = self.state();
        state.marks = marks;
        state.gathered = true;
    }

    fn push(&mut self) {
        let mut state = self.state();
        state.pushes += u64::from(std::mem::take(&mut state.gathered));
    }

    fn hurry(&mut self) {
        self.state().hurried = true;
    }

    fn leave(&mut self) {}

    fn durable(&self) -> Marks {
        self.state().durable
    }

    fn noted(&self) -> u64 {
        let state = self.state();
        state.pushes + u64::from(state.gathered)
    }

    fn settled(&self) -> u64 {
        self.state().settled
    }

    fn is_recording(&self) -> bool {
        !self.state().fails
    }

    fn wants_everything(&mut self) -> bool {
        std::mem::take(&mut self.state().begins_anew)
    }

    async fn progress(&mut self) {
        self.news.notified().await;
    }

    async fn finish(self, _patience: Duration) {}
}

/// A node with an event clock and nothing else.
#[derive(Default)]
struct Talker {
    clock: u64,
    said: u64,
    effects: VecDeque<Effect>,
}

impl Talker {
    fn send(&mut self, to: &str, payload: &[u8]) {
        let mut plain = Vec::new();
        Message::User(payload).encode(&mut plain);
        self.effects.push_back(Effect::Send {
            to: to.parse().unwrap(),
            plain,
            crc: false,
        });
    }

    fn command(&mut self, command: Command) {
        match command {
            // Says it to the address in the name.
            Command::UserEvent { name, payload, .. } => {
                self.clock += 1;
                self.said = self.clock;
                self.send(&name, &payload);
            }
            // Hears something, and passes it on to the address in the name.
            Command::ForceLeave { name, .. } => {
                self.clock += 1;
                self.send(&name, b"heard");
            }
            // Notices something that no clock counts.
            Command::SetTags(_) => {
                let record = Record::ForgetMember("somebody".into());
                self.effects.push_back(Effect::Record(record));
            }
            Command::Join { targets, .. } => {
                let mut plain = Vec::new();
                StreamMessage::Ping(Ping::default()).encode(&mut plain);
                self.effects.push_back(Effect::Exchange {
                    id: ExchangeId(1),
                    to: targets[0].addr,
                    plain,
                    expect_reply: false,
                    timeout: PATIENCE,
                });
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

impl Drive for Talker {
    type Recorder = Disk;

    fn handle(&mut self, _now: Time, input: Input<'_>) {
        match input {
            Input::Command { id, command } => {
                self.command(command);
                let answer = Answer::Done;
                self.effects.push_back(Effect::Answer { id, answer });
            }
            Input::Stream { id, .. } => {
                let mut plain = Vec::new();
                let ack = Ack {
                    seq_no: self.clock as u32,
                    payload: b"",
                };
                StreamMessage::Ack(ack).encode(&mut plain);
                self.effects.push_back(Effect::Reply { id, plain });
            }
            _ => {}
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn marks(&self) -> Marks {
        Marks {
            event: self.clock,
            ..Marks::default()
        }
    }

    fn said(&self) -> Marks {
        Marks {
            event: self.said,
            ..Marks::default()
        }
    }

    fn record_everything(&mut self, _now: Time) {
        let record = Record::ForgetMember("everybody".into());
        self.effects.push_back(Effect::Record(record));
    }
}

/// A talker, its disk, and who listens to it.
struct Scene {
    disk: Disk,
    handle: Handle<Talker>,
    addr: std::net::SocketAddr,
    ear: UdpSocket,
}

impl Scene {
    async fn new(patience: Duration) -> Scene {
        let disk = Disk::default();
        let setup = Setup {
            keyring: None,
            keyring_file: None,
            label: Vec::new(),
            compress: false,
            tcp_timeout: PATIENCE,
            recorder: Some(disk.clone()),
            limits: Limits::default(),
        };
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = sockets.local_addr();
        let node = |_| Ok(Talker::default());
        let (mut driver, handle) = Driver::assemble(sockets, setup, Instant::now(), node).unwrap();
        driver.commit.as_mut().unwrap().patience = patience;
        tokio::spawn(driver.run());
        let ear = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Scene {
            disk,
            handle,
            addr,
            ear,
        }
    }

    async fn order(&self, command: Command) {
        assert_eq!(self.handle.command(command).await, Ok(Answer::Done));
    }

    async fn say(&self, text: &str) {
        let name = self.ear.local_addr().unwrap().to_string();
        self.order(Command::UserEvent {
            name,
            payload: text.into(),
            coalesce: false,
        })
        .await;
    }

    async fn hear_and_pass_on(&self) {
        let name = self.ear.local_addr().unwrap().to_string();
        self.order(Command::ForceLeave { name, prune: false }).await;
    }

    /// The next datagram's text.
    async fn heard(&self) -> String {
        let mut packet = [0; 100];
        let len = timeout(PATIENCE, self.ear.recv(&mut packet))
            .await
            .unwrap()
            .unwrap();
        // The first byte is the type.
        String::from_utf8_lossy(&packet[1..len]).into_owned()
    }

    async fn silence(&self) {
        let mut packet = [0; 100];
        let heard = timeout(SILENCE, self.ear.recv(&mut packet)).await;
        assert!(heard.is_err(), "{:?}", String::from_utf8_lossy(&packet));
    }

    /// Asks by a stream for the talker's state.
    async fn ask(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let mut plain = Vec::new();
        StreamMessage::Ping(Ping::default()).encode(&mut plain);
        stream.write_all(&plain).await.unwrap();
        stream
    }
}

/// The clock in the reply to [`Scene::ask`]; nothing if none comes in this time.
async fn reply(stream: &mut TcpStream, patience: Duration) -> Option<u32> {
    let mut bytes = Vec::new();
    timeout(patience, stream.read_to_end(&mut bytes))
        .await
        .ok()?
        .unwrap();
    let mut decoder = StreamDecoder::default();
    decoder.push(&bytes);
    match decoder.message() {
        Ok(StreamMessage::Ack(ack)) => Some(ack.seq_no),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn datagrams_wait_for_what_this_node_has_said_and_go_in_order() {
    let scene = Scene::new(FOR_EVER).await;
    for text in ["one", "two", "three"] {
        scene.say(text).await;
    }
    scene.silence().await;
    assert!(scene.disk.state().hurried, "somebody waits, and the disk is told");
    scene.disk.store_events(1);
    assert_eq!(scene.heard().await, "one");
    scene.silence().await;
    scene.disk.store_events(3);
    assert_eq!(scene.heard().await, "two");
    assert_eq!(scene.heard().await, "three");
    // Nothing that is on the disk waits for it again.
    scene.hear_and_pass_on().await;
    assert_eq!(scene.heard().await, "heard");
}

#[tokio::test]
async fn replies_and_dialled_streams_wait_for_what_was_heard_as_well() {
    let scene = Scene::new(FOR_EVER).await;
    scene.hear_and_pass_on().await;
    assert_eq!(
        scene.heard().await,
        "heard",
        "others have said it, so it is no news"
    );
    let mut first = scene.ask().await;
    assert_eq!(reply(&mut first, SILENCE).await, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    scene
        .order(Command::Join {
            targets: vec![JoinTarget { name: None, addr }],
            ignore_old: false,
            announce: false,
        })
        .await;
    assert!(timeout(SILENCE, listener.accept()).await.is_err());
    scene.disk.store_all();
    assert_eq!(reply(&mut first, PATIENCE).await, Some(1));
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().is_ok());
    let mut second = scene.ask().await;
    assert_eq!(reply(&mut second, PATIENCE).await, Some(1));
}

/// A member that failed was on the disk only after the next flush, though `info` had been answered.
#[tokio::test]
async fn the_word_that_all_is_stored_counts_records_that_move_no_clock() {
    let scene = Scene::new(FOR_EVER).await;
    scene.order(Command::SetTags(Default::default())).await;
    let settled = scene.handle.settled();
    tokio::pin!(settled);
    assert!(timeout(SILENCE, &mut settled).await.is_err());
    scene.disk.store_all();
    assert_eq!(timeout(PATIENCE, settled).await.unwrap(), Ok(()));
    assert_eq!(
        timeout(PATIENCE, scene.handle.settled()).await.unwrap(),
        Ok(()),
        "nothing is new"
    );
}

/// A disk that hangs says nothing, so there is nothing but the time to tell.
#[tokio::test]
async fn the_word_is_given_in_the_end_though_nothing_else_happens() {
    let scene = Scene::new(Duration::from_millis(100)).await;
    scene.order(Command::SetTags(Default::default())).await;
    let begun = Instant::now();
    assert_eq!(timeout(PATIENCE, scene.handle.settled()).await.unwrap(), Ok(()));
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_slow_disk_is_waited_for_once() {
    let told = Lines::with("the snapshot's disk is slow");
    let scene = Scene::new(Duration::from_millis(100)).await;
    let begun = Instant::now();
    scene.say("one").await;
    assert_eq!(scene.heard().await, "one");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    // It is still behind; even this one would otherwise wait.
    scene.disk.change(|_| {});
    scene.say("two").await;
    let mut asked = scene.ask().await;
    assert_eq!(scene.heard().await, "two");
    assert_eq!(reply(&mut asked, PATIENCE).await, Some(2));
    assert_eq!(scene.handle.settled().await, Ok(()));
    assert_eq!(told.count(), 1);
    // It has caught up, and counts again.
    scene.disk.store_all();
    let mut asked = scene.ask().await;
    assert_eq!(reply(&mut asked, PATIENCE).await, Some(2));
    let begun = Instant::now();
    scene.say("three").await;
    assert_eq!(scene.heard().await, "three");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(told.count(), 2, "slow once more");
}

#[tokio::test]
async fn nothing_waits_for_a_disk_in_trouble() {
    let scene = Scene::new(FOR_EVER).await;
    scene.say("one").await;
    let mut asked = scene.ask().await;
    assert_eq!(reply(&mut asked, SILENCE).await, None);
    scene.disk.change(|state| state.fails = true);
    assert_eq!(scene.heard().await, "one");
    assert_eq!(reply(&mut asked, PATIENCE).await, Some(1));
    scene.say("two").await;
    assert_eq!(scene.heard().await, "two");
    assert_eq!(scene.handle.settled().await, Ok(()));
    // It works again, but what was sent meanwhile is not stored yet.
    scene.disk.change(|state| state.fails = false);
    scene.say("three").await;
    assert_eq!(scene.heard().await, "three");
    scene.disk.store_all();
    scene.say("four").await;
    scene.silence().await;
    scene.disk.store_all();
    assert_eq!(scene.heard().await, "four");
}

#[tokio::test]
async fn a_store_that_begins_anew_is_told_everything() {
    let scene = Scene::new(FOR_EVER).await;
    scene.say("one").await;
    scene.disk.store_all();
    assert_eq!(scene.heard().await, "one");
    scene.disk.change(|state| {
        (state.marks, state.durable) = Default::default();
        state.begins_anew = true;
    });
    let told = async {
        while scene.disk.state().noted.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    // The word comes after what was pushed, the marks included.
    scene.disk.change(|_| {});
    let state = scene.disk.state();
    assert_eq!(state.noted, [Record::ForgetMember("everybody".into())]);
    assert_eq!(state.marks.event, 1);
    assert!(!state.gathered, "it is pushed");
}

/// When something always waits, because more is said before the last is stored, the patience must not end.
#[test]
fn patience_counts_for_each_output_anew() {
    let disk = Disk::default();
    disk.change(|state| state.durable.event = 1);
    let mut commit = Commit::new(disk);
    commit.patience = Duration::from_secs(60);
    let now = Instant::now();
    for (event, age) in [(1, 61), (2, 1)] {
        let needs = Marks {
            event,
            ..Marks::default()
        };
        let since = now.checked_sub(Duration::from_secs(age)).unwrap();
        let output = Output::Effect(Effect::LostName);
        commit.streams.push_back(Held { needs, since, output });
    }
    assert_eq!(commit.release().len(), 1);
    assert!(commit.overdue.is_none());
    assert_eq!(commit.deadline(), now.checked_add(Duration::from_secs(59)));
    // And where nothing is stored it ends.
    commit.patience = Duration::from_secs(1);
    assert_eq!(commit.release().len(), 1);
    assert!(commit.overdue.is_some() && commit.deadline().is_none());
}

#[test]
fn too_much_output_does_not_wait() {
    let mut commit = Commit::new(Disk::default());
    commit.marks.event = 9;
    for _ in 0..=bounds::HELD_OUTPUT {
        let needs = commit.marks;
        commit
            .datagrams
            .push_back(held(needs, Output::Effect(Effect::LostName)));
    }
    assert_eq!(commit.release().len(), bounds::HELD_OUTPUT + 1);
    assert!(!commit.must_wait(&Marks {
        event: 9,
        ..Marks::default()
    }));
}
