//! Says which revision a release is built from, for `tidegate_build_info`.
//!
//! Whoever builds may say it in `TIDEGATE_REVISION` (`make dist`, `make image`). Else git is asked, if this is a clone
//! and git is there; nothing fails without. Other builds than releases do not ask: each commit would compile all anew.

#![allow(clippy::print_stdout, reason = "it is how cargo is told")]

use std::path::Path;
use std::process::Command;

const REVISION: &str = "TIDEGATE_REVISION";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={REVISION}");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_release
        && std::env::var_os(REVISION).is_none()
        && let Some(revision) = revision()
    {
        println!("cargo:rustc-env={REVISION}={revision}");
    }
}

/// The commit, and whether something was changed since. None if this is not a clone of its own.
fn revision() -> Option<String> {
    // A release that was unpacked in another repository is not of that repository.
    let is_root = git(&["rev-parse", "--show-prefix"])?.is_empty();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_root)?;
    // HEAD names a branch, and the log of HEAD grows with each commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        // What is not there counts as changed each time.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let built_from = ["src", "Cargo.toml", "Cargo.lock", ".cargo"];
    for path in built_from {
        println!("cargo:rerun-if-changed={path}");
    }
    let mut diff = vec!["diff", "--quiet", "HEAD", "--"];
    diff.extend(built_from);
    let changed = if git(&diff).is_some() { "" } else { "-changed" };
    Some(format!("{commit}{changed}"))
}

/// What git says here; none if it fails, or is not there.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
