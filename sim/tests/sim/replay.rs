//! Packets that somebody has recorded and sends again.

use std::time::Duration;

use fyrd_core::serf::{Answer, Command};
use fyrd_keys::Key;
use fyrd_sim::{HostId, World, WorldConfig};

const WINDOW: Duration = Duration::from_secs(60);

fn world(seed: u64, replay_window: Option<Duration>) -> World {
    let key: Key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        .parse()
        .expect("a key");
    World::new(WorldConfig {
        key: Some(key),
        replay_window,
        ..WorldConfig::new(seed)
    })
}

/// Records all that two hosts say for a while, and sends it again after this time. Gives how many packets that were,
/// and how many of them were not opened.
fn replayed(window: Option<Duration>, after: Duration) -> (u64, u64) {
    let mut world = world(51, window);
    let hosts = world.cluster(3);
    world.tap();
    let joining = world.join(hosts[0], hosts[1]);
    world.run_for(Duration::from_secs(20));
    assert!(world.host(hosts[0]).answers.contains_key(&joining));
    let recorded = world.tapped();
    assert!(recorded.iter().any(|packet| !packet.is_datagram), "streams too");
    world.run_for(after);
    let unreadable = |world: &World| {
        hosts
            .iter()
            .map(|&host| world.host(host).counters.unreadable)
            .sum::<u64>()
    };
    assert_eq!(unreadable(&world), 0, "nothing honest is refused");
    // Replies have no address of their own: only what hosts have sent to others is sent again.
    let is_request = |packet: &&fyrd_sim::Tapped| packet.is_datagram || packet.bytes.first() == Some(&0x0a);
    let sent: Vec<_> = recorded.iter().filter(is_request).collect();
    for packet in &sent {
        world.replay(packet);
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.all_alive(&hosts));
    (sent.len() as u64, unreadable(&world))
}

#[test]
fn recorded_packets_are_refused_once_the_window_has_passed() {
    let (sent, refused) = replayed(Some(WINDOW), Duration::from_secs(61));
    assert!(sent > 100, "{sent}");
    assert_eq!(refused, sent, "all of them");
    let (_, refused) = replayed(Some(WINDOW), Duration::from_secs(1));
    assert_eq!(refused, 0, "within the window they are taken");
    let (_, refused) = replayed(None, Duration::from_secs(61));
    assert_eq!(refused, 0, "and without one at any time");
}

/// A clock that is wrong by more than the window keeps its host out, and nobody else.
#[test]
fn a_clock_that_is_wrong_keeps_its_host_out() {
    let mut world = world(52, Some(WINDOW));
    let hosts = world.cluster(2);
    let join = |world: &mut World, name: &str, ahead: u64| -> (HostId, Vec<String>) {
        let host = world.add(name);
        world.jump_clock(host, Duration::from_secs(ahead));
        let joining = world.join(host, hosts[0]);
        world.run_for(Duration::from_secs(20));
        match &world.host(host).answers[&joining].1 {
            Answer::Joined { errors, .. } => {
                (host, errors.iter().map(|(_, reason)| reason.clone()).collect())
            }
            other => panic!("unexpected {other:?}"),
        }
    };
    let (_, errors) = join(&mut world, "late", 100);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(world.all_alive(&hosts) && world.host(hosts[0]).status_of("late").is_none());
    let (near, errors) = join(&mut world, "near", 30);
    assert!(errors.is_empty(), "{errors:?}");
    let all: Vec<HostId> = hosts.iter().copied().chain([near]).collect();
    assert!(world.run_until(Duration::from_secs(60), |world| world.all_alive(&all)));
    let event = Command::UserEvent {
        name: "deploy".to_owned(),
        payload: Vec::new(),
        coalesce: false,
    };
    assert_eq!(world.ask(near, event), Answer::Done);
}
