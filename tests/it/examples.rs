//! Goal: the examples of docs/auth-examples.md run as they stand, and print what they show; the commands of docs/auth.md run.
//!
//! Method: each section in a folder of its own. Blocks that name a file are that file; commands are run from top to bottom,
//! with the real binary. Only the gateway's address is exchanged.

use crate::readme::{Part, commands, normalised, parts};
use crate::support::{Directory, Process, binary, eventually, exchange, free_address, request};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

const PAGE: &str = include_str!("../../docs/auth-examples.md");
const RIGHTS: &str = include_str!("../../docs/auth.md");
/// Where the pages have their gateway.
const SHOWN: &str = "127.0.0.1:8081";
const SERVE: &str = "tidegate serve --config tidegate.toml & echo $! >tidegate.pid";

/// One section while it is played.
struct Section {
    folder: Directory,
    address: SocketAddr,
    gateway: Option<Process>,
}

impl Section {
    fn begin() -> Self {
        let folder = Directory::create();
        let program = binary();
        std::os::unix::fs::symlink(program.get_program(), folder.0.join("tidegate")).unwrap();
        Self {
            folder,
            address: free_address(),
            gateway: None,
        }
    }

    /// Runs a command to its end; what it prints.
    fn run(&mut self, command: &str) -> String {
        if command == SERVE {
            self.serve();
            return String::new();
        }
        let read = self.times_read();
        let said = self.shell(command).output().unwrap();
        assert!(said.status.success(), "{command}\n{said:?}");
        if command.starts_with("kill -HUP ") {
            eventually("the configuration was read again", || {
                self.times_read() != read
            });
        }
        String::from_utf8(said.stdout).unwrap()
    }

    fn shell(&self, command: &str) -> Command {
        let command = command.replace(SHOWN, &self.address.to_string());
        let path = std::env::var("PATH").unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &command])
            .current_dir(&self.folder.0)
            .env("PATH", format!("{}:{path}", self.folder.0.display()));
        bash
    }

    /// Starts a command that goes on.
    fn follow(&self, command: &str) -> Process {
        Process::spawn(command, &mut self.shell(command)).unwrap()
    }

    fn serve(&mut self) {
        let mut command = binary();
        command
            .args(["serve", "--config", "tidegate.toml", "--listen"])
            .arg(self.address.to_string())
            .current_dir(&self.folder.0);
        let gateway = Process::spawn("tidegate", &mut command).unwrap();
        eventually("it listens", || TcpStream::connect(self.address).is_ok());
        fs::write(self.folder.0.join("tidegate.pid"), gateway.id().to_string()).unwrap();
        self.gateway = Some(gateway);
    }

    /// How often the gateway has taken its configuration anew.
    fn times_read(&self) -> String {
        if self.gateway.is_none() {
            return String::new();
        }
        let metrics = exchange(self.address, &request("GET", "/metrics", &[], b"")).text();
        let name = "tidegate_config_reloads_total{outcome=\"taken\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("0").to_owned()
    }
}

#[test]
fn every_example_of_rights_runs_and_prints_what_it_shows() {
    let mut section = Section::begin();
    let (mut run, mut compared) = (0, 0);
    let mut said = String::new();
    for part in parts(PAGE) {
        match part {
            Part::Section(_) => section = Section::begin(),
            Part::Prose(_) => {}
            Part::Block("sh", block) => {
                let commands = commands(block);
                run += commands.len();
                said = commands.iter().map(|one| section.run(one)).collect();
            }
            Part::Block("text", shown) => {
                assert_eq!(normalised(&said), normalised(shown));
                compared += 1;
            }
            Part::Block("toml" | "python", text) => {
                let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
                fs::write(section.folder.0.join(name.expect("a name")), text).unwrap();
            }
            Part::Block(language, _) => panic!("a block of {language:?}"),
        }
    }
    assert!(
        run > 25 && compared > 4,
        "{run} commands, {compared} answers"
    );
}

/// The commands that a section of docs/auth.md shows, indented.
fn indented(title: &str) -> Vec<&'static str> {
    let (_, section) = RIGHTS.split_once(&format!("\n## {title}\n")).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .filter(|line| line.contains("tidegate ") || line.starts_with("curl "))
        .collect()
}

#[test]
fn the_shortest_way_and_what_else_is_shown_of_rights_runs() {
    let mut section = Section::begin();
    let (_, config) = RIGHTS.split_once("\n```toml\n").unwrap();
    let (config, _) = config.split_once("```\n").unwrap();
    fs::write(section.folder.0.join("tidegate.toml"), config).unwrap();
    // It is served at another address.
    let [_, new, curl, publisher, publish] = indented("The shortest way")[..] else {
        panic!("five commands");
    };
    section.serve();
    section.run(new);
    let curl = section.follow(&format!("exec {curl}"));
    let shows = |text: &str| {
        let lines = curl.stdout.all();
        lines.iter().any(|line| line.contains(text))
    };
    eventually("the stream is open", || shows("tidegate.open"));
    section.run(publisher);
    let url = format!("tidegate publish --url http://{SHOWN}");
    section.run(&publish.replace("tidegate publish", &url));
    eventually("it shows what is published", || shows("data: hello"));
    let [explain] = indented("Why a request is refused")[..] else {
        panic!("one command");
    };
    assert!(section.run(explain).contains("user:42"));
    let [key] = indented("Publishers with a key")[..] else {
        panic!("one command");
    };
    let said = section.run(key);
    let said: Vec<&str> = said.lines().collect();
    assert!(
        said[0].starts_with("tgk_") && said[1].starts_with("sha256:"),
        "{said:?}"
    );
}
