//! Tells the program for which system it is built, and from which commit.
//!
//! A release asks git for the commit, unless COMMIT_OF_BUILD names it, as where there is only an archive of the sources.
//! Other builds do not ask: they are made from files that no commit has.

use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=COMMIT_OF_BUILD");
    if let Some(target) = variable("TARGET") {
        println!("cargo::rustc-env=TARGET_OF_BUILD={target}");
    }
    let is_release = variable("PROFILE").is_some_and(|profile| profile == "release");
    let of_git = || is_release.then(commit).flatten();
    if let Some(commit) = variable("COMMIT_OF_BUILD").or_else(of_git) {
        println!("cargo::rustc-env=COMMIT_OF_BUILD={commit}");
    }
}

fn commit() -> Option<String> {
    // Each commit and each checkout writes a line there.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
