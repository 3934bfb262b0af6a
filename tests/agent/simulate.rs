//! `fyrd simulate` from outside: figures that make sense, the same for the same seed, and a profile of
//! the user's own.

use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fyrd"))
        .arg("simulate")
        .args(arguments)
        .output()
        .expect("fyrd runs")
}

fn report(arguments: &[&str]) -> Value {
    let output = simulate(&[arguments, &["-format=json"]].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    // There is no bar where nobody would see it.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_str(&text).expect("JSON")
}

fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path);
    value
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn a_cluster_forms_talks_and_notices_its_dead() {
    let report = report(&["-nodes=20", "-loss=0.02", "-kill=3", "-events=10", "-seed=7"]);
    assert_eq!(number(&report, "/nodes"), 20.0);
    assert_eq!(report["profile"], "lan");
    assert_eq!(report["network"], "lan");
    let formed = number(&report, "/formed_s");
    assert!((0.0..30.0).contains(&formed), "{formed}");
    assert_eq!(number(&report, "/events/sent"), 10.0);
    assert_eq!(number(&report, "/events/incomplete"), 0.0);
    assert_eq!(number(&report, "/events/delay_s/count"), 190.0);
    let (median, all) = (
        number(&report, "/events/delay_s/p50"),
        number(&report, "/events/delay_s/max"),
    );
    assert!(0.0 < median && median < 0.2 && median < all, "{median} {all}");
    assert_eq!(number(&report, "/detection/killed"), 3.0);
    assert_eq!(number(&report, "/detection/undetected"), 0.0);
    // A probe, and a suspicion of at least 4 s x log10 of 20 nodes.
    let first = number(&report, "/detection/first_s/p50");
    assert!((5.2..30.0).contains(&first), "{first}");
    assert!(number(&report, "/detection/everywhere_s/max") >= first);
    assert_eq!(number(&report, "/false_positives/events"), 0.0);
    // A probe a second, an ack for it, and an ack for that of somebody else.
    let datagrams = number(&report, "/rest/datagrams_per_s");
    assert!((1.9..3.0).contains(&datagrams), "{datagrams}");
    assert!(number(&report, "/rest/datagram_bytes_per_s") > 100.0);
}

#[test]
fn the_same_seed_gives_the_same_json_and_another_another() {
    let json = |seed: &str| {
        let output = simulate(&[
            "-nodes=8",
            "-kill=1",
            "-events=3",
            "-loss=0.1",
            seed,
            "-format=json",
        ]);
        assert!(output.status.success());
        output.stdout
    };
    assert_eq!(json("-seed=5"), json("-seed=5"));
    assert_ne!(json("-seed=5"), json("-seed=6"));
}

#[test]
fn a_profile_file_changes_the_figures_and_a_bad_one_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.toml");
    let option = format!("-profile={}", path.display());
    // The time of a suspicion is to be seen, so nothing else may end it.
    let with = |lines: &str| {
        let text = format!("base = \"lan\"\nevidence_pause = \"0s\"\n{lines}");
        std::fs::write(&path, text).expect("written");
        report(&["-nodes=10", "-kill=1", &option])
    };
    let quick = with("suspicion_mult = 1\nsuspicion_max_timeout_mult = 1\n");
    let usual = with("");
    let detected = |report: &Value| number(report, "/detection/everywhere_s/max");
    assert!(detected(&quick) + 2.0 < detected(&usual), "{quick} {usual}");
    assert_eq!(quick["profile"], path.display().to_string().as_str());
    std::fs::write(&path, "base = \"lan\"\nsuspicion_mult = 0\n").expect("written");
    let refused = simulate(&[&option]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        text.contains("suspicion_mult = 0 must be from 1 to 1000"),
        "{text}"
    );
}

#[test]
fn the_text_names_what_it_tells() {
    let output = simulate(&["-nodes=6", "-profile=wan", "-kill=1", "-events=2"]);
    let text = String::from_utf8(output.stdout).expect("text");
    for part in [
        "6 nodes, profile wan, network wan, 0 % loss, seed 1;",
        "\nFormed: every node saw every other after ",
        "\nEvents: 2 sent, 0 did not reach every node\n  to each node ",
        "\nCrashes: 1 nodes, 0 not noticed everywhere in time\n  noticed by the first ",
        "\nFalse positives: 0 times",
        "\nA node sends, each second\n  at rest ",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}
