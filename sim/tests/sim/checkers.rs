//! Each checker bites: a planted bug is found, by the checker it is meant for, and the same world without
//! the bug is found in order.

use std::time::Duration;

use fyrd_core::serf::keyring::{KeyBytes, KeyOp};
use fyrd_core::serf::{Answer, Command, MemberStatus, Tags};
use fyrd_core::wire::Suspect;
use fyrd_keys::{Key, Keyring};
use fyrd_sim::check::{
    Checker, DeadFail, ExactlyOnce, HandledOnce, KeepsWord, LivingStay, NeverBack, QuietRotation, Recorded,
    Sealed, ViewsAgree, Watch, WithinBounds,
};
use fyrd_sim::fault::Fault;
use fyrd_sim::{Disk, HostId, World, WorldConfig};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A cluster of six, perhaps sealed.
fn cluster(key: Option<&str>) -> (World, Vec<HostId>) {
    let mut config = WorldConfig::new(4);
    config.key = key.map(|text| text.parse().expect("a key"));
    config.compress = false;
    // Bugs in push/pulls show only as often as there are some.
    config.profile.push_pull_thinning = 1;
    let mut world = World::new(config);
    world.tap();
    let hosts = world.cluster(6);
    (world, hosts)
}

/// Runs `story` with and without a bug, under the eyes of one checker; gives what was found with it.
/// Without it, nothing may be.
fn bites(
    key: Option<&str>,
    checker: impl Fn() -> Box<dyn Checker>,
    fault: impl Fn(&[HostId]) -> Fault,
    story: impl Fn(&mut World, &[HostId], &mut Watch),
) -> String {
    let run = |with_fault: bool| {
        let (mut world, hosts) = cluster(key);
        let mut watch = Watch::with(vec![checker()]);
        watch.run_for(&mut world, secs(3));
        if with_fault {
            world.plant(fault(&hosts));
        }
        story(&mut world, &hosts, &mut watch);
        watch
            .findings()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        run(false),
        Vec::<String>::new(),
        "nothing is wrong without the bug"
    );
    let found = run(true);
    found.first().expect("the planted bug is found").clone()
}

fn say(world: &mut World, host: HostId) {
    let event = Command::UserEvent {
        name: "deploy".to_owned(),
        payload: b"hidden".to_vec(),
        coalesce: false,
    };
    assert_eq!(world.ask(host, event), Answer::Done);
}

#[test]
fn a_living_node_that_cannot_refute_is_noticed() {
    let found = bites(
        None,
        || Box::new(LivingStay::default()),
        |hosts| Fault::DropRefutations(hosts[2]),
        |world, hosts, watch| {
            // A false suspicion, which a healthy node refutes.
            let suspect = Suspect {
                refused: false,
                incarnation: 1,
                node: "n2",
                from: "n4",
            };
            let mut plain = Vec::new();
            suspect.encode(&mut plain);
            for &host in hosts {
                let from = world.host(hosts[4]).addr();
                world.forge(from, host, plain.clone());
            }
            watch.run_for(world, secs(900));
        },
    );
    assert!(found.contains("sees n2 as Some(Failed)"), "{found}");
}

/// The others are right to think it failed, for as long as it takes.
#[test]
fn a_living_node_whose_packets_wait_is_no_bug() {
    let (mut world, hosts) = cluster(None);
    let mut watch = Watch::with(vec![Box::new(LivingStay::default())]);
    world.block_io(hosts[2]);
    watch.run_for(&mut world, secs(900));
    assert_eq!(world.host(hosts[0]).status_of("n2"), Some(MemberStatus::Failed));
    world.unblock_io(hosts[2]);
    watch.run_for(&mut world, secs(900));
    assert!(watch.findings().is_empty(), "{:?}", watch.findings());
}

#[test]
fn a_dead_node_that_seems_to_answer_is_noticed() {
    let found = bites(
        None,
        || Box::new(DeadFail::default()),
        |hosts| Fault::AnswerWhenDead(hosts[2]),
        |world, hosts, watch| {
            world.crash(hosts[2]);
            watch.run_for(world, secs(300));
        },
    );
    assert!(
        found.contains("sees n2 as Some(Alive), which has been down"),
        "{found}"
    );
}

#[test]
fn a_view_that_stays_behind_is_noticed() {
    let found = bites(
        None,
        || Box::new(ViewsAgree::default()),
        |hosts| Fault::MissUpdates(hosts[2]),
        |world, hosts, watch| {
            let tags = Tags::from([("role".to_owned(), "web".to_owned())]);
            world.command(hosts[1], Command::SetTags(tags));
            watch.run_for(world, secs(300));
        },
    );
    assert!(found.contains("n2 still believes"), "{found}");
}

#[test]
fn an_event_that_is_lost_or_doubled_is_noticed() {
    let story = |world: &mut World, hosts: &[HostId], watch: &mut Watch| {
        say(world, hosts[0]);
        watch.run_for(world, secs(600));
    };
    let checker = || Box::new(ExactlyOnce::default()) as Box<dyn Checker>;
    let found = bites(None, checker, |hosts| Fault::SwallowEvent(hosts[2]), story);
    assert!(found.contains("n2 has not heard of event 'deploy'"), "{found}");
    let found = bites(None, checker, |hosts| Fault::RepeatEvent(hosts[2]), story);
    assert!(found.contains("n2 heard of event 'deploy' (1) twice"), "{found}");
}

#[test]
fn clocks_that_run_back_are_noticed() {
    // What each of them is, is told apart by what the node had done before it forgot.
    let forget_after = |deed: fn(&mut World, HostId)| {
        let run = |with_fault: bool| {
            let (mut world, hosts) = cluster(None);
            let mut watch = Watch::with(vec![Box::new(NeverBack::default())]);
            deed(&mut world, hosts[2]);
            watch.run_for(&mut world, secs(20));
            if with_fault {
                world.plant(Fault::Forget(hosts[2]));
            }
            watch.look(&mut world);
            watch
                .findings()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(false), Vec::<String>::new());
        run(true).join("\n")
    };
    let incarnation = forget_after(|world, host| {
        world.command(
            host,
            Command::SetTags(Tags::from([("a".to_owned(), "b".to_owned())])),
        );
    });
    assert!(
        incarnation.contains("the incarnation of n2 went from 2 to 1"),
        "{incarnation}"
    );
    let event = forget_after(say);
    assert!(event.contains("the event time of n2 went from 2 to 1"), "{event}");
    assert!(event.contains("the member time of n2 went from"), "{event}");
    let query = forget_after(|world, host| {
        world.command(host, Command::Query(Default::default()));
    });
    assert!(query.contains("the query time of n2 went from 2 to 1"), "{query}");
}

#[test]
fn a_memory_that_is_lost_over_a_restart_is_noticed() {
    let found = |fault: Option<fn(HostId) -> Fault>| {
        let mut world = World::new(WorldConfig::new(4));
        let hosts: Vec<_> = (0..4)
            .map(|number| world.add_with(&format!("n{number}"), |config| config.records = true))
            .collect();
        for &host in &hosts[1..] {
            world.join(host, hosts[0]);
        }
        let mut watch = Watch::with(vec![
            Box::new(NeverBack::default()),
            Box::new(ExactlyOnce::default()),
        ]);
        watch.run_for(&mut world, secs(10));
        say(&mut world, hosts[1]);
        watch.run_for(&mut world, secs(10));
        world.crash(hosts[2]);
        if let Some(fault) = fault {
            world.plant(fault(hosts[2]));
        }
        world.start(hosts[2]);
        watch.look(&mut world);
        world.join(hosts[2], hosts[0]);
        watch.run_for(&mut world, secs(30));
        watch
            .findings()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(found(None), "");
    let found = found(Some(Fault::LoseMemory));
    assert!(found.contains("the event time of n2 went from 2 to 1"), "{found}");
    assert!(found.contains("n2 heard of event 'deploy' (1) twice"), "{found}");
}

/// Runs `story` in a cluster of four that remember, with and without a bug in the third; gives what was found
/// with it. Without it, nothing may be.
fn bites_over_a_restart(
    checker: impl Fn() -> Box<dyn Checker>,
    fault: fn(HostId) -> Fault,
    story: impl Fn(&mut World, &[HostId], &mut Watch),
) -> String {
    let run = |with_fault: bool| {
        let mut world = World::new(WorldConfig::new(4));
        world.tap();
        let hosts: Vec<_> = (0..4)
            .map(|number| world.add_with(&format!("n{number}"), |config| config.records = true))
            .collect();
        for &host in &hosts[1..] {
            world.join(host, hosts[0]);
        }
        let mut watch = Watch::with(vec![checker()]);
        watch.run_for(&mut world, secs(10));
        if with_fault {
            world.plant(fault(hosts[2]));
        }
        story(&mut world, &hosts, &mut watch);
        let found = watch.findings().iter().map(ToString::to_string);
        found.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(run(false), "", "nothing is wrong without the bug");
    run(true)
}

fn restart(world: &mut World, hosts: &[HostId], watch: &mut Watch) {
    watch.look(world);
    world.crash(hosts[2]);
    world.set_disk(hosts[2], Disk::Swift);
    world.start(hosts[2]);
    watch.look(world);
    world.join(hosts[2], hosts[0]);
    watch.run_for(world, secs(30));
}

#[test]
fn a_node_that_says_more_than_is_stored_is_noticed() {
    // The others hear what was said, and the crash comes before the disk has it. A disk that hangs holds it
    // up for a quarter of a second, and one that failed excuses the node.
    let checker = || Box::new(KeepsWord::default()) as Box<dyn Checker>;
    for disk in [Disk::Slow(Duration::from_millis(450)), Disk::Hangs] {
        let found = bites_over_a_restart(checker, Fault::SayStored, |world, hosts, watch| {
            world.set_disk(hosts[2], disk);
            say(world, hosts[2]);
            world.command(hosts[2], Command::Query(Default::default()));
            let tags = Tags::from([("role".to_owned(), "web".to_owned())]);
            world.command(hosts[2], Command::SetTags(tags));
            watch.run_for(world, Duration::from_millis(400));
            restart(world, hosts, watch);
        });
        for what in [
            "incarnation 2, and must be at 3",
            "event time 1, and must be at 2",
            "query time 1, and must be at 2",
        ] {
            assert!(found.contains(&format!("n2 begins anew at {what}")), "{found}");
        }
    }
}

#[test]
fn what_is_handled_again_after_it_was_stored_is_noticed() {
    let checker = || Box::new(HandledOnce::default()) as Box<dyn Checker>;
    let found = bites_over_a_restart(checker, Fault::SkipRecords, |world, hosts, watch| {
        say(world, hosts[0]);
        let names = |world: &World| world.host(hosts[2]).user_events().len();
        assert!(world.run_until(secs(10), |world| names(world) == 1));
        world.command(hosts[0], Command::Query(Default::default()));
        assert!(world.run_until(secs(10), |world| !world.host(hosts[2]).queries().is_empty()));
        restart(world, hosts, watch);
    });
    assert!(found.contains("n2 handled event 'deploy' (1) again"), "{found}");
    assert!(found.contains("n2 handled query "), "{found}");
}

#[test]
fn a_disk_that_never_hears_of_anything_is_noticed() {
    let checker = || Box::new(Recorded::default()) as Box<dyn Checker>;
    let found = bites_over_a_restart(checker, Fault::SkipCommits, |world, hosts, watch| {
        world.set_disk(hosts[2], Disk::Fails);
        watch.run_for(world, secs(10));
        world.set_disk(hosts[2], Disk::Slow(Duration::from_millis(300)));
        say(world, hosts[0]);
        watch.run_for(world, secs(10));
    });
    assert!(found.contains("n2 has not stored Marks"), "{found}");
}

#[test]
fn a_table_that_only_grows_is_noticed() {
    let found = bites(
        None,
        || Box::new(WithinBounds::default()),
        |hosts| Fault::SwallowResults(hosts[2]),
        |world, _, watch| watch.run_for(world, secs(600)),
    );
    assert!(found.contains("n2: exchanges were never empty"), "{found}");
    // And in the long run its bound as such.
    let (mut world, hosts) = cluster(None);
    let mut watch = Watch::with(vec![Box::new(WithinBounds::default())]);
    world.plant(Fault::SwallowResults(hosts[2]));
    watch.run_for(&mut world, secs(1800));
    let found: Vec<_> = watch.findings().iter().map(ToString::to_string).collect();
    assert!(
        found
            .iter()
            .any(|found| found.contains("n2 holds 39 exchanges, at most 38 may be")),
        "{found:?}"
    );
}

#[test]
fn a_packet_that_leaves_unsealed_is_noticed() {
    let checker = || {
        let ring = Keyring::new(KEY.parse::<Key>().expect("a key"));
        Box::new(Sealed::new(ring, Vec::new(), vec![b"hidden".to_vec()])) as Box<dyn Checker>
    };
    let story = |world: &mut World, hosts: &[HostId], watch: &mut Watch| {
        say(world, hosts[2]);
        watch.run_for(world, secs(90));
    };
    let found = bites(Some(KEY), checker, |hosts| Fault::SendPlain(hosts[2]), story);
    assert!(found.contains("n2 sent a datagram that no key opens"), "{found}");
    let found = bites(Some(KEY), checker, |hosts| Fault::DialPlain(hosts[2]), story);
    assert!(
        found.contains("n2 sent a stream message that no key opens"),
        "{found}"
    );
}

#[test]
fn a_sealed_packet_that_shows_a_mark_is_noticed() {
    // A seal that hides nothing cannot be planted, so the checker is shown an unsealed world and told
    // that there are no keys to open it with.
    let (mut world, hosts) = cluster(None);
    let ring = Keyring::new(KEY.parse::<Key>().expect("a key"));
    let mut watch = Watch::with(vec![Box::new(Sealed::new(
        ring,
        Vec::new(),
        vec![b"hidden".to_vec()],
    ))]);
    say(&mut world, hosts[2]);
    world.run_for(secs(2));
    // Only what shows the mark is of interest here.
    let packets = world.tapped();
    assert!(
        packets
            .iter()
            .any(|packet| packet.bytes.windows(6).any(|window| window == b"hidden"))
    );
    world.tap();
    say(&mut world, hosts[3]);
    watch.run_for(&mut world, secs(2));
    let found: Vec<_> = watch.findings().iter().map(ToString::to_string).collect();
    assert!(
        found.iter().any(|found| found.contains("no key opens")),
        "{found:?}"
    );
}

#[test]
fn a_rotation_that_cuts_somebody_off_is_noticed() {
    let found = bites(
        Some(KEY),
        || Box::new(QuietRotation::default()),
        |hosts| Fault::SkipInstall(hosts[2]),
        |world, hosts, watch| {
            watch.run_for(world, secs(200));
            let [old, new] =
                [KEY, NEW_KEY].map(|text| KeyBytes(text.parse::<Key>().expect("a key").to_wire()));
            for (op, key) in [(KeyOp::Install, &new), (KeyOp::Use, &new), (KeyOp::Remove, &old)] {
                let key = key.clone();
                world.command(hosts[0], Command::Keys { op, key });
                watch.run_for(world, secs(10));
            }
            watch.run_for(world, secs(20));
        },
    );
    assert!(found.contains("n2 could not read"), "{found}");
}
