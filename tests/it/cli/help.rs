//! What every command says of itself, completions, and sentences for first mistakes.

use super::done;
use crate::support::{Gateway, binary, eventually, free_address, run};
use std::process::Command;

/// Every command.
const COMMANDS: [&[&str]; 19] = [
    &[],
    &["serve"],
    &["publish"],
    &["tail"],
    &["topics"],
    &["topics", "list"],
    &["topics", "show"],
    &["topics", "history"],
    &["topics", "delete"],
    &["check-config"],
    &["healthcheck"],
    &["functions"],
    &["doctor"],
    &["key"],
    &["key", "new"],
    &["token"],
    &["token", "new"],
    &["token", "explain"],
    &["completions"],
];

fn help(command: &[&str], columns: Option<&str>) -> String {
    let columns: Vec<_> = columns
        .into_iter()
        .map(|columns| ("COLUMNS", columns))
        .collect();
    done(run(&[command, &["--help"]].concat(), &columns))
}

/// Lines that are longer.
fn longer(text: &str, than: usize) -> Vec<&str> {
    text.lines()
        .filter(|line| line.chars().count() > than)
        .collect()
}

#[test]
fn help_fits_the_terminal_and_has_examples() {
    for command in COMMANDS {
        let text = help(command, None);
        assert_eq!(longer(&text, 80), [""; 0], "{command:?}");
        assert_eq!(
            longer(&help(command, Some("200")), 80),
            [""; 0],
            "{command:?}"
        );
        assert_eq!(
            longer(&help(command, Some("40")), 40),
            [""; 0],
            "{command:?}"
        );
        assert!(text.contains("Examples:\n  "), "{command:?}: {text}");
    }
    let listed = help(&[], None);
    for command in COMMANDS.iter().filter_map(|command| command.first()) {
        assert!(listed.contains(&format!("  {command} ")), "{command}");
    }
    for code in ["  0  ", "  1  ", "  2  ", " 64  ", " 65  ", "130  "] {
        assert!(listed.contains(code), "{code}: {listed}");
    }
    assert!(help(&["publish"], None).contains("publish.idempotency_window"));
}

#[test]
fn what_the_doctor_says_fits_as_well() {
    let config = [("TIDEGATE__REDIS__URL", "redis://127.0.0.1:1")];
    for (columns, most) in [("200", 80), ("40", 40)] {
        let said = run(&["doctor"], &[config[0], ("COLUMNS", columns)]);
        assert_eq!(said.code, Some(1), "{said:?}");
        let words = longer(&said.stdout, most);
        // What has no space cannot be broken.
        let breakable = words.iter().filter(|line| line.trim().contains(' '));
        assert_eq!(breakable.count(), 0, "{words:?}");
        assert!(said.stdout.contains("FAULT"), "{said:?}");
    }
}

#[test]
fn completions_complete() {
    let script = done(run(&["completions", "bash"], &[]));
    let ask = r#"
        COMP_WORDS=(tidegate ta); COMP_CWORD=1
        _tidegate tidegate ta tidegate
        echo "${COMPREPLY[@]}"
    "#;
    let shell = Command::new("bash")
        .args(["-euc", &format!("{script}\n{ask}")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&shell.stdout).trim(),
        "tail",
        "{shell:?}"
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = done(run(&["completions", shell], &[]));
        assert!(script.contains("healthcheck"), "{shell}");
    }
}

/// The commands that ask a gateway.
const ASK: [&[&str]; 6] = [
    &["tail", "news"],
    &["publish", "news", "x"],
    &["topics"],
    &["topics", "show", "news"],
    &["healthcheck"],
    &["doctor"],
];

#[test]
fn a_url_without_a_scheme_is_guessed_at() {
    for command in ASK {
        let said = run(&[command, &["--url", "localhost:8080"]].concat(), &[]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(
            said.stderr.contains("\"http://localhost:8080\""),
            "{said:?}"
        );
    }
    for (bad, why) in [
        ("ftp://h", "http"),
        ("http://", "host"),
        ("http://h/?a=b", "query"),
        ("http://user:secret@h", "user"),
        ("redis://127.0.0.1:6379", "--redis"),
    ] {
        let said = run(&["publish", "a", "x", "--url", bad], &[]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(why), "{bad}: {said:?}");
    }
}

#[test]
fn nobody_there_is_said_with_what_to_start() {
    let url = format!("http://{}", free_address());
    for command in &ASK[..5] {
        let said = run(&[*command, &["--url", &url]].concat(), &[]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("cannot be reached"), "{said:?}");
        assert!(said.stderr.contains("tidegate serve"), "{said:?}");
        assert!(!said.stderr.contains("os error"), "{said:?}");
    }
    let lost = run(
        &["publish", "a", "x", "--redis", "redis://127.0.0.1:1"],
        &[],
    );
    assert_eq!(lost.code, Some(1), "{lost:?}");
    assert!(lost.stderr.contains("redis-server"), "{lost:?}");
}

/// Whoever reads only the beginning of what is printed has not failed.
#[test]
fn a_pipe_that_is_closed_is_no_error() {
    let gateway = Gateway::start(&[]);
    gateway.publish("news", "x");
    for command in [
        &["topics"][..],
        &["topics", "history", "news"],
        &["completions", "bash"],
        &["doctor"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = binary();
        child
            .args(command)
            .stdout(writer)
            .env("TIDEGATE_URL", gateway.url());
        let output = child.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
        assert!(
            output.status.code().is_some_and(|code| code < 2),
            "{command:?} {output:?}"
        );
    }
}

/// Without Redis the log says so once, not with every try.
#[test]
fn a_change_of_state_is_one_line_of_the_log() {
    let nobody = format!("redis://{}", free_address());
    let gateway = Gateway::launch(&[("redis.url", &nobody), ("redis.backoff_max", "50ms")]);
    let tries = || {
        let labels = [("role", "live"), ("kind", "unavailable")];
        gateway.metric("tidegate_redis_errors_total", &labels)
    };
    eventually("twenty tries", || tries() >= 20.0);
    let warned = |line: &&String| line.contains("\"WARN\"") && line.contains("Redis");
    let log = gateway.log();
    assert_eq!(log.iter().filter(warned).count(), 1, "{log:?}");
}
