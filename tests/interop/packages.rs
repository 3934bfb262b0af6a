//! What is packaged with the program, held to what reads it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Kind;

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test, tests/run installs it: {error}"))
}

/// systemd looks whether the program is there, so it is shown one that is.
#[test]
#[ignore = "needs systemd"]
fn the_unit_is_one_and_leaves_little_open() {
    let unit = std::fs::read_to_string(dist("systemd/fyrd.service")).expect("the unit");
    assert!(unit.contains("ExecStart=/usr/bin/fyrd agent"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("fyrd.service");
    std::fs::write(&path, unit.replace("/usr/bin/fyrd", Kind::Fyrd.program())).expect("a copy");
    let path = path.to_str().expect("a path");
    let verified = run("systemd-analyze", &["verify", "--man=no", path]);
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    let secure = ["security", "--offline=yes", "--threshold=25", path];
    let secure = run("systemd-analyze", &secure);
    assert!(
        secure.status.success(),
        "{}",
        String::from_utf8_lossy(&secure.stdout)
    );
}

#[test]
#[ignore = "needs systemd"]
fn the_user_can_be_made() {
    let path = dist("sysusers/fyrd.conf");
    let root = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(root.path().join("etc")).expect("a folder");
    let root = format!("--root={}", root.path().display());
    let inline = std::fs::read_to_string(path).expect("the user's definition");
    let folder = Path::new(root.trim_start_matches("--root=")).join("usr/lib/sysusers.d");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("fyrd.conf"), inline).expect("a copy");
    let made = run("systemd-sysusers", &[&root]);
    assert!(made.status.success(), "{made:?}");
    let passwd = std::fs::read_to_string(folder.join("../../../etc/passwd")).expect("users");
    assert!(
        passwd.contains("fyrd:x:") && passwd.contains(":/var/lib/fyrd:"),
        "{passwd}"
    );
}
