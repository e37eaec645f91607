//! Goal: what the README and the pages that teach by commands show is what happens.
//!
//! Method: the `sh` blocks of a page are run from top to bottom, against a cluster of its own on free ports:
//! Redis, three replicas, nginx. Only addresses and programs are exchanged for those of the cluster.
//! A `text` block right after an `sh` block is the answer, one command after the other; a `text`
//! block after a sentence is what the stream shows that was opened last. Ids, reconnection times,
//! names of replicas and counts of subscribers differ from run to run and are compared by pattern.

use crate::support::{Answer, Directory, Process, eventually, exchange};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

const README: &str = include_str!("../../README.md");
const SUBSCRIBE: &str = include_str!("../../docs/subscribe.md");
const CONFIGURE: &str = include_str!("../../docs/configure.md");

/// Pages whose commands are run, how many of them there are at least, and how many answers.
const PAGES: [(&str, &str, usize, usize); 6] = [
    ("README.md", README, 12, 5),
    (
        "docs/publish.md",
        include_str!("../../docs/publish.md"),
        10,
        6,
    ),
    ("docs/subscribe.md", SUBSCRIBE, 9, 6),
    (
        "docs/manage.md",
        include_str!("../../docs/manage.md"),
        14,
        5,
    ),
    ("docs/configure.md", CONFIGURE, 2, 1),
    (
        "docs/walkthrough.md",
        include_str!("../../docs/walkthrough.md"),
        12,
        1,
    ),
];
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// Commands that stand inside a sentence, and why they are not run there.
const IN_SENTENCES: [(&str, &str); 7] = [
    ("make up", "run as a block"),
    (
        "make up NGINX_PORT=18080 REDIS_PORT=16379",
        "the cluster runs on ports of its own already",
    ),
    ("make up TLS=1", "tests/it/local.rs runs it"),
    ("make down", "run as the last block of docs/walkthrough.md"),
    ("make test", "runs this test"),
    (
        "cargo run",
        "listens on 8081, which may be taken; tests/it/wire.rs runs the memory broker",
    ),
    (
        "docker compose --file deploy/compose.yaml up --build --wait",
        "needs a container engine and builds an image",
    ),
];

/// What stands in the README, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// `## ...`
    Section(&'a str),
    /// A line of prose or of a table.
    Prose(&'a str),
    /// A fenced block: its language and text.
    Block(&'a str, &'a str),
}

pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').expect("a line end");
        rest = after;
        if let Some(language) = line.strip_prefix("```") {
            let (block, after) = after.split_once("```\n").expect("the end of a block");
            parts.push(Part::Block(language, block));
            rest = after;
        } else if let Some(title) = line.strip_prefix("## ") {
            parts.push(Part::Section(title));
        } else if !line.is_empty() {
            parts.push(Part::Prose(line));
        }
    }
    parts
}

/// The commands of a block: a line each, with its here-document if it has one. An archive is unpacked by
/// `deploy/dist/walk`.
pub(crate) fn commands(block: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = block.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("tar -xf tidegate-") {
            continue;
        }
        let mut command = line.to_owned();
        if let Some((_, end)) = line.split_once("<<") {
            let end = end.trim_matches('\'');
            for line in lines.by_ref() {
                write!(command, "\n{line}").unwrap();
                if line == end {
                    break;
                }
            }
        }
        commands.push(command);
    }
    commands
}

/// Runs until it is interrupted.
fn is_stream(command: &str) -> bool {
    command.starts_with("curl -N ") || command.contains("tidegate tail ")
}

/// What differs from run to run, replaced: ids by the order in which they appear.
pub(crate) fn normalised(text: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digit = |c: char| c.is_ascii_digit() || c == '-';
        let word = rest.len() - rest.trim_start_matches(digit).len();
        let (word, after) = rest.split_at(word.max(c.len_utf8()));
        rest = after;
        if word.len() > 14 && word.as_bytes()[13] == b'-' {
            let known = ids.iter().position(|id| *id == word);
            let number = known.unwrap_or_else(|| {
                ids.push(word);
                ids.len() - 1
            });
            write!(out, "ID{number}").unwrap();
        } else if [
            "retry: ",
            "\"replica\":\"r",
            "\"subscribers\":",
            "\"time\":",
        ]
        .iter()
        .any(|before| out.ends_with(before))
        {
            out.push('N');
        } else {
            out.push_str(word);
        }
    }
    // Heartbeats come at random moments.
    let lines: Vec<&str> = out.lines().filter(|line| *line != ":").collect();
    lines.join("\n").trim_end().to_owned()
}

/// A cluster that ends with this value, and also if the test is killed: it lives as long as its
/// standard input.
#[derive(Debug)]
struct Cluster {
    process: Child,
    input: Option<ChildStdin>,
    told: BTreeMap<String, String>,
    /// Programs that stand before those on the path.
    path: Directory,
}

impl Cluster {
    fn start() -> Self {
        let mut process = Command::new(Path::new(ROOT).join("deploy/local/cluster"))
            .args(["run", "--", "sh", "-c", "env; echo; exec cat >/dev/null"])
            .env("TIDEGATE_BIN", BINARY)
            .env("REPLICAS", "3")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the cluster's script runs");
        let input = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told: BTreeMap<String, String> = lines
            .map(|line| line.expect("text"))
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                line.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .filter(|(name, _)| name.ends_with("_PORT") || name == "CLUSTER_DIR")
            .collect();
        let mut cluster = Self {
            process,
            input,
            told,
            path: Directory::create(),
        };
        assert!(
            cluster.told.contains_key("NGINX_PORT"),
            "the cluster did not start"
        );
        cluster.shadow_redis_cli();
        cluster.wait_for_ears();
        cluster
    }

    fn port(&self, name: &str) -> u16 {
        self.told[name].parse().expect("a port")
    }

    /// `redis-cli` has no variable for the port.
    fn shadow_redis_cli(&mut self) {
        let script = format!(
            "#!/bin/sh\nPATH=${{PATH#*:}}\nexec redis-cli -p {} \"$@\"\n",
            self.port("REDIS_PORT")
        );
        let path = self.path.0.join("redis-cli");
        std::fs::write(&path, script).unwrap();
        let made = Command::new("chmod").arg("+x").arg(path).status();
        assert!(made.unwrap().success());
    }

    /// Waits until every replica counts raw publishes, by one that is no event: its topic is `*`.
    fn wait_for_ears(&self) {
        let heard = |replica: u16| {
            let text = get(self.port("REPLICA_PORT") + replica, "/metrics").text();
            !text.contains("tidegate_ingest_heard_total 0\n")
        };
        eventually("the replicas count raw publishes", || {
            self.run("redis-cli PUBLISH 'events:*' x");
            (0..3).all(heard)
        });
    }

    /// A command of the README, spoken to this cluster.
    fn command(&self, text: &str) -> Command {
        let mut text = text.replace("target/release/tidegate", BINARY);
        for (default, name, more) in [
            ("8080", "NGINX_PORT", 0),
            ("8081", "REPLICA_PORT", 0),
            ("8082", "REPLICA_PORT", 1),
            ("8083", "REPLICA_PORT", 2),
            ("9090", "PROMETHEUS_PORT", 0),
            ("6379", "REDIS_PORT", 0),
        ] {
            text = text.replace(
                &format!("127.0.0.1:{default}"),
                &format!("127.0.0.1:{}", self.port(name) + more),
            );
        }
        let path = format!(
            "{}:{}",
            self.path.0.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &text])
            .current_dir(ROOT)
            .env("PATH", path)
            .env("TIDEGATE_BIN", BINARY)
            .envs(&self.told)
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL");
        command
    }

    /// Runs a command to its end; what it prints, with a line end.
    fn run(&self, text: &str) -> String {
        let output = self
            .command(text)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success(),
            "{text}\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let needs_end = !said.is_empty() && !said.ends_with('\n');
        said + if needs_end { "\n" } else { "" }
    }

    /// Starts a command that goes on, and waits for its first line.
    fn follow(&self, text: &str) -> Process {
        let process =
            Process::spawn(text, &mut self.command(&format!("exec {text}"))).expect("bash runs");
        let first = process.stdout.wait_for(|line| Some(line.to_owned()));
        assert!(
            first.is_some(),
            "{text} shows nothing: {:?}",
            process.stderr.all()
        );
        process
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.process.wait();
        if !std::thread::panicking() {
            assert!(
                ended.expect("it can be waited for").success(),
                "the cluster ended badly"
            );
        }
    }
}

#[test]
fn every_command_runs_and_answers_as_shown() {
    for (name, page, commands_min, answers_min) in PAGES {
        eprintln!("{name}");
        let cluster = Cluster::start();
        let (run, compared) = assert_shows_what_happens(&cluster, page);
        assert!(
            run >= commands_min && compared >= answers_min,
            "{name}: {run} commands, {compared} answers"
        );
        if page.contains("\nmake down\n") {
            let said = cluster.run("make down");
            assert!(said.contains("nothing was running"), "{name} ends it");
        }
    }
}

/// Runs all commands of a page; how many they were, and how many answers were compared.
fn assert_shows_what_happens(cluster: &Cluster, page: &str) -> (usize, usize) {
    let parts = parts(page);
    let mut streams: Vec<(&str, Process)> = Vec::new();
    let mut answer = None;
    let (mut run, mut compared) = (0, 0);
    for part in &parts {
        match part {
            Part::Section(_) => {
                streams.clear();
                answer = None;
            }
            Part::Prose(_) => answer = None,
            Part::Block("sh", block) if is_stream(block) => {
                streams.push((block, cluster.follow(block.trim_end())));
                run += 1;
            }
            Part::Block("sh", block) => {
                let each = commands(block);
                answer = Some((
                    block,
                    each.iter()
                        .map(|command| cluster.run(command))
                        .collect::<String>(),
                ));
                run += each.len();
                if ["cluster start", "cluster restart"]
                    .iter()
                    .any(|way| block.contains(way))
                {
                    cluster.wait_for_ears();
                }
            }
            Part::Block("text", shown) => {
                compared += 1;
                if let Some((block, said)) = answer.take() {
                    assert_eq!(
                        normalised(&said),
                        normalised(shown),
                        "the answer to\n{block}\n{said}"
                    );
                } else {
                    let (command, stream) = streams.last().expect("a stream");
                    let all = || normalised(&stream.stdout.all().join("\n"));
                    eventually(&format!("{command} shows\n{shown}"), || {
                        all() == normalised(shown)
                    });
                }
            }
            Part::Block("js", _) => {}
            Part::Block("toml", text) => assert_is_a_configuration(text),
            Part::Block(language, _) => panic!("a block of {language:?}"),
        }
    }
    (run, compared)
}

#[test]
fn every_command_in_a_sentence_is_accounted_for() {
    let programs = [
        "make",
        "cargo",
        "docker",
        "curl",
        "redis-cli",
        "tidegate",
        "deploy/local/cluster",
    ];
    let mut found: Vec<&str> = Vec::new();
    for part in parts(README) {
        let Part::Prose(line) = part else { continue };
        let spans = line.split('`').skip(1).step_by(2);
        found.extend(spans.filter(|span| {
            // One word alone is a name; a pattern in capitals is not to be typed.
            span.split_once(' ')
                .is_some_and(|(program, _)| programs.contains(&program))
        }));
    }
    found.retain(|span| {
        ![
            "redis-cli PUBLISH",
            "redis-cli -p 16379",
            "tidegate publish",
            "tidegate tail",
        ]
        .contains(span)
    });
    found.sort_unstable();
    found.dedup();
    let mut known: Vec<&str> = IN_SENTENCES.iter().map(|(command, _)| *command).collect();
    known.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn the_table_of_keys_agrees_with_the_shipped_file() {
    let shipped = include_str!("../../deploy/tidegate.toml");
    let rows = table(CONFIGURE, "| key | default | what |");
    for cells in &rows {
        let (section, name) = cells[0].split_once('.').expect("a key");
        let (_, section) = shipped
            .split_once(&format!("\n[{section}]\n"))
            .expect("a section");
        let (_, value) = section.split_once(&format!("\n#{name} = ")).expect("a key");
        let value = value.lines().next().unwrap().trim_matches('"');
        let expected = if matches!(value, "" | "[]") {
            "none"
        } else {
            value
        };
        assert_eq!(cells[1], expected, "{cells:?}");
    }
    assert!(rows.len() > 10, "{rows:?}");
}

#[test]
fn the_table_of_reasons_knows_every_gap() {
    let mut told: Vec<String> = table(SUBSCRIBE, "| reason | why |")
        .into_iter()
        .map(|mut cells| cells.remove(0))
        .collect();
    let mut known = tidegate::sse::GapReason::ALL.map(tidegate::sse::GapReason::as_str);
    told.sort();
    known.sort_unstable();
    assert_eq!(told, known);
}

#[test]
fn every_metric_exists() {
    let gateway = crate::support::Gateway::start(&[]);
    let text = gateway.get("/metrics").text();
    let words = PAGES
        .iter()
        .flat_map(|(_, page, ..)| page.split('`').skip(1).step_by(2));
    let metrics: Vec<&str> = words
        .filter(|word| word.starts_with("tidegate_") && *word != "tidegate_publish")
        .collect();
    for metric in &metrics {
        assert!(text.contains(&format!("\n# TYPE {metric} ")), "{metric}");
    }
    assert!(metrics.len() > 5, "{metrics:?}");
}

/// A part of a configuration file is one by itself.
fn assert_is_a_configuration(text: &str) {
    let directory = Directory::create();
    let path = directory.0.join("part.toml");
    std::fs::write(&path, text).expect("a file");
    let checked = Command::new(BINARY)
        .args(["check-config", "--config"])
        .arg(&path)
        .output()
        .expect("check-config runs");
    assert!(checked.status.success(), "{checked:?}");
}

/// The rows of the table that begins with this line: cells without the marks of code.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let (_, rows) = page
        .split_once(head)
        .unwrap_or_else(|| panic!("no table {head}"));
    let rows = rows
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split(" | ");
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

fn get(port: u16, target: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    exchange(([127, 0, 0, 1], port).into(), head.as_bytes())
}
