//! A real master, its replica, and the sentinels that watch them.

use super::process::{Directory, Process};
use super::redis::{next_port, server_program};
use super::{Redis, eventually};
use redis::{FromRedisValue, RedisResult};
use std::fmt::Write as _;
use std::process::Command;

/// Sentinels, and how many of them must agree.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// A master and its replicas, watched by sentinels under the name `main`. Ended on drop.
#[derive(Debug)]
pub struct Watched {
    /// The first was the master at the beginning.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    _directory: Directory,
}

/// One sentinel.
#[derive(Debug)]
pub struct Sentinel {
    pub process: Process,
    port: u16,
}

impl Sentinel {
    /// A command on a connection of its own.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// The port of the master, as far as this one knows.
    pub fn master(&self) -> Option<u16> {
        let answer: RedisResult<(String, u16)> =
            self.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
        Some(answer.ok()?.1)
    }
}

impl Watched {
    /// Everything up, and known to one another.
    pub fn start(replicas: usize) -> Self {
        // Whoever becomes the master is followed at once, too.
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let master = Redis::with(&at_once);
        let port = master.port().to_string();
        let of_master = [&at_once[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let replicas: Vec<Redis> = (0..replicas).map(|_| Redis::with(&of_master)).collect();
        eventually("the replicas follow", || {
            replicas.iter().all(|replica| {
                let state: String = replica.run(&["INFO", "replication"]);
                state.contains("master_link_status:up")
            })
        });
        let directory = Directory::create();
        let start = |number| Sentinel::start(&directory, number, master.port());
        let sentinels: Vec<Sentinel> = (0..SENTINELS).map(start).collect();
        let watched = Self {
            servers: [master].into_iter().chain(replicas).collect(),
            sentinels,
            _directory: directory,
        };
        let replicas = watched.servers.len() - 1;
        eventually("the sentinels know one another and the replicas", || {
            let mut sentinels = watched.sentinels.iter();
            sentinels.all(|sentinel| sentinel.knows(replicas))
        });
        watched
    }

    /// `redis+sentinel://…/main`.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/main", addresses.join(","))
    }

    /// Waits until every sentinel that answers names the same other server, and which it is.
    pub fn failed_over(&self) -> &Redis {
        let mut ports = Vec::new();
        eventually("the sentinels name another master", || {
            ports = self.sentinels.iter().filter_map(Sentinel::master).collect();
            ports
                .iter()
                .all(|port| *port == ports[0] && *port != self.servers[0].port())
        });
        let named = self.servers.iter().find(|server| server.port() == ports[0]);
        named.expect("one of them is the master")
    }
}

impl Sentinel {
    fn start(directory: &Directory, number: usize, master: u16) -> Self {
        let port = next_port();
        let folder = directory.0.join(number.to_string());
        std::fs::create_dir(&folder).expect("a directory for a sentinel");
        let mut config = format!("port {port}\nbind 127.0.0.1\ndir {}\n", folder.display());
        writeln!(config, "sentinel monitor main 127.0.0.1 {master} {QUORUM}").expect("text");
        for (name, value) in [("down-after-milliseconds", 500), ("failover-timeout", 1500)] {
            writeln!(config, "sentinel {name} main {value}").expect("text");
        }
        let file = folder.join("sentinel.conf");
        std::fs::write(&file, config).expect("a file for a sentinel");
        let mut command = Command::new(server_program());
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn("sentinel", &mut command).expect("a sentinel starts");
        Self { process, port }
    }

    fn knows(&self, replicas: usize) -> bool {
        let state: RedisResult<std::collections::HashMap<String, String>> =
            self.run(&["SENTINEL", "MASTER", "main"]);
        state.is_ok_and(|state| {
            let others = SENTINELS - 1;
            state["num-other-sentinels"] == others.to_string()
                && state["num-slaves"] == replicas.to_string()
        })
    }
}
