//! Another cluster, with the same key, at an address where one's own seed was.

use std::time::Duration;

use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually};

/// Failed members are forgotten after two seconds, so that the seed alone is dialled at last.
const FORGETFUL: &str = "base = \"lan\"
tcp_timeout = \"1s\"
gossip_to_the_dead_time = \"1s\"
[serf]
reap_interval = \"1s\"
reconnect_timeout = \"2s\"
reconnect_interval = \"1s\"
";

/// How often the stranger is dialled before the test is content. The next time would be a minute later, or more.
const DIALS: usize = 3;

#[test]
fn two_clusters_with_one_key_stay_apart_although_one_took_over_an_address_of_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("forgetful.toml");
    std::fs::write(&profile, FORGETFUL).expect("a profile");
    let plan = |name: &str| {
        Plan::new(Kind::Fyrd, name)
            .key(Some(KEY_32))
            .arg(format!("-profile={}", profile.display()))
    };
    let mut seed = plan("seed").start();
    let ours = ["a", "b"].map(|name| plan(name).join(&seed).start());
    let theirs = plan("x").start();
    all_alive(&[&seed, &ours[0], &ours[1]]);
    seed.kill();
    let members = [("a", "alive"), ("b", "alive")];
    all_see(&ours.each_ref(), &members);
    let stranger = plan("y").host("127.0.0.1").port_of(&seed).join(&theirs).start();
    for agent in &ours {
        eventually(&format!("{} dials the stranger", agent.name()), PATIENCE, || {
            let dials = agent.times_said("does not answer to the name seed");
            if dials >= DIALS {
                Ok(())
            } else {
                Err(format!("{dials} dials"))
            }
        });
    }
    // What a dial has brought would have been passed on by now.
    std::thread::sleep(Duration::from_secs(1));
    all_see(&ours.each_ref(), &members);
    all_see(&[&theirs, &stranger], &[("x", "alive"), ("y", "alive")]);
    let others: [(&Agent, &str); 2] = [(&ours[0], "EventMemberJoin: y"), (&theirs, "EventMemberJoin: a")];
    for (agent, line) in others {
        assert_eq!(agent.times_said(line), 0, "{}", agent.log());
    }
}
