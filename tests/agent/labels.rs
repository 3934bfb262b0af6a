//! Labels: clusters that share keys and reach each other stay apart, and both are told of it.

use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, all_see, eventually, side_by_side};

/// One more than a label may have.
const TOO_LONG: usize = 256;

fn plan(name: &str, key: Option<&str>, label: &str) -> Plan {
    let label = (!label.is_empty()).then(|| format!("-label={label}"));
    Plan::new(Kind::Fyrd, name)
        .key(key)
        .arg("-profile=local")
        .args(label)
}

/// What an agent says when it meets a label that is not its own.
fn complaint(what: &str, met: &str, own: &str) -> String {
    let own = if own.is_empty() {
        "none".to_owned()
    } else {
        format!("{own:?}")
    };
    format!(
        "discarding {what} with unacceptable label {met:?}: members of this cluster have {own} (-label) from="
    )
}

fn discarded(agent: &Agent, what: &str) -> u64 {
    let info = agent.info();
    let label = info.get("label");
    label.map_or(0, |label| label[&format!("discarded_{what}")].parse().unwrap())
}

#[test]
fn clusters_with_equal_keys_and_other_labels_do_not_join() {
    let mut cases = Vec::new();
    for key in [None, Some(KEY_32)] {
        for labels in [("blue", "green"), ("blue", ""), ("", "green"), ("blue", "blu")] {
            cases.push((key, labels));
        }
    }
    side_by_side(&cases, |&(key, (label, other))| {
        let first = plan("first", key, label).start();
        let second = plan("second", key, label).join(&first).start();
        let stranger = plan("stranger", key, other).start();
        for (from, to, met, own) in [
            (&stranger, &first, other, label),
            (&first, &stranger, label, other),
        ] {
            let joined = from.cli(&["join", &to.address()]);
            let hint = if met.is_empty() {
                String::new()
            } else {
                format!(", as from a peer whose -label is not {met:?}")
            };
            assert!(joined.stdout.contains(&format!("EOF{hint}\n")), "{joined:?}");
            assert_eq!(joined.code, Some(1));
            to.says(&complaint("stream", met, own));
            assert_eq!(discarded(to, "streams"), 1);
            // Once a minute is enough.
            assert_eq!(from.cli(&["join", &to.address()]).code, Some(1));
            assert_eq!(discarded(to, "streams"), 2);
            assert_eq!(to.times_said("unacceptable label"), 1);
        }
        all_alive(&[&first, &second]);
        all_alive(&[&stranger]);
    });
}

/// Who was a member is sent datagrams before anybody dials it.
#[test]
fn a_member_that_comes_back_with_another_label_is_a_stranger() {
    side_by_side(&[None, Some(KEY_32)], |&key| {
        let agent = |name: &str| {
            plan(name, key, "")
                .args(["-config-file=label.json", "-snapshot=snap"])
                .with_file("label.json", "{}")
                .start()
        };
        let (mut stays, mut moves) = (agent("stays"), agent("moves"));
        moves.cli(&["join", &stays.address()]).success();
        all_alive(&[&stays, &moves]);
        // A label changes at a start, and not before.
        let green = r#"{"label":"green"}"#;
        moves.write("label.json", green);
        moves.signal("HUP");
        moves.says(
            "==> Warning: 'label' is another in the configuration now, which takes effect at the next start only",
        );
        moves.says("Configuration reloaded");
        assert!(!moves.info().contains_key("label"));
        moves.kill();
        moves.restart();
        assert_eq!(moves.info()["label"]["name"], "green");
        moves.says("                      Label: 'green'\n");
        all_see(&[&stays], &[("stays", "alive"), ("moves", "failed")]);
        for (agent, what) in [(&moves, "packets"), (&stays, "streams")] {
            eventually(&format!("{} discards {what}", agent.name()), PATIENCE, || {
                (discarded(agent, what) > 0)
                    .then_some(())
                    .ok_or_else(|| agent.log())
            });
        }
        moves.says("with unacceptable label \"\": members of this cluster have \"green\" (-label) from=");
        all_alive(&[&moves]);
        // Who has the same label is found again by what the snapshot knows.
        stays.kill();
        stays.write("label.json", green);
        stays.restart();
        all_alive(&[&stays, &moves]);
    });
}

#[test]
fn a_label_that_cannot_be_is_refused_at_the_start() {
    let refused = |label: &str, profile: &str| {
        let settings = serde_json::json!({ "label": label, "profile": profile });
        let plan = Plan::new(Kind::Fyrd, "n1")
            .with_file("label.json", &settings.to_string())
            .with_file("small.toml", "base = \"lan\"\nudp_buffer_size = 1100\n");
        let ended = plan.arg("-config-file=label.json").try_start().unwrap_err();
        assert_eq!(ended.code, Some(1));
        ended.output
    };
    let long = "x".repeat(TOO_LONG);
    for (label, profile, reason) in [
        (
            &*long,
            "lan",
            format!("label is {TOO_LONG} bytes long, must be at most 255: {long}"),
        ),
        (
            "two\nlines",
            "lan",
            r#"label "two\nlines" holds a control character, must be visible text"#.to_owned(),
        ),
        (
            &long[..100],
            "small.toml",
            "udp_buffer_size = 1100 of profile 'small.toml' leaves too little beside the label, must be at least 1126"
                .to_owned(),
        ),
    ] {
        let output = refused(label, profile);
        let line = format!("==> Failed to start the Serf agent: Error creating Serf: {reason}\n");
        assert!(output.ends_with(&line), "{output}");
    }
}
