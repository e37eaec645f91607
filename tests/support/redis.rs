//! A real redis-server, private to one test.

use super::eventually;
use super::process::{Directory, Process, next_number};
use redis::{Connection, FromRedisValue, Value};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Ports that are tried for one server.
const TRIES: usize = 50;
/// Below the range from which the system gives ports to outgoing connections, so that a server
/// that restarts finds its port free.
const PORTS: (usize, usize) = (20_000, 12_000);
/// Time for one answer to a test's own command.
const ANSWER: Duration = Duration::from_secs(10);

/// A redis-server on a free port of loopback, with a directory of its own. Ended on drop.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    options: Vec<String>,
    directory: Directory,
    connection: Mutex<Option<Held>>,
}

/// A connection, without a wordy `Debug`.
struct Held(Connection);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Redis {
    /// A server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server that writes everything to disk before it answers, so that a restart loses nothing.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server with more options, after those that keep it off the disk.
    ///
    /// # Panics
    /// If redis-server is not installed: a test that needs it is never skipped in silence.
    pub fn with(options: &[&str]) -> Self {
        let directory = Directory::create();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..TRIES {
            let port = next_port();
            if TcpListener::bind(("127.0.0.1", port)).is_err() {
                continue;
            }
            if let Some(process) = launch(port, &options, &directory) {
                return Self {
                    process,
                    port,
                    options,
                    directory,
                    connection: Mutex::new(None),
                };
            }
        }
        panic!("no free port for a redis-server in {TRIES} tries");
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The same for one of its users.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs a command, given as its words, and reads the answer.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.run_bytes(&bytes)
            .unwrap_or_else(|why| panic!("{words:?}: {why}"))
    }

    /// Runs a command whose words need not be text; the server's refusal is an error.
    pub fn run_bytes<T: FromRedisValue>(&self, words: &[&[u8]]) -> redis::RedisResult<T> {
        let mut held = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut command = redis::cmd(std::str::from_utf8(words[0]).expect("a command"));
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        let connection = held.get_or_insert_with(|| Held(self.connect()));
        let answer = command.query(&mut connection.0);
        if answer
            .as_ref()
            .is_err_and(redis::RedisError::is_unrecoverable_error)
        {
            *held = None;
        }
        answer
    }

    /// `FCALL tidegate_publish 0 TOPIC DATA …`, and the id.
    pub fn publish(&self, topic: &str, data: &str, more: &[&str]) -> String {
        let mut words = vec!["FCALL", "tidegate_publish", "0", topic, data];
        words.extend(more);
        self.run(&words)
    }

    /// `PUBLISH CHANNEL DATA`, and the number of receivers.
    pub fn publish_raw(&self, channel: &str, data: &[u8]) -> u64 {
        self.run_bytes(&[b"PUBLISH", channel.as_bytes(), data])
            .expect("PUBLISH is answered")
    }

    /// A connection of its own.
    pub fn connect(&self) -> Connection {
        let client = redis::Client::open(self.url()).expect("a URL");
        let connection = client
            .get_connection_with_timeout(ANSWER)
            .expect("redis-server answers");
        connection
            .set_read_timeout(Some(ANSWER))
            .expect("a time-out");
        connection
    }

    /// SIGKILL: what was not on disk is lost, and nothing is said to anyone.
    pub fn kill(&mut self) {
        *self
            .connection
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.process.kill();
    }

    /// Starts it again on the same port and directory, after [`Redis::kill`] or while it runs.
    pub fn restart(&mut self) {
        self.kill();
        let mut again = None;
        eventually("redis-server takes its port again", || {
            again = launch(self.port, &self.options, &self.directory);
            again.is_some()
        });
        self.process = again.expect("it was launched");
    }

    /// SIGSTOP: connections stand, nothing is answered.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }
}

/// The program under test in place of redis-server: `TIDEGATE_TEST_REDIS=/path/to/valkey-server`.
pub fn server_program() -> String {
    std::env::var("TIDEGATE_TEST_REDIS").unwrap_or_else(|_| "redis-server".into())
}

/// A server that answers on `port`, or none if it ended (another one has the port).
fn launch(port: u16, options: &[String], directory: &Directory) -> Option<Process> {
    let mut command = Command::new(server_program());
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--dir", &directory.0.to_string_lossy()])
        .args(options);
    let mut process = Process::spawn("redis-server", &mut command)
        .unwrap_or_else(|why| panic!("these tests need redis-server 7.0 or newer on the PATH, and {} cannot be started: {why}", server_program()));
    let mut lives = false;
    eventually("redis-server answers", || {
        lives = process.ended().is_none();
        !lives || answers(port, process.id())
    });
    lives.then_some(process)
}

/// Whether the server on `port` is process `id`, and has loaded its data.
fn answers(port: u16, id: u32) -> bool {
    let Ok(client) = redis::Client::open(url(port)) else {
        return false;
    };
    let Ok(mut connection) = client.get_connection_with_timeout(ANSWER) else {
        return false;
    };
    let info: redis::RedisResult<String> = redis::cmd("INFO").arg("server").query(&mut connection);
    let loaded: redis::RedisResult<Value> = redis::cmd("DBSIZE").query(&mut connection);
    loaded.is_ok() && info.is_ok_and(|info| info.contains(&format!("process_id:{id}\r")))
}

pub(super) fn next_port() -> u16 {
    let (first, count) = PORTS;
    let mixed = std::process::id() as usize * 61 + next_number();
    u16::try_from(first + mixed % count).expect("below 32000")
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
