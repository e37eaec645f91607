//! Goal: a variable that `make` is given by a wrong name is not passed over in silence: the cluster
//! would start on the port that is taken.
//!
//! Method: the real Makefile, with a target that starts nothing.

use crate::support::Directory;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `make help` with these words, and these variables in its environment.
fn help(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut make = Command::new("make");
    make.arg("help").args(words).current_dir(ROOT);
    for of_an_outer_make in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"] {
        make.env_remove(of_an_outer_make);
    }
    make.envs(environment.iter().copied());
    make.output().expect("make runs")
}

#[test]
fn a_wrong_variable_is_refused_and_the_right_one_is_named() {
    let table = [
        ("NGIX_PORT=18080", "NGINX_PORT"),
        ("NGINX_PROT=18080", "NGINX_PORT"),
        ("nginx_port=18080", "NGINX_PORT"),
        ("REDIS_PROT=16379", "REDIS_PORT"),
        ("REPLICA_PORTS=8081", "REPLICA_PORT"),
        ("REPLICSA=5", "REPLICAS"),
        ("TSL=1", "TLS"),
        ("HTTPS_PROT=18443", "HTTPS_PORT"),
        ("ARG=--short", "ARGS"),
        ("SCRIPTS=publish.js", "SCRIPT"),
        ("TIDEGATE_BINN=/bin/true", "TIDEGATE_BIN"),
    ];
    for (given, meant) in table {
        let made = help(&[given], &[]);
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert_eq!(made.status.code(), Some(2), "{given}: {said}");
        let (name, _) = given.split_once('=').unwrap();
        assert!(
            said.contains(&format!("{name}: ")) && said.contains(&format!("did you mean {meant}?")),
            "{given}: {said}"
        );
        assert!(made.stdout.is_empty(), "nothing is done");
    }
    let made = help(&["COLOUR=blue", "NGINX_PORT=1"], &[]);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert_eq!(made.status.code(), Some(2), "{said}");
    assert!(
        said.contains("COLOUR") && said.contains("NGINX_PORT"),
        "{said}"
    );
    // A name is no word of the shell.
    let folder = Directory::create();
    let file = folder.0.join("made");
    let nasty = format!("A';>{};'=1", file.display());
    assert_eq!(help(&[&nasty], &[]).status.code(), Some(2));
    assert!(!file.exists());
}

#[test]
fn the_environment_is_left_alone_and_right_variables_are_taken() {
    let strange = [("NGIX_PORT", "1"), ("COLOUR", "blue"), ("ARG", "x")];
    let made = help(
        &["NGINX_PORT=18080", "REPLICAS=2", "ARGS=--seed 1"],
        &strange,
    );
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    // What programs read themselves.
    let of_programs = [
        "TIDEGATE_TEST_SEED=17",
        "TIDEGATE__ENGINE__SOCKETS=false",
        "CARGO_TARGET_DIR=target",
        "RUST_BACKTRACE=1",
        "K6_PROMETHEUS_RW_SERVER_URL=http://127.0.0.1:9090",
    ];
    assert!(help(&of_programs, &[]).status.success());
}

/// What a document tells to write is taken.
#[test]
fn every_variable_that_a_document_names_is_known() {
    let mut words: Vec<String> = Vec::new();
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "loadtest/README.md",
        "loadtest/RESULTS.md",
        "docs/upgrading.md",
        "docs/deploy.md",
        "docs/quick-start.md",
    ] {
        let text = std::fs::read_to_string(format!("{ROOT}/{page}")).unwrap();
        for line in text.lines().filter_map(|line| line.split_once("make ")) {
            words.extend(variables(line.1));
        }
    }
    let k6 = std::fs::read_to_string(format!("{ROOT}/loadtest/README.md")).unwrap();
    let (_, table) = k6.split_once("| variable | default | what |").unwrap();
    for row in table.lines().skip(2).take_while(|line| !line.is_empty()) {
        let names = row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        words.extend(names.map(|name| format!("{name}=")));
    }
    let makefile = std::fs::read_to_string(format!("{ROOT}/deploy/local/cluster.mk")).unwrap();
    let (_, up) = makefile.split_once("Prometheus here: ").unwrap();
    let up = up.lines().next().unwrap().split(' ');
    let up = up.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    words.extend(up.map(|name| format!("{name}=")));
    words.sort();
    words.dedup();
    assert!(words.len() > 20, "{words:?}");
    let given: Vec<&str> = words.iter().map(String::as_str).collect();
    let made = help(&given, &[]);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
}

/// The `NAME=` that stand in a line.
fn variables(line: &str) -> Vec<String> {
    let words = line.split([' ', '`', '(']);
    let names = words.filter_map(|word| word.split_once('=').map(|(name, _)| name));
    let is_name = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    names
        .filter(is_name)
        .map(|name| format!("{name}="))
        .collect()
}
