//! Random faults from a seed, then calm: afterwards all must agree again.

use std::time::Duration;

use fyrd_core::serf::{Command, MemberStatus};
use fyrd_sim::Power;
use fyrd_sim::link::Link;
use fyrd_sim::{HostId, World, WorldConfig};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const NODES: usize = 9;

/// Does one random thing to the world. Host 0 is never taken down: somebody must be there to join.
fn disturb(world: &mut World, hosts: &[HostId], rng: &mut Xoshiro256PlusPlus) -> String {
    let host = hosts[rng.random_range(1..hosts.len())];
    let other = hosts[rng.random_range(0..hosts.len())];
    let power = world.host(host).power();
    match rng.random_range(0..12) {
        0 if power != Power::Down => world.crash(host),
        1 | 2 if power == Power::Down => {
            world.start(host);
            world.join(host, hosts[0]);
        }
        3 if power == Power::Up => world.freeze(host),
        4 | 5 => world.thaw(host),
        6 => world.links.cut_one_way(host, other),
        7 => {
            let (one, rest) = hosts.split_at(rng.random_range(1..hosts.len()));
            world.links.partition(one, rest);
        }
        8 | 9 => world.links.heal(),
        10 => world.links.set_usual(Link {
            loss: rng.random_range(0.0..0.4),
            duplicate: 0.2,
            reorder: 0.3,
            ..Link::default()
        }),
        _ if power == Power::Up => {
            let command = match rng.random_range(0..4) {
                0 => Command::Leave,
                1 => Command::ForceLeave {
                    name: world.host(other).name().to_owned(),
                    prune: rng.random(),
                },
                2 => Command::SetTags([("v".to_owned(), rng.random::<u32>().to_string())].into()),
                _ => Command::UserEvent {
                    name: "e".to_owned(),
                    payload: rng.random::<[u8; 8]>().to_vec(),
                    coalesce: false,
                },
            };
            world.command(host, command);
        }
        _ => {}
    }
    format!("{host:?} {power:?}")
}

/// Ends all faults, and starts every host anew that is down or has left.
fn calm(world: &mut World, hosts: &[HostId]) {
    world.links.heal();
    world.links.set_usual(Link::default());
    for &host in hosts {
        world.thaw(host);
        let name = world.host(host).name().to_owned();
        let own = world.host(host).status_of(&name);
        if own != Some(MemberStatus::Alive) {
            world.crash(host);
            world.start(host);
        }
    }
    world.run_for(Duration::from_secs(1));
    for &host in &hosts[1..] {
        world.join(host, hosts[0]);
    }
}

#[test]
fn whatever_has_happened_all_agree_again_once_it_is_over() {
    for seed in (0..20).chain([134, 154]) {
        let mut config = WorldConfig::new(seed);
        config.compress = false;
        let mut world = World::new(config);
        let hosts = world.cluster(NODES);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        for _ in 0..60 {
            disturb(&mut world, &hosts, &mut rng);
            world.run_for(Duration::from_millis(rng.random_range(0..6000)));
        }
        calm(&mut world, &hosts);
        let agreed = world.run_until(Duration::from_secs(180), |world| world.all_alive(&hosts));
        let views: Vec<_> = hosts
            .iter()
            .map(|&host| {
                let members = world.node(host).members();
                let odd = members
                    .iter()
                    .filter(|member| member.status != MemberStatus::Alive);
                (
                    members.len(),
                    odd.map(|member| (member.name.to_string(), member.status))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert!(agreed, "seed {seed}: {views:?}");
        // Facts agree too, not only who is there.
        world.run_for(Duration::from_secs(60));
        let facts = world.node(hosts[0]).members();
        for &host in &hosts {
            assert_eq!(world.node(host).members(), facts, "seed {seed}: {host:?}");
        }
    }
}
